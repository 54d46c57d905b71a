"""Stand-ins: the real architectures of the public base models, every size as published, random weights.

What a command needs of a machine (memory, time, numbers that stay finite) does not depend on what the weights
say, so that a rehearsal needs no download. The configurations are written here from the models' publications
(SDXL: Podell et al. 2023, arXiv 2307.01952; Stable Diffusion 1.5: Rombach et al. 2022; their text encoders:
CLIP ViT-L/14 and OpenCLIP ViT-bigG/14).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lorarar.pipelines import quiet

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from transformers import CLIPTokenizer

VOCABULARY = 49_408
"""Tokens of CLIP's vocabulary: 256 bytes, the same as ends of words, the merges, a start and an end."""

_SDXL_UNET: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_SD15_UNET: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
_VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
}
_SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
_CLIP_L = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "quick_gelu"}
_CLIP_G = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20, "hidden_act": "gelu"}

KINDS = ("sdxl", "sd15")
"""The scales whose base has a stand-in."""


def tokenizer() -> CLIPTokenizer:
    """Return a CLIP tokenizer with a vocabulary of CLIP's size, made by rule.

    Its merges put letters together to words of two, three and four letters: CLIP's byte-pair encoding at
    work, on pieces that a corpus would have chosen otherwise.
    """
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    letters = ascii_lowercase
    merges = [(a, b) for a, b in product(letters, letters)]
    merges += [(a, f"{b}</w>") for a, b in product(letters, letters)]
    merges += [(a + b, c) for a, b, c in product(letters, repeat=3)]
    merges += [(a + b, f"{c}</w>") for a, b, c in product(letters, repeat=3)]
    room = VOCABULARY - 2 * 256 - 2 - len(merges)
    merges += [(f"{a}{b}{c}", f"{d}</w>") for a, b, c, d in islice(product(letters, repeat=4), room)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(f"{byte}</w>" for byte in alphabet), *("".join(pair) for pair in merges)]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def unet_config(kind: str, size: int) -> dict[str, Any]:
    """Return the UNet's configuration for images of ``size`` pixels a side."""
    known = {"sdxl": _SDXL_UNET, "sd15": _SD15_UNET}
    if kind not in known:
        raise ValueError(f"no stand-in for {kind!r}: choose one of {', '.join(KINDS)}")
    return {**known[kind], "sample_size": size // 8}


def unet(kind: str, size: int, narrow: int = 1) -> nn.Module:
    """Return the UNet, frozen, drawn as its layers begin, in torch's default type and device."""
    with quiet():
        from diffusers import UNet2DConditionModel

        config = unet_config(kind, size)
        return UNet2DConditionModel(**(_narrowed(config, narrow) if narrow > 1 else config)).eval()


def autoencoder(kind: str, size: int, narrow: int = 1) -> nn.Module:
    """Return the autoencoder, likewise."""
    with quiet():
        from diffusers import AutoencoderKL

    widths = tuple(width // narrow for width in _VAE["block_out_channels"])
    vae = {**_VAE, "block_out_channels": widths, "sample_size": size, "norm_num_groups": min(32, widths[0])}
    return AutoencoderKL(**vae, scaling_factor=0.13025 if kind == "sdxl" else 0.18215).eval()


def models(kind: str, size: int, narrow: int = 1) -> dict[str, nn.Module]:
    """Return all networks of a base by the names that a pipeline gives them; arguments as in `build`."""
    network = unet(kind, size, narrow)
    with quiet():
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    def text(sizes: dict[str, Any]) -> CLIPTextConfig:
        width, heads = sizes["hidden_size"] // narrow, max(1, sizes["num_attention_heads"] // narrow)
        made = {**sizes, "hidden_size": width, "num_attention_heads": heads, "intermediate_size": 4 * width}
        if narrow > 1:
            made["num_hidden_layers"] = 2
        ids = {"bos_token_id": VOCABULARY - 2, "eos_token_id": VOCABULARY - 1, "pad_token_id": VOCABULARY - 1}
        return CLIPTextConfig(vocab_size=VOCABULARY, projection_dim=width, **made, **ids)

    found: dict[str, nn.Module] = {
        "vae": autoencoder(kind, size, narrow),
        "text_encoder": CLIPTextModel(text(_CLIP_L)),
    }
    if kind == "sdxl":
        found["text_encoder_2"] = CLIPTextModelWithProjection(text(_CLIP_G))
    return {**{name: model.eval() for name, model in found.items()}, "unet": network}


def build(
    kind: str,
    size: int,
    *,
    narrow: int = 1,
    dtype: torch.dtype = torch.float16,
    seed: int = 0,
) -> DiffusionPipeline:
    """Build a base model with random weights, as each layer of the libraries begins.

    Args:
        kind: one of `KINDS`.
        size: the images' side in pixels, which only the configuration remembers.
        narrow: divides every width, and leaves one transformer block where there are more: a miniature of the
            same layout, for tests.
        dtype: of the weights; they are never in a wider one.
        seed: of the weights.

    Raises:
        ValueError: there is no stand-in of that kind.
    """
    with drawn(dtype, seed):
        networks = models(kind, size, narrow)
    words = tokenizer()
    with quiet():
        from diffusers import (
            EulerDiscreteScheduler,
            PNDMScheduler,
            StableDiffusionPipeline,
            StableDiffusionXLPipeline,
        )
    if kind == "sdxl":
        scheduler = EulerDiscreteScheduler(**_SCHEDULE, timestep_spacing="leading")
        more = {"tokenizer_2": words, "add_watermarker": False}
        return StableDiffusionXLPipeline(**networks, tokenizer=words, **more, scheduler=scheduler)
    scheduler = PNDMScheduler(**_SCHEDULE, skip_prk_steps=True, set_alpha_to_one=False)
    more = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return StableDiffusionPipeline(**networks, tokenizer=words, **more, scheduler=scheduler)


def write(kind: str, folder: Path, size: int, **options: Any) -> int:
    """Write a stand-in (see `build`) in diffusers' layout. Returns how many parameters its UNet has."""
    pipe = build(kind, size, **options)
    with quiet():
        pipe.save_pretrained(folder)
    return sum(parameter.numel() for parameter in pipe.unet.parameters())


def _narrowed(config: dict[str, Any], by: int) -> dict[str, Any]:
    """Return a UNet's configuration with every width divided, and shallow transformers."""
    made = {**config, "block_out_channels": tuple(c // by for c in config["block_out_channels"])}
    made |= {"cross_attention_dim": config["cross_attention_dim"] // by}
    made["norm_num_groups"] = made["block_out_channels"][0]
    heads = config["attention_head_dim"]
    made["attention_head_dim"] = tuple(max(1, h // by) for h in heads) if isinstance(heads, tuple) else 1
    if "addition_time_embed_dim" in config:
        made["transformer_layers_per_block"] = 1
        made["addition_time_embed_dim"] = config["addition_time_embed_dim"] // by
        made["projection_class_embeddings_input_dim"] = config["projection_class_embeddings_input_dim"] // by
    return made


@contextmanager
def drawn(dtype: torch.dtype, seed: int) -> Iterator[None]:
    """Let modules be made in a type, from a seed; then leave both as they were."""
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
