"""NP-LoRA: the content's update is taken out of the style's principal directions."""

import math
from typing import Any

import torch

from lorarar.lora import LoRA, Pair
from lorarar.merging.alike import alike
from lorarar.merging.pairs import (
    Progress,
    apply_weights,
    as_matrices,
    checked,
    in_order_of,
    matching,
    one_sided,
    parallel,
    shaped_like,
)
from lorarar.merging.rank import svd_of_pair
from lorarar.options import MergeOptions


def np_lora(
    content: LoRA,
    style: LoRA,
    options: MergeOptions | None = None,
    *,
    progress: Progress = iter,
    **changes: Any,
) -> LoRA:
    """ΔW_s + ΔW_c·(I - μ/(1+μ)·V Vᵀ), V the style's right singular directions (NP-LoRA, arXiv 2511.11051,
    eq. 12).

    The option ``mu`` is the softness: 0 is the direct sum, ``math.inf`` the hard projection onto the null
    space of the style. ``directions`` keeps only the strongest directions of the style; the paper takes all
    that carry anything. Only A_c changes, A_c ← A_c - μ/(1+μ)·(A_c V) Vᵀ, and V comes from the QR of the
    style's factors and an SVD of their (r × r) core; in float64, since a hard projection leaves small
    numbers. The sum is then direct.

    Raises:
        LoRAError: an option is out of range.
    """
    o = checked(options, changes)
    content, style = alike(content, style)
    share = 1.0 if math.isinf(o.mu) else o.mu / (1 + o.mu)

    def work(layer: str) -> Pair:
        up, down_c = as_matrices(layer, content[layer])
        up_s, down_s = as_matrices(layer, style[layer])
        _, s, vh = svd_of_pair(up_s.double(), down_s.double())
        vh = vh[: min(int((s > s[0] * 1e-9).sum()), o.directions or len(s))]  # what float64 can tell from 0
        down = down_c.double()
        down = down - share * (down @ vh.mT) @ vh  # (r, in) - (r, k) @ (k, in)
        dtype = torch.promote_types(down_c.dtype, style[layer][1].dtype)
        one = apply_weights(layer, shaped_like((up, down), content[layer]), o.content_weight, dtype)
        other = apply_weights(layer, style[layer], o.style_weight, dtype)
        return torch.cat([one[0], other[0]], 1), torch.cat([one[1], other[1]], 0)

    shared = matching(content, style)
    merged = one_sided(content, style, o.content_weight, o.style_weight)
    pairs = parallel(work, shared, next(iter(content.values()))[0].device, progress)
    merged.update(zip(shared, pairs, strict=True))
    return in_order_of(content, style, merged)
