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
    ROSE,
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


def draw_clock(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Case (round, square, house), bells and legs, rim, ticks, face colour, hands, badge."""
    d, k = Drawing(), i.shape
    case, bells = choose(k[0], "round", "round", "square", "house"), k[1] > 0.5
    if bells:
        d.pair(ACCENT, 5, thick([(0.4, 0.6), (0.58, 0.94)], 0.15))
        if case != "house":
            top = -0.68 if case == "round" else -0.84
            d.pair(SECOND, 8, ellipse(0.48, top, 0.28, 0.17, 0.65 if case == "round" else 0.2))
            d.put(ACCENT, 10, thick(arc(0, top - 0.1, 0.16, 0.18, 180, 360, 10), 0.08))
    if case == "round":
        d.put(MAIN, 1, ellipse(0, 0, 0.8, 0.8, n=40))
    elif case == "square":
        d.put(MAIN, 1, rounded(-0.8, -0.8, 0.8, 0.8, 0.14 + 0.2 * k[6]))
    else:
        d.put(MAIN, 1, rounded(-0.74, -0.6, 0.74, 0.8, 0.06))
        d.put(SECOND, 6, [(-0.95, -0.5), (0, -1.2), (0.95, -0.5), (0.85, -0.36), (-0.85, -0.36)])
    r = 0.66 - 0.1 * k[2]
    y = 0.14 if case == "house" else 0.0
    if case != "round":
        r = min(r, 0.58)
    face = WHITE if k[4] < 0.6 else SECOND
    d.put(ACCENT if k[6] > 0.5 else DARK, 2, ellipse(0, y, r + 0.05, r + 0.05, n=36))
    d.put(face, 2, ellipse(0, y, r, r, n=36))
    ink = ink_on(i, face)
    for q in range(12 if k[3] > 0.5 else 4):
        a = q * math.pi * (1 / 6 if k[3] > 0.5 else 0.5)
        c, s = math.cos(a), math.sin(a)
        big = k[3] <= 0.5 or q % 3 == 0
        d.put(
            ink,
            2,
            thick(
                [
                    (r * (0.7 if big else 0.78) * c, y + r * (0.7 if big else 0.78) * s),
                    (r * 0.92 * c, y + r * 0.92 * s),
                ],
                0.08 if big else 0.045,
            ),
        )
    for n, (length, width, turn) in enumerate(((0.44, 0.12, m[0]), (0.66, 0.085, m[1]))):
        a = -math.pi * (0.72 if n == 0 else 0.22) + 0.9 * math.pi * turn
        d.put(
            (ACCENT if k[5] > 0.4 and face == WHITE and i.colours[2] != "white" else ink),
            20 + n,
            thick([(0, y), (r * length * math.cos(a), y + r * length * math.sin(a))], width),
        )
    d.put(ink, 22, ellipse(0, y, 0.08, 0.08, n=14))
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


def draw_tv(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Roundness, antennae, knobs, legs, picture, screen form, bezel."""
    d, k = Drawing(), i.shape
    spread = 0.35 + 0.2 * k[1] + 0.05 * m[0]
    d.pair(STEEL, 9, thick([(0.04, -0.5), (spread, -0.98)], 0.06))
    d.pair(ACCENT, 10, ellipse(spread, -1.0, 0.085, 0.085, n=14))
    d.put(DARK, 8, ellipse(0, -0.5, 0.24, 0.14))
    if k[3] > 0.5:
        d.pair(ACCENT, 5, thick([(0.5, 0.5), (0.66, 0.92)], 0.12))
    else:
        d.put(DARK, 5, rounded(-0.6, 0.62, 0.6, 0.84, 0.05))
    d.put(MAIN, 1, rounded(-0.95, -0.5, 0.95, 0.7, 0.1 + 0.25 * k[0]))
    side = k[2] > 0.5
    right = 0.42 if side else 0.78
    low = 0.52 if side else 0.38
    d.put(SECOND, 2, rounded(-0.82, -0.38, right + 0.04, low + 0.06, 0.16))
    picture = choose(k[4], "sky", "test", "face", "dark")
    x0, x1 = -0.73, right - 0.05
    c = (x0 + x1) / 2
    inside = rounded(x0, -0.29, x1, low - 0.03, 0.08 + 0.1 * k[5])
    d.put(WHITE if picture == "face" else DARK if picture in ("test", "dark") else STEEL, 3, inside)
    if picture == "sky":
        d.put(LEAF, 3, arc(c, low - 0.03, (x1 - x0) * 0.36, 0.28, 180, 360, 12))
        d.put(GOLD, 3, ellipse(c + 0.2, -0.08, 0.11, 0.11, n=16))
    elif picture == "test":
        for n, slot in enumerate((GOLD, LEAF, ROSE, WHITE)):
            q = (x1 - x0 - 0.12) / 4
            d.put(slot, 3, rounded(x0 + 0.06 + n * q, -0.23, x0 + 0.06 + (n + 1) * q, low - 0.09, 0.01, 2))
    elif picture == "face":
        d.pair(DARK, 30, ellipse(c + 0.19, -0.05, 0.08, 0.1, n=14), x=c)
        d.put(DARK, 31, thick(arc(c, 0.06, 0.2, 0.16, 10, 170, 10), 0.065))
    else:
        d.put(WHITE, 3, thick([(x0 + 0.14, 0.1), (x0 + 0.36, -0.18)], 0.08))
    for n in range(2):
        spot = (0.69, -0.2 + 0.34 * n) if side else (0.35 + 0.3 * n, 0.56)
        d.put(ACCENT, 6 + n, ellipse(*spot, 0.12 if side else 0.09, 0.12 if side else 0.09, n=16))
    if side:
        for y in (0.36, 0.48):
            d.put(ink_on(i, MAIN), 11, thick([(0.58, y), (0.82, y)], 0.045))
    else:
        d.put(ink_on(i, MAIN), 11, thick([(-0.7, 0.56), (-0.1, 0.56)], 0.06))
    return d


def draw_sofa(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Arm width, back height, roundness, seats, pillows, legs, throw."""
    d, k = Drawing(), i.shape
    aw, back, r = 0.2 + 0.1 * k[0], -0.62 - 0.26 * k[1], 0.08 + 0.18 * k[2]
    d.pair(DARK if k[5] < 0.5 else GOLD, 5, rounded(0.68, 0.4, 0.82, 0.72, 0.02))
    d.put(MAIN, 1, rounded(-0.84, back, 0.84, 0.3, r + 0.06))
    seats = 2 if k[3] < 0.6 else 3
    inner = 0.98 - aw
    if seats == 2 or k[2] > 0.3:
        for n in range(1, seats):
            x = -inner + 2 * inner * n / seats
            d.put(DARK, 1, thick([(x, back + 0.08), (x, 0.0)], 0.035))
    for n in range(seats):
        x0, x1 = -inner + 2 * inner * n / seats, -inner + 2 * inner * (n + 1) / seats
        d.put(SECOND, 10 + n, rounded(x0, 0.02, x1, 0.28, 0.08))
    d.put(MAIN, 2, rounded(-0.9, 0.24, 0.9, 0.5, 0.06))
    d.pair(MAIN, 3, rounded(0.98 - aw, -0.26, 1.0, 0.5, r))
    pillow = choose(k[4], "one", "two", "round", "none")
    if pillow in ("one", "two"):
        turn = 0.12 * m[0]
        base = np.array([(-0.19, -0.17), (0.19, -0.17), (0.17, 0.19), (-0.17, 0.19)])
        rot = np.array(
            [(math.cos(0.3 + turn), math.sin(0.3 + turn)), (-math.sin(0.3 + turn), math.cos(0.3 + turn))]
        )
        d.put(ACCENT, 20, smooth(np.repeat(base @ rot + (-0.5, -0.14), 2, 0)))
        if pillow == "two":
            d.put(ACCENT, 21, smooth(np.repeat(base @ rot.T + (0.5, -0.14), 2, 0)))
    elif pillow == "round":
        d.put(ACCENT, 20, ellipse(0.42, -0.14, 0.21, 0.21, n=22))
    if k[6] > 0.6:
        d.put(ACCENT, 22, rounded(0.1, back - 0.02, 0.42, back + 0.36, 0.04))
        d.put(WHITE, 22, rounded(0.1, back + 0.2, 0.42, back + 0.28, 0.01, 2))
    return d
