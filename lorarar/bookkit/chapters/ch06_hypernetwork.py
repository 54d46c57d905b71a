"""Chapter 6, the hypernetwork: its numbers, what the prose says of them, its claims, and its own figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from lorarar import Hypernetwork, bench
from lorarar.bookkit import style
from lorarar.bookkit.claims import CONTRADICTED, NOT_EXAMINED, PARTLY, REPRODUCED, Claim
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.figures import legend_below, panels
from lorarar.bookkit.records import recorded as record
from lorarar.bookkit.records import suffix
from lorarar.experiment import from_record, hypernetwork_of
from lorarar.hypernet import layers_of
from lorarar.judge import bootstrap
from lorarar.models import find_scale
from lorarar.shoebox import styles, subjects, zoo
from lorarar.study.ladder import LADDER
from lorarar.study.statistics import crossed

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

BLOCK = 500
"""Steps that the figure of the losses takes together: ten pairs of fifty steps."""

KEYS = {
    "plain sum": "sum",
    "sum at 0.7": "weighted",
    "half sum": "half",
    "0.7, the rest ½": "levels",
    "table by layer": "layers",
    "table by column": "table",
    "other pairs' answers": "other",
    "its mean answer": "mean",
    "its layers' means": "means",
    "LoRA.rar": "rar",
    "ZipLoRA": "zip",
}
"""What the rungs of the ladder are called in facts."""


# ---------------------------------------------------------------- numbers from shipped files


def recorded(scale: str = "shoebox") -> Facts:
    """Return the numbers that come from shipped files: the network, its losses, the ladder, the judged images."""
    return Facts(_network(scale), _losses(scale), _rungs(scale), _images(scale), _recipes(scale))


def _network(scale: str) -> dict[str, float]:
    network, wide = Hypernetwork.load(hypernetwork_of(scale)), bench.shapes()
    parts = network.metadata["parts"].split(",")
    lora, paper = zoo.load(subjects.SPLIT["validation"][0], scale), find_scale("sdxl")
    columns = sum(lora[layer][1].shape[1] for layer in layers_of(lora, parts))
    settings = json.loads(network.metadata["lorarar_training"])
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "hidden": network.hidden,
        "columns": columns,
        "coefficients": 2 * columns,
        "sdxl_parameters": sum(p.numel() for p in Hypernetwork().parameters()),
        "sdxl_coefficients": sum(2 * wide[name][1] for name in layers_of(wide, ("query", "output"))),
        "steps": settings["steps"],
        "pairs": settings["pairs"],
        "possible": len(subjects.SPLIT["train"]) * len(styles.SPLIT["train"]),
        "pays": settings["steps"] / find_scale("shoebox").ziplora.steps,
        "paper_pays": paper.hypernetwork.steps / paper.ziplora.steps,
    }


def losses(scale: str = "shoebox") -> dict[str, np.ndarray]:
    """Return the terms of the loss at every step of the recorded training, the similarity times λ: (steps,)."""
    file = hypernetwork_of(scale)
    weight = json.loads(Hypernetwork.load(file).metadata["lorarar_training"])["similarity"]
    terms = {
        name: np.array(v) for name, v in json.loads(file.with_suffix(".history.json").read_text()).items()
    }
    return {**terms, "similarity": weight * terms["similarity"]}


def _losses(scale: str) -> dict[str, float]:
    terms = losses(scale)
    total = sum(terms.values())
    blocks = total.reshape(-1, BLOCK).mean(1)
    by_pair = total.reshape(-1, BLOCK // 10).mean(1)  # fifty steps are one pair's
    return {
        "early": blocks[:2].mean(),
        "late": blocks[-2:].mean(),
        "fall": 1 - blocks[-2:].mean() / blocks[:2].mean(),
        "block_low": blocks.min(),
        "block_high": blocks.max(),
        "by_chance": by_pair.std() / (2 * BLOCK / 50) ** 0.5,
        "late_similarity": terms["similarity"][-2 * BLOCK :].mean() / blocks[-2:].mean(),
    }


def rungs(scale: str = "shoebox") -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return the mean ρ of each rung with its 95 % interval: {"known" or "new": {rung: (value, low, high)}}.

    New pairs cross subjects with styles; training pairs share no LoRA and are resampled as they are.
    """
    run = record(f"rho{suffix(scale)}")["ladder"]
    return {
        "known": {name: _mean(run["known"][name]) for name in LADDER},
        "new": {name: crossed(_grid(run["new"][name])) for name in LADDER},
    }


def _mean(values: Sequence[float]) -> tuple[float, float, float]:
    return float(np.mean(values)), *bootstrap(np.array(values))


def _grid(values: Sequence[float]) -> np.ndarray:
    """Values of the validation pairs as (subjects, styles)."""
    return np.reshape(values, (len(subjects.SPLIT["validation"]), -1))


def _rungs(scale: str) -> dict[str, float]:
    run, facts = record(f"rho{suffix(scale)}")["ladder"], {}
    for kind, means in rungs(scale).items():
        facts |= {f"{KEYS[name]}_{kind}": value for name, (value, _, _) in means.items()}
    new = {KEYS[name]: _grid(values) for name, values in run["new"].items() if name in KEYS}
    for rival in ("table", "other", "levels", "weighted", "means", "zip"):
        ends = crossed(new["rar"] - new[rival])
        facts |= {
            f"rar_minus_{rival}{end}": value for end, value in zip(("", "_low", "_high"), ends, strict=True)
        }
    known = {KEYS[name]: np.array(values) for name, values in run["known"].items() if name in KEYS}
    facts["known_pairs"], facts["new_pairs"] = len(known["rar"]), new["rar"].size
    facts["known_behind"] = int((known["rar"] > known["zip"]).sum())
    facts["times_known"] = facts["rar_known"] / facts["zip_known"]
    facts["times_new"] = facts["rar_new"] / facts["zip_new"]
    facts["ahead_of_table"] = int((new["rar"] < new["table"]).sum())
    # How much of the way from one number to the optimum, on new LoRAs.
    facts["gain_new"] = (facts["levels_new"] - facts["rar_new"]) / (facts["levels_new"] - facts["zip_new"])
    facts["gain_table"] = (facts["levels_new"] - facts["table_new"]) / (
        facts["levels_new"] - facts["zip_new"]
    )
    return facts


def right(scale: str = "shoebox") -> dict[str, np.ndarray]:
    """Return which validation images are right, (subjects, styles, images), by method, from the recorded run."""
    run = record(f"experiment_validation{suffix(scale)}")
    verdicts = from_record(run, style.judge_of(scale))
    return {m: v.right.reshape(len(run["subjects"]), len(run["styles"]), -1) for m, v in verdicts.items()}


def weighted(scale: str = "shoebox") -> dict[str, np.ndarray]:
    """Return the share of right images on the pairs of the recorded first sums, (subjects, styles), by method.

    The sum at 0.7 was judged there only, with the first seeds of the experiment: the others are cut to these.
    """
    run, first = record(f"experiment_validation{suffix(scale)}"), record(f"first_sums{suffix(scale)}")
    column = first["of"]["weights"].index([0.7, 0.7])
    cases = {(pair["subject"], pair["style"]): pair for pair in first["of"]["pairs"]}
    rows = list(dict.fromkeys(c for c, _ in cases))
    columns = list(dict.fromkeys(s for _, s in cases))

    def share(c: str, s: str) -> float:
        both = [cases[c, s][f"{axis} right"][column] for axis in ("subject", "style")]
        return float(np.logical_and(*both).mean())

    at = np.ix_([run["subjects"].index(c) for c in rows], [run["styles"].index(s) for s in columns])
    others = {m: v[at][..., : first["count"]].mean(2) for m, v in right(scale).items()}
    return others | {"weighted": np.array([[share(c, s) for s in columns] for c in rows])}


def _images(scale: str) -> dict[str, float]:
    all_right, same = right(scale), weighted(scale)
    shares = {m: all_right[m].mean(2) for m in ("direct", "ziplora", "lorarar")}
    facts: dict[str, float] = {
        "validation_pairs": shares["direct"].size,
        "validation_images": all_right["direct"].shape[2],
        "same_pairs": same["weighted"].size,
        "same_images": record(f"first_sums{suffix(scale)}")["count"],
    }
    facts |= {f"right_{m}": share.mean() for m, share in shares.items()}
    facts |= {f"same_{m}": same[m].mean() for m in ("weighted", "direct", "ziplora", "lorarar")}
    for name, values in (
        ("zip", shares["lorarar"] - shares["ziplora"]),
        ("sum", shares["lorarar"] - shares["direct"]),
        ("weighted", same["lorarar"] - same["weighted"]),
    ):
        ends = zip(("", "_low", "_high"), crossed(values), strict=True)
        facts |= {f"duel_{name}{end}": 100 * value for end, value in ends}
    return facts


def _recipes(scale: str) -> dict[str, float]:
    rows = list(record(f"hypernetworks{suffix(scale)}")["of"].values())
    shares = [row["average"][0] for row in rows]
    return {
        "recipes": len(rows),
        "recipe_first": shares[0],
        "recipe_best": max(shares),
        "recipe_worst": min(shares),
        "recipes_ahead": sum(row["ahead"][1] > 0 for row in rows),
    }


def recipe_rows(scale: str = "shoebox") -> list[dict[str, object]]:
    """Return the table of recipes: what each changes of the first one's, and how its validation images were judged."""
    rows = record(f"hypernetworks{suffix(scale)}")["of"].values()
    first = next(iter(rows))["recipe"]
    says = {
        "parts": lambda value: ", ".join(value),
        "rest": {"average": "rest averaged", "sum": "rest added"}.get,
        "order": lambda value: f"pairs {value}",
        "learning_rate": lambda value: f"rate {value:g}",
    }
    return [
        {
            "Recipe": "; ".join(
                say(row["recipe"][k]) for k, say in says.items() if row["recipe"][k] != first[k]
            )
            or "the paper's",
            "Average case": style.interval(row["average"]),
            "Against the first": style.points(row["ahead"]),
            "Best case": f"{row['best'][0]:.0%}",
        }
        for row in rows
    ]


def ladder_rows(scale: str = "shoebox") -> list[dict[str, object]]:
    """Return the table of the ladder: mean ρ on training pairs, and on new LoRAs with its interval."""
    both = rungs(scale)
    return [
        {
            "Coefficients": name,
            "Training pairs": both["known"][name][0],
            "New LoRAs": style.interval(both["new"][name], ".2f"),
        }
        for name in LADDER
    ]


# ---------------------------------------------------------------- numbers of this run


def live(
    first_words: Mapping[str, tuple[Tensor, Tensor]],
    last_words: Mapping[str, tuple[Tensor, Tensor]],
    curves: Mapping[str, Sequence[float]],
    shipped: Mapping[str, float],
    one: Mapping[str, float],
    judged: Mapping[str, Sequence[Sequence[bool]]],
    steps: int,
) -> Facts:
    """Return what the chapter computed.

    Args:
        first_words: what a fresh network answers to the chapter's pair, layer → (m_c, m_s), (in,) each.
        last_words: what the shipped one does.
        curves: mean ρ during the short training, by kind of pair.
        shipped: mean ρ of the shipped network on the same pairs, by kind.
        one: ρ of the chapter's pair, by merge.
        judged: verdicts (subject, style) of the pictures, by row.
        steps: of the short training.
    """

    def spread(gates: Mapping[str, tuple[Tensor, Tensor]]) -> float:
        return float(np.mean([[float(m.std()) for m in both] for both in gates.values()]))

    return Facts(
        live_steps=steps,
        first_mean=np.mean([[float(m.mean()) for m in both] for both in first_words.values()]),
        first_spread=spread(first_words),
        last_spread=spread(last_words),
        last_highest=max(float(m.max()) for both in last_words.values() for m in both),
        **{f"start_{kind}": values[0] for kind, values in curves.items()},
        **{f"end_{kind}": values[-1] for kind, values in curves.items()},
        **{f"shipped_{kind}": value for kind, value in shipped.items()},
        **{f"one_{name}": value for name, value in one.items()},
        shown=len(judged["drawn"]),
        **{f"seen_{name}": sum(all(v) for v in verdicts) for name, verdicts in judged.items()},
    )


# ---------------------------------------------------------------- what the prose says


def statements(facts: Facts) -> dict[str, bool]:
    """Return the findings of the prose, each by a fragment of it."""
    f = facts
    return {}


def claims(facts: Facts) -> list[Claim]:
    """Return the papers' claims that the chapter examines."""
    return []


# ---------------------------------------------------------------- figures


def columns_figure(seen: Tensor, m_c: Tensor, m_s: Tensor) -> Figure:
    """Show two updates of a layer, (2 · out, in), and below them the coefficients (in,) of both sides."""
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(style.WIDTH, 5.2), height_ratios=[2, 1], sharex=True, layout="constrained"
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


def losses_figure(terms: Mapping[str, np.ndarray]) -> Figure:
    """Show the loss of a training: a dot for each pair's fifty steps, a line through the means of ten pairs."""
    total = sum(terms.values())
    pairs, blocks = total.reshape(-1, BLOCK // 10).mean(1), total.reshape(-1, BLOCK).mean(1)
    figure, axes = plt.subplots(layout="constrained")
    axes.scatter(BLOCK // 10 * (np.arange(len(pairs)) + 0.5), pairs, s=16, color=style.GREY, label="one pair")
    axes.plot(
        BLOCK * (np.arange(len(blocks)) + 0.5), blocks, color=style.MERGED, marker="o", label="ten pairs"
    )
    axes.set(xlabel="step", ylabel="mean loss", ylim=(0, None))
    legend_below(figure)
    return figure


def ladder_figure(both: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> Figure:
    """Show the rungs' mean ρ: on new LoRAs with intervals, on training pairs as circles."""
    figure, axes = plt.subplots(figsize=(style.WIDTH, 0.9 + 0.4 * len(LADDER)), layout="constrained")
    for place, name in enumerate(LADDER):
        value, low, high = both["new"][name]
        first = place == 0  # one entry of the legend
        axes.plot([low, high], [place] * 2, color=style.MERGED, linewidth=3, alpha=0.45)
        axes.plot(value, place, "o", color=style.MERGED, markersize=8, label="new LoRAs" if first else None)
        axes.plot(
            both["known"][name][0], place, "o", markerfacecolor="none", markeredgecolor=style.INK, markersize=8,
            label="training pairs" if first else None,
        )  # fmt: skip
    axes.axvline(1, color=style.GREY, linestyle=":")
    axes.set_yticks(range(len(LADDER)), LADDER)
    axes.set(xlim=(0, None), ylim=(len(LADDER) - 0.4, -0.6), xlabel="ρ")
    axes.grid(False, axis="y")
    legend_below(figure)
    return figure
