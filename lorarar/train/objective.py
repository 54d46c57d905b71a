"""The merging loss, which ZipLoRA minimises for one pair of LoRAs and LoRA.rar's hypernetwork for many.

With D the base model, L_m = ΔW_c·diag(m_c) + ΔW_s·diag(m_s) the merged update and (x, p) noised images and
prompts of either LoRA's own training set (Shah et al. 2024, ZipLoRA, arXiv 2311.13600, eq. 4):

    ‖(D + L_m)(x_c, p_c) - (D + L_c)(x_c, p_c)‖² + ‖(D + L_m)(x_s, p_s) - (D + L_s)(x_s, p_s)‖²
        + λ Σ_layers |m_c · m_s|.

Since ΔW·diag(m) = B·(A·diag(m)), a coefficient gates a column of the small A, or equally an entry of the
layer's input: y = W x + B_c A_c (m_c ⊙ x) + B_s A_s (m_s ⊙ x). No dense ΔW is formed and W is not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lorarar.merging import Gates
from lorarar.options import MEASURES
from lorarar.pipelines import at_once
from lorarar.train.adapters import Trained
from lorarar.train.denoising import Batch, draw
from lorarar.train.gates import Gated, Update, placed
from lorarar.train.pictures import encode

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Terms(NamedTuple):
    """The three terms of the merging loss (`merging_loss`), apart: scalars, the last without its λ."""

    content: Tensor
    style: Tensor
    similarity: Tensor

    def loss(self, weight: float) -> Tensor:
        """Return content + style + ``weight`` · similarity, ``weight`` being the papers' λ."""
        return self.content + self.style + weight * self.similarity


def similarity(coefficients: Gates, measure: str = "dot") -> Tensor:
    """Return the sum over the layers of how alike m_c and m_s are, a scalar.

    ``dot`` is |m_c · m_s|, the equation of both papers; ``cosine`` is |cos(m_c, m_s)|, LoRA.rar's released
    code, whose gradient is zero wherever m_c and m_s are parallel, the all-ones start included.

    Raises:
        ValueError: an unknown measure.
    """
    if measure not in MEASURES:
        raise ValueError(f"unknown measure {measure!r} of similarity: choose one of {', '.join(MEASURES)}")
    widths: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for m_c, m_s in coefficients.values():
        widths.setdefault(len(m_c), []).append((m_c, m_s))
    total = []
    for pairs in widths.values():
        m_c, m_s = (torch.stack(side) for side in zip(*pairs, strict=True))  # (layers, width)
        if measure == "cosine":
            alike = torch.nn.functional.cosine_similarity(m_c, m_s, dim=1)
        else:
            alike = (m_c * m_s).sum(1)
        total.append(alike.abs().sum())
    return torch.stack(total).sum() if total else torch.zeros(())


def predict(unet: torch.nn.Module, batch: Batch) -> Tensor:
    """Return the UNet's prediction for a batch: (n, c, h, w) float32."""
    return unet(
        batch.noised.to(unet.dtype),
        batch.timesteps,
        batch.text,
        added_cond_kwargs=batch.conditions,
        return_dict=False,
    )[0].float()


def chosen(batch: Batch, index: Tensor | slice) -> Batch:
    """Return some samples of a batch."""
    conditions = batch.conditions and {name: value[index] for name, value in batch.conditions.items()}
    return Batch(
        **{f.name: getattr(batch, f.name)[index] for f in fields(Batch) if f.name != "conditions"},
        conditions=conditions,
    )


def joined(one: Batch, other: Batch) -> Batch:
    """Return the samples of two batches as one."""
    conditions = one.conditions and {
        name: torch.cat([value, other.conditions[name]]) for name, value in one.conditions.items()
    }
    return Batch(
        **{
            f.name: torch.cat([getattr(one, f.name), getattr(other, f.name)])
            for f in fields(Batch)
            if f.name != "conditions"
        },
        conditions=conditions,
    )


@torch.no_grad()
def teach(
    pipe: DiffusionPipeline,
    update: Update,
    teacher: Trained,
    count: int,
    seed: int,
    wanted: Sequence[int] | None = None,
    batch_size: int | None = None,
) -> Batch:
    """Draw noised images of a LoRA's training set, with the LoRA's own prediction as the target.

    The teacher's prediction depends on nothing that is optimised, nor on the other LoRA: it is computed once
    and serves every step, and every pair that the LoRA is in.

    Args:
        pipe: the pipeline, inside `updates`.
        update: what `updates` yields; the updates are removed afterwards.
        teacher: the LoRA, its images and prompts.
        count: of (image, noise, timestep) draws.
        seed: of the draws.
        wanted: those draws of the ``count`` that are returned; None takes all.
        batch_size: predictions computed at once; None takes 8, or a megapixel's worth if that is less.
    """
    from diffusers import DDPMScheduler

    unet = pipe.unet
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    batch = draw(
        [encode(pipe, [(teacher.images, teacher.prompt)])],
        count,
        schedule.alphas_cumprod.to(unet.device, torch.float32),
        schedule.config.prediction_type,
        torch.Generator().manual_seed(seed),
    )
    if wanted is not None:
        batch = chosen(batch, torch.tensor(wanted, device=unet.device))
    size = min(8, at_once(pipe)) if batch_size is None else batch_size
    update(placed(teacher.lora, unet.device, unet.dtype))
    parts = [chosen(batch, slice(i, i + size)) for i in range(0, len(batch.noised), size)]
    answers = torch.cat([predict(unet, part) for part in parts])
    update({})
    return replace(batch, target=answers)


class Lessons:
    """Which draws each step takes, known before the first, and the teachers' answers to these alone.

    Args:
        turns: for each step the two LoRAs, as keys.
        count: draws of each LoRA.
        batch_size: draws of either LoRA that a step takes.
        generator: of the choice.
        teach: given a key and the numbers of draws that will be taken of that LoRA, returns these draws.
        same: whether a step takes the same numbers of both LoRAs. Lessons of one seed (`teach`) have one
            noise and timestep for each number: drawn alike, both sides share them.
    """

    def __init__(
        self,
        turns: Sequence[Sequence[Hashable]],
        count: int,
        batch_size: int,
        generator: torch.Generator,
        teach: Callable[[Hashable, list[int]], Batch],
        same: bool = False,
    ) -> None:
        self._turns, self._teach = turns, teach

        def picks(keys: Sequence[Hashable]) -> list[list[int]]:
            drawn = [
                torch.randperm(count, generator=generator)[:batch_size].tolist()
                for _ in (keys[:1] if same else keys)
            ]
            return drawn * len(keys) if same else drawn

        self._picks = [picks(keys) for keys in turns]
        taken: dict[Hashable, set[int]] = {}
        for keys, picks in zip(turns, self._picks, strict=True):
            for key, pick in zip(keys, picks, strict=True):
                taken.setdefault(key, set()).update(pick)
        self._wanted = {key: sorted(numbers) for key, numbers in taken.items()}
        self._known: dict[Hashable, Batch] = {}

    def samples(self, step: int) -> list[Batch]:
        """Return a step's samples of either LoRA; a LoRA is taught when its first turn comes."""
        found = []
        for key, pick in zip(self._turns[step], self._picks[step], strict=True):
            wanted = self._wanted[key]
            if key not in self._known:
                self._known[key] = self._teach(key, wanted)
            lesson = self._known[key]
            places = torch.tensor([wanted.index(number) for number in pick], device=lesson.noised.device)
            found.append(chosen(lesson, places))
        return found


def merging_loss(
    unet: torch.nn.Module,
    update: Update,
    pair: Gated,
    coefficients: Gates,
    content: Batch,
    style: Batch,
    measure: str = "dot",
) -> Terms:
    """Return the three terms for one set of coefficients; both predictions are one pass through the UNet.

    The first two are means over the N entries of a prediction and over the batch, as in the released code.
    The equation's ‖·‖² is a sum, and there ``dot``, a sum too, is its match: all of the equation divided by N
    is what is returned for it, the similarity divided by N as well. Against the means the whole of it would
    drown them, and all coefficients fall alike. ``cosine`` is returned as it is, as in the released code.

    Args:
        unet: inside `updates`, whose yielded function is ``update``.
        update: see there.
        pair: the two LoRAs.
        coefficients: layer → (m_c, m_s), into which gradients flow, for the layers ``pair`` was made with.
        content: samples with the content LoRA's predictions as targets, from `teach`.
        style: the same of the style's.
        measure: see `similarity`.
    """
    update(pair.update(coefficients))
    both = joined(content, style)
    errors = (predict(unet, both) - both.target).square().mean((1, 2, 3))
    split = len(content.noised)
    alike = similarity(coefficients, measure).to(errors.device)
    if measure == "dot":
        alike = alike / both.target[0].numel()
    return Terms(errors[:split].mean(), errors[split:].mean(), alike)
