"""RegMean in the experiment: the inputs of each LoRA are measured once and serve all its pairs."""

from __future__ import annotations

from typing import Any

from lorarar.lora import LoRA
from lorarar.merging import Inputs, merge
from lorarar.pipelines import base_sha256
from lorarar.shoebox.world import subjects
from lorarar.study.training import Task, lora_digest, with_pictures
from lorarar.train import own_inputs, pictured_inputs

_known: dict[tuple[str, ...], Inputs] = {}
SOURCES = ("own", "pictures")


def by_regression(task: Task, *, inputs: str = "own", draws: int = 0, only: str = "", **options: Any) -> LoRA:
    """Merge a task's pair by `lorarar.merging.regmean`.

    Args:
        task: the pair.
        inputs: ``own``, what the layers are given while either LoRA draws, or ``pictures``, on noised
            pictures of its training set.
        draws: how many pictures are drawn, or noised; 0 takes `InputsOptions`' number, or 48.
        only: of layers whose names hold this; the others are averaged.
        **options: of the merge.

    Raises:
        ValueError: no such inputs.
    """
    if inputs not in SOURCES:
        raise ValueError(f"inputs {inputs!r}: choose one of {', '.join(SOURCES)}")
    sides = zip(task.pair, (task.content, task.style), strict=True)
    first, second = (
        {k: moment for k, moment in _inputs(task, name, lora, inputs, draws).items() if only in k}
        for name, lora in sides
    )
    return merge(task.content, task.style, "regmean", inputs=(first, second), **options)


def prompts(task: Task, name: str) -> list[str]:
    """Return what a LoRA is asked to draw: a subject by its own words, a style on classes in turn."""
    if task.world.axis(name) == "subject":
        return [task.world.words(name)]
    return [task.world.words(None, name, cls=cls) for cls in subjects.CLASSES]


def _inputs(task: Task, name: str, lora: LoRA, source: str, draws: int) -> Inputs:
    key = (source, str(draws), str(task.seed), lora_digest(lora), base_sha256(task.pipe))
    if key not in _known:
        if source == "own":
            asked = {"seed": 900 + task.seed} | ({"pictures": draws} if draws else {})
            _known[key] = own_inputs(task.pipe, lora, prompts(task, name), **asked)
        else:
            taught = with_pictures(name, lora, task.world)
            _known[key] = pictured_inputs(task.pipe, taught, draws or 48, task.seed)
    return _known[key]
