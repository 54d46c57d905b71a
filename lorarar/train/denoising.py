"""The denoising loss: noise, time steps, the target that a UNet predicts, and the UNet meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lorarar.train.pictures import Encoded

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@contextmanager
def frozen(pipe: DiffusionPipeline, gradient_checkpointing: bool = False) -> Iterator[None]:
    """Keep the UNet's own weights as they are while the block runs; leave it afterwards as it was found.

    Raises:
        ValueError: the UNet carries a LoRA already.
    """
    from peft.tuners.lora import LoraLayer

    unet = pipe.unet
    if any(isinstance(module, LoraLayer) for module in unet.modules()):
        raise ValueError("the pipeline already carries a LoRA: call pipe.unload_lora_weights() first")
    moved = {name: parameter.requires_grad for name, parameter in unet.named_parameters()}
    checkpointing, mode = unet.is_gradient_checkpointing, unet.training
    try:
        unet.requires_grad_(False)
        unet.eval()
        if gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        yield
    finally:
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(moved[name])
        if gradient_checkpointing and not checkpointing:
            unet.disable_gradient_checkpointing()
        unet.train(mode)


def denoising_target(
    latents: torch.Tensor, noise: torch.Tensor, alphas: torch.Tensor, prediction_type: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise the latents and say what the UNet should answer.

    x_t = √ᾱ x + √(1-ᾱ) ε; the answer is ε, x itself, or v = √ᾱ ε - √(1-ᾱ) x (Salimans and Ho 2022).

    Args:
        latents: (n, c, h, w), x.
        noise: (n, c, h, w), ε.
        alphas: (n,), ᾱ at each sample's timestep.
        prediction_type: ``epsilon``, ``sample`` or ``v_prediction``.

    Returns:
        x_t and the answer, both (n, c, h, w).
    """
    signal, spread = alphas.sqrt()[:, None, None, None], (1 - alphas).sqrt()[:, None, None, None]
    noised = signal * latents + spread * noise
    if prediction_type == "epsilon":
        return noised, noise
    if prediction_type == "sample":
        return noised, latents
    if prediction_type == "v_prediction":
        return noised, signal * noise - spread * latents
    raise ValueError(f"unknown prediction type {prediction_type!r}: expected epsilon, sample or v_prediction")


@dataclass(frozen=True)
class Batch:
    """What the UNet is given and should answer: ``weight`` (n,) is each sample's factor in the loss."""

    noised: torch.Tensor
    timesteps: torch.Tensor
    text: torch.Tensor
    conditions: dict[str, torch.Tensor] | None
    target: torch.Tensor
    weight: torch.Tensor


def draw(
    sets: Sequence[Encoded],
    batch_size: int,
    alphas: torch.Tensor,
    prediction_type: str,
    generator: torch.Generator,
) -> Batch:
    """Draw ``batch_size`` samples of every set, with noise and timesteps, into one batch.

    All randomness comes from ``generator``, on the CPU, so a run is the same on every device. ``weight``
    makes the sum over the batch equal to the sum over the sets of (the set's weight × its mean).
    """
    parts = []
    for data in sets:
        pick = torch.multinomial(data.share, batch_size, replacement=True, generator=generator)
        timesteps = torch.randint(len(alphas), (batch_size,), generator=generator)
        noise = torch.randn(batch_size, *data.latents.shape[1:], generator=generator)
        where = data.latents.device
        pick, timesteps, noise = pick.to(where), timesteps.to(where), noise.to(where)
        noised, target = denoising_target(data.latents[pick], noise, alphas[timesteps], prediction_type)
        words = data.prompt[pick]
        conditions = {}
        if data.pooled is not None:
            conditions = {"text_embeds": data.pooled[words], "time_ids": data.time_ids[pick]}
        weight = torch.full((batch_size,), data.weight / batch_size, device=where)
        parts.append((noised, timesteps, data.text[words], conditions, target, weight))
    noised, timesteps, text, conditions, target, weight = zip(*parts, strict=True)
    return Batch(
        torch.cat(noised),
        torch.cat(timesteps),
        torch.cat(text),
        {name: torch.cat([c[name] for c in conditions]) for name in conditions[0]} or None,
        torch.cat(target),
        torch.cat(weight),
    )


def denoising_loss(unet: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Return Σ_n weight_n · mean((unet(x_t) - target)²), a float32 scalar.

    With a class set of weight λ beside the instance set this is DreamBooth's loss with prior preservation.
    """
    answer = unet(
        batch.noised.to(unet.dtype),
        batch.timesteps,
        batch.text,
        added_cond_kwargs=batch.conditions,
        return_dict=False,
    )[0]
    return ((answer.float() - batch.target) ** 2).mean((1, 2, 3)) @ batch.weight
