"""Which base model an adapter is for: what its layers show, what its file says, and where that is a guess.

Shapes and names of layers decide where they can: attention to a text 768, 1024 or 2048 wide is Stable
Diffusion 1, 2 or XL; SD3's blocks have names of their own. Then counts what the file says: in its metadata
(sd-scripts' ``ss_base_model_version``, Stability AI's ``modelspec.architecture``), and in its spelling
(``lora_te_`` is for a base with one text encoder; kohya's trainer has the original block names for SDXL
alone). What only leans one way is called a guess.
"""

import re
from collections.abc import Mapping

from torch import Tensor

Pairs = Mapping[str, tuple[Tensor, Tensor]]

GUESS = " (a guess)"
ONE_TEXT_ENCODER = "kohya (one text encoder)"
"""The dialect of ``lora_te_``, which only a base with one text encoder has."""
ORIGINAL_BLOCKS = "kohya (sgm block names)"
"""The dialect of ``lora_unet_input_blocks_…``, which kohya's trainer writes for SDXL alone."""

SD_1, SD_2, SD, SDXL, KOALA = "SD 1.x", "SD 2.x", "SD 1.x or 2.x", "SDXL", "KOALA"
SD3, FLUX, UNKNOWN, UNKNOWN_UNET = "SD3", "Flux", "unknown transformer", "unknown UNet"

# What the metadata of trainers say, and whom they mean.
_SAID = (
    (r"koala", KOALA),
    (r"sdxl|stable-diffusion-xl", SDXL),
    (r"sd3|stable-diffusion-3", SD3),
    (r"sd_?v?2|stable-diffusion-v2", SD_2),
    (r"sd_?v?1|stable-diffusion-v1", SD_1),
    (r"flux\.?-?1(?!\d)", FLUX),
)


def base_of(pairs: Pairs, dialect: str = "", metadata: Mapping[str, str] | None = None) -> str:
    """The base model's name: ``SDXL``, ``SD 1.x``, ``Flux (a guess)``, ``unknown transformer``, …"""
    said = said_by(metadata or {})
    components = {layer.partition(".")[0] for layer in pairs}
    if any(re.match(r"\w+\.joint_blocks[._]\d", layer) for layer in pairs):
        return SD3
    if any(re.match(r"\w+\.((double|single)_blocks|single_transformer_blocks)[._]\d", n) for n in pairs):
        return said or FLUX + GUESS
    if "unet" in components:
        return _unet(pairs, dialect, said)
    if components <= {"text_encoder", "text_encoder_2", "text_encoder_3"}:
        return said or _text_encoders(pairs, dialect)
    return said or _transformer(pairs)


def said_by(metadata: Mapping[str, str]) -> str:
    """The base model that a file's metadata names, in its own words where it is none of ours, or nothing."""
    version = str(metadata.get("ss_base_model_version", "")).lower()
    architecture = str(metadata.get("modelspec.architecture", "")).lower().partition("/")[0]
    for text in (version, architecture):
        for pattern, base in _SAID:
            if re.match(pattern, text):
                return base
    if metadata.get("ss_v2") == "True":
        return SD_2
    return (version or architecture)[:40]


def _widths(pairs: Pairs, pattern: str, which: int = 1) -> set[int]:
    """Input columns (or, with ``which`` 0, output rows) of the layers whose names match."""
    return {pair[which].shape[which] for layer, pair in pairs.items() if re.search(pattern, layer)}


def _only(numbers: set[int]) -> int:
    """The one number there is; 0 for none or several."""
    return min(numbers) if len(numbers) == 1 else 0


def _unet(pairs: Pairs, dialect: str, said: str) -> str:
    unet = [layer for layer in pairs if layer.startswith("unet.")]
    text = _widths(pairs, r"^unet\..*attn2\.to_[kv]$")
    if text and text != {2048}:
        return {768: SD_1, 1024: SD_2}.get(
            _only(text), f"UNet for text {' and '.join(map(str, sorted(text)))} wide"
        )
    four_levels = r"unet\.((down|up)_blocks\.3|down_blocks\.(0\.attentions|2\.downsamplers))\."
    if not text and any(re.match(four_levels, layer) for layer in unet):
        return said if said in (SD_1, SD_2) else _one_text_encoder(pairs)
    deep = any(re.search(r"transformer_blocks\.[1-9]", layer) for layer in unet)
    if text or deep or ORIGINAL_BLOCKS in dialect or any("unet.add_embedding" in layer for layer in unet):
        return _koala(unet) or (KOALA if said == KOALA else SDXL)
    if said:
        return said
    if ONE_TEXT_ENCODER in dialect:
        return _one_text_encoder(pairs)
    if any(layer.startswith("text_encoder_2.") for layer in pairs):
        return SDXL
    # The second level from below gives 640 channels in SDXL, 1280 in SD 1 and 2.
    channels = _widths(pairs, r"^unet\.up_blocks\.1\.resnets\.\d\.(conv1|conv2|conv_shortcut)$", 0)
    return {640: SDXL + GUESS, 1280: SD + GUESS}.get(_only(channels), UNKNOWN_UNET)


def _koala(unet: list[str]) -> str:
    """KOALA, where all its attention is there and nothing that only SDXL has; else nothing.

    It is SDXL with one residual layer per block instead of two, and with 5 or 6 instead of 10 transformer
    blocks at the lowest level (Lee et al. 2023, arXiv 2312.04005, table 2).
    """
    found = {m[1] for layer in unet if (m := re.match(r"unet\.(\w+\.\d\.attentions\.\d)\.", layer))}
    lowest = r"unet\.(?:down_blocks\.2|mid_block|up_blocks\.0)\.attentions\.\d\.transformer_blocks\.(\d+)"
    depth = max((int(m[1]) for layer in unet if (m := re.match(lowest, layer))), default=-1)
    whole = {f"down_blocks.{i}.attentions.0" for i in (1, 2)}
    whole |= {f"up_blocks.{i}.attentions.{j}" for i in (0, 1) for j in (0, 1)}
    return KOALA if found == whole and depth in (4, 5) else ""


def _one_text_encoder(pairs: Pairs) -> str:
    """SD 1 or 2 by the width of the text encoder, 768 or 1024, where a layer of it is there."""
    widths = _widths(pairs, r"^text_encoder\..*\.([qkv]_proj|fc1)$")
    return {768: SD_1, 1024: SD_2}.get(_only(widths), SD)


def _text_encoders(pairs: Pairs, dialect: str) -> str:
    if ONE_TEXT_ENCODER in dialect:
        return _one_text_encoder(pairs)
    return "text encoder"


def _transformer(pairs: Pairs) -> str:
    """By names and widths that one model family has; most others have ``transformer_blocks`` too."""
    if any(re.search(r"\.(img|txt)_(mlp|mod)\.", layer) for layer in pairs):
        return "Qwen-Image" + GUESS
    width = _widths(pairs, r"^transformer\.transformer_blocks\.\d+\.attn\.(to_[qkv]|add_[qkv]_proj)$")
    joint = any(re.search(r"\.(add_[qkv]_proj|to_add_out|ff_context|norm1_context)", n) for n in pairs)
    if joint and width in ({1536}, {2432}):
        return SD3
    return FLUX + GUESS if joint and width == {3072} else UNKNOWN


def is_vague(base: str) -> bool:
    """Whether two adapters may have this base and yet be of different models."""
    return base == "text encoder" or base.endswith(GUESS) or " or " in base or "unknown" in base
