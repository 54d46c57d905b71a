"""What a LoRA's layers are given while it works: the second moments that RegMean merges by.

A LoRA file does not say what its layers see. But with its base it can draw, and while it draws its own
subject or style the inputs pass by. No picture of the training set is needed, and a LoRA is measured once,
whatever it is merged with. Mix-of-Show gathers inputs in the same way (Gu et al. 2023, arXiv 2305.18292).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lorarar.lora import LoRA
from lorarar.options import InputsOptions
from lorarar.pipelines import generate, loaded
from lorarar.train.adapters import Trained, opened
from lorarar.train.gates import check_unet, updates
from lorarar.train.objective import teach

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def own_inputs(
    pipe: DiffusionPipeline,
    lora: LoRA,
    prompts: str | Sequence[str],
    options: InputsOptions | None = None,
    *,
    progress: bool = False,
    **changes: Any,
) -> dict[str, Tensor]:
    """Measure the inputs of a LoRA's layers while it draws pictures of its own, without guidance.

    Args:
        pipe: the base's pipeline, without a LoRA; it is left as it was found.
        lora: the subject's or the style's.
        prompts: that it was trained for, such as "a sks dog"; of several, pictures take turns.
        options: `lorarar.options.InputsOptions`: how many pictures, in how many steps, from which seed.
        progress: show a bar.
        **changes: single options by name.

    Returns:
        Layer → E[x xᵀ] over pictures, steps and places, (in, in) float32 on the UNet's device, for the linear
        layers of the UNet that the LoRA has. Layers that are given the very same tensor share one.

    Raises:
        ValueError: an option is out of range, there is no prompt, or the LoRA is for another base.
    """
    o = InputsOptions.of(options, **changes)
    said = [prompts] if isinstance(prompts, str) else list(prompts)
    if not said:
        raise ValueError("what does the LoRA draw? Give the prompt it was trained with")
    wanted = [said[i % len(said)] for i in range(o.pictures)]
    seeds = range(o.seed, o.seed + o.pictures)
    with loaded(pipe, lora), watched(pipe, lora) as moments:
        generate(pipe, wanted, list(seeds), steps=o.drawing_steps, guidance=1.0, progress=progress)
    return moments()


def pictured_inputs(pipe: DiffusionPipeline, trained: Trained, draws: int, seed: int) -> dict[str, Tensor]:
    """Measure the inputs of a LoRA's layers on noised pictures of its training set; the rest as `own_inputs`.

    Args:
        pipe: the base's pipeline, without a LoRA.
        trained: the LoRA, for the UNet alone, with its pictures and captions.
        draws: how many (picture, noise, timestep).
        seed: of the draws.
    """
    side = opened(trained)
    check_unet(pipe, side.lora, side.name)
    with updates(pipe, side.lora) as update, watched(pipe, side.lora) as moments:
        teach(pipe, update, side, draws, seed)
    return moments()


@contextmanager
def watched(pipe: DiffusionPipeline, layers: Iterable[str]) -> Iterator[Callable[[], dict[str, Tensor]]]:
    """Add up the second moments of what the UNet's linear layers are given, while the block runs.

    Yields a function that returns them, layer → (in, in), after the block.
    """
    names = [layer for layer in layers if layer.startswith("unet.")]
    modules = {layer: pipe.unet.get_submodule(layer.removeprefix("unet.")) for layer in names}
    modules = {k: m for k, m in modules.items() if getattr(m, "weight", torch.empty(0)).ndim == 2}
    first: dict[int, str] = {}  # of one forward pass: a tensor and the layer that was given it first
    held: list[Tensor] = []
    leader: dict[str, str] = {}
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def begin(*_: object) -> None:
        first.clear()
        held.clear()

    def look(layer: str) -> Callable[[torch.nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: torch.nn.Module, given: tuple[Tensor, ...]) -> None:
            x = given[0]
            if layer not in leader:
                # Query, key and value of a block are given one tensor, and so are all that read the text.
                leader[layer] = first.setdefault(id(x), layer)
                held.append(x)  # or its address would be given to another
            if leader[layer] == layer:
                rows = x.detach().reshape(-1, x.shape[-1]).float()
                sums[layer] = sums.get(layer, 0) + rows.T @ rows
                counts[layer] = counts.get(layer, 0) + len(rows)

        return hook

    handles = [pipe.unet.register_forward_pre_hook(begin)]
    handles += [module.register_forward_pre_hook(look(layer)) for layer, module in modules.items()]

    def moments() -> dict[str, Tensor]:
        means = {layer: total / counts[layer] for layer, total in sums.items()}
        return {layer: means[leader[layer]] for layer in modules if layer in leader}

    try:
        with torch.no_grad():
            yield moments
    finally:
        held.clear()
        for handle in handles:
            handle.remove()
