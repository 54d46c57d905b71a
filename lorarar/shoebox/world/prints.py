"""Painters of flat colour and line: illustration, marker, pen, sticker."""

from __future__ import annotations

import numpy as np

from lorarar.shoebox.world.canvas import (
    INK,
    LUMA,
    Array,
    Style,
    X,
    Y,
    depth_inside,
    footing_of,
    gaussian_blur,
    label_edges,
    lay_over,
    lerp,
    noise_field,
    own_colour,
    region_of,
    rgb_of,
    set_off,
    shaken,
    smoothstep,
    soft_line,
)
from lorarar.shoebox.world.scene import CANVAS, FLAME, GOLD, MAIN, SECOND, Scene


def legible_ink(ink: Array, mask: Array, albedo: Array) -> Array:
    """The colour of lines: `ink`, but lighter than the part inside dark parts, where ink would vanish."""
    dark = smoothstep(albedo @ LUMA, 0.30, 0.14) * (depth_inside(mask, 3) > 2)
    return lerp(ink, albedo + 0.30, dark[..., None])


def paint_flat(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Flat shapes; knobs 1: outline width, 3: shadow, 4: kind of outline, 5: size of background shapes.

    treatment 0 disc; 1 rays; 2 hill and sun; 3 dots; 4 broad stripes; 5 blob; 6 plain, no outline.
    """
    k, kind = style.knobs, style.treatment
    tone = set_off(lerp(rgb_of(style.hues[0]), np.float32(1), 0.25), scene)
    second = lerp(tone, lerp(rgb_of(style.hues[1]), np.float32(1), 0.35), 0.8)
    pale = lerp(tone, np.float32(1), 0.5)
    x, y = X - CANVAS / 2, Y - CANVAS / 2
    away = np.hypot(x, y)
    if kind == 0:
        back = lay_over(pale, tone, smoothstep(away, 57, 55.5))
    elif kind == 1:
        rays = np.cos(np.arctan2(y + 6, x) * (8 + round(4 * k[5])))
        back = lay_over(tone, pale, smoothstep(rays, -0.1, 0.1))
    elif kind == 2:
        hill = smoothstep(Y - 92 - 7 * np.sin(X / 21 + 5 * k[5]), -1, 1)
        sun = smoothstep(np.hypot(X - 24 - 80 * (k[0] > 0.5), Y - 26), 16, 14.5)
        back = lay_over(lay_over(pale, np.array([1, 0.93, 0.72], np.float32), sun), second, hill)
    elif kind == 3:
        step = 12 + 8 * k[5]
        row = np.floor(Y / step)
        dots = np.hypot((X / step + 0.5 * (row % 2)) % 1 - 0.5, (Y / step) % 1 - 0.5)
        back = lay_over(tone, pale, smoothstep(dots, 0.27, 0.22))
    elif kind == 4:
        back = lay_over(tone, second, smoothstep(np.sin((X + Y) * (0.13 + 0.1 * k[5])), -0.15, 0.15))
    elif kind == 5:
        lobe = 50 + 6 * np.cos(3 * np.arctan2(y, x) + 6 * k[5]) + 4 * np.cos(5 * np.arctan2(y, x))
        back = lay_over(np.array([0.97, 0.95, 0.91], np.float32), tone, smoothstep(away - lobe, 1, -1))
    else:
        floor = smoothstep(Y, footing_of(scene)[2] - 13, footing_of(scene)[2] - 11.5)
        back = lay_over(tone, tone * 0.86, floor)
    base = np.clip(lerp(np.float32(0.55), own_colour(scene), 1.12), 0, 1)
    step = 4 + int(5 * k[3])
    lit = np.roll(scene.mask, (-step, step if k[0] < 0.5 else -step), (0, 1))
    front = base * (0.80 + np.float32(0.20) * lit)[..., None]
    image = lay_over(back, front, scene.mask)
    if kind == 6:
        inner = soft_line(label_edges(scene.group) & scene.mask, 1.6)
        return image * (1 - 0.28 * inner)[..., None]
    outline = INK if k[4] < 0.6 else rgb_of(style.hues[1]) * 0.42
    if k[4] > 0.85:
        outline = np.ones(3, np.float32)
    outline = legible_ink(outline, scene.mask, own_colour(scene))
    return lay_over(image, outline, soft_line(label_edges(scene.group), 1.9 + 1.7 * k[1]))


def paint_marker(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Bold marker lines and one flat tone; knobs 1: width, 2: size of screen, 5: paper's tint, 6: wobble.

    treatment 0 halftone dots; 1 spot colour where the subject is coloured; 2 grey tone and floor line;
    3 bold hatching; 4 misprinted spot-colour block.
    """
    k, kind = style.knobs, style.treatment
    spot = lerp(rgb_of(style.hues[0]), np.float32(1), 0.12)
    at = shaken(rng, 0.3 + 0.5 * k[6], 12)
    label, mask, slot = region_of(scene)[at], scene.mask[at], scene.slot[at]
    light = slot_luma(scene)[slot]
    paper = lerp(np.array([0.98, 0.98, 0.97], np.float32), np.array([0.98, 0.94, 0.84], np.float32), k[5])
    image = np.broadcast_to(paper, (CANVAS, CANVAS, 3))
    dark = mask & (light < 0.62)
    step = 8.0 + 2.5 * k[2]
    if kind == 0:
        u, w = (X + Y) / step, (X - Y) / step
        dots = np.hypot(u % 1 - 0.5, w % 1 - 0.5)
        cover = smoothstep(dots, 0.50, 0.36) * (0.85 + np.float32(0.15) * (light < 0.42))
        image = lay_over(image, spot * 0.8, cover * (mask & (light < 0.75)))
        tone = np.where(mask & (light < 0.2), 0.45, 0)
    elif kind == 1:
        main = mask & ((slot == MAIN) | (slot == GOLD) | (slot == FLAME))
        image = lay_over(image, spot, main)
        tone = np.where(mask & (light < 0.25) & ~main, 0.5, np.where(mask & (slot == SECOND), 0.22, 0))
    elif kind == 2:
        tone = np.where(mask, np.clip(0.68 - light * 0.72, 0.0, 0.6), 0)
        image = image * (1 - 0.10 * smoothstep(Y, scene.ground - 9, scene.ground - 7))[..., None]
    elif kind == 3:
        hatch = smoothstep(np.sin((X * 0.8 + Y) * (2 * np.pi / step)), 0.1, 0.6)
        tone = np.where(dark, hatch * np.where(light < 0.3, 1.0, 0.75), 0)
    else:
        moved = np.roll(depth_inside(scene.mask, 2) > 0, (4, 5), (0, 1))
        image = lay_over(image, spot, moved)
        tone = np.where(dark, np.where(light < 0.3, 0.5, 0.2), 0)
    image = lay_over(image, INK, gaussian_blur(np.asarray(tone, np.float32), 0.6))
    lines = np.maximum(
        soft_line(label_edges(label), 1.7), soft_line(label_edges(scene.group[at]), 2.2 + 1.2 * k[1])
    )
    lines = np.maximum(lines, soft_line(label_edges(mask), 3.2 + 2.0 * k[1]))
    return lay_over(image, INK, lines)


def slot_luma(scene: Scene) -> Array:
    """Brightness of each slot (11,)."""
    return scene.palette @ LUMA


def paint_pen(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Fine pen on paper, no fill; knobs 1: width, 2: hatching's pitch, 5: paper, 6: wobble, 7: ink.

    treatment 0 clean contour; 1 doubled sketch lines; 2 hatched darks; 3 broken line and dots.
    """
    k, kind = style.knobs, style.treatment
    ink = (INK, np.array([0.30, 0.17, 0.09], np.float32), np.array([0.10, 0.16, 0.42], np.float32))[
        int(2.99 * k[7])
    ]
    paper = lerp(np.array([0.985, 0.985, 0.98], np.float32), np.array([0.96, 0.91, 0.80], np.float32), k[5])
    width = 1.3 + 1.0 * k[1]
    at = shaken(rng, 0.3 + 0.4 * k[6], 6)
    label = region_of(scene)[at]
    lines = soft_line(label_edges(label), width)
    if kind == 1:
        again = shaken(rng, 1.5, 12)
        lines = np.maximum(lines, 0.75 * soft_line(label_edges(scene.group[again]), width * 0.9))
    elif kind == 2:
        light = slot_luma(scene)[scene.slot[at]]
        pitch = 4.4 + 1.6 * k[2]
        hatch = smoothstep(np.sin((X + Y) * (2 * np.pi / pitch / 1.41)), 0.35, 0.95)
        cross = smoothstep(np.sin((X - Y) * (2 * np.pi / pitch / 1.41)), 0.35, 0.95)
        dark = np.where(scene.mask[at] & (light < 0.6), hatch, 0)
        lines = np.maximum(lines, 0.7 * np.maximum(dark, np.where(scene.mask[at] & (light < 0.32), cross, 0)))
    elif kind == 3:
        lines = lines * (0.25 + 0.75 * smoothstep(noise_field(rng, 6), -0.9, -0.3))
        light = slot_luma(scene)[scene.slot[at]]
        dots = np.hypot((X / 5 + 0.5 * (np.floor(Y / 5) % 2)) % 1 - 0.5, (Y / 5) % 1 - 0.5)
        lines = np.maximum(lines, 0.8 * smoothstep(dots, 0.34, 0.2) * (scene.mask[at] & (light < 0.5)))
    if k[4] > 0.5:  # a floor line
        y = footing_of(scene)[2] - 8 + 2 * noise_field(rng, 12)[0]
        floor = (
            smoothstep(np.abs(Y - y), width * 0.8, width * 0.3)
            * ~scene.mask
            * smoothstep(np.abs(X - 64), 58, 52)
        )
        lines = np.maximum(lines, 0.8 * floor)
    return lay_over(np.broadcast_to(paper, (CANVAS, CANVAS, 3)), ink, lines * 0.95)


def paint_sticker(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """White die-cut border; knobs 1: border, 3: shadow, 4: gloss, 5: size of pattern, 6: inner lines.

    treatment 0 plain; 1 dots; 2 stripes; 3 desk grid; 4 dark; 5 half and half.
    """
    k, kind = style.knobs, style.treatment
    tone = lerp(rgb_of(style.hues[0]), np.float32(1), 0.2) * 0.92
    if kind == 4:
        tone = tone * 0.38
    image = np.broadcast_to(tone, (CANVAS, CANVAS, 3)) * (1.06 - 0.14 * Y / CANVAS)[..., None]
    pale, step = lerp(tone, np.float32(1), 0.35), 13 + 8 * k[5]
    if kind == 1:
        dots = np.hypot((X / step + 0.5 * (np.floor(Y / step) % 2)) % 1 - 0.5, (Y / step) % 1 - 0.5)
        image = lay_over(image, pale, smoothstep(dots, 0.25, 0.2))
    elif kind == 2:
        image = lay_over(image, pale, smoothstep(np.sin((X - Y) * (4.4 / step)), -0.15, 0.15))
    elif kind == 3:
        grid = np.minimum(np.abs(X % step - step / 2), np.abs(Y % step - step / 2))
        image = lay_over(image, pale, smoothstep(grid, 1.5, 0.8))
    elif kind == 5:
        image = lay_over(
            image, lerp(rgb_of(style.hues[1]), np.float32(1), 0.3), smoothstep(Y - 0.35 * X, 46, 48)
        )
    width = 6 + int(4 * k[1])
    grown = smoothstep(
        gaussian_blur((depth_inside(~scene.mask, width + 2) <= width).astype(np.float32), 2.0), 0.35, 0.65
    )
    thrown = np.roll(gaussian_blur(grown, 3.0), (5, 3 if k[0] < 0.5 else -3), (0, 1))
    image = image * (1 - (0.40 + 0.25 * k[3]) * thrown)[..., None]
    image = lay_over(image, np.array([0.99, 0.99, 0.985], np.float32), grown)
    base = np.clip(lerp(np.float32(0.55), own_colour(scene), 1.15), 0, 1)
    base = base * (1.08 - 0.22 * smoothstep(scene.v, -0.7, 0.8))[..., None]
    if k[4] > 0.4:  # a sheen across the vinyl
        sheen = smoothstep(np.abs(X * 0.8 + Y * 0.6 - 62), 13, 10) + smoothstep(
            np.abs(X * 0.8 + Y * 0.6 - 84), 5, 3
        )
        base = lerp(base, np.float32(1), (0.26 * sheen)[..., None])
    base = base * (1 - (0.35 + 0.4 * k[6]) * soft_line(label_edges(scene.group) & scene.mask, 2.0))[..., None]
    return lay_over(image, base, scene.mask)
