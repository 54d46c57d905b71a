"""The rule that no measured number is typed into prose, as a function over Markdown.

A numeral in prose must come from code (``{glue:text}``), or stand in a sentence that cites its source, or be
named as exact in a comment of the same paragraph: ``<!-- numbers: 64 × 64, the images' size -->``. References
(Table A1, §3), years, names with digits (SD 1.5, dog #2, 3D), and all code and mathematics are no prose.
"""

import re

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


def typed_numbers(markdown: str) -> list[str]:
    """Return the sentences of a Markdown text that hold a hand-typed number, each with its numbers."""
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
            numbers = [number for number in _NUMBER.findall(sentence) if number not in allowed]
            if numbers:
                found.append(f"{', '.join(numbers)}: {' '.join(sentence.split())}")
    return found
