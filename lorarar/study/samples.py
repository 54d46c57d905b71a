"""Images for the eye: the sample sheet of figure A3, and an overview of all pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lorarar.images import framed
from lorarar.judging import Verdicts
from lorarar.study.cells import Setting, cell_of
from lorarar.study.images import read_cell


@dataclass(frozen=True)
class Sample:
    """One image for the sheet of figure A3, and what the judge says of it."""

    method: str
    pair: int
    image: int
    subject: bool
    style: bool


KINDS = ((True, True), (True, True), (False, True), (True, False), (False, True))
"""The verdicts on (subject, style) in the rows of figure A3."""


def samples(
    found: Mapping[str, Verdicts], subjects: int, kinds: Sequence[tuple[bool, bool]] = KINDS
) -> list[Sample]:
    """Choose an image for each row of figure A3, whatever it looks like: the first that has the verdicts.

    Methods are tried in the mapping's order. Of a method's pairs those come first whose subject and style
    are not on the sheet yet, then those that are not. A row without such an image is left out.

    Args:
        found: verdicts of (pairs, images).
        subjects: how many there are; their styles are next to each other.
        kinds: the verdicts on (subject, style) that the rows show.
    """
    chosen: list[Sample] = []
    for subject, style in kinds:
        options = []
        for place, (method, said) in enumerate(found.items()):
            width = len(said.right) // subjects
            fits = (said.subject == subject) & (said.style == style)
            for pair, image in zip(*np.nonzero(fits), strict=True):
                rows, columns = (
                    zip(*(divmod(s.pair, width) for s in chosen), strict=True) if chosen else ((), ())
                )
                new = (pair // width not in rows) + (pair % width not in columns)
                seen = any(pair == s.pair for s in chosen)
                options.append((place, -new, seen, int(pair), int(image), method))
        for *_, pair, image, method in sorted(options):
            sample = Sample(method, pair, image, subject, style)
            if sample not in chosen:
                chosen.append(sample)
                break
    return chosen


def sheet(run: Setting, rows: Sequence[Sample]) -> np.ndarray:
    """Return figure A3: (rows, 3, h, w, 3) uint8, the image, the subject's and the style's references.

    The image's frame is green if both verdicts are yes, a reference's if its own is.
    """
    made = []
    for row in rows:
        pair = run.pairs[row.pair]
        image = read_cell(cell_of(run, row.method, pair))[1][row.image]
        cells = [framed(image, row.subject and row.style)]
        for name, yes in zip(pair, (row.subject, row.style), strict=True):
            reference = Image.fromarray(run.world.pictures(name, seed=1)[0][0]).resize(image.shape[1::-1])
            cells.append(framed(np.asarray(reference), yes))
        made.append(np.stack(cells))
    return np.stack(made)


def overview(run: Setting, methods: Sequence[str], image: int = 0) -> np.ndarray:
    """Return the same seed's image of every pair and method: (pairs, methods, h, w, 3) uint8."""
    return np.stack(
        [
            np.stack([read_cell(cell_of(run, method, pair))[1][image] for method in methods])
            for pair in run.pairs
        ]
    )
