"""Custom Diffusion's merge: keys and values that answer either concept's own words as its LoRA does.

Kumari et al. 2023 (arXiv 2212.04488, §3.2, eq. 4) merge the key and value of cross-attention, which are all
that they train, under a constraint: exact on the words C of the concepts, and else as near as can be to the
base on captions C_reg about other things,

    argmin_W ‖W C_regᵀ − W_0 C_regᵀ‖²_F  subject to  W Cᵀ = V,    V = [W_c C_cᵀ, W_s C_sᵀ].

It has a closed form, W = W_0 + (V − W_0 Cᵀ)(d Cᵀ)⁻¹ d with d = C (C_regᵀ C_reg)⁻¹. Since V − W_0 Cᵀ is
[ΔW_c C_cᵀ, ΔW_s C_sᵀ], the update needs no W_0 and has rank r_c + r_s: with the rows of (d Cᵀ)⁻¹ d that
belong to either side as P_c and P_s, only A_c and A_s change, to A_c C_cᵀ P_c and A_s C_sᵀ P_s.

The equation is that of the authors' released program, which was read and not copied; of the paper's text only
the abstract and parts could be had.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lorarar.lora import LoRA, LoRAError
from lorarar.merging.alike import alike
from lorarar.merging.fusion import READS_TEXT
from lorarar.merging.pairs import Progress, apply_weights, heritage, matching


def custom_diffusion(
    content: LoRA,
    style: LoRA,
    words: tuple[Tensor, Tensor],
    captions: Tensor,
    *,
    progress: Progress = iter,
) -> LoRA:
    """Merge the keys and values of cross-attention by constrained least squares, in float64.

    What the LoRAs have in other layers is dropped: the method leaves those the base's.

    Args:
        content: the subject's LoRA.
        style: the style's.
        words: text features of the words of either's own prompt, (s_c, in) and (s_s, in); a word that both
            prompts share, and so would have two answers, belongs to neither (`lorarar.train.own_words`).
        captions: text features of the words of captions about other things, (n, in).
        progress: wraps the layers.

    Returns:
        The LoRA of rank r_c + r_s for the shared keys and values.

    Raises:
        LoRAError: the LoRAs share no such layer, or features of another width; the captions, or the words,
            are not independent.
    """
    content, style = alike(content, style)
    layers = [
        layer
        for layer in matching(content, style)
        if layer.startswith("unet.") and layer.endswith(READS_TEXT)
    ]
    if not layers:
        raise LoRAError("the LoRAs share no key or value of cross-attention, which is all this merges")
    sides = projections(words, captions)
    merged = {}
    for layer in progress(layers):
        ups, downs = [], []
        for lora, own, share in zip((content, style), words, sides, strict=True):
            up, down = lora[layer]
            if down.shape[1] != own.shape[1]:
                raise LoRAError(
                    f"layer {layer}: takes {down.shape[1]} inputs, the words have {own.shape[1]}; were they "
                    "encoded by this base model?"
                )
            ups.append(up)
            downs.append((down.to(own.device, torch.float64) @ own.double().mT) @ share)
        dtype = torch.promote_types(content[layer][1].dtype, style[layer][1].dtype)
        down = torch.cat(downs).to(ups[0].device)
        merged[layer] = apply_weights(layer, (torch.cat(ups, 1), down), 1.0, dtype)
    return LoRA(merged, **heritage(content, style))


def projections(words: tuple[Tensor, Tensor], captions: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows P_c (s_c, in) and P_s (s_s, in) of (d Cᵀ)⁻¹ d, float64; C Pᵀ is the identity.

    Raises:
        LoRAError: the captions do not span the text features, or the words depend on one another.
    """
    both = torch.cat(words).double()
    captions = captions.double()
    root = _root(captions.mT @ captions, "the captions lie in too few directions; give more of them")
    seen = torch.linalg.solve_triangular(root, both.mT, upper=False)  # (in, s)
    inner = _root(
        seen.mT @ seen, "the words of both sides are not independent; give each side words of its own"
    )
    rows = torch.cholesky_solve(torch.linalg.solve_triangular(root.mT, seen, upper=True).mT, inner)
    first, second = rows.split([len(own) for own in words])
    return first, second


def _root(square: Tensor, message: str) -> Tensor:
    """Return the Cholesky factor of a matrix that has full rank as far as float64 can tell."""
    root, failed = torch.linalg.cholesky_ex(square)
    diagonal = root.diagonal()
    if int(failed) or float(diagonal.min()) < 1e-7 * float(diagonal.max()):
        raise LoRAError(message)
    return root
