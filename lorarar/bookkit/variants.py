"""ZipLoRA in its variants, a part of the appendix on merging: what their contest found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorarar.bookkit import contests
from lorarar.bookkit import style as look
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.tables import table

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

TWO, FOUR = "query and output", "all four"
OURS, RELEASED, SUM = f"{FOUR}, dot, batch 4", "released code", "sum at 0.7"
"""The book's own choice, the recipe of LoRA.rar's released code for ZipLoRA, and one number."""
COSINE = f"{FOUR}, cosine, batch 4"
"""The book's choice by the other measure."""
ROWS = {OURS: "ours", f"{TWO}, dot, batch 4": "two", RELEASED: "released", SUM: "sum"}
"""Rows whose errors the pages quote, and their facts."""
ASKED = {
    "parts": (OURS, f"{TWO}, dot, batch 4"),
    "batch": (OURS, f"{FOUR}, dot, batch 1"),
    "averaged": (f"{RELEASED}, averaged", RELEASED),
    "released": (RELEASED, SUM),
}
"""Questions of the plan that the page answers, and their facts."""


def facts(scale: str = "shoebox") -> Facts:
    """Return what the contest of ZipLoRA's variants found: ρ of rows, and leads."""
    rows, leads = contests.means("ziplora", scale), contests.leads("ziplora", scale)
    found = {f"variant_{key}": rows[row].value for row, key in ROWS.items()}
    for key, question in ASKED.items():
        found |= contests.ends(f"variant_by_{key}", leads[question])
    found |= contests.ends("variant_costs", leads[COSINE, OURS], -1)
    averaged = rows[f"{RELEASED}, averaged"].value
    ahead = [row for row, entry in rows.items() if entry.value < averaged]
    return Facts(found, {"variant_averaged": averaged, "variant_ahead": len(ahead)})


def summary(scale: str) -> Styler:
    """Show ρ of each variant with its interval, the best first."""
    rows = contests.means("ziplora", scale)
    order = sorted(rows, key=lambda row: rows[row].value)
    return table([{"Variant": row, "ρ": look.interval(rows[row], ".2f")} for row in order])


def statements(f: Facts) -> dict[str, bool]:
    """Return the findings about the variants, each by a fragment of the prose."""
    return {
        "The book's own choice is the best of them": (
            f.variant_ours < min(f.variant_two, f.variant_averaged, f.variant_released)
        ),
        "Each of its three choices counts": (
            min(f.variant_by_parts_low, f.variant_by_batch_low, f.variant_costs_low) > 0
        ),
        "One choice outweighs all others": (
            f.variant_by_averaged > 2 * max(f.variant_by_parts, f.variant_by_batch, f.variant_costs)
            and f.variant_by_averaged_low > 0.1
        ),
        "no better than one number": f.variant_by_released_low < 0 < f.variant_by_released_high,
        "second only to ours": f.variant_ahead == 1,
    }
