"""The merged update inside the UNet: two frozen LoRAs, and one coefficient per column between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lorarar.lora import LoRA, LoRAError, Pair
from lorarar.merging import RESTS, Gates, batches, matching, stacked
from lorarar.pipelines import check_fit
from lorarar.train.denoising import frozen

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


Update = Callable[[Mapping[str, Pair]], None]


class Gated:
    """A content and a style LoRA as one update of rank r_c + r_s, ready to be gated by coefficients.

    What does not depend on the coefficients is prepared once. The result is `lorarar.merging.ziplora`'s:
    layers of ``layers`` get coefficients, other layers of both LoRAs are averaged or summed (``rest``), and a
    layer of one LoRA only is kept.

    Args:
        content: the subject's LoRA.
        style: the style's.
        layers: linear layers of both that coefficients will be given for.
        rest: ``average`` (LoRA.rar's text) or ``sum`` (its released code).
        device: where the update is needed.
        dtype: of the update, the UNet's; the columns are gated in float32.

    Raises:
        ValueError: the LoRAs do not match, or ``rest`` is unknown.
    """

    def __init__(
        self,
        content: LoRA,
        style: LoRA,
        layers: Iterable[str],
        *,
        rest: str = "average",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if rest not in RESTS:
            raise LoRAError(f"rest {rest!r}: expected one of {', '.join(RESTS)}")
        shared, gated = matching(content, style), set(layers)
        if strange := sorted(gated - set(shared)):
            raise LoRAError(f"coefficients for layer {strange[0]}, which is not in both LoRAs")
        self.dtype = dtype
        self.groups: list[tuple[list[str], tuple[Tensor, ...], Tensor, Tensor]] = []
        self.constant: dict[str, Pair] = {}

        def factors(names: list[str], which: int) -> list[Tensor]:
            return [
                stacked([lora[layer][which] for layer in names]).to(device, torch.float32)
                for lora in (content, style)
            ]

        for names in batches(content, style, shared, 1 << 28):  # few large groups: few operations a step
            inside = [layer for layer in names if layer in gated]
            if inside:
                up = torch.cat(factors(inside, 0), 2).to(dtype)  # (n, out, r_c + r_s)
                self.groups.append((inside, up.unbind(), *factors(inside, 1)))
            outside = [layer for layer in names if layer not in gated]
            if outside:
                up = torch.cat(factors(outside, 0), 2).to(dtype)
                down = torch.cat(factors(outside, 1), 1) * (0.5 if rest == "average" else 1.0)
                pairs = zip(up.unbind(), down.to(dtype).unbind(), strict=True)
                self.constant.update(zip(outside, pairs, strict=True))
        for lora, other in ((content, style), (style, content)):
            one = LoRA({layer: pair for layer, pair in lora.items() if layer not in other})
            self.constant.update(placed(one, device, dtype))

    def update(self, coefficients: Gates) -> dict[str, Pair]:
        """Return layer → (B, A·diag(m)); gradients flow into the coefficients, (in,) each."""
        pairs = dict(self.constant)
        for names, ups, down_c, down_s in self.groups:
            m_c, m_s = (
                stacked([coefficients[layer][which] for layer in names]).to(down_c.device)[:, None]
                for which in (0, 1)
            )
            downs = torch.cat([down_c * m_c, down_s * m_s], 1).to(self.dtype)  # (n, r_c + r_s, in)
            pairs.update(zip(names, zip(ups, downs.unbind(), strict=True), strict=True))
        return pairs


def placed(lora: Mapping[str, Pair], device: torch.device | str, dtype: torch.dtype) -> dict[str, Pair]:
    """Return the factors on a device, in a type."""
    return {layer: (up.to(device, dtype), down.to(device, dtype)) for layer, (up, down) in lora.items()}


def _added(module: torch.nn.Module, x: Tensor, pair: Pair) -> Tensor:
    """What an update (up, down) adds to a linear layer's or a convolution's answer to x."""
    up, down = pair
    if down.ndim == 2:
        return torch.nn.functional.linear(torch.nn.functional.linear(x, down), up)
    inner = torch.nn.functional.conv2d(x, down, None, module.stride, module.padding, module.dilation)
    return torch.nn.functional.conv2d(inner, up)


@contextmanager
def updates(
    pipe: DiffusionPipeline, layers: Iterable[str], *, gradient_checkpointing: bool = False
) -> Iterator[Update]:
    """Let layers of the UNet take low-rank updates while the block runs; then leave it as it was found.

    Yields a function that sets the updates, ``{layer: (up (out, r), down (r, in))}`` on the UNet's device and
    in its type, of all forward passes until it is called again; ``{}`` gives the base model. With gradient
    checkpointing it must not be called between a forward pass and its backward pass. The UNet's own weights
    are frozen.

    Raises:
        ValueError: the UNet carries a LoRA already.
    """
    now: dict[str, Pair] = {}

    def hook(layer: str) -> Callable[[torch.nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        def add(module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            return output + _added(module, inputs[0], now[layer]) if layer in now else None

        return add

    known = {layer: pipe.unet.get_submodule(layer.removeprefix("unet.")) for layer in layers}

    def update(pairs: Mapping[str, Pair]) -> None:
        if strange := sorted(set(pairs) - set(known)):
            raise ValueError(f"no update was announced for layer {strange[0]}")
        now.clear()
        now.update(pairs)

    handles = []
    with frozen(pipe, gradient_checkpointing):
        try:
            for layer, module in known.items():
                handles.append(module.register_forward_hook(hook(layer)))
            yield update
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def gated(
    pipe: DiffusionPipeline, content: LoRA, style: LoRA, coefficients: Gates, *, rest: str = "average"
) -> Iterator[DiffusionPipeline]:
    """Apply a pair of LoRAs, gated by coefficients, while the block runs, as if merged and loaded.

    Raises:
        ValueError: a LoRA is not made for this base or not for its UNet alone, or the two do not match.
    """
    for lora, name in ((content, "content"), (style, "style")):
        check_unet(pipe, lora, name)
    where = {"device": pipe.unet.device, "dtype": pipe.unet.dtype}
    both = Gated(content, style, coefficients, rest=rest, **where)
    with updates(pipe, [*content, *(layer for layer in style if layer not in content)]) as update:
        update(both.update(coefficients))
        yield pipe


def check_unet(pipe: DiffusionPipeline, lora: LoRA, name: str) -> None:
    """Raise ValueError unless the LoRA fits the pipeline's UNet and updates nothing else."""
    if not lora:
        raise LoRAError(f"{name}: holds no layer; is it the right LoRA?")
    other = [layer for layer in lora if not layer.startswith("unet.")]
    if other:
        raise LoRAError(
            f"{name}: layer {other[0]} is not the UNet's; the merging loss is the UNet's alone, as in the "
            "papers: give LoRAs trained with frozen text encoders"
        )
    try:
        check_fit(pipe, lora)
    except ValueError as error:
        raise LoRAError(f"{name}: {error}") from None
