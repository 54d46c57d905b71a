"""Chapter 3, the merging problem: how often sums are right, what volume does, and what alignment says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lorarar.bookkit import figures, missing_rows, records
from lorarar.bookkit.claims import Claim, sign_verdict, verdict
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.style import (
    DIRECT,
    GREY,
    INK,
    MERGED,
    NAMES,
    OTHER,
    STYLE,
    SUBJECT,
    framed,
)
from lorarar.bookkit.sums import (
    AXES,
    EVEN,
    FULL,
    STYLE_FIRST,
    SUBJECT_FIRST,
    Weights,
    alone,
    pairs_of,
    rivals,
    shared,
    sums,
)
from lorarar.bookkit.tables import table
from lorarar.shoebox import zoo
from lorarar.shoebox.world import styles, subjects
from lorarar.study import interference, statistics

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler
    from torch import Tensor

    from lorarar.shoebox.models.critic import Critic
    from lorarar.study.ruler import Error

SUMS = {"direct": FULL, "even": EVEN, "subject_first": SUBJECT_FIRST, "style_first": STYLE_FIRST}
RIVALS = ("ziplora", "lorarar")
SLIDER = tuple(i / 10 for i in range(11))
VOLUMES = (0.4, 0.55, 0.7, 0.85, 1.0)
SHOWN = ("bear plushie", "clock")
"""The subjects of the first figure; the appendix has them all."""


@dataclass(frozen=True)
class Settings:
    """How much a run computes: probes of a LoRA, pairs, drawings of a pair, frames, weights, LoRAs a side."""

    draws: int = 16
    pairs: int = 9
    drawings: int = 20
    frames: tuple[float, ...] = (0.0, 0.4, 0.7, 1.0)
    weights: tuple[Weights, ...] = (*((w, w) for w in VOLUMES), SUBJECT_FIRST, STYLE_FIRST)
    each: int = 6

    @property
    def on_page(self) -> dict[str, tuple[float, ...]]:
        """The values that the static page has frames of."""
        return dict.fromkeys(AXES, self.frames)


def settings(scale: str) -> Settings:
    """Return what a run at a scale computes; the smoke test takes fewer of everything."""
    few = Settings(2, 2, 2, (0.7, 1.0), (EVEN, FULL, SUBJECT_FIRST, STYLE_FIRST), 2)
    return few if scale == "smoke" else Settings()


# ---------------------------------------------------------------- recorded runs


def recorded(scale: str = "shoebox") -> Facts:
    """Return the numbers of recorded runs: how often sums, ZipLoRA and LoRA.rar are right."""
    by_weights, others = sums(scale), rivals(scale, ("direct", *RIVALS))
    scores = shared(scale, RIVALS)
    leads = {
        "even_lead": statistics.crossed(scores[EVEN] - scores[FULL]),
        "zip_lead": statistics.crossed(scores["ziplora"] - scores[EVEN]),
        "rar_lead": statistics.crossed(scores["lorarar"] - scores[EVEN]),
    }
    direct = statistics.crossed(scores[FULL])
    return Facts(
        {
            f"{name}_{a}": by_weights[w][a].mean()
            for name, w in list(SUMS.items())[:2]
            for a in (*AXES, "both")
        },
        {f"{name}_{a}": by_weights[w][a].mean() for name, w in list(SUMS.items())[2:] for a in AXES},
        {f"alone_{axis}": share for axis, share in alone(scale).items()},
        {f"{name}{end}": 100 * x for name, lead in leads.items() for end, x in zip(_ENDS, lead, strict=True)},
        missing_rows.lead_of_ziplora(scale),
        ziplora_both=others["ziplora"]["both"].mean(),
        direct_low=direct.low,
        direct_high=direct.high,
        subject_gain=100 * (by_weights[EVEN]["subject"].mean() - by_weights[FULL]["subject"].mean()),
        style_loss=100 * (by_weights[FULL]["style"].mean() - by_weights[EVEN]["style"].mean()),
        same_direct=(others["direct"]["both"] == by_weights[FULL]["both"]).mean(),
    )


_ENDS = ("", "_low", "_high")


# ---------------------------------------------------------------- computed in the chapter


def judged(critic: Critic, pair: tuple[str, str], images: np.ndarray) -> tuple[np.ndarray, str]:
    """Return pictures side by side, framed by the critic, (h, n · w, 3) uint8, and its verdicts as a line."""
    right = np.stack([zoo.shows(critic, name, images) for name in pair], 1)  # (n, 2)
    picture = np.concatenate([framed(i, tuple(r)) for i, r in zip(images, right, strict=True)], 1)
    a, b = right.sum(0)
    return picture, f"subject right in {a} of {len(images)}, style in {b} of {len(images)}"


def some_of_training(each: int) -> tuple[list[str], list[str]]:
    """Return subjects and styles of the training split, evenly spread over its list."""
    return tuple(
        [names[i * len(names) // each] for i in range(each)]
        for names in (list(subjects.SPLIT["train"]), list(styles.SPLIT["train"]))
    )


def live(
    critic_on_drawings: Mapping[str, float],
    agreement: float,
    cross: float,
    errors: Mapping[Weights, Sequence[Error]],
    by_kind: Mapping[str, Tensor],
    aligned: np.ndarray,
    disturbed: np.ndarray,
) -> Facts:
    """Return what the chapter computed.

    Args:
        critic_on_drawings: see `sums.drawn`.
        agreement: the share of verdicts on the slider's pictures that are those of the record.
        cross: see `interference.cross_terms`.
        errors: ρ of every pair's sum, by weights.
        by_kind: cosines of columns, by kind of pair.
        aligned: mean absolute cosine of pairs, (subjects, styles).
        disturbed: ρ of their plain sums, (subjects, styles).
    """
    means = {w: np.mean(errors[w], 0) for w in errors}  # (both, subject, style)
    facts = Facts(drawn_both=critic_on_drawings["both"], agreement=agreement, cross_error=cross)
    for name, w in SUMS.items():
        facts |= {f"rho_{name}{end}": x for end, x in zip(("", *_SIDES), means[w], strict=True)}
    even, full = np.array(errors[EVEN]), np.array(errors[FULL])
    volumes = [w for w in errors if w[0] == w[1]]
    relation = interference.correlation(aligned, disturbed)
    return facts | Facts(
        {f"cosine_{kind}": values.abs().mean() for kind, values in by_kind.items()},
        dict(zip(("align", "align_low", "align_high"), relation, strict=True)),
        best_volume=min(volumes, key=lambda w: means[w][0])[0],
        even_better=int((even[:, 0] < full[:, 0]).sum()),
        both_sides_better=int((even[:, 1:] < full[:, 1:]).all(1).sum()),
        measured=len(even),
        aligned_pairs=aligned.size,
    )


_SIDES = ("_on_subject", "_on_style")


# ---------------------------------------------------------------- what the prose says


def statements(f: Facts) -> dict[str, bool]:
    """Return the findings of the prose, each by a fragment of it."""
    return {
        "Alone, each LoRA is almost always right": min(f.alone_subject, f.alone_style) > 0.9,
        "their plain sum seldom is": f.direct_both < 0.25 and f.direct_high < 0.5,
        "Turned down to 0.7, the same two files are right three times as often": (
            2.5 < f.even_both / max(f.direct_both, 1e-9) < 3.5
        ),
        "closer to both LoRAs on every pair": f.both_sides_better == f.measured,
        "nine pairs barely decide it": -1 < f.even_lead_low < 5 and f.even_lead > 20,
        "on the same pairs with the same noise": f.same_direct == 1,
        "The two cannot be told apart": f.zip_lead_low < 0 < f.zip_lead_high,
        "LoRA.rar is right exactly as often as the sum at 0.7": abs(f.rar_lead) < 0.5,
        "has about half of what true drawings get from the critic": (0.4 < f.even_both / f.drawn_both < 0.6),
        "the style is right in most images and the subject in few": (
            f.direct_style > 0.8 and f.direct_subject < 0.25
        ),
        "here more of one is less of the other": (
            f.subject_first_subject > f.even_subject > f.style_first_subject
            and f.subject_first_style < f.even_style < f.style_first_style
        ),
        "at full strength the sum is nearly as far off as having no LoRA at all": 0.75 < f.rho_direct < 1,
        "on the subject's side it is worse than that": f.rho_direct_on_subject > 1.05,
        "Turning both down to 0.7 helps every pair": f.even_better == f.measured,
        "both sides gain at once": (
            f.rho_even_on_subject < f.rho_direct_on_subject and f.rho_even_on_style < f.rho_direct_on_style
        ),
        "Below that the merge is too quiet": 0.5 < f.best_volume < 0.9,
        "three times as aligned as noise": 2.5 < f.cosine_pair / f.cosine_noise < 3.6,
        "no more aligned with each other than two styles are": f.cosine_pair < f.cosine_styles + 0.01,
        "We see no sign of it": f.align_low < 0 < f.align_high and abs(f.align) < 0.3,
        "They are not small": f.cross_error > 0.3,
    }


def claims(f: Facts) -> list[Claim]:
    """Return the papers' claims that the chapter examines."""
    works = min(f.alone_subject, f.alone_style)
    return [
        Claim(
            "direct_fails",
            "Adding the two LoRAs fails often where each alone succeeds",
            "ZipLoRA and LoRA.rar, as the reason for a method",
            f"Subject and style are both right in {f.direct_both:.0%} of images; alone, the LoRAs are right "
            f"in {f.alone_subject:.0%} and {f.alone_style:.0%}, true drawings in {f.drawn_both:.0%}.",
            verdict(
                works >= 0.8 and f.direct_high < 2 / 3 * f.drawn_both,
                against=f.direct_low > 0.9 * f.drawn_both,
            ),
        ),
        Claim(
            "scalars_trade",
            "Scalar weights only trade one side for the other",
            "ZipLoRA, as the reason for a coefficient per column",
            f"From weights 1 and 1 to 0.7 and 0.7 the subject gains {f.subject_gain:.0f} points, the style "
            f"loses {f.style_loss:.0f}; both sides have a lower ρ in {f.both_sides_better} of {f.measured} "
            "pairs. Only unequal weights trade.",
            verdict(
                f.subject_gain < 2 * f.style_loss,
                against=f.subject_gain > 4 * f.style_loss and f.even_better == f.measured,
            ),
        ),
        Claim(
            "columns_beat_scalars",
            "A coefficient for each column does better than tuned weights",
            "ZipLoRA, its premise",
            f"In pictures ZipLoRA leads the sum at 0.7 by {f.test_lead:.0f} points ({f.test_lead_low:.0f} to "
            f"{f.test_lead_high:.0f}) on the test pairs; on nine validation pairs with four images each by "
            f"{f.zip_lead:.0f} ({f.zip_lead_low:.0f} to {f.zip_lead_high:.0f}).",
            sign_verdict(f.test_lead_low, f.test_lead_high),
        ),
        Claim(
            "aligned_merge_badly",
            "The more the columns of two LoRAs are aligned, the worse they merge",
            "ZipLoRA, as the reason for its similarity term",
            f"The rank correlation of alignment with ρ of the plain sum is {f.align:.2f} ({f.align_low:.2f} "
            f"to {f.align_high:.2f}) over {f.aligned_pairs} pairs: no sign of it.",
            sign_verdict(f.align_low, f.align_high),
        ),
    ]


# ---------------------------------------------------------------- figures and tables


def first_figure(scale: str, critic: Critic) -> Figure:
    """Show two subjects and three styles alone, and three sums of each pair, framed by the critic."""
    run = records.recorded(f"first_sums{records.suffix(scale)}")["of"]
    shown = [i for i, (subject, _) in enumerate(pairs_of(scale)) if subject in SHOWN]
    every = records.sheet(f"first_sums{records.suffix(scale)}", len(run["columns"]))
    rows = []
    for i in shown:
        pair, cells = pairs_of(scale)[i], every[i, :5]
        right = [zoo.shows(critic, name, cells) for name in pair]
        # Alone, each is asked only for itself.
        rows.append(
            [
                framed(cell, (a and k != 1, b and k != 0))
                for k, (cell, a, b) in enumerate(zip(cells, *right, strict=True))
            ]
        )
    pairs = [pairs_of(scale)[i] for i in shown]
    names = [f"{s.split()[0]}, {t.split(' #')[0].removesuffix(' painting')}" for s, t in pairs]
    columns = ["subject alone", "style alone", *(f"{a:g} / {b:g}" for a, b in list(SUMS.values())[:3])]
    return figures.image_grid(rows, rows=names, columns=columns)


def sums_table(scale: str, drawings: Mapping[str, float]) -> Styler:
    """Return the table of sums: how often subject, style and both are right."""
    rows = {f"sum {c:g} / {s:g}": right for (c, s), right in sums(scale).items() if c and s}
    single = {"subject's LoRA, joint prompt": (1.0, 0.0), "style's LoRA, joint prompt": (0.0, 1.0)}
    rows |= {name: sums(scale)[w] for name, w in single.items()}
    rows |= {NAMES[m]: right for m, right in rivals(scale, RIVALS).items()}
    lines = [{"Merge": name} | {k: float(v.mean()) for k, v in right.items()} for name, right in rows.items()]
    return table([*lines, {"Merge": "true drawings", **drawings}], ".0%")


def trade_figure(scale: str, drawings: Mapping[str, float]) -> Figure:
    """Show weightings and rivals by the share with the right style and the share with the right subject."""
    points = {f"{c:g} / {s:g}": right for (c, s), right in sums(scale).items() if c and s}
    points |= {NAMES[m]: right for m, right in rivals(scale, RIVALS).items()}
    places = {n: (100 * r["style"].mean(), 100 * r["subject"].mean()) for n, r in points.items()}
    singles = alone(scale)
    places["each alone"] = 100 * singles["style"], 100 * singles["subject"]
    places["true drawings"] = 100 * drawings["style"], 100 * drawings["subject"]
    hues = dict.fromkeys(places, DIRECT) | {NAMES["ziplora"]: SUBJECT, NAMES["lorarar"]: MERGED}
    ways = (((FULL, EVEN), "-"), ((SUBJECT_FIRST, EVEN, STYLE_FIRST), ":"))
    return figures.scatter(
        places,
        xlabel="style right, %",
        ylabel="subject right, %",
        colours=hues | {"each alone": INK, "true drawings": GREY},
        paths=[([f"{c:g} / {s:g}" for c, s in way], line) for way, line in ways],
    )


def volume_figure(errors: Mapping[Weights, Sequence[Error]]) -> Figure:
    """Show ρ of the sum over its volume, mean over pairs, for each side and for both."""
    volumes = sorted(w for w in errors if w[0] == w[1])
    means = np.array([np.mean(errors[w], 0) for w in volumes]).T
    figure, (axes,) = figures.panels(1, 3.8)
    curves = {"both sides": means[0], "subject": means[1], "style": means[2]}
    hues = {"both sides": DIRECT, "subject": SUBJECT, "style": STYLE}
    figures.lines(
        [w for w, _ in volumes],
        curves,
        xlabel="weight of both LoRAs",
        ylabel="ρ",
        colours=hues,
        legend=True,
        axes=axes,
    )
    axes.axhline(1, color=GREY, linestyle=":")
    axes.set_ylim(0, None)
    figures.legend_below(figure, 3)
    return figure


def alignment_figure(aligned: np.ndarray, disturbed: np.ndarray, names: Sequence[str]) -> Figure:
    """Show each pair by the alignment of its columns and ρ of its plain sum, a colour for each style."""
    figure, (axes,) = figures.panels(1, 3.8)
    hues = (STYLE, OTHER, MERGED, SUBJECT, DIRECT, INK)
    for j, name in enumerate(names):
        axes.scatter(aligned[:, j], disturbed[:, j], s=45, color=hues[j % len(hues)], label=name)
    axes.set(xlabel="mean |cosine| of the columns", ylabel="ρ of the plain sum")
    axes.locator_params(axis="x", nbins=5)
    figures.legend_below(figure)
    return figure
