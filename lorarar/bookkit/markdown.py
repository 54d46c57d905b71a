"""MyST Markdown turned into the plain Markdown and LaTeX that Colab shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lorarar.bookkit.sources import BOOK, repository

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


@dataclass(frozen=True)
class Context:
    """What a page's roles stand for.

    Args:
        labels: what references say: {"fig-loss": "Figure 6.2", "eq-delta": "(6.1)", "ch-x": its title}.
        links: where references lead, for those that lead out of the page: {"ch-x": address}.
        numbers: what the prose quotes: {"gain": 0.28}.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)


def page_address(name: str) -> str:
    """Return the address of a page's source in the repository."""
    return f"{repository()}/blob/main/book/{name.removesuffix('.md')}.md"


@cache
def _bibliography() -> dict[str, tuple[str, str, str]]:
    """Return {key: (authors, year, address)} of the book's references."""
    from pybtex.database import parse_file

    entries = {}
    for key, entry in parse_file(BOOK / "references.bib").entries.items():
        names = [" ".join(person.last_names) for person in entry.persons["author"]]
        authors = (
            names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else f"{names[0]} et al."
        )
        fields = entry.fields
        address = fields.get("url") or (f"https://doi.org/{fields['doi']}" if "doi" in fields else "")
        entries[key] = (authors.replace("{", "").replace("}", ""), fields["year"], address)
    return entries


def _cite(text: str, textual: bool) -> str:
    parts = []
    for key in text.split(","):
        authors, year, address = _bibliography()[key.strip()]
        words = f"{authors} ({year})" if textual else f"{authors}, {year}"
        parts.append(f"[{words}]({address})" if address else words)
    return ", ".join(parts) if textual else f"({'; '.join(parts)})"


def _number(text: str, numbers: Mapping[str, Any]) -> str:
    name, _, form = text.partition(":")
    if name not in numbers:
        raise ValueError(f"{{glue:text}}`{text}`: the ledger and the recorded runs have no {name}")
    value = numbers[name]
    return value if isinstance(value, str) else format(value, form)


def _role(match: re.Match[str], context: Context) -> str:
    name, text = match["name"], match["text"]
    targeted = _TARGETED.fullmatch(text)
    label, target = (targeted["text"], targeted["target"]) if targeted else (text, text)
    if name in ("cite", "cite:p", "cite:ps", "cite:t", "cite:ts", "cite:alp"):
        return _cite(text, textual=name in ("cite:t", "cite:ts"))
    if name == "term":
        return label
    if name in ("glue:text", "glue", "glue:any"):
        return _number(text, context.numbers)
    if name in ("ref", "numref", "eq"):
        if target not in context.labels:
            raise ValueError(f"{match[0]}: nothing here is labelled {target}")
        words = label if name == "ref" and targeted else context.labels[target]
        return f"[{words}]({context.links[target]})" if target in context.links else words
    if name == "doc":
        return f"[{label if targeted else Path(target).stem}]({page_address(Path(target).name)})"
    if name == "math":
        return f"${text}$"
    if name == "abbr":
        return text.split(" (")[0]
    if name in ("download", "kbd", "file", "code"):
        return f"`{label}`"
    if name in ("sub", "sup"):
        return f"<{name}>{text}</{name}>"
    raise ValueError(
        f"the role {{{name}}} has no plain form for Colab: add it to lorarar/bookkit/markdown.py"
    )


def _options(body: str) -> tuple[dict[str, str], str]:
    """Split the ``:key: value`` lines off the head of a directive's body."""
    options, lines = {}, body.splitlines()
    while lines and (match := re.fullmatch(r"\s*:([\w-]+):\s*(.*)", lines[0])):
        options[match[1]] = match[2]
        lines.pop(0)
    return options, "\n".join(lines).strip("\n")


def _mathematics(latex: str, label: str | None, context: Context) -> str:
    latex = latex.strip()
    if r"\\" in latex and not latex.startswith(r"\begin"):
        latex = f"\\begin{{aligned}}\n{latex}\n\\end{{aligned}}"  # as Sphinx does for several lines
    tag = f" \\tag{{{context.labels[label].strip('()')}}}" if label in context.labels else ""
    return f"$$\n{latex}{tag}\n$$"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def _directive(match: re.Match[str], context: Context) -> str:
    name, argument = match["name"], match["argument"].strip()
    options, body = _options(match["body"])
    if name in ("figure", "image"):
        image = f"![{options.get('alt', '')}]({repository()}/raw/main/book/{argument})"
        return f"{image}\n\n*{flatten(body, context)}*" if body.strip() else image
    if name == "math":
        return _mathematics(body, options.get("label"), context)
    if name in ("toggle", "dropdown") or (name == "admonition" and "dropdown" in options.get("class", "")):
        head = flatten(argument, context) or "More"
        return f"<details><summary>{head}</summary>\n\n{flatten(body, context)}\n\n</details>"
    if name in ADMONITIONS:
        head = flatten(argument, context) if name == "admonition" else name.capitalize()
        text = flatten(body if name == "admonition" else f"{argument}\n{body}".strip(), context)
        return _quoted(f"**{head}**\n\n{text}")
    if name in ("margin", "sidebar", "epigraph"):
        return _quoted(flatten(f"{argument}\n{body}".strip(), context))
    if name in ("code", "code-block"):
        return f"```{argument}\n{body}\n```"
    if name in ("bibliography", "contents", "tableofcontents"):
        return f"*See the [book's bibliography]({page_address('bibliography')}).*" if name[0] == "b" else ""
    raise ValueError(
        f"the directive {{{name}}} has no plain form for Colab: add it to lorarar/bookkit/markdown.py"
    )


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Apply `change` to the parts of a Markdown text that are neither code blocks nor inline code."""
    parts, last = [], 0
    for match in _CODE.finditer(text):
        if match[0][0] == "`" and text[: match.start()].endswith("}"):
            continue  # the backquotes of a role
        parts += [change(text[last : match.start()]), match[0]]
        last = match.end()
    return "".join([*parts, change(text[last:])])


def _plain(text: str, context: Context) -> str:
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"^\([\w:-]+\)=\n?", "", text, flags=re.MULTILINE)  # the target of a reference
    text = re.sub(r"^%.*\n?", "", text, flags=re.MULTILINE)  # a comment
    text = _DISPLAYED.sub(lambda match: _mathematics(match["latex"], match["label"], context), text)
    return _ROLE.sub(lambda match: _role(match, context), text)


def flatten(text: str, context: Context | None = None) -> str:
    """Turn MyST Markdown into the plain Markdown and LaTeX that Colab shows.

    Args:
        text: MyST Markdown.
        context: what references and quoted numbers stand for.

    Raises:
        ValueError: a role or directive has no plain form here, a reference no target, a number no value.
    """
    known = context or Context()
    text = _FENCE.sub(lambda match: _indented(_directive(match, known), match["indent"]), text)
    return re.sub(r"\n{3,}", "\n\n", outside_code(text, lambda part: _plain(part, known))).strip()


def _indented(text: str, indent: str) -> str:
    return "\n".join(f"{indent}{line}".rstrip() for line in text.splitlines())
