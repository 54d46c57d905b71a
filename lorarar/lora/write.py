"""Writing adapters and merging coefficients: whole or not at all."""

import json
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorarar import __version__
from lorarar.atomic import atomic
from lorarar.lora.adapter import LoRA, LoRAError, Pair, Source, fitted, printable
from lorarar.lora.base import GUESS
from lorarar.lora.files import FLOATS, all_finite
from lorarar.lora.formats import FORMATS
from lorarar.lora.fused import joined, split
from lorarar.lora.metadata import described, for_clients
from lorarar.lora.names import kohya_name
from lorarar.lora.spellings import swapped


def save_coefficients(
    coefficients: Mapping[str, tuple[Tensor, Tensor]],
    path: str | os.PathLike[str],
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write merger coefficients as `load_coefficients` reads them; the file appears whole or not at all."""
    tensors = {}
    for layer, (m_c, m_s) in coefficients.items():
        tensors[f"{layer}.content"], tensors[f"{layer}.style"] = m_c.float(), m_s.float()
    provenance = {**(metadata or {}), "format": "pt", "lorarar_version": __version__}
    _write({k: (x.shape, x.dtype) for k, x in tensors.items()}, tensors.items(), provenance, _target(path))


_NAMES = {dtype: name for name, dtype in FLOATS.items()}
# What is said of a file's own tensors, which are others now.
_STALE = ("lora_adapter_metadata", "sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256")


def _keys(lora: LoRA, format: str, path: Path) -> dict[str, tuple[str, str]]:
    """Layer → the keys of its up and down in the dialect to be written."""
    keys: dict[str, tuple[str, str]] = {}
    base, names = lora.base, set()
    for layer in lora:
        if format == "kohya":
            name = kohya_name(layer, base)
            if not name or name in names:
                raise LoRAError(
                    f"{path}: layer {printable(layer)} has no kohya name for {base}; write format diffusers"
                )
            names.add(name)
            keys[layer] = f"{name}.lora_up.weight", f"{name}.lora_down.weight"
        elif format == "old-diffusers" and layer.startswith("unet."):
            keys[layer] = f"unet.{layer}.lora.up.weight", f"unet.{layer}.lora.down.weight"
        elif re.search(r"^\w+\.\w+_\d+(_|$)", layer) and layer.count(".") == 1:  # underscores for its dots
            raise LoRAError(
                f"{path}: layer {printable(layer)} has no diffusers name that is known; write format kohya"
            )
        elif layer.startswith("text_encoders."):
            raise LoRAError(f"{path}: layer {printable(layer)} has no diffusers name that is known")
        elif layer.startswith("text_encoder"):
            # diffusers' text encoder loader knows every layer in this spelling, not in the other.
            kind = "lora" if layer.endswith("text_projection") else "lora_linear_layer"
            keys[layer] = f"{layer}.{kind}.up.weight", f"{layer}.{kind}.down.weight"
        else:
            keys[layer] = f"{layer}.lora_B.weight", f"{layer}.lora_A.weight"
    return keys


def _target(path: str | os.PathLike[str]) -> Path:
    """Where to write; through a symbolic link, and never over a folder or a device."""
    path = Path(path)
    try:
        if path.is_symlink():
            path = path.resolve()
        if path.exists() and not path.is_file():
            raise LoRAError(f"{path}: is not a regular file; name a file to write")
        if not path.parent.is_dir():
            raise LoRAError(f"{path}: its folder does not exist; make it first")
    except (OSError, RuntimeError) as error:
        raise LoRAError(f"{path}: cannot be written: {error}") from None
    return path


def _write(
    kinds: Mapping[str, tuple[Iterable[int], torch.dtype]],
    tensors: Iterable[tuple[str, Tensor]],
    metadata: Mapping[str, str],
    path: Path,
    sources: Collection[Source] = (),
) -> None:
    """Stream tensors, in any order, into a safetensors file that appears whole or not at all.

    ``kinds`` gives the shape and type of each before it comes. The header, which holds the names and hashes
    of the ``sources``, is written last: they are hashed meanwhile. `safetensors.torch.save_file` took four
    times as long, and writes in place.
    """
    header: dict[str, Any] = {}
    at = 0
    for key, (shape, dtype) in sorted(kinds.items(), key=lambda kind: (-kind[1][1].itemsize, kind[0])):
        end = at + math.prod(shape) * dtype.itemsize
        header[key] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [at, end]}
        at = end

    def head(digests: Iterable[str]) -> bytes:
        named = [{"file": s.name, "sha256": digest} for s, digest in zip(sources, digests, strict=True)]
        known = {**metadata, "lorarar_sources": json.dumps(named)} if named else metadata
        whole = {"__metadata__": dict(sorted(known.items())), **header}
        text = json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    begin = len(head("0" * 64 for _ in sources))
    try:
        with atomic(path) as aside, aside.open("xb") as file:
            with suppress(OSError, AttributeError):  # not every system or file system can
                os.posix_fallocate(file.fileno(), 0, begin + at)
            for key, x in tensors:
                x = x.detach().to("cpu", kinds[key][1]).contiguous()
                if not all_finite(x):
                    raise LoRAError(_not_finite(path, key, kinds[key][1]))
                file.seek(begin + header[key]["data_offsets"][0])
                file.write(x.reshape(-1).view(torch.uint8).numpy().data)
            file.seek(0)
            file.write(head(source.sha256 for source in sources))
    except OSError as error:
        raise LoRAError(f"{path}: cannot be written: {error.strerror}") from None


def _not_finite(path: Path, key: str, dtype: torch.dtype) -> str:
    return f"{path}: {printable(key)} is not finite in {_NAMES[dtype]}; write it as bfloat16 or float32"


def save_lora(
    lora: LoRA,
    path: str | os.PathLike[str],
    *,
    format: str = "diffusers",
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a LoRA as safetensors; the file appears whole or not at all.

    ``format`` is ``diffusers`` (``pipe.load_lora_weights`` reads it; with peft's config where layers have
    several ranks), ``kohya`` (ComfyUI, A1111: sgm block names for SDXL, alpha = rank) or ``old-diffusers``
    (the doubled prefix that the scripts of ZipLoRA, K-LoRA and LoRA.rar look for). ``dtype`` casts every
    factor (for float16 a layer's two are made of equal size, where they would lose digits); without it each
    keeps its own. An `Outline` is written while it is made. The file's metadata is the LoRA's with
    ``metadata`` over it, the base model as the clients read it, the version, and name and SHA-256 of its
    sources.

    Raises:
        LoRAError: a name or number that the format cannot hold, or a place that cannot be written.
    """
    path = Path(path)
    if format not in FORMATS:
        raise LoRAError(f"format {format!r}: expected one of {', '.join(FORMATS)}")
    if not lora:
        raise LoRAError(f"{path}: nothing to write: the LoRA has no layer")
    for layer, (up, down) in lora.items():
        _check_shapes_for_writing(path, layer, up, down, dtype)
    path = _target(path)
    lora, keys = _spelled(lora, format, path)
    kinds = {
        key: (x.shape, dtype or x.dtype)
        for layer in lora
        for key, x in zip(keys[layer], lora[layer], strict=True)
    }
    alphas = _alphas(lora, keys) if format == "kohya" else {}
    kinds |= {key: (x.shape, x.dtype) for key, x in alphas.items()}

    def tensors(pairs: Iterator[tuple[str, Pair]]) -> Iterator[tuple[str, Tensor]]:
        yield from alphas.items()
        for layer, (up, down) in pairs:
            up = _turned(layer, up, down, format)
            if dtype == torch.float16 and all(all_finite(x.to(dtype)) for x in (up, down)):
                overflow = _not_finite(path, keys[layer][0], dtype)
                up, down = (x[0] for x in fitted(up[None], down[None], dtype, overflow))
            yield keys[layer][0], up
            yield keys[layer][1], down

    known = {k: v for k, v in lora.metadata.items() if k not in _STALE} | dict(metadata or {})
    known = for_clients(lora.base, known) | known | described(lora, format)
    known |= {"format": "pt", "lorarar_version": __version__}
    with closing(lora.made()) as pairs:  # type: ignore[type-var]
        _write(kinds, tensors(pairs), known, path, lora.sources)


def state_dict(lora: LoRA, format: str) -> dict[str, Tensor]:
    """The tensors that `save_lora` would write, by their keys, in memory and in their own types.

    Raises:
        LoRAError: a name that the format cannot hold.
    """
    lora, keys = _spelled(lora, format, Path("a LoRA in memory"))
    tensors = _alphas(lora, keys) if format == "kohya" else {}
    for layer, (up, down) in lora.made():
        tensors[keys[layer][0]], tensors[keys[layer][1]] = _turned(layer, up, down, format), down
    return tensors


def _spelled(lora: LoRA, format: str, path: Path) -> tuple[LoRA, dict[str, tuple[str, str]]]:
    """The layers as a format has them, fused or split, and the keys of their factors."""
    lora = joined(lora, lora.base.removesuffix(GUESS)) if format == "kohya" else split(lora)
    return lora, _keys(lora, format, path)


def _turned(layer: str, up: Tensor, down: Tensor, format: str) -> Tensor:
    """``up`` with its halves in the order of the format (see `spellings.swapped`)."""
    turn = format == "kohya" and layer.startswith("transformer.") and swapped(layer, len(up), down.shape[1])
    return up.roll(len(up) // 2, 0) if turn else up


def _alphas(lora: LoRA, keys: Mapping[str, tuple[str, str]]) -> dict[str, Tensor]:
    """kohya's alpha of each layer: its rank, since the factors hold the scale."""
    return {
        up_key.replace(".lora_up.weight", ".alpha"): torch.tensor(float(len(lora[layer][1])))
        for layer, (up_key, _) in keys.items()
    }


def _check_shapes_for_writing(
    path: Path, layer: str, up: Tensor, down: Tensor, dtype: torch.dtype | None
) -> None:
    for x in (up, down):
        if (dtype or x.dtype) not in _NAMES or not x.is_floating_point():
            raise LoRAError(
                f"{path}: layer {printable(layer)}: dtype {dtype or x.dtype}, "
                "expected float16, bfloat16, float32 or float64"
            )
    if up.ndim != down.ndim or up.shape[1] != down.shape[0]:
        raise LoRAError(
            f"{path}: layer {printable(layer)}: up {tuple(up.shape)} and down {tuple(down.shape)} do not "
            "multiply"
        )
