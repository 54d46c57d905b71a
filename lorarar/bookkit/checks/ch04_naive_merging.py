"""Checks of chapter 4's exercises."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def check_density_for(answer: Callable[[float], float]) -> None:
    """``density_for(noise)``: the density at which DARE's squared error relative to ‖ΔW‖² is ``noise``."""
    assert abs(answer(1.0) - 0.5) < 1e-9, "at one half the noise equals the update"
    assert abs(answer(9.0) - 0.1) < 1e-9, "solve (1 - d) / d = noise: what is kept is also enlarged"
    assert abs(answer(0.0) - 1.0) < 1e-9, "no noise: nothing may be dropped"


def check_step_aside(answer: Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]) -> None:
    """``step_aside(up, down, style_down, share)``: the subject's factors after NP-LoRA's projection."""
    source = torch.Generator().manual_seed(2)
    b, a, a_s = (
        torch.randn(*shape, generator=source, dtype=torch.float64) for shape in ((6, 2), (2, 8), (3, 8))
    )
    q = torch.linalg.qr(a_s.T).Q
    up, down = answer(b, a, a_s, 1.0)
    assert up.shape == b.shape and down.shape == a.shape, (
        "the projection changes the factor that meets the input, and no shape"
    )
    assert (up @ down @ q).abs().max() < 1e-9, (
        "the rows of the style's A are not orthonormal: take an orthonormal basis of what they span"
    )
    up, down = answer(b, a, a_s, 0.25)
    assert torch.allclose(up @ down, b @ a - 0.25 * b @ a @ q @ q.T), (
        "a share of a quarter takes away a quarter of what the style reads"
    )


WRONG = {
    "density_for": lambda noise: 1 - 0.5 * noise,
    # As if the rows of the style's A were orthonormal.
    "step_aside": lambda up, down, style_down, share: (
        up,
        down - share * (down @ style_down.T) @ style_down,
    ),
}
