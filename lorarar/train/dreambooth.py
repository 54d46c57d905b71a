"""DreamBooth: a LoRA trained on a few images, for a subject or a style, or for several concepts jointly.

The objective is the base model's own (predict the noise, or v, at a random timestep of a noised latent); only
the low-rank matrices on attention's q, k, v and out move. Ruiz et al. 2023 (DreamBooth), Hu et al. 2022
(LoRA); the hyperparameters of the papers reproduced here are in `lorarar.scales.SCALES`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from lorarar.images import Images, read_images
from lorarar.lora import LoRA
from lorarar.pipelines import base_sha256, generate, load_pipeline
from lorarar.scales import Scale
from lorarar.train.denoising import denoising_loss, draw
from lorarar.train.loop import keep, learning_rate_factor, make_optimizer, restore
from lorarar.train.pictures import Concept, encode

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")

_ADAPTER = "dreambooth"
_PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}


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
        pipe: a diffusers SDXL or SD 1.5 pipeline, or what `lorarar.pipelines.load_pipeline` takes.
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
        rule = make_optimizer(optimizer, parameters, learning_rate)
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
