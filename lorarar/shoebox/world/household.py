"""Drawings of what stands in a house."""

from __future__ import annotations

import math

import numpy as np

from lorarar.shoebox.world.drawing import (
    Drawing,
    Identity,
    choose,
    draw_badge,
    draw_eyes,
    draw_flower,
    ink_on,
    symmetric,
)
from lorarar.shoebox.world.scene import (
    ACCENT,
    DARK,
    FLAME,
    GOLD,
    LEAF,
    MAIN,
    SECOND,
    STEEL,
    WHITE,
    arc,
    ellipse,
    rounded,
    smooth,
    thick,
    turned,
)


def draw_bowl(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Depth, foot, size of the berries, rim, band, leaves, badge."""
    d, k = Drawing(), i.shape
    depth, big = 0.5 + 0.3 * k[0], k[2] > 0.5
    rows = (
        ((5, -0.12, 0.66), (4, -0.32, 0.48), (2, -0.5, 0.2))
        if big
        else ((7, -0.1, 0.72), (6, -0.24, 0.6), (5, -0.38, 0.46), (3, -0.51, 0.26))
    )
    r = 0.2 if big else 0.145
    for row, (count, y, reach) in enumerate(rows):
        for c, x in enumerate(np.linspace(-reach, reach, count)):
            slot = SECOND if k[6] > 0.5 and (c + row) % 3 == 1 else ACCENT
            x, y_ = x + 0.015 * m[row], y + (0.03 if c % 2 else 0)
            d.put(slot, 60 + 10 * row + c, ellipse(x, y_, r, r, n=16))
            if big:
                d.put(WHITE, 60 + 10 * row + c, ellipse(x - 0.06, y_ - 0.07, 0.05, 0.04, n=8))
    if k[5] > 0.4:
        for a in (-0.5, 0.6):
            d.put(LEAF, 110, ellipse(0.03 + 0.17 * a, -0.7, 0.08, 0.17, a * 1.4))
    foot = 0.3 + 0.14 * k[1]
    d.put(
        SECOND if k[3] > 0.5 else MAIN,
        3,
        [(-foot, depth - 0.1), (foot, depth - 0.1), (foot * 1.1, depth + 0.12), (-foot * 1.1, depth + 0.12)],
    )
    d.put(MAIN, 1, np.concatenate([arc(0, 0, 0.94, depth, 0, 180, 24)]))
    if k[4] > 0.5:
        lower = depth * 0.42
        x = [0.94 * math.sqrt(1 - (y / depth) ** 2) for y in (lower, lower + 0.15)]
        d.put(SECOND, 1, [(-x[0], lower), (x[0], lower), (x[1], lower + 0.15), (-x[1], lower + 0.15)])
    else:
        draw_badge(d, choose(k[4] * 2, "none", "heart", "disc", "star"), 0, depth * 0.48, 0.17, SECOND)
    d.put(SECOND if k[3] > 0.5 else MAIN, 2, rounded(-0.98, -0.08, 0.98, 0.07 + 0.06 * k[3], 0.08))
    return d


def draw_candle(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Width, flame, holder, drips, their length, band, badge."""
    d, k = Drawing(), i.shape
    w, holder, top = 0.27 + 0.16 * k[0], choose(k[2], "saucer", "handle", "stick"), -0.27
    bottom = 0.45 if holder == "stick" else 0.78
    if holder == "handle":
        d.put(ACCENT, 6, thick(arc(0.66, 0.68, 0.2, 0.2, -180, 180, 20), 0.1))
    if holder == "stick":
        d.put(ACCENT, 5, turned([0.4, 0.5, 0.62, 0.75, 0.85, 0.97], [0.16, 0.1, 0.2, 0.1, 0.38, 0.5]))
    else:
        d.put(ACCENT, 5, ellipse(0, 0.82, 0.66, 0.15))
        d.put(ACCENT, 5, rounded(-0.66, 0.74, 0.66, 0.85, 0.05))
    d.put(MAIN, 1, rounded(-w, top, w, bottom, 0.06))
    if k[5] > 0.5:
        d.put(SECOND, 1, rounded(-w, 0.12, w, 0.32, 0.01, 2))
    else:
        draw_badge(d, choose(k[5] * 2, "none", "heart", "star"), 0, 0.18, w * 0.6, SECOND)
    if holder == "stick":
        d.put(ACCENT, 7, rounded(-w - 0.1, 0.4, w + 0.1, 0.54, 0.06))
    wax = WHITE if k[3] > 0.66 else SECOND
    if k[3] > 0.33:
        for q, length in ((-0.75, 0.3), (-0.25, 0.14), (0.25, 0.4), (0.75, 0.2)):
            d.put(
                wax,
                2,
                rounded(w * q - w * 0.27, top, w * q + w * 0.27, top + length * (0.6 + 0.8 * k[4]), 0.1),
            )
    d.put(wax if k[3] > 0.33 else MAIN, 2, ellipse(0, top, w, 0.07))
    sway, tall = 0.07 * m[0], 0.46 + 0.14 * k[1]
    d.put(DARK, 8, thick([(0, top + 0.02), (sway * 0.2, top - 0.15)], 0.05))
    t = np.linspace(0, 1, 12)
    half = (0.14 + 0.05 * k[1]) * np.sin(np.pi * t**0.6)
    outer = np.concatenate(
        [
            np.stack([sway * t + half, top - 0.06 - tall * t], 1),
            np.stack([sway * t - half, top - 0.06 - tall * t], 1)[::-1],
        ]
    )
    d.put(FLAME, 70, outer)
    d.put(GOLD, 71, (outer - (0, top - 0.06)) * (0.55, 0.55) + (0, top - 0.08))
    return d


def draw_vase(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Neck, belly, foot, height of the belly, handles, flowers, band."""
    d, k = Drawing(), i.shape
    n, b, f, y = 0.14 + 0.1 * k[0], 0.36 + 0.2 * k[1], 0.2 + 0.12 * k[2], 0.2 + 0.32 * k[3]
    flowers = choose(k[5], "none", "three", "one", "tulips")
    if flowers in ("three", "tulips"):
        for q in (-1, 1, 0):
            x, top = q * 0.4 + 0.05 * m[q + 1], -0.72 - 0.08 * (q == 0)
            d.put(LEAF, 9, thick([(q * 0.06, -0.1), (x, top)], 0.06))
            if flowers == "three":
                draw_flower(d, x, top, 0.135, 80 + 3 * q)
            else:
                bloom = symmetric(x, top, (0, -0.24), (0.05, -0.1), (0.14, -0.2), (0.1, 0.1))
                d.put(ACCENT, 80 + 3 * q, bloom)
    elif flowers == "one":
        x = 0.05 * m[1]
        d.put(LEAF, 9, thick([(0, -0.1), (x, -0.65)], 0.07))
        d.pair(LEAF, 10, ellipse(0.2, -0.38, 0.07, 0.18, 0.9))
        draw_flower(d, x, -0.68, 0.22, 80, 7)
    lip = -0.2 if flowers != "none" else -0.36
    if k[4] > 0.5:
        d.pair(ACCENT, 5, thick(arc(n + 0.12, 0.08, 0.24, 0.26, -110, 110, 14), 0.09))
    neck = ((n * 1.7, lip), (n * 1.7, lip), (n * 1.05, lip + 0.12), (n, lip + 0.26))
    d.put(MAIN, 1, symmetric(0, 0, *neck, (b, y), (f, 0.84), (f * 1.1, 0.95), (f * 1.1, 0.95)))
    d.put(SECOND, 2, ellipse(0, lip, n * 1.7, 0.07))
    if k[6] > 0.5:
        for dy in (-0.12, 0.12) if k[6] > 0.75 else (0.0,):
            d.put(SECOND, 1, rounded(-b * 0.97, y + dy - 0.07, b * 0.97, y + dy + 0.07, 0.02, 2))
    elif k[6] > 0.2:
        draw_badge(d, choose(k[6] * 2, "heart", "disc", "star"), 0, y, 0.17, SECOND)
    return d


def draw_teapot(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Width, height, handle, spout, knob, lid, badge."""
    d, k = Drawing(), i.shape
    w, h = 0.48 + 0.1 * k[0], 0.42 + 0.14 * k[1]
    d.put(ACCENT, 5, thick(arc(w * 0.9, 0.18, 0.32 + 0.08 * k[2], 0.26 + 0.1 * k[2], -115, 115, 16), 0.12))
    up = -0.14 - 0.16 * k[3]
    d.put(
        MAIN,
        6,
        thick(
            [(-w * 0.6, 0.44), (-w - 0.12, 0.26), (-w - 0.2, 0.04), (-w - 0.36, up)], [0.3, 0.2, 0.15, 0.13]
        ),
    )
    d.put(SECOND, 6, thick([(-w - 0.29, up + 0.1), (-w - 0.38, up - 0.03)], 0.17))
    d.put(SECOND, 7, rounded(-w * 0.62, 0.2 + h * 0.8, w * 0.62, 0.24 + h, 0.05))
    d.put(MAIN, 1, ellipse(0, 0.2, w, h, n=36))
    y = 0.2 - h * 0.84 + 0.02 * m[0]
    lid = choose(k[5], "dome", "flat", "cone")
    rise = {"dome": 0.22, "flat": 0.1, "cone": 0.28}[lid]
    if lid == "cone":
        d.put(SECOND, 3, [(-w * 0.62, y), (0, y - rise - 0.06), (w * 0.62, y)])
    else:
        d.put(SECOND, 3, arc(0, y, w * 0.64, rise, 180, 360, 16))
    d.put(ACCENT, 4, rounded(-w * 0.68, y - 0.05, w * 0.68, y + 0.05, 0.05))
    knob = 0.09 + 0.04 * k[4]
    d.put(ACCENT, 8, ellipse(0, y - rise - knob * 0.7, knob, knob, n=18))
    badge = choose(k[6], "none", "flower", "heart", "band", "star")
    if badge == "flower":
        draw_flower(d, 0, 0.24, 0.13, 80)
    elif badge == "band":
        d.put(
            SECOND,
            1,
            smooth(
                [
                    (-w * 0.98, 0.16),
                    (0, 0.22),
                    (w * 0.98, 0.16),
                    (w * 0.96, 0.32),
                    (0, 0.4),
                    (-w * 0.96, 0.32),
                ]
            ),
        )
    else:
        draw_badge(d, badge, 0, 0.24, 0.2, SECOND)
    return d


def draw_can(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Width, straw, label, logo, size of the logo, tab, drops."""
    d, k = Drawing(), i.shape
    w = 0.42 + 0.16 * k[0]
    if k[1] > 0.6:
        lean = 0.06 * m[0]
        d.put(ACCENT, 9, thick([(0.12, -0.7), (0.24 + lean, -1.12), (0.52 + lean, -1.2)], 0.1))
    d.put(STEEL, 4, rounded(-w * 0.9, 0.7, w * 0.9, 0.95, 0.1))
    d.put(
        MAIN,
        1,
        [
            (-w * 0.84, -0.78),
            (w * 0.84, -0.78),
            (w, -0.58),
            (w, 0.72),
            (w * 0.9, 0.84),
            (-w * 0.9, 0.84),
            (-w, 0.72),
            (-w, -0.58),
        ],
    )
    label = choose(k[2], "none", "band", "wave", "two bands")
    if label == "band":
        d.put(SECOND, 1, [(-w, -0.28), (w, -0.28), (w, 0.42), (-w, 0.42)])
    elif label == "wave":
        d.put(
            SECOND,
            1,
            smooth(
                [
                    (-w, -0.05),
                    (-w, -0.05),
                    (-w * 0.3, 0.2),
                    (w * 0.3, -0.2),
                    (w, -0.05),
                    (w, -0.05),
                    (w, 0.72),
                    (w, 0.72),
                    (0, 0.78),
                    (-w, 0.72),
                    (-w, 0.72),
                ]
            ),
        )
    elif label == "two bands":
        for y in (-0.48, 0.52):
            d.put(SECOND, 1, [(-w, y), (w, y), (w, y + 0.15), (-w, y + 0.15)])
    draw_badge(d, choose(k[3], "star", "heart", "disc", "bolt"), 0, 0.08, 0.2 + 0.1 * k[4], ACCENT)
    d.put(STEEL, 2, ellipse(0, -0.78, w * 0.86, 0.13))
    d.put(DARK, 3, ellipse(0, -0.78, w * 0.7, 0.085))
    d.put(STEEL, 3, ellipse(0.02, -0.78, w * 0.62, 0.06))
    if k[1] <= 0.6:
        d.put(ACCENT if k[5] > 0.5 else DARK, 5, ellipse(0.0, -0.8, 0.17, 0.06, -0.15, n=16))
    if k[6] > 0.6:
        for x, y in ((-0.75, -0.35), (0.72, -0.1), (-0.7, 0.55), (0.66, 0.6)):
            d.put(WHITE, 6, ellipse(x * w, y, 0.05, 0.075, n=12))
    return d


def draw_toaster(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Roundness, slices, browning, dial, stripe, feet, badge."""
    d, k = Drawing(), i.shape
    rise = 0.06 * m[0]
    slices = (-0.34, 0.34) if k[1] > 0.4 else (0.0,)
    for n, x in enumerate(slices):
        w = 0.29 if len(slices) == 2 else 0.46
        y = -0.78 + rise * (1 - 2 * n)
        crust = smooth(
            [
                (x - w, y + 0.12),
                (x - w * 0.75, y - 0.06),
                (x, y - 0.03),
                (x + w * 0.75, y - 0.06),
                (x + w, y + 0.12),
                (x + w * 0.85, y + 0.3),
                (x + w * 0.85, 0.0),
                (x - w * 0.85, 0.0),
                (x - w * 0.85, y + 0.3),
            ]
        )
        d.put(FLAME, 10 + n, crust)
        d.put(GOLD if k[2] > 0.5 else WHITE, 10 + n, (crust - (x, y + 0.3)) * 0.76 + (x, y + 0.32))
    d.put(DARK, 5, rounded(-0.72, 0.62, -0.42, 0.8, 0.05), rounded(0.42, 0.62, 0.72, 0.8, 0.05))
    d.put(MAIN, 1, rounded(-0.86, -0.38, 0.86, 0.7, 0.14 + 0.3 * k[0]))
    d.put(STEEL, 2, rounded(-0.68, -0.42, 0.68, -0.28, 0.06))
    if k[4] > 0.4:
        d.put(SECOND, 1, rounded(-0.86, 0.36, 0.86, 0.56, 0.01, 2))
    d.put(DARK, 6, thick([(0.9, -0.16), (0.9, 0.4)], 0.05))
    d.put(ACCENT, 7, rounded(0.8, -0.16 + 0.1 * m[1], 1.06, 0.0 + 0.1 * m[1], 0.06))
    dial = choose(k[3], "dial", "face", "star", "heart")
    if dial == "dial":
        d.put(SECOND if k[4] <= 0.4 else ACCENT, 8, ellipse(0.42, 0.1, 0.17, 0.17, n=20))
        d.put(
            DARK,
            9,
            thick([(0.42, 0.1), (0.42 + 0.12 * math.cos(6 * k[6]), 0.1 + 0.12 * math.sin(6 * k[6]))], 0.06),
        )
        d.put(SECOND, 8, rounded(-0.6, 0.0, 0.05, 0.2, 0.1))
    elif dial == "face":
        draw_eyes(d, i, "open", 0, 0.02, 0.3, 0.11)
        d.put(ink_on(i, MAIN), 25, thick(arc(0, 0.14, 0.16, 0.12, 15, 165, 8), 0.06))
    else:
        draw_badge(d, dial, 0, 0.06, 0.26, ACCENT)
    return d
