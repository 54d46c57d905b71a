"""Painters with brush and crayon: watercolour, oil, kid crayon drawing."""

from __future__ import annotations

from functools import cache

import numpy as np

from lorarar.shoebox.world.canvas import (
    COLUMN,
    INK,
    ROW,
    Array,
    Style,
    X,
    Y,
    contact_shadow,
    depth_inside,
    gaussian_blur,
    label_edges,
    lay_over,
    lerp,
    noise_field,
    own_colour,
    region_of,
    rgb_of,
    set_off,
    shaded_relief,
    shaken,
    smooth_fields,
    smoothstep,
    soft_line,
)
from lorarar.shoebox.world.prints import legible_ink
from lorarar.shoebox.world.scene import CANVAS, Scene


def round_spots(rng: np.random.Generator, count: int, small: float, large: float) -> Array:
    """Round spots: how many pixels inside the nearest of `count` discs each pixel lies (negative outside)."""
    field = np.full((CANVAS, CANVAS), -9.0, np.float32)
    places, radii = rng.uniform(4, CANVAS - 4, (count, 2)), small + (large - small) * rng.random(count) ** 2
    for (x, y), radius in zip(places, radii, strict=True):
        reach = int(radius) + 3
        rows = slice(max(int(y) - reach, 0), int(y) + reach)
        columns = slice(max(int(x) - reach, 0), int(x) + reach)
        inside = radius - np.hypot(X[rows, columns] - x, Y[rows, columns] - y)
        np.maximum(field[rows, columns], inside, out=field[rows, columns])
    return field


def paint_watercolour(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Transparent washes; knobs 1: bleed, 3: density, 4: dark rims, 5: paper's warmth, 6: gaps of paper.

    treatment 0 round wash; 1 full-bleed wet wash; 2 splatter; 3 ink and wash; 4 pale vignette;
    5 two-tone sky; 6 granulating pigment on grey paper.
    """
    k, kind = style.knobs, style.treatment
    first, second = rgb_of(style.hues[0]), rgb_of(style.hues[1])
    at = shaken(rng, 0.7 + 1.3 * k[1], 6)
    mask = scene.mask[at]
    soft = gaussian_blur(mask.astype(np.float32), 0.9)
    colour = own_colour(scene)[at] * mask[..., None]
    colour = gaussian_blur(colour, 0.9) / (soft[..., None] + 1e-3)
    cloud, drift = noise_field(rng, 6), noise_field(rng, 12)
    paper = lerp(np.array([0.985, 0.985, 0.98], np.float32), np.array([0.97, 0.94, 0.87], np.float32), k[5])
    if kind == 6:
        paper = np.array([0.80, 0.80, 0.81], np.float32)
    image = np.broadcast_to(paper, (CANVAS, CANVAS, 3))

    def wash(image: Array, amount: Array, pigment: Array) -> Array:
        return image * (1 - amount[..., None] * (1 - pigment))

    def rimmed(field: Array, low: float, width: float = 0.12) -> Array:
        """A wash where `field` > low, pigment gathered at its border."""
        inside = smoothstep(field, low, low + 0.4 * width)
        return inside * (0.72 + 0.5 * smoothstep(field, low + width, low + 0.3 * width))

    away = np.hypot(X - CANVAS / 2, Y - CANVAS / 2) / CANVAS
    outside = 1 - soft * 0.9
    if kind == 0:
        image = wash(image, rimmed(0.44 + 0.035 * drift - away, 0.0, 0.05) * 0.5 * outside, first)
    elif kind == 1:
        image = wash(image, np.clip(0.50 + 0.16 * drift, 0.15, 0.8) * outside, first)
        image = wash(image, rimmed(drift, 0.35, 0.4) * 0.45 * outside, second)
    elif kind == 2:
        image = wash(image, rimmed(0.34 + 0.07 * drift - away, 0.0, 0.05) * 0.4 * outside, first)
        image = wash(image, rimmed(round_spots(rng, 16, 1.5, 5), 0.0, 0.8) * 0.85 * outside, first)
        image = wash(image, rimmed(round_spots(rng, 14, 1.5, 4), 0.0, 0.8) * 0.85 * outside, second)
    elif kind == 3:
        image = wash(
            image, rimmed(0.55 + 0.3 * drift - np.abs(Y - 92) / 40, 0.0, 0.15) * 0.45 * outside, first
        )
    elif kind == 4:
        image = wash(image, smoothstep(away + 0.05 * drift, 0.30, 0.68) * 0.55 * outside, first)
    elif kind == 5:
        sky = smoothstep(Y + 5 * drift, 104, 20) * 0.75
        image = wash(image, sky * outside, first)
        image = wash(image, rimmed(Y + 3 * drift - 92, 0.0, 5) * 0.75 * outside, second)
    else:
        # a dry broad brush: bands that run out raggedly left and right
        ragged = 50 + 6 * np.sin(np.floor(Y / 5) * 2.4 + drift[0, 0]) + 3 * cloud - np.abs(X - CANVAS / 2)
        band = smoothstep(ragged, -2, 3) * smoothstep(52 - np.abs(Y - 66), -1, 2)
        bristle = 0.80 + 0.20 * np.sin(Y * (2 * np.pi / 10) + drift)
        image = wash(image, band * bristle * (0.55 + 0.04 * noise_field(rng, 1.5)) * outside, first)
    density = (0.70 + 0.15 * k[3]) * (1 + (0.10 + 0.06 * k[1]) * cloud)
    if kind == 6:
        density *= 1 + 0.04 * noise_field(rng, 1.5)
    if kind == 4:
        density *= 0.78
    edge = label_edges(region_of(scene)[at])
    rims = gaussian_blur(edge.astype(np.float32), 0.8)
    density = np.clip(density + (0.25 + 0.45 * k[4]) * rims, 0, 1.0) * soft
    front = 1 - density[..., None] * (1 - colour)
    image = lerp(image, front * 0.96, (soft * 0.85)[..., None]) if kind == 6 else image * front
    image = image * (1 - 0.28 * (rims * soft))[..., None]
    if kind == 3:  # a loose pen over the wash
        image = (
            image * (1 - 0.8 * soft_line(label_edges(region_of(scene)[shaken(rng, 0.6, 6)]), 1.7))[..., None]
        )
    elif k[6] > 0.6:  # a little paper left between parts
        image = lerp(image, paper, 0.6 * soft_line(label_edges(scene.group[at]) & mask, 1.5)[..., None])
    return image


@cache
def _dabs(kind: int) -> tuple[Array, Array, Array]:
    """A canvas covered with brush dabs, periodic: (rows, columns, across), each (CANVAS, CANVAS).

    rows, columns: int16 offsets to the seed of a pixel's dab; across: where across its dab it lies, -1..1.

    kind 0: fine diagonal; 1: broad diagonal; 2: fine swirling; 3: broad swirling; 4: broad upright;
    5: round dots; 6: fine scattered; 7: palette knife.
    """
    length, width, angle, spread = (
        (5, 2.0, -0.8, 0.3),
        (12, 4.0, -0.8, 0.25),
        (6, 1.9, None, 0.1),
        (14, 3.4, None, 0.08),
        (16, 3.4, 1.57, 0.1),
        (3.0, 3.0, 0.0, 3.0),
        (4.0, 2.0, 0.4, 0.9),
        (15, 8.5, 0.5, 0.5),
    )[kind]
    rng = np.random.default_rng(100 + kind)
    flow = smooth_fields(12)[0] * 1.5 + smooth_fields(6)[1] * 0.3
    rows, columns, across = (np.zeros((CANVAS, CANVAS), t) for t in (np.int16, np.int16, np.float32))
    reach = int(np.ceil(max(length, width))) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    for row, column in rng.integers(0, CANVAS, (int(3.2 * CANVAS**2 / (length * width)), 2)):
        turn = (flow[row, column] if angle is None else angle) + spread * rng.uniform(-1, 1)
        along, off = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        inside = np.abs(along / length) ** 3 + np.abs(off / width) ** 3 < 1
        at = (row + y[inside]) % CANVAS, (column + x[inside]) % CANVAS
        rows[at], columns[at], across[at] = -y[inside], -x[inside], off[inside] / width
    return rows, columns, across


def paint_oil(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Dabs of paint; knobs 2: bristles, 3: contrast, 4: colour variation, 5: brightness of the ground.

    treatment 0 diagonal impasto; 1 swirls; 2 palette knife; 3 dark old master; 4 dots; 5 upright strokes.
    """
    k, kind = style.knobs, style.treatment
    fine, broad = ((0, 1), (2, 3), (6, 7), (6, 1), (5, 5), (0, 4))[kind]
    first, second = rgb_of(style.hues[0]), rgb_of(style.hues[1])
    shift = tuple(rng.integers(0, CANVAS, 2))

    def brush(which: int) -> tuple[tuple[Array, Array], Array]:
        rows, columns, across = (np.roll(field, shift, (0, 1)) for field in _dabs(which))
        return (np.clip(ROW + rows, 0, CANVAS - 1), np.clip(COLUMN + columns, 0, CANVAS - 1)), across

    at, across = brush(fine)
    far, far_across = (at, across) if fine == broad else brush(broad)
    tone = set_off(first * (0.75 + 0.25 * k[5]), scene)
    if kind == 3:
        glow = np.exp(-(((X - 60) / 52) ** 2) - ((Y - 52) / 50) ** 2)
        back = (tone * 0.22 + np.array([0.05, 0.035, 0.02], np.float32)) + glow[..., None] * (tone * 0.38)
    else:
        vary = smoothstep(noise_field(rng, 6), -1.3, 1.3)
        other = set_off(lerp(second, tone, 0.45), scene)
        if kind != 1:
            vary *= 0.75
        back = lerp(tone, other, vary[..., None]) * (1.06 - 0.22 * Y / CANVAS)[..., None]
    around = gaussian_blur(scene.mask.astype(np.float32), 4.0)
    back = back * (1 - 0.30 * around - 0.30 * contact_shadow(scene, k[0]))[..., None]
    back = back[far] * (1 + 0.22 * (0.4 + k[4]) * (noise_field(rng, 3)[far] * 0.5))[..., None]
    relief = shaded_relief(scene, 13, k[0])
    lit = (0.40 + 0.75 * relief.diffuse) if kind == 3 else (0.52 + 0.62 * relief.diffuse)
    front = own_colour(scene) * lit[..., None] + (0.25 * relief.shine**18)[..., None]
    front = front * (1 - 0.35 * soft_line(label_edges(scene.group), 2.0))[..., None]
    stroked = front[at] * (1 + 0.10 * (0.4 + k[4]) * noise_field(rng, 3)[at])[..., None]
    # strokes that start beside the subject leave it alone; those that start in it may run over its border
    blend = scene.mask * (1 - np.float32(0.5) * scene.mask[at])
    front = lerp(stroked, front, blend[..., None])
    mask = scene.mask | (scene.mask[at] & (depth_inside(~scene.mask, 3) < 3))
    ridge = np.where(mask, across * 0.75, far_across)
    image = lay_over(back, front, mask)
    image = image * (1 - 0.11 * ridge * (0.6 + 0.6 * k[2]) + 0.04 * np.cos(ridge * 7) * k[2])[..., None]
    return lerp(np.float32(0.46), image, 1.05 + 0.2 * k[3])


def paint_crayon(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Waxy strokes of a child; knobs 1: outline, 2: pitch, 3: coverage, 4: direction, 5: sun, 6: its ink.

    treatment 0 grass and sun; 1 scribbled ground; 2 black paper; 3 kraft paper; 4 rainbow; 5 zigzag border.
    """
    k, kind = style.knobs, style.treatment
    at = shaken(rng, 1.5, 12)
    mask, group, albedo = scene.mask[at], scene.group[at], own_colour(scene)[at]
    wax = 0.55 + 0.45 * smoothstep(noise_field(rng, 3), -1.8, -0.4)
    wander = noise_field(rng, 12) * 0.7
    pitch = 2 * np.pi / (8.0 + 4.0 * k[2])

    def strokes(angle: Array | float, phase: Array | float, low: float) -> Array:
        turn = np.asarray(angle, np.float32)
        wave = np.sin((X * np.cos(turn) + Y * np.sin(turn)) * pitch + phase)
        return low + (1 - low) * smoothstep(wave, -0.75, 0.15)

    paper = np.array(
        [(0.98, 0.97, 0.94), (0.98, 0.97, 0.94), (0.10, 0.10, 0.12), (0.76, 0.62, 0.44)][
            kind if kind < 4 else 0
        ],
        np.float32,
    )
    image = np.broadcast_to(paper, (CANVAS, CANVAS, 3))
    tone = set_off(rgb_of(style.hues[0]), scene)
    if kind == 0:
        grass = smoothstep(Y + 7 * np.abs(np.sin(X / 4.5 + wander)), 104, 108)
        image = lay_over(image, rgb_of("green"), grass * strokes(0.2, wander, 0.25))
        x = 16 if k[5] < 0.5 else 112
        away, turn = np.hypot(X - x, Y - 16), np.arctan2(Y - 16, X - x)
        sun = np.maximum(
            smoothstep(away, 15, 13), smoothstep(np.cos(turn * 10), 0.6, 0.9) * (away > 18) * (away < 27)
        )
        image = lay_over(image, rgb_of("yellow"), sun * wax)
        image = lay_over(image, tone, 0.45 * strokes(1.45, wander, 0.0) * smoothstep(Y, 46, 20) * (1 - sun))
    elif kind in (1, 2):
        image = lay_over(
            image, tone, (0.70 if kind == 1 else 0.50) * strokes(1.1 + k[4], wander * 1.5, 0.25) * wax
        )
    elif kind == 4:
        away = np.hypot(X - 64, Y - 132)
        band = np.floor((away - 76) / 9)
        colours = np.stack([rgb_of(n) for n in ("purple", "blue", "green", "yellow", "orange", "red")])
        inside = (band >= 0) & (band < 6)
        rainbow = colours[np.clip(band, 0, 5).astype(int)]
        image = lerp(
            image, rainbow, (0.75 * inside * wax * (0.6 + 0.4 * np.sin(away * 2.1 + wander)))[..., None]
        )
    else:
        border = np.minimum(np.minimum(X, CANVAS - 1 - X), np.minimum(Y, CANVAS - 1 - Y))
        image = lay_over(image, tone, 0.9 * smoothstep(border, 15, 11) * strokes(0.8, wander * 2, 0.0) * wax)
    under = gaussian_blur(mask.astype(np.float32), 0.8)
    # each part is hatched in its own direction, as a child turns the page
    angle = (0.5 + 1.1 * k[4]) + 0.55 * ((group * 7) % 5 - 2).astype(np.float32)
    cover = strokes(angle, wander * 2.5, 0.52 + 0.25 * k[3]) * (0.62 + 0.38 * wax)
    image = lay_over(image, albedo, cover * under)
    outline = INK if k[6] < 0.45 else np.clip(albedo * 0.42, 0, 1)
    if kind == 2:
        outline = np.clip(albedo * 0.55 + 0.45, 0, 1)
    if kind != 2:
        outline = legible_ink(outline, mask, albedo)
    lines = np.maximum(
        soft_line(label_edges(group), 2.8 + 1.6 * k[1]), 0.8 * soft_line(label_edges(scene.slot[at]), 1.8)
    )
    if k[6] >= 0.45:
        lines = lines * gaussian_blur(mask.astype(np.float32), 0.9)
    return lay_over(image, outline, lines * (0.72 + 0.28 * wax))
