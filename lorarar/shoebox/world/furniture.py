"""Drawings of furniture: clock, television, sofa."""

from __future__ import annotations

import math

import numpy as np

from lorarar.shoebox.world.drawing import (
    Drawing,
    Identity,
    choose,
    ink_on,
)
from lorarar.shoebox.world.scene import (
    ACCENT,
    DARK,
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
)


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
