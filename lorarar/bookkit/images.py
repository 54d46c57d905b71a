"""Images of a pair by several merges, and the verdicts of the book's judge on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lorarar.bookkit import figures
from lorarar.bookkit.style import GREY, framed, judge_of
from lorarar.pipelines import generate, loaded
from lorarar.scales import find_scale
from lorarar.shoebox import zoo
from lorarar.study.verdicts import find_judge

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from matplotlib.figure import Figure

    from lorarar.lora import LoRA

Pair = tuple[str, str]
Seen = tuple[np.ndarray, np.ndarray]
"""Which images show the subject, and which the style: two (n,) bool."""


def images_of(
    pipe: DiffusionPipeline, merges: Mapping[str, LoRA], pair: Pair, seeds: Sequence[int], scale: str
) -> dict[str, np.ndarray]:
    """Generate the subject in the style with each merge, as the recorded experiment does.

    Args:
        pipe: the base, without a LoRA.
        merges: by name.
        pair: the names of subject and style.
        seeds: of the noise; the same for all merges.
        scale: whose recorded experiment is followed: a smoke test follows the shoebox's.

    Returns:
        {name: (n, h, w, 3) uint8}.
    """
    recipe = find_scale("shoebox" if scale == "smoke" else scale)
    images = {}
    for name, lora in merges.items():
        with loaded(pipe, lora):
            images[name] = generate(
                pipe, zoo.words(*pair), list(seeds), steps=recipe.inference_steps, guidance=recipe.guidance
            )
    return images


def judged(images: Mapping[str, np.ndarray], pair: Pair, scale: str) -> dict[str, Seen]:
    """Let the book's judge see images of a pair: {name: (subject right, style right)}, each (n,) bool."""
    judge = find_judge(judge_of(scale), scale)
    return {name: tuple(judge.shows(of, shown) for of in pair) for name, shown in images.items()}


def images_figure(images: Mapping[str, np.ndarray], seen: Mapping[str, Seen], pair: Pair) -> Figure:
    """Show drawings of what was hoped for, then a row of framed images for each merge."""
    count, side = next(iter(images.values())).shape[:2]
    drawn = [np.asarray(Image.fromarray(one).resize((side, side))) for one in zoo.targets(*pair, count)]
    rows = [[framed(one, GREY) for one in drawn]]
    for name, shown in images.items():
        verdicts = zip(*seen[name], strict=True)
        rows.append([framed(image, verdict) for image, verdict in zip(shown, verdicts, strict=True)])
    return figures.image_grid(rows, rows=["drawn", *images])
