"""The appendix on other backbones: KOALA and SD 1.5 in miniature, and the merges on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorarar.bookkit import contests
from lorarar.bookkit import style as look
from lorarar.bookkit.claims import Claim, verdict
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.pictures import image_grid
from lorarar.bookkit.records import recorded as record
from lorarar.bookkit.records import sheet, suffix
from lorarar.bookkit.tables import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler


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
"""The rows whose errors are told."""
SEEN = {"sum at 0.7": "sum", "invariants": "invariants", "RegMean": "regmean"}
"""The rows whose images are told."""
ASKED = {
    ("invariants", "sum at 0.7"): "reads",
    ("invariants", "place alone"): "looks",
    ("RegMean", "sum at 0.7"): "measures",
    ("RegMean", "invariants"): "beats",
    ("ZipLoRA", "plain sum"): "zip_plain",
}
"""The questions whose answers by ρ are told."""
RECORDS = ("backbones", "koala_rho", "koala", "sd15_rho", "sd15")
PICTURES = 6
"""In a row of the recorded sheet."""


def recorded(scale: str = "shoebox") -> Facts:
    """Return the numbers from shipped files: what the backbones draw, and the contests on them."""
    run = record(f"backbones{suffix(scale)}")
    facts = {}
    for name, of in run["of"].items():
        facts |= {f"{name}_class": of["class shown"], f"{name}_family": of["family shown"]}
        facts[f"{name}_sharp"] = of["Laplacian to drawings'"]
        seconds = of["processor seconds an image"]
        facts[f"{name}_time"] = seconds / run["of"]["base"]["processor seconds an image"]
    for backbone in BACKBONES:
        card = run["of"][backbone]["card"]
        facts[f"{backbone}_size"] = card["UNet parameters"] / card["the base's"]
        facts[f"{backbone}_minutes"] = card["seconds"] / 60
        errors = contests.means(f"{backbone}_rho", scale)
        facts |= {f"{backbone}_{key}": errors[row].value for row, key in ROWS.items()}
        shares = contests.means(backbone, scale)
        facts |= {f"{backbone}_{key}_right": shares[row].value for row, key in SEEN.items()}
        ahead = contests.leads(f"{backbone}_rho", scale)
        for (one, other), key in ASKED.items():
            facts |= contests.ends(f"{backbone}_{key}", ahead[one, other])
        seen = contests.leads(backbone, scale)
        facts |= contests.ends(f"{backbone}_sight", [100 * end for end in seen["RegMean", "sum at 0.7"]])
        facts |= contests.ends(f"{backbone}_zip_sight", [100 * end for end in seen["ZipLoRA", "plain sum"]])
    facts["koala_rar"] = contests.means("koala_rho", scale)["LoRA.rar, converged"].value
    for measure, percent in (("koala_rho", 1), ("koala", 100)):
        lead = contests.leads(measure, scale)["LoRA.rar, converged", "ZipLoRA"]
        facts |= contests.ends(f"{measure}_rar_zip", [percent * end for end in lead])
    base = contests.means("inputs_validation_rho", scale)
    facts |= {"base_sum": base["sum at 0.7"].value, "base_place": base["place alone"].value}
    facts["base_regmean"] = base["ridge 0.1"].value
    return Facts(facts)


def statements(facts: Facts) -> dict[str, bool]:
    """Return the findings of the prose, each by a fragment of it."""
    f = facts
    return {
        "Both draw the right class": min(f.base_class, f.koala_class, f.sd15_class) > 0.98,
        "Style is what both lose": f.base_family - max(f.koala_family, f.sd15_family) > 0.1,
    }


def claims(facts: Facts) -> list[Claim]:
    """Return the papers' claims that the page examines."""
    f = facts
    return [
        Claim(
            "koala",
            "LoRA.rar can be applied to other backbones and still outperforms ZipLoRA, on KOALA-700M",
            "LoRA.rar, supplement §A2.4, Figure A8: pictures",
            "The network that was trained on the shoebox's base, used unchanged on KOALA, trails ZipLoRA on three pairs: "
            f"by {f.koala_rar_zip:+.0f} points of right images ({f.koala_rar_zip_low:+.0f} to {f.koala_rar_zip_high:+.0f}), "
            f"and by ρ it leaves {-f.koala_rho_rar_zip:.2f} more ({-f.koala_rho_rar_zip_high:.2f} to "
            f"{-f.koala_rho_rar_zip_low:.2f}). A network trained on KOALA itself was not tried.",
            verdict(
                f.koala_rar_zip_low > 0, against=f.koala_rar_zip_high < 0 or f.koala_rho_rar_zip_high < 0
            ),
        ),
        Claim(
            "sd15",
            "On Stable Diffusion 1.5 ZipLoRA is ahead of the direct merge",
            "ZipLoRA, supplement, Table 1",
            f"On three pairs by {f.sd15_zip_sight:+.0f} points of right images ({f.sd15_zip_sight_low:+.0f} to "
            f"{f.sd15_zip_sight_high:+.0f}), and by ρ {f.sd15_zip_plain:+.2f} ({f.sd15_zip_plain_low:+.2f} to "
            f"{f.sd15_zip_plain_high:+.2f}); one subject.",
            verdict(f.sd15_zip_sight_low > 0, f.sd15_zip_plain_low > 0),
        ),
    ]


def sheet_figure(scale: str = "shoebox") -> Figure:
    """Show what the base, KOALA and SD 1.5 draw for the same prompts, from the same noise."""
    run = record(f"backbones{suffix(scale)}")
    return image_grid(sheet(run.name, PICTURES), rows=[NAMES[name] for name in run["of"]])


def drawn_table(scale: str = "shoebox") -> Styler:
    """Show what the critic sees in the pictures of each pipeline, and what one costs."""
    rows = [
        {
            "Base": NAMES[name],
            "UNet": f"{of['card']['UNet parameters'] / 1e6:.1f} M" if "card" in of else "",
            "Class shown": of["class shown"],
            "Family shown": of["family shown"],
            "Sharpness, drawings 1": of["Laplacian to drawings'"],
            "Fréchet distance": of["Fréchet distance"],
            "Seconds": of["processor seconds an image"],
        }
        for name, of in record(f"backbones{suffix(scale)}")["of"].items()
    ]
    whole = record(f"backbones{suffix(scale)}")["of"][BACKBONES[0]]["card"]["the base's"]
    rows[0]["UNet"] = f"{whole / 1e6:.1f} M"
    form = {
        "Class shown": ".0%",
        "Family shown": ".0%",
        "Sharpness, drawings 1": ".2f",
        "Fréchet distance": ".2f",
    }
    return table(rows, form | {"Seconds": ".2f"})


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
