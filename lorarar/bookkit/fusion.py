"""Mix-of-Show and Custom Diffusion, a part of the appendix on merging: what their contest found."""

from __future__ import annotations

from itertools import product
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

SHOWN = {
    "Custom Diffusion, zoo": "Custom Diffusion",
    "Custom Diffusion": "Custom Diffusion, narrow LoRAs",
    "its LoRAs, plain sum": "plain sum, narrow LoRAs",
    "its LoRAs, RegMean": "RegMean, narrow LoRAs",
    "ZipLoRA": "ZipLoRA, on two subjects",
}
"""Rows that the page calls otherwise than the plan; narrow LoRAs have keys and values of cross-attention."""
QUOTED = {
    "RegMean": "regmean",
    "RegMean, ridge 0.001": "closed",
    "Mix-of-Show": "mix",
    "Mix-of-Show, 10 steps": "early",
    "Custom Diffusion, zoo": "wide",
    "Custom Diffusion": "custom",
    "its LoRAs, plain sum": "narrow_sum",
    "its LoRAs, RegMean": "narrow_regmean",
}
"""Rows that the page quotes, and their facts."""
ASKED = {
    "mix_regmean_right": ("Mix-of-Show", "RegMean"),
    "mix_closed_rho": ("Mix-of-Show", "RegMean, ridge 0.001"),
    "mix_tuned_right": ("Mix-of-Show", "sum at 0.7"),
    "mix_tuned_rho": ("Mix-of-Show", "sum at 0.7"),
    "custom_sum_right": ("Custom Diffusion", "its LoRAs, plain sum"),
    "custom_sum_rho": ("Custom Diffusion", "its LoRAs, plain sum"),
    "custom_narrow_right": ("Custom Diffusion", "its LoRAs, RegMean"),
}
"""Questions of the plan that the page answers, by what was measured, and their facts."""
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
    found = {f"{key}_right": right[row].mean() for row, key in QUOTED.items()}
    found |= {f"{key}_rho": errors[row].value for row, key in QUOTED.items()}
    found["fusion_pairs"] = right["Mix-of-Show"].size
    for key, question in ASKED.items():
        lead = contests.leads("fusion_rho" if key.endswith("rho") else "fusion", scale)[question]
        found |= {f"{key}_low": lead.low, f"{key}_high": lead.high}
    for row, key in (("Mix-of-Show", "mix"), ("Custom Diffusion, zoo", "wide")):
        found |= {f"{key}_{name}": aligned[row][name].mean() for name in ("style", "subject")}
    found["next_subject"] = max(
        of["subject"].mean() for row, of in aligned.items() if row != "Custom Diffusion, zoo"
    )
    beside = [
        difference(aligned["Mix-of-Show"][name], aligned[other][name])
        for name, other in product(ALIGNMENTS.values(), ("plain sum", "sum at 0.7"))
    ]
    found |= {"aligned_low": max(e.low for e in beside), "aligned_high": min(e.high for e in beside)}
    return Facts(found)


def summary(scale: str) -> Styler:
    """Show for each row ρ, how often it is right, and the three alignments, the best first."""
    right, aligned, errors = pairs(scale), alignments(scale), contests.means("fusion_rho", scale)
    rows = sorted(right, key=lambda row: -right[row].mean())
    return table(
        [
            {
                "Method": SHOWN.get(row, row),
                "ρ": errors[row].value,
                "Both right": look.interval(mean(right[row])),
                **{name.capitalize(): of.mean() for name, of in aligned[row].items()},
            }
            for row in rows
        ],
        {"ρ": ".2f"} | {name.capitalize(): ".3f" for name in ALIGNMENTS.values()},
    )


def statements(f: Facts) -> dict[str, bool]:
    """Return the findings about both, each by a fragment of the prose."""
    return {
        "Mix-of-Show draws what RegMean draws": (
            abs(f.mix_right - f.regmean_right) < 0.05
            and f.mix_regmean_right_low <= 0 <= f.mix_regmean_right_high
        ),
        "Fifty steps stop short of the answer": (
            f.mix_closed_rho_low < f.mix_closed_rho_high < 0 and f.closed_rho < f.mix_rho < f.regmean_rho
        ),
        "and are right as often": abs(f.early_right - f.mix_right) < 0.05 and f.early_rho < 1.2 * f.mix_rho,
        "far ahead of the sum at": 0.1 < f.mix_tuned_rho_low < f.mix_tuned_rho_high,
        "in pictures that stays open": f.mix_tuned_right_low < 0 < f.mix_tuned_right_high,
        "has no right picture": f.wide_right == 0,
        "well below that of their plain sum": 0.05 < f.custom_sum_rho_low < f.custom_sum_rho_high,
        "still three times that of RegMean": 2.5 < f.custom_rho / f.narrow_regmean_rho < 4,
        "no interval of these differences excludes zero": (
            f.custom_sum_right_low <= 0 <= f.custom_sum_right_high
            and f.custom_narrow_right_low <= 0 <= f.custom_narrow_right_high
        ),
        "RegMean, too, is right less often with narrow LoRAs": f.narrow_regmean_right < f.regmean_right - 0.1,
        "nearest of all to the subject": f.wide_subject > f.next_subject,
        "no further from the style than Mix-of-Show": f.wide_style > f.mix_style - 0.01,
        "no interval between Mix-of-Show and either sum excludes zero": f.aligned_low <= 0 <= f.aligned_high,
    }
