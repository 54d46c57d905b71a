"""The judges judged: on drawings whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from lorarar.judging import Encoder, image_similarity
from lorarar.pipelines import quiet
from lorarar.study.verdicts import Judge

with quiet():
    from lorarar.shoebox.models.examination import cases, measure_named


def examined(
    judges: Sequence[Judge],
    metrics: Mapping[str, Encoder],
    *,
    each: int = 6,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Let judges and metrics see drawings whose truth is known: the hard cases of every subject and style.

    The cases are those of `eyes.cases`, in its order. The judges use their own references, as in the
    experiment; a metric is the mean cosine with the case's.

    Args:
        judges: see `find_judge`.
        metrics: encoders by the name of their metric, such as CLIP-I and DINO.
        each: drawings of a case that show its subject or style, and as many that show a rival.
        seed: of the drawings.
        progress: show a bar.

    Returns:
        {"each", "seed", "verdicts": {judge: {name: "110…"}}, "reports": {judge: see `eyes.measure_named`},
        "chosen": see `better`, "scores": {metric: {name: [cosine, …]}}}; a letter or cosine for each image,
        the first `each` of which show what the case is about.

    Raises:
        ValueError: no judge, or each is below 1.
    """
    if not judges:
        raise ValueError("name at least one judge")
    if each < 1:
        raise ValueError(f"each must be at least 1, not {each}")
    drawn = cases(each, seed)
    said: dict[str, dict[str, np.ndarray]] = {by.name: {} for by in judges}
    scores: dict[str, dict[str, list[float]]] = {metric: {} for metric in metrics}
    for case in tqdm(drawn, "judges", unit="case", disable=not progress):
        for by in judges:
            said[by.name][case.name] = by.shows(case.name, case.images)
        for metric, encoder in metrics.items():
            cosines = image_similarity(encoder, case.images, case.references)
            scores[metric][case.name] = [round(float(value), 4) for value in cosines]
    reports = {
        name: measure_named(lambda case, answers=answers: answers[case.name], drawn)
        for name, answers in said.items()
    }
    return {
        "each": each,
        "seed": seed,
        "verdicts": {
            name: {case: "".join(str(int(yes)) for yes in row) for case, row in answers.items()}
            for name, answers in said.items()
        },
        "reports": reports,
        "chosen": better(reports),
        "scores": scores,
    }


def better(reports: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return the judge whose worse axis has the highest balanced accuracy; the first of equals."""
    return max(reports, key=lambda name: min(side["balanced accuracy"] for side in reports[name].values()))
