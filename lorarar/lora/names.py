"""Names of layers: what every dialect calls them, read and written."""

import re
from functools import lru_cache

from lorarar.lora.base import GUESS
from lorarar.lora.spellings import (
    DENOISER,
    FLAT_DIALECTS,
    OWN_NAMES,
    renamed,
    taken_apart,
    to_authors,
    to_diffusers,
)

# Every key is a stem (whose layer, `taken_apart`) and a part: one of a LoRA's or of LyCORIS', or what a LoRA
# file may hold beside its factors (``extra``).
_PART = re.compile(
    r"\.lora_(?P<peft>[AB])(?:(?:\.\w+)?\.weight)?$"  # with the adapter's name in a raw state dict
    r"|(?:[._]lora|\.lora_linear_layer|(?<=_lora[12]))\.(?P<diffusers>up|down)\.weight$"
    r"|[._]lora_(?P<kohya>up|down|mid)\.weight$"
    r"|(?:[._]lora|\.lora_linear_layer)?\.(?P<alpha>alpha)$"
    r"|\.(?P<lycoris>hada_w[12]_[ab]|hada_t[12]|lokr_w[12](?:_[ab])?|lokr_t2)$"
    r"|\.(?P<extra>diff|diff_b|[wb]_norm|set_weight|reshape_weight|(?:lora_[AB](?:\.\w+)?|lora(?:\.|_)(?:up|down))\.bias)$"
)
PEFT_PARTS = {"A": "down", "B": "up"}


def part_of(key: str) -> re.Match[str] | None:
    """The part at the end of a key; None for a key that is not of a LoRA file."""
    return _PART.search(key, max(0, len(key) - 40)) or _PART.search(
        key
    )  # from near the end: six times as fast


# Module names that hold an underscore themselves: kohya writes "_" for "." too, and these undo it.
_COMPOUND = (
    "single_transformer_blocks|transformer_blocks|down_blocks|up_blocks|mid_block|to_q|to_k|to_v|to_out|"
    "to_add_out|add_q_proj|add_k_proj|add_v_proj|proj_in|proj_out|proj_mlp|ff_context|conv_in|conv_out|"
    "conv_shortcut|time_emb_proj|time_embedding|add_embedding|linear_1|linear_2|norm1_context|norm_out|"
    "context_embedder|x_embedder|time_text_embed|timestep_embedder|text_embedder|guidance_embedder|"
    "text_model|self_attn|q_proj|k_proj|v_proj|out_proj|text_projection|wi_0|wi_1"
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
    r"(down_blocks|up_blocks|mid_block|conv_in|conv_out|time_embedding[._]linear|add_embedding|class_embedding"
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
def _unet_name(name: str) -> tuple[str, str] | None:
    """(diffusers' name, how its blocks are spelled) of a UNet's layer in any spelling; None if it is none."""
    if sgm := _from_sgm(name.replace(".", "_")):
        return sgm, "sgm block names"
    if not re.match(_UNET, name):
        return None
    name = name if "." in name else _words(name)
    return re.sub(r"\.to_out$", ".to_out.0", name), "diffusers block names"


def name_in_transformer(stem: str) -> str:
    """The name of a transformer's layer in its own spelling; "" for a layer of anything else."""
    component, name, _ = taken_apart(stem)
    return name if component in ("", DENOISER) and not _unet_name(name) else ""


@lru_cache(1 << 14)
def layer_of(stem: str, model: str = "") -> tuple[str, str] | None:
    """(layer, dialect) of a key without its last part; None for what is no name of a layer.

    ``model`` is the one whose authors' names the file has (`spellings.model_of`). What no table knows keeps
    its own name: ``transformer.`` and that, with underscores for the dots if the file has it so.
    """
    component, name, dialect = taken_apart(stem)
    flat = dialect.startswith(FLAT_DIALECTS)
    if (
        not re.fullmatch(r"[\w-]+(\.[\w-]+)*", name)
        or (flat and "__" in f"_{name}_")
        or name.startswith("lora_")
    ):
        return None  # an empty word, which `_words` would not see, or a prefix that nobody is known to write
    if component == "text_encoders":
        return stem, dialect
    if not component and re.match(r"(text_model|encoder\.layers)\.", name):
        component = "text_encoder"
    if not component and re.match(r"encoder\.block\.\d", name):
        component = "text_encoder_3"
    if component.startswith("text_encoder"):
        if "." not in name and re.match(r"(text_model_)?encoder_(layers|block)_\d|text_projection", name):
            name = _words(name)  # of CLIP or T5; another encoder's words are not known
        name = re.sub(r"\.self_attn\.to_([qkv])$", r".self_attn.\1_proj", name)
        name = re.sub(r"\.self_attn\.to_out$", ".self_attn.out_proj", name)
        # transformers 5 dropped a level that all older files have.
        name = re.sub(r"^encoder\.layers\.", "text_model.encoder.layers.", name)
        if name.startswith("encoder.block.") and model == "Flux":  # T5: Flux's second encoder, SD3's third
            component = "text_encoder_2"
        return f"{component}.{name}", dialect
    if unet := _unet_name(name):
        return f"unet.{unet[0]}", f"{dialect} ({unet[1]})" if flat else dialect
    known = to_diffusers(re.sub(r"^(transformer_blocks\W.*\.to_out)$", r"\1.0", name), model)
    if flat:
        block = "own" if not known else "diffusers" if known.replace(".", "_") == name else "original"
        dialect = f"{dialect} ({block} block names)"
    return f"transformer.{known or name}", dialect


def kohya_name(layer: str, base: str) -> str | None:
    """The kohya spelling: sgm block names for SDXL, its authors' for a transformer, else the module's own."""
    component, _, name = layer.partition(".")
    base = base.removesuffix(GUESS)
    if component == "unet":
        spelled = _to_sgm(name) if base.startswith("SDXL") else name.replace(".", "_")
        return spelled and f"lora_unet_{spelled}"
    if component == "transformer":
        spelled = authors_name(name, base)
        return spelled and f"lora_unet_{spelled.replace('.', '_')}"
    if component == "text_encoders":  # ComfyUI's own name, which it reads beside kohya's
        return layer
    number = {"text_encoder": "1", "text_encoder_2": "2", "text_encoder_3": "3"}.get(component)
    if number and name.startswith("encoder.block."):  # T5, in Flux too (sd-scripts)
        number = "3"
    elif number and base.startswith(("SD 1", "SD 2")):  # they have one text encoder
        number = ""
    return None if number is None else f"lora_te{number}_{name.replace('.', '_')}"


def authors_name(name: str, base: str) -> str | None:
    """A transformer's layer as its authors call it; a layer that no table has keeps its name.

    None where diffusers has renamed the layer and the model, so its authors' name, is not known.
    """
    return to_authors(name, base) or (None if renamed(name) and base not in OWN_NAMES else name)
