"""Chapter 6, the hypernetwork: its numbers, what the prose says of them, its claims, and its own figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import torch

from lorarar import Hypernetwork
from lorarar.bookkit import board, style, sums
from lorarar.bookkit.claims import NOT_EXAMINED, Claim, verdict
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.figures import legend_below
from lorarar.bookkit.records import recorded as record
from lorarar.bookkit.records import suffix
from lorarar.hypernet import layers_of
from lorarar.scales import find_scale
from lorarar.shoebox import zoo
from lorarar.shoebox.world import styles, subjects
from lorarar.study.cells import hypernetwork_of
from lorarar.study.ladder import LADDER, validation_pairs
from lorarar.study.statistics import crossed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lorarar.bookkit.images import Seen
    from lorarar.merging import Gates
    from lorarar.study.statistics import Entry

PAIR = ("bear plushie", "watercolor painting #1")
BLOCK, TURN = 500, 50
"""Steps of ten pairs and of one, of which the figure of the losses takes means."""

SDXL = {640: 10, 1280: 60}
"""Transformer blocks of SDXL by their width: each has four query and output layers, with as many columns."""

ENDS = ("", "_low", "_high")


# ---------------------------------------------------------------- numbers from shipped files


def recorded(scale: str = "shoebox") -> Facts:
    """Return the numbers from shipped files: network, losses, ladder, judged images, recipes."""
    return Facts(_network(scale), _losses(scale), _ladder(scale), _images(scale), _recipes(scale))


def _network(scale: str) -> dict[str, float]:
    network = Hypernetwork.load(hypernetwork_of(scale))
    lora, paper = zoo.load(subjects.SPLIT["validation"][0], scale), find_scale("sdxl")
    columns = sum(lora[k][1].shape[1] for k in layers_of(lora, network.metadata["parts"].split(",")))
    settings = json.loads(network.metadata["lorarar_training"])
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "hidden": network.hidden,
        "columns": columns,
        "coefficients": 2 * columns,
        "sdxl_parameters": sum(p.numel() for p in Hypernetwork().parameters()),
        "sdxl_coefficients": 2 * sum(4 * width * blocks for width, blocks in SDXL.items()),
        "steps": settings["steps"],
        "pairs": settings["pairs"],
        "possible": len(subjects.SPLIT["train"]) * len(styles.SPLIT["train"]),
        "pays": settings["steps"] / find_scale("shoebox").ziplora.steps,
        "paper_pays": paper.hypernetwork.steps / paper.ziplora.steps,
    }


def losses(scale: str = "shoebox") -> np.ndarray:
    """Return the loss at every step of the recorded training: (steps,)."""
    file = hypernetwork_of(scale)
    weight = json.loads(Hypernetwork.load(file).metadata["lorarar_training"])["similarity"]
    terms = {k: np.array(v) for k, v in json.loads(file.with_suffix(".history.json").read_text()).items()}
    return terms["content"] + terms["style"] + weight * terms["similarity"]


def _losses(scale: str) -> dict[str, float]:
    loss = losses(scale)
    early, late = (part.mean() for part in (loss[: 2 * BLOCK], loss[-2 * BLOCK :]))
    by_chance = loss.reshape(-1, TURN).mean(1).std() / (2 * BLOCK / TURN) ** 0.5
    return {"early": early, "late": late, "fall": 1 - late / early, "by_chance": by_chance}


def rungs(scale: str = "shoebox") -> dict[str, dict[str, Entry]]:
    """Return the mean ρ of each rung on new LoRAs, with its interval, and on training pairs, without one."""
    run = record(f"rho{suffix(scale)}")["ladder"]
    return {
        "known": {name: (float(np.mean(run["known"][name])), 0.0, 0.0) for name in LADDER},
        "new": {name: crossed(_grid(run["new"][name])) for name in LADDER},
    }


def _grid(values: Sequence[float]) -> np.ndarray:
    """Values of the validation pairs as (subjects, styles)."""
    return np.reshape(values, (len(subjects.SPLIT["validation"]), -1))


def _ladder(scale: str) -> dict[str, float]:
    run = record(f"rho{suffix(scale)}")["ladder"]
    new = {name: _grid(values) for name, values in run["new"].items()}
    known = {name: np.array(values) for name, values in run["known"].items()}
    rar, at = new["LoRA.rar"], validation_pairs().index(PAIR)
    facts = {
        "new_pairs": rar.size,
        "sum_new": new["plain sum"].mean(),
        "levels_new": new["0.7, the rest ½"].mean(),
        "table_new": new["table by column"].mean(),
        "rar_new": rar.mean(),
        "zip_new": new["ZipLoRA"].mean(),
        "rar_known": known["LoRA.rar"].mean(),
        "zip_known": known["ZipLoRA"].mean(),
        "zip_kv_known": known["ZipLoRA, key and value ½"].mean(),
        "known_behind": (known["LoRA.rar"] > known["ZipLoRA, key and value ½"]).all(),
        "pair_rar": rar.ravel()[at],
        "pair_sum": new["plain sum"].ravel()[at],
        "table_known": known["table by column"].mean(),
        "other_known": known["other pairs' answers"].mean(),
        "known_ahead": (known["LoRA.rar"] < known["table by column"]).all(),
        "ahead_of_other": (rar < new["other pairs' answers"]).sum(),
        "ahead_of_table": (rar < new["table by column"]).sum(),
    }
    for key, name in (
        ("sum", "plain sum"),
        ("table", "table by column"),
        ("other", "other pairs' answers"),
        ("levels", "0.7, the rest ½"),
    ):
        facts |= {f"{key}_minus_rar{e}": x for e, x in zip(ENDS, crossed(new[name] - rar), strict=True)}
    facts |= {f"rar_minus_zip{e}": x for e, x in zip(ENDS, crossed(rar - new["ZipLoRA"]), strict=True)}
    return facts


def _images(scale: str) -> dict[str, float]:
    run, same = board.load("validation", scale), sums.shared(scale, ("lorarar", "ziplora"))
    facts: dict[str, float] = {
        "same_pairs": same[sums.EVEN].size,
        "same_even": same[sums.EVEN].mean(),
        "same_images": record(f"first_sums{suffix(scale)}")["count"],
    }
    facts |= {f"right_{m}": run.share(m).value for m in ("direct", "ziplora", "lorarar")}
    facts |= {f"same_{m}": same[m].mean() for m in ("ziplora", "lorarar")}
    for key, duel in (
        ("zip", run.difference("lorarar", "ziplora")),
        ("sum", run.difference("lorarar", "direct")),
    ):
        facts |= {f"duel_{key}{e}": 100 * x for e, x in zip(ENDS, duel, strict=True)}
    for key, method in (("even", "lorarar"), ("zip_even", "ziplora")):
        _, low, high = crossed(same[method] - same[sums.EVEN])
        facts |= {f"duel_{key}_low": 100 * low, f"duel_{key}_high": 100 * high}
    return facts


def _recipes(scale: str) -> dict[str, float]:
    rows = list(record(f"hypernetworks{suffix(scale)}")["of"].values())
    shares = [row["average"][0] for row in rows]
    return {
        "recipe_first": shares[0],
        "recipe_best": max(shares),
        "recipe_worst": min(shares),
        "recipes_ahead": sum(row["ahead"][1] > 0 for row in rows),
    }


# ---------------------------------------------------------------- numbers of this run


def live(
    answer: Gates,
    pair: tuple[str, str],
    start: Mapping[str, float],
    end: Mapping[str, float],
    shipped: Mapping[str, float],
    one: Mapping[str, float],
    seen: Mapping[str, Seen],
    steps: int,
    scale: str = "shoebox",
    seed: int = 0,
) -> Facts:
    """Return what the chapter computed.

    Args:
        answer: what the shipped network predicts for ``pair``.
        pair: the chapter's.
        start: mean ρ of the fresh network before the short training, by kind of pair.
        end: after it.
        shipped: of the shipped network on the same pairs.
        one: ρ of the chapter's pair, by merge.
        seen: verdicts on the pictures, subject and style, by row.
        steps: of the short training.
        scale: of the run.
        seed: of the run, with which the fresh network began.
    """
    torch.manual_seed(seed)
    network = Hypernetwork.load(hypernetwork_of(scale))
    fresh = Hypernetwork(network.columns, network.hidden)
    with torch.no_grad():
        first = fresh.coefficients(*(zoo.load(name, scale) for name in pair))

    def spread(gates: Gates) -> float:
        return float(np.mean([[float(m.std()) for m in both] for both in gates.values()]))

    return Facts(
        live_steps=steps,
        first_spread=spread(first),
        last_spread=spread(answer),
        last_highest=max(float(m.max()) for both in answer.values() for m in both),
        start_new=start["new"],
        end_new=end["new"],
        shipped_new=shipped["new"],
        one_rar=one["rar"],
        one_sum=one["sum"],
        shown=len(seen["LoRA.rar"][0]),
        seen_sum=np.logical_and(*seen["plain sum"]).sum(),
        seen_rar=np.logical_and(*seen["LoRA.rar"]).sum(),
        seen_short=np.logical_and(*seen["short training"]).sum(),
    )


# ---------------------------------------------------------------- what the prose says


def statements(facts: Facts) -> dict[str, bool]:
    """Return the findings of the prose, each by a fragment of it."""
    f = facts

    same = f.table_minus_rar_low <= 0 <= f.table_minus_rar_high
    as_zip = f.duel_zip_low <= 0 <= f.duel_zip_high
    as_even = f.duel_even_low <= 0 <= f.duel_even_high and f.duel_zip_even_low <= 0 <= f.duel_zip_even_high
    behind = f.known_behind and f.rar_known > 1.2 * f.zip_known
    looks = f.known_ahead and f.rar_known < min(f.table_known, f.other_known)
    return {
        "has not converged: on pairs of its own training it leaves an error": behind,
        "It looks at the pair, but what it sees does not carry over": looks and same,
        "cannot be told apart": as_zip and as_even,
        "a few strong columns get more": f.last_highest > 1.5,
        "no more than chance": 0 <= f.early - f.late < 2 * f.by_chance,
        "The next chapter measures with the same function and the same probes": max(
            abs(f.one_rar - f.pair_rar), abs(f.one_sum - f.pair_sum)
        )
        < 0.02,
        "most of what the long training brings is there after the short one": f.start_new - f.end_new
        > 0.5 * (f.start_new - f.shipped_new)
        > 0,
        "gives nearly the same answer to every column": f.first_spread < 0.1 * f.last_spread,
        "On each of the four training pairs its own answer is better than the table by column": looks,
        "an answer contains something of its pair": f.ahead_of_other > 9 and f.other_minus_rar > 0,
        "it just does not help to merge new LoRAs": same,
        "which helps on its training pairs": f.known_ahead,
        "better coefficients exist for the very layers that the network predicts": f.known_behind
        and f.zip_kv_known < f.rar_known,
        "Both intervals contain zero": as_zip and f.duel_sum_low <= 0 <= f.duel_sum_high,
        "The plain sum is a weak rival": f.right_direct < f.right_lorarar and f.sum_new > 1.5 * f.levels_new,
        "do not show that a network or an optimisation beats one well-chosen number": as_even,
        "none ahead of the paper's by an interval clear of zero": f.recipes_ahead == 0,
    }


def claims(facts: Facts) -> list[Claim]:
    """Return the papers' claims that the chapter examines."""
    f = facts

    def ends(value: float, low: float, high: float, form: str = ".3f") -> str:
        return style.interval((value, low, high), form)

    plain = ends(f.sum_minus_rar, f.sum_minus_rar_low, f.sum_minus_rar_high, ".2f")
    levels = ends(f.levels_minus_rar, f.levels_minus_rar_low, f.levels_minus_rar_high)
    average = ends(f.table_minus_rar, f.table_minus_rar_low, f.table_minus_rar_high)
    behind = ends(f.rar_minus_zip, f.rar_minus_zip_low, f.rar_minus_zip_high)
    duel = ends(f.duel_zip, f.duel_zip_low, f.duel_zip_high, "+.0f")
    return [
        Claim(
            "generalises",
            "It generalises to LoRAs it was not trained on, without further training",
            "LoRA.rar, abstract",
            f"Trained by the paper's recipe, it is ahead of the plain sum, whose ρ on new LoRAs is higher by "
            f"{plain}, and not shown ahead of one number for query and output, whose ρ is higher "
            f"by {levels}.",
            verdict(
                f.levels_minus_rar_low > 0, part=f.sum_minus_rar_low > 0, against=f.sum_minus_rar_high < 0
            ),
        ),
        Claim(
            "reads",
            "Its coefficients are made for the pair",
            "LoRA.rar, §3, as the reason for a hypernetwork",
            f"On its training pairs, yes: its ρ is {f.rar_known:.2f}, that of a table of its average answers "
            f"{f.table_known:.2f}. On new LoRAs, no: the table differs from it by {average}.",
            verdict(f.table_minus_rar_low > 0, f.known_ahead, f.table_minus_rar_high < 0),
        ),
        Claim(
            "as_good_as_optimum",
            "It reaches the objective, which is ZipLoRA's, as well as an optimisation for the pair does",
            "the idea of a hypernetwork for ZipLoRA's coefficients",
            f"This network, not converged, is behind ZipLoRA by {behind} in ρ. In pictures, which the paper "
            f"compares, it differs by {duel} points on validation: the interval contains zero.",
            verdict(f.rar_minus_zip_high < 0.02, against=f.rar_minus_zip_low > 0),
        ),
        Claim(
            "small",
            "The hypernetwork has 0.49 million parameters",
            "LoRA.rar, supplement §A1.3",
            f"Counted: {f.sdxl_parameters:,} at SDXL's widths, {f.parameters:,} in the shoebox",
            verdict(round(f.sdxl_parameters / 1e6, 2) == 0.49, against=True),
        ),
        Claim(
            "parts",
            "Query and output are the best parts to predict",
            "LoRA.rar, supplement, Table A3",
            "Two of the fifteen sets of parts were trained here, each from one seed, which decides nothing.",
            NOT_EXAMINED,
        ),
    ]


# ---------------------------------------------------------------- figures


def columns_figure(seen: torch.Tensor, m_c: torch.Tensor, m_s: torch.Tensor) -> Figure:
    """Show two updates of a layer, (2 · out, in), and below them the coefficients (in,) of both sides."""
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(style.WIDTH, 5.4), height_ratios=[2, 1], sharex=True, layout="constrained"
    )
    top = float(seen.abs().quantile(0.99))
    above.imshow(seen, cmap=style.DIVERGING, vmin=-top, vmax=top, aspect="auto")
    out = len(seen) // 2
    above.axhline(out - 0.5, color=style.INK, linewidth=1)
    above.set_yticks([out / 2, 3 * out / 2], ["subject", "style"], rotation=90, va="center")
    above.grid(False)
    edge = len(m_c) // 10
    marked = edge + int(m_c[edge:-edge].argmax())
    for axes in (above, below):
        axes.axvline(marked, color=style.INK, linewidth=1, linestyle="--")
    below.axhline(1, color=style.GREY, linestyle=":")
    for m, colour, label in ((m_c, style.SUBJECT, "subject"), (m_s, style.STYLE, "style")):
        below.plot(m, color=colour, linewidth=1.6, label=label)
    below.set(xlabel="column", ylabel="coefficient", xlim=(-0.5, len(m_c) - 0.5))
    legend_below(figure)
    return figure


def losses_figure(loss: np.ndarray) -> Figure:
    """Show the loss of a training: a dot for each pair's steps, a line through the means of ten pairs."""
    pairs, blocks = loss.reshape(-1, TURN).mean(1), loss.reshape(-1, BLOCK).mean(1)
    figure, axes = plt.subplots(layout="constrained")
    axes.scatter(TURN * (np.arange(len(pairs)) + 0.5), pairs, s=16, color=style.GREY, label="one pair")
    axes.plot(BLOCK * (np.arange(len(blocks)) + 0.5), blocks, "o-", color=style.MERGED, label="ten pairs")
    axes.set(xlabel="step", ylabel="mean loss", ylim=(0, None))
    legend_below(figure)
    return figure


def ladder_figure(both: Mapping[str, Mapping[str, Entry]]) -> Figure:
    """Show the rungs' mean ρ: on new LoRAs with intervals, on training pairs as circles."""
    figure, axes = plt.subplots(figsize=(style.WIDTH, 1.2 + 0.4 * len(LADDER)), layout="constrained")
    for place, name in enumerate(LADDER):
        value, low, high = both["new"][name]
        new, known = ("new LoRAs", "training pairs") if place == 0 else (None, None)
        axes.plot([low, high], [place] * 2, color=style.MERGED, linewidth=3, alpha=0.45)
        axes.plot(value, place, "o", color=style.MERGED, markersize=8, label=new)
        hollow = {"markerfacecolor": "none", "markeredgecolor": style.INK, "markersize": 8, "linewidth": 0}
        axes.plot(both["known"][name][0], place, "o", label=known, **hollow)
    axes.axvline(1, color=style.GREY, linestyle=":")
    axes.set_yticks(range(len(LADDER)), LADDER)
    axes.set(xlim=(0, None), ylim=(len(LADDER) - 0.4, -0.6), xlabel="ρ")
    axes.grid(False, axis="y")
    legend_below(figure)
    return figure
