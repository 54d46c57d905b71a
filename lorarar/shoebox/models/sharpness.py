"""How near the pictures of a base model come to the drawings: sharpness, distribution, what the critic sees.

Generated pictures are compared with drawings of the same classes and families, random identities and styles
in each, drawn from a seed that no training uses. Nothing here changes a model.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from torch import Tensor
from tqdm import tqdm

from lorarar.atomic import atomic
from lorarar.pipelines import load_pipeline
from lorarar.scales import SCALES
from lorarar.shoebox.models.critic import Critic
from lorarar.shoebox.models.loop import to_bytes, to_unit
from lorarar.shoebox.models.train import encode, psnr
from lorarar.shoebox.world import styles, subjects, world
from lorarar.stamp import machine

DRAWN = 40
"""Seed of the drawings that pictures are measured against, far from those that anything is trained on."""
CHUNK = 44
"""Pictures between two checkpoints."""


def cells(count: int) -> list[tuple[str, str]]:
    """Class and family of the first `count` pictures: all 352 cells, shuffled, before any comes again."""
    every = [(c, f) for c in subjects.CLASSES for f in styles.FAMILIES]
    rounds = [
        np.random.default_rng([DRAWN, i]).permutation(len(every)) for i in range(-(-count // len(every)))
    ]
    return [every[k] for k in np.concatenate(rounds)[:count]]


def drawings(count: int, seed: int = DRAWN) -> np.ndarray:
    """Draw a random identity of the class in a random style of the family for each of `cells`.

    Returns (count, 64, 64, 3) uint8. Drawing i is the same for any count.
    """
    drawn = []
    for i, (cls, family) in enumerate(tqdm(cells(count), "draw", unit="image", leave=False)):
        rng = np.random.default_rng([seed, i])
        drawn.append(world.draw(subjects.random_identity(rng, cls), styles.random_style(rng, family), rng))
    return np.stack(drawn)


def laplacian(images: np.ndarray) -> np.ndarray:
    """Mean absolute Laplacian of images (n, h, w, 3) uint8, in levels: (n,) float64.

    The Laplacian is four times a pixel less its four neighbours, of each colour, without the border.
    """
    x = images.astype(np.float64)
    inner = 4 * x[:, 1:-1, 1:-1] - x[:, :-2, 1:-1] - x[:, 2:, 1:-1] - x[:, 1:-1, :-2] - x[:, 1:-1, 2:]
    return np.abs(inner).mean((1, 2, 3))


def frechet(first: np.ndarray, second: np.ndarray) -> float:
    """Fréchet distance of the normal distributions with the moments of features (n, d) and (m, d).

    |m₁ − m₂|² + tr(C₁ + C₂ − 2 (C₁C₂)^½) (Heusel et al. 2017, equation 6). The trace of the root is that of
    (C₁^½ C₂ C₁^½)^½, which is symmetric. It is too large for few images: compare at equal numbers.
    Raises `ValueError` for fewer than two images.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("a Fréchet distance needs at least two images on each side")
    means = [x.mean(0, dtype=np.float64) for x in (first, second)]
    one, two = (np.cov(x.astype(np.float64), rowvar=False) for x in (first, second))
    values, axes = np.linalg.eigh(one)
    root = (axes * np.sqrt(values.clip(0))) @ axes.T
    both = np.sqrt(np.linalg.eigvalsh(root @ two @ root).clip(0)).sum()
    return float(((means[0] - means[1]) ** 2).sum() + np.trace(one) + np.trace(two) - 2 * both)


@torch.no_grad()
def features(critic: Critic, images: np.ndarray, batch: int = 200) -> np.ndarray:
    """Return what the critic's trunk sees in images (n, 64, 64, 3) uint8: (n, 576) float32.

    Mean and standard deviation over places of each channel after the first three blocks, the mean after the
    last. Its heads read the same, but for the places of the last block.
    """
    critic.eval()
    rows: list[Tensor] = []
    for i in range(0, len(images), batch):
        x, seen = to_unit(images[i : i + batch]), []
        for block in critic.trunk:
            x = block(x)
            seen += [x.mean((2, 3)), x.std((2, 3))]
        rows.append(torch.cat(seen[:-1], 1))
    return torch.cat(rows).numpy()


def compare(critic: Critic, drawn: np.ndarray, images: np.ndarray) -> dict:
    """Measure pictures (n, 64, 64, 3) uint8 of `cells` against drawings of the same cells."""
    of = cells(len(images))
    said = critic.look(images)
    edges = laplacian(images), laplacian(drawn)
    by_family = {}
    for family in styles.FAMILIES:
        here = np.array([f == family for _, f in of])
        if here.any():
            by_family[family] = round(float(edges[0][here].mean() / edges[1][here].mean()), 3)
    right = [
        float(np.mean(said[k].argmax(1).numpy() == [names.index(cell[k]) for cell in of]))
        for k, names in enumerate((subjects.CLASSES, styles.FAMILIES))
    ]
    return {
        "Laplacian to drawings'": round(float(edges[0].mean() / edges[1].mean()), 3),
        "Laplacian to drawings', by family": by_family,
        "Fréchet distance": round(frechet(features(critic, images), features(critic, drawn)), 4),
        "class shown": round(right[0], 4),
        "family shown": round(right[1], 4),
    }


def decode(vae: AutoencoderKL, latents: Tensor, batch: int = 44) -> np.ndarray:
    """Turn latents (n, channels, h, w), as the UNet sees them, into images (n, 64, 64, 3) uint8."""
    out = []
    with torch.no_grad():
        for some in latents.split(batch):
            some = some.to(vae.device, vae.dtype) / vae.config.scaling_factor
            out.append(to_bytes(vae.decode(some).sample.float()))
    return np.concatenate(out)


def weights_hash(base: Path, parts: tuple[str, ...] = ("text_encoder", "text_encoder_2", "unet")) -> str:
    """Eight hexadecimal digits of the weights of `parts` of the pipeline in `base`."""
    digest = hashlib.sha256()
    for part in parts:
        for file in sorted((base / part).glob("*.safetensors")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def latents(
    pipe: StableDiffusionXLPipeline,
    count: int,
    folder: Path,
    *,
    seed: int,
    steps: int,
    guidance: float,
) -> tuple[Tensor, float, float]:
    """Generate the latents of `cells`, noise from numbers that `seed` decides, as `pipelines.generate` does.

    Chunks lie in `folder`, so that a run that was killed goes on, a larger count takes up a smaller one, and
    another decoder costs nothing. Returns (count, channels, h, w) float32, and seconds and processor seconds
    an image.
    """
    folder.mkdir(parents=True, exist_ok=True)
    padded = -(-count // CHUNK) * CHUNK
    of = cells(padded)
    chunks, spent = [], []
    for start in tqdm(range(0, padded, CHUNK), "generate", unit="chunk"):
        file = folder / f"{start:06}.pt"
        if not file.exists():
            began = time.monotonic(), time.process_time()
            made = pipe(
                prompt=[world.prompt(c, f) for c, f in of[start : start + CHUNK]],
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=[
                    torch.Generator().manual_seed(seed * 1_000_000 + i) for i in range(start, start + CHUNK)
                ],
                output_type="latent",
            ).images
            took = [time.monotonic() - began[0], time.process_time() - began[1]]
            state = {"latents": made.cpu().half(), "took": torch.tensor(took)}
            with atomic(file) as aside:
                torch.save(state, aside)
        saved = torch.load(file, weights_only=True)
        chunks.append(saved["latents"].float())
        spent.append(saved["took"])
    wall, processor = (torch.stack(spent).mean(0) / CHUNK).tolist()
    return torch.cat(chunks)[:count], wall, processor


def measure(
    base: Path,
    critic_folder: Path,
    run: Path,
    count: int = 352,
    *,
    vae: Path | None = None,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    device: str | None = None,
) -> dict:
    """Measure the pipeline in `base`, or it with the autoencoder in the folder `vae`.

    Beside the row "generated" stand "drawings through the autoencoder", what the autoencoder leaves of
    sharpness, and "other drawings": how much of a Fréchet distance comes from the number of images.
    """
    critic = Critic.load(critic_folder)
    pipe = load_pipeline(base, device)
    if vae is not None:
        pipe.vae = AutoencoderKL.from_pretrained(vae, torch_dtype=pipe.vae.dtype).to(pipe.device)
    scale = SCALES["shoebox"]
    steps = scale.inference_steps if steps is None else steps
    guidance = scale.guidance if guidance is None else guidance
    folder = run / f"sharpness-{weights_hash(base)}-{seed}-{steps}-{guidance:g}"
    codes, wall, processor = latents(pipe, count, folder, seed=seed, steps=steps, guidance=guidance)
    drawn = drawings(count)
    began = time.monotonic(), time.process_time()
    images = decode(pipe.vae, codes)
    wall += (time.monotonic() - began[0]) / count
    processor += (time.process_time() - began[1]) / count
    through = decode(pipe.vae, encode(pipe.vae, drawn, str(pipe.device)))
    error = psnr(to_unit(through), to_unit(drawn))
    return {
        "images": count,
        "seed": seed,
        "steps": steps,
        "guidance": guidance,
        "machine": machine(),
        "seconds an image": round(wall, 3),
        "processor seconds an image": round(processor, 3),
        "generated": compare(critic, drawn, images),
        "drawings through the autoencoder": compare(critic, drawn, through)
        | {"PSNR (dB)": round(float(error.mean()), 2)},
        "other drawings": compare(critic, drawn, drawings(count, DRAWN + 1)),
    }
