"""Numbers that prose quotes, and sentences that must hold.

A chapter's module works out its numbers as `Facts`; a cell publishes them; the prose quotes them as
``{glue:text}`name:.0%```. What the prose says in words is a dictionary of statements, which `hold` checks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

Number = bool | int | float

PREFIX = "application/papermill.record/"  # by which myst-nb and papermill know a hidden value


class Facts(dict[str, Number]):
    """Numbers by name, also read as attributes: ``facts["gain"]`` is ``facts.gain``.

    NumPy and torch scalars become plain numbers. Two sets of facts are joined with ``|``.

    Raises:
        ValueError: a value is no number or not finite, or a name is no Python name.
    """

    def __init__(self, *others: Mapping[str, Any], **values: Any) -> None:
        super().__init__()
        for name, value in {k: v for part in (*others, values) for k, v in part.items()}.items():
            self[name] = plain(name, value)

    def __getattr__(self, name: str) -> Number:
        try:
            return self[name]
        except KeyError:
            known = ", ".join(sorted(self)) or "none"
            raise AttributeError(f"no fact is called {name}: there are {known}") from None

    def __or__(self, other: Mapping[str, Any]) -> Facts:
        return Facts(self, other)


def plain(name: str, value: Any) -> Number:  # noqa: ANN401  (NumPy and torch scalars come in many types)
    """Return a number as Python's own. Raises ValueError if it is none, or not finite, or cannot be named."""
    value = value.item() if hasattr(value, "item") else value
    if not name.isidentifier():
        raise ValueError(f"a fact needs a Python name, not {name!r}")
    if isinstance(value, str):
        raise ValueError(f"{name} is the text {value!r}: facts are numbers, words stand in the prose")
    if not isinstance(value, bool | int | float):
        raise ValueError(f"{name}: expected a number, got {type(value).__name__}")
    if not isfinite(value):
        raise ValueError(f"{name} is {value}")
    return value


def glue(name: str, value: bool | int | float | str) -> None:
    """Keep a value in the notebook, unseen, for the page made of it; outside IPython do nothing."""
    try:
        from IPython import get_ipython
        from IPython.display import publish_display_data
    except ImportError:
        return
    if get_ipython() is not None:
        # The same message as myst_nb.glue(name, value, display=False), without needing Sphinx in Colab.
        publish_display_data(
            {f"{PREFIX}text/plain": repr(value)},
            {"scrapbook": {"name": name, "mime_prefix": PREFIX}, "lorarar": {"value": value}},
        )


def publish(facts: Mapping[str, Any], scale: str = "shoebox") -> Facts:
    """Let the prose quote these numbers. At another scale than the shoebox, say so in a box.

    Args:
        facts: by name; a name is published once in a chapter.
        scale: of the run; given once, at the head of a chapter.
    """
    facts = Facts(facts)
    for name, value in facts.items():
        glue(name, value)
    if scale != "shoebox":
        _box(
            f"This run is at scale {scale}",
            "The words of this chapter were written for the shoebox. The numbers are those of this run.",
        )
    return facts


def hold(statements: Mapping[str, bool], scale: str = "shoebox") -> None:
    """Check what the prose says, each finding by its own words, and show the sentences that do not hold.

    The run goes on, so that its numbers can be looked at; at scale shoebox the sentences stay in the notebook
    (`broken`), and neither `lorarar book run`, nor the build, nor the tests let them pass.
    """
    wrong = [sentence for sentence, holds in statements.items() if not holds]
    if wrong:
        items = "".join(f"<li>… {one} …</li>" for one in wrong)
        at_home = scale == "shoebox" == os.environ.get("LORARAR_RUN")
        _box(
            f"{len(wrong)} of {len(statements)} sentences do not hold in this run",
            f"<ul>{items}</ul>",
            {"lorarar": {"rewrite": wrong}} if at_home else {},
        )
    elif "LORARAR_RUN" not in os.environ:
        print(f"All {len(statements)} sentences of the chapter that state a finding hold in this run.")


def broken(executed: Path) -> list[str]:
    """Return the sentences that an executed notebook does not bear out, as `hold` left them."""
    cells = json.loads(executed.read_text())["cells"]
    about = [output.get("metadata", {}) for cell in cells for output in cell.get("outputs", [])]
    return [sentence for one in about for sentence in one.get("lorarar", {}).get("rewrite", [])]


def _box(head: str, text: str, metadata: Mapping[str, Any] | None = None) -> None:
    try:
        from IPython.display import HTML, display
    except ImportError:
        print(f"{head}: {text}")
        return
    box = HTML(f'<div class="lorarar-notice"><strong>{head}.</strong> {text}</div>')
    display(box, metadata=dict(metadata or {}))
