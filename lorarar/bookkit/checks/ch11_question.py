"""Checks of chapter 11's exercises, and plausible wrong answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch


def check_stand(stand: Callable) -> None:
    """``stand(content, style)``: dense updates (out, in) to cosines (in,) and log ratios of norms (in,)."""
    generator = torch.Generator().manual_seed(0)
    content, style = (torch.randn(12, 5, generator=generator) for _ in range(2))
    style[:, 0] = 3 * content[:, 0]  # the same direction, three times as long
    style[:, 1] = -content[:, 1]
    cosine, ratio = stand(content, style)
    assert cosine.shape == ratio.shape == (5,), "one number a column: sum over the outputs, dim 0"
    assert abs(cosine[0] - 1) < 1e-4, "columns that point the same way have cosine 1, however long"
    assert abs(cosine[1] + 1) < 1e-4, "two columns that point opposite ways have cosine -1"
    assert abs(ratio[0] + np.log(3)) < 1e-4, "log(‖c‖ / ‖s‖): negative where the style's column is longer"
    assert abs(ratio[1]) < 1e-4, "columns of equal length have a log ratio of 0"
    turn = torch.linalg.qr(torch.randn(12, 12, generator=generator))[0]
    assert torch.allclose(stand(turn @ content, turn @ style)[0], cosine, atol=1e-4), (
        "turn all outputs alike and nothing may change"
    )


def check_survives(survives: Callable[..., float]) -> None:
    """``survives(known, known_blind, new, new_blind)``: the share of looking's gain that new LoRAs keep."""
    by_heart = survives(np.full(4, 0.3), np.full(4, 0.5), np.full(6, 0.5), np.full(6, 0.5))
    assert abs(by_heart) < 1e-9, "no gain on new LoRAs: nothing survives"
    rule = survives(np.full(4, 0.4), np.full(4, 0.6), np.full(6, 0.5), np.full(6, 0.6))
    assert abs(rule - 0.5) < 1e-9, "a gain of 0.2 on known and of 0.1 on new LoRAs: half survives"
    worse = survives(np.full(4, 0.4), np.full(4, 0.6), np.full(6, 0.7), np.full(6, 0.6))
    assert abs(worse + 0.5) < 1e-9, "a network that is worse than the blind one has a negative share"


def _by_dot(content: torch.Tensor, style: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (content * style).sum(0), (content.norm(dim=0) / style.norm(dim=0)).log()


def _ratio_of_errors(
    known: np.ndarray, known_blind: np.ndarray, new: np.ndarray, new_blind: np.ndarray
) -> float:
    return float(np.mean(known) / np.mean(new))


WRONG: dict[str, Callable] = {"stand": _by_dot, "survives": _ratio_of_errors}
"""One plausible wrong answer for each check."""
