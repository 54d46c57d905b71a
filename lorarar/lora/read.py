"""Reading adapters of every dialect, and merging coefficients; what is in a file is never executed."""

import math
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lorarar.lora.adapter import LoRA, LoRAError, LoRAWarning, Source, printable
from lorarar.lora.config import configs_of, doubt_of_alpha
from lorarar.lora.files import adapter_file, all_finite, digest_of, open_file
from lorarar.lora.foreign import refuse_foreign
from lorarar.lora.lycoris import converted, with_kernel
from lorarar.lora.names import PEFT_PARTS, layer_of, name_in_transformer, part_of
from lorarar.lora.spellings import model_of, swapped, taken_apart

Parts = dict[str, tuple[str, Tensor]]  # up, down, mid, alpha, hada_w1_a, … → the file's key and tensor


class _Read(NamedTuple):
    """A file's layers: their parts and stems, the dialects met, the model whose authors' names it has."""

    layers: dict[str, Parts]
    stems: dict[str, str]
    dialects: set[str]
    model: str


def load_lora(path: str | os.PathLike[str], *, convert: bool = False) -> LoRA:
    """Read a LoRA file of any dialect, or peft's folder with one; alpha is folded in exactly, layer by layer.

    Tensors keep the file's dtype and are mapped, not copied, except where alpha ≠ rank: there ``up`` is
    multiplied by alpha / rank, in its own dtype where that is exact and in float32 otherwise. Where the file
    says nothing of alpha, alpha = rank, as everywhere; a `LoRAWarning` where something says that it may be
    another. Tucker's kernel (``lora_mid``) is multiplied into ``down``.

    With ``convert``, LoHa and LoKr become LoRA exactly, by their own algebra (see `lycoris.converted`).

    Raises:
        LoRAError: the file is not a whole, plain LoRA. Pickles are never opened.
    """
    given = Path(path)
    path = adapter_file(given)
    tensors, metadata, finite = open_file(path, refuse_foreign)
    source = Source(path.name if path == given else f"{given.resolve().name}/{path.name}", digest_of(path))
    layers, stems, dialects, model = _group(path, tensors, convert)
    peft = path.name == "adapter_model.safetensors" or any("base_model.model." in s for s in stems.values())
    configs = configs_of(path, metadata, peft)
    lora = LoRA(dialect=", ".join(sorted(dialects)), metadata=metadata, sources=[source], model=model)
    for layer, parts in sorted(layers.items()):
        up, down, rank = (_plain if "up" in parts or "down" in parts else _converted)(
            path, layer, parts, finite
        )
        name = layer.partition(".")[2]
        if "adaLN" in stems[layer] and swapped(name, len(up), down.shape[1]):
            up = up.roll(len(up) // 2, 0)
        config = configs.get(layer.partition(".")[0]) or configs.get("")
        if config and "alpha" in parts:
            raise LoRAError(
                f"{path}: layer {printable(layer)}: alpha is in tensors and config; export it again"
            )
        alpha, scale = None, 1.0
        if config:
            alpha, scale = config(taken_apart(stems[layer]).name, rank)
        elif "alpha" in parts:
            alpha = _alpha(path, *parts["alpha"])
            scale = alpha / rank if rank else 1.0
        lora[layer] = _scaled(up, scale), down
        if scale != 1:
            lora.stored[layer] = up, scale
        if scale != 1 and not all_finite(lora[layer][0]):
            raise LoRAError(f"{path}: layer {printable(layer)}: overflows with alpha {alpha:g}; check alpha")
        if alpha is not None:
            lora.alphas[layer] = alpha
    if not lora.alphas and (doubt := doubt_of_alpha(lora)):
        warnings.warn(f"{path}: {doubt}", LoRAWarning, stacklevel=2)
    return lora


def _group(path: Path, tensors: Mapping[str, Tensor], convert: bool) -> _Read:
    """The file's keys taken apart; refuses every key that is not one of a LoRA's."""
    taken: list[tuple[str, str, re.Match[str]]] = []
    shapes: dict[str, list[int]] = {}
    for key, x in tensors.items():
        if not (match := part_of(key)):
            raise _unknown(path, key)
        if match["extra"]:
            _refuse_extra(path, key, match["extra"], x)
            continue
        stem = key[: match.start()]
        taken.append((key, stem, match))
        if x.ndim >= 2 and (name := name_in_transformer(stem)):
            shape = shapes.setdefault(name, [1, 1])
            for axis in _SIDES.get(_part(match), ()):
                shape[axis] *= x.shape[axis]
    model = model_of(shapes)
    read = _Read({}, {}, set(), model)
    for key, stem, match in taken:
        if not (named := layer_of(stem, model)):
            raise _unknown(path, key)
        layer, dialect = named
        if match["lycoris"] and not convert:
            kind = "LoHa" if "hada" in key else "LoKr"
            raise LoRAError(
                f"{path}: {printable(key)}: this is a {kind}, not a LoRA; convert=True (--convert) "
                "makes it one"
            )
        if match["lycoris"]:
            dialect += ", LoHa" if "hada" in key else ", LoKr"
        elif match["peft"] and dialect == "diffusers":
            dialect = "diffusers (lora_A, lora_B)"
        part = _part(match)
        parts = read.layers.setdefault(layer, {})
        if part in parts:
            raise LoRAError(
                f"{path}: layer {printable(layer)}: both {printable(parts[part][0])} and {printable(key)} "
                f"name its {part}; export it again"
            )
        parts[part] = key, tensors[key]
        if part != "alpha":
            read.stems[layer] = stem
            read.dialects.add(dialect)
    flat: dict[str, str] = {}
    for layer in read.layers:
        if (twin := flat.setdefault(layer.replace(".", "_"), layer)) != layer:
            raise LoRAError(
                f"{path}: {printable(twin)} and {printable(layer)} are two names of one layer; "
                "export it again"
            )
    if not read.layers:
        raise LoRAError(f"{path}: holds no LoRA layer; is it the right file?")
    lycoris = any(dialect.startswith("peft, ") for dialect in read.dialects)
    if lycoris and not (path.parent / "adapter_config.json").is_file():
        raise LoRAError(f"{path}: its alpha is in adapter_config.json, which is not beside it; put it there")
    return read


# Which sides of a layer's weight, (out, in), a part's own sides multiply to.
_SIDES: dict[str, tuple[int, ...]] = {"up": (0,), "down": (1,), "hada_w1_a": (0,), "hada_w1_b": (1,)}
_SIDES |= {
    f"lokr_w{n}{side}": axes for n in (1, 2) for side, axes in (("", (0, 1)), ("_a", (0,)), ("_b", (1,)))
}


def _part(match: re.Match[str]) -> str:
    part = match["alpha"] or match["kohya"] or match["diffusers"] or match["lycoris"]
    return part or PEFT_PARTS[match["peft"]]


def _unknown(path: Path, key: str) -> LoRAError:
    return LoRAError(
        f"{path}: {printable(key)} is not a key of a LoRA as diffusers, peft, kohya, ComfyUI or LyCORIS "
        "spell it; export the LoRA again with one of them"
    )


def _refuse_extra(path: Path, key: str, kind: str, x: Tensor) -> None:
    """Refuse what a merge of factors cannot hold; zeros, which change nothing, are let pass."""
    if kind != "reshape_weight" and not bool(x.count_nonzero()):
        return
    what = (
        "a bias"
        if "b" in kind.replace("lora_B", "")
        else "a layer norm"
        if x.ndim < 2 and kind in ("diff", "w_norm")
        else "whole differences or whole weights"
    )
    raise LoRAError(
        f"{path}: {printable(key)}: trained {what} beside the factors, which no LoRA layer holds; "
        "retrain it with LoRA layers alone, or extract a LoRA from the base model with it and without"
    )


def _scaled(factor: Tensor, scale: float) -> Tensor:
    """factor · scale without rounding where that can be: in its own dtype if exact, else in float32."""
    if scale == 1:
        return factor
    product = factor * scale
    if factor.dtype in (torch.float16, torch.bfloat16):
        power_of_two = math.frexp(scale)[0] in (0.5, -0.5)
        # Even a power of two rounds where halves run out of exponent, so check by going back.
        if not (power_of_two and torch.equal(product / scale, factor) and all_finite(product)):
            product = factor.float() * scale
    return product


def _alpha(path: Path, key: str, value: Tensor) -> float:
    alpha = float(value) if value.numel() == 1 else math.nan
    if not math.isfinite(alpha) or alpha == 0:
        raise LoRAError(
            f"{path}: {printable(key)} is not one number other than 0; set it to the layer's rank"
        )
    return alpha


def _plain(path: Path, layer: str, parts: Parts, finite: bool) -> tuple[Tensor, Tensor, int]:
    """``up``, ``down`` and rank of a layer with nothing missing, too much or wrong in it.

    ``finite``: the whole file is known to be.
    """
    if extra := sorted(set(parts) - {"up", "down", "mid", "alpha"}):
        raise LoRAError(
            f"{path}: layer {printable(layer)}: {parts[extra[0]][0]} beside a LoRA; export it again"
        )
    for part, other in (("up", "down"), ("down", "up")):
        if part not in parts:
            raise LoRAError(
                f"{path}: layer {printable(layer)}: has {printable(parts[other][0])} but no {part} matrix, "
                "expected both; export or download the file again"
            )
    (_, up), (_, down) = parts["up"], parts["down"]
    rank = down.shape[0] if down.ndim else 0
    shapes = f"up {tuple(up.shape)} and down {tuple(down.shape)}"
    wrong = None
    if "mid" in parts and up.ndim >= 2:
        mid = parts["mid"][1]
        shapes += f", mid {tuple(mid.shape)}"
        try:
            down = with_kernel(down, mid)
            up = up.reshape(*up.shape[:2], *[1] * (mid.ndim - 2))
        except (ValueError, RuntimeError, IndexError):
            wrong = f"shapes {shapes} do not fit"
    if wrong:
        pass
    elif up.ndim != down.ndim or not 2 <= up.ndim <= 5 or up.shape[2:].numel() != 1:
        wrong = f"shapes {shapes}, expected (out, r) and (r, in), or (out, r, 1, 1) and (r, in, kh, kw)"
    elif up.shape[1] != down.shape[0]:
        wrong = f"ranks differ: {shapes}, expected the same r"
    elif 0 in up.shape or 0 in down.shape:
        wrong = f"nothing in it: {shapes}"
    elif not ((finite and "mid" not in parts) or (all_finite(up) and all_finite(down))):
        wrong = "NaN or infinity in it, expected finite numbers"
    if wrong:
        raise LoRAError(f"{path}: layer {printable(layer)}: {wrong}; export or download the file again")
    return up, down, rank


def _converted(path: Path, layer: str, parts: Parts, _: bool) -> tuple[Tensor, Tensor, int | None]:
    """`lycoris.converted` of a layer, its error in one line."""
    x = {part: t for part, (_, t) in parts.items() if part != "alpha"}
    try:
        return converted(layer, x)
    except (KeyError, ValueError, RuntimeError, IndexError):
        shapes = ", ".join(f"{part} {tuple(t.shape)}" for part, t in sorted(x.items()))
        raise LoRAError(
            f"{path}: layer {printable(layer)}: {shapes or 'alpha alone'}: expected a whole LoHa or LoKr, "
            "finite and of fitting shapes; export it as LoRA with the tool that made it"
        ) from None


def load_coefficients(path: str | os.PathLike[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """Read merger coefficients, keys ``LAYER.content`` and ``LAYER.style``: layer → (m_c, m_s), each (in,).

    Raises:
        LoRAError: not a safetensors file of such pairs of finite vectors.
    """
    path = Path(path)
    tensors = open_file(path).tensors
    layers = {key.rpartition(".")[0] for key in tensors}
    expected = {f"{layer}.{side}" for layer in layers for side in ("content", "style")}
    if not tensors or set(tensors) != expected:
        odd = min(set(tensors) ^ expected, default="nothing")
        raise LoRAError(
            f"{path}: {printable(odd)}: expected the keys LAYER.content and LAYER.style for each layer"
        )
    for key, x in tensors.items():
        if x.ndim != 1 or not all_finite(x):
            raise LoRAError(
                f"{path}: {printable(key)} of shape {tuple(x.shape)}: expected a vector of finite numbers"
            )
    return {layer: (tensors[f"{layer}.content"], tensors[f"{layer}.style"]) for layer in sorted(layers)}
