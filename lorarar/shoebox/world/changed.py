"""The hardest negatives of the drawn world: the same individual, or style, with one thing changed.

Another individual of the class differs from the first in most things; a judge may pass that examination by
the main colour alone. Here a collar has another colour, a marking is another, one part (ears, a face, what
is worn) has another form; or of a style one knob, its background's colour or its treatment is another. Each
change is one that can be seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from lorarar.shoebox.world import attributes, styles, subjects, world
from lorarar.shoebox.world.canvas import Style
from lorarar.shoebox.world.drawing import MARKINGS, Identity
from lorarar.shoebox.world.scene import CANVAS, COLOUR_NAMES, COLOURS, Pose
from lorarar.shoebox.world.stored import stored

ATTRIBUTES: tuple[str, ...] = ("second colour", "accent colour", "marking", "part")
"""What may change in an individual. The accent is the colour of collars, hats, badges and the like."""
PARAMETERS: tuple[str, ...] = ("knob", "background colour", "treatment")
"""What may change in a style."""
SEEN = 0.02
"""Smallest share of an individual's pixels that a change must show in, in its own colours."""
DRAWN = 0.02
"""Smallest share of a picture that it must show in, drawn in a style: a pen knows no colours. At half of it,
and pixel by pixel, no eye tells gold that was poured over stripes from gold over spots."""
SHIFT = 2
"""A change that a shift by so many pixels undoes is none: individuals stand where they like."""
STYLE_SEEN = 8.0
"""Smallest mean difference, in levels of 0..255, that a change of a style must make to the same picture, seen
in means over a sixteenth of the side: the same stroke never falls twice."""


@lru_cache(maxsize=8192)
def _flat(identity: Identity) -> np.ndarray:
    """The individual at rest in its own colours, without any style: (CANVAS, CANVAS, 3) float32 in 0..255."""
    drawn = subjects.scene(identity, Pose())
    return 255 * drawn.palette[drawn.slot]


def visible(one: Identity, two: Identity) -> float:
    """Share of the subject's pixels in which two individuals differ by more than 40 levels of any colour."""
    first, second = _flat(one), _flat(two)
    shown = (first.any(2) | second.any(2)).sum()
    return float((np.abs(first - second).max(2) > 40).sum() / shown)


@lru_cache(maxsize=8192)
def _drawn(identity: Identity, style: Style) -> np.ndarray:
    """The individual at rest in `style`, always with the same texture: (64, 64, 3) int16 in 0..255."""
    return world.draw(identity, style, np.random.default_rng(0), Pose()).astype(np.int16)


def _coarse(picture: np.ndarray, side: int) -> np.ndarray:
    """Means over squares of `side` pixels of (…, h, w, 3), what does not fill a square left out."""
    h, w = (n // side for n in picture.shape[-3:-1])
    cut = picture[..., : h * side, : w * side, :].astype(np.float32)
    return cut.reshape(*picture.shape[:-3], h, side, w, side, 3).mean((-4, -2))


def visible_in(one: Identity, two: Identity, style: Style) -> float:
    """Share of a picture in which two individuals in `style` differ by more than 40 levels, however shifted.

    It is counted in squares of 2 × 2 pixels, and is the least of all shifts by up to `SHIFT` pixels.
    """
    first, second = _drawn(one, style), _drawn(two, style)
    height, width = (n - 2 * SHIFT for n in first.shape[:2])
    middle = _coarse(first[SHIFT : SHIFT + height, SHIFT : SHIFT + width], 2)
    shifts = range(2 * SHIFT + 1)
    return min(
        float((np.abs(middle - _coarse(second[y : y + height, x : x + width], 2)).max(2) > 40).mean())
        for y in shifts
        for x in shifts
    )


def _other(rng: np.random.Generator, names: Sequence[str], not_this: str) -> str:
    names = [name for name in names if name != not_this]
    return names[rng.integers(len(names))]


def individual(
    rng: np.random.Generator, identity: Identity, attribute: str | None = None, drawn: Style | None = None
) -> tuple[Identity, str]:
    """Change one attribute of `identity`, chosen at random unless given, so that the change can be seen.

    drawn: a style in which it has to be seen, too.

    A colour becomes one that is told apart from the old one and from the individual's others; a marking
    another marking; a part is one of the first seven shape numbers, moved by at least a quarter. Returns the
    new identity and the attribute. Raises `ValueError` if there is no such attribute, or none of 50 changes
    can be seen.
    """
    if attribute is not None and attribute not in ATTRIBUTES:
        raise ValueError(f"no attribute {attribute!r}: choose one of {', '.join(ATTRIBUTES)}")
    for _ in range(50):
        chosen = attribute or ATTRIBUTES[rng.integers(len(ATTRIBUTES))]
        if chosen == "marking":
            new = replace(identity, marking=_other(rng, MARKINGS, identity.marking))
        elif chosen == "part":
            k = int(rng.integers(7))
            shape = list(identity.shape)
            shape[k] = round(float((shape[k] + rng.uniform(0.25, 0.75)) % 1), 3)
            new = replace(identity, shape=tuple(shape))
        else:
            k = 1 + (chosen == "accent colour")
            fits = [
                name
                for name in COLOUR_NAMES
                if all(np.linalg.norm(np.subtract(COLOURS[name], COLOURS[c])) > 92 for c in identity.colours)
            ]
            if not fits:
                continue
            colours = list(identity.colours)
            colours[k] = fits[rng.integers(len(fits))]
            new = replace(identity, colours=tuple(colours))
        # Another part moves the outlines of all: what is seen must be more than that.
        much = 3 if chosen == "part" else 1
        shown = visible(identity, new) >= much * SEEN
        if shown and (drawn is None or visible_in(identity, new, drawn) >= much * DRAWN):
            return new, chosen
    raise ValueError(f"no {attribute or 'change'} can be seen on this {identity.cls}")


@lru_cache(maxsize=4096)
def _portrait(style: Style) -> np.ndarray:
    """One fixed individual in `style`, the mean of two textures, by sixteenths of the side: (16, 16, 3)."""
    shown = subjects.scene(subjects.SUBJECTS["bear plushie"], Pose())
    both = [styles.paint(shown, style, np.random.default_rng(seed)) for seed in (0, 1)]
    return 255 * _coarse(np.mean(both, 0), CANVAS // 16)


def style(rng: np.random.Generator, one: Style, parameter: str | None = None) -> tuple[Style, str]:
    """Change one parameter of a style, chosen at random unless given, so that the change can be seen.

    A knob moves by at least 0.4. Returns the new style and the parameter. Raises `ValueError` if there is no
    such parameter, or none of 100 changes can be seen.
    """
    if parameter is not None and parameter not in PARAMETERS:
        raise ValueError(f"no parameter {parameter!r}: choose one of {', '.join(PARAMETERS)}")
    for _ in range(100):
        chosen = parameter or PARAMETERS[rng.choice(len(PARAMETERS), p=(0.7, 0.15, 0.15))]
        if chosen == "knob":
            k = int(rng.integers(8))
            knobs = list(one.knobs)
            low, high = knobs[k] - 0.4, knobs[k] + 0.4
            ways = [(0.0, low)] * (low > 0) + [(high, 1.0)] * (high < 1)
            if not ways:
                continue
            knobs[k] = float(rng.uniform(*ways[rng.integers(len(ways))]))
            new = replace(one, knobs=tuple(knobs))
        elif chosen == "background colour":
            new = replace(one, hues=(_other(rng, COLOUR_NAMES, one.hues[0]), *one.hues[1:]))
        else:
            count = styles.TREATMENTS[one.family]
            if count < 2:
                continue
            new = replace(one, treatment=int((one.treatment + rng.integers(1, count)) % count))
        if np.abs(_portrait(one) - _portrait(new)).mean() >= STYLE_SEEN:
            return new, chosen
    raise ValueError(f"no {parameter or 'change'} can be seen in this {one.family}")


# --- drawings to train on


def draw_group(seed: int, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a group as `world.draw_group` does, its second individual and style the first with one change.

    Returns images (6, 64, 64, 3) uint8, truths (6, 4), in which what is changed counts as another, and
    attributes (6, 24), see `attributes.of_group`.
    """
    rng = np.random.default_rng([seed, 7, index])
    while True:
        cls = subjects.CLASSES[rng.integers(len(subjects.CLASSES))]
        family = styles.FAMILIES[rng.integers(len(styles.FAMILIES))]
        identity, first = subjects.random_identity(rng, cls), styles.random_style(rng, family)
        try:
            pair = identity, individual(rng, identity, drawn=first)[0]
            both = first, style(rng, first)[0]
        except ValueError:  # rare: nothing of it can be changed to be seen
            continue
        break
    images, truths = [], []
    for i, who in enumerate(pair):
        for s, how in enumerate([*both, styles.random_style(rng, "photo")]):
            images.append(world.draw(who, how, rng))
            style_id = 4 * index + s if s < 2 else 4 * index + 2 + i
            truths.append(
                (subjects.CLASSES.index(cls), styles.FAMILIES.index(how.family), 2 * index + i, style_id)
            )
    return np.stack(images), np.array(truths, np.int32), attributes.of_group(pair, both)


def _draw_chunk(job: tuple[int, range]) -> tuple[np.ndarray, ...]:
    seed, indices = job
    groups = [draw_group(seed, index) for index in indices]
    return tuple(np.concatenate(parts) for parts in zip(*groups, strict=True))


def dataset(
    groups: int, seed: int, cache: Path | str = "runs/world", workers: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw `groups` groups, or read them back: images (6·groups, 64, 64, 3) uint8, truths, attributes."""
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:6]
    file = Path(cache) / f"{world.VERSION}-changed-{source}-{seed}-{groups}.npz"
    images, truths, said = stored(
        file, _draw_chunk, seed, groups, world.CHUNK, ("images", "truths", "said"), workers
    )
    return images, truths, said


class Joined:
    """Two arrays of images as one, read by an array of indices, neither copied."""

    def __init__(self, first: np.ndarray, second: np.ndarray) -> None:
        self.parts = first, second

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Images at `indices` (n,): (n, 64, 64, 3) uint8."""
        first, second = self.parts
        late = indices >= len(first)
        out = np.empty((len(indices), *first.shape[1:]), first.dtype)
        out[~late] = first[indices[~late]]
        out[late] = second[indices[late] - len(first)]
        return out


def mixed(groups: int, seed: int, share: float) -> tuple[np.ndarray | Joined, np.ndarray, np.ndarray]:
    """Draw `groups` groups to train a judge on, a share of them with one thing changed.

    Returns images, truths and attributes (6·groups, 24), see `attributes.of_group`. Share 0 is
    `world.dataset`. Raises `ValueError` unless 0 <= share < 1.
    """
    if not 0 <= share < 1:
        raise ValueError(f"the share of changed groups must be at least 0 and below 1, not {share:g}")
    changed = round(share * groups)
    images, _, truths = world.dataset(groups - changed, seed)
    said = attributes.of_groups(groups - changed, seed)
    if not changed:
        return images, truths, said
    more, labels, names = dataset(changed, seed)
    labels = labels + np.array([0, 0, *(truths[:, 2:].max(0) + 1)], np.int32)  # ids of their own
    return Joined(images, more), np.concatenate([truths, labels]), np.concatenate([said, names])
