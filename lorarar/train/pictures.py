"""Images and captions that a LoRA learns from, encoded once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps

from lorarar.images import Images, read_images

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Concept = tuple[Images, str | Sequence[str]]


def read_captions(file: str | Path, names: Sequence[str]) -> list[str]:
    """Read one caption per image from a ``metadata.jsonl``: lines of ``{"file_name": …, "text": …}``.

    Raises ValueError if a line is malformed or an image of ``names`` has no caption.
    """
    captions: dict[str, str] = {}
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the captions {file}: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                entry = json.loads(line)
                captions[entry["file_name"]] = entry["text"]
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f'{file}, line {number}: expected {{"file_name": "…", "text": "…"}}, found {line[:80]!r}'
                ) from error
    missing = [name for name in names if not isinstance(captions.get(name), str)]
    if missing:
        raise ValueError(
            f"{file} has no caption for {missing[0]}" + f" and {len(missing) - 1} more" * (len(missing) > 1)
        )
    return [captions[name] for name in names]


@dataclass(frozen=True)
class Encoded:
    """A data set as the UNet sees it, computed once: the frozen encoders never run in the training loop.

    ``latents`` (n, c, h, w), normalised; ``text`` (p, tokens, width) and ``pooled`` (p, width) of the p
    different prompts; ``prompt`` (n,) says which is whose; ``time_ids`` (n, 6): original height and width,
    crop's top and left, target height and width. ``pooled`` and ``time_ids`` are None for SD 1.5, which has
    no such inputs. ``share`` (n,) is the probability with which an image is drawn, ``weight`` the factor of
    this set's loss.
    """

    latents: torch.Tensor
    text: torch.Tensor
    pooled: torch.Tensor | None
    prompt: torch.Tensor
    time_ids: torch.Tensor | None
    share: torch.Tensor
    weight: float = 1.0


def square(image: Image.Image, size: int) -> tuple[Image.Image, list[int]]:
    """Scale the shorter side to ``size`` and cut out the middle.

    Returns the image and its SDXL time ids. The original size is capped at ``size``: beyond that it says
    nothing about sharpness, and a base model that only knows one size has never seen more.
    """
    width, height = image.size
    factor = size / min(width, height)
    w, h = max(size, round(width * factor)), max(size, round(height * factor))
    left, top = (w - size) // 2, (h - size) // 2
    if (w, h) != (width, height):
        image = image.resize((w, h), Image.Resampling.LANCZOS)
    crop = image.crop((left, top, left + size, top + size))
    return crop, [min(height, size), min(width, size), top, left, size, size]


@torch.no_grad()
def encode_images(pipe: DiffusionPipeline, images: Sequence[Image.Image]) -> torch.Tensor:
    """Encode square images into the latents the UNet works on.

    The mean of the autoencoder's posterior is taken, whose spread is far below the noise that training adds.

    Returns:
        (n, c, h, w) float32 on the pipeline's device, normalised by the autoencoder's own statistics and
        scale.
    """
    vae, where = pipe.vae, pipe.unet.device
    config, dtype = vae.config, vae.dtype
    if config.latents_mean is not None and config.latents_std is not None:
        mean, std = (
            torch.tensor(s, device=where)[:, None, None] for s in (config.latents_mean, config.latents_std)
        )
    else:
        mean, std = 0.0, 1.0
    vae.float()  # SDXL's autoencoder overflows in float16; float16 to float32 and back loses nothing
    latents = []
    for image in images:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]  # (1, 3, size, size)
        z = vae.encode(pixels.to(where, torch.float32) / 127.5 - 1).latent_dist.mean
        latents.append((z - mean) / std * config.scaling_factor)
    vae.type(dtype)
    return torch.cat(latents)


@torch.no_grad()
def encode_prompts(
    pipe: DiffusionPipeline, prompts: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the text embeddings (p, tokens, width) and, for SDXL, the pooled ones (p, width), else None."""
    made = pipe.encode_prompt(
        list(prompts), device=pipe.unet.device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    return made[0], made[2] if len(made) > 2 else None


def encode(
    pipe: DiffusionPipeline, concepts: Sequence[Concept], *, flip: bool = False, weight: float = 1.0
) -> Encoded:
    """Encode concepts, each (images, prompt or one caption per image). Concepts are drawn equally often.

    ``flip`` adds every image's mirror image. Raises ValueError if captions and images differ in number.
    """
    size = pipe.unet.config.sample_size * pipe.vae_scale_factor
    pictures, captions, share = [], [], []
    for images, prompt in concepts:
        read = read_images(images)
        texts = [prompt] * len(read) if isinstance(prompt, str) else list(prompt)
        if len(texts) != len(read):
            raise ValueError(
                f"{len(texts)} captions for {len(read)} images: give one prompt, or one caption per image"
            )
        if flip:
            read, texts = read + [ImageOps.mirror(image) for image in read], texts * 2
        pictures += read
        captions += texts
        share += [1 / (len(concepts) * len(read))] * len(read)
    squares, time_ids = zip(*(square(picture, size) for picture in pictures), strict=True)
    unique = list(dict.fromkeys(captions))
    text, pooled = encode_prompts(pipe, unique)
    where = pipe.unet.device
    return Encoded(
        latents=encode_images(pipe, squares),
        text=text,
        pooled=pooled,
        prompt=torch.tensor([unique.index(caption) for caption in captions], device=where),
        time_ids=None if pooled is None else torch.tensor(time_ids, dtype=text.dtype, device=where),
        share=torch.tensor(share, dtype=torch.float64),
        weight=weight,
    )
