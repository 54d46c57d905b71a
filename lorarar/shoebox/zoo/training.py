"""Training the LoRAs of the zoo, each by the recipe of its scale."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from lorarar.collection import Folders
from lorarar.lora import LoRAError, load_lora, save_lora
from lorarar.options import LoraOptions
from lorarar.pipelines import base_sha256, load_pipeline
from lorarar.scales import Scale, find_scale
from lorarar.shoebox.world import styles, subjects
from lorarar.shoebox.zoo import names as drawn
from lorarar.train import train_lora
from lorarar.train.dreambooth import require_layers


def train(
    names: Sequence[str],
    loras: Path | None = None,
    scale: str | Scale = "shoebox",
    *,
    count: int | None = None,
    targets: Sequence[str] | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
    world: Folders | None = None,
) -> list[Path]:
    """Train the LoRA of each name with the scale's recipe and write it in half precision.

    What is there already, trained in the same way on the same base, is kept; a run that was stopped goes on
    where its last checkpoint was. Each LoRA starts from its own random numbers, as if by another person.

    Args:
        names: of subjects and styles, or splits (see `expand`).
        loras: the folder to write into; None takes the scale's (see `folder`).
        scale: whose base and recipes are used.
        count: pictures to train on; None takes `VIEWS`.
        targets: names of the linear layers that get an update, or how they end; None takes those of
            `lorarar.options.LoraOptions`, all of attention.
        seed: together with the name, of the start and of everything drawn.
        device: where to train; None takes the best there is.
        progress: show one bar over all steps.
        world: a collection of one's own, whose names these are; None takes the drawn world.

    Returns:
        The files, in the order of the names.

    Raises:
        ValueError: unknown name or scale, a count below 1, or the UNet has no such layers.
    """
    whose = world or drawn
    names, scale = whose.expand(names), find_scale(scale)
    loras = whose.folder(scale) if loras is None else loras
    if count is not None and count < 1:
        raise ValueError(f"a LoRA needs at least 1 image, not {count}")
    targets = list(LoraOptions.of(**({"targets": targets} if targets else {})).targets)
    pipe = load_pipeline(scale, device)
    require_layers(pipe.unet, targets)
    base = Path(scale.base)
    trained_on = base.name if base.is_absolute() else scale.base  # a file says nothing of where folders lay
    known = sorted(world.names if world else [*subjects.SUBJECTS, *styles.STYLES])
    todo = []
    for name in names:
        recipe = scale.content if whose.axis(name) == "subject" else scale.style
        images, captions = whose.pictures(name, count)
        settings = {
            **vars(recipe),
            "prompts": [captions],
            "seed": 1000 * seed + known.index(name),
            "base": base_sha256(pipe),
            "images": hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest(),
            "targets": targets,
        }
        if not _made(whose.file_of(name, loras), settings):
            todo.append((name, images, captions, recipe, settings["seed"]))
    with tqdm(total=sum(job[3].steps for job in todo), unit="step", disable=not progress) as bar:
        for name, images, captions, recipe, own_seed in todo:
            path = whose.file_of(name, loras)
            path.parent.mkdir(parents=True, exist_ok=True)
            bar.set_description(name)
            before, began = bar.n, time.monotonic()

            def step(number: int, loss: float, before: int = before) -> None:
                bar.update(before + number - bar.n)  # a resumed run begins further on
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)

            lora = train_lora(
                pipe,
                images,
                captions,
                **vars(recipe),
                targets=targets,
                seed=own_seed,
                gradient_checkpointing=scale.gradient_checkpointing,
                checkpoint=f"{path}.checkpoint",
                resume=True,
                progress=False,
                callback=step,
            )
            lora.metadata["lorarar_zoo"] = json.dumps(
                {
                    "name": name,
                    "scale": scale.name,
                    "base": trained_on,
                    "seconds": round(time.monotonic() - began, 1),
                }
            )
            save_lora(lora, path, dtype=torch.float16)
    return [whose.file_of(name, loras) for name in names]


def _made(path: Path, settings: dict[str, object]) -> bool:
    """Tell whether a file is a LoRA that was trained with just these settings."""
    if not path.is_file():
        return False
    try:
        written = json.loads(load_lora(path).metadata["lorarar_training"])
    except (LoRAError, KeyError, ValueError):
        return False
    return all(written.get(name) == value for name, value in settings.items())
