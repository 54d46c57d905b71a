"""Figures of the recorded experiment: one pair for each subject, and pairs by two methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lorarar.bookkit import figures
from lorarar.bookkit.records import experiment, sheet
from lorarar.bookkit.style import GREY, framed, hue_of, name_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def overview(
    split: str, methods: Sequence[str], scale: str = "shoebox", *, references: bool = True
) -> Figure:
    """Show one pair for each subject, each in another style, by several methods from the same noise.

    Frames are the verdicts of the book's judge.

    Args:
        split: "validation" or "test".
        methods: columns, in this order.
        scale: of the chapter.
        references: begin each row with a picture of the subject and one of the style.
    """
    run, right = experiment(split, scale)
    pictures = sheet(run.name, len(run["methods"]))
    across, side = len(run["styles"]), pictures.shape[2]
    rows = []
    for i, subject in enumerate(run["subjects"]):
        style = run["styles"][i % across]
        pair = i * across + i % across
        row = [figures.reference(name, side) for name in (subject, style)] if references else []
        for m in methods:
            seen = bool(right[m].subject[pair, 0]), bool(right[m].style[pair, 0])
            row.append(framed(pictures[pair, run["methods"].index(m)], seen))
        rows.append(row)
    columns = [*(("subject", "style") if references else ()), *map(name_of, methods)]
    return figures.image_grid(rows, rows=run["subjects"], columns=columns)


def by_pairs(split: str, across: str, up: str, scale: str = "shoebox") -> Figure:
    """Show each pair by its share of right images, of one method across and of another up.

    Points are shifted a little, so that equal ones can be told apart.
    """
    from lorarar.judging import by_pair

    _, right = experiment(split, scale)
    jitter = np.random.default_rng(0)
    x, y = (by_pair(right[m].right, "average") for m in (across, up))
    figure, (ax,) = figures.panels(1, 4.2)
    ax.plot([0, 1], [0, 1], color=GREY, linestyle=":")
    ax.scatter(
        *(v + jitter.normal(0, 0.008, len(v)) for v in (x, y)),
        color=hue_of(up),
        s=60,
        alpha=0.7,
        linewidths=0,
    )
    ends = (-0.05, 1.05)
    ax.set(xlabel=name_of(across), ylabel=name_of(up), xlim=ends, ylim=ends, aspect="equal")
    return figure
