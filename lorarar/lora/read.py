"""Reading adapters of every dialect, and merging coefficients; what is in a file is never executed."""

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lorarar.lora.adapter import LoRA, LoRAError, Source, printable
from lorarar.lora.names import PART, PEFT_PARTS, layer_of

FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
_HASHING = ThreadPoolExecutor(2, thread_name_prefix="sha256")


class _File(NamedTuple):
    """What a safetensors file holds; ``finite`` only says that all its numbers are, not that one is not."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    finite: bool


def _sha256(file: BinaryIO) -> str:
    # Read, not mapped: a thread that looks at a map of a file which is cut short meanwhile ends the process.
    with file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _regular(path: Path) -> bytes:
    """The first 16 bytes of a file that is one and may be read."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise LoRAError(f"{path}: is a folder, expected a .safetensors file; name the file inside it")
        if not stat.S_ISREG(mode):  # a pipe would wait for ever
            raise LoRAError(f"{path}: is not a regular file, expected a .safetensors file")
        with path.open("rb") as file:
            return file.read(16)
    except LoRAError:
        raise
    except FileNotFoundError:
        raise LoRAError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise LoRAError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:  # a zero byte
        raise LoRAError(f"{printable(str(path))}: not a valid path") from None


def _open(path: Path) -> _File:
    """Map a file; refuses what is not safetensors."""
    head = _regular(path)
    if head[8:9] != b"{":
        if not head:
            raise LoRAError(f"{path}: is empty, expected a .safetensors file; download or export it again")
        if head[:2] == b"PK" or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"):
            raise LoRAError(
                f"{path}: is a pickle, whatever its name ends in; it was not opened, since unpickling can "
                "run code; convert it to safetensors with the tool that made it"
            )
        raise LoRAError(f"{path}: is not a safetensors file; export the LoRA as .safetensors")
    try:
        with safe_open(path, "pt") as file:  # checks the header, and every tensor's size against the file's
            return _mapped(path, file)
    except LoRAError:
        raise
    except (SafetensorError, ValueError, TypeError, RuntimeError, OverflowError, OSError) as error:
        reason = printable(str(error).removeprefix("Error while deserializing header: "))
        raise LoRAError(f"{path}: damaged safetensors file ({reason}); download or export it again") from None


def _mapped(path: Path, file: safe_open) -> _File:
    """A checked file as slices of one map: four times as fast as one call to ``file`` for each tensor.

    Tensors of one type lie together; each such run is looked through and cut up in one go.
    """
    whole = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    begin = 8 + int.from_bytes(whole[:8].numpy().tobytes(), "little")
    header = json.loads(whole[8:begin].numpy().tobytes())
    header.pop("__metadata__", None)
    for key, entry in header.items():
        if entry["dtype"] not in FLOATS and not key.endswith(".alpha"):
            raise LoRAError(
                f"{path}: {printable(key)} holds {entry['dtype']} numbers, expected F16, BF16, F32 or F64; "
                "export the LoRA unquantised"
            )
    tensors, finite = {}, True
    for kind, entries in groupby(
        sorted(header.items(), key=lambda item: item[1]["data_offsets"]), lambda item: item[1]["dtype"]
    ):
        run = dict(entries)
        offsets = [offset for entry in run.values() for offset in entry["data_offsets"]]
        start, end = begin + offsets[0], begin + offsets[-1]
        if kind in FLOATS and start % FLOATS[kind].itemsize == 0:
            numbers = whole[start:end].view(FLOATS[kind])
            finite = finite and all_finite(numbers)
            parts = numbers.split([math.prod(entry["shape"]) for entry in run.values()])
            tensors |= {key: x.view(run[key]["shape"]) for key, x in zip(run, parts, strict=True)}
        else:  # not aligned to its type, or of a type that only alphas have
            finite = False
            tensors |= {key: file.get_tensor(key) for key in run}
    return _File(tensors, file.metadata() or {}, finite)


def all_finite(x: Tensor) -> bool:
    """Say whether no number of a tensor is infinite or NaN."""
    # NaN and infinity survive a sum; only a sum that is not finite, as halves' may be, needs a second look.
    return math.isfinite(x.sum().item()) or all(math.isfinite(end.item()) for end in torch.aminmax(x))


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


Scaling = Callable[[str, int | None], tuple[float, float]]


def _scaling(config: Mapping[str, Any], where: str) -> Scaling:
    """A peft config (also as diffusers stores it) as a function: layer, rank → alpha and scale."""
    if config.get("use_dora"):
        raise LoRAError(f"{where}: is a DoRA, which no sum of LoRAs equals; retrain or export it as LoRA")
    default = config.get("lora_alpha", config.get("alpha"))  # LoHa and LoKr call it alpha
    whole_rank, patterns = config.get("r"), config.get("alpha_pattern") or {}
    root = math.sqrt if config.get("use_rslora") else float
    numbers = [x for x in (default, whole_rank, *patterns.values()) if x is not None]
    if not all(isinstance(x, int | float) and math.isfinite(x) and x != 0 for x in numbers):
        raise LoRAError(f"{where}: its LoRA config has a damaged rank, alpha or alpha_pattern; re-export it")
    if any(not re.fullmatch(r"\^?[\w.\\]+\$?", p) for p in patterns):
        # peft reads them as regular expressions; a stranger's are not worth running.
        raise LoRAError(f"{where}: its LoRA config has alpha_pattern as expressions, expected layer names")
    suffixes = {p.strip("^$").replace("\\", ""): float(a) for p, a in patterns.items()}

    def scaling(layer: str, rank: int | None) -> tuple[float, float]:
        rank = rank or whole_rank
        if rank is None:
            raise LoRAError(f"{where}: its LoRA config has no r; add it")
        matching = (a for suffix, a in suffixes.items() if f".{layer}".endswith(f".{suffix}"))
        alpha = next(matching, float(rank if default is None else default))
        return alpha, alpha / root(rank)

    return scaling


def _configs(path: Path, metadata: Mapping[str, str], peft: bool) -> dict[str, Scaling]:
    """Component → scaling, from diffusers' metadata or the adapter_config.json beside a peft file."""
    beside = path.parent / "adapter_config.json"
    try:
        if "lora_adapter_metadata" in metadata:
            configs: dict[str, dict[str, Any]] = {}
            for key, value in json.loads(metadata["lora_adapter_metadata"]).items():
                component, _, name = key.rpartition(".")
                configs.setdefault(component, {})[name] = value
        elif peft and beside.is_file() and beside.stat().st_size < 1 << 20:
            configs = {"": json.loads(beside.read_text("utf-8"))}
        else:
            return {}
        return {component: _scaling(config, str(path)) for component, config in configs.items()}
    except LoRAError:
        raise
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError, OSError):
        raise LoRAError(f"{path}: its LoRA config (alpha and rank) is damaged; export it again") from None


def _alpha(path: Path, key: str, value: Tensor) -> float:
    alpha = float(value) if value.numel() == 1 else math.nan
    if not math.isfinite(alpha) or alpha == 0:
        raise LoRAError(
            f"{path}: {printable(key)} is not one number other than 0; set it to the layer's rank"
        )
    return alpha


def load_lora(path: str | os.PathLike[str], *, convert: bool = False) -> LoRA:
    """Read a LoRA file of any dialect; alpha is folded in exactly, layer by layer.

    Tensors keep the file's dtype and are mapped, not copied, except where alpha ≠ rank: there ``up`` is
    multiplied by alpha / rank, in its own dtype where that is exact and in float32 otherwise. Where the file
    says nothing of alpha, alpha = rank, as everywhere.

    With ``convert``, LoHa and LoKr become LoRA exactly, by their own algebra (see `_lycoris`).

    Raises:
        LoRAError: the file is not a whole, plain LoRA. Pickles are never opened.
    """
    path = Path(path)
    tensors, metadata, finite = _open(path)
    source = Source(path.name, _HASHING.submit(_sha256, path.open("rb")))
    layers, dialects = _group(path, tensors, convert)
    peft = any(dialect.startswith("peft") for dialect in dialects)
    configs = _configs(path, metadata, peft)
    lora = LoRA(dialect=", ".join(sorted(dialects)), metadata=metadata, sources=[source])
    for layer, parts in sorted(layers.items()):
        if "up" in parts or "down" in parts:
            up, down, rank = _plain(path, layer, parts, finite)
        else:
            up, down, rank = _lycoris(path, layer, {part: x for part, (_, x) in parts.items()})
        component, name = layer.split(".", 1)
        config = configs.get(component) or configs.get("")
        if config and "alpha" in parts:
            raise LoRAError(f"{path}: layer {printable(layer)}: alpha is in tensors and config; remove one")
        alpha, scale = None, 1.0
        if config:
            alpha, scale = config(name, rank)
        elif "alpha" in parts:
            alpha = _alpha(path, *parts["alpha"])
            scale = alpha / rank if rank else 1.0
        lora[layer] = _scaled(up, scale), down
        if scale != 1 and not all_finite(lora[layer][0]):
            raise LoRAError(f"{path}: layer {printable(layer)}: overflows with alpha {alpha:g}; check alpha")
        if alpha is not None:
            lora.alphas[layer] = alpha
    return lora


Parts = dict[str, tuple[str, Tensor]]  # up, down, alpha, … → the file's key and tensor


def _group(path: Path, tensors: Mapping[str, Tensor], convert: bool) -> tuple[dict[str, Parts], set[str]]:
    """Layer → its parts, and the dialects met; refuses every key that is not one of a LoRA's."""
    layers: dict[str, Parts] = {}
    dialects: set[str] = set()
    for key, x in tensors.items():
        if "dora_scale" in key or "lora_magnitude_vector" in key:
            raise LoRAError(
                f"{path}: {printable(key)}: this is a DoRA, which no sum of LoRAs equals; "
                "retrain it as LoRA, or merge it into its base model"
            )
        match = PART.search(key)
        named = layer_of(key[: match.start()]) if match else None
        if not match or not named:
            raise LoRAError(
                f"{path}: {printable(key)} is not a key of a LoRA in a known dialect (diffusers, peft, "
                "kohya); remove it or export the LoRA again"
            )
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
        part = match["alpha"] or match["kohya"] or match["diffusers"] or match["lycoris"]
        part = part or PEFT_PARTS[match["peft"]]
        parts = layers.setdefault(layer, {})
        if part in parts:
            raise LoRAError(
                f"{path}: layer {printable(layer)}: both {printable(parts[part][0])} and {printable(key)} "
                f"name its {part}; remove one"
            )
        parts[part] = key, x
        if part != "alpha":
            dialects.add(dialect)
    if not layers:
        raise LoRAError(f"{path}: holds no LoRA layer; is it the right file?")
    if any(dialect.startswith("peft, ") for dialect in dialects):
        beside = path.parent / "adapter_config.json"
        if not beside.is_file():
            raise LoRAError(
                f"{path}: its alpha is in adapter_config.json, which is not beside it; put it there"
            )
    return layers, dialects


def _plain(path: Path, layer: str, parts: Parts, finite: bool) -> tuple[Tensor, Tensor, int]:
    """``up``, ``down`` and rank of a layer with nothing missing, too much or wrong in it.

    ``finite``: the whole file is known to be.
    """
    if extra := sorted(set(parts) - {"up", "down", "alpha"}):
        raise LoRAError(f"{path}: layer {printable(layer)}: {parts[extra[0]][0]} beside a LoRA; remove one")
    for part, other in (("up", "down"), ("down", "up")):
        if part not in parts:
            raise LoRAError(
                f"{path}: layer {printable(layer)}: has {printable(parts[other][0])} but no {part} matrix, "
                "expected both; export or download the file again"
            )
    (_, up), (_, down) = parts["up"], parts["down"]
    shapes = f"up {tuple(up.shape)} and down {tuple(down.shape)}"
    wrong = None
    if up.ndim != down.ndim or up.ndim not in (2, 4) or tuple(up.shape[2:]) not in ((), (1, 1)):
        wrong = f"shapes {shapes}, expected (out, r) and (r, in), or (out, r, 1, 1) and (r, in, kh, kw)"
    elif up.shape[1] != down.shape[0]:
        wrong = f"ranks differ: {shapes}, expected the same r"
    elif 0 in up.shape or 0 in down.shape:
        wrong = f"nothing in it: {shapes}"
    elif not (finite or (all_finite(up) and all_finite(down))):
        wrong = "NaN or infinity in it, expected finite numbers"
    if wrong:
        raise LoRAError(f"{path}: layer {printable(layer)}: {wrong}; export or download the file again")
    return up, down, down.shape[0]


def _lycoris(path: Path, layer: str, parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, int | None]:
    """The LoRA that equals a LoHa or a LoKr (LyCORIS, arXiv 2309.14859) without its scale, in float32.

    LoHa, (A₁B₁) ∘ (A₂B₂): the row-wise Kronecker products of A₁, A₂ and of B₁, B₂; the ranks multiply.
    LoKr, (A₁B₁) ⊗ (A₂B₂) = (A₁ ⊗ A₂)(B₁ ⊗ B₂); a side that is stored whole, W, counts as W·I or I·W.
    Where that rank exceeds the layer's own, ΔW·I or I·ΔW is smaller and is returned. No SVD, no loss.

    Returns ``up``, ``down`` and the rank that alpha is divided by (None when both sides are whole).
    """
    x = {part: t.float() for part, t in parts.items() if part != "alpha"}
    shapes = ", ".join(f"{part} {tuple(t.shape)}" for part, t in sorted(x.items()))

    def matrices(first: str, second: str) -> tuple[Tensor, Tensor]:
        a, b = x.pop(first), x.pop(second)
        if a.shape[1] != b.shape[0]:
            raise ValueError
        return a, b

    def side(name: str) -> tuple[Tensor, Tensor]:
        if name not in x:
            return matrices(f"{name}_a", f"{name}_b")
        whole = x.pop(name)
        eye = torch.eye(min(whole.shape))
        return (eye, whole) if whole.shape[0] < whole.shape[1] else (whole, eye)

    try:
        if not x or not all(t.ndim == 2 and t.numel() and all_finite(t) for t in x.values()):
            raise ValueError
        if "hada_w1_a" in x:
            (a1, b1), (a2, b2) = matrices("hada_w1_a", "hada_w1_b"), matrices("hada_w2_a", "hada_w2_b")
            rank = b1.shape[0]
            up = torch.einsum("oi,oj->oij", a1, a2).flatten(1)
            down = torch.einsum("im,jm->ijm", b1, b2).flatten(0, 1)
        else:
            rank = next((x[f"lokr_w{i}_b"].shape[0] for i in (2, 1) if f"lokr_w{i}_b" in x), None)
            (a1, b1), (a2, b2) = side("lokr_w1"), side("lokr_w2")
            up, down = torch.kron(a1, a2), torch.kron(b1, b2)
        if x:
            raise ValueError  # parts of another kind are left
    except (KeyError, ValueError, RuntimeError):
        raise LoRAError(
            f"{path}: layer {printable(layer)}: {shapes or 'alpha alone'}: expected a whole LoHa or LoKr of "
            "a linear layer, finite and of fitting shapes; export it as LoRA with the tool that made it"
        ) from None
    if up.shape[1] > min(up.shape[0], down.shape[1]):
        whole = up @ down
        eye = torch.eye(min(whole.shape))
        up, down = (eye, whole) if whole.shape[0] < whole.shape[1] else (whole, eye)
    return up, down, rank


def load_coefficients(path: str | os.PathLike[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """Read merger coefficients, keys ``LAYER.content`` and ``LAYER.style``: layer → (m_c, m_s), each (in,).

    Raises:
        LoRAError: not a safetensors file of such pairs of finite vectors.
    """
    path = Path(path)
    tensors = _open(path).tensors
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
