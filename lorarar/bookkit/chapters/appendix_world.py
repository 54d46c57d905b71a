"""The appendix to chapter 1: its figures, what the VAE keeps, and whether recorded pictures come again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from lorarar.bookkit import figures
from lorarar.bookkit.facts import Facts
from lorarar.shoebox import zoo
from lorarar.shoebox.models.loop import to_bytes, to_unit
from lorarar.shoebox.models.train import psnr
from lorarar.shoebox.world import world
from lorarar.shoebox.world.styles import FAMILIES, STYLES, random_style
from lorarar.shoebox.world.subjects import CLASSES, SUBJECTS, random_identity
from lorarar.study.base import fresh_drawings, recorded_sheet, resized

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from matplotlib.figure import Figure

    from lorarar.bookkit.claims import Claim

__all__ = ["recorded_sheet"]

# ---------------------------------------------------------------- numbers and findings


def recorded(scale: str = "shoebox") -> Facts:
    """Return the numbers from recorded runs: there are none."""
    return Facts()


def live(moved: float, drawings: np.ndarray, decoded: np.ndarray, families: Sequence[str]) -> Facts:
    """Return the numbers that the page computed.

    Args:
        moved: the largest mean difference of a picture from its recording, in grey levels.
        drawings: (n, h, w, 3), of every family.
        decoded: the same after the VAE.
        families: of each drawing.
    """
    decibels = psnr(to_unit(drawings), to_unit(decoded)).numpy()
    by_family = {f: decibels[np.array(families) == f].mean() for f in FAMILIES}
    return Facts(
        moved=moved,
        psnr=decibels.mean(),
        psnr_worst=min(by_family.values()),
        psnr_statue=by_family["black statue"],
        psnr_edges=max(by_family[f] for f in ("line drawing", "melting golden rendering", "glowing")),
    )


def statements(f: Facts) -> dict[str, bool]:
    """Return what the prose states, by its own words."""
    return {
        "They are the same pictures": f.moved < 1,
        "Black statues have little texture and keep most": f.psnr_statue > f.psnr + 2,
        "Line drawings, molten gold and glowing outlines are all edges": f.psnr_worst
        <= f.psnr_edges
        < f.psnr,
    }


def claims(f: Facts) -> list[Claim]:
    """Return no claims: the chapter has them."""
    return []


# ---------------------------------------------------------------- what the page computes


def fresh(per_family: int, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Draw random identities in random styles of every family, and return the families as well."""
    drawings, cells = fresh_drawings(per_family, rng)
    return drawings, [family for _, family in cells]


@torch.no_grad()
def through_vae(pipe: DiffusionPipeline, images: np.ndarray) -> np.ndarray:
    """Encode images (n, h, w, 3) and decode them."""
    decoded = []
    for start in range(0, len(images), 32):
        pixels = to_unit(resized(images[start : start + 32], pipe.vae.config.sample_size))
        latents = pipe.vae.encode(pixels.to(pipe.device, pipe.vae.dtype)).latent_dist.mode()
        decoded.append(resized(to_bytes(pipe.vae.decode(latents).sample.float()), images.shape[1]))
    return np.concatenate(decoded)


@torch.no_grad()
def stages(pipe: DiffusionPipeline, words: str, steps: int, seed: int = 5) -> np.ndarray:
    """Generate a picture and return what it looks like after each step: (steps, h, w, 3) uint8."""
    latents: list[torch.Tensor] = []

    def keep(_pipe: DiffusionPipeline, _step: int, _time: int, given: dict) -> dict:
        latents.append(given["latents"][:1].clone())
        return given

    noise = torch.Generator().manual_seed(seed)
    pipe(words, generator=noise, guidance_scale=3.0, num_inference_steps=steps, callback_on_step_end=keep)
    pictures = [pipe.vae.decode(x / pipe.vae.config.scaling_factor).sample.float() for x in latents]
    return resized(to_bytes(torch.cat(pictures)))


def one_step(
    pipe: DiffusionPipeline, words: str, guidance: float
) -> tuple[Callable, torch.Tensor, tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Generate in a single step and listen at the UNet. The scheduler is DDIM, whose steps have no memory.

    Returns:
        The scheduler's step, a function of the guided prediction and the noise; the noise; the predictions
        without words and with them; and the latents that the pipeline made.
    """
    from diffusers import DDIMScheduler

    heard, usual = [], pipe.scheduler
    pipe.scheduler = schedule = DDIMScheduler.from_config(usual.config)
    hook = pipe.unet.register_forward_hook(lambda _unet, given, out: heard.append((given, out)))
    try:
        latents = pipe(words, num_inference_steps=1, guidance_scale=guidance, output_type="latent").images
    finally:
        hook.remove()
        pipe.scheduler = usual
    (pair, t), (both, *_) = heard[0]
    return lambda guess, noise: schedule.step(guess, t, noise).prev_sample, pair[:1], both.chunk(2), latents


# ---------------------------------------------------------------- figures


def sheet_figure(images: np.ndarray) -> Figure:
    """Show a picture of every class in every family: (classes · families, h, w, 3)."""
    cells = images.reshape(len(CLASSES), len(FAMILIES), *images.shape[1:])
    return figures.contact_sheet(cells, rows=CLASSES, columns=FAMILIES)


def drawn_sheet(rng: np.random.Generator) -> Figure:
    """Draw a random identity of every class in a random style of every family."""
    cells = [(c, f) for c in CLASSES for f in FAMILIES]
    return sheet_figure(
        np.stack([world.draw(random_identity(rng, c), random_style(rng, f), rng) for c, f in cells])
    )


def subjects_figure() -> Figure:
    """Show a photo of every named subject."""
    photos = np.stack([zoo.pictures(name, 1)[0][0] for name in SUBJECTS])
    return figures.image_grid(photos, titles=list(SUBJECTS), per_row=5)


def styles_figure(rng: np.random.Generator) -> Figure:
    """Draw the robot toy in every named style."""
    robots = np.stack([world.draw(SUBJECTS["robot toy"], one, rng) for one in STYLES.values()])
    return figures.image_grid(robots, titles=list(STYLES), per_row=5)
