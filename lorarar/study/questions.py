"""Drawing the questions of a study among people from the experiment's images, with the pictures they show."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from lorarar.judging import Verdicts
from lorarar.study.cells import Setting, cell_of
from lorarar.study.images import read_cell
from lorarar.study.methods import find_method
from lorarar.study.orders import deliveries, references
from lorarar.study.survey import FORMS, SCENARIOS, Question
from lorarar.study.verdicts import verdicts

EXAMPLE = ("cat #1", "watercolor painting #4")
"""The worked example, a subject and a style of the training split: option 1 shows another cat."""


def draw(
    run: Setting,
    form: str,
    methods: Sequence[str] | None = None,
    scenarios: Sequence[str] = SCENARIOS,
    judge: str | None = "critic",
) -> tuple[list[Question], dict[str, bytes], dict[str, int]]:
    """Draw the questions of a study from the experiment's images.

    LoRA.rar's form asks once for each pair and scenario, ZipLoRA's about eight pairs for each rival. In the
    random scenario both methods show the image of the same noise. A pair is left out of the best scenario
    where one of the methods has no image that the judge found right; the paper had no such pair.

    Args:
        run: the setting, whose cells hold the images; its seed draws pairs and images.
        form: "lorarar" or "ziplora".
        methods: ours, then its rival (with ZipLoRA's form: its rivals); None takes the form's.
        scenarios: of LoRA.rar's form; ZipLoRA's shows random images.
        judge: the name under which `lorarar.study.verdicts.judged` kept verdicts; None asks no judge.

    Returns:
        The questions; the pictures, PNG files by their key; and {part: how many pairs were left out}.

    Raises:
        ValueError: images or verdicts are missing, there is no such form, scenario or method, or nothing is
            left to ask.
    """
    if form not in FORMS:
        raise ValueError(f"no form {form!r}: choose one of {', '.join(FORMS)}")
    asked = FORMS[form]
    methods = list(methods or asked.methods)
    for name in methods:
        find_method(name, run.split)
    if len(set(methods)) < len(methods) or len(methods) < 2 or (form == "lorarar" and len(methods) > 2):
        raise ValueError(
            f"--methods {' '.join(methods)}: expected {'two' if form == 'lorarar' else 'ours and its'} "
            f"different {'methods' if form == 'lorarar' else 'rivals'}"
        )
    if unknown := [name for name in scenarios if name not in SCENARIOS]:
        raise ValueError(f"no scenario {unknown[0]!r}: choose of {', '.join(SCENARIOS)}")
    if judge is None and "best" in scenarios and form == "lorarar":
        raise ValueError("the best scenario shows images that a judge found right: name a judge")
    said = verdicts(run, judge, methods) if judge else {}
    if form == "lorarar":
        parts = [(name, 0, methods[1], name) for name in dict.fromkeys(scenarios)]
    else:
        parts = [(rival, block, rival, "random") for block, rival in enumerate(methods[1:])]
    made = _Pictures(run)
    questions: list[Question] = []
    left_out: dict[str, int] = {}
    for part, block, rival, scenario in parts:
        rng = np.random.default_rng([run.seed, block, SCENARIOS.index(scenario)])
        both = (methods[0], rival)
        for p in _chosen(rng, len(run.pairs), asked.pairs):
            shown = _images(rng, scenario, p, both, said, run.count)
            if shown is None:
                left_out[part] = left_out.get(part, 0) + 1
                continue
            pair = run.pairs[p]
            pictures = (
                *(made.reference(name) for name in pair),
                *(made.image(method, pair, i) for method, i in zip(both, shown, strict=True)),
            )
            right = shares = None
            if said:
                right = tuple(bool(said[m].right[p, i]) for m, i in zip(both, shown, strict=True))
                shares = tuple(float(said[m].right[p].mean()) for m in both)
            seeds = tuple(run.seeds[i] for i in shown)
            questions.append(
                Question(len(questions), part, block, *pair, both, seeds, right, shares, pictures)
            )
    if not questions:
        raise ValueError("nothing to ask: the judge found no pair right for both methods")
    return questions, example() | made.found, left_out


def example() -> dict[str, bytes]:
    """Draw the worked example, as PNG files: a subject, a style, another subject in it, the subject in it."""
    subject, style = EXAMPLE
    right, other, *_ = deliveries(subject, style, np.random.default_rng(0))
    shown = (references(subject)[0], references(style)[0], other, right)
    return {f"example-{i}": png(picture) for i, picture in enumerate(shown)}


def png(picture: np.ndarray) -> bytes:
    """Return a picture (h, w, 3) uint8 as a PNG file."""
    file = BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def _chosen(rng: np.random.Generator, pairs: int, wanted: int | None) -> list[int]:
    """Return which pairs are asked about, in the split's order."""
    return list(range(pairs)) if wanted is None else sorted(rng.permutation(pairs)[:wanted].tolist())


def _images(
    rng: np.random.Generator,
    scenario: str,
    pair: int,
    methods: tuple[str, str],
    said: Mapping[str, Verdicts],
    count: int,
) -> tuple[int, int] | None:
    """Draw which image of a pair either method shows; None if one of them has none to show."""
    if scenario == "random":
        return (int(rng.integers(count)),) * 2
    right = [np.flatnonzero(said[m].right[pair]) for m in methods]
    if not all(len(found) for found in right):
        return None
    return int(rng.choice(right[0])), int(rng.choice(right[1]))


class _Pictures:
    """The pictures of a study, each kept once under a key that says nothing of what it shows."""

    def __init__(self, run: Setting) -> None:
        self.run, self.found = run, {}
        self.references: dict[str, str] = {}

    def reference(self, name: str) -> str:
        """Keep a picture of a subject or in a style that no LoRA was trained on."""
        if name not in self.references:
            self.references[name] = self._keep(references(name)[0])
        return self.references[name]

    def image(self, method: str, pair: tuple[str, str], i: int) -> str:
        """Keep a method's i-th image of a pair."""
        try:
            return self._keep(read_cell(cell_of(self.run, method, pair))[1][i])
        except ValueError as error:
            raise ValueError(
                f"{error}; make it with `lorarar study images --split {self.run.split}`"
            ) from error

    def _keep(self, picture: np.ndarray) -> str:
        content = png(picture)
        key = hashlib.sha256(content).hexdigest()[:24]
        self.found[key] = content
        return key
