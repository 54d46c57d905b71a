"""What chapters show of a contest (`lorarar.study.contest`), and the networks that were in one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lorarar.bookkit import figures
from lorarar.bookkit import style as look
from lorarar.bookkit.records import recorded, suffix
from lorarar.bookkit.tables import table
from lorarar.scales import data_folder
from lorarar.shoebox import zoo
from lorarar.study.statistics import Entry

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

ENDS = ("", "_low", "_high")


def shipped(recipe: str, seed: int = 0) -> Path:
    """Return the file of a network of `lorarar.study.recipes.RECIPES`."""
    return data_folder() / "hypernetworks" / "trials" / f"{zoo.slug(recipe)}-{seed}.safetensors"


def key(row: str) -> str:
    """Return a row's name as a fact is called."""
    return re.sub(r"\W+", "_", row.lower().replace("lora.rar", "rar")).strip("_")


def ends(name: str, entry: Sequence[float], times: float = 1) -> dict[str, float]:
    """Return a value with the ends of its interval as facts, times 100 for points, times -1 turned round."""
    value, *around = (times * number for number in entry)
    return dict(zip((f"{name}{end}" for end in ENDS), (value, *sorted(around)), strict=True))


def hues(rows: Iterable[str]) -> dict[str, str]:
    """Return the colour of each row of a contest: that of its method, by how its name begins; else ink."""
    known = {look.name_of(method).lower(): hue for method, hue in look.HUES.items()}
    return {
        row: next((hue for name, hue in known.items() if row.lower().startswith(name)), look.INK)
        for row in rows
    }


def means(name: str, scale: str = "shoebox") -> dict[str, Entry]:
    """Return the mean of each row of a contest with its interval."""
    return {row: Entry(*of["mean"]) for row, of in recorded(f"{name}{suffix(scale)}")["rows"].items()}


def pairs(name: str, scale: str = "shoebox") -> dict[str, np.ndarray]:
    """Return each row of a contest by pair, the mean of its trainings: (subjects, styles)."""
    rows = recorded(f"{name}{suffix(scale)}")["rows"]
    return {row: np.array(of["pairs"]).mean(0) for row, of in rows.items()}


def leads(name: str, scale: str = "shoebox") -> dict[tuple[str, str], Entry]:
    """Return the answers to the questions of a contest's plan: {(one, other): lead of the one}."""
    asked = recorded(f"{name}{suffix(scale)}")["questions"]
    return {(one["one"], one["other"]): Entry(*one["lead"]) for one in asked}


def questions_table(name: str, scale: str = "shoebox") -> Styler:
    """Show the questions of a contest's plan, each with the lead and its answer, at margin zero."""
    run = recorded(f"{name}{suffix(scale)}")
    by_error = run["measure"] == "rho"
    rows = [
        {
            "Is this": asked["one"],
            "ahead of this?": asked["other"],
            "By": look.interval(asked["lead"], "+.3f") if by_error else look.points(asked["lead"]),
            "Answer": asked["answer"],
        }
        for asked in run["questions"]
        if asked["margin"] == 0
    ]
    return table(rows)


def contest_figure(name: str, scale: str = "shoebox", *, label: str = "") -> Figure:
    """Draw the mean of each row of a contest with its interval: ρ from zero, or the share right."""
    run = recorded(f"{name}{suffix(scale)}")
    by_error = run["measure"] == "rho"
    entries = {row: of["mean"] for row, of in run["rows"].items()}
    label = label or ("ρ" if by_error else "share right")
    figure = figures.forest(entries, label=label, colours=hues(entries), percent=not by_error)
    figure.axes[0].set_xlim(0, None)
    return figure
