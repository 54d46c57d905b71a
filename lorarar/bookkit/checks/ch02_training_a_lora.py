"""Chapter 2: the checks of its exercises."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def check_update(answer: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """``update(up, down, alpha)``: ΔW of a layer as a file holds it."""
    source = torch.Generator().manual_seed(1)
    up, down = torch.randn(6, 2, generator=source), torch.randn(2, 5, generator=source)
    delta = answer(up, down, 2.0)
    assert delta.shape == (6, 5), f"ΔW has the shape of the weight, (6, 5), not {tuple(delta.shape)}"
    assert torch.allclose(delta, up @ down, atol=1e-5), "with alpha equal to the rank, ΔW is up @ down"
    assert torch.allclose(answer(up, down, 1.0), up @ down / 2, atol=1e-5), (
        "alpha is divided by the rank: how many rows has down?"
    )


def check_parameters(answer: Callable[[Mapping[int, int], int, int], int]) -> None:
    """``parameters(blocks, text, rank)``: numbers in a LoRA of a UNet's attention."""
    assert answer({2: 1}, 3, 1) == 6 * 4 + 2 * 5, "six square layers, and two of shape (width, text)"
    assert answer({2: 1}, 3, 4) == 4 * answer({2: 1}, 3, 1), "the number is proportional to the rank"
    assert answer({2: 1, 4: 2}, 3, 1) == answer({2: 1}, 3, 1) + 2 * answer({4: 1}, 3, 1), (
        "add up all the blocks"
    )


def _all_square(blocks: Mapping[int, int], text: int, rank: int) -> int:
    return rank * sum(count * 8 * 2 * width for width, count in blocks.items())


WRONG = {
    "update": lambda up, down, alpha: alpha * up @ down,
    "parameters": _all_square,
}
