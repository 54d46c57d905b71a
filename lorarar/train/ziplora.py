"""ZipLoRA: merger coefficients for one pair of LoRAs, by optimisation (Shah et al. 2024, arXiv 2311.13600).

Every attention layer gets two coefficient vectors, all ones at the start, which is the direct sum; a hundred
steps of the merging loss (`lorarar.train.objective`) move them. `lorarar.merging.ziplora` then
merges exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from lorarar.hypernet import PARTS, layers_of
from lorarar.lora import LoRAError
from lorarar.merging import matching
from lorarar.train.adapters import Trained, opened
from lorarar.train.gates import Gated, check_unet, updates
from lorarar.train.objective import check_settings, chosen, merging_loss, teach

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


History = dict[str, list[float]]
"""``content``, ``style`` and ``similarity`` (without λ), one value a step."""


def optimise(
    pipe: DiffusionPipeline,
    content: Trained,
    style: Trained,
    *,
    steps: int = 100,
    learning_rate: float = 0.01,
    similarity: float = 0.01,
    batch_size: int = 1,
    measure: str = "dot",
    rest: str = "average",
    draws: int = 64,
    seed: int = 0,
    gradient_checkpointing: bool = False,
    progress: bool = True,
    callback: Callable[[int, tuple[float, float, float]], None] | None = None,
) -> tuple[dict[str, tuple[Tensor, Tensor]], History]:
    """Find the merger coefficients of a pair. The pipeline is left as it was found.

    The defaults are both papers' (ZipLoRA's supplement §1, LoRA.rar's §A1.3); a scale's come with
    ``optimise(pipe, content, style, **vars(scale.ziplora))``.

    Args:
        pipe: a diffusers SDXL or SD 1.5 pipeline without a LoRA.
        content: the subject's LoRA with the images and prompts it was trained on.
        style: the style's.
        steps: of Adam.
        learning_rate: of Adam: the coefficients move by at most about this much a step, so that 5e-5, which
            circulates, changes nothing in 100 steps.
        similarity: λ, the similarity term's weight.
        batch_size: samples a step of either side.
        measure: of similarity, ``dot`` or ``cosine`` (see `lorarar.train.merging_loss`).
        rest: what happens to layers outside attention that both LoRAs have, ``average`` or ``sum``.
        draws: fixed (image, noise, timestep) samples of either side, from which each step takes some; the
            LoRAs' own predictions are computed for them once. No more are made than the steps can use.
        seed: of everything drawn.
        gradient_checkpointing: recompute activations in the backward pass: slower, with less memory.
        progress: show a bar.
        callback: called after each step with its number, from 1, and the three terms.

    Returns:
        Layer → (m_c, m_s), float32 (in,) on the CPU, for `lorarar.merging.ziplora` and
        `lorarar.lora.save_coefficients`; and the three terms of each step.

    Raises:
        ValueError: in one line, if an argument is out of range, an image cannot be used, or a LoRA is for
            another base.
    """
    check_settings(
        learning_rate=learning_rate, similarity=similarity, measure=measure, rest=rest,
        steps=steps, batch_size=batch_size, draws=draws,
    )  # fmt: skip
    sides = [opened(content), opened(style)]
    layers = layers_of(matching(content.lora, style.lora), PARTS)
    if not layers:
        raise LoRAError("the LoRAs share no attention layer of a UNet, where coefficients work")
    for side in sides:
        check_unet(pipe, side.lora, side.name)
    unet = pipe.unet
    where = {"device": unet.device, "dtype": unet.dtype}
    both = Gated(content.lora, style.lora, layers, rest=rest, **where)
    widths = [content.lora[layer][1].shape[1] for layer in layers]
    # One tensor for all layers: the optimizer's step is then a single small operation.
    flat = torch.ones(2, sum(widths), device=unet.device, requires_grad=True)
    rule = torch.optim.Adam([flat], learning_rate)
    scaler = torch.amp.GradScaler(unet.device.type, enabled=unet.dtype == torch.float16)
    generator = torch.Generator().manual_seed(seed)
    count = max(batch_size, min(draws, steps * batch_size))
    history = torch.zeros(steps, 3, device=unet.device)

    def gates(values: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        return {layer: (m[0], m[1]) for layer, m in zip(layers, values.split(widths, dim=1), strict=True)}

    everything = [*content.lora, *(layer for layer in style.lora if layer not in content.lora)]
    with (
        updates(pipe, everything, gradient_checkpointing=gradient_checkpointing) as update,
        tqdm(total=steps, desc="ziplora", unit="step", disable=not progress) as bar,
    ):
        lessons = [teach(pipe, update, side, count, 2 * seed + i) for i, side in enumerate(sides)]
        for step in range(steps):
            picks = [torch.randperm(count, generator=generator)[:batch_size] for _ in sides]
            samples = [
                chosen(lesson, pick.to(unet.device)) for lesson, pick in zip(lessons, picks, strict=True)
            ]
            terms = merging_loss(unet, update, both, gates(flat), *samples, measure)
            scaler.scale(terms.loss(similarity)).backward()
            scaler.step(rule)
            scaler.update()
            rule.zero_grad()
            history[step] = torch.stack(terms).detach()
            bar.update()
            if callback or step % 10 == 9:  # reading the loss waits for the GPU, so not every step
                values = tuple(history[step].tolist())
                bar.set_postfix(content=f"{values[0]:.4f}", style=f"{values[1]:.4f}", refresh=False)
                if callback:
                    callback(step + 1, values)
    found = flat.detach().cpu()
    if not bool(found.isfinite().all()) or not bool(history.isfinite().all()):
        raise ValueError("the optimisation diverged: choose a smaller learning rate, or full precision")
    columns = dict(zip(("content", "style", "similarity"), history.T.tolist(), strict=True))
    return {layer: (m_c.clone(), m_s.clone()) for layer, (m_c, m_s) in gates(found).items()}, columns
