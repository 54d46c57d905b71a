"""The appendix to chapters 3 and 4: first sums, alignment by part, one LoRA pruned, ranks, rivals since."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from lorarar.bookkit import figures, fusion, records, sums, variants
from lorarar.bookkit import style as look
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.style import DIRECT, GREY, INK, OTHER, SKY
from lorarar.bookkit.tables import table
from lorarar.lora import LoRA, delta_weight, norm
from lorarar.merging import METHODS as MERGING
from lorarar.shoebox import zoo
from lorarar.study import interference
from lorarar.study.ruler import ruler
from lorarar.study.statistics import crossed, grid
from lorarar.study.volume import as_used, exact

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler
    from torch import Tensor

    from lorarar.bookkit.claims import Claim

PAIR = ("bear plushie", "watercolor painting #1")
PARTS = {
    f"{where} {part}": (f".{attention}.", f".to_{letter}")
    for where, attention in (("self", "attn1"), ("cross", "attn2"))
    for part, letter in (("query", "q"), ("key", "k"), ("value", "v"), ("output", "out"))
}
COLUMNS = ("cosine", "cosine, noise", "shared columns", "shared, noise")
KINDS = ("by size", "at random", "factors, by size", "factors, at random")
DENSITIES = (1.0, 0.5, 0.3, 0.2, 0.1)
RANK = 16
"""Of both LoRAs of the shoebox together."""

RIVALS = {
    "ridge 0.1": ("RegMean", "regmean"),
    "sum at 0.7": ("sum at 0.7", "tuned"),
    "half sum": ("half sum", "half"),
    "plain sum": ("plain sum", ""),
    "NP-LoRA": ("NP-LoRA", ""),
    "K-LoRA": ("K-LoRA", ""),
    "EST-LoRA": ("EST-LoRA", "est"),
    "LoRA Switch": ("LoRA Switch", "switch"),
    "LoRA Composite": ("LoRA Composite", "composite"),
    "dynamic fusion": ("dynamic fusion", "dynamic"),
}
"""Rows of the contest of rivals: what the page calls them, and their facts, if it quotes them."""
NEW = ("EST-LoRA", "LoRA Switch", "LoRA Composite", "dynamic fusion")

Single = Mapping[tuple[str, str, float], float]


def recorded(scale: str = "shoebox") -> Facts:
    """Return how often each subject's recorded sums are right, and what the contest of rivals found."""
    pairs, by_weights = sums.pairs_of(scale), sums.sums(scale)
    right = np.stack(
        [both["both"] for w, both in by_weights.items() if all(w)], 1
    )  # (pairs, weights, images)
    rows = {name: [i for i, (subject, _) in enumerate(pairs) if subject.startswith(name)] for name in _NAMES}
    own = {f"{name}_right": right[i].mean() for name, i in rows.items()}
    return Facts(own, _rivals(scale), fusion.facts(scale), variants.facts(scale))


_NAMES = ("dog", "clock", "bear")


def seen(scale: str = "shoebox") -> dict[str, np.ndarray]:
    """Return the shares of right images of the rivals, row → (subjects, styles), from the same noise.

    NP-LoRA's are those of the scoreboard's record, the first seeds of it.
    """
    run = records.recorded(f"rivals{records.suffix(scale)}")
    shares = {name: np.array(row["pairs"])[0] for name, row in run["rows"].items()}
    old = records.experiment("validation", scale)[1]["np-lora"].right[:, : len(run["seeds"])]
    return shares | {"NP-LoRA": grid(old, len(run["subjects"]))}


def _rivals(scale: str) -> dict[str, float]:
    shares = seen(scale)
    facts = {f"rival_{key}": shares[row].mean() for row, (_, key) in RIVALS.items() if key}
    tuned = shares["sum at 0.7"]
    lead = {RIVALS[row][1]: crossed(shares[row] - tuned) for row in NEW}
    facts |= {f"rival_{key}_low": entry.low for key, entry in lead.items()}
    facts |= {f"rival_{key}_high": lead[key].high for key in ("est", "dynamic")}
    facts |= {
        f"{RIVALS[row][1]}_over_k": crossed(shares[row] - shares["K-LoRA"]).low
        for row in ("LoRA Switch", "LoRA Composite")
    }
    beside = crossed(shares["LoRA Composite"] - shares["half sum"])
    facts |= {"composite_half_low": beside.low, "composite_half_high": beside.high}
    run = records.recorded(f"rivals{records.suffix(scale)}")
    energy = {
        name: sum(norm(pair) ** 2 for pair in zoo.load(name, scale).values())
        for name in (*run["subjects"], *run["styles"])
    }
    strongest = max(energy[subject] / energy[style] for subject in run["subjects"] for style in run["styles"])
    return facts | {"rival_pairs": shares["K-LoRA"].size, "strongest_subject": strongest}


# ---------------------------------------------------------------- computed on the page


def alignment_by_part(scale: str) -> np.ndarray:
    """Return cosine and shared columns of subject and style, beside noise, for each part: (parts, 4)."""
    pairs = sums.pairs_of(scale)
    loras = {name: zoo.load(name, scale) for pair in pairs for name in pair}
    updates = {name: interference.deltas(lora) for name, lora in loras.items()}
    noise = [interference.noise_like(loras[pairs[0][0]], seed) for seed in (0, 1)]
    rows = []
    for attention, letter in PARTS.values():

        def only(update: interference.Deltas, a: str = attention, b: str = letter) -> dict[str, Tensor]:
            return {k: m for k, m in update.items() if a in k and b in k}

        some = [(only(updates[a]), only(updates[b])) for a, b in pairs]
        chance = [only(update) for update in noise]
        rows.append(
            [
                np.mean([float(interference.cosines(*two).abs().mean()) for two in some]),
                float(interference.cosines(*chance).abs().mean()),
                np.mean([interference.shared_columns(*two) for two in some]),
                interference.shared_columns(*chance),
            ]
        )
    return np.array(rows)


def pruned_alone(pipe: DiffusionPipeline, scale: str, seed: int) -> dict[tuple[str, str, float], float]:
    """Measure ρ of either LoRA of the pair, pruned by itself: (side, kind, density) → ρ on its own ground."""
    coins = torch.Generator().manual_seed(seed)

    def by_size(density: float) -> Callable[[Tensor], Tensor]:
        return lambda x: x * (x.abs() >= x.abs().flatten().topk(int(density * x.numel())).values[-1])

    def at_random(density: float) -> Callable[[Tensor], Tensor]:
        return lambda x: x * torch.bernoulli(torch.full_like(x, density), generator=coins) / density

    def update(lora: LoRA, change: Callable[[Tensor], Tensor]) -> LoRA:
        changed = {k: change(up.float() @ down.float()) for k, (up, down) in lora.items()}
        return LoRA({k: (delta, torch.eye(delta.shape[1])) for k, delta in changed.items()})  # loses nothing

    def factors(lora: LoRA, change: Callable[[Tensor], Tensor]) -> LoRA:
        return LoRA({k: tuple(change(x.float()) for x in pair) for k, pair in lora.items()})

    few = (1.0, 0.5, 0.2, 0.1) if scale == "smoke" else DENSITIES
    ways = dict(
        zip(
            KINDS,
            ((update, by_size), (update, at_random), (factors, by_size), (factors, at_random)),
            strict=True,
        )
    )
    single = {}
    with ruler(pipe, draws=2 if scale == "smoke" else 16) as measure:
        for side, name in zip(sums.AXES, PAIR, strict=True):
            for kind, (form, how) in ways.items():
                for d in few:
                    pruned = form(measure.side(name).lora, how(d))
                    single[side, kind, d] = measure.alone(name, pruned)
    return single


def lost_by_rank(scale: str) -> dict[str, np.ndarray]:
    """Return the share of energy that a layer's merge loses when cut to rank 1, 2, …: {merge: (ranks,)}."""
    loras = [zoo.load(name, scale) for name in PAIR]
    layer = max((k for k in loras[0] if k.endswith(".to_q")), key=lambda k: norm(loras[0][k]))
    updates = {"sum": delta_weight(as_used("direct", *loras)[layer])}
    updates |= {m.upper(): exact(*loras, m, layer) for m in MERGING if m in ("ties", "dare", "dare-ties")}
    lost = {}
    for name, update in updates.items():
        squares = torch.linalg.svdvals(update.double()).square()
        lost[name] = (1 - squares.cumsum(0) / squares.sum()).clamp(0, 1).numpy()
    return lost


def live(parts: np.ndarray, single: Single, lost: Mapping[str, np.ndarray]) -> Facts:
    """Return what the page computed; see `alignment_by_part`, `pruned_alone`, `lost_by_rank`."""
    chosen = {"size_half": ("by size", 0.5), "lot_half": ("at random", 0.5), "size_fifth": ("by size", 0.2)}
    chosen |= {"lot_tenth": ("at random", 0.1), "factors_half": ("factors, at random", 0.5)}
    return Facts(
        {f"{name}_{side}": single[side, *which] for name, which in chosen.items() for side in sums.AXES},
        shared=parts[:, 2].mean(),
        shared_noise=parts[:, 3].mean(),
        least_aligned=(parts[:, 0] / parts[:, 1]).min(),
        most_shared=(parts[:, 2] - parts[:, 3]).max(),
        lost_sum=lost["sum"][RANK - 1],
        lost_ties=lost["TIES"][RANK - 1],
        lost_dare=lost["DARE"][RANK - 1],
    )


# ---------------------------------------------------------------- what the prose says


def statements(f: Facts) -> dict[str, bool]:
    """Return the findings of the prose, each by a fragment of it."""
    return (
        {
            "The dog is the hardest of the three": f.dog_right < min(f.clock_right, f.bear_right),
            "In every part the columns are more aligned than noise is": f.least_aligned > 1.1,
            "in every part they are shared somewhat less": f.most_shared < 0,
            "The largest half of the update is as good as all": max(f.size_half_subject, f.size_half_style)
            < 0.05,
            "and a random half almost": max(f.lot_half_subject, f.lot_half_style) < 0.15,
            "With the largest fifth most of the effect is left": (
                max(f.size_fifth_subject, f.size_fifth_style) < 0.4
            ),
            "with a random tenth much of the subject is lost, and all of the style": (
                f.lot_tenth_subject > 0.2 and f.lot_tenth_style > 0.9
            ),
            "pruning factors at random costs more than pruning the update": (
                f.factors_half_subject > f.lot_half_subject and f.factors_half_style > f.lot_half_style
            ),
            "At rank 16 the sum loses nothing": f.lost_sum < 1e-4 < f.lost_ties < f.lost_dare,
            "None of the four that are new to this book is ahead of the sum": (
                max(f.rival_est_low, f.rival_switch_low, f.rival_composite_low, f.rival_dynamic_low) <= 0
            ),
            "both intervals lie below zero": max(f.rival_est_high, f.rival_dynamic_high) < 0,
            "These two are ahead of K-LoRA": min(f.switch_over_k, f.composite_over_k) > 0,
            "no subject's update has as much energy as a style's": f.strongest_subject < 0.9,
            "the interval of their difference contains zero": f.composite_half_low
            <= 0
            <= f.composite_half_high,
        }
        | fusion.statements(f)
        | variants.statements(f)
    )


def claims(facts: Facts) -> list[Claim]:
    """Return the papers' claims that the page examines: none that the chapters do not."""
    return []


# ---------------------------------------------------------------- tables and figures


def rivals_table(scale: str) -> Styler:
    """Show how often each rival is right on both axes, and its lead on the sum at 0.7, the best first."""
    shares = seen(scale)
    rows = sorted(RIVALS, key=lambda row: -shares[row].mean())
    return table(
        {
            "Method": [RIVALS[row][0] for row in rows],
            "Both right": [look.interval(crossed(shares[row])) for row in rows],
            "Ahead of the sum at 0.7 by": [
                "–" if row == "sum at 0.7" else look.points(crossed(shares[row] - shares["sum at 0.7"]))
                for row in rows
            ],
        }
    )


def sheet_figure(scale: str) -> Figure:
    """Show the first image of every pair and weighting of the recorded sums."""
    name = f"first_sums{records.suffix(scale)}"
    columns = [c.replace(" and ", " / ") for c in records.recorded(name)["of"]["columns"]]
    names = [f"{s.split()[0]}, {t.split(' #')[0]}" for s, t in sums.pairs_of(scale)]
    return figures.contact_sheet(records.sheet(name, len(columns)), rows=names, columns=columns, enlarge=2)


def parts_figure(parts: np.ndarray) -> Figure:
    """Show alignment and shared columns for each part of attention."""
    return figures.heat_maps({"": parts}, rows=list(PARTS), columns=COLUMNS)


def single_figure(single: Single) -> Figure:
    """Show ρ of one pruned LoRA over the density, a panel for each side."""
    figure, axes = figures.panels(2, 3.8, sharey=True)
    densities = sorted({d for _, _, d in single})
    for ax, side in zip(axes, sums.AXES, strict=True):
        figures.lines(
            densities,
            {kind: [min(single[side, kind, d], 1.5) for d in densities] for kind in KINDS},
            xlabel="density",
            ylabel="ρ" if side == "subject" else "",
            title=side,
            colours={kind: INK if "size" in kind else GREY for kind in KINDS},
            dashes={kind: "--" if "factors" in kind else "-" for kind in KINDS},
            legend=True,
            axes=ax,
        )
        ax.set_xticks([0.1, 0.5, 1.0])
    figures.legend_below(figure)
    return figure


def spectrum_figure(lost: Mapping[str, np.ndarray]) -> Figure:
    """Show the share of energy lost over the rank that is kept."""
    figure, (axes,) = figures.panels(1, 3.8)
    hues = {"sum": DIRECT, "TIES": SKY, "DARE": OTHER, "DARE-TIES": INK}
    for name, share in lost.items():
        axes.plot(np.arange(1, len(share) + 1), share, color=hues[name], label=name)
    axes.axvline(RANK, color=GREY, linestyle=":")
    axes.set(xlabel="rank that is kept", ylabel="share of the energy lost")
    figures.legend_below(figure, 4)
    return figure
