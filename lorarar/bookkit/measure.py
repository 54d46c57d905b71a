"""ρ, the book's measure of a merge: how far it is from each LoRA on that LoRA's own pictures.

For one side with LoRA L, on noised pictures x of its subject or style with their own prompts,

    ρ = ‖f_merge(x) − f_L(x)‖² / ‖f_base(x) − f_L(x)‖²,

where f is the network's prediction: 0 answers as the LoRA does, 1 is as far off as the base model without any
LoRA. The pictures are views that no LoRA was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from lorarar.lora import LoRA
from lorarar.shoebox import zoo
from lorarar.train.gates import placed, updates

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def load_pair(subject: str, style: str, scale: str = "shoebox") -> tuple[LoRA, LoRA]:
    """Return the LoRAs of a subject and a style of the zoo, in single precision."""
    return tuple(
        LoRA({k: (up.float(), down.float()) for k, (up, down) in lora.items()}, metadata=lora.metadata)
        for lora in (zoo.load(subject, scale), zoo.load(style, scale))
    )


def rho(
    pipe: DiffusionPipeline,
    merges: Mapping[str, LoRA],
    content: tuple[str, LoRA],
    style: tuple[str, LoRA],
    *,
    samples: int = 16,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Return ρ of each merge, on the subject's and on the style's pictures: {name: (ρ_c, ρ_s)}.

    Args:
        pipe: the base, without a LoRA; left as it was found.
        merges: by name.
        content: the subject's name and LoRA.
        style: the style's.
        samples: noised pictures of either side.
        seed: of noise and timesteps.
    """
    where = {"device": pipe.unet.device, "dtype": pipe.unet.dtype}
    own = [content[1], style[1]]
    probes = [zoo.probe(pipe, *zoo.pictures(name, 8, seed=2), samples, seed) for name, _ in (content, style)]
    layers = dict.fromkeys(layer for lora in [*own, *merges.values()] for layer in lora)
    with updates(pipe, list(layers)) as update:

        def answer(lora: Mapping, side: int) -> torch.Tensor:
            update(placed(lora, **where))
            return zoo.answer(pipe, probes[side])

        goal = [answer(lora, side) for side, lora in enumerate(own)]
        base = [(answer({}, side) - goal[side]).square().sum() for side in (0, 1)]
        return {
            name: tuple(
                float((answer(lora, side) - goal[side]).square().sum() / base[side]) for side in (0, 1)
            )
            for name, lora in merges.items()
        }
