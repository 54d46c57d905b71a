"""One pair from folder to picture: LoRAs of a subject and a style, their merge, pictures and verdicts.

Each side is a folder of pictures, of which a LoRA is trained, or a LoRA file. Everything lies in one folder,
step by step, and a run that was stopped goes on where it was:

    content.safetensors, style.safetensors   the LoRAs that were trained
    merged.safetensors                       what `lorarar merge` would write
    pictures/000.png, …                      from the joint prompt, one seed each
    verdicts.json                            what the judge says of each (MARS²)
    sheet.png                                the pictures, framed by the verdicts
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from lorarar.atomic import atomic
from lorarar.hypernet import load_network
from lorarar.images import framed, image_files, read_images
from lorarar.judging import find_judge, judge_files, remembered
from lorarar.lora import LoRA, load_coefficients, load_lora, own_format, save_lora
from lorarar.merging import merge
from lorarar.options import LoraRecipe, MergerRecipe, values
from lorarar.pipelines import generate, grid, load_pipeline, loaded
from lorarar.resume import missing
from lorarar.scales import Scale, local
from lorarar.train import Trained, optimise, own_inputs, read_captions, train_lora

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class Side:
    """The subject or the style: a LoRA file, pictures, or both, and the words that go with the pictures.

    ``words`` is one prompt, or a caption for each picture; None where there are no pictures.
    """

    name: str
    lora: Path | None
    images: Path | None
    words: str | list[str] | None

    @property
    def prompt(self) -> str | None:
        """The first words."""
        return self.words if self.words is None or isinstance(self.words, str) else self.words[0]

    def trained(self, lora: LoRA) -> Trained:
        """Return its LoRA with the pictures, as optimisations take it."""
        return Trained(lora, read_images(self.images), self.words, self.name)


def read_side(
    name: str, source: Path, images: Path | None, prompt: str | None, captions: Path | None
) -> tuple[Side, list[ValueError]]:
    """Read one side and find all that is wrong with it: each picture that cannot be read has its own error.

    Args:
        name: ``content`` or ``style``, for errors.
        source: a folder of pictures, or a LoRA file.
        images: beside a LoRA file, the pictures it was trained on.
        prompt: of all pictures; or
        captions: of each. Without both, a ``metadata.jsonl`` in the folder of pictures is taken.
    """
    wrong: list[ValueError] = []
    lora = None
    folder: Path | None = source
    if not source.exists():
        wrong.append(
            ValueError(f"{source}: no such file or folder; give pictures of the {name}, or its LoRA")
        )
        folder = None
    elif source.is_file() or (source / "adapter_config.json").is_file():
        lora, folder = source, images
        try:
            load_lora(source)
        except ValueError as error:
            wrong.append(error)
    elif images is not None:
        wrong.append(ValueError(f"--{name}-images goes with a LoRA file; {source} is a folder of pictures"))
    words: str | list[str] | None = prompt
    if folder is not None:
        try:
            files = image_files(folder)
            if captions is None and prompt is None and (folder / "metadata.jsonl").is_file():
                captions = folder / "metadata.jsonl"
            if captions is not None:
                words = read_captions(captions, [file.name for file in files])
        except ValueError as error:
            wrong.append(error)
            files = []
        for file in files:
            try:
                read_images([file])
            except ValueError as error:
                wrong.append(error)
        if words is None and not wrong:
            wrong.append(
                ValueError(f"{folder}: what do the pictures show? Give --{name}-prompt TEXT, or captions")
            )
    return Side(name, lora, folder, words), wrong


def style_words(prompt: str | None) -> str | None:
    """Return what a style's prompt calls it: "oil painting" of "a vase in oil painting style", else None."""
    found = re.search(r"\bin (?:the |an? )?(.+?) style\b", prompt or "")
    return found[1] if found else None


@dataclass(frozen=True)
class Plan:
    """What to do with a pair.

    Args:
        scale: whose recipes, inference settings and judge are used.
        base: a folder or id in place of the scale's base.
        prompt: of the pictures.
        words: what the style is called, for the judge.
        method: of `lorarar.options.METHODS`, or ``regmean``; ``ziplora`` is optimised here, ``lorarar`` needs
            a hypernetwork.
        weights: of content and style.
        hypernetwork: its file.
        coefficients: the file of a table (`lorarar study means`), for ``table``.
        count: of pictures.
        seed: of the trainings, and of the first picture.
        lora: changes to the recipes of both LoRAs.
        merger: changes to ZipLoRA's.
        inference: ``steps`` and ``guidance``, where they are not the scale's.
        judge: a model's folder, id or address; None for the scale's; ``none`` for no verdicts.
        device: where to compute.
    """

    scale: Scale
    prompt: str
    words: str | None
    method: str = "direct"
    base: str | None = None
    weights: tuple[float, float] = (1.0, 1.0)
    hypernetwork: Path | None = None
    count: int = 4
    seed: int = 0
    lora: Mapping[str, Any] = field(default_factory=dict)
    merger: Mapping[str, Any] = field(default_factory=dict)
    inference: Mapping[str, Any] = field(default_factory=dict)
    judge: str | None = None
    device: str | None = None
    coefficients: Path | None = None


class Run:
    """A plan's steps in a folder, each made unless it is there already.

    Args:
        content: the subject.
        style: the style.
        plan: what to do.
        folder: where everything lies.
        progress: show bars.
        report: called with a line for each step.
    """

    def __init__(
        self,
        content: Side,
        style: Side,
        plan: Plan,
        folder: Path,
        *,
        progress: bool = True,
        report: Callable[[str], None] = print,
    ) -> None:
        self.sides, self.plan, self.folder = (content, style), plan, folder
        self.progress, self.report = progress, report
        self._pipe: DiffusionPipeline | None = None

    def go(self) -> Path:
        """Take all steps; return the sheet."""
        loras = [self._lora(side) for side in self.sides]
        merged = self._merged(loras)
        pictures = self._pictures(merged)
        self._pipe = None  # the judge is as large
        return self._sheet(pictures, self._verdicts(pictures))

    @property
    def pipe(self) -> DiffusionPipeline:
        """The base, loaded when it is first needed."""
        if self._pipe is None:
            self._pipe = load_pipeline(self.plan.base or self.plan.scale, self.plan.device, self.plan.scale)
        return self._pipe

    def _missing(
        self, step: str, decided: Mapping[str, Any], *files: Path, beside: Path | None = None
    ) -> bool:
        """Tell whether a step is still to be done, and say so."""
        (self.folder / "steps").mkdir(exist_ok=True)
        place = self.folder / "steps" / f"{step}.json"
        todo = missing(place, decided, files, [beside] if beside else [])
        if not todo:
            self.report(f"{files[0].relative_to(self.folder)}: is there")
        return bool(todo)

    def _lora(self, side: Side) -> Path:
        """Train a side's LoRA, if it is not given."""
        if side.lora is not None:
            return side.lora
        scale, out = self.plan.scale, self.folder / f"{side.name}.safetensors"
        recipe = LoraRecipe.of(scale.content if side.name == "content" else scale.style, **self.plan.lora)
        decided = {
            "recipe": values(recipe),
            "seed": self.plan.seed,
            "base": self.plan.base or scale.base,
            "pictures": [_hash(file) for file in image_files(side.images)],
            "words": side.words,
        }
        checkpoint = out.with_name(f"{out.name}.checkpoint")
        if self._missing(side.name, decided, out, beside=checkpoint):
            lora = train_lora(
                self.pipe,
                side.images,
                side.words,
                recipe,
                seed=self.plan.seed,
                gradient_checkpointing=scale.gradient_checkpointing,
                checkpoint=checkpoint,
                resume=True,
                progress=self.progress,
            )
            save_lora(lora, out, dtype=torch.float16)
            self.report(f"{out.name}: {len(lora)} layers, {recipe.steps} steps")
        return out

    def _merged(self, loras: list[Path]) -> Path:
        """Merge both LoRAs."""
        plan, out = self.plan, self.folder / "merged.safetensors"
        recipe = MergerRecipe.of(plan.scale.ziplora, **plan.merger)
        decided = {
            "loras": [_hash(path) for path in loras],
            "method": plan.method,
            "weights": plan.weights,
            "hypernetwork": plan.hypernetwork and _hash(plan.hypernetwork),
            "coefficients": plan.coefficients and _hash(plan.coefficients),
        }
        if plan.method == "ziplora":
            decided |= {"recipe": values(recipe), "seed": plan.seed, "base": plan.base or plan.scale.base}
            decided["pictures"] = [_hash(f) for side in self.sides for f in image_files(side.images)]
            decided["words"] = [side.words for side in self.sides]
        elif plan.method == "regmean":
            decided |= {"seed": plan.seed, "base": plan.base or plan.scale.base}
            decided["words"] = [side.words for side in self.sides]
        if self._missing("merged", decided, out):
            two = [load_lora(path) for path in loras]
            options: dict[str, Any] = {}
            if plan.method == "ziplora":
                options["coefficients"], _ = optimise(
                    self.pipe,
                    *(side.trained(lora) for side, lora in zip(self.sides, two, strict=True)),
                    recipe,
                    seed=plan.seed,
                    gradient_checkpointing=plan.scale.gradient_checkpointing,
                    progress=self.progress,
                )
            elif plan.method == "regmean":
                asked = {"seed": plan.seed, "progress": self.progress}
                options["inputs"] = tuple(
                    own_inputs(self.pipe, lora, side.words, **asked)
                    for side, lora in zip(self.sides, two, strict=True)
                )
            elif plan.hypernetwork is not None:
                network = options["hypernetwork"] = load_network(plan.hypernetwork)
                options["parts"] = network.metadata.get("parts", "query,output").split(",")
                options["rest"] = network.metadata.get("rest", "average")
            elif plan.coefficients is not None:
                options["coefficients"] = load_coefficients(plan.coefficients)
            both = dict(zip(("content_weight", "style_weight"), plan.weights, strict=True))
            merged = merge(*two, plan.method, **both, **options, later=True)
            save_lora(merged, out, format=own_format(*two))
            self.report(f"{out.name}: {plan.method}, {len(merged)} layers")
        return out

    def _pictures(self, merged: Path) -> list[Path]:
        """Make the pictures that are not there yet."""
        plan, folder = self.plan, self.folder / "pictures"
        folder.mkdir(exist_ok=True)
        files = {plan.seed + i: folder / f"{i:03}.png" for i in range(plan.count)}
        decided = {
            "merged": _hash(merged),
            "base": plan.base or plan.scale.base,
            "prompt": plan.prompt,
            "seed": plan.seed,
            "inference": {"scale": plan.scale.name, **plan.inference},
        }
        if self._missing("pictures", decided, *files.values()):
            seeds = [seed for seed, file in files.items() if not file.is_file()]

            def keep(start: int, images: np.ndarray) -> None:
                for seed, image in zip(seeds[start:], images, strict=False):
                    with atomic(files[seed]) as aside:
                        Image.fromarray(image).save(aside, format="PNG")

            with loaded(self.pipe, load_lora(merged)):
                asked = {"progress": self.progress, "callback": keep, **plan.inference}
                generate(self.pipe, plan.prompt, seeds, **asked)
            self.report(f"pictures: {len(files)} of “{plan.prompt}”")
        for file in set(folder.glob("*.png")) - set(files.values()):  # of a larger count before
            file.unlink()
        return list(files.values())

    def _verdicts(self, pictures: list[Path]) -> dict[str, Any] | None:
        """Let the judge look at the pictures, if there are references of both."""
        content, style = (side.images for side in self.sides)
        if self.plan.judge == "none" or content is None or style is None or not self.plan.words:
            self.report("verdicts: none, since no judge or no pictures to compare with are given")
            return None
        out = self.folder / "verdicts.json"
        source = self.plan.judge or str(local(self.plan.scale.judge))
        decided = {
            "pictures": [_hash(file) for file in pictures],
            "references": [_hash(file) for folder in (content, style) for file in image_files(folder)],
            "judge": source,
            "words": self.plan.words,
        }
        if self._missing("verdicts", decided, out):
            judge = find_judge(source, device=self.plan.device, progress=self.progress)
            ask = remembered(judge, self.folder / "steps" / "answers.jsonl", source)
            found = judge_files(ask, self.folder / "pictures", content, style, self.plan.words)
            with atomic(out) as aside:
                aside.write_text(json.dumps(found, indent=1) + "\n")
        found = json.loads(out.read_text())
        self.report(f"{out.name}: {found['right']:.0%} of {len(pictures)} pictures show both")
        return found

    def _sheet(self, pictures: list[Path], found: dict[str, Any] | None) -> Path:
        """Lay the pictures out, in frames of green and red where there are verdicts."""
        images = [np.asarray(image) for image in read_images(pictures)]
        if found:
            images = [framed(i, row["right"]) for i, row in zip(images, found["images"], strict=True)]
        out = self.folder / "sheet.png"
        with atomic(out) as aside:
            Image.fromarray(grid(np.stack(images))).save(aside, format="PNG")
        self.report(f"{out.name}: {len(images)} pictures")
        return out


def _hash(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
