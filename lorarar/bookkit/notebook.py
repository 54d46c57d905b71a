"""The notebook of each chapter, for Colab: the sibling without outputs, and the executed one.

Both have the chapter's prose as plain Markdown, each number as text, and folded cells whose titles say what
they do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lorarar.bookkit.facts import PREFIX
from lorarar.bookkit.ledger import known, values
from lorarar.bookkit.markdown import Context, flatten, page_address
from lorarar.bookkit.sources import BOOK, listed, number, pages, read_chapter, repository

BOOTSTRAP = """\
#@title Fetch lorarar and install it, unless it is here already {{ display-mode: "form" }}
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("lorarar") is None:
    folder = os.path.abspath("lorarar-book")
    if not os.path.isdir(folder):
        repository = os.environ.get("LORARAR_REPOSITORY", "{repository}")
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", repository, folder], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "-e", folder + "[colab]"], check=True)
    sys.path.insert(0, folder)"""

_FOLDED = {"solution", "hide-cell", "hide-input", "remove-input", "remove-cell"}
_LABEL = re.compile(r"^\(([\w:-]+)\)=\n#+ (.+)$", re.MULTILINE)
_EQUATION = re.compile(
    r"^\$\$[ ]*\(([\w:-]+)\)|^ *`{3,}\{math\}.*\n:label: *(\S+)|^\$\$[^$\n]+\$\$[ ]*\(([\w:-]+)\)",
    re.MULTILINE,
)


def colab_address(path: Path, branch: str = "main") -> str:
    """Return the address that opens a page's notebook in Colab."""
    project = repository().removeprefix("https://").partition("/")[2]
    return f"https://colab.research.google.com/github/{project}/blob/{branch}/book/{path.stem}.ipynb"


@cache
def labels_of(path: Path) -> dict[str, str]:
    """Return what references to a page's own labels say: {"fig-loss": "Figure 6.2", "eq-delta": "(6.1)"}."""
    place = number(path)
    head = "" if place is None else f"{place}."
    labels = dict(_LABEL.findall(path.read_text()))
    figures = equations = 0
    for cell in read_chapter(path).cells:
        if cell.cell_type == "markdown":
            for label in _EQUATION.findall(cell.source):
                equations += 1
                labels["".join(label)] = f"({head}{equations})"
        elif name := cell.metadata.get("mystnb", {}).get("figure", {}).get("name"):
            figures += 1
            labels[name] = f"Figure {head}{figures}"
    return labels


def context_of(path: Path, numbers: Mapping[str, Any], branch: str = "main") -> Context:
    """Return what the roles of a page stand for; what is on another page is a link to its notebook."""
    labels, links = {}, {}
    run = pages()
    for other in listed():
        theirs = labels_of(other)
        labels |= theirs
        if other != path:
            address = colab_address(other, branch) if other in run else page_address(other.stem)
            links |= dict.fromkeys(theirs, address)
    return Context(labels, links, numbers)


def fold_title(source: str) -> tuple[str, str]:
    """Split a folded cell's first comment, which says what it does, from the rest: (title, rest)."""
    match = re.match(r"\s*# ([^\n]+)\n", source)
    return (match[1].strip(), source[match.end() :].lstrip("\n")) if match else ("Code", source)


def _code_cell(cell: Any, context: Context) -> Any:  # noqa: ANN401  (nbformat.NotebookNode)
    from nbformat import v4

    tags = cell.metadata.get("tags", [])
    meta = {"tags": tags} if tags else {}
    if not _FOLDED & set(tags):
        return v4.new_code_cell(cell.source, metadata=meta)
    head, rest = fold_title(cell.source)
    name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
    if name:
        head = re.sub(r"^Figure\b", context.labels[name], head)
    if "solution" in tags:
        head, rest = "Solution", cell.source
    meta |= {"cellView": "form", "jupyter": {"source_hidden": True}}
    return v4.new_code_cell(f'#@title {head} {{ display-mode: "form" }}\n{rest}', metadata=meta)


def _cells(path: Path, context: Context, outputs: list[list] | None) -> list:
    """Return the page's cells in plain form; `outputs` are those of its code cells, one list for each."""
    from nbformat import v4

    cells, ran = [], iter(outputs or [])
    for cell in read_chapter(path).cells:
        if cell.cell_type == "markdown":
            if text := flatten(cell.source, context):
                cells.append(v4.new_markdown_cell(text))
            continue
        shown = next(ran, [])
        if cell.cell_type != "code" or "wrong" in cell.metadata.get("tags", []):
            continue
        cells.append(_code_cell(cell, context))
        cells[-1].outputs = shown
        cells[-1].execution_count = None
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        if "caption" in figure:
            head = f"**{context.labels[figure['name']]}.** " if "name" in figure else ""
            cells.append(v4.new_markdown_cell(head + flatten(str(figure["caption"]), context)))
    return cells


def _notebook(path: Path, context: Context, outputs: list[list] | None = None) -> Any:  # noqa: ANN401
    from nbformat import v4

    notebook = v4.new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "colab": {"provenance": [], "toc_visible": True},
        }
    )
    bootstrap = v4.new_code_cell(BOOTSTRAP.format(repository=repository()), metadata={"cellView": "form"})
    notebook.cells = [bootstrap, *_cells(path, context, outputs)]
    for index, cell in enumerate(notebook.cells):  # ids that do not change from one writing to the next
        cell["id"] = hashlib.sha256(f"{index} {cell.source}".encode()).hexdigest()[:8]
    return notebook


def sibling(path: Path) -> Any:  # noqa: ANN401  (an nbformat.NotebookNode)
    """Return a page as the notebook that Colab opens: bootstrap first, no outputs, numbers of the shoebox."""
    return _notebook(path, context_of(path, known(path)))


def executed(path: Path, run: Path) -> Any:  # noqa: ANN401  (an nbformat.NotebookNode)
    """Return a page as a notebook with the outputs, figures and numbers of a run of it."""
    import nbformat

    ran = nbformat.read(run, as_version=4)
    outputs = [
        [
            output
            for output in cell.outputs
            if not any(kind.startswith(PREFIX) for kind in output.get("data", {}))
        ]
        for cell in ran.cells
        if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    return _notebook(path, context_of(path, values(run), "notebooks"), outputs)


def sibling_text(path: Path) -> str:
    """Return the text of the file beside a chapter's source that `write_siblings` writes."""
    import nbformat

    return nbformat.writes(sibling(path), indent=1) + "\n"


def write_siblings() -> list[Path]:
    """Write ``book/NN_topic.ipynb`` for every page with code and remove those without one."""
    written = []
    for path in pages():
        target = path.with_suffix(".ipynb")
        target.write_text(sibling_text(path))
        written.append(target)
    for stray in set(BOOK.glob("*.ipynb")) - set(written):
        stray.unlink()
    return written


def write_executed(path: Path, run: Path, folder: Path) -> Path:
    """Write a page as an executed notebook into ``<folder>/book``, as the branch that Colab opens has it."""
    import nbformat

    target = folder / "book" / f"{path.stem}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(executed(path, run), target)
    return target
