"""Mix-of-Show and Custom Diffusion, a part of the appendix on merging: what their contest found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lorarar.bookkit import contests
from lorarar.bookkit import style as look
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.records import recorded, suffix
from lorarar.bookkit.tables import table
from lorarar.study.contest import difference, mean

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

    from lorarar.study.statistics import Entry

ROWS = {
    "RegMean": ("RegMean", "regmean"),
    "RegMean, ridge 0.001": ("RegMean, ridge 0.001", "closed"),
    "Mix-of-Show": ("Mix-of-Show", "mix"),
    "Mix-of-Show, 10 steps": ("Mix-of-Show, 10 steps", "early"),
    "sum at 0.7": ("sum at 0.7", "tuned"),
    "plain sum": ("plain sum", "sum"),
    "Custom Diffusion, zoo": ("Custom Diffusion, of the same LoRAs", "zoo"),
    "Custom Diffusion": ("Custom Diffusion, of narrow LoRAs", "custom"),
    "its LoRAs, plain sum": ("plain sum of narrow LoRAs", "narrow_sum"),
    "its LoRAs, RegMean": ("RegMean of narrow LoRAs", "narrow_regmean"),
    "ZipLoRA": ("ZipLoRA, on two subjects", "zip"),
}
"""Rows of the plan: what the page calls them, and their facts. Narrow LoRAs have keys and values alone."""
ALIGNMENTS = {"CLIP-I": "style", "DINO": "subject", "CLIP-T": "text"}
"""The metrics of the record, by the words of ZipLoRA's table."""


def pairs(scale: str) -> dict[str, np.ndarray]:
    """Return each row's shares of right pictures: (1, subjects, styles)."""
    run = recorded(f"fusion{suffix(scale)}")["rows"]
    return {row: np.array(of["pairs"]) for row, of in run.items()}


def alignments(scale: str) -> dict[str, dict[str, np.ndarray]]:
    """Return each row's alignments by their names in `ALIGNMENTS`: (1, subjects, styles)."""
    run = recorded(f"fusion_alignments{suffix(scale)}")["rows"]
    return {
        row: {ALIGNMENTS[metric]: np.array(of["pairs"]) for metric, of in metrics.items()}
        for row, metrics in run.items()
    }


def facts(scale: str = "shoebox") -> Facts:
    """Return what the contest of Mix-of-Show and Custom Diffusion found."""
    right, aligned, errors = pairs(scale), alignments(scale), contests.means("fusion_rho", scale)
    found = {f"{key}_right": right[row].mean() for row, (_, key) in ROWS.items()}
    found |= {f"{key}_rho": errors[row].value for row, (_, key) in ROWS.items()}
    for name in ALIGNMENTS.values():
        found |= {f"{key}_{name}": aligned[row][name].mean() for row, (_, key) in ROWS.items()}

    def lead(one: str, other: str) -> Entry:
        return difference(right[one], right[other])

    for key, one, other in (
        ("mix_tuned", "Mix-of-Show", "sum at 0.7"),
        ("mix_closed", "Mix-of-Show", "RegMean, ridge 0.001"),
        ("mix_zip", "Mix-of-Show", "ZipLoRA"),
        ("custom_sum", "Custom Diffusion", "its LoRAs, plain sum"),
        ("custom_narrow", "Custom Diffusion", "its LoRAs, RegMean"),
        ("narrow_regmean", "its LoRAs, RegMean", "RegMean"),
    ):
        found |= contests.ends(f"{key}_lead", lead(one, other))
    return Facts(found)


def summary(scale: str) -> Styler:
    """Show for each row ρ, how often it is right, and the three alignments, the best first."""
    right, aligned, errors = pairs(scale), alignments(scale), contests.means("fusion_rho", scale)
    rows = sorted(ROWS, key=lambda row: -right[row].mean())
    return table(
        [
            {
                "Method": ROWS[row][0],
                "ρ": errors[row].value,
                "Both right": look.interval(mean(right[row])),
                **{name.capitalize(): of.mean() for name, of in aligned[row].items()},
            }
            for row in rows
        ],
        {"ρ": ".2f"} | {name.capitalize(): ".3f" for name in ALIGNMENTS.values()},
    )
