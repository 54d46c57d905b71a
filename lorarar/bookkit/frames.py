"""Pictures under sliders that need no kernel: they move in static pages as in Jupyter."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO

import numpy as np

from lorarar.bookkit.style import SUBJECT

# Finds the frame from all inputs of the figure, the last one fastest, and shows it with its label.
_MOVE = (
    "const f=this.closest('figure'),d=JSON.parse(f.dataset.frames),"
    "i=[...f.querySelectorAll('input')].reduce((n,e)=>n*(+e.max+1)+ +e.value,0);"
    "f.querySelectorAll('input').forEach((e,k)=>"
    "e.nextElementSibling.textContent=d.values[k][e.value]);"
    "f.querySelector('i').style.backgroundPositionY=(i*100/Math.max(d.labels.length-1,1))+'%';"
    "f.querySelector('figcaption').textContent=d.labels[i]"
)


class Frames:
    """Pictures under a slider, or several, that move with the mouse or the arrow keys, without a kernel.

    Args:
        frames: (n, height, width, 3) uint8, shown one at a time. With several axes, n is the product of
            their lengths, and the last axis runs fastest.
        labels: a text for each frame.
        alt: what the frames show, for someone who cannot see them.
        axes: {name: values} of the sliders; one slider without a name by default.
        start: the frame that is shown at first; the last by default.
        enlarge: every pixel becomes this many.

    Raises:
        ValueError: there are not as many labels as frames, or the axes do not fit.
    """

    def __init__(
        self,
        frames: np.ndarray,
        labels: Sequence[str],
        *,
        alt: str,
        axes: Mapping[str, Sequence[object]] | None = None,
        start: int = -1,
        enlarge: int = 2,
    ) -> None:
        if len(frames) != len(labels):
            raise ValueError(f"{len(labels)} labels for {len(frames)} frames")
        self.axes = {name: [str(v) for v in values] for name, values in (axes or {"": labels}).items()}
        self.lengths = tuple(map(len, self.axes.values()))
        if int(np.prod(self.lengths)) != len(frames):
            raise ValueError(f"{len(frames)} frames for {' × '.join(map(str, self.lengths))} values")
        self.frames = np.asarray(frames).repeat(enlarge, 1).repeat(enlarge, 2)
        self.labels, self.alt, self.start = [str(label) for label in labels], alt, start % len(frames)

    def _strip(self) -> str:
        """Return one picture of all frames, one above the other, as a data URI; the window shows one."""
        from PIL import Image

        n, height, width, _ = self.frames.shape
        file = BytesIO()
        strip = Image.fromarray(self.frames.reshape(n * height, width, 3))
        strip.quantize(256).save(file, "PNG", optimize=True)
        return "data:image/png;base64," + b64encode(file.getvalue()).decode()

    def _repr_html_(self) -> str:
        n, height, width, _ = self.frames.shape
        data = {"labels": self.labels, "values": list(self.axes.values())}
        at = np.unravel_index(self.start, self.lengths)
        hidden = "" if any(self.axes) else " hidden"  # one slider without a name: its label says it all
        inputs = "".join(
            f'<label style="display:flex;gap:.7rem;align-items:center;margin-top:.5rem">'
            f'<span style="min-width:5.5rem"{"" if name else " hidden"}>{escape(name)}</span>'
            f'<input type="range" min="0" max="{len(values) - 1}" value="{i}" oninput="{escape(_MOVE)}" '
            f'aria-label="{escape(name or "frame")}" '
            f'style="flex:1;accent-color:{SUBJECT};min-width:6rem;height:1.6rem">'
            f'<output style="min-width:3.5rem"{hidden}>{escape(values[i])}</output></label>'
            for (name, values), i in zip(self.axes.items(), at, strict=True)
        )
        return (
            f'<figure class="lorarar-frames" style="margin:1.2rem 0;max-width:{width}px" '
            f'data-frames="{escape(json.dumps(data, ensure_ascii=False))}">'
            f'<i role="img" aria-label="{escape(self.alt)}" style="display:block;width:100%;'
            f"aspect-ratio:{width}/{height};border-radius:.5rem;image-rendering:pixelated;"
            f'background:url({self._strip()}) 0 {self.start * 100 / max(n - 1, 1)}%/100% auto"></i>'
            f"{inputs}<figcaption>{escape(self.labels[self.start])}</figcaption></figure>"
        )

    def __repr__(self) -> str:
        return f"{len(self.labels)} frames: {self.alt}"
