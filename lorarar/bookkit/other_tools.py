"""What other merging tools make of two LoRAs: some are run, of the rest the algebra is repeated.

Each function returns {layer: ΔW (out, in)} for what a user asks as a plain sum, or as half of each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lorarar.lora import LoRA, delta_weight, save_lora
from lorarar.merging import direct
from lorarar.pipelines import generate

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Updates = dict[str, Tensor]


def by_peft(content: LoRA, style: LoRA, layers: Sequence[str], *, rslora: bool = False) -> Updates:
    """Merge by peft: its ``linear``, which adds factors; with `rslora`, its ``cat`` of adapters of that kind.

    peft hands the flag of rsLoRA on to the merged adapter, whose factors hold the scale already
    (github.com/huggingface/peft/issues/3761).
    """
    from peft import LoraConfig, get_peft_model

    rank = content[layers[0]][1].shape[0]
    shapes = [(content[k][1].shape[1], len(content[k][0])) for k in layers]
    bare = torch.nn.Sequential(*(torch.nn.Linear(*shape, bias=False) for shape in shapes))
    targets = [str(place) for place in range(len(layers))]
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, use_rslora=rslora)
    model = get_peft_model(bare, config, adapter_name="c")
    model.add_adapter("s", config)
    modules = dict(zip(layers, model.base_model.model, strict=True))
    for k, module in modules.items():
        for name, lora in (("c", content), ("s", style)):
            up, down = (factor.float() for factor in lora[k])
            module.lora_B[name].weight.data = up / module.scaling[name]  # whatever scale peft applies to it
            module.lora_A[name].weight.data = down
    model.add_weighted_adapter(["c", "s"], [1, 1], "both", combination_type="cat" if rslora else "linear")
    return {k: module.get_delta_weight("both").detach() for k, module in modules.items()}


def by_script(content: LoRA, style: LoRA, layers: Sequence[str], ratio: float, *, concat: bool) -> Updates:
    """Repeat what kohya's ``sdxl_merge_lora.py`` does to the factors; its readers divide by the rank.

    Without ``--concat`` factors are added; with it they stand side by side under the first file's alpha.
    Either way both factors are multiplied by the ratio.
    """
    updates = {}
    for k in layers:
        (b_c, a_c), (b_s, a_s) = ([f.float() for f in lora[k]] for lora in (content, style))
        b, a = (torch.cat([b_c, b_s], 1), torch.cat([a_c, a_s])) if concat else (b_c + b_s, a_c + a_s)
        updates[k] = len(a_c) / len(a) * (ratio * b) @ (ratio * a)
    return updates


def by_diffusers(pipe: DiffusionPipeline, content: LoRA, style: LoRA, layers: Sequence[str]) -> Updates:
    """Load a right sum whose layers have alphas of their own: diffusers takes one alpha for all."""
    from safetensors.torch import load_file, save_file

    with tempfile.TemporaryDirectory() as folder:
        plain, path = (Path(folder) / f"{name}.safetensors" for name in ("plain", "alphas"))
        save_lora(direct(content, style), plain, format="kohya", dtype=torch.float32)
        state = load_file(plain)
        for place, key in enumerate(sorted(key for key in state if key.endswith(".alpha"))):
            share = (1.0, 0.5, 0.25)[place % 3]
            up = key.replace(".alpha", ".lora_up.weight")
            state[key], state[up] = state[key] * share, state[up] / share  # the same update
        save_file(state, path)
        pipe.load_lora_weights(folder, weight_name=path.name, adapter_name="sum")
    try:
        return {
            k: pipe.unet.get_submodule(k.removeprefix("unet.")).get_delta_weight("sum").detach().float().cpu()
            for k in layers
        }
    finally:
        pipe.unload_lora_weights()


def silent_errors(
    pipe: DiffusionPipeline, content: LoRA, style: LoRA, layers: Sequence[str]
) -> dict[str, tuple[Updates, float]]:
    """Return what comes and the weight asked for, of the package's sum and of six that go wrong."""
    halves = direct(content, style, content_weight=0.5, style_weight=0.5)
    return {
        "this package, halves": ({k: delta_weight(halves[k]) for k in layers}, 0.5),
        "cross terms (peft)": (by_peft(content, style, layers), 1.0),
        "cross terms, halves": (by_script(content, style, layers, 0.5, concat=False), 0.5),
        "ratio squared": (by_script(content, style, layers, 0.5, concat=True), 0.5),
        "alpha lost": (by_script(content, style, layers, 1.0, concat=True), 1.0),
        "rsLoRA (peft)": (by_peft(content, style, layers, rslora=True), 1.0),
        "one alpha (diffusers)": (by_diffusers(pipe, content, style, layers), 1.0),
    }


def relative_errors(tried: dict[str, tuple[Updates, float]], content: LoRA, style: LoRA) -> dict[str, float]:
    """Return how far what came is from what was asked, over all layers, relative to what was asked."""
    whole = {k: delta_weight(pair).double() for k, pair in direct(content, style).items()}
    errors = {}
    for name, (updates, weight) in tried.items():
        asked = torch.cat([weight * whole[k].flatten() for k in updates])
        came = torch.cat([update.double().flatten() for update in updates.values()])
        errors[name] = float((came - asked).norm() / asked.norm())
    return errors


def drawn(
    pipe: DiffusionPipeline, content: LoRA, style: LoRA, words: str, seeds: Sequence[int]
) -> dict[str, np.ndarray]:
    """Return images by two active adapters, by their merged file in two spellings, and without any.

    diffusers loads every file itself, at weight one. Each entry is (seeds, h, w, 3) uint8.
    """
    from diffusers.utils import logging

    logging.set_verbosity_error()  # no notices about text encoders without a LoRA

    def with_files(*paths: Path) -> np.ndarray:
        adapters = [f"file{n}" for n in range(len(paths))]
        for adapter, path in zip(adapters, paths, strict=True):
            pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=adapter)
        pipe.set_adapters(adapters)
        images = generate(pipe, words, seeds)
        pipe.unload_lora_weights()
        return images

    both = direct(content, style)
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.safetensors" for name in ("content", "style", "one", "kohya")}
        for name, lora in (("content", content), ("style", style), ("one", both), ("kohya", both)):
            form = "kohya" if name == "kohya" else "diffusers"
            save_lora(lora, paths[name], format=form, dtype=torch.float32)
        return {
            "two files": with_files(paths["content"], paths["style"]),
            "one file": with_files(paths["one"]),
            "kohya": with_files(paths["kohya"]),
            "no file": generate(pipe, words, seeds),
        }
