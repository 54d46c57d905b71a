"""The checks of chapter 7's exercises, and a plausible wrong answer to each."""

from collections.abc import Callable, Sequence
from typing import Any

import torch


def check_between(answer: Callable[..., Any]) -> None:
    """Vectors whose variance lies between them, within them, and in both places."""
    assert abs(answer([torch.zeros(3), torch.ones(3)]) - 1) < 1e-6, (
        "two flat layers: all of the variance lies between them"
    )
    assert abs(answer([torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])])) < 1e-6, (
        "equal means: nothing lies between them"
    )
    found = answer([torch.tensor([0.0, 2.0]), torch.full((6,), 3.0)])
    assert abs(found - 3 / 4) < 1e-6, "a layer counts by its columns: weigh each mean by the layer's width"


def check_kept(answer: Callable[..., Any]) -> None:
    """Compare with the dense update."""
    source = torch.Generator().manual_seed(1)
    up, down = torch.randn(6, 2, generator=source), torch.randn(2, 5, generator=source)
    m = torch.tensor([0.0, 1.0, 0.5, -1.0, 2.0])
    whole, weighed = up @ down, (up @ down) * m
    wanted = float(weighed.square().sum() / whole.square().sum())
    assert abs(answer(up, down, torch.full((5,), 0.5)) - 0.25) < 1e-5, (
        "energy is a square: half of everything is a quarter of the energy"
    )
    assert abs(answer(up, down, m) - wanted) < 1e-5, (
        "columns differ in strength: the mean of the squares is not enough"
    )


def _between_unweighted(vectors: Sequence[torch.Tensor]) -> float:
    means = torch.stack([v.mean() for v in vectors])
    return float(means.var(correction=0) / torch.cat(vectors).var(correction=0))


WRONG = {
    "between": _between_unweighted,
    "kept": lambda up, down, m: float((m**2).mean()),
}
