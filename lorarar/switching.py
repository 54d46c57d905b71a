"""Two LoRAs in one pipeline that are never added: who is heard in which layer, at which step of sampling.

All methods here leave both LoRAs as they are and need no training. `scheduled` is the mechanism of those that
know beforehand who is heard: K-LoRA (`lorarar.klora`), EST-LoRA (`lorarar.estlora`) and, with one answer for
all layers, LoRA Switch. `composed` hears both and averages what they say; `selected` asks the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from lorarar.lora import LoRA, LoRAError
from lorarar.merging import matching
from lorarar.pipelines import loaded

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
    from peft.tuners.lora import LoraLayer
    from torch import Tensor

EVERY = 5
"""Steps after which LoRA Switch changes, in the paper, whose pictures take 100 or 200."""


def turns(steps: int, *, every: int = EVERY) -> np.ndarray:
    """Return at which steps LoRA Switch takes the content LoRA: (steps,) bool.

    Zhong et al., arXiv 2402.16843, §2.2: of k LoRAs in turn the one that is heard at step t = 1, 2, … is

        i = ⌊((t − 1) mod k·τ) / τ⌋ + 1,

    here with k = 2 and τ = ``every``; the content is first, as the paper advises (§3.3.2).

    Raises:
        LoRAError: ``every`` is below 1.
    """
    if every < 1:
        raise LoRAError(f"every {every}: expected at least 1 step")
    return np.arange(steps) % (2 * every) < every


@contextmanager
def scheduled(
    pipe: DiffusionPipeline,
    content: LoRA,
    style: LoRA,
    choices: Callable[[int], np.ndarray],
    layers: Collection[str] | None = None,
) -> Iterator[DiffusionPipeline]:
    """Let every step of every image made in the block take, layer by layer, one of the two LoRAs.

    The step is read off the timestep with which the pipeline calls its UNet, whatever the scheduler and the
    number of steps. A layer that only one LoRA has keeps it; text encoders, which no step runs, take the
    average of both. The pipeline is left as it was found.

    Args:
        pipe: an SDXL or SD 1.5 pipeline without LoRAs.
        content: the subject's LoRA.
        style: the style's.
        choices: steps → which layers take the content LoRA at which step, (steps, layers) bool; (steps, 1)
            serves all layers.
        layers: in the order of ``choices``; None takes `shared`.

    Raises:
        LoRAError: see `lorarar.merging.matching` and `shared`.
        ValueError: a LoRA is not made for this base, or the pipeline already carries one.
    """
    with both(pipe, content, style, layers) as modules:
        known: dict[int, np.ndarray] = {}

        def choose(_: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            now = arguments[1] if len(arguments) > 1 else named["timestep"]
            all_steps = pipe.scheduler.timesteps
            steps = len(all_steps)
            step = int((all_steps == torch.as_tensor(now, device=all_steps.device)).nonzero()[0])
            if steps not in known:
                known[steps] = np.broadcast_to(choices(steps), (steps, len(modules)))
            for module, take_content in zip(modules, known[steps][step], strict=True):
                _weigh(module, float(take_content), float(not take_content))

        hook = pipe.unet.register_forward_pre_hook(choose, with_kwargs=True)
        try:
            yield pipe
        finally:
            hook.remove()


@contextmanager
def composed(pipe: DiffusionPipeline, content: LoRA, style: LoRA) -> Iterator[DiffusionPipeline]:
    """LoRA Composite: each step asks the UNet once with either LoRA and goes the average way.

    Zhong et al., arXiv 2402.16843, §2.2: with θ_i the weights with the i-th of k LoRAs, guidance s and the
    prompt c,

        ẽ(z, c) = 1/k · Σ_i w_i · [e_θi(z) + s·(e_θi(z, c) − e_θi(z))],

    here with k = 2 and w_i = 1, as the paper has it. Guidance is linear, so the average of the UNet's answers
    is enough. A picture takes twice the time. Arguments, layers of one LoRA, text encoders and errors as in
    `scheduled`.
    """
    with both(pipe, content, style) as modules:

        def hear(content_weight: float) -> None:
            for module in modules:
                _weigh(module, content_weight, 1.0 - content_weight)

        def average(
            unet: torch.nn.Module,
            arguments: tuple[Any, ...],
            named: dict[str, Any],
            first: tuple[Tensor] | UNet2DConditionOutput,
        ) -> tuple[Tensor] | UNet2DConditionOutput:
            hear(0.0)
            second = unet.forward(*arguments, **named)  # without hooks, so not this one again
            hear(1.0)
            mean = (first[0] + second[0]) / 2
            return (mean,) if isinstance(first, tuple) else type(first)(sample=mean)

        hear(1.0)
        hook = pipe.unet.register_forward_hook(average, with_kwargs=True)
        try:
            yield pipe
        finally:
            hook.remove()


@contextmanager
def selected(pipe: DiffusionPipeline, content: LoRA, style: LoRA) -> Iterator[DiffusionPipeline]:
    """Dynamic fusion, its feature-level selection: a layer takes the LoRA that changes its features more.

    Cao et al., arXiv 2602.15539: at every step each layer with LoRAs compares what it says without a LoRA
    with what it says under either, by the KL divergence, and selects the LoRA with the larger one. The other
    half of the paper, gradients of CLIP and DINO on the latents, is not here.

    Of the paper's text only the abstract and the start could be had. That the choice is hard and goes to the
    larger divergence (its eq. 13), and that it leaves open how features become probabilities, is what readers
    report; the softmax of `divergence`, and that each sample of a batch chooses for itself, are ours.
    Arguments, layers of one LoRA, text encoders and errors as in `scheduled`.
    """
    with both(pipe, content, style) as modules, ExitStack() as stack:
        for module in modules:
            _weigh(module, 0.0, 0.0)  # so a layer's answer is the base's
            hook = module.register_forward_hook(_select)
            stack.callback(hook.remove)
        yield pipe


def _select(module: LoraLayer, arguments: tuple[Any, ...], base: Tensor) -> Tensor:
    x = arguments[0].to(module.lora_A["lora0"].weight.dtype)
    updates = [module.lora_B[name](module.lora_A[name](x)).to(base.dtype) for name in ("lora0", "lora1")]
    by_content, by_style = (divergence(base, base + update) for update in updates)
    take = (by_content >= by_style).view(-1, *[1] * (base.ndim - 1))
    return base + torch.where(take, *updates)


def divergence(base: Tensor, changed: Tensor) -> Tensor:
    """Return KL(softmax(base) ‖ softmax(changed)) over the channels, the mean of all places: (batch,).

    Args:
        base: a layer's features (batch, …, channels), or (batch, channels, h, w) of a convolution.
        changed: the same under a LoRA.
    """
    channels = 1 if base.ndim == 4 else -1
    log_p, log_q = (F.log_softmax(x.float(), channels) for x in (base, changed))
    return (log_p.exp() * (log_p - log_q)).sum(channels).flatten(1).mean(1)


def shared(content: LoRA, style: LoRA) -> list[str]:
    """Return the layers of the denoiser that both LoRAs have, where one can be chosen.

    Raises:
        LoRAError: the adapters do not match (see `lorarar.merging.matching`), or there is no such layer.
    """
    layers = [layer for layer in matching(content, style) if not layer.startswith("text_encoder")]
    if not layers:
        raise LoRAError("the LoRAs share no layer of the denoiser, where one is chosen; use method direct")
    return layers


@contextmanager
def both(
    pipe: DiffusionPipeline, content: LoRA, style: LoRA, layers: Collection[str] | None = None
) -> Iterator[list[LoraLayer]]:
    """Load both LoRAs, average their text encoders, and give peft's modules of the layers to choose in."""
    layers = shared(content, style) if layers is None else layers
    with loaded(pipe, content, style):
        for layer in matching(content, style):
            if layer not in layers:
                _weigh(_module(pipe, layer), 0.5, 0.5)
        yield [_module(pipe, layer) for layer in layers]


def _module(pipe: DiffusionPipeline, layer: str) -> LoraLayer:
    """Return peft's module of a layer that both LoRAs have."""
    component, _, name = layer.partition(".")
    model = getattr(pipe, component)
    if not hasattr(model, "text_model"):  # transformers 5 has dropped the level from CLIPTextModel
        name = name.removeprefix("text_model.")
    return model.get_submodule(name)


def _weigh(module: LoraLayer, content: float, style: float) -> None:
    for name, weight in (("lora0", content), ("lora1", style)):  # the names that `loaded` gives
        module.set_scale(name, weight)
