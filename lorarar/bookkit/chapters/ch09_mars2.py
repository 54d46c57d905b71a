"""Chapter 9, MARS²: how good the judges are, on drawings and on generated images, and what cosines prefer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lorarar.bookkit import board as boards
from lorarar.bookkit import figures, records
from lorarar.bookkit.claims import Claim, sign_verdict, verdict
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.quiz import Quiz
from lorarar.bookkit.style import GREY, HUES, INK, JUDGES, interval, name_of, points
from lorarar.bookkit.tables import table
from lorarar.pipelines import quiet
from lorarar.study import orders, statistics
from lorarar.study.statistics import Entry
from lorarar.study.verdicts import Shows

with quiet():  # transformers tells of processors that nothing here uses
    from lorarar.shoebox.models import examination

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

    from lorarar.bookkit.board import Board

AIM = 0.95  # the balanced accuracy that the project asks of a judge, on each axis
AXES = ("subject", "style")
METRICS = ("CLIP-I", "DINO", "CLIP-T")
SCORES = (*METRICS, "sum of three", *JUDGES)
LETTERS = "abcdef"
SHORT = {"mars2": "MARS²", "critic": "critic", "sum of three": "sum"}


# ---------------------------------------------------------------- numbers


def recorded(scale: str) -> Facts:
    """Return the numbers of recorded runs: the judges' examination, and their verdicts on the test images."""
    exam = records.recorded(f"judges{records.suffix(scale)}")
    board = boards.load("test", scale)
    wrong = wrong_shares(exam, "mars2", "subject")
    lenient = leniency(exam, "mars2", "subject")
    exams = {f"exam_{j}_{a}": examined(exam, j, a).value for j in JUDGES for a in AXES}
    found = {
        f"{judge}_subject_{control}": board.of(control, "subject", judge).mean()
        for judge in JUDGES
        for control in ("base", "content")
    }
    return Facts(
        exams,
        found,
        _generated(board),
        _sure(board),
        _ranked(board, scale),
        exam_accepts=wrong["accepts"].mean(),
        exam_refuses=wrong["refuses"].mean(),
        lenient=lenient.value,
        lenient_low=lenient.low,
        lenient_high=lenient.high,
    )


def examined(exam: Mapping, judge: str, axis: str) -> Entry:
    """Return a judge's balanced accuracy on an axis, with an interval over named things."""
    report = exam["reports"][judge][axis]
    by_name = statistics.independent(list(report["by name"].values()))
    return by_name._replace(value=report["balanced accuracy"])  # which is not rounded name by name


def wrong_shares(exam: Mapping, judge: str, axis: str) -> dict[str, np.ndarray]:
    """Return for each named thing the share of rivals accepted, and of right drawings refused: (names,)."""
    # Half the drawings of each name, the first ones, show it.
    said = [
        np.array(list(row)) == "1"
        for name, row in exam["verdicts"][judge].items()
        if name in exam["reports"][judge][axis]["by name"]
    ]
    each = exam["each"]
    return {
        "accepts": np.array([row[each:].mean() for row in said]),
        "refuses": np.array([1 - row[:each].mean() for row in said]),
    }


def leniency(exam: Mapping, judge: str, axis: str) -> Entry:
    """Return how much more often a judge accepts rivals than it refuses what is right, over names."""
    shares = wrong_shares(exam, judge, axis)
    return statistics.independent(shares["accepts"] - shares["refuses"])


def kappa(board: Board, methods: list[str], axis: str = "right") -> float:
    """Return Cohen's κ of the critic and the miniature on the images of some methods."""
    sides = [np.concatenate([board.of(m, axis, judge).ravel() for m in methods]) for judge in JUDGES]
    return examination.kappa(*sides)


def _generated(board: Board) -> dict[str, float]:
    """Return how the two judges' verdicts on generated images compare."""
    scores = [np.stack([board.scores(m, judge=judge) for m in board.merges]) for judge in JUDGES]
    order = statistics.rank_agreement(*scores)
    within = {m: kappa(board, [m]) for m in board.methods}
    ranks = [np.argsort(-side.mean((1, 2)), kind="stable") for side in scores]
    same = np.flatnonzero(ranks[0] != ranks[1])
    return {
        "kappa_all": kappa(board, list(board.methods)),
        "kappa_lorarar": within["lorarar"],
        "kappa_ziplora": within["ziplora"],
        "kappa_highest": max(within.values()),
        "judged": len(board.methods) * board.of("base").size,
        "right_critic": scores[0].mean(),
        "right_mars2": scores[1].mean(),
        "order": order.value,
        "order_low": order.low,
        "order_high": order.high,
        "same_places": int(same[0]) if len(same) else len(board.merges),
    }


def _sure(board: Board) -> dict[str, float]:
    """Return LoRA.rar's average and best case, and three intervals of the first."""
    right = board.of("lorarar")
    facts = {"average": right.mean(), "best": right.any(1).mean()}
    facts["independent"] = 1 - (1 - right.mean()) ** right.shape[1]
    for name, entry in intervals(right, len(board.subjects)).items():
        key = name.split()[0]
        facts |= {f"{key}_low": entry.low, f"{key}_high": entry.high}
    return facts


def intervals(right: np.ndarray, subjects: int) -> dict[str, Entry]:
    """Return the intervals of verdicts (pairs, images), by what is drawn anew."""
    scores = statistics.grid(right, subjects)
    return {
        "images": statistics.independent(right),  # each image as if it were news
        "pairs": statistics.independent(scores),
        "subjects and styles": statistics.crossed(scores),
    }


def _ranked(board: Board, scale: str) -> dict[str, float]:
    """Return each metric's rank correlation with the judge's order of methods, verdicts resampled."""
    means = metric_means(board.merges, scale)
    scores = np.stack([board.scores(m) for m in board.merges])
    facts = {}
    for metric in METRICS:
        entry = statistics.rank_agreement(scores, means[metric])
        key = f"rank_{metric.replace('-', '_')}"
        facts |= {key: entry.value, f"{key}_low": entry.low, f"{key}_high": entry.high}
    return facts


def metric_means(methods: list[str], scale: str) -> dict[str, np.ndarray]:
    """Return each metric's mean over a method's test images, {metric: (methods,)}."""
    means = records.recorded(f"metrics_test{records.suffix(scale)}")
    return {metric: np.array([means[m][metric][0] for m in methods]) for metric in METRICS}


def live(
    opening: Mapping[str, np.ndarray],
    tables: Mapping[str, np.ndarray],
    copies: Mapping[str, np.ndarray],
    subjects: int,
) -> Facts:
    """Return the numbers of this run.

    Args:
        opening: {judge: which of the six deliveries of the opening are right, (6,) bool}.
        tables: {score: (orders, 6)}, the right delivery first.
        copies: {metric: (orders,)}, the score of a copied reference minus that of the right picture.
        subjects: of how many the orders are.
    """
    share = {score: orders.prefers(tables[score]) for score in SCORES}
    row = orders.WRONG.index
    picked = {score: orders.picks(tables[score]).reshape(subjects, -1) for score in SCORES}
    best = max(METRICS, key=lambda metric: picked[metric].mean())
    ahead = {judge: statistics.crossed(picked[judge] - picked[best]) for judge in JUDGES}
    return Facts(
        opening_mars2_b=opening["mars2"][1],
        opening_critic_c=opening["critic"][2],
        opening_wrong=sum(side[1:].sum() for side in opening.values()),
        opening_right=sum(side[0] for side in opening.values()),
        dino_photo=share["DINO"][row("photo")],
        clip_thing=share["CLIP-I"][row("other thing")],
        copies_DINO=(copies["DINO"] > 0).mean(),
        copies_CLIP_I=(copies["CLIP-I"] > 0).mean(),
        copies_low=min(statistics.crossed((c > 0).reshape(subjects, -1)).low for c in copies.values()),
        picks_metric=picked[best].mean(),
        picks_sum=picked["sum of three"].mean(),
        picks_mars2=picked["mars2"].mean(),
        picks_critic=picked["critic"].mean(),
        critic_ahead_low=ahead["critic"].low,
        ahead=ahead["mars2"].value,
        ahead_low=ahead["mars2"].low,
        ahead_high=ahead["mars2"].high,
    )


# ---------------------------------------------------------------- sentences and claims


def statements(f: Facts) -> dict[str, bool]:
    """Return each finding of the prose with whether it holds."""
    exam = {judge: [f[f"exam_{judge}_{axis}"] for axis in AXES] for judge in JUDGES}
    return {
        "neither reaches the 95 % that we had asked for on both axes": all(
            min(sides) < AIM for sides in exam.values()
        ),
        "of those of a model that has never met it": f.mars2_subject_base > 0.4,
        "agree with the critic's no better than chance": f.kappa_lorarar < 0.1 and f.kappa_ziplora < 0.1,
        "CLIP-T tends to rank the twelve ways to merge backwards": f.rank_CLIP_T < -0.4,
        "DINO's order has nothing to do with it": f.rank_DINO_low < 0 < f.rank_DINO_high,
        "CLIP-I follows the critic's order in part": f.rank_CLIP_I_low > 0 and f.rank_CLIP_I_high < 0.9,
        "Both judges accept picture a, and each is fooled once": (
            f.opening_right == 2 and f.opening_wrong == 2 and f.opening_mars2_b and f.opening_critic_c
        ),
        "some pairs come out right nearly always, others hardly ever": f.best < f.independent - 0.1,
        "The interval over subjects and styles is the widest": (
            f.subjects_high - f.subjects_low > 1.5 * (f.pairs_high - f.pairs_low)
            and f.pairs_high - f.pairs_low > 1.5 * (f.images_high - f.images_low)
        ),
        "Where the miniature errs, it says Yes too often": f.lenient_low > 0,
        "and the critic's is the better of the two": min(exam["critic"]) > min(exam["mars2"]),
        "says Yes about as often as a tossed coin": 0.4 < f.mars2_subject_base < 0.6,
        "The critic refuses nearly all of them": f.critic_subject_base < 0.1,
        "It is at most a quarter for every method": f.kappa_highest < 0.25,
        "the first six places are the same": f.same_places >= 6,
        "so this order says little about the judges": f.order_low < 0.5,
        "DINO prefers the photo": f.dino_photo < 0.5,
        "no better than a coin": 0.4 < f.clip_thing < 0.6,
        "A reference that is simply copied scores higher": min(f.copies_DINO, f.copies_CLIP_I) > 0.9,
        "The critic's lead over the best metric is clear of zero, the miniature's is not": (
            f.critic_ahead_low > 0 >= f.ahead_low and f.picks_mars2 > f.picks_sum > f.picks_metric
        ),
    }


def claims(f: Facts) -> list[Claim]:
    """Return the papers' claims about judging, each with its verdict."""
    accurate = min(f.exam_mars2_subject, f.exam_mars2_style)
    ahead, lenient = (f.ahead, f.ahead_low, f.ahead_high), (f.lenient, f.lenient_low, f.lenient_high)
    return [
        Claim(
            "suitable",
            "A vision-language model, asked for one axis at a time, is fit to judge",
            "LoRA.rar, supplement §A1.1",
            f"LLaVA-Critic was not run. The miniature is not fit: {accurate:.0%} on its worse axis in "
            f"drawings, and it finds the subject in {f.mars2_subject_base:.0%} of images without it.",
            verdict(accurate >= AIM and f.mars2_subject_base <= 0.1 and f.kappa_all >= 0.6),
        ),
        Claim(
            "overlooks",
            "The judge may overlook small details of a subject",
            "LoRA.rar, supplement §A3.1",
            f"In drawings the miniature accepts {f.exam_accepts:.0%} of other individuals of the class and "
            f"refuses {f.exam_refuses:.0%} of right ones: {points(lenient)}.",
            sign_verdict(f.lenient_low, f.lenient_high),
        ),
        Claim(
            "copies",
            "DINO and CLIP-I are highest where a reference is copied",
            "LoRA.rar, supplement §A2.1",
            f"A copied photo has a higher DINO than the right drawing in {f.copies_DINO:.0%} of orders, a "
            f"copied drawing a higher CLIP-I in {f.copies_CLIP_I:.0%}.",
            verdict(f.copies_low > 0.5, against=max(f.copies_DINO, f.copies_CLIP_I) < 0.5),
        ),
        Claim(
            "better_than_cosines",
            "The judge tells right from wrong where the standard metrics do not",
            "LoRA.rar, §4 and supplement §A2.1",
            f"Of six drawings the miniature picks the right one in {f.picks_mars2:.0%} of orders, the best "
            f"metric in {f.picks_metric:.0%}, {points(ahead)}: the interval contains zero. On generated "
            "images the miniature is no judge.",
            sign_verdict(f.ahead_low, f.ahead_high),
        ),
        Claim(
            "two_judges",
            "The ranking of methods does not depend on the judge",
            "an open question of the public summary",
            f"The two orders are alike, rank correlation {f.order:.2f} ({f.order_low:.2f} to "
            f"{f.order_high:.2f}), and are not shown to be the same; image by image κ is {f.kappa_all:.2f}.",
            verdict(f.order_low >= 0.9, part=f.order_low > 0, against=f.order_high < 0.5),
        ),
    ]


# ---------------------------------------------------------------- figures and tables


def opening(subject: str, style: str, delivered: np.ndarray) -> Figure:
    """Show three references of a subject and of a style, and six deliveries under letters."""
    pictures = [*orders.references(subject)[:3], *orders.references(style)[:3], *delivered]
    titles = [subject, subject, subject, "style", "style", "style", *LETTERS]
    return figures.image_grid(np.stack(pictures), titles=titles, per_row=3, width=4.4)


def votes_table(voted: Mapping[str, np.ndarray], judged: Mapping[str, np.ndarray]) -> Styler:
    """Show the votes on each delivery, {axis: (6, references)}, and the judges' verdicts, {judge: (6,)}."""
    truth = ("as ordered", *orders.WRONG)
    columns = {"Picture": list(LETTERS), "What it is": truth}
    for axis in AXES:
        columns[axis.capitalize()] = [f"{row.sum()} of {len(row)} Yes" for row in voted[axis]]
    for judge in ("mars2", "critic"):
        columns[SHORT[judge]] = ["right" if yes else "wrong" for yes in judged[judge]]
    return table(columns)


def exam_table(scale: str) -> Styler:
    """Show how the judges did on drawings of known truth: errors, and balanced accuracy with its interval."""
    exam = records.recorded(f"judges{records.suffix(scale)}")
    rows = []
    for judge, axis in ((j, a) for j in JUDGES for a in AXES):
        counts = exam["reports"][judge][axis]["confusion"]
        right, wrong = (counts[f"{truth}, said yes"] + counts[f"{truth}, said no"] for truth in ("yes", "no"))
        rows.append(
            {
                "Judge": JUDGES[judge],
                "Axis": axis,
                "Right ones refused": f"{counts['yes, said no']} of {right}",
                "Rivals accepted": f"{counts['no, said yes']} of {wrong}",
                "Balanced accuracy": interval(examined(exam, judge, axis), ".1%"),
            }
        )
    return table(rows)


def quiz(board: Board, shows: Shows, judge: str, count: int = 12, seed: int = 0) -> Quiz:
    """Choose generated test images by lot, of any method, for a reader to judge before a judge does.

    Args:
        board: the recorded test.
        shows: the judge, which is asked now.
        judge: its name.
        count: of the images.
        seed: of the lot.
    """
    sheet = board.pictures()
    chosen = np.random.default_rng(seed).choice(sheet.shape[0] * sheet.shape[1], count, replace=False)
    gap = np.full((sheet.shape[2], 6, 3), 255, np.uint8)
    pictures, said = [], []
    for pair, method in zip(*np.unravel_index(chosen, sheet.shape[:2]), strict=True):
        image, names = sheet[pair, method], board.pairs[pair]
        subject, style = (orders.references(name)[0] for name in names)
        pictures.append(np.concatenate([subject, gap, style, gap, image], 1))
        said.append([bool(shows(name, image[None])[0]) for name in names])
    return Quiz(
        np.stack(pictures),
        AXES,
        np.array(said),
        judge=judge,
        alt="Three small pictures side by side: a photo of a subject, a drawing in a style, and a generated "
        "image that should show that subject in that style",
    )


def known_truth(board: Board) -> Styler:
    """Show in which share of the controls' images each judge finds the subject, and the style."""
    columns: dict[str, list] = {"Images made with": [name_of(control) for control in boards.CONTROLS]}
    for axis, judge in ((a, j) for a in AXES for j in ("mars2", "critic")):
        shares = [board.of(control, axis, judge).mean() for control in boards.CONTROLS]
        columns[f"{axis}, by {SHORT[judge]}"] = shares
    return table(columns, ".0%")


def agreement_by_method(board: Board) -> Figure:
    """Draw Cohen's κ of the two judges within each method, and over all images."""
    values = {name_of(m): kappa(board, [m]) for m in [*board.merges, *boards.CONTROLS]}
    values = {"all images": kappa(board, list(board.methods))} | values
    colours = dict.fromkeys(values, GREY) | {"all images": INK} | {name_of(m): h for m, h in HUES.items()}
    return figures.bars(values, label="Cohen's κ: 0 is chance, 1 full agreement", colours=colours)


def ranks(board: Board, scale: str) -> Figure:
    """Show the place of each way to merge by the judge and by each metric."""
    columns = {"critic": np.array([board.of(m).mean() for m in board.merges])}
    columns |= metric_means(board.merges, scale)
    places = np.stack([(-c).argsort(kind="stable").argsort() + 1 for c in columns.values()], 1)
    return figures.heat_maps(
        {"place among twelve": places},
        rows=[name_of(m) for m in board.merges],
        columns=list(columns),
        form=".0f",
    )


def preferences(tables: Mapping[str, np.ndarray]) -> Figure:
    """Show how often each score prefers the right delivery to each wrong one."""
    shares = np.stack([orders.prefers(tables[score]) for score in SCORES], 1)
    return figures.heat_maps(
        {"prefers the right picture": shares},
        rows=orders.WRONG,
        columns=[SHORT.get(score, score) for score in SCORES],
    )
