"""DreamBooth: a LoRA trained on a few images, for a subject or a style, or for several concepts jointly.

The objective is the base model's own (predict the noise, or v, at a random timestep of a noised latent); only
the low-rank matrices on attention's q, k, v and out move. Ruiz et al. 2023 (DreamBooth), Hu et al. 2022
(LoRA); the hyperparameters of the papers reproduced here are in `lorarar.models.SCALES`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from lorarar.lora import LoRA
from lorarar.models import Scale, base_sha256, generate, load_pipeline

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}

Picture = str | Path | Image.Image | np.ndarray
Images = str | Path | Sequence[Picture] | np.ndarray
Concept = tuple[Images, str | Sequence[str]]

_ADAPTER = "dreambooth"
_PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}


def image_files(folder: str | Path) -> list[Path]:
    """Return the image files of a folder in the order of their names. Raises ValueError if there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"no image folder {folder}")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not files:
        raise ValueError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))})")
    return files


def read_images(images: Images) -> list[Image.Image]:
    """Read images as RGB, upright, transparency on white.

    Args:
        images: a folder, a list of files, PIL images or (h, w, 3) arrays, or a (n, h, w, 3) uint8 array.

    Raises:
        ValueError: there is no image, or one cannot be read, or an array has another shape or type.
    """
    pictures = image_files(images) if isinstance(images, str | Path) else list(images)
    if not pictures:
        raise ValueError("no images to train on")
    return [_upright(picture) for picture in pictures]


def _upright(picture: Picture) -> Image.Image:
    """Return one image as RGB, turned as its EXIF says, transparency on white."""
    if isinstance(picture, np.ndarray):
        if picture.ndim != 3 or picture.shape[-1] != 3 or picture.dtype != np.uint8:
            raise ValueError(f"an image must be (h, w, 3) uint8, not {picture.shape} {picture.dtype}")
        return Image.fromarray(picture)
    try:
        image = ImageOps.exif_transpose(picture if isinstance(picture, Image.Image) else Image.open(picture))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the image {picture}: {error}") from error


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


def denoising_target(
    latents: torch.Tensor, noise: torch.Tensor, alphas: torch.Tensor, prediction_type: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise the latents and say what the UNet should answer.

    x_t = √ᾱ x + √(1-ᾱ) ε; the answer is ε, x itself, or v = √ᾱ ε - √(1-ᾱ) x (Salimans and Ho 2022).

    Args:
        latents: (n, c, h, w), x.
        noise: (n, c, h, w), ε.
        alphas: (n,), ᾱ at each sample's timestep.
        prediction_type: ``epsilon``, ``sample`` or ``v_prediction``.

    Returns:
        x_t and the answer, both (n, c, h, w).
    """
    signal, spread = alphas.sqrt()[:, None, None, None], (1 - alphas).sqrt()[:, None, None, None]
    noised = signal * latents + spread * noise
    if prediction_type == "epsilon":
        return noised, noise
    if prediction_type == "sample":
        return noised, latents
    if prediction_type == "v_prediction":
        return noised, signal * noise - spread * latents
    raise ValueError(f"unknown prediction type {prediction_type!r}: expected epsilon, sample or v_prediction")


@dataclass(frozen=True)
class Batch:
    """What the UNet is given and should answer: ``weight`` (n,) is each sample's factor in the loss."""

    noised: torch.Tensor
    timesteps: torch.Tensor
    text: torch.Tensor
    conditions: dict[str, torch.Tensor] | None
    target: torch.Tensor
    weight: torch.Tensor


def draw(
    sets: Sequence[Encoded],
    batch_size: int,
    alphas: torch.Tensor,
    prediction_type: str,
    generator: torch.Generator,
) -> Batch:
    """Draw ``batch_size`` samples of every set, with noise and timesteps, into one batch.

    All randomness comes from ``generator``, on the CPU, so a run is the same on every device. ``weight``
    makes the sum over the batch equal to the sum over the sets of (the set's weight × its mean).
    """
    parts = []
    for data in sets:
        pick = torch.multinomial(data.share, batch_size, replacement=True, generator=generator)
        timesteps = torch.randint(len(alphas), (batch_size,), generator=generator)
        noise = torch.randn(batch_size, *data.latents.shape[1:], generator=generator)
        where = data.latents.device
        pick, timesteps, noise = pick.to(where), timesteps.to(where), noise.to(where)
        noised, target = denoising_target(data.latents[pick], noise, alphas[timesteps], prediction_type)
        words = data.prompt[pick]
        conditions = {}
        if data.pooled is not None:
            conditions = {"text_embeds": data.pooled[words], "time_ids": data.time_ids[pick]}
        weight = torch.full((batch_size,), data.weight / batch_size, device=where)
        parts.append((noised, timesteps, data.text[words], conditions, target, weight))
    noised, timesteps, text, conditions, target, weight = zip(*parts, strict=True)
    return Batch(
        torch.cat(noised),
        torch.cat(timesteps),
        torch.cat(text),
        {name: torch.cat([c[name] for c in conditions]) for name in conditions[0]} or None,
        torch.cat(target),
        torch.cat(weight),
    )


def denoising_loss(unet: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Return Σ_n weight_n · mean((unet(x_t) - target)²), a float32 scalar.

    With a class set of weight λ beside the instance set this is DreamBooth's loss with prior preservation.
    """
    answer = unet(
        batch.noised.to(unet.dtype),
        batch.timesteps,
        batch.text,
        added_cond_kwargs=batch.conditions,
        return_dict=False,
    )[0]
    return ((answer.float() - batch.target) ** 2).mean((1, 2, 3)) @ batch.weight


def learning_rate_factor(step: int, steps: int, warmup: int, decay: float) -> float:
    """Return the learning rate's factor: up over ``warmup`` steps, down over the last ``decay`` of them."""
    up = min(1.0, (step + 1) / warmup) if warmup else 1.0
    down = min(1.0, (steps - step) / (decay * steps)) if decay else 1.0
    return up * down


@contextmanager
def adapted(
    pipe: DiffusionPipeline,
    rank: int,
    targets: Sequence[str] = ATTENTION,
    *,
    seed: int = 0,
    gradient_checkpointing: bool = False,
) -> Iterator[dict[str, tuple[torch.nn.Parameter, torch.nn.Parameter]]]:
    """Put a trainable LoRA into the pipeline's UNet, and leave the pipeline afterwards as it was found.

    Yields ``{layer: (up (out, rank), down (rank, in))}`` in float32: down starts as a Gaussian of variance
    1/rank, up as zeros, so that the first prediction is the base's. Raises ValueError if the UNet already
    carries adapters or has no such layers.
    """
    from peft import LoraConfig
    from peft.tuners.lora import LoraLayer

    unet = pipe.unet
    if any(isinstance(module, LoraLayer) for module in unet.modules()):
        raise ValueError("the pipeline already carries a LoRA: call pipe.unload_lora_weights() first")
    frozen = {name: parameter.requires_grad for name, parameter in unet.named_parameters()}
    checkpointing, mode = unet.is_gradient_checkpointing, unet.training
    unet.requires_grad_(False)
    unet.eval()
    if gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            config = LoraConfig(
                r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(targets)
            )
            try:
                unet.add_adapter(config, _ADAPTER)
            except ValueError as error:
                raise ValueError(f"the UNet has no layers named {', '.join(targets)}") from error
        factors = {}
        for name, module in unet.named_modules():
            if isinstance(module, LoraLayer):
                up, down = module.lora_B[_ADAPTER].weight, module.lora_A[_ADAPTER].weight
                up.data, down.data = up.data.float(), down.data.float()
                factors[f"unet.{name}"] = (up, down)
        yield factors
    finally:
        unet.unload_lora()
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(frozen[name])
        if gradient_checkpointing and not checkpointing:
            unet.disable_gradient_checkpointing()
        unet.train(mode)


def _optimizer(
    name: str, parameters: list[torch.nn.Parameter], learning_rate: float
) -> torch.optim.Optimizer:
    """Return AdamW, with its state in 8 bits if asked, at the usual DreamBooth weight decay of 0.01."""
    if name == "adamw":
        fused = parameters[0].device.type in ("cpu", "cuda")  # one kernel for hundreds of small matrices
        return torch.optim.AdamW(parameters, learning_rate, weight_decay=0.01, fused=fused)
    if name == "adamw8bit":
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError as error:
            raise ValueError(
                "8-bit AdamW needs the bitsandbytes package: pip install bitsandbytes"
            ) from error
        return AdamW8bit(parameters, learning_rate, weight_decay=0.01)
    raise ValueError(f"unknown optimizer {name!r}: choose adamw or adamw8bit")


def train_lora(
    pipe: DiffusionPipeline | str | Path | Scale,
    images: Images | None = None,
    prompt: str | Sequence[str] | None = None,
    *,
    concepts: Sequence[Concept] | None = None,
    rank: int = 64,
    steps: int = 1000,
    learning_rate: float = 5e-5,
    batch_size: int = 1,
    warmup: int = 0,
    decay: float = 0.0,
    seed: int = 0,
    targets: Sequence[str] = ATTENTION,
    class_prompt: str | None = None,
    class_images: Images | int = 100,
    prior_weight: float = 1.0,
    flip: bool = False,
    optimizer: str = "adamw",
    precision: str | None = None,
    gradient_checkpointing: bool = False,
    device: str | torch.device | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    resume: bool = False,
    progress: bool = True,
    callback: Callable[[int, float], None] | None = None,
) -> LoRA:
    """Train a LoRA on a few images of a subject or a style.

    The defaults are the papers' for SDXL; ``train_lora(pipe, images, prompt, **vars(scale.content))`` takes a
    scale's. The text encoders stay frozen. The pipeline is left as it was found.

    Args:
        pipe: a diffusers SDXL or SD 1.5 pipeline, or what `lorarar.models.load_pipeline` takes.
        images: what `read_images` reads: a folder, a list of files or images, or a (n, h, w, 3) uint8 array.
            They are scaled and cropped to the pipeline's own square size.
        prompt: one for all images ("A sks dog"), or a caption for each ("a vase in watercolor painting
            style").
        concepts: instead of ``images`` and ``prompt``, several (images, prompt): one LoRA learns them
            jointly, each drawn equally often (multi-concept DreamBooth).
        rank: of every layer's update.
        steps: of the optimizer.
        learning_rate: of AdamW, at its highest.
        batch_size: images a step; with prior preservation as many class images again.
        warmup: steps over which the learning rate rises.
        decay: share of the steps, at the end, over which the learning rate falls to zero.
        seed: of the start and of everything drawn.
        targets: names of the linear layers that get an update.
        class_prompt: turns prior preservation on, e.g. "a dog".
        class_images: images of the class, or how many of them the base model makes from ``class_prompt``.
        prior_weight: the factor of the class images' loss.
        flip: also train on mirror images. Off: subjects are rarely symmetric.
        optimizer: ``adamw``, or ``adamw8bit`` where bitsandbytes is installed.
        precision: ``fp16`` or ``bf16``, to which autocast reduces matrix products; None follows the
            pipeline's weights. The LoRA itself is always float32.
        gradient_checkpointing: recompute activations in the backward pass: slower, with less memory.
        device: where a pipeline given by name is loaded; one given as an object stays where it is.
        checkpoint: a file in which the run's state is kept, written aside and renamed; removed at the end.
        checkpoint_every: steps between two checkpoints.
        resume: go on from ``checkpoint``, if there is one; the result is the same as without the
            interruption.
        progress: show a bar.
        callback: called after each step with its number, from 1, and its loss.

    Returns:
        The LoRA in memory, float32 on the CPU; `lorarar.save_lora` writes an ordinary diffusers file.

    Raises:
        ValueError: in one line, if an argument is out of range or an image, the base or the checkpoint cannot
            be used.
    """
    if (concepts is None) == (images is None or prompt is None):
        raise ValueError("give either images and a prompt, or concepts")
    concepts = [(images, prompt)] if concepts is None else list(concepts)
    for name, value in (
        ("rank", rank),
        ("steps", steps),
        ("batch_size", batch_size),
        ("checkpoint_every", checkpoint_every),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, not {value}")
    if not learning_rate > 0 or not prior_weight >= 0 or warmup < 0 or not 0 <= decay <= 1:
        raise ValueError(
            "learning_rate must be positive, prior_weight and warmup not negative, decay between 0 and 1"
        )
    if precision not in (None, *_PRECISIONS):
        raise ValueError(
            f"unknown precision {precision!r}: choose fp16 or bf16, or none to follow the weights"
        )
    if checkpoint is not None and not Path(checkpoint).parent.is_dir():
        raise ValueError(f"{checkpoint}: its folder does not exist; make it first")
    # Pictures are read before the base, so that a bad one is reported at once.
    concepts = [(read_images(pictures), words) for pictures, words in concepts]
    if isinstance(pipe, str | Path) or not hasattr(pipe, "unet"):
        pipe = load_pipeline(pipe, device)
    unet = pipe.unet
    width = max(unet.config.block_out_channels)
    if rank > width:
        raise ValueError(
            f"rank {rank} is more than the UNet's greatest width, {width}: choose a smaller rank"
        )

    from diffusers import DDPMScheduler

    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    alphas = schedule.alphas_cumprod.to(unet.device, torch.float32)
    prediction_type = schedule.config.prediction_type
    sets = [encode(pipe, concepts, flip=flip)]
    if class_prompt is not None:
        if isinstance(class_images, int):
            if class_images < 1:
                raise ValueError(f"class_images must be at least 1, not {class_images}")
            class_images = generate(pipe, class_prompt, range(seed, seed + class_images), progress=progress)
        sets.append(encode(pipe, [(class_images, class_prompt)], flip=flip, weight=prior_weight))

    kind = _PRECISIONS[precision] if precision else unet.dtype if unet.dtype in _PRECISIONS.values() else None
    autocast = torch.autocast(unet.device.type, kind) if kind else nullcontext()
    scaler = torch.amp.GradScaler(
        unet.device.type, enabled=kind == torch.float16 and unet.device.type == "cuda"
    )
    generator = torch.Generator().manual_seed(seed)
    settings = {  # what decides where the run goes: a checkpoint belongs to one setting of it
        "images": hashlib.sha256(
            b"".join(i.tobytes() for pictures, _ in concepts for i in pictures)
        ).hexdigest(),
        "prompts": [words if isinstance(words, str) else list(words) for _, words in concepts],
        "base": base_sha256(pipe),
        "class_prompt": class_prompt,
        "prior_weight": prior_weight,
        "rank": rank,
        "steps": steps,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "warmup": warmup,
        "decay": decay,
        "seed": seed,
        "targets": list(targets),
        "flip": flip,
        "optimizer": optimizer,
        "precision": precision,
    }

    with adapted(pipe, rank, targets, seed=seed, gradient_checkpointing=gradient_checkpointing) as factors:
        parameters = [factor for pair in factors.values() for factor in pair]
        rule = _optimizer(optimizer, parameters, learning_rate)
        state = {"parameters": parameters, "optimizer": rule, "scaler": scaler, "generator": generator}
        start = 0
        if resume and checkpoint is not None and Path(checkpoint).exists():
            start = restore(checkpoint, settings, **state)
        with tqdm(initial=start, total=steps, unit="step", disable=not progress) as bar:
            for step in range(start, steps):
                for group in rule.param_groups:
                    group["lr"] = learning_rate * learning_rate_factor(step, steps, warmup, decay)
                batch = draw(sets, batch_size, alphas, prediction_type, generator)
                with autocast:
                    loss = denoising_loss(unet, batch)
                scaler.scale(loss).backward()
                scaler.unscale_(rule)
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                scaler.step(rule)
                scaler.update()
                rule.zero_grad()
                bar.update()
                if callback or step % 10 == 9:  # reading the loss waits for the GPU, so not every step
                    bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
                if checkpoint is not None and (step + 1) % checkpoint_every == 0 and step + 1 < steps:
                    keep(checkpoint, settings, step + 1, **state)
                if callback:
                    callback(step + 1, loss.item())
        lora = LoRA(
            {layer: tuple(f.detach().cpu().clone() for f in pair) for layer, pair in factors.items()},
            metadata={"lorarar_training": json.dumps(settings)},
        )
    if not all(torch.isfinite(factor).all() for pair in lora.values() for factor in pair):
        raise ValueError("training diverged: choose a smaller learning rate, or bf16 or full precision")
    if checkpoint is not None:
        Path(checkpoint).unlink(missing_ok=True)
    return lora


def keep(
    file: str | Path,
    settings: dict[str, Any],
    step: int,
    parameters: list[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    generator: torch.Generator,
) -> None:
    """Write a run's state aside and rename it, so that a kill at any moment leaves a whole checkpoint."""
    aside = Path(f"{file}.part")
    torch.save(
        {
            "settings": settings,
            "step": step,
            "parameters": [parameter.detach() for parameter in parameters],
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict(),
            "generator": generator.get_state(),
        },
        aside,
    )
    os.replace(aside, file)


def restore(
    file: str | Path,
    settings: dict[str, Any],
    parameters: list[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    generator: torch.Generator,
) -> int:
    """Take up a run's state and return its steps so far. Raises ValueError if the file is another run's."""
    try:
        state = torch.load(file, map_location=parameters[0].device, weights_only=True)
        other = [name for name in settings if state["settings"].get(name) != settings[name]]
    except Exception as error:  # a torn or foreign file fails in torch, zipfile or pickle
        raise ValueError(
            f"{file} is not a checkpoint of this training: remove it or do not resume"
        ) from error
    if other:
        raise ValueError(
            f"{file} is the checkpoint of a run with other {', '.join(other)}: remove it or do not resume"
        )
    with torch.no_grad():
        for parameter, value in zip(parameters, state["parameters"], strict=True):
            parameter.copy_(value)
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    generator.set_state(state["generator"].cpu())
    return state["step"]
