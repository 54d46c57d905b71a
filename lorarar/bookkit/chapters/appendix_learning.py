"""The appendix on what a network learns from: the layer's columns, and the number of training LoRAs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from lorarar.bookkit import contests
from lorarar.bookkit import style as look
from lorarar.bookkit.chapters.ch11_question import PLACE, constants, errors
from lorarar.bookkit.claims import PARTLY, Claim, verdict
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.figures import legend_below
from lorarar.lora import LoRA
from lorarar.shoebox import zoo
from lorarar.study.novelty import inner, size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COUNTS = (10, 20, 39, 69)
"""How many training LoRAs."""
TOLD = (10, 39, 69)
"""Those whose errors are told."""
NETWORKS = "LoRA.rar", "invariants"
"""The networks that were trained on so many, by the first word of their rows."""
KINDS = {
    "kin": "of one class or family",
    "one_axis": "two subjects or styles",
    "two_axes": "a subject and a style",
}
"""What two LoRAs can be to each other."""


def recorded(scale: str = "shoebox") -> Facts:
    """Return the numbers from shipped files: the contests on columns and on LoRAs."""
    return Facts(_columns(scale), _loras(scale))


def _columns(scale: str) -> dict[str, float]:
    rows, leads = contests.means("columns", scale), contests.leads("columns", scale).values()
    facts = {contests.key(name): entry.value for name, entry in rows.items()}
    return facts | {
        "columns_most": max(lead.high for lead in leads),
        "columns_least": max(lead.low for lead in leads),
        "columns_gap": facts["invariants_100"] - _optimum(scale),
    }


def _optimum(scale: str) -> float:
    """Return the mean ρ of ZipLoRA's optima on the validation pairs."""
    return float(constants(scale)["ZipLoRA"].mean())


def _loras(scale: str) -> dict[str, float]:
    rows = contests.means("loras", scale)
    facts = {
        f"{contests.key(n)}_{count}": rows[f"{n}, {count} LoRAs"].value for n in NETWORKS for count in TOLD
    }
    facts["table"] = float(errors(scale)[PLACE]["new"]["own"].mean())
    leads = contests.leads("loras", scale)
    for fewer, more in itertools.pairwise(TOLD):
        lead = leads[f"LoRA.rar, {more} LoRAs", f"LoRA.rar, {fewer} LoRAs"]
        facts |= contests.ends(f"rar_{more}_over_{fewer}", lead)
    return facts


# ---------------------------------------------------------------- this run


def live(alike: np.ndarray, by_kind: Mapping[str, np.ndarray]) -> Facts:
    """Return what the cosines of the training LoRAs say: means by kind, the most alike couple, directions.

    Args:
        alike: `cosines` of all.
        by_kind: `kinds` of them.
    """
    means = {key: float(values.mean()) for key, values in zip(KINDS, by_kind.values(), strict=True)}
    return Facts(
        means,
        {
            "most_alike": max(values.max() for values in by_kind.values()),
            "learnt": len(alike),
            "directions": directions(alike),
        },
    )


def directions(cosines: np.ndarray) -> float:
    """Return how many directions some vectors span, as if all were equally long: (Σλ)² / Σλ².

    Args:
        cosines: (n, n), symmetric, of all couples; λ are its eigenvalues. n for orthogonal vectors, 1 for
            parallel ones.
    """
    values = np.linalg.eigvalsh(cosines)
    return float(values.sum() ** 2 / (values**2).sum())


def cosines(loras: Mapping[str, LoRA]) -> np.ndarray:
    """Return the cosine of each couple of LoRAs, of all their updates as one vector: (n, n)."""
    lengths = np.array([size(lora) for lora in loras.values()])
    found = np.array([[inner(one, other) for other in loras.values()] for one in loras.values()])
    return found / np.outer(lengths, lengths)


def kinds(names: Sequence[str], found: np.ndarray) -> dict[str, np.ndarray]:
    """Sort the cosines (n, n) of couples by what the two are, in `KINDS`' order: {label: (couples,)}."""
    sorted_: dict[str, list[float]] = {label: [] for label in KINDS.values()}
    for i, one in enumerate(names):
        for j, other in enumerate(names[:i]):
            both = zoo.axis(one) == zoo.axis(other)
            kind = "kin" if both and _kin(one) == _kin(other) else "one_axis" if both else "two_axes"
            sorted_[KINDS[kind]].append(found[i, j])
    return {label: np.array(values) for label, values in sorted_.items()}


def _kin(name: str) -> str:
    return zoo.class_of(name) if zoo.axis(name) == "subject" else zoo.family(name)


# ---------------------------------------------------------------- findings


def statements(facts: Facts) -> dict[str, bool]:
    """Return the findings of the prose, each by a fragment of it."""
    f = facts
    return {
        "Neither of them helps": f.columns_least <= 0 and f.columns_most < 0.1 * f.columns_gap,
        "Up to a point it helps": f.rar_39_over_10_low > 0,
        "Thirty more bring": f.rar_69_over_39_low < 0 < f.rar_69_over_39_high,
        "It is then still": f.rar_69 > f.table,
        "has nothing to gain": abs(f.invariants_10 - f.invariants_69) < 0.01,
        "hardly alike at all": f.most_alike < 0.15,
        "Every LoRA is a direction of": f.directions > 0.95 * f.learnt,
    }


def claims(facts: Facts) -> list[Claim]:
    """Return the papers' claims, and the summary's open questions, that the page examines."""
    f = facts
    return [
        Claim(
            "columns_apart",
            "A column's coefficients do not depend on the layer's other columns",
            "LoRA.rar, §3; the summary's third next check",
            "A network that reads invariants gains at most "
            f"{f.columns_most:.3f} in ρ, at the upper end of the intervals, from seeing the whole layer. "
            "LoRA.rar's own network was not given it.",
            PARTLY,
        ),
        Claim(
            "more_data",
            "More and more diverse training LoRAs make the hypernetwork generalise better",
            "the summary's first open question",
            f"LoRA.rar's network leaves ρ {f.rar_10:.2f} with 10 LoRAs, {f.rar_39:.2f} with 39 and "
            f"{f.rar_69:.2f} with 69; that reads invariants {f.invariants_10:.2f}, {f.invariants_39:.2f} and "
            f"{f.invariants_69:.2f}. More than 69 were not tried.",
            verdict(False, part=f.rar_39_over_10_low > 0),
        ),
    ]


# ---------------------------------------------------------------- figures


def loras_figure(scale: str = "shoebox") -> Figure:
    """Show ρ on validation pairs over the number of training LoRAs for each network, with intervals."""
    rows = contests.means("loras", scale)
    figure, axes = plt.subplots(figsize=(look.WIDTH, 3.6), layout="constrained")
    for name, colour in contests.hues(NETWORKS).items():
        middle, low, high = np.array([rows[f"{name}, {count} LoRAs"] for count in COUNTS]).T
        axes.fill_between(COUNTS, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.plot(COUNTS, middle, "o-", color=colour, label=name)
    axes.set_xscale("log")
    axes.set_xticks(COUNTS, map(str, COUNTS))
    axes.minorticks_off()
    axes.set_ylim(0, None)
    axes.set_xlabel("training LoRAs")
    axes.set_ylabel("ρ on validation pairs")
    legend_below(figure, columns=2)
    return figure


def cosines_figure(sorted_: Mapping[str, np.ndarray]) -> Figure:
    """Show the cosines of couples of LoRAs, a row of dots for each kind of couple."""
    figure, axes = plt.subplots(figsize=(look.WIDTH, 2.4), layout="constrained")
    rng = np.random.default_rng(0)
    for place, values in enumerate(sorted_.values()):
        height = place + rng.uniform(-0.28, 0.28, len(values))
        axes.plot(values, height, ".", color=look.INK, alpha=0.35, markersize=4)
        axes.plot([values.mean()] * 2, [place - 0.38, place + 0.38], color=look.OTHER, linewidth=2)
    axes.set_yticks(range(len(sorted_)), list(sorted_))
    axes.set_ylim(len(sorted_) - 0.5, -0.5)
    axes.set_xlim(-0.25, 1)
    axes.set_xlabel("cosine of two updates")
    return figure
