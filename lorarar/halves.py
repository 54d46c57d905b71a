"""Frozen weights kept in half precision and computed with in float32: what a CPU does with a large base.

Most CPUs multiply half-precision matrices many times more slowly than float32 ones (convolutions by two
orders), but SDXL's base in float32 is 14 GB. So the large weights stay in the halves that they were published
in, and each is widened into one buffer, used again and again, when its layer computes. The answer is that of
the same weights in float32, to the last bit; a pass over SDXL takes a few seconds more.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_own = threading.local()  # a buffer for each thread


def _widened(weight: Tensor) -> Tensor:
    """Return the weight in float32, in a buffer that the next call overwrites.

    Memory that is asked for anew each time has to be cleared by the system first: ten times slower.
    """
    buffer = getattr(_own, "buffer", None)
    if buffer is None or buffer.numel() < weight.numel():
        buffer = _own.buffer = torch.empty(weight.numel())
    return buffer[: weight.numel()].view(weight.shape).copy_(weight)


class _Linear(torch.autograd.Function):
    """x·Wᵀ + b with a frozen W: the backward pass keeps the half-precision weight, not its float32 copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(weight)
        return F.linear(x, _widened(weight), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (weight,) = ctx.saved_tensors
        return gradient @ _widened(weight), None, None


class _Convolution(torch.autograd.Function):
    """A convolution with a frozen weight, likewise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: tuple[Any, ...]) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(weight)
        ctx.shape, ctx.how = x.shape, how
        return F.conv2d(x, _widened(weight), bias, *how)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        (weight,) = ctx.saved_tensors
        found = torch.nn.grad.conv2d_input(ctx.shape, _widened(weight), gradient, *ctx.how)
        return found, None, None, None


class HalfLinear(nn.Linear):
    """A linear layer whose weight is kept in half precision; input, answer and bias are float32."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out), float32."""
        return _Linear.apply(x, self.weight, self.bias)


class HalfConvolution(nn.Conv2d):
    """A convolution whose weight is kept in half precision; input, answer and bias are float32."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) → (n, out, h', w'), float32."""
        how = (self.stride, self.padding, self.dilation, self.groups)
        return _Convolution.apply(x, self.weight, self.bias, how)


_KEPT: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: HalfLinear, nn.Conv2d: HalfConvolution}


def keep_halves(model: nn.Module, least: int = 1 << 16) -> None:
    """Let a frozen model, loaded in half precision, compute in float32, in place.

    The weights of linear layers and convolutions stay as they are if they have ``least`` entries; everything
    else (norms, biases, embeddings, the first convolution, by which a model tells its type) becomes float32.
    """
    first = True
    for module in model.modules():
        kept = _KEPT.get(type(module))
        zeros = getattr(module, "padding_mode", "zeros") == "zeros"
        large = kept is not None and zeros and module.weight.numel() >= least and not first
        for name, parameter in module.named_parameters(recurse=False):
            first = False
            if not (large and name == "weight"):
                parameter.data = parameter.data.float()
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                module._buffers[name] = buffer.float()
        if large:
            module.__class__ = kept
