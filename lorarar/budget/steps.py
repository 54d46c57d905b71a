"""The steps that are counted: ours, by the training code itself, and those of the released code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lorarar.hypernet import Hypernetwork, layers_of
from lorarar.lora import LoRA
from lorarar.options import HypernetworkOptions, ZipLoraOptions
from lorarar.train.denoising import Batch, denoising_loss
from lorarar.train.dreambooth import adapted
from lorarar.train.gates import Gated, updates
from lorarar.train.loop import make_optimizer
from lorarar.train.objective import merging_loss, predict


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


def inference_step(bench: Bench) -> None:
    """What a picture takes in each step, with guidance: two predictions at once."""
    with torch.no_grad():
        predict(bench.unet, bench.batch(2))


def lora_step(bench: Bench) -> None:
    """A step of `lorarar.train.train_lora`, one image."""
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
        gates = {
            k: (torch.ones(down.shape[1]), torch.ones(down.shape[1])) for k, (_, down) in content.items()
        }
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


def _step(optimiser: torch.optim.Optimizer, parameters: Sequence[Tensor], loss: Callable[[], Tensor]) -> None:
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
    """Dense ΔW of both LoRAs beside each layer, merged in each pass; a network is asked anew each time."""
    dtype = bench.unet.dtype
    layers = _attention(bench)
    asked = set(layers if network is None else layers_of(layers, HypernetworkOptions().parts))
    dense = {name: [torch.zeros_like(module.weight) for _ in range(2)] for name, module in layers.items()}
    ones = {
        name: [torch.ones(module.in_features, dtype=dtype, requires_grad=network is None) for _ in range(2)]
        for name, module in layers.items()
    }
    form = ["merged"]  # or the side whose own ΔW is applied

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            first, second = dense[name]
            if form[0] != "merged":
                weight = first if form[0] == "content" else second
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
            for side, sample in zip(("content", "style"), samples, strict=True):
                form[0] = side
                taught.append(predict(bench.unet, sample))
        form[0] = "merged"
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
    "inference step": inference_step,
    "LoRA": lora_step,
    "ZipLoRA": ziplora_step,
    "ZipLoRA, dense": dense_ziplora_step,
    "hypernetwork": hypernetwork_step,
    "hypernetwork, dense": dense_hypernetwork_step,
}
"""What is counted, by name."""
