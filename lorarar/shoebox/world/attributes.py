"""What there is to say about a drawing: the attributes of its individual and of its style, as numbers.

The world knows them of every picture it draws. A judge that is taught to name them has far more to learn from
than "the same" and "another", and one that names them can tell a changed collar.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lorarar.shoebox.world import styles, subjects, world
from lorarar.shoebox.world.canvas import Style
from lorarar.shoebox.world.drawing import MARKINGS, Identity
from lorarar.shoebox.world.scene import COLOUR_NAMES
from lorarar.shoebox.world.stored import stored

BINS = 10
"""Steps in which a number in 0..1, of a shape or a knob, is told."""
SUBJECT: tuple[int, ...] = (*[len(COLOUR_NAMES)] * 3, len(MARKINGS), *[BINS] * 8)
"""How many values each attribute of an individual has: three colours, the marking, eight shape numbers."""
STYLE: tuple[int, ...] = (max(styles.TREATMENTS.values()), *[len(COLOUR_NAMES)] * 3, *[BINS] * 8)
"""How many values each attribute of a style has: the treatment, three hues, eight knobs."""
PHOTOS = 0.2
"""Share of photos among portraits: a subject's references are photos."""


def _steps(numbers: tuple[float, ...]) -> list[int]:
    return np.minimum(np.array(numbers) * BINS, BINS - 1).astype(int).tolist()


def of_identity(identity: Identity) -> list[int]:
    """Attributes of an individual as indices, in the order of `SUBJECT`."""
    colours = [COLOUR_NAMES.index(name) for name in identity.colours]
    return [*colours, MARKINGS.index(identity.marking), *_steps(identity.shape)]


def of_style(style: Style) -> list[int]:
    """Attributes of a style as indices, in the order of `STYLE`."""
    return [style.treatment, *(COLOUR_NAMES.index(name) for name in style.hues), *_steps(style.knobs)]


def of_group(identities: Sequence[Identity], pair: Sequence[Style]) -> np.ndarray:
    """Attributes of the six drawings of a group as `world.draw_group` lays it out: (GROUP, 24) uint8.

    Those of individuals come first. A photo's style, drawn on the way, is not known: all 0.
    """
    looks = [*map(of_style, pair), [0] * len(STYLE)]
    return np.array([[*of_identity(who), *look] for who in identities for look in looks], np.uint8)


def of_groups(groups: int, seed: int) -> np.ndarray:
    """Attributes of the drawings of `world.dataset`: (GROUP·groups, 24) uint8."""
    casts = (world.cast(np.random.default_rng([seed, index])) for index in range(groups))
    return np.concatenate([of_group(*cast) for cast in casts])


class Portraits(NamedTuple):
    """Drawings and what is to be said of them.

    images: (n, SIZE, SIZE, 3) uint8; kinds: (n, 2), indices into CLASSES and FAMILIES; subject, style:
    (n, 12), see `SUBJECT` and `STYLE`.
    """

    images: np.ndarray
    kinds: np.ndarray
    subject: np.ndarray
    style: np.ndarray


def portrait(seed: int, index: int) -> tuple[np.ndarray, list[int]]:
    """Draw a random individual in a random style: (SIZE, SIZE, 3) uint8, and class, family and attributes."""
    rng = np.random.default_rng([seed, 10, index])
    cls = int(rng.integers(len(subjects.CLASSES)))
    family = 0 if rng.random() < PHOTOS else int(rng.integers(1, len(styles.FAMILIES)))
    identity = subjects.random_identity(rng, subjects.CLASSES[cls])
    style = styles.random_style(rng, styles.FAMILIES[family])
    return world.draw(identity, style, rng), [cls, family, *of_identity(identity), *of_style(style)]


def _draw_chunk(job: tuple[int, range]) -> tuple[np.ndarray, np.ndarray]:
    images, said = zip(*(portrait(job[0], index) for index in job[1]), strict=True)
    return np.stack(images), np.array(said, np.uint8)


def portraits(
    count: int, seed: int, cache: Path | str = "runs/world", workers: int | None = None
) -> Portraits:
    """Draw `count` portraits, or read them back if this very world drew them before."""
    file = Path(cache) / f"{world.VERSION}-portraits-{seed}-{count}.npz"
    images, said = stored(file, _draw_chunk, seed, count, 100, ("images", "said"), workers)
    kinds, subject, style = np.split(said.astype(np.int64), (2, 2 + len(SUBJECT)), 1)
    return Portraits(images, kinds, subject, style)
