"""The judge on trial: the same questions in other words, other orders, with other numbers of references.

A judge answers on drawings whose truth is known, and on merged pictures of a recorded experiment. From its
verdicts follow how often each variant is right, how often two agree, and whether they rank methods alike.
Intervals on drawings are over the named things, those on pictures over subjects and styles.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from lorarar.atomic import atomic
from lorarar.judging import WORDINGS, Ask, Axis, judges, majority, votes
from lorarar.pipelines import quiet
from lorarar.scales import Scale, local
from lorarar.shoebox import zoo
from lorarar.study.digits import digits, from_digits
from lorarar.study.statistics import Entry, crossed, independent, rank_agreement
from lorarar.study.verdicts import find_judge

with quiet():
    from lorarar.shoebox.models.asking import Miniature, is_miniature
    from lorarar.shoebox.models.examination import Case, cases, kappa

AXES: tuple[Axis, ...] = ("subject", "style")
CONTROLS = ("base", "content", "style")
"""What merges nothing, and is not shown."""


REFERENCES = 3
"""An odd number: no vote is a tie."""


class Variant(NamedTuple):
    """A way to judge: in which words, with how many references, drawn at which temperature, which draw."""

    wording: str = "paper"
    references: int = REFERENCES
    temperature: float = 0.0
    draw: int = 0

    @property
    def name(self) -> str:
        """What a record calls it: by what differs from the paper's."""
        if self.temperature:
            return f"temperature {self.temperature:g}, draw {self.draw}"
        if self.references != REFERENCES:
            return f"{self.references} reference{'s' if self.references > 1 else ''}"
        return self.wording


PAPER = Variant()
COUNTS = (PAPER, *(Variant(references=count) for count in (1, 2, 4)))
"""What can be varied of a judge without words."""
VARIANTS = (
    *(Variant(wording) for wording in WORDINGS),
    *COUNTS[1:],
    *(Variant(temperature=0.7, draw=draw) for draw in range(2)),
)

Says = Callable[[Axis, np.ndarray, np.ndarray, str], np.ndarray]
"""Verdicts: axis, references (r, h, w, 3), images (n, h, w, 3), the style's words → (n,) bool."""


def texts(wording: str) -> list[list[str]]:
    """Return the two prompts of a wording, the images' places as empty texts."""
    return [[part if isinstance(part, str) else "" for part in parts] for parts in WORDINGS[wording][:2]]


def in_words(ask: Ask) -> Says:
    """Return the verdicts of a judge that is asked; references vote, and a tie says no."""
    return lambda axis, references, images, words: majority(votes(ask, axis, references, images, words))


class Verdicts(NamedTuple):
    """What one variant says: of drawings {name: (n,)}, of pictures {axis: (pairs, methods)}; all bool."""

    drawings: dict[str, np.ndarray]
    pictures: dict[Axis, np.ndarray]


def hear(
    says: Says,
    references: int,
    drawn: Sequence[Case],
    pairs: Sequence[tuple[str, str]],
    pictures: np.ndarray,
) -> Verdicts:
    """Let one variant of a judge see everything.

    Args:
        says: the judge.
        references: how many it is shown of each thing.
        drawn: cases with a known truth.
        pairs: (subject, style), for each row of the pictures.
        pictures: (pairs, methods, h, w, 3) uint8.
    """
    drawings = {
        case.name: says(case.axis, case.references[:references], case.images, case.words) for case in drawn
    }
    found = {}
    for side, axis in enumerate(AXES):
        said = np.zeros(pictures.shape[:2], bool)
        for name in dict.fromkeys(pair[side] for pair in pairs):
            rows = [i for i, pair in enumerate(pairs) if pair[side] == name]
            shown = pictures[rows].reshape(-1, *pictures.shape[2:])
            words = zoo.family(name) if axis == "style" else ""
            known = zoo.pictures(name, seed=1)[0][:references]
            said[rows] = says(axis, known, shown, words).reshape(len(rows), -1)
        found[axis] = said
    return Verdicts(drawings, found)


class Tried(NamedTuple):
    """A judge on trial: what its verdicts depend on, its variants, and how to get a variant's verdicts."""

    digest: str
    variants: Sequence[Variant]
    says: Callable[[Variant], Says]


def tried(
    judges: Mapping[str, Tried],
    drawn: Sequence[Case],
    pairs: Sequence[tuple[str, str]],
    pictures: np.ndarray,
    kept: Path,
    progress: bool = True,
) -> dict[str, dict[str, Verdicts]]:
    """Let every variant of every judge see everything: {judge: {variant: verdicts}}.

    kept: a folder for verdicts, so that a trial that was stopped goes on where it was.
    """
    shown = hashlib.sha256(pictures.tobytes() + b"".join(case.images.tobytes() for case in drawn))
    shown.update(json.dumps([pairs, [case.name for case in drawn]]).encode())
    found: dict[str, dict[str, Verdicts]] = {}
    count = sum(len(judge.variants) for judge in judges.values())
    with tqdm(total=count, desc="wordings", unit="variant", disable=not progress) as bar:
        for name, judge in judges.items():
            found[name] = {}
            for variant in judge.variants:
                mark = json.dumps([judge.digest, shown.hexdigest(), variant, texts(variant.wording)])
                file = kept / f"{hashlib.sha256(mark.encode()).hexdigest()[:24]}.json"
                if not file.is_file():
                    said = hear(judge.says(variant), variant.references, drawn, pairs, pictures)
                    kept.mkdir(parents=True, exist_ok=True)
                    with atomic(file) as aside:
                        aside.write_text(json.dumps(written(said)))
                found[name][variant.name] = from_record(json.loads(file.read_text()))
                bar.update()
    return found


def find(name: str, scale: Scale, device: str | None = None) -> Tried:
    """Return a judge to be tried: ``critic``, which has no words, ``mars2``, or ``mars2=SOURCE``.

    Raises:
        ValueError: unknown judge, or its model is missing.
    """
    kind, _, source = name.partition("=")
    source = source or str(local(scale.judge))
    known = find_judge(name, scale, device)  # refuses what is no judge, and says what it depends on
    if kind == "critic":
        critic = zoo.load_critic()
        return Tried(
            known.digest, COUNTS, lambda _: lambda axis, refs, images, _words: critic.same(axis, refs, images)
        )
    if is_miniature(source):
        eyes = Miniature(source, device)
        return Tried(
            known.digest, VARIANTS, lambda v: in_words(eyes.asks(v.wording, v.temperature, seed=v.draw))
        )

    def says(variant: Variant) -> Says:
        torch.manual_seed(variant.draw)
        asked = {"wording": variant.wording, "temperature": variant.temperature}
        return in_words(judges.find_judge(source, device=device, **asked))

    return Tried(known.digest, VARIANTS, says)


def trial(
    judges: Mapping[str, Tried],
    run: Mapping[str, Any],
    pictures: np.ndarray,
    *,
    kept: Path,
    each: int = 3,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Try judges on drawings and on the pictures of a recorded experiment.

    Args:
        judges: {name: judge}.
        run: the experiment: its subjects, styles and methods.
        pictures: one for each of its pairs and methods, (pairs, methods, h, w, 3) uint8.
        kept: see `tried`.
        each: right drawings of each named thing, and as many wrong ones.
        seed: of the drawings.
        progress: show a bar.

    Returns:
        {"each", "seed", "methods", "split", "subjects", "styles", "verdicts": {judge: {variant: see
        `written`}}, "compared": {judge: {variant: see `compared`}}, "between": {"one, other": the same
        for the paper's way to ask}}.
    """
    if each < 1:
        raise ValueError(f"each must be at least 1, not {each}")
    drawn = cases(each, seed)
    methods, subjects = [m for m in run["methods"] if m not in CONTROLS], len(run["subjects"])
    pictures = pictures[:, [run["methods"].index(m) for m in methods]]
    pairs = [(subject, style) for subject in run["subjects"] for style in run["styles"]]
    found = tried(judges, drawn, pairs, pictures, kept, progress)
    fixed = (drawn, subjects, methods)
    return {
        "each": each,
        "seed": seed,
        "methods": methods,
        **{key: run[key] for key in ("split", "subjects", "styles")},
        "verdicts": {name: {v: written(said) for v, said in by.items()} for name, by in found.items()},
        "compared": {
            name: {v: compared(said, by[PAPER.name], *fixed) for v, said in by.items()}
            for name, by in found.items()
        },
        "between": {
            f"{one}, {other}": compared(found[other][PAPER.name], found[one][PAPER.name], *fixed)
            for one, other in combinations(found, 2)
        },
    }


# --- measures -----------------------------------------------------------------------------------------
def accuracy(said: Mapping[str, np.ndarray], drawn: Sequence[Case], axis: Axis) -> np.ndarray:
    """Return the share of right verdicts on each named thing of an axis, (names,).

    As many of a case's images show the thing as do not, so that the mean is the balanced accuracy.
    """
    return np.array([(said[case.name] == case.yes).mean() for case in drawn if case.axis == axis])


def swapped(one: np.ndarray, other: np.ndarray, methods: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of methods (better, worse) by `one` that `other` puts the other way round.

    one, other: scores (methods, …), whose means rank the methods; ties are no order.
    """
    means = [scores.reshape(len(scores), -1).mean(1) for scores in (one, other)]
    found = []
    for a, b in combinations(range(len(methods)), 2):
        gaps = [float(mean[a] - mean[b]) for mean in means]
        if gaps[0] * gaps[1] < 0:
            found.append((methods[a], methods[b]) if gaps[0] > 0 else (methods[b], methods[a]))
    return found


def ranked(said: Verdicts, subjects: int) -> np.ndarray:
    """Return whether each picture is right in both, as scores (methods, subjects, styles)."""
    right = said.pictures["subject"] & said.pictures["style"]
    return right.T.reshape(right.shape[1], subjects, -1).astype(float)


def compared(
    said: Verdicts,
    paper: Verdicts,
    drawn: Sequence[Case],
    subjects: int,
    methods: Sequence[str],
) -> dict[str, Any]:
    """Compare a variant with the paper's way to ask.

    Args:
        said: the variant's verdicts.
        paper: those of the paper's way.
        drawn: the cases.
        subjects: of the pictures' pairs.
        methods: of the pictures' columns.

    Returns:
        For each axis the balanced accuracy on drawings, how it differs from the paper's way on the same
        things, the share of equal verdicts on the pictures and Cohen's κ; "rank correlation" of the methods
        by how many pictures are right, and "swapped", see `swapped`. Shares have intervals.
    """
    found: dict[str, Any] = {}
    for axis in AXES:
        here, there = (accuracy(v.drawings, drawn, axis) for v in (said, paper))
        one, other = said.pictures[axis], paper.pictures[axis]
        same = (one == other).mean(1).reshape(subjects, -1)
        found[axis] = {
            "balanced accuracy": rounded(independent(here)),
            "less the paper's": rounded(independent(here - there)),
            "agreement": rounded(crossed(same)),
            "kappa": round(kappa(one, other), 3),
        }
    one, other = (ranked(v, subjects) for v in (said, paper))
    found["right"] = round(float(one.mean()), 4)
    found["rank correlation"] = rounded(rank_agreement(one, other))
    found["swapped"] = swapped(other, one, methods)
    return found


def rounded(entry: Entry) -> list[float]:
    """Return an entry as a record has it: value, low, high."""
    return [round(float(x), 4) for x in entry]


def written(said: Verdicts) -> dict[str, Any]:
    """Return verdicts as a record has them: strings of 0 and 1, a row of pictures for each pair."""
    return {
        "drawings": {name: digits(row) for name, row in said.drawings.items()},
        "pictures": {axis: [digits(row) for row in rows] for axis, rows in said.pictures.items()},
    }


def from_record(values: Mapping[str, Any]) -> Verdicts:
    """Return the verdicts that `written` wrote."""
    drawings = {name: from_digits(row) for name, row in values["drawings"].items()}
    pictures = {axis: np.array([from_digits(row) for row in values["pictures"][axis]]) for axis in AXES}
    return Verdicts(drawings, pictures)
