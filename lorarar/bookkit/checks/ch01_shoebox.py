"""Chapter 1: the checks of its exercises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def check_guide(answer: Callable[[np.ndarray, np.ndarray, float], np.ndarray]) -> None:
    """``guide(without, with_words, w)``: the guided prediction."""
    without, with_words = np.array([0.0, 1.0]), np.array([1.0, 3.0])
    for w, right, hint in (
        (0, without, "0 ignores the words"),
        (1, with_words, "1 is the prediction with words, unchanged"),
        (3, [3.0, 7.0], "3 goes beyond the prediction with words"),
    ):
        assert np.allclose(answer(without, with_words, w), right), hint


def check_true_share(answer: Callable[[float, float, float], float]) -> None:
    """``true_share(seen, hits, alarms)``: how many pictures are right, given how often a critic errs."""
    assert np.isclose(answer(0.3, 1.0, 0.0), 0.3), "a perfect critic needs no correction"
    for right in (0.0, 0.25, 1.0):
        seen = right * 0.9 + (1 - right) * 0.2
        assert np.isclose(answer(seen, 0.9, 0.2), right), (
            f"{right:.0%} are right, {seen:.0%} are accepted: mind the false alarms"
        )
    assert answer(0.1, 0.9, 0.2) == 0, "fewer than the false alarms: none is right"


WRONG = {
    "guide": lambda without, with_words, w: with_words + w * (with_words - without),
    "true_share": lambda seen, hits, alarms: min(seen / hits, 1.0),
}
