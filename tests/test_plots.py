"""The figures: exact enlargement, labels, refusals."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from lorarar import plots


@pytest.fixture(autouse=True)
def close():
    plots.use()
    yield
    plt.close("all")


def drawn(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def test_image_grid_enlarges_every_pixel_alike():
    images = np.zeros((2, 3, 8, 8, 3), np.uint8)
    images[:, :, ::2, :, 0] = 200  # red and black rows in turn
    pixels = drawn(plots.image_grid(images, rows=["a", "b"], columns=["x", "y", "z"]))
    red = (pixels == (200, 0, 0)).all(-1)
    (column,) = red[:, [red.any(0).argmax()]].T.astype(int)
    starts, ends = (np.flatnonzero(np.diff(column) == step) for step in (1, -1))
    assert len(starts) == 8 and len(set(ends - starts)) == 1  # two tiles of four red rows, all equally high


@pytest.mark.parametrize("columns", [1, 4, 9])
def test_image_grid_keeps_its_width(columns):
    figure = plots.image_grid(np.zeros((columns, 64, 64, 3), np.uint8), titles=["title"] * columns)
    assert figure.get_figwidth() <= plots.WIDTH + 0.2


def test_image_grid_wraps_images_and_refuses_what_is_none():
    figure = plots.image_grid(np.zeros((5, 8, 8, 3), np.uint8), per_row=3)
    assert len(figure.axes) == 6
    with pytest.raises(ValueError, match="expected images of shape"):
        plots.image_grid(np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="2 labels for 1 rows"):
        plots.image_grid(np.zeros((3, 8, 8, 3), np.uint8), rows=["a", "b"])


def test_charts_are_drawn():
    drawn(plots.lines([1, 2, 3], {"a": [1, 2, 3], "b": [1, 2, 3.01]}, xlabel="x", ylabel="y", log=True))
    drawn(plots.bars({"a": 0.2, "b": 0.4}, label="share"))
    figure = plots.heatmap(np.array([[0.0, 1.0]]), rows=["r"], columns=["a", "b"], diverging=True)
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.00", "1.00"]


def test_the_cover_is_the_same_by_seed():
    small = {"subjects": ("teapot",), "styles": ("line drawing",)}
    first, again, other = (np.asarray(plots.cover(**small, seed=seed)) for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()


def test_contact_sheet_shows_every_pixel_and_refuses_wrong_labels():
    images = np.full((2, 3, 8, 8, 3), (0, 90, 0), np.uint8)
    pixels = drawn(plots.contact_sheet(images, rows=["a", "b"], columns=["x", "y", "z"], enlarge=2))
    assert (pixels == (0, 90, 0)).all(-1).sum() == 2 * 3 * 16 * 16
    with pytest.raises(ValueError, match="1 × 3 labels for 2 × 3 images"):
        plots.contact_sheet(images, rows=["a"], columns=["x", "y", "z"])


def test_frames_have_a_label_each_and_a_text_for_those_who_cannot_see():
    frames = plots.Frames(np.zeros((3, 8, 8, 3), np.uint8), ["one", "two", "<3>"], alt='a "square"')
    html = frames._repr_html_()
    assert 'aria-label="a &quot;square&quot;"' in html and "one|two|&lt;3&gt;" in html and 'max="2"' in html
    assert repr(frames) == '3 frames: a "square"'
    with pytest.raises(ValueError, match="2 labels for 3 frames"):
        plots.Frames(np.zeros((3, 8, 8, 3), np.uint8), ["one", "two"], alt="")
