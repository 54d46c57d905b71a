"""Scores of verdicts: average and best case of each pair, heat maps. Intervals: `lorarar.study.statistics`.

``right`` is bool (pairs, images): for each subject-style pair, which images are right."""

from __future__ import annotations

from typing import Literal

import numpy as np


def _pairs(right: np.ndarray) -> np.ndarray:
    right = np.asarray(right)
    if right.ndim != 2 or right.size == 0:
        raise ValueError(
            f"expected verdicts for (pairs, images), at least one of each, not shape {right.shape}"
        )
    if right.dtype != bool and not np.isin(right, (0, 1)).all():
        raise ValueError("verdicts are true or false (0 or 1)")
    return right.astype(bool)


def by_pair(right: np.ndarray, case: Literal["average", "best"]) -> np.ndarray:
    """Score each pair, (pairs,): the share of its images that are right, or whether any is."""
    if case not in ("average", "best"):
        raise ValueError(f"no case {case!r}: choose average or best")
    right = _pairs(right)
    return right.mean(1) if case == "average" else right.any(1).astype(float)


def heat_maps(right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the two heat maps of figure A7, each (subjects, styles): shares, and whether any image is right.

    right: bool (subjects, styles, images).
    """
    right = np.asarray(right)
    if right.ndim != 3:
        raise ValueError(f"expected verdicts for (subjects, styles, images), not shape {right.shape}")
    flat = right.reshape(-1, right.shape[-1])
    average, best = (by_pair(flat, case).reshape(right.shape[:2]) for case in ("average", "best"))
    return average, best
