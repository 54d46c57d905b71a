"""Every figure of the book: one palette, one style, and the few kinds of figure that the chapters use.

Sizes are in inches at 96 CSS pixels each; WIDTH is chosen so that text stays legible when a phone shows a
figure at little more than half its size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import Image

WIDTH = 6.4  # inches
DPI = 200

# Okabe and Ito's palette, which readers with any common colour vision tell apart. Roles are fixed: what is
# blue in one chapter is the subject in all of them.
INK = "#22262e"
SUBJECT = "#0072B2"  # blue
STYLE = "#D55E00"  # vermilion
MERGED = "#009E73"  # green
DIRECT = "#CC79A7"  # purple
OTHER = "#E69F00"  # orange
SKY = "#56B4E9"
YELLOW = "#F0E442"
GREY = "#8a8f98"
PALETTE = (SUBJECT, STYLE, MERGED, DIRECT, OTHER, SKY, GREY)

SEQUENTIAL = LinearSegmentedColormap.from_list("lorarar", ("#ffffff", SKY, SUBJECT, "#002a45"))
DIVERGING = LinearSegmentedColormap.from_list("lorarar-diverging", (SUBJECT, "#f7f7f7", STYLE))


def use() -> None:
    """Make matplotlib draw in the book's style. Every chapter calls this once."""
    mpl.rcParams.update(
        {
            "figure.figsize": (WIDTH, 3.6),
            "figure.dpi": DPI / 2,
            "savefig.dpi": DPI,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "font.size": 13,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": "#b8bcc4",
            "axes.titlesize": 14,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#e6e8ec",
            "grid.linewidth": 0.8,
            "xtick.color": INK,
            "ytick.color": INK,
            "xtick.major.size": 0,
            "ytick.major.size": 0,
            "lines.linewidth": 2.2,
            "legend.frameon": False,
            "axes.prop_cycle": mpl.cycler(color=PALETTE),
        }
    )
    try:  # inside Jupyter: the inline backend has its own idea of resolution
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    mpl.rcParams["figure.dpi"] = DPI
    set_matplotlib_formats("png", facecolor="white", bbox_inches=None)


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
    size = 13 if n_columns <= 5 else 11
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
        rows: a label for each row.
        columns: a label for each column.
        enlarge: every pixel becomes this many; 1 suits sixteen columns of 64 pixels.

    Raises:
        ValueError: there are not as many labels as rows and columns.
    """
    n_rows, n_columns, height, wide, _ = images.shape
    if (len(rows), len(columns)) != (n_rows, n_columns):
        raise ValueError(f"{len(rows)} × {len(columns)} labels for {n_rows} × {n_columns} images")
    size, gap, slope = 9.5, 4, np.radians(50)
    letter = size * 0.56 * DPI / 72
    longest = max(len(name) for name in columns) * letter
    left, top = max(len(name) for name in rows) * letter + 12, longest * np.sin(slope) + 24
    cell_h, cell_w = height * enlarge + gap, wide * enlarge + gap
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
        figure.text((left - 10) / figure_w, y, name, ha="right", va="center", size=size)
    for c, name in enumerate(columns):
        x, y = (left + (c + 0.5) * cell_w - 8) / figure_w, 1 - (top - 8) / figure_h
        figure.text(
            x, y, name, size=size, rotation=np.degrees(slope), rotation_mode="anchor", ha="left", va="center"
        )
    return figure


class Frames:
    """Pictures under a slider that moves with the mouse or the arrow keys, in Jupyter and in static pages.

    Args:
        frames: (n, height, width, 3) uint8, shown one at a time.
        labels: a text for each frame.
        alt: what the frames show, for someone who cannot see them.
        start: the frame that is shown at first; the last by default.
        enlarge: every pixel becomes this many.

    Raises:
        ValueError: there are not as many labels as frames.
    """

    def __init__(
        self, frames: np.ndarray, labels: Sequence[str], *, alt: str, start: int = -1, enlarge: int = 2
    ) -> None:
        if len(frames) != len(labels):
            raise ValueError(f"{len(labels)} labels for {len(frames)} frames")
        self.frames = np.asarray(frames).repeat(enlarge, 1).repeat(enlarge, 2)
        self.labels, self.alt, self.start = [str(label) for label in labels], alt, start % len(frames)

    def _repr_html_(self) -> str:
        from base64 import b64encode
        from html import escape
        from io import BytesIO

        from PIL import Image

        n, height, width, _ = self.frames.shape
        file = BytesIO()
        # One picture holds all frames, one above the other; the window shows one of them.
        strip = Image.fromarray(self.frames.reshape(n * height, width, 3))
        strip.quantize(256).save(file, "PNG", optimize=True)
        source = "data:image/png;base64," + b64encode(file.getvalue()).decode()
        labels = escape("|".join(self.labels))
        move = (
            "const b=this.closest('figure');"
            f"b.querySelector('i').style.backgroundPositionY=(this.value*100/{max(n - 1, 1)})+'%';"
            "b.querySelector('output').textContent=this.dataset.labels.split('|')[this.value]"
        )
        return (
            f'<figure style="margin:1.2rem 0;max-width:{width}px">'
            f'<i role="img" aria-label="{escape(self.alt)}" style="display:block;width:100%;'
            f"aspect-ratio:{width}/{height};border-radius:.5rem;image-rendering:pixelated;"
            f'background:url({source}) 0 {self.start * 100 / max(n - 1, 1)}%/100% auto"></i>'
            f'<label style="display:flex;gap:.8rem;align-items:center;margin-top:.5rem">'
            f'<input type="range" min="0" max="{n - 1}" value="{self.start}" data-labels="{labels}" '
            f'oninput="{move}" aria-label="frame" style="flex:1;accent-color:{SUBJECT};min-width:8rem">'
            f'<output style="min-width:7.5rem">{escape(self.labels[self.start])}</output></label></figure>'
        )

    def __repr__(self) -> str:
        return f"{len(self.labels)} frames: {self.alt}"


def heatmap(
    values: np.ndarray,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    form: str = ".2f",
    diverging: bool = False,
    label: str = "",
) -> Figure:
    """Show a matrix (rows, columns) with the number in every cell.

    ``diverging`` centres the colours on zero; ``label`` names the values.
    """
    values = np.asarray(values, dtype=float)
    figure, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.5 * len(rows)), layout="constrained")
    largest = max(float(np.abs(values).max()), 1e-12)
    if diverging:
        shown = axes.imshow(values, cmap=DIVERGING, norm=TwoSlopeNorm(0, -largest, largest), aspect="auto")
    else:
        shown = axes.imshow(values, cmap=SEQUENTIAL, vmin=min(values.min(), 0), vmax=largest, aspect="auto")
    letters = max(55 // len(columns), 6)  # that a column has room for
    names = [fill(c, letters, break_long_words=False) for c in columns]
    axes.set_xticks(range(len(columns)), names)
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    for (r, c), value in np.ndenumerate(values):
        red, green, blue, _ = shown.cmap(shown.norm(value))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
        axes.text(c, r, format(value, form), ha="center", va="center", color="white" if dark else INK)
    if label:
        axes.set_title(label)
    return figure


def lines(
    x: Sequence[float],
    ys: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    ylabel: str,
    colours: Mapping[str, str] | None = None,
    log: bool = False,
    axes: Axes | None = None,
) -> Figure:
    """Draw one curve per name over `x`, each named at its own end rather than in a legend.

    ``log`` makes both axes logarithmic; ``axes`` draws into a panel that is there already.
    """
    if axes is None:
        _, axes = plt.subplots(layout="constrained")
    ends = []
    for colour, (name, y) in zip(PALETTE * 2, ys.items(), strict=False):
        colour = (colours or {}).get(name, colour)
        axes.plot(x, y, color=colour, marker="o" if len(x) < 12 else None, markersize=5)
        ends.append((float(y[-1]), name, colour))
    if log:
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.autoscale_view()  # which matplotlib puts off; the names' places depend on it
    # Names that would overlap are pushed apart, upwards from the lowest.
    figure = axes.figure
    height = axes.get_position().height * figure.get_figheight() * 72
    place, last = axes.transData + axes.transAxes.inverted(), -np.inf
    for end, name, colour in sorted(ends):
        y = max(place.transform((float(x[-1]), end))[1], last + 16 / height)
        last = y
        axes.annotate(
            name, (1.0, y), xycoords="axes fraction", xytext=(6, 0), textcoords="offset points",
            color=colour, va="center", weight="bold",
        )  # fmt: skip
    return figure


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
    axes.margins(x=0.12)
    return figure


def cover(
    subjects: Sequence[str] = ("dog #6", "colorful sneaker", "cat #2", "teapot"),
    styles: Sequence[str] = (
        "watercolor painting #1",
        "oil painting #2",
        "line drawing",
        "glowing",
        "kid crayon drawing",
        "wooden sculpture",
        "abstract rainbow",
        "flat cartoon illustration #1",
    ),
    seed: int = 2,
) -> Image.Image:
    """Draw the book's cover: subjects down the side, styles along the top, and each subject in each style.

    Args:
        subjects: names in `lorarar.shoebox.subjects.SUBJECTS`, one row each.
        styles: names in `lorarar.shoebox.styles.STYLES`, one column each.
        seed: of poses and textures.
    """
    from PIL import Image, ImageDraw, ImageFilter

    from lorarar.shoebox.styles import STYLES, paint, random_style
    from lorarar.shoebox.subjects import CLASSES, SUBJECTS, random_identity, random_pose, scene

    side, gap, margin, ring, round_ = 168, 16, 40, 6, 26
    rng = np.random.default_rng(seed)

    def tile(pixels: np.ndarray, colour: str | None) -> Image.Image:
        drawn = np.clip(pixels if pixels.dtype == np.uint8 else pixels * 255, 0, 255).astype(np.uint8)
        # Drawings have hard edges; blurred at four times their size, the stairs along them are gone.
        large = Image.fromarray(drawn).resize((512, 512), Image.Resampling.NEAREST)
        picture = large.filter(ImageFilter.GaussianBlur(2.6)).resize((side, side), Image.Resampling.LANCZOS)
        picture = picture.convert("RGBA")
        mask = Image.new("L", (4 * side, 4 * side))
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, 4 * side - 1, 4 * side - 1), 4 * round_, fill=255)
        picture.putalpha(mask.resize((side, side), Image.Resampling.LANCZOS))
        if colour:
            frame = Image.new("RGBA", (4 * side, 4 * side))
            ImageDraw.Draw(frame).rounded_rectangle(
                (0, 0, 4 * side - 1, 4 * side - 1), 4 * round_, outline=colour, width=4 * ring
            )
            picture.alpha_composite(frame.resize((side, side), Image.Resampling.LANCZOS))
        return picture

    width = 2 * margin + (len(styles) + 1) * (side + gap)
    height = 2 * margin + (len(subjects) + 1) * (side + gap)
    shade = np.linspace(0, 1, width)[None, :, None] * np.ones((height, 1, 1))
    ground = (1 - shade) * (15, 32, 48) + shade * (44, 26, 22)
    page = Image.fromarray(ground.astype(np.uint8)).convert("RGBA")

    def place(row: int, column: int, picture: Image.Image) -> None:
        x = margin + column * (side + gap) + (gap if column else 0)
        y = margin + row * (side + gap) + (gap if row else 0)
        page.alpha_composite(picture, (x, y))

    # Along the top, each style is seen on something else than the subjects.
    taken = {SUBJECTS[name].cls for name in subjects}
    others = rng.permutation([cls for cls in CLASSES if cls not in taken])
    for column, name in enumerate(styles, 1):
        other = random_identity(rng, str(others[column % len(others)]))
        place(0, column, tile(paint(scene(other, random_pose(rng)), STYLES[name], rng), STYLE))
    for row, name in enumerate(subjects, 1):
        photo = random_style(rng, "photo")
        place(row, 0, tile(paint(scene(SUBJECTS[name], random_pose(rng)), photo, rng), SUBJECT))
        for column, style in enumerate(styles, 1):
            place(row, column, tile(paint(scene(SUBJECTS[name], random_pose(rng)), STYLES[style], rng), None))

    corner = Image.new("RGBA", (4 * side, 4 * side))
    pen, middle = ImageDraw.Draw(corner), 2 * side
    for dx, dy in ((0, 1), (1, 0)):
        reach_x, reach_y = (120 if dx else 16), (120 if dy else 16)
        pen.rounded_rectangle(
            (middle - reach_x, middle - reach_y, middle + reach_x, middle + reach_y), 16, fill="#e9edf2"
        )
    place(0, 0, corner.resize((side, side), Image.Resampling.LANCZOS))
    return page.convert("RGB")
