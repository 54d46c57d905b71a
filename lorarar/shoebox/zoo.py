"""The LoRA zoo: a LoRA for each named subject and style of the drawn world, and what the critic says of them.

A subject's LoRA is trained on photos of it with "a sks <class>", a style's on drawings in it with
"a <class> in <family> style". Files lie at ``subjects/<slug>.safetensors`` and ``styles/<slug>.safetensors``.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import DDPMScheduler
from tqdm import tqdm

from lorarar.collection import Folders
from lorarar.lora import LoRA, LoRAError, load_lora, save_lora
from lorarar.pipelines import base_sha256, generate, load_pipeline, loaded
from lorarar.scales import Scale, data_folder, find_scale
from lorarar.shoebox.models.critic import Critic
from lorarar.shoebox.world import styles, subjects, world
from lorarar.shoebox.world import subjects as world_subjects
from lorarar.shoebox.world.scene import SIZE
from lorarar.train import train_lora
from lorarar.train.denoising import Batch, draw
from lorarar.train.objective import predict
from lorarar.train.pictures import encode

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


RARE = world.RARE_TOKENS[0]
VIEWS = {"subject": 5, "style": 12}
"""How many pictures a LoRA is trained on."""

REFERENCES = {"subject": 5, "style": 4}
"""How many other pictures of the same a judge compares an image with."""

FIRST = ("dog #2", "clock", "bear plushie", "3D rendering #2", "oil painting #1", "watercolor painting #1")
"""The validation subjects and styles that the first chapters use."""

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


def axis(name: str) -> str:
    """Return what a name is, "subject" or "style". Raises ValueError, with all names, for others."""
    if name in subjects.SUBJECTS:
        return "subject"
    if name in styles.STYLES:
        return "style"
    known = ", ".join([*subjects.SUBJECTS, *styles.STYLES])
    raise ValueError(f"no subject or style {name!r}: expected a split, all, or of {known}")


def expand(names: Sequence[str]) -> list[str]:
    """Replace "train", "validation", "test" and "all" (the 30 subjects and 26 styles) by their names.

    Raises:
        ValueError: a name is neither a split nor a subject or style.
    """
    sets = ("train", "validation", "test")
    splits = {split: [*subjects.SPLIT[split], *styles.SPLIT[split]] for split in sets}
    splits["all"] = [name for split in splits.values() for name in split]
    found = [one for name in names for one in splits.get(name, [name])]
    for name in found:
        axis(name)
    return list(dict.fromkeys(found))


def slug(name: str) -> str:
    """Return a name as a file is called: "dog #2" is dog-2."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def folder(scale: str | Scale) -> Path:
    """Return where a scale's LoRAs lie: those of the shoebox, which ``smoke`` uses too, in ``data/loras``."""
    name = find_scale(scale).name
    loras = data_folder() / "loras"
    return loras if name in ("smoke", "shoebox") else loras / name


def file_of(name: str, loras: Path) -> Path:
    """Return the file of a subject or style in a folder of LoRAs."""
    return loras / f"{axis(name)}s" / f"{slug(name)}.safetensors"


def load(name: str, scale: str | Scale = "shoebox", variant: str = "") -> LoRA:
    """Read a LoRA of the zoo; ``variant`` names a folder of others beside it, such as "one-image".

    Raises:
        ValueError: it has not been trained yet.
    """
    loras = folder(scale) / variant
    path = file_of(name, loras)
    if not path.is_file():
        raise ValueError(f'no LoRA {path}: make it with `lorarar zoo train --names "{name}" --out {loras}`')
    return load_lora(path)


def split(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the subjects and the styles of a split."""
    return subjects.SPLIT[name], styles.SPLIT[name]


def family(style: str) -> str:
    """Return what a style is called in a prompt."""
    return styles.family(style)


def class_of(name: str) -> str:
    """Return the class word of a subject."""
    return subjects.SUBJECTS[name].cls


def words(subject: str | None = None, style: str | None = None, cls: str | None = None) -> str:
    """Return the prompt that asks for a subject, a style, or both: "a sks dog in oil painting style".

    ``cls`` is the class to draw where no subject is named.
    """
    shown = f"{RARE} {class_of(subject)}" if subject else str(cls)
    if style:
        return world.prompt(shown, styles.family(style))
    return f"a {shown}" if subject else world.prompt(shown, "photo")


def pictures(name: str, count: int | None = None, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Draw a subject's photos or a style's examples: (count, SIZE, SIZE, 3) uint8, and each one's caption.

    LoRAs are trained on seed 0; another seed gives views that no LoRA has seen. Without a count there are as
    many as `VIEWS` says with seed 0, and as `REFERENCES` says with others.
    """
    kind = axis(name)
    count = (REFERENCES if seed else VIEWS)[kind] if count is None else count
    if kind == "subject":
        return world.subject_images(name, count, seed), [words(subject=name)] * count
    images, classes = world.style_images(name, count, seed)
    return images, [words(style=name, cls=cls) for cls in classes]


def targets(subject: str, style: str, count: int, seed: int = 0) -> np.ndarray:
    """Draw a subject in a style: what a perfect merge would show, (count, SIZE, SIZE, 3) uint8."""
    known = sorted(subjects.SUBJECTS).index(subject), sorted(styles.STYLES).index(style)
    rng = np.random.default_rng([seed, 3, *known])
    return np.stack([world.draw(subjects.SUBJECTS[subject], styles.STYLES[style], rng) for _ in range(count)])


def rivals(name: str) -> list[str]:
    """Return the subjects of the same class, or the styles of the same family: the easiest to mistake."""
    if axis(name) == "subject":
        return [n for n, other in subjects.SUBJECTS.items() if n != name and other.cls == class_of(name)]
    return [n for n in styles.STYLES if n != name and styles.family(n) == styles.family(name)]


def tests(name: str, count: int) -> list[str]:
    """Return `count` prompts that show whether a LoRA works: a style's name classes it was not trained on."""
    if axis(name) == "subject":
        return [words(subject=name)] * count
    seen = world.style_images(name, VIEWS["style"])[1]
    classes = [cls for cls in world_subjects.CLASSES if cls not in seen]
    # A step that shares no factor with their number spreads a few prompts over all classes.
    step = next(n for n in (7, 5, 11) if len(classes) % n)
    return [words(style=name, cls=classes[step * i % len(classes)]) for i in range(count)]


def shows(critic: Critic, name: str, images: np.ndarray) -> np.ndarray:
    """Tell which images (n, h, w, 3) uint8 show a subject or style, by the critic: (n,) bool.

    The references are views that no LoRA was trained on, so a copied pose earns nothing.
    """
    height, width = images.shape[1:3]
    if (height, width) != (SIZE, SIZE):  # the critic knows one size: average larger images down
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
        small = torch.nn.functional.interpolate(pixels, (SIZE, SIZE), mode="area")
        images = small.permute(0, 2, 3, 1).round().byte().numpy()
    return critic.same(axis(name), pictures(name, seed=1)[0], images)


def load_critic() -> Critic:
    """Load the shoebox's critic. Raises ValueError if it has not been trained."""
    place = data_folder() / "shoebox" / "critic"
    if not (place / "critic.safetensors").is_file():
        raise ValueError(f"no critic in {place}: train it first, with `lorarar shoebox critic`")
    return Critic.load(place)


def train(
    names: Sequence[str],
    loras: Path | None = None,
    scale: str | Scale = "shoebox",
    *,
    count: int | None = None,
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
        seed: together with the name, of the start and of everything drawn.
        device: where to train; None takes the best there is.
        progress: show one bar over all steps.
        world: a collection of one's own, whose names these are; None takes the drawn world.

    Returns:
        The files, in the order of the names.

    Raises:
        ValueError: unknown name or scale, or a count below 1.
    """
    whose = world or sys.modules[__name__]
    names, scale = whose.expand(names), find_scale(scale)
    loras = whose.folder(scale) if loras is None else loras
    if count is not None and count < 1:
        raise ValueError(f"a LoRA needs at least 1 image, not {count}")
    pipe = load_pipeline(scale, device)
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
                seed=own_seed,
                gradient_checkpointing=scale.gradient_checkpointing,
                checkpoint=f"{path}.checkpoint",
                resume=True,
                progress=False,
                callback=step,
            )
            lora.metadata["lorarar_zoo"] = json.dumps(
                {"name": name, "scale": scale.name, "seconds": round(time.monotonic() - began, 1)}
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


def probe(
    pipe: DiffusionPipeline, images: np.ndarray, captions: Sequence[str], count: int = 32, seed: int = 0
) -> Batch:
    """Draw one batch of noised images to be used again and again, so that losses on it can be compared.

    ``count`` samples of the images (n, h, w, 3) uint8, with captions, noise and timesteps from ``seed``.
    """
    config = pipe.scheduler.config
    alphas = DDPMScheduler.from_config(config).alphas_cumprod.to(pipe.unet.device, torch.float32)
    generator = torch.Generator().manual_seed(seed)
    return draw([encode(pipe, [(images, list(captions))])], count, alphas, config.prediction_type, generator)


@torch.no_grad()
def answer(pipe: DiffusionPipeline, batch: Batch) -> torch.Tensor:
    """Return what the UNet, with the LoRAs it carries, predicts for a batch: (n, c, h, w) float32."""
    return predict(pipe.unet, batch)


def loss(pipe: DiffusionPipeline, batch: Batch) -> float:
    """Return the training objective on a batch: the mean squared error of the prediction."""
    return float(((answer(pipe, batch) - batch.target) ** 2).mean((1, 2, 3)) @ batch.weight)


def apply_weights(pipe: DiffusionPipeline, weights: Sequence[float]) -> None:
    """Set the weights of the LoRAs that `lorarar.pipelines.loaded` has applied; nothing is loaded again."""
    pipe.set_adapters([f"lora{i}" for i in range(len(weights))], [float(weight) for weight in weights])
