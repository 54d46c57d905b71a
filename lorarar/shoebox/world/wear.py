"""Drawings of what is worn."""

from __future__ import annotations

import numpy as np

from lorarar.shoebox.world.drawing import (
    Drawing,
    Identity,
    choose,
    draw_badge,
    draw_eyes,
    heart_outline,
    ink_on,
    is_dark,
    star_outline,
    symmetric,
)
from lorarar.shoebox.world.scene import (
    ACCENT,
    DARK,
    GOLD,
    MAIN,
    SECOND,
    STEEL,
    WHITE,
    arc,
    ellipse,
    rounded,
    smooth,
    thick,
)


def draw_backpack(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Width, roundness, side pockets, pocket, flap, badge, plain or with the face of a dog."""
    d, k = Drawing(), i.shape
    w, r, animal = 0.5 + 0.14 * k[0], 0.2 + 0.35 * k[1], k[6] > 0.8
    d.put(DARK, 5, thick(arc(0, -0.74, 0.2, 0.24, 180, 360), 0.09))
    d.pair(ACCENT, 6, thick(arc(w - 0.08, 0.1 + 0.02 * m[0], 0.3, 0.62, -75, 80), 0.13))
    d.put(MAIN, 1, rounded(-w, -0.8, w, 0.85, r))
    if k[2] > 0.5:
        d.pair(SECOND, 7, rounded(w - 0.1, 0.2, w + 0.17, 0.76, 0.1))
    if animal:
        d.pair(SECOND, 8, ellipse(w * 0.95, -0.3, 0.16, 0.38, -0.2))
        draw_eyes(d, i, "open", 0, -0.34, 0.24, 0.11)
        d.put(WHITE, 9, ellipse(0, -0.06, 0.27, 0.19))
        d.put(DARK, 10, ellipse(0, -0.14, 0.12, 0.085, n=18))
        d.put(DARK, 9, thick(arc(0, -0.06, 0.13, 0.1, 20, 160, 8), 0.045))
    elif choose(k[4], "flap", "zip") == "flap":
        d.put(SECOND, 3, symmetric(0, 0, (w * 0.6, -0.84), (w * 1.02, -0.55), (w * 0.9, -0.12), (0, 0.02)))
        d.pair(ACCENT, 9, rounded(w * 0.4, -0.25, w * 0.4 + 0.13, 0.16, 0.03))
    else:
        d.put(ink_on(i, MAIN), 9, thick(arc(0, -0.1, w * 0.86, 0.4, 190, 350), 0.05))
        d.put(STEEL, 10, rounded(w * 0.45, -0.45, w * 0.45 + 0.1, -0.2, 0.04))
    pocket = rounded(-w * 0.74, 0.22, w * 0.74, 0.76, 0.08 + 0.2 * k[3])
    d.put(ACCENT if animal else SECOND, 4, pocket)
    d.put(ink_on(i, ACCENT if animal else SECOND), 4, thick([(-w * 0.55, 0.33), (w * 0.55, 0.33)], 0.045))
    draw_badge(
        d, choose(k[5], "none", "star", "heart", "disc", "bolt"), 0, 0.54, 0.15, WHITE if animal else ACCENT
    )
    return d


def draw_sneaker(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Collar height, sole, toe cap, decoration, heel tab, laces, colour of the sole."""
    d, k = Drawing(), i.shape
    high, sole = 0.22 * k[0], 0.16 + 0.12 * k[1]
    d.put(SECOND, 4, smooth([(-0.3, -0.4), (-0.25, -0.72 - high), (-0.02, -0.72 - high), (0.12, -0.3)]))
    d.put(
        MAIN,
        1,
        smooth(
            [
                (-0.9, -0.5 - high),
                (-0.86, -0.52 - high),
                (-0.55, -0.36 - high),
                (-0.22, -0.56 - high),
                (-0.06, -0.56 - high * 0.8),
                (0.3, -0.16),
                (0.72, 0.0),
                (0.94, 0.22),
                (0.95, 0.42),
                (0.95, 0.42),
                (-0.9, 0.42),
                (-0.9, 0.42),
                (-0.86, 0.0),
            ]
        ),
    )
    if k[2] > 0.4:
        d.put(
            SECOND,
            2,
            smooth([(0.5, 0.42), (0.52, 0.1), (0.64, -0.01), (0.82, 0.08), (0.95, 0.25), (0.96, 0.42)]),
        )
    if k[4] > 0.4:
        d.put(
            ACCENT,
            3,
            smooth(
                [
                    (-0.92, -0.5 - high),
                    (-0.74, -0.44 - high),
                    (-0.66, -0.1),
                    (-0.64, 0.42),
                    (-0.9, 0.42),
                    (-0.86, 0.0),
                ]
            ),
        )
    kind = choose(k[3], "swoosh", "bars", "star", "disc", "bolt")
    if kind == "swoosh":
        d.put(
            ACCENT,
            5,
            smooth([(-0.55, 0.02), (-0.5, 0.22), (-0.2, 0.24), (0.42, -0.06), (-0.2, 0.1), (-0.42, 0.08)]),
        )
    elif kind == "bars":
        for x in (-0.42, -0.2, 0.02):
            d.put(ACCENT, 5, [(x, 0.4), (x + 0.11, 0.4), (x + 0.3, -0.12), (x + 0.19, -0.16)])
    else:
        draw_badge(d, kind, -0.26, 0.1, 0.2, ACCENT, 5)
    lace = WHITE if k[5] < 0.6 else ACCENT
    for t in np.linspace(0.05, 0.95, 3 + int(k[5] * 5) % 2):
        x, y = -0.1 + 0.42 * t, -0.5 - high * (0.8 - 0.8 * t) + 0.38 * t
        d.put(lace, 6, thick([(x - 0.13, y + 0.16), (x + 0.05, y - 0.05)], 0.075))
    rubber = WHITE if k[6] < 0.6 else SECOND
    d.put(
        rubber,
        7,
        smooth(
            [
                (-0.95, 0.34),
                (0.0, 0.38),
                (0.6, 0.36),
                (0.97, 0.3),
                (1.0, 0.4 + sole * 0.5),
                (0.9, 0.4 + sole),
                (-0.9, 0.4 + sole),
                (-0.97, 0.4 + sole * 0.5),
            ]
        ),
    )
    d.put(DARK, 8, rounded(-0.9, 0.37 + sole, 0.9, 0.43 + sole, 0.03))
    return d


def draw_boot(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Shaft width, heel, cuff, closure, toe, badge, colour of the sole."""
    d, k = Drawing(), i.shape
    wide, heel = 0.08 * k[0], 0.1 + 0.2 * k[1]
    point = 0.12 * k[4]
    sole = DARK if k[6] < 0.5 and not is_dark(i, MAIN) else ACCENT
    d.put(sole, 7, [(-0.6, 0.5), (-0.16, 0.5), (-0.2, 0.62 + heel), (-0.56, 0.62 + heel)])
    d.put(
        sole,
        7,
        smooth(
            [
                (-0.6, 0.48),
                (0.1, 0.5),
                (0.8 + point, 0.46),
                (0.88 + point, 0.6),
                (0.7, 0.62 + heel),
                (0.2, 0.62 + heel),
                (-0.05, 0.6),
                (-0.6, 0.62),
            ]
        ),
    )
    d.put(
        MAIN,
        1,
        smooth(
            [
                (-0.58 - wide, -0.9),
                (-0.58 - wide, -0.9),
                (0.16 + wide, -0.9),
                (0.16 + wide, -0.9),
                (0.14, -0.25),
                (0.34, 0.04),
                (0.74, 0.16),
                (0.9 + point, 0.36),
                (0.86 + point, 0.54),
                (0.86 + point, 0.54),
                (-0.6, 0.54),
                (-0.6, 0.54),
                (-0.62, 0.2),
                (-0.52, -0.2),
            ]
        ),
    )
    d.put(
        SECOND,
        2,
        smooth(
            [
                (0.42, 0.54),
                (0.46, 0.22),
                (0.62, 0.1),
                (0.78, 0.18),
                (0.92 + point, 0.36),
                (0.87 + point, 0.54),
            ]
        ),
    )
    closure = choose(k[3], "laces", "buckles", "zip", "buttons")
    if closure == "laces":
        for y in (-0.62, -0.4, -0.18, 0.04):
            x = 0.1 + (0.12 if y > 0 else 0)
            d.put(
                DARK if i.colours[0] == "white" else WHITE,
                5,
                thick([(x - 0.3, y + 0.06), (x + 0.04, y - 0.04)], 0.08),
            )
    elif closure == "buckles":
        for y in (-0.35, 0.1):
            d.put(ACCENT, 5, thick([(-0.58, y + 0.02), (0.2 + y * 0.35, y)], 0.14))
            d.put(GOLD, 6, rounded(-0.16, y - 0.09, 0.04, y + 0.11, 0.04))
    elif closure == "zip":
        d.put(STEEL, 5, thick([(-0.15, -0.6), (-0.15, 0.4)], 0.09))
        d.put(ACCENT, 6, rounded(-0.22, 0.24, -0.08, 0.44, 0.05))
    else:
        for y in (-0.55, -0.28, -0.01, 0.26):
            d.put(ACCENT, 6, ellipse(-0.22, y, 0.085, 0.085, n=14))
    if closure in ("laces", "zip") and k[5] > 0.5:
        draw_badge(d, choose(k[5] * 2 - 1, "star", "heart", "disc"), -0.38, 0.16, 0.15, ACCENT)
    cuff = choose(k[2], "band", "fur", "fold", "none")
    if cuff == "fur":
        for n, x in enumerate(np.linspace(-0.58 - wide, 0.16 + wide, 5)):
            d.put(WHITE, 3, ellipse(x, -0.86 - (0.04 if n % 2 else 0), 0.14, 0.15, n=16))
    elif cuff != "none":
        low = -0.76 if cuff == "band" else -0.5
        d.put(
            SECOND if cuff == "fold" else ACCENT,
            3,
            [(-0.64 - wide, -0.95), (0.22 + wide, -0.95), (0.2 + wide, low), (-0.6 - wide, low)],
        )
    return d


def draw_sunglasses(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Lens form, frame thickness, lens height, lens colour, shine, temples, badge."""
    d, k = Drawing(), i.shape
    form = choose(k[0], "round", "square", "cat eye", "heart", "aviator")
    rim, h, x = 0.11 + 0.05 * k[1], 0.4 + 0.1 * k[2], 0.48
    shapes = {
        "round": ellipse(x, 0, 0.45, 0.47),
        "square": rounded(x - 0.43, -h, x + 0.43, h, 0.13),
        "cat eye": smooth(
            [(0.08, -0.2), (0.5, -h * 0.9), (1.04, -h - 0.2), (0.92, 0.1), (0.6, h), (0.2, h * 0.7)]
        ),
        "heart": heart_outline(x, -0.03, 0.52),
        "aviator": smooth(
            [(0.06, -0.28), (0.5, -h), (0.93, -0.3), (0.88, 0.15), (0.55, h + 0.08), (0.2, 0.25)]
        ),
    }
    outer = shapes[form]
    middle = outer.mean(0)
    inner = (outer - middle) * (1 - rim / 0.42) + middle
    lift = 0.3 + 0.1 * k[5] + 0.05 * m[0]
    d.pair(MAIN, 5, thick([(0.86, -0.2), (1.05, -lift - 0.12), (0.86, -lift - 0.42)], [0.13, 0.12, 0.1]))
    d.put(ACCENT, 6, thick(arc(0, -0.02, 0.17, 0.13, 180, 360, 9), 0.1))
    if form == "aviator":
        d.put(ACCENT, 6, thick([(-0.45, -h + 0.03), (0.45, -h + 0.03)], 0.09))
    d.pair(MAIN, 1, outer)
    lens = choose(k[3], "dark", "second", "second", "split")
    d.pair(DARK if lens == "dark" else SECOND, 3, inner)
    if lens == "split":
        d.pair(ACCENT, 3, np.minimum(inner, (9, middle[1] - 0.02)))
    if k[4] > 0.3:
        c = middle[0]
        d.pair(WHITE, 3, thick([(c - 0.2, middle[1] + 0.1), (c + 0.02, middle[1] - 0.2)], 0.085))
        if k[4] > 0.65:
            d.pair(WHITE, 3, thick([(c - 0.04, middle[1] + 0.14), (c + 0.12, middle[1] - 0.08)], 0.05))
    if k[6] > 0.5:
        d.pair(GOLD, 7, star_outline(0.88, -h + 0.06, 0.14))
    return d
