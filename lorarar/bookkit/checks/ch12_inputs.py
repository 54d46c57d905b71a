"""Checks of chapter 12's exercises, and plausible wrong answers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _case(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two updates (4, 6), and two sets of inputs (50, 6)."""
    draw = torch.Generator().manual_seed(seed)
    updates = [torch.randn(4, 6, generator=draw).double() for _ in range(2)]
    inputs = [
        torch.randn(50, 6, generator=draw).double() @ torch.randn(6, 6, generator=draw).double()
        for _ in range(2)
    ]
    return updates[0], updates[1], inputs[0], inputs[1]


def _moment(x: Tensor) -> Tensor:
    return x.T @ x / len(x)


def check_closed(closed: Callable[..., Tensor]) -> None:
    """``closed(delta_c, delta_s, g_c, g_s)``: the update (out, in) that answers both sets of inputs best."""
    delta_c, delta_s, x, y = _case(0)
    found = closed(delta_c, delta_s, _moment(x), _moment(y))
    assert found.shape == delta_c.shape, "an update of the same shape: (out, in)"
    same = closed(delta_c, delta_s, _moment(x), _moment(x))
    assert torch.allclose(same, (delta_c + delta_s) / 2), "if both are given the same, it is the average"
    answers = torch.cat([x @ delta_c.T, y @ delta_s.T])
    expected = torch.linalg.lstsq(torch.cat([x, y]), answers).solution.T
    assert torch.allclose(found, expected), "it is not the least-squares answer: mind on which side G stands"


def check_left(left: Callable[..., Tensor]) -> None:
    """``left(update, delta_c, delta_s, g_c, g_s)``: the mean squared gap on both sides' inputs, summed."""
    delta_c, delta_s, x, y = _case(1)
    moments = _moment(x), _moment(y)
    update = (delta_c + delta_s) / 2
    expected = sum(
        ((update - delta) @ inputs.T).square().sum(0).mean() for delta, inputs in ((delta_c, x), (delta_s, y))
    )
    found = float(left(update, delta_c, delta_s, *moments))
    assert abs(found - float(expected)) < 1e-6 * float(expected), "E‖D x‖² is the trace of D G Dᵀ"
    assert abs(float(left(delta_c, delta_c, delta_c, *moments))) < 1e-9, "no gap, nothing left"


def _by_norms(delta_c: Tensor, delta_s: Tensor, g_c: Tensor, g_s: Tensor) -> Tensor:
    share = g_c.diagonal() / (g_c + g_s).diagonal()  # one coefficient a column
    return delta_c * share + delta_s * (1 - share)


def _without_inputs(update: Tensor, delta_c: Tensor, delta_s: Tensor, g_c: Tensor, g_s: Tensor) -> Tensor:
    return (update - delta_c).square().sum() + (update - delta_s).square().sum()


WRONG: dict[str, Callable] = {"closed": _by_norms, "left": _without_inputs}
"""One plausible wrong answer for each check."""
