"""The appendix on other backbones: KOALA and SD 1.5 in miniature, and the merges on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorarar.bookkit import contests
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


NAMES = {"base": "the base", "koala": "KOALA", "sd15": "SD 1.5"}
"""What the book calls the pipelines."""
BACKBONES = ("koala", "sd15")
ROWS = {
    "plain sum": "plain",
    "sum at 0.7": "sum",
    "place alone": "place",
    "invariants": "invariants",
    "LoRA.rar, converged": "rar",
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
    ("LoRA.rar, converged", "ZipLoRA"): "rar_zip",
}
"""The questions whose answers by ρ are told."""
RECORDS = ("backbones", "koala_rho", "koala", "sd15_rho", "sd15")
PICTURES = 6
"""In a row of the recorded sheet."""


def recorded(scale: str = "shoebox") -> Facts:
    """Return the numbers from shipped files: what the backbones draw, and the contest on KOALA."""
    run = record(f"backbones{suffix(scale)}")
    whole = run["of"]["base"]["processor seconds an image"]
    facts = {}
    for name, of in run["of"].items():
        facts |= {f"{name}_class": of["class shown"], f"{name}_family": of["family shown"]}
    for name in ("koala", "sd15"):
        card = run["of"][name]["card"]
        facts |= {
            f"{name}_time": run["of"][name]["processor seconds an image"] / whole,
            f"{name}_size": card["UNet parameters"] / card["the base's"],
            f"{name}_minutes": card["seconds"] / 60,
        }
    errors, shares = contests.means("koala_rho", scale), contests.means("koala", scale)
    facts |= {f"koala_{key}": errors[row].value for row, key in ROWS.items()}
    facts |= {f"koala_{key}_right": shares[row].value for row, key in SEEN.items()}
    leads = contests.leads("koala_rho", scale)
    for asked, key in ASKED.items():
        facts |= contests.ends(f"koala_{key}", leads[asked])
    seen = contests.leads("koala", scale)
    for key, asked in {
        "sight": ("RegMean", "sum at 0.7"),
        "sight_zip": ("LoRA.rar, converged", "ZipLoRA"),
    }.items():
        facts |= contests.ends(f"koala_{key}", seen[asked], 100)
    facts["koala_first"] = max(of[0].mean() for of in contests.pairs("koala", scale).values())
    other = contests.means("sd15_rho", scale)
    facts |= {f"sd15_{ROWS[row]}": other[row].value for row in ROWS if row in other}
    ahead = contests.leads("sd15_rho", scale)
    facts |= contests.ends("sd15_measures", ahead["RegMean", "sum at 0.7"])
    facts |= contests.ends("sd15_reads", ahead["invariants", "sum at 0.7"])
    shown = contests.means("sd15", scale)
    facts |= {f"sd15_{key}_right": shown[row].value for row, key in SEEN.items()}
    facts["sd15_sight_least"] = max(lead.low for lead in contests.leads("sd15", scale).values())
    base = contests.means("inputs_validation_rho", scale)
    for row, key in {"sum at 0.7": "sum", "place alone": "place", "ridge 0.1": "regmean"}.items():
        facts[f"base_{key}"] = base[row].value
    return Facts(
        facts,
        koala_keeps_low=leads["invariants", "plain sum"].low,
        koala_beats_low=leads["RegMean", "invariants"].low,
        koala_rar_sum_high=leads["LoRA.rar, converged", "sum at 0.7"].high,
    )


def statements(facts: Facts) -> dict[str, bool]:
    """Return the findings of the prose, each by a fragment of it."""
    f = facts
    return {
        "Both draw the right class": min(f.base_class, f.koala_class, f.sd15_class) > 0.98,
        "Style is what both lose": f.base_family - max(f.koala_family, f.sd15_family) > 0.1,
        "A merge that asks the base at hand carries over": f.koala_measures_low > 0.1
        and f.koala_beats_low > 0.1
        and f.koala_regmean < f.base_regmean + 0.05,
        "The lead that a network had at home does not carry over": f.base_place < f.base_sum
        and f.koala_sum < f.koala_place,
        "The small networks are as good as at home": f.koala_place < f.base_place + 0.02
        and f.koala_sum < f.base_sum - 0.05,
        "Both leads are open": max(f.koala_reads_low, f.koala_looks_low)
        < 0
        < min(f.koala_reads_high, f.koala_looks_high),
        "it keeps a lead": f.koala_keeps_low > 0,
        "LoRA.rar's own network is behind the sum": f.koala_rar_sum_high < 0,
        "By ρ a merge that asks the base at hand carries over here, too": f.sd15_measures_low > 0.1
        and max(f.sd15_place, f.sd15_invariants) < f.sd15_plain,
        "By the critic's word nothing is settled": f.koala_sight_low <= 0.5,
        "the critic leaves every question of this plan open": f.sd15_sight_least <= 0,
    }


def claims(facts: Facts) -> list[Claim]:
    """Return the paper's claim that the page examines."""
    f = facts
    return [
        Claim(
            "koala",
            "LoRA.rar can be applied to other backbones and still outperforms ZipLoRA, on KOALA-700M",
            "LoRA.rar, supplement §A2.4, Figure A8: pictures",
            "The network that learnt on the shoebox's base, used unchanged, is "
            f"{f.koala_sight_zip:+.0f} points ({f.koala_sight_zip_low:+.0f} to "
            f"{f.koala_sight_zip_high:+.0f}) ahead of ZipLoRA on the three pairs that have it, where neither "
            "is right in any picture; by ρ "
            f"it is behind, {f.koala_rar_zip:+.2f} ({f.koala_rar_zip_low:+.2f} to "
            f"{f.koala_rar_zip_high:+.2f}). "
            "One that learns on KOALA was not tried.",
            sign_verdict(f.koala_sight_zip_low, f.koala_sight_zip_high),
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
            "Processor seconds": of["processor seconds an image"],
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
    return table(rows, form | {"Processor seconds": ".2f"})


def answers_table(scale: str = "shoebox") -> Styler:
    """Show the questions of KOALA's plan, each with its answer and lead by ρ and by the critic."""
    by_error, by_sight = (record(f"{name}{suffix(scale)}")["questions"] for name in ("koala_rho", "koala"))
    return table(
        {
            "Is this": one["one"],
            "ahead of this?": one["other"],
            "By ρ": f"{one['answer']}: {look.interval(one['lead'], '+.2f')}",
            "By images right": f"{other['answer']}: {look.points(other['lead'])}",
        }
        for one, other in zip(by_error, by_sight, strict=True)
    )
