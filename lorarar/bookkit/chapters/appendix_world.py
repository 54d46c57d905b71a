"""The appendix to chapter 1: what the VAE keeps of drawings, and whether recorded pictures come again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lorarar.bookkit.facts import Facts
from lorarar.shoebox.models.loop import to_unit
from lorarar.shoebox.models.train import psnr
from lorarar.shoebox.world.styles import FAMILIES

if TYPE_CHECKING:
    from lorarar.bookkit.claims import Claim
    from lorarar.study.base import Cell


def recorded(scale: str = "shoebox") -> Facts:
    """Return the numbers from recorded runs: there are none."""
    return Facts()


def live(moved: float, drawings: np.ndarray, decoded: np.ndarray, cells: Sequence[Cell]) -> Facts:
    """Return the numbers that the page computed.

    Args:
        moved: the largest mean difference of a picture from its recording, in grey levels.
        drawings: (n, h, w, 3), of every family.
        decoded: the same after the VAE.
        cells: class and family of each.
    """
    decibels = psnr(to_unit(drawings), to_unit(decoded)).numpy()
    by_family = {family: decibels[[f == family for _, f in cells]].mean() for family in FAMILIES}
    return Facts(
        moved=moved,
        psnr=decibels.mean(),
        psnr_best=max(by_family.values()),
        psnr_worst=min(by_family.values()),
        psnr_gold=by_family["melting golden rendering"],
        psnr_statue=by_family["black statue"],
    )


def statements(f: Facts) -> dict[str, bool]:
    """Return what the prose states, by its own words."""
    return {
        "They are the same pictures": f.moved < 1,
        "for molten gold full of fine highlights": f.psnr_gold == f.psnr_worst,
        "for black statues": f.psnr_statue == f.psnr_best,
    }


def claims(f: Facts) -> list[Claim]:
    """Return no claims: the chapter has them."""
    return []
