"""The judge on trial, a part of the appendix on the judges: the same questions in other words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lorarar.bookkit import figures, records
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.style import GREY, STYLE, SUBJECT, interval
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
COIN = ("strict", "lenient", "short", "swapped", "telegram", "first", "plain")
"""Wordings of which a judge of one wording makes nothing."""
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


def agreement(found: dict[str, Any]) -> float:
    """Return the share of equal verdicts on merged pictures, on subjects and styles together."""
    return float(np.mean([found[axis]["agreement"][0] for axis in ("subject", "style")]))


def kappa(found: dict[str, Any]) -> float:
    """Return Cohen's κ on merged pictures, the mean of subjects and styles."""
    return float(np.mean([found[axis]["kappa"] for axis in ("subject", "style")]))


def recorded(scale: str) -> Facts:
    """Return what the trial found."""
    run = trial(scale)
    one, several = (run["compared"][judge] for judge in (ONE, SEVERAL))
    learnt = ("code", "explained", "strict", "lenient", "short")
    drawn = [name for name in one if name.startswith("temperature")]
    right = {
        who: {n: balanced(run, judge, n).value for n in SHOWN}
        for who, judge in (("one", ONE), ("several", SEVERAL))
    }
    between = run["between"][f"{ONE}, {CRITIC}"]
    return Facts(
        one_paper=right["one"]["paper"],
        one_code=right["one"]["code"],
        one_code_same=agreement(one["code"]),
        one_code_ranks=one["code"]["rank correlation"][0],
        paper_style=one["paper"]["style"]["balanced accuracy"][0],
        explained_style=one["explained"]["style"]["balanced accuracy"][0],
        paper_right=one["paper"]["right"],
        explained_right=one["explained"]["right"],
        explained_swaps=len(one["explained"]["swapped"]),
        orders=len(run["methods"]) * (len(run["methods"]) - 1) // 2,
        one_rest_least=min(right["one"][n] for n in COIN),
        one_rest_most=max(right["one"][n] for n in COIN),
        several_paper=right["several"]["paper"],
        learnt_least=min(right["several"][n] for n in learnt),
        learnt_most=max(right["several"][n] for n in learnt),
        learnt_ranks=min(several[n]["rank correlation"][0] for n in learnt),
        learnt_same=min(agreement(several[n]) for n in learnt),
        several_swapped=right["several"]["swapped"],
        several_telegram=right["several"]["telegram"],
        several_first=right["several"]["first"],
        several_plain=right["several"]["plain"],
        several_opposite=right["several"]["opposite"],
        drawn_least=min(balanced(run, ONE, name).value for name in drawn),
        drawn_same=min(agreement(one[name]) for name in drawn),
        drawn_ranks=min(one[name]["rank correlation"][0] for name in drawn),
        drawn_low=min(one[name]["rank correlation"][1] for name in drawn),
        alone_ranks=min(
            run["compared"][j]["1 reference"]["rank correlation"][0] for j in (ONE, SEVERAL, CRITIC)
        ),
        between_ranks=between["rank correlation"][0],
        between_low=between["rank correlation"][1],
        between_same=agreement(between),
    )


def statements(f: Facts) -> dict[str, bool]:
    """Return each finding of the prose with whether it holds."""
    return {
        "The two words by which the code differs change next to nothing": (
            abs(f.one_code - f.one_paper) < 0.02 and f.one_code_same > 0.97 and f.one_code_ranks > 0.95
        ),
        "Asked for reasons as well, it loses the styles": f.explained_style < f.paper_style - 0.1,
        "it finds right hardly any merged picture": f.explained_right < 0.2 < f.paper_right,
        "In all other words that mean the same it is no better than a coin": (
            f.one_rest_least > 0.3 and f.one_rest_most < 0.55
        ),
        "holds what it learnt in five of them": (
            f.learnt_least > 0.8 and f.learnt_ranks > 0.8 and f.several_paper > 0.8
        ),
        "With the pictures swapped it is weaker": 0.6 < f.several_swapped < f.learnt_least - 0.05,
        "the telegram it has hardly learnt": 0.5 < f.several_telegram < f.several_swapped - 0.05,
        "Of the wordings that it never heard it understands neither well": (
            max(f.several_first, f.several_plain) < f.learnt_least - 0.1
        ),
        "it answers as if it had not been asked the opposite": f.several_opposite < 0.3,
        "Answers drawn by lot are a little worse": f.one_paper - 0.08 < f.drawn_least <= f.one_paper,
        "A single reference does nearly as well": f.alone_ranks > 0.85,
        "The judges differ more in single verdicts than the wordings": f.between_same < f.learnt_same - 0.1,
        "as alike as those of two wordings": abs(f.between_ranks - f.learnt_ranks) < 0.1,
        "nothing is sure about that": f.between_low < 0.3,
        "The verdicts in other words are those of the record": f.same_words > 0.95,
    }


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
        ((ONE, "knows one", SUBJECT), (SEVERAL, "knows eight", STYLE))
    ):
        entries = {shown: balanced(run, judge, name) for name, shown in SHOWN.items()}
        figures.forest(entries, label="right", colours=dict.fromkeys(entries, colour), axes=axes[place])
        axes[place].axvline(0.5, linestyle=":", color=GREY, zorder=1.5)
        axes[place].set_title(title)
        axes[place].set_xlim(0, 1)
        axes[place].set_xticks([0.1, 0.5, 0.9])
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
                f"same, κ ({who})": f"{agreement(found):.0%}, {kappa(found):.2f}",
                f"ranks ({who})": interval(found["rank correlation"], ".2f"),
                f"swaps ({who})": len(found["swapped"]),
            }
        rows.append(row)
    return table(rows)


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
