"""The miniatures' architectures: SDXL's parts, each the same class as the original, in small.

Nothing here is trained; `train.py` does that and writes folders that the libraries read on their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from lorarar.shoebox.world.drawing import MARKINGS
from lorarar.shoebox.world.scene import COLOUR_NAMES, SIZE
from lorarar.shoebox.world.styles import FAMILIES
from lorarar.shoebox.world.subjects import CLASSES
from lorarar.shoebox.world.world import RARE_TOKENS

TOKENS = 20
"""Longest caption in tokens, start and end included (CLIP's own is 77)."""
LATENT = SIZE // 4
"""Side of a latent: the VAE reduces four times (SDXL's eight times)."""
PROJECTION = 64
"""Width of CLIP's joint space, and of the pooled text embedding the UNet is given."""
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
"""Normalisation of images before CLIP: to [-1, 1]."""


def tokenizer(corpus: Iterable[str]) -> CLIPTokenizer:
    """Build a CLIP tokenizer whose words are single tokens: byte pairs merged until each word is whole.

    The words are those of `corpus`, classes, families, markings, colours and rare tokens, in alphabetical
    order: the same words give the same tokens. Any other falls back to shorter pieces, in the end to bytes.
    """
    named = [*CLASSES, *FAMILIES, *MARKINGS, *COLOUR_NAMES, *RARE_TOKENS, "in style", "a photo of an and"]
    words = {word for text in (*named, *corpus) for word in re.findall("[a-z]+", text.lower())}
    merges: dict[tuple[str, str], str] = {}  # in order of rank
    for word in sorted(words):
        pieces = [*word[:-1], word[-1] + "</w>"]
        for (left, right), whole in merges.items():
            i = 0
            while i < len(pieces) - 1:
                if pieces[i] == left and pieces[i + 1] == right:
                    pieces[i : i + 2] = [whole]
                i += 1
        while len(pieces) > 1:
            merges[pieces[0], pieces[1]] = whole = pieces[0] + pieces[1]
            pieces[:2] = [whole]
    # CLIP's order: every byte, every byte as the end of a word, what is merged, the special tokens.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|startoftext|>", "<|endoftext|>"]
    ordered = [*alphabet, *(byte + "</w>" for byte in alphabet), *merges.values(), *special]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(ordered))}
    return CLIPTokenizer(vocab=vocabulary, merges=list(merges), model_max_length=TOKENS)


def text_config(words: CLIPTokenizer, width: int, layers: int) -> CLIPTextConfig:
    """Configure a text tower of CLIP for the tokenizer `words`."""
    return CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        max_position_embeddings=TOKENS,
        projection_dim=PROJECTION,
        hidden_act="gelu",
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )


def clip(words: CLIPTokenizer) -> CLIPModel:
    """Build CLIP in miniature: a ViT on 8 × 8 patches and a text tower, about a million parameters."""
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=8,
        projection_dim=PROJECTION,
        hidden_act="gelu",
    )
    text = text_config(words, 64, 3)
    return CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=PROJECTION)
    )


def second_text_encoder(words: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """Build SDXL's second, wider text encoder in miniature."""
    return CLIPTextModelWithProjection(text_config(words, 96, 3))


def image_processor() -> CLIPImageProcessor:
    """Build the processor that brings any image to CLIP's input, (3, SIZE, SIZE) in [-1, 1]."""
    return CLIPImageProcessor(
        size={"height": SIZE, "width": SIZE}, do_center_crop=False, image_mean=MEAN, image_std=STD
    )


def vae(channels: tuple[int, ...] = (16, 32, 64), latents: int = 16) -> AutoencoderKL:
    """Build the autoencoder: (3, 64, 64) to (16, 16, 16) and back."""
    depth = len(channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=latents,
        norm_num_groups=8,
        sample_size=SIZE,
        mid_block_add_attention=False,
        scaling_factor=1.0,
        force_upcast=False,
    )


@torch.no_grad()
def sensitivity(autoencoder: AutoencoderKL, latents: Tensor) -> Tensor:
    """Measure how far pixels move with a latent: M = E[JᵀJ], (channels, channels), J the decoder's Jacobian.

    A step d of one latent vector changes the picture by √(dᵀMd), as a sum over pixels and colours.
    latents: (n, channels, h, w).
    """
    n, channels, height, width = latents.shape
    total = torch.zeros(channels, channels, device=latents.device)
    places = torch.zeros(height, width, device=latents.device)
    places[1::4, 1::4] = 0.05  # far enough apart that what they change does not overlap
    for some in latents.split(32):
        changes = []
        for channel in range(channels):
            step = torch.zeros_like(some)
            step[:, channel] = places
            change = autoencoder.decode(some + step).sample - autoencoder.decode(some - step).sample
            changes.append(change.flatten() / 0.1)
        changes = torch.stack(changes)
        total += changes @ changes.T
    return total / (n * (places > 0).sum())


@torch.no_grad()
def align(autoencoder: AutoencoderKL, latents: Tensor) -> list[float]:
    """Turn the latents into channels in the order of what they show: colour and light first, texture last.

    The channels are uncorrelated, and each direction that shows in pictures gets unit variance: from channels
    that are as large as what they show, the UNet learns to remove noise far more slowly. Directions that
    hardly show, some of which a light KL term leaves in every autoencoder, get a tenth of it, so that their
    errors do not count. The 1 × 1 convolutions on either side of the latents take the change up exactly, the
    decoded pictures stay; diffusers' SDXL pipeline would read `latents_mean` of a config for four channels
    only. latents: a sample (n, channels, h, w). Returns how much each channel shows: the standard deviation
    it gives to pictures, as a share of the first one's.
    """
    both, back = autoencoder.quant_conv, autoencoder.post_quant_conv
    channels = latents.shape[1]
    flat = latents.double().permute(1, 0, 2, 3).flatten(1)
    mean, covariance = flat.mean(1), torch.cov(flat)
    metric = sensitivity(autoencoder, latents[:256]).double()
    metric += 1e-4 * metric.diagonal().mean() * torch.eye(channels).to(metric)
    # M = RRᵀ makes y = Rᵀz a picture's distance; the eigenvectors of y's covariance are the channels.
    root = torch.linalg.cholesky(metric)
    variance, axes = torch.linalg.eigh(root.T @ covariance @ root)
    shown, axes = variance.flip(0).sqrt(), axes.flip(1)
    size = torch.where(shown > 0.005 * shown[0], 1.0, 0.1)
    turn = (size / shown)[:, None] * axes.T @ root.T
    undo = torch.linalg.inv(turn)
    weight, bias = both.weight[:, :, 0, 0].double(), both.bias.double()
    back.bias += (back.weight[:, :, 0, 0].double() @ mean).to(back.bias)
    back.weight[:, :, 0, 0] = (back.weight[:, :, 0, 0].double() @ undo).to(back.weight)
    both.weight[:channels, :, 0, 0] = (turn @ weight[:channels]).to(both.weight)
    both.bias[:channels] = (turn @ (bias[:channels] - mean)).to(both.bias)
    # Variances of the posterior are told only up to what a turn leaves diagonal: keep their mean.
    spread = torch.linalg.vector_norm(turn, dim=1).square().log()
    both.weight[channels:, :, 0, 0] = weight[channels:].mean(0).expand(channels, -1).to(both.weight)
    both.bias[channels:] = (bias[channels:].mean() + spread).to(both.bias)
    return [round(float(v), 4) for v in shown / shown[0]]


def unet(
    context: int,
    channels: tuple[int, ...] = (64, 128, 192),
    layers: tuple[int, ...] = (1, 1, 1),
    latents: int = 16,
) -> UNet2DConditionModel:
    """Build SDXL's UNet in miniature: no attention at full size, transformers below, size and crop as input.

    context: width of the two text encoders' hidden states side by side.
    """
    depth = len(channels)
    time_width = 32
    return UNet2DConditionModel(
        sample_size=LATENT,
        in_channels=latents,
        out_channels=latents,
        block_out_channels=channels,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (depth - 1),
        up_block_types=("CrossAttnUpBlock2D",) * (depth - 1) + ("UpBlock2D",),
        layers_per_block=1,
        transformer_layers_per_block=layers,
        attention_head_dim=tuple(c // 32 for c in channels),
        cross_attention_dim=context,
        use_linear_projection=True,
        norm_num_groups=16,
        addition_embed_type="text_time",
        addition_time_embed_dim=time_width,
        projection_class_embeddings_input_dim=6 * time_width + PROJECTION,
    )


def scheduler() -> DDIMScheduler:
    """Build the noise schedule: v-prediction, zero terminal SNR, trailing steps (Lin et al. 2024)."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )


def pipeline(
    autoencoder: AutoencoderKL,
    first: CLIPTextModel,
    second: CLIPTextModelWithProjection,
    words: CLIPTokenizer,
    network: UNet2DConditionModel,
) -> StableDiffusionXLPipeline:
    """Put the miniatures together as the pipeline class that runs SDXL."""
    return StableDiffusionXLPipeline(
        vae=autoencoder,
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=words,
        tokenizer_2=words,
        unet=network,
        scheduler=scheduler(),
        add_watermarker=False,
    )


def time_ids(n: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Size, crop and target size as SDXL's UNet is told them: (n, 6), here always the full square."""
    return torch.tensor([[SIZE, SIZE, 0, 0, SIZE, SIZE]], dtype=torch.float32, device=device).repeat(n, 1)
