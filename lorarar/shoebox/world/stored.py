"""Arrays that are drawn in parallel once and then read back from a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lorarar.atomic import atomic


def stored(
    file: Path,
    draw: Callable[[tuple[int, range]], tuple[np.ndarray, ...]],
    seed: int,
    count: int,
    chunk: int,
    names: tuple[str, ...],
    workers: int | None = None,
) -> tuple[np.ndarray, ...]:
    """Read the arrays `names` from an npz `file`; where there is none, draw `count` items and write it.

    draw((seed, indices)) gives the arrays of some items, one after the other along the first axis; processes
    draw `chunk` items at a time, and the result does not depend on how many processes there are.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        jobs = [(seed, range(i, min(i + chunk, count))) for i in range(0, count, chunk)]
        with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
            drawn = list(tqdm(pool.map(draw, jobs), "draw", len(jobs), unit="chunk"))
        whole = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
        with atomic(file) as aside, aside.open("wb") as stream:
            np.savez(stream, **dict(zip(names, whole, strict=True)))
    saved = np.load(file)
    return tuple(saved[name] for name in names)
