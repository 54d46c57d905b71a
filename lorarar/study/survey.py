"""What people are asked: two images of one order, and which of them is better.

The forms are the papers': LoRA.rar's (arXiv 2412.05148, supplement A1.2) and ZipLoRA's (arXiv 2311.13600,
supplement 4). The questions are drawn once, so that all participants see the same ones; their order, and
which image stands left, are each participant's own and follow from the link alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SCENARIOS = ("random", "best")
"""Any image of a pair, or one that the judge found right (LoRA.rar, A1.2)."""

CHOICES = ("first", "similar", "second")
"""An answer, by method and not by side: the question's first method, neither, its second."""


@dataclass(frozen=True)
class Form:
    """How a paper asked.

    ``buttons`` are the words for the left image, for "similar" (None: there is no such button) and for the
    right one. ``pairs`` is how many pairs each study has, None all of the split.
    """

    instruction: str
    question: str
    buttons: tuple[str, str | None, str]
    methods: tuple[str, ...]
    pairs: int | None


FORMS = {
    "lorarar": Form(
        "Your task is to evaluate which of two generated images better represents the given subject and "
        "style – or if they are similarly good. You are provided with an image showing the subject (e.g. "
        "black cat) and an image showing the image style (e.g. van Gogh style painting), and two generated "
        "images such as in the example below. In this example you would select option 2 as better because it "
        "shows a cat that looks like the one in the subject image, and both images follow the style.",
        "Which of the two images better represents the given subject and style?",
        ("Option 1", "Similar", "Option 2"),
        ("lorarar", "ziplora"),
        None,
    ),
    "ziplora": Form(
        "You are shown a reference subject and a reference style along with outputs of two methods. Say "
        "which output best depicts the reference style while preserving the reference subject fidelity.",
        "Which output best depicts the reference style while preserving the reference subject fidelity?",
        ("A", None, "B"),
        ("ziplora", "direct", "joint", "ties", "k-lora", "lorarar"),
        8,
    ),
}
"""LoRA.rar's form, its instruction word for word; ZipLoRA's, whose words are the paper's account of it. Of
ZipLoRA's five rivals two are among the methods here; three others stand in for the rest."""


@dataclass(frozen=True)
class Question:
    """One comparison: the first method's image of a pair with the second's.

    ``part`` is the scenario, or the rival in ZipLoRA's form; parts with one ``block`` are mixed, blocks
    follow one another. ``seeds`` made the two images; ``right`` is the judge's verdict on either, ``shares``
    the judge's share of right images among all that the method made of this pair (None: no judge was asked).
    ``pictures`` are the keys of the subject's, the style's and the two methods' pictures.
    """

    id: int
    part: str
    block: int
    subject: str
    style: str
    methods: tuple[str, str]
    seeds: tuple[int, int]
    right: tuple[bool, bool] | None
    shares: tuple[float, float] | None
    pictures: tuple[str, str, str, str]


def order(token: str, questions: Iterable[Question]) -> list[tuple[Question, bool]]:
    """Return a participant's questions in their order, each with whether the second method stands left.

    Both follow from hashes of the link's token and the question, so that they are the same on every machine
    and after every restart.
    """
    mark = {q.id: hashlib.sha256(f"{token}/{q.id}".encode()).digest() for q in questions}
    own = sorted(questions, key=lambda q: (q.block, mark[q.id]))
    return [(q, bool(mark[q.id][-1] & 1)) for q in own]


def as_json(question: Question) -> dict[str, Any]:
    """Return a question's fields, of which `from_json` makes it again."""
    return dict(vars(question))


def from_json(fields: Mapping[str, Any]) -> Question:
    """Return the question whose fields were read back, with lists for tuples."""
    return Question(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
