"""The ladder of rivals: what must be known to merge as well as a hypernetwork does?

Each rung knows more than the one below, and ρ (`lorarar.study.ruler`) says what that is worth: constants; the
network's mean answers over its training pairs, by layer, then by layer and column, which a table could hold;
its answers to other pairs; the means of its answers to this pair; its answers to this pair, column by column;
and last ZipLoRA's optimum, which is no prediction. `ablation` takes coefficients away instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from lorarar.hypernet import PARTS, Hypernetwork, Network, layers_of
from lorarar.lora import LoRA, load_coefficients
from lorarar.merging import Gates
from lorarar.pipelines import load_pipeline
from lorarar.scales import Scale, find_scale
from lorarar.shoebox import zoo
from lorarar.shoebox.world import styles, subjects
from lorarar.study import coefficients as co
from lorarar.study.cells import hypernetwork_of, setting
from lorarar.study.methods import make
from lorarar.study.ruler import Pair, Ruler, ruler
from lorarar.study.training import Task
from lorarar.train.hypernetwork import sample_pairs

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

CONSTANTS = {"plain sum": 1.0, "sum at 0.7": 0.7, "half sum": 0.5}
LADDER = (
    *CONSTANTS,
    "0.7, the rest ½",
    "table by layer",
    "table by column",
    "other pairs' answers",
    "its mean answer",
    "its layers' means",
    "LoRA.rar",
    "ZipLoRA",
)
"""The rungs: constants, tables of the network's answers on training pairs, its answers, and the optimum."""

VARIANTS = ("LoRA.rar, key and value added", "ZipLoRA, key and value ½", "ZipLoRA, query and output ½")
"""Rows beside the ladder: LoRA.rar as the released code merges it, the optimum with parts put to one half."""


class Reader:
    """A hypernetwork and what it answers to pairs, for all layers of attention."""

    def __init__(self, network: Network, measure: Ruler) -> None:
        self.network, self.ruler = network, measure
        self.parts, self.rest = network.parts, network.rest

    @torch.no_grad()
    def __call__(self, pair: Pair) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return the coefficients that it predicts for a pair, completed by the other layers' constant."""
        content, style = (self.ruler.side(name).lora for name in pair)
        return co.complete(content, self.network.coefficients(content, style, self.parts), self.rest)


def mean_rho(measure: Ruler, network: Network, pairs: Sequence[Pair]) -> float:
    """Return the mean ρ of a hypernetwork's merges of some pairs."""
    read = Reader(network, measure)
    return float(np.mean([measure.rho(pair, read(pair)) for pair in pairs]))


def training_pairs(network: Network) -> list[Pair]:
    """Return the pairs of the zoo that a hypernetwork was trained on, in their order, from its metadata."""
    recipe = json.loads(network.metadata["lorarar_training"])
    contents, looks = subjects.SPLIT["train"], styles.SPLIT["train"]
    drawn = sample_pairs(len(contents), len(looks), recipe["pairs"], recipe["seed"])
    return [(contents[i], looks[j]) for i, j in drawn]


def disjoint(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """Return the first ``count`` pairs that share no LoRA with one before them."""
    chosen: list[Pair] = []
    for pair in pairs:
        if len(chosen) < count and not set(pair) & {name for other in chosen for name in other}:
            chosen.append(pair)
    return chosen


def validation_pairs() -> list[Pair]:
    """Return every validation subject with every validation style, the styles of a subject together."""
    return [(c, s) for c in subjects.SPLIT["validation"] for s in styles.SPLIT["validation"]]


def ladder(
    pipe: DiffusionPipeline,
    network: Hypernetwork,
    pairs: Sequence[Pair],
    optima: Mapping[Pair, Gates],
    *,
    progress: bool = True,
) -> dict[str, list[float]]:
    """Measure ρ of every rung and variant on every pair: {name: one ρ for each pair}.

    Args:
        pipe: the base model's pipeline.
        network: a hypernetwork of the zoo.
        pairs: at least two that share no LoRA. "other pairs' answers" is the mean of ρ over those of them
            that share none with the pair.
        optima: ZipLoRA's coefficients of each pair.
        progress: show a bar.
    """
    rows: dict[str, list[float]] = {name: [] for name in (*LADDER, *VARIANTS)}
    with ruler(pipe) as measure:
        read = Reader(network, measure)
        table = co.average([read(pair) for pair in training_pairs(network)])
        own = {pair: read(pair) for pair in pairs}
        lora = measure.side(pairs[0][0]).lora
        predicted = layers_of(lora, read.parts)
        rest = layers_of(lora, [part for part in PARTS if part not in read.parts])
        for pair in tqdm(pairs, desc="ladder", disable=not progress):
            merges = {name: co.constant(lora, value) for name, value in CONSTANTS.items()} | {
                "0.7, the rest ½": co.halve(co.constant(lora, 0.7), rest),
                "table by layer": co.layer_means(table, predicted),
                "table by column": table,
                "its mean answer": co.one_level(own[pair], predicted),
                "its layers' means": co.layer_means(own[pair], predicted),
                "LoRA.rar": own[pair],
                "ZipLoRA": optima[pair],
                VARIANTS[0]: {**co.constant(lora, 1.0), **{k: own[pair][k] for k in predicted}},
                VARIANTS[1]: co.halve(optima[pair], rest),
                VARIANTS[2]: co.halve(optima[pair], predicted),
            }
            for name, gates in merges.items():
                rows[name].append(measure.rho(pair, gates))
            others = [measure.rho(pair, own[other]) for other in pairs if not set(other) & set(pair)]
            rows["other pairs' answers"].append(float(np.mean(others)))
    return rows


def groups(lora: LoRA, parts: Sequence[str]) -> dict[str, list[str]]:
    """Return what `ablation` takes away: everything, a way through the UNet, or a part of attention."""
    layers = layers_of(lora, parts)
    ways = {way: [k for k in layers if co.block_of(k).startswith(way)] for way in ("down", "mid", "up")}
    kinds = {kind: [k for k in layers if co.part_of(k) == kind] for kind in co.KINDS}
    return {name: which for name, which in {"everything": layers, **ways, **kinds}.items() if which}


def ablation(
    pipe: DiffusionPipeline, network: Hypernetwork, pairs: Sequence[Pair], *, progress: bool = True
) -> dict[str, dict[str, list[float]]]:
    """Measure ρ after the coefficients of a group are replaced: {group: {replacement: one ρ for each pair}}.

    The replacements are "one half" for both sides, and "layer means".
    """
    with ruler(pipe) as measure:
        read = Reader(network, measure)
        own = {pair: read(pair) for pair in pairs}
        ways = {"one half": co.halve, "layer means": co.layer_means}
        return {
            group: {
                name: [measure.rho(pair, replace(own[pair], layers)) for pair in pairs]
                for name, replace in ways.items()
            }
            for group, layers in tqdm(
                groups(measure.side(pairs[0][0]).lora, read.parts).items(), "ablation", disable=not progress
            )
        }


KNOWN = 4
"""How many training pairs the recorded ladder has; no LoRA is in two of them."""


def measure(
    scale: str | Scale = "shoebox", device: str | None = None, *, seed: int = 0, progress: bool = True
) -> dict[str, Any]:
    """Measure ladder and ablation of a scale's hypernetwork, on training pairs and all validation pairs.

    ZipLoRA's coefficients are kept as those of the experiment (`lorarar.study.methods.make`): the run can be
    stopped and goes on where it was.

    Returns:
        {"pairs", "ladder": {kind: …}, "ablation"}, kinds being "known" and "new"; see `ladder`, `ablation`.
    """
    scale = find_scale(scale)
    pipe = load_pipeline(scale, device)
    network = Hypernetwork.load(hypernetwork_of(scale))
    pairs = {"known": disjoint(training_pairs(network), KNOWN), "new": validation_pairs()}
    kept, found = setting("validation", scale).out / "made", {}
    for kind, some in pairs.items():
        optima = {}
        for pair in tqdm(some, f"ZipLoRA, {kind} pairs", disable=not progress):
            loras = [zoo.load(name, scale) for name in pair]
            path, _ = make(Task(pipe, scale, pair, *loras, made=kept, seed=seed), "ziplora")
            optima[pair] = load_coefficients(path)
        found[kind] = ladder(pipe, network, some, optima, progress=progress)
    taken = ablation(pipe, network, pairs["new"], progress=progress)
    return {"pairs": pairs, "ladder": found, "ablation": taken}
