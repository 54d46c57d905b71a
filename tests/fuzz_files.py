"""The files that `fuzz` damages, and a reader of them that shares no code with the package.

The reader gives each layer's dense float64 update. A layer is named as diffusers names it, with underscores
for its dots; a name that is not in the tables here is its own. What one spelling has as a fused layer is
taken apart, so that two files, and what was made of them, can be compared whatever their spellings.
"""

import json
import re
import struct

import numpy as np

NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "u1"}
NUMPY |= {
    "I8": "i1",
    "I16": "<i2",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
}  # an alpha may be a whole number

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
TEXT = {"text_encoder.text_model.encoder.layers.0.self_attn.q_proj": (3, 4)}
UNET = {  # name → (out, in, …); the text width of no model, small enough to be quick
    f"unet.{BLOCK}.attn1.to_q": (6, 5),
    f"unet.{BLOCK}.attn1.to_out.0": (4, 6),
    "unet.down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_v": (4, 7),
    "unet.down_blocks.1.resnets.0.conv1": (4, 3, 3, 3),
} | TEXT
SGM = {"down_blocks_1_attentions_0": "input_blocks_4_1", "down_blocks_2_attentions_1": "input_blocks_8_1"}
SGM |= {"down_blocks_1_resnets_0_conv1": "input_blocks_4_0_in_layers_2"}

DOUBLE, SINGLE = "transformer.transformer_blocks.0", "transformer.single_transformer_blocks.3"
FLUX = {
    **{f"{DOUBLE}.attn.to_{x}": (4, 4) for x in "qkv"},
    **{f"{SINGLE}.attn.to_{x}": (4, 4) for x in "qkv"},
    f"{SINGLE}.proj_mlp": (16, 4),
    f"{DOUBLE}.ff.net.2": (4, 16),
    "transformer.norm_out.linear": (8, 4),
    "transformer.x_embedder": (4, 6),
} | TEXT
FLUX_AUTHORS = {  # as the authors call it → shape, as diffusers does
    "double_blocks.0.img_attn.qkv": ((12, 4), f"{DOUBLE}.attn.to_qkv"),
    "single_blocks.3.linear1": ((28, 4), f"{SINGLE}.linear1"),
    "double_blocks.0.img_mlp.2": ((4, 16), f"{DOUBLE}.ff.net.2"),
    "final_layer.adaLN_modulation.1": ((8, 4), "transformer.norm_out.linear"),
    "img_in": ((4, 6), "transformer.x_embedder"),
}
FUSED = {
    f"{DOUBLE}.attn.to_qkv": [f"{DOUBLE}.attn.to_{x}" for x in "qkv"],
    f"{SINGLE}.linear1": [*(f"{SINGLE}.attn.to_{x}" for x in "qkv"), f"{SINGLE}.proj_mlp"],
}
WAN = {f"transformer.blocks.2.attn1.to_{x}": (4, 4) for x in "qk"} | {
    "transformer.blocks.2.ffn.net.0.proj": (8, 4)
}
WAN_AUTHORS = {
    **{f"blocks.2.self_attn.{x}": ((4, 4), f"transformer.blocks.2.attn1.to_{x}") for x in "qk"},
    "blocks.2.ffn.0": ((8, 4), "transformer.blocks.2.ffn.net.0.proj"),
}
OWN = {f"transformer.blocks.{n}.cross_thing.deep_proj": (5, 4) for n in range(3)}

LAYERS = {**UNET, **FLUX, **WAN, **OWN}


def flat(name: str) -> str:
    return name.replace(".", "_")


def _component(prefix: str, name: str) -> str:
    return re.sub(
        r"^(unet|transformer)\.",
        prefix,
        name.replace("text_encoder.", "lora_te1_" if prefix[-1] == "_" else "text_encoder."),
    )


def _kohya(layers: dict, prefix: str = "lora_unet_") -> dict:
    """Stem → shape, parts' names; the names of a UNet's blocks as they are."""
    return {flat(_component(prefix, name)): shape for name, shape in layers.items()}


def _sgm(layers: dict) -> dict:
    found = {}
    for stem, shape in _kohya(layers).items():
        for ours, theirs in SGM.items():
            stem = stem.replace(ours, theirs)
        found[stem] = shape
    return found


def _dotted(layers: dict) -> dict:
    """The sgm names with dots, as ComfyUI's own nodes save them."""
    words = "_(?!blocks|q$|v$|out|layers)"
    stems = {n: s for n, s in _sgm(layers).items() if n.startswith("lora_unet_")}
    return {
        f"diffusion_model.{re.sub(words, '.', n.removeprefix('lora_unet_'))}": s for n, s in stems.items()
    }


def _authors(layers: dict, prefix: str) -> dict:
    return {
        prefix + (flat(name) if prefix[-1] == "_" else name): shape for name, (shape, _) in layers.items()
    }


def _processor(layers: dict) -> dict:
    """attn1.to_q → attn1.processor.to_q_lora, as diffusers wrote before 0.22; text encoders without."""
    found = {
        re.sub(r"(attn\d)\.(\w+)(\.0)?$", r"\1.processor.\2_lora", n): s
        for n, s in layers.items()
        if "conv" not in n
    }
    return {stem if stem.endswith("_lora") else f"{stem}.lora": shape for stem, shape in found.items()}


KOHYA = ("{}.lora_up.weight", "{}.lora_down.weight")
PEFT, OLD = ("{}.lora_B.weight", "{}.lora_A.weight"), ("{}.lora.up.weight", "{}.lora.down.weight")
NO_DOT = ("{}_lora_up.weight", "{}_lora_down.weight")
# dialect → stem → shape, the keys of up and down, whether layers have an alpha, the dialect to merge it with
DIALECTS = {
    "kohya": (_kohya(UNET), KOHYA, True, "new"),
    "sgm": (_sgm(UNET), KOHYA, True, "new"),
    "processor": (_processor(UNET), ("{}.up.weight", "{}.down.weight"), True, "new"),
    "doubled": ({re.sub("^unet", "unet.unet", n): s for n, s in UNET.items()}, OLD, False, "new"),
    "doubled, flat": (_kohya(UNET, "lora_unet_unet_"), NO_DOT, False, "new"),
    "peft": ({f"base_model.model.{n}": s for n, s in UNET.items()}, PEFT, False, "new"),
    "lycoris": (_kohya({n: s for n, s in UNET.items() if "text" not in n}, "lycoris_"), KOHYA, True, "new"),
    "sgm with dots": (_dotted(UNET), KOHYA, True, "new"),
    "new": (dict(UNET), PEFT, False, "kohya"),
    "old": (dict(UNET), OLD, False, "new"),
    "Flux, kohya": (_authors(FLUX_AUTHORS, "lora_unet_"), KOHYA, True, "Flux"),
    "Flux, ComfyUI": (_authors(FLUX_AUTHORS, "diffusion_model."), PEFT, False, "Flux, kohya"),
    "Flux, OneTrainer": (_kohya(FLUX, "lora_transformer_"), KOHYA, True, "Flux, kohya"),
    "Flux": (dict(FLUX), PEFT, False, "Flux, kohya"),
    "Wan": (_authors(WAN_AUTHORS, "diffusion_model."), PEFT, False, "Wan, kohya"),
    "Wan, kohya": (_authors(WAN_AUTHORS, "lora_unet_"), KOHYA, True, "Wan, diffusers"),
    "Wan, diffusers": (dict(WAN), PEFT, False, "Wan"),
    "own": (_kohya(OWN), KOHYA, True, "own, dots"),
    "own, dots": ({re.sub(r"^\w+", "diffusion_model", n): s for n, s in OWN.items()}, KOHYA, True, "own"),
}  # fmt: skip
NAMES = {flat(re.sub(r"^\w+\.", "", n)): n for n in LAYERS}
for _name, _shape in _sgm(UNET).items():
    NAMES[re.sub("^lora_(unet|te1)_", "", _name)] = next(
        n for n, k in zip(UNET, _sgm(UNET), strict=True) if k == _name
    )
for _name, (_, _ours) in {**FLUX_AUTHORS, **WAN_AUTHORS}.items():
    NAMES[flat(_name)] = _ours
NAMES |= {name.removesuffix("_0"): ours for name, ours in NAMES.items() if name.endswith("to_out_0")}


def lycoris(name: str, shape: tuple, kind: str, numbers: np.random.Generator) -> dict[str, np.ndarray]:
    """The parts of a LoHa, a LoKr or a LoRA with Tucker's kernel for a layer."""
    (out, width), kernel = shape[:2], shape[2:]
    n, r = width * int(np.prod(kernel)), 2
    if kind == "LoHa":
        shapes = {f"hada_w{i}_{side}": s for i in (1, 2) for side, s in (("a", (out, r)), ("b", (r, n)))}
    elif kind == "LoKr":
        shapes = {"lokr_w1": (1, 1), "lokr_w2_a": (out, r), "lokr_w2_b": (r, n)}
    else:
        shapes = {
            "lora_up.weight": (out, r, *[1] * len(kernel)),
            "lora_down.weight": (r, width, *[1] * len(kernel)),
        }
        shapes |= {"lora_mid.weight": (r, r, *kernel)} if kernel else {}
    stem = flat(_component("lora_unet_", name))
    return {f"{stem}.{part}": numbers.standard_normal(s) for part, s in shapes.items()} | {
        f"{stem}.alpha": np.array(3.0)
    }


def corpus() -> dict[str, tuple[dict, bytes]]:
    """Dialect → header and data of a seed file: some with alphas, mixed ranks, each float type."""
    files = {}
    for number, (dialect, (stems, (up, down), alphas, _)) in enumerate(DIALECTS.items()):
        numbers, tensors = np.random.default_rng(number), {}
        for i, (stem, shape) in enumerate(stems.items()):
            rank, (out, *inner) = 2 + (i + number) % 3, shape
            tensors[up.format(stem)] = numbers.standard_normal((out, rank, *[1] * len(inner[1:])))
            tensors[down.format(stem)] = numbers.standard_normal((rank, *inner))
            if alphas:
                tensors[f"{stem}.alpha"] = np.array(float(1 + i))
        files[dialect] = _file(tensors, number)
    for number, kind in enumerate(("LoHa", "LoKr", "Tucker")):
        numbers, tensors = np.random.default_rng(50 + number), {}
        for name, shape in UNET.items():
            tensors |= lycoris(name, shape, kind, numbers)
        files[kind] = _file(tensors, number)
    return files


def _file(tensors: dict[str, np.ndarray], number: int) -> tuple[dict, bytes]:
    header: dict = {"__metadata__": {"format": "pt", "ss_network_dim": "4"}}
    data = b""
    for i, (key, x) in enumerate(tensors.items()):
        kind = ("F32", "F16", "F64")[(number + i // 3) % 3] if x.ndim else "F32"
        raw = x.astype(NUMPY[kind]).tobytes()
        header[key] = {
            "dtype": kind,
            "shape": list(x.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    return header, data


def packed(header: dict | bytes, data: bytes, length: int | None = None) -> bytes:
    """The bytes of a safetensors file."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


# ---------------------------------------------------------------------------------------------------------
# The independent reader

_PARTS = (
    (r"\.lora_([AB])(\.\w+)?(\.weight)?$", {"A": "down", "B": "up"}),
    (r"[._]lora_(up|down|mid)\.weight$", {}),
    (r"(?:[._]lora|\.lora_linear_layer)\.(up|down)\.weight$", {}),
    (r"(?:[._]lora|\.lora_linear_layer)?\.(alpha)$", {}),
    (r"\.(hada_\w+|lokr_\w+)$", {}),
)
_PREFIXES = re.compile(
    r"base_model\.model\.|(lora_unet|lora_transformer|lycoris)__?(unet_)?|(model\.)?diffusion_model\.|unet\.|transformer\."
)
_TEXT = re.compile(r"lora_te1?__?(text_encoder_)?|(text_encoder\.)+|(?=text_model[._])")


def apart(key: str) -> tuple[str, str]:
    """A key's layer and part."""
    for pattern, names in _PARTS:
        if match := re.search(pattern, key):
            part = names.get(match[1], match[1])
            stem = key[: match.start()].replace(".processor.", ".")
            before = None
            while before != stem:
                before, stem = stem, re.sub(rf"^(?:{_PREFIXES.pattern})", "", stem)
            stem = re.sub(rf"^(?:{_TEXT.pattern})", "", stem)
            return NAMES.get(flat(stem), flat(stem)), part
    raise ValueError(key)


def updates(content: bytes) -> dict[str, np.ndarray]:
    """Layer → dense float64 ΔW of a file that is valid, fused layers taken apart.

    Raises anything at all where it is not.
    """
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    data = content[8 + length :]
    metadata = header.pop("__metadata__", None) or {}
    config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    if config.get("unet.init_lora_weights", True) is not True:
        raise ValueError("no update of the base")
    groups: dict[str, dict[str, np.ndarray]] = {}
    swaps = set()
    for key, entry in header.items():
        start, end = entry["data_offsets"]
        raw = data[start:end]
        if entry["dtype"] == "BF16":
            x = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").astype(float)
        else:
            x = np.frombuffer(raw, NUMPY[entry["dtype"]]).astype(float)
        if not np.isfinite(x).all():
            raise ValueError(f"{key} is not finite")
        layer, part = apart(key)
        groups.setdefault(layer, {})[part] = x.reshape(entry["shape"])
        if "adaLN" in key:
            swaps.add(layer)
    found: dict[str, np.ndarray] = {}
    for layer, parts in groups.items():
        delta, rank = _delta(parts)
        scale = float(parts["alpha"].reshape(())) / rank if "alpha" in parts and rank else 1.0
        if layer.startswith("unet.") and rank and config:
            scale = _alpha(layer, config, rank) / rank
        if layer in swaps and delta.shape[0] == 2 * delta.shape[1]:
            delta = np.concatenate(np.split(delta, 2)[::-1])
        found |= _split(layer, scale * delta)
    return found


def _alpha(layer: str, config: dict, rank: int) -> float:
    for pattern, alpha in (config.get("unet.alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", layer.removeprefix("unet.")):
            return alpha
    return config.get("unet.lora_alpha", rank)


def _delta(parts: dict[str, np.ndarray]) -> tuple[np.ndarray, int | None]:
    """The update without its scale, as a matrix, and the rank that alpha is divided by."""
    x = {part: t for part, t in parts.items() if part != "alpha"}
    if "hada_w1_a" in x:
        one, other = (x[f"hada_w{i}_a"] @ x[f"hada_w{i}_b"] for i in (1, 2))
        return one * other, len(x["hada_w1_b"])
    if any("lokr" in part for part in x):
        sides = [x[w] if (w := f"lokr_w{i}") in x else x[f"{w}_a"] @ x[f"{w}_b"] for i in (1, 2)]
        rank = next((len(x[f"lokr_w{i}_b"]) for i in (2, 1) if f"lokr_w{i}_b" in x), None)
        return np.kron(*(side.reshape(len(side), -1) for side in sides)), rank
    up, down = x["up"], x["down"]
    if "mid" in x:
        down = np.einsum("rs...,si->ri...", x["mid"], down.reshape(down.shape[:2]))
    return up.reshape(up.shape[:2]) @ down.reshape(len(down), -1), len(x["down"])


def _split(layer: str, delta: np.ndarray) -> dict[str, np.ndarray]:
    if layer not in FUSED:
        return {layer: delta} if delta.any() else {}
    out, width = delta.shape
    rows = [width] * 3 + [out - 3 * width] if layer.endswith("linear1") else [out // 3] * 3
    parts = np.split(delta, np.cumsum(rows)[:-1])
    return {name: part for name, part in zip(FUSED[layer], parts, strict=True) if part.any()}


def sums(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a direct merge must hold."""
    both = {n: one[n] + other[n] for n in one if n in other}
    return {n: x for n, x in {**one, **other, **both}.items() if x.any()}
