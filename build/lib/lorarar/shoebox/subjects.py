"""Subjects of the drawn world: which polygons make a dog, a teapot or a poop emoji.

Each of the `CLASSES` is a parametric drawing. An `Identity` fixes one individual of a class (colours,
marking, proportions, accessories); a `Pose` one view of it. `SUBJECTS` are the thirty named individuals of
LoRA.rar's Table A1, and three more for generalisation; `random_identity` draws any number of others and never
one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from lorarar.shoebox.scene import (
    ACCENT,
    BACKGROUND,
    COLOUR_NAMES,
    COLOURS,
    DARK,
    FIXED_SLOTS,
    FLAME,
    GOLD,
    LEAF,
    MAIN,
    ROSE,
    SECOND,
    STEEL,
    WHITE,
    Part,
    Pose,
    Scene,
    arc,
    ellipse,
    rasterise,
    rounded,
    smooth,
    thick,
    turned,
)

MARKINGS: tuple[str, ...] = ("plain", "striped", "spotted", "patched")
"""Patterns that turn part of the main colour into the second one."""

SPLIT: dict[str, tuple[str, ...]] = {
    "train": (
        "backpack", "backpack dog", "berry bowl", "candle", "cat #1", "colorful sneaker", "dog #1", "dog #5",
        "dog #6", "dog #7", "duck toy", "fancy boot", "grey sloth plushie", "monster toy", "pink sunglasses",
        "poop emoji", "rc car", "red cartoon", "robot toy", "shiny sneaker", "vase",
    ),
    "validation": ("dog #2", "dog #3", "clock", "bear plushie"),
    "test": ("dog #8", "cat #2", "wolf plushie", "teapot", "can"),
    "generalisation": ("toaster", "tv", "sofa"),
}
"""Names of the subjects: the three splits of Table A1 of LoRA.rar, and the set of its generalisation test."""


@dataclass(frozen=True)
class Identity:
    """One individual of a class: everything that stays the same from view to view.

    cls: one of `CLASSES`; colours: names of the main, second and accent colour; marking: one of `MARKINGS`;
    shape: eight numbers in 0..1, whose meaning each drawing states (the last one steers the marking);
    tint: sRGB offsets, in 0..255 steps, of the three colours.
    """

    cls: str
    colours: tuple[str, str, str]
    marking: str
    shape: tuple[float, ...]
    tint: tuple[tuple[float, float, float], ...] = ((0.0, 0.0, 0.0),) * 3


# ---------------- what the drawings share


class _Drawing(list[Part]):
    """A growing stack of parts."""

    def put(self, slot: int, group: int, *polygons: np.ndarray | list) -> None:
        """Add polygons that melt into `group`."""
        self.extend(Part(np.asarray(p, float), slot, group) for p in polygons)

    def pair(self, slot: int, group: int, *polygons: np.ndarray | list, x: float = 0.0) -> None:
        """Add polygons and their mirror images about the vertical at `x`, as two groups."""
        for p in polygons:
            points = np.asarray(p, float)
            self.append(Part(points, slot, group))
            self.append(Part(points * (-1, 1) + (2 * x, 0), slot, group + 50))


def _even(x: float, y: float, *right: tuple[float, float]) -> np.ndarray:
    """Smooth polygon, even about the vertical at `x`; its right half as offsets from (x, y), downwards."""
    half = np.array(right)
    left = half[half[:, 0] > 0][::-1] * (-1, 1)
    return smooth(np.concatenate([half, left]) + np.array([x, y]))


def _is_dark(i: Identity, slot: int) -> bool:
    """Whether dark lines would drown on `slot`."""
    r, g, b = FIXED_SLOTS[slot] if slot in FIXED_SLOTS else COLOURS[i.colours[slot - 1]]
    return 0.3 * r + 0.59 * g + 0.11 * b < 100


def _ink(i: Identity, slot: int) -> int:
    """The slot of lines that are seen on `slot`."""
    return WHITE if _is_dark(i, slot) else DARK


def _choice(value: float, *names: str) -> str:
    """One of `names`: a number in 0..1 as an equal choice."""
    return names[min(int(value * len(names)), len(names) - 1)]


def _eyes(d: _Drawing, i: Identity, kind: str, x: float, y: float, gap: float, r: float,
          on: int = MAIN) -> None:
    """A pair of eyes around (x, y), `gap` to either side, of radius about `r`, on a face made of `on`."""
    e = x + gap
    if kind == "button":
        if _is_dark(i, on):
            d.pair(WHITE, 30, ellipse(e, y, r * 1.4, r * 1.4, n=16), x=x)
        d.pair(DARK, 30, ellipse(e, y, r, r * 1.1, n=16), x=x)
        d.pair(WHITE, 30, ellipse(e - r * 0.25, y - r * 0.35, r * 0.38, r * 0.38, n=8), x=x)
    elif kind == "happy":
        d.pair(_ink(i, on), 30, thick(arc(e, y + r * 0.5, r * 1.15, r * 1.3, 190, 350, 9), r * 0.62), x=x)
    elif kind == "open":
        d.pair(WHITE, 30, ellipse(e, y, r * 1.3, r * 1.5, n=18), x=x)
        d.pair(DARK, 31, ellipse(e - r * 0.2, y + r * 0.1, r * 0.68, r * 0.85, n=14), x=x)
        d.pair(WHITE, 31, ellipse(e - r * 0.4, y - r * 0.25, r * 0.28, r * 0.28, n=8), x=x)
    else:  # an iris of GOLD or LEAF with the slit of a cat
        d.pair(DARK, 30, ellipse(e, y, r * 1.3, r * 1.25, n=18), x=x)
        d.pair(LEAF if kind == "leaf" else GOLD, 30, ellipse(e, y, r * 1.08, r * 1.05, n=18), x=x)
        d.pair(DARK, 30, ellipse(e, y, r * 0.42, r * 0.95, n=12), x=x)


def _hat(d: _Drawing, kind: str, x: float, y: float, w: float) -> None:
    """What stands on a head whose top is at (x, y); `w` is half the hat's width."""
    if kind == "party":
        d.put(ACCENT, 40, [(x - w * 0.7, y + 0.05), (x, y - w * 1.5), (x + w * 0.7, y + 0.05)])
        d.put(SECOND, 40, thick([(x - w * 0.45, y - w * 0.5), (x + w * 0.45, y - w * 0.35)], w * 0.22))
        d.put(GOLD, 41, ellipse(x, y - w * 1.5, w * 0.28, w * 0.28, n=14))
    elif kind == "crown":
        teeth = [(-1, 0.1), (-1.1, -0.9), (-0.5, -0.45), (0, -1.1), (0.5, -0.45), (1.1, -0.9), (1, 0.1)]
        d.put(GOLD, 40, [(x + a * w * 0.85, y + b * w * 0.8) for a, b in teeth])
        d.put(ACCENT, 41, ellipse(x, y - w * 0.2, w * 0.17, w * 0.17, n=12))
    elif kind == "top hat":
        d.put(DARK, 40, rounded(x - w * 0.68, y - w * 1.15, x + w * 0.68, y, 0.05))
        d.put(ACCENT, 40, rounded(x - w * 0.68, y - w * 0.42, x + w * 0.68, y - w * 0.08, 0.01, 2))
        d.put(DARK, 40, rounded(x - w * 1.15, y - w * 0.1, x + w * 1.15, y + w * 0.15, 0.05))
    elif kind == "beanie":
        d.put(ACCENT, 40, ellipse(x, y + w * 0.1, w * 1.05, w * 0.75))
        d.put(WHITE, 41, rounded(x - w * 1.15, y, x + w * 1.15, y + w * 0.38, 0.09))
        d.put(WHITE, 42, ellipse(x, y - w * 0.72, w * 0.28, w * 0.28, n=14))
    elif kind == "bow":
        _bow(d, x, y, w * 0.85)


def _bow(d: _Drawing, x: float, y: float, w: float) -> None:
    """A bow of half width `w` around (x, y)."""
    d.pair(ACCENT, 43, smooth([(x, y), (x + w, y - w * 0.6), (x + w * 1.05, y + w * 0.6)]), x=x)
    d.put(ACCENT, 45, ellipse(x, y, w * 0.27, w * 0.33, n=14))


def _collar(d: _Drawing, kind: str, x: float, y: float, w: float) -> None:
    """What hangs around a neck at (x, y) of half width `w`."""
    if kind == "bandana":
        d.put(ACCENT, 44, [(x - w * 1.05, y - 0.03), (x + w * 1.05, y - 0.03), (x + w * 0.1, y + w * 1.0)])
    elif kind == "bow tie":
        _bow(d, x, y + 0.04, w * 0.62)
    elif kind in ("band", "bell"):
        d.put(ACCENT, 44, thick(arc(x, y - 0.04, w, 0.1, 175, 5, 10), 0.11))
        if kind == "bell":
            d.put(GOLD, 45, ellipse(x, y + 0.13, 0.1, 0.1, n=16))


def _flower(d: _Drawing, x: float, y: float, r: float, group: int, petals: int = 5) -> None:
    """A blossom of radius about 1.5 `r`."""
    for a in np.arange(petals) * 2 * np.pi / petals:
        d.put(ACCENT, group, ellipse(x + r * math.cos(a), y + r * math.sin(a), r * 0.68, r * 0.68, n=12))
    d.put(GOLD, group + 1, ellipse(x, y, r * 0.55, r * 0.55, n=12))


def _star(x: float, y: float, r: float) -> np.ndarray:
    """Polygon (10, 2) of a five-pointed star."""
    a = -np.pi / 2 + np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2, r * 0.45, r)
    return np.stack([x + radius * np.cos(a), y + radius * np.sin(a)], 1)


def _heart(x: float, y: float, r: float) -> np.ndarray:
    """Polygon (24, 2) of a heart."""
    t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    wave = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x + r * np.sin(t) ** 3, y - r * wave / 16], 1)


def _badge(d: _Drawing, kind: str, x: float, y: float, r: float, slot: int, group: int = 46) -> None:
    """A logo of radius `r`."""
    if kind == "star":
        d.put(slot, group, _star(x, y, r * 1.15))
    elif kind == "heart":
        d.put(slot, group, _heart(x, y, r))
    elif kind == "disc":
        d.put(slot, group, ellipse(x, y, r * 0.9, r * 0.9, n=20))
    elif kind == "bolt":
        zig = [(0.1, -1.1), (-0.6, 0.2), (-0.05, 0.2), (-0.3, 1.1), (0.6, -0.25), (0.05, -0.25), (0.5, -1.1)]
        d.put(slot, group, [(x + a * r, y + b * r) for a, b in zig])


# ---------------- one drawing per class: k are the identity's shape numbers, m the pose's moving limbs


def _dog(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Ears, their length, body length, muzzle, tail, collar, face."""
    d, k = _Drawing(), i.shape
    ears = _choice(k[0], "floppy", "folded", "erect")
    tail = _choice(k[4], "whip", "plume", "curl")
    face = _choice(k[6], "plain", "patch", "blaze", "mask")
    hx, hy, right, foot = -0.42 + 0.02 * m[1], -0.36 + 0.02 * m[2], 0.38 + 0.42 * k[2], 0.92 - 0.26 * k[2]
    if tail == "whip":
        d.put(MAIN, 5, thick([(right - 0.1, 0.05), (right + 0.17, -0.1), (right + 0.3 + 0.08 * m[0], -0.42)],
                             0.13))
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
    _collar(d, _choice(k[5], "none", "band", "bell", "bandana"), hx + 0.04, 0.1, 0.31)
    w, h = 0.43, 0.40
    if ears == "erect":
        tip = 0.36 + 0.16 * k[1]
        d.pair(MAIN, 10, [(hx + 0.06, hy - 0.3), (hx + 0.34, hy - h - tip + 0.08), (hx + 0.43, hy - 0.05)],
               x=hx)
        d.pair(ROSE, 11, [(hx + 0.17, hy - 0.3), (hx + 0.32, hy - h - tip + 0.26), (hx + 0.36, hy - 0.12)],
               x=hx)
    d.put(MAIN, 2, ellipse(hx, hy, w, h))
    if face == "patch":
        d.put(SECOND, 2, ellipse(hx + 0.2, hy - 0.1, 0.19, 0.22))
    elif face == "blaze":
        d.put(SECOND, 2, _even(hx, hy, (0, -h), (0.09, -0.15), (0.2, 0.2)))
    elif face == "mask":
        d.put(SECOND, 2, _even(hx, hy, (0, -0.1), (0.18, 0.03), (0.41, 0.02), (0.3, 0.3), (0, h)))
    if ears == "floppy":
        length = 0.28 + 0.16 * k[1]
        d.pair(SECOND, 10, ellipse(hx + 0.43, hy - 0.2 + length * 0.75, 0.15, length, -0.22), x=hx)
    elif ears == "folded":
        fold = 0.1 + 0.2 * k[1]
        d.pair(SECOND, 10, [(hx + 0.1, hy - 0.37), (hx + 0.33, hy - 0.52), (hx + 0.6, hy - 0.2 + fold),
                            (hx + 0.36, hy - 0.12)], x=hx)
    snout = SECOND if face in ("blaze", "mask") else MAIN if k[3] < 0.4 else WHITE
    mw = 0.2 + 0.08 * k[3]
    d.put(ROSE, 4, rounded(hx - 0.08, hy + 0.24, hx + 0.09, hy + 0.47 + 0.03 * m[1], 0.08))
    d.put(snout, 3, ellipse(hx, hy + 0.19, mw, 0.155))
    _eyes(d, i, "button", hx, hy - 0.08, 0.19, 0.078)
    d.put(ROSE if _is_dark(i, snout) else DARK, 12, ellipse(hx, hy + 0.09, 0.1, 0.072, n=16))
    d.put(_ink(i, snout), 3, thick([(hx, hy + 0.12), (hx, hy + 0.26)], 0.04))
    return d


def _cat(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Ear height, body width, head width, face, tail, neck, bib and eyes."""
    d, k = _Drawing(), i.shape
    face = _choice(k[3], "plain", "muzzle", "mask", "half")
    bw, hw, hx, hy = 0.34 + 0.14 * k[1], 0.42 + 0.1 * k[2], 0.03 * m[1], -0.3
    curl = arc(bw + 0.05, 0.2, 0.26, 0.5, 100, -55 - 35 * m[0], 14)
    d.put(MAIN, 5, thick(curl, np.full(14, 0.12 + 0.07 * k[4])))
    d.put(SECOND, 5, thick(curl[-5:], np.full(5, 0.12 + 0.07 * k[4])))
    d.put(MAIN, 1, _even(0, 0, (0, -0.1), (bw * 0.75, 0.2), (bw * 1.1, 0.7), (bw * 0.8, 0.94)))
    if k[6] > 0.4:
        d.put(SECOND, 1, ellipse(0, 0.36, bw * 0.5, 0.3))
    d.pair(MAIN, 8, rounded(0.03, 0.42, 0.23, 0.95, 0.1))
    d.pair(SECOND if k[6] > 0.6 else MAIN, 8, rounded(0.02, 0.8, 0.26, 0.96, 0.08))
    tip = 0.3 + 0.22 * k[0]
    d.pair(MAIN, 10, [(hx + 0.05, hy - 0.26), (hx + hw * 0.87, hy - 0.32 - tip), (hx + hw * 0.97, hy)], x=hx)
    d.pair(ROSE, 11, [(hx + 0.18, hy - 0.28), (hx + hw * 0.8, hy - 0.17 - tip), (hx + hw * 0.83, hy - 0.1)],
           x=hx)
    d.put(MAIN, 2, _even(hx, hy, (0, -0.34), (hw * 0.7, -0.25), (hw, 0.1), (hw * 0.6, 0.34), (0, 0.4)))
    if face == "mask":
        d.put(SECOND, 2, _even(hx, hy, (0, -0.12), (hw * 0.7, -0.12), (hw * 0.7, 0.22), (0, 0.38)))
    elif face == "half":
        d.put(SECOND, 2, smooth([(hx, hy - 0.33), (hx + hw * 0.7, hy - 0.25), (hx + hw, hy + 0.1),
                                 (hx + hw * 0.6, hy + 0.34), (hx, hy + 0.36), (hx, hy)]))
    snout = {"muzzle": WHITE, "mask": SECOND}.get(face, MAIN)
    if face == "muzzle":
        d.pair(WHITE, 2, ellipse(hx + 0.1, hy + 0.2, 0.15, 0.12, n=18), x=hx)
    _collar(d, _choice(k[5], "none", "bell", "bow tie", "bandana"), hx, hy + 0.46, 0.3)
    _eyes(d, i, "leaf" if k[6] % 0.5 > 0.25 else "gold", hx, hy - 0.02, hw * 0.47, 0.115)
    d.put(ROSE, 12, [(hx - 0.075, hy + 0.12), (hx + 0.075, hy + 0.12), (hx, hy + 0.2)])
    line = _ink(i, snout)
    d.pair(line, 13, thick(arc(hx + 0.07, hy + 0.21, 0.075, 0.07, 180, 20, 6), 0.04), x=hx)
    for rise in (-0.03, 0.1):
        d.pair(_ink(i, MAIN), 14, thick([(hx + hw * 0.62, hy + 0.16 + rise * 0.4),
                                         (hx + hw * 1.25, hy + 0.1 + rise * 1.6)],
                                        0.036), x=hx)
    return d


def _backpack(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Width, roundness, side pockets, pocket, flap, badge, plain or with the face of a dog."""
    d, k = _Drawing(), i.shape
    w, r, animal = 0.5 + 0.14 * k[0], 0.2 + 0.35 * k[1], k[6] > 0.8
    d.put(DARK, 5, thick(arc(0, -0.74, 0.2, 0.24, 180, 360), 0.09))
    d.pair(ACCENT, 6, thick(arc(w - 0.08, 0.1 + 0.02 * m[0], 0.3, 0.62, -75, 80), 0.13))
    d.put(MAIN, 1, rounded(-w, -0.8, w, 0.85, r))
    if k[2] > 0.5:
        d.pair(SECOND, 7, rounded(w - 0.1, 0.2, w + 0.17, 0.76, 0.1))
    if animal:
        d.pair(SECOND, 8, ellipse(w * 0.95, -0.3, 0.16, 0.38, -0.2))
        _eyes(d, i, "open", 0, -0.34, 0.24, 0.11)
        d.put(WHITE, 9, ellipse(0, -0.06, 0.27, 0.19))
        d.put(DARK, 10, ellipse(0, -0.14, 0.12, 0.085, n=18))
        d.put(DARK, 9, thick(arc(0, -0.06, 0.13, 0.1, 20, 160, 8), 0.045))
    elif _choice(k[4], "flap", "zip") == "flap":
        d.put(SECOND, 3, _even(0, 0, (w * 0.6, -0.84), (w * 1.02, -0.55), (w * 0.9, -0.12), (0, 0.02)))
        d.pair(ACCENT, 9, rounded(w * 0.4, -0.25, w * 0.4 + 0.13, 0.16, 0.03))
    else:
        d.put(_ink(i, MAIN), 9, thick(arc(0, -0.1, w * 0.86, 0.4, 190, 350), 0.05))
        d.put(STEEL, 10, rounded(w * 0.45, -0.45, w * 0.45 + 0.1, -0.2, 0.04))
    pocket = rounded(-w * 0.74, 0.22, w * 0.74, 0.76, 0.08 + 0.2 * k[3])
    d.put(ACCENT if animal else SECOND, 4, pocket)
    d.put(_ink(i, ACCENT if animal else SECOND), 4, thick([(-w * 0.55, 0.33), (w * 0.55, 0.33)], 0.045))
    _badge(d, _choice(k[5], "none", "star", "heart", "disc", "bolt"), 0, 0.54, 0.15,
           WHITE if animal else ACCENT)
    return d


def _bowl(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Depth, foot, size of the berries, rim, band, leaves, badge."""
    d, k = _Drawing(), i.shape
    depth, big = 0.5 + 0.3 * k[0], k[2] > 0.5
    rows = ((5, -0.12, 0.66), (4, -0.32, 0.48), (2, -0.5, 0.2)) if big else (
        (7, -0.1, 0.72), (6, -0.24, 0.6), (5, -0.38, 0.46), (3, -0.51, 0.26))
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
    d.put(SECOND if k[3] > 0.5 else MAIN, 3, [(-foot, depth - 0.1), (foot, depth - 0.1),
                                              (foot * 1.1, depth + 0.12), (-foot * 1.1, depth + 0.12)])
    d.put(MAIN, 1, np.concatenate([arc(0, 0, 0.94, depth, 0, 180, 24)]))
    if k[4] > 0.5:
        lower = depth * 0.42
        x = [0.94 * math.sqrt(1 - (y / depth) ** 2) for y in (lower, lower + 0.15)]
        d.put(SECOND, 1, [(-x[0], lower), (x[0], lower), (x[1], lower + 0.15), (-x[1], lower + 0.15)])
    else:
        _badge(d, _choice(k[4] * 2, "none", "heart", "disc", "star"), 0, depth * 0.48, 0.17, SECOND)
    d.put(SECOND if k[3] > 0.5 else MAIN, 2, rounded(-0.98, -0.08, 0.98, 0.07 + 0.06 * k[3], 0.08))
    return d


def _candle(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Width, flame, holder, drips, their length, band, badge."""
    d, k = _Drawing(), i.shape
    w, holder, top = 0.27 + 0.16 * k[0], _choice(k[2], "saucer", "handle", "stick"), -0.27
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
        _badge(d, _choice(k[5] * 2, "none", "heart", "star"), 0, 0.18, w * 0.6, SECOND)
    if holder == "stick":
        d.put(ACCENT, 7, rounded(-w - 0.1, 0.4, w + 0.1, 0.54, 0.06))
    wax = WHITE if k[3] > 0.66 else SECOND
    if k[3] > 0.33:
        for q, length in ((-0.75, 0.3), (-0.25, 0.14), (0.25, 0.4), (0.75, 0.2)):
            d.put(wax, 2, rounded(w * q - w * 0.27, top, w * q + w * 0.27, top + length * (0.6 + 0.8 * k[4]),
                                  0.1))
    d.put(wax if k[3] > 0.33 else MAIN, 2, ellipse(0, top, w, 0.07))
    sway, tall = 0.07 * m[0], 0.46 + 0.14 * k[1]
    d.put(DARK, 8, thick([(0, top + 0.02), (sway * 0.2, top - 0.15)], 0.05))
    t = np.linspace(0, 1, 12)
    half = (0.14 + 0.05 * k[1]) * np.sin(np.pi * t**0.6)
    outer = np.concatenate([np.stack([sway * t + half, top - 0.06 - tall * t], 1),
                            np.stack([sway * t - half, top - 0.06 - tall * t], 1)[::-1]])
    d.put(FLAME, 70, outer)
    d.put(GOLD, 71, (outer - (0, top - 0.06)) * (0.55, 0.55) + (0, top - 0.08))
    return d


def _sneaker(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Collar height, sole, toe cap, decoration, heel tab, laces, colour of the sole."""
    d, k = _Drawing(), i.shape
    high, sole = 0.22 * k[0], 0.16 + 0.12 * k[1]
    d.put(SECOND, 4, smooth([(-0.3, -0.4), (-0.25, -0.72 - high), (-0.02, -0.72 - high), (0.12, -0.3)]))
    d.put(MAIN, 1, smooth([(-0.9, -0.5 - high), (-0.86, -0.52 - high), (-0.55, -0.36 - high),
                           (-0.22, -0.56 - high), (-0.06, -0.56 - high * 0.8), (0.3, -0.16), (0.72, 0.0),
                           (0.94, 0.22), (0.95, 0.42), (0.95, 0.42), (-0.9, 0.42), (-0.9, 0.42),
                           (-0.86, 0.0)]))
    if k[2] > 0.4:
        d.put(SECOND, 2, smooth([(0.5, 0.42), (0.52, 0.1), (0.64, -0.01), (0.82, 0.08), (0.95, 0.25),
                                 (0.96, 0.42)]))
    if k[4] > 0.4:
        d.put(ACCENT, 3, smooth([(-0.92, -0.5 - high), (-0.74, -0.44 - high), (-0.66, -0.1), (-0.64, 0.42),
                                 (-0.9, 0.42), (-0.86, 0.0)]))
    kind = _choice(k[3], "swoosh", "bars", "star", "disc", "bolt")
    if kind == "swoosh":
        d.put(ACCENT, 5, smooth([(-0.55, 0.02), (-0.5, 0.22), (-0.2, 0.24), (0.42, -0.06), (-0.2, 0.1),
                                 (-0.42, 0.08)]))
    elif kind == "bars":
        for x in (-0.42, -0.2, 0.02):
            d.put(ACCENT, 5, [(x, 0.4), (x + 0.11, 0.4), (x + 0.3, -0.12), (x + 0.19, -0.16)])
    else:
        _badge(d, kind, -0.26, 0.1, 0.2, ACCENT, 5)
    lace = WHITE if k[5] < 0.6 else ACCENT
    for t in np.linspace(0.05, 0.95, 3 + int(k[5] * 5) % 2):
        x, y = -0.1 + 0.42 * t, -0.5 - high * (0.8 - 0.8 * t) + 0.38 * t
        d.put(lace, 6, thick([(x - 0.13, y + 0.16), (x + 0.05, y - 0.05)], 0.075))
    rubber = WHITE if k[6] < 0.6 else SECOND
    d.put(rubber, 7, smooth([(-0.95, 0.34), (0.0, 0.38), (0.6, 0.36), (0.97, 0.3), (1.0, 0.4 + sole * 0.5),
                             (0.9, 0.4 + sole), (-0.9, 0.4 + sole), (-0.97, 0.4 + sole * 0.5)]))
    d.put(DARK, 8, rounded(-0.9, 0.37 + sole, 0.9, 0.43 + sole, 0.03))
    return d


def _boot(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Shaft width, heel, cuff, closure, toe, badge, colour of the sole."""
    d, k = _Drawing(), i.shape
    wide, heel = 0.08 * k[0], 0.1 + 0.2 * k[1]
    point = 0.12 * k[4]
    sole = DARK if k[6] < 0.5 and not _is_dark(i, MAIN) else ACCENT
    d.put(sole, 7, [(-0.6, 0.5), (-0.16, 0.5), (-0.2, 0.62 + heel), (-0.56, 0.62 + heel)])
    d.put(sole, 7, smooth([(-0.6, 0.48), (0.1, 0.5), (0.8 + point, 0.46), (0.88 + point, 0.6),
                           (0.7, 0.62 + heel), (0.2, 0.62 + heel), (-0.05, 0.6), (-0.6, 0.62)]))
    d.put(MAIN, 1, smooth([(-0.58 - wide, -0.9), (-0.58 - wide, -0.9), (0.16 + wide, -0.9),
                           (0.16 + wide, -0.9), (0.14, -0.25), (0.34, 0.04), (0.74, 0.16),
                           (0.9 + point, 0.36), (0.86 + point, 0.54), (0.86 + point, 0.54), (-0.6, 0.54),
                           (-0.6, 0.54), (-0.62, 0.2), (-0.52, -0.2)]))
    d.put(SECOND, 2, smooth([(0.42, 0.54), (0.46, 0.22), (0.62, 0.1), (0.78, 0.18), (0.92 + point, 0.36),
                             (0.87 + point, 0.54)]))
    closure = _choice(k[3], "laces", "buckles", "zip", "buttons")
    if closure == "laces":
        for y in (-0.62, -0.4, -0.18, 0.04):
            x = 0.1 + (0.12 if y > 0 else 0)
            d.put(DARK if i.colours[0] == "white" else WHITE, 5,
                  thick([(x - 0.3, y + 0.06), (x + 0.04, y - 0.04)], 0.08))
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
        _badge(d, _choice(k[5] * 2 - 1, "star", "heart", "disc"), -0.38, 0.16, 0.15, ACCENT)
    cuff = _choice(k[2], "band", "fur", "fold", "none")
    if cuff == "fur":
        for n, x in enumerate(np.linspace(-0.58 - wide, 0.16 + wide, 5)):
            d.put(WHITE, 3, ellipse(x, -0.86 - (0.04 if n % 2 else 0), 0.14, 0.15, n=16))
    elif cuff != "none":
        low = -0.76 if cuff == "band" else -0.5
        d.put(SECOND if cuff == "fold" else ACCENT, 3, [(-0.64 - wide, -0.95), (0.22 + wide, -0.95),
                                                        (0.2 + wide, low), (-0.6 - wide, low)])
    return d


def _duck(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Head size, tail, beak, wing, hat, scarf, eye."""
    d, k = _Drawing(), i.shape
    hr, hx, hy = 0.36 + 0.08 * k[0], -0.36 + 0.03 * m[1], -0.34
    d.put(MAIN, 1, smooth([(-0.62, 0.1), (-0.2, 0.02), (0.3, 0.06), (0.62, -0.08),
                           (0.95, -0.24 - 0.22 * k[1]), (0.9, 0.3), (0.62, 0.68), (0.1, 0.8), (-0.45, 0.72),
                           (-0.74, 0.42)]))
    d.put(SECOND if k[3] > 0.35 else MAIN, 4, smooth([(-0.12, 0.26), (0.25, 0.14), (0.66, 0.16 - 0.1 * m[0]),
                                                      (0.5, 0.42), (0.2, 0.54), (-0.08, 0.44)]))
    d.put(MAIN, 2, ellipse(hx, hy, hr, hr * 0.97))
    if k[5] > 0.5:
        d.put(ACCENT, 6, thick(arc(hx + 0.03, hy + hr * 0.6, hr * 0.92, 0.2, 165, 15, 10), 0.15))
        if k[5] > 0.75:
            d.put(ACCENT, 6, thick([(hx + 0.2, hy + hr * 0.95), (hx + 0.3, 0.42)], 0.17))
    bill = FLAME if i.colours[0] not in ("orange", "red") else GOLD
    reach = 0.3 + 0.12 * k[2]
    d.put(bill, 5, smooth([(hx - hr * 0.7, hy - 0.02), (hx - hr - reach * 0.5, hy + 0.0),
                           (hx - hr - reach, hy + 0.1), (hx - hr - reach * 0.5, hy + 0.22),
                           (hx - hr * 0.65, hy + 0.22)]))
    ex, ey = hx - hr * 0.34, hy - 0.1
    d.put(WHITE, 30, ellipse(ex, ey, 0.115, 0.135, n=18))
    d.put(DARK, 31, ellipse(ex - 0.02, ey + 0.01, 0.07 + 0.03 * k[6], 0.085 + 0.03 * k[6], n=14))
    d.put(WHITE, 31, ellipse(ex - 0.04, ey - 0.03, 0.03, 0.03, n=8))
    _hat(d, _choice(k[4], "none", "party", "crown", "top hat", "beanie", "bow"), hx + 0.03, hy - hr * 0.84,
         hr * 0.72)
    return d


def _plushie(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Kind (bear, wolf, sloth, rabbit), ear size, belly, head, arms, neck, face."""
    d, k = _Drawing(), i.shape
    kind = _choice(k[0], "bear", "wolf", "sloth", "rabbit")
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
        d.pair(MAIN, 10, smooth([(hx + 0.1, hy - 0.3), (hx + hw * 0.8, tip), (hx + hw * 0.8, tip),
                                 (hx + hw, hy - 0.05)]), x=hx)
        d.pair(SECOND, 11, [(hx + 0.26, hy - 0.32), (hx + hw * 0.77, tip + 0.16),
                            (hx + hw * 0.82, hy - 0.15)], x=hx)
    elif kind == "rabbit":
        tall = 0.2 + ear
        d.pair(MAIN, 10, ellipse(hx + 0.24, hy - 0.36 - tall * 0.7, 0.14, tall, 0.18 + 0.1 * m[0]), x=hx)
        d.pair(ROSE, 11, ellipse(hx + 0.24, hy - 0.36 - tall * 0.7, 0.07, tall * 0.7, 0.18 + 0.1 * m[0]),
               x=hx)
    d.put(MAIN, 2, ellipse(hx, hy, hw, 0.43))
    snout = SECOND
    if kind == "sloth":
        d.put(SECOND, 2, ellipse(hx, hy + 0.03, hw * 0.78, 0.31))
        d.pair(DARK if not _is_dark(i, SECOND) else ACCENT, 3,
               ellipse(hx + 0.26, hy + 0.02, 0.11, 0.2, -0.75), x=hx)
        _eyes(d, i, "button", hx, hy - 0.02, 0.22, 0.08, DARK)
    else:
        if kind == "wolf":
            d.pair(SECOND, 2, smooth([(hx + 0.02, hy + 0.1), (hx + hw * 0.95, hy + 0.0),
                                      (hx + hw * 1.12, hy + 0.22), (hx + hw * 0.6, hy + 0.36),
                                      (hx + 0.02, hy + 0.42)]), x=hx)
        elif k[6] > 0.6:
            d.pair(SECOND, 2, ellipse(hx + 0.22, hy - 0.08, 0.16, 0.17, n=20), x=hx)
        d.put(SECOND, 3, ellipse(hx, hy + 0.17, 0.22, 0.17))
        _eyes(d, i, "button", hx, hy - 0.08, 0.22, 0.085, SECOND if k[6] > 0.6 and kind != "wolf" else MAIN)
    nose = ROSE if _is_dark(i, snout) or kind == "rabbit" else DARK
    d.put(nose, 12, ellipse(hx, hy + 0.1, 0.1, 0.07, n=16))
    d.pair(_ink(i, snout), 13, thick(arc(hx + 0.07, hy + 0.17, 0.075, 0.075, 180, 30, 6), 0.04), x=hx)
    _collar(d, _choice(k[5], "none", "bow tie", "bandana", "band"), hx, hy + 0.44, 0.3)
    if k[5] < 0.25:
        _badge(d, "heart", 0, 0.42, 0.15, ACCENT)
    return d


def _monster(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Eyes, horns, width, mouth, feet, belly, shagginess."""
    d, k = _Drawing(), i.shape
    w, wave = 0.5 + 0.14 * k[2], 0.2 * m[0]
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    fur = 1 + (0.03 + 0.06 * k[6]) * (np.arange(60) % 3 == 0)
    body = np.stack([w * np.cos(t) * fur * (1 + 0.14 * np.sin(t)), 0.08 + 0.72 * np.sin(t) * fur], 1)
    horns = _choice(k[1], "horns", "antennae", "ears", "spikes")
    if horns == "horns":
        d.pair(WHITE if i.colours[0] != "white" else ACCENT, 10,
               smooth([(w * 0.3, -0.5), (w * 0.62, -0.8), (w * 0.62, -1.05), (w * 0.95, -0.75),
                       (w * 0.85, -0.35)]))
    elif horns == "antennae":
        d.pair(MAIN, 10, thick([(w * 0.3, -0.5), (w * 0.5, -0.8), (w * 0.75 + 0.05 * m[1], -0.95)], 0.08))
        d.pair(ACCENT, 11, ellipse(w * 0.75 + 0.05 * m[1], -0.95, 0.13, 0.13, n=16))
    elif horns == "ears":
        d.pair(ACCENT, 10, ellipse(w * 0.9, -0.55, 0.16, 0.3, 0.6))
    else:
        for n, x in enumerate((-0.36, -0.12, 0.12, 0.36)):
            d.put(ACCENT, 10 + n, [(x - 0.14, -0.42), (x * 1.25, -0.98 + abs(x) * 0.5), (x + 0.14, -0.42)])
    d.pair(MAIN, 6, thick([(w * 0.8, 0.25), (w + 0.2, 0.12 - wave), (w + 0.28, -0.22 - wave)],
                          [0.2, 0.17, 0.17]))
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
    mouth = _choice(k[3], "wide", "fangs", "grin")
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
        d.put(DARK, 20, thick(arc(0, 0.06, w * 0.62, 0.3, 0, 180, 16), 0.05),
              thick([(-w * 0.64, 0.07), (w * 0.64, 0.07)], 0.05))
        for x in (-0.14, 0.14):
            d.put(DARK, 20, thick([(x, 0.06), (x, 0.32)], 0.045))
    return d


def _sunglasses(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Lens form, frame thickness, lens height, lens colour, shine, temples, badge."""
    d, k = _Drawing(), i.shape
    form = _choice(k[0], "round", "square", "cat eye", "heart", "aviator")
    rim, h, x = 0.11 + 0.05 * k[1], 0.4 + 0.1 * k[2], 0.48
    shapes = {
        "round": ellipse(x, 0, 0.45, 0.47),
        "square": rounded(x - 0.43, -h, x + 0.43, h, 0.13),
        "cat eye": smooth([(0.08, -0.2), (0.5, -h * 0.9), (1.04, -h - 0.2), (0.92, 0.1), (0.6, h),
                           (0.2, h * 0.7)]),
        "heart": _heart(x, -0.03, 0.52),
        "aviator": smooth([(0.06, -0.28), (0.5, -h), (0.93, -0.3), (0.88, 0.15), (0.55, h + 0.08),
                           (0.2, 0.25)]),
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
    lens = _choice(k[3], "dark", "second", "second", "split")
    d.pair(DARK if lens == "dark" else SECOND, 3, inner)
    if lens == "split":
        d.pair(ACCENT, 3, np.minimum(inner, (9, middle[1] - 0.02)))
    if k[4] > 0.3:
        c = middle[0]
        d.pair(WHITE, 3, thick([(c - 0.2, middle[1] + 0.1), (c + 0.02, middle[1] - 0.2)], 0.085))
        if k[4] > 0.65:
            d.pair(WHITE, 3, thick([(c - 0.04, middle[1] + 0.14), (c + 0.12, middle[1] - 0.08)], 0.05))
    if k[6] > 0.5:
        d.pair(GOLD, 7, _star(0.88, -h + 0.06, 0.14))
    return d


def _poop(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Tier width, tip, eyes, mouth, hat, cheeks, height."""
    d, k = _Drawing(), i.shape
    a, top = 0.62 + 0.12 * k[0], -0.72 - 0.14 * k[6]
    lean = 0.05 * m[0] + 0.16 * (k[1] - 0.5)
    d.put(MAIN, 1, _even(0, 0, (0.55, 0.36), (0.95, 0.56), (0.86, 0.86), (0, 0.92)))
    d.put(MAIN, 2, _even(0, 0, (a * 0.8, -0.06), (a * 1.1, 0.18), (a * 0.95, 0.44), (0, 0.5)))
    d.put(MAIN, 3, _even(0, 0, (0.32, -0.4), (0.53, -0.19), (0.42, 0.02), (0, 0.07)))
    d.put(MAIN, 4, smooth([(-0.26, -0.32), (-0.2, -0.55), (lean + 0.05, top), (lean + 0.1, top),
                           (0.24, -0.52), (0.3, -0.32), (0, -0.27)]))
    if k[5] > 0.4:
        d.pair(ROSE if k[5] < 0.75 else ACCENT, 14, ellipse(0.52, 0.36, 0.14, 0.09, n=16))
    _eyes(d, i, _choice(k[2], "open", "happy", "open", "button"), 0, 0.12, 0.27, 0.13)
    mouth, ink = _choice(k[3], "smile", "laugh", "tongue"), _ink(i, MAIN)
    if mouth == "smile":
        d.put(ink, 20, thick(arc(0, 0.4, 0.3, 0.22, 15, 165, 12), 0.08))
    else:
        d.put(WHITE if mouth == "laugh" else DARK, 20, arc(0, 0.42, 0.34, 0.3, 0, 180, 16))
        if mouth == "laugh":
            d.put(DARK, 21, arc(0, 0.52, 0.3, 0.19, 0, 180, 14))
        else:
            d.put(ROSE, 21, ellipse(0.05, 0.66, 0.17, 0.12, n=16))
    hat = _choice(k[4], "none", "none", "crown", "party", "bow", "top hat")
    _hat(d, hat, 0.02 + lean * 0.5, -0.5 if hat != "bow" else -0.42, 0.34)
    return d


def _car(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Wheel size, cabin, spoiler, decoration, antenna, hubs, lamp."""
    d, k = _Drawing(), i.shape
    r, cabin = 0.3 + 0.08 * k[0], _choice(k[1], "buggy", "truck", "sports")
    sway = 0.06 * m[0]
    ax = 0.62 if k[4] > 0.5 else 0.3
    d.put(STEEL, 9, thick([(ax, -0.1), (ax + sway + 0.05, -1.0)], 0.045))
    d.put(ACCENT, 10, [(ax + 0.05 + sway, -0.97), (ax + 0.3 + sway, -0.86),
                       (ax + 0.04 + sway, -0.74)] if k[4] % 0.5 > 0.25
          else ellipse(ax + 0.05 + sway, -0.93, 0.1, 0.1, n=16))
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
    deco = _choice(k[3], "stripe", "star", "disc", "bolt")
    if deco == "stripe":
        d.put(SECOND, 1, [(-0.88, 0.12), (0.84, 0.0), (0.85, 0.19), (-0.88, 0.29)])
    else:
        _badge(d, deco, 0.02, 0.14, 0.23, SECOND if cabin != "buggy" else ACCENT)
    d.put(GOLD, 6, ellipse(-0.8, 0.14, 0.1, 0.1 + 0.03 * k[6], n=14))
    turn = math.pi * m[1]
    for n, x in enumerate((-0.5, 0.5)):
        d.put(DARK, 7 + n, ellipse(x, 0.48, r, r))
        d.put(WHITE if k[5] < 0.33 else ACCENT if k[5] < 0.66 else GOLD, 11 + n,
              ellipse(x, 0.48, r * 0.58, r * 0.58, n=20))
        for a in (turn, turn + math.pi / 2):
            c, s = r * 0.5 * math.cos(a), r * 0.5 * math.sin(a)
            d.put(DARK, 11 + n, thick([(x - c, 0.48 - s), (x + c, 0.48 + s)], 0.05))
    return d


def _cartoon(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Body form, top, eyes, mouth, gesture, shoes, belly."""
    d, k = _Drawing(), i.shape
    form = _choice(k[0], "round", "square", "drop", "bean")
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
    top = _choice(k[1], "tuft", "leaf", "party", "beanie", "antenna", "bow")
    crown = -0.62
    if top == "tuft":
        for a, x in ((-0.6, -0.14), (0.0, 0.0), (0.6, 0.14)):
            d.put(SECOND, 20, ellipse(x, crown - 0.1, 0.09, 0.22, a))
    elif top == "antenna":
        d.put(DARK, 20, thick([(0, crown + 0.1), (0.06 * m[2], crown - 0.22)], 0.07))
        d.put(SECOND, 21, ellipse(0.06 * m[2], crown - 0.26, 0.13, 0.13, n=16))
    elif top == "leaf":
        d.put(LEAF, 20, ellipse(0.16, crown - 0.1, 0.09, 0.22, 1.0),
              ellipse(-0.14, crown - 0.08, 0.08, 0.17, -1.0))
    bodies = {
        "round": ellipse(0, 0.0, 0.66, 0.66),
        "square": rounded(-0.58, -0.64, 0.58, 0.62, 0.16),
        "drop": _even(0, 0, (0, -0.78), (0.3, -0.32), (0.62, 0.14), (0.46, 0.54), (0, 0.66)),
        "bean": _even(0, 0, (0, -0.66), (0.42, -0.5), (0.46, -0.1), (0.58, 0.35), (0.36, 0.64)),
    }
    d.put(MAIN, 1, bodies[form])
    if k[6] > 0.5:
        d.put(SECOND, 1, ellipse(0, 0.38, 0.34, 0.22))
    if top in ("party", "beanie", "bow"):
        _hat(d, top, 0, crown + 0.1, 0.36)
    _eyes(d, i, "open" if k[2] < 0.75 else "happy", 0, -0.2, 0.17, 0.125 + 0.03 * k[2])
    mouth = _choice(k[3], "laugh", "smile", "teeth")
    ink = _ink(i, SECOND if k[6] > 0.5 else MAIN)
    if mouth == "smile":
        d.put(ink, 25, thick(arc(0, 0.08, 0.26, 0.18, 10, 170, 12), 0.075))
    else:
        d.put(DARK if mouth == "laugh" else WHITE, 25, arc(0, 0.06, 0.3, 0.28, 0, 180, 16))
        if mouth == "laugh":
            d.put(ROSE, 26, ellipse(0.02, 0.25, 0.15, 0.08, n=14))
        else:
            d.put(DARK, 26, thick([(-0.29, 0.14), (0.29, 0.14)], 0.04), thick([(0, 0.06), (0, 0.32)], 0.04))
    return d


def _robot(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Head width, head roundness, eyes, chest, antenna, arms, feet."""
    d, k = _Drawing(), i.shape
    hw, swing = 0.38 + 0.14 * k[0], 0.12 * m[0]
    antenna = _choice(k[4], "one", "two", "dish")
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
    eyes = _choice(k[2], "round", "visor", "square")
    if eyes == "visor":
        d.put(DARK, 29, rounded(-hw * 0.78, -0.58, hw * 0.78, -0.34, 0.12))
        d.pair(GOLD, 30, ellipse(hw * 0.4, -0.46, 0.075, 0.085, n=14))
    else:
        eye = ellipse(hw * 0.46, -0.46, 0.14, 0.14, n=18) if eyes == "round" else rounded(hw * 0.46 - 0.13,
                                                                                          -0.58,
                                                                                          hw * 0.46 + 0.13,
                                                                                          -0.34, 0.02)
        d.pair(WHITE, 30, eye)
        d.pair(DARK, 31, ellipse(hw * 0.46 - 0.02, -0.45, 0.075, 0.075, n=14))
    d.put(_ink(i, MAIN), 25, rounded(-0.2, -0.27, 0.2, -0.19, 0.02))
    chest = _choice(k[3], "buttons", "gauge", "star", "heart", "bolt")
    d.put(SECOND, 5, rounded(-0.34, 0.1, 0.34, 0.52, 0.06))
    if chest == "buttons":
        for n, x in enumerate((-0.2, 0, 0.2)):
            d.put((ACCENT, GOLD, LEAF)[n], 16 + n, ellipse(x, 0.31, 0.085, 0.085, n=14))
    elif chest == "gauge":
        d.put(WHITE, 16, arc(0, 0.45, 0.26, 0.28, 180, 360, 14))
        d.put(ACCENT, 17, thick([(0, 0.45), (0.14 * m[2], 0.24)], 0.06))
    else:
        _badge(d, chest, 0, 0.31, 0.18, ACCENT, 16)
    return d


def _vase(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Neck, belly, foot, height of the belly, handles, flowers, band."""
    d, k = _Drawing(), i.shape
    n, b, f, y = 0.14 + 0.1 * k[0], 0.36 + 0.2 * k[1], 0.2 + 0.12 * k[2], 0.2 + 0.32 * k[3]
    flowers = _choice(k[5], "none", "three", "one", "tulips")
    if flowers in ("three", "tulips"):
        for q in (-1, 1, 0):
            x, top = q * 0.4 + 0.05 * m[q + 1], -0.72 - 0.08 * (q == 0)
            d.put(LEAF, 9, thick([(q * 0.06, -0.1), (x, top)], 0.06))
            if flowers == "three":
                _flower(d, x, top, 0.135, 80 + 3 * q)
            else:
                bloom = _even(x, top, (0, -0.24), (0.05, -0.1), (0.14, -0.2), (0.1, 0.1))
                d.put(ACCENT, 80 + 3 * q, bloom)
    elif flowers == "one":
        x = 0.05 * m[1]
        d.put(LEAF, 9, thick([(0, -0.1), (x, -0.65)], 0.07))
        d.pair(LEAF, 10, ellipse(0.2, -0.38, 0.07, 0.18, 0.9))
        _flower(d, x, -0.68, 0.22, 80, 7)
    lip = -0.2 if flowers != "none" else -0.36
    if k[4] > 0.5:
        d.pair(ACCENT, 5, thick(arc(n + 0.12, 0.08, 0.24, 0.26, -110, 110, 14), 0.09))
    neck = ((n * 1.7, lip), (n * 1.7, lip), (n * 1.05, lip + 0.12), (n, lip + 0.26))
    d.put(MAIN, 1, _even(0, 0, *neck, (b, y), (f, 0.84), (f * 1.1, 0.95), (f * 1.1, 0.95)))
    d.put(SECOND, 2, ellipse(0, lip, n * 1.7, 0.07))
    if k[6] > 0.5:
        for dy in (-0.12, 0.12) if k[6] > 0.75 else (0.0,):
            d.put(SECOND, 1, rounded(-b * 0.97, y + dy - 0.07, b * 0.97, y + dy + 0.07, 0.02, 2))
    elif k[6] > 0.2:
        _badge(d, _choice(k[6] * 2, "heart", "disc", "star"), 0, y, 0.17, SECOND)
    return d


def _clock(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Case (round, square, house), bells and legs, rim, ticks, face colour, hands, badge."""
    d, k = _Drawing(), i.shape
    case, bells = _choice(k[0], "round", "round", "square", "house"), k[1] > 0.5
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
    ink = _ink(i, face)
    for q in range(12 if k[3] > 0.5 else 4):
        a = q * math.pi * (1 / 6 if k[3] > 0.5 else 0.5)
        c, s = math.cos(a), math.sin(a)
        big = k[3] <= 0.5 or q % 3 == 0
        d.put(ink, 2, thick([(r * (0.7 if big else 0.78) * c, y + r * (0.7 if big else 0.78) * s),
                             (r * 0.92 * c, y + r * 0.92 * s)],
                            0.08 if big else 0.045))
    for n, (length, width, turn) in enumerate(((0.44, 0.12, m[0]), (0.66, 0.085, m[1]))):
        a = -math.pi * (0.72 if n == 0 else 0.22) + 0.9 * math.pi * turn
        d.put((ACCENT if k[5] > 0.4 and face == WHITE and i.colours[2] != "white" else ink), 20 + n,
              thick([(0, y), (r * length * math.cos(a), y + r * length * math.sin(a))], width))
    d.put(ink, 22, ellipse(0, y, 0.08, 0.08, n=14))
    return d


def _teapot(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Width, height, handle, spout, knob, lid, badge."""
    d, k = _Drawing(), i.shape
    w, h = 0.48 + 0.1 * k[0], 0.42 + 0.14 * k[1]
    d.put(ACCENT, 5, thick(arc(w * 0.9, 0.18, 0.32 + 0.08 * k[2], 0.26 + 0.1 * k[2], -115, 115, 16), 0.12))
    up = -0.14 - 0.16 * k[3]
    d.put(MAIN, 6, thick([(-w * 0.6, 0.44), (-w - 0.12, 0.26), (-w - 0.2, 0.04), (-w - 0.36, up)],
                         [0.3, 0.2, 0.15, 0.13]))
    d.put(SECOND, 6, thick([(-w - 0.29, up + 0.1), (-w - 0.38, up - 0.03)], 0.17))
    d.put(SECOND, 7, rounded(-w * 0.62, 0.2 + h * 0.8, w * 0.62, 0.24 + h, 0.05))
    d.put(MAIN, 1, ellipse(0, 0.2, w, h, n=36))
    y = 0.2 - h * 0.84 + 0.02 * m[0]
    lid = _choice(k[5], "dome", "flat", "cone")
    rise = {"dome": 0.22, "flat": 0.1, "cone": 0.28}[lid]
    if lid == "cone":
        d.put(SECOND, 3, [(-w * 0.62, y), (0, y - rise - 0.06), (w * 0.62, y)])
    else:
        d.put(SECOND, 3, arc(0, y, w * 0.64, rise, 180, 360, 16))
    d.put(ACCENT, 4, rounded(-w * 0.68, y - 0.05, w * 0.68, y + 0.05, 0.05))
    knob = 0.09 + 0.04 * k[4]
    d.put(ACCENT, 8, ellipse(0, y - rise - knob * 0.7, knob, knob, n=18))
    badge = _choice(k[6], "none", "flower", "heart", "band", "star")
    if badge == "flower":
        _flower(d, 0, 0.24, 0.13, 80)
    elif badge == "band":
        d.put(SECOND, 1, smooth([(-w * 0.98, 0.16), (0, 0.22), (w * 0.98, 0.16), (w * 0.96, 0.32), (0, 0.4),
                                 (-w * 0.96, 0.32)]))
    else:
        _badge(d, badge, 0, 0.24, 0.2, SECOND)
    return d


def _can(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Width, straw, label, logo, size of the logo, tab, drops."""
    d, k = _Drawing(), i.shape
    w = 0.42 + 0.16 * k[0]
    if k[1] > 0.6:
        lean = 0.06 * m[0]
        d.put(ACCENT, 9, thick([(0.12, -0.7), (0.24 + lean, -1.12), (0.52 + lean, -1.2)], 0.1))
    d.put(STEEL, 4, rounded(-w * 0.9, 0.7, w * 0.9, 0.95, 0.1))
    d.put(MAIN, 1, [(-w * 0.84, -0.78), (w * 0.84, -0.78), (w, -0.58), (w, 0.72), (w * 0.9, 0.84),
                    (-w * 0.9, 0.84), (-w, 0.72), (-w, -0.58)])
    label = _choice(k[2], "none", "band", "wave", "two bands")
    if label == "band":
        d.put(SECOND, 1, [(-w, -0.28), (w, -0.28), (w, 0.42), (-w, 0.42)])
    elif label == "wave":
        d.put(SECOND, 1, smooth([(-w, -0.05), (-w, -0.05), (-w * 0.3, 0.2), (w * 0.3, -0.2), (w, -0.05),
                                 (w, -0.05), (w, 0.72), (w, 0.72), (0, 0.78), (-w, 0.72), (-w, 0.72)]))
    elif label == "two bands":
        for y in (-0.48, 0.52):
            d.put(SECOND, 1, [(-w, y), (w, y), (w, y + 0.15), (-w, y + 0.15)])
    _badge(d, _choice(k[3], "star", "heart", "disc", "bolt"), 0, 0.08, 0.2 + 0.1 * k[4], ACCENT)
    d.put(STEEL, 2, ellipse(0, -0.78, w * 0.86, 0.13))
    d.put(DARK, 3, ellipse(0, -0.78, w * 0.7, 0.085))
    d.put(STEEL, 3, ellipse(0.02, -0.78, w * 0.62, 0.06))
    if k[1] <= 0.6:
        d.put(ACCENT if k[5] > 0.5 else DARK, 5, ellipse(0.0, -0.8, 0.17, 0.06, -0.15, n=16))
    if k[6] > 0.6:
        for x, y in ((-0.75, -0.35), (0.72, -0.1), (-0.7, 0.55), (0.66, 0.6)):
            d.put(WHITE, 6, ellipse(x * w, y, 0.05, 0.075, n=12))
    return d


def _toaster(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Roundness, slices, browning, dial, stripe, feet, badge."""
    d, k = _Drawing(), i.shape
    rise = 0.06 * m[0]
    slices = (-0.34, 0.34) if k[1] > 0.4 else (0.0,)
    for n, x in enumerate(slices):
        w = 0.29 if len(slices) == 2 else 0.46
        y = -0.78 + rise * (1 - 2 * n)
        crust = smooth([(x - w, y + 0.12), (x - w * 0.75, y - 0.06), (x, y - 0.03), (x + w * 0.75, y - 0.06),
                        (x + w, y + 0.12), (x + w * 0.85, y + 0.3), (x + w * 0.85, 0.0), (x - w * 0.85, 0.0),
                        (x - w * 0.85, y + 0.3)])
        d.put(FLAME, 10 + n, crust)
        d.put(GOLD if k[2] > 0.5 else WHITE, 10 + n, (crust - (x, y + 0.3)) * 0.76 + (x, y + 0.32))
    d.put(DARK, 5, rounded(-0.72, 0.62, -0.42, 0.8, 0.05), rounded(0.42, 0.62, 0.72, 0.8, 0.05))
    d.put(MAIN, 1, rounded(-0.86, -0.38, 0.86, 0.7, 0.14 + 0.3 * k[0]))
    d.put(STEEL, 2, rounded(-0.68, -0.42, 0.68, -0.28, 0.06))
    if k[4] > 0.4:
        d.put(SECOND, 1, rounded(-0.86, 0.36, 0.86, 0.56, 0.01, 2))
    d.put(DARK, 6, thick([(0.9, -0.16), (0.9, 0.4)], 0.05))
    d.put(ACCENT, 7, rounded(0.8, -0.16 + 0.1 * m[1], 1.06, 0.0 + 0.1 * m[1], 0.06))
    dial = _choice(k[3], "dial", "face", "star", "heart")
    if dial == "dial":
        d.put(SECOND if k[4] <= 0.4 else ACCENT, 8, ellipse(0.42, 0.1, 0.17, 0.17, n=20))
        d.put(DARK, 9, thick([(0.42, 0.1), (0.42 + 0.12 * math.cos(6 * k[6]),
                                            0.1 + 0.12 * math.sin(6 * k[6]))], 0.06))
        d.put(SECOND, 8, rounded(-0.6, 0.0, 0.05, 0.2, 0.1))
    elif dial == "face":
        _eyes(d, i, "open", 0, 0.02, 0.3, 0.11)
        d.put(_ink(i, MAIN), 25, thick(arc(0, 0.14, 0.16, 0.12, 15, 165, 8), 0.06))
    else:
        _badge(d, dial, 0, 0.06, 0.26, ACCENT)
    return d


def _tv(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Roundness, antennae, knobs, legs, picture, screen form, bezel."""
    d, k = _Drawing(), i.shape
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
    picture = _choice(k[4], "sky", "test", "face", "dark")
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
            d.put(_ink(i, MAIN), 11, thick([(0.58, y), (0.82, y)], 0.045))
    else:
        d.put(_ink(i, MAIN), 11, thick([(-0.7, 0.56), (-0.1, 0.56)], 0.06))
    return d


def _sofa(i: Identity, m: tuple[float, ...]) -> _Drawing:
    """Arm width, back height, roundness, seats, pillows, legs, throw."""
    d, k = _Drawing(), i.shape
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
    pillow = _choice(k[4], "one", "two", "round", "none")
    if pillow in ("one", "two"):
        turn = 0.12 * m[0]
        base = np.array([(-0.19, -0.17), (0.19, -0.17), (0.17, 0.19), (-0.17, 0.19)])
        rot = np.array([(math.cos(0.3 + turn), math.sin(0.3 + turn)),
                        (-math.sin(0.3 + turn), math.cos(0.3 + turn))])
        d.put(ACCENT, 20, smooth(np.repeat(base @ rot + (-0.5, -0.14), 2, 0)))
        if pillow == "two":
            d.put(ACCENT, 21, smooth(np.repeat(base @ rot.T + (0.5, -0.14), 2, 0)))
    elif pillow == "round":
        d.put(ACCENT, 20, ellipse(0.42, -0.14, 0.21, 0.21, n=22))
    if k[6] > 0.6:
        d.put(ACCENT, 22, rounded(0.1, back - 0.02, 0.42, back + 0.36, 0.04))
        d.put(WHITE, 22, rounded(0.1, back + 0.2, 0.42, back + 0.28, 0.01, 2))
    return d


_DRAWINGS: dict[str, Callable[[Identity, tuple[float, ...]], _Drawing]] = {
    "dog": _dog,
    "cat": _cat,
    "backpack": _backpack,
    "bowl": _bowl,
    "candle": _candle,
    "sneaker": _sneaker,
    "boot": _boot,
    "duck toy": _duck,
    "plushie": _plushie,
    "monster toy": _monster,
    "sunglasses": _sunglasses,
    "poop emoji": _poop,
    "rc car": _car,
    "cartoon": _cartoon,
    "robot toy": _robot,
    "vase": _vase,
    "clock": _clock,
    "teapot": _teapot,
    "can": _can,
    "toaster": _toaster,
    "tv": _tv,
    "sofa": _sofa,
}
CLASSES: tuple[str, ...] = tuple(_DRAWINGS)
"""The words for the classes in prompts. Index order is part of the random streams: append only."""

REACH = 0.95
"""Every subject is fitted into [-REACH, REACH]², touching it in its larger dimension."""


def parts(identity: Identity, pose: Pose) -> list[Part]:
    """The polygons of `identity` with its limbs as in `pose`, fitted to the frame; bottom to top."""
    drawing = _DRAWINGS[identity.cls](identity, pose.limb)
    points = np.concatenate([part.polygon for part in drawing])
    low, high = points.min(0), points.max(0)
    points = (points - (low + high) / 2) * (2 * REACH / (high - low).max())
    ends = np.cumsum([len(part.polygon) for part in drawing])
    polygons = np.split(points, ends[:-1])
    return [Part(polygon, part.slot, part.group) for polygon, part in zip(polygons, drawing, strict=True)]


def _palette(identity: Identity) -> np.ndarray:
    """Colours of the slots, (11, 3) float32 sRGB in 0..1."""
    palette = np.zeros((11, 3), np.float32)
    for slot, colour in FIXED_SLOTS.items():
        palette[slot] = colour
    for slot, (name, tint) in enumerate(zip(identity.colours, identity.tint, strict=True), MAIN):
        palette[slot] = np.clip(np.add(COLOURS[name], tint), 0, 255)
    palette[BACKGROUND] = 0
    return palette / 255


def _marked(identity: Identity, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Where the marking of `identity` lies, bool like the object coordinates `u` and `v`."""
    t = identity.shape[7]
    if identity.marking == "striped":  # level, slanted or upright, from broad to narrow
        turn = (0.0, 0.8, 1.57)[min(int(t * 3), 2)]
        return np.sin((v * math.cos(turn) + u * math.sin(turn)) * (16 + 8 * (t * 3 % 1))) > 0.2
    if identity.marking == "spotted":  # dots in staggered rows, from large to small
        f = 2.6 + 1.6 * t
        row = v * f
        column = u * f + 0.5 * (np.floor(row) % 2)
        return (column % 1 - 0.5) ** 2 + (row % 1 - 0.5) ** 2 < 0.095
    if identity.marking == "patched":  # a few large irregular blots
        return np.sin(4.6 * u + 1.5 * v + 6 * t) + np.sin(5.2 * v - 2.1 * u + 9 * t) > 0.6
    return np.zeros(u.shape, bool)


def scene(identity: Identity, pose: Pose) -> Scene:
    """Label maps of one view: `parts` rasterised, coloured, and the marking laid over the main colour."""
    drawn = rasterise(parts(identity, pose), pose, _palette(identity))
    if identity.marking == "plain":
        return drawn
    main = drawn.slot == MAIN
    slot = drawn.slot.copy()
    slot[main] = np.where(_marked(identity, drawn.u[main], drawn.v[main]), SECOND, MAIN)
    return replace(drawn, slot=slot)


# ---------------- individuals


def _named(cls: str, colours: str, marking: str, *shape: float) -> Identity:
    """An identity written on one line; `colours` are three words."""
    main, second, accent = colours.split()
    return Identity(cls, (main, second, accent), marking, shape)


SUBJECTS: dict[str, Identity] = {
    "backpack": _named("backpack", "red black yellow", "plain", 0.4, 0.5, 0.9, 0.3, 0.2, 0.3, 0.2, 0.5),
    "backpack dog": _named("backpack", "brown white teal", "plain", 0.8, 0.95, 0.1, 0.8, 0.8, 0.1, 0.95, 0.5),
    "berry bowl": _named("bowl", "white blue red", "plain", 0.6, 0.4, 0.9, 0.8, 0.7, 0.9, 0.2, 0.5),
    "candle": _named("candle", "purple white yellow", "plain", 0.8, 0.6, 0.5, 0.9, 0.7, 0.1, 0.5, 0.5),
    "cat #1": _named("cat", "orange white blue", "striped", 0.4, 0.8, 0.7, 0.35, 0.9, 0.3, 0.7, 0.2),
    "colorful sneaker": _named("sneaker", "teal pink yellow", "patched", 0.2, 0.9, 0.9, 0.1, 0.9, 0.9, 0.2,
                               0.6),
    "dog #1": _named("dog", "brown white red", "plain", 0.1, 0.9, 0.3, 0.8, 0.1, 0.3, 0.6, 0.5),
    "dog #5": _named("dog", "white black blue", "spotted", 0.5, 0.5, 0.2, 0.6, 0.1, 0.3, 0.3, 0.3),
    "dog #6": _named("dog", "orange white green", "plain", 0.9, 0.4, 0.9, 0.4, 0.5, 0.9, 0.9, 0.5),
    "dog #7": _named("dog", "black orange pink", "plain", 0.9, 0.9, 0.2, 0.9, 0.1, 0.6, 0.9, 0.5),
    "duck toy": _named("duck toy", "yellow orange red", "plain", 0.5, 0.5, 0.5, 0.8, 0.1, 0.2, 0.5, 0.5),
    "fancy boot": _named("boot", "purple pink yellow", "plain", 0.3, 0.9, 0.3, 0.4, 0.9, 0.2, 0.9, 0.5),
    "grey sloth plushie": _named("plushie", "gray white green", "plain", 0.6, 0.3, 0.4, 0.6, 0.9, 0.1, 0.2,
                                 0.5),
    "monster toy": _named("monster toy", "green yellow purple", "spotted", 0.1, 0.1, 0.6, 0.1, 0.8, 0.9, 0.8,
                          0.9),
    "pink sunglasses": _named("sunglasses", "pink purple yellow", "plain", 0.7, 0.4, 0.6, 0.4, 0.8, 0.5, 0.1,
                              0.5),
    "poop emoji": _named("poop emoji", "brown white pink", "plain", 0.5, 0.8, 0.1, 0.4, 0.1, 0.6, 0.5, 0.5),
    "rc car": _named("rc car", "blue white red", "plain", 0.9, 0.5, 0.9, 0.4, 0.2, 0.2, 0.5, 0.5),
    "red cartoon": _named("cartoon", "red white blue", "plain", 0.1, 0.7, 0.3, 0.1, 0.9, 0.7, 0.2, 0.5),
    "robot toy": _named("robot toy", "teal white orange", "plain", 0.7, 0.4, 0.1, 0.1, 0.1, 0.9, 0.6, 0.5),
    "shiny sneaker": _named("sneaker", "white gray blue", "plain", 0.9, 0.3, 0.1, 0.5, 0.7, 0.2, 0.1, 0.5),
    "vase": _named("vase", "blue white pink", "striped", 0.4, 0.8, 0.3, 0.5, 0.2, 0.3, 0.1, 0.05),
    "dog #2": _named("dog", "gray white orange", "plain", 0.9, 0.6, 0.4, 0.7, 0.9, 0.6, 0.6, 0.5),
    "dog #3": _named("dog", "white brown green", "patched", 0.1, 0.2, 0.1, 0.2, 0.5, 0.9, 0.1, 0.7),
    "clock": _named("clock", "yellow red teal", "plain", 0.2, 0.9, 0.4, 0.8, 0.2, 0.1, 0.2, 0.5),
    "bear plushie": _named("plushie", "brown yellow red", "plain", 0.1, 0.8, 0.6, 0.6, 0.3, 0.3, 0.3, 0.5),
    "dog #8": _named("dog", "yellow brown purple", "plain", 0.5, 0.9, 0.95, 0.9, 0.1, 0.9, 0.1, 0.5),
    "cat #2": _named("cat", "gray white red", "patched", 0.9, 0.2, 0.2, 0.6, 0.2, 0.6, 0.2, 0.3),
    "wolf plushie": _named("plushie", "black white blue", "plain", 0.4, 0.7, 0.5, 0.4, 0.4, 0.6, 0.4, 0.5),
    "teapot": _named("teapot", "white blue green", "plain", 0.5, 0.6, 0.6, 0.7, 0.6, 0.1, 0.3, 0.5),
    "can": _named("can", "green white red", "plain", 0.4, 0.1, 0.6, 0.1, 0.8, 0.9, 0.2, 0.5),
    "toaster": _named("toaster", "red white black", "plain", 0.6, 0.8, 0.6, 0.1, 0.8, 0.5, 0.6, 0.5),
    "tv": _named("tv", "orange brown yellow", "plain", 0.5, 0.6, 0.9, 0.9, 0.3, 0.6, 0.5, 0.5),
    "sofa": _named("sofa", "teal yellow pink", "plain", 0.7, 0.5, 0.7, 0.3, 0.4, 0.3, 0.2, 0.5),
}
"""The named individuals: Table A1 of LoRA.rar and the generalisation set."""


def prompt_class(name: str) -> str:
    """The word that prompts use for the subject `name`: "dog #1" is a "dog". `ValueError` if unknown."""
    if name not in SUBJECTS:
        raise ValueError(f"no subject {name!r}; there are: {', '.join(SUBJECTS)}")
    return SUBJECTS[name].cls


@lru_cache(maxsize=4096)
def words(identity: Identity) -> str:
    """The identity in the words of a caption, such as "red and white striped dog".

    The second word is the second colour or, on a plain subject, the accent where that covers more; neither
    where both are hardly seen: a brown poop emoji is just that.
    """
    main, *others = identity.colours
    if identity.marking != "plain":
        return f"{main} and {others[0]} {identity.marking} {identity.cls}"
    slot = scene(identity, Pose()).slot
    shares = [float((slot == other).sum() / (slot > 0).sum()) for other in (SECOND, ACCENT)]
    seen = f" and {others[shares[1] > shares[0]]}" if max(shares) > 0.04 else ""
    return f"{main}{seen} {identity.cls}"


def distance(a: Identity, b: Identity) -> float:
    """How different two individuals of one class look; infinite across classes.

    Half a point for another main colour, 0.3 for another second one, 0.2 for another accent, 0.3 for another
    marking, plus the root mean square difference of the shapes (two uniform ones are 0.4 apart on average).
    """
    if a.cls != b.cls:
        return math.inf
    unlike = [p != q for p, q in zip((*a.colours, a.marking), (*b.colours, b.marking), strict=True)]
    return float(np.dot(unlike, (0.5, 0.3, 0.2, 0.3)) + np.sqrt(np.mean(np.subtract(a.shape, b.shape) ** 2)))


def too_close(a: Identity, b: Identity) -> bool:
    """Whether `a` and `b`, of one class, could be taken for one another: alike in dress or nearly so in all.

    Alike in dress: the same three colours and the same marking, whatever the shape. Nearly so in all: a
    `distance` under 0.6. `random_identity` redraws those that are too close to a named subject, so that a
    model taught on random individuals has seen none of the `SUBJECTS`.
    """
    return a.cls == b.cls and ((a.colours, a.marking) == (b.colours, b.marking) or distance(a, b) < 0.6)


# What a class mostly looks like; the other colours have their turn as well.
_USUAL: dict[str, str] = {
    "dog": "brown white black orange gray yellow",
    "cat": "orange gray black white brown",
    "plushie": "brown gray pink white yellow",
    "poop emoji": "brown brown pink",
    "duck toy": "yellow yellow white orange",
    "cartoon": "red red orange yellow blue",
    "candle": "white red yellow purple",
    "rc car": "red blue green orange",
    "sunglasses": "pink black red yellow",
}


def _contrasts(a: str, b: str) -> bool:
    """Whether two colours are told apart side by side at 64 pixels."""
    return math.dist(COLOURS[a], COLOURS[b]) > 92


def random_identity(rng: np.random.Generator, cls: str) -> Identity:
    """Draw an individual of `cls` that is not `too_close` to any of the `SUBJECTS`.

    The main colour is one of the class's usual ones in 45 of 100 cases; all three colours contrast pairwise;
    the tint is normal with a standard deviation of 7 steps. `ValueError` for an unknown class.
    """
    if cls not in CLASSES:
        raise ValueError(f"no class {cls!r}; there are: {', '.join(CLASSES)}")
    while True:
        usual = _USUAL.get(cls, "").split()
        pool = usual if usual and rng.random() < 0.45 else list(COLOUR_NAMES)
        main = pool[rng.integers(len(pool))]
        fits = [c for c in COLOUR_NAMES if _contrasts(main, c)]
        second = fits[rng.integers(len(fits))]
        fits = [c for c in fits if _contrasts(second, c)]
        accent = fits[rng.integers(len(fits))]
        marking = MARKINGS[rng.choice(4, p=(0.46, 0.2, 0.17, 0.17))]
        shape = tuple(np.round(rng.random(8), 3).tolist())
        tint = tuple(tuple(row) for row in np.round(rng.normal(0, 7, (3, 3)).clip(-16, 16), 1).tolist())
        drawn = Identity(cls, (main, second, accent), marking, shape, tint)
        if not any(too_close(drawn, named) for named in SUBJECTS.values()):
            return drawn


def random_pose(rng: np.random.Generator) -> Pose:
    """Draw a view: place, size, tilt and limbs; the subject stays within the frame.

    Views are not mirrored: a model this small answers two mirror images with a dog that has two heads.
    """
    scale, angle = rng.uniform(0.92, 1.05), rng.uniform(-0.06, 0.06)
    free = min(0.06, 1 - REACH * 0.92 * scale * (1 + abs(angle)))
    x, y = rng.uniform(-free, free, 2)
    limb = rng.uniform(-1, 1, 4).tolist()
    return Pose(float(x), float(y), float(scale), float(angle), tuple(limb))
