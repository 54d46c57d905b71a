"""Subjects of the drawn world: which polygons make a dog, a teapot or a poop emoji.

Each of the `CLASSES` is a parametric drawing. An `Identity` fixes one individual of a class (colours,
marking, proportions, accessories); a `Pose` one view of it. `SUBJECTS` are the thirty named individuals of
LoRA.rar's Table A1, and three more for generalisation; `random_identity` draws any number of others and never
one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np

from lorarar.shoebox.world.animals import draw_cat, draw_dog, draw_duck, draw_plushie
from lorarar.shoebox.world.drawing import MARKINGS, Drawing, Identity
from lorarar.shoebox.world.furniture import draw_clock, draw_sofa, draw_tv
from lorarar.shoebox.world.household import (
    draw_bowl,
    draw_can,
    draw_candle,
    draw_teapot,
    draw_toaster,
    draw_vase,
)
from lorarar.shoebox.world.scene import (
    ACCENT,
    BACKGROUND,
    COLOUR_NAMES,
    COLOURS,
    FIXED_SLOTS,
    MAIN,
    SECOND,
    Part,
    Pose,
    Scene,
    rasterise,
)
from lorarar.shoebox.world.toys import (
    draw_car,
    draw_cartoon,
    draw_monster,
    draw_poop,
    draw_robot,
)
from lorarar.shoebox.world.wear import draw_backpack, draw_boot, draw_sneaker, draw_sunglasses

SPLIT: dict[str, tuple[str, ...]] = {
    "train": (
        "backpack",
        "backpack dog",
        "berry bowl",
        "candle",
        "cat #1",
        "colorful sneaker",
        "dog #1",
        "dog #5",
        "dog #6",
        "dog #7",
        "duck toy",
        "fancy boot",
        "grey sloth plushie",
        "monster toy",
        "pink sunglasses",
        "poop emoji",
        "rc car",
        "red cartoon",
        "robot toy",
        "shiny sneaker",
        "vase",
    ),
    "validation": ("dog #2", "dog #3", "clock", "bear plushie"),
    "test": ("dog #8", "cat #2", "wolf plushie", "teapot", "can"),
    "generalisation": ("toaster", "tv", "sofa"),
}
"""Names of the subjects: the three splits of Table A1 of LoRA.rar, and the set of its generalisation test."""


_DRAWINGS: dict[str, Callable[[Identity, tuple[float, ...]], Drawing]] = {
    "dog": draw_dog,
    "cat": draw_cat,
    "backpack": draw_backpack,
    "bowl": draw_bowl,
    "candle": draw_candle,
    "sneaker": draw_sneaker,
    "boot": draw_boot,
    "duck toy": draw_duck,
    "plushie": draw_plushie,
    "monster toy": draw_monster,
    "sunglasses": draw_sunglasses,
    "poop emoji": draw_poop,
    "rc car": draw_car,
    "cartoon": draw_cartoon,
    "robot toy": draw_robot,
    "vase": draw_vase,
    "clock": draw_clock,
    "teapot": draw_teapot,
    "can": draw_can,
    "toaster": draw_toaster,
    "tv": draw_tv,
    "sofa": draw_sofa,
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
    "colorful sneaker": _named(
        "sneaker", "teal pink yellow", "patched", 0.2, 0.9, 0.9, 0.1, 0.9, 0.9, 0.2, 0.6
    ),
    "dog #1": _named("dog", "brown white red", "plain", 0.1, 0.9, 0.3, 0.8, 0.1, 0.3, 0.6, 0.5),
    "dog #5": _named("dog", "white black blue", "spotted", 0.5, 0.5, 0.2, 0.6, 0.1, 0.3, 0.3, 0.3),
    "dog #6": _named("dog", "orange white green", "plain", 0.9, 0.4, 0.9, 0.4, 0.5, 0.9, 0.9, 0.5),
    "dog #7": _named("dog", "black orange pink", "plain", 0.9, 0.9, 0.2, 0.9, 0.1, 0.6, 0.9, 0.5),
    "duck toy": _named("duck toy", "yellow orange red", "plain", 0.5, 0.5, 0.5, 0.8, 0.1, 0.2, 0.5, 0.5),
    "fancy boot": _named("boot", "purple pink yellow", "plain", 0.3, 0.9, 0.3, 0.4, 0.9, 0.2, 0.9, 0.5),
    "grey sloth plushie": _named(
        "plushie", "gray white green", "plain", 0.6, 0.3, 0.4, 0.6, 0.9, 0.1, 0.2, 0.5
    ),
    "monster toy": _named(
        "monster toy", "green yellow purple", "spotted", 0.1, 0.1, 0.6, 0.1, 0.8, 0.9, 0.8, 0.9
    ),
    "pink sunglasses": _named(
        "sunglasses", "pink purple yellow", "plain", 0.7, 0.4, 0.6, 0.4, 0.8, 0.5, 0.1, 0.5
    ),
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
