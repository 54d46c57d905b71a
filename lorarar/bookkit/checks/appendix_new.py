"""Checks of the exercise on three subjects, and a plausible wrong answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement
from math import factorial, prod

import numpy as np


def check_resamples(resamples: Callable[[Sequence[float]], list[float]]) -> None:
    """``resamples(shares)``: the mean of every draw of n out of n with replacement, nⁿ of them."""
    found = sorted(resamples([0.0, 0.1, 0.4]))
    assert len(found) == 27, (
        "three subjects can be drawn in 27 ways: the order counts, so that each is as likely"
    )
    expected = []
    for some in combinations_with_replacement([0.0, 0.1, 0.4], 3):
        ways = factorial(3) // prod(factorial(some.count(share)) for share in {*some})
        expected += ways * [sum(some) / 3]
    assert np.allclose(found, sorted(expected)), "take the mean of each draw"
    assert len(resamples([0.2, 0.8])) == 4, "two subjects can be drawn in four ways"


def _unordered(shares: Sequence[float]) -> list[float]:
    return [float(np.mean(some)) for some in combinations_with_replacement(shares, len(shares))]


WRONG: dict[str, Callable] = {"resamples": _unordered}
