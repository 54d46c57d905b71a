"""K-LoRA: at every sampling step each layer uses the content LoRA or the style LoRA, never both.

Ouyang, Li and Hou, arXiv 2502.18461. With S_c and S_s the sums of the K = r_c·r_s largest entries of
|ΔW_c| and |ΔW_s|, a layer takes the content LoRA at step t of T where

    S_c ≥ γ · S(t) · S_s,    S(t) = α·t/T + β,    γ = Σ_layers Σ|ΔW_c| / Σ_layers Σ|ΔW_s|,

and the style LoRA elsewhere. γ brings two LoRAs of different strength to one measure; S grows, so the early
steps, which lay out the picture, lean to the content, the late ones to the style. A layer's side of the
inequality never changes: all there is to know about a pair is one number per layer, S_c / (γ·S_s), and a
layer changes from content to style at most once, when S(t) passes it. Nothing is merged and nothing trained.

The authors' released code differs in three details: K is fixed at 64, which is r_c·r_s for the rank 8 it was
written for; γ is the mean of the layers' ratios (here ``balance="mean"``); and t counts the calls of
attention layers, so that S also rises a little from layer to layer within a step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lorarar import pipelines
from lorarar.lora import LoRA, LoRAError, delta_weight
from lorarar.merging import Progress, matching, parallel
from lorarar.pipelines import loaded

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from peft.tuners.lora import LoraLayer


ALPHA, BETA = 1.5, 0.5
"""The slope and the start of S in all of the paper's experiments."""

BALANCES = ("total", "mean")


def ratios(
    content: LoRA, style: LoRA, *, k: int | None = None, balance: str = "total", progress: Progress = iter
) -> dict[str, float]:
    """Return S_c / (γ·S_s) of every layer of the denoiser that both LoRAs have: the content's claim to it.

    One layer's ΔW_c and ΔW_s are dense at a time (on a CPU, one for each core), and dropped again.

    Args:
        content: the subject's LoRA.
        style: the style's.
        k: how many entries are summed; None takes r_c·r_s of each layer. No more than there are.
        balance: γ from the sums over all layers (``total``, the paper) or as the mean of the layers' own
            ratios (``mean``, the released code).
        progress: wraps the layers' names.

    Raises:
        LoRAError: the adapters do not match (see `lorarar.merging.matching`), one of them is zero everywhere,
            ``k`` is below 1, or the balance is unknown.
    """
    if balance not in BALANCES:
        raise LoRAError(f"balance {balance!r}: expected one of {', '.join(BALANCES)}")
    if k is not None and k < 1:
        raise LoRAError(f"k {k}: expected at least 1")
    layers = [layer for layer in matching(content, style) if not layer.startswith("text_encoder")]
    if not layers:
        raise LoRAError("the LoRAs share no layer of the denoiser, where K-LoRA chooses; use method direct")

    @torch.no_grad()
    def work(layer: str) -> tuple[list[float], list[float]]:
        many = content[layer][1].shape[0] * style[layer][1].shape[0] if k is None else k
        tops, totals = [], []
        for lora in (content, style):
            size = delta_weight(lora[layer]).abs_().flatten()
            largest = size.topk(min(many, size.numel()), sorted=False).values
            tops.append(float(largest.sum(dtype=torch.double)))
            totals.append(float(size.sum(dtype=torch.double)))
        return tops, totals

    device = content[layers[0]][0].device
    tops, totals = (
        np.array(sums).T for sums in zip(*parallel(work, layers, device, progress), strict=True)
    )  # each (2, layers)
    for name, total in zip(("content", "style"), totals.sum(1), strict=True):
        if not total > 0:
            raise LoRAError(f"the {name} LoRA changes no layer of the denoiser: it was not trained")
    with np.errstate(divide="ignore", invalid="ignore"):
        if balance == "total":
            gamma = totals[0].sum() / totals[1].sum()
        else:
            both = totals[1] > 0  # a layer without a style has no ratio
            gamma = (totals[0][both] / totals[1][both]).mean()
        claims = np.where(gamma * tops[1] > 0, tops[0] / (gamma * tops[1]), math.inf)
    return dict(zip(layers, claims.tolist(), strict=True))


def choices(
    claims: Mapping[str, float], steps: int, *, alpha: float = ALPHA, beta: float = BETA
) -> np.ndarray:
    """Return which layers take the content LoRA at which step: (steps, layers) bool, by S = α·t/T + β.

    ``claims`` are those of `ratios`; t counts the steps from 0, so S starts at β and ends just below α + β.
    """
    scale = alpha * np.arange(steps) / steps + beta
    return np.array(list(claims.values()))[None] >= scale[:, None]


@contextmanager
def applied(
    pipe: DiffusionPipeline,
    content: LoRA,
    style: LoRA,
    *,
    claims: Mapping[str, float] | None = None,
    alpha: float = ALPHA,
    beta: float = BETA,
) -> Iterator[DiffusionPipeline]:
    """Let every step of every image made in the block choose, layer by layer, between the two LoRAs.

    The step is read off the timestep with which the pipeline calls its UNet, whatever the scheduler and the
    number of steps. A layer that only one LoRA has keeps it; text encoders, which no step runs, take the
    average of both. The pipeline is left as it was found.

    Args:
        pipe: an SDXL or SD 1.5 pipeline without LoRAs.
        content: the subject's LoRA.
        style: the style's.
        claims: those of `ratios`, where they are known already.
        alpha: the slope of S.
        beta: its start.

    Raises:
        LoRAError: see `ratios`; or a number that is not finite.
        ValueError: a LoRA is not made for this base, or the pipeline already carries one.
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not math.isfinite(value):
            raise LoRAError(f"{name} {value}: expected a finite number")
    claims = ratios(content, style) if claims is None else claims
    with loaded(pipe, content, style):
        chosen = {layer: _module(pipe, layer) for layer in claims}
        for layer in matching(content, style):
            if layer not in claims:
                _weigh(_module(pipe, layer), 0.5, 0.5)
        gates: dict[int, np.ndarray] = {}

        def choose(_: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            now = arguments[1] if len(arguments) > 1 else named["timestep"]
            all_steps = pipe.scheduler.timesteps
            steps = len(all_steps)
            step = int((all_steps == torch.as_tensor(now, device=all_steps.device)).nonzero()[0])
            if steps not in gates:
                gates[steps] = choices(claims, steps, alpha=alpha, beta=beta)
            for module, take_content in zip(chosen.values(), gates[steps][step], strict=True):
                _weigh(module, float(take_content), float(not take_content))

        hook = pipe.unet.register_forward_pre_hook(choose, with_kwargs=True)
        try:
            yield pipe
        finally:
            hook.remove()


def _module(pipe: DiffusionPipeline, layer: str) -> LoraLayer:
    """Return peft's module of a layer that both LoRAs have."""
    component, _, name = layer.partition(".")
    model = getattr(pipe, component)
    if not hasattr(model, "text_model"):  # transformers 5 has dropped the level from CLIPTextModel
        name = name.removeprefix("text_model.")
    return model.get_submodule(name)


def _weigh(module: LoraLayer, content: float, style: float) -> None:
    for name, weight in (("lora0", content), ("lora1", style)):  # the names that `loaded` gives
        module.set_scale(name, weight)


def generate(
    pipe: DiffusionPipeline,
    prompts: str | list[str],
    seeds: int | list[int],
    *,
    content: LoRA,
    style: LoRA,
    claims: Mapping[str, float] | None = None,
    alpha: float = ALPHA,
    beta: float = BETA,
    **settings: Any,
) -> np.ndarray:
    """Generate images with K-LoRA: `lorarar.pipelines.generate` inside `applied`, with the arguments of both.

    Returns:
        (n, height, width, 3) uint8.

    Raises:
        ValueError: see `applied` and `lorarar.pipelines.generate`.
    """
    with applied(pipe, content, style, claims=claims, alpha=alpha, beta=beta):
        return pipelines.generate(pipe, prompts, seeds, **settings)
