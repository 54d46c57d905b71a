"""Pictures side by side: a grid of a few, large, and a sheet of many, small."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from lorarar.bookkit.style import DPI, GREY, SIZE, WIDTH, framed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def image_grid(
    images: np.ndarray | Sequence[Sequence[np.ndarray]] | Sequence[np.ndarray],
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    titles: Sequence[str] = (),
    per_row: int | None = None,
    width: float = WIDTH,
) -> Figure:
    """Show images in a grid, every pixel enlarged by the same whole number.

    Args:
        images: (rows, columns, height, width, 3) or (n, height, width, 3) uint8.
        rows: a label for each row, on its left.
        columns: a label for each column, on top.
        titles: a label for each image, below it, row by row.
        per_row: for n images: how many stand in a row; all of them by default.
        width: of the figure, in inches.

    Raises:
        ValueError: the images are no grid, or there are not as many labels as rows, columns or images.
    """
    grid = np.asarray(images)
    if grid.ndim == 4:
        count = per_row or len(grid)
        pad = np.full((-len(grid) % count, *grid.shape[1:]), 255, grid.dtype)
        grid = np.concatenate([grid, pad]).reshape(-1, count, *grid.shape[1:])
    if grid.ndim != 5:
        raise ValueError(f"expected images of shape (rows, columns, height, width, 3), got {grid.shape}")
    n_rows, n_columns, height, wide, _ = grid.shape
    for labels, count, name in ((rows, n_rows, "rows"), (columns, n_columns, "columns")):
        if labels and len(labels) != count:
            raise ValueError(f"{len(labels)} labels for {count} {name}")
    if len(titles) > n_rows * n_columns:
        raise ValueError(f"{len(titles)} titles for {n_rows * n_columns} images")

    # Everything is laid out in pixels, so that the enlargement is exact.
    point = DPI / 72
    size = SIZE
    line, gap = round(size * 1.25 * point), round(3 * point)
    letter = size * 0.56 * point
    total = round(width * DPI)

    def lines(labels: Sequence[str], room: float) -> list[str]:
        return [fill(str(label), max(int(room / letter), 4), break_long_words=False) for label in labels]

    def deepest(labels: Sequence[str]) -> int:
        return max((label.count("\n") + 1 for label in labels), default=0) * line

    enlarge = max((total - (2 * line if rows else 0)) // n_columns // (wide + 1), 1)
    cell_w, cell_h = wide * enlarge, height * enlarge
    rows, columns, titles = lines(rows, cell_h), lines(columns, cell_w), lines(titles, cell_w)
    left = deepest(rows) + (gap if rows else 0)
    top = deepest(columns) + (gap if columns else 0)
    below = deepest(titles) + (gap if titles else 0)
    figure_w = left + n_columns * (cell_w + gap) + gap
    figure_h = top + n_rows * (cell_h + gap + below) + gap
    figure = plt.figure(figsize=(figure_w / DPI, figure_h / DPI), dpi=DPI)
    for r in range(n_rows):
        y = figure_h - top - gap - r * (cell_h + gap + below) - cell_h
        if rows:
            figure.text(
                left / 2 / figure_w, (y + cell_h / 2) / figure_h, rows[r],
                rotation=90, ha="center", va="center", size=size, linespacing=1.1,
            )  # fmt: skip
        for c in range(n_columns):
            x = left + gap + c * (cell_w + gap)
            axes = figure.add_axes((x / figure_w, y / figure_h, cell_w / figure_w, cell_h / figure_h))
            axes.imshow(grid[r, c], interpolation="nearest")
            axes.axis("off")
            index = r * n_columns + c
            middle = (x + cell_w / 2) / figure_w
            if index < len(titles):
                figure.text(middle, (y - gap) / figure_h, titles[index], ha="center", va="top", size=size)
            if columns and r == 0:
                figure.text(
                    middle, (y + cell_h + gap) / figure_h, columns[c], ha="center", va="bottom", size=size
                )
    return figure


def contact_sheet(
    images: np.ndarray, *, rows: Sequence[str], columns: Sequence[str], enlarge: int = 1
) -> Figure:
    """Show a large table of images with a name before each row and a slanted one above each column.

    Args:
        images: (rows, columns, height, width, 3) uint8.
        rows: a label for each row, broken into as many lines as the row has room for.
        columns: a label for each column.
        enlarge: every pixel becomes this many; 1 suits sixteen columns of 64 pixels.

    Raises:
        ValueError: there are not as many labels as rows and columns.
    """
    n_rows, n_columns, height, wide, _ = images.shape
    if (len(rows), len(columns)) != (n_rows, n_columns):
        raise ValueError(f"{len(rows)} × {len(columns)} labels for {n_rows} × {n_columns} images")
    size, gap, slope = SIZE, 4, np.radians(50)
    letter, line = size * 0.56 * DPI / 72, size * 1.2 * DPI / 72
    longest = max(len(name) for name in columns) * letter
    cell_h, cell_w = height * enlarge + gap, wide * enlarge + gap
    rows = _narrow(rows, max(round(cell_h / line), 1))
    left = max(len(part) for name in rows for part in name.split("\n")) * letter + 12
    top = longest * np.sin(slope) + 24
    # The last names lean out over the right edge.
    reach = max((c + 0.5) * cell_w + len(name) * letter * np.cos(slope) for c, name in enumerate(columns))
    figure_w, figure_h = left + max(n_columns * cell_w, reach) + gap, top + n_rows * cell_h + gap
    sheet = np.full((n_rows * cell_h, n_columns * cell_w, 3), 255, np.uint8)
    big = images.repeat(enlarge, 2).repeat(enlarge, 3)
    for r, c in np.ndindex(n_rows, n_columns):
        y, x = r * cell_h, c * cell_w
        sheet[y : y + cell_h - gap, x : x + cell_w - gap] = big[r, c]
    figure = plt.figure(figsize=(figure_w / DPI, figure_h / DPI), dpi=DPI)
    place = left / figure_w, gap / figure_h, n_columns * cell_w / figure_w, n_rows * cell_h / figure_h
    axes = figure.add_axes(place)
    axes.imshow(sheet, interpolation="nearest")
    axes.axis("off")
    for r, name in enumerate(rows):
        y = 1 - (top + (r + 0.5) * cell_h) / figure_h
        figure.text((left - 10) / figure_w, y, name, ha="right", va="center", size=size, linespacing=1)
    for c, name in enumerate(columns):
        x, y = (left + (c + 0.5) * cell_w - 8) / figure_w, 1 - (top - 8) / figure_h
        figure.text(
            x, y, name, size=size, rotation=np.degrees(slope), rotation_mode="anchor", ha="left", va="center"
        )
    return figure


def _narrow(names: Sequence[str], lines: int) -> list[str]:
    """Break names between words, as narrow as all can be in so many lines."""
    for width in range(1, max(map(len, names))):
        broken = [fill(name, width, break_long_words=False) for name in names]
        if max(name.count("\n") for name in broken) < lines:
            return broken
    return list(names)


def reference(name: str, side: int) -> np.ndarray:
    """Return an unseen view of a subject or style, framed in grey: (side, side, 3) uint8."""
    from PIL import Image

    from lorarar.shoebox import zoo

    small = Image.fromarray(zoo.pictures(name, seed=1)[0][0])
    return framed(np.asarray(small.resize((side, side))), GREY)
