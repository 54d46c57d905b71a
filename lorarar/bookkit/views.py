"""How a recorded experiment is shown: who fails how, on which names, and what the images look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from lorarar.bookkit import figures
from lorarar.bookkit.board import CONTROLS, Board
from lorarar.bookkit.style import MERGED, STYLE, SUBJECT, WIDTH, framed, interval, name_of
from lorarar.bookkit.tables import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

SHORT = {
    "flat cartoon illustration": "cartoon", "watercolor painting": "watercolor", "oil painting": "oil",
    "3D rendering": "3D", " plushie": "",
}  # fmt: skip


def rows_of(board: Board) -> list[str]:
    """Return all methods, merges first, best ones at the top."""
    return [*board.merges, *CONTROLS]


def failures(board: Board, method: str) -> dict[str, float]:
    """Return what becomes of a method's images, as shares."""
    subject, style = board.of(method, "subject"), board.of(method, "style")
    return {
        "right": (subject & style).mean(),
        "only the style": (~subject & style).mean(),
        "only the subject": (subject & ~style).mean(),
        "neither": (~subject & ~style).mean(),
    }


def overview(board: Board, methods: tuple[str, ...]) -> Figure:
    """Show each subject in another style by several methods from one noise, framed by the verdict."""
    sheet, width = board.pictures(), len(board.styles)
    chosen = [i * width + i % width for i in range(len(board.subjects))]

    def tile(pair: int, m: str) -> np.ndarray:
        seen = bool(board.of(m, "subject")[pair, 0]), bool(board.of(m, "style")[pair, 0])
        return framed(sheet[pair, board.methods.index(m)], seen, width=4)

    return figures.image_grid(
        [[tile(pair, m) for m in methods] for pair in chosen],
        rows=[board.pairs[pair][0] for pair in chosen],
        columns=[name_of(m) for m in methods],
    )


def failure_bars(board: Board) -> Figure:
    """Draw what becomes of each method's images: right, only the style, only the subject, neither."""
    rows = rows_of(board)
    shades = {"right": MERGED, "only the style": STYLE, "only the subject": SUBJECT, "neither": "#c9ccd2"}
    figure, axes = plt.subplots(figsize=(WIDTH, 6.4), layout="constrained")
    start = np.zeros(len(rows))
    for part, colour in shades.items():
        share = np.array([failures(board, m)[part] for m in rows])
        axes.barh([name_of(m) for m in rows], share, left=start, color=colour, label=part, height=0.72)
        start += share
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set(xlim=(0, 1), xlabel="share of images")
    figures.legend_below(figure)
    return figure


def scores(board: Board, methods: Sequence[str]) -> Styler:
    """Return the table of methods: both right on average and at best, and either side alone.

    Args:
        board: the recorded experiment; the average's interval is over its subjects and styles.
        methods: which, in the order of the rows.
    """
    rows = [
        {
            "Method": name_of(m),
            "Both right": interval(board.share(m)),
            "Best case": board.share(m, case="best").value,
            "Subject": board.of(m, "subject").mean(),
            "Style": board.of(m, "style").mean(),
        }
        for m in methods
    ]
    return table(rows, ".0%")


def short(name: str) -> str:
    """Return a name short enough for an axis."""
    for long, brief in SHORT.items():
        name = name.replace(long, brief)
    return name


def by_name(board: Board, methods: tuple[str, ...]) -> Figure:
    """Show the average case of some methods for every subject and style, in images of a hundred."""
    return figures.heat_maps(
        {name_of(m): 100 * board.scores(m) for m in methods},
        rows=list(map(short, board.subjects)),
        columns=list(map(short, board.styles)),
        form=".0f",
    )
