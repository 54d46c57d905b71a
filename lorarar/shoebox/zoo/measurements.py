"""What the critic says of the zoo's LoRAs: each alone, by other recipes, and summed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from lorarar.collection import Collection
from lorarar.lora import load_lora
from lorarar.pipelines import generate, load_pipeline, loaded
from lorarar.scales import Scale, data_folder, find_scale
from lorarar.shoebox.models.critic import Critic
from lorarar.shoebox.world.scene import SIZE
from lorarar.shoebox.zoo import names as drawn
from lorarar.shoebox.zoo.names import axis, class_of, expand, file_of, folder, tests, words
from lorarar.shoebox.zoo.training import train

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

WEIGHTS = ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.7, 0.7), (1.0, 0.5), (0.5, 1.0))
"""(content, style) weights of the sums that are measured."""

CANDIDATES: tuple[dict[str, float], ...] = (
    {},
    {"rank": 4},
    {"rank": 16},
    {"steps": 125},
    {"steps": 250},
    {"steps": 500},
    {"learning_rate": 5e-4},
    {"learning_rate": 2e-3},
)
"""Changes of a scale's recipes, one thing at a time, among which `choose` measures."""


def shows(critic: Critic, name: str, images: np.ndarray, world: Collection = drawn) -> np.ndarray:
    """Tell which images (n, h, w, 3) uint8 show a subject or style of a world, by the critic: (n,) bool.

    The references are views that no LoRA was trained on, so a copied pose earns nothing.
    """
    height, width = images.shape[1:3]
    if (height, width) != (SIZE, SIZE):  # the critic knows one size: average larger images down
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
        small = torch.nn.functional.interpolate(pixels, (SIZE, SIZE), mode="area")
        images = small.permute(0, 2, 3, 1).round().byte().numpy()
    return critic.same(world.axis(name), np.stack(world.pictures(name, seed=1)[0]), images)


def load_critic() -> Critic:
    """Load the shoebox's critic. Raises ValueError if it has not been trained."""
    place = data_folder() / "shoebox" / "critic"
    if not (place / "critic.safetensors").is_file():
        raise ValueError(f"no critic in {place}: train it first, with `lorarar shoebox critic`")
    return Critic.load(place)


def measure(
    names: Sequence[str],
    loras: Path | None = None,
    scale: str | Scale = "shoebox",
    *,
    count: int = 20,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> dict[str, dict[str, object]]:
    """Generate images with each LoRA alone, and without it, and let the critic judge them.

    Args:
        names: of subjects and styles, or splits.
        loras: the folder of the LoRAs; None takes the scale's.
        scale: whose base and inference settings are used.
        count: images of each LoRA.
        seed: the images' seeds begin at ``1000 * seed``; base and LoRA share them.
        device: where to generate; None takes the best there is.
        progress: show one bar over all images.

    Returns:
        {name: {"axis", "lora": share of right images, "base": that share without the LoRA, "trained on":
        images, "seconds": of training, "bytes": of the file}}.

    Raises:
        ValueError: unknown name or scale, a LoRA or the critic is missing, or a count below 1.
    """
    names, scale = expand(names), find_scale(scale)
    loras = folder(scale) if loras is None else loras
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    adapters = {name: load_lora(file_of(name, loras)) for name in names}
    critic, pipe = load_critic(), load_pipeline(scale, device)
    seeds = range(1000 * seed, 1000 * seed + count)
    found: dict[str, dict[str, object]] = {}
    with tqdm(total=2 * count * len(names), unit="image", disable=not progress) as bar:
        for name, lora in adapters.items():
            bar.set_description(name)
            shares = {}
            for key, applied in (("lora", [lora]), ("base", [])):
                with loaded(pipe, *applied):
                    images = generate(pipe, tests(name, count), seeds)
                shares[key] = round(float(shows(critic, name, images).mean()), 4)
                bar.update(count)
            training = json.loads(lora.metadata["lorarar_training"])
            found[name] = {
                "axis": axis(name),
                **shares,
                "trained on": len(training["prompts"][0]),
                "seconds": json.loads(lora.metadata["lorarar_zoo"])["seconds"],
                "bytes": file_of(name, loras).stat().st_size,
            }
    return found


def choose(
    names: Sequence[str],
    loras: Path,
    scale: str | Scale = "shoebox",
    *,
    count: int = 20,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> list[dict[str, object]]:
    """Train and measure the LoRAs of each name by each of `CANDIDATES`, to choose a recipe from.

    Arguments and errors as in `measure`; ``loras`` gets a folder for each candidate. Only names outside the
    test split should choose anything.

    Returns:
        A row per candidate: {"changed": {setting: value}, "subject": mean share of right images, "worst
        subject", "style", "worst style" (None for an axis without names), "seconds": mean, of training}.
    """
    scale, rows = find_scale(scale), []
    common = {"seed": seed, "device": device, "progress": progress}
    for changed in CANDIDATES:
        label = "-".join(f"{key}-{value:g}" for key, value in changed.items()) or "default"
        content, style = (replace(recipe, **changed) for recipe in (scale.content, scale.style))
        candidate = replace(scale, content=content, style=style)
        train(names, loras / label, candidate, **common)
        found = measure(names, loras / label, candidate, count=count, **common)
        row: dict[str, object] = {"changed": changed}
        for kind in ("subject", "style"):
            shares = [of["lora"] for of in found.values() if of["axis"] == kind]
            row[kind] = round(float(np.mean(shares)), 4) if shares else None
            row[f"worst {kind}"] = min(shares, default=None)
        row["seconds"] = round(float(np.mean([of["seconds"] for of in found.values()])), 1)
        rows.append(row)
    return rows


def sums(
    names: Sequence[str],
    loras: Path | None = None,
    scale: str | Scale = "shoebox",
    *,
    count: int = 10,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> tuple[dict[str, object], np.ndarray]:
    """Add every subject's LoRA to every style's, with each of `WEIGHTS`, and let the critic judge.

    Arguments and errors as in `measure`; ``count`` is of images per pair and weights.

    Returns:
        ``{"weights": [[w_c, w_s], …], "columns": [str, …], "pairs": [{"subject", "style", "subject right",
        "style right"}, …]}``, the last two lists (weights, count) of 0 and 1; and the first image of every
        cell, (pairs, columns, side, side, 3) uint8: subject alone and style alone, each with its own prompt,
        then the sums of both with the joint prompt.
    """
    names, scale = expand(names), find_scale(scale)
    loras = folder(scale) if loras is None else loras
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    adapters = {name: load_lora(file_of(name, loras)) for name in names}
    couples = list(
        product(*([name for name in names if axis(name) == kind] for kind in ("subject", "style")))
    )
    if not couples:
        raise ValueError("a sum needs at least one subject and one style")
    critic, pipe = load_critic(), load_pipeline(scale, device)
    seeds = range(1000 * seed, 1000 * seed + count)
    pairs, sheet = [], []
    with tqdm(total=(len(WEIGHTS) * count + 2) * len(couples), unit="image", disable=not progress) as bar:
        for subject, style in couples:
            bar.set_description(f"{subject}, {style}")
            cells: list[np.ndarray] = []
            right: dict[str, list[list[int]]] = {"subject": [], "style": []}
            with loaded(pipe, adapters[subject], adapters[style]):
                for weights, request in (
                    ((1.0, 0.0), words(subject=subject)),
                    ((0.0, 1.0), words(style=style, cls=class_of(subject))),
                ):
                    apply_weights(pipe, weights)
                    cells.append(generate(pipe, request, seeds[:1])[0])
                    bar.update()
                for weights in WEIGHTS:
                    apply_weights(pipe, weights)
                    images = generate(pipe, words(subject=subject, style=style), seeds)
                    for name, verdicts in zip((subject, style), right.values(), strict=True):
                        verdicts.append([int(v) for v in shows(critic, name, images)])
                    if 0 not in weights:
                        cells.append(images[0])
                    bar.update(count)
            pairs.append(
                {
                    "subject": subject,
                    "style": style,
                    "subject right": right["subject"],
                    "style right": right["style"],
                }
            )
            sheet.append(np.stack(cells))
    sums_of = [f"{c:g} and {s:g}" for c, s in WEIGHTS if c and s]
    columns = ["subject alone", "style alone", *sums_of]
    return {"weights": [list(w) for w in WEIGHTS], "columns": columns, "pairs": pairs}, np.stack(sheet)


def apply_weights(pipe: DiffusionPipeline, weights: Sequence[float]) -> None:
    """Set the weights of the LoRAs that `lorarar.pipelines.loaded` has applied; nothing is loaded again."""
    pipe.set_adapters([f"lora{i}" for i in range(len(weights))], [float(weight) for weight in weights])
