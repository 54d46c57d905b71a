"""Drawings of animals, and of toys that are animals."""

from __future__ import annotations

import numpy as np

from lorarar.shoebox.world.drawing import (
    Drawing,
    Identity,
    choose,
    draw_badge,
    draw_collar,
    draw_eyes,
    draw_hat,
    ink_on,
    is_dark,
    symmetric,
)
from lorarar.shoebox.world.scene import (
    ACCENT,
    DARK,
    FLAME,
    GOLD,
    MAIN,
    ROSE,
    SECOND,
    WHITE,
    arc,
    ellipse,
    rounded,
    smooth,
    thick,
)


# ---------------- one drawing per class: k are the identity's shape numbers, m the pose's moving limbs
def draw_dog(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Ears, their length, body length, muzzle, tail, collar, face."""
    d, k = Drawing(), i.shape
    ears = choose(k[0], "floppy", "folded", "erect")
    tail = choose(k[4], "whip", "plume", "curl")
    face = choose(k[6], "plain", "patch", "blaze", "mask")
    hx, hy, right, foot = -0.42 + 0.02 * m[1], -0.36 + 0.02 * m[2], 0.38 + 0.42 * k[2], 0.92 - 0.26 * k[2]
    if tail == "whip":
        d.put(
            MAIN,
            5,
            thick([(right - 0.1, 0.05), (right + 0.17, -0.1), (right + 0.3 + 0.08 * m[0], -0.42)], 0.13),
        )
    elif tail == "plume":
        d.put(SECOND, 5, ellipse(right + 0.14 + 0.05 * m[0], -0.2, 0.16, 0.36, 0.4 + 0.15 * m[0]))
    else:
        d.put(SECOND, 5, thick(arc(right - 0.02, -0.14, 0.17, 0.19, 80, -200 + 25 * m[0], 16), 0.15))
    step = 0.05 * m[3]
    for n, x in enumerate((-0.42 - step, right - 0.32 + step)):
        d.put(MAIN, 6 + n, rounded(x - 0.09, 0.1, x + 0.1, foot - 0.05, 0.08))
    d.put(MAIN, 1, rounded(-0.62, -0.2, right, 0.44, 0.3))
    for n, x in enumerate((-0.25 + step, right - 0.12 - step)):
        d.put(MAIN, 8 + n, rounded(x - 0.11, 0.15, x + 0.11, foot, 0.09))
        d.put(SECOND, 8 + n, rounded(x - 0.13, foot - 0.16, x + 0.11, foot, 0.08))
    d.put(SECOND, 1, ellipse(-0.44, 0.22, 0.2, 0.22))
    draw_collar(d, choose(k[5], "none", "band", "bell", "bandana"), hx + 0.04, 0.1, 0.31)
    w, h = 0.43, 0.40
    if ears == "erect":
        tip = 0.36 + 0.16 * k[1]
        d.pair(
            MAIN, 10, [(hx + 0.06, hy - 0.3), (hx + 0.34, hy - h - tip + 0.08), (hx + 0.43, hy - 0.05)], x=hx
        )
        d.pair(
            ROSE, 11, [(hx + 0.17, hy - 0.3), (hx + 0.32, hy - h - tip + 0.26), (hx + 0.36, hy - 0.12)], x=hx
        )
    d.put(MAIN, 2, ellipse(hx, hy, w, h))
    if face == "patch":
        d.put(SECOND, 2, ellipse(hx + 0.2, hy - 0.1, 0.19, 0.22))
    elif face == "blaze":
        d.put(SECOND, 2, symmetric(hx, hy, (0, -h), (0.09, -0.15), (0.2, 0.2)))
    elif face == "mask":
        d.put(SECOND, 2, symmetric(hx, hy, (0, -0.1), (0.18, 0.03), (0.41, 0.02), (0.3, 0.3), (0, h)))
    if ears == "floppy":
        length = 0.28 + 0.16 * k[1]
        d.pair(SECOND, 10, ellipse(hx + 0.43, hy - 0.2 + length * 0.75, 0.15, length, -0.22), x=hx)
    elif ears == "folded":
        fold = 0.1 + 0.2 * k[1]
        d.pair(
            SECOND,
            10,
            [
                (hx + 0.1, hy - 0.37),
                (hx + 0.33, hy - 0.52),
                (hx + 0.6, hy - 0.2 + fold),
                (hx + 0.36, hy - 0.12),
            ],
            x=hx,
        )
    snout = SECOND if face in ("blaze", "mask") else MAIN if k[3] < 0.4 else WHITE
    mw = 0.2 + 0.08 * k[3]
    d.put(ROSE, 4, rounded(hx - 0.08, hy + 0.24, hx + 0.09, hy + 0.47 + 0.03 * m[1], 0.08))
    d.put(snout, 3, ellipse(hx, hy + 0.19, mw, 0.155))
    draw_eyes(d, i, "button", hx, hy - 0.08, 0.19, 0.078)
    d.put(ROSE if is_dark(i, snout) else DARK, 12, ellipse(hx, hy + 0.09, 0.1, 0.072, n=16))
    d.put(ink_on(i, snout), 3, thick([(hx, hy + 0.12), (hx, hy + 0.26)], 0.04))
    return d


def draw_cat(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Ear height, body width, head width, face, tail, neck, bib and eyes."""
    d, k = Drawing(), i.shape
    face = choose(k[3], "plain", "muzzle", "mask", "half")
    bw, hw, hx, hy = 0.34 + 0.14 * k[1], 0.42 + 0.1 * k[2], 0.03 * m[1], -0.3
    curl = arc(bw + 0.05, 0.2, 0.26, 0.5, 100, -55 - 35 * m[0], 14)
    d.put(MAIN, 5, thick(curl, np.full(14, 0.12 + 0.07 * k[4])))
    d.put(SECOND, 5, thick(curl[-5:], np.full(5, 0.12 + 0.07 * k[4])))
    d.put(MAIN, 1, symmetric(0, 0, (0, -0.1), (bw * 0.75, 0.2), (bw * 1.1, 0.7), (bw * 0.8, 0.94)))
    if k[6] > 0.4:
        d.put(SECOND, 1, ellipse(0, 0.36, bw * 0.5, 0.3))
    d.pair(MAIN, 8, rounded(0.03, 0.42, 0.23, 0.95, 0.1))
    d.pair(SECOND if k[6] > 0.6 else MAIN, 8, rounded(0.02, 0.8, 0.26, 0.96, 0.08))
    tip = 0.3 + 0.22 * k[0]
    d.pair(MAIN, 10, [(hx + 0.05, hy - 0.26), (hx + hw * 0.87, hy - 0.32 - tip), (hx + hw * 0.97, hy)], x=hx)
    d.pair(
        ROSE, 11, [(hx + 0.18, hy - 0.28), (hx + hw * 0.8, hy - 0.17 - tip), (hx + hw * 0.83, hy - 0.1)], x=hx
    )
    d.put(MAIN, 2, symmetric(hx, hy, (0, -0.34), (hw * 0.7, -0.25), (hw, 0.1), (hw * 0.6, 0.34), (0, 0.4)))
    if face == "mask":
        d.put(SECOND, 2, symmetric(hx, hy, (0, -0.12), (hw * 0.7, -0.12), (hw * 0.7, 0.22), (0, 0.38)))
    elif face == "half":
        d.put(
            SECOND,
            2,
            smooth(
                [
                    (hx, hy - 0.33),
                    (hx + hw * 0.7, hy - 0.25),
                    (hx + hw, hy + 0.1),
                    (hx + hw * 0.6, hy + 0.34),
                    (hx, hy + 0.36),
                    (hx, hy),
                ]
            ),
        )
    snout = {"muzzle": WHITE, "mask": SECOND}.get(face, MAIN)
    if face == "muzzle":
        d.pair(WHITE, 2, ellipse(hx + 0.1, hy + 0.2, 0.15, 0.12, n=18), x=hx)
    draw_collar(d, choose(k[5], "none", "bell", "bow tie", "bandana"), hx, hy + 0.46, 0.3)
    draw_eyes(d, i, "leaf" if k[6] % 0.5 > 0.25 else "gold", hx, hy - 0.02, hw * 0.47, 0.115)
    d.put(ROSE, 12, [(hx - 0.075, hy + 0.12), (hx + 0.075, hy + 0.12), (hx, hy + 0.2)])
    line = ink_on(i, snout)
    d.pair(line, 13, thick(arc(hx + 0.07, hy + 0.21, 0.075, 0.07, 180, 20, 6), 0.04), x=hx)
    for rise in (-0.03, 0.1):
        d.pair(
            ink_on(i, MAIN),
            14,
            thick([(hx + hw * 0.62, hy + 0.16 + rise * 0.4), (hx + hw * 1.25, hy + 0.1 + rise * 1.6)], 0.036),
            x=hx,
        )
    return d


def draw_duck(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Head size, tail, beak, wing, hat, scarf, eye."""
    d, k = Drawing(), i.shape
    hr, hx, hy = 0.36 + 0.08 * k[0], -0.36 + 0.03 * m[1], -0.34
    d.put(
        MAIN,
        1,
        smooth(
            [
                (-0.62, 0.1),
                (-0.2, 0.02),
                (0.3, 0.06),
                (0.62, -0.08),
                (0.95, -0.24 - 0.22 * k[1]),
                (0.9, 0.3),
                (0.62, 0.68),
                (0.1, 0.8),
                (-0.45, 0.72),
                (-0.74, 0.42),
            ]
        ),
    )
    d.put(
        SECOND if k[3] > 0.35 else MAIN,
        4,
        smooth(
            [(-0.12, 0.26), (0.25, 0.14), (0.66, 0.16 - 0.1 * m[0]), (0.5, 0.42), (0.2, 0.54), (-0.08, 0.44)]
        ),
    )
    d.put(MAIN, 2, ellipse(hx, hy, hr, hr * 0.97))
    if k[5] > 0.5:
        d.put(ACCENT, 6, thick(arc(hx + 0.03, hy + hr * 0.6, hr * 0.92, 0.2, 165, 15, 10), 0.15))
        if k[5] > 0.75:
            d.put(ACCENT, 6, thick([(hx + 0.2, hy + hr * 0.95), (hx + 0.3, 0.42)], 0.17))
    bill = FLAME if i.colours[0] not in ("orange", "red") else GOLD
    reach = 0.3 + 0.12 * k[2]
    d.put(
        bill,
        5,
        smooth(
            [
                (hx - hr * 0.7, hy - 0.02),
                (hx - hr - reach * 0.5, hy + 0.0),
                (hx - hr - reach, hy + 0.1),
                (hx - hr - reach * 0.5, hy + 0.22),
                (hx - hr * 0.65, hy + 0.22),
            ]
        ),
    )
    ex, ey = hx - hr * 0.34, hy - 0.1
    d.put(WHITE, 30, ellipse(ex, ey, 0.115, 0.135, n=18))
    d.put(DARK, 31, ellipse(ex - 0.02, ey + 0.01, 0.07 + 0.03 * k[6], 0.085 + 0.03 * k[6], n=14))
    d.put(WHITE, 31, ellipse(ex - 0.04, ey - 0.03, 0.03, 0.03, n=8))
    draw_hat(
        d,
        choose(k[4], "none", "party", "crown", "top hat", "beanie", "bow"),
        hx + 0.03,
        hy - hr * 0.84,
        hr * 0.72,
    )
    return d


def draw_plushie(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Kind (bear, wolf, sloth, rabbit), ear size, belly, head, arms, neck, face."""
    d, k = Drawing(), i.shape
    kind = choose(k[0], "bear", "wolf", "sloth", "rabbit")
    hw, hy, hx = 0.5 + 0.1 * k[3], -0.34, 0.02 * m[1]
    if kind == "wolf":
        d.put(SECOND, 4, ellipse(0.6, 0.5, 0.17, 0.36, 0.6 + 0.15 * m[0]))
    d.put(MAIN, 1, ellipse(0, 0.42, 0.44, 0.46))
    d.put(SECOND, 1, ellipse(0, 0.45, 0.2 + 0.1 * k[2], 0.3))
    arms = 0.16 * k[4] + (0.16 if kind == "sloth" else 0)
    d.pair(MAIN, 6, ellipse(0.5, 0.28 + arms, 0.15, 0.27 + arms * 0.7, -0.75 + arms * 1.6 + 0.12 * m[2]))
    d.pair(MAIN, 8, ellipse(0.44, 0.76, 0.24, 0.23))
    d.pair(SECOND, 9, ellipse(0.46, 0.78, 0.14, 0.14, n=18))
    ear = 0.16 + 0.08 * k[1]
    if kind == "bear":
        d.pair(MAIN, 10, ellipse(hx + hw * 0.78, hy - 0.33, ear, ear, n=20), x=hx)
        d.pair(SECOND, 11, ellipse(hx + hw * 0.78, hy - 0.32, ear * 0.55, ear * 0.55, n=16), x=hx)
    elif kind == "wolf":
        tip = hy - 0.55 - ear
        d.pair(
            MAIN,
            10,
            smooth([(hx + 0.1, hy - 0.3), (hx + hw * 0.8, tip), (hx + hw * 0.8, tip), (hx + hw, hy - 0.05)]),
            x=hx,
        )
        d.pair(
            SECOND,
            11,
            [(hx + 0.26, hy - 0.32), (hx + hw * 0.77, tip + 0.16), (hx + hw * 0.82, hy - 0.15)],
            x=hx,
        )
    elif kind == "rabbit":
        tall = 0.2 + ear
        d.pair(MAIN, 10, ellipse(hx + 0.24, hy - 0.36 - tall * 0.7, 0.14, tall, 0.18 + 0.1 * m[0]), x=hx)
        d.pair(
            ROSE, 11, ellipse(hx + 0.24, hy - 0.36 - tall * 0.7, 0.07, tall * 0.7, 0.18 + 0.1 * m[0]), x=hx
        )
    d.put(MAIN, 2, ellipse(hx, hy, hw, 0.43))
    snout = SECOND
    if kind == "sloth":
        d.put(SECOND, 2, ellipse(hx, hy + 0.03, hw * 0.78, 0.31))
        d.pair(
            DARK if not is_dark(i, SECOND) else ACCENT,
            3,
            ellipse(hx + 0.26, hy + 0.02, 0.11, 0.2, -0.75),
            x=hx,
        )
        draw_eyes(d, i, "button", hx, hy - 0.02, 0.22, 0.08, DARK)
    else:
        if kind == "wolf":
            d.pair(
                SECOND,
                2,
                smooth(
                    [
                        (hx + 0.02, hy + 0.1),
                        (hx + hw * 0.95, hy + 0.0),
                        (hx + hw * 1.12, hy + 0.22),
                        (hx + hw * 0.6, hy + 0.36),
                        (hx + 0.02, hy + 0.42),
                    ]
                ),
                x=hx,
            )
        elif k[6] > 0.6:
            d.pair(SECOND, 2, ellipse(hx + 0.22, hy - 0.08, 0.16, 0.17, n=20), x=hx)
        d.put(SECOND, 3, ellipse(hx, hy + 0.17, 0.22, 0.17))
        draw_eyes(
            d, i, "button", hx, hy - 0.08, 0.22, 0.085, SECOND if k[6] > 0.6 and kind != "wolf" else MAIN
        )
    nose = ROSE if is_dark(i, snout) or kind == "rabbit" else DARK
    d.put(nose, 12, ellipse(hx, hy + 0.1, 0.1, 0.07, n=16))
    d.pair(ink_on(i, snout), 13, thick(arc(hx + 0.07, hy + 0.17, 0.075, 0.075, 180, 30, 6), 0.04), x=hx)
    draw_collar(d, choose(k[5], "none", "bow tie", "bandana", "band"), hx, hy + 0.44, 0.3)
    if k[5] < 0.25:
        draw_badge(d, "heart", 0, 0.42, 0.15, ACCENT)
    return d
