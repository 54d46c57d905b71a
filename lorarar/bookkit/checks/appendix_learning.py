"""Checks of the exercise on what a network learns from, and a plausible wrong answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def check_directions(directions: Callable[[np.ndarray], float]) -> None:
    """``directions(vectors)``: how many directions the rows of (n, d) span, as if all were equally long."""
    assert abs(directions(np.eye(5, 9)) - 5) < 1e-9, "five orthogonal vectors span five directions"
    row = np.random.default_rng(0).standard_normal(7)
    assert abs(directions(np.outer([1, -2, 3, 4], row)) - 1) < 1e-9, (
        "parallel vectors span one direction, and an opposite one adds none"
    )
    drawn = np.random.default_rng(1).standard_normal((6, 4))
    lengths = np.array([[1], [1], [1], [1], [1], [50]])
    cosines = np.corrcoef(np.hstack([drawn, -drawn]))  # means are zero, so that these are cosines
    expected = 36 / (cosines**2).sum()  # the trace is n, and the squares of eigenvalues sum to this
    assert abs(directions(drawn) - expected) < 1e-9, "the eigenvalues are those of the cosines"
    assert abs(directions(lengths * drawn) - expected) < 1e-9, "a long vector counts as much as a short one"


def _rank(vectors: np.ndarray) -> float:
    return float(np.linalg.matrix_rank(vectors))


WRONG: dict[str, Callable] = {"directions": _rank}
