"""A control that computes: live widgets in Jupyter and Colab, precomputed frames in the book."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from html import escape
from io import BytesIO
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from lorarar.bookkit.frames import Frames

if TYPE_CHECKING:
    import ipywidgets
    from matplotlib.figure import Figure

MOST_FRAMES = 80
"""More frames than this make a page heavy."""


class Control:
    """A picture and a line of text that follow the values a reader sets.

    In Jupyter and Colab every move calls the function. A page is still: it has frames of the same function,
    worked out beforehand, under sliders that need no kernel.

    Args:
        function: called with one value for each option by name; returns a picture, (h, w, 3) uint8 or a
            matplotlib figure, and a line of text. All its pictures have one size.
        options: {name: values a reader can choose}; numbers get a slider, words a menu.
        alt: what the pictures show, for someone who cannot see them.
        frames: {name: the values that the static page has}; those of `options` where none are given.
        start: {name: value} at first; the first values by default.
        enlarge: every pixel of an array becomes this many.

    Raises:
        ValueError: a start is none of the options, or the static page would have more than `MOST_FRAMES`.
    """

    def __init__(
        self,
        function: Callable[..., tuple[np.ndarray | Figure, str]],
        options: Mapping[str, Sequence[Any]],
        *,
        alt: str,
        frames: Mapping[str, Sequence[Any]] | None = None,
        start: Mapping[str, Any] | None = None,
        enlarge: int = 2,
    ) -> None:
        self.function, self.alt, self.enlarge = function, alt, enlarge
        self.options = {name: list(values) for name, values in options.items()}
        self.frames = self.options | {name: list(values) for name, values in (frames or {}).items()}
        self.values = {name: values[0] for name, values in self.options.items()} | dict(start or {})
        for name, value in self.values.items():
            if value not in self.options.get(name, []) or value not in self.frames[name]:
                raise ValueError(f"the control has no {name} = {value!r}")
        if (count := int(np.prod([len(values) for values in self.frames.values()]))) > MOST_FRAMES:
            raise ValueError(
                f"{count} frames are too many for a page, give `frames` with {MOST_FRAMES} at most"
            )
        self._widget: ipywidgets.Widget | None = None

    def compute(self, **values: Any) -> tuple[np.ndarray, str]:
        """Call the function; its figure becomes (h, w, 3) uint8, pixels are enlarged."""
        picture, text = self.function(**values)
        if isinstance(picture, np.ndarray):
            return picture.repeat(self.enlarge, 0).repeat(self.enlarge, 1), text
        return _drawn(picture), text

    def set(self, **values: Any) -> None:
        """Move the live widgets, as a reader would; the picture and the text follow."""
        _ = self.widget
        for name, value in values.items():
            self.inputs[name].value = value

    @property
    def widget(self) -> ipywidgets.Widget:
        """The live control: an ipywidgets box, made at the first call. See `inputs`, `image` and `text`."""
        if self._widget is None:
            import ipywidgets as w

            wide = w.Layout(width="100%", max_width="36rem")
            style = {"description_width": "9rem"}
            self.inputs = {
                name: (w.Dropdown if isinstance(values[0], str) else w.SelectionSlider)(
                    options=values, value=self.values[name], description=name, layout=wide, style=style,
                    **({} if isinstance(values[0], str) else {"continuous_update": False}),
                )
                for name, values in self.options.items()
            }  # fmt: skip
            self.image = w.Image(format="png", layout=w.Layout(max_width="100%"))
            self.text = w.HTML()
            for one in self.inputs.values():
                one.observe(self._follow, names="value")
            self._widget = w.VBox([*self.inputs.values(), self.image, self.text])
            self._follow()
        return self._widget

    def _follow(self, _change: object = None) -> None:
        from PIL import Image

        self.values = {name: one.value for name, one in self.inputs.items()}
        picture, text = self.compute(**self.values)
        file = BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        self.image.value, self.text.value = file.getvalue(), escape(text)

    def static(self, few: bool = False) -> Frames:
        """Return the control of a page without a kernel: the function at every one of `frames`.

        few: of each option only the first value, the last and the one at the start.
        """
        frames = self.frames
        if few:
            frames = {
                name: [v for v in values if v in (values[0], values[-1], self.values[name])]
                for name, values in frames.items()
            }
        every = [dict(zip(frames, values, strict=True)) for values in product(*frames.values())]
        pictures, texts = zip(*(self.compute(**values) for values in every), strict=True)
        return Frames(
            np.stack(pictures),
            texts,
            alt=self.alt,
            axes=frames,
            start=every.index(self.values),
            enlarge=1,
        )

    def _ipython_display_(self) -> None:
        from IPython.display import display

        # A book being made keeps the frames; they also stay in the notebook until a reader runs the cell. The
        # smoke test looks at a few.
        run = os.environ.get("LORARAR_RUN")
        display(self.widget if run is None else self.static(few=run.startswith("smoke")))


def _drawn(figure: Figure) -> np.ndarray:
    import matplotlib.pyplot as plt

    figure.set_dpi(120)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
    plt.close(figure)
    return pixels
