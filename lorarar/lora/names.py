"""Names of layers: what every dialect calls them, to and fro."""

import re
from collections.abc import Mapping
from functools import lru_cache

from torch import Tensor

# Names. Every dialect's key is a layer's name and a part: "up", "down" or "alpha" (or a part of LoHa, LoKr).
_COMPONENTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
_KOHYA_COMPONENT = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
}
PART = re.compile(
    r"\.lora_(?P<peft>[AB])(?:\.\w+)?\.weight$"  # peft; with the adapter's name in a raw state dict
    r"|(?:[._]lora|\.lora_linear_layer)\.(?P<diffusers>up|down)\.weight$"
    r"|\.lora_(?P<kohya>up|down)\.weight$"
    r"|(?:[._]lora|\.lora_linear_layer)?\.(?P<alpha>alpha)$"
    r"|\.(?P<lycoris>hada_w[12]_[ab]|lokr_w[12](?:_[ab])?)$"
)
PEFT_PARTS = {"A": "down", "B": "up"}

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
def layer_of(stem: str) -> tuple[str, str] | None:
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


def kohya_name(layer: str, base: str) -> str | None:
    """The kohya spelling: sgm block names for SDXL, the module's own for every other base."""
    component, _, name = layer.partition(".")
    if component == "unet":
        spelled = _to_sgm(name) if base.startswith("SDXL") else name.replace(".", "_")
        return spelled and f"lora_unet_{spelled}"
    number = {"text_encoder": "1", "text_encoder_2": "2", "text_encoder_3": "3"}.get(component)
    if number and base.startswith(("SD 1", "SD 2")):  # they have one text encoder
        number = ""
    return None if number is None else f"lora_te{number}_{name.replace('.', '_')}"


def base_of(lora: Mapping[str, tuple[Tensor, Tensor]]) -> str:
    """Return the name of the base model whose layers an adapter holds, such as SDXL or 'SD 1.x'."""
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
