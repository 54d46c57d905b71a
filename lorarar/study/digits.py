"""Verdicts as records have them: a string of 0 and 1."""

from __future__ import annotations

import numpy as np


def digits(said: np.ndarray) -> str:
    """Write verdicts, (n,) bool."""
    return "".join(str(int(yes)) for yes in said)


def from_digits(text: str) -> np.ndarray:
    """Read what `digits` wrote: (n,) bool."""
    return np.array(list(text)) == "1"
