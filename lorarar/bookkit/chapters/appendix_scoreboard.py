"""Appendix to the scoreboard: every method by name, the paper's samples, the metrics, what the path costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lorarar.bookkit import board as boards
from lorarar.bookkit import figures, records, views
from lorarar.bookkit.board import Board
from lorarar.bookkit.claims import Claim
from lorarar.bookkit.controls import Control
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.style import name_of
from lorarar.bookkit.tables import table
from lorarar.study import costs, statistics

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

METRICS = ("CLIP-I", "DINO", "CLIP-T")
TABLE_A2 = {
    "joint": (0.623, 0.764, 0.329),
    "direct": (0.657, 0.747, 0.305),
    "dare": (0.630, 0.576, 0.360),
    "ties": (0.620, 0.592, 0.358),
    "dare-ties": (0.618, 0.559, 0.355),
    "ziplora": (0.643, 0.741, 0.334),
    "lorarar": (0.656, 0.643, 0.344),
}
"""LoRA.rar, supplement, Table A2: CLIP-I, DINO, CLIP-T."""


def recorded(scale: str) -> Facts:
    """Return how the order of methods by each metric compares with the paper's, and how hard names are."""
    metrics = records.recorded(f"metrics_test{records.suffix(scale)}")
    board = boards.load("test", scale)
    shares = np.mean([board.scores(m) for m in board.merges], 0)  # (subjects, styles)
    facts = Facts(
        subject_least=shares.mean(1).min(),
        subject_most=shares.mean(1).max(),
        style_least=shares.mean(0).min(),
        style_most=shares.mean(0).max(),
        wolf=shares.mean(1)[board.subjects.index("wolf plushie")],
        ziplora_pairs=(board.scores("ziplora", case="best") > 0).sum(),
        lorarar_pairs=(board.scores("lorarar", case="best") > 0).sum(),
    )
    for i, metric in enumerate(METRICS):
        here = np.array([metrics[m][metric][0] for m in TABLE_A2])
        there = np.array([row[i] for row in TABLE_A2.values()])
        facts |= {f"order_{metric.replace('-', '_')}": statistics.rank_correlation(here, there)}
    return facts | _costs()


def _costs() -> Facts:
    """Return from how many pairs on the hypernetwork pays, and where the seconds of a path go."""
    run = records.recorded("costs")
    facts = Facts()
    for unit in ("seconds", "flops"):
        part = run[unit]
        alone, loras = costs.once(part, run["training LoRAs"])
        each = part["merge"]["lorarar"], part["merge"]["ziplora"]
        facts |= {
            f"pays_{unit}": costs.break_even(alone, *each),
            f"pays_{unit}_loras": costs.break_even(alone + loras, *each),
        }
    seconds = run["seconds"]
    facts |= {
        f"one_{method}": costs.totals(seconds, method, 1, 1) for method in ("lorarar", "ziplora", "joint")
    }
    facts |= {
        f"all_{method}": costs.totals(seconds, method, 5, 5) / 60
        for method in ("lorarar", "ziplora", "joint")
    }
    return facts | {
        "loras_share": 5 * (seconds["content LoRA"] + seconds["style LoRA"]) / 60 / facts.all_lorarar
    }


def statements(f: Facts) -> dict[str, bool]:
    """Return each finding of the prose with whether it holds."""
    return {
        "CLIP-T's order is much like the paper's": f.order_CLIP_T > 0.7,
        "CLIP-I's has nothing to do with it": abs(f.order_CLIP_I) < 0.3,
        "the wolf plushie is the hardest subject": f.wolf <= f.subject_least,
        "For one pair joint training is the cheapest": f.one_joint < min(f.one_lorarar, f.one_ziplora),
        "For all 25 pairs of the test it is the most expensive": f.all_joint
        > max(f.all_lorarar, f.all_ziplora),
        "most of the path is the training of the LoRAs": f.loras_share > 0.5,
        "several times as many": f.pays_seconds_loras > 3 * f.pays_seconds
        and f.pays_flops_loras > 2 * f.pays_flops,
    }


def claims(_: Facts) -> list[Claim]:
    """Return no claims: those about the comparison stand in the chapter."""
    return []


def maps(board: Board) -> Control:
    """Return a control that shows one method's share right for each subject and style, as in Figure A7."""
    merges = {name_of(m): m for m in board.merges}

    def show(method: str, case: str) -> tuple[Figure, str]:
        scores = 100 * board.scores(merges[method], case="best" if case == "best" else "average")
        figure = figures.heat_maps(
            {f"{method}, {case} case": scores},
            rows=list(map(views.short, board.subjects)),
            columns=list(map(views.short, board.styles)),
            form=".0f",
        )
        figure.axes[0].images[0].set_clim(0, 100)
        return figure, f"{method}: {scores.mean():.0f} of a hundred on average"

    return Control(
        show,
        {"case": ["average", "best"], "method": list(merges)},
        alt="A table of five subjects by five styles with one method's share of right images in each cell",
    )


def by_axis(board: Board, axis: str) -> Figure:
    """Show each method's share right by subject or by style."""
    names = board.subjects if axis == "subject" else board.styles
    mean_over = 1 if axis == "subject" else 0
    rows = np.stack([100 * board.scores(m).mean(mean_over) for m in board.merges])
    return figures.heat_maps(
        {f"right of a hundred, by {axis}": rows},
        rows=[name_of(m) for m in board.merges],
        columns=list(map(views.short, names)),
        form=".0f",
    )


def samples(scale: str) -> Figure:
    """Show the sheet of the paper's Figure A3: image, subject, style, each framed by its verdict."""
    run = records.recorded(f"experiment_test{records.suffix(scale)}")
    shown = records.sheet(f"{run.name}_samples", 3)
    return figures.image_grid(
        shown,
        rows=[name_of(row["method"]) for row in run["samples"]],
        columns=["image", "subject", "style"],
        width=4.4,
    )


def metrics_table(board: Board, scale: str) -> Styler:
    """Show the metrics' means, and the paper's Table A2."""
    metrics = records.recorded(f"metrics_test{records.suffix(scale)}")
    rows = []
    for m in views.rows_of(board):
        row = {"Method": name_of(m)} | {k: metrics[m][k][0] for k in METRICS}
        paper = TABLE_A2.get(m, ("–",) * 3)
        rows.append(row | {f"{k}, paper": value for k, value in zip(METRICS, paper, strict=True)})
    return table(rows, ".3f")


def costs_table() -> Styler:
    """Show what parts of the path cost, and what it costs in all for one pair and for the test's 25."""
    run = records.recorded("costs")
    seconds, flops = run["seconds"], run["flops"]
    rows = []
    for m in ("direct", "ties-delta", "lorarar", "ziplora", "joint"):
        row = {"Method": name_of(m), "LoRAs": "–" if m == "joint" else 2}
        row |= {"Merge, s": seconds["merge"][m], "Merge, GFLOPs": flops["merge"][m] / 1e9}
        for n in (1, 5):
            row |= {
                f"{n * n} pairs, min" if n > 1 else "1 pair, min": costs.totals(seconds, m, n, n) / 60,
                f"{n * n} pairs, TFLOPs" if n > 1 else "1 pair, TFLOPs": costs.totals(flops, m, n, n) / 1e12,
            }
        rows.append(row)
    return table(rows, {"Merge, s": ".3g", "Merge, GFLOPs": ",.2f"} | dict.fromkeys(list(rows[0])[4:], ".1f"))


def parts_table() -> Styler:
    """Show what each part costs by itself."""
    run = records.recorded("costs")
    names = {
        "content LoRA": "a subject's LoRA",
        "style LoRA": "a style's LoRA",
        "hypernetwork": "the hypernetwork, once",
        "images": f"{run['images']} images",
        "verdicts": "their verdicts",
    }
    rows = [
        {"Part": words, "Seconds": run["seconds"][part], "TFLOPs": run["flops"][part] / 1e12}
        for part, words in names.items()
    ]
    return table(rows, {"Seconds": ".1f", "TFLOPs": ".2f"})
