"""ZipLoRA: merger coefficients for one pair of LoRAs, by optimisation (Shah et al. 2024, arXiv 2311.13600).

Every attention layer gets two coefficient vectors, all ones at the start, which is the direct sum; a hundred
steps of the merging loss (`lorarar.train.objective`) move them. `lorarar.merging.ziplora` then
merges exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lorarar.hypernet import layers_of
from lorarar.lora import LoRAError
from lorarar.merging import matching
from lorarar.options import MergerRecipe, ZipLoraOptions
from lorarar.train.adapters import Trained, opened
from lorarar.train.gates import Gated, check_unet, updates
from lorarar.train.loop import Run
from lorarar.train.objective import Lessons, Terms, merging_loss, teach

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


History = dict[str, list[float]]
"""``content``, ``style`` and ``similarity`` (without λ), one value a step."""


def optimise(
    pipe: DiffusionPipeline,
    content: Trained,
    style: Trained,
    options: MergerRecipe | None = None,
    *,
    progress: bool = True,
    callback: Callable[[int, tuple[float, ...]], None] | None = None,
    **changes: Any,
) -> tuple[dict[str, tuple[Tensor, Tensor]], History]:
    """Find the merger coefficients of a pair. The pipeline is left as it was found.

    The coefficients move by at most about the learning rate a step, so that 5e-5, which circulates, changes
    nothing in 100 steps. The LoRAs' own predictions are computed once, for those of the ``draws`` samples
    that a step takes.

    Args:
        pipe: a diffusers SDXL or SD 1.5 pipeline without a LoRA.
        content: the subject's LoRA with the images and prompts it was trained on.
        style: the style's.
        options: `lorarar.options.ZipLoraOptions`, or a scale's recipe; the defaults are both papers'
            (ZipLoRA's supplement §1, LoRA.rar's §A1.3).
        progress: show a bar.
        callback: called after each step with its number, from 1, and the three terms.
        **changes: single options by name, which take precedence.

    Returns:
        Layer → (m_c, m_s), float32 (in,) on the CPU, for `lorarar.merging.ziplora` and
        `lorarar.lora.save_coefficients`; and the three terms of each step.

    Raises:
        ValueError: an option is out of range, an image cannot be used, or a LoRA is for another base.
    """
    o = ZipLoraOptions.of(options, **changes)
    sides = [opened(content), opened(style)]
    layers = layers_of(matching(content.lora, style.lora), o.parts)
    if not layers:
        raise LoRAError("they share no attention layer of a UNet in these parts, where coefficients work")
    for side in sides:
        check_unet(pipe, side.lora, side.name)
    unet = pipe.unet
    where = {"device": unet.device, "dtype": unet.dtype}
    both = Gated(content.lora, style.lora, layers, rest=o.rest, **where)
    widths = [content.lora[layer][1].shape[1] for layer in layers]
    # One tensor for all layers: the optimizer's step is then a single small operation.
    flat = torch.ones(2, sum(widths), device=unet.device, requires_grad=True)
    generator = torch.Generator().manual_seed(o.seed)
    count = max(o.batch_size, min(o.draws, o.steps * o.batch_size))
    history = torch.zeros(o.steps, 3, device=unet.device)

    def gates(values: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        return {layer: (m[0], m[1]) for layer, m in zip(layers, values.split(widths, dim=1), strict=True)}

    everything = [*content.lora, *(layer for layer in style.lora if layer not in content.lora)]
    with updates(pipe, everything, gradient_checkpointing=o.gradient_checkpointing) as update:
        seeds = (o.seed, o.seed) if o.same_noise else (2 * o.seed, 2 * o.seed + 1)
        lessons = Lessons(
            [(0, 1)] * o.steps,
            count,
            o.batch_size,
            generator,
            lambda i, wanted: teach(pipe, update, sides[i], count, seeds[i], wanted),
            same=o.same_noise,
        )

        def loss(step: int) -> tuple[Tensor, Tensor]:
            terms = merging_loss(unet, update, both, gates(flat), *lessons.samples(step), o.measure)
            history[step] = torch.stack(terms).detach()
            return terms.loss(o.similarity), history[step]

        rule = torch.optim.Adam([flat], o.learning_rate)
        half = unet.dtype == torch.float16
        Run(loss, [flat], rule, o.steps, {}, generator, half=half).go(
            "ziplora", Terms._fields, progress, callback
        )
    found = flat.detach().cpu()
    if not bool(found.isfinite().all()) or not bool(history.isfinite().all()):
        raise ValueError("the optimisation diverged: choose a smaller learning rate, or full precision")
    columns = dict(zip(Terms._fields, history.T.tolist(), strict=True))
    return {layer: (m_c.clone(), m_s.clone()) for layer, (m_c, m_s) in gates(found).items()}, columns
