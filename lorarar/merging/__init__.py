"""Merging: pure functions LoRA × LoRA → LoRA, and the compression of a LoRA to a smaller rank.

A column coefficient scales an input column of the update, ΔW·diag(m) = B·(A·diag(m)). So every method that
only weighs columns (direct sum, ZipLoRA, LoRA.rar) has an exact result of rank r_c + r_s,

    B = [B_c  B_s],    A = [A_c·diag(m_c); A_s·diag(m_s)],

which is an ordinary LoRA: nothing dense is ever formed. NP-LoRA changes A_c only and fits the same form. TIES
and DARE change single entries; on ΔW they go layer by layer through one dense matrix and back by a truncated
eigendecomposition.

Everything is computed in float32 or better and rounded to the inputs' own type at the end. The functions run
on whatever device the factors are on.
"""

from lorarar.merging.alike import alike
from lorarar.merging.columns import direct, levels, lorarar, summary, table, ziplora
from lorarar.merging.constrained import custom_diffusion
from lorarar.merging.methods import merge
from lorarar.merging.nullspace import np_lora
from lorarar.merging.pairs import Gates, Progress, batches, matching, parallel, stacked
from lorarar.merging.parts import PARTS, layers_of
from lorarar.merging.prune import dare, dare_ties, ties
from lorarar.merging.rank import compress, singular_values
from lorarar.merging.regression import Inputs, regmean
from lorarar.options import FLAVOURS, METHODS, RESTS

__all__ = [
    "FLAVOURS",
    "METHODS",
    "PARTS",
    "RESTS",
    "Gates",
    "Inputs",
    "Progress",
    "alike",
    "batches",
    "compress",
    "custom_diffusion",
    "dare",
    "dare_ties",
    "direct",
    "layers_of",
    "levels",
    "lorarar",
    "matching",
    "merge",
    "np_lora",
    "parallel",
    "regmean",
    "singular_values",
    "stacked",
    "summary",
    "table",
    "ties",
    "ziplora",
]
