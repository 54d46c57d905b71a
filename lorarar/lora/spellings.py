"""How the layers of a model are spelled: a table of prefixes, and for each model a table of names.

A stem is a file's key without its last part (``lora_down.weight``, ``alpha``). It is a prefix, which says
whose layer it is, and the layer's name: the module's own with dots, or with underscores for the dots
(kohya). Models that `diffusers` has rewritten have two names for a layer, their authors' and diffusers'.
Everything after this module knows diffusers' alone; a layer that no table has keeps its own name.

The tables are facts of the models, read off the module names of diffusers and of ComfyUI.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from lorarar.lora.base import ONE_TEXT_ENCODER

DENOISER = "denoiser"  # the UNet or the transformer: the layer's name tells which

PREFIXES = (  # prefix, component, dialect
    ("base_model.model.", "", "peft"),
    ("lora_unet_", DENOISER, "kohya"),
    ("lora_transformer_", DENOISER, "kohya, OneTrainer's"),
    ("lycoris_", DENOISER, "LyCORIS"),
    ("lora_te_", "text_encoder", ONE_TEXT_ENCODER),
    ("lora_te1_", "text_encoder", "kohya"),
    ("lora_te2_", "text_encoder_2", "kohya"),
    ("lora_te3_", "text_encoder_3", "kohya"),
    ("model.diffusion_model.", DENOISER, "ComfyUI"),
    ("diffusion_model.", DENOISER, "ComfyUI"),
    ("text_encoders.clip_l.transformer.", "text_encoder", "ComfyUI"),
    ("text_encoders.clip_h.transformer.", "text_encoder", "ComfyUI"),
    ("text_encoders.clip_g.transformer.", "text_encoder_2", "ComfyUI"),
    ("text_encoders.t5xxl.transformer.", "text_encoder_3", "ComfyUI"),
    ("text_encoders.", "text_encoders", "ComfyUI"),
    ("clip_l.", "text_encoder", "OneTrainer"),
    ("clip_g.", "text_encoder_2", "OneTrainer"),
    ("t5xxl.", "text_encoder_3", "OneTrainer"),
    ("t5.", "text_encoder_3", "OneTrainer"),
    ("unet.", DENOISER, "diffusers"),
    ("transformer.", DENOISER, "diffusers"),
    ("text_encoder.", "text_encoder", "diffusers"),
    ("text_encoder_2.", "text_encoder_2", "diffusers"),
    ("text_encoder_3.", "text_encoder_3", "diffusers"),
)
FLAT_DIALECTS = ("kohya", "LyCORIS")
OWN_NAMES = ("Qwen-Image",)  # models that diffusers has as their authors do
_FLAT = tuple(prefix for prefix, _, _ in PREFIXES if prefix.endswith("_"))
_DOUBLED = {DENOISER: ("unet_",), "text_encoder": ("text_encoder_",), "text_encoder_2": ("text_encoder_2_",)}

# Authors' name, diffusers' name; N is a block's number. The first of several spellings is the one written.
_FLUX = """
double_blocks.N.img_attn.qkv     transformer_blocks.N.attn.to_qkv
double_blocks.N.img_attn.proj    transformer_blocks.N.attn.to_out.0
double_blocks.N.img_mlp.0        transformer_blocks.N.ff.net.0.proj
double_blocks.N.img_mlp.2        transformer_blocks.N.ff.net.2
double_blocks.N.img_mod.lin      transformer_blocks.N.norm1.linear
double_blocks.N.txt_attn.qkv     transformer_blocks.N.attn.to_added_qkv
double_blocks.N.txt_attn.proj    transformer_blocks.N.attn.to_add_out
double_blocks.N.txt_mlp.0        transformer_blocks.N.ff_context.net.0.proj
double_blocks.N.txt_mlp.2        transformer_blocks.N.ff_context.net.2
double_blocks.N.txt_mod.lin      transformer_blocks.N.norm1_context.linear
single_blocks.N.linear1          single_transformer_blocks.N.linear1
single_blocks.N.linear2          single_transformer_blocks.N.proj_out
single_blocks.N.modulation.lin   single_transformer_blocks.N.norm.linear
img_in                           x_embedder
txt_in                           context_embedder
time_in.in_layer                 time_text_embed.timestep_embedder.linear_1
time_in.out_layer                time_text_embed.timestep_embedder.linear_2
vector_in.in_layer               time_text_embed.text_embedder.linear_1
vector_in.out_layer              time_text_embed.text_embedder.linear_2
guidance_in.in_layer             time_text_embed.guidance_embedder.linear_1
guidance_in.out_layer            time_text_embed.guidance_embedder.linear_2
final_layer.linear               proj_out
final_layer.adaLN_modulation.1   norm_out.linear
"""
_FLUX_OF_TRAINERS = """
double_blocks.N.img_attn.qkv.0   transformer_blocks.N.attn.to_q
double_blocks.N.img_attn.qkv.1   transformer_blocks.N.attn.to_k
double_blocks.N.img_attn.qkv.2   transformer_blocks.N.attn.to_v
double_blocks.N.txt_attn.qkv.0   transformer_blocks.N.attn.add_q_proj
double_blocks.N.txt_attn.qkv.1   transformer_blocks.N.attn.add_k_proj
double_blocks.N.txt_attn.qkv.2   transformer_blocks.N.attn.add_v_proj
single_blocks.N.linear1.0        single_transformer_blocks.N.attn.to_q
single_blocks.N.linear1.1        single_transformer_blocks.N.attn.to_k
single_blocks.N.linear1.2        single_transformer_blocks.N.attn.to_v
single_blocks.N.linear1.3        single_transformer_blocks.N.proj_mlp
img_in.proj                      x_embedder
single_blocks.N.linear1_qkv      single_transformer_blocks.N.attn.to_qkv
double_blocks.N.qkv_lora1        transformer_blocks.N.attn.to_qkv
double_blocks.N.qkv_lora2        transformer_blocks.N.attn.to_added_qkv
double_blocks.N.proj_lora1       transformer_blocks.N.attn.to_out.0
double_blocks.N.proj_lora2       transformer_blocks.N.attn.to_add_out
single_blocks.N.qkv              single_transformer_blocks.N.attn.to_qkv
single_blocks.N.proj             single_transformer_blocks.N.proj_out
double_blocks.N.img_mlp.fc1      transformer_blocks.N.ff.net.0.proj
double_blocks.N.img_mlp.fc2      transformer_blocks.N.ff.net.2
double_blocks.N.img_mod.linear   transformer_blocks.N.norm1.linear
double_blocks.N.txt_mlp.fc1      transformer_blocks.N.ff_context.net.0.proj
double_blocks.N.txt_mlp.fc2      transformer_blocks.N.ff_context.net.2
double_blocks.N.txt_mod.linear   transformer_blocks.N.norm1_context.linear
single_blocks.N.modulation.linear single_transformer_blocks.N.norm.linear
"""  # OneTrainer, XLabs, HunyuanVideo's authors
_FLUX_2 = """
double_blocks.N.img_attn.qkv     transformer_blocks.N.attn.to_qkv
double_blocks.N.img_attn.proj    transformer_blocks.N.attn.to_out.0
double_blocks.N.img_mlp.0        transformer_blocks.N.ff.linear_in
double_blocks.N.img_mlp.2        transformer_blocks.N.ff.linear_out
double_blocks.N.txt_attn.qkv     transformer_blocks.N.attn.to_added_qkv
double_blocks.N.txt_attn.proj    transformer_blocks.N.attn.to_add_out
double_blocks.N.txt_mlp.0        transformer_blocks.N.ff_context.linear_in
double_blocks.N.txt_mlp.2        transformer_blocks.N.ff_context.linear_out
single_blocks.N.linear1          single_transformer_blocks.N.attn.to_qkv_mlp_proj
single_blocks.N.linear2          single_transformer_blocks.N.attn.to_out
img_in                           x_embedder
txt_in                           context_embedder
time_in.in_layer                 time_guidance_embed.timestep_embedder.linear_1
time_in.out_layer                time_guidance_embed.timestep_embedder.linear_2
guidance_in.in_layer             time_guidance_embed.guidance_embedder.linear_1
guidance_in.out_layer            time_guidance_embed.guidance_embedder.linear_2
double_stream_modulation_img.lin double_stream_modulation_img.linear
double_stream_modulation_txt.lin double_stream_modulation_txt.linear
single_stream_modulation.lin     single_stream_modulation.linear
final_layer.linear               proj_out
final_layer.adaLN_modulation.1   norm_out.linear
"""
_SD3 = """
joint_blocks.N.x_block.attn.qkv                   transformer_blocks.N.attn.to_qkv
joint_blocks.N.x_block.attn.proj                  transformer_blocks.N.attn.to_out.0
joint_blocks.N.x_block.attn2.qkv                  transformer_blocks.N.attn2.to_qkv
joint_blocks.N.x_block.attn2.proj                 transformer_blocks.N.attn2.to_out.0
joint_blocks.N.x_block.mlp.fc1                    transformer_blocks.N.ff.net.0.proj
joint_blocks.N.x_block.mlp.fc2                    transformer_blocks.N.ff.net.2
joint_blocks.N.x_block.adaLN_modulation.1         transformer_blocks.N.norm1.linear
joint_blocks.N.context_block.attn.qkv             transformer_blocks.N.attn.to_added_qkv
joint_blocks.N.context_block.attn.proj            transformer_blocks.N.attn.to_add_out
joint_blocks.N.context_block.mlp.fc1              transformer_blocks.N.ff_context.net.0.proj
joint_blocks.N.context_block.mlp.fc2              transformer_blocks.N.ff_context.net.2
joint_blocks.N.context_block.adaLN_modulation.1   transformer_blocks.N.norm1_context.linear
x_embedder.proj                                   pos_embed.proj
context_embedder                                  context_embedder
t_embedder.mlp.0                                  time_text_embed.timestep_embedder.linear_1
t_embedder.mlp.2                                  time_text_embed.timestep_embedder.linear_2
y_embedder.mlp.0                                  time_text_embed.text_embedder.linear_1
y_embedder.mlp.2                                  time_text_embed.text_embedder.linear_2
final_layer.linear                                proj_out
final_layer.adaLN_modulation.1                    norm_out.linear
joint_blocks.N.x_block.attn.qkv.0                 transformer_blocks.N.attn.to_q
joint_blocks.N.x_block.attn.qkv.1                 transformer_blocks.N.attn.to_k
joint_blocks.N.x_block.attn.qkv.2                 transformer_blocks.N.attn.to_v
joint_blocks.N.context_block.attn.qkv.0           transformer_blocks.N.attn.add_q_proj
joint_blocks.N.context_block.attn.qkv.1           transformer_blocks.N.attn.add_k_proj
joint_blocks.N.context_block.attn.qkv.2           transformer_blocks.N.attn.add_v_proj
joint_blocks.N.x_block.attn2.qkv.0                transformer_blocks.N.attn2.to_q
joint_blocks.N.x_block.attn2.qkv.1                transformer_blocks.N.attn2.to_k
joint_blocks.N.x_block.attn2.qkv.2                transformer_blocks.N.attn2.to_v
"""
_WAN = """
blocks.N.self_attn.q     blocks.N.attn1.to_q
blocks.N.self_attn.k     blocks.N.attn1.to_k
blocks.N.self_attn.v     blocks.N.attn1.to_v
blocks.N.self_attn.o     blocks.N.attn1.to_out.0
blocks.N.cross_attn.q    blocks.N.attn2.to_q
blocks.N.cross_attn.k    blocks.N.attn2.to_k
blocks.N.cross_attn.v    blocks.N.attn2.to_v
blocks.N.cross_attn.o    blocks.N.attn2.to_out.0
blocks.N.cross_attn.k_img blocks.N.attn2.add_k_proj
blocks.N.cross_attn.v_img blocks.N.attn2.add_v_proj
blocks.N.ffn.0           blocks.N.ffn.net.0.proj
blocks.N.ffn.2           blocks.N.ffn.net.2
patch_embedding          patch_embedding
text_embedding.0         condition_embedder.text_embedder.linear_1
text_embedding.2         condition_embedder.text_embedder.linear_2
time_embedding.0         condition_embedder.time_embedder.linear_1
time_embedding.2         condition_embedder.time_embedder.linear_2
time_projection.1        condition_embedder.time_proj
img_emb.proj.1           condition_embedder.image_embedder.ff.net.0.proj
img_emb.proj.3           condition_embedder.image_embedder.ff.net.2
head.head                proj_out
"""
_Z_IMAGE = "".join(
    f"{blocks}.N.{ours} {blocks}.N.{theirs}\n"
    for blocks in ("layers", "noise_refiner", "context_refiner")
    for ours, theirs in (
        ("attention.qkv", "attention.to_qkv"),
        ("attention.out", "attention.to_out.0"),
        *((name, name) for name in ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3")),
        ("adaLN_modulation.0", "adaLN_modulation.0"),
    )
)
_QWEN_IMAGE = "".join(
    f"{name} {name}\n"
    for name in (
        *("img_in", "txt_in", "proj_out", "norm_out.linear"),
        *(f"time_text_embed.timestep_embedder.linear_{n}" for n in (1, 2)),
        *(f"transformer_blocks.N.attn.{x}" for x in ("to_q", "to_k", "to_v", "to_out.0", "to_add_out")),
        *(f"transformer_blocks.N.attn.add_{x}_proj" for x in "qkv"),
        *(f"transformer_blocks.N.{x}_mlp.net.{y}" for x in ("img", "txt") for y in ("0.proj", "2")),
        *(f"transformer_blocks.N.{x}_mod.1" for x in ("img", "txt")),
    )
)

# What in a file's names tells the model whose authors spell them so.
_TELLS = {
    "Flux.2": r"(double|single)_stream_modulation",
    "Flux": r"(double|single)_blocks_\d",
    "SD3": r"joint_blocks_\d+_(x|context)_block_",
    "Qwen-Image": r"transformer_blocks_\d+_(img|txt)_(mlp|mod)_",
    "Wan": r"blocks_\d+_((self|cross)_attn_([qkvo]|[kv]_img)|ffn_[02])$",
    "Z-Image": r"(layers|noise_refiner|context_refiner)_\d+_attention_(to_[qkv]|to_out|qkv|out)",
}

FUSED = {  # one layer of the authors' → the layers it is in diffusers, in the order of its rows
    "attn.to_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "attn2.to_qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "attention.to_qkv": ("attention.to_q", "attention.to_k", "attention.to_v"),
    "attn.to_added_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
}
"""Of a block, without its number: what diffusers has as several layers. All but the last are ``in`` wide."""

_NUMBER = re.compile(r"(?<=blocks[._])\d+|(?<=layers[._])\d+|(?<=refiner[._])\d+")


def _rows(text: str) -> list[tuple[str, str]]:
    return [(left, right) for left, right in (line.split() for line in text.split("\n") if line)]


_NAMES = {
    "Flux": _rows(_FLUX + _FLUX_OF_TRAINERS),
    "Flux.2": _rows(_FLUX_2),
    "SD3": _rows(_SD3),
    "Wan": _rows(_WAN),
    "Z-Image": _rows(_Z_IMAGE),
    "Qwen-Image": _rows(_QWEN_IMAGE),
}
_TO_DIFFUSERS = {
    model: {theirs.replace(".", "_"): ours for theirs, ours in rows} for model, rows in _NAMES.items()
}
_TO_AUTHORS = {model: {ours: theirs for theirs, ours in reversed(rows)} for model, rows in _NAMES.items()}


_OF_A_BLOCK = re.compile(
    r"(.*\b(?:(?:single_)?transformer_blocks|layers|noise_refiner|context_refiner)\.(?:\d+|N)\.)"
    rf"({'|'.join(name for name in FUSED if name != 'linear1')})"
    r"|(.*\bsingle_transformer_blocks\.(?:\d+|N)\.)(linear1)"
)


def parts_of(name: str) -> tuple[str, ...]:
    """The layers of diffusers that a fused layer is made of; (itself,) for any other."""
    if not (match := _OF_A_BLOCK.fullmatch(name)):
        return (name,)
    block, fused = (match[1], match[2]) if match[1] else (match[3], match[4])
    return tuple(block + part for part in FUSED[fused])


_WITH_DOTS = {
    name.replace(".", "_"): name
    for rows in _NAMES.values()
    for _, ours in rows
    for name in (ours, *parts_of(ours))
}
_WHOLE = {
    model: {part: ours for _, ours in reversed(rows) for part in parts_of(ours) if part != ours}
    for model, rows in _NAMES.items()
}


_RENAMED = {
    part
    for rows in _NAMES.values()
    for theirs, ours in rows
    if theirs != ours
    for part in (ours, *parts_of(ours))
}


class Stem(NamedTuple):
    """A key's stem taken apart: whose layer it is ("" where nothing says it), its name, the dialect."""

    component: str
    name: str
    dialect: str


@lru_cache(1 << 14)
def taken_apart(stem: str) -> Stem:
    """Take the prefixes off a stem; a file may have one twice, or two (``unet.base_model.model.``)."""
    component = dialect = ""
    name, times = stem.replace(".processor.", "."), 0
    while found := next(
        (row for row in PREFIXES if name.startswith(row[0]) and row[1] in ("", component or row[1])), None
    ):
        prefix, whose, how = found
        name = name.removeprefix(prefix)
        dialect = dialect or how
        times += bool(component and whose)
        component = whose or component
        if prefix in _FLAT:
            name = name.removeprefix("_")  # of a module whose wrapper had an empty name
            for again in _DOUBLED.get(component, ()):
                times += name.startswith(again)
                name = name.removeprefix(again)
            name = name.replace("_processor_", "_")
            break
    return Stem(component, name, f"{dialect or 'diffusers'}{' (doubled prefix)' if times else ''}")


def model_of(shapes: Mapping[str, Sequence[int]]) -> str:
    """The model whose authors' names these are ("" if no table has them); name of a layer → (out, in)."""
    flat = {name.replace(".", "_"): shape for name, shape in shapes.items()}
    for model, tell in _TELLS.items():
        found = [(name, shape) for name, shape in flat.items() if re.match(tell, name)]
        if model == "Flux":  # Flux.2 has the same names, and gates its feed-forward
            gated = {r"single_blocks_\d+_linear1$": 9, r"double_blocks_\d+_(img|txt)_mlp_0$": 6}
            if any(
                out == n * width
                for t, n in gated.items()
                for name, (out, width) in found
                if re.match(t, name)
            ):
                return "Flux.2"
        if model == "Z-Image":  # Lumina 2 too, but for the widths of key and value
            found = [item for item in found if not item[0].endswith("_qkv") or item[1][0] == 3 * item[1][1]]
        if found:
            return model
    return ""


def _numbered(name: str) -> tuple[str, str]:
    """``double_blocks.3.img_attn.qkv`` → (``double_blocks.N.img_attn.qkv``, ``3``)."""
    if not (match := _NUMBER.search(name)):
        return name, ""
    return f"{name[: match.start()]}N{name[match.end() :]}", match[0]


def to_diffusers(name: str, model: str) -> str | None:
    """A layer's name in any spelling as diffusers has it, with dots; None where no table has it."""
    flat, number = _numbered(name.replace(".", "_"))
    found = _TO_DIFFUSERS.get(model, {}).get(flat) or _WITH_DOTS.get(flat)
    return found and found.replace(".N.", f".{number}.")


def to_authors(name: str, model: str) -> str | None:
    """The inverse of `to_diffusers`: the model's authors' name, with dots; None where the table has none."""
    row, number = _numbered(name)
    found = _TO_AUTHORS.get(model, {}).get(row)
    return found and found.replace(".N.", f".{number}.")


def renamed(name: str) -> bool:
    """Whether a layer's name in diffusers is one that some model's authors have another for."""
    return _numbered(name)[0] in _RENAMED


def swapped(name: str, out: int, width: int) -> bool:
    """Whether diffusers has a layer's rows as (scale, shift) and its authors as (shift, scale).

    So it is in the last modulation of Flux and SD3, and in that of SD3's last context block.
    """
    return name.endswith(("norm_out.linear", "norm1_context.linear")) and out == 2 * width


def whole_of(name: str, model: str) -> str | None:
    """The fused layer that a model's authors have in place of a layer of diffusers, in diffusers' terms."""
    row, _ = _numbered(name)
    fused = _WHOLE.get(model, {}).get(row)
    return fused and fused.replace(".N.", f".{_numbered(name)[1]}.")
