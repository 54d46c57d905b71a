"""What the eye says of two hundred merged pictures, beside the judges: a part of the appendix on judges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lorarar.bookkit import figures, records
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.style import interval, name_of
from lorarar.bookkit.tables import table
from lorarar.study import labelling
from lorarar.study.labels import KINDS
from lorarar.study.verdicts import find_judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

JUDGES = labelling.JUDGES
CALLED = {
    "eye": "the eye",
    "eye-again": "the same eye again",
    "critic": "critic",
    "mars2": "MARS²",
    "sum-at-0-7": "sum at 0.7",
    "place-alone-0": "place alone",
    "ridge-0-1": "RegMean",
}
BEST = {"sum": "sum-at-0-7", "zip": "ziplora", "regmean": "ridge-0-1", "table": "place-alone-0"}
"""Methods whose shares by the eye are told."""
SHOWN = ("none", "subject: colours", "subject: smeared", "subject: parts", "style: other")
AIM_SHARE, AIM_KAPPA = 0.85, 0.6  # what the project asks of a judge on merged pictures


def recorded(_: str) -> Facts:
    """Return the numbers of the recorded labels and verdicts; they are the shoebox's at every scale."""
    run = records.recorded("labels")
    again, facts = run["agreement"]["eye, eye-again"], Facts()
    for judge in JUDGES:
        subject, style = (run["agreement"][f"eye, {judge}"][axis] for axis in ("subject", "style"))
        milder = run["lenient"][judge]["subject"]["kappa"]
        rank, within = run["ranking"][f"eye, {judge}"], run["within pairs"][judge]["subject"]
        facts |= {
            f"labels_right_{judge}": run["shares"][judge]["right"][0],
            f"labels_subject_{judge}": subject["kappa"][0],
            f"labels_subject_{judge}_low": subject["kappa"][1],
            f"labels_subject_{judge}_high": subject["kappa"][2],
            f"labels_equal_{judge}": subject["share"][0],
            f"labels_style_{judge}": style["kappa"][0],
            f"labels_style_{judge}_low": style["kappa"][1],
            f"labels_style_equal_{judge}": style["share"][0],
            f"labels_milder_{judge}": milder[0],
            f"labels_milder_{judge}_low": milder[1],
            f"labels_faultless_{judge}": run["accepted"]["none"][judge]["subject"],
            f"labels_smeared_{judge}": run["accepted"]["subject: smeared"][judge]["subject"],
            f"labels_within_{judge}": within[0],
            f"labels_within_{judge}_low": within[1],
            f"labels_within_{judge}_high": within[2],
            f"labels_rank_{judge}": rank[0],
            f"labels_rank_{judge}_low": rank[1],
        }
    counts = {kind: of["pictures"] for kind, of in run["accepted"].items()}
    by_method = run["methods"].values()
    facts |= {f"labels_eye_{key}": run["methods"][method]["eye"][0] for key, method in BEST.items()}
    return facts | Facts(
        labels_right_eye=run["shares"]["eye"]["right"][0],
        labels_style_eye=run["shares"]["eye"]["style"][0],
        labels_again_subject=again["subject"]["kappa"][0],
        labels_again_style=again["style"]["kappa"][0],
        labels_faulty=sum(counts.values()) - counts["none"],
        labels_colours=counts["subject: colours"],
        labels_smeared=counts["subject: smeared"],
        labels_methods=len(by_method),
        labels_methods_never=sum(of["eye"][0] == 0 for of in by_method),
    )


def asked_again(count: int, scale: str) -> Facts:
    """Ask both judges about the first of the labelled pictures: which share of verdicts is the recorded one.

    Args:
        count: how many pictures.
        scale: of the judges.
    """
    pictures, images = labelling.load()
    known = labelling.said_by_judges()
    facts = Facts()
    for judge in JUDGES:
        said = labelling.judged(pictures[:count], images[:count], find_judge(judge, scale).shows)
        same = [said[axis] == known[judge][axis][:count] for axis in ("subject", "style")]
        facts |= {f"labels_same_{judge}": np.mean(same)}
    return facts


def statements(f: Facts) -> dict[str, bool]:
    """Return each finding of the section with whether it holds."""
    return {
        "The judges' verdicts are those of the record": min(f.labels_same_mars2, f.labels_same_critic)
        >= 0.95,
        "The eye is the strictest of the three": (
            f.labels_right_eye < min(f.labels_right_critic, f.labels_right_mars2) - 0.05
        ),
        "The eye agrees with itself": min(f.labels_again_subject, f.labels_again_style) > 0.8,
        "On the style both judges agree with the eye, more than by chance": (
            min(f.labels_style_critic_low, f.labels_style_mars2_low) > 0
        ),
        "On the subject neither judge agrees with the eye more than by chance": (
            max(f.labels_subject_critic_low, f.labels_subject_mars2_low) < 0
            and min(f.labels_subject_critic_high, f.labels_subject_mars2_high) > 0
        ),
        "Neither reaches that, on either axis": all(
            f[f"labels_{axis}_{judge}"] < AIM_KAPPA and f[f"labels_{equal}_{judge}"] < AIM_SHARE
            for judge in JUDGES
            for axis, equal in (("subject", "equal"), ("style", "style_equal"))
        ),
        "It is not only a matter of strictness": (
            max(f.labels_milder_critic_low, f.labels_milder_mars2_low) < 0
            and max(f.labels_milder_critic, f.labels_milder_mars2) < 0.3
        ),
        "hardly more often than in smeared ones": (
            abs(f.labels_faultless_critic - f.labels_smeared_critic) < 0.15
            and abs(f.labels_faultless_mars2 - f.labels_smeared_mars2) < 0.15
        ),
        "both intervals contain one half": all(
            f[f"labels_within_{judge}_low"] < 0.5 < f[f"labels_within_{judge}_high"] for judge in JUDGES
        ),
        "Most failures are of two kinds": f.labels_colours + f.labels_smeared > 0.7 * f.labels_faulty,
        "The order of methods fares better": min(f.labels_rank_critic, f.labels_rank_mars2) > 0.4,
        "none of the pictures of most methods": f.labels_methods_never > f.labels_methods / 2,
        "Nor does the eye confirm the critic's favourite": f.labels_eye_regmean < f.labels_eye_sum,
        "an interval that begins near zero": max(f.labels_rank_critic_low, f.labels_rank_mars2_low) < 0.25,
    }


def agreement_table() -> Styler:
    """Show who agrees with whom on the labelled pictures, by axis."""
    rows = []
    for couple, axes in records.recorded("labels")["agreement"].items():
        one, other = (CALLED[name] for name in couple.split(", "))
        for axis, found in axes.items():
            rows.append(
                {
                    "Who": f"{one} and {other}",
                    "On": axis,
                    "Equal": interval(found["share"]),
                    "κ": interval(found["kappa"], ".2f"),
                    "Balanced accuracy": interval(found["balanced"]),
                }
            )
    return table(rows)


def methods_table() -> Styler:
    """Show each method's share of right pictures by the eye and the judges, and how its pictures fail."""
    run, rows = records.recorded("labels"), []
    heads = {"critic": "Critic", "mars2": "MARS²"}
    kinds = [kind for kind in KINDS if kind != "none" and kind in run["accepted"]]
    for method, of in sorted(run["methods"].items(), key=lambda item: -item[1]["eye"][0]):
        rows.append(
            {
                "Method": CALLED.get(method) or name_of(method),
                "Pictures": of["pictures"],
                "Eye": interval(of["eye"]) if of["eye"][0] else "none",
                **{heads[judge]: f"{of[judge][0]:.0%}" for judge in JUDGES},
                **{_short(kind): run["kinds"][method].get(kind, 0) for kind in kinds},
            }
        )
    return table(rows, {"Pictures": "d"} | {_short(kind): "d" for kind in kinds})


def _short(kind: str) -> str:
    axis, _, word = kind.partition(": ")
    return f"{word} style" if axis == "style" else word or axis


def gallery(each: int = 4) -> Figure:
    """Show the first pictures of each kind of failure, with what either judge said of them."""
    _, images = labelling.load()
    kinds, said = np.array(labelling.by_eye().kinds), labelling.said_by_judges()
    blank, grid, titles = np.full_like(images[0], 255), [], []
    for kind in SHOWN:
        which = np.flatnonzero(kinds == kind)[:each]
        short = each - len(which)
        grid.append([*images[which], *[blank] * short])
        titles += [f"{_signs(said, 'critic', i)}  {_signs(said, 'mars2', i)}" for i in which] + [""] * short
    rows = ["right" if kind == "none" else _short(kind) for kind in SHOWN]
    return figures.image_grid(np.array(grid), rows=rows, titles=titles)


def _signs(said: dict[str, dict[str, np.ndarray]], judge: str, picture: int) -> str:
    return "".join("✗✓"[int(said[judge][axis][picture])] for axis in ("subject", "style"))
