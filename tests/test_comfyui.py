"""The ComfyUI node, loaded as ComfyUI loads a file of custom_nodes, with its loader's rules written anew.

ComfyUI finds a layer by the name of its own model's weight: ``lora_unet_`` and the name of the UNet's
weight with underscores for dots, ``lora_te1_`` and ``lora_te2_`` for the layers of clip_l and clip_g
(comfy/lora.py), and adds strength · alpha / rank · up @ down (comfy/weight_adapter/lora.py).
"""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import lorarar.comfyui
from lorarar.hypernet import Hypernetwork
from lorarar.lora import LoRA, LoRAError, save_coefficients, save_lora
from lorarar.merging import merge

# diffusers' name → the weight's name in ComfyUI's SDXL, from Stability AI's own code
WEIGHTS = {
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": (
        "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q"
    ),
    "unet.down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_k": (
        "diffusion_model.input_blocks.8.1.transformer_blocks.9.attn2.to_k"
    ),
    "unet.mid_block.attentions.0.proj_in": "diffusion_model.middle_block.1.proj_in",
    "unet.up_blocks.1.attentions.2.transformer_blocks.1.attn1.to_out.0": (
        "diffusion_model.output_blocks.5.1.transformer_blocks.1.attn1.to_out.0"
    ),
    "unet.up_blocks.0.resnets.1.conv1": "diffusion_model.output_blocks.1.0.in_layers.2",
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj": (
        "clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj"
    ),
    "text_encoder_2.text_model.encoder.layers.3.mlp.fc1": (
        "clip_g.transformer.text_model.encoder.layers.3.mlp.fc1"
    ),
}


def shape(layer):
    return (16, 8, 3, 3) if "conv" in layer else (16, 2048 if "attn2" in layer else 8)


class Patched:
    """A model of ComfyUI's with what was added to its weights; `clone` as its ModelPatcher has it."""

    def __init__(self, weights, updates=()):
        self.weights, self.updates = weights, dict(updates)

    def clone(self):
        return Patched(self.weights, self.updates)


def keys_of(weight):
    name = weight.partition(".transformer.")
    if name[1]:
        number = {"clip_l": "1", "clip_g": "2"}[name[0]]
        return f"lora_te{number}_{name[2].replace('.', '_')}"
    return f"lora_unet_{weight.removeprefix('diffusion_model.').replace('.', '_')}"


def load_lora_for_models(model, clip, tensors, strength_model, strength_clip):
    left, results = set(tensors), []
    for target, strength in ((model, strength_model), (clip, strength_clip)):
        target = target and target.clone()
        results.append(target)
        for weight in target.weights if target else ():
            stem = keys_of(weight)
            if f"{stem}.lora_up.weight" not in tensors:
                continue
            up, down = (tensors[f"{stem}.lora_{side}.weight"].float() for side in ("up", "down"))
            alpha = tensors[f"{stem}.alpha"].item() / down.shape[0]
            target.updates[weight] = strength * alpha * (up.flatten(1) @ down.flatten(1))
            left -= {f"{stem}.lora_up.weight", f"{stem}.lora_down.weight", f"{stem}.alpha"}
    assert not left, "ComfyUI: lora key not loaded"
    return tuple(results)


@pytest.fixture
def node(tmp_path, monkeypatch):
    folders = {"loras": tmp_path / "loras", "lorarar": tmp_path / "models" / "lorarar"}
    for folder in folders.values():
        folder.mkdir(parents=True)
    paths = types.ModuleType("folder_paths")
    paths.models_dir = str(tmp_path / "models")
    paths.added = {}
    paths.add_model_folder_path = paths.added.__setitem__
    paths.get_filename_list = lambda kind: sorted(p.name for p in folders[kind].iterdir())
    paths.get_full_path_or_raise = lambda kind, name: str(folders[kind] / name)
    comfy = types.ModuleType("comfy")
    comfy.sd = types.ModuleType("comfy.sd")
    comfy.sd.load_lora_for_models = load_lora_for_models
    for name, module in {"folder_paths": paths, "comfy": comfy, "comfy.sd": comfy.sd}.items():
        monkeypatch.setitem(sys.modules, name, module)
    # A link in custom_nodes, loaded under its whole path as nodes.load_custom_node does.
    link = tmp_path / "custom_nodes" / "lorarar.py"
    link.parent.mkdir()
    link.symlink_to(Path(lorarar.comfyui.__file__))
    spec = importlib.util.spec_from_file_location(str(link.with_suffix("")), link)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert list(module.NODE_CLASS_MAPPINGS) == list(module.NODE_DISPLAY_NAME_MAPPINGS)
    (kind,) = module.NODE_CLASS_MAPPINGS.values()
    return kind(), folders


def adapter(seed, rank):
    draw = torch.Generator().manual_seed(seed)
    pairs = {}
    for layer in WEIGHTS:
        out, width, *kernel = shape(layer)
        up, down = torch.randn(out, rank, generator=draw), torch.randn(rank, width, *kernel, generator=draw)
        pairs[layer] = up.reshape(out, rank, *[1] * len(kernel)), down
    return LoRA(pairs)


def dense(pair):
    up, down = (x.double().flatten(1).numpy() for x in pair)
    return up @ down


def models():
    unet = [weight for weight in WEIGHTS.values() if weight.startswith("diffusion_model")]
    return Patched(unet), Patched([weight for weight in WEIGHTS.values() if weight not in unet])


def call(node, **given):
    """Call the node with what ComfyUI would give it: every input that it asks for."""
    asked = node.INPUT_TYPES()
    assert set(given) <= asked["required"].keys() | asked["optional"].keys()
    default = {
        name: kind[1]["default"]
        for name, kind in asked["required"].items()
        if kind[1:] and "default" in kind[1]
    }
    assert node.RETURN_TYPES == ("MODEL", "CLIP")
    return getattr(node, node.FUNCTION)(**{**default, **given})


@pytest.mark.parametrize("format", ["diffusers", "kohya"])
def test_the_sum_arrives_in_every_weight(node, format):
    node, folders = node
    one, two = adapter(1, 4), adapter(2, 6)
    for name, lora in (("cat", one), ("oil", two)):
        save_lora(lora, folders["loras"] / f"{name}.safetensors", format=format)
    asked = node.INPUT_TYPES()["required"]
    assert asked["content"][0] == ["cat.safetensors", "oil.safetensors"] and "direct" in asked["method"][0]
    model, clip = models()
    got = call(
        node, model=model, clip=clip, content="cat.safetensors", style="oil.safetensors", method="direct",
        content_weight=0.8, style_weight=0.5,
    )  # fmt: skip
    assert not model.updates and not clip.updates  # what came in is left as it was
    updates = got[0].updates | got[1].updates
    assert updates.keys() == set(WEIGHTS.values())
    for layer, weight in WEIGHTS.items():
        want = 0.8 * dense(one[layer]) + 0.5 * dense(two[layer])
        np.testing.assert_allclose(updates[weight], want, rtol=0, atol=1e-4)


def test_without_clip_the_model_alone_is_patched(node):
    node, folders = node
    one = LoRA({layer: pair for layer, pair in adapter(1, 4).items() if layer.startswith("unet.")})
    save_lora(one, folders["loras"] / "cat.safetensors", format="kohya")
    model, _ = models()
    got = call(node, model=model, content="cat.safetensors", style="cat.safetensors", method="direct")
    assert got[1] is None and set(got[0].updates) == set(model.weights)


def test_hypernetwork_and_coefficients_come_from_their_folder(node):
    node, folders = node
    one, two = (
        LoRA({layer: pair for layer, pair in adapter(seed, 4).items() if layer.startswith("unet.")})
        for seed in (1, 2)
    )
    for name, lora in (("cat", one), ("oil", two)):
        save_lora(lora, folders["loras"] / f"{name}.safetensors")
    torch.manual_seed(0)
    network = Hypernetwork([32])
    network.save(folders["lorarar"] / "net.safetensors")
    query = next(iter(WEIGHTS))
    gates = {query: (torch.linspace(0, 1, 8), torch.linspace(1, 0, 8))}
    save_coefficients(gates, folders["lorarar"] / "gates.safetensors")
    given = {"content": "cat.safetensors", "style": "oil.safetensors", "model": models()[0]}
    for method, options, want in (
        ("lorarar", {"hypernetwork": "net.safetensors"}, {"hypernetwork": network}),
        ("ziplora", {"coefficients": "gates.safetensors"}, {"coefficients": gates}),
    ):
        got, _ = call(node, **given, method=method, **options)
        merged = merge(one, two, method, **want)
        for layer, pair in merged.items():
            np.testing.assert_allclose(got.updates[WEIGHTS[layer]], dense(pair), rtol=0, atol=1e-4)
        with pytest.raises(LoRAError, match="needs"):
            call(node, **given, method=method)


def test_what_is_no_lora_is_said(node):
    node, folders = node
    save_file({"x": torch.zeros(1)}, folders["loras"] / "bad.safetensors")
    with pytest.raises(LoRAError, match=r"bad\.safetensors"):
        call(node, model=models()[0], content="bad.safetensors", style="bad.safetensors", method="direct")
