"""The error ρ of a merge: how far it is from what either LoRA alone would predict, in units of no LoRA.

    ρ = (content + style term of the merging loss, with the merge) / (the same, without any LoRA).

Zero is a merge that answers as each LoRA alone would on its own pictures; one is as good as no LoRA. The
terms are those of ZipLoRA's eq. 4 (`lorarar.train.merging_loss`), measured on *probes*: pictures of the
LoRA's training set with noise and timesteps that depend on the LoRA's name alone; nothing is trained on them.
So the same pair and the same coefficients have one ρ, wherever it is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import torch

from lorarar.hypernet import PARTS, layers_of
from lorarar.lora import LoRA
from lorarar.lora import Pair as LoraPair
from lorarar.merging import Gates
from lorarar.scales import Scale
from lorarar.shoebox import zoo
from lorarar.study.training import with_pictures
from lorarar.train import Trained, merging_loss
from lorarar.train.denoising import Batch
from lorarar.train.gates import Gated, Update, placed, updates
from lorarar.train.objective import joined, predict, teach

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

DRAWS = 16
"""Probes of each LoRA: (picture, noise, timestep)."""

Pair = tuple[str, str]


class Error(NamedTuple):
    """ρ of a merge, and the same for either side by itself."""

    both: float
    subject: float
    style: float


class Ruler:
    """Measures ρ of merges by coefficients, for pairs of the zoo named (subject, style).

    After each measurement the UNet is the base's again, so that a method may use it between two.

    Args:
        pipe: the pipeline, inside `updates`.
        update: what `updates` yields.
        draws: probes of each LoRA.
        sides: LoRAs that are not the zoo's, or loaded already, by name.
    """

    def __init__(
        self,
        pipe: DiffusionPipeline,
        update: Update,
        draws: int = DRAWS,
        sides: Mapping[str, Trained] | None = None,
    ) -> None:
        self.pipe, self.update, self.draws = pipe, update, draws
        self._sides, self._probes = dict(sides or {}), {}
        self._without: dict[Pair, float] = {}
        self._base: dict[str, float] = {}

    def side(self, name: str) -> Trained:
        """Return a LoRA with the pictures it was trained on."""
        if name not in self._sides:
            self._sides[name] = side_of(name, self.pipe.scale)
        return self._sides[name]

    def probes(self, name: str) -> Batch:
        """Return the probes of a LoRA, with what the LoRA alone answers to them."""
        if name not in self._probes:
            seed = crc32(name.encode())
            self._probes[name] = teach(self.pipe, self.update, self.side(name), self.draws, seed)
        return self._probes[name]

    @torch.no_grad()
    def error(self, pair: Pair, gates: Gates) -> float:
        """Return content + style term of the merge by ``gates``, for all layers that both LoRAs have."""
        probes = [self.probes(name) for name in pair]
        loras = [self.side(name).lora for name in pair]
        merge = Gated(*loras, gates, device=self.pipe.device, dtype=self.pipe.dtype)
        terms = merging_loss(self.pipe.unet, self.update, merge, gates, *probes)
        self.update({})
        return float(terms.content + terms.style)

    def rho(self, pair: Pair, gates: Gates) -> float:
        """Return the error in units of no LoRA: zero is perfect, one no better than nothing."""
        if pair not in self._without:
            zero = {layer: tuple(torch.zeros_like(m) for m in both) for layer, both in gates.items()}
            self._without[pair] = self.error(pair, zero)
        return self.error(pair, gates) / self._without[pair]

    @torch.no_grad()
    def merged(self, pair: Pair, merge: LoRA) -> Error:
        """Return ρ of a merge that is a LoRA: `rho` of any method, and what each side contributes."""
        without = [self._without_lora(name) for name in pair]
        both = joined(*(self.probes(name) for name in pair))
        content, style = self._squares(both, merge).split(self.draws)
        errors = float(content.mean()), float(style.mean())
        return Error(sum(errors) / sum(without), *(e / w for e, w in zip(errors, without, strict=True)))

    @torch.no_grad()
    def alone(self, name: str, lora: LoRA) -> float:
        """Return ρ of one LoRA against the zoo's of that name, on the pictures of that one."""
        without = self._without_lora(name)
        return float(self._squares(self.probes(name), lora).mean()) / without

    def _without_lora(self, name: str) -> float:
        if name not in self._base:
            probes = self.probes(name)
            self._base[name] = float(self._squares(probes, {}).mean())
        return self._base[name]

    def _squares(self, batch: Batch, lora: Mapping[str, LoraPair]) -> torch.Tensor:
        # The target of a probe is what its own LoRA answers.
        self.update(placed(lora, self.pipe.device, self.pipe.dtype))
        answers = predict(self.pipe.unet, batch)
        self.update({})
        return (answers - batch.target).square().mean((1, 2, 3))


def side_of(name: str, scale: str | Scale = "shoebox") -> Trained:
    """Return a LoRA of the zoo with the pictures and captions it was trained on."""
    return with_pictures(name, zoo.load(name, scale))


@contextmanager
def ruler(
    pipe: DiffusionPipeline, *, draws: int = DRAWS, sides: Mapping[str, Trained] | None = None
) -> Iterator[Ruler]:
    """Open the UNet for a `Ruler`, for as long as the block runs; then leave it as it was found."""
    with updates(pipe, attention_layers(pipe)) as update:
        yield Ruler(pipe, update, draws, sides)


def attention_layers(pipe: DiffusionPipeline) -> list[str]:
    """Return the names of the UNet's linear layers of attention, as a LoRA names them."""
    modules: Iterable[str] = (f"unet.{name}" for name, _ in pipe.unet.named_modules())
    return layers_of(modules, PARTS)
