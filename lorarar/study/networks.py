"""Which network predicts best? Recipes that differ by one change at a time, by ρ on known and on new LoRAs.

Each recipe is trained on pairs of the zoo's training LoRAs and measured on training pairs and on all
validation pairs, beside what the same network says when it is kept from looking: `RIVALS`. Nothing here
touches a test pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from tqdm import tqdm

from lorarar.hypernet import Network, layers_of, load_network
from lorarar.merging import Gates
from lorarar.options import HypernetworkOptions
from lorarar.pipelines import load_pipeline
from lorarar.scales import Scale, find_scale
from lorarar.shoebox import zoo
from lorarar.stamp import sha256
from lorarar.study import coefficients as co
from lorarar.study.ladder import CONSTANTS, Reader, disjoint, training_pairs, validation_pairs
from lorarar.study.recipes import RECIPES, SHIPPED, Training, trained
from lorarar.study.ruler import DRAWS, Pair, Ruler, ruler

RIVALS = ("own", "other pairs' answers", "its layers' means", "its mean answer", "table by layer")
"""The network's answers to the pair; to pairs that share no LoRA with it; the pair's own, averaged over each
layer and over everything; and the layers' means over all training pairs, which a table could hold."""

KNOWN = 8
"""How many training pairs are measured, or fewer where there are not as many without a common LoRA."""


def rivals(measure: Ruler, network: Network, pairs: Sequence[Pair]) -> dict[str, list[float]]:
    """Measure ρ of a network's answers and of what it says when it does not look: {rival: one ρ a pair}.

    Args:
        measure: the ruler.
        network: trained on the zoo.
        pairs: at least two that share no LoRA.
    """
    read = Reader(network, measure)
    own = {pair: read(pair) for pair in pairs}
    layers = layers_of(measure.side(pairs[0][0]).lora, network.parts)
    table = co.layer_means(co.average([read(pair) for pair in training_pairs(network)]), layers)
    others = [
        float(np.mean([measure.rho(pair, own[other]) for other in _strangers(pair, pairs)])) for pair in pairs
    ]
    ways = {
        "own": own.get,
        "its layers' means": lambda pair: co.layer_means(own[pair], layers),
        "its mean answer": lambda pair: co.one_level(own[pair], layers),
        "table by layer": lambda pair: table,
    }
    found = {name: [measure.rho(pair, way(pair)) for pair in pairs] for name, way in ways.items()}
    found["other pairs' answers"] = others
    return {name: found[name] for name in RIVALS}


def _strangers(pair: Pair, pairs: Sequence[Pair], count: int = 2) -> list[Pair]:
    """Return the first pairs after ``pair``, in a circle, that share no LoRA with it."""
    after = pairs.index(pair) + 1
    return [other for other in (*pairs[after:], *pairs[:after]) if not set(other) & set(pair)][:count]


def fitted_levels(measure: Ruler, pairs: Sequence[Pair], evaluations: int = 60) -> dict[str, float]:
    """Find the four constants of `lorarar.merging.levels` with the lowest mean ρ over some pairs.

    What a network that says the same to everything could say at best. Nelder and Mead's simplex, from 0.7.
    """
    options = ("content_weight", "style_weight", "content_rest", "style_rest")

    def error(values: np.ndarray) -> float:
        return float(np.mean([measure.rho(pair, leveled(measure, pair, *values)) for pair in pairs]))

    start = np.full(4, CONSTANTS["sum at 0.7"])
    found = minimize(error, start, method="Nelder-Mead", options={"maxfev": evaluations, "xatol": 0.01})
    return {name: round(float(value), 2) for name, value in zip(options, found.x, strict=True)}


def leveled(
    measure: Ruler, pair: Pair, content: float, style: float, content_rest: float, style_rest: float
) -> Gates:
    """Return levels as coefficients: two constants for query and output, two for key and value."""
    lora = measure.side(pair[0]).lora
    parts = layers_of(lora, HypernetworkOptions.parts)
    return co.constant(lora, content_rest, style_rest) | {
        layer: gates for layer, gates in co.constant(lora, content, style).items() if layer in parts
    }


def networks(
    scale: str | Scale = "shoebox",
    device: str | None = None,
    *,
    wanted: Mapping[str, Sequence[int]] | None = None,
    folder: Path | None = None,
    probes: int = DRAWS,
    evaluations: int = 60,
    progress: bool = True,
    **changes: Any,
) -> dict[str, Any]:
    """Train what is missing of some recipes and seeds, and measure all of them.

    Args:
        scale: whose base and zoo.
        device: where to compute.
        wanted: recipe → seeds; None takes all recipes with seed 0.
        folder: of the networks; None takes ``runs/networks/SCALE``.
        probes: of each LoRA, by which ρ is measured.
        evaluations: of mean ρ, to fit the levels.
        progress: show bars.
        **changes: of single options of all recipes but the shipped one, such as fewer ``steps``.

    Returns:
        {"new pairs", "changes", "constants": {name: one ρ for each new pair}, "levels": the four constants
        that are best on training pairs, among the constants too, "of": [{"recipe", "seed",
        "parameters", "sha256", "known pairs", "known": {rival: one ρ a pair}, "new": …}]}. The known pairs
        are of each network's own training.
    """
    scale = find_scale(scale)
    folder = Path("runs") / "networks" / scale.name if folder is None else folder
    wanted = dict.fromkeys(RECIPES, (0,)) if wanted is None else wanted
    pipe = load_pipeline(scale, device)
    said = "".join(f" --{key.replace('_', '-')} {value}" for key, value in changes.items())
    files = [
        (
            name,
            seed,
            trained(
                pipe,
                Training(name, seed, {} if name == SHIPPED else changes),
                folder / f"{zoo.slug(name)}-{seed}.safetensors",
                command=f'lorarar study networks --recipes "{name}" --seeds {seed}{said}',
                progress=progress,
            ),
        )
        for name, seeds in wanted.items()
        for seed in seeds
    ]
    new, rows = validation_pairs(), []
    with ruler(pipe, draws=probes) as measure:
        lora = measure.side(new[0][0]).lora
        constants = {
            name: [measure.rho(pair, co.constant(lora, value)) for pair in new]
            for name, value in CONSTANTS.items()
        }
        taught = disjoint(training_pairs(load_network(files[0][2])), KNOWN)
        levels = fitted_levels(measure, taught, evaluations)
        constants["levels"] = [measure.rho(pair, leveled(measure, pair, *levels.values())) for pair in new]
        for name, seed, path in tqdm(files, "networks", disable=not progress):
            network = load_network(path)
            known = disjoint(training_pairs(network), KNOWN)
            rows.append(
                {
                    "recipe": name,
                    "seed": seed,
                    "parameters": network.size,
                    "sha256": sha256(path),
                    "known pairs": known,
                    "known": rivals(measure, network, known),
                    "new": rivals(measure, network, new),
                }
            )
    return {"new pairs": new, "changes": changes, "constants": constants, "levels": levels, "of": rows}
