"""The figures: exact enlargement, labels, refusals."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from lorarar.bookkit import cover, figures, style
from lorarar.bookkit.frames import Frames


@pytest.fixture(autouse=True)
def close():
    style.use()
    yield
    plt.close("all")


def drawn(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def test_image_grid_enlarges_every_pixel_alike():
    images = np.zeros((2, 3, 8, 8, 3), np.uint8)
    images[:, :, ::2, :, 0] = 200  # red and black rows in turn
    pixels = drawn(figures.image_grid(images, rows=["a", "b"], columns=["x", "y", "z"]))
    red = (pixels == (200, 0, 0)).all(-1)
    (column,) = red[:, [red.any(0).argmax()]].T.astype(int)
    starts, ends = (np.flatnonzero(np.diff(column) == step) for step in (1, -1))
    assert len(starts) == 8 and len(set(ends - starts)) == 1  # two tiles of four red rows, all equally high


@pytest.mark.parametrize("columns", [1, 4, 9])
def test_image_grid_keeps_its_width(columns):
    figure = figures.image_grid(np.zeros((columns, 64, 64, 3), np.uint8), titles=["title"] * columns)
    assert figure.get_figwidth() <= style.WIDTH + 0.2


def test_image_grid_wraps_images_and_refuses_what_is_none():
    figure = figures.image_grid(np.zeros((5, 8, 8, 3), np.uint8), per_row=3)
    assert len(figure.axes) == 6
    with pytest.raises(ValueError, match="expected images of shape"):
        figures.image_grid(np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="2 labels for 1 rows"):
        figures.image_grid(np.zeros((3, 8, 8, 3), np.uint8), rows=["a", "b"])


def phone_text(figure) -> float:
    """The smallest text, in pixels, where a phone shows the figure 350 pixels wide."""
    figure.canvas.draw()
    sizes = [text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text().strip()]
    return min(sizes) / 72 * 350 / figure.get_figwidth()


CHARTS = {
    "lines": lambda: figures.lines(
        [1, 2, 3], {"a": [1, 2, 3], "b": [1, 2, 3.01]}, xlabel="x", ylabel="y", log=True
    ),
    "bars": lambda: figures.bars({"a": 0.2, "b": 0.4}, label="share"),
    "forest": lambda: figures.forest({"a": (0.2, 0.1, 0.3), "b": (0.4, 0.2, 0.5)}, label="share", zero=True),
    "heat_maps": lambda: figures.heat_maps(
        {"one": np.array([[0.0, 1.0]]), "two": np.array([[np.nan, -1.0]])},
        rows=["r"], columns=["a", "b"], diverging=True,
    ),
    "scatter": lambda: figures.scatter(
        {"one": (0, 0), "other": (0.01, 0.01), "third": (1, 1)}, xlabel="x", ylabel="y", diagonal=True
    ),
    "histograms": lambda: figures.histograms(
        {"dot": {"subject": np.arange(9.0), "style": np.arange(9.0)}},
        xlabel="x", ylabel="y", colours={"subject": style.SUBJECT, "style": style.STYLE}, mark=1.0,
    ),
    "image_grid": lambda: figures.image_grid(np.zeros((2, 6, 64, 64, 3), np.uint8), columns=list("abcdef")),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHARTS)
def test_text_can_be_read_on_a_phone(kind):
    assert phone_text(CHARTS[kind]()) >= 11


def test_heat_maps_write_every_number_but_holes():
    texts = [[text.get_text() for text in axes.texts] for axes in CHARTS["heat_maps"]().axes]
    assert texts == [["0.00", "1.00"], ["-1.00"]]


def test_names_in_a_scatter_do_not_lie_on_each_other():
    near = {f"method {i}": (0.5 + 0.001 * i, 0.5) for i in range(5)}
    ends = "method 0", "method 4"
    figure = figures.scatter(near, xlabel="x", ylabel="y", paths=[(ends, "-")])
    figure.canvas.draw()
    # Of the words alone: an annotation's own extent has its leading line in it.
    boxes = [matplotlib.text.Text.get_window_extent(text) for text in figure.axes[0].texts]
    assert len(boxes) == 5
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    along = np.linspace(*(near[end] for end in ends), 50)
    assert not any(box.contains(*at) for box in boxes for at in figure.axes[0].transData.transform(along))


def test_a_name_beside_another_point_has_a_line_to_its_own():
    def lines(places):
        axes = figures.scatter(places, xlabel="x", ylabel="y").axes[0]
        return [line for line in axes.lines if line.get_linewidth() < 1]

    crowd = {f"a method with a long name {i}": (0.5 + 0.04 * i, 0.5) for i in range(8)}
    frame = {"low": (0, 0), "high": (1, 1)}
    assert lines(frame) == []
    found = lines(crowd | frame)
    starts = {tuple(np.round(line.get_xydata()[0], 6)) for line in found}
    assert found and starts <= {tuple(np.round(place, 6)) for place in crowd.values()}


def test_the_cover_is_the_same_by_seed():
    small = {"subjects": ("teapot",), "styles": ("line drawing",)}
    first, again, other = (np.asarray(cover.cover(**small, seed=seed)) for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()


def test_contact_sheet_shows_every_pixel_and_refuses_wrong_labels():
    images = np.full((2, 3, 8, 8, 3), (0, 90, 0), np.uint8)
    pixels = drawn(figures.contact_sheet(images, rows=["a", "b"], columns=["x", "y", "z"], enlarge=2))
    assert (pixels == (0, 90, 0)).all(-1).sum() == 2 * 3 * 16 * 16
    # Names are broken so that the pictures have the room, but into no more lines than a row is high.
    high = np.zeros((1, 2, 64, 64, 3), np.uint8)
    names = [
        text.get_text()
        for enlarge in (1, 2)
        for text in figures.contact_sheet(
            high, rows=["clock, watercolor painting"], columns=["x", "y"], enlarge=enlarge
        ).texts[:1]
    ]
    assert names == ["clock, watercolor\npainting", "clock,\nwatercolor\npainting"]
    with pytest.raises(ValueError, match="1 × 3 labels for 2 × 3 images"):
        figures.contact_sheet(images, rows=["a"], columns=["x", "y", "z"])


def test_frames_have_a_label_each_and_a_text_for_those_who_cannot_see():
    frames = Frames(np.zeros((3, 8, 8, 3), np.uint8), ["one", "two", "<3>"], alt='a "square"')
    html = frames._repr_html_()
    assert 'aria-label="a &quot;square&quot;"' in html and "&lt;3&gt;" in html and 'max="2"' in html
    assert repr(frames) == '3 frames: a "square"'
    with pytest.raises(ValueError, match="2 labels for 3 frames"):
        Frames(np.zeros((3, 8, 8, 3), np.uint8), ["one", "two"], alt="")
