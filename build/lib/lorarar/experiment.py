"""The main experiment: every method on every pair of a split's subjects and styles, judged alike.

LoRA.rar's comparison (arXiv 2412.05148, §4 and supplement A1.3): a prompt "a sks <class> in <family> style"
for each pair, ten images from one list of seeds that all methods share, and for each image two verdicts, on
its subject and on its style. It goes in steps, each of which keeps what is done and can be killed any time:

    python -m lorarar.experiment make          what takes minutes for a pair, one file each (ziplora, joint)
    python -m lorarar.experiment images        the images, one folder per method and pair: a cell
    python -m lorarar.experiment verdicts      a judge's verdicts, one file in each cell
    python -m lorarar.experiment metrics       CLIP-I, DINO and CLIP-T of all images, and records them
    python -m lorarar.experiment times         how long each method takes to merge, in one run
    python -m lorarar.experiment record        verdicts and tables into data/recorded
    python -m lorarar.experiment judges        the judges and metrics on drawings, whose truth is known
    python -m lorarar.experiment tune          several hypernetworks on validation, to choose one

A cell appears whole or not at all, and is made anew only if something that decides it has changed. What is
chosen by looking at results (a variant of a method) is refused on the test split: tune on validation.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from lorarar import klora
from lorarar.dreambooth import train_lora
from lorarar.hypernet import Hypernetwork
from lorarar.judge import Entry, Verdicts, bootstrap, difference, entry, heat_maps, majority, votes
from lorarar.lora import LoRA, load_coefficients, load_lora, save_coefficients, save_lora
from lorarar.merging import merge
from lorarar.metrics import Encoder, image_similarity, load_encoder, text_similarity
from lorarar.models import (
    Recipe,
    Scale,
    _quiet,
    base_sha256,
    data_folder,
    find_scale,
    generate,
    load_pipeline,
    loaded,
    local,
)
from lorarar.objective import Trained

with _quiet():
    from lorarar.shoebox import eyes, styles, subjects, zoo

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SPLITS = ("validation", "test")
COUNT = 10
"""Images of a method and pair, as in the paper."""

Pair = tuple[str, str]
"""The names of a subject and a style."""

Shows = Callable[[str, np.ndarray], np.ndarray]
"""Tells which images (n, h, w, 3) uint8 show the subject or style of that name: (n,) bool."""


# ---------------------------------------------------------------------------------------------------------
# Pairs, and the methods


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
    hypernetwork: Hypernetwork | None = None
    made: Path | None = None
    seed: int = 0
    progress: bool = False
    checkpoint: Path | None = None


Applied = LoRA | dict[str, float] | None
"""What a method applies: one LoRA, the claims of K-LoRA's layers, or nothing."""


@dataclass(frozen=True)
class Method:
    """How two LoRAs become what is applied: ``merge(task, **options)``.

    ``slow`` says that it trains for each pair, so that `make` keeps its result; ``hypernetwork`` that it
    needs one. ``reference`` marks what merges nothing, for comparison.
    """

    merge: Callable[..., Applied]
    options: Mapping[str, Any] = field(default_factory=dict)
    slow: bool = False
    hypernetwork: bool = False
    reference: bool = False


def _by_library(name: str) -> Callable[..., LoRA]:
    def merged(task: Task, **options: Any) -> LoRA:  # noqa: ANN401 (the library's own options)
        return merge(task.content, task.style, name, **options)

    return merged


def _by_hypernetwork(task: Task, **options: Any) -> LoRA:  # noqa: ANN401
    """LoRA.rar: the parts and the rest are those that the hypernetwork was trained for, unless given."""
    network = task.hypernetwork
    if network is None:
        raise ValueError("method lorarar needs a hypernetwork: make it with `lorarar train-hypernetwork`")
    trained = {"parts": network.metadata.get("parts", "query,output").split(",")}
    trained["rest"] = network.metadata.get("rest", "average")
    return merge(task.content, task.style, "lorarar", hypernetwork=network, **{**trained, **options})


def _by_optimisation(task: Task, *, rest: str = "average", **options: Any) -> LoRA:  # noqa: ANN401
    """ZipLoRA: coefficients from `make`'s file, or optimised now."""
    kept = _kept(task, "ziplora", options)
    coefficients = load_coefficients(kept) if kept else optimised(task, **options)
    return merge(task.content, task.style, "ziplora", coefficients=coefficients, rest=rest)


def optimised(task: Task, **options: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:  # noqa: ANN401
    """Find ZipLoRA's coefficients of a pair with the scale's settings: layer → (m_c, m_s)."""
    from lorarar.ziplora import optimise

    return optimise(
        task.pipe,
        with_pictures(task.pair[0], task.content),
        with_pictures(task.pair[1], task.style),
        **{**vars(task.scale.ziplora), "seed": task.seed, **options},
        gradient_checkpointing=task.scale.gradient_checkpointing,
        progress=task.progress,
    )[0]


def _jointly(task: Task, **options: Any) -> LoRA:  # noqa: ANN401
    """Joint training: a LoRA from `make`'s file, or trained now."""
    kept = _kept(task, "joint", options)
    return load_lora(kept) if kept else trained_jointly(task, **options)


def trained_jointly(task: Task, **options: Any) -> LoRA:  # noqa: ANN401
    """Train one LoRA on a pair's subject and style together (multi-concept DreamBooth, Ruiz et al. 2023).

    Both concepts keep the pictures and captions of their own LoRAs and are drawn equally often; it gets as
    many steps as the two LoRAs had together, with the content's rank and learning rate.
    """
    sides = with_pictures(task.pair[0], task.content), with_pictures(task.pair[1], task.style)
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


def joint_recipe(scale: Scale) -> Recipe:
    """Return the recipe of joint training: the content's, for the steps of content and style together."""
    return replace(scale.content, steps=scale.content.steps + scale.style.steps)


def _claims(task: Task, **options: Any) -> dict[str, float]:  # noqa: ANN401
    return klora.ratios(task.content, task.style, **options)


# The paper ran TIES, DARE and DARE-TIES by peft, on the factors, with uniform weights and density 0.5 (A1.3);
# "… on ΔW" is what these methods mean by their own papers.
_PEFT = {"flavour": "factors", "content_weight": 0.5, "style_weight": 0.5, "density": 0.5}

METHODS: dict[str, Method] = {
    "base": Method(lambda task: None, reference=True),
    "content": Method(lambda task: task.content, reference=True),
    "style": Method(lambda task: task.style, reference=True),
    "joint": Method(_jointly, slow=True),
    "direct": Method(_by_library("direct")),
    "dare": Method(_by_library("dare"), _PEFT),
    "ties": Method(_by_library("ties"), _PEFT),
    "dare-ties": Method(_by_library("dare-ties"), _PEFT),
    "dare-delta": Method(_by_library("dare"), {"density": 0.5}),
    "ties-delta": Method(_by_library("ties"), {"density": 0.5}),
    "dare-ties-delta": Method(_by_library("dare-ties"), {"density": 0.5}),
    "np-lora": Method(_by_library("np-lora")),
    "k-lora": Method(_claims),
    "ziplora": Method(_by_optimisation, slow=True),
    "lorarar": Method(_by_hypernetwork, hypernetwork=True),
}
"""Every method by name; "base", "content" and "style" apply no LoRA and one of the two, as references."""


def find_method(name: str, split: str) -> Method:
    """Return the method of that name, or a variant of it: ``lorarar:parts=query+value,rest=sum``.

    Raises:
        ValueError: no such method; a variant that is not spelled so; or a variant on the test split, on which
            nothing is tuned.
    """
    name, _, given = name.partition(":")
    if name not in METHODS:
        raise ValueError(f"no method {name!r}: choose one of {', '.join(METHODS)}")
    if not given:
        return METHODS[name]
    if split == "test":
        raise ValueError(f"{name}:{given}: variants are compared on validation, never on test")
    options: dict[str, Any] = {}
    for item in given.split(","):
        key, equals, value = item.partition("=")
        if not key or not equals:
            raise ValueError(f"{name}:{given}: expected NAME:OPTION=VALUE,OPTION=VALUE")
        options[key] = tuple(value.split("+")) if key == "parts" else _value(value)
    old = METHODS[name]
    return Method(old.merge, {**old.options, **options}, old.slow, old.hypernetwork, old.reference)


def _value(text: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def applying(task: Task, applied: Applied) -> AbstractContextManager[DiffusionPipeline]:
    """Put what a method made into the task's pipeline, for as long as the block runs."""
    if isinstance(applied, LoRA):
        return loaded(task.pipe, applied)
    if applied is None:
        return loaded(task.pipe)
    return klora.applied(task.pipe, task.content, task.style, claims=applied)


def with_pictures(name: str, lora: LoRA) -> Trained:
    """Return a LoRA of the zoo with the pictures and captions that it was trained on."""
    try:
        count = len(json.loads(lora.metadata["lorarar_training"])["prompts"][0])
    except (KeyError, ValueError):
        count = None  # the zoo's number
    images, captions = zoo.pictures(name, count)
    return Trained(lora, images, captions, name)


# ---------------------------------------------------------------------------------------------------------
# What takes minutes, one file per pair


def _decides(task: Task, method: str, options: Mapping[str, Any]) -> str:
    """Return what decides the result of a slow method, as JSON."""
    recipe = task.scale.ziplora if method == "ziplora" else joint_recipe(task.scale)
    return json.dumps(
        {
            "method": method,
            "recipe": {**vars(recipe), **options},
            "seed": task.seed,
            "base": base_sha256(task.pipe),
            "content": _digest(task.content),
            "style": _digest(task.style),
        },
        sort_keys=True,
        default=list,
    )


def _kept(task: Task, method: str, options: Mapping[str, Any]) -> Path | None:
    """Return the file that `make` keeps of this very task, or None if there is none."""
    if task.made is None:
        return None
    path = task.made / method / f"{slug(task.pair)}.safetensors"
    try:
        written = _metadata(path).get("lorarar_experiment")
    except (SafetensorError, OSError):
        return None
    return path if written == _decides(task, method, options) else None


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def make(task: Task, method: str) -> tuple[Path, float]:
    """Work out what a slow method needs of a pair and keep it, coefficients or a LoRA, in ``task.made``.

    Returns:
        The file, which is left alone if it is this very task's, and the seconds it took when it was made.

    Raises:
        ValueError: the method is not slow, or the task has no folder.
    """
    if method not in METHODS or not METHODS[method].slow or task.made is None:
        raise ValueError(f"method {method} merges at once: there is nothing to make before")
    options = METHODS[method].options
    path = task.made / method / f"{slug(task.pair)}.safetensors"
    if not _kept(task, method, options):
        path.parent.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        facts = {"lorarar_experiment": _decides(task, method, options)}
        if method == "ziplora":
            found = optimised(task, **options)
            save_coefficients(found, path, metadata={**facts, "seconds": f"{_since(began):.3f}"})
        else:
            lora = trained_jointly(replace(task, checkpoint=path.with_suffix(".checkpoint")), **options)
            lora.metadata |= {**facts, "seconds": f"{_since(began):.3f}"}
            save_lora(lora, path, dtype=torch.float16)
    return path, float(_metadata(path)["seconds"])


def _since(began: float) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _digest(lora: LoRA) -> str:
    """The SHA-256 of an adapter's layers and factors."""
    digest = hashlib.sha256()
    for layer, pair in lora.items():
        digest.update(layer.encode())
        for factor in pair:
            digest.update(factor.contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------------
# Cells: the images of one method and pair


@dataclass(frozen=True)
class Setting:
    """One run of the experiment: what its cells have in common.

    ``out`` holds the cells, ``out/made`` what `make` keeps. ``count`` images of each method and pair come
    from the seeds ``1000·seed, 1000·seed + 1, …``.
    """

    split: str
    scale: Scale
    subjects: tuple[str, ...]
    styles: tuple[str, ...]
    out: Path
    loras: Path
    hypernetwork: Path
    count: int = COUNT
    seed: int = 0
    device: str | None = None
    progress: bool = True

    @property
    def seeds(self) -> list[int]:
        """The one list of seeds that all methods share."""
        return list(range(1000 * self.seed, 1000 * self.seed + self.count))

    @property
    def pairs(self) -> list[Pair]:
        """Every subject with every style, the styles of a subject next to each other."""
        return list(product(self.subjects, self.styles))


def setting(
    split: str,
    scale: str | Scale = "shoebox",
    *,
    names: Sequence[str] | None = None,
    out: Path | None = None,
    loras: Path | None = None,
    hypernetwork: Path | None = None,
    count: int = COUNT,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> Setting:
    """Return a run's setting.

    Args:
        split: validation or test.
        scale: whose base, recipes and inference settings are used.
        names: subjects and styles of the split; None takes all.
        out: None takes ``runs/experiment/SCALE/SPLIT``.
        loras: the folder of the zoo; None takes the scale's.
        hypernetwork: its file; None takes the scale's (`hypernetwork_of`).
        count: images of each method and pair.
        seed: of the images, and of what is trained for a pair.
        device: where to compute; None takes the best there is.
        progress: show bars.

    Raises:
        ValueError: unknown split or scale, a name that is not of the split, no subject or no style among the
            names, a count below 1, or a negative seed.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: choose one of {', '.join(SPLITS)}")
    scale = find_scale(scale)
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, but is {seed}")
    both = subjects.SPLIT[split], styles.SPLIT[split]
    if names is not None:
        if foreign := [name for name in names if name not in (*both[0], *both[1])]:
            raise ValueError(f"{foreign[0]!r} is not of the split {split}: {', '.join([*both[0], *both[1]])}")
        both = tuple(tuple(name for name in side if name in names) for side in both)
        if not all(both):
            raise ValueError("a pair needs a subject and a style: name at least one of each")
    return Setting(
        split,
        scale,
        *both,
        Path("runs") / "experiment" / scale.name / split if out is None else out,
        zoo.folder(scale) if loras is None else loras,
        hypernetwork_of(scale) if hypernetwork is None else hypernetwork,
        count,
        seed,
        device,
        progress,
    )


def hypernetwork_of(scale: str | Scale) -> Path:
    """Return where a scale's hypernetwork lies: the shoebox's, which ``smoke`` uses too, or its own."""
    name = find_scale(scale).name
    return data_folder() / "hypernetworks" / f"{'shoebox' if name == 'smoke' else name}.safetensors"


def cell_of(run: Setting, method: str, pair: Pair) -> Path:
    """Return the folder of a method and pair."""
    return run.out / method.replace(":", "-").replace("=", "-").replace(",", "-") / slug(pair)


def adapters(names: Iterable[str], loras: Path, scale: Scale) -> dict[str, LoRA]:
    """Read LoRAs of the zoo. Raises ValueError, with the command that trains it, if one is missing."""
    found = {}
    for name in names:
        path = zoo.file_of(name, loras)
        if not path.is_file():
            raise ValueError(
                f'no LoRA {path}: make it with `lorarar zoo train --names "{name}" --out {loras} '
                f"--scale {scale.name}`"
            )
        found[name] = load_lora(path)
    return found


def tasks(
    run: Setting, wanted: Iterable[Pair] | None = None, pipe: DiffusionPipeline | None = None
) -> Iterator[Task]:
    """Yield the task of each pair. Raises ValueError if a pair is not of the run, or its LoRA is missing."""
    wanted = run.pairs if wanted is None else list(wanted)
    if foreign := [pair for pair in wanted if pair not in run.pairs]:
        raise ValueError(f"{' and '.join(foreign[0])} are no pair of this run, on {run.split}")
    loras = adapters(dict.fromkeys(name for pair in wanted for name in pair), run.loras, run.scale)
    pipe = load_pipeline(run.scale, run.device) if pipe is None else pipe
    network = Hypernetwork.load(run.hypernetwork) if run.hypernetwork.is_file() else None
    for pair in wanted:
        yield Task(pipe, run.scale, pair, loras[pair[0]], loras[pair[1]], network, run.out / "made", run.seed)


def images(
    run: Setting,
    methods: Sequence[str] = tuple(METHODS),
    wanted: Iterable[Pair] | None = None,
    *,
    batch_size: int = 16,
    pipe: DiffusionPipeline | None = None,
) -> list[Path]:
    """Make the images of every method and pair, except where a cell with the same settings is there.

    Args:
        run: the setting.
        methods: names, or on validation variants of them (see `find_method`).
        wanted: pairs; None takes all of the run's.
        batch_size: images computed at once.
        pipe: the scale's pipeline, if it is loaded already.

    Returns:
        The cells, folders with ``images.png`` (the images side by side) and ``cell.json``.

    Raises:
        ValueError: unknown method, a pair that is not of the run, or a LoRA or the hypernetwork is missing.
    """
    known = {name: find_method(name, run.split) for name in methods}
    if any(method.hypernetwork for method in known.values()) and not run.hypernetwork.is_file():
        raise ValueError(
            f"no hypernetwork {run.hypernetwork}: make it with `lorarar train-hypernetwork "
            f"--scale {run.scale.name} -o {run.hypernetwork}`"
        )
    wanted = run.pairs if wanted is None else list(wanted)
    cells = []
    total = len(wanted) * len(known) * run.count
    with tqdm(total=total, unit="image", disable=not run.progress) as bar:
        for task in tasks(run, wanted, pipe):
            for name, method in known.items():
                bar.set_description(f"{', '.join(task.pair)}, {name}")
                cell = cell_of(run, name, task.pair)
                facts = {
                    "method": name,
                    "options": dict(method.options),
                    "subject": task.pair[0],
                    "style": task.pair[1],
                    "prompt": zoo.words(*task.pair),
                    "seeds": run.seeds,
                    "steps": run.scale.inference_steps,
                    "guidance": run.scale.guidance,
                    "recipe": _decides(task, name.partition(":")[0], method.options) if method.slow else None,
                    "base": base_sha256(task.pipe),
                    "content": _digest(task.content),
                    "style LoRA": _digest(task.style),
                    "hypernetwork": _hash(run.hypernetwork) if method.hypernetwork else None,
                }
                facts = json.loads(json.dumps(facts))  # as it is read back: lists for tuples
                if not _same(cell, facts):
                    before = make(task, name)[1] if method.slow and name in METHODS else 0.0
                    began = time.perf_counter()
                    applied = method.merge(task, **method.options)
                    facts["seconds"] = round(before + _since(began), 4)
                    with applying(task, applied):
                        made = generate(task.pipe, facts["prompt"], run.seeds, batch_size=batch_size)
                    _put(cell, facts, made)
                cells.append(cell)
                bar.update(run.count)
    return cells


def _same(cell: Path, facts: Mapping[str, Any]) -> bool:
    """Tell whether a cell is there and was made with just these settings."""
    try:
        written = json.loads((cell / "cell.json").read_text())
    except (OSError, ValueError):
        return False
    return (cell / "images.png").is_file() and all(written.get(k) == v for k, v in facts.items())


def _put(cell: Path, facts: Mapping[str, Any], made: np.ndarray) -> None:
    """Write a cell aside and put it in place at once; the verdicts on an old one go with it."""
    cell.parent.mkdir(parents=True, exist_ok=True)
    aside = cell.with_name(f".{cell.name}.{os.getpid()}")
    for left in cell.parent.glob(f".{cell.name}.*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        aside.mkdir()
        Image.fromarray(np.concatenate(list(made), axis=1)).save(aside / "images.png")
        (aside / "cell.json").write_text(json.dumps(facts, indent=1) + "\n")
        if cell.exists():
            shutil.rmtree(cell)
        aside.rename(cell)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def read_cell(cell: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Return a cell's facts and its images (n, h, w, 3) uint8. Raises ValueError if it is no cell."""
    try:
        facts = json.loads((cell / "cell.json").read_text())
        strip = np.asarray(Image.open(cell / "images.png").convert("RGB"))
        return facts, np.stack(np.split(strip, len(facts["seeds"]), axis=1))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{cell} is no cell of the experiment: remove it ({error})") from error


def _hash(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


# ---------------------------------------------------------------------------------------------------------
# Verdicts


@dataclass(frozen=True)
class Judge:
    """Who judges: its name, what its verdicts depend on, and the verdicts."""

    name: str
    digest: str
    shows: Shows


def find_judge(name: str, scale: str | Scale = "shoebox", device: str | None = None) -> Judge:
    """Return a judge: ``critic``, the shoebox's, or ``mars2``; ``mars2=SOURCE`` takes another model for it.

    MARS² asks the miniature in ``data/shoebox/judge`` at shoebox scale and LLaVA-Critic at the others; SOURCE
    is a folder, a hub's model id, or the address of an OpenAI-compatible endpoint. Its references are views
    that no LoRA was trained on, as the critic's are.

    Raises:
        ValueError: unknown judge, or its model is missing.
    """
    kind, _, source = name.partition("=")
    if kind == "critic" and not source:
        critic = zoo.load_critic()
        return Judge(name, _folder_hash(data_folder() / "shoebox" / "critic"), partial(zoo.shows, critic))
    if kind != "mars2":
        raise ValueError(f"no judge {name!r}: choose critic, mars2 or mars2=SOURCE")
    from lorarar import judge

    if not source:
        model = find_scale(scale).judge
        source = str(local(model))
        if model.startswith("data/") and not Path(source).is_dir():
            raise ValueError(f"no judge in {source}: train it with `lorarar shoebox judge`, or use critic")
    served = source.startswith(("http://", "https://"))
    ask = judge.find_judge(source) if served else judge.find_judge(source, device=device)

    def shows(name: str, images: np.ndarray) -> np.ndarray:
        words = styles.family(name) if zoo.axis(name) == "style" else ""
        return majority(votes(ask, zoo.axis(name), zoo.pictures(name, seed=1)[0], images, words))

    return Judge(name, _folder_hash(Path(source)) if Path(source).is_dir() else source, shows)


def _folder_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def judged(run: Setting, by: Judge, methods: Sequence[str] = tuple(METHODS)) -> dict[str, Verdicts]:
    """Let a judge see every cell of the methods, except those with its verdicts; return the verdicts.

    Returns:
        {method: Verdicts of bool (pairs, images)}, the pairs in the order of ``run.pairs``.

    Raises:
        ValueError: a cell is missing: make the images first.
    """
    found: dict[str, Verdicts] = {}
    cells = len(methods) * len(run.pairs)
    with tqdm(total=cells, desc=by.name, unit="cell", disable=not run.progress) as bar:
        for method in methods:
            for pair in run.pairs:
                file = _verdict_file(run, method, pair, by.name)
                kept = _read_verdict(file)
                if kept is None or kept["digest"] != by.digest:
                    facts, images = read_cell(file.parent)
                    content = {"judge": by.name, "digest": by.digest}
                    for axis in ("subject", "style"):
                        content[axis] = [int(yes) for yes in by.shows(facts[axis], images)]
                    aside = file.with_name(f".{file.name}.{os.getpid()}")
                    aside.write_text(json.dumps(content) + "\n")
                    aside.rename(file)
                bar.update()
            found |= verdicts(run, by.name, [method])
    return found


def verdicts(run: Setting, judge: str, methods: Sequence[str] = tuple(METHODS)) -> dict[str, Verdicts]:
    """Read the verdicts that `judged` has kept: {method: Verdicts of bool (pairs, images)}.

    Raises:
        ValueError: some are missing.
    """
    found = {}
    for method in methods:
        sides: dict[str, list[list[int]]] = {"subject": [], "style": []}
        for pair in run.pairs:
            file = _verdict_file(run, method, pair, judge)
            kept = _read_verdict(file)
            if kept is None or len(kept["subject"]) != run.count:
                raise ValueError(f"no verdicts {file}: make the images, then the verdicts")
            for axis, rows in sides.items():
                rows.append(kept[axis])
        subject, style = (np.array(rows, bool) for rows in sides.values())
        found[method] = Verdicts(subject, style, subject & style)
    return found


def _verdict_file(run: Setting, method: str, pair: Pair, judge: str) -> Path:
    name = "".join(letter if letter.isalnum() else "-" for letter in judge)
    return cell_of(run, method, pair) / f"verdicts-{name}.json"


def _read_verdict(file: Path) -> dict[str, Any] | None:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


# ---------------------------------------------------------------------------------------------------------
# Tables: pure functions of verdicts


def scoreboard(found: Mapping[str, Verdicts]) -> dict[str, dict[str, Entry]]:
    """Return each method's MARS² entries with 95 % intervals, which are of a bootstrap over the pairs.

    "average" and "best" (LoRA.rar, §4); and "subject" and "style", the average case of either axis alone.
    """
    return {
        method: {
            "average": entry(said.right, "average"),
            "best": entry(said.right, "best"),
            "subject": entry(said.subject, "average"),
            "style": entry(said.style, "average"),
        }
        for method, said in found.items()
    }


def agreement(one: Mapping[str, Verdicts], other: Mapping[str, Verdicts]) -> dict[str, float]:
    """Return how often two judges agree on the images of the methods both have judged, on either axis."""
    shared = [method for method in one if method in other]
    if not shared:
        raise ValueError("the judges have no method in common")
    return {
        axis: float(np.mean([getattr(one[m], axis) == getattr(other[m], axis) for m in shared]))
        for axis in ("subject", "style", "right")
    }


def maps(said: Verdicts, subjects: int) -> tuple[np.ndarray, np.ndarray]:
    """Return figure A7's two heat maps of a method, average and best case, each (subjects, styles)."""
    return heat_maps(said.right.reshape(subjects, -1, said.right.shape[1]))


@dataclass(frozen=True)
class Sample:
    """One image for the sheet of figure A3, and what the judge says of it."""

    method: str
    pair: int
    image: int
    subject: bool
    style: bool


KINDS = ((True, True), (True, True), (False, True), (True, False), (False, True))
"""The verdicts on (subject, style) in the rows of figure A3."""


def samples(
    found: Mapping[str, Verdicts], subjects: int, kinds: Sequence[tuple[bool, bool]] = KINDS
) -> list[Sample]:
    """Choose an image for each row of figure A3, whatever it looks like: the first that has the verdicts.

    Methods are tried in the mapping's order. Of a method's pairs those come first whose subject and style
    are not on the sheet yet, then those that are not. A row without such an image is left out.

    Args:
        found: verdicts of (pairs, images).
        subjects: how many there are; their styles are next to each other.
        kinds: the verdicts on (subject, style) that the rows show.
    """
    chosen: list[Sample] = []
    for subject, style in kinds:
        options = []
        for place, (method, said) in enumerate(found.items()):
            width = len(said.right) // subjects
            fits = (said.subject == subject) & (said.style == style)
            for pair, image in zip(*np.nonzero(fits), strict=True):
                rows, columns = (
                    zip(*(divmod(s.pair, width) for s in chosen), strict=True) if chosen else ((), ())
                )
                new = (pair // width not in rows) + (pair % width not in columns)
                seen = any(pair == s.pair for s in chosen)
                options.append((place, -new, seen, int(pair), int(image), method))
        for *_, pair, image, method in sorted(options):
            sample = Sample(method, pair, image, subject, style)
            if sample not in chosen:
                chosen.append(sample)
                break
    return chosen


GREEN, RED = (0, 158, 115), (213, 45, 45)


def framed(image: np.ndarray, right: bool) -> np.ndarray:
    """Put a frame around an image (h, w, 3) uint8, an eighth of it in all: green if right, else red."""
    height, width, _ = image.shape
    edge = max(height // 16, 1)
    around = np.empty((height + 2 * edge, width + 2 * edge, 3), np.uint8)
    around[:] = GREEN if right else RED
    around[edge:-edge, edge:-edge] = image
    return around


def sheet(run: Setting, rows: Sequence[Sample]) -> np.ndarray:
    """Return figure A3: (rows, 3, h, w, 3) uint8, the image, the subject's and the style's references.

    The image's frame is green if both verdicts are yes, a reference's if its own is.
    """
    made = []
    for row in rows:
        pair = run.pairs[row.pair]
        image = read_cell(cell_of(run, row.method, pair))[1][row.image]
        cells = [framed(image, row.subject and row.style)]
        for name, yes in zip(pair, (row.subject, row.style), strict=True):
            reference = Image.fromarray(zoo.pictures(name, seed=1)[0][0]).resize(image.shape[1::-1])
            cells.append(framed(np.asarray(reference), yes))
        made.append(np.stack(cells))
    return np.stack(made)


def overview(run: Setting, methods: Sequence[str], image: int = 0) -> np.ndarray:
    """Return the same seed's image of every pair and method: (pairs, methods, h, w, 3) uint8."""
    return np.stack(
        [
            np.stack([read_cell(cell_of(run, method, pair))[1][image] for method in methods])
            for pair in run.pairs
        ]
    )


# ---------------------------------------------------------------------------------------------------------
# Times


def times(
    run: Setting,
    methods: Sequence[str] | None = None,
    *,
    repeat: int = 5,
    slow_pairs: int = 1,
    pipe: DiffusionPipeline | None = None,
) -> dict[str, dict[str, float | int]]:
    """Measure how long each method takes from two LoRAs in memory to what it applies, all in one run.

    Methods that merge at once are measured ``repeat`` times on every pair, in turns, after one round that
    does not count; those that train for a pair once on each of the first ``slow_pairs``, from nothing.

    Returns:
        {method: {"median": seconds, "runs": how many}}.
    """
    names = [m for m in METHODS if not METHODS[m].reference] if methods is None else list(methods)
    known = {name: find_method(name, run.split) for name in names}
    spent: dict[str, list[float]] = {name: [] for name in known}
    todo = [replace(task, made=None) for task in tasks(run, None, pipe)]
    quick = {name: method for name, method in known.items() if not method.slow}
    with tqdm(
        total=(repeat + 1) * len(todo) * len(quick) + (len(known) - len(quick)) * min(slow_pairs, len(todo)),
        unit="merge",
        disable=not run.progress,
    ) as bar:
        for round_ in range(-1, repeat):
            for task, (name, method) in product(todo, quick.items()):
                began = time.perf_counter()
                method.merge(task, **method.options)
                if round_ >= 0:
                    spent[name].append(_since(began))
                bar.update()
        for name, method in known.items():
            for task in todo[:slow_pairs] if method.slow else ():
                bar.set_description(name)
                began = time.perf_counter()
                method.merge(task, **method.options)
                spent[name].append(_since(began))
                bar.update()
    return {name: {"median": statistics.median(all_), "runs": len(all_)} for name, all_ in spent.items()}


# ---------------------------------------------------------------------------------------------------------
# Standard metrics


def encoders(scale: str | Scale) -> tuple[str, str]:
    """Return where a scale's CLIP and DINO are: the miniatures in the data folder, or the public models."""
    scale = find_scale(scale)
    return str(local(scale.clip)), str(local(scale.dino))


def measured(
    run: Setting, clip: Encoder, dino: Encoder, methods: Sequence[str] = tuple(METHODS)
) -> dict[str, dict[str, np.ndarray]]:
    """Measure every image of the methods: {method: {"CLIP-I", "DINO", "CLIP-T": (pairs, images)}}.

    As in Table A2: CLIP-I compares with the style's references, DINO with the subject's, CLIP-T with the
    prompt, its rare token left out, which CLIP has never met. References are views that no LoRA was trained
    on.

    Raises:
        ValueError: a cell is missing: make the images first.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    seen = {name: zoo.pictures(name, seed=1)[0] for pair in run.pairs for name in pair}
    with tqdm(
        total=len(methods) * len(run.pairs), desc="metrics", unit="cell", disable=not run.progress
    ) as bar:
        for method in methods:
            rows: dict[str, list[np.ndarray]] = {"CLIP-I": [], "DINO": [], "CLIP-T": []}
            for subject, style in run.pairs:
                made = read_cell(cell_of(run, method, (subject, style)))[1]
                rows["CLIP-I"].append(image_similarity(clip, made, seen[style]))
                rows["DINO"].append(image_similarity(dino, made, seen[subject]))
                prompt = zoo.words(style=style, cls=zoo.class_of(subject))
                rows["CLIP-T"].append(text_similarity(clip, made, prompt))
                bar.update()
            found[method] = {name: np.stack(values) for name, values in rows.items()}
    return found


def table_a2(found: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, Entry]]:
    """Return each method's means of `measured` with 95 % intervals, of a bootstrap over the pairs."""
    return {
        method: {
            name: Entry(float(values.mean()), *bootstrap(values.mean(1))) for name, values in rows.items()
        }
        for method, rows in found.items()
    }


# ---------------------------------------------------------------------------------------------------------
# The judges judged


def examined(
    judges: Sequence[Judge],
    metrics: Mapping[str, Encoder],
    *,
    each: int = 6,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Let judges and metrics see drawings whose truth is known: the hard cases of every subject and style.

    The cases are those of `eyes.cases`, in its order. The judges use their own references, as in the
    experiment; a metric is the mean cosine with the case's.

    Args:
        judges: see `find_judge`.
        metrics: encoders by the name of their metric, such as CLIP-I and DINO.
        each: drawings of a case that show its subject or style, and as many that show a rival.
        seed: of the drawings.
        progress: show a bar.

    Returns:
        {"each", "seed", "verdicts": {judge: {name: "110…"}}, "reports": {judge: see `eyes.measure_named`},
        "chosen": see `better`, "scores": {metric: {name: [cosine, …]}}}; a letter or cosine for each image,
        the first `each` of which show what the case is about.

    Raises:
        ValueError: no judge, or each is below 1.
    """
    if not judges:
        raise ValueError("name at least one judge")
    if each < 1:
        raise ValueError(f"each must be at least 1, not {each}")
    drawn = eyes.cases(each, seed)
    said: dict[str, dict[str, np.ndarray]] = {by.name: {} for by in judges}
    scores: dict[str, dict[str, list[float]]] = {metric: {} for metric in metrics}
    for case in tqdm(drawn, "judges", unit="case", disable=not progress):
        for by in judges:
            said[by.name][case.name] = by.shows(case.name, case.images)
        for metric, encoder in metrics.items():
            cosines = image_similarity(encoder, case.images, case.references)
            scores[metric][case.name] = [round(float(value), 4) for value in cosines]
    reports = {
        name: eyes.measure_named(lambda case, answers=answers: answers[case.name], drawn)
        for name, answers in said.items()
    }
    return {
        "each": each,
        "seed": seed,
        "verdicts": {
            name: {case: "".join(str(int(yes)) for yes in row) for case, row in answers.items()}
            for name, answers in said.items()
        },
        "reports": reports,
        "chosen": better(reports),
        "scores": scores,
    }


def better(reports: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return the judge whose worse axis has the highest balanced accuracy; the first of equals."""
    return max(reports, key=lambda name: min(side["balanced accuracy"] for side in reports[name].values()))


# ---------------------------------------------------------------------------------------------------------
# Which hypernetwork?


def tuned(run: Setting, by: Judge, networks: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Make and judge LoRA.rar's images with each of several hypernetworks, to choose one of them.

    Args:
        run: the setting, on validation; each network's cells lie in ``run.out/tuning/<its name>``.
        by: who judges.
        networks: files of `lorarar train-hypernetwork`.

    Returns:
        {file's name: {"recipe": how it was trained, "sha256", the entries of `scoreboard`, and "ahead": by
        how much its average case is ahead of the first network's, pair by pair}}.

    Raises:
        ValueError: the split is test, on which nothing is chosen; or two files have one name, or one is no
            hypernetwork.
    """
    if run.split == "test":
        raise ValueError("a hypernetwork is chosen on validation, never on test")
    if len({path.stem for path in networks}) < len(networks):
        raise ValueError("give each hypernetwork's file a name of its own")
    recipes = {path: Hypernetwork.load(path).metadata.get("lorarar_training", "{}") for path in networks}
    pipe = load_pipeline(run.scale, run.device)
    found, first = {}, None
    for path, recipe in recipes.items():
        own = replace(run, hypernetwork=path, out=run.out / "tuning" / path.stem)
        images(own, ["lorarar"], pipe=pipe)
        said = judged(own, by, ["lorarar"])
        first = first or said["lorarar"]
        found[path.stem] = {
            "recipe": json.loads(recipe),
            "sha256": _hash(path),
            **scoreboard(said)["lorarar"],
            "ahead": difference(said["lorarar"].right, first.right),
        }
    return found


# ---------------------------------------------------------------------------------------------------------
# What is kept in data/recorded


def record(
    run: Setting, judges: Sequence[str], methods: Sequence[str] = tuple(METHODS), name: str | None = None
) -> Path:
    """Write a run's verdicts, tables and sample sheet to ``data/recorded/<name>.json`` and ``.png``.

    The verdicts are written as a string of 0 and 1 for each pair, so that a chapter can make every table anew
    (`from_record`). The first judge chooses the samples.

    Args:
        run: the setting; all of its images must have been judged.
        judges: the names under which `judged` has kept verdicts.
        methods: those to record.
        name: of the record; None takes ``experiment_SPLIT``, with the scale's name unless it is shoebox.

    Raises:
        ValueError: images or verdicts are missing.
    """
    from lorarar.book import inside, save_recorded

    if name is None:
        name = _at(run.scale, f"experiment_{run.split}")
    found = {judge: verdicts(run, judge, methods) for judge in judges}
    seconds = {
        method: [read_cell(cell_of(run, method, pair))[0]["seconds"] for pair in run.pairs]
        for method in methods
    }
    first = found[judges[0]]
    ours = {m: first[m] for m in ("lorarar", "ziplora") if m in first} or first
    rows = samples(ours, len(run.subjects))
    values = {
        "split": run.split,
        "subjects": list(run.subjects),
        "styles": list(run.styles),
        "seeds": run.seeds,
        "methods": list(methods),
        "verdicts": {
            judge: {
                method: {axis: _written(getattr(said, axis)) for axis in ("subject", "style")}
                for method, said in by_method.items()
            }
            for judge, by_method in found.items()
        },
        "tables": {judge: scoreboard(by_method) for judge, by_method in found.items()},
        "agreement": {
            f"{one}, {other}": agreement(found[one], found[other])
            for i, one in enumerate(judges)
            for other in judges[i + 1 :]
        },
        "seconds while the images were made": {m: statistics.median(s) for m, s in seconds.items()},
        "samples": [vars(row) for row in rows],
    }
    decided = [zoo.file_of(name, run.loras) for name in (*run.subjects, *run.styles)]
    decided += [run.hypernetwork] if run.hypernetwork.is_file() else []
    decided += sorted((data_folder() / "shoebox").glob("*/**/*.safetensors"))
    path = save_recorded(
        name,
        values,
        command=f"{_command('record', run)} --judges {' '.join(judges)}",
        seed=run.seed,
        scale=run.scale.name,
        inputs=inside(decided),
    )
    if rows:
        shown = sheet(run, rows)  # (rows, 3, h, w, 3)
        pixels = shown.swapaxes(1, 2).reshape(shown.shape[0] * shown.shape[2], -1, 3)
        _save_png(path.with_name(f"{name}_samples.png"), pixels)
    shown = overview(run, methods)
    pixels = shown.swapaxes(1, 2).reshape(shown.shape[0] * shown.shape[2], -1, 3)
    _save_png(path.with_suffix(".png"), pixels)
    return path


def _at(scale: Scale, name: str) -> str:
    """Return what a record is called at a scale: the shoebox's have plain names."""
    return name if scale.name == "shoebox" else f"{name}_{scale.name}"


def _command(step: str, run: Setting) -> str:
    return f"python -m lorarar.experiment {step} --split {run.split} --scale {run.scale.name}"


def _save_png(path: Path, pixels: np.ndarray) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    Image.fromarray(pixels).save(aside, format="PNG", optimize=True)
    os.replace(aside, path)


def _written(verdicts: np.ndarray) -> list[str]:
    return ["".join(str(int(yes)) for yes in row) for row in verdicts]


def from_record(values: Mapping[str, Any], judge: str) -> dict[str, Verdicts]:
    """Return the verdicts of a record (`record`, `lorarar.book.recorded`): {method: Verdicts}.

    Raises ValueError if that judge's are not in it.
    """
    if judge not in values["verdicts"]:
        raise ValueError(f"no verdicts of {judge}: there are {', '.join(values['verdicts'])}")
    found = {}
    for method, sides in values["verdicts"][judge].items():
        subject, style = (
            np.array([[letter == "1" for letter in row] for row in sides[axis]])
            for axis in ("subject", "style")
        )
        found[method] = Verdicts(subject, style, subject & style)
    return found


# ---------------------------------------------------------------------------------------------------------
# python -m lorarar.experiment


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lorarar.experiment",
        description="Every method on every pair of test subjects and styles, judged alike.",
        epilog="example:\n  python -m lorarar.experiment images --split validation --methods direct k-lora",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(dest="step", metavar="STEP", required=True)
    for name, text in (
        ("make", "work out what takes minutes for a pair: ZipLoRA's coefficients, joint training's LoRA"),
        ("images", "make the images of methods, for all pairs that lack them"),
        ("verdicts", "let a judge see the images"),
        ("metrics", "measure CLIP-I, DINO and CLIP-T of the images, and record Table A2"),
        ("times", "measure how long each method takes to merge, and record it"),
        ("record", "write verdicts, tables and sheets into data/recorded"),
        ("judges", "let judges and metrics see drawings whose truth is known, and record that"),
        ("tune", "let a judge see LoRA.rar's images by several hypernetworks, and record that"),
    ):
        step = steps.add_parser(name, help=text, description=text)
        step.add_argument("--scale", metavar="NAME", default="shoebox", help="default: %(default)s")
        step.add_argument("--seed", type=int, default=0, help="default: %(default)s")
        step.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:N or mps (default: the best)")
        step.add_argument("--quiet", action="store_true", help="no progress bar, no report")
        if name in ("record", "judges"):
            step.add_argument("--judges", nargs="+", default=["critic", "mars2"], help="default: both")
        if name in ("metrics", "times", "record", "judges", "tune"):
            step.add_argument("--record", metavar="NAME", help="default: by step, split and scale")
        if name == "judges":
            step.add_argument("--each", type=int, default=6, metavar="N", help="default: %(default)s")
            continue
        step.add_argument("--loras", type=Path, metavar="DIR", help="the zoo; default: the scale's")
        if name == "tune":
            step.add_argument("--hypernetworks", type=Path, metavar="FILE", nargs="+", required=True)
            step.set_defaults(hypernetwork=None, methods=["lorarar"])
        else:
            step.add_argument("--hypernetwork", type=Path, metavar="FILE", help="default: the scale's")
        step.add_argument("--names", nargs="+", metavar="NAME", help="of the split; default: all")
        step.add_argument("--split", choices=SPLITS, default="validation", help="default: %(default)s")
        step.add_argument(
            "--count", type=int, default=COUNT, help="images of each cell; default: %(default)s"
        )
        step.add_argument("--out", type=Path, metavar="DIR", help="default: runs/experiment/SCALE/SPLIT")
        if name == "make":
            step.add_argument("--methods", nargs="+", metavar="NAME", default=["ziplora", "joint"])
        elif name != "tune":
            step.add_argument("--methods", nargs="+", metavar="NAME", help="default: all")
        if name == "images":
            step.add_argument("--batch-size", type=int, default=16, metavar="N", help="images at once")
        if name in ("verdicts", "tune"):
            step.add_argument("--judge", default="mars2", help="mars2, mars2=PATH_OR_URL or critic")
        if name == "times":
            step.add_argument("--repeat", type=int, default=5, help="default: %(default)s")
            step.add_argument("--slow-pairs", type=int, default=1, metavar="N", help="default: %(default)s")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step and return the exit status: 0, 2 for bad input, said in one line, 130 if interrupted."""
    options = _parser().parse_args(arguments)
    try:
        previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            _run(options)
        finally:
            signal.signal(signal.SIGTERM, previous)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, MemoryError) as error:
        print(f"lorarar.experiment: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace) -> None:
    def say(text: object) -> None:
        if not options.quiet:
            print(text)

    if options.step == "judges":
        say(_record_judges(options))
        return
    common = {"device": options.device, "progress": not options.quiet, "seed": options.seed}
    run = setting(
        options.split,
        options.scale,
        names=options.names,
        out=options.out,
        loras=options.loras,
        hypernetwork=options.hypernetwork,
        count=options.count,
        **common,
    )
    methods = options.methods or list(METHODS)
    for name in methods:
        find_method(name, run.split)
    if options.step == "make":
        for task in tasks(run):
            for method in methods:
                path, seconds = make(replace(task, progress=not options.quiet), method)
                say(f"{path}: made in {seconds:.1f} s")
    elif options.step == "images":
        cells = images(run, methods, batch_size=options.batch_size)
        say(f"{run.out}: {len(cells)} cells of {run.count} images")
    elif options.step == "verdicts":
        found = judged(run, find_judge(options.judge, run.scale, options.device), methods)
        for method, row in scoreboard(found).items():
            say(f"{method:16} average {row['average'].value:.3f}  best {row['best'].value:.3f}")
    elif options.step == "tune":
        from lorarar.book import save_recorded

        by = find_judge(options.judge, run.scale, options.device)
        found = tuned(run, by, options.hypernetworks)
        path = save_recorded(
            options.record or _at(run.scale, "hypernetworks"),
            {"judge": by.name, "of": found},
            command=f"{_command('tune', run)} --judge {by.name} "
            f"--hypernetworks {' '.join(path.name for path in options.hypernetworks)}",
            seed=run.seed,
            scale=run.scale.name,
        )
        say(path)
    elif options.step in ("times", "metrics"):
        from lorarar.book import save_recorded

        if options.step == "metrics":
            name = _at(run.scale, f"metrics_{run.split}")
            clip, dino = (load_encoder(source, options.device) for source in encoders(run.scale))
            found = table_a2(measured(run, clip, dino, methods))
        else:
            if options.repeat < 1 or options.slow_pairs < 0:
                raise ValueError("--repeat must be at least 1, --slow-pairs not negative")
            name = _at(run.scale, "merge_times")
            found = times(run, options.methods, repeat=options.repeat, slow_pairs=options.slow_pairs)
        path = save_recorded(
            options.record or name,
            found,
            command=_command(options.step, run),
            seed=run.seed,
            scale=run.scale.name,
        )
        say(path)
    else:
        say(record(run, options.judges, methods, options.record))


def _record_judges(options: argparse.Namespace) -> Path:
    from lorarar.book import inside, save_recorded

    scale = find_scale(options.scale)
    by = [find_judge(name, scale, options.device) for name in options.judges]
    metrics = {
        name: load_encoder(source, options.device)
        for name, source in zip(("CLIP-I", "DINO"), encoders(scale), strict=True)
    }
    found = examined(by, metrics, each=options.each, seed=options.seed, progress=not options.quiet)
    return save_recorded(
        options.record or _at(scale, "judges"),
        found,
        command=f"python -m lorarar.experiment judges --scale {scale.name} --judges "
        f"{' '.join(options.judges)} --each {options.each}",
        seed=options.seed,
        scale=scale.name,
        inputs=inside(
            file
            for name in ("judge", "critic", "clip", "dino")
            for file in sorted((data_folder() / "shoebox" / name).glob("*.safetensors"))
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
