"""Training CLIP, the autoencoder and the base model: one function for each."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from lorarar.atomic import atomic
from lorarar.shoebox.models import architectures
from lorarar.shoebox.models.loop import (
    GROUPS,
    HELD_OUT,
    RECIPES,
    Recipe,
    card,
    command,
    fit,
    has_bfloat16,
    to_unit,
    tokens,
)
from lorarar.shoebox.world import scene, styles, subjects, world

TEXT = 0.2
"""Share of the base's steps in which the text encoders learn too; then, as SDXL's, they stay as they are."""


# --- CLIP ---------------------------------------------------------------------------------------------
def train_clip(out: Path, run: Path, recipe: Recipe, seed: int, device: str, groups: int = GROUPS) -> dict:
    """Train CLIP and SDXL's second text encoder contrastively (Radford et al. 2021) and measure retrieval.

    Both text towers are trained against the same vision tower. Writes `out`/clip, the
    second encoder into `out`/clip/text_encoder_2.
    """
    images, captions, _ = world.dataset(groups, seed)
    held, held_captions, truths = world.dataset(HELD_OUT, seed + 1)
    words = architectures.tokenizer(c for pair in captions[: 6 * 2000] for c in pair)
    ids = tokens(words, captions)
    torch.manual_seed(seed)
    model = nn.ModuleDict(
        {"clip": architectures.clip(words), "second": architectures.second_text_encoder(words)}
    )
    model.to(device)

    def loss(indices: Tensor, step: int) -> dict[str, Tensor]:
        pixels = to_unit(images[np.sort(indices.numpy())]).to(device)
        text = ids[indices.sort().values, torch.randint(2, (len(indices),))].to(device)
        seen = model["clip"](input_ids=text, pixel_values=pixels)
        second = F.normalize(model["second"](text).text_embeds, dim=-1)
        scale = model["clip"].logit_scale.exp().clamp(max=100)
        target = torch.arange(len(text), device=device)
        terms = []
        for logits in (seen.logits_per_image, scale * seen.image_embeds @ second.T):
            terms += [F.cross_entropy(logits, target), F.cross_entropy(logits.T, target)]
        return {"loss": sum(terms) / 4}

    spent = fit("clip", model, loss, len(images), recipe, run=run, seed=seed, device=device)
    with torch.no_grad():
        pixels = to_unit(held).to(device)
        image = F.normalize(model["clip"].get_image_features(pixel_values=pixels).pooler_output, dim=-1)
        facts = {}
        prompts = {
            "class": ([f"a {c}" for c in subjects.CLASSES], truths[:, 0]),
            "family": (
                ["a photo" if f == "photo" else f"in {f} style" for f in styles.FAMILIES],
                truths[:, 1],
            ),
        }
        for axis, (texts, truth) in prompts.items():
            text = model["clip"].get_text_features(input_ids=tokens(words, [texts])[0].to(device))
            best = (image @ F.normalize(text.pooler_output, dim=-1).T).argmax(1).cpu().numpy()
            facts[f"zero-shot {axis} accuracy"] = round(float((best == truth).mean()), 4)
        text = model["clip"].get_text_features(input_ids=tokens(words, held_captions)[:, 0].to(device))
        score = image[:500] @ F.normalize(text.pooler_output[:500], dim=-1).T
        hit = score.argmax(1).cpu() == torch.arange(len(score))
        facts["own caption first among 500"] = round(float(hit.float().mean()), 4)
    clip, second = model["clip"].half(), model["second"].half()
    clip.save_pretrained(out / "clip")
    words.save_pretrained(out / "clip")
    architectures.image_processor().save_pretrained(out / "clip")
    second.save_pretrained(out / "clip" / "text_encoder_2")
    facts = {"seed": seed, "recipe": asdict(recipe), **spent, "held-out drawings": facts}
    card(out / "clip", "CLIP in miniature", command("clip", recipe, seed), facts)
    return facts


# --- VAE ----------------------------------------------------------------------------------------------
def psnr(first: Tensor, second: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of images (n, 3, h, w) in [-1, 1], one value per image."""
    return 10 * torch.log10(4 / (first - second).pow(2).mean((1, 2, 3)).clamp(min=1e-9))


def train_vae(
    out: Path,
    run: Path,
    recipe: Recipe,
    seed: int,
    device: str,
    groups: int = GROUPS,
    init: Path | None = None,
) -> dict:
    """Train the autoencoder on reconstruction and a light KL term (Rombach et al. 2022); measure PSNR.

    At the end its latents are turned into uncorrelated channels of unit variance (`miniatures.align`).
    `init`: a pipeline folder whose decoder is trained on, its latents staying as they are. Writes
    `out`/base/vae.
    """
    images, _, _ = world.dataset(groups, seed)
    held, _, truths = world.dataset(HELD_OUT, seed + 1)
    torch.manual_seed(seed)
    if init is None:
        model = architectures.vae()
    else:
        model = AutoencoderKL.from_pretrained(init / "vae", torch_dtype=torch.float32)
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
    model.to(device)

    def loss(indices: Tensor, step: int) -> dict[str, Tensor]:
        # An autoencoder wants many steps more than large ones: quarters of images, whole ones at the end.
        half = scene.SIZE // 2
        if step < 0.8 * recipe.steps:
            y, x = torch.randint(half + 1, (2,)).tolist()
            pixels = to_unit(images[np.sort(indices.numpy())][:, y : y + half, x : x + half])
        else:
            pixels = to_unit(images[np.sort(indices[: max(1, len(indices) // 4)].numpy())])
        pixels = pixels.to(device)
        code = model.encode(pixels).latent_dist
        error = model.decode(code.sample() if init is None else code.mode()).sample.float() - pixels
        # Hues are a small part of a pixel's error, and learned late unless large patches count too.
        patches = F.avg_pool2d(error, 8).pow(2).mean() + F.avg_pool2d(error, 2).pow(2).mean()
        # Errors of neighbouring differences weigh thin lines, which a mean over pixels forgets.
        edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (
            error[..., 1:, :] - error[..., :-1, :]
        ).abs().mean()
        square = error.pow(2).mean()
        kl = code.kl().mean() / code.mean[0].numel()
        total = error.abs().mean() + 4 * square + 4 * patches + 0.5 * edges + 2e-4 * kl
        return {"loss": total, "psnr": 10 * torch.log10(4 / square.detach()), "kl": kl.detach()}

    name = "vae" if init is None else "decoder"
    spent = fit(name, model, loss, len(images), recipe, run=run, seed=seed, device=device, half=True)
    facts: dict = {"seed": seed, "recipe": asdict(recipe), **spent}
    with torch.no_grad():

        def code(images: np.ndarray) -> Tensor:
            return model.encode(to_unit(images).to(device)).latent_dist.mode()

        if init is None:
            sample = torch.cat([code(images[i : i + 64]) for i in range(0, min(2048, len(images)), 64)])
            facts["what the channels show"] = architectures.align(model, sample)
        model.half().save_pretrained(out / "base" / "vae")
        model.float()
        batches = [held[i : i + 60] for i in range(0, len(held), 60)]
        values = torch.cat([psnr(to_unit(x), model.decode(code(x)).sample.cpu()) for x in batches])
    by_family = {f: round(float(values[truths[:, 1] == k].mean()), 2) for k, f in enumerate(styles.FAMILIES)}
    facts |= {"held-out PSNR (dB)": round(float(values.mean()), 2), "by family": by_family}
    card(out / "base" / "vae", "The VAE in miniature", command("vae", recipe, seed, init), facts)
    return facts


def encode(model: nn.Module, images: np.ndarray, device: str = "cpu", batch: int = 120) -> Tensor:
    """Encode images (n, 64, 64, 3) uint8 into normalised latents (n, 16, 16, 16), as the UNet sees them."""
    out = []
    half = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=has_bfloat16(device))
    with torch.no_grad(), half:
        for i in tqdm(range(0, len(images), batch), "encode", unit="batch", leave=False):
            code = model.encode(to_unit(images[i : i + batch]).to(device)).latent_dist.mode()
            out.append(code.float().cpu())
    return torch.cat(out)


# --- base ---------------------------------------------------------------------------------------------
def coded(
    autoencoder: AutoencoderKL,
    folder: Path,
    words: CLIPTokenizer,
    run: Path,
    seed: int,
    device: str,
    groups: int = GROUPS,
) -> tuple[Tensor, Tensor]:
    """Return the drawings as latents (n, 16, 16, 16) float16, kept in `run`, and tokens (n, 2, TOKENS).

    `folder` holds the autoencoder: the file in `run` is named for its weights.
    """
    images, captions, _ = world.dataset(groups, seed)
    made_by = hashlib.sha256((folder / "diffusion_pytorch_model.safetensors").read_bytes())
    cache = run / f"latents-{world.VERSION}-{made_by.hexdigest()[:8]}-{seed}-{groups}.pt"
    run.mkdir(parents=True, exist_ok=True)
    if not cache.exists():
        latents = encode(autoencoder, images, device).half()
        with atomic(cache) as aside:
            torch.save(latents, aside)
    return torch.load(cache, weights_only=True, mmap=True), tokens(words, captions)


def timesteps(count: int, device: str) -> Tensor:
    """Draw one timestep from each equal part of the range, in random order: less noise from step to step."""
    t = (torch.randperm(count) + torch.rand(count)) / count
    return (1000 * t).long().to(device)


def train_base(
    out: Path,
    run: Path,
    recipe: Recipe,
    seed: int,
    device: str,
    groups: int = GROUPS,
    init: Path | None = None,
) -> dict:
    """Train the UNet of the pipeline on drawings and captions, and at first CLIP's text encoders with it.

    v-prediction with zero terminal SNR (Lin et al. 2024); one caption in ten is dropped to zeros, which is
    SDXL's empty prompt, for classifier-free guidance (Ho & Salimans 2022). `init`: a pipeline folder whose
    UNet and text encoders to start from. The VAE is frozen. Completes the pipeline in `out`/base.
    """
    autoencoder = AutoencoderKL.from_pretrained(out / "base" / "vae", torch_dtype=torch.float32)
    autoencoder.to(device).eval()
    words = CLIPTokenizer.from_pretrained(out / "clip")
    source, first_in = (out / "clip", "") if init is None else (init, "text_encoder")
    first = CLIPTextModel.from_pretrained(source / first_in, dtype=torch.float32).to(device)
    second = CLIPTextModelWithProjection.from_pretrained(source / "text_encoder_2", dtype=torch.float32)
    second.to(device)
    latents, ids = coded(autoencoder, out / "base" / "vae", words, run, seed, device, groups)
    torch.manual_seed(seed)
    context = first.config.hidden_size + second.config.hidden_size
    if init is None:
        model = architectures.unet(context)
    else:
        model = UNet2DConditionModel.from_pretrained(init / "unet", torch_dtype=torch.float32)
    model.to(device)
    if device == "cpu":
        model.set_attn_processor(AttnProcessor())  # trains faster than SDPA there
    noise_schedule = architectures.scheduler()

    def loss(indices: Tensor, step: int) -> dict[str, Tensor]:
        clean = latents[indices].float().to(device)
        text = ids[indices, torch.randint(2, (len(indices),))].to(device)
        with torch.set_grad_enabled(step < TEXT * recipe.steps):
            one = first(text, output_hidden_states=True).hidden_states[-2]
            two = second(text, output_hidden_states=True)
        keep = (torch.rand(len(indices), device=device) > 0.1).float()
        hidden = torch.cat([one, two.hidden_states[-2]], -1) * keep.view(-1, 1, 1)
        added = {
            "text_embeds": two.text_embeds * keep[:, None],
            "time_ids": architectures.time_ids(len(text), device),
        }
        noise = torch.randn_like(clean)
        t = timesteps(len(indices), device)
        noisy = noise_schedule.add_noise(clean, noise, t)
        target = noise_schedule.get_velocity(clean, noise, t)
        guess = model(noisy, t, hidden, added_cond_kwargs=added).sample.float()
        return {"loss": F.mse_loss(guess, target)}

    together = nn.ModuleList([model, first, second])
    spent = fit("base", together, loss, len(latents), recipe, run=run, seed=seed, device=device, half=True)
    model.set_default_attn_processor()
    for part in (autoencoder, first, second, model):
        part.to("cpu").half()
    architectures.pipeline(autoencoder, first, second, words, model).save_pretrained(out / "base")
    anywhere(out / "base")
    facts = {
        "seed": seed,
        "recipe": asdict(recipe),
        **spent,
        "UNet parameters": sum(p.numel() for p in model.parameters()),
    }
    card(out / "base", "The base model: SDXL in miniature", command("base", recipe, seed, init), facts)
    return facts


def anywhere(folder: Path) -> None:
    """Write the configs of a pipeline's parts as they read on any machine."""
    for part in ("text_encoder", "text_encoder_2", "unet", "vae"):
        if not (file := folder / part / "config.json").is_file():
            continue
        config = json.loads(file.read_text())
        config.pop("_name_or_path", None)  # a folder of this machine
        if part.startswith("text"):
            # Unless told otherwise, diffusers loads its parts in float32, transformers in what this says.
            config["dtype"] = "float32"
        file.write_text(json.dumps(config, indent=2) + "\n")


def scaled(name: str, steps: int | None) -> Recipe:
    """Take the recipe of a miniature, with another number of steps if one is given."""
    recipe = RECIPES[name]
    if steps is None:
        return recipe
    return replace(recipe, steps=steps, warmup=min(recipe.warmup, math.ceil(steps / 10)))
