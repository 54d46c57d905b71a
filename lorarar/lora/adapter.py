"""One adapter in memory: ``{layer: (up, down)}``, its update, its size.

A LoRA file holds, for some linear (or convolution) layers of a model, two thin matrices whose product is
added to the layer's weight. The dialects differ in how they spell the layer's name and in where they keep
the scale ``alpha / rank``. Here a layer is always spelled as diffusers spells the module, with its
component in front (``unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q``), and the scale is
already in the factors, so that everything after this module may forget both.

Only torch and safetensors are imported: `diffusers` takes seconds to import and its converters are not
right for every file (one alpha for all layers, DoRA dropped); the tests compare the two where it is right."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lorarar.lora.base import base_of
from lorarar.lora.metadata import words

Pair = tuple[Tensor, Tensor]
"""``up`` (out, r) and ``down`` (r, in); for a convolution (out, r, 1, 1) and (r, in, kh, kw)."""


class LoRAError(ValueError):
    """A file or an adapter that cannot be used; one line: file, layer, what was expected, what to do."""


class LoRAWarning(UserWarning):
    """Something a file does not say, so that what is read may not be what was trained; one line."""


@dataclass(frozen=True)
class Source:
    """A file an adapter came from; its SHA-256 is computed on a thread while the merge runs."""

    name: str
    digest: "Future[str]"

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the file (waits until the thread has read it)."""
        return self.digest.result()


class LoRA(dict[str, Pair]):
    """Layer name → (up, down) with the scale folded in, so that ΔW = up @ down and nothing else.

    ``dialect`` names the spelling of the file it came from, ``alphas`` the file's alpha of each layer that
    had one (for show: they are in the factors already), ``stored`` the file's own ``up`` and its scale where
    that is not 1, ``sources`` the files, ``metadata`` strings that are written with it, ``model`` the model
    whose authors' names the file had, if it told. Layers are in the order of their names.
    """

    def __init__(
        self,
        pairs: Mapping[str, Pair] | Iterable[tuple[str, Pair]] = (),
        *,
        metadata: Mapping[str, str] | None = None,
        dialect: str = "",
        alphas: Mapping[str, float] | None = None,
        sources: Iterable[Source] = (),
        model: str = "",
    ) -> None:
        super().__init__(pairs)
        self.model = model
        self.metadata = dict(metadata or {})
        self.dialect = dialect
        self.alphas = dict(alphas or {})
        self.stored: dict[str, tuple[Tensor, float]] = {}
        self.sources = tuple(sources)

    @property
    def base(self) -> str:
        """The base model that layers, spelling and metadata speak of: ``SDXL``, ``Flux (a guess)``, …"""
        return self.model or base_of(self, self.dialect, self.metadata)

    @property
    def about(self) -> dict[str, Any]:
        """What it says beside its layers, for another made of it: ``LoRA(pairs, **lora.about)``."""
        return {
            "metadata": self.metadata,
            "dialect": self.dialect,
            "sources": self.sources,
            "model": self.model,
        }

    def made(self) -> Iterator[tuple[str, Pair]]:
        """The layers one by one, in any order."""
        yield from self.items()


class Outline(LoRA):
    """A LoRA still to be made: its layers are tensors on the device ``meta``, which have shape and type only.

    ``make`` computes the layers, one by one in any order. `save_lora` writes each as it is made, so that a
    merge of two files never holds its result; ``LoRA(outline.made())`` holds it.
    """

    def __init__(
        self,
        pairs: Mapping[str, Pair],
        make: Callable[[], Iterator[tuple[str, Pair]]],
        *,
        metadata: Mapping[str, str] | None = None,
        dialect: str = "",
        sources: Iterable[Source] = (),
        model: str = "",
    ) -> None:
        super().__init__(pairs, metadata=metadata, dialect=dialect, sources=sources, model=model)
        self.made = make  # type: ignore[method-assign]


def delta_weight(pair: Pair) -> Tensor:
    """The update ΔW = up @ down: (out, in), or (out, in, kh, kw) for a convolution.

    Half-precision factors are multiplied in float32, since the product of two halves is not one.
    """
    wide = torch.float64 if torch.float64 in (x.dtype for x in pair) else torch.float32
    up, down = (x.to(wide) for x in pair)
    return (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])


def norm(pair: Pair) -> float:
    """Frobenius norm of ΔW, from the factors: ‖BA‖² = Σ (BᵀB) ∘ (AAᵀ)."""
    up, down = (x.flatten(1).double() if x.dtype == torch.float64 else x.flatten(1).float() for x in pair)
    return math.sqrt(max(0.0, float(((up.T @ up) * (down @ down.T)).sum(dtype=torch.float64))))


def block_of(layer: str) -> str:
    """The part of the model a layer is in, as a table lists it: ``unet.down_blocks.1.attentions.0``."""
    for place in (r".*?\.(attentions|resnets|layers)\.\d+", r".*?_blocks[._]\d+"):
        if match := re.match(place, layer):
            return match[0]
    return ".".join(layer.split(".")[:2])


def describe(lora: LoRA, progress: Callable[[Iterable[str]], Iterable[str]] = iter) -> dict[str, Any]:
    """What ``lorarar info`` prints: dialect, base, layers, ranks, alphas, dtypes, norms per block."""
    norms = {layer: norm(lora[layer]) for layer in progress(list(lora))}
    blocks: dict[str, list[str]] = {}
    for layer in lora:
        blocks.setdefault(block_of(layer), []).append(layer)
    return {
        "dialect": lora.dialect,
        "base": lora.base,
        "layers": len(lora),
        "components": dict(Counter(layer.split(".")[0] for layer in lora)),
        "parameters": sum(up.numel() + down.numel() for up, down in lora.values()),
        "dtypes": dict(Counter(str(x.dtype).removeprefix("torch.") for pair in lora.values() for x in pair)),
        "ranks": dict(sorted(Counter(down.shape[0] for _, down in lora.values()).items())),
        "alphas": dict(sorted(Counter(lora.alphas.values()).items())),
        "norm": math.hypot(*norms.values()),
        "blocks": {
            block: {
                "layers": len(layers),
                "ranks": sorted({lora[layer][1].shape[0] for layer in layers}),
                "norm": math.hypot(*(norms[layer] for layer in layers)),
            }
            for block, layers in blocks.items()
        },
        "sources": [{"file": source.name, "sha256": source.sha256} for source in lora.sources],
        "words": words(lora.metadata),
        "metadata": lora.metadata,
    }


def printable(text: str) -> str:
    """A key or name on one line, short."""
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= 140 else f"{text[:100]}…{text[-36:]}"


def _fits(x: Tensor) -> bool:
    """Whether each layer of a batch (n, …) is in half precision's range, which loses digits below 6e-5."""
    least = 2**-13 * math.sqrt(x[0].numel())
    sizes = torch.linalg.vector_norm(x.flatten(1), dim=1).tolist()
    return all(least < size < 65504 or size == 0 for size in sizes)


def fitted(up: Tensor, down: Tensor, dtype: torch.dtype, overflow: str) -> Pair:
    """A batch of factors (n, out, r, …), (n, r, in, …), so that rounding them to ``dtype`` keeps their range.

    Where a factor leaves what half precision can hold, each layer's two are made of equal size by a power of
    two, which leaves their product as it is.

    Raises:
        LoRAError: with the message ``overflow``, where that does not help.
    """
    if dtype == torch.float16 and not all(x.dtype == dtype or _fits(x) for x in (up, down)):
        up, down = (x if x.dtype == torch.float64 else x.float() for x in (up, down))
        size_up, size_down = (
            torch.linalg.vector_norm(x.flatten(1), dim=1) / math.sqrt(x[0].numel()) for x in (up, down)
        )
        ratio = torch.where((size_up > 0) & (size_down > 0), size_up / size_down, 1.0)
        shift = torch.exp2(torch.round(torch.log2(ratio) / 2)).reshape(-1, *[1] * (up.ndim - 1))
        up, down = up / shift, down * shift
        if not bool((up.abs().amax() < 65504) & (down.abs().amax() < 65504)):
            raise LoRAError(overflow)
    return up, down
