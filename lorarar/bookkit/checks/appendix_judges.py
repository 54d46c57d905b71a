"""Checks of the exercise on the best case, and a plausible wrong answer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np


def check_best_of(best_of: Callable[[np.ndarray, int], float]) -> None:
    """``best_of(right, count)``: the chance of a right one among some images of a pair, a mean."""
    right = np.random.default_rng(0).random((6, 7)) < np.linspace(0, 0.9, 6)[:, None]
    assert abs(best_of(right, 1) - right.mean()) < 1e-9, "with one image the best case is the average case"
    assert abs(best_of(right, 7) - right.any(1).mean()) < 1e-9, (
        "with all images a pair has a right one or has none: images are drawn without replacement"
    )
    for count in (2, 5):
        tried = [right[:, list(some)].any(1) for some in combinations(range(7), count)]
        assert abs(best_of(right, count) - np.mean(tried)) < 1e-9, "try every choice of so many images"


def _independent(right: np.ndarray, count: int) -> float:
    return float(np.mean(1 - (1 - right.mean(1)) ** count))


WRONG: dict[str, Callable] = {"best_of": _independent}
