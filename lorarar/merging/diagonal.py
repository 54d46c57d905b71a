"""The coefficients that answer given inputs best: RegMean's question with ZipLoRA's form of answer.

Where RegMean takes any update, this one takes W = ΔW_c diag(m_c) + ΔW_s diag(m_s), a number for each column.
The question of `lorarar.merging.regression` is quadratic in these numbers too,

    E ‖ΔW diag(m) x‖² = mᵀ (ΔWᵀΔW ∘ E[x xᵀ]) m,

with ∘ the product entry by entry. So they follow from one linear system of size 2 · in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lorarar.lora import Pair

JITTER = 1e-9
"""Share of the mean diagonal by which two columns that are parallel, or zero, still have one answer."""
TINY = torch.finfo(torch.float64).tiny
"""The same where neither LoRA has learnt anything, and the mean is zero."""


def best_columns(pairs: Sequence[Pair], moments: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the coefficients m_c and m_s, each (in,) in float64, that answer both sides' inputs best.

    Args:
        pairs: the subject's factors and the style's, each (out, r) and (r, in).
        moments: second moments of either side's inputs, (in, in), on one device in float64.
    """
    ups, downs = zip(*[(up.to(moments[0]), down.to(moments[0])) for up, down in pairs], strict=True)
    # ΔW_iᵀ ΔW_j for i, j of subject and style, (in, in) each.
    grams = [[downs[i].mT @ (ups[i].mT @ ups[j]) @ downs[j] for j in (0, 1)] for i in (0, 1)]
    both = moments[0] + moments[1]
    system = torch.cat([torch.cat([gram * both for gram in row], 1) for row in grams])
    # On its own inputs the merge should answer as ΔW_j does: a side's moment goes with that side's update.
    wanted = torch.cat([sum((row[j] * moments[j]).sum(1) for j in (0, 1)) for row in grams])
    system.diagonal().add_((JITTER * system.diagonal().mean()).clamp_min(TINY))
    found = torch.cholesky_solve(wanted[:, None], torch.linalg.cholesky(system))[:, 0]
    return found[: len(both)], found[len(both) :]
