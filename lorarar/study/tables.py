"""Tables: pure functions of verdicts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lorarar.judging import Verdicts, heat_maps
from lorarar.study.statistics import Entry, crossed, grid


def scoreboard(found: Mapping[str, Verdicts], subjects: int) -> dict[str, dict[str, Entry]]:
    """Return each method's shares by a judge, with 95 % intervals over subjects and styles.

    "average" and "best" (LoRA.rar, §4); and "subject" and "style", the average case of either axis alone.

    Args:
        found: verdicts by method, the pairs of a subject next to each other.
        subjects: how many there are.
    """
    return {
        method: {
            "average": crossed(grid(said.right, subjects)),
            "best": crossed(grid(said.right, subjects, "best")),
            "subject": crossed(grid(said.subject, subjects)),
            "style": crossed(grid(said.style, subjects)),
        }
        for method, said in found.items()
    }


def agreement(one: Mapping[str, Verdicts], other: Mapping[str, Verdicts]) -> dict[str, float]:
    """Return how often two judges agree on the images of the methods both have judged, on either axis."""
    shared = [method for method in one if method in other]
    if not shared:
        raise ValueError("the judges have no method in common")
    return {
        axis: float(np.mean([getattr(one[m], axis) == getattr(other[m], axis) for m in shared]))
        for axis in ("subject", "style", "right")
    }


def maps(said: Verdicts, subjects: int) -> tuple[np.ndarray, np.ndarray]:
    """Return figure A7's two heat maps of a method, average and best case, each (subjects, styles)."""
    return heat_maps(said.right.reshape(subjects, -1, said.right.shape[1]))
