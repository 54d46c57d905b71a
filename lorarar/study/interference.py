"""How two updates stand to each other: cosines of their columns, and the cross terms of their factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product

import numpy as np
import torch
from torch import Tensor

from lorarar.lora import LoRA, delta_weight
from lorarar.study.statistics import Entry, rank_correlation

Deltas = Mapping[str, Tensor]
"""Layer → ΔW, (out, in)."""


def deltas(lora: LoRA) -> dict[str, Tensor]:
    """Return the update of every layer, in float32."""
    return {layer: delta_weight((up.float(), down.float())) for layer, (up, down) in lora.items()}


def noise_like(lora: LoRA, seed: int) -> dict[str, Tensor]:
    """Return the updates of a LoRA of the same shapes whose factors are random numbers."""
    source = torch.Generator().manual_seed(seed)
    factors = {k: [torch.randn(x.shape, generator=source) for x in pair] for k, pair in lora.items()}
    return {k: up @ down for k, (up, down) in factors.items()}


def cosines(one: Deltas, other: Deltas) -> Tensor:
    """Return the cosine of each column of one update with the same column of the other: (columns,).

    ZipLoRA compares two updates so: ΔW·x adds up the columns of ΔW, weighed by the entries of x.
    """
    return torch.cat([torch.cosine_similarity(one[k], other[k], dim=0) for k in one])


def cosines_by_kind(
    updates: Mapping[str, Deltas], subjects: Sequence[str], styles: Sequence[str], like: LoRA
) -> dict[str, Tensor]:
    """Return the cosines of columns of all pairs of a kind: subject and style, two of a kind, noise."""
    kinds = {
        "pair": list(product(subjects, styles)),
        "styles": list(combinations(styles, 2)),
        "subjects": list(combinations(subjects, 2)),
    }
    by_kind = {
        kind: torch.cat([cosines(updates[a], updates[b]) for a, b in couples])
        for kind, couples in kinds.items()
    }
    noise = [noise_like(like, seed) for seed in (0, 1)]
    return by_kind | {"noise": cosines(*noise)}


def shared_columns(one: Deltas, other: Deltas) -> float:
    """Return how far two updates put their energy into the same columns, a mean over layers.

    The Bhattacharyya coefficient of the columns' squared norms: one if both use all columns alike, zero if no
    column is used by both.
    """
    overlaps = []
    for k in one:
        p, q = (update[k].square().sum(0) for update in (one, other))  # (in,)
        overlaps.append(float((p / p.sum()).sqrt() @ (q / q.sum()).sqrt()))
    return float(np.mean(overlaps))


def cross_terms(content: LoRA, style: LoRA) -> float:
    """Return the norm of B_c A_s + B_s A_c relative to that of B_c A_c + B_s A_s, over all layers."""
    cross = total = 0.0
    for layer in content:
        (b_c, a_c), (b_s, a_s) = ([x.float() for x in lora[layer]] for lora in (content, style))
        cross += float((b_c @ a_s + b_s @ a_c).square().sum())
        total += float((b_c @ a_c + b_s @ a_s).square().sum())
    return (cross / total) ** 0.5


def ties_of_factors(content: LoRA, style: LoRA, density: float = 0.5) -> dict[str, tuple[Tensor, Tensor]]:
    """Split what TIES of the factors computes, weights ½, into own and cross terms: layer → two (out, in).

    The own terms are B_c A_c + B_s A_s of what is left of the factors, the cross terms B_c A_s + B_s A_c.
    """

    def elected(factors: Sequence[Tensor]) -> Tensor:
        sizes = [x.abs().flatten() for x in factors]
        bars = [size.topk(int(density * len(size))).values[-1] for size in sizes]
        kept = torch.stack([x * (x.abs() >= bar) for x, bar in zip(factors, bars, strict=True)])
        agrees = kept.sign() == torch.where(kept.sum(0) >= 0, 1, -1)
        return 0.5**0.5 * kept * agrees / agrees.sum(0).clamp(min=1)

    halves = {}
    for layer in content:
        (b_c, b_s), (a_c, a_s) = (
            elected([lora[layer][i].float() for lora in (content, style)]) for i in (0, 1)
        )
        halves[layer] = b_c @ a_c + b_s @ a_s, b_c @ a_s + b_s @ a_c
    return halves


def ties_cross(content: LoRA, style: LoRA) -> float:
    """Return the norm of the cross terms of TIES of the factors, relative to that of the own terms."""
    own, cross = (
        torch.cat([half.flatten() for half in side])
        for side in zip(*ties_of_factors(content, style).values(), strict=True)
    )
    return float(cross.norm() / own.norm())


def correlation(one: np.ndarray, other: np.ndarray, resamples: int = 2000, seed: int = 0) -> Entry:
    """Return Spearman's correlation of two (subjects, styles) with its interval over subjects and styles."""
    rng, (n, m) = np.random.default_rng(seed), one.shape

    def spearman(rows: np.ndarray, columns: np.ndarray) -> float:
        return rank_correlation(*(side[np.ix_(rows, columns)].ravel() for side in (one, other)))

    drawn = [spearman(rng.integers(n, size=n), rng.integers(m, size=m)) for _ in range(resamples)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Entry(spearman(np.arange(n), np.arange(m)), float(low), float(high))
