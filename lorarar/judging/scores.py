"""Tables of verdicts: average and best case, intervals over pairs, differences, heat maps.

``right`` is bool (pairs, images): for each subject-style pair, which images are right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np


# Tables. `right` is bool (pairs, images): for each subject-style pair, which images are right.
class Entry(NamedTuple):
    """A table's entry: a share, and the ends of its confidence interval."""

    value: float
    low: float
    high: float


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


def average_case(right: np.ndarray) -> float:
    """Share of images that are right."""
    return float(by_pair(right, "average").mean())


def best_case(right: np.ndarray) -> float:
    """Share of pairs with at least one image that is right."""
    return float(by_pair(right, "best").mean())


def bootstrap(
    scores: np.ndarray, resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Give the percentile bootstrap interval of a mean over pairs (Efron 1979): (low, high).

    Pairs are drawn with replacement, each with all its images, since images of one pair are alike. scores:
    (pairs,).
    """
    scores = np.asarray(scores, float)
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"expected one score for each pair, not shape {scores.shape}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    drawn = np.random.default_rng(seed).integers(len(scores), size=(resamples, len(scores)))
    low, high = np.quantile(scores[drawn].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def entry(right: np.ndarray, case: Literal["average", "best"], **options: Any) -> Entry:
    """Give a table's entry for verdicts (pairs, images); options are `bootstrap`'s."""
    scores = by_pair(right, case)
    return Entry(float(scores.mean()), *bootstrap(scores, **options))


def table(verdicts: Mapping[str, np.ndarray], **options: Any) -> dict[str, dict[str, Entry]]:
    """Give average and best case of each method, as {method: {"average": …, "best": …}}.

    verdicts: (pairs, images) for each method; options are `bootstrap`'s.
    """
    return {
        method: {case: entry(right, case, **options) for case in ("average", "best")}
        for method, right in verdicts.items()
    }


def difference(
    first: np.ndarray,
    second: np.ndarray,
    case: Literal["average", "best"] = "average",
    **options: Any,
) -> Entry:
    """Say by how much the first method is better than the second on the same pairs, with an interval.

    Narrower than the two entries' intervals suggest, for a pair that is hard is hard for both.
    """
    if len(first) != len(second):
        raise ValueError(f"methods are compared on the same pairs, not on {len(first)} and {len(second)}")
    scores = by_pair(first, case) - by_pair(second, case)
    return Entry(float(scores.mean()), *bootstrap(scores, **options))


def heat_maps(right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the two heat maps of figure A7, each (subjects, styles): shares, and whether any image is right.

    right: bool (subjects, styles, images).
    """
    right = np.asarray(right)
    if right.ndim != 3:
        raise ValueError(f"expected verdicts for (subjects, styles, images), not shape {right.shape}")
    flat = right.reshape(-1, right.shape[-1])
    maps = (by_pair(flat, case).reshape(right.shape[:2]) for case in ("average", "best"))
    return tuple(maps)
