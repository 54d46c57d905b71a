"""Chapter 7, the coefficients: its numbers, what the prose says of them, its claims, and its own figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import rankdata

from lorarar import Hypernetwork
from lorarar.bookkit import style
from lorarar.bookkit.claims import Claim, verdict
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.figures import heat_maps, legend_below, panels
from lorarar.bookkit.records import recorded as record
from lorarar.bookkit.records import suffix
from lorarar.hypernet import layers_of
from lorarar.lora import LoRA
from lorarar.merging import Gates
from lorarar.shoebox import zoo
from lorarar.shoebox.world import subjects
from lorarar.study import coefficients as co
from lorarar.study.cells import hypernetwork_of
from lorarar.study.ladder import validation_pairs
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
        "rho_zip_kv": rungs["ZipLoRA, key and value ½"].mean(),
        "rho_zip_qo": rungs["ZipLoRA, query and output ½"].mean(),
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
    order = sorted(single, key=lambda group: -single[group][0])
    facts["dearest"], facts["second"] = single[order[0]][0], single[order[1]][0]
    facts |= {f"cost_{'_'.join(group.split())}": single[group][0] for group in single}
    facts["sure"] = sum(low > 0 for _, low, _ in single.values())
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


# ---------------------------------------------------------------- what the network predicts


@dataclass(frozen=True)
class Predictions:
    """What a scale's hypernetwork predicts for some pairs.

    ``loras`` by name, ``said`` by pair: layer → (m_c, m_s); ``layers`` in the order of the UNet.
    """

    network: Hypernetwork
    loras: Mapping[str, LoRA]
    said: Mapping[Pair, Gates]
    layers: Sequence[str]

    @property
    def pairs(self) -> list[Pair]:
        """The pairs."""
        return list(self.said)

    @property
    def blocks(self) -> list[str]:
        """Where attention stands in the UNet, from its input to its output."""
        return list(dict.fromkeys(map(co.block_of, self.layers)))

    @property
    def kinds(self) -> list[str]:
        """The predicted parts of attention."""
        return [kind for kind in co.KINDS if kind in set(map(co.part_of, self.layers))]

    def maps(self, pair: Pair | None = None) -> np.ndarray:
        """Return the mean coefficients (2, blocks, parts) of a pair, or of all pairs together."""
        pairs = self.pairs if pair is None else [pair]
        return np.mean(
            [[co.means(self.said[p], side, self.blocks, self.kinds) for side in (0, 1)] for p in pairs], 0
        )

    def tables(self, side: int) -> list[np.ndarray]:
        """Return the coefficients of one side, (pairs, columns) for each layer."""
        return [np.stack([self.said[p][k][side].double().numpy() for p in self.pairs]) for k in self.layers]

    def kept(self, side: int, layers: Sequence[str]) -> float:
        """Return the share of energy that one side keeps in some layers, the mean over the pairs."""
        pairs = ((self.loras[pair[side]], gates) for pair, gates in self.said.items())
        return float(np.mean([co.energy_kept(lora, gates, side, layers) for lora, gates in pairs]))

    def energy(self) -> np.ndarray:
        """Return the share of energy that is kept (2, blocks, parts), the mean over the pairs."""
        kept = np.zeros((2, len(self.blocks), len(self.kinds)))
        for layer in self.layers:
            at = self.blocks.index(co.block_of(layer)), self.kinds.index(co.part_of(layer))
            for side in (0, 1):
                kept[side][at] = self.kept(side, [layer])
        return kept


def predict(scale: str = "shoebox", pairs: Sequence[Pair] | None = None) -> Predictions:
    """Ask a scale's hypernetwork about pairs of the zoo; all validation pairs by default."""
    network, pairs = Hypernetwork.load(hypernetwork_of(scale)), pairs or validation_pairs()
    loras = {name: zoo.load(name, scale) for name in dict.fromkeys(n for pair in pairs for n in pair)}
    parts = network.metadata["parts"].split(",")
    with torch.no_grad():
        said = {pair: network.coefficients(*(loras[name] for name in pair), parts) for pair in pairs}
    layers = layers_of(loras[pairs[0][0]], parts)
    return Predictions(network, loras, said, layers)


def looks(p: Predictions, pairs: Sequence[Pair]) -> np.ndarray:
    """Return rank correlations of coefficients with a column's properties, within layers: (2 sides, 3)."""
    found = []
    for pair in pairs:
        content, style_lora = (p.loras[name] for name in pair)
        for layer in p.layers:
            known = [rankdata(v) for v in co.properties(content, style_lora, layer).values()]
            found.append([[co.correlation(rankdata(m), v) for v in known] for m in p.said[pair][layer]])
    return np.mean(found, 0)


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
    facts |= {f"one_{name}": value for name, value in errors.items()}
    for key, name in {
        "own": "predicted",
        "means": "layer means",
        "half": "all ½",
        "cross": "cross output ½",
    }.items():
        facts[f"seen_{key}"] = np.logical_and(*seen[name]).sum()
        facts[f"moved_{key}"] = np.abs(rows[name].astype(int) - first).mean()
    return Facts(facts)


# ---------------------------------------------------------------- what the prose says


def statements(facts: Facts) -> dict[str, bool]:
    """Return the findings of the prose, each by a fragment of it."""
    f = facts
    return {
        "The network drops query and output of both LoRAs in the middle of the UNet": f.energy_inner < 0.1,
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

    def ends(name: str) -> str:
        return style.interval([f[f"{name}{end}"] for end in ("", "_low", "_high")], ".3f")

    return [
        Claim(
            "layers_differ",
            "Coefficients have a pattern of their own in each layer",
            "LoRA.rar leaves it open",
            f"Layers account for {f.share_layer_subject:.0%} (subject) and {f.share_layer_style:.0%} (style) "
            "of the variance. In the inner blocks this is only what the network answers to an empty column.",
            verdict(False, part=min(f.share_layer_subject, f.share_layer_style) > 0.2),
        ),
        Claim(
            "columns_matter",
            "It takes a coefficient for each column, not one for each layer",
            "ZipLoRA, §4, as the reason for column-wise merging",
            f"With the mean of each layer ρ grows by {ends('cost_columns')}, on {f.new_pairs} pairs",
            verdict(f.cost_columns_low > 0, against=f.cost_columns_high < 0),
        ),
        Claim(
            "columns_divided",
            "The similarity term makes subject and style use different columns",
            "ZipLoRA, eq. 4",
            f"As predicted yes: the cosine of the two is {f.cosine:.2f}. As optimised hardly: it falls from 1 "
            f"to {f.cosine_zip:.2f}.",
            verdict(max(f.cosine, f.cosine_zip) <= 0.6, part=f.cosine <= 0.6),
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
            f"ZipLoRA's ρ grows by {ends('cost_zip_kv')} when its key and value are put to ½, without a new "
            f"optimisation; with query and output put to ½ by {ends('cost_zip_qo')}",
            verdict(f.cost_zip_kv_high < 0.01, against=f.cost_zip_kv_low > 0),
        ),
    ]


# ---------------------------------------------------------------- figures


def maps_figure(p: Predictions, maps: np.ndarray, form: str = ".2f") -> Figure:
    """Show numbers (2, blocks, parts), the subject's beside the style's."""
    parts = [kind.replace("output", "out") for kind in p.kinds]  # two panels have no room for more
    return heat_maps(dict(zip(SIDES, maps, strict=True)), rows=p.blocks, columns=parts, form=form)


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
    legend_below(figure)
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
