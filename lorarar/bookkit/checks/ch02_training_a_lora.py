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


def check_prune(answer: Callable[[Tensor, float], Tensor]) -> None:
    """``prune(delta, share)``: a matrix with only its largest entries."""
    delta = torch.tensor([[4.0, -5.0, 0.1], [0.2, -3.0, 2.0]])
    kept = answer(delta, 0.5)
    assert kept.shape == delta.shape, "zeros stay in their places: the shape is the same"
    assert int((kept != 0).sum()) == 3, "half of six entries are three"
    assert kept[0, 1] == -5, "a large negative entry matters as much as a large positive one"
    assert torch.equal(kept[kept != 0], torch.tensor([4.0, -5.0, -3.0])), "what is kept keeps its value"


def check_parameters(answer: Callable[[Mapping[int, int], int, int], int]) -> None:
    """``parameters(blocks, text, rank)``: numbers in a LoRA of a UNet's attention."""
    assert answer({2: 1}, 3, 1) == 6 * 4 + 2 * 5, "six square layers, and two of shape (width, text)"
    assert answer({2: 1}, 3, 4) == 4 * answer({2: 1}, 3, 1), "the number is proportional to the rank"
    assert answer({2: 1, 4: 2}, 3, 1) == answer({2: 1}, 3, 1) + 2 * answer({4: 1}, 3, 1), (
        "add up all the blocks"
    )


def _largest_signed(delta: Tensor, share: float) -> Tensor:
    count = round(share * delta.numel())
    return delta * (delta >= delta.flatten().topk(count).values[-1])


def _all_square(blocks: Mapping[int, int], text: int, rank: int) -> int:
    return rank * sum(count * 8 * 2 * width for width, count in blocks.items())


WRONG = {
    "update": lambda up, down, alpha: alpha * up @ down,
    "prune": _largest_signed,
    "parameters": _all_square,
}
