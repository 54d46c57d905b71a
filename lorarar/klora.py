"""K-LoRA: at every sampling step each layer uses the content LoRA or the style LoRA, never both.

Ouyang, Li and Hou, arXiv 2502.18461. With S_c and S_s the sums of the K = r_c·r_s largest entries of
|ΔW_c| and |ΔW_s|, a layer takes the content LoRA at step t of T where

    S_c ≥ γ · S(t) · S_s,    S(t) = α·t/T + β,    γ = Σ_layers Σ|ΔW_c| / Σ_layers Σ|ΔW_s|,

and the style LoRA elsewhere. γ brings two LoRAs of different strength to one measure; S grows, so the early
steps, which lay out the picture, lean to the content, the late ones to the style. A layer's side of the
inequality never changes: all there is to know about a pair is one number per layer, S_c / (γ·S_s), and a
layer changes from content to style at most once, when S(t) passes it. Nothing is merged and nothing trained.

The authors' released code differs in three details: K is fixed at 64, which is r_c·r_s for the rank 8 it was
written for; γ is the mean of the layers' ratios, without those above three times the mean (here
``balance="mean"``); and t counts the calls of attention layers, so that S also rises a little from layer to
layer within a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lorarar import pipelines
from lorarar.lora import LoRA, LoRAError, delta_weight
from lorarar.merging import Progress, parallel
from lorarar.switching import scheduled, shared

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor


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
    if k is not None and k < 1:
        raise LoRAError(f"k {k}: expected at least 1")

    def largest(size: Tensor, ranks: int) -> Tensor:
        return size.topk(min(k or ranks, size.numel()), sorted=False).values

    return claims_by(largest, content, style, balance=balance, progress=progress)


def claims_by(
    strength: Callable[[Tensor, int], Tensor],
    content: LoRA,
    style: LoRA,
    *,
    balance: str,
    progress: Progress = iter,
) -> dict[str, float]:
    """Return S_c / (γ·S_s) of every shared layer, where S is the sum of ``strength(|ΔW| flat, r_c·r_s)``.

    Arguments and errors as in `ratios`.
    """
    if balance not in BALANCES:
        raise LoRAError(f"balance {balance!r}: expected one of {', '.join(BALANCES)}")
    layers = shared(content, style)

    @torch.no_grad()
    def work(layer: str) -> tuple[list[float], list[float]]:
        ranks = content[layer][1].shape[0] * style[layer][1].shape[0]
        strengths, totals = [], []
        for lora in (content, style):
            size = delta_weight(lora[layer]).abs_().flatten()
            strengths.append(float(strength(size, ranks).sum(dtype=torch.double)))
            totals.append(float(size.sum(dtype=torch.double)))
        return strengths, totals

    device = content[layers[0]][0].device
    strengths, totals = (
        np.array(sums).T for sums in zip(*parallel(work, layers, device, progress), strict=True)
    )  # each (2, layers)
    for name, total in zip(("content", "style"), totals.sum(1), strict=True):
        if not total > 0:
            raise LoRAError(f"the {name} LoRA changes no layer of the denoiser: it was not trained")
    if balance == "total":
        gamma = totals[0].sum() / totals[1].sum()
    else:
        heard = totals[1] > 0  # a layer without a style has no ratio
        each = totals[0][heard] / totals[1][heard]
        gamma = each[each < 3 * each.mean()].mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        claims = np.where(gamma * strengths[1] > 0, strengths[0] / (gamma * strengths[1]), math.inf)
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

    How, what text encoders do, and errors, see `lorarar.switching.scheduled`.

    Args:
        pipe: an SDXL or SD 1.5 pipeline without LoRAs.
        content: the subject's LoRA.
        style: the style's.
        claims: those of `ratios`, or of `lorarar.estlora.ratios`, where they are known already.
        alpha: the slope of S.
        beta: its start.

    Raises:
        LoRAError: see `ratios`; or a number that is not finite.
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not math.isfinite(value):
            raise LoRAError(f"{name} {value}: expected a finite number")
    claims = ratios(content, style) if claims is None else claims
    with scheduled(
        pipe, content, style, partial(choices, claims, alpha=alpha, beta=beta), list(claims)
    ) as pipe:
        yield pipe


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
