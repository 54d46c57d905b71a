"""Judge it yourself: pictures shown without their method, a reader's verdict first, then the judges'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lorarar.bookkit.controls import Control
from lorarar.bookkit.style import GREY, framed

if TYPE_CHECKING:
    import ipywidgets

WORDS = {
    (True, True): "both",
    (True, False): "only the subject",
    (False, True): "only the style",
    (False, False): "neither",
}
"""What can be said of a picture, by (subject shown, style shown)."""

OPEN, SHOWN = "not yet", "shown"


class Exhibit(NamedTuple):
    """One picture to be judged: what it should show, a reference of each, the picture; (h, w, 3) uint8."""

    subject: str
    style: str
    references: tuple[np.ndarray, np.ndarray]
    image: np.ndarray


Shows = Callable[[str, np.ndarray], np.ndarray]
"""A judge: tells which images (n, h, w, 3) show the subject or style of that name, (n,) bool."""


class BlindControl(Control):
    """Pictures one after the other; a reader says what each shows, sees the judges' verdicts, and who agrees.

    In Jupyter and Colab a judge is asked when the reader has answered. A static page has each picture twice,
    first alone, then with the verdicts of all judges.

    Args:
        exhibits: the pictures.
        judges: {name: judge}; the frame of a picture is the first one's verdict.
    """

    def __init__(self, exhibits: Sequence[Exhibit], judges: dict[str, Shows]) -> None:
        self.exhibits, self.judges = list(exhibits), judges
        self.given: dict[int, tuple[bool, bool]] = {}
        """What the reader said, by picture; the first word counts, for afterwards the judges' are known."""
        self._said: dict[tuple[str, int], tuple[bool, bool]] = {}
        pictures = list(range(1, len(exhibits) + 1))
        super().__init__(
            self._show,
            {"picture": pictures, "verdict": [OPEN, *WORDS.values()]},
            alt="Three small pictures side by side: a photo of a subject, a drawing in a style, and a "
            "generated image that should show that subject in that style",
            frames={"picture": pictures, "verdict": [OPEN, SHOWN]},
            enlarge=2,
        )

    def verdict(self, judge: str, picture: int) -> tuple[bool, bool]:
        """Return what a judge says of a picture; it is asked once."""
        if (judge, picture) not in self._said:
            exhibit, shows = self.exhibits[picture - 1], self.judges[judge]
            self._said[judge, picture] = tuple(
                bool(shows(name, exhibit.image[None])[0]) for name in (exhibit.subject, exhibit.style)
            )
        return self._said[judge, picture]

    def agreement(self, judge: str) -> tuple[int, int]:
        """Return on how many pictures a judge says what the reader said, and of how many."""
        same = [self.verdict(judge, picture) == given for picture, given in self.given.items()]
        return sum(same), len(same)

    def _show(self, picture: int, verdict: str) -> tuple[np.ndarray, str]:
        exhibit = self.exhibits[picture - 1]
        words = {said: pair for pair, said in WORDS.items()}
        if verdict in words:
            self.given.setdefault(picture, words[verdict])
        known = picture in self.given or verdict == SHOWN
        edge = self.verdict(next(iter(self.judges)), picture) if known else GREY
        tiles = [framed(tile, GREY) for tile in exhibit.references] + [framed(exhibit.image, edge, width=4)]
        gap = np.full((len(tiles[0]), 6, 3), 255, np.uint8)
        shown = np.concatenate([tiles[0], gap, tiles[1], gap, tiles[2]], 1)
        order = f"{picture} of {len(self.exhibits)}: {exhibit.subject} in {exhibit.style}. "
        if not known:
            return shown, f"{order}What does the image on the right show: both, one of the two, or neither?"
        said = ". ".join(f"{name}: {WORDS[self.verdict(name, picture)]}" for name in self.judges)
        return shown, f"{order}{said}. {self._tally(picture)}"

    def _tally(self, picture: int) -> str:
        if picture in self.given:
            counts = {name: self.agreement(name) for name in self.judges}
            agree = ", ".join(f"with {name} in {same} of {n}" for name, (same, n) in counts.items())
            return f"You: {WORDS[self.given[picture]]}. So far you agree {agree}."
        same = sum(len({self.verdict(name, p) for name in self.judges}) == 1 for p in range(1, picture + 1))
        return f"So far the judges agree in {same} of {picture}."

    @property
    def widget(self) -> ipywidgets.Widget:
        """The live control: a slider of pictures, a button for each verdict, and who says what."""
        if self._widget is None:
            import ipywidgets as w

            wide = w.Layout(width="100%", max_width="36rem")
            self.inputs = {
                "picture": w.SelectionSlider(
                    options=self.options["picture"], description="picture", layout=wide
                ),
                "verdict": w.ToggleButtons(
                    options=self.options["verdict"], value=OPEN, description="it shows", layout=wide
                ),
            }
            self.image = w.Image(format="png", layout=w.Layout(max_width="100%"))
            self.text = w.HTML()
            self.inputs["picture"].observe(self._turn, names="value")
            self.inputs["verdict"].observe(self._follow, names="value")
            self._widget = w.VBox([self.inputs["picture"], self.image, self.inputs["verdict"], self.text])
            self._follow()
        return self._widget

    def _turn(self, _change: object = None) -> None:
        """Show another picture, without the verdict on the last one."""
        self.inputs["verdict"].value = OPEN
        self._follow()
