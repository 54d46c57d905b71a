"""Chapter 8: the checks of its exercises."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def check_weigh(answer: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    """``weigh(up, down, m)``: factors of BA·diag(m)."""
    source = torch.Generator().manual_seed(1)
    b, a = torch.randn(4, 2, generator=source), torch.randn(2, 4, generator=source)
    m = torch.tensor([0.0, 1.0, 2.0, -1.0])
    up, down = answer(b, a, m)
    assert up.shape == b.shape and down.shape == a.shape, (
        "the factors keep their shapes: nothing dense is formed"
    )
    assert torch.allclose(up @ down, (b @ a) * m, atol=1e-6), (
        "columns of the update are inputs of the layer: which factor meets them?"
    )


def check_diagnose(answer: Callable[[Tensor, Tensor, Tensor], tuple[float, float, float]]) -> None:
    """``diagnose(update, content, style)``: the two weights, and the share that no weights explain."""
    source = torch.Generator().manual_seed(3)
    c = torch.randn(6, 5, generator=source)
    s = torch.randn(6, 5, generator=source) + 0.5 * c
    w_c, w_s, rest = answer(0.5 * c + 0.25 * s, c, s)
    assert abs(w_c - 0.5) < 1e-4 and abs(w_s - 0.25) < 1e-4, (
        "content and style overlap: look for both weights at once"
    )
    assert rest < 1e-4, "a weighted sum leaves no rest"
    more = torch.randn(6, 5, generator=source)
    assert answer(c + s + more, c, s)[2] > 0.2, "cross terms are no weighted sum"


def _apart(update: Tensor, content: Tensor, style: Tensor) -> tuple[float, float, float]:
    w_c = (update * content).sum() / content.square().sum()
    w_s = (update * style).sum() / style.square().sum()
    rest = update - w_c * content - w_s * style
    return float(w_c), float(w_s), float(rest.norm() / update.norm())


WRONG = {
    "weigh": lambda up, down, m: (up * m[:, None], down),
    "diagnose": _apart,
}
