"""Checks of chapter 10's exercises, and plausible wrong answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def check_paired(paired: Callable) -> None:
    """``paired(first, second, rng)``: mean difference of scores (subjects, styles), low, high."""
    hard = np.tile(np.arange(6) % 2 * 0.5, (6, 1))  # every other style is hard for both
    value, low, high = paired(hard + 0.25, hard, np.random.default_rng(1))
    assert abs(value - 0.25) < 1e-9, "the first is better by a quarter"
    assert abs(low - 0.25) < 1e-9 and abs(high - 0.25) < 1e-9, (
        "the difference is the same in every pair: resample differences, do not subtract two intervals"
    )
    gaps = np.zeros((6, 6))
    gaps[:3] = 1  # the first wins with three subjects, in all styles
    value, low, high = paired(gaps, np.zeros((6, 6)), np.random.default_rng(1))
    assert low < 0.5 < high, "differences that vary have an interval"
    assert high - low > 0.6, "too narrow: pairs of one subject are alike, draw subjects and styles"


def check_chance_of_first(chance_of_first: Callable[[np.ndarray], np.ndarray]) -> None:
    """``chance_of_first(means)``: (draws, methods) to (methods,), ties shared."""
    sure = np.tile([0.9, 0.5, 0.1], (9, 1))
    assert np.allclose(chance_of_first(sure), [1, 0, 0]), "who is ahead in every draw is always first"
    assert np.allclose(chance_of_first(np.full((9, 4), 0.5)), 0.25), (
        "four that tie have a quarter each, whatever their order in the table"
    )
    mixed = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.5, 0.5]])
    assert np.allclose(chance_of_first(mixed), [0.625, 0.375]), "count the draws, half a draw for each of two"


def _of_pairs(first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    gaps = (first - second).ravel()
    low, high = np.quantile(rng.choice(gaps, size=(2000, gaps.size)).mean(1), [0.025, 0.975])
    return float(gaps.mean()), float(low), float(high)


def _first_of_equals(means: np.ndarray) -> np.ndarray:
    return np.bincount(means.argmax(1), minlength=means.shape[1]) / len(means)


WRONG: dict[str, Callable] = {"paired": _of_pairs, "chance_of_first": _first_of_equals}
"""One plausible wrong answer for each check."""
