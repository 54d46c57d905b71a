"""Chapter 3, the merging problem: how often sums are right, what their volume does, and what alignment says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from lorarar.bookkit import records
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.style import (
    judge_of,
)
from lorarar.judging import Entry
from lorarar.shoebox import zoo
from lorarar.study import statistics
from lorarar.study.records import from_record

if TYPE_CHECKING:
    from torch import Tensor

    from lorarar.lora import LoRA

Weights = tuple[float, float]
FULL, EVEN, SUBJECT_FIRST, STYLE_FIRST = (1.0, 1.0), (0.7, 0.7), (1.0, 0.5), (0.5, 1.0)
SUMS = {"direct": FULL, "even": EVEN, "subject_first": SUBJECT_FIRST, "style_first": STYLE_FIRST}
RIVALS = ("ziplora", "lorarar")
AXES = ("subject", "style")
VOLUMES = (0.4, 0.55, 0.7, 0.85, 1.0)
SHOWN = ("bear plushie", "clock")
"""The subjects of the first figure; the appendix has them all."""


# ---------------------------------------------------------------- recorded runs


def pairs_of(scale: str) -> list[tuple[str, str]]:
    """Return the pairs of the recorded sums, the styles of a subject together."""
    run = records.recorded(f"first_sums{records.suffix(scale)}")["of"]
    return [(row["subject"], row["style"]) for row in run["pairs"]]


def sums(scale: str) -> dict[Weights, dict[str, np.ndarray]]:
    """Return the verdicts on every recorded sum: {weights: {"subject", "style", "both": (pairs, images)}}."""
    run = records.recorded(f"first_sums{records.suffix(scale)}")["of"]
    by_axis = {axis: np.array([row[f"{axis} right"] for row in run["pairs"]], bool) for axis in AXES}
    by_axis["both"] = by_axis["subject"] & by_axis["style"]
    return {
        tuple(w): {axis: right[:, i] for axis, right in by_axis.items()} for i, w in enumerate(run["weights"])
    }


def rivals(scale: str) -> dict[str, dict[str, np.ndarray]]:
    """Return the verdicts on methods with coefficients, on the same pairs with the same noise, as `sums`."""
    run = records.recorded(f"experiment_validation{records.suffix(scale)}")
    every = from_record(run, judge_of(scale))
    named = [(subject, style) for subject in run["subjects"] for style in run["styles"]]
    rows = [named.index(pair) for pair in pairs_of(scale)]
    count = sums(scale)[FULL]["both"].shape[1]
    return {
        m: {
            axis: getattr(every[m], "right" if axis == "both" else axis)[rows, :count]
            for axis in (*AXES, "both")
        }
        for m in ("direct", *RIVALS)
    }


def alone(scale: str) -> dict[str, float]:
    """Return how often a LoRA by itself, asked for itself, is right, on average over each kind."""
    singles = records.recorded(f"first_loras{records.suffix(scale)}")["of"].values()
    return {axis: float(np.mean([row["lora"] for row in singles if row["axis"] == axis])) for axis in AXES}


def _lead(one: np.ndarray, other: np.ndarray, subjects: int) -> Entry:
    """Return by how much one method is right more often, in points, over subjects and styles."""
    scores = [statistics.grid(right, subjects) for right in (one, other)]
    return Entry(*(100 * value for value in statistics.crossed(scores[0] - scores[1])))


def recorded(scale: str = "shoebox") -> Facts:
    """Return the numbers of recorded runs: how often sums, ZipLoRA and LoRA.rar are right."""
    by_weights, others = sums(scale), rivals(scale)
    subjects = len({subject for subject, _ in pairs_of(scale)})
    even = by_weights[EVEN]["both"]
    shares = {name: by_weights[w] for name, w in SUMS.items()} | {m: others[m] for m in RIVALS}
    leads = {
        "even_lead": _lead(even, by_weights[FULL]["both"], subjects),
        "zip_lead": _lead(others["ziplora"]["both"], even, subjects),
        "rar_lead": _lead(others["lorarar"]["both"], even, subjects),
    }
    direct = statistics.crossed(statistics.grid(by_weights[FULL]["both"], subjects))
    return Facts(
        {f"{name}_{axis}": right[axis].mean() for name, right in shares.items() for axis in (*AXES, "both")},
        {f"alone_{axis}": share for axis, share in alone(scale).items()},
        {f"{name}{end}": x for name, lead in leads.items() for end, x in zip(_ENDS, lead, strict=True)},
        pairs=len(even),
        images=even.size,
        direct_low=direct.low,
        direct_high=direct.high,
        subject_gain=100 * (by_weights[EVEN]["subject"].mean() - by_weights[FULL]["subject"].mean()),
        style_loss=100 * (by_weights[FULL]["style"].mean() - by_weights[EVEN]["style"].mean()),
        same_direct=(others["direct"]["both"] == by_weights[FULL]["both"]).mean(),
    )


_ENDS = ("", "_low", "_high")


# ---------------------------------------------------------------- computed in the chapter


def drawn(critic: object, pairs: Sequence[tuple[str, str]], count: int, seed: int) -> dict[str, float]:
    """Return how often the critic passes true drawings of the pairs: by subject, by style, on both axes."""
    verdicts = []
    for subject, style in pairs:
        images = zoo.targets(subject, style, count, seed)
        a, b = zoo.shows(critic, subject, images), zoo.shows(critic, style, images)
        verdicts.append((a, b, a & b))
    return dict(zip((*AXES, "both"), np.mean(verdicts, (0, 2)), strict=True))


def cross_terms(content: LoRA, style: LoRA) -> float:
    """Return the norm of B_c A_s + B_s A_c relative to that of B_c A_c + B_s A_s, over all layers."""
    cross = total = 0.0
    for layer in content:
        (b_c, a_c), (b_s, a_s) = ([x.float() for x in lora[layer]] for lora in (content, style))
        cross += float((b_c @ a_s + b_s @ a_c).square().sum())
        total += float((b_c @ a_c + b_s @ a_s).square().sum())
    return (cross / total) ** 0.5


def cosines(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Tensor:
    """Return the cosine of each column of one update with the same column of another: (columns,)."""
    return torch.cat([torch.cosine_similarity(one[k], other[k], dim=0) for k in one])


def noise_like(lora: LoRA, seed: int) -> dict[str, Tensor]:
    """Return the update of a LoRA whose factors are random numbers, of the same shapes."""
    source = torch.Generator().manual_seed(seed)
    random = {k: [torch.randn(x.shape, generator=source) for x in pair] for k, pair in lora.items()}
    return {k: up @ down for k, (up, down) in random.items()}


def correlation(one: np.ndarray, other: np.ndarray, resamples: int = 2000, seed: int = 0) -> Entry:
    """Return Spearman's correlation of two (subjects, styles) with its interval over subjects and styles."""
    rng, (n, m) = np.random.default_rng(seed), one.shape

    def spearman(rows: np.ndarray, columns: np.ndarray) -> float:
        picks = [side[np.ix_(rows, columns)].ravel() for side in (one, other)]
        return statistics.rank_correlation(*picks)

    drawn = [spearman(rng.integers(n, size=n), rng.integers(m, size=m)) for _ in range(resamples)]
    return Entry(spearman(np.arange(n), np.arange(m)), *np.quantile(drawn, [0.025, 0.975]))
