"""Chapter 10, the scoreboard: every method on the test pairs, what of it is settled, and what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

from lorarar.bookkit import board as boards
from lorarar.bookkit import figures, missing_rows, records
from lorarar.bookkit.board import CONTROLS, Board
from lorarar.bookkit.claims import Claim, sign_verdict, verdict
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.style import (
    GREY,
    HUES,
    INK,
    WIDTH,
    interval,
    name_of,
    points,
)
from lorarar.bookkit.tables import table
from lorarar.bookkit.views import failures, rows_of
from lorarar.study import statistics
from lorarar.study.statistics import Entry

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

PAPERS = ("joint", "direct", "dare", "ties", "dare-ties")
"""The rivals in the paper's table, beside LoRA.rar and ZipLoRA."""
FACTORS = ("dare", "ties", "dare-ties")
"""Those of them that work on the factors, as the released code runs them."""
ORDER = (("lorarar", "ziplora"), *((lead, m) for lead in ("lorarar", "ziplora") for m in PAPERS))
"""The paper's order of methods, as comparisons of two: the first is better."""


# ---------------------------------------------------------------- numbers


def recorded(scale: str) -> Facts:
    """Return the numbers of recorded runs: verdicts on test and validation, sums, times, hypernetworks."""
    test, validation = boards.load("test", scale), boards.load("validation", scale)
    facts = Facts({f"average_{m}": test.of(m).mean() for m in ("ziplora", "joint", "lorarar", "base")})
    for name, entry in {
        "duel": test.difference("lorarar", "ziplora"),
        "duel_pairs": test.difference("lorarar", "ziplora", over="pairs"),
        "duel_validation": validation.difference("lorarar", "ziplora"),
        "joint": test.difference("lorarar", "joint"),
        "joint_pairs": test.difference("lorarar", "joint", over="pairs"),
        "sum": test.difference("lorarar", "direct"),
        "zip_joint": test.difference("ziplora", "joint"),
        "zip_sum": test.difference("ziplora", "direct"),
    }.items():
        facts |= in_points(name, entry)
    for same in ("duel_pairs", "joint_pairs", "joint_pairs_low"):
        del facts[same]  # differences are the same, whatever is drawn
    compared = comparisons(test, validation)
    found = [comparison.settled for comparison in compared]
    factors = {m: [c.settled for c in compared if c.first == m and c.second in FACTORS] for m in ORDER[0]}
    chances = statistics.winners(np.stack([test.scores(m) for m in test.merges]))
    first = dict(zip(test.merges, chances, strict=True))
    return facts | Facts(
        _failures(test),
        _names(test),
        missing_rows.facts(scale),
        _cost(scale),
        behind=-facts.duel,
        place_ziplora=test.merges.index("ziplora") + 1,
        place_lorarar=test.merges.index("lorarar") + 1,
        confirmed=found.count(1),
        contradicted=found.count(-1),
        open=found.count(0),
        lorarar_factors=factors["lorarar"].count(1),
        ziplora_factors=factors["ziplora"].count(1),
        first_ziplora=first["ziplora"],
        first_joint=first["joint"],
        only_subject=test.of("content", "subject").mean(),
        only_style=test.of("style", "style").mean(),
        **_refused(test.judge, scale),
    )


def in_points(name: str, entry: Entry) -> dict[str, float]:
    """Return a difference of shares and its interval as facts, in points."""
    return {name: 100 * entry.value, f"{name}_low": 100 * entry.low, f"{name}_high": 100 * entry.high}


class Comparison(NamedTuple):
    """The first of two methods minus the second, on the test and, if both were run there, on validation."""

    first: str
    second: str
    test: Entry
    validation: Entry | None

    @property
    def settled(self) -> int:
        """1 if the first is better, -1 if it is worse, 0 if an interval contains zero or the two disagree."""
        return statistics.settled(*(entry for entry in (self.test, self.validation) if entry))


def comparisons(test: Board, validation: Board) -> list[Comparison]:
    """Return the comparisons that make up the paper's order."""
    return [
        Comparison(
            first,
            second,
            test.difference(first, second),
            validation.difference(first, second) if second in validation.methods else None,
        )
        for first, second in ORDER
    ]


def _refused(judge: str, scale: str) -> dict[str, float]:
    """Return which share of right drawings the judge refuses, on either axis."""
    reports = records.recorded(f"judges{records.suffix(scale)}")["reports"][judge]
    seen = {axis: report["confusion"] for axis, report in reports.items()}
    return {
        f"refused_{axis}": counts["yes, said no"] / (counts["yes, said yes"] + counts["yes, said no"])
        for axis, counts in seen.items()
    }


def _failures(board: Board) -> dict[str, float]:
    parts = {m: failures(board, m) for m in ("lorarar", "ziplora", "direct")}
    lost = {f"{m}_neither": part["neither"] for m, part in parts.items()}
    for m in ("lorarar", "ziplora"):
        lost[f"{m}_no_subject"] = parts[m]["only the style"]
        lost[f"{m}_no_style"] = parts[m]["only the subject"]
    neither = {
        m: statistics.grid(~board.of(m, "subject") & ~board.of(m, "style"), len(board.subjects))
        for m in ("direct", "ziplora")
    }
    return lost | in_points("neither", statistics.crossed(neither["direct"] - neither["ziplora"]))


def _names(board: Board) -> dict[str, float]:
    """Return how hard the paper's two hard names are here: shares over all merges, and their places."""
    shares = np.mean([board.scores(m) for m in board.merges], 0)  # (subjects, styles)
    sides = {"can": (board.subjects, shares.mean(1)), "glowing": (board.styles, shares.mean(0))}
    facts = {}
    for name, (names, means) in sides.items():
        place = names.index(name)
        facts |= {name: means[place], f"{name}_place": int((means < means[place]).sum()) + 1}
    return facts


def _cost(scale: str) -> dict[str, float]:
    spent = records.recorded(f"merge_times{records.suffix(scale)}")
    tried = records.recorded(f"hypernetworks{records.suffix(scale)}")["of"]
    averages = [row["average"][0] for row in tried.values()]
    return {
        "ms_lorarar": 1000 * spent["lorarar"]["median"],
        "seconds_ziplora": spent["ziplora"]["median"],
        "ratio": spent["ziplora"]["median"] / spent["lorarar"]["median"],
        "recipes_low": min(averages),
        "recipes_high": max(averages),
    }


def live(gap: float, same: float) -> Facts:
    """Return the numbers of this run.

    Args:
        gap: mean difference of images made now and recorded ones, in grey levels of 256.
        same: share of verdicts on them that are the recorded ones.
    """
    return Facts(live_gap=gap, live_same=same)


# ---------------------------------------------------------------- sentences and claims


def statements(f: Facts) -> dict[str, bool]:
    """Return each finding of the prose with whether it holds."""
    return {
        "ZipLoRA leads, and LoRA.rar is third of twelve": f.place_ziplora == 1 and f.place_lorarar == 3,
        "This leans against the paper's order and does not settle it": (
            f.duel_high < 0 < f.duel_validation_high and f.duel_validation < 0
        ),
        "only just leaves zero out": -2 < f.duel_high < 0 and f.duel_pairs_high < -4,
        "with pairs drawn LoRA.rar against joint training looks decided": f.joint_pairs_high
        < 0
        < f.joint_high,
        "little more than half as wide": (
            0.5 < (f.duel_pairs_high - f.duel_pairs_low) / (f.duel_high - f.duel_low) < 0.67
        ),
        "contains zero on validation": f.duel_validation_low < 0 < f.duel_validation_high,
        "seven of its eleven comparisons are settled, all as in the paper": (
            f.confirmed == 7 and f.contradicted == 0 and f.open == 4
        ),
        "Nobody can tell ZipLoRA from joint training": f.zip_joint_low < 0 < f.zip_joint_high,
        "LoRA.rar is not shown to beat one number": (f.lorarar_over_tuned_low < 0 < f.ziplora_over_tuned_low),
        "has the most images right": f.late_regmean > max(f.average_ziplora, f.average_joint, f.late_tuned),
        "level with ZipLoRA and ahead of LoRA.rar by": (
            f.regmean_over_ziplora_low < 0 < f.regmean_over_ziplora_high and f.regmean_over_lorarar_low > 0
        ),
        "It is ahead of the sum at 0.7 by": f.regmean_over_tuned_low > 0 and f.regmean_over_table_low > 0,
        "not shown to be worse, and needs neither the pictures nor an optimisation": (
            f.regmean_over_ziplora_low > -3 and f.regmean_over_ziplora > 0
        ),
        "is not shown to be worth more than volume": (
            max(f.lorarar_over_tuned_low, f.converged_over_tuned_low, f.table_over_tuned_low) < 0
        ),
        "also has RegMean and ZipLoRA in front": (
            min(f.mars2_regmean, f.mars2_ziplora)
            > max(f.mars2_lorarar, f.mars2_tuned, f.mars2_table, f.mars2_converged, f.mars2_joint)
        ),
        "ZipLoRA is ahead of the plain sum and of the three rows on factors": (
            f.zip_sum_low > 0 and f.ziplora_factors == 3
        ),
        "LoRA.rar is ahead of the rows on factors": f.lorarar_factors == 3,
        "against the plain sum nothing is settled": f.sum_low < 0 < f.sum_high,
        "LoRA.rar loses the subject about as often as the style": (
            abs(f.lorarar_no_subject - f.lorarar_no_style) < 0.05
        ),
        "points more than ZipLoRA": f.neither_low > 0 and f.direct_neither > 1.5 * f.ziplora_neither,
        "The can is among the easier subjects": f.can_place >= 4,
        "glowing is hard, and only one style is harder": f.glowing_place == 2,
        "a spread as large as the gap": 100 * (f.recipes_high - f.recipes_low) > 0.8 * abs(f.duel),
        "They are the recorded ones": f.live_same >= 0.9 and f.live_gap <= 2,
    }


def written(f: Facts, name: str, form: str = "+.0f") -> str:
    """Write a difference in points, with its interval."""
    value, low, high = (format(f[name + end], form) for end in ("", "_low", "_high"))
    return f"{value} points ({low} to {high})"


def claims(f: Facts) -> list[Claim]:
    """Return the papers' claims about the comparison, each with its verdict."""
    settled = statistics.settled(
        Entry(f.duel, f.duel_low, f.duel_high),
        Entry(f.duel_validation, f.duel_validation_low, f.duel_validation_high),
    )
    return [
        Claim(
            "before_ziplora",
            "LoRA.rar puts the right subject into the right style more often than ZipLoRA",
            "LoRA.rar, abstract and §4",
            f"{written(f, 'duel', '+.1f')} on the test, {written(f, 'duel_validation')} on validation, with "
            "one network, trained once: this leans the other way and is not settled.",
            sign_verdict(settled, settled),
        ),
        Claim(
            "before_joint",
            "LoRA.rar is better than joint training",
            "LoRA.rar, §4",
            f"{written(f, 'joint')} on the test: the interval contains zero.",
            sign_verdict(f.joint_low, f.joint_high),
        ),
        Claim(
            "before_sums",
            "LoRA.rar is better than the direct merge, TIES, DARE and DARE-TIES",
            "LoRA.rar, §4",
            "Better than TIES, DARE and DARE-TIES as the paper ran them, on factors; ahead of the plain sum "
            f"by {written(f, 'sum')}: the interval contains zero.",
            verdict(
                f.sum_low > 0 and f.lorarar_factors == 3, part=f.lorarar_factors == 3, against=f.sum_high < 0
            ),
        ),
        Claim(
            "hard_names",
            "The can and the glowing style are hard for all methods",
            "LoRA.rar, supplement §A2.2",
            f"Glowing is hard, {f.glowing:.0%} right over all merges; the can, with {f.can:.0%}, is not, "
            "since a drawn can has no writing to lose.",
            verdict(f.can_place <= 2 and f.glowing_place <= 2, part=f.glowing_place <= 2),
        ),
    ]


# ---------------------------------------------------------------- figures and tables


def scoreboard(board: Board) -> Figure:
    """Draw the average case of each method with its interval over subjects and styles, and the best case."""
    rows = rows_of(board)
    colours = {name_of(m): GREY if m in CONTROLS else HUES.get(m, INK) for m in rows}
    figure = figures.forest(
        {name_of(m): board.share(m) for m in rows}, label="share right", colours=colours
    )  # fmt: skip
    for place, m in enumerate(rows):
        figure.axes[0].plot(
            board.share(m, case="best").value, place, "D", markersize=7, markerfacecolor="white",
            markeredgecolor=colours[name_of(m)], markeredgewidth=1.6,
        )  # fmt: skip
    figure.axes[0].set_xlim(-0.03, 1.03)
    return figure


def scoreboard_table(board: Board, validation: Board) -> Styler:
    """Show the average case with its interval, the best case, either axis, and the average on validation."""
    rows = [
        {
            "Method": name_of(m),
            "Average": interval(board.share(m)),
            "Best": board.share(m, case="best").value,
            "Subject": board.of(m, "subject").mean(),
            "Style": board.of(m, "style").mean(),
            "Validation": f"{validation.of(m).mean():.0%}" if m in validation.methods else "–",
        }
        for m in rows_of(board)
    ]
    return table(rows, ".0%")


def differences(board: Board) -> Figure:
    """Draw LoRA.rar and ZipLoRA minus each other method, intervals over names (wide) and pairs (thin)."""
    rest = [m for m in board.merges if m not in ("lorarar", "ziplora")]
    figure, panels = plt.subplots(
        1, 2, figsize=(WIDTH, 1.3 + 0.4 * (len(rest) + 1)), layout="constrained", sharex=True, sharey=True
    )
    for ax, lead, other in zip(panels, ("lorarar", "ziplora"), ("ziplora", "lorarar"), strict=True):
        for place, m in enumerate([other, *rest]):
            wide, thin = board.difference(lead, m), board.difference(lead, m, over="pairs")
            shade = HUES.get(m, INK)
            ax.plot(wide[1:], [place] * 2, color=shade, linewidth=4, alpha=0.35, solid_capstyle="round")
            ax.plot(thin[1:], [place] * 2, color=shade, linewidth=1.4)
            ax.plot(wide.value, place, "o", color=shade, markersize=7)
        ax.axvline(0, color=GREY, linestyle=":")
        ax.set_title(f"{name_of(lead)} minus")
        ax.set_xticks([-0.3, 0, 0.3, 0.6], ["−30", "0", "30", "60"])
        ax.grid(False, axis="y")
    names = [f"{name_of('ziplora')} | {name_of('lorarar')}", *map(name_of, rest)]
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    figure.supxlabel("points", size=13)
    return figure


def two_intervals(board: Board) -> Styler:
    """Show differences with the interval over pairs and that over subjects and styles."""
    shown = (ORDER[0], ("lorarar", "joint"), ("lorarar", "direct"), ("ziplora", "direct"))
    return table(
        {
            "Difference": [f"{name_of(first)} minus {name_of(second)}" for first, second in shown],
            "Pairs drawn": [points(board.difference(*two, over="pairs")) for two in shown],
            "Subjects and styles drawn": [points(board.difference(*two)) for two in shown],
        }
    )


def comparisons_table(test: Board, validation: Board) -> Styler:
    """Show the paper's order, comparison by comparison, with what is settled."""
    words = {1: "settled, as in the paper", -1: "settled, the other way", 0: "open"}
    rows = [
        {
            "In the paper": f"{name_of(c.first)} before {name_of(c.second)}",
            "Test": points(c.test),
            "Validation": points(c.validation) if c.validation else "not run",
            "Here": words[c.settled],
        }
        for c in comparisons(test, validation)
    ]
    return table(rows)


def cost(board: Board, scale: str) -> Figure:
    """Draw the average case over the seconds that a merge takes, every method with its name."""
    spent = records.recorded(f"merge_times{records.suffix(scale)}")
    places = {
        name_of(m): (np.log10(spent[m]["median"]), board.of(m).mean()) for m in board.merges if m in spent
    }
    colours = {name_of(m): HUES.get(m, GREY) for m in board.merges}
    figure = figures.scatter(
        places, xlabel="seconds for a pair", ylabel="share right", colours=colours, height=4.8
    )
    figure.axes[0].set_xticks(range(-3, 3), ["0.001", "0.01", "0.1", "1", "10", "100"])
    return figure
