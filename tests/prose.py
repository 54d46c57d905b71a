"""Rules over the text of a chapter: no measurement is typed, prose outweighs code, findings are found in it.

A measured number in prose comes from a fact (``{glue:text}``), or stands in a sentence that cites its source,
or is named as exact in a comment of the same paragraph: ``<!-- numbers: 64 × 64, the images' size -->``.
References (Table A1, §3), years, names with digits (SD 1.5, dog #2, 3D), and all code and mathematics are no
prose.
"""

import re
from collections.abc import Callable

_BLOCK_CODE = re.compile(
    r"^ *(?P<fence>`{3,}|:{3,})(?:\{(?:math|code|code-block|bibliography|image)\}[^\n]*|[\w+-]*)\n"
    r".*?^ *(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)
_NOT_PROSE = re.compile(
    r"\$\$.*?\$\$(?:\s*\([\w-]+\))?"  # display mathematics
    r"|(?<!\\)\$[^$\n]+(?:\n[^$\n]+)*\$"  # inline mathematics
    r"|\{(?!cite)[\w:-]+\}`[^`]*`"  # roles; a citation is kept, for it excuses its sentence
    r"|(?<![`}])(?P<ticks>`{1,2})(?!`)[^`]+(?P=ticks)(?!`)"  # inline code
    r"|\]\([^)]*\)|<https?://[^>]*>|https?://\S+"  # addresses
    r"|^\([\w:-]+\)=$|^%.*$|^ *:[\w-]+:.*$|^ *(?:`{3,}|:{3,})(?:\{[\w:-]+\})?"  # MyST's own signs
    r"|^\s*\d+[.)](?=\s)",  # the numbers of a list
    re.MULTILINE | re.DOTALL,
)
_REFERENCE = re.compile(
    r"(?:§+|\b(?:Tables?|Figures?|Fig\.|Sections?|Sec\.|Chapters?|Equations?|Eq\.|Appendix|Algorithm|Exercise"
    r"|Python|CC BY|SD|Stable Diffusion|version|seed|issue|arXiv:?)) *"
    r"[A-Z]?\d[\d.]*(?:(?: and |–| to |, )[A-Z]?\d[\d.]*)*",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"(?<![\w/.#])(?<!\w-)(?!(?:19|20)\d\d\b)\d+(?:[.,]\d+)*(?!\w|-bit|-[A-Z])|\b(?:per cent|percent)\b"
)
_EXACT = re.compile(r"<!--\s*numbers:(.*?)-->", re.DOTALL)


_MEASUREMENT = re.compile(
    r"^\d+\.\d|,\d{3}"  # decimals, and thousands
    r"|^\d+ ?(?:%|per cent|percent|s|ms|seconds?|minutes?|hours?|times|points?|[kMG]i?B)$"
)
_WITH_UNIT = re.compile(
    r"(?<![\w/.#])(?<!\w-)(?!(?:19|20)\d\d\b)\d+(?:[.,]\d+)*"
    r"(?: ?(?:%|per cent|percent|ms|s|seconds?|minutes?|hours?|times|points?|[kMG]i?B)(?!\w))?"
    r"(?!\w|-bit|-[A-Z])"
)
_CONVENTIONS = {"95 %", "95%", "100 %", "100%", "50 %", "50%"}


def typed_measurements(markdown: str) -> list[str]:
    """Return the sentences that hold a typed measurement: a decimal, a share, a time, a size, a large number.

    Counts and settings (five recipes, 100 steps) are typed, conventions (95 %) too.
    """
    markdown = re.sub(r"Minutes: [^.]*\.", "", markdown)  # of an exercise

    def measured(number: str, allowed: set[str]) -> bool:
        bare = re.match(r"[\d.,]*\d", number)[0]
        return bool(_MEASUREMENT.search(number)) and number not in _CONVENTIONS and bare not in allowed

    return _sentences(
        markdown, lambda text, allowed: [n for n in _WITH_UNIT.findall(text) if measured(n, allowed)]
    )


def _sentences(markdown: str, numbers_in: Callable[[str, set[str]], list[str]]) -> list[str]:
    text = _BLOCK_CODE.sub("", markdown)
    found = []
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*+]|\d+[.)]) )|\n(?=\|)", text):
        exact = " ".join(_EXACT.findall(paragraph))
        allowed = set(_NUMBER.findall(exact))
        prose = re.sub(r"<!--.*?-->", "", paragraph, flags=re.DOTALL)
        prose = _REFERENCE.sub("", _NOT_PROSE.sub(" ", prose))
        for sentence in re.split(r"(?<=[.!?:;])\s+", prose):
            if "{cite" in sentence:
                continue
            if numbers := numbers_in(sentence, allowed):
                found.append(f"{', '.join(numbers)}: {' '.join(sentence.split())}")
    return found


def share_of_prose(source: str) -> float:
    """Return which share of a page's non-blank lines is prose; the options of cells count as neither."""
    _, _, body = source.partition("\n---\n")
    cell = re.compile(
        r"^```\{code-cell\}[^\n]*\n(?:---\n.*?\n---\n|(?::[^\n]*\n)*)(.*?)^```$", re.MULTILINE | re.DOTALL
    )
    code = sum(bool(line.strip()) for match in cell.finditer(body) for line in match[1].splitlines())
    prose = sum(bool(line.strip()) for line in cell.sub("", body).splitlines())
    return prose / (prose + code)


def normal(markdown: str) -> str:
    """Return prose with its roles as their words, quoted numbers as "#", no emphasis and plain spaces."""
    text = re.sub(r"\{glue:text\}`[^`]+`", "#", markdown)
    text = re.sub(r"\{[\w:-]+\}`([^`<]+?)\s*(?:<[^>]*>)?`", r"\1", text)
    return " ".join(re.sub(r"(?<!\w)[*_]{1,2}|[*_]{1,2}(?!\w)", "", text).split())
