"""How sure a table is: intervals for shares and differences over subjects × styles.

Every subject of a split meets every style, so a hard subject is hard in all its pairs. To draw pairs as if
each were news makes intervals too narrow; to draw subjects and styles, each for themselves, keeps what pairs
share (McCullagh 2000, "Resampling and exchangeable arrays"; Owen 2007, "The pigeonhole bootstrap"). The first
errs to the narrow side, the second to the wide side. Both are percentile intervals (Efron 1979).

Scores are (…, subjects, styles): for each pair the share of its images that are right, or whether any is.
What was trained several times has a third crossed factor, its seeds, which stand before subjects and styles.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from lorarar.judging import Verdicts, by_pair

RESAMPLES = 10_000
LEVEL = 0.95


class Entry(NamedTuple):
    """A table's entry: a mean or a difference of means, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def grid(
    verdicts: Verdicts | np.ndarray, subjects: int, case: Literal["average", "best"] = "average"
) -> np.ndarray:
    """Score each pair: (subjects, styles).

    Args:
        verdicts: bool (pairs, images), the styles of a subject next to each other; of `Verdicts`, ``right``.
        subjects: how many there are.
        case: the share of a pair's images that are right, or whether any of them is.

    Raises:
        ValueError: the pairs are no grid of that many subjects.
    """
    right = verdicts.right if isinstance(verdicts, Verdicts) else np.asarray(verdicts)
    scores = by_pair(right, case)
    if subjects < 1 or len(scores) % subjects:
        raise ValueError(f"{len(scores)} pairs are no grid of {subjects} subjects and their styles")
    return scores.reshape(subjects, -1)


def crossed_means(
    scores: np.ndarray, resamples: int = RESAMPLES, seed: int = 0, factors: int = 2
) -> np.ndarray:
    """Draw subjects and styles with replacement, and take the mean over their pairs.

    Args:
        scores: (…, subjects, styles). All that stands before shares its draws, so that methods can be
            compared draw by draw.
        resamples: how many draws.
        seed: of the draws.
        factors: how many last axes are drawn, each for itself; 3 if training seeds stand before subjects.

    Returns:
        (resamples, …).

    Raises:
        ValueError: there are fewer axes than factors, or no scores.
    """
    scores = np.asarray(scores, float)
    if scores.ndim < factors or scores.size == 0:
        raise ValueError(f"expected scores of subjects × styles, not shape {scores.shape}")
    rng = np.random.default_rng(seed)
    # How often each is drawn, as a share: (resamples, n) for each factor.
    drawn = [rng.multinomial(n, np.full(n, 1 / n), resamples) / n for n in scores.shape[-factors:]]
    names = "abcdefgh"[:factors]
    weighed = ",".join(f"n{name}" for name in names)
    return np.einsum(f"{weighed},...{names}->n...", *drawn, scores, optimize=True)


def crossed(scores: np.ndarray, resamples: int = RESAMPLES, seed: int = 0, factors: int = 2) -> Entry:
    """Return the mean of scores (subjects, styles) with its interval over subjects and styles.

    With three factors scores are (training seeds, subjects, styles), and seeds are drawn too.
    """
    means = crossed_means(scores, resamples, seed, factors)
    return Entry(float(np.mean(scores)), *_middle(means))


def independent(scores: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Entry:
    """Return the mean of scores with the interval of a plain bootstrap, as if each score were news."""
    flat = np.ravel(np.asarray(scores, float))
    if np.ptp(flat) == 0:
        return Entry(*[float(flat[0])] * 3)
    interval = stats.bootstrap(
        (flat,),
        np.mean,
        n_resamples=resamples,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Entry(float(flat.mean()), float(interval.low), float(interval.high))


def winners(scores: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Return in which share of draws each method has the highest mean, ties shared: (methods,).

    scores: (methods, subjects, styles).
    """
    means = crossed_means(scores, resamples, seed)  # (resamples, methods)
    top = means >= means.max(1, keepdims=True) - 1e-12
    return (top / top.sum(1, keepdims=True)).mean(0)


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Spearman's rank correlation of two (methods,); zero where nothing varies."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(stats.spearmanr(one, other).statistic)


def rank_agreement(one: np.ndarray, other: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Entry:
    """Return the rank correlation of two orders of methods, with its interval over subjects and styles.

    Args:
        one: scores (methods, subjects, styles), or (methods,) for numbers that are not resampled.
        other: the same by another judge or metric.
        resamples: how many draws.
        seed: of the draws, which both share.
    """
    sides = [np.asarray(side, float) for side in (one, other)]
    value = rank_correlation(*(side.reshape(len(side), -1).mean(1) for side in sides))
    drawn = [
        crossed_means(side, resamples, seed) if side.ndim == 3 else np.tile(side, (resamples, 1))
        for side in sides
    ]
    ranks = [stats.rankdata(side, axis=1) for side in drawn]  # Spearman's is Pearson's of the ranks
    centred = [rank - rank.mean(1, keepdims=True) for rank in ranks]
    norms = [np.linalg.norm(side, axis=1) for side in centred]
    product = (centred[0] * centred[1]).sum(1)
    scale = norms[0] * norms[1]
    return Entry(value, *_middle(np.divide(product, scale, out=np.zeros_like(scale), where=scale > 0)))


def settled(*differences: Entry) -> int:
    """Return 1 if every interval lies above zero, -1 if every one lies below, and 0 if nothing is settled.

    Give it a difference on the test and the same one on validation: luck seldom says the same thing twice.
    """
    if not differences:
        return 0
    above, below = all(d.low > 0 for d in differences), all(d.high < 0 for d in differences)
    return int(above) - int(below)


def _middle(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
