"""The training objective on one batch that stays the same, so that LoRAs can be compared by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from lorarar.train.denoising import Batch, draw
from lorarar.train.objective import predict
from lorarar.train.pictures import encode

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def probe(
    pipe: DiffusionPipeline, images: np.ndarray, captions: Sequence[str], count: int = 32, seed: int = 0
) -> Batch:
    """Draw one batch of noised images to be used again and again, so that losses on it can be compared.

    ``count`` samples of the images (n, h, w, 3) uint8, with captions, noise and timesteps from ``seed``.
    """
    from diffusers import DDPMScheduler

    config = pipe.scheduler.config
    alphas = DDPMScheduler.from_config(config).alphas_cumprod.to(pipe.unet.device, torch.float32)
    generator = torch.Generator().manual_seed(seed)
    return draw([encode(pipe, [(images, list(captions))])], count, alphas, config.prediction_type, generator)


@torch.no_grad()
def answer(pipe: DiffusionPipeline, batch: Batch) -> torch.Tensor:
    """Return what the UNet, with the LoRAs it carries, predicts for a batch: (n, c, h, w) float32."""
    return predict(pipe.unet, batch)


def loss(pipe: DiffusionPipeline, batch: Batch) -> float:
    """Return the training objective on a batch: the mean squared error of the prediction."""
    return float(((answer(pipe, batch) - batch.target) ** 2).mean((1, 2, 3)) @ batch.weight)
