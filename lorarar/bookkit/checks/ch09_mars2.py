"""Checks of chapter 9's exercises, and plausible wrong answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def check_vote(vote: Callable[[np.ndarray], np.ndarray]) -> None:
    """``vote(votes)``: (images, references) bool to (images,) bool, a strict majority."""
    given = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)
    found = np.asarray(vote(given))
    assert found.shape == (4,), "one verdict for each image, not for each reference"
    assert not found[1], "a draw is not a majority: more than half must say Yes"
    assert found[0] and not found[2] and not found[3], "count the Yes of each row"


def check_interval(interval: Callable[[np.ndarray, np.random.Generator], tuple[float, float]]) -> None:
    """``interval(scores, rng)``: (subjects, styles) to the 95 % interval of their mean, both drawn anew."""
    easy = np.zeros((6, 6))
    easy[:3] = 1  # three subjects always come out, three never, whatever the style
    low, high = interval(easy, np.random.default_rng(1))
    assert 0 <= low < 0.5 < high <= 1, "return the low and the high end, around the average case"
    assert high - low > 0.6, "too narrow: pairs of one subject are alike, draw subjects, not pairs"
    low, high = interval(easy.T, np.random.default_rng(1))
    assert high - low > 0.6, "too narrow where styles are easy or hard: draw styles, too"
    assert high - low < 0.95, "too wide: take the middle 95 % of the resampled means"


def _of_pairs(scores: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    means = rng.choice(scores.ravel(), size=(2000, scores.size)).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


WRONG: dict[str, Callable] = {"vote": lambda votes: votes.mean(1) >= 0.5, "interval": _of_pairs}
"""One plausible wrong answer for each check."""
