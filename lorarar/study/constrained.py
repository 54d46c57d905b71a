"""Custom Diffusion in the experiment: its two prompts, and the captions on which the base's answers stay."""

from __future__ import annotations

from itertools import product

import torch

from lorarar.collection import Collection
from lorarar.lora import LoRA
from lorarar.merging import custom_diffusion
from lorarar.options import SPLITS
from lorarar.study.training import Task
from lorarar.train import own_words, word_features


def by_constraint(task: Task) -> LoRA:
    """Merge the keys and values of a task's pair by `lorarar.merging.custom_diffusion`.

    The subject's prompt is its own ("a sks dog"), the style's that of the subject's class in the style ("a
    dog in oil painting style").
    """
    subject, style = task.pair
    named = task.world.words(subject)
    drawn = task.world.words(style=style, cls=task.world.class_of(subject))
    kept = word_features(task.pipe, captions(task.world, style))
    return custom_diffusion(
        task.content,
        task.style,
        own_words(task.pipe, [named], [drawn]),
        torch.stack(list(kept.values())),
    )


def captions(world: Collection, style: str) -> list[str]:
    """Return captions about other things: every class of a world in every family but the style's own."""
    names = [world.split(split) for split in SPLITS]
    classes = dict.fromkeys(world.class_of(name) for subjects, _ in names for name in subjects)
    others = {world.family(name): name for _, styles in names for name in styles}
    others.pop(world.family(style), None)
    return [world.words(style=other, cls=cls) for cls, other in product(classes, others.values())]
