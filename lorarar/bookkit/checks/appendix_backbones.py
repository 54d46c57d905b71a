"""Checks of the exercise on where a student begins, and a plausible wrong answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

State = Mapping[str, Tensor]


def check_begin(begin: Callable[[State, State], State]) -> None:
    """``begin(teacher, student)``: the student's weights, the teacher's where name and shape agree."""
    teacher = {"a": torch.ones(2, 3), "b": torch.ones(4), "c": torch.ones(2, 2), "only here": torch.ones(1)}
    student = {"a": torch.zeros(2, 3), "b": torch.zeros(3), "c": torch.zeros(2, 2), "new": torch.zeros(5)}
    found = begin(teacher, student)
    assert set(found) == set(student), "the student's weights, no more and no fewer"
    assert all(found[name].shape == student[name].shape for name in student), (
        "a weight of another shape does not fit: the student keeps its own"
    )
    sums = {name: float(value.sum()) for name, value in found.items()}
    assert sums == {"a": 6, "b": 0, "c": 4, "new": 0}, "what fits is the teacher's, the rest the student's"
    assert float(student["a"].sum()) == 0, "the student that was given has changed: return new weights"


def _by_name(teacher: State, student: State) -> State:
    return {name: teacher.get(name, value) for name, value in student.items()}


WRONG: dict[str, Callable] = {"begin": _by_name}
