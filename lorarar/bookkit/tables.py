"""Tables: pandas, in the book's dress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler


def table(
    rows: pd.DataFrame | Mapping[str, Sequence[object]] | Iterable[Mapping[str, object]],
    formats: Mapping[str, str | Callable[[Any], str]] | str | None = None,
    *,
    kind: str = "results",
    caption: str = "",
) -> Styler:
    """Show a table as the book does; plain pandas underneath (``.data``).

    Args:
        rows: a frame, {column: values}, or one {column: value} for each row. What a row is called is a column
            like the others; an index is not shown.
        formats: how numbers are written, such as ".0%", for all columns or {column: format}.
        kind: the style sheet's name for it; "claims" and "status" become cards on a phone, others scroll.
        caption: shown above.
    """
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
    if isinstance(formats, str) or formats is None:
        formats = dict.fromkeys(frame.columns, formats or ".3g")
    written = {
        column: form if callable(form) else _writer(form)
        for column, form in (dict.fromkeys(frame.columns, ".3g") | dict(formats)).items()
    }
    styled = (
        frame.style.format(written)
        .hide(axis="index")
        .set_uuid(kind)  # not a random one: a page must not change without reason
        .set_table_attributes(f'class="lorarar-{kind}"')
    )
    return styled.set_caption(caption) if caption else styled


def _writer(form: str) -> Callable[[object], str]:
    def write(cell: object) -> str:
        if isinstance(cell, bool):
            return "yes" if cell else "no"
        if isinstance(cell, int) and form.endswith(("g", "f")):
            return f"{cell:,}"
        # NumPy's numbers are no ints or floats of Python, but behave as such.
        return format(cell, form) if hasattr(cell, "__float__") else escape(str(cell))

    return write
