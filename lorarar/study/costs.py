"""What the whole path costs: two LoRAs, the merge, ten images and their verdicts, in seconds and in FLOPs.

FLOPs are counted by torch while the real code runs: multiplications and additions of matrix products,
convolutions and attention, forward and backward. What goes element by element (most of TIES and DARE) is not
counted. Of a training a few steps run, and the rest is that many times one step.

Seconds of trainings and merges are those on record, by two cores. Images and verdicts are timed here, as
seconds of one core, which other work on the machine does not change.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from lorarar.options import HypernetworkOptions, LoraRecipe, ZipLoraOptions
from lorarar.pipelines import generate, loaded
from lorarar.records import recorded
from lorarar.scales import data_folder
from lorarar.shoebox import zoo
from lorarar.shoebox.world import styles, subjects
from lorarar.study.cells import Setting, adapters, tasks
from lorarar.study.methods import METHODS
from lorarar.study.training import Task, joint_recipe, with_pictures
from lorarar.study.verdicts import Judge
from lorarar.train import optimise, train_hypernetwork, train_lora

OWN_TRAINING = ("joint", "ziplora")
"""The methods that train for each pair."""


def counted(run: Callable[[], object]) -> int:
    """Return the FLOPs of matrix products, convolutions and attention while something runs."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def of_steps(run: Callable[[int], object], steps: int) -> int:
    """Return the FLOPs of a training of so many steps: those of one step, and as many more as it has.

    Args:
        run: trains for a number of steps, each of which costs the same.
        steps: of the whole training.
    """
    one, three = counted(lambda: run(1)), counted(lambda: run(3))
    return one + (three - one) * (steps - 1) // 2


def break_even(once: float, each: float, rival_each: float, rival_once: float = 0.0) -> int | None:
    """Return from how many pairs on a method costs no more than its rival; None if it never does.

    Args:
        once: what the method costs before its first pair, in any unit.
        each: what it costs for a pair.
        rival_each: what the rival costs for a pair.
        rival_once: what the rival costs before its first pair.
    """
    if once <= rival_once and each <= rival_each:
        return 0
    if each >= rival_each:
        return None
    return max(math.ceil((once - rival_once) / (rival_each - each)), 0)


def measured(run: Setting, by: Judge) -> dict[str, Any]:
    """Work out what each part of the path costs at a scale, on the first pair of the setting.

    Args:
        run: the setting; its scale's zoo must hold the training LoRAs, and its merge times be on record.
        by: who judges.

    Returns:
        "flops" and "seconds", each {"content LoRA", "style LoRA", "hypernetwork", "images", "verdicts":
        number, "merge": {method: number}}; "images", how many are made and judged; "training LoRAs", how many
        subjects' and styles' the hypernetwork learns from; "judge".

    Raises:
        ValueError: a LoRA, the hypernetwork or a record is missing.
    """
    pair = run.pairs[0]
    (task,) = tasks(run, [pair])
    with tqdm(total=6, unit="part", disable=not run.progress) as bar:
        flops: dict[str, Any] = {}
        for side, name, recipe in (
            ("content LoRA", pair[0], run.scale.content),
            ("style LoRA", pair[1], run.scale.style),
        ):
            flops[side] = _lora(task, [name], recipe)
            bar.update()
        flops["merge"] = {
            name: counted(lambda merge=method.merge, more=method.options: merge(task, **more))
            for name, method in METHODS.items()
            if not method.reference and name not in OWN_TRAINING
        }
        flops["merge"] |= {"joint": _lora(task, pair, joint_recipe(run.scale)), "ziplora": _ziplora(task)}
        bar.update()
        flops["hypernetwork"] = _hypernetwork(task, run)
        bar.update()
        prompt = zoo.words(*pair)
        made: list[Any] = []

        def draw() -> None:
            made[:] = [generate(task.pipe, prompt, run.seeds)]

        with loaded(task.pipe, task.content):
            flops["images"], drawing = counted(draw), _seconds(draw)
        bar.update()

        def look() -> None:
            for name in pair:
                by.shows(name, made[0])

        flops["verdicts"], looking = counted(look), _seconds(look)
        bar.update()
    return {
        "flops": flops,
        "seconds": {**_recorded_seconds(), "images": drawing, "verdicts": looking},
        "images": run.count,
        "training LoRAs": [len(subjects.SPLIT["train"]), len(styles.SPLIT["train"])],
        "judge": by.name,
    }


def totals(part: Mapping[str, Any], method: str, contents: int, of_style: int) -> float:
    """Return what a method's whole path costs for every pair of some subjects and styles.

    Joint training needs no LoRAs. What LoRA.rar's hypernetwork costs once is left out (`break_even`).

    Args:
        part: "flops" or "seconds" of `measured`.
        method: its name.
        contents: how many subjects.
        of_style: how many styles.
    """
    loras = 0 if method == "joint" else contents * part["content LoRA"] + of_style * part["style LoRA"]
    return loras + contents * of_style * (part["merge"][method] + part["images"] + part["verdicts"])


def once(part: Mapping[str, Any], training: tuple[int, int]) -> tuple[float, float]:
    """Return what LoRA.rar costs before its first pair: the hypernetwork, and the LoRAs it learns from."""
    return part["hypernetwork"], training[0] * part["content LoRA"] + training[1] * part["style LoRA"]


def _lora(task: Task, names: tuple[str, ...] | list[str], recipe: LoraRecipe) -> int:
    concepts = [zoo.pictures(name) for name in names]

    def run(steps: int) -> None:
        options = {**vars(recipe), "steps": steps, "warmup": 0}
        train_lora(task.pipe, concepts=concepts, **options, progress=False)

    return of_steps(run, recipe.steps)


def _ziplora(task: Task) -> int:
    """Count the steps on samples that are predicted once, and add the other samples' predictions.

    Only samples that a step takes are predicted: how many that are is the expectation over random steps.
    """
    recipe = task.scale.ziplora
    sides = [with_pictures(task.pair[0], task.content), with_pictures(task.pair[1], task.style)]

    def run(steps: int) -> None:
        optimise(
            task.pipe, *sides, **{**vars(recipe), "steps": steps}, draws=recipe.batch_size, progress=False
        )

    draws = min(ZipLoraOptions().draws, recipe.steps * recipe.batch_size)
    met = draws * (1 - (1 - recipe.batch_size / draws) ** recipe.steps)
    return of_steps(run, recipe.steps) + round(2 * (met - recipe.batch_size) * _prediction(task))


def _hypernetwork(task: Task, run: Setting) -> int:
    """Count the steps on one pair of the training split, and add every training LoRA's predictions.

    Every sample of every LoRA is met in so many steps.
    """
    recipe, names = run.scale.hypernetwork, (subjects.SPLIT["train"], styles.SPLIT["train"])
    first = [side[0] for side in names]
    loras = adapters(first, run.loras, run.scale)
    sides = [[with_pictures(name, loras[name])] for name in first]

    def train(steps: int) -> None:
        train_hypernetwork(
            task.pipe,
            *sides,
            **{**vars(recipe), "steps": steps},
            pairs=[(0, 0)],
            draws=recipe.batch_size,
            progress=False,
        )

    taught = HypernetworkOptions().draws * sum(map(len, names)) - 2 * recipe.batch_size
    return of_steps(train, recipe.steps) + taught * _prediction(task)


def _prediction(task: Task) -> int:
    """Return the FLOPs of one prediction of the UNet with a LoRA."""
    images, captions = zoo.pictures(task.pair[0])
    batch = zoo.probe(task.pipe, images, captions, count=1)
    with loaded(task.pipe, task.content):
        return counted(lambda: zoo.answer(task.pipe, batch))


def _seconds(run: Callable[[], object], times: int = 3) -> float:
    """Return the median seconds of one core."""
    spent = []
    for _ in range(times):
        began = time.process_time()
        run()
        spent.append(time.process_time() - began)
    return statistics.median(spent)


def _recorded_seconds() -> dict[str, Any]:
    """Return the seconds on record: of the zoo's and the hypernetwork's training, and of the merges."""
    made = json.loads((data_folder() / "manifest.json").read_text())["artefacts"]
    loras = {
        kind: [about["seconds"] for file, about in made.items() if file.startswith(f"loras/{kind}/")]
        for kind in ("subjects", "styles")
    }
    merges = recorded("merge_times")
    return {
        "content LoRA": statistics.median(loras["subjects"]),
        "style LoRA": statistics.median(loras["styles"]),
        "hypernetwork": made["hypernetworks/shoebox.safetensors"]["seconds"],
        "merge": {name: about["median"] for name, about in merges.items()},
    }
