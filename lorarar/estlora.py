"""EST-LoRA: K-LoRA with the energy of the updates, and a start that is measured on two pictures.

Zhang and Xiong, arXiv 2508.02165, name what decides at step t of T whether a layer takes the content LoRA:
the Energy of its two updates, the Style discrepancy score and the Time step,

    ‖ΔW_c‖²_F / γ > S(t) · ‖ΔW_s‖²_F,    S(t) = α·t/T + β,    β = 1 − cos(DINO(x_c), DINO(x_s)),

where x_c and x_s are one picture under either LoRA alone, of the same prompt and noise: the more they differ,
the sooner the style is heard. γ is the mean over the layers of Σ|ΔW_c| / Σ|ΔW_s|, without those above three
times the mean.

The formula is that of the authors' released program (github.com/Godz-z/EST-LoRA, Apache 2.0; α = 1.5, DINO
ViT-S/16), which was read and not copied; of the paper's text only the abstract and the start could be had.
Note that γ enters once where energies have the square of a LoRA's strength: unlike in K-LoRA, the stronger
of two LoRAs is taken more often.
"""

from __future__ import annotations

from lorarar.klora import claims_by
from lorarar.lora import LoRA
from lorarar.merging import Progress


def ratios(
    content: LoRA, style: LoRA, *, balance: str = "mean", progress: Progress = iter
) -> dict[str, float]:
    """Return ‖ΔW_c‖² / (γ·‖ΔW_s‖²) of every layer of the denoiser that both LoRAs have.

    `lorarar.klora.choices` and `lorarar.klora.applied` take them as the layers' claims, with ``beta`` from
    the two pictures. Arguments and errors as in `lorarar.klora.ratios`.
    """
    return claims_by(lambda size, _: size.square(), content, style, balance=balance, progress=progress)
