"""How many people and pairs a study needs: the chance that it settles a preference, by simulation.

Nobody's answers are invented here: what is drawn are whole studies under an assumption, to plan a real one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats
from tqdm import tqdm

from lorarar.study.preference import counts, fleiss_kappa
from lorarar.study.statistics import LEVEL, crossed_means

LEADS = (0.0, 0.1, 0.2, 0.3)
PEOPLE = (5, 10, 25, 50, 100)
PAIRS = (25, 50, 100)
ALIKE = (0.1, 0.3, 0.6)


def simulated(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    lead: float,
    similar: float,
    alike: float,
    taste: float,
) -> np.ndarray:
    """Draw answers from a model: what a person feels about a pair is a normal number, cut into three ranges.

    The number is the sum of the pair's own, which all people share, the person's own, which holds for all
    pairs, and the moment's.

    Args:
        rng: draws.
        shape: (…, participants, questions).
        lead: share of answers for the first method minus that for the second, over all people and pairs.
        similar: share of answers that say similar.
        alike: which share of the number's variance is the pair's; how much people agree comes from it.
        taste: which share is the person's.

    Returns:
        1, 0 and -1.

    Raises:
        ValueError: there are no such shares.
    """
    first, second = (1 - similar + lead) / 2, (1 - similar - lead) / 2
    if not (0 < first < 1 and 0 < second < 1 and 0 <= similar < 1):
        raise ValueError(f"no shares have {similar:.0%} similar and a lead of {lead:.0%}")
    if alike < 0 or taste < 0 or alike + taste > 1:
        raise ValueError(f"alike ({alike}) and taste ({taste}) are shares of one variance")
    *more, people, pairs = shape
    felt = (
        np.sqrt(alike) * rng.standard_normal((*more, 1, pairs))
        + np.sqrt(taste) * rng.standard_normal((*more, people, 1))
        + np.sqrt(1 - alike - taste) * rng.standard_normal((*more, people, pairs))
    )
    low, high = stats.norm.ppf(second), -stats.norm.ppf(first)
    return (felt > high).astype(float) - (felt < low)


def power(
    people: int,
    pairs: int,
    lead: float,
    *,
    similar: float = 0.3,
    alike: float = 0.2,
    taste: float = 0.05,
    studies: int = 1000,
    resamples: int = 500,
    seed: int = 0,
) -> float:
    """Return which share of simulated studies settles that the first method is preferred.

    A study settles it if the crossed interval of its lead lies above zero (`preference`).

    Args:
        people: participants of each study.
        pairs: questions of each study.
        lead: that is true of all people and pairs (`simulated`, as the next three).
        similar: share of answers that say similar.
        alike: how alike people are.
        taste: how different they are.
        studies: how many are simulated.
        resamples: draws of each study's interval.
        seed: of all draws.
    """
    rng = np.random.default_rng([seed, people, pairs])
    tables = simulated(rng, (studies, people, pairs), lead, similar, alike, taste)
    low = np.quantile(crossed_means(tables, resamples, seed), (1 - LEVEL) / 2, axis=0)  # (studies,)
    return float((low > 0).mean())


def planned(
    *, studies: int = 400, resamples: int = 500, seed: int = 0, progress: bool = True
) -> dict[str, Any]:
    """Return the power of studies of many sizes, leads and kinds of people.

    Returns:
        "people", "pairs", "leads", "alike": the sizes; "power": nested lists by alike, lead, pairs, people;
        "kappa": Fleiss' κ of a large simulated study for each alike; "similar", "taste", "studies".
    """
    similar, taste = 0.3, 0.05
    power_of: list[Any] = []
    with tqdm(total=len(ALIKE) * len(LEADS) * len(PAIRS), unit="plan", disable=not progress) as bar:
        for alike in ALIKE:
            power_of.append([])
            for lead in LEADS:
                power_of[-1].append([])
                for pairs in PAIRS:
                    more = {"similar": similar, "alike": alike, "taste": taste, "studies": studies}
                    power_of[-1][-1].append(
                        [power(n, pairs, lead, **more, resamples=resamples, seed=seed) for n in PEOPLE]
                    )
                    bar.update()
    rng = np.random.default_rng(seed)
    large = [simulated(rng, (100, 5000), 0.0, similar, alike, taste) for alike in ALIKE]
    return {
        "people": PEOPLE,
        "pairs": PAIRS,
        "leads": LEADS,
        "alike": ALIKE,
        "kappa": [fleiss_kappa(counts(table)) for table in large],
        "power": power_of,
        "similar": similar,
        "taste": taste,
        "studies": studies,
    }
