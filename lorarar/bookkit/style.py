"""How the book shows things: one colour for each role, one name for each method, one judge, one interval.

Colours are Okabe and Ito's, which readers with any common colour vision tell apart. Roles are fixed: what is
blue in one chapter is the subject in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgb

WIDTH = 5.6
"""Inches of a figure: shown 350 pixels wide on a phone, text of 13 points is then 11 pixels high."""
DPI = 200
SIZE = 13
"""Points of the smallest text in a figure."""

INK = "#22262e"
SUBJECT = "#0072B2"  # blue
STYLE = "#D55E00"  # vermilion
MERGED = "#009E73"  # green
DIRECT = "#CC79A7"  # purple
OTHER = "#E69F00"  # orange
SKY = "#56B4E9"
YELLOW = "#F0E442"
WINE = "#882255"
OLIVE = "#8f8f2b"
GREY = "#8a8f98"
PALETTE = (SUBJECT, STYLE, MERGED, DIRECT, OTHER, SKY, GREY)

SEQUENTIAL = LinearSegmentedColormap.from_list("lorarar", ("#ffffff", SKY, SUBJECT, "#002a45"))
DIVERGING = LinearSegmentedColormap.from_list("lorarar-diverging", (SUBJECT, "#f7f7f7", STYLE))

NAMES = {
    "base": "no LoRA",
    "content": "subject's LoRA",
    "style": "style's LoRA",
    "joint": "joint training",
    "direct": "plain sum",
    "half": "half sum",
    "weighted": "weighted sum",
    "dare": "DARE (factors)",
    "ties": "TIES (factors)",
    "dare-ties": "DARE-TIES (factors)",
    "dare-delta": "DARE (ΔW)",
    "ties-delta": "TIES (ΔW)",
    "dare-ties-delta": "DARE-TIES (ΔW)",
    "np-lora": "NP-LoRA",
    "k-lora": "K-LoRA",
    "ziplora": "ZipLoRA",
    "lorarar": "LoRA.rar",
}
"""What each method is called, in every table, figure and sentence."""

HUES = {
    "lorarar": MERGED,
    "ziplora": SUBJECT,
    "joint": OTHER,
    "direct": DIRECT,
    "k-lora": STYLE,
    "np-lora": SKY,
    "regmean": WINE,
    "invariants": OLIVE,
}
"""The colour of the methods that figures tell apart; the others are `INK` or `GREY`."""

VERDICT_COLOURS = {
    (True, True): MERGED,
    (True, False): SUBJECT,
    (False, True): STYLE,
    (False, False): "#000000",
}
"""The frame of an image by (subject right, style right)."""

JUDGES = {"critic": "the critic", "mars2": "MARS² in miniature"}


def name_of(method: str) -> str:
    """Return a method's name, or the key itself of one that has none."""
    return NAMES.get(method, method)


def hue_of(method: str) -> str:
    """Return a method's colour; grey for one that no figure tells apart."""
    return HUES.get(method, GREY)


def judge_of(scale: str = "shoebox") -> str:
    """Return the key of the judge whose verdicts the book quotes: the one that passed the examination best.

    The examination is the recorded run "judges", and it says itself which one that is.
    """
    from lorarar.records import recorded, suffix

    return recorded(f"judges{suffix(scale)}")["chosen"]


def framed(image: np.ndarray, verdict: tuple[bool, bool] | str, *, width: int | None = None) -> np.ndarray:
    """Return an image with a border in a verdict's colour.

    Args:
        image: (h, w, 3) uint8.
        verdict: (subject right, style right), or a colour, such as `GREY` for a reference.
        width: of the border, in pixels; the 32nd part of the height by default.
    """
    colour = verdict if isinstance(verdict, str) else VERDICT_COLOURS[tuple(map(bool, verdict))]
    wide = width or max(image.shape[0] // 32, 1)
    drawn = np.empty_like(image)
    drawn[:] = np.round(255 * np.array(to_rgb(colour)))
    drawn[wide:-wide, wide:-wide] = image[wide:-wide, wide:-wide]
    return drawn


def interval(entry: Sequence[float], form: str = ".0%") -> str:
    """Write (value, low, high) as "54% (42% to 66%)"."""
    value, low, high = (format(number, form) for number in entry)
    return f"{value} ({low} to {high})"


def points(entry: Sequence[float]) -> str:
    """Write a difference of shares, (value, low, high), in points: "+28 points (+15 to +42)"."""
    shown = [100 * number for number in entry]
    # An end near zero keeps a decimal: on which side of zero it lies is what matters.
    value, low, high = (f"{p:+.1f}" if 0 < abs(p) < 0.5 else f"{p:+.0f}" for p in shown)
    return f"{value} points ({low} to {high})"


def use(extra: Mapping[str, Any] | None = None) -> None:
    """Make matplotlib draw in the book's style. Every chapter calls this once."""
    mpl.rcParams.update(
        {
            "figure.figsize": (WIDTH, 3.4),
            "figure.dpi": DPI / 2,
            "savefig.dpi": DPI,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "font.size": SIZE,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": "#b8bcc4",
            "axes.titlesize": SIZE + 1,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#e6e8ec",
            "grid.linewidth": 0.8,
            "xtick.color": INK,
            "ytick.color": INK,
            "xtick.labelsize": SIZE,
            "ytick.labelsize": SIZE,
            "legend.fontsize": SIZE,
            "xtick.major.size": 0,
            "ytick.major.size": 0,
            "lines.linewidth": 2.2,
            "legend.frameon": False,
            "axes.prop_cycle": mpl.cycler(color=PALETTE),
            **(extra or {}),
        }
    )
    try:  # inside Jupyter: the inline backend has its own idea of resolution
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    mpl.rcParams["figure.dpi"] = DPI
    set_matplotlib_formats("png", facecolor="white", bbox_inches=None)
