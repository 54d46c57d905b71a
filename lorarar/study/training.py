"""What some methods train for each pair of LoRAs: ZipLoRA's coefficients, a joint LoRA; one file per pair."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from lorarar.collection import Collection
from lorarar.hypernet import Network
from lorarar.lora import LoRA
from lorarar.options import LoraRecipe
from lorarar.pipelines import base_sha256
from lorarar.scales import Scale
from lorarar.shoebox import zoo
from lorarar.train import Trained, train_lora

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


Pair = tuple[str, str]
"""The names of a subject and a style."""


def slug(pair: Pair) -> str:
    """Return a pair as a file is called: dog-8--oil-painting-2."""
    return "--".join(map(zoo.slug, pair))


@dataclass(frozen=True)
class Task:
    """One pair to be merged: its LoRAs, the pipeline they are for, and what some methods need besides.

    ``made`` is the folder of what `make` keeps; ``None`` has the methods work it out anew.
    """

    pipe: DiffusionPipeline
    scale: Scale
    pair: Pair
    content: LoRA
    style: LoRA
    hypernetwork: Network | None = None
    made: Path | None = None
    seed: int = 0
    progress: bool = False
    checkpoint: Path | None = None
    world: Collection = zoo


def optimised(task: Task, **options: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Find ZipLoRA's coefficients of a pair with the scale's settings: layer → (m_c, m_s)."""
    from lorarar.train import optimise

    return optimise(
        task.pipe,
        with_pictures(task.pair[0], task.content, task.world),
        with_pictures(task.pair[1], task.style, task.world),
        **{**vars(task.scale.ziplora), "seed": task.seed, **options},
        gradient_checkpointing=task.scale.gradient_checkpointing,
        progress=task.progress,
    )[0]


def trained_jointly(task: Task, **options: Any) -> LoRA:
    """Train one LoRA on a pair's subject and style together (multi-concept DreamBooth, Ruiz et al. 2023).

    Both concepts keep the pictures and captions of their own LoRAs and are drawn equally often; it gets as
    many steps as the two LoRAs had together, with the content's rank and learning rate.
    """
    loras = task.content, task.style
    sides = [with_pictures(name, lora, task.world) for name, lora in zip(task.pair, loras, strict=True)]
    return train_lora(
        task.pipe,
        concepts=[(side.images, side.prompt) for side in sides],
        **{**vars(joint_recipe(task.scale)), **options},
        seed=task.seed,
        gradient_checkpointing=task.scale.gradient_checkpointing,
        checkpoint=task.checkpoint,
        resume=True,
        progress=task.progress,
    )


def joint_recipe(scale: Scale) -> LoraRecipe:
    """Return the recipe of joint training: the content's, for the steps of content and style together."""
    return replace(scale.content, steps=scale.content.steps + scale.style.steps)


def with_pictures(name: str, lora: LoRA, world: Collection = zoo) -> Trained:
    """Return a LoRA of a collection with the pictures and captions that it was trained on."""
    try:
        count = len(json.loads(lora.metadata["lorarar_training"])["prompts"][0])
    except (KeyError, ValueError):
        count = None  # the zoo's number
    images, captions = world.pictures(name, count)
    return Trained(lora, images, captions, name)


def decisive(task: Task, method: str, options: Mapping[str, Any]) -> str:
    """Return what decides the result of a slow method, as JSON."""
    recipe = task.scale.ziplora if method == "ziplora" else joint_recipe(task.scale)
    return json.dumps(
        {
            "method": method,
            "recipe": {**vars(recipe), **options},
            "seed": task.seed,
            "base": base_sha256(task.pipe),
            "content": lora_digest(task.content),
            "style": lora_digest(task.style),
        },
        sort_keys=True,
        default=list,
    )


def kept_file(task: Task, method: str, options: Mapping[str, Any]) -> Path | None:
    """Return the file that `make` keeps of this very task, or None if there is none."""
    if task.made is None:
        return None
    path = task.made / method / f"{slug(task.pair)}.safetensors"
    try:
        written = file_metadata(path).get("lorarar_experiment")
    except (SafetensorError, OSError):
        return None
    return path if written == decisive(task, method, options) else None


def file_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file."""
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def seconds_since(began: float) -> float:
    """Return the seconds since ``began``, once the GPU has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def lora_digest(lora: LoRA) -> str:
    """The SHA-256 of an adapter's layers and factors."""
    digest = hashlib.sha256()
    for layer, pair in lora.items():
        digest.update(layer.encode())
        for factor in pair:
            digest.update(factor.contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()
