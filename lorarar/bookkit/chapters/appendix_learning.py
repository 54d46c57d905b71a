"""The appendix on what a network learns: which parts, from which columns, from how many LoRAs and pairs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from lorarar.bookkit import contests, figures
from lorarar.bookkit import style as look
from lorarar.bookkit.chapters.ch11_question import COLUMNS, PLACE, constants, errors
from lorarar.bookkit.claims import PARTLY, Claim, verdict
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.figures import legend_below
from lorarar.bookkit.tables import table
from lorarar.hypernet import PARTS
from lorarar.lora import LoRA
from lorarar.shoebox import zoo
from lorarar.study.novelty import inner, size
from lorarar.study.statistics import rank_correlation

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

PAPER = {
    "key": (0.28, 0.75),
    "value": (0.43, 0.83),
    "query": (0.28, 0.75),
    "output": (0.39, 0.83),
    "key, value": (0.40, 0.92),
    "key, query": (0.31, 0.75),
    "key, output": (0.44, 0.75),
    "query, value": (0.42, 0.83),
    "query, output": (0.48, 0.92),
    "value, output": (0.29, 0.58),
    "query, key, value": (0.41, 0.83),
    "query, value, output": (0.23, 0.33),
    "query, key, output": (0.49, 0.83),
    "key, value, output": (0.29, 0.50),
    "query, key, value, output": (0.23, 0.50),
}
"""LoRA.rar, Table A3: average and best case of each set of parts, in the paper's order."""
CHOSEN, ALL, SUM = "query, output", "query, key, value, output", "sum at 0.7"
SUMMED = f"{CHOSEN}; the rest summed"
"""The set that the paper chose, all four, one number for all, and the set with the other parts added."""
COUNTS = (10, 20, 39, 69)
"""How many training LoRAs."""
SIZES = (1, 10, 30, 100, 378)
"""How many training pairs."""
TOLD = (10, 39, 69)
"""Those whose errors are told."""
NETWORKS = "LoRA.rar", "invariants"
"""The networks that were trained on so many, by the first word of their rows."""
DIAMOND = {"markerfacecolor": "none", "markeredgecolor": look.OTHER, "markersize": 5}
ALIKE, UNLIKE = "four dogs and a cat, five watercolours", "five classes, five families"
"""Rows of five subjects and five styles that are alike, and that are not."""
KINDS = {
    "kin": "of one class or family",
    "one_axis": "two subjects or styles",
    "two_axes": "a subject and a style",
}
"""What two LoRAs can be to each other."""


def recorded(scale: str = "shoebox") -> Facts:
    """Return the numbers from shipped files: the contests on parts, columns, LoRAs and pairs."""
    parts = _parts, _columns, _loras, _pairs, _diversity
    return Facts(*(part(scale) for part in parts))


def _parts(scale: str) -> dict[str, float]:
    errors, seen = contests.means("parts_rho", scale), contests.means("parts", scale)
    theirs = np.array([average for average, _ in PAPER.values()])
    rho, right = (np.array([rows[name].value for name in PAPER]) for rows in (errors, seen))
    has = {part: np.array([part in name.split(", ") for name in PAPER]) for part in PARTS}
    facts: dict[str, float] = {f"with_{part}": rho[of].mean() - rho[~of].mean() for part, of in has.items()}
    for key, name in (("chosen", CHOSEN), ("all", ALL), ("sum", SUM), ("summed", SUMMED)):
        facts[f"parts_{key}"] = errors[name].value
    for prefix, contest, unit in (("", "parts_rho", 1), ("seen_", "parts", 100)):
        leads = contests.leads(contest, scale)
        for key, other in (("sum", SUM), ("all", ALL), ("summed", SUMMED)):
            facts |= contests.ends(f"{prefix}chosen_over_{key}", leads[CHOSEN, other], unit)
    return facts | {
        "sets": len(PAPER),
        "seen_chosen": seen[CHOSEN].value,
        "place": 1 + int((rho < errors[CHOSEN].value).sum()),
        "place_seen": 1 + int((right > seen[CHOSEN].value).sum()),
        "best": rho.min(),
        "worst": rho.max(),
        "seen_output": 100 * (right[has["output"]].mean() - right[~has["output"]].mean()),
        "seen_key": 100 * (right[has["key"]].mean() - right[~has["key"]].mean()),
        "paper_qko": PAPER["query, key, output"][0],
        "paper_qvo": PAPER["query, value, output"][0],
        "like_paper": rank_correlation(theirs, right),
        "like_error": rank_correlation(right, -rho),
    }


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
    facts["longer"] = float(errors(scale)[COLUMNS]["new"]["own"].mean())
    leads = contests.leads("loras", scale)
    for fewer, more in itertools.pairwise(TOLD):
        lead = leads[f"LoRA.rar, {more} LoRAs", f"LoRA.rar, {fewer} LoRAs"]
        facts |= contests.ends(f"rar_{more}_over_{fewer}", lead)
    return facts


def _pairs(scale: str) -> dict[str, float]:
    rows, leads = contests.means("pairs", scale), contests.leads("pairs", scale)
    told = ((n, size) for n in NETWORKS for size in SIZES)
    facts = {f"{contests.key(n)}_pairs_{size}": rows[f"{n}, {size}"].value for n, size in told}
    for one, other in leads:
        if other.endswith(" 10") or one.startswith(NETWORKS[0]):
            facts |= contests.ends(f"{contests.key(one)}_over_{other.split()[-1]}", leads[one, other])
    return facts | {"plain": constants(scale)["plain sum"].mean()}


def _diversity(scale: str) -> dict[str, float]:
    rows, leads = contests.means("diversity", scale), contests.leads("diversity", scale)
    facts = {"alike": rows[ALIKE].value, "unlike": rows[UNLIKE].value}
    return facts | contests.ends("unlike_over_alike", leads[UNLIKE, ALIKE])


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
        "Output is what counts": f.with_output < -0.03 < 0.03 < f.with_key,
        "value makes no difference": abs(f.with_value) < 0.005,
        "is among the best": f.place <= 3,
        "not shown ahead of one number": f.chosen_over_sum_low < 0 < f.chosen_over_sum,
        "the worst of all": f.parts_summed > f.worst and f.chosen_over_summed_low > 0.03,
        "The critic says much the same": f.like_error > 0.7 and f.seen_output > 3 and f.seen_key < -3,
        "among the best again": f.place_seen <= 3,
        "no lead of it is certain": max(
            f.seen_chosen_over_sum_low, f.seen_chosen_over_all_low, f.seen_chosen_over_summed_low
        )
        <= 0,
        "hardly the order of the paper": abs(f.like_paper) < 0.3,
        "Neither of them helps": f.columns_least <= 0 and f.columns_most < 0.1 * f.columns_gap,
        "the longer training is no better": f.longer > f.rar_39,
        "Up to a point it helps": f.rar_39_over_10_low > 0,
        "Thirty more bring": f.rar_69_over_39_low < 0 < f.rar_69_over_39_high,
        "the network is still behind the table": f.rar_69 > f.table,
        "has nothing to gain": abs(f.invariants_10 - f.invariants_69) < 0.01,
        "Pairs help up to a hundred and not further": (
            f.rar_378_over_10_low > 0 and f.rar_378_over_100_low < 0 < f.rar_378_over_100_high
        ),
        "has learnt nearly all from ten pairs": f.invariants_378_over_10_low < 0
        and f.invariants_pairs_10 - min(f.invariants_pairs_30, f.invariants_pairs_100) < 0.03,
        "it is ahead of the plain sum": f.invariants_pairs_1 < f.plain,
        "bring LoRA.rar's network down to the table": min(f.rar_pairs_378, f.rar_69) > f.table,
        "No difference can be seen": f.unlike_over_alike_low < 0 < f.unlike_over_alike_high
        and abs(f.unlike_over_alike) < 0.02,
        "hardly alike at all": f.most_alike < 0.15,
        "Every LoRA is a direction of": f.directions > 0.95 * f.learnt,
    }


def claims(facts: Facts) -> list[Claim]:
    """Return the papers' claims, and the summary's open questions, that the page examines."""
    f = facts
    return [
        Claim(
            "parts",
            "It is best to predict query and output",
            "LoRA.rar, supplement §A2.3, Table A3",
            f"Of {f.sets:d} sets it has rank {f.place:d} by ρ, one training each: {f.parts_chosen:.2f}, "
            f"where the best has {f.best:.2f} and the worst {f.worst:.2f}; and rank {f.place_seen:d} by the "
            f"critic, {f.seen_chosen:.0%}. The lead over all four is {f.chosen_over_all:+.3f} "
            f"({f.chosen_over_all_low:+.3f} to {f.chosen_over_all_high:+.3f}) in ρ.",
            verdict(f.place == 1 and f.chosen_over_all_low > 0, part=f.place <= 3),
        ),
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
            f"{f.invariants_69:.2f}. More than 69 were not tried. From a hundred pairs to all 378 it gains "
            f"{f.rar_378_over_100:+.3f} ({f.rar_378_over_100_low:+.3f} to {f.rar_378_over_100_high:+.3f}). "
            f"Unlike LoRAs gain {f.unlike_over_alike:+.3f} over like ones.",
            verdict(False, part=f.rar_39_over_10_low > 0),
        ),
    ]


# ---------------------------------------------------------------- figures


def parts_figure(scale: str = "shoebox") -> Figure:
    """Show ρ and share right of each set of parts with intervals, best ρ first; diamonds are the paper's."""
    errors, seen = contests.means("parts_rho", scale), contests.means("parts", scale)
    order = sorted((*PAPER, SUM), key=lambda name: errors[name].value)
    colours = {CHOSEN: look.HUES["lorarar"], SUM: look.GREY}
    figure, panels = plt.subplots(1, 2, figsize=(look.WIDTH, 6.2), sharey=True, layout="constrained")
    for axes, rows, label in zip(panels, (errors, seen), ("ρ", "share right"), strict=True):
        entries = {name: rows[name] for name in order}
        figures.forest(entries, label=label, colours=colours, percent=rows is seen, axes=axes)
        axes.set_xlim(0, None)
    theirs = [(PAPER[name][0], place) for place, name in enumerate(order) if name in PAPER]
    panels[1].plot(*zip(*theirs, strict=True), "D", label="the paper's share", **DIAMOND)
    legend_below(figure)
    return figure


def parts_table(scale: str = "shoebox") -> Styler:
    """Show the paper's table of parts beside the shoebox's, in its order; best: of each pair's images."""
    errors, seen = contests.means("parts_rho", scale), contests.means("parts", scale)
    images = contests.pairs("parts", scale)
    rows = [
        {
            "Predicted": name,
            "Paper": average,
            "Paper, best case": best,
            "Here": seen[name].value,
            "Here, best case": float((images[name] > 0).mean()),
            "ρ": errors[name].value,
        }
        for name, (average, best) in PAPER.items()
    ]
    return table(rows, ".2f")


def loras_figure(scale: str = "shoebox") -> Figure:
    """Show ρ on validation pairs over the number of training LoRAs for each network, with intervals."""
    return _growth("loras", scale, {count: f"{count} LoRAs" for count in COUNTS}, "training LoRAs")


def pairs_figure(scale: str = "shoebox") -> Figure:
    """Show ρ on validation pairs over the number of training pairs for each network, with intervals."""
    return _growth("pairs", scale, {size: str(size) for size in SIZES}, "training pairs")


def _growth(name: str, scale: str, ends: Mapping[int, str], label: str) -> Figure:
    """Show ρ of both networks of a contest over a number, by how their rows end: {number: end}."""
    rows = contests.means(name, scale)
    figure, axes = plt.subplots(figsize=(look.WIDTH, 3.6), layout="constrained")
    for network, colour in contests.hues(NETWORKS).items():
        middle, low, high = np.array([rows[f"{network}, {end}"] for end in ends.values()]).T
        axes.fill_between(list(ends), low, high, color=colour, alpha=0.12, linewidth=0)
        axes.plot(list(ends), middle, "o-", color=colour, label=network)
    axes.set_xscale("log")
    axes.set_xticks(list(ends), map(str, ends))
    axes.minorticks_off()
    axes.set_ylim(0, None)
    axes.set_xlabel(label)
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
