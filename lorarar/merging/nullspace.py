"""NP-LoRA: the content's update is taken out of the style's principal directions."""

import math

import torch

from lorarar.lora import LoRA, LoRAError, Pair
from lorarar.merging.alike import alike
from lorarar.merging.pairs import (
    Progress,
    apply_weights,
    as_matrices,
    in_order_of,
    matching,
    one_sided,
    parallel,
    shaped_like,
)
from lorarar.merging.rank import svd_of_pair


def np_lora(
    content: LoRA,
    style: LoRA,
    *,
    mu: float = 0.5,
    directions: int | None = None,
    content_weight: float = 1.0,
    style_weight: float = 1.0,
    progress: Progress = iter,
) -> LoRA:
    """ΔW_s + ΔW_c·(I - μ/(1+μ)·V Vᵀ), V the style's right singular directions (NP-LoRA, arXiv 2511.11051,
    eq. 12).

    ``mu`` is the softness: 0 is the direct sum, ``math.inf`` the hard projection onto the null space of the
    style. ``directions`` keeps only the strongest directions of the style; the paper takes all that carry
    anything. Only A_c changes, A_c ← A_c - μ/(1+μ)·(A_c V) Vᵀ, and V comes from the QR of the style's
    factors and an SVD of their (r × r) core; in float64, since a hard projection leaves small numbers. The
    sum is then direct.

    Raises:
        LoRAError: ``mu`` is negative or ``directions`` is not positive.
    """
    if not mu >= 0:
        raise LoRAError(f"mu {mu}: expected a number from 0 (direct sum) to inf (hard projection)")
    if directions is not None and directions < 1:
        raise LoRAError(f"directions {directions}: expected at least 1, or none for all")
    content, style = alike(content, style)
    share = 1.0 if math.isinf(mu) else mu / (1 + mu)

    def work(layer: str) -> Pair:
        up, down_c = as_matrices(layer, content[layer])
        up_s, down_s = as_matrices(layer, style[layer])
        _, s, vh = svd_of_pair(up_s.double(), down_s.double())
        vh = vh[: min(int((s > s[0] * 1e-9).sum()), directions or len(s))]  # what float64 can tell from 0
        down = down_c.double()
        down = down - share * (down @ vh.mT) @ vh  # (r, in) - (r, k) @ (k, in)
        dtype = torch.promote_types(down_c.dtype, style[layer][1].dtype)
        one = apply_weights(layer, shaped_like((up, down), content[layer]), content_weight, dtype)
        other = apply_weights(layer, style[layer], style_weight, dtype)
        return torch.cat([one[0], other[0]], 1), torch.cat([one[1], other[1]], 0)

    shared = matching(content, style)
    merged = one_sided(content, style, content_weight, style_weight)
    pairs = parallel(work, shared, next(iter(content.values()))[0].device, progress)
    merged.update(zip(shared, pairs, strict=True))
    return in_order_of(content, style, merged)
