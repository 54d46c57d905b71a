"""The judge on trial, a part of the appendix on the judges: the same questions in other words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lorarar.bookkit import figures, records
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.style import STYLE, SUBJECT, interval
from lorarar.bookkit.tables import table
from lorarar.scales import find_scale, local
from lorarar.study import wordings
from lorarar.study.statistics import Entry, independent

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

ONE, SEVERAL, CRITIC = "mars2", "mars2=runs/wordings/judge", "critic"
"""The judges on trial, as the record has them: of one wording, of eight, and the one without words."""
SHOWN = {
    "paper": "the paper's",
    "code": "the code's",
    "explained": "the code's, with reasons",
    "strict": "told to be strict",
    "lenient": "told to be lenient",
    "short": "the question alone",
    "swapped": "pictures swapped",
    "telegram": "in a few words",
    "first": "question first",
    "plain": "everyday words",
    "opposite": "the opposite asked",
}
"""The wordings as the page calls them, in its order; neither judge ever learnt the last three."""
NEW = ("first", "plain", "opposite")
COUNTS = {"1 reference": "one reference", "2 references": "two", "paper": "three", "4 references": "four"}


def trial(scale: str) -> records.Recorded:
    """Return the recorded trial."""
    return records.recorded(f"wordings{records.suffix(scale)}")


def shares(run: dict[str, Any], judge: str, variant: str) -> np.ndarray:
    """Return the share of right verdicts on the drawings of each named thing, (names,): half show it."""
    each = run["each"]
    rows = run["verdicts"][judge][variant]["drawings"].values()
    said = np.array([list(row) for row in rows]) == "1"
    return (said == (np.arange(2 * each) < each)).mean(1)


def balanced(run: dict[str, Any], judge: str, variant: str) -> Entry:
    """Return the balanced accuracy on the drawings, subjects and styles together."""
    return independent(shares(run, judge, variant))


def agreement(run: dict[str, Any], judge: str, variant: str) -> float:
    """Return the share of verdicts on merged pictures that are those of the paper's way to ask."""
    found = run["compared"][judge][variant]
    return float(np.mean([found[axis]["agreement"][0] for axis in ("subject", "style")]))


def recorded(scale: str) -> Facts:
    """Return what the trial found."""
    run = trial(scale)
    facts = Facts(methods=len(run["methods"]), orders=len(run["methods"]) * (len(run["methods"]) - 1) // 2)
    for key, judge in (("one", ONE), ("several", SEVERAL)):
        found = run["compared"][judge]
        for name in SHOWN:
            facts |= {
                f"{key}_{name}": balanced(run, judge, name).value,
                f"{key}_{name}_same": agreement(run, judge, name),
                f"{key}_{name}_ranks": found[name]["rank correlation"][0],
                f"{key}_{name}_swaps": len(found[name]["swapped"]),
            }
        learnt = [n for n in SHOWN if n not in (*NEW, "paper")]
        facts |= {
            f"{key}_least": min(facts[f"{key}_{n}"] for n in learnt),
            f"{key}_most": max(facts[f"{key}_{n}"] for n in learnt),
            f"{key}_same_least": min(facts[f"{key}_{n}_same"] for n in learnt),
            f"{key}_ranks_least": min(facts[f"{key}_{n}_ranks"] for n in learnt),
            f"{key}_drawn_same": agreement(run, judge, "temperature 0.7, draw 0"),
        }
    return facts


def asked_again(scale: str, names: tuple[str, ...]) -> Facts:
    """Ask the shipped judge again about some names, in three wordings.

    Returns:
        The share of verdicts that are the recorded ones ("same_words").
    """
    run = trial(scale)
    eyes = wordings.Miniature(local(find_scale(scale).judge))
    same = []
    for wording in ("paper", "short", "opposite"):
        says = wordings.in_words(eyes.asks(wording))
        for case in wordings.cases(run["each"], run["seed"], names):
            said = says(case.axis, case.references[: wordings.REFERENCES], case.images, case.words)
            same += list(
                said == (np.array(list(run["verdicts"][ONE][wording]["drawings"][case.name])) == "1")
            )
    return Facts(same_words=np.mean(same))


def figure(scale: str) -> Figure:
    """Draw both miniatures' balanced accuracy on drawings by wording, with intervals over named things."""
    run = trial(scale)
    drawn, axes = figures.panels(2, 5.2, sharey=True)
    for place, (judge, title, colour) in enumerate(
        ((ONE, "learnt one wording", SUBJECT), (SEVERAL, "learnt eight", STYLE))
    ):
        entries = {shown: balanced(run, judge, name) for name, shown in SHOWN.items()}
        figures.forest(entries, label="right", colours=dict.fromkeys(entries, colour), axes=axes[place])
        axes[place].axvline(0.5, linestyle=":", color="0.5")
        axes[place].set_title(title)
        axes[place].set_xlim(0, 1)
    return drawn


def ranking(scale: str) -> Styler:
    """Show for each wording how many verdicts on merged pictures stay, and what becomes of the ranking."""
    run = trial(scale)
    rows = []
    for name, shown in SHOWN.items():
        if name == "paper":
            continue
        row = {"asked": shown}
        for judge, who in ((ONE, "one"), (SEVERAL, "eight")):
            found = run["compared"][judge][name]
            row |= {
                f"same ({who})": agreement(run, judge, name),
                f"ranks ({who})": interval(found["rank correlation"], ".2f"),
                f"swaps ({who})": len(found["swapped"]),
            }
        rows.append(row)
    return table(rows, {f"same ({who})": ".0%" for who in ("one", "eight")})


def counts(scale: str) -> Styler:
    """Show all three judges by the number of references."""
    run = trial(scale)
    rows = []
    for name, shown in COUNTS.items():
        row = {"references": shown}
        for judge, who in ((ONE, "one wording"), (SEVERAL, "eight wordings"), (CRITIC, "critic")):
            row[who] = balanced(run, judge, name).value
            row[f"ranks ({who})"] = interval(run["compared"][judge][name]["rank correlation"], ".2f")
        rows.append(row)
    return table(rows, ".0%")
