"""Drawings of toys and figures."""

from __future__ import annotations

import math

import numpy as np

from lorarar.shoebox.world.drawing import (
    Drawing,
    Identity,
    choose,
    draw_badge,
    draw_eyes,
    draw_hat,
    ink_on,
    symmetric,
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


def draw_monster(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Eyes, horns, width, mouth, feet, belly, shagginess."""
    d, k = Drawing(), i.shape
    w, wave = 0.5 + 0.14 * k[2], 0.2 * m[0]
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    fur = 1 + (0.03 + 0.06 * k[6]) * (np.arange(60) % 3 == 0)
    body = np.stack([w * np.cos(t) * fur * (1 + 0.14 * np.sin(t)), 0.08 + 0.72 * np.sin(t) * fur], 1)
    horns = choose(k[1], "horns", "antennae", "ears", "spikes")
    if horns == "horns":
        d.pair(
            WHITE if i.colours[0] != "white" else ACCENT,
            10,
            smooth(
                [(w * 0.3, -0.5), (w * 0.62, -0.8), (w * 0.62, -1.05), (w * 0.95, -0.75), (w * 0.85, -0.35)]
            ),
        )
    elif horns == "antennae":
        d.pair(MAIN, 10, thick([(w * 0.3, -0.5), (w * 0.5, -0.8), (w * 0.75 + 0.05 * m[1], -0.95)], 0.08))
        d.pair(ACCENT, 11, ellipse(w * 0.75 + 0.05 * m[1], -0.95, 0.13, 0.13, n=16))
    elif horns == "ears":
        d.pair(ACCENT, 10, ellipse(w * 0.9, -0.55, 0.16, 0.3, 0.6))
    else:
        for n, x in enumerate((-0.36, -0.12, 0.12, 0.36)):
            d.put(ACCENT, 10 + n, [(x - 0.14, -0.42), (x * 1.25, -0.98 + abs(x) * 0.5), (x + 0.14, -0.42)])
    d.pair(
        MAIN, 6, thick([(w * 0.8, 0.25), (w + 0.2, 0.12 - wave), (w + 0.28, -0.22 - wave)], [0.2, 0.17, 0.17])
    )
    d.pair(SECOND, 7, ellipse(w + 0.28, -0.26 - wave, 0.13, 0.13, n=16))
    d.pair(ACCENT if k[4] > 0.5 else SECOND, 8, ellipse(w * 0.5, 0.82, 0.26, 0.15))
    d.put(MAIN, 1, body)
    if k[5] > 0.4:
        d.put(SECOND, 1, ellipse(0, 0.52, w * 0.6, 0.26))
    eyes = 1 + int(k[0] * 2.999)
    r = (0.26, 0.18, 0.145)[eyes - 1]
    for n, x in enumerate(np.linspace(-1, 1, eyes) * (0, 0.23, 0.32)[eyes - 1] if eyes > 1 else (0.0,)):
        y = -0.24 - (0.1 if eyes == 3 and n == 1 else 0)
        d.put(WHITE, 30 + n, ellipse(x, y, r, r, n=20))
        d.put(DARK, 33 + n, ellipse(x + 0.04 * m[1], y + 0.02, r * 0.52, r * 0.52, n=16))
        d.put(WHITE, 33 + n, ellipse(x + 0.04 * m[1] - r * 0.18, y - r * 0.18, r * 0.17, r * 0.17, n=8))
    mouth = choose(k[3], "wide", "fangs", "grin")
    if mouth == "wide":
        d.put(DARK, 20, arc(0, 0.08, w * 0.66, 0.34, 0, 180, 16))
        for x in (-0.22, 0, 0.22):
            d.put(WHITE, 21, [(x - 0.1, 0.07), (x + 0.1, 0.07), (x, 0.22)])
        d.put(ROSE, 20, ellipse(0, 0.33, w * 0.3, 0.07, n=14))
    elif mouth == "fangs":
        d.put(DARK, 20, rounded(-w * 0.62, 0.08, w * 0.62, 0.24, 0.08))
        d.pair(WHITE, 21, [(w * 0.2, 0.1), (w * 0.55, 0.1), (w * 0.38, 0.4)])
    else:
        d.put(WHITE, 20, arc(0, 0.06, w * 0.62, 0.3, 0, 180, 16))
        d.put(
            DARK,
            20,
            thick(arc(0, 0.06, w * 0.62, 0.3, 0, 180, 16), 0.05),
            thick([(-w * 0.64, 0.07), (w * 0.64, 0.07)], 0.05),
        )
        for x in (-0.14, 0.14):
            d.put(DARK, 20, thick([(x, 0.06), (x, 0.32)], 0.045))
    return d


def draw_poop(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Tier width, tip, eyes, mouth, hat, cheeks, height."""
    d, k = Drawing(), i.shape
    a, top = 0.62 + 0.12 * k[0], -0.72 - 0.14 * k[6]
    lean = 0.05 * m[0] + 0.16 * (k[1] - 0.5)
    d.put(MAIN, 1, symmetric(0, 0, (0.55, 0.36), (0.95, 0.56), (0.86, 0.86), (0, 0.92)))
    d.put(MAIN, 2, symmetric(0, 0, (a * 0.8, -0.06), (a * 1.1, 0.18), (a * 0.95, 0.44), (0, 0.5)))
    d.put(MAIN, 3, symmetric(0, 0, (0.32, -0.4), (0.53, -0.19), (0.42, 0.02), (0, 0.07)))
    d.put(
        MAIN,
        4,
        smooth(
            [
                (-0.26, -0.32),
                (-0.2, -0.55),
                (lean + 0.05, top),
                (lean + 0.1, top),
                (0.24, -0.52),
                (0.3, -0.32),
                (0, -0.27),
            ]
        ),
    )
    if k[5] > 0.4:
        d.pair(ROSE if k[5] < 0.75 else ACCENT, 14, ellipse(0.52, 0.36, 0.14, 0.09, n=16))
    draw_eyes(d, i, choose(k[2], "open", "happy", "open", "button"), 0, 0.12, 0.27, 0.13)
    mouth, ink = choose(k[3], "smile", "laugh", "tongue"), ink_on(i, MAIN)
    if mouth == "smile":
        d.put(ink, 20, thick(arc(0, 0.4, 0.3, 0.22, 15, 165, 12), 0.08))
    else:
        d.put(WHITE if mouth == "laugh" else DARK, 20, arc(0, 0.42, 0.34, 0.3, 0, 180, 16))
        if mouth == "laugh":
            d.put(DARK, 21, arc(0, 0.52, 0.3, 0.19, 0, 180, 14))
        else:
            d.put(ROSE, 21, ellipse(0.05, 0.66, 0.17, 0.12, n=16))
    hat = choose(k[4], "none", "none", "crown", "party", "bow", "top hat")
    draw_hat(d, hat, 0.02 + lean * 0.5, -0.5 if hat != "bow" else -0.42, 0.34)
    return d


def draw_car(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Wheel size, cabin, spoiler, decoration, antenna, hubs, lamp."""
    d, k = Drawing(), i.shape
    r, cabin = 0.3 + 0.08 * k[0], choose(k[1], "buggy", "truck", "sports")
    sway = 0.06 * m[0]
    ax = 0.62 if k[4] > 0.5 else 0.3
    d.put(STEEL, 9, thick([(ax, -0.1), (ax + sway + 0.05, -1.0)], 0.045))
    d.put(
        ACCENT,
        10,
        [(ax + 0.05 + sway, -0.97), (ax + 0.3 + sway, -0.86), (ax + 0.04 + sway, -0.74)]
        if k[4] % 0.5 > 0.25
        else ellipse(ax + 0.05 + sway, -0.93, 0.1, 0.1, n=16),
    )
    if k[2] > 0.4:
        d.put(ACCENT, 5, thick([(0.66, 0.0), (0.72, -0.36)], 0.09))
        d.put(ACCENT, 5, thick([(0.5, -0.4), (0.92, -0.44)], 0.13))
    roofs = {
        "buggy": [(-0.34, 0.0), (-0.14, -0.6), (0.3, -0.6), (0.48, 0.0)],
        "truck": [(-0.42, 0.0), (-0.3, -0.64), (0.2, -0.66), (0.22, 0.0)],
        "sports": [(-0.52, 0.0), (-0.16, -0.5), (0.3, -0.52), (0.72, 0.0)],
    }
    roof = np.array(roofs[cabin])
    d.put(SECOND if cabin == "buggy" else MAIN, 2, smooth(np.repeat(roof, 2, 0)))
    middle = np.array([roof[:, 0].mean(), -0.3])
    d.put(STEEL if i.colours[0] != "gray" else DARK, 3, (roof - middle) * (0.7, 0.62) + middle)
    bodies = {
        "buggy": [(-0.92, 0.26), (-0.6, -0.08), (0.5, -0.14), (0.82, -0.1), (0.84, 0.4), (-0.84, 0.46)],
        "truck": [(-0.87, -0.08), (-0.4, -0.16), (0.8, -0.16), (0.86, -0.08), (0.86, 0.42), (-0.88, 0.42)],
        "sports": [(-0.94, 0.22), (-0.65, -0.02), (0.0, -0.1), (0.8, -0.12), (0.88, 0.38), (-0.92, 0.44)],
    }
    d.put(MAIN, 1, smooth(bodies[cabin]))
    deco = choose(k[3], "stripe", "star", "disc", "bolt")
    if deco == "stripe":
        d.put(SECOND, 1, [(-0.88, 0.12), (0.84, 0.0), (0.85, 0.19), (-0.88, 0.29)])
    else:
        draw_badge(d, deco, 0.02, 0.14, 0.23, SECOND if cabin != "buggy" else ACCENT)
    d.put(GOLD, 6, ellipse(-0.8, 0.14, 0.1, 0.1 + 0.03 * k[6], n=14))
    turn = math.pi * m[1]
    for n, x in enumerate((-0.5, 0.5)):
        d.put(DARK, 7 + n, ellipse(x, 0.48, r, r))
        d.put(
            WHITE if k[5] < 0.33 else ACCENT if k[5] < 0.66 else GOLD,
            11 + n,
            ellipse(x, 0.48, r * 0.58, r * 0.58, n=20),
        )
        for a in (turn, turn + math.pi / 2):
            c, s = r * 0.5 * math.cos(a), r * 0.5 * math.sin(a)
            d.put(DARK, 11 + n, thick([(x - c, 0.48 - s), (x + c, 0.48 + s)], 0.05))
    return d


def draw_cartoon(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Body form, top, eyes, mouth, gesture, shoes, belly."""
    d, k = Drawing(), i.shape
    form = choose(k[0], "round", "square", "drop", "bean")
    limb = DARK
    lift = -0.75 if k[4] > 0.5 else 0.15
    for side in (-1, 1):
        up = lift if side > 0 else 0.25
        hand = (side * (0.86 + 0.02 * m[0]), up + 0.06 * m[0])
        d.put(limb, 5 + side, thick([(side * 0.5, 0.12), (side * 0.8, 0.2 if up > 0 else -0.1), hand], 0.09))
        d.put(WHITE, 8 + side, ellipse(*hand, 0.15, 0.15, n=18))
        d.put(WHITE, 8 + side, ellipse(hand[0] - side * 0.12, hand[1] - 0.09, 0.06, 0.09, -side * 0.5, n=12))
        d.put(limb, 12 + side, thick([(side * 0.22, 0.5), (side * (0.24 + 0.03 * m[1]), 0.86)], 0.1))
        d.put(ACCENT, 15 + side, ellipse(side * (0.32 + 0.03 * m[1]), 0.88, 0.25, 0.12 + 0.04 * k[5]))
    top = choose(k[1], "tuft", "leaf", "party", "beanie", "antenna", "bow")
    crown = -0.62
    if top == "tuft":
        for a, x in ((-0.6, -0.14), (0.0, 0.0), (0.6, 0.14)):
            d.put(SECOND, 20, ellipse(x, crown - 0.1, 0.09, 0.22, a))
    elif top == "antenna":
        d.put(DARK, 20, thick([(0, crown + 0.1), (0.06 * m[2], crown - 0.22)], 0.07))
        d.put(SECOND, 21, ellipse(0.06 * m[2], crown - 0.26, 0.13, 0.13, n=16))
    elif top == "leaf":
        d.put(
            LEAF,
            20,
            ellipse(0.16, crown - 0.1, 0.09, 0.22, 1.0),
            ellipse(-0.14, crown - 0.08, 0.08, 0.17, -1.0),
        )
    bodies = {
        "round": ellipse(0, 0.0, 0.66, 0.66),
        "square": rounded(-0.58, -0.64, 0.58, 0.62, 0.16),
        "drop": symmetric(0, 0, (0, -0.78), (0.3, -0.32), (0.62, 0.14), (0.46, 0.54), (0, 0.66)),
        "bean": symmetric(0, 0, (0, -0.66), (0.42, -0.5), (0.46, -0.1), (0.58, 0.35), (0.36, 0.64)),
    }
    d.put(MAIN, 1, bodies[form])
    if k[6] > 0.5:
        d.put(SECOND, 1, ellipse(0, 0.38, 0.34, 0.22))
    if top in ("party", "beanie", "bow"):
        draw_hat(d, top, 0, crown + 0.1, 0.36)
    draw_eyes(d, i, "open" if k[2] < 0.75 else "happy", 0, -0.2, 0.17, 0.125 + 0.03 * k[2])
    mouth = choose(k[3], "laugh", "smile", "teeth")
    ink = ink_on(i, SECOND if k[6] > 0.5 else MAIN)
    if mouth == "smile":
        d.put(ink, 25, thick(arc(0, 0.08, 0.26, 0.18, 10, 170, 12), 0.075))
    else:
        d.put(DARK if mouth == "laugh" else WHITE, 25, arc(0, 0.06, 0.3, 0.28, 0, 180, 16))
        if mouth == "laugh":
            d.put(ROSE, 26, ellipse(0.02, 0.25, 0.15, 0.08, n=14))
        else:
            d.put(DARK, 26, thick([(-0.29, 0.14), (0.29, 0.14)], 0.04), thick([(0, 0.06), (0, 0.32)], 0.04))
    return d


def draw_robot(i: Identity, m: tuple[float, ...]) -> Drawing:
    """Head width, head roundness, eyes, chest, antenna, arms, feet."""
    d, k = Drawing(), i.shape
    hw, swing = 0.38 + 0.14 * k[0], 0.12 * m[0]
    antenna = choose(k[4], "one", "two", "dish")
    if antenna == "one":
        d.put(STEEL, 9, thick([(0, -0.7), (0.05 * m[1], -0.98)], 0.07))
        d.put(ACCENT, 10, ellipse(0.05 * m[1], -1.0, 0.12, 0.12, n=16))
    elif antenna == "two":
        d.pair(STEEL, 9, thick([(0.15, -0.7), (0.32, -1.0)], 0.06))
        d.pair(ACCENT, 10, ellipse(0.33, -1.0, 0.09, 0.09, n=14))
    else:
        d.put(ACCENT, 9, arc(0, -0.72, 0.26, 0.24, 180, 360, 14))
    d.put(STEEL, 4, rounded(-0.13, -0.2, 0.13, 0.0, 0.02))
    d.pair(ACCENT, 8, rounded(hw - 0.05, -0.52, hw + 0.1, -0.26, 0.05))
    d.put(MAIN, 2, rounded(-hw, -0.76, hw, -0.1, 0.06 + 0.26 * k[1]))
    d.pair(STEEL, 12, thick([(0.42, 0.16), (0.68, 0.22 + swing), (0.74, 0.5 + swing)], 0.13))
    if k[5] > 0.5:
        d.pair(SECOND, 13, thick(arc(0.75, 0.6 + swing, 0.12, 0.12, -60, 240, 12), 0.1))
    else:
        d.pair(SECOND, 13, ellipse(0.75, 0.58 + swing, 0.14, 0.14, n=16))
    d.pair(STEEL, 14, rounded(0.12, 0.5, 0.3, 0.86, 0.02))
    d.pair(SECOND, 15, rounded(0.06, 0.76, 0.44 + 0.1 * k[6], 0.95, 0.08))
    d.put(MAIN, 1, rounded(-0.48, -0.02, 0.48, 0.66, 0.08))
    eyes = choose(k[2], "round", "visor", "square")
    if eyes == "visor":
        d.put(DARK, 29, rounded(-hw * 0.78, -0.58, hw * 0.78, -0.34, 0.12))
        d.pair(GOLD, 30, ellipse(hw * 0.4, -0.46, 0.075, 0.085, n=14))
    else:
        eye = (
            ellipse(hw * 0.46, -0.46, 0.14, 0.14, n=18)
            if eyes == "round"
            else rounded(hw * 0.46 - 0.13, -0.58, hw * 0.46 + 0.13, -0.34, 0.02)
        )
        d.pair(WHITE, 30, eye)
        d.pair(DARK, 31, ellipse(hw * 0.46 - 0.02, -0.45, 0.075, 0.075, n=14))
    d.put(ink_on(i, MAIN), 25, rounded(-0.2, -0.27, 0.2, -0.19, 0.02))
    chest = choose(k[3], "buttons", "gauge", "star", "heart", "bolt")
    d.put(SECOND, 5, rounded(-0.34, 0.1, 0.34, 0.52, 0.06))
    if chest == "buttons":
        for n, x in enumerate((-0.2, 0, 0.2)):
            d.put((ACCENT, GOLD, LEAF)[n], 16 + n, ellipse(x, 0.31, 0.085, 0.085, n=14))
    elif chest == "gauge":
        d.put(WHITE, 16, arc(0, 0.45, 0.26, 0.28, 180, 360, 14))
        d.put(ACCENT, 17, thick([(0, 0.45), (0.14 * m[2], 0.24)], 0.06))
    else:
        draw_badge(d, chest, 0, 0.31, 0.18, ACCENT, 16)
    return d
