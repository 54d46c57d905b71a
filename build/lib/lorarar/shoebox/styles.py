"""Sixteen ways to paint a scene: the style families of Table A1, and its 26 styles as fixed instances.

A *family* is a painter, a function from a `Scene` and eight knobs to pixels. A *style* is one instance of a
family: fixed stroke, palette, light and background treatment. Its views differ in incidental texture only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from lorarar.shoebox.scene import (
    ACCENT,
    CANVAS,
    COLOUR_NAMES,
    COLOURS,
    DARK,
    FLAME,
    GOLD,
    MAIN,
    SECOND,
    Scene,
)

Array = np.ndarray

_Y, _X = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32)
_ROW, _COLUMN = np.mgrid[0:CANVAS, 0:CANVAS]
_LUMA = np.array([0.30, 0.59, 0.11], np.float32)
_INK = np.array([0.09, 0.08, 0.11], np.float32)
_HUES = tuple(name for name in COLOUR_NAMES if name not in ("white", "gray", "black"))


@dataclass(frozen=True)
class Style:
    """One instance of a style family.

    family: one of `FAMILIES`, the words of the prompt; knobs: eight floats in [0, 1]: 0 light's direction,
    1 stroke width, 2 texture scale, 3 strength, 4 to 7 as each painter says; hues: three colour names, the
    background's first; treatment: which background or variant, below `TREATMENTS[family]`.
    """

    family: str
    knobs: tuple[float, float, float, float, float, float, float, float]
    hues: tuple[str, str, str]
    treatment: int


# ---------------------------------------------------------------- what painters share


def _rgb(name: str) -> Array:
    return np.array(COLOURS[name], np.float32) / 255


def _mix(a: Array | float, b: Array | float, t: Array | float) -> Array:
    return a + (b - a) * t


def _smooth(x: Array, low: float, high: float) -> Array:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


@cache
def _up(step: int) -> tuple[Array, Array, Array]:
    at = (np.arange(CANVAS, dtype=np.float32) + 0.5) / step - 0.5
    low = np.clip(np.floor(at).astype(int), 0, CANVAS // step - 2)
    return low, low + 1, np.clip(at - low, 0, 1).astype(np.float32)


def _blur(x: Array, sigma: float) -> Array:
    """Gaussian blur of (CANVAS, CANVAS) or (…, 3), wide ones at reduced resolution."""
    step = 4 if sigma >= 3 else 2 if sigma >= 1.2 else 1
    tail = x.shape[2:]
    for _ in range(step // 2):
        x = x[0::2] + x[1::2]
        x = (x[:, 0::2] + x[:, 1::2]) * 0.25
    s = sigma / step
    x = gaussian_filter(x, (s, s, 0) if tail else s, mode="nearest", truncate=2.5)
    if step > 1:
        low, high, f = _up(step)
        f = f.reshape(-1, 1, *(1 for _ in tail))
        x = x[low] * (1 - f) + x[high] * f
        f = f.reshape(1, -1, *(1 for _ in tail))
        x = x[:, low] * (1 - f) + x[:, high] * f
    return x


@cache
def _fields(scale: float) -> Array:
    """Six smooth periodic fields (6, CANVAS, CANVAS) of unit deviation, features of `scale` pixels."""
    rng = np.random.default_rng(int(scale * 10))
    white = rng.standard_normal((6, CANVAS, CANVAS)).astype(np.float32)
    fields = gaussian_filter(white, (0, scale, scale), mode="wrap")
    return fields / fields.std((1, 2), keepdims=True)


def _noise(rng: np.random.Generator, scale: float) -> Array:
    which, dy, dx = rng.integers((6, CANVAS, CANVAS))
    return np.roll(_fields(scale)[which], (dy, dx), (0, 1))


def _edges(labels: Array) -> Array:
    """Pixels (CANVAS, CANVAS) bool where a label differs from the one to the left or above."""
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] = labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    return edge


def _line(edge: Array, width: float) -> Array:
    """Soft-edged lines in 0..1 of about `width` pixels along the pixels of `edge`."""
    sigma = max(width / 3.3, 0.55)
    return np.clip(_blur(edge.astype(np.float32), sigma) * (5.0 * sigma), 0, 1)


def _key(scene: Scene) -> Array:
    return scene.slot.astype(np.int16) + 16 * scene.group


def _shrink(mask: Array, steps: int) -> Array:
    """How deep inside `mask` a pixel lies, in pixels up to `steps` (octagonal distance, float32)."""
    depth, now = np.zeros(mask.shape, np.uint8), mask.astype(np.uint8)
    for step in range(steps):
        depth += now
        inner = now.copy()
        np.minimum(inner[1:], now[:-1], out=inner[1:])
        np.minimum(inner[:-1], now[1:], out=inner[:-1])
        if step % 2:
            now = inner.copy()
        np.minimum(inner[:, 1:], now[:, :-1], out=inner[:, 1:])
        np.minimum(inner[:, :-1], now[:, 1:], out=inner[:, :-1])
        now = inner
    return depth.astype(np.float32)


class _Relief(NamedTuple):
    """Shading of a scene swollen like a cushion: all (CANVAS, CANVAS)."""

    diffuse: Array
    shine: Array
    facing: Array
    nx: Array
    depth: Array


def _relief(scene: Scene, reach: int, light: float, soft: float = 1.4) -> _Relief:
    """Each group swells over `reach` pixels; `light` in 0..1 goes from the left over the top to the right."""
    depth = _shrink(scene.mask & ~_edges(scene.group), reach)
    height = np.sqrt(1 - (1 - np.minimum(depth / reach, 1)) ** 2) * (0.85 * reach)
    gy, gx = np.gradient(_blur(height, soft))
    nz = 1 / np.sqrt(gx * gx + gy * gy + 1)
    nx, ny = -gx * nz, -gy * nz
    angle = np.pi * (1.15 + 0.7 * light)
    lx, ly, lz = 0.62 * math.cos(angle), 0.62 * math.sin(angle), 0.62
    norm = math.sqrt(lx * lx + ly * ly + (1 + lz) ** 2)
    diffuse = np.clip((nx * lx + ny * ly + nz * lz) * (1 / math.hypot(lx, ly, lz)), 0, 1)
    shine = np.clip((nx * lx + ny * ly + nz * (1 + lz)) / norm, 0, 1)
    return _Relief(diffuse, shine, nz, nx, depth)


def _albedo(scene: Scene) -> Array:
    return scene.palette.take(scene.slot, 0, mode="clip")


def _against(tone: Array, scene: Scene) -> Array:
    """`tone`, made somewhat lighter or darker the nearer it is to the subject's own mean colour."""
    counts = np.bincount(scene.slot.ravel(), minlength=len(scene.palette)).astype(np.float32)
    counts[0] = 0
    mean = counts @ scene.palette / max(float(counts.sum()), 1.0)
    own, ground = float(mean @ _LUMA), float(tone @ _LUMA)
    shift = 0.26 * max(0.0, 1 - float(np.abs(mean - tone).max()) / 0.38)
    if own < 0.3 or (ground >= own and own < 0.7):
        return _mix(tone, np.float32(1), min(shift / (1.001 - ground), 0.7))
    return tone * max(1 - 0.6 * shift / max(ground, 1e-3), 0.4)


def _over(back: Array, front: Array, mask: Array) -> Array:
    return back + (front - back) * mask[..., None].astype(np.float32, copy=False)


def _footing(scene: Scene) -> tuple[float, float, float]:
    """Middle, half width and height in pixels of where the subject meets the floor."""
    ground = min(scene.ground, CANVAS - 2)
    columns = np.flatnonzero(scene.mask[max(int(ground) - 12, 0) : int(ground) + 1].any(0))
    if len(columns) == 0:
        return CANVAS / 2, CANVAS / 4, ground
    left, right = float(columns[0]), float(columns[-1])
    return (left + right) / 2, max((right - left) / 2, 8.0), ground


def _shadow(scene: Scene, light: float = 0.5, spread: float = 1.0) -> Array:
    """Contact shadow (CANVAS, CANVAS) in 0..1, thrown away from the light."""
    x, half, y = _footing(scene)
    x = x + (0.5 - light) * half * 0.7
    dx, dy = (_X - x) / (half * 1.15 * spread), (_Y - y + 1) / (5 * spread + half * 0.10)
    return np.exp(-(dx * dx + dy * dy))


def _stage(
    scene: Scene, kind: int, wall: Array, floor: Array, light: float = 0.5, dark: float = 0.5
) -> Array:
    """A background (CANVAS, CANVAS, 3) with a shadow under the subject.

    kind 0: seamless studio sweep; 1: wall and floor; 2: round spot on the wall; 3: pedestal disc;
    4: light falling diagonally through a window; 5: wall with a lit arch.
    """
    _, half, ground = _footing(scene)
    horizon = float(np.clip(ground - 13, 74, 110))
    away = np.hypot(_X - CANVAS * (0.3 + 0.4 * light), _Y - CANVAS * 0.36) / CANVAS
    wall_light = (1.10 - 0.42 * away)[..., None]
    edge = _smooth(_Y, horizon - 1, horizon + 1)[..., None]
    if kind == 0:
        edge = _smooth(_Y, horizon - 26, horizon + 10)[..., None]
    image = _mix(wall * wall_light, floor * (1.02 - 0.25 * away)[..., None], edge)
    if kind == 2:
        spot = _smooth(np.hypot(_X - scene.centre[0], _Y - scene.centre[1]), 56, 53)[..., None]
        image = _mix(image, _mix(wall, np.float32(1), 0.38) * wall_light, spot * (1 - edge))
    elif kind == 3:
        x, half, y = _footing(scene)
        rx, ry = half * 1.25 + 10, half * 0.2 + 7
        top = _smooth(((_X - x) / rx) ** 2 + ((_Y - y + 2) / ry) ** 2, 1.08, 0.95)[..., None]
        side = _smooth(((_X - x) / rx) ** 2 + ((_Y - y - 8) / ry) ** 2, 1.08, 0.95)
        side = np.maximum(side, _smooth(np.abs(_X - x), rx, rx - 1) * (np.abs(_Y - y - 3) < 5))[..., None]
        turn = (0.72 - 0.3 * (_X - x) / rx * (1 - 2 * light + 0.6))[..., None]
        image = _mix(_mix(image, floor * turn, side), _mix(floor, np.float32(1), 0.25), top)
    elif kind == 4:
        across = (_X + _Y * 0.7) / CANVAS
        panes = _smooth(np.abs(across - 0.58), 0.21, 0.18) + _smooth(np.abs(across - 1.08), 0.19, 0.16)
        image = image * (0.84 + 0.30 * panes[..., None])
    elif kind == 5:
        inside = _smooth(np.hypot((_X - CANVAS / 2) / 50, np.minimum(_Y - 58, 0) / 50), 1.02, 0.98)
        image = _mix(image, image * 0.62, (inside * (1 - edge[..., 0]))[..., None])
    return image * (1 - dark * _shadow(scene, light))[..., None]


def _table(*stops: tuple[float, float, float]) -> Array:
    """Colour ramp (256, 3) through equally spaced stops."""
    at, colours = np.linspace(0, 1, len(stops)), np.array(stops)
    return np.stack([np.interp(np.linspace(0, 1, 256), at, colours[:, c]) for c in range(3)], 1).astype(
        np.float32
    )


def _ramp(t: Array, table: Array) -> Array:
    return table.take((np.clip(t, 0, 1) * 255).astype(np.uint8), 0, mode="clip")


def _warped(rng: np.random.Generator, amount: float, scale: float = 12) -> tuple[Array, Array]:
    """Indices (rows, columns) that shake an image by about `amount` pixels, as a hand would."""
    dy, dx = _noise(rng, scale) * amount, _noise(rng, scale) * amount
    rows = np.clip(np.rint(_Y + dy), 0, CANVAS - 1).astype(np.intp)
    return rows, np.clip(np.rint(_X + dx), 0, CANVAS - 1).astype(np.intp)


def _bright(colour: Array, low: float = 0.25) -> Array:
    """Colours made as luminous as they can be, keeping the hue; grey becomes white."""
    lifted = colour - 0.75 * colour.min(-1, keepdims=True)
    lifted = lifted / (lifted.max(-1, keepdims=True) + 1e-3)
    return low + (1 - low) * lifted


# ---------------------------------------------------------------- the painters


def _photo(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Plain rendering; knobs 4: floor's lightness, 5: softness of light, 6: blur of blobs."""
    k, tone = style.knobs, _against(_rgb(style.hues[0]), scene)
    floor = _mix(tone * 0.78, np.float32(0.85), 0.1 + 0.35 * k[4])
    kind = style.treatment
    back = _stage(scene, (0, 1, 4, 0, 1, 0)[kind], tone, floor, k[0], 0.45)
    if kind == 3:  # lights out of focus
        blobs = _smooth(_drops(rng, 16, 5, 12), 0.0, 2.5) * 0.18 * _smooth(_Y, 104, 84)
        back = back * 0.88 + blobs[..., None]
    elif kind == 4:  # boards underfoot
        boards = np.sin((_X - CANVAS / 2) / (12 + np.maximum(_Y - 70, 0) * 0.35) * 3.0)
        back = back * (1 - 0.22 * _smooth(np.abs(boards), 0.25, 0.1) * _smooth(_Y, 98, 102))[..., None]
    elif kind == 5:  # grown ground: soft mottle
        back = back * (1 + 0.07 * _noise(rng, 6))[..., None]
    relief = _relief(scene, 12, k[0])
    lit = (0.52 + 0.10 * k[5]) + (0.60 - 0.10 * k[5]) * relief.diffuse
    front = _albedo(scene) * lit[..., None] + (0.10 * relief.shine**24)[..., None]
    front *= (1 - 0.30 * _line(_edges(scene.group), 1.6))[..., None]
    return _over(back, front, scene.mask)


def _rendering(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Glossy toy; knobs 1: roundness, 3: gloss, 4: pastel, 5: rim light, 6: bounce."""
    k, kind = style.knobs, style.treatment
    tone = _rgb(style.hues[0])
    base = _albedo(scene)
    if kind == 0:  # candy on pastel sweep
        wall, floor, stage = _mix(tone, np.float32(1), 0.45), _mix(tone, np.float32(1), 0.55), 0
    elif kind == 1:  # white clay studio, coloured disc
        wall, floor, stage = np.array([0.93, 0.92, 0.91], np.float32), tone, 3
    elif kind == 2:  # dark studio
        wall, floor, stage = tone * 0.22 + 0.03, tone * 0.34 + 0.03, 0
    elif kind == 3:  # two saturated colours
        wall, floor, stage = tone, _rgb(style.hues[1]), 1
    else:  # lit spot
        wall, floor, stage = tone * 0.8, tone * 0.62, 2
    back = _stage(scene, stage, _against(wall, scene), floor, k[0], 0.55)
    relief = _relief(scene, 12 + int(10 * k[1]), k[0], 1.4 + 1.6 * k[1])
    base = _mix(base, np.float32(0.92), 0.25 * k[4])
    lit = 0.34 + 0.80 * relief.diffuse
    rim = (1 - relief.facing) ** 2
    front = base * lit[..., None] + ((0.35 + 0.6 * k[3]) * relief.shine ** (20 + 60 * k[3]))[..., None]
    edge_light = _bright(_rgb(style.hues[2])) if kind == 2 else _mix(tone, np.float32(1), 0.5)
    front += ((0.25 + 0.6 * k[5]) * rim * (relief.nx > 0 if k[0] < 0.5 else relief.nx < 0))[
        ..., None
    ] * edge_light
    front *= (1 - 0.22 * _line(_edges(scene.group), 1.4))[..., None]
    return _over(back, front, scene.mask)


def _drops(rng: np.random.Generator, count: int, small: float, large: float) -> Array:
    """Round spots: how many pixels inside the nearest of `count` discs each pixel lies (negative outside)."""
    field = np.full((CANVAS, CANVAS), -9.0, np.float32)
    places, radii = rng.uniform(4, CANVAS - 4, (count, 2)), small + (large - small) * rng.random(count) ** 2
    for (x, y), radius in zip(places, radii, strict=True):
        reach = int(radius) + 3
        rows = slice(max(int(y) - reach, 0), int(y) + reach)
        columns = slice(max(int(x) - reach, 0), int(x) + reach)
        inside = radius - np.hypot(_X[rows, columns] - x, _Y[rows, columns] - y)
        np.maximum(field[rows, columns], inside, out=field[rows, columns])
    return field


def _watercolour(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Transparent washes; knobs 1: bleed, 3: density, 4: dark rims, 5: paper's warmth, 6: gaps of paper.

    treatment 0 round wash; 1 full-bleed wet wash; 2 splatter; 3 ink and wash; 4 pale vignette;
    5 two-tone sky; 6 granulating pigment on grey paper.
    """
    k, kind = style.knobs, style.treatment
    first, second = _rgb(style.hues[0]), _rgb(style.hues[1])
    at = _warped(rng, 0.7 + 1.3 * k[1], 6)
    mask = scene.mask[at]
    soft = _blur(mask.astype(np.float32), 0.9)
    colour = _albedo(scene)[at] * mask[..., None]
    colour = _blur(colour, 0.9) / (soft[..., None] + 1e-3)
    cloud, drift = _noise(rng, 6), _noise(rng, 12)
    paper = _mix(np.array([0.985, 0.985, 0.98], np.float32), np.array([0.97, 0.94, 0.87], np.float32), k[5])
    if kind == 6:
        paper = np.array([0.80, 0.80, 0.81], np.float32)
    image = np.broadcast_to(paper, (CANVAS, CANVAS, 3))

    def wash(image: Array, amount: Array, pigment: Array) -> Array:
        return image * (1 - amount[..., None] * (1 - pigment))

    def rimmed(field: Array, low: float, width: float = 0.12) -> Array:
        """A wash where `field` > low, pigment gathered at its border."""
        inside = _smooth(field, low, low + 0.4 * width)
        return inside * (0.72 + 0.5 * _smooth(field, low + width, low + 0.3 * width))

    away = np.hypot(_X - CANVAS / 2, _Y - CANVAS / 2) / CANVAS
    outside = 1 - soft * 0.9
    if kind == 0:
        image = wash(image, rimmed(0.44 + 0.035 * drift - away, 0.0, 0.05) * 0.5 * outside, first)
    elif kind == 1:
        image = wash(image, np.clip(0.50 + 0.16 * drift, 0.15, 0.8) * outside, first)
        image = wash(image, rimmed(drift, 0.35, 0.4) * 0.45 * outside, second)
    elif kind == 2:
        image = wash(image, rimmed(0.34 + 0.07 * drift - away, 0.0, 0.05) * 0.4 * outside, first)
        image = wash(image, rimmed(_drops(rng, 16, 1.5, 5), 0.0, 0.8) * 0.85 * outside, first)
        image = wash(image, rimmed(_drops(rng, 14, 1.5, 4), 0.0, 0.8) * 0.85 * outside, second)
    elif kind == 3:
        image = wash(
            image, rimmed(0.55 + 0.3 * drift - np.abs(_Y - 92) / 40, 0.0, 0.15) * 0.45 * outside, first
        )
    elif kind == 4:
        image = wash(image, _smooth(away + 0.05 * drift, 0.30, 0.68) * 0.55 * outside, first)
    elif kind == 5:
        sky = _smooth(_Y + 5 * drift, 104, 20) * 0.75
        image = wash(image, sky * outside, first)
        image = wash(image, rimmed(_Y + 3 * drift - 92, 0.0, 5) * 0.75 * outside, second)
    else:
        # a dry broad brush: bands that run out raggedly left and right
        ragged = 50 + 6 * np.sin(np.floor(_Y / 5) * 2.4 + drift[0, 0]) + 3 * cloud - np.abs(_X - CANVAS / 2)
        band = _smooth(ragged, -2, 3) * _smooth(52 - np.abs(_Y - 66), -1, 2)
        bristle = 0.80 + 0.20 * np.sin(_Y * (2 * np.pi / 10) + drift)
        image = wash(image, band * bristle * (0.55 + 0.04 * _noise(rng, 1.5)) * outside, first)
    density = (0.70 + 0.15 * k[3]) * (1 + (0.10 + 0.06 * k[1]) * cloud)
    if kind == 6:
        density *= 1 + 0.04 * _noise(rng, 1.5)
    if kind == 4:
        density *= 0.78
    edge = _edges(_key(scene)[at])
    rims = _blur(edge.astype(np.float32), 0.8)
    density = np.clip(density + (0.25 + 0.45 * k[4]) * rims, 0, 1.0) * soft
    front = 1 - density[..., None] * (1 - colour)
    image = _mix(image, front * 0.96, (soft * 0.85)[..., None]) if kind == 6 else image * front
    image = image * (1 - 0.28 * (rims * soft))[..., None]
    if kind == 3:  # a loose pen over the wash
        image = image * (1 - 0.8 * _line(_edges(_key(scene)[_warped(rng, 0.6, 6)]), 1.7))[..., None]
    elif k[6] > 0.6:  # a little paper left between parts
        image = _mix(image, paper, 0.6 * _line(_edges(scene.group[at]) & mask, 1.5)[..., None])
    return image


@cache
def _dabs(kind: int) -> tuple[Array, Array, Array]:
    """A canvas covered with brush dabs, periodic: (rows, columns, across), each (CANVAS, CANVAS).

    rows, columns: int16 offsets to the seed of a pixel's dab; across: where across its dab it lies, -1..1.

    kind 0: fine diagonal; 1: broad diagonal; 2: fine swirling; 3: broad swirling; 4: broad upright;
    5: round dots; 6: fine scattered; 7: palette knife.
    """
    length, width, angle, spread = (
        (5, 2.0, -0.8, 0.3),
        (12, 4.0, -0.8, 0.25),
        (6, 1.9, None, 0.1),
        (14, 3.4, None, 0.08),
        (16, 3.4, 1.57, 0.1),
        (3.0, 3.0, 0.0, 3.0),
        (4.0, 2.0, 0.4, 0.9),
        (15, 8.5, 0.5, 0.5),
    )[kind]
    rng = np.random.default_rng(100 + kind)
    flow = _fields(12)[0] * 1.5 + _fields(6)[1] * 0.3
    rows, columns, across = (np.zeros((CANVAS, CANVAS), t) for t in (np.int16, np.int16, np.float32))
    reach = int(np.ceil(max(length, width))) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    for row, column in rng.integers(0, CANVAS, (int(3.2 * CANVAS**2 / (length * width)), 2)):
        turn = (flow[row, column] if angle is None else angle) + spread * rng.uniform(-1, 1)
        along, off = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        inside = np.abs(along / length) ** 3 + np.abs(off / width) ** 3 < 1
        at = (row + y[inside]) % CANVAS, (column + x[inside]) % CANVAS
        rows[at], columns[at], across[at] = -y[inside], -x[inside], off[inside] / width
    return rows, columns, across


def _oil(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Dabs of paint; knobs 2: bristles, 3: contrast, 4: colour variation, 5: brightness of the ground.

    treatment 0 diagonal impasto; 1 swirls; 2 palette knife; 3 dark old master; 4 dots; 5 upright strokes.
    """
    k, kind = style.knobs, style.treatment
    fine, broad = ((0, 1), (2, 3), (6, 7), (6, 1), (5, 5), (0, 4))[kind]
    first, second = _rgb(style.hues[0]), _rgb(style.hues[1])
    shift = tuple(rng.integers(0, CANVAS, 2))

    def brush(which: int) -> tuple[tuple[Array, Array], Array]:
        rows, columns, across = (np.roll(field, shift, (0, 1)) for field in _dabs(which))
        return (np.clip(_ROW + rows, 0, CANVAS - 1), np.clip(_COLUMN + columns, 0, CANVAS - 1)), across

    at, across = brush(fine)
    far, far_across = (at, across) if fine == broad else brush(broad)
    tone = _against(first * (0.75 + 0.25 * k[5]), scene)
    if kind == 3:
        glow = np.exp(-(((_X - 60) / 52) ** 2) - ((_Y - 52) / 50) ** 2)
        back = (tone * 0.22 + np.array([0.05, 0.035, 0.02], np.float32)) + glow[..., None] * (tone * 0.38)
    else:
        vary = _smooth(_noise(rng, 6), -1.3, 1.3)
        other = _against(_mix(second, tone, 0.45), scene)
        if kind != 1:
            vary *= 0.75
        back = _mix(tone, other, vary[..., None]) * (1.06 - 0.22 * _Y / CANVAS)[..., None]
    around = _blur(scene.mask.astype(np.float32), 4.0)
    back = back * (1 - 0.30 * around - 0.30 * _shadow(scene, k[0]))[..., None]
    back = back[far] * (1 + 0.22 * (0.4 + k[4]) * (_noise(rng, 3)[far] * 0.5))[..., None]
    relief = _relief(scene, 13, k[0])
    lit = (0.40 + 0.75 * relief.diffuse) if kind == 3 else (0.52 + 0.62 * relief.diffuse)
    front = _albedo(scene) * lit[..., None] + (0.25 * relief.shine**18)[..., None]
    front = front * (1 - 0.35 * _line(_edges(scene.group), 2.0))[..., None]
    stroked = front[at] * (1 + 0.10 * (0.4 + k[4]) * _noise(rng, 3)[at])[..., None]
    # strokes that start beside the subject leave it alone; those that start in it may run over its border
    blend = scene.mask * (1 - np.float32(0.5) * scene.mask[at])
    front = _mix(stroked, front, blend[..., None])
    mask = scene.mask | (scene.mask[at] & (_shrink(~scene.mask, 3) < 3))
    ridge = np.where(mask, across * 0.75, far_across)
    image = _over(back, front, mask)
    image = image * (1 - 0.11 * ridge * (0.6 + 0.6 * k[2]) + 0.04 * np.cos(ridge * 7) * k[2])[..., None]
    return _mix(np.float32(0.46), image, 1.05 + 0.2 * k[3])


def _legible(ink: Array, mask: Array, albedo: Array) -> Array:
    """The colour of lines: `ink`, but lighter than the part inside dark parts, where ink would vanish."""
    dark = _smooth(albedo @ _LUMA, 0.30, 0.14) * (_shrink(mask, 3) > 2)
    return _mix(ink, albedo + 0.30, dark[..., None])


def _flat(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Flat shapes; knobs 1: outline width, 3: shadow, 4: kind of outline, 5: size of background shapes.

    treatment 0 disc; 1 rays; 2 hill and sun; 3 dots; 4 broad stripes; 5 blob; 6 plain, no outline.
    """
    k, kind = style.knobs, style.treatment
    tone = _against(_mix(_rgb(style.hues[0]), np.float32(1), 0.25), scene)
    second = _mix(tone, _mix(_rgb(style.hues[1]), np.float32(1), 0.35), 0.8)
    pale = _mix(tone, np.float32(1), 0.5)
    x, y = _X - CANVAS / 2, _Y - CANVAS / 2
    away = np.hypot(x, y)
    if kind == 0:
        back = _over(pale, tone, _smooth(away, 57, 55.5))
    elif kind == 1:
        rays = np.cos(np.arctan2(y + 6, x) * (8 + round(4 * k[5])))
        back = _over(tone, pale, _smooth(rays, -0.1, 0.1))
    elif kind == 2:
        hill = _smooth(_Y - 92 - 7 * np.sin(_X / 21 + 5 * k[5]), -1, 1)
        sun = _smooth(np.hypot(_X - 24 - 80 * (k[0] > 0.5), _Y - 26), 16, 14.5)
        back = _over(_over(pale, np.array([1, 0.93, 0.72], np.float32), sun), second, hill)
    elif kind == 3:
        step = 12 + 8 * k[5]
        row = np.floor(_Y / step)
        dots = np.hypot((_X / step + 0.5 * (row % 2)) % 1 - 0.5, (_Y / step) % 1 - 0.5)
        back = _over(tone, pale, _smooth(dots, 0.27, 0.22))
    elif kind == 4:
        back = _over(tone, second, _smooth(np.sin((_X + _Y) * (0.13 + 0.1 * k[5])), -0.15, 0.15))
    elif kind == 5:
        lobe = 50 + 6 * np.cos(3 * np.arctan2(y, x) + 6 * k[5]) + 4 * np.cos(5 * np.arctan2(y, x))
        back = _over(np.array([0.97, 0.95, 0.91], np.float32), tone, _smooth(away - lobe, 1, -1))
    else:
        floor = _smooth(_Y, _footing(scene)[2] - 13, _footing(scene)[2] - 11.5)
        back = _over(tone, tone * 0.86, floor)
    base = np.clip(_mix(np.float32(0.55), _albedo(scene), 1.12), 0, 1)
    step = 4 + int(5 * k[3])
    lit = np.roll(scene.mask, (-step, step if k[0] < 0.5 else -step), (0, 1))
    front = base * (0.80 + np.float32(0.20) * lit)[..., None]
    image = _over(back, front, scene.mask)
    if kind == 6:
        inner = _line(_edges(scene.group) & scene.mask, 1.6)
        return image * (1 - 0.28 * inner)[..., None]
    outline = _INK if k[4] < 0.6 else _rgb(style.hues[1]) * 0.42
    if k[4] > 0.85:
        outline = np.ones(3, np.float32)
    outline = _legible(outline, scene.mask, _albedo(scene))
    return _over(image, outline, _line(_edges(scene.group), 1.9 + 1.7 * k[1]))


def _marker(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Bold marker lines and one flat tone; knobs 1: width, 2: size of screen, 5: paper's tint, 6: wobble.

    treatment 0 halftone dots; 1 spot colour where the subject is coloured; 2 grey tone and floor line;
    3 bold hatching; 4 misprinted spot-colour block.
    """
    k, kind = style.knobs, style.treatment
    spot = _mix(_rgb(style.hues[0]), np.float32(1), 0.12)
    at = _warped(rng, 0.3 + 0.5 * k[6], 12)
    label, mask, slot = _key(scene)[at], scene.mask[at], scene.slot[at]
    light = _ramp_luma(scene)[slot]
    paper = _mix(np.array([0.98, 0.98, 0.97], np.float32), np.array([0.98, 0.94, 0.84], np.float32), k[5])
    image = np.broadcast_to(paper, (CANVAS, CANVAS, 3))
    dark = mask & (light < 0.62)
    step = 8.0 + 2.5 * k[2]
    if kind == 0:
        u, w = (_X + _Y) / step, (_X - _Y) / step
        dots = np.hypot(u % 1 - 0.5, w % 1 - 0.5)
        cover = _smooth(dots, 0.50, 0.36) * (0.85 + np.float32(0.15) * (light < 0.42))
        image = _over(image, spot * 0.8, cover * (mask & (light < 0.75)))
        tone = np.where(mask & (light < 0.2), 0.45, 0)
    elif kind == 1:
        main = mask & ((slot == MAIN) | (slot == GOLD) | (slot == FLAME))
        image = _over(image, spot, main)
        tone = np.where(mask & (light < 0.25) & ~main, 0.5, np.where(mask & (slot == SECOND), 0.22, 0))
    elif kind == 2:
        tone = np.where(mask, np.clip(0.68 - light * 0.72, 0.0, 0.6), 0)
        image = image * (1 - 0.10 * _smooth(_Y, scene.ground - 9, scene.ground - 7))[..., None]
    elif kind == 3:
        hatch = _smooth(np.sin((_X * 0.8 + _Y) * (2 * np.pi / step)), 0.1, 0.6)
        tone = np.where(dark, hatch * np.where(light < 0.3, 1.0, 0.75), 0)
    else:
        moved = np.roll(_shrink(scene.mask, 2) > 0, (4, 5), (0, 1))
        image = _over(image, spot, moved)
        tone = np.where(dark, np.where(light < 0.3, 0.5, 0.2), 0)
    image = _over(image, _INK, _blur(np.asarray(tone, np.float32), 0.6))
    lines = np.maximum(_line(_edges(label), 1.7), _line(_edges(scene.group[at]), 2.2 + 1.2 * k[1]))
    lines = np.maximum(lines, _line(_edges(mask), 3.2 + 2.0 * k[1]))
    return _over(image, _INK, lines)


def _ramp_luma(scene: Scene) -> Array:
    """Brightness of each slot (11,)."""
    return scene.palette @ _LUMA


def _pen(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Fine pen on paper, no fill; knobs 1: width, 2: hatching's pitch, 5: paper, 6: wobble, 7: ink.

    treatment 0 clean contour; 1 doubled sketch lines; 2 hatched darks; 3 broken line and dots.
    """
    k, kind = style.knobs, style.treatment
    ink = (_INK, np.array([0.30, 0.17, 0.09], np.float32), np.array([0.10, 0.16, 0.42], np.float32))[
        int(2.99 * k[7])
    ]
    paper = _mix(np.array([0.985, 0.985, 0.98], np.float32), np.array([0.96, 0.91, 0.80], np.float32), k[5])
    width = 1.3 + 1.0 * k[1]
    at = _warped(rng, 0.3 + 0.4 * k[6], 6)
    label = _key(scene)[at]
    lines = _line(_edges(label), width)
    if kind == 1:
        again = _warped(rng, 1.5, 12)
        lines = np.maximum(lines, 0.75 * _line(_edges(scene.group[again]), width * 0.9))
    elif kind == 2:
        light = _ramp_luma(scene)[scene.slot[at]]
        pitch = 4.4 + 1.6 * k[2]
        hatch = _smooth(np.sin((_X + _Y) * (2 * np.pi / pitch / 1.41)), 0.35, 0.95)
        cross = _smooth(np.sin((_X - _Y) * (2 * np.pi / pitch / 1.41)), 0.35, 0.95)
        dark = np.where(scene.mask[at] & (light < 0.6), hatch, 0)
        lines = np.maximum(lines, 0.7 * np.maximum(dark, np.where(scene.mask[at] & (light < 0.32), cross, 0)))
    elif kind == 3:
        lines = lines * (0.25 + 0.75 * _smooth(_noise(rng, 6), -0.9, -0.3))
        light = _ramp_luma(scene)[scene.slot[at]]
        dots = np.hypot((_X / 5 + 0.5 * (np.floor(_Y / 5) % 2)) % 1 - 0.5, (_Y / 5) % 1 - 0.5)
        lines = np.maximum(lines, 0.8 * _smooth(dots, 0.34, 0.2) * (scene.mask[at] & (light < 0.5)))
    if k[4] > 0.5:  # a floor line
        y = _footing(scene)[2] - 8 + 2 * _noise(rng, 12)[0]
        floor = (
            _smooth(np.abs(_Y - y), width * 0.8, width * 0.3) * ~scene.mask * _smooth(np.abs(_X - 64), 58, 52)
        )
        lines = np.maximum(lines, 0.8 * floor)
    return _over(np.broadcast_to(paper, (CANVAS, CANVAS, 3)), ink, lines * 0.95)


def _crayon(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Waxy strokes of a child; knobs 1: outline, 2: pitch, 3: coverage, 4: direction, 5: sun, 6: its ink.

    treatment 0 grass and sun; 1 scribbled ground; 2 black paper; 3 kraft paper; 4 rainbow; 5 zigzag border.
    """
    k, kind = style.knobs, style.treatment
    at = _warped(rng, 1.5, 12)
    mask, group, albedo = scene.mask[at], scene.group[at], _albedo(scene)[at]
    wax = 0.55 + 0.45 * _smooth(_noise(rng, 3), -1.8, -0.4)
    wander = _noise(rng, 12) * 0.7
    pitch = 2 * np.pi / (8.0 + 4.0 * k[2])

    def strokes(angle: Array | float, phase: Array | float, low: float) -> Array:
        turn = np.asarray(angle, np.float32)
        wave = np.sin((_X * np.cos(turn) + _Y * np.sin(turn)) * pitch + phase)
        return low + (1 - low) * _smooth(wave, -0.75, 0.15)

    paper = np.array(
        [(0.98, 0.97, 0.94), (0.98, 0.97, 0.94), (0.10, 0.10, 0.12), (0.76, 0.62, 0.44)][
            kind if kind < 4 else 0
        ],
        np.float32,
    )
    image = np.broadcast_to(paper, (CANVAS, CANVAS, 3))
    tone = _against(_rgb(style.hues[0]), scene)
    if kind == 0:
        grass = _smooth(_Y + 7 * np.abs(np.sin(_X / 4.5 + wander)), 104, 108)
        image = _over(image, _rgb("green"), grass * strokes(0.2, wander, 0.25))
        x = 16 if k[5] < 0.5 else 112
        away, turn = np.hypot(_X - x, _Y - 16), np.arctan2(_Y - 16, _X - x)
        sun = np.maximum(
            _smooth(away, 15, 13), _smooth(np.cos(turn * 10), 0.6, 0.9) * (away > 18) * (away < 27)
        )
        image = _over(image, _rgb("yellow"), sun * wax)
        image = _over(image, tone, 0.45 * strokes(1.45, wander, 0.0) * _smooth(_Y, 46, 20) * (1 - sun))
    elif kind in (1, 2):
        image = _over(
            image, tone, (0.70 if kind == 1 else 0.50) * strokes(1.1 + k[4], wander * 1.5, 0.25) * wax
        )
    elif kind == 4:
        away = np.hypot(_X - 64, _Y - 132)
        band = np.floor((away - 76) / 9)
        colours = np.stack([_rgb(n) for n in ("purple", "blue", "green", "yellow", "orange", "red")])
        inside = (band >= 0) & (band < 6)
        rainbow = colours[np.clip(band, 0, 5).astype(int)]
        image = _mix(
            image, rainbow, (0.75 * inside * wax * (0.6 + 0.4 * np.sin(away * 2.1 + wander)))[..., None]
        )
    else:
        border = np.minimum(np.minimum(_X, CANVAS - 1 - _X), np.minimum(_Y, CANVAS - 1 - _Y))
        image = _over(image, tone, 0.9 * _smooth(border, 15, 11) * strokes(0.8, wander * 2, 0.0) * wax)
    under = _blur(mask.astype(np.float32), 0.8)
    # each part is hatched in its own direction, as a child turns the page
    angle = (0.5 + 1.1 * k[4]) + 0.55 * ((group * 7) % 5 - 2).astype(np.float32)
    cover = strokes(angle, wander * 2.5, 0.52 + 0.25 * k[3]) * (0.62 + 0.38 * wax)
    image = _over(image, albedo, cover * under)
    outline = _INK if k[6] < 0.45 else np.clip(albedo * 0.42, 0, 1)
    if kind == 2:
        outline = np.clip(albedo * 0.55 + 0.45, 0, 1)
    if kind != 2:
        outline = _legible(outline, mask, albedo)
    lines = np.maximum(_line(_edges(group), 2.8 + 1.6 * k[1]), 0.8 * _line(_edges(scene.slot[at]), 1.8))
    if k[6] >= 0.45:
        lines = lines * _blur(mask.astype(np.float32), 0.9)
    return _over(image, outline, lines * (0.72 + 0.28 * wax))


def _sticker(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """White die-cut border; knobs 1: border, 3: shadow, 4: gloss, 5: size of pattern, 6: inner lines.

    treatment 0 plain; 1 dots; 2 stripes; 3 desk grid; 4 dark; 5 half and half.
    """
    k, kind = style.knobs, style.treatment
    tone = _mix(_rgb(style.hues[0]), np.float32(1), 0.2) * 0.92
    if kind == 4:
        tone = tone * 0.38
    image = np.broadcast_to(tone, (CANVAS, CANVAS, 3)) * (1.06 - 0.14 * _Y / CANVAS)[..., None]
    pale, step = _mix(tone, np.float32(1), 0.35), 13 + 8 * k[5]
    if kind == 1:
        dots = np.hypot((_X / step + 0.5 * (np.floor(_Y / step) % 2)) % 1 - 0.5, (_Y / step) % 1 - 0.5)
        image = _over(image, pale, _smooth(dots, 0.25, 0.2))
    elif kind == 2:
        image = _over(image, pale, _smooth(np.sin((_X - _Y) * (4.4 / step)), -0.15, 0.15))
    elif kind == 3:
        grid = np.minimum(np.abs(_X % step - step / 2), np.abs(_Y % step - step / 2))
        image = _over(image, pale, _smooth(grid, 1.5, 0.8))
    elif kind == 5:
        image = _over(image, _mix(_rgb(style.hues[1]), np.float32(1), 0.3), _smooth(_Y - 0.35 * _X, 46, 48))
    width = 6 + int(4 * k[1])
    grown = _smooth(_blur((_shrink(~scene.mask, width + 2) <= width).astype(np.float32), 2.0), 0.35, 0.65)
    thrown = np.roll(_blur(grown, 3.0), (5, 3 if k[0] < 0.5 else -3), (0, 1))
    image = image * (1 - (0.40 + 0.25 * k[3]) * thrown)[..., None]
    image = _over(image, np.array([0.99, 0.99, 0.985], np.float32), grown)
    base = np.clip(_mix(np.float32(0.55), _albedo(scene), 1.15), 0, 1)
    base = base * (1.08 - 0.22 * _smooth(scene.v, -0.7, 0.8))[..., None]
    if k[4] > 0.4:  # a sheen across the vinyl
        sheen = _smooth(np.abs(_X * 0.8 + _Y * 0.6 - 62), 13, 10) + _smooth(
            np.abs(_X * 0.8 + _Y * 0.6 - 84), 5, 3
        )
        base = _mix(base, np.float32(1), (0.26 * sheen)[..., None])
    base = base * (1 - (0.35 + 0.4 * k[6]) * _line(_edges(scene.group) & scene.mask, 2.0))[..., None]
    return _over(image, base, scene.mask)


_WOODS = (
    _table((0.30, 0.17, 0.08), (0.72, 0.50, 0.28), (0.95, 0.80, 0.56)),  # pine
    _table((0.17, 0.10, 0.06), (0.46, 0.29, 0.17), (0.76, 0.55, 0.36)),  # walnut
    _table((0.24, 0.08, 0.04), (0.60, 0.27, 0.14), (0.86, 0.52, 0.32)),  # cherry
)


@cache
def _grain() -> Array:
    """Six periodic fields (6, CANVAS, CANVAS) of unit deviation, drawn out along the rows."""
    white = np.random.default_rng(77).standard_normal((6, CANVAS, CANVAS)).astype(np.float32)
    fields = gaussian_filter(white, (0, 1.6, 16), mode="wrap")
    return fields / fields.std((1, 2), keepdims=True)


def _wood(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Carved wood; knobs 2: pitch of rings, 3: grain, 4: kind of wood, 5: upright grain, 6: polish.

    treatment 0 sweep; 1 wall and floor; 2 spot; 3 pedestal; 4 window light; 5 dark niche.
    """
    k, kind = style.knobs, style.treatment
    table = _WOODS[int(2.99 * k[4])]
    which, dy, dx = (int(i) for i in rng.integers((6, CANVAS, CANVAS)))
    grain = np.roll(_grain()[which], (dy, dx), (0, 1))
    along, across = (scene.v, scene.u) if k[5] > 0.4 else (scene.u, scene.v)
    if k[5] > 0.4:
        grain = grain.T
    rings = np.sin(across * (16 + 14 * k[2]) + 2.2 * np.cos(along * 2.3 + dy) + 0.5 * grain)
    light = _ramp_luma(scene)[scene.slot]
    relief = _relief(scene, 13, k[0], 1.2)
    tone = 0.30 + 0.52 * light + (0.05 + 0.06 * k[3]) * grain + (0.05 + 0.05 * k[3]) * rings
    front = _ramp(tone, table) * (0.45 + 0.70 * relief.diffuse)[..., None]
    front += ((0.06 + 0.30 * k[6]) * relief.shine ** (12 + 24 * k[6]))[..., None] * table[230]
    front *= (1 - 0.5 * _line(_edges(scene.group), 1.8) - 0.22 * _line(_edges(scene.slot), 1.4))[..., None]
    hue = _rgb(style.hues[0])
    wall = _mix(hue, np.float32(0.86), 0.55)
    if kind == 5:
        wall = hue * 0.42 + 0.16
    return _over(_stage(scene, kind, wall, wall * 0.86, k[0], 0.55), front, scene.mask)


def _statue(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Black stone or bronze; knobs 1: softness, 3: gloss, 4: warmth of the stone, 5: second light, 6: veins.

    treatment as `_stage`.
    """
    k, kind = style.knobs, style.treatment
    relief = _relief(scene, 14 + int(6 * k[1]), k[0], 1.2 + k[1])
    light = _ramp_luma(scene)[scene.slot]
    stone = 0.020 + (0.11 + 0.06 * k[3]) * relief.diffuse * relief.diffuse + 0.13 * light
    if k[6] > 0.6:
        stone = stone + 0.06 * _smooth(np.abs(_noise(rng, 12)), 0.10, 0.03)
    stone = stone + (0.34 + 0.62 * k[3]) * relief.shine ** (16 + 40 * k[3])
    back_light = (1 - relief.facing) ** 1.5 * np.clip(relief.nx if k[0] < 0.5 else -relief.nx, 0, 1)
    stone = stone + (0.15 + 0.35 * k[5]) * back_light
    tint = _mix(np.array([0.93, 1.0, 1.10], np.float32), np.array([1.08, 1.0, 0.88], np.float32), k[4])
    front = stone[..., None] * tint * (1 - 0.7 * _line(_edges(scene.group), 1.6))[..., None]
    front = front + (0.10 * _line(_edges(scene.slot), 1.4))[..., None]
    hue = _rgb(style.hues[0])
    wall = _mix(hue, np.array([0.88, 0.87, 0.85], np.float32), 0.45 + 0.4 * k[2])
    return _over(_stage(scene, kind, wall, wall * 0.88, k[0], 0.6), front, scene.mask)


_GOLDS = (
    _table((0.20, 0.09, 0.0), (0.62, 0.38, 0.05), (0.93, 0.70, 0.18), (1, 0.90, 0.48), (1, 0.99, 0.86)),
    _table((0.26, 0.09, 0.05), (0.66, 0.34, 0.16), (0.92, 0.62, 0.36), (1, 0.84, 0.62), (1, 0.97, 0.90)),
)


def _gold(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Gold running down; knobs 1: drips' length, 2: their pitch, 3: polish, 4: yellow or rose, 5: puddle.

    treatment 0 black sweep; 1 deep colour; 2 pale; 3 spot; 4 pedestal; 5 saturated.
    """
    k, kind = style.knobs, style.treatment
    pitch, dx = 9 + 7 * k[2], float(rng.uniform(0, 99))
    column = np.arange(CANVAS) + dx
    wave = 0.5 + 0.5 * np.cos(column * (2 * np.pi / pitch))
    lengths = (np.sin(np.floor(column / pitch + 0.5) * 12.9898 + 4.1) * 43.758) % 1
    run = (3 + (12 + 16 * k[1]) * lengths) * np.clip(wave * 1.9 - 0.55, 0, 1) ** 0.5
    last = np.maximum.accumulate(np.where(scene.mask, _ROW, -999), 0)
    below = _ROW - last
    drip = (below > 0) & (below <= run)
    sag = (run * 0.30 * np.clip((_Y - scene.centre[1] + 10) / 50, 0, 1)).astype(np.intp)
    rows = np.clip(_ROW - sag, 0, CANVAS - 1)
    body = scene.mask[rows, _COLUMN]
    mask = drip | body
    source = np.where(body, rows, np.clip(last, 0, CANVAS - 1))
    group = np.where(mask, scene.group[source, _COLUMN], 0)
    slot = np.where(mask, scene.slot[source, _COLUMN], 0)
    if k[5] > 0.5:  # what ran off gathers below
        x, half, y = _footing(scene)
        pool = ((_X - x) / (half + 16)) ** 2 + ((_Y - min(y + 3, 121)) / 6.5) ** 2 < 1
        group, slot, mask = np.where(pool & ~mask, 99, group), np.where(pool & ~mask, MAIN, slot), mask | pool
    melted = Scene(
        slot, group, mask, *(getattr(scene, f) for f in ("u", "v", "palette", "centre", "unit", "ground"))
    )
    relief = _relief(melted, 12, k[0], 1.5)
    light = _ramp_luma(scene)[slot]
    liquid = 0.5 + 0.5 * np.sin(relief.nx * 4.2 + relief.diffuse * 5.5 + _noise(rng, 12) * 0.5)
    tone = 0.05 + 0.36 * relief.diffuse + 0.26 * light + (0.06 + 0.10 * k[3]) * liquid
    tone = tone + 0.55 * relief.shine ** (10 + 14 * k[3])
    front = _ramp(tone, _GOLDS[int(k[4] > 0.6)])
    front *= (1 - 0.5 * _line(_edges(group), 1.6) - 0.28 * _line(_edges(slot), 1.5))[..., None]
    hue = _rgb(style.hues[0])
    wall = (
        hue * 0.10 + 0.03,
        hue * 0.38,
        _mix(hue, np.float32(1), 0.72),
        hue * 0.3 + 0.03,
        hue * 0.3,
        hue * 0.72,
    )[kind]
    stage = (0, 0, 0, 2, 3, 1)[kind]
    return _over(_stage(scene, stage, wall, wall * 1.25, k[0], 0.5), front, mask)


def _neon(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Tubes of light; knobs 1: tube, 3: glow, 4: tint inside, 5: doubled tube, 6: white core.

    treatment 0 black; 1 brick wall; 2 colour in the night; 3 grid; 4 halo; 5 rays.
    """
    k, kind = style.knobs, style.treatment
    hue = _rgb(style.hues[0])
    back = (0.035 + 0.05 * hue) * np.ones((CANVAS, CANVAS, 1), np.float32)
    away = np.hypot(_X - scene.centre[0], _Y - scene.centre[1]) / CANVAS
    if kind == 1:
        row = np.floor(_Y / 12)
        seam = np.minimum(_Y % 12, (_X + 12 * (row % 2)) % 24)
        back = (back + 0.10 * hue * (1 - 0.9 * away)[..., None]) * (0.45 + 0.55 * _smooth(seam, 0.8, 2.2))[
            ..., None
        ]
    elif kind == 2:
        back = back + hue * (0.30 * np.clip(1 - _Y / CANVAS * 0.9, 0, 1))[..., None]
    elif kind == 3:
        grid = np.minimum(np.abs(_X % 16 - 8), np.abs(_Y % 16 - 8))
        back = back + 0.28 * hue * (_smooth(grid, 1.3, 0.5) * (1.1 - 1.2 * away))[..., None]
    elif kind == 4:
        ring = np.exp(-(((away - 0.44) / 0.014) ** 2)) + 0.35 * np.exp(-(((away - 0.44) / 0.06) ** 2))
        back = back + _bright(hue) * (0.75 * ring * ~scene.mask)[..., None]
    elif kind == 5:
        turn = np.arctan2(_Y - scene.centre[1], _X - scene.centre[0])
        back = back + 0.28 * hue * (_smooth(np.cos(turn * 9), 0.2, 0.8) * _smooth(away, 0.2, 0.5))[..., None]
    lamp = _bright(scene.palette, 0.05)
    lamp[DARK] = _bright(
        _rgb(style.hues[1]), 0.2
    )  # dark parts still need a tube: in the sign's second colour
    light = _ramp_luma(scene)
    lamp[[s for s in (MAIN, SECOND, ACCENT) if light[s] < 0.24]] = _bright(_rgb(style.hues[2]), 0.15)
    colour = lamp.take(scene.slot, 0, mode="clip") * scene.mask[..., None]
    soft = _blur(scene.mask.astype(np.float32), 1.6)[..., None]
    colour = _blur(colour, 1.6) / (soft + 1e-2)
    edge = _edges(_key(scene))
    tube = _line(edge, 2.2 + 1.4 * k[1])
    if k[5] > 0.65:
        tube = np.maximum(tube, 0.6 * _line(_edges(np.minimum(_shrink(scene.mask, 6), 5) == 5), 1.4))
    core = _line(edge, 1.2) * (0.12 + 0.40 * k[6])
    image = (
        back * (1 - np.float32(0.55) * scene.mask)[..., None]
        + colour * (np.float32(0.10 + 0.14 * k[4]) * scene.mask)[..., None]
    )
    emitted = colour * tube[..., None]
    image = image + emitted * 0.95 + core[..., None] * 0.6
    near = _blur(emitted, 3.0)
    bloom = (0.5 + 0.7 * k[3]) * (near * 0.8 + _blur(near, 8.0) * 0.9)
    # crowded tubes would burn out to white
    return image + bloom / (1 + 2.2 * bloom @ _LUMA)[..., None]


def _glowing_rendering(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """A lit-from-within toy in the dark; knobs 1: roundness, 3: rim, 4: inner light, 5: size of halo.

    treatment 0 halo; 1 ring; 2 sparks; 3 beam from above; 4 glowing floor; 5 bokeh.
    """
    k, kind = style.knobs, style.treatment
    hue, other = _bright(_rgb(style.hues[0]), 0.1), _bright(_rgb(style.hues[1]), 0.1)
    away = np.hypot(_X - scene.centre[0], _Y - scene.centre[1]) / CANVAS
    night = _mix(np.array([0.03, 0.03, 0.07], np.float32), hue * 0.16, 0.6)
    back = night * (1.2 - 0.5 * _Y / CANVAS)[..., None]
    if kind == 0:
        back = back + hue * (0.75 * np.exp(-((away / (0.34 + 0.14 * k[5])) ** 2)))[..., None]
    elif kind == 1:
        ring = np.exp(-(((away - 0.43) / 0.022) ** 2)) + 0.45 * np.exp(-(((away - 0.43) / 0.09) ** 2))
        back = back + hue * (0.8 * ring)[..., None]
    elif kind == 2:
        spark = _smooth(_drops(rng, 40, 0.8, 2.8), -0.8, 1.0)
        back = back + other * spark[..., None] + hue * (0.35 * np.exp(-((away / 0.5) ** 2)))[..., None]
    elif kind == 3:
        beam = _smooth(np.abs(_X - scene.centre[0]), 20 + _Y * 0.32, 14 + _Y * 0.22)
        back = back + hue * (0.55 * beam * (1.1 - 0.6 * _Y / CANVAS))[..., None]
    elif kind == 4:
        x, half, y = _footing(scene)
        pool = np.exp(-(((_X - x) / (half + 30)) ** 2) - ((_Y - y) / 17) ** 2)
        back = back + hue * (1.0 * pool)[..., None] + other * (0.25 * np.exp(-((away / 0.4) ** 2)))[..., None]
    else:
        blobs = _smooth(_drops(rng, 14, 4, 12), 0.0, 1.6) * 0.5 + 0.25 * _smooth(
            _drops(rng, 9, 5, 9), 0.0, 1.6
        )
        back = back + _mix(hue, other, (_X / CANVAS)[..., None]) * blobs[..., None]
    relief = _relief(scene, 13 + int(8 * k[1]), k[0], 1.6 + k[1])
    vivid = _bright(scene.palette, 0.0) * np.maximum(scene.palette.max(-1, keepdims=True), 0.3)
    vivid = _mix(scene.palette, vivid, 0.4).take(scene.slot, 0, mode="clip")
    inner = (
        0.42
        + (0.30 + 0.30 * k[4]) * (relief.depth / max(relief.depth.max(), 1)) ** 1.5
        + 0.38 * relief.diffuse
    )
    rim = (1 - relief.facing) ** 1.3
    side = np.clip(0.5 + 0.9 * relief.nx, 0, 1)[..., None]
    front = vivid * inner[..., None] + (0.4 * relief.shine**40)[..., None]
    front = front + (0.65 + 0.45 * k[3]) * rim[..., None] * _mix(hue, other, side)
    front = front * (1 - 0.25 * _line(_edges(scene.slot), 1.4))[..., None]
    outer = np.clip(_blur(scene.mask.astype(np.float32), 5.0) * 1.3, 0, 1)
    back = back + (0.45 * outer)[..., None] * _mix(hue, other, (_X / CANVAS)[..., None])
    image = _over(back, front, scene.mask)
    return image + 0.18 * _blur(np.clip(image - 0.45, 0, 1), 5.0)


def _spectrum(*names: str) -> Array:
    return _table(*(tuple(_mix(_rgb(n), _bright(_rgb(n)), 0.5)) for n in (*names, names[0])))


_RAINBOWS = (
    _spectrum("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink"),
    _spectrum("pink", "orange", "yellow", "teal", "blue", "purple"),
    _spectrum("teal", "blue", "purple", "pink", "red", "orange"),
)


def _rainbow(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Flowing smoke in all colours; knobs 1: bend, 2: bands, 3: silk, 4: which spectrum, 5: direction.

    treatment 0 on white; 1 on black; 2 pastel waves; 3 on deep blue; 4 on cream with trails.
    """
    k, kind = style.knobs, style.treatment
    table = _RAINBOWS[int(2.99 * k[4])]
    turn = 0.4 + 2.2 * k[5]
    x, y = _X / CANVAS, _Y / CANVAS
    c, s = math.cos(turn), math.sin(turn)
    p, q = x * c + y * s, y * c - x * s
    drift = float(rng.uniform(0, 1))
    flow = p + (0.08 + 0.10 * k[1]) * np.sin(q * (5 + 4 * k[1]) + 6.3 * drift) + 0.035 * _noise(rng, 12)
    silk = 0.5 + 0.5 * np.cos(flow * (2 * np.pi * (7 + 6 * k[2])))
    hue = _ramp((flow * (1.0 + 0.8 * k[2]) + drift) % 1, table)
    paper = np.array(
        ((0.98, 0.98, 0.98), (0.03, 0.03, 0.05), (0.93, 0.91, 0.96), (0.05, 0.07, 0.20), (0.98, 0.95, 0.88))[
            kind
        ],
        np.float32,
    )
    veil = _smooth(silk, 0.25, 1.0) * _smooth(np.abs(q - 0.1 + 0.15 * np.sin(p * 7 + drift * 6)), 0.42, 0.05)
    amount = (0.40, 0.5, 0.45, 0.5, 0.45)[kind]
    back = _mix(paper, hue, (amount * veil)[..., None])
    trail = _blur(scene.mask.astype(np.float32), 7.0)
    shift = int(8 + 10 * k[1])
    trail = np.maximum(trail, 0.8 * np.roll(trail, (-shift, shift if k[5] > 0.5 else -shift), (0, 1)))
    back = _mix(back, hue, (0.55 * _smooth(trail, 0.15, 0.9) * (0.45 + 0.55 * silk))[..., None])
    light = _ramp_luma(scene)[scene.slot]
    relief = _relief(scene, 13, k[0], 1.6)
    front = (
        hue * (0.34 + 0.38 * relief.diffuse + 0.34 * light + (0.06 + 0.12 * k[3]) * (silk - 0.5))[..., None]
    )
    front = front + ((0.04 + 0.10 * k[3]) * silk**6 + 0.20 * light**3 + 0.22 * relief.shine**20)[..., None]
    lines = _line(_edges(_key(scene)), 1.6)
    dark = kind in (1, 3)
    front = _over(front, np.float32(1.0) if dark else _INK, lines * (0.5 if dark else 0.6))
    return _over(back, front, scene.mask)


def _cyberpunk(scene: Scene, style: Style, rng: np.random.Generator) -> Array:
    """Neon city at night; knobs 1: roundness, 3: rim, 4: wet floor, 5: skyline's height, 6: scan lines.

    treatment 0 skyline; 1 setting sun; 2 signs; 3 perspective grid.
    """
    k, kind = style.knobs, style.treatment
    left, right = _bright(_rgb(style.hues[1]), 0.0), _bright(_rgb(style.hues[2]), 0.0)
    _, _, ground = _footing(scene)
    horizon = float(np.clip(ground - 14, 76, 106))
    sky = _smooth(_Y, -10, horizon)[..., None]
    back = _mix(np.array([0.04, 0.02, 0.12], np.float32), left * 0.42 + 0.02, sky)
    if kind == 1:
        away = np.hypot(_X - 64, _Y - horizon + 28)
        bars = _smooth(np.sin(_Y * 0.9), -0.3, 0.2) + (horizon - 38 > _Y)
        sun = _smooth(away, 46, 44) * np.clip(bars, 0, 1)
        warm = _mix(_rgb("yellow"), left, _smooth(_Y, horizon - 72, horizon)[..., None])
        back = _mix(back, warm, 0.85 * sun[..., None])
    if kind in (0, 2):
        block = np.floor((_X + 40 * k[7]) / 13)
        height = horizon - (
            20 + 46 * ((np.sin(block * 12.9898 + 9 * k[5]) * 43.758) % 1) * (0.6 + 0.6 * k[5])
        )
        tower = _smooth(_Y, height - 0.5, height + 0.5) * (horizon > _Y)
        back = _over(back, np.array([0.06, 0.04, 0.15], np.float32), tower)
        inside = ((_X + 40 * k[7]) % 13 > 3) & ((_X + 40 * k[7]) % 13 < 11)
        wx, wy = np.floor(_X / 4), np.floor(_Y / 6)
        lit = ((np.sin(wx * 7.13 + wy * 13.7 + 3 * k[7]) * 43.7) % 1 > 0.55) & (_X % 4 < 2.5) & (_Y % 6 < 3)
        window = _mix(left, right, (np.sin(block * 3.1) > 0)[..., None])
        back = _over(back, window, 0.75 * (lit & inside) * tower * (height + 4 < _Y))
    if kind == 2:
        for x, colour in ((10, right), (106, left)):
            sign = (np.abs(_X - x - 6) < 6) & (np.abs(_Y - 42) < 26)
            glyph = (np.abs(_X - x - 6) < 3.2) & ((_Y % 11) < 6)
            back = _over(back, colour, sign * 0.85)
            back = _over(back, np.array([0.05, 0.03, 0.12], np.float32), sign & glyph)
    floor = _smooth(_Y, horizon - 0.5, horizon + 0.5)
    wet = (
        np.array([0.05, 0.03, 0.11], np.float32)
        + _mix(left, right, (_X / CANVAS)[..., None])
        * (0.34 * np.exp(-np.maximum(_Y - horizon, 0) / 14) * (0.6 + 0.4 * np.sin(_Y * 1.1)))[..., None]
    )
    if kind in (1, 3):
        deep = np.maximum(_Y - horizon, 0.5)
        grid = np.maximum(
            _smooth(np.abs(np.sin((_X - 64) / deep * 2.2)), 0.22, 0.08),
            _smooth(np.abs(np.sin(60 / (deep + 6) * 2)), 0.22, 0.08),
        )
        wet = _over(wet, right, 0.7 * grid)
    back = _over(back, wet, floor) * (1 - 0.6 * _shadow(scene))[..., None]
    relief = _relief(scene, 12 + int(8 * k[1]), 0.5, 1.5)
    base = _albedo(scene)
    rim = (1 - relief.facing) ** 1.1 * (0.9 + 0.6 * k[3])
    front = base * (0.56 + 0.44 * relief.diffuse)[..., None] * np.array([0.92, 0.88, 1.08], np.float32)
    front = front + left * (rim * np.clip(-relief.nx * 1.5, 0, 1))[..., None]
    front = front + right * (rim * np.clip(relief.nx * 1.5, 0, 1))[..., None]
    front = front * (1 - 0.3 * _line(_edges(scene.group), 1.6))[..., None]
    # a seam of light along the body's parts
    circuit = _line(_edges(np.where(scene.slot == SECOND, 1, 0)) & scene.mask, 1.4)
    front = _over(front, right, 0.45 * circuit)
    halo = _blur(scene.mask.astype(np.float32), 4.0)
    back = back + 0.35 * halo[..., None] * _mix(
        left, right, _smooth(_X, scene.centre[0] - 25, scene.centre[0] + 25)[..., None]
    )
    image = _over(back, front, scene.mask)
    return image * (1 - (0.05 + 0.07 * k[6]) * (0.5 + 0.5 * np.sin(_Y * (2 * np.pi / 6))))[..., None]


_PAINTERS: dict[str, tuple[Callable[[Scene, Style, np.random.Generator], Array], int]] = {
    "photo": (_photo, 6),
    "3D rendering": (_rendering, 5),
    "watercolor painting": (_watercolour, 7),
    "oil painting": (_oil, 6),
    "flat cartoon illustration": (_flat, 7),
    "cartoon line drawing": (_marker, 5),
    "line drawing": (_pen, 4),
    "kid crayon drawing": (_crayon, 6),
    "sticker": (_sticker, 6),
    "wooden sculpture": (_wood, 6),
    "black statue": (_statue, 6),
    "melting golden rendering": (_gold, 6),
    "glowing": (_neon, 6),
    "glowing 3D rendering": (_glowing_rendering, 6),
    "abstract rainbow": (_rainbow, 5),
    "cyberpunk": (_cyberpunk, 4),
}

FAMILIES: tuple[str, ...] = tuple(_PAINTERS)
"""The families, as they stand in prompts; "photo" is plain rendering. Order is part of the random streams."""

TREATMENTS: dict[str, int] = {name: count for name, (_, count) in _PAINTERS.items()}
"""How many background treatments or variants each family has."""


def _style(family: str, treatment: int, hues: str, tenths: str) -> Style:
    """A named style, its eight knobs written as eight digits: tenths."""
    first, second, third = hues.split()
    return Style(family, tuple(int(digit) / 10 for digit in tenths), (first, second, third), treatment)


STYLES: dict[str, Style] = {
    "3D rendering #1": _style("3D rendering", 0, "teal white white", "36583455"),
    "3D rendering #2": _style("3D rendering", 3, "pink orange white", "79535255"),
    "3D rendering #3": _style("3D rendering", 2, "blue white pink", "25590955"),
    "3D rendering #4": _style("3D rendering", 1, "yellow white white", "82522155"),
    "abstract rainbow": _style("abstract rainbow", 0, "white white white", "37581355"),
    "black statue": _style("black statue", 3, "gray white white", "34772735"),
    "cartoon line drawing": _style("cartoon line drawing", 0, "red white white", "55555035"),
    "flat cartoon illustration #1": _style("flat cartoon illustration", 0, "orange teal white", "25561555"),
    "flat cartoon illustration #2": _style("flat cartoon illustration", 2, "blue green white", "81539355"),
    "glowing": _style("glowing", 0, "purple teal pink", "55573265"),
    "glowing 3D rendering": _style("glowing 3D rendering", 0, "blue pink white", "46576555"),
    "kid crayon drawing": _style("kid crayon drawing", 0, "blue white white", "55464225"),
    "line drawing": _style("line drawing", 0, "white white white", "55558141"),
    "melting golden rendering": _style("melting golden rendering", 0, "black white white", "37572855"),
    "oil painting #1": _style("oil painting", 1, "blue yellow white", "35667655"),
    "oil painting #2": _style("oil painting", 3, "brown orange white", "25473555"),
    "oil painting #3": _style("oil painting", 2, "green pink white", "75355955"),
    "sticker": _style("sticker", 0, "teal white white", "35567555"),
    "watercolor painting #1": _style("watercolor painting", 0, "teal white white", "54566125"),
    "watercolor painting #2": _style("watercolor painting", 1, "blue purple white", "58583035"),
    "watercolor painting #3": _style("watercolor painting", 2, "pink orange white", "55595235"),
    "watercolor painting #4": _style("watercolor painting", 3, "yellow white white", "56542915"),
    "watercolor painting #5": _style("watercolor painting", 4, "purple white white", "53513395"),
    "watercolor painting #6": _style("watercolor painting", 5, "blue green white", "55578225"),
    "watercolor painting #7": _style("watercolor painting", 6, "brown white white", "54999515"),
    "wooden sculpture": _style("wooden sculpture", 1, "teal white white", "35562745"),
    "cyberpunk": _style("cyberpunk", 0, "purple pink teal", "55575553"),
}
"""The 26 styles of Table A1, and the generalisation style of its section A2.5."""

SPLIT: dict[str, tuple[str, ...]] = {
    "train": (
        "3D rendering #1",
        "3D rendering #3",
        "abstract rainbow",
        "black statue",
        "cartoon line drawing",
        "flat cartoon illustration #1",
        "glowing 3D rendering",
        "kid crayon drawing",
        "line drawing",
        "melting golden rendering",
        "oil painting #3",
        "sticker",
        "watercolor painting #2",
        "watercolor painting #4",
        "watercolor painting #5",
        "watercolor painting #6",
        "watercolor painting #7",
        "wooden sculpture",
    ),
    "validation": ("3D rendering #2", "oil painting #1", "watercolor painting #1"),
    "test": (
        "3D rendering #4",
        "oil painting #2",
        "watercolor painting #3",
        "flat cartoon illustration #2",
        "glowing",
    ),
    "generalisation": ("cyberpunk",),
}
"""Names in `STYLES`, partitioned as Table A1 does."""

NEAR = 0.22
"""Instances nearer than this by `distance` to a named style are never drawn by `random_style`."""


def family(name: str) -> str:
    """The words for a style in a prompt: its name without the number. `ValueError` for an unknown name."""
    if name not in STYLES:
        raise ValueError(f"no style {name!r}; there are: {', '.join(STYLES)}")
    return STYLES[name].family


def distance(a: Style, b: Style) -> float:
    """How different two styles are: 1 between families; within one, the mean difference of the knobs,
    plus 0.2 for another treatment and 0.1 for another background colour."""
    if a.family != b.family:
        return 1.0
    knobs = sum(abs(p - q) for p, q in zip(a.knobs, b.knobs, strict=True)) / len(a.knobs)
    return knobs + 0.2 * (a.treatment != b.treatment) + 0.1 * (a.hues[0] != b.hues[0])


def random_style(rng: np.random.Generator, family: str) -> Style:
    """A random instance of `family`, redrawn while nearer than `NEAR` to a named style."""
    if family not in _PAINTERS:
        raise ValueError(f"no style family {family!r}; there are: {', '.join(FAMILIES)}")
    while True:
        names = COLOUR_NAMES if family in ("photo", "black statue", "wooden sculpture") else _HUES
        hues = tuple(names[i] for i in rng.permutation(len(names))[:3])
        knobs = tuple(float(x) for x in rng.random(8))
        style = Style(family, knobs, hues, int(rng.integers(TREATMENTS[family])))
        if all(distance(style, named) >= NEAR for named in STYLES.values()):
            return style


def paint(scene: Scene, style: Style, rng: np.random.Generator) -> np.ndarray:
    """Paint `scene` in `style`: (CANVAS, CANVAS, 3) float32 in 0..1.

    `rng` gives only the incidental texture of this one view; what makes the style comes from `style` alone.
    """
    painter, _ = _PAINTERS[style.family]
    return np.clip(painter(scene, style, rng), 0, 1).astype(np.float32, copy=False)
