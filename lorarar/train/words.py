"""What the words of prompts are to the layers that read the text: the features Custom Diffusion merges by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lorarar.train.pictures import encode_prompts

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

AT_ONCE = 64
Said = tuple[int, ...]
"""A word as a text encoder knows it that reads from left to right: its token and all before it."""


def own_words(pipe: DiffusionPipeline, first: Sequence[str], second: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the features of the words that only either side's prompts have, (s_1, width) and (s_2, width).

    The end of a prompt counts as a word, its start does not, nor what fills it up. A word that prompts of
    both sides have, after the same words, is left out: it cannot have two answers.

    Raises:
        ValueError: a side is left without a word.
    """
    known = [features(pipe, prompts) for prompts in (first, second)]
    shared = set(known[0]) & set(known[1])
    kept = [[x for said, x in side.items() if said not in shared] for side in known]
    if not all(kept):
        raise ValueError(
            f"{first[0]!r} and {second[0]!r} have no words of their own; give two prompts that differ"
        )
    one, other = (torch.stack(side) for side in kept)
    return one, other


def features(pipe: DiffusionPipeline, prompts: Sequence[str]) -> dict[Said, Tensor]:
    """Return the text encoder's features of prompts' words, each after the same words once: (width,)."""
    found = {}
    for start in range(0, len(prompts), AT_ONCE):
        some = list(prompts[start : start + AT_ONCE])
        for ids, row in zip(
            pipe.tokenizer(some, truncation=True).input_ids, encode_prompts(pipe, some)[0], strict=True
        ):
            found |= {tuple(ids[: place + 1]): row[place] for place in range(1, len(ids))}
    return found
