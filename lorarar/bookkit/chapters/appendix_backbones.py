"""The appendix on other backbones: KOALA and SD 1.5 in miniature, and the merges on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorarar.bookkit import contests, figures
from lorarar.bookkit import style as look
from lorarar.bookkit.claims import Claim, sign_verdict
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.pictures import image_grid
from lorarar.bookkit.records import recorded as record
from lorarar.bookkit.records import sheet, suffix
from lorarar.bookkit.tables import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

    from lorarar.study.statistics import Entry

NAMES = {"base": "the base", "koala": "KOALA", "sd15": "SD 1.5"}
"""What the book calls the pipelines."""
BACKBONES = ("koala", "sd15")
ROWS = {
    "plain sum": "plain",
    "sum at 0.7": "sum",
    "place alone": "place",
    "invariants": "invariants",
    "RegMean": "regmean",
    "ZipLoRA": "zip",
}
"""The rows whose means are told."""
HUES = {"RegMean": look.OTHER, "ZipLoRA": look.SUBJECT, "invariants": look.MERGED, "sum at 0.7": look.STYLE}
PICTURES = 6
"""In a row of the recorded sheet."""


def contest(backbone: str, measure: str, scale: str) -> str:
    """Return the record of a backbone's contest by ``rho`` or by the ``critic``."""
    return f"{backbone}{'_rho' if measure == 'rho' else ''}{suffix(scale)}"


def recorded(scale: str = "shoebox") -> Facts:
    """Return the numbers from shipped files: what the backbones draw, and the contests on them."""
    run = record(f"backbones{suffix(scale)}")
    facts = {}
    for name, of in run["of"].items():
        facts |= {f"{name}_class": of["class shown"], f"{name}_family": of["family shown"]}
        facts[f"{name}_sharp"] = of["Laplacian to drawings'"]
        facts[f"{name}_frechet"] = of["Fréchet distance"]
    for backbone in BACKBONES:
        card = run["of"][backbone]["card"]
        facts[f"{backbone}_size"] = card["UNet parameters"] / card["the base's"]
        facts[f"{backbone}_minutes"] = card["seconds"] / 60
        for measure in ("rho", "right"):
            means = contests.means(f"{backbone}{'_rho' if measure == 'rho' else ''}", scale)
            facts |= {f"{backbone}_{measure}_{key}": means[row].value for row, key in ROWS.items()}
    return Facts(facts)


def leads(backbone: str, measure: str, scale: str) -> dict[tuple[str, str], Entry]:
    """Return the leads that a backbone's plan asks for, by pair of rows."""
    return contests.leads(f"{backbone}{'_rho' if measure == 'rho' else ''}", scale)


def statements(facts: Facts) -> dict[str, bool]:
    """Return the findings of the prose, each by a fragment of it."""
    return {}


def claims(facts: Facts) -> list[Claim]:
    """Return the papers' claims that the page examines."""
    return []


def sheet_figure(scale: str = "shoebox") -> Figure:
    """Show what the base, KOALA and SD 1.5 draw for the same prompts, from the same noise."""
    run = record(f"backbones{suffix(scale)}")
    return image_grid(sheet(run.name, PICTURES), rows=[NAMES[name] for name in run["of"]])


def errors_figure(scale: str = "shoebox") -> Figure:
    """Show ρ of every row with its interval, a panel for each backbone."""
    runs = {backbone: contests.means(f"{backbone}_rho", scale) for backbone in BACKBONES}
    figure, axes = figures.panels(len(runs), height=0.9 + 0.36 * max(map(len, runs.values())))
    for backbone, panel in zip(runs, axes, strict=True):
        figures.forest(runs[backbone], label="ρ", colours=HUES, percent=False, axes=panel)
        panel.set_title(NAMES[backbone])
        panel.set_xlim(0, None)
    return figure


def answers_table(scale: str = "shoebox") -> Styler:
    """Show the questions of both plans, the leads by ρ and by the share right, and the answers."""
    asked: dict[tuple[str, str], dict[str, str]] = {}
    for backbone in BACKBONES:
        for measure in ("rho", "right"):
            run = record(f"{backbone}{'_rho' if measure == 'rho' else ''}{suffix(scale)}")
            for one in run["questions"]:
                form = look.interval(one["lead"], "+.2f") if measure == "rho" else look.points(one["lead"])
                row = asked.setdefault((one["one"], one["other"]), {})
                row[f"{NAMES[backbone]}, {'by ρ' if measure == 'rho' else 'images right'}"] = (
                    f"{one['answer']}: {form}"
                )
    columns = list(next(iter(asked.values())))
    return table(
        [
            {"Is this": one, "ahead of this?": other} | {column: said.get(column, "–") for column in columns}
            for (one, other), said in asked.items()
        ]
    )
