"""What chapters 11 and 12 show of a contest (`lorarar.study.contest`), and the networks that were in one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorarar.bookkit import style as look
from lorarar.bookkit.records import recorded, suffix
from lorarar.bookkit.tables import table
from lorarar.scales import data_folder
from lorarar.shoebox import zoo

if TYPE_CHECKING:
    from pathlib import Path

    from pandas.io.formats.style import Styler


def shipped(recipe: str, seed: int = 0) -> Path:
    """Return the file of a network of `lorarar.study.recipes.RECIPES`."""
    return data_folder() / "hypernetworks" / "trials" / f"{zoo.slug(recipe)}-{seed}.safetensors"


def questions_table(name: str, scale: str = "shoebox") -> Styler:
    """Show the questions of a contest's plan, each with the lead in ρ and its answer, at margin zero."""
    rows = [
        {
            "Is this": asked["one"],
            "ahead of this?": asked["other"],
            "By": look.interval(asked["lead"], "+.3f"),
            "Answer": asked["answer"],
        }
        for asked in recorded(f"{name}{suffix(scale)}")["questions"]
        if asked["margin"] == 0
    ]
    return table(rows)
