"""Chapter 12, what layers are given: RegMean, a merge in closed form, and signs that foretell nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import torch

from lorarar.bookkit import contests, figures, missing_rows
from lorarar.bookkit import style as look
from lorarar.bookkit.claims import Claim, verdict
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.figures import legend_below
from lorarar.bookkit.pictures import image_grid
from lorarar.bookkit.records import experiment, suffix
from lorarar.bookkit.records import recorded as record
from lorarar.shoebox import zoo
from lorarar.study.contest import difference
from lorarar.study.novelty import contrast, size
from lorarar.study.statistics import grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lorarar.lora import LoRA
    from lorarar.merging import Inputs

PAIR = ("bear plushie", "watercolor painting #1")
LAYERS = {
    "what reads the picture": "unet.up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "what reads the text": "unet.up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
}
"""Two layers whose inputs are shown."""

TABLE = "place alone"
"""The recipe of chapter 11's table."""
OURS, OPTIMUM = "RegMean, own inputs", "ZipLoRA"
QUOTED = {OURS: "regmean", "RegMean, pictures": "pictured", OPTIMUM: "zip", TABLE: "table"}
"""Rows of the contest whose means the prose quotes."""
LEADS = {TABLE: "table", "invariants": "invariants", "LoRA.rar, converged": "rar", "sum at 0.7": "sum"}
"""Rows that RegMean is ahead of."""
CHOICES = {
    TABLE: "choice_table",
    "ridge 0.001": "choice_small",
    "ridge 0.1": "choice_ridge",
    "ridge 10": "choice_large",
    "1 picture": "choice_one",
    "3 pictures": "choice_three",
    "self-attention only": "choice_self",
    "cross-attention only": "choice_cross",
}
"""Rows of the plan on validation, and their facts."""
NETWORK = "LoRA.rar, converged"
"""The row whose error the signs are held against."""


# ---------------------------------------------------------------- numbers from shipped files


def recorded(scale: str = "shoebox") -> Facts:
    """Return the numbers from shipped files: choices on validation, both contests, and the signs."""
    parts = _choices, _columns, _contest, _sight, _seen, _signs
    return Facts(*(part(scale) for part in parts))


def _columns(scale: str) -> dict[str, float]:
    """Return ρ of RegMean's two forms and of the table, and how much of the lead takes no matrix."""
    rows, leads = contests.means("inputs_columns", scale), contests.leads("inputs_columns", scale)
    columns, matrix, known = (rows[row].value for row in ("RegMean by columns", "RegMean", TABLE))
    facts = {"by_columns": columns, "by_matrix": matrix, "by_table": known}
    facts["columns_share"] = (known - columns) / (known - matrix)
    facts["columns_over_table_low"] = leads["RegMean by columns", TABLE].low
    return facts | contests.ends("matrix_over_columns", leads["RegMean", "RegMean by columns"])


def _choices(scale: str) -> dict[str, float]:
    by_rho, by_sight = (record(f"inputs_validation{kind}{suffix(scale)}")["rows"] for kind in ("_rho", ""))
    facts = {key: by_rho[name]["mean"][0] for name, key in CHOICES.items()}
    told = [name for name in CHOICES if name.startswith("ridge")] + ["1 picture", "cross-attention only"]
    return facts | {f"{CHOICES[name]}_seen": by_sight[name]["mean"][0] for name in told}


def _contest(scale: str) -> dict[str, float]:
    run = record(f"inputs{suffix(scale)}")
    rows = run["rows"]
    facts: dict[str, float] = {"pairs": len(run["subjects"]) * len(run["styles"])}
    facts |= {key: rows[row]["mean"][0] for row, key in QUOTED.items()}
    ours, best, known = (np.array(rows[row]["pairs"]).mean(0) for row in (OURS, OPTIMUM, TABLE))
    few, still = ours[: len(best)].mean(), known[: len(best)].mean()
    facts |= {"few_ours": few, "few_table": still}
    facts |= {"few": best.size, "closed": (still - few) / (still - best.mean())}
    leads = {(asked["one"], asked["other"]): asked["lead"] for asked in run["questions"]}
    facts |= {f"over_{key}_low": leads[OURS, row][1] for row, key in LEADS.items()}
    facts |= contests.ends("over_rar", leads[OURS, NETWORK])
    facts["pictured_low"] = leads["RegMean, pictures", OURS][1]
    return facts | contests.ends("behind_zip", leads[OURS, OPTIMUM], -1)


def _seen(scale: str) -> dict[str, float]:
    """Return what the critic says of the validation pairs, RegMean's and ZipLoRA's from the same noise."""
    run = record(f"inputs_validation{suffix(scale)}")
    rows = contests.pairs("inputs_validation", scale)
    ours, tuned = rows["ridge 0.1"], rows["sum at 0.7"]
    _, said = experiment("validation", scale)
    best = grid(said["ziplora"].right[:, : len(run["seeds"])], len(run["subjects"]))
    lead = difference(ours[None], tuned[None])
    facts = {"seen_regmean": ours.mean(), "seen_zip": best.mean(), "seen_pairs": ours.size}
    return facts | contests.ends("seen_over_sum", lead, 100)


def _sight(scale: str) -> dict[str, float]:
    """Return what the critic says of the strangers' pictures: shares, and RegMean's leads in points."""
    rows, asked = contests.means("inputs_pictures", scale), contests.leads("inputs_pictures", scale)
    facts = {f"sight_{key}": rows[row].value for row, key in LEADS.items() if row in rows}
    for row in (*LEADS, OPTIMUM):
        if row in rows:
            facts |= contests.ends(f"sight_over_{LEADS.get(row, 'zip')}", asked[OURS, row], 100)
    still = asked[TABLE, "sum at 0.7"]
    board = missing_rows.facts(scale)
    facts |= {f"board_zip{end}": board[f"regmean_over_ziplora{end}"] for end in contests.ENDS}
    return facts | {"sight_regmean": rows[OURS].value, "sight_table_over_sum_low": still.low}


def _signs(scale: str) -> dict[str, float]:
    run = record(f"novelty{suffix(scale)}")
    facts: dict[str, float] = {
        "nearest": max(one["likeness"] for one in run["of"].values()),
        "nearest_mean": float(np.mean([one["likeness"] for one in run["of"].values()])),
        "signs_open": sum(e[1] <= 0 <= e[2] for row in run["foretold"].values() for e in row.values()),
        "signs": sum(len(row) for row in run["foretold"].values()),
    }
    for kind, values in run["kinship"]["subject"].items():
        facts[f"subject_{contests.key(kind)}"] = float(np.mean(values))
    return facts | _unmet(scale)


def _unmet(scale: str) -> dict[str, float]:
    """Return how strangers of classes that no network met are merged, beside the others, by ρ."""
    errors = contests.pairs("strangers", scale)
    met = {zoo.slug(zoo.class_of(name)) for name in zoo.split("train")[0]}
    names = record(f"strangers{suffix(scale)}")["subjects"]
    new = np.array([name.rsplit("-", 1)[0] not in met for name in names])
    worse = {row: contrast(of, new) for row, of in errors.items()}
    return {
        "unmet": int(new.sum()),
        "unmet_rho": errors[NETWORK][new].mean(),
        "met_rho": errors[NETWORK][~new].mean(),
        "unmet_open": sum(entry.low <= 0 <= entry.high for entry in worse.values()),
        "unmet_rows": len(worse),
        **contests.ends("unmet_worse", worse[NETWORK]),
    }


# ---------------------------------------------------------------- numbers of this run


def live(
    rho: Mapping[str, float], shares: Mapping[str, np.ndarray], passes: int, loras: tuple[LoRA, LoRA, LoRA]
) -> Facts:
    """Return what the chapter computed.

    Args:
        rho: of the chapter's pair, by merge.
        shares: of the directions of `LAYERS`, see `directions`.
        passes: of the UNet, to measure one LoRA.
        loras: RegMean's merge, the subject and the style.
    """
    merged, *alone = map(size, loras)
    apart = {name: float(np.mean((s < 0.1) | (s > 0.9))) for name, s in shares.items()}
    return Facts(
        {f"one_{contests.key(name)}": value for name, value in rho.items()},
        apart_picture=apart["what reads the picture"],
        apart_text=apart["what reads the text"],
        passes=passes,
        louder=merged / max(alone),
    )


def directions(inputs: tuple[Inputs, Inputs], layer: str, ridge: float = 1e-3) -> np.ndarray:
    """Return whose each direction of a layer's inputs is, ascending: (in,), 0 the style's to 1 the subject's.

    The eigenvalues of G_c in units of G_c + G_s, as RegMean has them: what share of the energy along a
    direction comes from the subject.
    """
    g_c, g_s = (moments[layer].double() for moments in inputs)
    total = g_c + g_s
    extra = ridge * total.diagonal().mean() * torch.eye(len(total), dtype=total.dtype)
    root = torch.linalg.cholesky(total + extra)
    half = torch.linalg.solve_triangular(root, g_c + extra / 2, upper=False)
    return torch.linalg.eigvalsh(torch.linalg.solve_triangular(root, half.mT, upper=False)).numpy()


# ---------------------------------------------------------------- what the prose says


def statements(facts: Facts) -> dict[str, bool]:
    """Return the findings of the prose, each by a fragment of it."""
    f = facts
    return {
        "less than half of what the table leaves": f.regmean < 0.5 * f.table,
        "So it is the inputs that count": f.columns_share > 0.75 and f.columns_over_table_low > 0.1,
        "The matrix is ahead": f.matrix_over_columns_low > 0,
        "ahead of every network, of the table and of the tuned sum": (
            min(f.over_table_low, f.over_invariants_low, f.over_rar_low, f.over_sum_low) > 0
        ),
        "behind the optimisation": f.behind_zip_low > 0,
        "most of the way": f.closed > 0.8,
        "Pictures of the training set would do a little better still": (
            f.pictured_low > 0 and f.pictured > 0.5 * f.regmean
        ),
        "by degrees; where the text is read, more often all or nothing": f.apart_text > 2 * f.apart_picture,
        "One picture of either is enough to leave the table behind": f.choice_one < 0.8 * f.choice_table,
        "Neither kind of layer does it alone": (min(f.choice_self, f.choice_cross) > 1.15 * f.choice_ridge),
        "The critic does not follow ρ so far": (
            min(f.choice_one_seen, f.choice_cross_seen) >= f.choice_ridge_seen - 0.01
        ),
        "on so few pairs it is open": f.seen_over_sum_low < 0 < f.seen_over_sum_high,
        "the smaller the ridge, the smaller the error": f.choice_small < f.choice_ridge < f.choice_large,
        "all three leads are clear of zero": (
            min(f.sight_over_sum_low, f.sight_over_table_low, f.sight_over_rar_low) > 0
        ),
        "is not ahead of it in pictures": f.sight_table_over_sum_low < 0,
        "find them level": f.board_zip_low < 0 < f.board_zip_high,
        "Three individuals are too few to tell RegMean from ZipLoRA": (
            f.sight_over_zip_low < 0 < f.sight_over_zip_high
        ),
        "none of the intervals leaves zero out": f.signs_open == f.signs,
        "New in kind is no sign of failure either": f.unmet_open == f.unmet_rows and f.unmet_worse < 0.01,
        "far from every training LoRA": f.nearest < 0.3,
    }


def claims(facts: Facts) -> list[Claim]:
    """Return the papers' claims that the chapter examines."""
    f = facts

    def lead(name: str, form: str = "+.3f") -> str:
        return look.interval([f[name + end] for end in contests.ENDS], form)

    return [
        Claim(
            "must_be_trained",
            "To merge nearly as well as ZipLoRA without its optimisation takes a trained network",
            "LoRA.rar, §1, as the reason for a hypernetwork",
            "A merge in closed form, without training and without the pair's pictures, goes "
            f"{f.closed:.0%} of the way in ρ from a stored table to ZipLoRA on {f.few} stranger pairs, and "
            f"is {lead('over_rar')} ahead of LoRA.rar's network, trained to its end, on {f.pairs}.",
            verdict(f.over_rar_high < 0, against=f.over_rar_low > 0 and f.closed > 0.8),
        ),
        Claim(
            "as_good_by_sight",
            "One shot is as good as an optimisation for the pair",
            "LoRA.rar, abstract, of its own network; here of RegMean",
            "On the pairs of the scoreboard RegMean's share of images that the critic finds right is "
            f"{f.board_zip:+.0f} points ahead of ZipLoRA's ({f.board_zip_low:+.0f} to "
            f"{f.board_zip_high:+.0f}): not more than three behind. LoRA.rar's own network is behind ZipLoRA "
            "there.",
            verdict(f.board_zip_low > -3, against=f.board_zip_high < 0),
        ),
    ]


# ---------------------------------------------------------------- figures


def directions_figure(shares: Mapping[str, np.ndarray]) -> Figure:
    """Show of two layers whose each direction of their inputs is, in ascending order."""
    figure, axes = plt.subplots(figsize=(look.WIDTH, 3.6), layout="constrained")
    for (name, values), colour in zip(shares.items(), (look.SUBJECT, look.STYLE), strict=True):
        axes.plot(np.linspace(0, 1, len(values)), values, color=colour, linewidth=2.5, label=name)
    axes.axhline(0.5, color=look.GREY, linestyle=":")
    axes.set_xlabel("directions of the input, in order")
    axes.set_ylabel("the subject's share")
    legend_below(figure)
    return figure


def merges_figure(pictures: Mapping[str, np.ndarray]) -> Figure:
    """Show pictures by several merges, a row each, from the same noise."""
    return image_grid(np.stack(list(pictures.values())), rows=list(pictures))


def choices_figure(scale: str = "shoebox") -> Figure:
    """Show the mean ρ on validation of each choice, with its interval."""
    rows = record(f"inputs_validation_rho{suffix(scale)}")["rows"]
    colours = dict.fromkeys(rows, look.HUES["regmean"]) | contests.hues(("ZipLoRA", "sum at 0.7", TABLE))
    figure = figures.forest(
        {name: row["mean"] for name, row in rows.items()}, label="ρ", colours=colours, percent=False
    )
    figure.axes[0].set_xlim(0, None)
    return figure


def signs_figure(scale: str = "shoebox") -> Figure:
    """Show how well each sign orders pairs by the error of LoRA.rar's merge."""
    run = record(f"novelty{suffix(scale)}")["foretold"][NETWORK]
    return figures.forest(run, label="rank correlation with the error", zero=True, percent=False)
