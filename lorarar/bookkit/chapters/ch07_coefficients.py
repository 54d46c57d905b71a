"""Chapter 7, the coefficients: its numbers, what the prose says of them, its claims, and its own figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import torch

from lorarar.bookkit import style
from lorarar.bookkit.claims import NOT_EXAMINED, Claim, verdict
from lorarar.bookkit.controls import Control
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.figures import heat_maps, legend_below, panels
from lorarar.bookkit.records import recorded as record
from lorarar.bookkit.records import suffix
from lorarar.merging import Gates
from lorarar.shoebox.world import subjects
from lorarar.study import coefficients as co
from lorarar.study.predictions import Predictions, looks
from lorarar.study.statistics import crossed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lorarar.bookkit.images import Seen

Pair = tuple[str, str]
SIDES = ("subject", "style")
TERMS = ("layer", "column", "pair", "both")


# ---------------------------------------------------------------- numbers from shipped files


def recorded(scale: str = "shoebox") -> Facts:
    """Return the numbers that come from the recorded ladder and ablation, on all validation pairs."""
    run = record(f"rho{suffix(scale)}")
    rungs = {name: _grid(values) for name, values in run["ladder"]["new"].items()}
    own, best = rungs["LoRA.rar"], rungs["ZipLoRA"]
    facts = {
        "new_pairs": own.size,
        "rho": own.mean(),
        "rho_zip": best.mean(),
        "rho_added": rungs["LoRA.rar, key and value added"].mean(),
    }
    for name, values in {
        "columns": rungs["its layers' means"] - own,
        "half": _grid(run["ablation"]["everything"]["one half"]) - own,
        "zip_kv": rungs["ZipLoRA, key and value ½"] - best,
        "zip_qo": rungs["ZipLoRA, query and output ½"] - best,
    }.items():
        facts |= {
            f"cost_{name}{end}": v for end, v in zip(("", "_low", "_high"), crossed(values), strict=True)
        }
    single = {group: entry["one half"] for group, entry in costs(scale).items() if group != "everything"}
    facts |= {f"cost_{group}": single[group][0] for group in ("down", "mid")}
    facts["sure"] = sum(low > 0 for _, low, _ in single.values())
    for key, way in (("output", "one half"), ("columns", "layer means")):
        ends = zip(("", "_low", "_high"), costs(scale)["cross output"][way], strict=True)
        facts |= {f"cost_cross_{key}{end}": value for end, value in ends}
    return Facts(facts)


def _grid(values: Sequence[float]) -> np.ndarray:
    """Values of the validation pairs as (subjects, styles)."""
    return np.reshape(values, (len(subjects.SPLIT["validation"]), -1))


def costs(scale: str = "shoebox") -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return by how much ρ grows, with its interval, when a group's coefficients are replaced.

    {group: {"one half" or "layer means": (mean, low, high)}}, over the validation pairs.
    """
    run = record(f"rho{suffix(scale)}")
    own = _grid(run["ladder"]["new"]["LoRA.rar"])
    return {
        group: {way: crossed(_grid(values) - own) for way, values in ways.items()}
        for group, ways in run["ablation"].items()
    }


# ---------------------------------------------------------------- numbers of this run


def live(
    p: Predictions,
    optimum: Gates,
    pair: Pair,
    errors: Mapping[str, float],
    rows: Mapping[str, np.ndarray],
    seen: Mapping[str, Seen],
) -> Facts:
    """Return what the chapter computed.

    Args:
        p: the predictions.
        optimum: ZipLoRA's coefficients for ``pair``.
        pair: the chapter's.
        errors: ρ of that pair's merges, by name.
        rows: the pictures, (n, h, w, 3) uint8 by row.
        seen: verdicts on the pictures, subject and style, by row.
    """
    maps, energy = p.maps(), p.energy()
    place = {block: energy[:, i].mean(1) for i, block in enumerate(p.blocks)}  # (subject, style)
    levels = [dict(zip(p.layers, [float(t.mean()) for t in p.tables(side)], strict=True)) for side in (0, 1)]
    widths = {k: p.said[pair][k][0].numel() for k in p.layers}
    lengths = {k: len(p.loras[pair[0]][k][0]) for k in p.layers}
    quiet = co.empty_answers(p.network)
    inner = quiet[max(quiet)]
    split = [co.shares(p.tables(side)) for side in (0, 1)]
    part = [dict(zip(TERMS, s / max(s.sum(), 1e-12), strict=True)) for s in split]
    agreed = [co.agreement(p.said[pair], optimum, side, p.layers) for side in (0, 1)]
    every = torch.cat([torch.cat(p.said[q][k]) for q in p.pairs for k in p.layers])
    first = rows["predicted"].astype(int)
    facts = {
        "mean_subject": maps[0].mean(),
        "mean_style": maps[1].mean(),
        "blocks_share": co.between_rows(maps[1] - maps[0]),
        "energy_inner": max(*place["down 2.0"], *place["mid"]),
        "spent": min(p.spent(side, ("up 0.1", "up 1.0", "up 1.1")) for side in (0, 1)),
        "last_subject": place["up 1.1"][0],
        "last_style": place["up 1.1"][1],
        "peak_subject": energy[0, p.blocks.index("up 1.1"), p.kinds.index("cross query")],
        "peak_style": energy[1, p.blocks.index("up 0.1"), p.kinds.index("self output")],
        "negative": (every < 0).float().mean(),
        "empty_gap": abs(maps[:, p.blocks.index("mid")] - np.array(inner)[:, None]).max(),
        "by_pair": np.mean([x["pair"] + x["both"] for x in part]),
        "sight_most": np.abs(looks(p, p.pairs[:4])).max(),
        "cosine": np.mean([co.cosine(p.said[q], p.layers) for q in p.pairs]),
        "cosine_zip": co.cosine(optimum, p.layers),
        "shown": len(first),
    }
    for side, key in enumerate(SIDES):
        facts |= {
            f"kept_{key}": p.kept(side, p.layers),
            f"empty_{key}": inner[side],
            f"share_layer_{key}": part[side]["layer"],
            f"share_column_{key}": part[side]["column"],
            f"length_{key}": co.share_of_length(levels[side], widths, lengths),
            f"agree_{key}": agreed[side][0],
            f"inside_{key}": agreed[side][1],
        }
    facts |= {"one_rar": errors["rar"], "one_zip": errors["zip"]}
    for key, name in {
        "own": "predicted",
        "means": "layer means",
        "half": "all ½",
        "cross": "cross output ½",
    }.items():
        facts[f"seen_{key}"] = np.logical_and(*seen[name]).sum()
        if name != "predicted":
            facts[f"moved_{key}"] = np.abs(rows[name].astype(int) - first).mean()
    return Facts(facts)


# ---------------------------------------------------------------- what the prose says


def statements(facts: Facts) -> dict[str, bool]:
    """Return the findings of the prose, each by a fragment of it."""
    f = facts
    return {
        "The network drops query and output of both LoRAs in the middle of the UNet": f.energy_inner < 0.1,
        "the last of which goes mostly to the subject": f.spent > 0.8 and f.last_subject > 2 * f.last_style,
        "Hardly anyone would notice if it did not": f.cost_half_low <= 0 <= f.cost_half_high,
        "only the output of cross-attention clearly needs its coefficients": f.sure == 1
        and f.cost_cross_output_low > 0,
        "Both intervals contain zero": f.cost_half_low <= 0
        and f.cost_columns_low <= 0 <= f.cost_columns_high,
        "there the choice of columns is worth something": f.cost_cross_columns_low > 0,
        "the right level for each layer alone is worth next to nothing": f.cost_cross_columns
        > 0.7 * f.cost_cross_output,
        "On the way down and in the middle nothing changes": max(abs(f.cost_down), abs(f.cost_mid)) < 0.002,
        "the optimum's are far better": f.rho_zip < 0.5 * f.rho and f.one_zip < 0.5 * f.one_rar,
        "rows differ from rows": f.blocks_share > 0.6,
        "and both are turned up there": f.peak_subject > 1 and f.peak_style > 1,
        "strong columns get the large coefficients": min(f.kept_subject, f.kept_style)
        > 2 * max(f.mean_subject, f.mean_style),
        "which is what the inner rows of the first map show": f.empty_gap < 0.05,
        "Layers and shared columns together make up more than half": f.by_pair < 0.5,
        "No simple rule replaces the network": f.sight_most < 0.5,
        "but within a layer, where only the choice of columns counts": max(f.inside_subject, f.inside_style)
        < 0.5 * max(f.agree_subject, f.agree_style),
        "So the optimum uses all four parts": f.cost_zip_kv_low > 0 and f.cost_zip_qo_low > 0,
    }


def claims(facts: Facts) -> list[Claim]:
    """Return the papers' claims that the chapter examines."""
    f = facts

    def ends(*values: float) -> str:
        return style.interval(values, ".3f")

    columns = ends(f.cost_columns, f.cost_columns_low, f.cost_columns_high)
    cross = ends(f.cost_cross_columns, f.cost_cross_columns_low, f.cost_cross_columns_high)
    key_value = ends(f.cost_zip_kv, f.cost_zip_kv_low, f.cost_zip_kv_high)
    own = [
        share * (1 - length)
        for share, length in (
            (f.share_layer_subject, f.length_subject),
            (f.share_layer_style, f.length_style),
        )
    ]
    query_output = ends(f.cost_zip_qo, f.cost_zip_qo_low, f.cost_zip_qo_high)
    return [
        Claim(
            "layers_differ",
            "Coefficients have a pattern of their own in each layer",
            "LoRA.rar leaves it open",
            f"Layers account for {f.share_layer_subject:.0%} (subject) and {f.share_layer_style:.0%} (style) "
            f"of the variance; beyond what a column's length explains, {own[0]:.0%} and {own[1]:.0%}: a "
            "pattern for the style, hardly one for the subject.",
            verdict(min(own) > 0.2, part=max(own) > 0.2, against=max(own) < 0.05),
        ),
        Claim(
            "columns_matter",
            "It takes a coefficient for each column, not one for each layer",
            "ZipLoRA, §4, as the reason for column-wise merging",
            f"True of the output of cross-attention: there the mean of each layer makes ρ grow by {cross}. "
            f"For all predicted layers it grows by {columns}: the interval contains zero.",
            verdict(f.cost_columns_low > 0, f.cost_cross_columns_low > 0, f.cost_columns_high < 0),
        ),
        Claim(
            "columns_divided",
            "The network sends subject and style through different columns",
            "LoRA.rar, §3, by the similarity term of its loss",
            f"Half-way: the cosine of the two is {f.cosine:.2f} on average, where 1 is the same columns; "
            f"ZipLoRA's optimum for one pair keeps {f.cosine_zip:.2f}. Nothing was trained without the term.",
            verdict(f.cosine < 0.2, part=f.cosine < 0.6),
        ),
        Claim(
            "predicts_optimum",
            "The network predicts what an optimisation for the pair would find",
            "the idea of a hypernetwork for ZipLoRA's coefficients",
            f"Within layers the two correlate by {f.inside_subject:.2f} (subject) and {f.inside_style:.2f} "
            "(style), on one pair and for a network that has not converged.",
            verdict(
                min(f.inside_subject, f.inside_style) >= 0.6,
                against=max(f.inside_subject, f.inside_style) < 0.3,
            ),
        ),
        Claim(
            "key_value",
            "Key and value need no coefficients of their own",
            "LoRA.rar predicts query and output only (Table A3)",
            f"ZipLoRA's ρ grows by {key_value} when its key and value are set to ½, and by {query_output} "
            "with query and output at ½. But these were found for all four parts; an optimum for query "
            "and output alone was not looked for.",
            verdict(f.cost_zip_kv_high < 0.01, otherwise=NOT_EXAMINED),
        ),
    ]


# ---------------------------------------------------------------- figures


def maps_figure(p: Predictions, maps: np.ndarray, form: str = ".2f") -> Figure:
    """Show numbers (2, blocks, parts), the subject's beside the style's."""
    parts = [kind.replace("output", "out") for kind in p.kinds]  # two panels have no room for more
    shown = np.round(maps, 2) + 0.0  # no minus before a zero
    return heat_maps(dict(zip(SIDES, shown, strict=True)), rows=p.blocks, columns=parts, form=form)


def place_figure(p: Predictions, pair: str, block: str, part: str) -> tuple[Figure, str]:
    """Show the coefficients of one place: a dot for each column, and histograms. For the chapter's control.

    Args:
        p: the predictions.
        pair: "subject + style".
        block: one of ``p.blocks``.
        part: one of ``p.kinds``.
    """
    key = tuple(pair.split(" + "))
    here = [k for k in p.layers if (co.block_of(k), co.part_of(k)) == (block, part)]
    m_c, m_s = (torch.cat([p.said[key][k][side] for k in here]) for side in (0, 1))
    # Margins by hand: a layout engine would take longer than all the rest.
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 2.9))
    figure.subplots_adjust(0.12, 0.2, 0.98, 0.95, wspace=0.32)
    left.scatter(m_c, m_s, s=14, color=style.MERGED, alpha=0.6, linewidths=0)
    left.scatter([1], [1], marker="x", s=60, color=style.INK)
    left.set(xlim=REACH, ylim=REACH, xlabel="subject", ylabel="style")
    for m, colour, label in ((m_c, style.SUBJECT, "subject"), (m_s, style.STYLE, "style")):
        right.hist(m.clamp(*REACH), np.linspace(*REACH, 29), color=colour, alpha=0.55, label=label)
    right.set(xlim=REACH, xlabel="coefficient", ylabel="columns")
    right.legend(loc="upper right")
    kept = [co.energy_kept(p.loras[key[side]], p.said[key], side, here) for side in (0, 1)]
    text = (
        f"{block}, {part}: {len(m_c)} columns; mean {float(m_c.mean()):.2f} for the subject, "
        f"{float(m_s.mean()):.2f} for the style; {kept[0]:.0%} and {kept[1]:.0%} of the energy is kept"
    )
    return figure, text


def places(p: Predictions) -> Control:
    """Return the chapter's control: pair × block × part, and the coefficients of the place."""
    names = [" + ".join(pair) for pair in p.pairs]
    return Control(
        lambda pair, block, part: place_figure(p, pair, block, part),
        {"pair": names, "block": p.blocks, "part": p.kinds},
        frames={"pair": list(dict.fromkeys([names[0], names[-1]]))},  # a page has no room for all
        start={"pair": names[-1], "block": p.blocks[-1], "part": p.kinds[-1]},
        alt="For a pair, a block and a part of attention, the coefficients of its columns: a cloud of dots, "
        "subject across and style up, and two histograms",
    )


REACH = (-0.75, 2.75)
"""The coefficients that `place_figure` shows; a few lie further out."""


def shares_figure(p: Predictions) -> Figure:
    """Show where the variance of either side's coefficients comes from, as stacked bars."""
    split = np.array([co.shares(p.tables(side)) for side in (0, 1)])
    split /= split.sum(1, keepdims=True)
    figure, axes = plt.subplots(figsize=(style.WIDTH, 2.6), layout="constrained")
    left, colours = np.zeros(2), (style.INK, style.SUBJECT, style.SKY, style.YELLOW)
    for name, values, colour in zip(co.SHARES, split.T, colours, strict=True):
        axes.barh(SIDES, values, left=left, color=colour, label=name)
        left += values
    axes.invert_yaxis()
    axes.grid(False)
    axes.set(xlim=(0, 1), xlabel="share of the variance")
    legend_below(figure)
    return figure


def against_figure(p: Predictions, optimum: Gates, pair: Pair) -> Figure:
    """Show predicted against optimised coefficients, a dot for each column, a colour for each part."""
    figure, axes = panels(2, 3.9, sharey=True)
    for side, ax in enumerate(axes):
        for kind, colour in zip(p.kinds, style.PALETTE, strict=False):
            here = [k for k in p.layers if co.part_of(k) == kind]
            across, up = (torch.cat([gates[k][side] for k in here]) for gates in (p.said[pair], optimum))
            ax.scatter(across, up, s=6, color=colour, alpha=0.5, linewidths=0, label=kind)
        ax.set(title=SIDES[side], xlabel="LoRA.rar")
    axes[0].set_ylabel("ZipLoRA")
    legend_below(figure, enlarge=4)
    return figure


def ablation_figure(table: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> Figure:
    """Show by how much ρ grows when a group's coefficients are replaced, with intervals."""
    figure, axes = plt.subplots(figsize=(style.WIDTH, 1.3 + 0.42 * len(table)), layout="constrained")
    ways = {"one half": (-0.14, "s", style.OTHER), "layer means": (0.14, "o", style.SUBJECT)}
    for way, (shift, marker, colour) in ways.items():
        for place, entry in enumerate(table.values()):
            value, low, high = entry[way]
            axes.plot([low, high], [place + shift] * 2, color=colour, linewidth=2.5, alpha=0.5)
            label = way if place == 0 else None
            axes.plot(value, place + shift, marker, color=colour, markersize=7, label=label)
    axes.axvline(0, color=style.MERGED, linewidth=2, zorder=0)
    axes.set_yticks(range(len(table)), list(table))
    axes.set(ylim=(len(table) - 0.4, -0.6), xlabel="change of ρ")
    axes.grid(False, axis="y")
    legend_below(figure)
    return figure
