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
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lorarar.images import Images, read_images
from lorarar.lora import LoRA
from lorarar.options import LoraOptions, LoraRecipe, values
from lorarar.pipelines import base_sha256, generate, load_pipeline
from lorarar.scales import Scale
from lorarar.train.denoising import denoising_loss, draw, frozen
from lorarar.train.loop import Checkpoint, Run, learning_rate_factor, make_optimizer
from lorarar.train.pictures import Concept, encode

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")

_ADAPTER = "dreambooth"
_PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}


def require_layers(unet: torch.nn.Module, targets: Sequence[str]) -> None:
    """Raise ValueError unless each target is a name, or the end of one, of layers that can be trained."""
    kinds = torch.nn.Linear, torch.nn.Conv2d
    layers = [f".{name}" for name, module in unet.named_modules() if isinstance(module, kinds)]
    if missing := [name for name in targets if not any(layer.endswith(f".{name}") for layer in layers)]:
        raise ValueError(f"the UNet has no layers named {', '.join(missing)}")


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
    with frozen(pipe, gradient_checkpointing):
        require_layers(unet, targets)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                config = LoraConfig(
                    r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(targets)
                )
                unet.add_adapter(config, _ADAPTER)
            factors = {}
            for name, module in unet.named_modules():
                if isinstance(module, LoraLayer):
                    up, down = module.lora_B[_ADAPTER].weight, module.lora_A[_ADAPTER].weight
                    up.data, down.data = up.data.float(), down.data.float()
                    factors[f"unet.{name}"] = (up, down)
            yield factors
        finally:
            unet.unload_lora()


def train_lora(
    pipe: DiffusionPipeline | str | Path | Scale,
    images: Images | None = None,
    prompt: str | Sequence[str] | None = None,
    options: LoraRecipe | None = None,
    *,
    concepts: Sequence[Concept] | None = None,
    class_images: Images | int = 100,
    device: str | torch.device | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    resume: bool = False,
    progress: bool = True,
    callback: Callable[[int, float], None] | None = None,
    **changes: Any,
) -> LoRA:
    """Train a LoRA on a few images of a subject or a style.

    The text encoders stay frozen; the LoRA itself is always float32. The pipeline is left as it was found.

    Args:
        pipe: a diffusers SDXL or SD 1.5 pipeline, or what `lorarar.pipelines.load_pipeline` takes.
        images: what `read_images` reads: a folder, a list of files or images, or a (n, h, w, 3) uint8 array.
            They are scaled and cropped to the pipeline's own square size.
        prompt: one for all images ("A sks dog"), or a caption for each ("a vase in watercolor painting
            style").
        options: `lorarar.options.LoraOptions`, or a scale's recipe; the defaults are the papers' for SDXL.
        concepts: instead of ``images`` and ``prompt``, several (images, prompt): one LoRA learns them
            jointly, each drawn equally often (multi-concept DreamBooth).
        class_images: images of the class, or how many of them the base model makes from ``class_prompt``.
        device: where a pipeline given by name is loaded; one given as an object stays where it is.
        checkpoint: a file in which the run's state is kept, written aside and renamed; removed at the end.
        checkpoint_every: steps between two checkpoints.
        resume: go on from ``checkpoint``, if there is one; the result is the same as without the
            interruption.
        progress: show a bar.
        callback: called after each step with its number, from 1, and its loss.
        **changes: single options by name, which take precedence.

    Returns:
        The LoRA in memory, float32 on the CPU; `lorarar.save_lora` writes an ordinary diffusers file.

    Raises:
        ValueError: an option is out of range, or an image, the base or the checkpoint cannot be used.
    """
    if (concepts is None) == (images is None or prompt is None):
        raise ValueError("give either images and a prompt, or concepts")
    concepts = [(images, prompt)] if concepts is None else list(concepts)
    o = LoraOptions.of(options, **changes)
    kept = Checkpoint.at(checkpoint, checkpoint_every, resume)
    # Pictures are read before the base, so that a bad one is reported at once.
    concepts = [(read_images(pictures), words) for pictures, words in concepts]
    if isinstance(pipe, str | Path) or not hasattr(pipe, "unet"):
        pipe = load_pipeline(pipe, device)
    unet = pipe.unet
    width = max(unet.config.block_out_channels)
    if o.rank > width:
        raise ValueError(
            f"rank {o.rank} is more than the UNet's greatest width, {width}: choose a smaller rank"
        )

    from diffusers import DDPMScheduler

    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    alphas = schedule.alphas_cumprod.to(unet.device, torch.float32)
    prediction_type = schedule.config.prediction_type
    sets = [encode(pipe, concepts, flip=o.flip)]
    if o.class_prompt is not None:
        if isinstance(class_images, int):
            if class_images < 1:
                raise ValueError(f"class_images must be at least 1, not {class_images}")
            seeds = range(o.seed, o.seed + class_images)
            class_images = generate(pipe, o.class_prompt, seeds, progress=progress)
        sets.append(encode(pipe, [(class_images, o.class_prompt)], flip=o.flip, weight=o.prior_weight))

    own = unet.dtype if unet.dtype in _PRECISIONS.values() else None
    kind = _PRECISIONS[o.precision] if o.precision else own
    autocast = torch.autocast(unet.device.type, kind) if kind else nullcontext()
    generator = torch.Generator().manual_seed(o.seed)
    settings = {
        "images": hashlib.sha256(
            b"".join(i.tobytes() for pictures, _ in concepts for i in pictures)
        ).hexdigest(),
        "prompts": [words if isinstance(words, str) else list(words) for _, words in concepts],
        "base": base_sha256(pipe),
        **{name: value for name, value in values(o).items() if name != "gradient_checkpointing"},
        "targets": list(o.targets),
    }

    with adapted(
        pipe, o.rank, o.targets, seed=o.seed, gradient_checkpointing=o.gradient_checkpointing
    ) as factors:

        def loss(_step: int) -> tuple[Tensor, tuple[Tensor]]:
            batch = draw(sets, o.batch_size, alphas, prediction_type, generator)
            with autocast:
                value = denoising_loss(unet, batch)
            return value, (value.detach(),)

        parameters = [factor for pair in factors.values() for factor in pair]
        Run(
            loss,
            parameters,
            make_optimizer(o.optimizer, parameters, o.learning_rate),
            o.steps,
            settings,
            generator,
            half=kind == torch.float16 and unet.device.type == "cuda",
            clip=1.0,
            rate=lambda step: learning_rate_factor(step, o.steps, o.warmup, o.decay),
            checkpoint=kept,
        ).go("lora", ("loss",), progress, callback and (lambda step, terms: callback(step, *terms)))
        lora = LoRA(
            {layer: tuple(f.detach().cpu().clone() for f in pair) for layer, pair in factors.items()},
            metadata={"lorarar_training": json.dumps(settings)},
        )
    if not all(torch.isfinite(factor).all() for pair in lora.values() for factor in pair):
        raise ValueError("training diverged: choose a smaller learning rate, or bf16 or full precision")
    kept.remove()
    return lora
