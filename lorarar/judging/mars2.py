"""MARS²: a multimodal language model says whether an image shows the subject and the style (LoRA.rar, §A1.1).

The judge sees one reference and one image and answers Yes or No, once about the subject and once about the
style; the references vote. An image is right if both are. The judge is a function from questions to answers
(`Ask`): a transformers model on this machine (`local_judge`), whatever its size, or one that is served behind
an OpenAI-compatible endpoint such as vLLM's (`served_judge`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

Axis = Literal["subject", "style"]

SYSTEM = "You are a helpful assistant."
IMAGE = object()
"""Stands in a prompt where an image is: first the reference, then the image to be judged."""

# Word for word figures A1 and A2 of the supplement.
SUBJECT_PROMPT: tuple[Any, ...] = (
    "Your task is to identify if the test image shows the same subject as the support image.\n"
    "Support image:\n",
    IMAGE,
    "\nTest image:\n",
    IMAGE,
    "\nPay attention to the details of the subject, it should for example have the same color. However, the "
    "general style of the image may be different.\nDoes the test image show the same subject as the support "
    "image?\nAnswer with Yes or No only.",
)
STYLE_PROMPT: tuple[Any, ...] = (
    "Your task is to identify if the test image shows the subject in {style} style. An example image in the "
    "{style} style is provided.\nExample image in the {style} style:\n",
    IMAGE,
    "\nTest image:\n",
    IMAGE,
    "\nThe example image shows an illustration of the {style} style and the details of the subject are "
    "expected to be different.\nDo not check similarity with the subject.\n"
    "Is the test image in the {style} style?\nAnswer with Yes or No only.",
)


class Wording(NamedTuple):
    """A way to ask both questions.

    subject, style: parts of the prompt, texts and twice `IMAGE`; "{style}" stands for the style's words.
    swapped: the image to be judged comes first, then the reference. opposite: Yes says that it is not shown.
    """

    subject: tuple[Any, ...]
    style: tuple[Any, ...]
    swapped: bool = False
    opposite: bool = False


PAPER = Wording(SUBJECT_PROMPT, STYLE_PROMPT)


class Question(NamedTuple):
    """One thing to ask: does `image` show what `reference` shows? Images are (h, w, 3) uint8.

    style: the words for the style, such as "oil painting"; only questions about style have them.
    """

    axis: Axis
    reference: np.ndarray
    image: np.ndarray
    style: str = ""


Ask = Callable[[Sequence[Question]], list[str]]
"""A judge: one answer in words for each question."""


def conversation(
    axis: Axis, style: str = "", image: Callable[[], dict] | None = None, wording: Wording = PAPER
) -> list[dict]:
    """Write a question as the messages that chat templates and endpoints take.

    image: gives the content part for the next image, in the wording's order; a bare ``{"type": "image"}``
    unless told otherwise. wording: how to ask; the paper's way unless told otherwise.

    Raises:
        ValueError: the axis is neither "subject" nor "style", or a style has no words.
    """
    if axis not in ("subject", "style"):
        raise ValueError(f"no axis {axis!r}: choose subject or style")
    if axis == "style" and not style.strip():
        raise ValueError('a question about style needs the words for it, such as "oil painting"')
    parts = []
    for part in wording.subject if axis == "subject" else wording.style:
        if part is IMAGE:
            parts.append(image() if image else {"type": "image"})
        else:
            parts.append({"type": "text", "text": part.replace("{style}", style)})
    return [
        {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
        {"role": "user", "content": parts},
    ]


def said_yes(answer: str) -> bool:
    """Read an answer as the paper's code does: Yes if "yes" is anywhere in it."""
    return "yes" in answer.lower()


def meant(answer: str, wording: Wording) -> str:
    """Return an answer as if the question had been whether it is shown: Yes and No change places if not."""
    if not wording.opposite:
        return answer
    return "No" if said_yes(answer) else "Yes" if "no" in answer.lower() else answer


def shown(question: Question, wording: Wording) -> tuple[np.ndarray, np.ndarray]:
    """Return a question's two images in the order in which the wording has them."""
    pictures = question.reference, question.image
    return pictures[::-1] if wording.swapped else pictures


def shorten(text: str) -> str:
    """Return a text on one line, quoted, cut after 80 characters."""
    text = " ".join(text.split())
    return repr(text if len(text) <= 80 else text[:80] + "…")


def votes(
    ask: Ask,
    axis: Axis,
    references: Sequence[np.ndarray] | np.ndarray,
    images: Sequence[np.ndarray] | np.ndarray,
    style: str = "",
) -> np.ndarray:
    """Ask about each image with each reference: (images, references) bool.

    references, images: arrays (n, h, w, 3) uint8, or sequences of (h, w, 3) of any sizes.

    Raises:
        ValueError: there is no reference, or most answers are neither Yes nor No, so that the model is no
            judge.
    """
    if len(references) == 0:
        raise ValueError(f"the judge needs at least one reference of the {axis}")
    if len(images) == 0:
        return np.zeros((0, len(references)), bool)
    answers = ask([Question(axis, reference, image, style) for image in images for reference in references])
    unclear = [a for a in answers if "yes" not in a.lower() and "no" not in a.lower()]
    if 2 * len(unclear) > len(answers):
        raise ValueError(
            f"the judge does not answer Yes or No: {len(unclear)} of {len(answers)} answers are like "
            f"{shorten(unclear[0])}"
        )
    return np.array([said_yes(answer) for answer in answers]).reshape(len(images), len(references))


def majority(votes: np.ndarray) -> np.ndarray:
    """Let references vote: (…, references) bool to (…) bool, a strict majority says yes (a tie does not)."""
    votes = np.asarray(votes, bool)
    return 2 * votes.sum(-1) > votes.shape[-1]


class Verdicts(NamedTuple):
    """What the judge says of each image: three arrays of bool of one shape. right = subject and style."""

    subject: np.ndarray
    style: np.ndarray
    right: np.ndarray


def judge(ask: Ask, images: np.ndarray, subject: np.ndarray, style: np.ndarray, words: str) -> Verdicts:
    """Judge images that should show a subject in a style: MARS².

    Args:
        ask: the judge.
        images: (n, h, w, 3) uint8.
        subject: the subject's reference images; style: the style's.
        words: what the style is called in the prompt, such as "oil painting".

    Returns:
        Verdicts, each (n,).
    """
    shows = majority(votes(ask, "subject", subject, images))
    painted = majority(votes(ask, "style", style, images, words))
    return Verdicts(shows, painted, shows & painted)
