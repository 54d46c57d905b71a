"""Intervals over subjects × styles: against draws written out, and on cases whose answer is known."""

import numpy as np
import pytest
from scipy import stats

from lorarar.study import statistics
from lorarar.study.statistics import Entry


def some(shape=(5, 4), seed=0):
    return np.random.default_rng(seed).random(shape)


def test_crossed_means_are_the_means_of_drawn_rows_and_columns():
    """The same distribution as drawing indices, written out: mean and spread of many draws."""
    scores, rng = some(), np.random.default_rng(1)
    rows, columns = rng.integers(5, size=(20_000, 5)), rng.integers(4, size=(20_000, 4))
    drawn = scores[rows[:, :, None], columns[:, None, :]].mean((1, 2))
    found = statistics.crossed_means(scores, 20_000)
    assert found.shape == (20_000,)
    assert found.mean() == pytest.approx(drawn.mean(), abs=0.002)
    assert found.std() == pytest.approx(drawn.std(), rel=0.03)
    assert np.quantile(found, [0.025, 0.975]) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.006)


def test_methods_share_their_draws():
    scores = np.stack([some(), some() + 0.1])
    means = statistics.crossed_means(scores, 200)
    assert np.allclose(means[:, 1] - means[:, 0], 0.1)


def test_training_seeds_are_a_third_thing_that_is_drawn():
    scores, rng = some((3, 5, 4), 5), np.random.default_rng(1)
    seeds, rows, columns = (rng.integers(n, size=(20_000, n)) for n in scores.shape)
    drawn = scores[seeds[:, :, None, None], rows[:, None, :, None], columns[:, None, None, :]].mean((1, 2, 3))
    found = statistics.crossed(scores, 20_000, factors=3)
    assert found.value == pytest.approx(scores.mean())
    assert found[1:] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.006)
    luck = np.array([0.3, 0.5, 0.7])[:, None, None] * np.ones((3, 5, 4))  # seeds differ, and nothing else
    assert statistics.crossed(luck.mean(0)) == pytest.approx((0.5, 0.5, 0.5))
    assert statistics.crossed(luck, factors=3)[1:] == pytest.approx((0.3, 0.7), abs=0.08)


def test_a_plain_bootstrap_is_a_loop_and_as_wide_as_theory_says():
    scores = some((5, 5), 3)
    value, low, high = statistics.independent(scores)
    assert value == pytest.approx(scores.mean())
    draw = np.random.default_rng(7)
    means = [scores.ravel()[draw.integers(25, size=25)].mean() for _ in range(10_000)]
    assert (low, high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.01)
    many = (some((600, 1), 6) < 0.3).astype(float)
    value, low, high = statistics.independent(many)
    error = many.std() / np.sqrt(600)
    assert (low - value, high - value) == pytest.approx((-1.96 * error, 1.96 * error), rel=0.08)


def test_a_subject_that_is_hard_everywhere_widens_the_crossed_interval_alone():
    scores = np.zeros((5, 5))
    scores[:2] = 1  # two easy subjects, whatever the style
    narrow, wide = statistics.independent(scores), statistics.crossed(scores)
    assert narrow.value == wide.value == pytest.approx(0.4)
    assert wide.high - wide.low > 1.8 * (narrow.high - narrow.low)
    news = some((40, 40), 4)  # nothing is shared: the two are of one size
    widths = [e.high - e.low for e in (statistics.independent(news), statistics.crossed(news))]
    assert 1.0 < widths[1] / widths[0] < 2.0


def test_a_constant_has_no_interval():
    for interval in (statistics.crossed, statistics.independent):
        assert interval(np.full((3, 2), 0.5)) == pytest.approx((0.5, 0.5, 0.5))


def test_differences_are_those_of_pairs():
    rng = np.random.default_rng(2)
    one, two = rng.random((25, 10)) < 0.6, rng.random((25, 10)) < 0.4
    gaps = statistics.grid(one, 5) - statistics.grid(two, 5)
    assert statistics.independent(gaps).value == pytest.approx(one.mean() - two.mean())
    assert statistics.grid(one, 5, "best").shape == (5, 5)
    with pytest.raises(ValueError, match="25 pairs are no grid of 4 subjects"):
        statistics.grid(one, 4)
    with pytest.raises(ValueError, match="expected scores of subjects × styles, not shape"):
        statistics.crossed(np.zeros(3))


def test_winners_share_ties():
    assert statistics.winners(np.stack([np.full((3, 3), s) for s in (0.9, 0.5)])) == pytest.approx([1, 0])
    assert statistics.winners(np.full((4, 3, 3), 0.5)) == pytest.approx([0.25] * 4)


def test_rank_agreement():
    scores = np.stack([some((5, 5), s) * 0.01 + s for s in range(6)])
    assert statistics.rank_agreement(scores, scores) == pytest.approx((1, 1, 1))
    assert statistics.rank_agreement(scores, -np.arange(6)) == pytest.approx((-1, -1, -1))
    assert statistics.rank_correlation(np.ones(4), np.arange(4)) == 0
    noisy = np.stack([some((5, 5), s) for s in range(6)])
    found = statistics.rank_agreement(noisy, np.arange(6.0), 300)
    drawn = [stats.spearmanr(m, np.arange(6)).statistic for m in statistics.crossed_means(noisy, 300)]
    assert found[1:] == pytest.approx(np.quantile(drawn, [0.025, 0.975]))


def test_settled_takes_two_that_agree():
    up, down, both = Entry(0.2, 0.1, 0.3), Entry(-0.2, -0.3, -0.1), Entry(0.1, -0.1, 0.3)
    assert [statistics.settled(entry) for entry in (up, down, both)] == [1, -1, 0]
    assert [statistics.settled(up, other) for other in (up, both, down)] == [1, 0, 0]
    assert statistics.settled() == 0
