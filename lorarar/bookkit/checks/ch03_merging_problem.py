"""Checks of chapter 3's exercises."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Factors = tuple[Tensor, Tensor]


def check_concatenate(answer: Callable[[Factors, Factors, float, float], Factors]) -> None:
    """``concatenate(content, style, w_c, w_s)``: factors whose product is the weighted sum."""
    source = torch.Generator().manual_seed(1)
    one = torch.randn(6, 2, generator=source), torch.randn(2, 5, generator=source)
    other = torch.randn(6, 3, generator=source), torch.randn(3, 5, generator=source)
    up, down = answer(one, other, 1.0, 0.5)
    wanted = one[0] @ one[1] + 0.5 * other[0] @ other[1]
    assert up.shape == (6, 5) and down.shape == (5, 5), "the ranks add up: two and three give five"
    assert torch.allclose(up @ down, wanted, atol=1e-5), (
        "the product is not the weighted sum: is a weight applied to both factors?"
    )


def check_alpha_after(answer: Callable[[float, int, int], float]) -> None:
    """``alpha_after(alpha, rank_c, rank_s)``: the alpha of the concatenated file."""
    assert answer(8.0, 8, 8) == 16.0, (
        "the reader now divides by sixteen: with alpha eight, the sum comes at half its strength"
    )
    assert answer(4.0, 8, 8) == 8.0, "alpha over rank must stay a half"
    assert answer(4.0, 8, 24) == 16.0, "the new rank is the sum of both"


WRONG = {
    # The weight on both factors is squared in the product.
    "concatenate": lambda c, s, w_c, w_s: (
        torch.cat([w_c * c[0], w_s * s[0]], 1),
        torch.cat([w_c * c[1], w_s * s[1]], 0),
    ),
    "alpha_after": lambda alpha, rank_c, rank_s: alpha,
}
