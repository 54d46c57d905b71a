"""Mix-of-Show's gradient fusion: RegMean's objective, descended from the base instead of solved.

Gu et al. 2023 (arXiv 2305.18292, eq. 4) look, layer by layer, for the one weight that answers each concept's
own inputs X_i as that concept's LoRA would,

    argmin_W  Σ_i ‖(W_0 + ΔW_i) X_i − W X_i‖²_F,

by L-BFGS from W_0. With second moments G_i in place of the X_i this is what `lorarar.merging.regression`
solves in closed form. A few steps do not arrive, though: along directions that inputs hardly ever take, the
weight stays the base's, as a ridge towards no update at all would have it.

Steps, line search and history are those of the authors' released program (github.com/TencentARC/Mix-of-Show,
Apache 2.0), which was read and not copied; of the paper's text only the abstract and parts could be had. The
program gives ten times as many steps to layers that read the text. Its LoRAs (ED-LoRA) have words of their
own in each layer, and its text layers are given those alone; ordinary LoRAs have no such words.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lorarar.lora import Pair

STEPS = 50
"""Steps of L-BFGS for a layer, in the authors' program."""
STEPS_OF_TEXT = 10
"""Times as many in layers that read the text."""
HISTORY = 25
"""Steps that L-BFGS remembers."""
READS_TEXT = (".attn2.to_k", ".attn2.to_v")


def fused(layer: str, pairs: Sequence[Pair], moments: tuple[Tensor, Tensor], steps: int) -> Pair:
    """Descend the objective of one layer from no update: (up (out, r), down (r, in)), r ≤ r_c + r_s, float64.

    Every gradient, Σ_i (ΔW − B_i A_i) G_i, has its columns in the span of B_c and B_s. So the search stays in
    an orthonormal basis Q of that span, ΔW = Q·Y, and nothing dense is needed.

    Args:
        layer: its name, which says whether it reads the text.
        pairs: both sides' (up (out, r_i), down (r_i, in)), with their weights.
        moments: both sides' second moments E[x xᵀ], (in, in).
        steps: of L-BFGS; `STEPS_OF_TEXT` times as many where the text is read.
    """
    g_c, g_s = (g.double() for g in moments)
    ups, downs = zip(*((up.to(g_c), down.to(g_c)) for up, down in pairs), strict=True)
    basis = torch.linalg.qr(torch.cat(ups, 1))[0]
    wanted = [(basis.mT @ up) @ down for up, down in zip(ups, downs, strict=True)]  # each (r, in)
    y = torch.zeros_like(wanted[0], requires_grad=True)
    # The program's loss is the mean over both sides' inputs and all entries of an answer.
    entries = 2 * len(ups[0])

    @torch.no_grad()
    def loss() -> Tensor:
        gaps = [y - one for one in wanted]
        slopes = [gap @ g for gap, g in zip(gaps, (g_c, g_s), strict=True)]
        y.grad = sum(slopes) * (2 / entries)
        return sum((gap * slope).sum() for gap, slope in zip(gaps, slopes, strict=True)) / entries

    count = steps * (STEPS_OF_TEXT if layer.endswith(READS_TEXT) else 1)
    torch.optim.LBFGS(
        [y],
        lr=1,
        max_iter=count,
        max_eval=10 * count,  # the line search's own questions do not count as steps
        history_size=HISTORY,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-16,
        tolerance_change=1e-16,
    ).step(loss)
    return basis, y.detach()
