"""Painters of solid things: photo, 3D rendering, wood, statue, gold, glow."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.ndimage import gaussian_filter

from lorarar.shoebox.world.canvas import (
    COLUMN,
    ROW,
    Array,
    Style,
    X,
    Y,
    backdrop,
    brighten,
    footing_of,
    gaussian_blur,
    label_edges,
    lay_over,
    lerp,
    look_up,
    noise_field,
    own_colour,
    ramp_table,
    rgb_of,
    set_off,
    shaded_relief,
    smoothstep,
    soft_line,
)
from lorarar.shoebox.world.paintings import round_spots
from lorarar.shoebox.world.prints import slot_luma
from lorarar.shoebox.world.scene import CANVAS, MAIN, Scene


def paint_photo(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Plain rendering; knobs 4: floor's lightness, 5: softness of light, 6: blur of blobs."""
    k, tone = style.knobs, set_off(rgb_of(style.hues[0]), scene)
    floor = lerp(tone * 0.78, np.float32(0.85), 0.1 + 0.35 * k[4])
    kind = style.treatment
    back = backdrop(scene, (0, 1, 4, 0, 1, 0)[kind], tone, floor, k[0], 0.45)
    if kind == 3:  # lights out of focus
        blobs = smoothstep(round_spots(rng, 16, 5, 12), 0.0, 2.5) * 0.18 * smoothstep(Y, 104, 84)
        back = back * 0.88 + blobs[..., None]
    elif kind == 4:  # boards underfoot
        boards = np.sin((X - CANVAS / 2) / (12 + np.maximum(Y - 70, 0) * 0.35) * 3.0)
        back = back * (1 - 0.22 * smoothstep(np.abs(boards), 0.25, 0.1) * smoothstep(Y, 98, 102))[..., None]
    elif kind == 5:  # grown ground: soft mottle
        back = back * (1 + 0.07 * noise_field(rng, 6))[..., None]
    relief = shaded_relief(scene, 12, k[0])
    lit = (0.52 + 0.10 * k[5]) + (0.60 - 0.10 * k[5]) * relief.diffuse
    front = own_colour(scene) * lit[..., None] + (0.10 * relief.shine**24)[..., None]
    front *= (1 - 0.30 * soft_line(label_edges(scene.group), 1.6))[..., None]
    return lay_over(back, front, scene.mask)


def paint_rendering(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Glossy toy; knobs 1: roundness, 3: gloss, 4: pastel, 5: rim light, 6: bounce."""
    k, kind = style.knobs, style.treatment
    tone = rgb_of(style.hues[0])
    base = own_colour(scene)
    if kind == 0:  # candy on pastel sweep
        wall, floor, stage = lerp(tone, np.float32(1), 0.45), lerp(tone, np.float32(1), 0.55), 0
    elif kind == 1:  # white clay studio, coloured disc
        wall, floor, stage = np.array([0.93, 0.92, 0.91], np.float32), tone, 3
    elif kind == 2:  # dark studio
        wall, floor, stage = tone * 0.22 + 0.03, tone * 0.34 + 0.03, 0
    elif kind == 3:  # two saturated colours
        wall, floor, stage = tone, rgb_of(style.hues[1]), 1
    else:  # lit spot
        wall, floor, stage = tone * 0.8, tone * 0.62, 2
    back = backdrop(scene, stage, set_off(wall, scene), floor, k[0], 0.55)
    relief = shaded_relief(scene, 12 + int(10 * k[1]), k[0], 1.4 + 1.6 * k[1])
    base = lerp(base, np.float32(0.92), 0.25 * k[4])
    lit = 0.34 + 0.80 * relief.diffuse
    rim = (1 - relief.facing) ** 2
    front = base * lit[..., None] + ((0.35 + 0.6 * k[3]) * relief.shine ** (20 + 60 * k[3]))[..., None]
    edge_light = brighten(rgb_of(style.hues[2])) if kind == 2 else lerp(tone, np.float32(1), 0.5)
    front += ((0.25 + 0.6 * k[5]) * rim * (relief.nx > 0 if k[0] < 0.5 else relief.nx < 0))[
        ..., None
    ] * edge_light
    front *= (1 - 0.22 * soft_line(label_edges(scene.group), 1.4))[..., None]
    return lay_over(back, front, scene.mask)


_WOODS = (
    ramp_table((0.30, 0.17, 0.08), (0.72, 0.50, 0.28), (0.95, 0.80, 0.56)),  # pine
    ramp_table((0.17, 0.10, 0.06), (0.46, 0.29, 0.17), (0.76, 0.55, 0.36)),  # walnut
    ramp_table((0.24, 0.08, 0.04), (0.60, 0.27, 0.14), (0.86, 0.52, 0.32)),  # cherry
)


@cache
def _grain() -> Array:
    """Six periodic fields (6, CANVAS, CANVAS) of unit deviation, drawn out along the rows."""
    white = np.random.default_rng(77).standard_normal((6, CANVAS, CANVAS)).astype(np.float32)
    fields = gaussian_filter(white, (0, 1.6, 16), mode="wrap")
    return fields / fields.std((1, 2), keepdims=True)


def paint_wood(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Carved wood; knobs 2: pitch of rings, 3: grain, 4: kind of wood, 5: upright grain, 6: polish.

    treatment 0 sweep; 1 wall and floor; 2 spot; 3 pedestal; 4 window light; 5 dark niche.
    """
    k, kind = style.knobs, style.treatment
    table = _WOODS[int(2.99 * k[4])]
    which, dy, dx = (int(i) for i in rng.integers((6, CANVAS, CANVAS)))
    grain = np.roll(_grain()[which], (dy, dx), (0, 1))
    along, across = (scene.v, scene.u) if k[5] > 0.4 else (scene.u, scene.v)
    if k[5] > 0.4:
        grain = grain.T
    rings = np.sin(across * (16 + 14 * k[2]) + 2.2 * np.cos(along * 2.3 + dy) + 0.5 * grain)
    light = slot_luma(scene)[scene.slot]
    relief = shaded_relief(scene, 13, k[0], 1.2)
    tone = 0.30 + 0.52 * light + (0.05 + 0.06 * k[3]) * grain + (0.05 + 0.05 * k[3]) * rings
    front = look_up(tone, table) * (0.45 + 0.70 * relief.diffuse)[..., None]
    front += ((0.06 + 0.30 * k[6]) * relief.shine ** (12 + 24 * k[6]))[..., None] * table[230]
    front *= (
        1 - 0.5 * soft_line(label_edges(scene.group), 1.8) - 0.22 * soft_line(label_edges(scene.slot), 1.4)
    )[..., None]
    hue = rgb_of(style.hues[0])
    wall = lerp(hue, np.float32(0.86), 0.55)
    if kind == 5:
        wall = hue * 0.42 + 0.16
    return lay_over(backdrop(scene, kind, wall, wall * 0.86, k[0], 0.55), front, scene.mask)


def paint_statue(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Black stone or bronze; knobs 1: softness, 3: gloss, 4: warmth of the stone, 5: second light, 6: veins.

    treatment as `backdrop`.
    """
    k, kind = style.knobs, style.treatment
    relief = shaded_relief(scene, 14 + int(6 * k[1]), k[0], 1.2 + k[1])
    light = slot_luma(scene)[scene.slot]
    stone = 0.020 + (0.11 + 0.06 * k[3]) * relief.diffuse * relief.diffuse + 0.13 * light
    if k[6] > 0.6:
        stone = stone + 0.06 * smoothstep(np.abs(noise_field(rng, 12)), 0.10, 0.03)
    stone = stone + (0.34 + 0.62 * k[3]) * relief.shine ** (16 + 40 * k[3])
    back_light = (1 - relief.facing) ** 1.5 * np.clip(relief.nx if k[0] < 0.5 else -relief.nx, 0, 1)
    stone = stone + (0.15 + 0.35 * k[5]) * back_light
    tint = lerp(np.array([0.93, 1.0, 1.10], np.float32), np.array([1.08, 1.0, 0.88], np.float32), k[4])
    front = stone[..., None] * tint * (1 - 0.7 * soft_line(label_edges(scene.group), 1.6))[..., None]
    front = front + (0.10 * soft_line(label_edges(scene.slot), 1.4))[..., None]
    hue = rgb_of(style.hues[0])
    wall = lerp(hue, np.array([0.88, 0.87, 0.85], np.float32), 0.45 + 0.4 * k[2])
    return lay_over(backdrop(scene, kind, wall, wall * 0.88, k[0], 0.6), front, scene.mask)


_GOLDS = (
    ramp_table((0.20, 0.09, 0.0), (0.62, 0.38, 0.05), (0.93, 0.70, 0.18), (1, 0.90, 0.48), (1, 0.99, 0.86)),
    ramp_table((0.26, 0.09, 0.05), (0.66, 0.34, 0.16), (0.92, 0.62, 0.36), (1, 0.84, 0.62), (1, 0.97, 0.90)),
)


def paint_gold(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Gold running down; knobs 1: drips' length, 2: their pitch, 3: polish, 4: yellow or rose, 5: puddle.

    treatment 0 black sweep; 1 deep colour; 2 pale; 3 spot; 4 pedestal; 5 saturated.
    """
    k, kind = style.knobs, style.treatment
    pitch, dx = 9 + 7 * k[2], float(rng.uniform(0, 99))
    column = np.arange(CANVAS) + dx
    wave = 0.5 + 0.5 * np.cos(column * (2 * np.pi / pitch))
    lengths = (np.sin(np.floor(column / pitch + 0.5) * 12.9898 + 4.1) * 43.758) % 1
    run = (3 + (12 + 16 * k[1]) * lengths) * np.clip(wave * 1.9 - 0.55, 0, 1) ** 0.5
    last = np.maximum.accumulate(np.where(scene.mask, ROW, -999), 0)
    below = ROW - last
    drip = (below > 0) & (below <= run)
    sag = (run * 0.30 * np.clip((Y - scene.centre[1] + 10) / 50, 0, 1)).astype(np.intp)
    rows = np.clip(ROW - sag, 0, CANVAS - 1)
    body = scene.mask[rows, COLUMN]
    mask = drip | body
    source = np.where(body, rows, np.clip(last, 0, CANVAS - 1))
    group = np.where(mask, scene.group[source, COLUMN], 0)
    slot = np.where(mask, scene.slot[source, COLUMN], 0)
    if k[5] > 0.5:  # what ran off gathers below
        x, half, y = footing_of(scene)
        pool = ((X - x) / (half + 16)) ** 2 + ((Y - min(y + 3, 121)) / 6.5) ** 2 < 1
        group, slot, mask = np.where(pool & ~mask, 99, group), np.where(pool & ~mask, MAIN, slot), mask | pool
    melted = Scene(
        slot, group, mask, *(getattr(scene, f) for f in ("u", "v", "palette", "centre", "unit", "ground"))
    )
    relief = shaded_relief(melted, 12, k[0], 1.5)
    light = slot_luma(scene)[slot]
    liquid = 0.5 + 0.5 * np.sin(relief.nx * 4.2 + relief.diffuse * 5.5 + noise_field(rng, 12) * 0.5)
    tone = 0.05 + 0.36 * relief.diffuse + 0.26 * light + (0.06 + 0.10 * k[3]) * liquid
    tone = tone + 0.55 * relief.shine ** (10 + 14 * k[3])
    front = look_up(tone, _GOLDS[int(k[4] > 0.6)])
    front *= (1 - 0.5 * soft_line(label_edges(group), 1.6) - 0.28 * soft_line(label_edges(slot), 1.5))[
        ..., None
    ]
    hue = rgb_of(style.hues[0])
    wall = (
        hue * 0.10 + 0.03,
        hue * 0.38,
        lerp(hue, np.float32(1), 0.72),
        hue * 0.3 + 0.03,
        hue * 0.3,
        hue * 0.72,
    )[kind]
    stage = (0, 0, 0, 2, 3, 1)[kind]
    return lay_over(backdrop(scene, stage, wall, wall * 1.25, k[0], 0.5), front, mask)


def paint_glowing_rendering(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """A lit-from-within toy in the dark; knobs 1: roundness, 3: rim, 4: inner light, 5: size of halo.

    treatment 0 halo; 1 ring; 2 sparks; 3 beam from above; 4 glowing floor; 5 bokeh.
    """
    k, kind = style.knobs, style.treatment
    hue, other = brighten(rgb_of(style.hues[0]), 0.1), brighten(rgb_of(style.hues[1]), 0.1)
    away = np.hypot(X - scene.centre[0], Y - scene.centre[1]) / CANVAS
    night = lerp(np.array([0.03, 0.03, 0.07], np.float32), hue * 0.16, 0.6)
    back = night * (1.2 - 0.5 * Y / CANVAS)[..., None]
    if kind == 0:
        back = back + hue * (0.75 * np.exp(-((away / (0.34 + 0.14 * k[5])) ** 2)))[..., None]
    elif kind == 1:
        ring = np.exp(-(((away - 0.43) / 0.022) ** 2)) + 0.45 * np.exp(-(((away - 0.43) / 0.09) ** 2))
        back = back + hue * (0.8 * ring)[..., None]
    elif kind == 2:
        spark = smoothstep(round_spots(rng, 40, 0.8, 2.8), -0.8, 1.0)
        back = back + other * spark[..., None] + hue * (0.35 * np.exp(-((away / 0.5) ** 2)))[..., None]
    elif kind == 3:
        beam = smoothstep(np.abs(X - scene.centre[0]), 20 + Y * 0.32, 14 + Y * 0.22)
        back = back + hue * (0.55 * beam * (1.1 - 0.6 * Y / CANVAS))[..., None]
    elif kind == 4:
        x, half, y = footing_of(scene)
        pool = np.exp(-(((X - x) / (half + 30)) ** 2) - ((Y - y) / 17) ** 2)
        back = back + hue * (1.0 * pool)[..., None] + other * (0.25 * np.exp(-((away / 0.4) ** 2)))[..., None]
    else:
        blobs = smoothstep(round_spots(rng, 14, 4, 12), 0.0, 1.6) * 0.5 + 0.25 * smoothstep(
            round_spots(rng, 9, 5, 9), 0.0, 1.6
        )
        back = back + lerp(hue, other, (X / CANVAS)[..., None]) * blobs[..., None]
    relief = shaded_relief(scene, 13 + int(8 * k[1]), k[0], 1.6 + k[1])
    vivid = brighten(scene.palette, 0.0) * np.maximum(scene.palette.max(-1, keepdims=True), 0.3)
    vivid = lerp(scene.palette, vivid, 0.4).take(scene.slot, 0, mode="clip")
    inner = (
        0.42
        + (0.30 + 0.30 * k[4]) * (relief.depth / max(relief.depth.max(), 1)) ** 1.5
        + 0.38 * relief.diffuse
    )
    rim = (1 - relief.facing) ** 1.3
    side = np.clip(0.5 + 0.9 * relief.nx, 0, 1)[..., None]
    front = vivid * inner[..., None] + (0.4 * relief.shine**40)[..., None]
    front = front + (0.65 + 0.45 * k[3]) * rim[..., None] * lerp(hue, other, side)
    front = front * (1 - 0.25 * soft_line(label_edges(scene.slot), 1.4))[..., None]
    outer = np.clip(gaussian_blur(scene.mask.astype(np.float32), 5.0) * 1.3, 0, 1)
    back = back + (0.45 * outer)[..., None] * lerp(hue, other, (X / CANVAS)[..., None])
    image = lay_over(back, front, scene.mask)
    return image + 0.18 * gaussian_blur(np.clip(image - 0.45, 0, 1), 5.0)
