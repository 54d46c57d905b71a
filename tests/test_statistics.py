"""Intervals over subjects × styles: against draws written out, and on cases whose answer is known."""

import numpy as np
import pytest
from scipy import stats

from lorarar.judging import Entry, bootstrap, difference
from lorarar.study import statistics


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


def test_pairs_are_drawn_as_before():
    scores = some((5, 5), 3)
    value, low, high = statistics.over_pairs(scores)
    assert value == pytest.approx(scores.mean())
    assert (low, high) == pytest.approx(bootstrap(scores.ravel()), abs=0.01)


def test_a_subject_that_is_hard_everywhere_widens_the_crossed_interval_alone():
    scores = np.zeros((5, 5))
    scores[:2] = 1  # two easy subjects, whatever the style
    narrow, wide = statistics.over_pairs(scores), statistics.crossed(scores)
    assert narrow.value == wide.value == pytest.approx(0.4)
    assert wide.high - wide.low > 1.8 * (narrow.high - narrow.low)
    independent = some((40, 40), 4)  # nothing is shared: the two are of one size
    widths = [e.high - e.low for e in (statistics.over_pairs(independent), statistics.crossed(independent))]
    assert 1.0 < widths[1] / widths[0] < 2.0


def test_a_constant_has_no_interval():
    for interval in (statistics.crossed, statistics.over_pairs):
        assert interval(np.full((3, 2), 0.5)) == pytest.approx((0.5, 0.5, 0.5))


def test_differences_are_those_of_pairs():
    rng = np.random.default_rng(2)
    one, two = rng.random((25, 10)) < 0.6, rng.random((25, 10)) < 0.4
    gaps = statistics.grid(one, 5) - statistics.grid(two, 5)
    assert statistics.over_pairs(gaps) == pytest.approx(difference(one, two), abs=0.01)
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
