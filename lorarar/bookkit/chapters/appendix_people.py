"""Appendix on asking people: the page as participants see it, and how many people and pairs a study needs."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from lorarar.bookkit import figures, records
from lorarar.bookkit.board import Board
from lorarar.bookkit.claims import Claim
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.tables import table
from lorarar.study.orders import references
from lorarar.study.questions import png
from lorarar.study.survey import Question
from lorarar.study.survey_page import PAGES, asked, rendered

if TYPE_CHECKING:
    from IPython.display import HTML
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

METHODS = ("lorarar", "ziplora")


def plan() -> tuple[records.Recorded, np.ndarray]:
    """Return the recorded simulation, and its power as (alike, leads, pairs, people)."""
    run = records.recorded("people_power")
    return run, np.array(run["power"])


def recorded(_scale: str) -> Facts:
    """Return the power of studies of the paper's size, and of larger ones."""
    run, power = plan()
    few, more = run["pairs"].index(25), run["pairs"].index(100)
    paper, crowd = run["people"].index(25), run["people"].index(100)
    ten, twenty, thirty = (run["leads"].index(lead) for lead in (0.1, 0.2, 0.3))
    middle = 1
    return Facts(
        kappa_low=run["kappa"][0],
        kappa_middle=run["kappa"][1],
        kappa_high=run["kappa"][2],
        paper_twenty=power[middle, twenty, few, paper],
        paper_thirty=power[middle, thirty, few, paper],
        crowd_twenty=power[middle, twenty, few, crowd],
        pairs_twenty=power[middle, twenty, more, paper],
        like_twenty=power[2, twenty, few, paper],
        unlike_twenty=power[0, twenty, few, paper],
        ten_most=power[1:, ten, few].max(),
        false_alarms=power[:, 0].max(),
    )


def statements(f: Facts) -> dict[str, bool]:
    """Return each finding of the prose with whether it holds."""
    return {
        "four times as many people add little": f.crowd_twenty - f.paper_twenty < 0.15,
        "four times as many pairs make it all but certain": f.pairs_twenty > 0.85
        and f.pairs_twenty - f.paper_twenty > 0.25,
        "the more people agree, the less another person tells": f.like_twenty
        < f.paper_twenty
        < f.unlike_twenty,
        "no number of people on these axes settles a lead of ten points": f.ten_most < 0.5,
        "a study puts a given one of them ahead in at most": f.false_alarms <= 0.05,
    }


def claims(_: Facts) -> list[Claim]:
    """Return no claims: no people have been asked."""
    return []


def page(board: Board, pair: int = 7) -> HTML:
    """Show a question as a phone shows it, with two recorded images; its buttons do nothing here.

    Args:
        board: the recorded experiment.
        pair: the place of a subject and style on it.
    """
    from IPython.display import HTML

    subject, style = board.pairs[pair]
    shown = [board.pictures()[pair, board.methods.index(m)] for m in METHODS]
    pictures = {"subject": references(subject)[0], "style": references(style)[0]}
    pictures |= dict(zip(METHODS, shown, strict=True))
    question = Question(0, "random", 0, subject, style, METHODS, (0, 0), None, None, tuple(pictures))
    values = {"place": 8, "count": 50, "answered": 7, "token": "", "chosen": None}
    text = rendered("question.html", **values, **asked(question, False, "lorarar"))
    # A frame cannot see whether the book around it is light or dark: it stays light.
    css = (
        (PAGES / "page.css").read_text().replace("light dark", "light").replace("scheme: dark", "scheme: no")
    )
    text = text.replace('<link rel="stylesheet" href="/page.css">', f"<style>{css}</style>")
    text = text.replace('<script src="/page.js" defer></script>', "")
    for key, picture in pictures.items():
        data = b64encode(png(picture)).decode()
        text = text.replace(f"/picture/{key}.png", f"data:image/png;base64,{data}")
    return HTML(
        '<iframe sandbox title="A question of the study, as a phone shows it" '
        'style="width:100%;max-width:390px;height:560px;border:1px solid #8888;border-radius:1rem;'
        'background:#fff" '
        f'srcdoc="{escape(text)}"></iframe>'
    )


def power_figure() -> Figure:
    """Show the chance to settle a lead over the number of people, for three leads and three sets of pairs."""
    run, power = plan()
    figure, axes = figures.panels(len(run["pairs"]), 3.6, sharey=True)
    for p, (pairs, one) in enumerate(zip(run["pairs"], axes, strict=True)):
        for i, lead in enumerate(run["leads"]):
            if lead:
                one.plot(run["people"], 100 * power[1, i, p], "o-", label=f"{100 * lead:.0f} points")
        one.axhline(80, color="0.6", linewidth=1, linestyle=":")
        one.set_xscale("log")
        one.set_xticks(run["people"][::2], [str(n) for n in run["people"][::2]])
        one.minorticks_off()
        one.set_title(f"{pairs} pairs")
        one.set_ylim(0, 103)
    axes[0].set_ylabel("settled, of 100 studies")
    axes[len(axes) // 2].set_xlabel("participants")
    figures.legend_below(figure, 3)
    return figure


def power_table() -> Styler:
    """Show the power of studies by 25 people, by how alike people are, the lead and the number of pairs."""
    run, power = plan()
    people = run["people"].index(25)
    rows = [
        {"Agreement κ": run["kappa"][a], "True lead": f"{100 * lead:.0f} points"}
        | {f"{pairs} pairs": f"{power[a, i, p, people]:.0%}" for p, pairs in enumerate(run["pairs"])}
        for (a, _), (i, lead) in product(enumerate(run["alike"]), enumerate(run["leads"]))
    ]
    return table(rows, ".2f")
