"""A pair as several merges draw it: the same words and noises, with the critic's verdict as a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lorarar.bookkit.style import framed
from lorarar.models import generate, loaded
from lorarar.shoebox import zoo

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from lorarar.lora import LoRA

Rows = dict[str, np.ndarray]
"""{what the row is called: images (n, h, w, 3) uint8}"""


def draw(
    pipe: DiffusionPipeline, pair: tuple[str, str], merges: Mapping[str, LoRA], seeds: Sequence[int]
) -> Rows:
    """Generate images of a pair of the zoo, one row for each merge, from the same seeds."""
    rows = {}
    for name, merge in merges.items():
        with loaded(pipe, merge):
            rows[name] = generate(pipe, zoo.words(*pair), list(seeds))
    return rows


def drawn(pair: tuple[str, str], count: int, side: int, seed: int = 0) -> np.ndarray:
    """Return true drawings of a pair, what a perfect merge would show: (count, side, side, 3) uint8."""
    images = zoo.targets(*pair, count, seed)
    return images.repeat(side // images.shape[1], 1).repeat(side // images.shape[2], 2)


def verdicts(pair: tuple[str, str], rows: Rows) -> dict[str, np.ndarray]:
    """Return the critic's verdicts on each row: (n, 2) bool, subject and style."""
    critic = zoo.load_critic()
    return {
        name: np.stack([zoo.shows(critic, one, images) for one in pair], 1) for name, images in rows.items()
    }


def frames(rows: Rows, judged: Mapping[str, np.ndarray]) -> list[list[np.ndarray]]:
    """Return the images of each row, framed in the colours of their verdicts."""
    return [
        [framed(image, tuple(verdict)) for image, verdict in zip(images, judged[name], strict=True)]
        for name, images in rows.items()
    ]
