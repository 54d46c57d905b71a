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


def check_solve(answer: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    """``solve(delta_c, delta_s, x_c, x_s)``: the minimum of both lessons of one layer."""
    source = torch.Generator().manual_seed(5)
    d_c, d_s = torch.randn(2, 4, 3, generator=source, dtype=torch.float64)
    x_c, x_s = torch.randn(2, 20, 3, generator=source, dtype=torch.float64)

    def error(m_c: Tensor, m_s: Tensor) -> Tensor:
        merged = d_c * m_c + d_s * m_s
        return sum((x @ (merged - own).T).square().sum() for x, own in ((x_c, d_c), (x_s, d_s)))

    m_c, m_s = (x.detach().clone().requires_grad_() for x in answer(d_c, d_s, x_c, x_s))
    assert m_c.shape == (3,) and m_s.shape == (3,), "one number for each column"
    slopes = torch.autograd.grad(error(m_c, m_s), (m_c, m_s))
    assert max(slope.abs().max() for slope in slopes) < 1e-6, (
        "not a minimum of both lessons together: stack the two into one system, whose unknowns are all "
        "coefficients of both sides"
    )
    apart = answer(d_c, d_s, x_c * torch.tensor([1.0, 1, 0]), x_s * 0)
    assert torch.allclose(apart[0][:2], torch.ones(2).double(), atol=1e-6), (
        "where the style never speaks, the subject's columns stay whole"
    )


def _pull_without_length(m_c: Tensor, m_s: Tensor, measure: str) -> Tensor:
    return -m_s if measure == "dot" else -m_s / (m_c.norm() * m_s.norm())


def _halves(delta_c: Tensor, delta_s: Tensor, x_c: Tensor, x_s: Tensor) -> tuple[Tensor, Tensor]:
    half = torch.full((delta_c.shape[1],), 0.5, dtype=delta_c.dtype)
    return half, half.clone()


WRONG = {
    "steps_to_zero": lambda learning_rate: round(1 / learning_rate),
    "pull": _pull_without_length,
    "solve": _halves,
}
