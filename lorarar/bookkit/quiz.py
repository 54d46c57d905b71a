"""Judge it yourself: pictures, yes-or-no questions, and then what a judge said, with a running agreement."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import ipywidgets

# One step of the page without a kernel: compare the two answers, count, and show the next picture.
_STEP = (
    "const f=this.closest('figure'),d=JSON.parse(f.dataset.quiz),i=+f.dataset.at,"
    "s=[...f.querySelectorAll('select')],o=f.querySelector('output'),n=d.verdicts.length;"
    "if(this.dataset.next){f.dataset.at=(i+1)%n;if(i+1==n)f.dataset.same=f.dataset.all=0;"
    "f.querySelector('i').style.backgroundPositionY=(f.dataset.at*100/Math.max(n-1,1))+'%';"
    "o.textContent='';delete this.dataset.next;this.textContent='Compare'}else{"
    "const same=s.filter((e,k)=>(e.value=='yes')==d.verdicts[i][k]).length;"
    "f.dataset.same=+f.dataset.same+same;f.dataset.all=+f.dataset.all+s.length;"
    "o.textContent=d.judge+' said '+d.verdicts[i].map((v,k)=>d.questions[k]+' '+(v?'yes':'no')).join(', ')+"
    "'. You agree in '+f.dataset.same+' of '+f.dataset.all+'.';"
    "this.dataset.next=1;this.textContent='Next picture'}"
)


class Quiz:
    """Pictures that a reader judges blind, before the judge's verdict is shown.

    Args:
        pictures: (n, h, w, 3) uint8, each with all that one needs to judge it (references beside the image).
        questions: what is asked of each, such as "subject" and "style".
        verdicts: (n, questions) bool, the judge's.
        judge: its name.
        alt: what the pictures show, for someone who cannot see them.
        enlarge: every pixel becomes this many.

    Raises:
        ValueError: there is not a verdict for each picture and question.
    """

    def __init__(
        self,
        pictures: np.ndarray,
        questions: Sequence[str],
        verdicts: np.ndarray,
        *,
        judge: str,
        alt: str,
        enlarge: int = 2,
    ) -> None:
        self.pictures = np.asarray(pictures).repeat(enlarge, 1).repeat(enlarge, 2)
        self.questions, self.verdicts = list(questions), np.asarray(verdicts, bool)
        if self.verdicts.shape != (len(self.pictures), len(self.questions)):
            raise ValueError(f"verdicts of shape {self.verdicts.shape} for {len(self.pictures)} pictures")
        self.judge, self.alt = judge, alt
        self.at, self.same, self.asked = 0, 0, 0
        self._widget: ipywidgets.Widget | None = None

    def compare(self, *answers: bool) -> str:
        """Answer the questions on the picture that is shown, and return the judge's verdict and the count."""
        said = self.verdicts[self.at]
        self.same += sum(bool(a) == bool(v) for a, v in zip(answers, said, strict=True))
        self.asked += len(answers)
        self.at = (self.at + 1) % len(self.pictures)
        theirs = ", ".join(f"{q} {'yes' if v else 'no'}" for q, v in zip(self.questions, said, strict=True))
        return f"{self.judge} said {theirs}. You agree in {self.same} of {self.asked}."

    @property
    def widget(self) -> ipywidgets.Widget:
        """The live quiz, made at the first call: an ipywidgets box of `image`, `inputs`, `button`, `text`."""
        if self._widget is None:
            import ipywidgets as w

            self.inputs = [w.ToggleButtons(options=["yes", "no"], description=q) for q in self.questions]
            self.image, self.text = w.Image(format="png", layout=w.Layout(max_width="100%")), w.HTML()
            self.button = w.Button(description="Compare")
            self.button.on_click(self._press)
            self._show()
            self._widget = w.VBox([self.image, *self.inputs, self.button, self.text])
        return self._widget

    def _press(self, _button: object) -> None:
        if self.button.description == "Compare":
            self.text.value = escape(self.compare(*(one.value == "yes" for one in self.inputs)))
            self.button.description = "Next picture"
        else:
            self.text.value, self.button.description = "", "Compare"
            self._show()

    def _show(self) -> None:
        self.image.value = _png(self.pictures[self.at])

    def _repr_html_(self) -> str:
        _, height, width, _ = self.pictures.shape
        strip = "data:image/png;base64," + b64encode(_png(self.pictures.reshape(-1, width, 3))).decode()
        data = {"questions": self.questions, "verdicts": self.verdicts.tolist(), "judge": self.judge}
        selects = " ".join(
            f"<label>{escape(q)} <select><option>yes</option><option>no</option></select></label>"
            for q in self.questions
        )
        return (
            f'<figure class="lorarar-frames" style="margin:1.2rem 0;max-width:{width}px" data-at="0" '
            f'data-same="0" data-all="0" data-quiz="{escape(json.dumps(data, ensure_ascii=False))}">'
            f'<i role="img" aria-label="{escape(self.alt)}" style="display:block;width:100%;'
            f"aspect-ratio:{width}/{height};border-radius:.5rem;image-rendering:pixelated;"
            f'background:url({strip}) 0 0/100% auto"></i>'
            f'<div style="display:flex;gap:1rem;flex-wrap:wrap;margin-top:.5rem">{selects} '
            f'<button type="button" onclick="{escape(_STEP)}">Compare</button></div>'
            f"<figcaption><output></output></figcaption></figure>"
        )

    def _ipython_display_(self) -> None:
        from IPython.display import HTML, display

        display(HTML(self._repr_html_()) if "LORARAR_RUN" in os.environ else self.widget)


def _png(picture: np.ndarray) -> bytes:
    from PIL import Image

    file = BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()
