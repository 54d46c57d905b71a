"""What people's answers come to: preference, agreement among people, agreement with the judge.

Answers are (participants, questions): 1 for the first method, 0 for similar, -1 for the second, NaN for none.
Every participant meets every pair, so an interval draws both anew, each for itself
(`lorarar.study.statistics.crossed_means`): it speaks of other people and other pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from lorarar.study.answers import Answer
from lorarar.study.statistics import LEVEL, RESAMPLES, Entry, crossed_means, rank_correlation
from lorarar.study.survey import CHOICES, Question

SCORES = {"first": 1.0, "similar": 0.0, "second": -1.0}

DRAWS = 500
"""For the intervals of what is computed anew for each draw."""


def matrix(answers: Sequence[Answer], questions: Sequence[Question]) -> np.ndarray:
    """Return the answers to these questions: (participants who gave any, questions), NaN where none is."""
    columns = {q.id: i for i, q in enumerate(questions)}
    mine = [one for one in answers if one.question.id in columns]
    rows = {person: i for i, person in enumerate(dict.fromkeys(one.participant for one in mine))}
    table = np.full((len(rows), len(columns)), np.nan)
    for one in mine:
        table[rows[one.participant], columns[one.question.id]] = SCORES[one.choice]
    return table


def preference(table: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Entry]:
    """Return the shares of answers for the first method, similar and the second, and the first's lead.

    Args:
        table: answers (participants, questions).
        resamples: draws of participants and questions.
        seed: of the draws.

    Returns:
        Entries "first", "similar", "second" and "lead" (first minus second), with 95 % intervals.

    Raises:
        ValueError: there is no answer.
    """
    there = ~np.isnan(table)
    if not there.any():
        raise ValueError("no answers yet")
    sides = np.stack([table == SCORES[name] for name in CHOICES] + [there]).astype(float)
    drawn = crossed_means(sides, resamples, seed)  # (resamples, 4)
    drawn = drawn[drawn[:, 3] > 0]  # a draw may meet nobody who answered
    counted = sides.reshape(4, -1).sum(1)
    shares, means = drawn[:, :3] / drawn[:, 3:], counted[:3] / counted[3]
    entries = {name: entry(means[i], shares[:, i]) for i, name in enumerate(CHOICES)}
    return entries | {"lead": entry(means[0] - means[2], shares[:, 0] - shares[:, 2])}


def counts(table: np.ndarray) -> np.ndarray:
    """Return how many people gave each answer to each question: (questions, 3), in the order of `CHOICES`."""
    return np.stack([(table == SCORES[name]).sum(0) for name in CHOICES], axis=1)


def fleiss_kappa(counts: np.ndarray) -> float:
    """Return how much more people agree than by chance (Fleiss 1971): 1 always, 0 as by chance.

    Questions may have different numbers of answers; those with fewer than two say nothing of agreement.

    Args:
        counts: how many people gave each answer to each question, (questions, answers).

    Returns:
        κ; NaN if no question has two answers, or all answers are the same.
    """
    counts = np.asarray(counts, float)
    counts = counts[counts.sum(1) >= 2]
    if not len(counts) or (counts.sum(0) > 0).sum() < 2:
        return float("nan")
    n = counts.sum(1)
    agreeing = ((counts**2).sum(1) - n) / (n * (n - 1))  # of the pairs of people, for each question
    chance = ((counts.sum(0) / counts.sum()) ** 2).sum()
    return float((agreeing.mean() - chance) / (1 - chance))


def agreement(table: np.ndarray, resamples: int = DRAWS, seed: int = 0) -> Entry:
    """Return Fleiss' κ among people, with an interval over questions.

    People are not drawn anew: a person who is drawn twice agrees with themselves.
    """
    found = counts(table)
    rng = np.random.default_rng(seed)
    drawn = [fleiss_kappa(found[rng.integers(len(found), size=len(found))]) for _ in range(resamples)]
    return entry(fleiss_kappa(found), np.array(drawn))


def with_judge(table: np.ndarray, questions: Sequence[Question], seed: int = 0) -> dict[str, Any]:
    """Compare people's answers with what the judge says of the same images.

    The judge prefers the image that it found right if it found the other wrong; both right, or both wrong, is
    similar to it.

    Returns:
        "kappa": Cohen's κ of single answers with the judge's, with an interval over questions (None if the
        judge prefers nothing, as in the best scenario); "correlation": Spearman's, over questions, of
        people's mean answer with how much more often the judge finds the first method's images of the pair
        right than the second's; "questions": how many.

    Raises:
        ValueError: the study was drawn without a judge.
    """
    if any(q.right is None or q.shares is None for q in questions):
        raise ValueError("this study has no verdicts of a judge")
    judged = np.array([float(q.right[0]) - float(q.right[1]) for q in questions])
    shares = np.array([q.shares[0] - q.shares[1] for q in questions])
    has = ~np.isnan(table).all(0)
    mean = np.nanmean(table[:, has], axis=0)

    def cohen(columns: np.ndarray) -> float:
        people, judge = table[:, columns].ravel(), np.tile(judged[columns], len(table))
        there = ~np.isnan(people)
        if len(np.union1d(people[there], judge[there])) < 2:
            return float("nan")
        return cohen_kappa_score(people[there].astype(int), judge[there].astype(int))

    rng = np.random.default_rng(seed)
    draws = rng.integers(len(questions), size=(DRAWS, len(questions)))
    if np.ptp(judged[has]) == 0:
        kappa = None
    else:
        kappa = entry(cohen(np.flatnonzero(has)), np.array([cohen(columns) for columns in draws]))
    picked = rng.integers(has.sum(), size=(DRAWS, has.sum()))
    correlations = np.array([rank_correlation(mean[i], shares[has][i]) for i in picked])
    correlation = entry(rank_correlation(mean, shares[has]), correlations)
    return {"kappa": kappa, "correlation": correlation, "questions": int(has.sum())}


def left_share(answers: Sequence[Answer]) -> tuple[float, int, float]:
    """Return how often the left image was chosen, of how many choices, and whether that is more than chance.

    The last is a binomial test's p value, two-sided.
    """
    decided = [one for one in answers if one.choice != "similar"]
    left = sum((one.choice == "second") == one.swapped for one in decided)
    if not decided:
        return float("nan"), 0, float("nan")
    return left / len(decided), len(decided), float(stats.binomtest(left, len(decided)).pvalue)


def analysed(answers: Sequence[Answer], questions: Sequence[Question]) -> dict[str, dict[str, Any]]:
    """Return what the answers come to, for each part of a study that has any.

    Returns:
        {part: "methods", "participants", "questions", "answers", the entries of `preference`, "agreement"
        (`agreement`), "judge" (`with_judge`; None without a judge), "left" (`left_share`)}.

    Raises:
        ValueError: there is no answer at all.
    """
    found = {}
    for part in dict.fromkeys(q.part for q in questions):
        asked = [q for q in questions if q.part == part]
        table = matrix(answers, asked)
        if not len(table):
            continue
        found[part] = {
            "methods": asked[0].methods,
            "participants": len(table),
            "questions": len(asked),
            "answers": int((~np.isnan(table)).sum()),
            **preference(table),
            "agreement": agreement(table),
            "judge": None if asked[0].right is None else with_judge(table, asked),
            "left": left_share([one for one in answers if one.question.part == part]),
        }
    if not found:
        raise ValueError("no answers yet")
    return found


def entry(value: float, drawn: np.ndarray) -> Entry:
    """Return a number with the interval of what was drawn anew, without NaN; NaN where nothing is left."""
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return Entry(float(value), float("nan"), float("nan"))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Entry(float(value), float(low), float(high))
