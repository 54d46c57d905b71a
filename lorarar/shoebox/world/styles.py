"""Sixteen ways to paint a scene: the style families of Table A1, and its 26 styles as fixed instances.

A *family* is a painter, a function from a `Scene` and eight knobs to pixels. A *style* is one instance of a
family: fixed stroke, palette, light and background treatment. Its views differ in incidental texture only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lorarar.shoebox.world.canvas import HUES, Array, Style
from lorarar.shoebox.world.lights import paint_cyberpunk, paint_neon, paint_rainbow
from lorarar.shoebox.world.paintings import paint_crayon, paint_oil, paint_watercolour
from lorarar.shoebox.world.prints import paint_flat, paint_marker, paint_pen, paint_sticker
from lorarar.shoebox.world.renderings import (
    paint_glowing_rendering,
    paint_gold,
    paint_photo,
    paint_rendering,
    paint_statue,
    paint_wood,
)
from lorarar.shoebox.world.scene import COLOUR_NAMES, Scene

_PAINTERS: dict[str, tuple[Callable[[Scene, Style, np.random.Generator], Array], int]] = {
    "photo": (paint_photo, 6),
    "3D rendering": (paint_rendering, 5),
    "watercolor painting": (paint_watercolour, 7),
    "oil painting": (paint_oil, 6),
    "flat cartoon illustration": (paint_flat, 7),
    "cartoon line drawing": (paint_marker, 5),
    "line drawing": (paint_pen, 4),
    "kid crayon drawing": (paint_crayon, 6),
    "sticker": (paint_sticker, 6),
    "wooden sculpture": (paint_wood, 6),
    "black statue": (paint_statue, 6),
    "melting golden rendering": (paint_gold, 6),
    "glowing": (paint_neon, 6),
    "glowing 3D rendering": (paint_glowing_rendering, 6),
    "abstract rainbow": (paint_rainbow, 5),
    "cyberpunk": (paint_cyberpunk, 4),
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
        names = COLOUR_NAMES if family in ("photo", "black statue", "wooden sculpture") else HUES
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
