"""What chapters of the old form import; `lorarar.bookkit` is where it is now. Goes with the last of these."""

from __future__ import annotations

import html
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from lorarar.bookkit.__main__ import main as main
from lorarar.bookkit.exercises import attempt as attempt
from lorarar.bookkit.facts import glue
from lorarar.bookkit.records import provenance as provenance
from lorarar.bookkit.runs import status as status
from lorarar.bookkit.runs import versions as versions
from lorarar.records import inside as inside
from lorarar.records import recorded as recorded
from lorarar.records import save_recorded as save_recorded

VERDICTS = ("reproduced", "partly", "not at this scale")


class Table:
    """A table that Jupyter and the book show as HTML, and everything else as Markdown."""

    def __init__(
        self,
        header: Sequence[str],
        rows: Iterable[Sequence[object]],
        caption: str = "",
        name: str = "results",
    ) -> None:
        self.header = [str(cell) for cell in header]
        self.rows = [[_text(cell) for cell in row] for row in rows]
        self.caption, self.name = caption, name
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"a row of {len(row)} cells in a table of {len(self.header)} columns: {row}")

    def _repr_html_(self) -> str:
        def line(cells: Sequence[str], tag: str) -> str:
            return "".join(f"<{tag}>{_badge(html.escape(cell))}</{tag}>" for cell in cells)

        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in self.rows)
        return (
            f'<table class="lorarar-{self.name}">{caption}<thead><tr>{line(self.header, "th")}</tr></thead>'
            f"<tbody>{body}</tbody></table>"
        )

    def _repr_markdown_(self) -> str:
        rows = [self.header, ["---"] * len(self.header), *self.rows]
        text = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
        return f"{text}\n\n{self.caption}".strip()

    __repr__ = _repr_markdown_


def _text(cell: object) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def _badge(cell: str) -> str:
    return (
        f'<span class="verdict verdict-{cell.replace(" ", "-")}">{cell}</span>' if cell in VERDICTS else cell
    )


def record(name: str, value: Any) -> bool | int | float | str:  # noqa: ANN401
    """Record a value that the prose quotes, and that the ledger checks."""
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f"cannot record {name}: expected a number or a string, got {type(value).__name__}")
    if isinstance(value, float) and not isfinite(value):
        raise ValueError(f"cannot record {name}: it is {value}")
    glue(name, value)
    if "LORARAR_RUN" not in os.environ:
        print(f"{name} = {value}")
    return value


def verdict(full: bool, part: bool = False) -> str:
    """Return "reproduced" if `full` holds, "partly" if only `part` does, else "not at this scale"."""
    return VERDICTS[0] if full else VERDICTS[1] if part else VERDICTS[2]


@dataclass(frozen=True)
class Claim:
    """A claim of a paper and what this chapter's own code says about it."""

    key: str
    text: str
    source: str
    measured: str
    verdict: str | bool | Callable[[], str | bool]


def claims(*rows: Claim) -> Table:
    """Record the verdict of each claim and return the chapter's table of claims."""
    lines = []
    for claim in rows:
        found = claim.verdict() if callable(claim.verdict) else claim.verdict
        found = verdict(bool(found)) if not isinstance(found, str) else found
        if found not in VERDICTS:
            raise ValueError(f"claim {claim.key}: verdict {found!r} is none of {', '.join(VERDICTS)}")
        record(f"claim_{claim.key}", found)
        lines.append((claim.text, claim.source, claim.measured, found))
    return Table(("Claim", "Source", "Measured here", "Verdict"), lines, name="claims")


if __name__ == "__main__":
    sys.exit(main())
