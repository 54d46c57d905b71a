"""Recipes of networks that differ by one change at a time, and the networks that are trained by them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lorarar.collection import Collection, Folders
from lorarar.hypernet import PARTS, Network, load_network
from lorarar.lora import load_lora
from lorarar.options import HypernetworkOptions, values
from lorarar.scales import Scale
from lorarar.shoebox import zoo
from lorarar.shoebox.world import styles, subjects
from lorarar.study.cells import hypernetwork_of
from lorarar.study.ruler import side_of
from lorarar.study.training import with_pictures
from lorarar.train import Trained, train_hypernetwork
from lorarar.train.hypernetwork import sample_pairs

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


def recipe(scale: Scale, name: str, seed: int, **changes: Any) -> HypernetworkOptions:
    """Return the options of a recipe at a scale; ``changes`` are made to what the recipe itself trains.

    Raises:
        ValueError: no such recipe, or a change that is out of range.
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}: choose one of {', '.join(RECIPES)}")
    given = RECIPES[name] | changes if name != SHIPPED else RECIPES[name]
    return HypernetworkOptions.of(scale.hypernetwork, **given, seed=seed)


@dataclass(frozen=True)
class Training:
    """One network to train: a recipe of `RECIPES`, what is changed of it, and which LoRAs it learns from.

    ``pairs`` of ``subjects`` and ``styles`` are drawn by the seed; None takes the scale's number and the
    zoo's training names, with all of the folders ``world`` where there are such. A number in place of names
    has the seed draw so many of these. Names that the zoo has not are of ``world``.
    """

    recipe: str
    seed: int = 0
    changes: Mapping[str, Any] = field(default_factory=dict)
    pairs: int | None = None
    subjects: tuple[str, ...] | int | None = None
    styles: tuple[str, ...] | int | None = None
    world: Path | None = None

    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the subjects and styles to draw pairs from.

        Raises:
            ValueError: names nobody has, or more of them than there are.
        """
        rng = np.random.default_rng(self.seed)
        both = tuple(
            self._drawn(wanted, axis, rng) if isinstance(wanted, int | None) else wanted
            for axis, wanted in (("subject", self.subjects), ("style", self.styles))
        )
        for axis, names in zip(("subject", "style"), both, strict=True):
            if wrong := [name for name in names if self._world(name).axis(name) != axis]:
                raise ValueError(f"{wrong[0]} is no {axis}")
        return both

    def side(self, name: str, scale: Scale) -> Trained:
        """Return a LoRA to train on with its pictures."""
        world = self._world(name)
        if isinstance(world, Folders):
            return with_pictures(name, load_lora(world.file_of(name, world.folder(scale))), world)
        return _side(name, scale)

    def _drawn(self, count: int | None, axis: str, rng: np.random.Generator) -> tuple[str, ...]:
        known = [*zoo.split("train")[axis == "style"]]
        if self.world:
            own = _folders(self.world)
            known += [name for name in own.names if own.axis(name) == axis]
        if count is None:
            return tuple(known)
        if count > len(known):
            raise ValueError(f"{count} training LoRAs of {axis}s wanted, and there are {len(known)}")
        return tuple(known[i] for i in sorted(rng.permutation(len(known))[:count]))

    def _world(self, name: str) -> Collection:
        known = name in subjects.SUBJECTS or name in styles.STYLES
        return zoo if known or self.world is None else _folders(self.world)


def trained(
    pipe: DiffusionPipeline, training: Training, path: Path, *, command: str = "", progress: bool = True
) -> Path:
    """Train a network, or take the file that is there: the scale's own, if that is wanted, or ``path``.

    A training that was interrupted goes on from its checkpoint beside the file.

    Raises:
        ValueError: no such recipe, too many pairs, or the file there was trained in another way.
    """
    scale = pipe.scale
    options = recipe(scale, training.recipe, training.seed, **training.changes)
    names = training.names()
    pairs = training.pairs or scale.hypernetwork_pairs
    drawn = sample_pairs(*map(len, names), pairs, training.seed)
    used = [sorted({one[pair[axis]] for pair in drawn}) for axis, one in enumerate(names)]
    for there in [hypernetwork_of(scale)] * (training.recipe == SHIPPED) + [path]:
        if there.is_file() and _is(load_network(there), options, pairs, used):
            return there
    if path.is_file():
        raise ValueError(f"{path}: was trained in another way; move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    network, _ = train_hypernetwork(
        pipe,
        *([training.side(name, scale) for name in one] for one in names),
        options,
        pairs=drawn,
        checkpoint=f"{path}.checkpoint",
        checkpoint_every=50,
        resume=True,
        command=command,
        progress=progress,
    )
    network.save(path)
    return path


_folders = cache(Folders)
_side = cache(side_of)  # drawing all the pictures takes longer than a short training


def _is(network: Network, options: HypernetworkOptions, pairs: int, names: list[list[str]]) -> bool:
    """Say whether a network was trained in this way; what its file does not say was left as it is."""
    said = json.loads(network.metadata.get("lorarar_training", "{}"))
    used = [sorted(said.get(of, own)) for of, own in zip(("contents", "styles"), names, strict=True)]
    if not said or said["pairs"] != pairs or used != names:
        return False
    wanted = {**values(options), "parts": list(options.parts)}
    default = {**values(HypernetworkOptions()), "parts": list(HypernetworkOptions.parts)}
    return all(
        said.get(name, default[name]) == value
        for name, value in wanted.items()
        if name not in ("gradient_checkpointing", "draws")
    )
