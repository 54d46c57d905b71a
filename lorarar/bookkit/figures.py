"""The few kinds of figure that chapters share; each takes data and returns a matplotlib figure.

``from lorarar.bookkit import figures`` has them all, pictures side by side (`image_grid`, `contact_sheet`)
included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import Colormap, TwoSlopeNorm

from lorarar.bookkit.pictures import contact_sheet, image_grid, reference
from lorarar.bookkit.style import DIVERGING, GREY, INK, PALETTE, SEQUENTIAL, SIZE, WIDTH, use

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = [
    "bars", "contact_sheet", "forest", "heat_maps", "histograms", "image_grid", "legend_below", "lines",
    "panels", "reference", "scatter", "use",
]  # fmt: skip


def panels(count: int, height: float = 3.4, *, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels side by side, as wide as the page."""
    figure, axes = plt.subplots(1, count, figsize=(WIDTH, height), sharey=sharey, layout="constrained")
    return figure, list(np.atleast_1d(axes))


def legend_below(figure: Figure, columns: int = 2, enlarge: float = 1) -> None:
    """Put one legend under all panels, each label once; small dots are enlarged in it."""
    entries = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        entries.values(), entries.keys(), loc="outside lower center", ncols=columns, markerscale=enlarge
    )


def heat_maps(
    tables: Mapping[str, np.ndarray],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    form: str = ".2f",
    diverging: bool = False,
    cmap: Colormap | None = None,
) -> Figure:
    """Show one or more matrices (rows, columns) side by side, on one scale, the number in every cell.

    Args:
        tables: {title: matrix}; NaN leaves a cell empty.
        rows: a label for each row.
        columns: a label for each column.
        form: how numbers are written.
        diverging: centre the colours on zero.
        cmap: other colours than the book's.
    """
    grids = {title: np.asarray(values, dtype=float) for title, values in tables.items()}
    largest = max(max(float(np.nanmax(np.abs(values))) for values in grids.values()), 1e-12)
    least = min(min(float(np.nanmin(values)) for values in grids.values()), 0)
    colours = cmap or (DIVERGING if diverging else SEQUENTIAL)
    letters = (48 - max(map(len, rows))) // len(columns) // len(grids)  # that a column has room for
    slanted = max(len(word) for name in columns for word in name.split()) > letters
    names = list(columns) if slanted else [fill(c, letters, break_long_words=False) for c in columns]
    deep = 0.11 * max(map(len, names)) if slanted else 0.25 * max(name.count("\n") + 1 for name in names)
    figure, axes = panels(len(grids), 0.7 + deep + 0.46 * len(rows), sharey=True)
    for ax, (title, values) in zip(axes, grids.items(), strict=True):
        norm = TwoSlopeNorm(0, -largest, largest) if diverging else plt.Normalize(least, largest)
        shown = ax.imshow(values, cmap=colours, norm=norm, aspect="auto")
        ax.set_xticks(range(len(columns)), names, **({"rotation": 90} if slanted else {}))
        ax.set_yticks(range(len(rows)), rows)
        ax.grid(False)
        ax.spines[:].set_visible(False)
        ax.set_title(title)
        _write_cells(ax, shown, values, form)
    return figure


def _write_cells(ax: Axes, shown: AxesImage, values: np.ndarray, form: str) -> None:
    for (r, c), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        red, green, blue, _ = shown.cmap(shown.norm(value))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
        ax.text(c, r, format(value, form), ha="center", va="center", color="white" if dark else INK)


def lines(
    x: Sequence[float],
    ys: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    ylabel: str = "",
    title: str = "",
    colours: Mapping[str, str] | None = None,
    dashes: Mapping[str, str] | None = None,
    log: bool = False,
    legend: bool = False,
    axes: Axes | None = None,
) -> Figure:
    """Draw one curve per name over `x`, each named at its own end.

    Args:
        x: (n,) values.
        ys: {name: (n,) values}.
        xlabel: of the horizontal axis.
        ylabel: of the vertical one.
        title: of the panel.
        colours: {name: colour}; the palette's in turn by default.
        dashes: {name: matplotlib line style}.
        log: both axes are logarithmic.
        legend: label the curves for `legend_below`, in place of a name at each end.
        axes: a panel that is there already.
    """
    if axes is None:
        _, axes = plt.subplots(layout="constrained")
    ends = []
    for colour, (name, y) in zip(PALETTE * 2, ys.items(), strict=False):
        colour = (colours or {}).get(name, colour)
        axes.plot(
            x, y, color=colour, linestyle=(dashes or {}).get(name, "-"), marker="o" if len(x) < 12 else None,
            markersize=5, label=name if legend else None,
        )  # fmt: skip
        ends.append((float(y[-1]), name, colour))
    if log:
        axes.set(xscale="log", yscale="log")
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if not legend:
        _name_ends(axes, float(x[-1]), ends)
    return axes.figure


def _name_ends(axes: Axes, x: float, ends: list[tuple[float, str, str]]) -> None:
    axes.autoscale_view()  # which matplotlib puts off; the names' places depend on it
    # Names that would overlap are pushed apart, upwards from the lowest.
    height = axes.get_position().height * axes.figure.get_figheight() * 72
    place, last = axes.transData + axes.transAxes.inverted(), -np.inf
    for end, name, colour in sorted(ends):
        last = max(place.transform((x, end))[1], last + 16 / height)
        axes.annotate(
            name, (1.0, last), xycoords="axes fraction", xytext=(6, 0), textcoords="offset points",
            color=colour, va="center", weight="bold",
        )  # fmt: skip


def bars(
    values: Mapping[str, float], *, label: str, form: str = ".2f", colours: Mapping[str, str] | None = None
) -> Figure:
    """Draw one horizontal bar per name, with its value written at the end."""
    figure, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.45 * len(values)), layout="constrained")
    names = list(values)
    shades = [(colours or {}).get(name, PALETTE[i % len(PALETTE)]) for i, name in enumerate(names)]
    drawn = axes.barh(names, [values[name] for name in names], color=shades, height=0.65)
    axes.bar_label(drawn, [format(values[name], form) for name in names], padding=4)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set_xlabel(label)
    axes.margins(x=0.14)
    return figure


def forest(
    entries: Mapping[str, Sequence[float]],
    *,
    label: str,
    colours: Mapping[str, str] | None = None,
    zero: bool = False,
    percent: bool = True,
    axes: Axes | None = None,
) -> Figure:
    """Draw a dot with its interval for each name, from the top down.

    Args:
        entries: {name: (value, low, high)}.
        label: of the axis.
        colours: {name: colour}; ink by default.
        zero: draw a line at zero, for differences.
        percent: write the axis in per cent.
        axes: a panel that is there already.
    """
    if axes is None:
        _, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.36 * len(entries)), layout="constrained")
    for place, (name, (value, low, high)) in enumerate(entries.items()):
        shade = (colours or {}).get(name, INK)
        axes.plot([low, high], [place, place], color=shade, linewidth=3, alpha=0.45, solid_capstyle="round")
        axes.plot(value, place, "o", color=shade, markersize=7)
    if zero:
        axes.axvline(0, color=GREY, linestyle=":")
    if percent:
        axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    axes.set_yticks(range(len(entries)), list(entries))
    axes.set_ylim(len(entries) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.set_xlabel(label)
    return axes.figure


def scatter(
    places: Mapping[str, tuple[float, float]],
    *,
    xlabel: str,
    ylabel: str,
    colours: Mapping[str, str] | None = None,
    diagonal: bool = False,
    height: float = 4.2,
) -> Figure:
    """Draw a point for each name with the name beside it: methods by two scores, and the like.

    Names that would lie on another are moved up or down; a thin line leads from a name that was moved far.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, height), layout="constrained")
    for name, (x, y) in places.items():
        axes.plot(x, y, "o", color=(colours or {}).get(name, GREY), markersize=8)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.margins(0.15)
    if diagonal:
        low, high = min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])
        axes.plot([low, high], [low, high], color=GREY, linestyle=":", zorder=0)
    figure.canvas.draw()  # which settles where the points are
    _name_points(axes, places, colours or {})
    return figure


def _name_points(axes: Axes, places: Mapping[str, tuple[float, float]], colours: Mapping[str, str]) -> None:
    """Write each name right or left of its point, as near as no other name or point is in the way."""
    points = {name: axes.transData.transform(place) for name, place in places.items()}
    scale, frame = axes.figure.dpi / 72, axes.get_window_extent()  # pixels in a point; the panel
    line, letter, gap = 1.3 * SIZE * scale, 0.6 * SIZE * scale, 8 * scale
    taken = [(x - gap / 2, y - gap / 2, x + gap / 2, y + gap / 2) for x, y in points.values()]
    for name, (x, y) in sorted(points.items(), key=lambda item: item[1][1]):
        wide = len(name) * letter
        options = []
        for up in np.arange(0, 9, 0.5):
            for sign, start in ((1, x + gap), (1, x - gap - wide), (-1, x + gap), (-1, x - gap - wide)):
                low = y + sign * up * line - line / 2
                box = (start, low, start + wide, low + line)
                if box[0] >= frame.x0 and box[2] <= frame.x1 and box[1] >= frame.y0 and box[3] <= frame.y1:
                    options.append(box)
        free = [box for box in options if not any(_overlap(box, other) for other in taken)]
        box = (free or options or [(x + gap, y - line / 2, x + gap + wide, y + line / 2)])[0]
        taken.append(box)
        offset = (box[0] - x) / scale, ((box[1] + box[3]) / 2 - y) / scale
        far = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6} if abs(offset[1]) > SIZE else None
        colour = colours.get(name, GREY)
        text = axes.annotate(
            name, places[name], xytext=offset, textcoords="offset points", va="center", ha="left",
            color=INK if colour == GREY else colour, arrowprops=far,
        )  # fmt: skip
        text.set_in_layout(False)  # the panel stays where the places were worked out


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def histograms(
    groups: Mapping[str, Mapping[str, np.ndarray]],
    *,
    xlabel: str,
    ylabel: str,
    colours: Mapping[str, str],
    mark: float | None = None,
    bins: int = 40,
    log: bool = True,
) -> Figure:
    """Draw outlines of histograms: a panel for each group, an outline for each name in it, on common bins."""
    everything = np.concatenate([np.ravel(v) for group in groups.values() for v in group.values()])
    edges = np.linspace(everything.min(), everything.max(), bins + 1)
    figure, axes = panels(len(groups), 3.3, sharey=True)
    for ax, (title, group) in zip(axes, groups.items(), strict=True):
        for name, values in group.items():
            counts = np.histogram(np.ravel(values), edges)[0]
            ax.stairs(counts, edges, color=colours[name], label=name, linewidth=2, baseline=None)
        if mark is not None:
            ax.axvline(mark, color=GREY, linestyle=":")
        ax.set(title=title, xlabel=xlabel, yscale="log" if log else "linear")
    axes[0].set_ylabel(ylabel)
    legend_below(figure)
    return figure
