"""The recorded sums of chapter 3, and the experiment's methods on the same pairs with the same noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lorarar import merge
from lorarar.bookkit import board as boards
from lorarar.bookkit import records
from lorarar.pipelines import generate, loaded
from lorarar.shoebox import zoo
from lorarar.study import statistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusers import DiffusionPipeline

    from lorarar.shoebox.models.critic import Critic

Weights = tuple[float, float]
FULL, EVEN, SUBJECT_FIRST, STYLE_FIRST = (1.0, 1.0), (0.7, 0.7), (1.0, 0.5), (0.5, 1.0)
AXES = ("subject", "style")


def pairs_of(scale: str) -> list[tuple[str, str]]:
    """Return the pairs of the recorded sums, the styles of a subject together."""
    run = records.recorded(f"first_sums{records.suffix(scale)}")["of"]
    return [(row["subject"], row["style"]) for row in run["pairs"]]


def sums(scale: str) -> dict[Weights, dict[str, np.ndarray]]:
    """Return the verdicts on every recorded sum: {weights: {"subject", "style", "both": (pairs, images)}}."""
    run = records.recorded(f"first_sums{records.suffix(scale)}")["of"]
    by_axis = {axis: np.array([row[f"{axis} right"] for row in run["pairs"]], bool) for axis in AXES}
    by_axis["both"] = by_axis["subject"] & by_axis["style"]
    return {
        tuple(w): {axis: right[:, i] for axis, right in by_axis.items()} for i, w in enumerate(run["weights"])
    }


def rivals(scale: str, methods: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """Return the verdicts on methods of the experiment, on the same pairs with the same noise, as `sums`."""
    board = boards.load("validation", scale)
    rows = [board.pairs.index(pair) for pair in pairs_of(scale)]
    count = sums(scale)[FULL]["both"].shape[1]
    axes = {"subject": "subject", "style": "style", "both": "right"}
    return {m: {name: board.of(m, axis)[rows, :count] for name, axis in axes.items()} for m in methods}


def shared(scale: str, methods: Sequence[str]) -> dict[Weights | str, np.ndarray]:
    """Return shares right on the images that sums and methods have in common, each (subjects, styles).

    Sums go by their weights, methods by their names.
    """
    many = len({subject for subject, _ in pairs_of(scale)})
    verdicts: dict[Weights | str, dict[str, np.ndarray]] = {**sums(scale), **rivals(scale, methods)}
    return {name: statistics.grid(right["both"], many) for name, right in verdicts.items()}


def alone(scale: str) -> dict[str, float]:
    """Return how often a LoRA by itself, asked for itself, is right, on average over each kind."""
    singles = records.recorded(f"first_loras{records.suffix(scale)}")["of"].values()
    return {axis: float(np.mean([row["lora"] for row in singles if row["axis"] == axis])) for axis in AXES}


def drawn(critic: Critic, pairs: Sequence[tuple[str, str]], count: int, seed: int) -> dict[str, float]:
    """Return how often the critic passes true drawings of the pairs: by subject, by style, on both axes."""
    verdicts = []
    for subject, style in pairs:
        images = zoo.targets(subject, style, count, seed)
        a, b = zoo.shows(critic, subject, images), zoo.shows(critic, style, images)
        verdicts.append((a, b, a & b))
    return dict(zip((*AXES, "both"), np.mean(verdicts, (0, 2)), strict=True))


def again(pipe: DiffusionPipeline, critic: Critic, pair: tuple[str, str], scale: str) -> float:
    """Make recorded pictures of a pair's sums again; return the share of verdicts that are the record's."""
    run = records.recorded(f"first_sums{records.suffix(scale)}")
    content, style = (zoo.load(name, scale) for name in pair)
    seeds = [1000 * run.provenance["seed"] + i for i in range(run["count"])]
    row, same = pairs_of(scale).index(pair), []
    for w in (EVEN, FULL):
        merged = merge(content, style, "direct", content_weight=w[0], style_weight=w[1])
        with loaded(pipe, merged):
            images = generate(pipe, zoo.words(*pair), seeds)
        for name, axis in zip(pair, AXES, strict=True):
            same.append(zoo.shows(critic, name, images) == sums(scale)[w][axis][row])
    return float(np.mean(same))
