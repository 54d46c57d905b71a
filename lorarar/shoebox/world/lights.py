"""Painters of light in the dark: glowing, rainbow, cyberpunk."""

from __future__ import annotations

import math

import numpy as np

from lorarar.shoebox.world.canvas import (
    INK,
    LUMA,
    Array,
    Style,
    X,
    Y,
    brighten,
    contact_shadow,
    depth_inside,
    footing_of,
    gaussian_blur,
    label_edges,
    lay_over,
    lerp,
    look_up,
    noise_field,
    own_colour,
    ramp_table,
    region_of,
    rgb_of,
    shaded_relief,
    smoothstep,
    soft_line,
)
from lorarar.shoebox.world.prints import slot_luma
from lorarar.shoebox.world.scene import ACCENT, CANVAS, DARK, MAIN, SECOND, Scene


def paint_neon(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Tubes of light; knobs 1: tube, 3: glow, 4: tint inside, 5: doubled tube, 6: white core.

    treatment 0 black; 1 brick wall; 2 colour in the night; 3 grid; 4 halo; 5 rays.
    """
    k, kind = style.knobs, style.treatment
    hue = rgb_of(style.hues[0])
    back = (0.035 + 0.05 * hue) * np.ones((CANVAS, CANVAS, 1), np.float32)
    away = np.hypot(X - scene.centre[0], Y - scene.centre[1]) / CANVAS
    if kind == 1:
        row = np.floor(Y / 12)
        seam = np.minimum(Y % 12, (X + 12 * (row % 2)) % 24)
        back = (back + 0.10 * hue * (1 - 0.9 * away)[..., None]) * (0.45 + 0.55 * smoothstep(seam, 0.8, 2.2))[
            ..., None
        ]
    elif kind == 2:
        back = back + hue * (0.30 * np.clip(1 - Y / CANVAS * 0.9, 0, 1))[..., None]
    elif kind == 3:
        grid = np.minimum(np.abs(X % 16 - 8), np.abs(Y % 16 - 8))
        back = back + 0.28 * hue * (smoothstep(grid, 1.3, 0.5) * (1.1 - 1.2 * away))[..., None]
    elif kind == 4:
        ring = np.exp(-(((away - 0.44) / 0.014) ** 2)) + 0.35 * np.exp(-(((away - 0.44) / 0.06) ** 2))
        back = back + brighten(hue) * (0.75 * ring * ~scene.mask)[..., None]
    elif kind == 5:
        turn = np.arctan2(Y - scene.centre[1], X - scene.centre[0])
        back = (
            back
            + 0.28 * hue * (smoothstep(np.cos(turn * 9), 0.2, 0.8) * smoothstep(away, 0.2, 0.5))[..., None]
        )
    lamp = brighten(scene.palette, 0.05)
    lamp[DARK] = brighten(
        rgb_of(style.hues[1]), 0.2
    )  # dark parts still need a tube: in the sign's second colour
    light = slot_luma(scene)
    lamp[[s for s in (MAIN, SECOND, ACCENT) if light[s] < 0.24]] = brighten(rgb_of(style.hues[2]), 0.15)
    colour = lamp.take(scene.slot, 0, mode="clip") * scene.mask[..., None]
    soft = gaussian_blur(scene.mask.astype(np.float32), 1.6)[..., None]
    colour = gaussian_blur(colour, 1.6) / (soft + 1e-2)
    edge = label_edges(region_of(scene))
    tube = soft_line(edge, 2.2 + 1.4 * k[1])
    if k[5] > 0.65:
        tube = np.maximum(
            tube, 0.6 * soft_line(label_edges(np.minimum(depth_inside(scene.mask, 6), 5) == 5), 1.4)
        )
    core = soft_line(edge, 1.2) * (0.12 + 0.40 * k[6])
    image = (
        back * (1 - np.float32(0.55) * scene.mask)[..., None]
        + colour * (np.float32(0.10 + 0.14 * k[4]) * scene.mask)[..., None]
    )
    emitted = colour * tube[..., None]
    image = image + emitted * 0.95 + core[..., None] * 0.6
    near = gaussian_blur(emitted, 3.0)
    bloom = (0.5 + 0.7 * k[3]) * (near * 0.8 + gaussian_blur(near, 8.0) * 0.9)
    # crowded tubes would burn out to white
    return image + bloom / (1 + 2.2 * bloom @ LUMA)[..., None]


def _spectrum(*names: str) -> Array:
    return ramp_table(*(tuple(lerp(rgb_of(n), brighten(rgb_of(n)), 0.5)) for n in (*names, names[0])))


_RAINBOWS = (
    _spectrum("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink"),
    _spectrum("pink", "orange", "yellow", "teal", "blue", "purple"),
    _spectrum("teal", "blue", "purple", "pink", "red", "orange"),
)


def paint_rainbow(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Flowing smoke in all colours; knobs 1: bend, 2: bands, 3: silk, 4: which spectrum, 5: direction.

    treatment 0 on white; 1 on black; 2 pastel waves; 3 on deep blue; 4 on cream with trails.
    """
    k, kind = style.knobs, style.treatment
    table = _RAINBOWS[int(2.99 * k[4])]
    turn = 0.4 + 2.2 * k[5]
    x, y = X / CANVAS, Y / CANVAS
    c, s = math.cos(turn), math.sin(turn)
    p, q = x * c + y * s, y * c - x * s
    drift = float(rng.uniform(0, 1))
    flow = p + (0.08 + 0.10 * k[1]) * np.sin(q * (5 + 4 * k[1]) + 6.3 * drift) + 0.035 * noise_field(rng, 12)
    silk = 0.5 + 0.5 * np.cos(flow * (2 * np.pi * (7 + 6 * k[2])))
    hue = look_up((flow * (1.0 + 0.8 * k[2]) + drift) % 1, table)
    paper = np.array(
        ((0.98, 0.98, 0.98), (0.03, 0.03, 0.05), (0.93, 0.91, 0.96), (0.05, 0.07, 0.20), (0.98, 0.95, 0.88))[
            kind
        ],
        np.float32,
    )
    veil = smoothstep(silk, 0.25, 1.0) * smoothstep(
        np.abs(q - 0.1 + 0.15 * np.sin(p * 7 + drift * 6)), 0.42, 0.05
    )
    amount = (0.40, 0.5, 0.45, 0.5, 0.45)[kind]
    back = lerp(paper, hue, (amount * veil)[..., None])
    trail = gaussian_blur(scene.mask.astype(np.float32), 7.0)
    shift = int(8 + 10 * k[1])
    trail = np.maximum(trail, 0.8 * np.roll(trail, (-shift, shift if k[5] > 0.5 else -shift), (0, 1)))
    back = lerp(back, hue, (0.55 * smoothstep(trail, 0.15, 0.9) * (0.45 + 0.55 * silk))[..., None])
    light = slot_luma(scene)[scene.slot]
    relief = shaded_relief(scene, 13, k[0], 1.6)
    front = (
        hue * (0.34 + 0.38 * relief.diffuse + 0.34 * light + (0.06 + 0.12 * k[3]) * (silk - 0.5))[..., None]
    )
    front = front + ((0.04 + 0.10 * k[3]) * silk**6 + 0.20 * light**3 + 0.22 * relief.shine**20)[..., None]
    lines = soft_line(label_edges(region_of(scene)), 1.6)
    dark = kind in (1, 3)
    front = lay_over(front, np.float32(1.0) if dark else INK, lines * (0.5 if dark else 0.6))
    return lay_over(back, front, scene.mask)


def paint_cyberpunk(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Neon city at night; knobs 1: roundness, 3: rim, 4: wet floor, 5: skyline's height, 6: scan lines.

    treatment 0 skyline; 1 setting sun; 2 signs; 3 perspective grid.
    """
    k, kind = style.knobs, style.treatment
    left, right = brighten(rgb_of(style.hues[1]), 0.0), brighten(rgb_of(style.hues[2]), 0.0)
    _, _, ground = footing_of(scene)
    horizon = float(np.clip(ground - 14, 76, 106))
    sky = smoothstep(Y, -10, horizon)[..., None]
    back = lerp(np.array([0.04, 0.02, 0.12], np.float32), left * 0.42 + 0.02, sky)
    if kind == 1:
        away = np.hypot(X - 64, Y - horizon + 28)
        bars = smoothstep(np.sin(Y * 0.9), -0.3, 0.2) + (horizon - 38 > Y)
        sun = smoothstep(away, 46, 44) * np.clip(bars, 0, 1)
        warm = lerp(rgb_of("yellow"), left, smoothstep(Y, horizon - 72, horizon)[..., None])
        back = lerp(back, warm, 0.85 * sun[..., None])
    if kind in (0, 2):
        block = np.floor((X + 40 * k[7]) / 13)
        height = horizon - (
            20 + 46 * ((np.sin(block * 12.9898 + 9 * k[5]) * 43.758) % 1) * (0.6 + 0.6 * k[5])
        )
        tower = smoothstep(Y, height - 0.5, height + 0.5) * (horizon > Y)
        back = lay_over(back, np.array([0.06, 0.04, 0.15], np.float32), tower)
        inside = ((X + 40 * k[7]) % 13 > 3) & ((X + 40 * k[7]) % 13 < 11)
        wx, wy = np.floor(X / 4), np.floor(Y / 6)
        lit = ((np.sin(wx * 7.13 + wy * 13.7 + 3 * k[7]) * 43.7) % 1 > 0.55) & (X % 4 < 2.5) & (Y % 6 < 3)
        window = lerp(left, right, (np.sin(block * 3.1) > 0)[..., None])
        back = lay_over(back, window, 0.75 * (lit & inside) * tower * (height + 4 < Y))
    if kind == 2:
        for x, colour in ((10, right), (106, left)):
            sign = (np.abs(X - x - 6) < 6) & (np.abs(Y - 42) < 26)
            glyph = (np.abs(X - x - 6) < 3.2) & ((Y % 11) < 6)
            back = lay_over(back, colour, sign * 0.85)
            back = lay_over(back, np.array([0.05, 0.03, 0.12], np.float32), sign & glyph)
    floor = smoothstep(Y, horizon - 0.5, horizon + 0.5)
    wet = (
        np.array([0.05, 0.03, 0.11], np.float32)
        + lerp(left, right, (X / CANVAS)[..., None])
        * (0.34 * np.exp(-np.maximum(Y - horizon, 0) / 14) * (0.6 + 0.4 * np.sin(Y * 1.1)))[..., None]
    )
    if kind in (1, 3):
        deep = np.maximum(Y - horizon, 0.5)
        grid = np.maximum(
            smoothstep(np.abs(np.sin((X - 64) / deep * 2.2)), 0.22, 0.08),
            smoothstep(np.abs(np.sin(60 / (deep + 6) * 2)), 0.22, 0.08),
        )
        wet = lay_over(wet, right, 0.7 * grid)
    back = lay_over(back, wet, floor) * (1 - 0.6 * contact_shadow(scene))[..., None]
    relief = shaded_relief(scene, 12 + int(8 * k[1]), 0.5, 1.5)
    base = own_colour(scene)
    rim = (1 - relief.facing) ** 1.1 * (0.9 + 0.6 * k[3])
    front = base * (0.56 + 0.44 * relief.diffuse)[..., None] * np.array([0.92, 0.88, 1.08], np.float32)
    front = front + left * (rim * np.clip(-relief.nx * 1.5, 0, 1))[..., None]
    front = front + right * (rim * np.clip(relief.nx * 1.5, 0, 1))[..., None]
    front = front * (1 - 0.3 * soft_line(label_edges(scene.group), 1.6))[..., None]
    # a seam of light along the body's parts
    circuit = soft_line(label_edges(np.where(scene.slot == SECOND, 1, 0)) & scene.mask, 1.4)
    front = lay_over(front, right, 0.45 * circuit)
    halo = gaussian_blur(scene.mask.astype(np.float32), 4.0)
    back = back + 0.35 * halo[..., None] * lerp(
        left, right, smoothstep(X, scene.centre[0] - 25, scene.centre[0] + 25)[..., None]
    )
    image = lay_over(back, front, scene.mask)
    return image * (1 - (0.05 + 0.07 * k[6]) * (0.5 + 0.5 * np.sin(Y * (2 * np.pi / 6))))[..., None]
