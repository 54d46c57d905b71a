"""Merging: pure functions LoRA × LoRA → LoRA, and the compression of a LoRA to a lower rank."""

from lorarar.merging.alike import alike
from lorarar.merging.columns import FLAVOURS, RESTS, direct, lorarar, summary, ziplora
from lorarar.merging.methods import METHODS, merge
from lorarar.merging.nullspace import np_lora
from lorarar.merging.pairs import Gates, Progress, batches, matching, parallel, stacked
from lorarar.merging.prune import dare, dare_ties, ties
from lorarar.merging.rank import compress, singular_values

__all__ = [
    "FLAVOURS",
    "METHODS",
    "RESTS",
    "Gates",
    "Progress",
    "alike",
    "batches",
    "compress",
    "dare",
    "dare_ties",
    "direct",
    "lorarar",
    "matching",
    "merge",
    "np_lora",
    "parallel",
    "singular_values",
    "stacked",
    "summary",
    "ties",
    "ziplora",
]
