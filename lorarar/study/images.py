"""The images of each cell: made once, kept with what decided them, resumed after a stop."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from lorarar.pipelines import base_sha256, generate
from lorarar.stamp import sha256
from lorarar.study.cells import Setting, cell_of, tasks
from lorarar.study.methods import METHODS, Method, applying, find_method, make
from lorarar.study.training import Pair, decisive, lora_digest, seconds_since

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def images(
    run: Setting,
    methods: Sequence[str] | Mapping[str, Method] = tuple(METHODS),
    wanted: Iterable[Pair] | None = None,
    *,
    batch_size: int | None = None,
    pipe: DiffusionPipeline | None = None,
) -> list[Path]:
    """Make the images of every method and pair, except where a cell with the same settings is there.

    Args:
        run: the setting.
        methods: names, or on validation variants of them (see `find_method`); or methods by names of their
            own, as a plan has them.
        wanted: pairs; None takes all of the run's.
        batch_size: images computed at once; None takes `lorarar.pipelines.at_once`.
        pipe: the scale's pipeline, if it is loaded already.

    Returns:
        The cells, folders with ``images.png`` (the images side by side) and ``cell.json``.

    Raises:
        ValueError: unknown method, a pair that is not of the run, or a LoRA or the hypernetwork is missing.
    """
    own = isinstance(methods, Mapping)
    known = dict(methods) if own else {name: find_method(name, run.split) for name in methods}
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
                    "prompt": run.world.words(*task.pair),
                    "seeds": run.seeds,
                    "steps": run.scale.inference_steps,
                    "guidance": run.scale.guidance,
                    "recipe": decisive(task, name.partition(":")[0], method.options) if method.slow else None,
                    "base": base_sha256(task.pipe),
                    "content": lora_digest(task.content),
                    "style LoRA": lora_digest(task.style),
                    "hypernetwork": sha256(run.hypernetwork) or None if method.hypernetwork else None,
                }
                facts = json.loads(json.dumps(facts))  # as it is read back: lists for tuples
                if not _same(cell, facts):
                    before = make(task, name)[1] if method.slow and name in METHODS else 0.0
                    began = time.perf_counter()
                    applied = method.merge(task, **method.options)
                    facts["seconds"] = round(before + seconds_since(began), 4)
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
