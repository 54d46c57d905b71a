"""Tables: pure functions of verdicts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lorarar.judging import Entry, Verdicts, entry, heat_maps


def scoreboard(found: Mapping[str, Verdicts]) -> dict[str, dict[str, Entry]]:
    """Return each method's MARS² entries with 95 % intervals, which are of a bootstrap over the pairs.

    "average" and "best" (LoRA.rar, §4); and "subject" and "style", the average case of either axis alone.
    """
    return {
        method: {
            "average": entry(said.right, "average"),
            "best": entry(said.right, "best"),
            "subject": entry(said.subject, "average"),
            "style": entry(said.style, "average"),
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
