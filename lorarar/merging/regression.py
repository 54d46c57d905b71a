"""RegMean: the update that answers each LoRA's own inputs as that LoRA would, layer by layer, in closed form.

With G_c and G_s the second moments E[x xᵀ] of what a layer is given while either LoRA draws its own subject
or style, the update that is nearest to both there,

    argmin_W  E_c ‖(W - ΔW_c) x‖² + E_s ‖(W - ΔW_s) x‖²  =  (ΔW_c G_c + ΔW_s G_s) (G_c + G_s)⁻¹,

is RegMean's (Jin et al. 2023, arXiv 2212.09849, eq. 1), and what Mix-of-Show's gradient fusion descends to
(`lorarar.merging.fusion`). Of low-rank updates it is one of rank r_c + r_s: only A_c and A_s
change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from lorarar.lora import LoRA, LoRAError, Pair
from lorarar.merging.alike import alike
from lorarar.merging.diagonal import best_columns
from lorarar.merging.fusion import fused
from lorarar.merging.pairs import Progress, apply_weights, checked, in_order_of, matching, one_sided
from lorarar.options import MergeOptions

Inputs = Mapping[str, Tensor]
"""Layer → second moment E[x xᵀ] of what the layer is given, (in, in)."""

KEPT = 8
"""Factorisations kept at once, the last used: a block's queries, keys and values share one, and all that read
the text; for SDXL all of them would be gigabytes."""


def regmean(
    content: LoRA,
    style: LoRA,
    inputs: tuple[Inputs, Inputs],
    options: MergeOptions | None = None,
    *,
    progress: Progress = iter,
    **changes: Any,
) -> LoRA:
    """Merge by regression on the layers' inputs: exact, of rank r_c + r_s, in float64.

    The option ``ridge`` adds a multiple of the mean second moment to the diagonal of both moments, half to
    each; without limit it is the plain average. With ``fusion_steps`` there is no ridge: the answer is
    approached by so many steps from the base (`lorarar.merging.fusion.fused`). With ``columns`` it is the
    best merge of ZipLoRA's form, a number for each column (`lorarar.merging.diagonal`). A shared layer
    without moments is averaged, or with ``rest="sum"`` added; a layer that only one adapter has is kept. The
    weights multiply the two updates.

    Args:
        content: the subject's LoRA.
        style: the style's.
        inputs: the second moments of either side (`lorarar.train.own_inputs`).
        options: of which it looks at ``ridge``, ``columns``, ``fusion_steps``, ``rest`` and the two weights.
        progress: wraps the layers.
        **changes: single options by name.

    Raises:
        LoRAError: an option is out of range, no layer has moments of both sides, or moments of another size.
    """
    o = checked(options, changes)
    if o.columns and o.fusion_steps is not None:
        raise LoRAError("columns and fusion_steps are two answers to one question: give one of them")
    content, style = alike(content, style)
    shared = matching(content, style)
    known = {layer for layer in shared if layer in inputs[0] and layer in inputs[1]}
    if not known:
        raise LoRAError("the LoRAs share no layer whose inputs are known; were they measured on this base?")
    share = 0.5 if o.rest == "average" else 1.0
    solved: dict[tuple[int, int], tuple[Tensor, ...]] = {}  # layers that are given the same share one
    merged = one_sided(content, style, o.content_weight, o.style_weight)
    for layer in progress(shared):
        pairs, weights = (content[layer], style[layer]), (o.content_weight, o.style_weight)
        dtype = torch.promote_types(*(pair[1].dtype for pair in pairs))
        if layer not in known:
            moved = [apply_weights(layer, pair, share) for pair in pairs]
        else:
            both = inputs[0][layer], inputs[1][layer]
            _check(layer, pairs, both)
            if o.fusion_steps is not None:
                weighted = [(up, w * down.double()) for (up, down), w in zip(pairs, weights, strict=True)]
                up, down = (m.to(pairs[0][0].device) for m in fused(layer, weighted, both, o.fusion_steps))
                merged[layer] = apply_weights(layer, (up, down), 1.0, dtype)
                continue
            key = id(both[0]), id(both[1])
            solved[key] = solved.pop(key) if key in solved else _solver(layer, *both, o.ridge)
            if len(solved) > KEPT:
                del solved[next(iter(solved))]
            root, *sides = solved[key]
            if o.columns:
                by_column = (m.to(pairs[0][0].device) for m in best_columns(pairs, (sides[0], sides[1])))
                moved = [(up, down.double() * m) for (up, down), m in zip(pairs, by_column, strict=True)]
            else:
                moved = [_moved(pair, by, root) for pair, by in zip(pairs, sides, strict=True)]
        one, other = (apply_weights(layer, p, w, dtype) for p, w in zip(moved, weights, strict=True))
        merged[layer] = torch.cat([one[0], other[0]], 1), torch.cat([one[1], other[1]], 0)
    return in_order_of(content, style, merged)


def _check(layer: str, pairs: Sequence[Pair], moments: tuple[Tensor, Tensor]) -> None:
    for (_, down), g in product(pairs, moments):
        if g.shape != (down.shape[1],) * 2:
            raise LoRAError(
                f"layer {layer}: second moments of shape {tuple(g.shape)}, expected ({down.shape[1]}, "
                f"{down.shape[1]}); were they measured on this base model?"
            )


def _solver(layer: str, g_c: Tensor, g_s: Tensor, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the Cholesky factor of G_c + G_s and both moments, (in, in) in float64, with the ridge."""
    g_c, g_s = g_c.double(), g_s.double()
    extra = ridge * (g_c + g_s).diagonal().mean() / 2
    g_c, g_s = (g + extra * torch.eye(len(g), dtype=g.dtype, device=g.device) for g in (g_c, g_s))
    try:
        return torch.linalg.cholesky(g_c + g_s), g_c, g_s
    except torch.linalg.LinAlgError:
        raise LoRAError(f"layer {layer}: its inputs lie in too few directions; give a larger ridge") from None


def _moved(pair: Pair, by: Tensor, root: Tensor) -> Pair:
    """Return (B, A G (G_c + G_s)⁻¹): a solve with as many right-hand sides as the rank."""
    up, down = pair
    moved = torch.cholesky_solve((down.to(by.device, by.dtype) @ by).mT, root).mT
    return up, moved.to(down.device)
