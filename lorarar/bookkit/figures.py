"""The few kinds of figure that chapters share; each takes data and returns a matplotlib figure.

``from lorarar.bookkit import figures`` has them all, pictures side by side (`image_grid`, `contact_sheet`)
included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
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

Box = tuple[float, float, float, float]
"""Left, bottom, right, top, in pixels."""


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
    paths: Sequence[tuple[Sequence[str], str]] = (),
    diagonal: bool = False,
    height: float = 4.2,
) -> Figure:
    """Draw a point for each name with the name beside it: methods by two scores, and the like.

    A name stands beside its point where no other name, point or path is in the way, as near as can be; a thin
    line leads from a name that stands far away.

    Args:
        places: {name: (x, y)}.
        xlabel: of the horizontal axis.
        ylabel: of the vertical one.
        colours: {name: colour}; grey by default.
        paths: lines from point to point, each (names, matplotlib line style), in the colour of its first.
        diagonal: draw the line where both are equal.
        height: of the figure, in inches.
    """
    hues = dict.fromkeys(places, GREY) | dict(colours or {})
    figure, axes = plt.subplots(figsize=(WIDTH, height), layout="constrained")
    for name, (x, y) in places.items():
        axes.plot(x, y, "o", color=hues[name], markersize=8)
    for names, line in paths:
        x, y = zip(*(places[name] for name in names), strict=True)
        axes.plot(x, y, line, color=hues[names[0]], linewidth=1.5, alpha=0.6, zorder=0)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.margins(0.15)
    if diagonal:
        low, high = min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])
        axes.plot([low, high], [low, high], color=GREY, linestyle=":", zorder=0)
    figure.canvas.draw()  # which settles where the points are
    axes.autoscale(False)
    _name_points(axes, places, hues, [names for names, _ in paths])
    return figure


def _name_points(
    axes: Axes,
    places: Mapping[str, tuple[float, float]],
    hues: Mapping[str, str],
    paths: Sequence[Sequence[str]],
) -> None:
    """Write each name as near to its point as no other name, point or path is in the way."""
    points = {name: axes.transData.transform(place) for name, place in places.items()}
    scale, frame = axes.figure.dpi / 72, axes.get_window_extent()  # pixels in a point; the panel
    line, gap = 1.2 * SIZE * scale, 8 * scale
    dots = {name: _around(point, gap / 2) for name, point in points.items()}
    ways = [pair for names in paths for pair in pairwise(names)]
    along = [box for one, other in ways for box in _along(points[one], points[other], scale)]
    written: list[Box] = []
    for name, (x, y) in sorted(points.items(), key=lambda item: item[1][1]):
        shade = INK if hues[name] == GREY else hues[name]
        text = axes.annotate(name, places[name], (0, 0), textcoords="offset points", va="center", color=shade)
        text.set_in_layout(False)  # the panel stays where the places were worked out
        wide = text.get_window_extent().width
        others = [dots[other] for other in dots if other != name] + written

        def leader(box: Box, x: float = x, y: float = y, name: str = name) -> list[Box]:
            """The way to a name that is far from its point, or clearly nearer to another."""
            near = min(_apart(box, point) for other, point in points.items() if other != name)
            if _apart(box, (x, y)) <= min(1.5 * gap, 1.25 * near):
                return []
            letters = (box[0], box[1] + line / 12, box[2], box[3] - line / 12)  # without the room around them
            return _along((x, y), np.clip((x, y), letters[:2], letters[2:]), scale)

        beside = x + gap, x - gap - wide  # rather than above or below
        options = [
            (left, y + up - line / 2, left + wide, y + up + line / 2)
            for up in sorted(np.arange(-9, 9.25, 0.25) * line, key=abs)
            for left in (*beside, x - wide / 2, x, x - wide)
        ]
        inside = [
            box
            for box in sorted(options, key=lambda box: _apart(box, (x, y)) + gap * (box[0] not in beside))
            if frame.x0 <= box[0] and box[2] <= frame.x1 and frame.y0 <= box[1] and box[3] <= frame.y1
            and not _overlap(box, dots[name])
        ]  # fmt: skip
        free = [box for box in inside if not any(_overlap(box, other) for other in (*others, *along))]
        best = (box for box in free if not any(_overlap(p, o) for p in leader(box) for o in others))
        box = next(best, (free or inside or options)[0])
        text.xyann = (box[0] - x) / scale, ((box[1] + box[3]) / 2 - y) / scale
        way = leader(box)
        written += [box, *way]
        if way:
            middles = [((part[0] + part[2]) / 2, (part[1] + part[3]) / 2) for part in way]
            xs, ys = axes.transData.inverted().transform(middles).T
            axes.plot(xs, ys, color=GREY, linewidth=0.6, zorder=0)


def _around(point: Sequence[float], by: float) -> Box:
    return point[0] - by, point[1] - by, point[0] + by, point[1] + by


def _along(one: Sequence[float], other: Sequence[float], by: float) -> list[Box]:
    """Return small boxes that cover the way from a point to another."""
    return [_around(at, by) for at in np.linspace(one, other, 100)]


def _apart(box: Sequence[float], point: Sequence[float]) -> float:
    """Return how far a point is from a box: zero inside."""
    return float(np.hypot(*(np.clip(point, box[:2], box[2:]) - point)))


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
