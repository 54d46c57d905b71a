"""The rows that the scoreboard lacked: one number, a table, a network trained to its end, a closed form.

They were made later than the scoreboard, on its pairs and from its seeds, by a plan that was committed before
(data/plans/scoreboard.json), so that either can be compared with the other pair by pair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lorarar.bookkit import board as boards
from lorarar.bookkit import contests, figures
from lorarar.bookkit.style import interval, name_of, points
from lorarar.bookkit.tables import table
from lorarar.study.statistics import crossed

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

ROWS = {
    "RegMean, own inputs": "regmean",
    "place alone": "table",
    "LoRA.rar, converged": "converged",
    "sum at 0.7": "tuned",
}
"""The rows of the plan, and what their facts are called."""
OLD = ("ziplora", "joint", "lorarar", "ties-delta", "direct")
"""Rows of the scoreboard that stand beside them."""
DUELS = (
    *(("RegMean, own inputs", other) for other in ("sum at 0.7", "place alone", "lorarar", "ziplora")),
    *((one, "sum at 0.7") for one in ("ziplora", "lorarar", "LoRA.rar, converged", "place alone")),
)
"""Whose difference is told."""
RECORDS = {"critic": "scoreboard", "mars2": "scoreboard_mars2"}


def scores(scale: str = "shoebox", judge: str = "critic") -> dict[str, np.ndarray]:
    """Return the share right of every pair by row, (subjects, styles): late rows by name, methods by key."""
    board = boards.load("test", scale)
    late = contests.pairs(RECORDS[judge], scale)
    return {name: late[name] for name in ROWS} | {m: board.scores(m, judge=judge) for m in OLD}


def facts(scale: str = "shoebox") -> dict[str, float]:
    """Return shares and differences by the critic, and the shares by the miniature."""
    found, by_text = scores(scale), scores(scale, "mars2")
    values = {"late_regmean": found["RegMean, own inputs"].mean(), "late_tuned": found["sum at 0.7"].mean()}
    for one, other in DUELS:
        name = f"{ROWS.get(one, one)}_over_{ROWS.get(other, other)}"
        values |= _lead(name, found[one] - found[other])
    names = ROWS | {m: m for m in ("ziplora", "joint", "lorarar")}
    return values | {f"mars2_{short}": by_text[name].mean() for name, short in names.items()}


def lead_of_ziplora(scale: str = "shoebox") -> dict[str, float]:
    """Return by how many points ZipLoRA is ahead of the sum at 0.7 on the test pairs, as facts."""
    found = scores(scale)
    return _lead("test_lead", found["ziplora"] - found["sum at 0.7"])


def _lead(name: str, gaps: np.ndarray) -> dict[str, float]:
    """Return the mean of differences of shares, (subjects, styles), in points, with its ends, as facts."""
    return contests.ends(name, crossed(gaps), 100)


def rows_table(scale: str = "shoebox") -> Styler:
    """Show every row by both judges, and how far it is ahead of the sum at 0.7, best first."""
    found, by_text = scores(scale), scores(scale, "mars2")
    tuned = found["sum at 0.7"]
    rows = [
        {
            "Method": name_of(name),
            "Critic": interval(crossed(values)),
            "MARS² in miniature": by_text[name].mean(),
            "Ahead of the sum at 0.7": "–" if name == "sum at 0.7" else points(crossed(values - tuned)),
        }
        for name, values in sorted(found.items(), key=lambda row: -row[1].mean())
    ]
    return table(rows, ".0%")


def rows_figure(scale: str = "shoebox") -> Figure:
    """Draw the share right of late rows and of those beside them with intervals, best first."""
    found = sorted(scores(scale).items(), key=lambda row: -row[1].mean())
    entries = {name_of(name): crossed(values) for name, values in found}
    return figures.forest(entries, label="share right", colours=contests.hues(entries))
