"""Sphinx extension: pages load nothing that they do not use, and nothing from afar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx


def drop_thebe(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Leave out the scripts of Thebe, which Jupyter Book always adds; the book has no button for it."""
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in str(script).lower()
        and "thebe" not in str(getattr(script, "attributes", "")).lower()
    ]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the filter, after all that adds scripts."""
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
