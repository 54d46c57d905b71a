"""What painters share: noise, edges, relief, light and shadow, and the knobs of a style."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from lorarar.shoebox.world.scene import CANVAS, COLOUR_NAMES, COLOURS, Scene

Array = np.ndarray

Y, X = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32)
ROW, COLUMN = np.mgrid[0:CANVAS, 0:CANVAS]
LUMA = np.array([0.30, 0.59, 0.11], np.float32)
INK = np.array([0.09, 0.08, 0.11], np.float32)
HUES = tuple(name for name in COLOUR_NAMES if name not in ("white", "gray", "black"))


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


def rgb_of(name: str) -> Array:
    """Return a named colour as (3,) in 0..1."""
    return np.array(COLOURS[name], np.float32) / 255


def lerp(a: Array | float, b: Array | float, t: Array | float) -> Array:
    """Return ``a`` where ``t`` is 0 and ``b`` where it is 1, linear between."""
    return a + (b - a) * t


def smoothstep(x: Array, low: float, high: float) -> Array:
    """Return a smooth step of ``x``: 0 at ``low``, 1 at ``high``."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


@cache
def _up(step: int) -> tuple[Array, Array, Array]:
    at = (np.arange(CANVAS, dtype=np.float32) + 0.5) / step - 0.5
    low = np.clip(np.floor(at).astype(int), 0, CANVAS // step - 2)
    return low, low + 1, np.clip(at - low, 0, 1).astype(np.float32)


def gaussian_blur(x: Array, sigma: float) -> Array:
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
def smooth_fields(scale: float) -> Array:
    """Six smooth periodic fields (6, CANVAS, CANVAS) of unit deviation, features of `scale` pixels."""
    rng = np.random.default_rng(int(scale * 10))
    white = rng.standard_normal((6, CANVAS, CANVAS)).astype(np.float32)
    fields = gaussian_filter(white, (0, scale, scale), mode="wrap")
    return fields / fields.std((1, 2), keepdims=True)


def noise_field(rng: np.random.Generator, scale: float) -> Array:
    """Return smooth noise (CANVAS, CANVAS) of unit deviation, features of ``scale`` pixels."""
    which, dy, dx = rng.integers((6, CANVAS, CANVAS))
    return np.roll(smooth_fields(scale)[which], (dy, dx), (0, 1))


def label_edges(labels: Array) -> Array:
    """Pixels (CANVAS, CANVAS) bool where a label differs from the one to the left or above."""
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] = labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    return edge


def soft_line(edge: Array, width: float) -> Array:
    """Soft-edged lines in 0..1 of about `width` pixels along the pixels of `edge`."""
    sigma = max(width / 3.3, 0.55)
    return np.clip(gaussian_blur(edge.astype(np.float32), sigma) * (5.0 * sigma), 0, 1)


def region_of(scene: Scene) -> Array:
    """Return a label (CANVAS, CANVAS) that differs wherever slot or group does."""
    return scene.slot.astype(np.int16) + 16 * scene.group


def depth_inside(mask: Array, steps: int) -> Array:
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


class Relief(NamedTuple):
    """Shading of a scene swollen like a cushion: all (CANVAS, CANVAS)."""

    diffuse: Array
    shine: Array
    facing: Array
    nx: Array
    depth: Array


def shaded_relief(scene: Scene, reach: int, light: float, soft: float = 1.4) -> Relief:
    """Each group swells over `reach` pixels; `light` in 0..1 goes from the left over the top to the right."""
    depth = depth_inside(scene.mask & ~label_edges(scene.group), reach)
    height = np.sqrt(1 - (1 - np.minimum(depth / reach, 1)) ** 2) * (0.85 * reach)
    gy, gx = np.gradient(gaussian_blur(height, soft))
    nz = 1 / np.sqrt(gx * gx + gy * gy + 1)
    nx, ny = -gx * nz, -gy * nz
    angle = np.pi * (1.15 + 0.7 * light)
    lx, ly, lz = 0.62 * math.cos(angle), 0.62 * math.sin(angle), 0.62
    norm = math.sqrt(lx * lx + ly * ly + (1 + lz) ** 2)
    diffuse = np.clip((nx * lx + ny * ly + nz * lz) * (1 / math.hypot(lx, ly, lz)), 0, 1)
    shine = np.clip((nx * lx + ny * ly + nz * (1 + lz)) / norm, 0, 1)
    return Relief(diffuse, shine, nz, nx, depth)


def own_colour(scene: Scene) -> Array:
    """Return the scene in the subject's own colours, (CANVAS, CANVAS, 3)."""
    return scene.palette.take(scene.slot, 0, mode="clip")


def set_off(tone: Array, scene: Scene) -> Array:
    """`tone`, made somewhat lighter or darker the nearer it is to the subject's own mean colour."""
    counts = np.bincount(scene.slot.ravel(), minlength=len(scene.palette)).astype(np.float32)
    counts[0] = 0
    mean = counts @ scene.palette / max(float(counts.sum()), 1.0)
    own, ground = float(mean @ LUMA), float(tone @ LUMA)
    shift = 0.26 * max(0.0, 1 - float(np.abs(mean - tone).max()) / 0.38)
    if own < 0.3 or (ground >= own and own < 0.7):
        return lerp(tone, np.float32(1), min(shift / (1.001 - ground), 0.7))
    return tone * max(1 - 0.6 * shift / max(ground, 1e-3), 0.4)


def lay_over(back: Array, front: Array, mask: Array) -> Array:
    """Lay ``front`` over ``back`` where ``mask`` is 1."""
    return back + (front - back) * mask[..., None].astype(np.float32, copy=False)


def footing_of(scene: Scene) -> tuple[float, float, float]:
    """Middle, half width and height in pixels of where the subject meets the floor."""
    ground = min(scene.ground, CANVAS - 2)
    columns = np.flatnonzero(scene.mask[max(int(ground) - 12, 0) : int(ground) + 1].any(0))
    if len(columns) == 0:
        return CANVAS / 2, CANVAS / 4, ground
    left, right = float(columns[0]), float(columns[-1])
    return (left + right) / 2, max((right - left) / 2, 8.0), ground


def contact_shadow(scene: Scene, light: float = 0.5, spread: float = 1.0) -> Array:
    """Contact shadow (CANVAS, CANVAS) in 0..1, thrown away from the light."""
    x, half, y = footing_of(scene)
    x = x + (0.5 - light) * half * 0.7
    dx, dy = (X - x) / (half * 1.15 * spread), (Y - y + 1) / (5 * spread + half * 0.10)
    return np.exp(-(dx * dx + dy * dy))


def backdrop(
    scene: Scene, kind: int, wall: Array, floor: Array, light: float = 0.5, dark: float = 0.5
) -> Array:
    """A background (CANVAS, CANVAS, 3) with a shadow under the subject.

    kind 0: seamless studio sweep; 1: wall and floor; 2: round spot on the wall; 3: pedestal disc;
    4: light falling diagonally through a window; 5: wall with a lit arch.
    """
    _, half, ground = footing_of(scene)
    horizon = float(np.clip(ground - 13, 74, 110))
    away = np.hypot(X - CANVAS * (0.3 + 0.4 * light), Y - CANVAS * 0.36) / CANVAS
    wall_light = (1.10 - 0.42 * away)[..., None]
    edge = smoothstep(Y, horizon - 1, horizon + 1)[..., None]
    if kind == 0:
        edge = smoothstep(Y, horizon - 26, horizon + 10)[..., None]
    image = lerp(wall * wall_light, floor * (1.02 - 0.25 * away)[..., None], edge)
    if kind == 2:
        spot = smoothstep(np.hypot(X - scene.centre[0], Y - scene.centre[1]), 56, 53)[..., None]
        image = lerp(image, lerp(wall, np.float32(1), 0.38) * wall_light, spot * (1 - edge))
    elif kind == 3:
        x, half, y = footing_of(scene)
        rx, ry = half * 1.25 + 10, half * 0.2 + 7
        top = smoothstep(((X - x) / rx) ** 2 + ((Y - y + 2) / ry) ** 2, 1.08, 0.95)[..., None]
        side = smoothstep(((X - x) / rx) ** 2 + ((Y - y - 8) / ry) ** 2, 1.08, 0.95)
        side = np.maximum(side, smoothstep(np.abs(X - x), rx, rx - 1) * (np.abs(Y - y - 3) < 5))[..., None]
        turn = (0.72 - 0.3 * (X - x) / rx * (1 - 2 * light + 0.6))[..., None]
        image = lerp(lerp(image, floor * turn, side), lerp(floor, np.float32(1), 0.25), top)
    elif kind == 4:
        across = (X + Y * 0.7) / CANVAS
        panes = smoothstep(np.abs(across - 0.58), 0.21, 0.18) + smoothstep(np.abs(across - 1.08), 0.19, 0.16)
        image = image * (0.84 + 0.30 * panes[..., None])
    elif kind == 5:
        inside = smoothstep(np.hypot((X - CANVAS / 2) / 50, np.minimum(Y - 58, 0) / 50), 1.02, 0.98)
        image = lerp(image, image * 0.62, (inside * (1 - edge[..., 0]))[..., None])
    return image * (1 - dark * contact_shadow(scene, light))[..., None]


def ramp_table(*stops: tuple[float, float, float]) -> Array:
    """Colour ramp (256, 3) through equally spaced stops."""
    at, colours = np.linspace(0, 1, len(stops)), np.array(stops)
    return np.stack([np.interp(np.linspace(0, 1, 256), at, colours[:, c]) for c in range(3)], 1).astype(
        np.float32
    )


def look_up(t: Array, table: Array) -> Array:
    """Return the colours of ``t`` in 0..1 by a table (256, 3)."""
    return table.take((np.clip(t, 0, 1) * 255).astype(np.uint8), 0, mode="clip")


def shaken(rng: np.random.Generator, amount: float, scale: float = 12) -> tuple[Array, Array]:
    """Indices (rows, columns) that shake an image by about `amount` pixels, as a hand would."""
    dy, dx = noise_field(rng, scale) * amount, noise_field(rng, scale) * amount
    rows = np.clip(np.rint(Y + dy), 0, CANVAS - 1).astype(np.intp)
    return rows, np.clip(np.rint(X + dx), 0, CANVAS - 1).astype(np.intp)


def brighten(colour: Array, low: float = 0.25) -> Array:
    """Colours made as luminous as they can be, keeping the hue; grey becomes white."""
    lifted = colour - 0.75 * colour.min(-1, keepdims=True)
    lifted = lifted / (lifted.max(-1, keepdims=True) + 1e-3)
    return low + (1 - low) * lifted
