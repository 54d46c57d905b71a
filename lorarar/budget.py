"""Budgets, counted: the peak memory and the floating-point operations of a training step at SDXL's size.

Nothing is computed: the very training code runs on torch's fake tensors, which have shapes and types and no
numbers. A mode below autograd sees every operation; `Tracker` follows the bytes of all storages that are
alive, torch's FlopCounterMode counts multiplications and additions. What kernels take for themselves while they
run, and what an allocator wastes, is not in the count.

Beside ours stands the dense form of the released implementations (LoRA.rar's, ZipLoRA's): ΔW of both LoRAs as
matrices, merged anew in every layer and pass, the hypernetwork run in each of them, content and style as two
passes with gradients and both teachers' as two without, in each step.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop, sdpa_flop

from lorarar import stand_in
from lorarar.hypernet import Hypernetwork, layers_of
from lorarar.lora import LoRA
from lorarar.options import HypernetworkOptions, ZipLoraOptions
from lorarar.train.denoising import Batch, denoising_loss
from lorarar.train.dreambooth import adapted
from lorarar.train.gates import Gated, updates
from lorarar.train.loop import make_optimizer
from lorarar.train.objective import merging_loss, predict

_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
}


class Tracker(TorchDispatchMode):
    """Follows the bytes of all storages that operations make while the mode is on.

    ``now`` and ``peak`` are bytes. Views share their storage; a storage counts until nothing refers to it,
    autograd's graph included. Storages from before count once an operation returns them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, tuple[weakref.ref[Any], int]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run an operation and count what it has made."""
        answer = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(answer):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        return answer

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            self.now -= self._known[key][1]  # it may have been resized
        self._known[key] = weakref.ref(storage, lambda _: self._remove(key)), size
        self.now += size
        self.peak = max(self.peak, self.now)

    def _remove(self, key: int) -> None:
        _, size = self._known.pop(key)
        self.now -= size


class Count(NamedTuple):
    """What a step takes: bytes at the peak, everything it keeps included, and floating-point operations."""

    memory: int
    operations: int


@contextmanager
def counting() -> Iterator[tuple[Tracker, FlopCounterMode]]:
    """Count memory and operations of the block; torch works in one thread there, for modes belong to one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    try:
        with FlopCounterMode(display=False, custom_mapping=_ATTENTION) as flops, Tracker() as tracker:
            yield tracker, flops
    finally:
        torch.set_num_threads(threads)


@contextmanager
def faked() -> Iterator[None]:
    """Let tensors of the block be fake: shapes and types, no numbers."""
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        yield


class Bench(NamedTuple):
    """What steps are counted on: a frozen UNet of fake weights, and how large everything else is."""

    unet: nn.Module
    rank: int
    checkpointing: bool

    @property
    def pipe(self) -> SimpleNamespace:
        """What the training code takes of a pipeline."""
        return SimpleNamespace(unet=self.unet)

    def batch(self, count: int) -> Batch:
        """A batch of ``count`` samples, as `lorarar.train.denoising.draw` makes them."""
        config, dtype = self.unet.config, self.unet.dtype
        shape = (count, config.in_channels, config.sample_size, config.sample_size)
        pooled = config.projection_class_embeddings_input_dim
        conditions = None
        if pooled is not None:
            width = pooled - 6 * config.addition_time_embed_dim
            conditions = {
                "text_embeds": torch.zeros(count, width, dtype=dtype),
                "time_ids": torch.zeros(count, 6, dtype=dtype),
            }
        return Batch(
            torch.zeros(shape),
            torch.zeros(count, dtype=torch.int64),
            torch.zeros(count, 77, config.cross_attention_dim, dtype=dtype),
            conditions,
            torch.zeros(shape),
            torch.full((count,), 1 / count),
        )

    def lora(self) -> LoRA:
        """A LoRA on every linear layer of attention, in half precision."""
        found = LoRA()
        for name, module in self.unet.named_modules():
            if isinstance(module, nn.Linear) and name.rpartition("attn")[2][1:] in _PARTS:
                up = torch.zeros(module.out_features, self.rank, dtype=self.unet.dtype)
                found[f"unet.{name}"] = up, torch.zeros(self.rank, module.in_features, dtype=self.unet.dtype)
        return found


_PARTS = {f"{digit}.{part}"[1:] for digit in "12" for part in ("to_q", "to_k", "to_v", "to_out.0")}


def forward(bench: Bench) -> None:
    """One prediction of the base."""
    with torch.no_grad():
        predict(bench.unet, bench.batch(1))


def lora_step(bench: Bench) -> None:
    """Two steps of `lorarar.train.train_lora`: the optimizer's state is there in the second."""
    half = torch.autocast("cpu", bench.unet.dtype)
    with adapted(bench.pipe, bench.rank, gradient_checkpointing=bench.checkpointing) as factors:
        parameters = [factor for pair in factors.values() for factor in pair]
        optimiser = make_optimizer("adamw", parameters, 1e-4)

        def loss() -> Tensor:
            with half:
                return denoising_loss(bench.unet, bench.batch(1))

        _step(optimiser, parameters, loss)


def ziplora_step(bench: Bench) -> None:
    """A step of `lorarar.train.optimise`, one sample of either LoRA; the teachers have answered before."""
    o = ZipLoraOptions()
    content, style = bench.lora(), bench.lora()
    with updates(bench.pipe, content, gradient_checkpointing=bench.checkpointing) as update:
        both = Gated(content, style, content, rest=o.rest, dtype=bench.unet.dtype)
        gates = {k: (torch.ones(down.shape[1]), torch.ones(down.shape[1])) for k, (_, down) in content.items()}
        parameters = [m.requires_grad_(True) for pair in gates.values() for m in pair]
        samples = bench.batch(1), bench.batch(1)
        _step(
            torch.optim.Adam(parameters, o.learning_rate),
            parameters,
            lambda: merging_loss(bench.unet, update, both, gates, *samples).loss(o.similarity),
        )


def hypernetwork_step(bench: Bench) -> None:
    """A step of `lorarar.train.train_hypernetwork`, likewise."""
    o = HypernetworkOptions()
    content, style = bench.lora(), bench.lora()
    layers = layers_of(content, o.parts)
    network = Hypernetwork({2 * len(content[layer][0]) for layer in layers}, o.hidden)
    with updates(bench.pipe, content, gradient_checkpointing=bench.checkpointing) as update:
        both = Gated(content, style, layers, rest=o.rest, dtype=bench.unet.dtype)
        parameters = list(network.parameters())
        samples = bench.batch(1), bench.batch(1)

        def loss() -> Tensor:
            gates = network.coefficients(content, style, o.parts)
            return merging_loss(bench.unet, update, both, gates, *samples).loss(o.similarity)

        _step(torch.optim.AdamW(parameters, o.learning_rate), parameters, loss)


def _step(
    optimiser: torch.optim.Optimizer, parameters: Sequence[Tensor], loss: Callable[[], Tensor]
) -> None:
    loss().backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    optimiser.zero_grad()


def dense_ziplora_step(bench: Bench) -> None:
    """A step of the released ZipLoRA."""
    _dense_step(bench, None)


def dense_hypernetwork_step(bench: Bench) -> None:
    """A step of the released LoRA.rar, its network in the half precision of the base, which favours it."""
    o = HypernetworkOptions()
    widths = {2 * module.out_features for module in _attention(bench).values()}
    _dense_step(bench, Hypernetwork(widths, o.hidden).to(bench.unet.dtype))


def _attention(bench: Bench) -> dict[str, nn.Linear]:
    return {name: bench.unet.get_submodule(name.removeprefix("unet.")) for name in bench.lora()}


def _dense_step(bench: Bench, network: Hypernetwork | None) -> None:
    """Dense ΔW of both LoRAs beside each layer, merged in each pass; with a network, it is asked each time."""
    dtype = bench.unet.dtype
    layers = _attention(bench)
    asked = set(layers if network is None else layers_of(layers, HypernetworkOptions().parts))
    dense = {name: [torch.zeros_like(module.weight) for _ in range(2)] for name, module in layers.items()}
    ones = {
        name: [torch.ones(module.in_features, dtype=dtype, requires_grad=network is None) for _ in range(2)]
        for name, module in layers.items()
    }
    form = "merged"

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            first, second = dense[name]
            if form != "merged":
                weight = first if form == "content" else second
            elif network is not None and name in asked:
                m_c, m_s = network(torch.cat([first, second]).mT).unbind(1)
                weight = m_c * first + m_s * second
            else:
                weight = ones[name][0] * first + ones[name][1] * second
            return output + nn.functional.linear(inputs[0], weight)

        return add

    if network is None:
        parameters = [m for pair in ones.values() for m in pair]
    else:
        parameters = list(network.parameters())
    samples = bench.batch(1), bench.batch(1)
    handles = [module.register_forward_hook(hook(name)) for name, module in layers.items()]
    try:
        merged = [predict(bench.unet, sample) for sample in samples]
        taught = []
        with torch.no_grad():
            for form, sample in zip(("content", "style"), samples, strict=True):
                taught.append(predict(bench.unet, sample))
        form = "merged"
        loss = sum(nn.functional.mse_loss(a, b) for a, b in zip(merged, taught, strict=True))
        if network is None:
            alike = torch.stack([(m_c * m_s).abs().mean() for m_c, m_s in ones.values()]).sum()
            loss = loss + 0.01 * alike
        _step(torch.optim.AdamW(parameters, 0.01), parameters, lambda: loss)
    finally:
        for handle in handles:
            handle.remove()


STEPS: dict[str, Callable[[Bench], None]] = {
    "forward": forward,
    "LoRA": lora_step,
    "ZipLoRA": ziplora_step,
    "ZipLoRA, dense": dense_ziplora_step,
    "hypernetwork": hypernetwork_step,
    "hypernetwork, dense": dense_hypernetwork_step,
}
"""What is counted, by name."""


def count(
    step: str,
    *,
    kind: str = "sdxl",
    size: int = 1024,
    rank: int = 64,
    checkpointing: bool = False,
    narrow: int = 1,
    dtype: torch.dtype = torch.bfloat16,
) -> Count:
    """Count a step of `STEPS` on a base of a `lorarar.stand_in` kind, for images of ``size`` pixels.

    The memory is that of the UNet, the step and its optimizer; text encoders and autoencoder are not needed
    in a step (`resident`).
    """
    with faked(), counting() as (tracker, flops):
        unet = stand_in.unet(kind, size, narrow).to(dtype).requires_grad_(False)
        gc.collect()
        tracker.peak = tracker.now
        bench = Bench(unet, rank, checkpointing)
        if checkpointing:
            unet.enable_gradient_checkpointing()
        STEPS[step](bench)
        return Count(tracker.peak, flops.get_total_flops())


def picture(kind: str = "sdxl", size: int = 1024, images: int = 1, narrow: int = 1) -> dict[str, Count]:
    """Count one inference step with guidance, and the decoding of the latents in float32, as SDXL needs it."""
    found = {}
    with faked(), counting() as (tracker, flops):
        unet = stand_in.unet(kind, size, narrow).to(torch.float16)
        tracker.peak = tracker.now
        with torch.no_grad():
            predict(unet, Bench(unet, 1, False).batch(2 * images))
        found["inference step"] = Count(tracker.peak, flops.get_total_flops())
    with faked():
        with torch.device("meta"):
            vae = stand_in.models(kind, size, narrow)["vae"]
    return found
