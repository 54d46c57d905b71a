"""Checks of the exercise on Custom Diffusion's merge, and a plausible wrong answer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _case() -> tuple[Tensor, Tensor, Tensor]:
    """Words of both prompts (5, 8), what either LoRA answers them (5, 6), and other words (40, 8)."""
    draw = torch.Generator().manual_seed(0)
    words, answers, others = (
        torch.randn(*shape, generator=draw).double() for shape in ((5, 8), (5, 6), (40, 8))
    )
    return words, answers, others @ torch.randn(8, 8, generator=draw).double()


def check_constrained(constrained: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """``constrained(words, answers, others)``: the update (out, in) of the constrained problem."""
    words, answers, others = _case()
    found = constrained(words, answers, others)
    assert found.shape == (6, 8), "an update has a row for each output and a column for each input"
    assert torch.allclose(words @ found.T, answers), "on the words of the prompts it must answer exactly"
    # What is left to choose is what no word of the prompts sees.
    blind = torch.linalg.svd(words).Vh[len(words) :]
    some = torch.linalg.lstsq(words, answers).solution.T
    free = torch.linalg.lstsq(others @ blind.T, -others @ some.T).solution.T
    least = others @ (some + free @ blind).T
    assert (others @ found.T).norm() < (1 + 1e-6) * least.norm(), "other words can be disturbed less"


def _shortest(words: Tensor, answers: Tensor, others: Tensor) -> Tensor:
    return torch.linalg.lstsq(words, answers).solution.T


WRONG: dict[str, Callable] = {"constrained": _shortest}
