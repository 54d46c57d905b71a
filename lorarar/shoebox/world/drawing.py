"""What drawings of subjects share: an identity, its choices, eyes, hats and badges."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lorarar.shoebox.world.scene import (
    ACCENT,
    COLOURS,
    DARK,
    FIXED_SLOTS,
    GOLD,
    LEAF,
    MAIN,
    SECOND,
    WHITE,
    Part,
    arc,
    ellipse,
    rounded,
    smooth,
    thick,
)

MARKINGS: tuple[str, ...] = ("plain", "striped", "spotted", "patched")
"""Patterns that turn part of the main colour into the second one."""


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
class Drawing(list[Part]):
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


def symmetric(x: float, y: float, *right: tuple[float, float]) -> np.ndarray:
    """Smooth polygon, even about the vertical at `x`; its right half as offsets from (x, y), downwards."""
    half = np.array(right)
    left = half[half[:, 0] > 0][::-1] * (-1, 1)
    return smooth(np.concatenate([half, left]) + np.array([x, y]))


def is_dark(i: Identity, slot: int) -> bool:
    """Whether dark lines would drown on `slot`."""
    r, g, b = FIXED_SLOTS[slot] if slot in FIXED_SLOTS else COLOURS[i.colours[slot - 1]]
    return 0.3 * r + 0.59 * g + 0.11 * b < 100


def ink_on(i: Identity, slot: int) -> int:
    """The slot of lines that are seen on `slot`."""
    return WHITE if is_dark(i, slot) else DARK


def choose(value: float, *names: str) -> str:
    """One of `names`: a number in 0..1 as an equal choice."""
    return names[min(int(value * len(names)), len(names) - 1)]


def draw_eyes(
    d: Drawing, i: Identity, kind: str, x: float, y: float, gap: float, r: float, on: int = MAIN
) -> None:
    """A pair of eyes around (x, y), `gap` to either side, of radius about `r`, on a face made of `on`."""
    e = x + gap
    if kind == "button":
        if is_dark(i, on):
            d.pair(WHITE, 30, ellipse(e, y, r * 1.4, r * 1.4, n=16), x=x)
        d.pair(DARK, 30, ellipse(e, y, r, r * 1.1, n=16), x=x)
        d.pair(WHITE, 30, ellipse(e - r * 0.25, y - r * 0.35, r * 0.38, r * 0.38, n=8), x=x)
    elif kind == "happy":
        d.pair(ink_on(i, on), 30, thick(arc(e, y + r * 0.5, r * 1.15, r * 1.3, 190, 350, 9), r * 0.62), x=x)
    elif kind == "open":
        d.pair(WHITE, 30, ellipse(e, y, r * 1.3, r * 1.5, n=18), x=x)
        d.pair(DARK, 31, ellipse(e - r * 0.2, y + r * 0.1, r * 0.68, r * 0.85, n=14), x=x)
        d.pair(WHITE, 31, ellipse(e - r * 0.4, y - r * 0.25, r * 0.28, r * 0.28, n=8), x=x)
    else:  # an iris of GOLD or LEAF with the slit of a cat
        d.pair(DARK, 30, ellipse(e, y, r * 1.3, r * 1.25, n=18), x=x)
        d.pair(LEAF if kind == "leaf" else GOLD, 30, ellipse(e, y, r * 1.08, r * 1.05, n=18), x=x)
        d.pair(DARK, 30, ellipse(e, y, r * 0.42, r * 0.95, n=12), x=x)


def draw_hat(d: Drawing, kind: str, x: float, y: float, w: float) -> None:
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
        draw_bow(d, x, y, w * 0.85)


def draw_bow(d: Drawing, x: float, y: float, w: float) -> None:
    """A bow of half width `w` around (x, y)."""
    d.pair(ACCENT, 43, smooth([(x, y), (x + w, y - w * 0.6), (x + w * 1.05, y + w * 0.6)]), x=x)
    d.put(ACCENT, 45, ellipse(x, y, w * 0.27, w * 0.33, n=14))


def draw_collar(d: Drawing, kind: str, x: float, y: float, w: float) -> None:
    """What hangs around a neck at (x, y) of half width `w`."""
    if kind == "bandana":
        d.put(ACCENT, 44, [(x - w * 1.05, y - 0.03), (x + w * 1.05, y - 0.03), (x + w * 0.1, y + w * 1.0)])
    elif kind == "bow tie":
        draw_bow(d, x, y + 0.04, w * 0.62)
    elif kind in ("band", "bell"):
        d.put(ACCENT, 44, thick(arc(x, y - 0.04, w, 0.1, 175, 5, 10), 0.11))
        if kind == "bell":
            d.put(GOLD, 45, ellipse(x, y + 0.13, 0.1, 0.1, n=16))


def draw_flower(d: Drawing, x: float, y: float, r: float, group: int, petals: int = 5) -> None:
    """A blossom of radius about 1.5 `r`."""
    for a in np.arange(petals) * 2 * np.pi / petals:
        d.put(ACCENT, group, ellipse(x + r * math.cos(a), y + r * math.sin(a), r * 0.68, r * 0.68, n=12))
    d.put(GOLD, group + 1, ellipse(x, y, r * 0.55, r * 0.55, n=12))


def star_outline(x: float, y: float, r: float) -> np.ndarray:
    """Polygon (10, 2) of a five-pointed star."""
    a = -np.pi / 2 + np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2, r * 0.45, r)
    return np.stack([x + radius * np.cos(a), y + radius * np.sin(a)], 1)


def heart_outline(x: float, y: float, r: float) -> np.ndarray:
    """Polygon (24, 2) of a heart."""
    t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    wave = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x + r * np.sin(t) ** 3, y - r * wave / 16], 1)


def draw_badge(d: Drawing, kind: str, x: float, y: float, r: float, slot: int, group: int = 46) -> None:
    """A logo of radius `r`."""
    if kind == "star":
        d.put(slot, group, star_outline(x, y, r * 1.15))
    elif kind == "heart":
        d.put(slot, group, heart_outline(x, y, r))
    elif kind == "disc":
        d.put(slot, group, ellipse(x, y, r * 0.9, r * 0.9, n=20))
    elif kind == "bolt":
        zig = [(0.1, -1.1), (-0.6, 0.2), (-0.05, 0.2), (-0.3, 1.1), (0.6, -0.25), (0.05, -0.25), (0.5, -1.1)]
        d.put(slot, group, [(x + a * r, y + b * r) for a, b in zig])
