"""Checks of the exercise on agreement, and a plausible wrong answer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product

import numpy as np


def check_fleiss(fleiss: Callable[[np.ndarray], float]) -> None:
    """``fleiss(votes)``: κ of (questions, people), each vote one of 0, 1, 2."""
    rng = np.random.default_rng(0)
    assert abs(fleiss(np.repeat(rng.permutation(3 * [0, 1, 2])[:, None], 4, 1)) - 1) < 1e-9, (
        "who always agree, and not always on the same answer, have a κ of one"
    )
    votes = rng.choice(3, (12, 5), p=[0.7, 0.2, 0.1])
    same = np.mean([row[a] == row[b] for row in votes for a, b in permutations(range(5), 2)])
    chance = np.mean([a == b for a, b in product(votes.ravel(), repeat=2)])
    assert abs(fleiss(votes) - (same - chance) / (1 - chance)) < 1e-9, (
        "take off what two votes drawn from all of them would share, and count pairs of different people"
    )


def _agreement(votes: np.ndarray) -> float:
    return float(np.mean([np.bincount(row).max() / len(row) for row in votes]))


WRONG: dict[str, Callable] = {"fleiss": _agreement}
