"""The papers' claims that a chapter examines, each with a verdict of the chapter's own code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from lorarar.bookkit.sources import appendices, chapters, module_of, number

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

REPRODUCED = "reproduced"
PARTLY = "partly"
CONTRADICTED = "contradicted"
NOT_EXAMINED = "not examined"
NOT_AT_THIS_SCALE = "not at this scale"
VERDICTS = (REPRODUCED, PARTLY, CONTRADICTED, NOT_EXAMINED, NOT_AT_THIS_SCALE)


@dataclass(frozen=True)
class Claim:
    """A claim of a paper and what this chapter says about it.

    Args:
        key: a short name, unique in the chapter.
        text: the claim in our words.
        source: where it stands, such as "LoRA.rar, Table 2".
        measured: what was measured here: a sentence, its numbers put in from facts. Where the verdict is
            "partly", it says which part holds.
        verdict: one of `VERDICTS`, decided by code. "Not at this scale" is for what a larger scale could
            show; a difference whose interval contains zero belongs there, and the sentence says so.

    Raises:
        ValueError: the verdict is none of these.
    """

    key: str
    text: str
    source: str
    measured: str
    verdict: str

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(
                f"claim {self.key}: verdict {self.verdict!r} is none of {', '.join(map(repr, VERDICTS))}"
            )


def verdict(full: bool, part: bool = False, against: bool = False, otherwise: str = NOT_AT_THIS_SCALE) -> str:
    """Return "reproduced" if `full`, else "contradicted" if `against`, "partly" if `part`, else `otherwise`.

    `part` is a part of the claim that can be named, never a difference that chance could explain.
    """
    return REPRODUCED if full else CONTRADICTED if against else PARTLY if part else otherwise


def sign_verdict(low: float, high: float) -> str:
    """Return the verdict on "the difference is positive", given its 95 % interval."""
    return verdict(low > 0, against=high < 0)


def claims_table(claims: Iterable[Claim]) -> Styler:
    """Return a chapter's table of claims."""
    from lorarar.bookkit.tables import table

    rows = [
        {"Claim": c.text, "Source": c.source, "Measured here": c.measured, "Verdict": c.verdict}
        for c in claims
    ]
    return table(rows, {"Verdict": badge}, kind="claims")


def all_claims(scale: str = "shoebox") -> list[tuple[int, Claim]]:
    """Return (chapter, claim) of the whole book, from recorded runs and ledgers; no chapter is run.

    An appendix is chapter 0.
    """
    from lorarar.bookkit.ledger import known

    with_module = [(path, module_of(path)) for path in (*chapters(), *appendices())]
    return [
        (number(path) or 0, claim)
        for path, module in with_module
        if module is not None
        for claim in module.claims(known(path, scale))
    ]


def all_claims_table(scale: str = "shoebox") -> Styler:
    """Return the table of all claims and verdicts of the book."""
    from lorarar.bookkit.tables import table

    rows = [
        {
            "Chapter": chapter or "appendix",
            "Claim": c.text,
            "Source": c.source,
            "Measured here": c.measured,
            "Verdict": c.verdict,
        }
        for chapter, c in all_claims(scale)
    ]
    return table(rows, {"Verdict": badge, "Chapter": str}, kind="all-claims")


def badge(verdict: str) -> str:
    """Return a verdict as HTML, in its colour."""
    return f'<span class="verdict verdict-{verdict.replace(" ", "-")}">{escape(verdict)}</span>'
