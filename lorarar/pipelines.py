"""Loading pipelines, putting adapters into them, and sampling."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from lorarar.halves import keep_halves
from lorarar.options import GenerateOptions
from lorarar.scales import DATA, MODEL_ID, SCALES, Scale, local

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from lorarar.lora import LoRA


def device() -> torch.device:
    """Return the best device of this machine: a CUDA GPU, Apple's, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def find_device(name: str | torch.device | None) -> torch.device:
    """Return the device of that name, the best one for None. Raises ValueError if there is no such device."""
    if name is None:
        return device()
    try:
        found = torch.device(name)
        torch.empty(0, device=found)
        if found.type == "meta":
            raise RuntimeError("holds no data")
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA answers with an assertion
        raise ValueError(
            f"no device {str(name)!r} on this machine: choose cpu, cuda, cuda:N or mps"
        ) from error
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the loading bars and notices of diffusers and transformers off the terminal for a while."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    levels = [library.get_verbosity() for library in libraries]
    bars = [library.is_progress_bar_enabled() for library in libraries]
    try:
        for library in libraries:
            library.set_verbosity_error()
            library.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # renamed arguments, a second adapter
            yield
    finally:
        for library, level, bar in zip(libraries, levels, bars, strict=True):
            library.set_verbosity(level)
            if bar:
                library.enable_progress_bar()


def load_pipeline(
    source: str | Path | Scale,
    device: str | torch.device | None = None,
    like: Scale | None = None,
) -> DiffusionPipeline:
    """Load a text-to-image pipeline with diffusers and nothing else.

    A GPU has the weights in the scale's type and computes in it. A CPU computes in float32; the weights of a
    scale in half precision stay halves, though (`lorarar.halves`).

    Args:
        source: a scale or its name, a folder in diffusers' layout, or a Hugging Face model id.
        device: where it shall run; None takes the best there is.
        like: the scale whose settings hold for a base that is given by its folder or id; None takes the scale
            that has this base, if there is one.

    Returns:
        ``StableDiffusionXLPipeline`` or ``StableDiffusionPipeline``, without safety checker, watermark and
        progress bars. Its attribute ``scale`` is the `Scale` it was loaded for, or None.

    Raises:
        ValueError: in one line, if the folder is missing or is not such a pipeline, or the model cannot be
            had.
    """
    scale = source if isinstance(source, Scale) else SCALES.get(str(source))
    base = str(source) if scale is None else scale.base
    place = local(base) if scale else Path(base)
    if not place.is_dir() and (base.startswith("data/") or not MODEL_ID.fullmatch(base)):
        wanted = f"LORARAR_DATA to name {DATA}" if scale else "a folder, a scale or a hub's model id"
        raise ValueError(f"no model folder {place}: expected {wanted}")
    if place.is_dir() and not (place / "model_index.json").is_file():
        raise ValueError(f"{place} is not a diffusers pipeline: it has no model_index.json")
    if scale is None:  # a scale's base, named by its path or id: the larger scale where two share it
        scale = like or next(
            (s for s in reversed(SCALES.values()) if local(s.base).resolve() == place.resolve()), None
        )

    where = find_device(device)
    unknown = "float32" if where.type == "cpu" else "float16"
    dtype = getattr(torch, scale.dtype if scale else unknown)
    # Only repositories hold half-precision weights beside the full ones.
    variant = scale.variant if scale and not place.is_dir() else None
    name = str(place) if place.is_dir() else base
    with quiet():
        from diffusers import AutoPipelineForText2Image, StableDiffusionPipeline, StableDiffusionXLPipeline

        try:
            pipe = AutoPipelineForText2Image.from_pretrained(
                name, torch_dtype=dtype, variant=variant, safety_checker=None, requires_safety_checker=False
            )
        except (
            Exception
        ) as error:  # diffusers and the hub raise anything from OSError to SafetensorError here
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
            raise ValueError(f"cannot load {name} as a diffusers pipeline: {reason}") from error
    if not isinstance(pipe, StableDiffusionXLPipeline | StableDiffusionPipeline):
        raise ValueError(f"{name} is a {type(pipe).__name__}: an SDXL or SD 1.5 pipeline is needed")
    if hasattr(pipe, "watermark"):
        pipe.watermark = None
    pipe.set_progress_bar_config(disable=True)
    pipe.scale = scale
    if where.type == "cpu" and dtype != torch.float32:
        for name in ("unet", "text_encoder", "text_encoder_2"):
            if (model := getattr(pipe, name, None)) is not None:
                keep_halves(model)
        pipe.vae.float()
    return pipe.to(where)


@contextmanager
def loaded(
    pipe: DiffusionPipeline, *loras: LoRA, weights: Sequence[float] | None = None
) -> Iterator[DiffusionPipeline]:
    """Apply one or several LoRAs, summed with ``weights`` (1 each), while the block runs.

    Raises ValueError, naming the layer, if a LoRA is not made for this base, or if the pipeline already
    carries one.
    """
    weights = [1.0] * len(loras) if weights is None else [float(weight) for weight in weights]
    if len(weights) != len(loras):
        raise ValueError(f"{len(weights)} weights for {len(loras)} LoRAs")
    if pipe.get_list_adapters():
        raise ValueError("the pipeline already carries a LoRA: call pipe.unload_lora_weights() first")
    for lora in loras:
        check_fit(pipe, lora)
    try:
        with quiet():
            for i, lora in enumerate(loras):
                pipe.load_lora_weights(_uniform(lora, pipe.dtype), adapter_name=f"lora{i}")
            if loras:
                pipe.set_adapters([f"lora{i}" for i in range(len(loras))], weights)
        _compute_in(pipe.unet.dtype, pipe)
        yield pipe
    finally:
        pipe.unload_lora_weights()


def _compute_in(dtype: torch.dtype, pipe: DiffusionPipeline) -> None:
    """Let applied LoRAs compute in a type: peft gives them that of the layer's weights, which may be kept."""
    for name in ("unet", "text_encoder", "text_encoder_2"):
        if (model := getattr(pipe, name, None)) is not None:
            for key, parameter in model.named_parameters():
                if ".lora_" in key:
                    parameter.data = parameter.data.to(dtype)


def check_fit(pipe: DiffusionPipeline, lora: LoRA) -> None:
    """Raise ValueError, naming the layer, unless the pipeline has every layer of the LoRA, in its shape."""
    for layer, (up, down) in lora.items():
        component, _, name = layer.partition(".")
        try:
            model = getattr(pipe, component)
            if not hasattr(model, "text_model"):  # transformers 5 has dropped the level from CLIPTextModel
                name = name.removeprefix("text_model.")
            weight = model.get_submodule(name).weight
        except AttributeError:
            raise ValueError(f"the LoRA is for another base model: this one has no layer {layer}") from None
        found, wanted = (up.shape[0], *down.shape[1:]), tuple(weight.shape)
        if found != wanted:
            raise ValueError(f"the LoRA is for another base model: {layer} is {wanted} there, {found} here")


def base_sha256(pipe: DiffusionPipeline) -> str:
    """Return the SHA-256 by which what is trained knows its base: that of the UNet's first weights.

    They stand for all of them: no training of a base leaves them as they are, and to hash all would take
    seconds at SDXL's size.
    """
    first = pipe.unet.conv_in.weight.detach().float().cpu().numpy()
    return hashlib.sha256(first.tobytes()).hexdigest()


def _uniform(lora: LoRA, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the factors under peft's names, padded with zeros to one rank.

    Without alphas diffusers scales a layer by (commonest rank / its own rank): harmless only if all are
    equal.
    """
    rank = max(down.shape[0] for _, down in lora.values())
    state = {}
    for layer, (up, down) in lora.items():
        more = rank - down.shape[0]
        zeros = up.new_zeros(up.shape[0], more, *up.shape[2:]), down.new_zeros(more, *down.shape[1:])
        state[f"{layer}.lora_B.weight"] = torch.cat([up, zeros[0]], 1).to(dtype)
        state[f"{layer}.lora_A.weight"] = torch.cat([down, zeros[1]], 0).to(dtype)
    return state


def generate(
    pipe: DiffusionPipeline,
    prompts: str | Sequence[str],
    seeds: int | Sequence[int],
    options: GenerateOptions | None = None,
    *,
    progress: bool = False,
    callback: Callable[[int, np.ndarray], None] | None = None,
    **changes: Any,
) -> np.ndarray:
    """Generate images, each from its own prompt and seed.

    Image i starts from noise that ``seeds[i]`` alone decides, drawn on the CPU, so it does not depend on the
    batch it shares or on the device (up to the last bits of floating point, which may move a pixel by one
    level).

    Args:
        pipe: a diffusers SDXL or SD 1.5 pipeline.
        prompts: one prompt per image, or one for all.
        seeds: one seed per image, or one for all.
        options: `lorarar.options.GenerateOptions`; steps and guidance that are not given are those of the
            scale that the pipeline was loaded for, else 50 and 5; images at once are `at_once`.
        progress: show a bar.
        callback: called with the index of the first image and the images of each finished batch.
        **changes: single options by name, which take precedence.

    Returns:
        (n, height, width, 3) uint8.

    Raises:
        ValueError: the numbers of prompts and seeds differ, an option is out of range, or an image is not
            finite, as when half precision overflows.
    """
    o = GenerateOptions.of(options, **changes)
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    seeds = [int(seeds)] if isinstance(seeds, Integral) else [int(seed) for seed in seeds]
    count = max(len(prompts), len(seeds))
    prompts, seeds = (items * count if len(items) == 1 else items for items in (prompts, seeds))
    if not len(prompts) == len(seeds) == count or count == 0:
        raise ValueError(
            f"{len(prompts)} prompts but {len(seeds)} seeds: give one of each per image, or one for all"
        )
    scale = getattr(pipe, "scale", None)
    steps = o.steps if o.steps is not None else scale.inference_steps if scale else 50
    guidance = o.guidance if o.guidance is not None else scale.guidance if scale else 5.0
    batch_size = o.batch_size if o.batch_size is not None else at_once(pipe)

    images = []
    with tqdm(total=count, unit="image", disable=not progress) as bar:
        for start in range(0, count, batch_size):
            chunk = slice(start, start + batch_size)
            made = pipe(
                prompt=prompts[chunk],
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds[chunk]],
                output_type="np",
            ).images
            if not np.isfinite(made).all():
                raise ValueError("the base answers with numbers that are not finite: try another precision")
            images.append((made * 255).round().astype(np.uint8))
            bar.update(len(made))
            if callback:
                callback(start, images[-1])
    return np.concatenate(images)


def at_once(pipe: DiffusionPipeline) -> int:
    """Return how many images a pipeline makes at once: a megapixel's worth, at least 1, at most 16.

    With one image of 1024 × 1024 pixels SDXL stays within a GPU of 16 GB.
    """
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    return max(1, min(16, (1 << 20) // side**2))


def grid(images: np.ndarray) -> np.ndarray:
    """Lay (n, h, w, 3) uint8 images out in rows, near-square: (H, W, 3), white where the last row ends."""
    count, height, width, _ = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    blank = np.full((rows * columns - count, height, width, 3), 255, np.uint8)
    cells = np.concatenate([images, blank]).reshape(rows, columns, height, width, 3)
    return cells.swapaxes(1, 2).reshape(rows * height, columns * width, 3)
