"""Times: how long each method takes for a pair."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from tqdm import tqdm

from lorarar.study.cells import Setting, tasks
from lorarar.study.methods import METHODS, find_method
from lorarar.study.training import seconds_since

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def times(
    run: Setting,
    methods: Sequence[str] | None = None,
    *,
    repeat: int = 5,
    slow_pairs: int = 1,
    pipe: DiffusionPipeline | None = None,
) -> dict[str, dict[str, float | int]]:
    """Measure how long each method takes from two LoRAs in memory to what it applies, all in one run.

    Methods that merge at once are measured ``repeat`` times on every pair, in turns, after one round that
    does not count; those that train for a pair once on each of the first ``slow_pairs``, from nothing.

    Returns:
        {method: {"median": seconds, "runs": how many}}.
    """
    names = [m for m in METHODS if not METHODS[m].reference] if methods is None else list(methods)
    known = {name: find_method(name, run.split) for name in names}
    spent: dict[str, list[float]] = {name: [] for name in known}
    todo = [replace(task, made=None) for task in tasks(run, None, pipe)]
    quick = {name: method for name, method in known.items() if not method.slow}
    with tqdm(
        total=(repeat + 1) * len(todo) * len(quick) + (len(known) - len(quick)) * min(slow_pairs, len(todo)),
        unit="merge",
        disable=not run.progress,
    ) as bar:
        for round_ in range(-1, repeat):
            for task, (name, method) in product(todo, quick.items()):
                began = time.perf_counter()
                method.merge(task, **method.options)
                if round_ >= 0:
                    spent[name].append(seconds_since(began))
                bar.update()
        for name, method in known.items():
            for task in todo[:slow_pairs] if method.slow else ():
                bar.set_description(name)
                began = time.perf_counter()
                method.merge(task, **method.options)
                spent[name].append(seconds_since(began))
                bar.update()
    return {name: {"median": statistics.median(all_), "runs": len(all_)} for name, all_ in spent.items()}
