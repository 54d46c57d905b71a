"""The appendix to chapters 6 and 7: the ladder, the recipes and the sight of the hypernetwork, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lorarar.bookkit import style
from lorarar.bookkit.chapters.ch06_hypernetwork import rungs
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.records import recorded as record
from lorarar.bookkit.records import suffix
from lorarar.bookkit.tables import table
from lorarar.study.ladder import LADDER, VARIANTS

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

    from lorarar.bookkit.claims import Claim

PROPERTIES = ("strength of the subject's", "strength of the style's", "cosine of the two")


def recorded(scale: str = "shoebox") -> Facts:
    """Return the numbers from recorded runs."""
    new = record(f"rho{suffix(scale)}")["ladder"]["new"]
    return Facts(added=np.mean(new[VARIANTS[0]]), averaged=np.mean(new["LoRA.rar"]), **recipes(scale))


def recipes(scale: str = "shoebox") -> dict[str, float]:
    """Return the share of right images of the first recipe, the best and the worst, and who is ahead."""
    rows = list(record(f"hypernetworks{suffix(scale)}")["of"].values())
    shares = [row["average"][0] for row in rows]
    return {
        "recipe_first": shares[0],
        "recipe_best": max(shares),
        "recipe_worst": min(shares),
        "recipes_ahead": sum(row["ahead"][1] > 0 for row in rows),
    }


def live(sight: np.ndarray) -> Facts:
    """Return the rank correlations with the own part's strength, and the largest of the other four."""
    own = sight[0, 0], sight[1, 1]
    others = np.abs(sight.ravel()[[1, 2, 3, 5]]).max()
    return Facts(sight_subject=own[0], sight_style=own[1], sight_others=others)


def statements(facts: Facts) -> dict[str, bool]:
    """Return the findings of the prose, each by a fragment of it."""
    f = facts
    return {
        "None is ahead of the first by an interval clear of zero": f.recipes_ahead == 0,
        "another of the six has a higher average": f.recipe_best > f.recipe_first > f.recipe_worst,
        "Added, they make the merge worse": f.added > f.averaged + 0.05,
        "depends on the strength of its own part": min(f.sight_subject, f.sight_style) > 2 * f.sight_others,
        "far from a rule that could replace the network": max(f.sight_subject, f.sight_style) < 0.5,
    }


def claims(facts: Mapping[str, float]) -> list[Claim]:
    """Return no claims: they stand in chapters 6 and 7."""
    return []


def ladder_table(scale: str = "shoebox") -> Styler:
    """Return the ladder in numbers: mean ρ on training pairs, and on new LoRAs with its interval."""
    both = rungs(scale)
    rows = [
        {
            "Coefficients": name,
            "Training pairs": f"{both['known'][name][0]:.3f}",
            "New LoRAs": style.interval(both["new"][name], ".3f"),
        }
        for name in LADDER
    ]
    return table(rows, caption="Mean ρ, with 95 % intervals over subjects and styles.")


def recipes_table(scale: str = "shoebox") -> Styler:
    """Return the recipes: what each changes of the first one's, and how its validation images were judged."""
    rows = list(record(f"hypernetworks{suffix(scale)}")["of"].values())
    first = rows[0]["recipe"]
    says = {
        "parts": ", ".join,
        "rest": {"average": "rest averaged", "sum": "rest added"}.get,
        "order": "pairs {}".format,
        "learning_rate": "rate {:g}".format,
    }
    lines = []
    for row in rows:
        recipe = row["recipe"]
        changes = [say(recipe[key]) for key, say in says.items() if recipe[key] != first[key]]
        lines.append(
            {
                "Recipe": "; ".join(changes) or "the paper's",
                "Average case": style.interval(row["average"]),
                "Against the first": style.points(row["ahead"]),
                "Best case": f"{row['best'][0]:.0%}",
            }
        )
    return table(lines, caption="Validation pairs, by the critic; intervals over pairs, as recorded.")


def sight_table(sight: np.ndarray) -> Styler:
    """Return the rank correlations (2 sides, 3 properties) as a table."""
    rows = [
        {
            "Coefficients": side,
            **{name: f"{v:.2f}" for name, v in zip(PROPERTIES, values, strict=True)},
        }
        for side, values in zip(("subject", "style"), sight, strict=True)
    ]
    return table(rows, caption="Mean rank correlation within layers.")
