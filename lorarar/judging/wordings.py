"""Ways to ask the judge its two questions: the supplement's words, those of the authors' code, and others.

The paper gives one wording and its released code another (judging script, short answers). They mean the same,
and so do those that follow, except for `opposite`, by which one sees whether a judge reads the question.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lorarar.judging.mars2 import IMAGE, PAPER, Wording
from lorarar.options import WORDINGS as NAMES

SAME = "Does the test image show the same subject as the support image?"
PAINTED = "Is the test image in the {style} style?"
ONLY = "\nAnswer with Yes or No only."


def _changed(old: Wording, change: Callable[[str], str], **more: Any) -> Wording:
    """Return a wording with its texts changed."""
    subject, style = (
        tuple(part if part is IMAGE else change(part) for part in parts) for parts in (old.subject, old.style)
    )
    return Wording(subject, style, **more)


def _pictures(headings: tuple[str, str], question: str, before: str = "") -> tuple[Any, ...]:
    """Return a prompt of two pictures, each with its heading, before or after the question."""
    parts = (f"{before}{headings[0]}\n", IMAGE, f"\n{headings[1]}\n", IMAGE, question)
    return tuple(part for part in parts if part)


SUPPORT = ("Support image:", "Test image:")
EXAMPLE = ("Example image in the {style} style:", "Test image:")

# The authors' code leaves out one word and spells another the British way; about styles it has other line
# breaks alone. Its longer form asks for reasons.
CODE = _changed(
    PAPER, lambda text: text.replace("the details of the subject, it", "details of the subject, it")
)
CODE = _changed(CODE, lambda text: text.replace("color", "colour"))

WORDINGS: dict[str, Wording] = {
    "paper": PAPER,
    "code": CODE,
    "explained": _changed(
        CODE, lambda text: text.replace("Yes or No only", "Yes or No, and a short explanation")
    ),
    "short": Wording(_pictures(SUPPORT, f"\n{SAME}{ONLY}"), _pictures(EXAMPLE, f"\n{PAINTED}{ONLY}")),
    "swapped": Wording(
        _pictures(SUPPORT[::-1], f"\n{SAME}{ONLY}"),
        _pictures(EXAMPLE[::-1], f"\n{PAINTED}{ONLY}"),
        swapped=True,
    ),
    "strict": _changed(
        PAPER, lambda text: text.replace("\nAnswer", "\nBe strict: if any detail differs, say No.\nAnswer")
    ),
    "lenient": _changed(
        PAPER,
        lambda text: text.replace(
            "\nAnswer", "\nDo not be very strict, some differences are acceptable.\nAnswer"
        ),
    ),
    "telegram": Wording(
        _pictures(("Support:", "Test:"), "\nSame subject? Yes or No."),
        _pictures(("{style} style:", "Test:"), "\nSame style? Yes or No."),
    ),
    "first": Wording(
        _pictures(SUPPORT, "", f"{SAME}{ONLY}\n"),
        _pictures(EXAMPLE, "", f"{PAINTED}{ONLY}\n"),
    ),
    "plain": Wording(
        _pictures(
            ("Look at this picture:", "Now look at this one:"),
            "\nCan you see in both pictures one and the same thing, however they are drawn? Say Yes or No.",
        ),
        _pictures(
            ("This picture was made in the manner called {style}:", "Now look at this one:"),
            "\nWas it made in that manner too, whatever it shows? Say Yes or No.",
        ),
    ),
    "opposite": Wording(
        _pictures(SUPPORT, f"\nIs the subject in the test image different?{ONLY}"),
        _pictures(EXAMPLE, f"\nIs the style in the test image different?{ONLY}"),
        opposite=True,
    ),
}

TRAINED = NAMES[:8]
"""Those that a miniature of several wordings learns; the others it never hears."""
