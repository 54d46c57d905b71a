"""Methods that prune entries: TIES, DARE, and both."""

import json
import math
from typing import Any

import torch
from torch import Tensor

from lorarar.lora import LoRA, LoRAError, Pair
from lorarar.merging.alike import alike
from lorarar.merging.pairs import (
    Progress,
    apply_weights,
    as_matrices,
    checked,
    in_order_of,
    matching,
    shaped_like,
    working_dtype,
)
from lorarar.merging.rank import compress, truncated_svd
from lorarar.options import MergeOptions


def _trimmed(x: Tensor, density: float) -> Tensor:
    """Keep the largest ``density`` of the entries by magnitude (TIES, arXiv 2306.01708, §4.2 step 1)."""
    if density >= 1:
        return x
    kept = torch.topk(x.abs().reshape(-1), k=int(density * x.numel())).indices
    mask = torch.zeros(x.numel(), dtype=x.dtype, device=x.device)
    return x * mask.index_fill_(0, kept, 1).reshape(x.shape)


def _dropped(x: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Drop entries at random and rescale the kept by 1/density (DARE, arXiv 2311.03099, eq. 3)."""
    if density >= 1:
        return x
    return x * torch.bernoulli(torch.full_like(x, density), generator=generator) / density


def _elected(xs: list[Tensor], weights: Tensor) -> Tensor:
    """Mean of the weighed entries that agree with the sign of the sum (TIES, §4.2 steps 2 and 3)."""
    stacked = torch.stack(xs)  # (2, …)
    agrees = stacked.sign() == torch.where(stacked.sum(0) >= 0, 1, -1)
    weighed = stacked * weights.reshape(-1, *[1] * xs[0].ndim)
    return (weighed * agrees).sum(0) / agrees.sum(0).clamp(min=1.0)


def _summed(xs: list[Tensor], weights: Tensor) -> Tensor:
    stacked = torch.stack(xs)
    return (stacked * weights.reshape(-1, *[1] * xs[0].ndim)).sum(0)


def _pruned_merge(
    content: LoRA, style: LoRA, o: MergeOptions, progress: Progress, *, random: bool, elect: bool
) -> LoRA:
    content, style = alike(content, style)
    shared = set(matching(content, style))
    generators: dict[torch.device, torch.Generator] = {}

    def combine(xs: list[Tensor], weights: list[float]) -> Tensor:
        device = xs[0].device
        if random and device not in generators:
            generators[device] = torch.Generator(device).manual_seed(o.seed)
        kept = [_dropped(x, o.density, generators[device]) if random else _trimmed(x, o.density) for x in xs]
        return (_elected if elect else _summed)(
            kept, torch.tensor(weights, dtype=working_dtype(xs[0].dtype), device=device)
        )

    merged: dict[str, Pair] = {}
    kept = total = 0.0
    for layer in progress([*content, *(layer for layer in style if layer not in content)]):
        sides = [
            (lora[layer], weight)
            for lora, weight in ((content, o.content_weight), (style, o.style_weight))
            if layer in lora
        ]
        dtype = torch.promote_types(sides[0][0][1].dtype, sides[-1][0][1].dtype)
        if o.flavour == "factors":
            # As the files have them: peft's factors are without the scale alpha / r, which counts as weight.
            having = [lora for lora in (content, style) if layer in lora]
            stored = [lora.stored.get(layer, (lora[layer][0], 1.0)) for lora in having]
            ups = [up.to(dtype) for up, _ in stored]
            downs = [down.to(dtype) for (_, down), _ in sides]
            weights = [weight * scale for (_, weight), (_, scale) in zip(sides, stored, strict=True)]
            if len({x.shape for x in ups}) > 1:
                ranks = " and ".join(str(x.shape[1]) for x in ups)
                raise LoRAError(
                    f"layer {layer}: ranks {ranks}, expected equal ones for flavour factors; use delta"
                )
            # The root of the weight goes to each factor and its sign to one of them. A comes first: the
            # random numbers are drawn in peft's order.
            roots = [math.sqrt(abs(weight)) for weight in weights]
            down = combine(downs, [math.copysign(root, w) for root, w in zip(roots, weights, strict=True)])
            up = combine(ups, roots)
            merged[layer] = up.to(dtype), down.to(dtype)
        elif layer in shared:
            pairs = [as_matrices(layer, pair) for pair, _ in sides]
            deltas = [up.to(working_dtype(dtype)) @ down.to(working_dtype(dtype)) for up, down in pairs]
            delta = combine(deltas, [weight for _, weight in sides])
            factors = truncated_svd(delta, o.rank or sum(down.shape[0] for _, down in pairs))
            kept += float(factors[1].double().square().sum(1) @ factors[0].double().square().sum(0))
            total += float(delta.double().square().sum())
            merged[layer] = apply_weights(layer, shaped_like(factors, content[layer]), 1.0, dtype)
        else:
            pair = apply_weights(layer, *sides[0])
            merged[layer] = pair if o.rank is None else compress(LoRA({layer: pair}), o.rank)[layer]
    metadata = {"lorarar_energy_kept": json.dumps({"all": round(kept / total, 6)})} if total else {}
    return in_order_of(content, style, merged, **metadata)


def ties(
    content: LoRA,
    style: LoRA,
    options: MergeOptions | None = None,
    *,
    progress: Progress = iter,
    **changes: Any,
) -> LoRA:
    """Trim, elect sign, disjoint mean (TIES-Merging, arXiv 2306.01708).

    The option ``flavour="delta"`` works on ΔW, one dense layer at a time, and goes back to ``rank`` (r_c +
    r_s unless given) by the best approximation of that rank; a layer of one adapter only is kept with its
    weight.

    ``flavour="factors"`` works on A and B apart as the files have them, each with the root of its weight
    times alpha/r: what peft's ``add_weighted_adapter(..., combination_type="ties")`` computes, to the last
    bit, and what the LoRA.rar paper ran, there with both weights 0.5 and density 0.5. It needs equal ranks,
    and it is no TIES of ΔW.

    The disjoint mean divides by the number of sides that agree, so weights 1 and 1 average where both agree.

    Raises:
        LoRAError: an option is out of range, or the ranks are unequal for ``factors``.
    """
    return _pruned_merge(content, style, checked(options, changes), progress, random=False, elect=True)


def dare(
    content: LoRA,
    style: LoRA,
    options: MergeOptions | None = None,
    *,
    progress: Progress = iter,
    **changes: Any,
) -> LoRA:
    """Drop entries at random, rescale the kept, add (DARE, arXiv 2311.03099).

    Flavours, ranks, one-sided layers and errors as in `ties`. ``factors`` is peft's ``dare_linear`` when the
    layers are in the order of the model's modules and the generator is seeded with ``seed`` where peft begins
    to draw, which is after its own initialisation of the new adapter.
    """
    return _pruned_merge(content, style, checked(options, changes), progress, random=True, elect=False)


def dare_ties(
    content: LoRA,
    style: LoRA,
    options: MergeOptions | None = None,
    *,
    progress: Progress = iter,
    **changes: Any,
) -> LoRA:
    """DARE's random drop, then TIES' election and disjoint mean (DARE-TIES of peft and mergekit).

    Flavours, ranks, one-sided layers, seed and errors as in `ties` and `dare`.
    """
    return _pruned_merge(content, style, checked(options, changes), progress, random=True, elect=True)
