"""The checks of chapter 6's exercises, and a plausible wrong answer to each."""

import copy
from collections.abc import Callable
from typing import Any

import torch

from lorarar import Hypernetwork


def check_ask(answer: Callable[..., Any]) -> None:
    """Ask a small network about a random layer."""
    source = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    student = Hypernetwork([8], 16)
    c, s = torch.randn(2, 4, 6, generator=source)
    found = answer(student, c, s)
    assert len(found) == 2 and all(m.shape == (6,) for m in found), (
        "two vectors, with one number for each *column* of the updates"
    )
    with torch.no_grad():
        one = student(torch.cat([c[:, 3], s[:, 3]]))
    assert torch.allclose(torch.stack(found)[:, 3].detach(), one, atol=1e-5), (
        "the subject's column comes first, and its coefficient too"
    )


def check_blind(answer: Callable[..., Any]) -> None:
    """Compare the twin's answers with the mean answer of the original, which must not change."""
    torch.manual_seed(2)
    student = Hypernetwork([8], 16)
    columns = 3 * torch.randn(50, 8)
    with torch.no_grad():
        before = student(columns)
        twin = answer(student, columns)
        said = twin(3 * torch.randn(20, 8))
        assert torch.equal(student(columns), before), "the original has changed"
        assert said.std(0).max() < 1e-5, "the twin still looks at its input"
        assert torch.allclose(said[0], before.mean(0), atol=1e-5), (
            "not the mean answer: the ReLU of a mean is not the mean of the ReLU"
        )


def _blind_too_early(network: Any, columns: torch.Tensor) -> Any:  # noqa: ANN401
    twin = copy.deepcopy(network)
    first = twin.inputs[str(columns.shape[1])]
    with torch.no_grad():
        first.bias.copy_(first(columns.mean(0)))
        first.weight.zero_()
    return twin


WRONG = {
    "ask": lambda network, c, s: tuple(network(torch.cat([s, c]).T).T),  # the style's column first
    "blind": _blind_too_early,
}
