"""Sphinx extension: formulas as MathML, which browsers draw by themselves, without a script from afar."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util.math import get_node_equation_number

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

_ALIGNED = re.compile(r"(\\(?:begin|end))\{(?:split|aligned|align)\*?\}")


def to_mathml(latex: str, display: str = "inline") -> str:
    """Return the MathML of a formula. Raises ValueError, naming the formula, if it cannot be read."""
    try:
        text = convert(_ALIGNED.sub(r"\1{align*}", latex.strip()), display=display)
    except Exception as error:
        raise ValueError(f"cannot read the formula {latex!r}: {error!r}") from error
    if unknown := re.search(r">(\\[^<\s]+)<", text):
        raise ValueError(f"cannot read the formula {latex!r}: unknown command {unknown[1]}")
    # The source stays with the formula, for those who copy it and for those who listen to it.
    return text.replace("<math ", f'<math alttext="{escape(latex.strip(), quote=True)}" ', 1)


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    """Write an inline formula."""
    self.body.append(f'<span class="math">{to_mathml(node.astext())}</span>')
    raise nodes.SkipNode


def visit_displaymath(self: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on its own line, with its number if it has a label."""
    number = ""
    if node["number"]:
        before = len(self.body)
        self.add_permalink_ref(node, "Link to this equation")
        link = "".join(self.body[before:])
        del self.body[before:]
        number = f'<span class="eqno">({get_node_equation_number(self, node)}){link}</span>'
    latex = node.astext()
    if r"\\" in latex and not re.match(r"\s*\\begin\{", latex):
        latex = rf"\begin{{align*}}{latex}\end{{align*}}"
    opening = self.starttag(node, "div", CLASS="math displaymath")
    self.body.append(f"{opening}{to_mathml(latex, 'block')}{number}</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer; ``html_math_renderer: mathml`` chooses it."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
