"""Merges at equal volume: a method is compared at several strengths, so that strength alone cannot win.

With equal weights every method of `lorarar.merging` is homogeneous: twice the weights give twice the update.
So the volume of a merge is a factor on its update, and one merge serves all volumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lorarar import merge
from lorarar.lora import LoRA, delta_weight
from lorarar.study.methods import METHODS
from lorarar.study.ruler import Error

Errors = Mapping[tuple[str, float], Sequence[Error]]
"""(method, volume) → ρ of every pair."""


def louder(lora: LoRA, volume: float) -> LoRA:
    """Return a LoRA whose update is multiplied by ``volume``."""
    return LoRA({layer: (volume * up, down) for layer, (up, down) in lora.items()})


def as_used(method: str, content: LoRA, style: LoRA) -> LoRA:
    """Merge two LoRAs by a method of `METHODS` that needs no training, with the options of the experiment."""
    return merge(content, style, method.removesuffix("-delta"), **METHODS[method].options)


def exact(content: LoRA, style: LoRA, method: str, layer: str, seed: int = 0) -> Tensor:
    """Return what a pruning method computes for a layer's ΔW, (out, in), not cut to a rank."""
    one = [LoRA({layer: lora[layer]}) for lora in (content, style)]
    rank = min(delta_weight(content[layer]).shape)
    delta = delta_weight(merge(*one, method, density=0.5, seed=seed, rank=rank)[layer])
    return torch.where(delta.abs() < 1e-5 * delta.abs().max(), 0.0, delta)  # factors round what was zero


def moved(method: str, lora: LoRA, same: LoRA, other: LoRA) -> float:
    """Return how far a merge moves, relative to its norm, when a LoRA is written with other factors."""
    before, after = (
        {k: delta_weight(pair) for k, pair in as_used(method, one, other).items()} for one in (lora, same)
    )
    return norm_of({k: after[k] - before[k] for k in before}) / norm_of(before)


def norm_of(updates: Mapping[str, Tensor]) -> float:
    """Return the Frobenius norm of several matrices together."""
    return float(torch.stack([m.float().square().sum() for m in updates.values()]).sum().sqrt())


def means(errors: Errors) -> dict[tuple[str, float], float]:
    """Return the mean ρ over pairs, by method and volume."""
    return {key: float(np.mean([error.both for error in pairs])) for key, pairs in errors.items()}


def best(errors: Errors) -> dict[str, tuple[float, float]]:
    """Return the volume with the lowest mean ρ, and that ρ, of every method."""
    rho = means(errors)
    return {
        method: min((value, v) for (m, v), value in rho.items() if m == method)[::-1] for method, _ in rho
    }
