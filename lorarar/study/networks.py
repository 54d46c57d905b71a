"""Which network predicts best? Recipes that differ by one change at a time, by ρ on known and on new LoRAs.

Each recipe is trained on pairs of the zoo's training LoRAs and measured on training pairs and on all
validation pairs, beside what the same network says when it is kept from looking: `RIVALS`. Nothing here
touches a test pair.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize
from tqdm import tqdm

from lorarar.hypernet import PARTS, Network, layers_of, load_network
from lorarar.merging import Gates
from lorarar.options import HypernetworkOptions, values
from lorarar.pipelines import load_pipeline
from lorarar.scales import Scale, find_scale
from lorarar.shoebox import zoo
from lorarar.shoebox.world import styles, subjects
from lorarar.stamp import sha256
from lorarar.study import coefficients as co
from lorarar.study.cells import hypernetwork_of
from lorarar.study.ladder import CONSTANTS, Reader, disjoint, training_pairs, validation_pairs
from lorarar.study.ruler import DRAWS, Pair, Ruler, ruler, side_of
from lorarar.train import train_hypernetwork

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SHIPPED = "columns"
"""The recipe of the scale's own hypernetwork, whose file is taken where the seed is its."""

_LONGER = {"order": "mixed", "steps": 2000, "batch_size": 4, "warmup": 50, "decay": 1.0}
_INVARIANTS = {
    **_LONGER,
    "reads": "invariants",
    "hidden": 48,
    "parts": tuple(PARTS),
    "weight_decay": 1e-4,
}

RECIPES: dict[str, dict[str, Any]] = {
    SHIPPED: {},
    "columns, falling rate": _LONGER,
    "the same, inputs of rms 1": {**_LONGER, "unit_inputs": True},
    "invariants": _INVARIANTS,
    "invariants, query and output": {**_INVARIANTS, "parts": ("query", "output")},
    "invariants and the layer's moments": {**_INVARIANTS, "context": "moments"},
    "invariants, attention in the layer": {**_INVARIANTS, "context": "attention"},
    "place alone": {**_INVARIANTS, "context": "blind", "steps": 1000},
    "invariants, no similarity term": {**_INVARIANTS, "similarity": 0.0, "steps": 1000},
    "place alone, no similarity term": {**_INVARIANTS, "similarity": 0.0, "steps": 1000, "context": "blind"},
    "invariants, batch 1": {**_INVARIANTS, "batch_size": 1},
    "invariants, rate 0.003": {**_INVARIANTS, "learning_rate": 0.003},
    "invariants, twice the steps": {**_INVARIANTS, "steps": 4000},
}
"""What each recipe changes of the scale's own: LoRA.rar's network, then the one that reads invariants."""

RIVALS = ("own", "other pairs' answers", "its layers' means", "its mean answer", "table by layer")
"""The network's answers to the pair; to pairs that share no LoRA with it; the pair's own, averaged over each
layer and over everything; and the layers' means over all training pairs, which a table could hold."""

KNOWN = 8
"""How many training pairs are measured, or fewer where there are not as many without a common LoRA."""


def recipe(scale: Scale, name: str, seed: int, **changes: Any) -> HypernetworkOptions:
    """Return the options of a recipe at a scale; ``changes`` are made to what the recipe itself trains.

    Raises:
        ValueError: no such recipe, or a change that is out of range.
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}: choose one of {', '.join(RECIPES)}")
    given = RECIPES[name] | changes if name != SHIPPED else RECIPES[name]
    return HypernetworkOptions.of(scale.hypernetwork, **given, seed=seed)


def trained(
    pipe: DiffusionPipeline,
    name: str,
    seed: int,
    folder: Path,
    *,
    progress: bool = True,
    **changes: Any,
) -> Path:
    """Train a network of `RECIPES` on the pipeline's zoo, or take the file that is there.

    A training that was interrupted goes on from its checkpoint beside the file.

    Raises:
        ValueError: no such recipe, or the file there was trained by another one.
    """
    scale, path = pipe.scale, folder / f"{zoo.slug(name)}-{seed}.safetensors"
    options = recipe(scale, name, seed, **changes)
    for there in [hypernetwork_of(scale)] * (name == SHIPPED) + [path]:
        if there.is_file() and _is(load_network(there), options):
            return there
    if path.is_file():
        raise ValueError(f"{path}: was trained by another recipe; move it away")
    folder.mkdir(parents=True, exist_ok=True)
    contents, looks = ([_side(one, scale) for one in axis.SPLIT["train"]] for axis in (subjects, styles))
    said = [f"--{key.replace('_', '-')} {value}" for key, value in changes.items()]
    network, _ = train_hypernetwork(
        pipe,
        contents,
        looks,
        options,
        pairs=scale.hypernetwork_pairs,
        checkpoint=f"{path}.checkpoint",
        checkpoint_every=50,
        resume=True,
        command=" ".join(["lorarar study networks", f'--recipes "{name}" --seeds {seed}', *said]),
        progress=progress,
    )
    network.save(path)
    return path


_side = cache(side_of)  # drawing all the pictures takes longer than a short training


def _is(network: Network, options: HypernetworkOptions) -> bool:
    """Say whether a network was trained by these options; what its file does not say was left as it is."""
    said = json.loads(network.metadata.get("lorarar_training", "{}"))
    wanted = {**values(options), "parts": list(options.parts)}
    default = {**values(HypernetworkOptions()), "parts": list(HypernetworkOptions.parts)}
    return bool(said) and all(
        said.get(name, default[name]) == value
        for name, value in wanted.items()
        if name not in ("gradient_checkpointing", "draws")
    )


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
    files = [
        (name, seed, trained(pipe, name, seed, folder, progress=progress, **changes))
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
