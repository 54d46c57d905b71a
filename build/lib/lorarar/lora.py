"""One adapter in memory: ``{layer: (up, down)}``, read from every dialect, written as diffusers or kohya.

A LoRA file holds, for some linear (or convolution) layers of a model, two thin matrices whose product is
added to the layer's weight. The dialects differ in how they spell the layer's name and in where they keep
the scale ``alpha / rank``. Here a layer is always spelled as diffusers spells the module, with its
component in front (``unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q``), and the scale is
already in the factors, so that everything after this module may forget both.

Only torch and safetensors are imported: `diffusers` takes seconds to import and its converters are not
right for every file (one alpha for all layers, DoRA dropped); the tests compare the two where it is right.
"""

import hashlib
import json
import math
import os
import re
import secrets
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lorarar import __version__

Pair = tuple[Tensor, Tensor]
"""``up`` (out, r) and ``down`` (r, in); for a convolution (out, r, 1, 1) and (r, in, kh, kw)."""


class LoRAError(ValueError):
    """A file or an adapter that cannot be used; one line: file, layer, what was expected, what to do."""


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
    had one (for show: they are in the factors already), ``sources`` the files, ``metadata`` strings that are
    written with it. Layers are in the order of their names.
    """

    def __init__(
        self,
        pairs: Mapping[str, Pair] | Iterable[tuple[str, Pair]] = (),
        *,
        metadata: Mapping[str, str] | None = None,
        dialect: str = "",
        alphas: Mapping[str, float] | None = None,
        sources: Iterable[Source] = (),
    ) -> None:
        super().__init__(pairs)
        self.metadata = dict(metadata or {})
        self.dialect = dialect
        self.alphas = dict(alphas or {})
        self.sources = tuple(sources)

    @property
    def base(self) -> str:
        """The base model the names and shapes speak of: ``SDXL``, ``KOALA``, ``SD 1.x``, ``Flux``, …"""
        return _base(self)

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
        sources: Iterable[Source] = (),
    ) -> None:
        super().__init__(pairs, metadata=metadata, sources=sources)
        self.made = make


def delta_weight(pair: Pair) -> Tensor:
    """The update ΔW = up @ down: (out, in), or (out, in, kh, kw) for a convolution.

    Half-precision factors are multiplied in float32, since the product of two halves is not one.
    """
    up, down = (x if x.dtype == torch.float64 else x.float() for x in pair)
    return (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])


# ---------------------------------------------------------------------------------------------------------
# Names. Every dialect's key is a layer's name and a part: "up", "down" or "alpha" (or a part of LoHa, LoKr).

_COMPONENTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
_KOHYA_COMPONENT = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
}
_PART = re.compile(
    r"\.lora_(?P<peft>[AB])(?:\.\w+)?\.weight$"  # peft; with the adapter's name in a raw state dict
    r"|(?:[._]lora|\.lora_linear_layer)\.(?P<diffusers>up|down)\.weight$"
    r"|\.lora_(?P<kohya>up|down)\.weight$"
    r"|(?:[._]lora|\.lora_linear_layer)?\.(?P<alpha>alpha)$"
    r"|\.(?P<lycoris>hada_w[12]_[ab]|lokr_w[12](?:_[ab])?)$"
)
_PEFT_PARTS = {"A": "down", "B": "up"}

# Module names that hold an underscore themselves: kohya writes "_" for "." too, and these undo it.
_COMPOUND = (
    "single_transformer_blocks|transformer_blocks|down_blocks|up_blocks|mid_block|to_q|to_k|to_v|to_out|"
    "to_add_out|add_q_proj|add_k_proj|add_v_proj|proj_in|proj_out|proj_mlp|ff_context|conv_in|conv_out|"
    "conv_shortcut|time_emb_proj|time_embedding|add_embedding|linear_1|linear_2|norm1_context|norm_out|"
    "context_embedder|x_embedder|time_text_embed|timestep_embedder|text_embedder|guidance_embedder|"
    "text_model|self_attn|q_proj|k_proj|v_proj|out_proj|text_projection"
)
_WORD = re.compile(rf"(?:{_COMPOUND})(?=_|$)|[^_]+")

# The original (sgm, "LDM") names of a UNet with two residual layers per block, as SD and SDXL have.
_SGM_RESNET = {
    "in_layers_2": "conv1",
    "out_layers_3": "conv2",
    "emb_layers_1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
_SGM_OUTSIDE = {
    "input_blocks_0_0": "conv_in",
    "out_2": "conv_out",
    "time_embed_0": "time_embedding.linear_1",
    "time_embed_2": "time_embedding.linear_2",
    "label_emb_0_0": "add_embedding.linear_1",
    "label_emb_0_2": "add_embedding.linear_2",
}
_SGM = re.compile(r"(input|output)_blocks_(\d{1,2})_([012])_(.+)|(middle)_block_([012])_(.+)")


_UNET = (
    r"(down_blocks|up_blocks|mid_block|conv_in|conv_out|time_embedding|add_embedding|class_embedding"
    r"|encoder_hid_proj)(?![a-z0-9])"
)


def _words(name: str) -> str:
    """``down_blocks_1_attentions_0`` → ``down_blocks.1.attentions.0``."""
    return ".".join(_WORD.findall(name))


def _from_sgm(name: str) -> str | None:
    """The diffusers name of a UNet layer spelled the sgm way with underscores; None if it is not one."""
    if name in _SGM_OUTSIDE:
        return _SGM_OUTSIDE[name]
    if not (match := _SGM.fullmatch(name)):
        return None
    side, index, place, rest, middle, middle_index, middle_rest = match.groups()
    if middle:
        place = "1" if middle_index == "1" else "0"
        block, rest, inner = "mid_block", middle_rest, int(middle_index) // 2
    else:
        number = int(index) - (side == "input")
        block, inner = f"{'down' if side == 'input' else 'up'}_blocks.{number // 3}", number % 3
        if side == "input" and rest == "op":
            return f"{block}.downsamplers.0.conv"
        if side == "output" and rest == "conv" and place != "0":
            return f"{block}.upsamplers.0.conv"
    if place == "0":
        return f"{block}.resnets.{inner}.{_SGM_RESNET[rest]}" if rest in _SGM_RESNET else None
    return f"{block}.attentions.{inner}.{_words(rest)}" if place == "1" else None


def _to_sgm(name: str) -> str | None:
    """The inverse of `_from_sgm`, for SDXL."""
    for sgm, diffusers in _SGM_OUTSIDE.items():
        if name == diffusers:
            return sgm
    if not (match := re.fullmatch(r"(?:(down|up)_blocks\.(\d)|(mid_block))\.(\w+)\.(\d)\.(.+)", name)):
        return None
    side, block, mid, kind, index, rest = match.groups()
    resnet = {v: k for k, v in _SGM_RESNET.items()}.get(rest)
    first = 3 * int(block or 0) + (side == "down")
    if kind == "downsamplers" and rest == "conv" and side == "down":
        return f"input_blocks_{first + 2}_0_op"
    if kind == "upsamplers" and rest == "conv" and side == "up":
        return f"output_blocks_{first + 2}_2_conv"
    if kind == "attentions":
        place, rest = "1", rest.replace(".", "_")
    elif kind == "resnets" and resnet:
        place, rest = "0", resnet
    else:
        return None
    if mid:
        return f"middle_block_{'1' if place == '1' else 2 * int(index)}_{rest}"
    return f"{'in' if side == 'down' else 'out'}put_blocks_{first + int(index)}_{place}_{rest}"


@lru_cache(1 << 14)
def _layer_of(stem: str) -> tuple[str, str] | None:
    """(layer, dialect) of a key without its last part, or None when no known dialect spells it so."""
    for prefix, component in _KOHYA_COMPONENT.items():
        if stem.startswith(prefix):
            name = stem.removeprefix(prefix)
            if "__" in f"_{name}_":  # an empty word, which `_words` would not see
                return None
            if component != "unet":
                return f"{component}.{_words(name)}", "kohya"
            if sgm := _from_sgm(name):
                return f"unet.{sgm}", "kohya (sgm block names)"
            if re.match(_UNET, name):
                return f"unet.{_words(name)}", "kohya (diffusers block names)"
            if re.match(r"(double_blocks|single_blocks|joint_blocks)_\d", name):
                # Flux and SD3 as their authors name them: no diffusers name without splitting fused layers.
                return f"unet.{name}", "kohya (original block names)"
            return None
    dialect = "peft" if stem.startswith("base_model.model.") else "diffusers"
    name = stem.removeprefix("base_model.model.").replace(".processor.", ".")
    for component in _COMPONENTS:
        while name.startswith(f"{component}.{component}."):  # old trainers wrote "unet.unet."
            name, dialect = name.removeprefix(f"{component}."), "diffusers (doubled prefix)"
    if name.split(".")[0] not in _COMPONENTS:
        if re.match(_UNET, name):
            name = f"unet.{name}"
        elif re.match(r"(single_)?transformer_blocks\.\d", name):
            name = f"transformer.{name}"
        elif re.match(r"text_model\.", name):
            name = f"text_encoder.{name}"
        else:
            return None
    if name.startswith("unet.") and not re.match(_UNET, name[5:]):
        return None
    if name.startswith("text_encoder"):
        name = re.sub(r"\.self_attn\.to_([qkv])$", r".self_attn.\1_proj", name)
        name = re.sub(r"\.self_attn\.to_out$", ".self_attn.out_proj", name)
        # transformers 5 dropped a level that all older files have.
        name = re.sub(r"^(text_encoder(?:_2)?)\.encoder\.", r"\1.text_model.encoder.", name)
    else:
        name = re.sub(r"\.to_out$", ".to_out.0", name)
    return (name, dialect) if "." in name else None


def _kohya_name(layer: str, base: str) -> str | None:
    """The kohya spelling: sgm block names for SDXL, the module's own for every other base."""
    component, _, name = layer.partition(".")
    if component == "unet":
        spelled = _to_sgm(name) if base.startswith("SDXL") else name.replace(".", "_")
        return spelled and f"lora_unet_{spelled}"
    number = {"text_encoder": "1", "text_encoder_2": "2", "text_encoder_3": "3"}.get(component)
    if number and base.startswith(("SD 1", "SD 2")):  # they have one text encoder
        number = ""
    return None if number is None else f"lora_te{number}_{name.replace('.', '_')}"


def _base(lora: Mapping[str, Pair]) -> str:
    names = list(lora)
    if any("single_transformer_blocks." in n or re.search(r"\.(double|single)_blocks_", n) for n in names):
        return "Flux"
    if any(".joint_blocks_" in n or re.search(r"^transformer\.transformer_blocks\.\d", n) for n in names):
        return "SD3"
    if any(n.startswith("transformer.") for n in names):
        return "transformer"
    unet = [n for n in names if n.startswith("unet.")]
    widths = {lora[n][1].shape[1] for n in unet if re.search(r"attn2\.to_[kv]$", n)}
    if widths and widths != {2048}:
        known = {(768,): "SD 1.x", (1024,): "SD 2.x"}
        text = " and ".join(map(str, sorted(widths)))
        return known.get(tuple(widths), f"UNet for text {text} wide")
    if any(n.startswith("unet.down_blocks.0.attentions.") for n in unet):
        return "SD 1.x or 2.x"
    if not widths and not any(re.search(r"transformer_blocks\.[1-9]", n) for n in unet):
        return (
            "SDXL"
            if any(n.startswith("text_encoder_2.") for n in names)
            else "UNet"
            if unet
            else "text encoder"
        )
    # KOALA is SDXL with one residual layer per block instead of two.
    down = {n.split(".")[4] for n in unet if re.match(r"unet\.down_blocks\.\d\.attentions\.", n)}
    up = {n.split(".")[4] for n in unet if re.match(r"unet\.up_blocks\.\d\.attentions\.", n)}
    return "KOALA" if down == {"0"} and up and "2" not in up else "SDXL"


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
        "metadata": lora.metadata,
    }


# ---------------------------------------------------------------------------------------------------------
# Reading

_FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
_HASHING = ThreadPoolExecutor(2, thread_name_prefix="sha256")


def _show(text: str) -> str:
    """A key or name on one line, short."""
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= 140 else f"{text[:100]}…{text[-36:]}"


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
        raise LoRAError(f"{_show(str(path))}: not a valid path") from None


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
        reason = _show(str(error).removeprefix("Error while deserializing header: "))
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
        if entry["dtype"] not in _FLOATS and not key.endswith(".alpha"):
            raise LoRAError(
                f"{path}: {_show(key)} holds {entry['dtype']} numbers, expected F16, BF16, F32 or F64; "
                "export the LoRA unquantised"
            )
    tensors, finite = {}, True
    for kind, entries in groupby(
        sorted(header.items(), key=lambda item: item[1]["data_offsets"]), lambda item: item[1]["dtype"]
    ):
        run = dict(entries)
        offsets = [offset for entry in run.values() for offset in entry["data_offsets"]]
        start, end = begin + offsets[0], begin + offsets[-1]
        if kind in _FLOATS and start % _FLOATS[kind].itemsize == 0:
            numbers = whole[start:end].view(_FLOATS[kind])
            finite = finite and _finite(numbers)
            parts = numbers.split([math.prod(entry["shape"]) for entry in run.values()])
            tensors |= {key: x.view(run[key]["shape"]) for key, x in zip(run, parts, strict=True)}
        else:  # not aligned to its type, or of a type that only alphas have
            finite = False
            tensors |= {key: file.get_tensor(key) for key in run}
    return _File(tensors, file.metadata() or {}, finite)


def _finite(x: Tensor) -> bool:
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
        if not (power_of_two and torch.equal(product / scale, factor) and _finite(product)):
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
        raise LoRAError(f"{path}: {_show(key)} is not one number other than 0; set it to the layer's rank")
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
            raise LoRAError(f"{path}: layer {_show(layer)}: alpha is in tensors and config; remove one")
        alpha, scale = None, 1.0
        if config:
            alpha, scale = config(name, rank)
        elif "alpha" in parts:
            alpha = _alpha(path, *parts["alpha"])
            scale = alpha / rank if rank else 1.0
        lora[layer] = _scaled(up, scale), down
        if scale != 1 and not _finite(lora[layer][0]):
            raise LoRAError(f"{path}: layer {_show(layer)}: overflows with alpha {alpha:g}; check alpha")
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
                f"{path}: {_show(key)}: this is a DoRA, which no sum of LoRAs equals; "
                "retrain it as LoRA, or merge it into its base model"
            )
        match = _PART.search(key)
        named = _layer_of(key[: match.start()]) if match else None
        if not match or not named:
            raise LoRAError(
                f"{path}: {_show(key)} is not a key of a LoRA in a known dialect (diffusers, peft, kohya); "
                "remove it or export the LoRA again"
            )
        layer, dialect = named
        if match["lycoris"] and not convert:
            kind = "LoHa" if "hada" in key else "LoKr"
            raise LoRAError(
                f"{path}: {_show(key)}: this is a {kind}, not a LoRA; convert=True (--convert) makes it one"
            )
        if match["lycoris"]:
            dialect += ", LoHa" if "hada" in key else ", LoKr"
        elif match["peft"] and dialect == "diffusers":
            dialect = "diffusers (lora_A, lora_B)"
        part = match["alpha"] or match["kohya"] or match["diffusers"] or match["lycoris"]
        part = part or _PEFT_PARTS[match["peft"]]
        parts = layers.setdefault(layer, {})
        if part in parts:
            raise LoRAError(
                f"{path}: layer {_show(layer)}: both {_show(parts[part][0])} and {_show(key)} "
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
        raise LoRAError(f"{path}: layer {_show(layer)}: {parts[extra[0]][0]} beside a LoRA; remove one")
    for part, other in (("up", "down"), ("down", "up")):
        if part not in parts:
            raise LoRAError(
                f"{path}: layer {_show(layer)}: has {_show(parts[other][0])} but no {part} matrix, "
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
    elif not (finite or (_finite(up) and _finite(down))):
        wrong = "NaN or infinity in it, expected finite numbers"
    if wrong:
        raise LoRAError(f"{path}: layer {_show(layer)}: {wrong}; export or download the file again")
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
        if not x or not all(t.ndim == 2 and t.numel() and _finite(t) for t in x.values()):
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
            f"{path}: layer {_show(layer)}: {shapes or 'alpha alone'}: expected a whole LoHa or LoKr of a "
            "linear layer, finite and of fitting shapes; export it as LoRA with the tool that made it"
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
            f"{path}: {_show(odd)}: expected the keys LAYER.content and LAYER.style for each layer"
        )
    for key, x in tensors.items():
        if x.ndim != 1 or not _finite(x):
            raise LoRAError(
                f"{path}: {_show(key)} of shape {tuple(x.shape)}: expected a vector of finite numbers"
            )
    return {layer: (tensors[f"{layer}.content"], tensors[f"{layer}.style"]) for layer in sorted(layers)}


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


# ---------------------------------------------------------------------------------------------------------
# Writing

_NAMES = {dtype: name for name, dtype in _FLOATS.items()}
FORMATS = ("diffusers", "kohya")


def _keys(lora: LoRA, format: str, path: Path) -> dict[str, tuple[str, str]]:
    """Layer → the keys of its up and down in the dialect to be written."""
    keys: dict[str, tuple[str, str]] = {}
    base, names = lora.base, set()
    for layer in lora:
        if format == "kohya":
            name = _kohya_name(layer, base)
            if not name or name in names:
                raise LoRAError(
                    f"{path}: layer {_show(layer)} has no kohya name for {base}; write format diffusers"
                )
            names.add(name)
            keys[layer] = f"{name}.lora_up.weight", f"{name}.lora_down.weight"
        elif re.match(r"unet\.(double|single|joint)_blocks_", layer):
            raise LoRAError(f"{path}: layer {_show(layer)} has no diffusers name; write format kohya")
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
    aside = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.part")
    try:
        with aside.open("xb") as file:
            with suppress(OSError, AttributeError):  # not every system or file system can
                os.posix_fallocate(file.fileno(), 0, begin + at)
            for key, x in tensors:
                x = x.detach().to("cpu", kinds[key][1]).contiguous()
                if not _finite(x):
                    raise LoRAError(_not_finite(path, key, kinds[key][1]))
                file.seek(begin + header[key]["data_offsets"][0])
                file.write(x.reshape(-1).view(torch.uint8).numpy())
            file.seek(0)
            file.write(head(source.sha256 for source in sources))
        os.replace(aside, path)
    except OSError as error:
        raise LoRAError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        aside.unlink(missing_ok=True)


def _not_finite(path: Path, key: str, dtype: torch.dtype) -> str:
    return f"{path}: {_show(key)} is not finite in {_NAMES[dtype]}; write it as bfloat16 or float32"


def save_lora(
    lora: LoRA,
    path: str | os.PathLike[str],
    *,
    format: str = "diffusers",
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a LoRA as safetensors; the file appears whole or not at all.

    ``format`` is ``diffusers`` (``pipe.load_lora_weights`` reads it) or ``kohya`` (ComfyUI, A1111: sgm block
    names for SDXL, alpha = rank). ``dtype`` casts every factor (for float16 a layer's two are made of equal
    size, where they would lose digits); without it each keeps its own. An `Outline` is written while it is
    made. The file's metadata is the LoRA's with ``metadata`` over it, the version, and name and SHA-256 of
    its sources.

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
    keys = _keys(lora, format, path)
    kinds = {
        key: (x.shape, dtype or x.dtype)
        for layer in lora
        for key, x in zip(keys[layer], lora[layer], strict=True)
    }
    alphas = {}
    if format == "kohya":
        for layer, (up_key, _) in keys.items():
            alphas[up_key.replace(".lora_up.weight", ".alpha")] = torch.tensor(float(len(lora[layer][1])))
    kinds |= {key: (x.shape, x.dtype) for key, x in alphas.items()}

    def tensors(pairs: Iterator[tuple[str, Pair]]) -> Iterator[tuple[str, Tensor]]:
        yield from alphas.items()
        for layer, (up, down) in pairs:
            if dtype == torch.float16 and all(_finite(x.to(dtype)) for x in (up, down)):
                overflow = _not_finite(path, keys[layer][0], dtype)
                up, down = (x[0] for x in fitted(up[None], down[None], dtype, overflow))
            yield keys[layer][0], up
            yield keys[layer][1], down

    # An alpha of the source's config must not be applied to factors that hold it already.
    kept = {k: v for k, v in lora.metadata.items() if k != "lora_adapter_metadata"}
    provenance = {"format": "pt", "lorarar_version": __version__}
    with closing(lora.made()) as pairs:
        _write(kinds, tensors(pairs), {**kept, **(metadata or {}), **provenance}, path, lora.sources)


def _check_shapes_for_writing(
    path: Path, layer: str, up: Tensor, down: Tensor, dtype: torch.dtype | None
) -> None:
    for x in (up, down):
        if (dtype or x.dtype) not in _NAMES or not x.is_floating_point():
            raise LoRAError(
                f"{path}: layer {_show(layer)}: dtype {dtype or x.dtype}, "
                "expected float16, bfloat16, float32 or float64"
            )
    if up.ndim != down.ndim or up.shape[1] != down.shape[0]:
        raise LoRAError(
            f"{path}: layer {_show(layer)}: up {tuple(up.shape)} and down {tuple(down.shape)} do not multiply"
        )
