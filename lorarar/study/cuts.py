"""How much of a LoRA is needed: cut its update down, and measure what is left of what it does.

Entries are cut as in ZipLoRA's supplement, §3, rank as in `lorarar.merging.compress`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lorarar.lora import LoRA, delta_weight
from lorarar.pipelines import loaded
from lorarar.shoebox import zoo

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Keep = Callable[[Tensor, float], Tensor]


def keep_largest(delta: Tensor, share: float) -> Tensor:
    """Keep this share of a matrix's entries, those of largest magnitude, at least one; zero the others."""
    count = max(round(share * delta.numel()), 1)
    least = delta.abs().flatten().kthvalue(delta.numel() - count + 1).values
    return delta * (delta.abs() >= least)


def keep_any(delta: Tensor, share: float) -> Tensor:
    """Keep each entry with this probability, whatever its size: the control of `keep_largest`."""
    return delta * (torch.rand(delta.shape, generator=torch.Generator().manual_seed(0)) < share)


def sparse(lora: LoRA, share: float, keep: Keep = keep_largest) -> LoRA:
    """Return a LoRA with a share of ΔW's entries. It has no thin factors: up is ΔW, down the identity."""
    return LoRA(
        {
            layer: (keep(delta_weight(pair), share), torch.eye(pair[1].shape[1]))
            for layer, pair in lora.items()
        }
    )


def scaled(lora: LoRA, strength: float) -> LoRA:
    """Return the LoRA with every update multiplied by a number."""
    return LoRA({layer: (strength * up.float(), down.float()) for layer, (up, down) in lora.items()})


def energy(deltas: Iterable[Tensor], share: float) -> float:
    """Return the share of ‖ΔW‖² that the largest entries hold, averaged over matrices."""
    kept = [float(keep_largest(d, share).square().sum() / d.square().sum()) for d in deltas]
    return sum(kept) / len(kept)


class Gain(NamedTuple):
    """By how much the loss falls, as a share of the base model's."""

    own: float
    """On the pictures that the LoRA was trained on."""
    new: float
    """On other pictures of the same subject, or in the same style."""


def gains(
    pipe: DiffusionPipeline, name: str, loras: Mapping[str, LoRA], *, samples: int = 24, seed: int = 0
) -> dict[str, Gain]:
    """Return how much each LoRA lowers the loss on pictures of a subject or style.

    Args:
        pipe: the base, without a LoRA.
        name: of the subject or style.
        loras: by label.
        samples: noised pictures of either kind.
        seed: of noise and timesteps.
    """
    probes = [
        zoo.probe(pipe, *zoo.pictures(name), samples, seed),
        zoo.probe(pipe, *zoo.pictures(name, 8, seed=2), samples, seed),
    ]
    base = [zoo.loss(pipe, probe) for probe in probes]
    found = {}
    for label, lora in loras.items():
        with loaded(pipe, lora):
            found[label] = Gain(*(1 - zoo.loss(pipe, p) / b for p, b in zip(probes, base, strict=True)))
    return found
