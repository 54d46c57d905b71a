"""How new is a LoRA, and does that foretell a bad merge? Distances between updates, beside the error ρ.

Two LoRAs are compared by the cosine of all their updates as one long vector; a LoRA is as new as it is far
from the nearest training LoRA of its kind. `SIGNS` are what can be read from two files before anything is
drawn; `foretold` says how well each of them orders pairs by the error of their merge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lorarar.lora import LoRA, norm
from lorarar.shoebox import zoo
from lorarar.study.cells import Setting, adapters
from lorarar.study.statistics import Entry, rank_correlation

DRAWS = 2000


def inner(one: LoRA, other: LoRA) -> float:
    """Return the inner product ⟨ΔW₁, ΔW₂⟩ of two LoRAs over the layers they share, from their factors.

    tr((B₁A₁)ᵀB₂A₂) = sum of (B₁ᵀB₂) ⊙ (A₁A₂ᵀ): no update is ever formed.
    """
    total = 0.0
    for layer in one.keys() & other.keys():
        (up, down), (up2, down2) = one[layer], other[layer]
        total += float(((up.float().T @ up2.float()) * (down.float() @ down2.float().T)).sum())
    return total


def size(lora: LoRA) -> float:
    """Return the Frobenius norm of all updates of a LoRA together."""
    return float(np.sqrt(sum(norm(pair) ** 2 for pair in lora.values())))


def likeness(one: LoRA, other: LoRA) -> float:
    """Return the cosine of two LoRAs, of all their updates as one vector."""
    return inner(one, other) / max(size(one) * size(other), 1e-30)


def nearest(lora: LoRA, known: Mapping[str, LoRA]) -> tuple[str, float]:
    """Return which of some LoRAs is most like this one, and how like."""
    name = max(known, key=lambda name: likeness(lora, known[name]))
    return name, likeness(lora, known[name])


SIGNS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any], float], float]] = {
    "newness of the subject": lambda subject, style, like: 1 - subject["likeness"],
    "newness of the style": lambda subject, style, like: 1 - style["likeness"],
    "likeness of the two": lambda subject, style, like: like,
    "size of the subject": lambda subject, style, like: subject["size"],
    "size of the style": lambda subject, style, like: style["size"],
    "how unequal the two are": lambda subject, style, like: abs(np.log(subject["size"] / style["size"])),
}
"""What two files say of a pair: its subject's facts, its style's, and their likeness → a number."""


def facts(loras: Mapping[str, LoRA], known: Mapping[str, LoRA]) -> dict[str, dict[str, Any]]:
    """Return of each LoRA its size, which of the known ones is nearest, and their likeness."""
    found = {}
    for name, lora in loras.items():
        other, like = nearest(lora, known)
        found[name] = {"size": size(lora), "nearest": other, "likeness": like}
    return found


def signs(
    subjects: Mapping[str, LoRA],
    styles: Mapping[str, LoRA],
    of: Mapping[str, Mapping[str, Any]],
) -> dict[str, np.ndarray]:
    """Return every sign of every pair: {sign: (subjects, styles)}; ``of`` are `facts` of both."""
    like = {(a, b): likeness(one, other) for a, one in subjects.items() for b, other in styles.items()}
    return {
        sign: np.array([[read(of[a], of[b], like[a, b]) for b in styles] for a in subjects])
        for sign, read in SIGNS.items()
    }


def foretold(sign: np.ndarray, error: np.ndarray, draws: int = DRAWS, seed: int = 0) -> Entry:
    """Return Spearman's correlation of a sign with the error over pairs, its interval by subjects and styles.

    Args:
        sign: (subjects, styles).
        error: likewise.
        draws: how often subjects and styles are drawn anew, each for itself.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws):
        rows, columns = (rng.integers(n, size=n) for n in sign.shape)
        again = np.ix_(rows, columns)
        drawn.append(rank_correlation(sign[again].ravel(), error[again].ravel()))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Entry(rank_correlation(sign.ravel(), error.ravel()), float(low), float(high))


def contrast(error: np.ndarray, new: np.ndarray, draws: int = DRAWS, seed: int = 0) -> Entry:
    """Return by how much new subjects are merged worse than others, its interval by subjects and styles.

    Args:
        error: of each pair, (subjects, styles).
        new: bool (subjects,), not all equal; subjects are drawn anew within each group, styles for both.
        draws: how often.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    groups = error[new], error[~new]
    drawn = []
    for _ in range(draws):
        columns = rng.integers(error.shape[1], size=error.shape[1])
        one, other = (of[rng.integers(len(of), size=len(of))][:, columns].mean() for of in groups)
        drawn.append(one - other)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Entry(float(groups[0].mean() - groups[1].mean()), float(low), float(high))


def kinship(loras: Mapping[str, LoRA], kind: Callable[[str], str]) -> dict[str, list[float]]:
    """Return the likeness of all couples: of one kind, such as two dogs, and of two kinds."""
    found: dict[str, list[float]] = {"one kind": [], "two kinds": []}
    names: Sequence[str] = list(loras)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            which = "one kind" if kind(one) == kind(other) else "two kinds"
            found[which].append(likeness(loras[one], loras[other]))
    return found


def measured(run: Setting, errors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Measure how new the LoRAs of a run are, how like the training ones each other, and what that foretells.

    Args:
        run: of subjects and styles that no network was trained on.
        errors: row → ρ of the merges of the run's pairs, (subjects, styles), a mean over trainings.

    Returns:
        {"of": `facts` of each LoRA; "kinship": {"subject" or "style": `kinship` of the training LoRAs};
        "foretold": {row: {sign: correlation with its ρ}}}.
    """
    taught = [adapters(names, zoo.folder(run.scale), run.scale) for names in zoo.split("train")]
    sides = [adapters(names, run.loras, run.scale, run.world) for names in (run.subjects, run.styles)]
    of = {k: v for side, known in zip(sides, taught, strict=True) for k, v in facts(side, known).items()}
    read = signs(*sides, of)
    return {
        "of": of,
        "kinship": {"subject": kinship(taught[0], zoo.class_of), "style": kinship(taught[1], zoo.family)},
        "foretold": {
            row: {sign: foretold(values, error) for sign, values in read.items()}
            for row, error in errors.items()
        },
    }
