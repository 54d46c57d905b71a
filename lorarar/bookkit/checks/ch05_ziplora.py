"""Chapter 5: the checks of its exercises."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lorarar.train import similarity


def check_steps_to_zero(answer: Callable[[float], int]) -> None:
    """``steps_to_zero(learning_rate)``: steps of that size from one to zero."""
    assert answer(0.01) == 100, "a hundred steps of a hundredth"
    assert answer(5e-5) == 20_000, "at a slow rate, a hundred steps go nowhere"
    assert answer(0.3) == 4, "three steps of three tenths are not enough: round up"


def check_pull(answer: Callable[[Tensor, Tensor, str], Tensor]) -> None:
    """``pull(m_c, m_s, measure)``: minus the gradient of the similarity of one layer by m_c."""
    source = torch.Generator().manual_seed(4)
    m_c = torch.randn(6, generator=source).requires_grad_()
    m_s = torch.randn(6, generator=source)
    for other in (m_s, -m_s):
        for measure in ("dot", "cosine"):
            value = similarity({"one": (m_c, other)}, measure)
            wanted = -torch.autograd.grad(value, m_c)[0]
            given = answer(m_c.detach(), other, measure)
            assert not torch.allclose(given, -wanted, atol=1e-5), (
                "descent goes down: against the gradient, and the absolute value turns it round where the "
                "product is negative"
            )
            assert torch.allclose(given, wanted, atol=1e-5), (
                f"not the gradient of the {measure}: compare with autograd"
            )


def _pull_without_length(m_c: Tensor, m_s: Tensor, measure: str) -> Tensor:
    return -m_s if measure == "dot" else -m_s / (m_c.norm() * m_s.norm())


WRONG = {
    "steps_to_zero": lambda learning_rate: round(1 / learning_rate),
    "pull": _pull_without_length,
}
