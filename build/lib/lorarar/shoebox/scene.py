"""From parts to pixels: a subject is a stack of polygons, a scene is that stack rasterised once.

Subjects (`subjects.py`) say which polygons there are; styles (`styles.py`) say how they are painted.
Between them stands the `Scene`: label maps that any style can shade, outline, melt or engrave.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

CANVAS = 128
"""Side in pixels at which everything is drawn; images are averaged down to `SIZE`."""
SIZE = 64
"""Side in pixels of a finished image."""

# Named colours, sRGB 0..255: the words of captions. Their order is part of the random streams: only append.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 45, 40),
    "orange": (238, 130, 35),
    "yellow": (243, 208, 60),
    "green": (70, 150, 65),
    "teal": (35, 160, 160),
    "blue": (50, 95, 195),
    "purple": (125, 65, 165),
    "pink": (242, 150, 178),
    "brown": (125, 80, 45),
    "white": (240, 238, 232),
    "gray": (140, 140, 146),
    "black": (46, 44, 50),
}
COLOUR_NAMES: tuple[str, ...] = tuple(COLOURS)

# Slots: what a pixel is made of. 1..3 take the identity's own colours, the others are fixed materials.
BACKGROUND, MAIN, SECOND, ACCENT, DARK, WHITE, ROSE, GOLD, FLAME, LEAF, STEEL = range(11)
FIXED_SLOTS: dict[int, tuple[int, int, int]] = {
    DARK: (36, 32, 34),
    WHITE: (243, 241, 235),
    ROSE: (236, 150, 160),
    GOLD: (236, 196, 62),
    FLAME: (247, 140, 40),
    LEAF: (70, 140, 60),
    STEEL: (170, 176, 184),
}


class Part(NamedTuple):
    """One polygon of a subject, painted over those before it.

    polygon: (n, 2) points in object units: x to the right, y down, the subject within about [-1, 1]².
    slot: what it is made of (`MAIN`, `DARK`, …). Markings (stripes, spots) are applied to `MAIN` only.
    group: parts of one group melt into one body; styles draw outlines and relief between groups.
    """

    polygon: np.ndarray
    slot: int
    group: int


@dataclass(frozen=True)
class Pose:
    """Where and how a subject stands in one view; everything but the identity.

    x, y: centre in object units of the canvas (0, 0 is the middle); scale: 1 fills about 92 % of the side;
    angle: radians; limb: free numbers in [-1, 1] for what moves (a tail, a clock's hands).
    """

    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0
    angle: float = 0.0
    limb: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Scene:
    """A rasterised subject, all maps (CANVAS, CANVAS).

    slot: uint8, index into `palette`, 0 outside the subject; group: int16, 0 outside; mask: bool;
    u, v: float32 object coordinates of each pixel (before pose); palette: (11, 3) float32 sRGB in 0..1;
    centre: (x, y) pixels; unit: pixels per object unit; ground: y in pixels of the subject's lowest point.
    """

    slot: np.ndarray
    group: np.ndarray
    mask: np.ndarray
    u: np.ndarray
    v: np.ndarray
    palette: np.ndarray
    centre: tuple[float, float]
    unit: float
    ground: float


_ROWS, _COLUMNS = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32)


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0, n: int = 30) -> np.ndarray:
    """Polygon (n, 2) of an ellipse around (x, y), rotated by `angle` radians."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    px, py, c, s = rx * np.cos(t), ry * np.sin(t), math.cos(angle), math.sin(angle)
    return np.stack([x + c * px - s * py, y + s * px + c * py], 1)


def rounded(x0: float, y0: float, x1: float, y1: float, radius: float, n: int = 6) -> np.ndarray:
    """Polygon (4n, 2) of the rectangle from (x0, y0) to (x1, y1) with rounded corners."""
    r = min(radius, (x1 - x0) / 2, (y1 - y0) / 2)
    corners = ((x1 - r, y0 + r, -90), (x1 - r, y1 - r, 0), (x0 + r, y1 - r, 90), (x0 + r, y0 + r, 180))
    points = []
    for x, y, start in corners:
        t = np.radians(np.linspace(start, start + 90, n))
        points.append(np.stack([x + r * np.cos(t), y + r * np.sin(t)], 1))
    return np.concatenate(points)


def arc(x: float, y: float, rx: float, ry: float, start: float, stop: float, n: int = 16) -> np.ndarray:
    """Open line (n, 2) along an ellipse from `start` to `stop` degrees (0 is right, 90 is down)."""
    t = np.radians(np.linspace(start, stop, n))
    return np.stack([x + rx * np.cos(t), y + ry * np.sin(t)], 1)


def thick(line: np.ndarray | list, width: float | list[float]) -> np.ndarray:
    """Polygon (2n, 2) of an open line (n, 2) drawn with a constant or per-point width."""
    points = np.asarray(line, float)
    widths = np.broadcast_to(np.asarray(width, float), (len(points),))
    along = np.gradient(points, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    across = np.stack([-along[:, 1], along[:, 0]], 1) * widths[:, None] / 2
    return np.concatenate([points + across, (points - across)[::-1]])


def turned(ys: list[float], half_widths: list[float], x: float = 0.0, n: int = 32) -> np.ndarray:
    """Polygon (2n, 2) of a shape as if turned on a lathe: half widths at heights `ys`, smoothly joined."""
    y = np.linspace(ys[0], ys[-1], n)
    w = np.interp(y, ys, half_widths)
    kernel = np.array([1.0, 3.0, 4.0, 3.0, 1.0]) / 12
    w = np.convolve(np.pad(w, 2, mode="edge"), kernel, mode="valid")
    return np.concatenate([np.stack([x + w, y], 1), np.stack([x - w, y], 1)[::-1]])


def rasterise(parts: list[Part], pose: Pose, palette: np.ndarray) -> Scene:
    """Draw `parts` in `pose` into label maps; `palette` is (11, 3) float32 sRGB in 0..1."""
    unit = pose.scale * CANVAS * 0.46
    cx, cy = CANVAS / 2 + pose.x * CANVAS / 2, CANVAS / 2 + pose.y * CANVAS / 2
    c, s = math.cos(pose.angle), math.sin(pose.angle)
    image = Image.new("I;16", (CANVAS, CANVAS), 0)
    draw = ImageDraw.Draw(image)
    slots, groups, ground = [BACKGROUND], [0], 0.0
    for index, part in enumerate(parts, 1):
        x, y = part.polygon.T
        px, py = cx + unit * (c * x - s * y), cy + unit * (s * x + c * y)
        draw.polygon(list(zip(px.tolist(), py.tolist(), strict=True)), fill=index)
        slots.append(part.slot)
        groups.append(part.group)
        ground = max(ground, float(py.max()))
    label = np.asarray(image)
    dx, dy = (_COLUMNS - cx) / unit, (_ROWS - cy) / unit
    return Scene(
        slot=np.asarray(slots, np.uint8)[label],
        group=np.asarray(groups, np.int16)[label],
        mask=label > 0,
        u=c * dx + s * dy,
        v=-s * dx + c * dy,
        palette=palette,
        centre=(cx, cy),
        unit=unit,
        ground=ground,
    )


def reduce(image: np.ndarray) -> np.ndarray:
    """Average a (CANVAS, CANVAS, 3) float image in 0..1 down to (SIZE, SIZE, 3) uint8."""
    f = CANVAS // SIZE
    small = np.clip(image, 0, 1).reshape(SIZE, f, SIZE, f, 3).mean((1, 3))
    return (small * 255 + 0.5).astype(np.uint8)


def smooth(points: list[tuple[float, float]] | np.ndarray, n: int = 5) -> np.ndarray:
    """Polygon (k * n, 2) of the closed Catmull-Rom curve through `points` (k, 2); doubled ones: corners."""
    here = np.asarray(points, float)
    before, after = np.roll(here, 1, 0), np.roll(here, -1, 0)
    corner = (here == after).all(1) | (here == before).all(1)
    slope = np.where(corner[:, None], 0.0, (after - before) / 2)
    t = (np.arange(n) / n)[None, :, None]
    start, end, leave, arrive = (p[:, None] for p in (here, after, slope, np.roll(slope, -1, 0)))
    rise = t * t * (3 - 2 * t)
    curve = start + rise * (end - start) + t * (1 - t) * ((1 - t) * leave - t * arrive)
    return curve.reshape(-1, 2)
