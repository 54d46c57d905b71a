"""Chapter 11, the question: one number, a table, a network that looks, an optimum; which does it take?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy import stats

from lorarar.bookkit import contests, figures
from lorarar.bookkit import style as look
from lorarar.bookkit.claims import Claim, verdict
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.figures import legend_below
from lorarar.bookkit.records import recorded as record
from lorarar.bookkit.records import suffix
from lorarar.hypernet import PARTS, load_network
from lorarar.hypernet.invariants import places
from lorarar.shoebox import zoo
from lorarar.shoebox.world import subjects
from lorarar.shoebox.world.world import sheet
from lorarar.study import coefficients as co
from lorarar.study.contest import difference
from lorarar.study.statistics import crossed

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from lorarar.merging import Gates

PAIR = ("bear plushie", "watercolor painting #1")

COLUMNS, PLACE, INVARIANTS = "the same, inputs of rms 1", "place alone", "invariants"
"""The recipes that are compared: LoRA.rar's network trained to its end, one that is told a layer's place and
nothing of the pair, and one that reads invariants."""
RIVALS = ("own", "other pairs' answers", "its layers' means", "table by layer")
"""What a network says, and what it says when it does not look."""
SHOWN = (
    ("place alone", PLACE, "own"),
    ("LoRA.rar, on average", COLUMNS, "table by layer"),
    ("LoRA.rar, to other pairs", COLUMNS, "other pairs' answers"),
    ("LoRA.rar, converged", COLUMNS, "own"),
    ("invariants, to other pairs", INVARIANTS, "other pairs' answers"),
    ("invariants, layer means", INVARIANTS, "its layers' means"),
    ("invariants", INVARIANTS, "own"),
)
"""The rows of the figure of errors between constants and the optimum: name, recipe, what it is asked."""
QUOTED = ("plain sum", "sum at 0.7", "place alone", "LoRA.rar, converged", "invariants")
"""Rows of the contest whose means the prose quotes."""
TOLD = (
    *(("LoRA.rar, converged", rival) for rival in ("sum at 0.7", "table of answers", "place alone")),
    ("invariants", "place alone"),
)
"""Leads that are told with their intervals; of others, on which side of zero they lie."""
HUES = {COLUMNS: look.HUES["lorarar"], PLACE: look.INK, INVARIANTS: look.HUES["invariants"]}


# ---------------------------------------------------------------- numbers from shipped files


def recorded(scale: str = "shoebox") -> Facts:
    """Return the numbers from shipped files: ρ of networks and rivals, and the contest on strangers."""
    return Facts(_errors(scale), _contest(scale), _table(scale))


def errors(scale: str = "shoebox") -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Return ρ: {recipe: {kind: {rival: …}}}, known as (seeds, pairs), new as (seeds, subjects, styles)."""
    run = record(f"networks{suffix(scale)}")
    found = {}
    for recipe in HUES:
        rows = [row for row in run["of"] if row["recipe"] == recipe]
        found[recipe] = {
            "known": {rival: np.array([row["known"][rival] for row in rows]) for rival in RIVALS},
            "new": {rival: np.array([_grid(row["new"][rival]) for row in rows]) for rival in RIVALS},
        }
    return found


def constants(scale: str = "shoebox") -> dict[str, np.ndarray]:
    """Return ρ on new pairs, (subjects, styles), of constants and of ZipLoRA."""
    run = {name: _grid(rho) for name, rho in record(f"networks{suffix(scale)}")["constants"].items()}
    return run | {"ZipLoRA": _grid(record(f"rho{suffix(scale)}")["ladder"]["new"]["ZipLoRA"])}


def _grid(values: Sequence[float]) -> np.ndarray:
    """Values of the validation pairs as (subjects, styles)."""
    return np.reshape(values, (len(subjects.SPLIT["validation"]), -1))


def _errors(scale: str) -> dict[str, float]:
    found, still = errors(scale), constants(scale)
    facts: dict[str, float] = {
        "sum_new": still["plain sum"].mean(),
        "even_new": still["sum at 0.7"].mean(),
        "half_new": still["half sum"].mean(),
        "levels_new": still["levels"].mean(),
        "zip_new": still["ZipLoRA"].mean(),
        "validation_pairs": still["ZipLoRA"].size,
        "table_numbers": 2 * len(zoo.load(PAIR[0], scale)),
    }
    for key, recipe in (("columns", COLUMNS), ("place", PLACE), ("invariants", INVARIANTS)):
        facts |= {f"{key}_{kind}": found[recipe][kind]["own"].mean() for kind in ("known", "new")}
    each = found[COLUMNS]["new"]["own"].mean((1, 2))
    facts |= {
        "columns_other": found[COLUMNS]["new"]["other pairs' answers"].mean(),
        "columns_worst": each.max(),
        "columns_best": each.min(),
        "invariants_size": next(
            row["parameters"]
            for row in record(f"networks{suffix(scale)}")["of"]
            if row["recipe"] == INVARIANTS
        ),
    }
    ours, place = (found[recipe]["new"]["own"] for recipe in (INVARIANTS, PLACE))
    return facts | contests.ends("place_minus_ours", difference(place, ours))


def _table(scale: str) -> dict[str, float]:
    """Return the mean coefficients of the table: on the way down and in the middle, and on the way up."""
    loras, network = zoo.load_pair(*PAIR, scale), load_network(contests.shipped(PLACE))
    with torch.no_grad():
        answer = network.coefficients(*loras, network.parts)
    up = np.array([co.block_of(layer).startswith("up") for layer in answer])
    means = np.array([[float(m.mean()) for m in both] for both in answer.values()])  # (layers, 2)
    return {
        f"table_{way}_{name}": means[there, side].mean()
        for way, there in (("down", ~up), ("up", up))
        for side, name in enumerate(("subject", "style"))
    }


def _contest(scale: str) -> dict[str, float]:
    run = record(f"strangers{suffix(scale)}")
    facts: dict[str, float] = {
        "individuals": len(run["subjects"]),
        "looks": len(run["styles"]),
        "large_pairs": len(run["subjects"]) * len(run["styles"]),
    }
    facts |= {f"large_{contests.key(name)}": run["rows"][name]["mean"][0] for name in QUOTED}
    for asked in run["questions"]:
        one, other = asked["one"], asked["other"]
        if (one, other) in TOLD:
            facts |= contests.ends(f"{contests.key(one)}_{contests.key(other)}", asked["lead"])
        else:
            facts[f"{contests.key(one)}_{contests.key(other)}_low"] = asked["lead"][1]
    lead = [facts[f"rar_converged_place_alone{end}"] for end in contests.ENDS]
    return facts | contests.ends("behind_table", lead, -1)


# ---------------------------------------------------------------- numbers of this run


def live(rho: Mapping[str, float], numbers: Tensor, answer: Sequence[Tensor]) -> Facts:
    """Return what the chapter computed.

    Args:
        rho: of the chapter's pair, by merge.
        numbers: the invariants of a layer's columns, (in, 6).
        answer: what the network that reads them says of the layer, m_c and m_s, (in,) each.
    """
    ratio = numbers[:, 3].numpy()
    goes = [float(stats.spearmanr(ratio, m.numpy()).statistic) for m in answer]
    return Facts(
        {f"one_{contests.key(name)}": value for name, value in rho.items()},
        longer_subject=goes[0],
        longer_style=goes[1],
    )


# ---------------------------------------------------------------- what the prose says


def statements(facts: Facts) -> dict[str, bool]:
    """Return the findings of the prose, each by a fragment of it."""
    f = facts
    level = f.invariants_place_alone_low < 0 < f.invariants_place_alone_high < 0.03
    far = 1.5 * f.zip_new < min(f.invariants_new, f.place_new, f.columns_new)
    volume = f.large_plain_sum - f.large_sum_at_0_7
    return {
        "most of what a better merge buys is *volume*": (
            volume > 2 * (f.large_sum_at_0_7 - f.large_invariants) and volume > 0.2
        ),
        "does most of the work that constants can do": (
            f.sum_new - f.even_new > 0.8 * (f.sum_new - f.levels_new)
        ),
        "nearly as bad as no LoRA at all": f.sum_new > 0.8,
        "leaves both updates out": max(abs(f.table_down_subject), abs(f.table_down_style)) < 0.15,
        "keeps more of the subject than of the style": (
            f.table_up_subject > f.table_up_style > 2 * abs(f.table_down_style)
        ),
        "The table is ahead of every constant": (
            f.place_alone_sum_at_0_7_low > 0 and f.place_alone_levels_low > 0
        ),
        "It fits its training pairs better, by heart": (
            f.columns_known < 0.9 * f.place_known and f.columns_new > f.place_new
        ),
        "serve a new pair as well as its own": abs(f.columns_other - f.columns_new) < 0.03,
        "is no better than the one that stopped early": f.rar_converged_rar_as_shipped_low < 0,
        "not shown ahead of a sum at": f.rar_converged_sum_at_0_7_low < 0,
        "behind the table by": f.behind_table_low > 0,
        "what it reads in": f.rar_converged_table_of_answers_high < 0,
        "the longer of two columns is kept, and the other is turned down": (
            f.longer_subject > 0.3 and f.longer_style < -0.3
        ),
        "says hardly anything that the layer's place does not": (
            f.place_minus_ours_low < 0 < f.place_minus_ours_high
            and abs(f.invariants_known - f.place_known) < 0.03
        ),
        "is ahead of it and of all constants, and level with the table": (
            level and f.invariants_levels_low > 0 and f.invariants_rar_converged_low > 0
        ),
        "far to the left of everything that can be predicted here": far,
        "The optimum for a pair is far better than all of them": far,
    }


def claims(facts: Facts) -> list[Claim]:
    """Return the papers' claims that the chapter examines."""
    f = facts

    def lead(name: str) -> str:
        return look.interval([f[name + end] for end in contests.ENDS], "+.3f")

    return [
        Claim(
            "carries_over",
            "It generalises to LoRAs it was not trained on, without further training",
            "LoRA.rar, abstract",
            "Trained to its end, its lead in ρ on the pairs of strangers (below zero, it is behind) is "
            f"{lead('rar_converged_sum_at_0_7')} over a sum at 0.7, "
            f"{lead('rar_converged_table_of_answers')} over its own average answers, and "
            f"{lead('rar_converged_place_alone')} over a trained table.",
            verdict(
                f.rar_converged_place_alone_low > 0,
                part=f.rar_converged_sum_at_0_7_low > 0,
                against=f.rar_converged_table_of_answers_high < 0,
            ),
        ),
        Claim(
            "for_the_pair",
            "Coefficients have to be predicted for the pair at hand",
            "LoRA.rar, §1 and §3, as the reason for a hypernetwork",
            "The lead in ρ on the pairs of strangers over a table, which knows a layer's place alone: "
            f"{lead('invariants_place_alone')} for a network that reads invariants, "
            f"{lead('rar_converged_place_alone')} for LoRA.rar's, trained to its end.",
            verdict(
                max(f.invariants_place_alone_low, f.rar_converged_place_alone_low) > 0,
                against=f.invariants_place_alone_low < 0 and f.rar_converged_place_alone_high < 0,
            ),
        ),
    ]


# ---------------------------------------------------------------- figures


def table_figure(answer: Gates) -> Figure:
    """Show a network's mean answer by transformer block; dashes are for cross-attention."""
    figure, panels = plt.subplots(
        2, 2, figsize=(look.WIDTH, 4.8), sharex=True, sharey=True, layout="constrained"
    )
    for axes, part in zip(panels.flat, PARTS, strict=True):
        for which, line in (("self", "o-"), ("cross", "o--")):
            layers = [layer for layer in in_depth(answer) if co.part_of(layer) == f"{which} {part}"]
            for side, (colour, name) in enumerate(((look.SUBJECT, "subject"), (look.STYLE, "style"))):
                means = [float(answer[layer][side].mean()) for layer in layers]
                label = name if which == "self" else None
                axes.plot(range(1, len(layers) + 1), means, line, color=colour, markersize=4, label=label)
        axes.axhline(1, color=look.GREY, linestyle=":")
        axes.set_title(part)
    for axes in panels[1]:
        axes.set_xlabel("transformer block")
    for axes in panels[:, 0]:
        axes.set_ylabel("coefficient")
    legend_below(figure)
    return figure


def in_depth(layers: Iterable[str]) -> list[str]:
    """Return layers in their order from the UNet's input to its output."""
    depth = places(layers)
    return sorted(depth, key=lambda layer: depth[layer][-1])


def answers_figure(numbers: Tensor, m_c: Tensor, m_s: Tensor) -> Figure:
    """Show a layer's coefficients (in,) over the logarithm of the ratio of the columns' norms."""
    figure, panels = plt.subplots(
        1, 2, figsize=(look.WIDTH, 3.4), sharex=True, sharey=True, layout="constrained"
    )
    for axes, m, name in zip(panels, (m_c, m_s), ("subject", "style"), strict=True):
        dots = axes.scatter(
            numbers[:, 3], m, c=numbers[:, 0], cmap=look.DIVERGING, vmin=-0.25, vmax=0.25, s=18
        )
        axes.set_title(name)
        axes.axhline(1, color=look.GREY, linestyle=":")
    panels[0].set_ylabel("coefficient")
    figure.supxlabel("log of the subject's norm over the style's", size=look.SIZE)
    figure.colorbar(dots, ax=panels, label="cosine", shrink=0.9)
    return figure


def strangers_figure(pictures: Sequence[np.ndarray]) -> Figure:
    """Show the strangers, one picture each."""
    rows = -(-len(pictures) // 6)
    figure, axes = plt.subplots(figsize=(look.WIDTH, look.WIDTH / 6 * rows), layout="constrained")
    axes.imshow(sheet(np.stack(pictures), 6, 2))
    axes.set_axis_off()
    return figure


def errors_figure(scale: str = "shoebox") -> Figure:
    """Show ρ on new LoRAs with intervals: constants, networks that look and that do not, ZipLoRA."""
    found, still = errors(scale), constants(scale)
    rows = {name: crossed(still[name]) for name in ("half sum", "sum at 0.7", "levels")}
    rows |= {name: crossed(found[recipe]["new"][rival], factors=3) for name, recipe, rival in SHOWN}
    rows["ZipLoRA"] = crossed(still["ZipLoRA"])
    colours = {name: HUES[recipe] for name, recipe, _ in SHOWN} | {"ZipLoRA": look.SUBJECT}
    figure = figures.forest(rows, label="ρ", colours=colours, percent=False)
    own = {name: found[recipe]["known"]["own"].mean() for name, recipe, rival in SHOWN if rival == "own"}
    hollow = {"markerfacecolor": "none", "markeredgecolor": look.INK, "markersize": 8}
    places = [list(rows).index(name) for name in own]
    figure.axes[0].plot([*own.values()], places, "o", label="on training pairs", **hollow)
    figure.axes[0].set_xlim(0, None)
    legend_below(figure)
    return figure


def strangers_contest(scale: str = "shoebox") -> Figure:
    """Show the mean ρ of each row of the contest, with its interval."""
    return contests.contest_figure("strangers", scale, label="ρ on strangers")
