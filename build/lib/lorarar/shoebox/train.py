"""Training the miniatures: one function, and one command, for each.

All of them share `fit`: a loop that is a function of its seed, can be killed at any time, and resumes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from lorarar.shoebox import miniatures, world

GROUPS = 12_000
"""Groups of drawings (six images each) that the miniatures are trained on."""
TEXT = 0.2
"""Share of the base's steps in which the text encoders learn too; then, as SDXL's, they stay as they are."""
HELD_OUT = 200
"""Groups of drawings, from the next seed, that measurements are made on."""


@dataclass(frozen=True)
class Recipe:
    """How long and how fast a miniature is trained.

    The learning rate rises over `warmup` steps, stays, and falls to zero over the last `decay` (a share).
    """

    steps: int
    batch: int
    learning_rate: float
    warmup: int = 100
    decay: float = 0.3
    ema: float = 0.998
    weight_decay: float = 0.01


RECIPES: dict[str, Recipe] = {
    "clip": Recipe(1_500, 128, 1e-3, decay=0.5),
    "vae": Recipe(9_000, 8, 2e-3, decay=0.5, weight_decay=1e-4),
    "base": Recipe(17_300, 32, 1e-3),
    "critic": Recipe(3_000, 96, 1e-3, decay=0.5),
    "judge": Recipe(10_400, 48, 1e-3, decay=0.5),
    "dino": Recipe(2_000, 48, 1e-3, weight_decay=0.04),
}


def rate(step: int, recipe: Recipe) -> float:
    """Learning rate at `step` as a share of the highest: warm-up, plateau, linear decay."""
    falling = (recipe.steps - step) / max(1.0, recipe.decay * recipe.steps)
    return min(1.0, (step + 1) / max(1, recipe.warmup), max(0.0, falling))


def has_bfloat16(device: str) -> bool:
    """Tell whether `device` multiplies bfloat16 faster than float32."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.device(device).type == "cpu" and bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file aside, then put it in place at once: a kill leaves the old file or the new."""
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    write(aside)
    aside.replace(path)


def fit(
    name: str,
    model: nn.Module,
    loss: Callable[[Tensor, int], Mapping[str, Tensor]],
    items: int,
    recipe: Recipe,
    *,
    run: Path,
    seed: int = 0,
    device: str = "cpu",
    group: int = 1,
    half: bool = False,
    save_every: float = 60,
) -> dict[str, object]:
    """Train `model` in place on a loss over random items, and leave the averaged (EMA) weights in it.

    loss(indices (batch,), step) gives named terms; "loss" is what is minimised. `items` are drawn in runs of
    `group` neighbours. half: the loss may be computed in bfloat16 where that is fast; weights stay float32.
    All randomness at a step follows from (seed, step), so that a run that was killed and resumed ends in the
    same weights. State lies in `run`/NAME.pt, written every `save_every` seconds. Returns steps, seconds over
    all resumptions, and precision. `ValueError` where the state is of another run.
    """
    run.mkdir(parents=True, exist_ok=True)
    state_file, log_file = run / f"{name}.pt", run / f"{name}.jsonl"
    half = half and has_bfloat16(device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay, fused=True
    )
    average = EMAModel(parameters, decay=recipe.ema, use_ema_warmup=True, power=0.75)
    step, spent = 0, 0.0
    this_run = {"seed": seed, **asdict(recipe)}
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        if (other := state.get("run", this_run)) != this_run:
            unlike = ", ".join(f"{k} {other[k]}, not {v}" for k, v in this_run.items() if other[k] != v)
            raise ValueError(f"{state_file} is of another run ({unlike}): finish that one or remove it")
        for p, saved in zip(parameters, state["parameters"], strict=True):
            p.data.copy_(saved)
        optimiser.load_state_dict(state["optimiser"])
        average.load_state_dict(state["average"])
        step, spent = state["step"], state["spent"]
    average.to(device)

    def save() -> None:
        state = {
            "parameters": [p.detach() for p in parameters],
            "optimiser": optimiser.state_dict(),
            "average": average.state_dict(),
            "step": step,
            "spent": spent,
            "run": this_run,
        }
        write_whole(state_file, lambda aside: torch.save(state, aside))

    model.train()
    saved_at = logged_at = time.monotonic()
    window: dict[str, float] = {}
    bar = tqdm(total=recipe.steps, initial=step, desc=name, unit="step", smoothing=0.05)
    while step < recipe.steps:
        began = time.monotonic()
        numbers = np.random.default_rng([seed, step])
        torch.manual_seed(int(numbers.integers(2**62)))
        starts = numbers.integers(items // group, size=recipe.batch // group)
        indices = torch.from_numpy((starts[:, None] * group + np.arange(group)).ravel())
        for settings in optimiser.param_groups:
            settings["lr"] = recipe.learning_rate * rate(step, recipe)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
            terms = loss(indices, step)
        optimiser.zero_grad(set_to_none=True)
        terms["loss"].backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        average.step(parameters)
        step += 1
        spent += time.monotonic() - began
        bar.update()
        for key, value in terms.items():
            window[key] = 0.98 * window.get(key, value.item()) + 0.02 * value.item()
        if time.monotonic() - logged_at > 10:
            logged_at = time.monotonic()
            bar.set_postfix({k: f"{v:.4f}" for k, v in window.items()})
            with log_file.open("a") as log:
                log.write(json.dumps({"step": step, "spent": round(spent, 1), **window}) + "\n")
        if time.monotonic() - saved_at >= save_every:
            save()
            saved_at = time.monotonic()
    bar.close()
    save()
    average.copy_to(parameters)
    model.eval()
    precision = "bfloat16 and float32" if half else "float32"
    return {"steps": step, "seconds": round(spent, 1), "precision": precision}


def machine() -> str:
    """Name what a run ran on, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), {torch.get_num_threads()} threads"


def command(step: str, recipe: Recipe, seed: int, init: Path | None = None) -> str:
    """Give the command that trains a miniature this way."""
    began = "" if init is None else f" --init {init}"
    return f"lorarar shoebox {step} --steps {recipe.steps} --seed {seed}{began}"


def card(folder: Path, title: str, command: str, facts: dict) -> None:
    """Write the model card README.md and card.json into `folder`: how it was made and what it measures."""
    facts = {"command": command, "world": world.source_hash(), "machine": machine()} | facts
    (folder / "card.json").write_text(json.dumps(facts, indent=1) + "\n")
    rows = "\n".join(
        f"| {k} | {json.dumps(v) if isinstance(v, dict | list) else v} |" for k, v in facts.items()
    )
    (folder / "README.md").write_text(
        f"# {title}\n\nTrained on drawings by lorarar; no outside data or weights.\n\n"
        f"| | |\n| --- | --- |\n{rows}\n"
    )


def to_unit(images: np.ndarray) -> Tensor:
    """Bring images (n, h, w, 3) uint8 to (n, 3, h, w) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_bytes(images: Tensor) -> np.ndarray:
    """Bring images (n, 3, h, w) in [-1, 1] back to (n, h, w, 3) uint8."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def tokens(words: CLIPTokenizer, captions: list[list[str]]) -> Tensor:
    """Tokenise n lists of k captions each: (n, k, TOKENS) int64."""
    flat = [caption for several in captions for caption in several]
    ids = words(flat, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return ids.view(len(captions), -1, ids.shape[-1])


# --- CLIP ---------------------------------------------------------------------------------------------


def train_clip(out: Path, run: Path, recipe: Recipe, seed: int, device: str, groups: int = GROUPS) -> dict:
    """Train CLIP and SDXL's second text encoder contrastively (Radford et al. 2021) and measure retrieval.

    Both text towers are trained against the same vision tower. Writes `out`/clip, the
    second encoder into `out`/clip/text_encoder_2.
    """
    images, captions, _ = world.dataset(groups, seed)
    held, held_captions, truths = world.dataset(HELD_OUT, seed + 1)
    words = miniatures.tokenizer(c for pair in captions[: 6 * 2000] for c in pair)
    ids = tokens(words, captions)
    torch.manual_seed(seed)
    model = nn.ModuleDict({"clip": miniatures.clip(words), "second": miniatures.second_text_encoder(words)})
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
            "class": ([f"a {c}" for c in world.CLASSES], truths[:, 0]),
            "family": (
                ["a photo" if f == "photo" else f"in {f} style" for f in world.FAMILIES],
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
    miniatures.image_processor().save_pretrained(out / "clip")
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
        model = miniatures.vae()
    else:
        model = AutoencoderKL.from_pretrained(init / "vae", torch_dtype=torch.float32)
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
    model.to(device)

    def loss(indices: Tensor, step: int) -> dict[str, Tensor]:
        # An autoencoder wants many steps more than large ones: quarters of images, whole ones at the end.
        half = world.SIZE // 2
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
            facts["what the channels show"] = miniatures.align(model, sample)
        model.half().save_pretrained(out / "base" / "vae")
        model.float()
        batches = [held[i : i + 60] for i in range(0, len(held), 60)]
        values = torch.cat([psnr(to_unit(x), model.decode(code(x)).sample.cpu()) for x in batches])
    by_family = {f: round(float(values[truths[:, 1] == k].mean()), 2) for k, f in enumerate(world.FAMILIES)}
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
    images, captions, _ = world.dataset(groups, seed)
    autoencoder = AutoencoderKL.from_pretrained(out / "base" / "vae", torch_dtype=torch.float32)
    autoencoder.to(device).eval()
    words = CLIPTokenizer.from_pretrained(out / "clip")
    source, first_in = (out / "clip", "") if init is None else (init, "text_encoder")
    first = CLIPTextModel.from_pretrained(source / first_in, dtype=torch.float32).to(device)
    second = CLIPTextModelWithProjection.from_pretrained(source / "text_encoder_2", dtype=torch.float32)
    second.to(device)
    made_by = hashlib.sha256((out / "base" / "vae" / "diffusion_pytorch_model.safetensors").read_bytes())
    cache = run / f"latents-{world.source_hash()}-{made_by.hexdigest()[:8]}-{seed}-{groups}.pt"
    run.mkdir(parents=True, exist_ok=True)
    if not cache.exists():
        latents = encode(autoencoder, images, device).half()
        write_whole(cache, lambda aside: torch.save(latents, aside))
    latents = torch.load(cache, weights_only=True, mmap=True)
    ids = tokens(words, captions)
    torch.manual_seed(seed)
    context = first.config.hidden_size + second.config.hidden_size
    if init is None:
        model = miniatures.unet(context)
    else:
        model = UNet2DConditionModel.from_pretrained(init / "unet", torch_dtype=torch.float32)
    model.to(device)
    if device == "cpu":
        model.set_attn_processor(AttnProcessor())  # trains faster than SDPA there
    noise_schedule = miniatures.scheduler()

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
            "time_ids": miniatures.time_ids(len(text), device),
        }
        noise = torch.randn_like(clean)
        # One timestep from each equal part of the range, in random order: less noise from step to step.
        t = (torch.randperm(len(indices)) + torch.rand(len(indices))) / len(indices)
        t = (1000 * t).long().to(device)
        noisy = noise_schedule.add_noise(clean, noise, t)
        target = noise_schedule.get_velocity(clean, noise, t)
        guess = model(noisy, t, hidden, added_cond_kwargs=added).sample.float()
        return {"loss": F.mse_loss(guess, target)}

    together = nn.ModuleList([model, first, second])
    spent = fit("base", together, loss, len(images), recipe, run=run, seed=seed, device=device, half=True)
    model.set_default_attn_processor()
    for part in (autoencoder, first, second, model):
        part.to("cpu").half()
    miniatures.pipeline(autoencoder, first, second, words, model).save_pretrained(out / "base")
    for part in ("text_encoder", "text_encoder_2", "unet", "vae"):
        file = out / "base" / part / "config.json"
        config = json.loads(file.read_text())
        config.pop("_name_or_path", None)  # a folder of this machine
        if part.startswith("text"):
            # Unless told otherwise, diffusers loads its parts in float32, transformers in what this says.
            config["dtype"] = "float32"
        file.write_text(json.dumps(config, indent=2) + "\n")
    facts = {
        "seed": seed,
        "recipe": asdict(recipe),
        **spent,
        "UNet parameters": sum(p.numel() for p in model.parameters()),
    }
    card(out / "base", "The base model: SDXL in miniature", command("base", recipe, seed, init), facts)
    return facts


def scaled(name: str, steps: int | None) -> Recipe:
    """Take the recipe of a miniature, with another number of steps if one is given."""
    recipe = RECIPES[name]
    if steps is None:
        return recipe
    return replace(recipe, steps=steps, warmup=min(recipe.warmup, math.ceil(steps / 10)))
