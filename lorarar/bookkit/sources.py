"""Where the book's pages are, and how a page is read."""

from __future__ import annotations

import importlib
import importlib.util
import re
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"


def _contents() -> list[tuple[Path, bool]]:
    """Return the pages that ``_toc.yml`` lists, each with whether its part is numbered."""
    import yaml

    parts = yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"]
    return [
        (ROOT / entry["file"], part.get("numbered", False)) for part in parts for entry in part["chapters"]
    ]


def listed() -> list[Path]:
    """Return all pages that ``_toc.yml`` lists, in its order."""
    return [path.with_suffix(".md") for path, _ in _contents()]


def chapters() -> list[Path]:
    """Return the chapters' sources, ``book/NN_topic.md``, that ``_toc.yml`` lists; others are drafts."""
    return [path for path, _ in _contents() if re.match(r"\d\d_", path.name)]


def appendices() -> list[Path]:
    """Return the appendices that ``_toc.yml`` lists, ``book/appendix_topic.md``."""
    return [path for path, _ in _contents() if path.name.startswith("appendix_")]


def pages() -> list[Path]:
    """Return all that is executed: the chapters, and then the appendices that have code."""
    return chapters() + [path for path in appendices() if "```{code-cell}" in path.read_text()]


def number(path: Path) -> int | None:
    """Return a chapter's number, as the book counts; None for a page that has none."""
    numbered = [page.stem for page, counts in _contents() if counts]
    return numbered.index(path.stem) + 1 if path.stem in numbered else None


def title(path: Path) -> str:
    """Return the first heading of a page."""
    return next((line[2:].strip() for line in path.read_text().splitlines() if line[:2] == "# "), path.stem)


def read_chapter(path: Path) -> Any:  # noqa: ANN401  (an nbformat.NotebookNode)
    """Read a page's MyST source as a notebook without outputs."""
    from myst_nb.core.read import read_myst_markdown_notebook

    return read_myst_markdown_notebook(path.read_text(), path=path)


def module_of(path: Path, folder: str = "chapters") -> ModuleType | None:
    """Return the module of a page: ``chapters`` has its numbers and claims, ``checks`` its exercises' checks.

    ``book/05_topic.md`` belongs to ``ch05_topic``, ``book/appendix_topic.md`` to ``appendix_topic``. None if
    there is none.
    """
    name = f"lorarar.bookkit.{folder}.{'ch' if path.stem[0].isdigit() else ''}{path.stem}"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


@cache
def repository() -> str:
    """Return the address of the project's repository; it stands in ``_config.yml`` and nowhere else."""
    import yaml

    return yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
