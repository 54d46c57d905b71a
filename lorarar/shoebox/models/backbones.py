"""Other backbones in miniature, KOALA and SD 1.5, each begun from the weights of the shoebox's base.

Nothing here is trained; `distillation.py` does that.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from lorarar.pipelines import quiet
from lorarar.shoebox.models import architectures
from lorarar.shoebox.models.loop import tokens
from lorarar.shoebox.world import styles, subjects, world

HEADS = 4
"""Heads of every attention of the SD 1.5 miniature: SD 1.5 has one number for all widths, SDXL one width."""

Pipeline = StableDiffusionXLPipeline | StableDiffusionPipeline


@torch.no_grad()
def inherit(network: nn.Module, base: nn.Module) -> list[str]:
    """Copy into `network` what `base` has under the same name; return the names of all that it has not.

    A matrix may become a convolution of one pixel, and one that reads a shorter input is cut to it.
    """
    known, missing = base.state_dict(), []
    for name, value in network.state_dict().items():
        if name not in known:
            missing.append(name)
        elif known[name].numel() == value.numel():
            value.copy_(known[name].view_as(value))
        else:
            value.copy_(known[name][tuple(slice(size) for size in value.shape)])
    return missing


def koala(base: StableDiffusionXLPipeline) -> StableDiffusionXLPipeline:
    """Build KOALA-700M's kind of UNet (Lee et al. 2024, arXiv 2312.04005): SDXL's with fewer blocks.

    The middle block is gone, and on the way up the transformer of every stage's second layer. All that stays
    has the base's weights, and everything but the UNet is the base's own.
    """
    depth = len(base.unet.config.block_out_channels)
    config = dict(base.unet.config) | {
        "mid_block_type": None,
        "transformer_layers_per_block": [1] * depth,
        "reverse_transformer_layers_per_block": [[1, 0]] * (depth - 1) + [1],
    }
    network = UNet2DConditionModel.from_config(config)
    inherit(network, base.unet)
    parts = (base.vae, base.text_encoder, base.text_encoder_2, base.tokenizer)
    return architectures.pipeline(*parts, network)


def sd15(base: StableDiffusionXLPipeline) -> StableDiffusionPipeline:
    """Build SD 1.5's kind of pipeline (Rombach et al. 2022): one text encoder, and words in attention alone.

    Attention stands in all stages but the lowest, with convolutions around it and `HEADS` heads. It begins
    with the base's weights where the base has them: cross-attention is cut to the first text encoder, what
    the base is told of size and crop, with no words, goes into the time's bias, and new attention is silent.
    """
    old = base.unet.config
    config = dict(old) | {
        "down_block_types": ["CrossAttnDownBlock2D"] * (len(old.block_out_channels) - 1) + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * (len(old.block_out_channels) - 1),
        "transformer_layers_per_block": 1,
        "attention_head_dim": HEADS,
        "use_linear_projection": False,
        "cross_attention_dim": base.text_encoder.config.hidden_size,
        "addition_embed_type": None,
        "addition_time_embed_dim": None,
        "projection_class_embeddings_input_dim": None,
    }
    network = UNet2DConditionModel.from_config(config)
    missing = inherit(network, base.unet)
    with torch.no_grad():
        for name in missing:
            if ".proj_out." in name:
                network.get_parameter(name).zero_()
        network.time_embedding.linear_2.bias += _unsaid(base)
    with quiet():  # a notice on steps_offset, which trailing steps have no use for
        return StableDiffusionPipeline(
            vae=base.vae,
            text_encoder=shorter(base.text_encoder, base.tokenizer),
            tokenizer=base.tokenizer,
            unet=network,
            scheduler=architectures.scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


KINDS: dict[str, Callable[[StableDiffusionXLPipeline], Pipeline]] = {"koala": koala, "sd15": sd15}
"""Backbones by name."""
TITLES = {"koala": "KOALA in miniature", "sd15": "SD 1.5 in miniature"}


def begun(kind: str, base: StableDiffusionXLPipeline) -> Pipeline:
    """Build a backbone before its training. Raises `ValueError` for a kind that there is not."""
    if kind not in KINDS:
        raise ValueError(f"no backbone {kind!r}: choose one of {', '.join(KINDS)}")
    return KINDS[kind](base)


def _unsaid(base: StableDiffusionXLPipeline) -> Tensor:
    """Return what the base adds to the time's embedding where no words are given: (width,)."""
    unet = base.unet
    ids = architectures.time_ids(1, unet.device)
    sizes = unet.add_time_proj(ids.flatten()).view(1, -1).to(unet.dtype)
    pooled = sizes.new_zeros(1, base.text_encoder_2.config.projection_dim)
    return unet.add_embedding(torch.cat([pooled, sizes], -1))[0]


@torch.no_grad()
def shorter(encoder: CLIPTextModel, words: CLIPTokenizer) -> CLIPTextModel:
    """Return a text encoder that ends where SDXL reads this one: one layer before the last.

    SD 1.5 reads behind the last normalisation. Its weights are those that make it the least, over the prompts
    of all classes and families: by least squares for each channel.
    """
    config = type(encoder.config)(**encoder.config.to_dict())
    config.num_hidden_layers -= 1
    short = CLIPTextModel(config)
    inherit(short, encoder)
    prompts = [[world.prompt(c, f)] for c in subjects.CLASSES for f in styles.FAMILIES]
    ids = tokens(words, prompts)[:, 0]
    wanted = encoder(ids, output_hidden_states=True).hidden_states[-2].flatten(0, 1)
    plain = nn.functional.layer_norm(wanted, wanted.shape[-1:])
    last = short.get_submodule("text_model" if hasattr(short, "text_model") else "").final_layer_norm
    slope = ((plain - plain.mean(0)) * (wanted - wanted.mean(0))).mean(0) / plain.var(0, correction=0)
    last.weight.copy_(slope)
    last.bias.copy_(wanted.mean(0) - slope * plain.mean(0))
    return short.eval()
