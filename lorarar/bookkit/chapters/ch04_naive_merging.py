"""Chapter 4, merging without pictures: what each recipe does to numbers, to answers and to images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from lorarar import load_lora, merge
from lorarar.bookkit import board as boards
from lorarar.bookkit import figures, sums
from lorarar.bookkit.claims import NOT_AT_THIS_SCALE, Claim, sign_verdict, verdict
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.style import DIVERGING, GREY, INK, OTHER, STYLE, WIDTH, framed, hue_of, name_of
from lorarar.lora import LoRA, delta_weight
from lorarar.pipelines import generate, loaded
from lorarar.scales import find_scale
from lorarar.shoebox import zoo
from lorarar.study import interference, statistics
from lorarar.study.ruler import ruler
from lorarar.study.statistics import Entry
from lorarar.study.training import slug
from lorarar.study.verdicts import find_judge
from lorarar.study.volume import Errors, as_used, best, exact, louder, means, norm_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from matplotlib.figure import Figure
    from torch import Tensor


PAIR = ("bear plushie", "watercolor painting #1")
ON_UPDATES = ("direct", "ties-delta", "dare-delta", "dare-ties-delta", "np-lora")
ON_FACTORS = ("ties", "dare", "dare-ties")
ON_ALL = (*ON_UPDATES, *ON_FACTORS)
FREE = (*ON_ALL, "k-lora")
"""The methods of this chapter that need no training."""
VOLUMES = (0.5, 0.7, 1.0)
EDGE = 24
"""Rows and columns of a layer's corner that is shown."""


@dataclass(frozen=True)
class Settings:
    """How much a run computes: probes of a LoRA, pairs (every which for densities), images made again."""

    draws: int = 16
    pairs: int = 9
    step: int = 4
    densities: tuple[float, ...] = (1.0, 0.8, 0.5, 0.3, 0.1)
    again: int = 5


def settings(scale: str) -> Settings:
    """Return what a run at a scale computes; the smoke test takes fewer of everything."""
    return Settings(2, 1, 1, (1.0, 0.5), 2) if scale == "smoke" else Settings()


# ---------------------------------------------------------------- recorded runs


def joint(scale: str) -> LoRA:
    """Return the joint LoRA of the chapter's pair."""
    return load_lora(zoo.folder(scale) / "joint" / f"{slug(PAIR)}.safetensors")


def recorded(scale: str = "shoebox") -> Facts:
    """Return the numbers of recorded runs: the scoreboard, sums on the same pairs, the joint training."""
    board, trained = boards.load("test", scale), joint(scale)
    share = {m: board.share(m).value for m in (*FREE, "joint")}
    quoted = ("direct", "ties-delta", "dare-delta", "np-lora", "k-lora", "ties", "dare", "joint")
    facts = Facts({f"score_{_key(m)}": share[m] for m in quoted})
    for m in ("ties-delta", "np-lora", "joint"):
        facts |= _in_points(f"lead_{_key(m)}", board.difference(m, "direct"))
    for m in ON_FACTORS:
        gap = board.scores("direct", "subject") - board.scores(m, "subject")
        facts |= _in_points(f"loses_{_key(m)}", statistics.crossed(gap))
    for axis in sums.AXES:
        gap = statistics.crossed(board.scores("k-lora", axis) - board.scores("direct", axis))
        facts |= {f"klora_more_{axis}_low": gap.low, f"klora_more_{axis}_high": gap.high}
    shared = sums.shared(scale, ("ties-delta", "np-lora"))
    for m in ("ties-delta", "np-lora"):
        facts |= _in_points(f"even_{_key(m)}", statistics.crossed(shared[m] - shared[sums.EVEN]))
    return facts | Facts(
        score_second=sorted(share[m] for m in FREE)[-2],
        factors_highest=max(share[m] for m in ON_FACTORS),
        others_lowest=min(share[m] for m in FREE if m not in ON_FACTORS),
        leads_from=max(board.difference(m, "direct").low for m in FREE if m != "direct"),
        even_both=shared[sums.EVEN].mean(),
        same_ties=shared["ties-delta"].mean(),
        same_np=shared["np-lora"].mean(),
        klora_subject=board.share("k-lora", "subject").value,
        klora_style=board.share("k-lora", "style").value,
        direct_subject=board.share("direct", "subject").value,
        direct_style=board.share("direct", "style").value,
        joint_minutes=float(trained.metadata["seconds"]) / 60,
        joint_steps=json.loads(trained.metadata["lorarar_training"])["steps"],
    )


def _key(method: str) -> str:
    return method.replace("-", "_")


def _in_points(name: str, entry: Entry) -> dict[str, float]:
    return {f"{name}{end}": 100 * x for end, x in zip(("", "_low", "_high"), entry, strict=True)}


# ---------------------------------------------------------------- computed in the chapter


def compared(merged: Tensor, added: Tensor) -> str:
    """Say in a line how many entries of a merge are zero, how loud it is, and how far from the sum."""
    zeros, loud = float((merged == 0).float().mean()), float(merged.norm() / added.norm())
    away = float((merged - added).norm() / added.norm())
    return f"{zeros:.0%} zeros, {loud:.0%} of the sum's norm, off the sum by {away:.0%}"


def sweep(
    pipe: DiffusionPipeline, pairs: Sequence[tuple[str, str]], few: Settings
) -> dict[tuple[str, float], list[float]]:
    """Measure ρ of TIES and DARE at volume 0.7 over the density: (method, density) → ρ of every pair."""
    swept: dict[tuple[str, float], list[float]] = {}
    with ruler(pipe, draws=few.draws) as measure:
        for method, d, pair in product(("ties", "dare"), few.densities, pairs[:: few.step]):
            two = (measure.side(name).lora for name in pair)
            merged = louder(merge(*two, method, density=d), 0.7)
            swept.setdefault((method, d), []).append(measure.merged(pair, merged).both)
    return swept


def again(pipe: DiffusionPipeline, scale: str, count: int) -> list[bool]:
    """Make the first test pair's images again by three methods; return which verdicts are the record's."""
    board, same = boards.load("test", scale), []
    pair, judge, made = board.pairs[0], find_judge(board.judge, scale), find_scale("shoebox")
    loras = [zoo.load(name, scale) for name in pair]
    steps = {"steps": made.inference_steps, "guidance": made.guidance}
    for method in ("direct", "ties-delta", "np-lora"):
        with loaded(pipe, as_used(method, *loras)):
            images = generate(pipe, zoo.words(*pair), list(board.seeds[:count]), **steps)
        for name, axis in zip(pair, sums.AXES, strict=True):
            same += list(judge.shows(name, images) == board.of(method, axis)[0, :count])
    return same


def live(
    errors: Errors,
    swept: Mapping[tuple[str, float], Sequence[float]],
    loras: tuple[LoRA, LoRA],
    spelled: Mapping[str, float],
    content_share: np.ndarray,
    same: Sequence[bool],
) -> Facts:
    """Return what the chapter computed.

    Args:
        errors: ρ of merges; those of factors at volume 1, which are the weights they are used at.
        swept: ρ at volume 0.7 by method and density, of every pair.
        loras: of the chapter's pair, subject and style.
        spelled: how far a merge moves when one LoRA is written otherwise.
        content_share: the share of layers that take the content LoRA in K-LoRA, (steps,).
        same: which verdicts on images made again are those of the record.
    """
    rho = {key: np.array([error.both for error in pairs]) for key, pairs in errors.items()}
    lowest = np.min([rho[m, 1.0] for m in ON_ALL], 0)  # (pairs,): of the methods as they are used
    at_best, density = best(errors), {key: float(np.mean(values)) for key, values in swept.items()}
    falling = [density["dare", d] for d in sorted({d for _, d in swept}, reverse=True)]
    updates = {m: as_used(m, *loras) for m in ("direct", "ties-delta", "dare-delta")}
    loud = {m: norm_of({k: delta_weight(pair) for k, pair in lora.items()}) for m, lora in updates.items()}
    return Facts(
        {f"rho_{_key(m)}": rho[m, 1.0].mean() for m in ON_UPDATES},
        rho_factors=min(rho[m, 1.0].mean() for m in ON_FACTORS),
        rho_lowest=min(rho[m, 1.0].mean() for m in ON_ALL),
        best_direct=at_best["direct"][1],
        best_ties_delta=at_best["ties-delta"][1],
        best_others=min(at_best[m][1] for m in ON_UPDATES if m != "direct"),
        best_fourth=sorted(at_best[m][1] for m in ON_UPDATES)[3],
        left_ties=_kept(updates["ties-delta"]),
        left_dare=_kept(updates["dare-delta"]),
        rho_half=rho["direct", 0.5].mean(),
        rho_even=rho["direct", 0.7].mean(),
        even_first=int((rho["direct", 0.7] <= lowest).sum()),
        measured=len(lowest),
        dare_whole=falling[0],
        dare_half=density["dare", 0.5],
        dare_least=falling[-1],
        dare_rises=bool(np.all(np.diff(falling) > -1e-6)),
        ties_whole=density["ties", 1.0],
        ties_best=min(value for (m, _), value in density.items() if m == "ties"),
        cross_ties=interference.ties_cross(*loras),
        spelled_update=max(spelled[m] for m in ON_UPDATES),
        spelled_factors=min(spelled[m] for m in ON_FACTORS),
        ties_volume=loud["ties-delta"] / loud["direct"],
        klora_first=content_share[0],
        klora_last=content_share[-1],
        again=np.mean(same),
    )


def _kept(lora: LoRA) -> float:
    """Return the share of energy that a merge kept when it was cut to the summed rank."""
    return json.loads(lora.metadata["lorarar_energy_kept"])["all"]


# ---------------------------------------------------------------- what the prose says


def statements(f: Facts) -> dict[str, bool]:
    """Return the findings of the prose, each by a fragment of it."""
    return {
        "half the sum is ahead of every one of them": f.rho_half < f.rho_lowest,
        "the sum at 0.7 in each of the nine pairs": f.even_first == f.measured,
        "Set to its own best volume, none is better than the sum": f.best_direct <= f.best_others + 0.005,
        "all five lie within a tenth": f.best_fourth < f.best_ties_delta < f.best_direct + 0.1,
        "TIES is the quieter sum": f.ties_volume < 0.92 and f.rho_ties_delta < f.rho_direct,
        "Dropping at random never helps": bool(f.dare_rises) and f.rho_dare_delta > f.rho_direct,
        "Trimming by size does little": abs(f.ties_whole - f.ties_best) < 0.1,
        "no training-free recipe is shown to be ahead of the plain sum": f.leads_from < 0,
        "the less it keeps, the worse it gets": bool(f.dare_rises) and f.dare_least > f.dare_half,
        "TIES on $\\Delta W$ comes first": f.score_ties_delta > f.score_second,
        "the three on factors come last": f.factors_highest < f.others_lowest,
        "TIES is not ahead of the sum at 0.7": f.even_ties_delta <= 0,
        "is ahead of it by an interval clear of zero": f.lead_joint_low > 0,
        "which cannot be told apart from the sum's": (
            f.klora_more_subject_low < 0 < f.klora_more_subject_high
            and f.klora_more_style_low < 0 < f.klora_more_style_high
        ),
        "it mostly shows one of the two": f.klora_subject + f.klora_style > 4 * f.score_k_lora,
        "almost as large as the terms that belong together": 0.7 < f.cross_ties < 1,
        "A merge of updates does not move": f.spelled_update < 0.005,
        "become another merge altogether": f.spelled_factors > 0.7,
        "keeps nearly all of TIES and two thirds of DARE": f.left_ties > 0.9 and 0.6 < f.left_dare < 0.75,
    }


def claims(f: Facts) -> list[Claim]:
    """Return the papers' claims that the chapter examines."""

    def points(value: float, low: float, high: float) -> str:
        return f"{value:+.0f} points ({low:.0f} to {high:.0f})"

    ties = points(f.lead_ties_delta, f.lead_ties_delta_low, f.lead_ties_delta_high)
    ties_even = points(f.even_ties_delta, f.even_ties_delta_low, f.even_ties_delta_high)
    projected = points(f.lead_np_lora, f.lead_np_lora_low, f.lead_np_lora_high)
    projected_even = points(f.even_np_lora, f.even_np_lora_low, f.even_np_lora_high)
    lost = {
        "TIES": (f.loses_ties, f.loses_ties_low, f.loses_ties_high),
        "DARE": (f.loses_dare, f.loses_dare_low, f.loses_dare_high),
        "DARE-TIES": (f.loses_dare_ties, f.loses_dare_ties_low, f.loses_dare_ties_high),
    }
    return [
        Claim(
            "dropped_by_lot",
            "Nine tenths of an update can be dropped at random",
            "DARE, abstract (for large language models)",
            f"Merged at volume 0.7, ρ grows from {f.dare_whole:.2f} to {f.dare_half:.2f} with half of the "
            f"entries and to {f.dare_least:.2f} with a tenth. Wider layers average more of the noise away.",
            verdict(f.dare_least < 1.1 * f.dare_whole, otherwise=NOT_AT_THIS_SCALE),
        ),
        Claim(
            "ties_better",
            "Electing signs makes a merge better than the sum",
            "TIES-Merging, abstract",
            f"TIES on ΔW minus the plain sum: {ties}. Minus the sum at 0.7, on other pairs: {ties_even}.",
            sign_verdict(f.lead_ties_delta_low, f.lead_ties_delta_high),
        ),
        Claim(
            "np_better",
            "Projecting the subject out of the style's directions beats weighting",
            "NP-LoRA, abstract",
            f"NP-LoRA minus the plain sum: {projected}. Minus the sum at 0.7, on other pairs: "
            f"{projected_even}.",
            sign_verdict(f.even_np_lora_low, f.even_np_lora_high),
        ),
        Claim(
            "factors_lose",
            "TIES, DARE and DARE-TIES, as the paper ran them, lose the subject more often than the sum",
            "LoRA.rar, Table A2, column DINO",
            "The plain sum's lead in images with the right subject: "
            + "; ".join(f"{name} {points(*lead)}" for name, lead in lost.items())
            + f". Clear of zero: {' and '.join(n for n, (_, low, _) in lost.items() if low > 0) or 'none'}. "
            "Half the sum, which has the same weights, was not judged there.",
            verdict(
                all(low > 0 for _, low, _ in lost.values()),
                part=any(low > 0 for _, low, _ in lost.values()),
                against=all(high < 0 for *_, high in lost.values()),
            ),
        ),
        Claim(
            "joint_better",
            "Joint training is ahead of the sum",
            "ZipLoRA, user study (against it, joint training loses less often)",
            f"On the test: {points(f.lead_joint, f.lead_joint_low, f.lead_joint_high)}.",
            sign_verdict(f.lead_joint_low, f.lead_joint_high),
        ),
    ]


# ---------------------------------------------------------------- figures and tables


def corner(*updates: Tensor) -> np.ndarray:
    """Show corners of matrices side by side, orange above zero, blue below, zeros grey: (h, w, 3) uint8."""
    top = max(float(m.abs().quantile(0.98)) for m in updates)
    gap = np.full((EDGE, 1, 3), 255, np.uint8)
    tiles = []
    for m in updates:
        part = m[:EDGE, :EDGE].numpy()
        shown = (255 * DIVERGING((np.clip(part / top, -1, 1) + 1) / 2)[..., :3]).astype(np.uint8)
        shown[part == 0] = (176, 180, 188)
        tiles += [shown, gap]
    return np.concatenate(tiles[:-1], 1)


def tiles_figure(content: LoRA, style: LoRA, layer: str) -> Figure:
    """Show the same corner of a layer: both updates, three merges and the sum, zeros in grey."""
    updates = {
        "subject": delta_weight(content[layer]),
        "style": delta_weight(style[layer]),
        "sum": delta_weight(as_used("direct", content, style)[layer]),
        "TIES": exact(content, style, "ties", layer),
        "DARE": exact(content, style, "dare", layer),
        "NP-LoRA": delta_weight(as_used("np-lora", content, style)[layer]),
    }
    figure, axes = plt.subplots(2, 3, figsize=(WIDTH, 4.1), layout="constrained")
    whole = corner(*updates.values())
    for i, (ax, name) in enumerate(zip(axes.flat, updates, strict=True)):
        ax.imshow(whole[:, i * (EDGE + 1) : i * (EDGE + 1) + EDGE])
        ax.set_title(name)
        ax.axis("off")
    return figure


def volume_figure(errors: Errors) -> Figure:
    """Show every method's mean ρ at the weights it is used at, and at its best volume."""
    rho, at_best = means(errors), best(errors)
    order = sorted(ON_ALL, key=lambda m: rho[m, 1.0])
    figure, axes = plt.subplots(figsize=(WIDTH, 4.4), layout="constrained")
    for place, m in enumerate(order):
        if m in at_best:
            axes.plot([rho[m, 1.0], at_best[m][1]], [place] * 2, color=GREY, linewidth=1.5)
            axes.plot(at_best[m][1], place, "o", color=hue_of(m), markersize=9)
        axes.plot(
            rho[m, 1.0], place, "o", markerfacecolor="white", markeredgecolor=hue_of(m), markersize=9,
            markeredgewidth=2,
        )  # fmt: skip
    axes.plot([], [], "o", markerfacecolor="white", markeredgecolor=INK, markersize=9, label="as it is used")
    axes.plot([], [], "o", color=INK, markersize=9, label="best volume")
    axes.axvline(rho["direct", 0.5], color=GREY, linestyle=":", label="half sum")
    axes.set_yticks(range(len(order)), [name_of(m) for m in order])
    axes.set(ylim=(len(order) - 0.5, -0.5), xlabel="ρ, mean over pairs")
    axes.grid(False, axis="y")
    figures.legend_below(figure, 3)
    return figure


def sheet_figure(scale: str) -> Figure:
    """Show five test pairs under five methods, the first seed of each, framed by the recorded verdict."""
    board = boards.load("test", scale)
    columns = ("direct", "ties-delta", "k-lora", "ties", "joint")
    across = len(board.styles)
    rows = [i * across + i % across for i in range(len(board.subjects))]
    every = board.pictures()
    grid = [
        [
            framed(
                every[i, board.methods.index(m)],
                (board.of(m, "subject")[i, 0], board.of(m, "style")[i, 0]),
            )
            for m in columns
        ]
        for i in rows
    ]
    names = [f"{subject}, {style.split(' #')[0]}" for subject, style in (board.pairs[i] for i in rows)]
    return figures.image_grid(grid, rows=names, columns=[name_of(m) for m in columns])


def scores_figure(scale: str) -> Figure:
    """Show the share of test images that are right for each method of the chapter, with intervals."""
    board = boards.load("test", scale)
    order = sorted((*FREE, "joint"), key=lambda m: -board.share(m).value)
    entries = {name_of(m): board.share(m) for m in order}
    hues = {name_of(m): OTHER if m == "joint" else STYLE if m in ON_FACTORS else INK for m in order}
    return figures.forest(entries, label="subject and style right", colours=hues)
