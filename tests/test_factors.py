"""Merges of the factors against peft to the last bit, and float32 from halves against float64."""

import json

import numpy as np
import peft
import pytest
import torch
from loras import dense, pair
from packaging.version import Version
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn

from lorarar.lora import (
    LoRA,
    load_lora,
    save_lora,
)
from lorarar.merging import merge

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"

# --- peft's own merge of the factors, and float32


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.unet = nn.Module()
        self.unet.down_blocks = nn.ModuleList(
            [nn.ModuleDict({"to_q": nn.Linear(8, 6), "to_k": nn.Linear(7, 6)})]
        )


@pytest.mark.parametrize("theirs", ["ties", "dare_linear", "dare_ties"])
@pytest.mark.parametrize("alphas", [(3.0, 3.0), (1.0, 5.0), (0.7, 6.0)])
def test_factors_are_pefts_to_the_last_bit_for_any_alpha(tmp_path, theirs, alphas):
    if theirs != "ties" and Version(peft.__version__) < Version("0.21"):
        pytest.skip("an older peft does not rescale what DARE keeps")
    rank, weights, density, seed = 4, (0.8, 0.6), 0.5, 3
    torch.manual_seed(1)
    model = Small()
    names = [f"unet.down_blocks.0.{leaf}" for leaf in ("to_q", "to_k")]
    configs = [
        LoraConfig(r=rank, lora_alpha=alpha, target_modules=names, init_lora_weights=False)
        for alpha in alphas
    ]
    wrapped = get_peft_model(model, configs[0], "one")
    wrapped.add_adapter("two", configs[1])
    modules = {name: model.get_submodule(name) for name in names}
    files = []
    for adapter, alpha in zip(("one", "two"), alphas, strict=True):
        tensors = {
            f"{name}.lora_{side}.weight": getattr(module, f"lora_{side}")[adapter].weight.detach().clone()
            for name, module in modules.items()
            for side in "AB"
        }
        config = {"lora_adapter_metadata": json.dumps({"unet.r": rank, "unet.lora_alpha": alpha})}
        save_file(tensors, tmp_path / f"{adapter}.safetensors", metadata=config)
        files.append(load_lora(tmp_path / f"{adapter}.safetensors"))

    # peft draws its random numbers when it merges; the new adapter's own start comes before that.
    merging = wrapped.base_model._generalized_task_arithmetic_weighted_adapter
    first = []

    def seeded(*args, **kwargs):
        if not first:
            first.append(torch.manual_seed(seed))
        return merging(*args, **kwargs)

    wrapped.base_model._generalized_task_arithmetic_weighted_adapter = seeded
    wrapped.add_weighted_adapter(
        ["one", "two"], list(weights), "merged", combination_type=theirs, density=density
    )
    order = [
        name
        for name, module in wrapped.base_model.model.named_modules()
        if "merged" in getattr(module, "lora_A", {})
    ]
    sides = []
    for file in files:
        side = LoRA({name: file[name] for name in order}, dialect=file.dialect)
        side.stored = file.stored
        sides.append(side)
    got = merge(
        *sides,
        {"ties": "ties", "dare_linear": "dare", "dare_ties": "dare-ties"}[theirs],
        flavour="factors",
        density=density,
        seed=seed,
        content_weight=weights[0],
        style_weight=weights[1],
    )
    for name, module in modules.items():
        assert torch.equal(got[name][0], module.lora_B["merged"].weight), name
        assert torch.equal(got[name][1], module.lora_A["merged"].weight), name


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("method", ["direct", "ties", "np-lora"])
def test_float32_is_computed_in_float32_from_halves(tmp_path, half, method):
    names = [f"unet.{BLOCK}.attn1.to_q", f"unet.{BLOCK}.attn2.to_k"]
    sides = [LoRA({name: pair(24, 16, 4, dtype=half) for name in names}) for _ in range(2)]
    options = {"content_weight": 0.3, "style_weight": 0.7, "density": 1.0, "mu": 0.4}
    exactly = [LoRA({n: tuple(x.double() for x in p) for n, p in side.items()}) for side in sides]
    want = merge(*exactly, method, **options)
    for dtype, bound in ((torch.float32, 1e-6), (None, 1e-2)):
        save_lora(
            merge(*sides, method, **options, dtype=dtype), tmp_path / "m.safetensors", dtype=torch.float32
        )
        got = load_lora(tmp_path / "m.safetensors")
        worst = max(
            np.abs(dense(got[n]) - dense(want[n])).max() / np.abs(dense(want[n])).max() for n in names
        )
        assert worst < bound
        assert dtype or worst > 1e-5  # halves do round
