"""The .ipynb sibling of each chapter: what Colab opens, with MyST flattened to the Markdown it knows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lorarar.book import BOOK, chapters, read_chapter, repository, title

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

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,}|:{3,})\{(?P<name>[\w:-]+)\}[ ]*(?P<argument>[^\n]*)\n"
    r"(?P<body>.*?)^(?P=indent)(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_CODE = re.compile(r"(^ *(`{3,})(?!\{).*?^ *\2 *$|(?<!`)(`+)(?!`).+?(?<!`)\3(?!`))", re.MULTILINE | re.DOTALL)
_DISPLAYED = re.compile(
    r"^\$\$(?P<latex>.*?)\$\$(?:[ ]*\((?P<label>[\w:-]+)\))?[ ]*$", re.MULTILINE | re.DOTALL
)
_ROLE = re.compile(r"\{(?P<name>[\w:-]+)\}`(?P<text>[^`]+)`")
_TARGETED = re.compile(r"(?P<text>.*?)\s*<(?P<target>[^<>]+)>", re.DOTALL)

ADMONITIONS = ("admonition", "note", "tip", "important", "warning", "caution", "hint", "seealso", "attention")


def _page(name: str) -> str:
    return f"{repository()}/blob/main/book/{name.removesuffix('.md')}.md"


@cache
def _bibliography() -> dict[str, tuple[str, str, str]]:
    """Return {key: (authors, year, address)} of the book's references."""
    from pybtex.database import parse_file

    found = {}
    for key, entry in parse_file(BOOK / "references.bib").entries.items():
        names = [" ".join(person.last_names) for person in entry.persons["author"]]
        authors = (
            names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else f"{names[0]} et al."
        )
        fields = entry.fields
        address = fields.get("url") or (f"https://doi.org/{fields['doi']}" if "doi" in fields else "")
        found[key] = (authors.replace("{", "").replace("}", ""), fields["year"], address)
    return found


def _cite(text: str, textual: bool) -> str:
    parts = []
    for key in text.split(","):
        authors, year, address = _bibliography()[key.strip()]
        words = f"{authors} ({year})" if textual else f"{authors}, {year}"
        parts.append(f"[{words}]({address})" if address else words)
    return ", ".join(parts) if textual else f"({'; '.join(parts)})"


def _role(match: re.Match[str], labels: Mapping[str, str]) -> str:
    name, text = match["name"], match["text"]
    targeted = _TARGETED.fullmatch(text)
    label, target = (targeted["text"], targeted["target"]) if targeted else (text, text)
    if name in ("cite", "cite:p", "cite:ps", "cite:t", "cite:ts", "cite:alp"):
        return _cite(text, textual=name in ("cite:t", "cite:ts"))
    if name == "term":
        return label
    if name in ("glue:text", "glue", "glue:any"):
        return f"`{text.split(':')[0]}`"  # the name that `record` prints beside its value
    if name in ("ref", "numref", "eq"):
        if target not in labels:
            raise ValueError(f"{match[0]}: nothing here is labelled {target}")
        return labels[target] if not targeted else label if name == "ref" else labels[target]
    if name == "doc":
        return f"[{label if targeted else Path(target).stem}]({_page(Path(target).name)})"
    if name == "math":
        return f"${text}$"
    if name == "abbr":
        return text.split(" (")[0]
    if name in ("download", "kbd", "file", "code"):
        return f"`{label}`"
    if name in ("sub", "sup"):
        return f"<{name}>{text}</{name}>"
    raise ValueError(f"the role {{{name}}} has no plain form for Colab: add it to lorarar/colab.py")


def _options(body: str) -> tuple[dict[str, str], str]:
    """Split the ``:key: value`` lines off the head of a directive's body."""
    found, lines = {}, body.splitlines()
    while lines and (match := re.fullmatch(r"\s*:([\w-]+):\s*(.*)", lines[0])):
        found[match[1]] = match[2]
        lines.pop(0)
    return found, "\n".join(lines).strip("\n")


def _mathematics(latex: str, label: str | None, labels: Mapping[str, str]) -> str:
    latex = latex.strip()
    if r"\\" in latex and not latex.startswith(r"\begin"):
        latex = f"\\begin{{aligned}}\n{latex}\n\\end{{aligned}}"  # as Sphinx does for several lines
    tag = f" \\tag{{{labels[label].strip('()')}}}" if label in labels else ""
    return f"$$\n{latex}{tag}\n$$"


def _directive(match: re.Match[str], labels: Mapping[str, str]) -> str:
    name, argument = match["name"], match["argument"].strip()
    options, body = _options(match["body"])
    if name in ("figure", "image"):
        place = f"{repository()}/raw/main/book/{argument}"
        image = f"![{options.get('alt', '')}]({place})"
        return f"{image}\n\n*{flatten(body, labels)}*" if body.strip() else image
    if name == "math":
        return _mathematics(body, options.get("label"), labels)
    if name in ("toggle", "dropdown") or (name == "admonition" and "dropdown" in options.get("class", "")):
        head = flatten(argument, labels) or "More"
        return f"<details><summary>{head}</summary>\n\n{flatten(body, labels)}\n\n</details>"
    if name in ADMONITIONS:
        head = flatten(argument, labels) if name == "admonition" else name.capitalize()
        text = flatten(body if name == "admonition" else f"{argument}\n{body}".strip(), labels)
        return "\n".join(f"> {line}".rstrip() for line in [f"**{head}**", "", *text.splitlines()])
    if name in ("margin", "sidebar", "epigraph"):
        return "\n".join(
            f"> {line}".rstrip() for line in flatten(f"{argument}\n{body}".strip(), labels).splitlines()
        )
    if name in ("code", "code-block"):
        return f"```{argument}\n{body}\n```"
    if name in ("bibliography", "contents", "tableofcontents"):
        return f"*See the [book's bibliography]({_page('bibliography')}).*" if name == "bibliography" else ""
    raise ValueError(f"the directive {{{name}}} has no plain form for Colab: add it to lorarar/colab.py")


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Apply `change` to the parts of a Markdown text that are neither code blocks nor inline code."""
    parts, last = [], 0
    for match in _CODE.finditer(text):
        if match[0][0] == "`" and text[: match.start()].endswith("}"):
            continue  # the backquotes of a role
        parts += [change(text[last : match.start()]), match[0]]
        last = match.end()
    return "".join([*parts, change(text[last:])])


def _plain(text: str, labels: Mapping[str, str]) -> str:
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"^\([\w:-]+\)=\n?", "", text, flags=re.MULTILINE)  # the target of a reference
    text = re.sub(r"^%.*\n?", "", text, flags=re.MULTILINE)  # a comment
    text = _DISPLAYED.sub(lambda match: _mathematics(match["latex"], match["label"], labels), text)
    return _ROLE.sub(lambda match: _role(match, labels), text)


def flatten(text: str, labels: Mapping[str, str] | None = None) -> str:
    """Turn MyST Markdown into the plain Markdown and LaTeX that Colab shows.

    Args:
        text: MyST Markdown.
        labels: what references to figures, equations and chapters say; see `labels_of`.

    Raises:
        ValueError: a role or directive has no plain form here, or a reference no target.
    """
    known = labels or {}
    text = _FENCE.sub(lambda match: _indent(_directive(match, known), match["indent"]), text)
    return re.sub(r"\n{3,}", "\n\n", outside_code(text, lambda part: _plain(part, known))).strip()


def _indent(text: str, indent: str) -> str:
    return "\n".join(f"{indent}{line}".rstrip() for line in text.splitlines())


def labels_of(path: Path) -> dict[str, str]:
    """Return what references in a chapter say: {"fig-loss": "Figure 2", "eq-delta": "(1)", "ch-x": title}."""
    found = {}
    for chapter in chapters():
        for label in re.findall(r"^\(([\w:-]+)\)=\n# ", chapter.read_text(), re.MULTILINE):
            found[label] = title(chapter)
    figures = equations = 0
    for cell in read_chapter(path).cells:
        if cell.cell_type == "markdown":
            for label in re.findall(
                r"^\$\$[ ]*\(([\w:-]+)\)|^ *`{3,}\{math\}.*\n:label: *(\S+)", cell.source, re.MULTILINE
            ):
                equations += 1
                found[label[0] or label[1]] = f"({equations})"
        elif name := cell.metadata.get("mystnb", {}).get("figure", {}).get("name"):
            figures += 1
            found[name] = f"Figure {figures}"
    return found


def sibling(path: Path) -> Any:  # noqa: ANN401  (an nbformat.NotebookNode)
    """Return a chapter as the notebook that Colab opens: bootstrap first, no outputs, no MyST."""
    from nbformat import v4

    notebook = v4.new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "colab": {"provenance": [], "toc_visible": True},
        }
    )
    cells = [v4.new_code_cell(BOOTSTRAP.format(repository=repository()), metadata={"cellView": "form"})]
    labels = labels_of(path)
    for cell in read_chapter(path).cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            if text := flatten(cell.source, labels):
                cells.append(v4.new_markdown_cell(text))
        elif cell.cell_type == "code" and "wrong" not in tags:
            folded = "solution" in tags or "hide-cell" in tags or "hide-input" in tags
            meta = {"tags": tags} if tags else {}
            source = cell.source
            if folded:
                head = "Solution" if "solution" in tags else "Code"
                source = f'#@title {head} {{ display-mode: "form" }}\n{source}'
                meta |= {"cellView": "form", "jupyter": {"source_hidden": True}}
            cells.append(v4.new_code_cell(source, metadata=meta))
            figure = cell.metadata.get("mystnb", {}).get("figure", {})
            if "caption" in figure:
                head = f"**{labels[figure['name']]}.** " if "name" in figure else ""
                cells.append(v4.new_markdown_cell(head + flatten(str(figure["caption"]), labels)))
    for index, cell in enumerate(cells):  # ids that do not change from one writing to the next
        cell["id"] = hashlib.sha256(f"{index} {cell.source}".encode()).hexdigest()[:8]
    notebook.cells = cells
    return notebook


def sibling_text(path: Path) -> str:
    """Return the text of the file beside a chapter's source that `write_siblings` writes."""
    import nbformat

    return nbformat.writes(sibling(path), indent=1) + "\n"


def write_siblings() -> list[Path]:
    """Write ``book/NN_topic.ipynb`` for every chapter and remove those without one. Returns the paths."""
    written = []
    for path in chapters():
        target = path.with_suffix(".ipynb")
        target.write_text(sibling_text(path))
        written.append(target)
    for stray in set(BOOK.glob("*.ipynb")) - set(written):
        stray.unlink()
    return written
