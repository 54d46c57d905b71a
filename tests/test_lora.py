"""Reading and writing LoRA files, against diffusers, peft and dense float64 arithmetic."""

import hashlib
import json
import logging
import pickle
import struct
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import tiny_pipeline

from lorarar.lora import (
    LoRA,
    LoRAError,
    delta_weight,
    describe,
    load_coefficients,
    load_lora,
    norm,
    save_coefficients,
    save_lora,
)
from lorarar.lora.names import _from_sgm, _to_sgm

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
QUERY = f"unet.{BLOCK}.attn1.to_q"
OUT = f"unet.{BLOCK}.attn1.to_out.0"
KEY = f"unet.{BLOCK}.attn2.to_k"
TEXT = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
TEXT_2 = "text_encoder_2.text_model.encoder.layers.1.mlp.fc1"


def matrices(layer, rank=4, dtype=torch.float32, out=12):
    width = 2048 if layer.endswith("attn2.to_k") else 6
    generator = torch.Generator().manual_seed(int(hashlib.sha256(layer.encode()).hexdigest()[:8], 16))
    up, down = (torch.randn(*s, generator=generator) for s in ((out, rank), (rank, width)))
    return up.to(dtype), down.to(dtype)


def dense(up, down, scale=1.0):
    return scale * (up.flatten(1).numpy().astype(np.float64) @ down.flatten(1).numpy().astype(np.float64))


def as_dense(pair):
    return dense(*pair)


def kohya(layer):
    """A layer's kohya name with diffusers block names, by the one rule kohya has: dots become underscores."""
    for component, prefix in (
        ("unet.", "lora_unet_"),
        ("text_encoder.", "lora_te1_"),
        ("text_encoder_2.", "lora_te2_"),
    ):
        if layer.startswith(component):
            return prefix + layer.removeprefix(component).replace(".", "_")
    raise AssertionError(layer)


def old_processor(layer):
    """attn1.to_q → attn1.processor.to_q_lora, as diffusers wrote before 0.22."""
    head, _, last = layer.removesuffix(".0").rpartition(".")
    return f"{head}.processor.{last}_lora"


SPELLINGS = {
    "diffusers": lambda layer: (f"{layer}.lora.up.weight", f"{layer}.lora.down.weight"),
    "diffusers, lora_A": lambda layer: (f"{layer}.lora_B.weight", f"{layer}.lora_A.weight"),
    "doubled prefix": lambda layer: (f"unet.{layer}.lora.up.weight", f"unet.{layer}.lora.down.weight"),
    "processor": lambda layer: (
        f"{old_processor(layer)}.up.weight",
        f"{old_processor(layer)}.down.weight",
    ),
    "no component": lambda layer: tuple(f"{old_processor(layer)[5:]}.{p}.weight" for p in ("up", "down")),
    "peft": lambda layer: tuple(f"base_model.model.{layer}.lora_{p}.weight" for p in "BA"),
    "peft of the UNet": lambda layer: tuple(f"base_model.model.{layer[5:]}.lora_{p}.weight" for p in "BA"),
    "peft, raw": lambda layer: tuple(f"base_model.model.{layer[5:]}.lora_{p}.default.weight" for p in "BA"),
    "kohya": lambda layer: (f"{kohya(layer)}.lora_up.weight", f"{kohya(layer)}.lora_down.weight"),
    "kohya, sgm": lambda layer: tuple(
        f"lora_unet_input_blocks_4_1_{layer.split('.', 5)[5].replace('.', '_')}.lora_{p}.weight"
        for p in ("up", "down")
    ),
}


def write(path, spelling, pairs, alphas=None, metadata=None):
    tensors = {}
    for layer, (up, down) in pairs.items():
        key_up, key_down = SPELLINGS[spelling](layer)
        tensors[key_up], tensors[key_down] = up.clone(), down.clone()
        if alphas:
            stem = key_up.rsplit(".lora", 1)[0] if ".lora" in key_up else key_up.rsplit("_lora", 1)[0]
            tensors[f"{stem}.alpha"] = torch.tensor(float(alphas[layer]))
    save_file(tensors, path, metadata=metadata)
    return path


# ---------------------------------------------------------------------------------------------------------
# Dialects


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_dialect_reads_as_the_same_lora(tmp_path, spelling):
    pairs = {layer: matrices(layer) for layer in (QUERY, OUT, KEY)}
    lora = load_lora(write(tmp_path / "a.safetensors", spelling, pairs))
    assert set(lora) == set(pairs)
    for layer, (up, down) in pairs.items():
        assert torch.equal(lora[layer][0], up) and torch.equal(lora[layer][1], down)


@pytest.mark.parametrize("spelling", ["diffusers", "processor", "diffusers, lora_A", "kohya", "kohya, sgm"])
def test_names_are_diffusers_own_where_its_converter_is_right(tmp_path, spelling):
    from diffusers import StableDiffusionXLPipeline
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    class Config:
        layers_per_block = 2

    path = write(
        tmp_path / "a.safetensors", spelling, {layer: matrices(layer) for layer in (QUERY, OUT, KEY)}
    )
    state, _ = StableDiffusionXLPipeline.lora_state_dict(load_file(path), unet_config=Config())
    theirs = convert_unet_state_dict_to_peft(state)
    ours = load_lora(path)
    assert set(theirs) == {f"{layer}.lora_{part}.weight" for layer in ours for part in "AB"}
    for layer, (up, down) in ours.items():
        assert torch.equal(theirs[f"{layer}.lora_B.weight"], up)
        assert torch.equal(theirs[f"{layer}.lora_A.weight"], down)


@pytest.mark.parametrize("spelling", ["doubled prefix", "peft"])
def test_where_diffusers_converter_keeps_a_prefix_that_no_module_has(tmp_path, spelling):
    """Why these names are converted here: diffusers leaves them, and would load nothing."""
    from diffusers import StableDiffusionXLPipeline
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    path = write(tmp_path / "a.safetensors", spelling, {QUERY: matrices(QUERY)})
    state, _ = StableDiffusionXLPipeline.lora_state_dict(load_file(path))
    assert not any(key.startswith(QUERY) for key in convert_unet_state_dict_to_peft(state))
    assert list(load_lora(path)) == [QUERY]


def test_sgm_names_written_by_hand():
    for sgm, diffusers in {
        "input_blocks_4_1_transformer_blocks_0_attn1_to_q": f"{BLOCK}.attn1.to_q",
        "input_blocks_5_1_proj_in": "down_blocks.1.attentions.1.proj_in",
        "input_blocks_8_1_transformer_blocks_9_ff_net_0_proj": "down_blocks.2.attentions.1"
        ".transformer_blocks.9.ff.net.0.proj",
        "middle_block_1_transformer_blocks_3_attn2_to_out_0": "mid_block.attentions.0"
        ".transformer_blocks.3.attn2.to_out.0",
        "output_blocks_2_1_transformer_blocks_0_attn2_to_v": "up_blocks.0.attentions.2"
        ".transformer_blocks.0.attn2.to_v",
        "output_blocks_5_2_conv": "up_blocks.1.upsamplers.0.conv",
        "output_blocks_8_0_in_layers_2": "up_blocks.2.resnets.2.conv1",
        "output_blocks_8_0_skip_connection": "up_blocks.2.resnets.2.conv_shortcut",
        "input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
        "input_blocks_1_0_emb_layers_1": "down_blocks.0.resnets.0.time_emb_proj",
        "middle_block_2_0_out_layers_3": None,
        "middle_block_2_out_layers_3": "mid_block.resnets.1.conv2",
        "time_embed_2": "time_embedding.linear_2",
        "label_emb_0_0": "add_embedding.linear_1",
        "input_blocks_0_0": "conv_in",
        "out_2": "conv_out",
    }.items():
        assert _from_sgm(sgm) == diffusers
        if diffusers:
            assert _to_sgm(diffusers) == sgm


def test_kohya_text_encoders_and_both_spellings_of_old_text_encoder_files(tmp_path):
    pairs = {layer: matrices(layer) for layer in (TEXT, TEXT_2)}
    assert set(load_lora(write(tmp_path / "k.safetensors", "kohya", pairs))) == set(pairs)
    up, down = matrices(TEXT)
    for stem in (
        f"{TEXT}.lora_linear_layer.",
        f"{TEXT.replace('q_proj', 'to_q_lora')}.",
        f"{TEXT.replace('.text_model', '')}.lora_linear_layer.",  # as transformers 5 names the module
        f"{kohya(TEXT).replace('te1', 'te')}.lora_",
    ):
        save_file({f"{stem}up.weight": up, f"{stem}down.weight": down}, tmp_path / "t.safetensors")
        assert list(load_lora(tmp_path / "t.safetensors")) == [TEXT]


@pytest.mark.parametrize(
    ("stem", "layer", "base"),
    [
        (
            "transformer.single_transformer_blocks.3.attn.to_q",
            "single_transformer_blocks.3.attn.to_q",
            "Flux (a guess)",
        ),
        ("lora_unet_double_blocks_0_img_attn_qkv", "transformer_blocks.0.attn.to_qkv", "Flux"),
        ("lora_unet_joint_blocks_1_x_block_attn_qkv", "transformer_blocks.1.attn.to_qkv", "SD3"),
    ],
)
def test_other_bases(tmp_path, stem, layer, base):
    up, down = torch.randn(18, 4), torch.randn(4, 6)
    parts = ("lora_up", "lora_down") if "lora_unet" in stem else ("lora_B", "lora_A")
    save_file(
        {f"{stem}.{parts[0]}.weight": up, f"{stem}.{parts[1]}.weight": down}, tmp_path / "a.safetensors"
    )
    lora = load_lora(tmp_path / "a.safetensors")
    assert list(lora) == [f"transformer.{layer}"] and lora.base == base
    if "lora_unet" in stem:
        save_lora(lora, tmp_path / "b.safetensors", format="kohya")
        again = load_lora(tmp_path / "b.safetensors")
        assert list(again) == list(lora) and again.base == base


# ---------------------------------------------------------------------------------------------------------
# Alpha


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("spelling", ["kohya", "kohya, sgm", "diffusers"])
def test_each_layer_has_its_own_alpha_and_rank(tmp_path, spelling, dtype):
    ranks, alphas = {QUERY: 4, OUT: 8, KEY: 2}, {QUERY: 1, OUT: 3, KEY: 2}
    pairs = {layer: matrices(layer, rank, dtype) for layer, rank in ranks.items()}
    lora = load_lora(write(tmp_path / "a.safetensors", spelling, pairs, alphas))
    assert lora.alphas == alphas
    for layer, (up, down) in pairs.items():
        expected = dense(up.float(), down.float(), alphas[layer] / ranks[layer])
        got = dense(lora[layer][0].float(), lora[layer][1].float())
        assert np.abs(got - expected).max() <= 1e-7 * np.abs(expected).max()


def test_diffusers_gives_all_layers_one_alpha_and_we_do_not(tmp_path):
    """Why alpha is folded here and not by diffusers: alphas 1, 2, 4 at rank 4 come out as one."""
    pipe, layers = small_sdxl(), (QUERY, OUT, f"unet.{BLOCK}.attn1.to_k")
    pairs = {layer: pair for layer, pair in every_layer(pipe, rank=4).items() if layer in layers}
    alphas = dict(zip(layers, (1, 2, 4), strict=True))
    path = write(tmp_path / "a.safetensors", "kohya", pairs, alphas)
    theirs, ours = loaded_by_diffusers(pipe, path), load_lora(path)
    truth = {layer: dense(*pair, alphas[layer] / 4) for layer, pair in pairs.items()}
    scales = {
        round(float((theirs[n] * dense(*pairs[n])).sum() / (dense(*pairs[n]) ** 2).sum()), 3) for n in layers
    }
    assert len(scales) == 1  # the upstream mistake; when this fails, diffusers has mended it
    for layer in layers:
        np.testing.assert_allclose(as_dense(ours[layer]), truth[layer], rtol=0, atol=1e-6)
    save_lora(ours, tmp_path / "b.safetensors")
    mended = loaded_by_diffusers(pipe, tmp_path / "b.safetensors")
    for layer in layers:
        np.testing.assert_allclose(mended[layer], truth[layer], rtol=0, atol=1e-6)


def test_folding_is_exact_and_upcasts_only_where_a_half_would_round(tmp_path):
    up, down = matrices(QUERY, 4, torch.float16)
    for alpha, dtype in ((4, torch.float16), (8, torch.float16), (3, torch.float32)):
        lora = load_lora(write(tmp_path / "a.safetensors", "kohya", {QUERY: (up, down)}, {QUERY: alpha}))
        assert lora[QUERY][0].dtype == dtype and lora[QUERY][1].dtype == torch.float16
        assert torch.equal(lora[QUERY][0].double(), up.double() * alpha / 4)
    small = (up * 2e-7, down)  # subnormal: a quarter of it has no float16
    lora = load_lora(write(tmp_path / "a.safetensors", "kohya", {QUERY: small}, {QUERY: 1}))
    assert lora[QUERY][0].dtype == torch.float32
    assert torch.equal(lora[QUERY][0].double(), small[0].double() / 4)


@pytest.mark.parametrize("rslora", [False, True])
def test_alpha_of_a_peft_config(tmp_path, rslora):
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    pipe = small_sdxl()
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["to_q", "to_k"],
        use_rslora=rslora,
        init_lora_weights=False,
        alpha_pattern={f"{BLOCK}.attn1.to_q": 1},
        rank_pattern={f"{BLOCK}.attn1.to_k": 2},
    )
    model = get_peft_model(pipe.unet, config)
    model.save_pretrained(tmp_path)
    lora = load_lora(tmp_path / "adapter_model.safetensors")
    modules = {n: m for n, m in model.base_model.model.named_modules() if hasattr(m, "get_delta_weight")}
    assert {f"unet.{n}" for n in modules} == set(lora)
    for name, module in modules.items():
        expected = module.get_delta_weight("default").detach()
        torch.testing.assert_close(delta_weight(lora[f"unet.{name}"]), expected, rtol=1e-5, atol=1e-6)

    # the same config as diffusers keeps it in the file's metadata
    state = {
        f"unet.{k.removeprefix('base_model.model.')}": v for k, v in get_peft_model_state_dict(model).items()
    }
    adapter = {f"unet.{k}": v for k, v in config.to_dict().items() if not isinstance(v, set)}
    save_file(
        state,
        tmp_path / "d.safetensors",
        metadata={"lora_adapter_metadata": json.dumps(adapter, default=str)},
    )
    again = load_lora(tmp_path / "d.safetensors")
    assert all(torch.equal(a, b) for n in lora for a, b in zip(lora[n], again[n], strict=True))
    save_lora(again, tmp_path / "e.safetensors")  # the config is not written again: alpha is in the factors
    twice = load_lora(tmp_path / "e.safetensors")
    assert all(torch.equal(a, b) for n in lora for a, b in zip(lora[n], twice[n], strict=True))


# ---------------------------------------------------------------------------------------------------------
# Writing, against diffusers on a small SDXL


def small_sdxl():
    """The tiny pipeline with a UNet of SDXL's structure: three levels of two, the first without attention."""
    from diffusers import UNet2DConditionModel

    pipe = tiny_pipeline(channels=4)
    torch.manual_seed(0)
    pipe.unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16, 32),
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        layers_per_block=2,
        transformer_layers_per_block=(1, 2, 2),
        attention_head_dim=(1, 1, 2),
        cross_attention_dim=64,
        use_linear_projection=True,
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
    )
    return pipe


def every_layer(pipe, rank=4, convolutions=False, text=False):
    """A random pair for each layer of a pipeline that can have one."""
    generator = torch.Generator().manual_seed(1)
    pairs = {}
    for component in ("unet", "text_encoder", "text_encoder_2") if text else ("unet",):
        for name, module in getattr(pipe, component).named_modules():
            layer = f"{component}.{name}"
            if component != "unet" and "projection" not in name:
                layer = f"{component}.text_model.{name.removeprefix('text_model.')}"
            r = 2 if "attn2" in name and rank == "mixed" else 4 if rank == "mixed" else rank
            if isinstance(module, torch.nn.Linear):
                up, down = (module.out_features, r), (r, module.in_features)
            elif convolutions and isinstance(module, torch.nn.Conv2d):
                up, down = (module.out_channels, r, 1, 1), (r, module.in_channels, *module.kernel_size)
            else:
                continue
            pairs[layer] = tuple(0.1 * torch.randn(*s, generator=generator) for s in (up, down))
    return LoRA(pairs)


def loaded_by_diffusers(pipe, path):
    """Layer → ΔW as the adapter that diffusers made of a file computes it, flattened to a matrix."""
    pipe.unload_lora_weights()
    pipe.load_lora_weights(str(path))
    found = {}
    for component in ("unet", "text_encoder", "text_encoder_2"):
        for name, module in getattr(pipe, component).named_modules():
            if hasattr(module, "get_delta_weight"):
                layer = f"{component}.{name}"
                if component != "unet" and "projection" not in name:
                    layer = f"{component}.text_model.{name.removeprefix('text_model.')}"
                delta = module.get_delta_weight(module.active_adapters[0]).detach()
                found[layer] = delta.flatten(1).double().numpy()
    return found


@contextmanager
def warnings_of(*libraries):
    """Collect what these libraries log as warnings and what `warnings` sees."""
    import warnings

    class Keep(logging.Handler):
        def emit(self, record):
            if record.levelno >= logging.WARNING:
                kept.append(record.getMessage())

    kept, handler = [], Keep()
    for name in libraries:
        logging.getLogger(name).addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield kept
            kept += [str(w.message) for w in caught]
    finally:
        for name in libraries:
            logging.getLogger(name).removeHandler(handler)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [4, "mixed"])
def test_a_diffusers_file_loads_without_a_warning_and_as_the_same_update(tmp_path, rank):
    pipe = small_sdxl()
    lora = every_layer(pipe, rank, text=True)
    if rank == "mixed":
        lora = LoRA({n: p for n, p in lora.items() if "projection" not in n})  # diffusers: one rank for these
    save_lora(lora, tmp_path / "a.safetensors")
    with warnings_of("diffusers", "peft", "transformers") as said:
        theirs = loaded_by_diffusers(pipe, tmp_path / "a.safetensors")
    assert not said
    assert set(theirs) == set(lora)
    for layer, pair in lora.items():
        np.testing.assert_allclose(theirs[layer], as_dense(pair), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_file_for_the_unet_alone_loads_as_quietly_as_diffusers_own(tmp_path):
    """diffusers mentions that each text encoder gets nothing, for its own files too; nothing else is said."""
    pipe = small_sdxl()
    lora = every_layer(pipe)
    save_lora(lora, tmp_path / "ours.safetensors")
    state = {}
    for layer, (up, down) in lora.items():
        name = layer.removeprefix("unet.")
        state[f"{name}.lora_B.weight"], state[f"{name}.lora_A.weight"] = up, down
    pipe.save_lora_weights(tmp_path, unet_lora_layers=state, weight_name="theirs.safetensors")
    said = {}
    for name in ("ours", "theirs"):
        with warnings_of("diffusers", "peft", "transformers") as said[name]:
            loaded_by_diffusers(pipe, tmp_path / f"{name}.safetensors")
    assert said["ours"] == said["theirs"]
    assert all("No LoRA keys associated to CLIPText" in text for text in said["ours"])


@pytest.mark.slow
def test_a_kohya_file_has_sgm_names_that_diffusers_reads_back_in_every_layer(tmp_path):
    pipe = small_sdxl()
    lora = every_layer(pipe, text=True, convolutions=True)
    # What diffusers' own converter cannot name; ComfyUI and A1111 take them.
    lora = LoRA({n: p for n, p in lora.items() if "text_projection" not in n})

    class SDXL(LoRA):
        base = "SDXL"  # the small UNet has another text width

    save_lora(SDXL(lora), tmp_path / "k.safetensors", format="kohya")
    keys = load_file(tmp_path / "k.safetensors")
    assert f"{'lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q'}.lora_down.weight" in keys
    assert not any("down_blocks" in key or "up_blocks" in key for key in keys)
    assert all(float(x) == 4 for key, x in keys.items() if key.endswith(".alpha"))
    theirs = loaded_by_diffusers(pipe, tmp_path / "k.safetensors")
    assert set(theirs) == set(lora)
    for layer, pair in lora.items():
        np.testing.assert_allclose(theirs[layer], as_dense(pair), rtol=0, atol=1e-6)


def test_kohya_names_for_other_bases(tmp_path):
    pair, width = matrices(QUERY), {"SD 1.x": 768, "KOALA": 2048, "SDXL": 2048}
    koala = [f"down_blocks.{i}.attentions.0.transformer_blocks" for i in (1, 2)]
    koala += [f"up_blocks.{i}.attentions.{j}.transformer_blocks" for i in (0, 1) for j in (0, 1)]
    for base, layers in {
        "SD 1.x": ("down_blocks.0.attentions.0", "up_blocks.3.attentions.2"),
        "KOALA": [f"{block}.{n}" for block in koala for n in range(2 if ".1." in block[:14] else 5)],
        "SDXL": ("down_blocks.2.attentions.1", "up_blocks.0.attentions.2"),
    }.items():
        lora = LoRA({TEXT: pair})
        for block in layers:
            layer = block if "transformer_blocks" in block else f"{block}.transformer_blocks.0"
            lora[f"unet.{layer}.attn1.to_q"] = pair
            lora[f"unet.{layer}.attn2.to_k"] = pair[0], torch.ones(4, width[base])
        assert lora.base == base
        save_lora(lora, tmp_path / "k.safetensors", format="kohya")
        keys = " ".join(load_file(tmp_path / "k.safetensors"))
        assert ("input_blocks" in keys) == (base == "SDXL") == ("down_blocks" not in keys)
        assert ("lora_te1_" in keys) == (base != "SD 1.x")
        again = load_lora(tmp_path / "k.safetensors")
        assert set(again) == set(lora) and again.base == base


def test_metadata_names_the_sources_and_their_hashes(tmp_path):
    path = write(tmp_path / "cat.safetensors", "diffusers", {QUERY: matrices(QUERY)})
    save_lora(load_lora(path), tmp_path / "out.safetensors", metadata={"lorarar_method": "direct"})
    metadata = load_lora(tmp_path / "out.safetensors").metadata
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert json.loads(metadata["lorarar_sources"]) == [{"file": "cat.safetensors", "sha256": digest}]
    assert metadata["lorarar_method"] == "direct" and metadata["lorarar_version"]


def test_writing_twice_gives_the_same_bytes(tmp_path):
    lora = LoRA({layer: matrices(layer) for layer in (QUERY, OUT)}, metadata={"b": "1", "a": "2"})
    backwards = LoRA(dict(reversed(lora.items())), metadata={"a": "2", "b": "1"})
    save_lora(lora, tmp_path / "a.safetensors")
    save_lora(backwards, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_dtype_casts_and_refuses_what_overflows(tmp_path):
    up, down = matrices(QUERY)
    save_lora(LoRA({QUERY: (up, down)}), tmp_path / "a.safetensors", dtype=torch.float16)
    assert {x.dtype for x in load_lora(tmp_path / "a.safetensors")[QUERY]} == {torch.float16}
    with pytest.raises(LoRAError, match="not finite in F16"):
        save_lora(LoRA({QUERY: (up * 1e5, down)}), tmp_path / "b.safetensors", dtype=torch.float16)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_nothing_is_left_when_the_disk_is_full(tmp_path):
    import resource

    path = tmp_path / "a.safetensors"
    path.write_bytes(b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(LoRAError, match="cannot be written: File too large"):
            save_lora(LoRA({KEY: matrices(KEY)}), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"] and path.read_bytes() == b"before"


def test_places_that_cannot_be_written(tmp_path):
    lora = LoRA({QUERY: matrices(QUERY)})
    (tmp_path / "folder").mkdir()
    for place, reason in (("folder", "not a regular file"), ("no/a.safetensors", "folder does not exist")):
        with pytest.raises(LoRAError, match=reason):
            save_lora(lora, tmp_path / place)
    with pytest.raises(LoRAError, match="not a regular file"):
        save_lora(lora, "/dev/null")
    with pytest.raises(LoRAError, match="no layer"):
        save_lora(LoRA(), tmp_path / "a.safetensors")
    with pytest.raises(LoRAError, match="expected one of diffusers, kohya"):
        save_lora(lora, tmp_path / "a.safetensors", format="onnx")


def test_links_are_followed_both_ways(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real.safetensors")
    save_lora(LoRA({QUERY: matrices(QUERY)}), tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real.safetensors").is_file()
    assert list(load_lora(tmp_path / "link")) == [QUERY]


# ---------------------------------------------------------------------------------------------------------
# Properties

NAMES = st.lists(
    st.sampled_from([QUERY, OUT, KEY, TEXT, TEXT_2, "unet.mid_block.attentions.0.proj_in"]),
    min_size=1,
    unique=True,
)
FINITE = st.floats(-60000, 60000, width=16)


@st.composite
def loras(draw):
    pairs = {}
    dtype = draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
    for layer in draw(NAMES):
        rank, out = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        width = 2048 if layer == KEY else draw(st.integers(1, 3))
        values = st.lists(FINITE, min_size=6, max_size=6)
        up = torch.tensor(draw(values)).repeat(out * rank)[: out * rank].reshape(out, rank)
        down = torch.tensor(draw(values)).repeat(rank * width)[: rank * width].reshape(rank, width)
        pairs[layer] = up.to(dtype), down.to(dtype)
    return LoRA(pairs)


@settings(max_examples=60, deadline=None)
@given(loras(), st.sampled_from(["diffusers", "kohya"]))
def test_reading_what_was_written_gives_it_back(tmp_path_factory, lora, format):
    path = tmp_path_factory.mktemp("w") / "a.safetensors"
    save_lora(lora, path, format=format)
    again = load_lora(path)
    assert set(again) == set(lora)
    for layer, pair in lora.items():
        for ours, theirs in zip(again[layer], pair, strict=True):
            assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([QUERY, OUT, KEY]), min_size=1, unique=True),
    st.floats(0.125, 64, width=16),
    st.integers(1, 8),
    st.sampled_from(["kohya", "kohya, sgm", "diffusers"]),
    st.sampled_from(["diffusers", "kohya"]),
    st.sampled_from([torch.float16, torch.float32]),
)
def test_folding_the_scale_commutes_with_changing_the_dialect(
    tmp_path_factory, layers, alpha, rank, spelling, format, dtype
):
    folder = tmp_path_factory.mktemp("f")
    pairs = {layer: matrices(layer, rank, dtype) for layer in layers}
    alphas = dict.fromkeys(layers, alpha)
    folded = load_lora(write(folder / "a.safetensors", spelling, pairs, alphas))  # fold, …
    save_lora(folded, folder / "b.safetensors", format=format)  # … then convert
    converted = load_lora(write(folder / "c.safetensors", spelling, pairs))  # convert, …
    save_lora(converted, folder / "d.safetensors", format="kohya")
    tensors = load_file(folder / "d.safetensors")
    for key in tensors:
        if key.endswith(".alpha"):
            tensors[key] = torch.tensor(alpha)
    save_file(tensors, folder / "e.safetensors")
    then_folded = load_lora(folder / "e.safetensors")  # … then fold
    one = load_lora(folder / "b.safetensors")
    assert set(one) == set(then_folded)
    for layer in layers:
        for a, b in zip(one[layer], then_folded[layer], strict=True):
            assert a.dtype == b.dtype and torch.equal(a, b)


# ---------------------------------------------------------------------------------------------------------
# Refusals


def broken(tmp_path):
    """Name → (bytes or tensors of a file, what its message must say)."""
    up, down = matrices(QUERY)
    up_key, down_key = SPELLINGS["diffusers"](QUERY)
    good = {up_key: up, down_key: down}
    nan, infinite = up.clone(), down.half()
    nan[3, 2], infinite[0, 0] = float("nan"), float("-inf")
    kohya_up, kohya_down = SPELLINGS["kohya"](QUERY)
    k = {kohya_up: up, kohya_down: down}
    alpha = f"{kohya(QUERY)}.alpha"
    save_file(good, tmp_path / "good")
    data = (tmp_path / "good").read_bytes()
    zipped = tmp_path / "zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    return {
        "half a pair": ({up_key: up}, "no down matrix"),
        "other half": ({down_key: down}, "no up matrix"),
        "stray": ({**good, "bundle_emb.0": up.clone()}, "bundle_emb.0 is a word's embedding"),
        "lycoris": ({"lycoris__a..b.lora_up.weight": up}, "is not a key"),
        "gap": ({"lora_unet_down_blocks__1_attentions_0_proj_in.lora_up.weight": up}, "is not a key"),
        "ldm": ({"lora_prior_x.lora_A.weight": up}, "is not a key"),
        "weights": ({"unet.conv_in.weight": up}, "whole model"),
        "bias": ({**good, f"{QUERY}.lora_B.bias": up[:, 0].clone()}, "trained a bias"),
        "conv mid": ({**k, f"{kohya(QUERY)}.lora_mid.weight": up.clone()}, "do not fit"),
        "ranks": ({up_key: up, down_key: down[:3].clone()}, r"ranks differ: up \(12, 4\) and down \(3, 6\)"),
        "shapes": ({up_key: up[0].clone(), down_key: down}, r"expected \(out, r\)"),
        "empty factor": ({up_key: up[:0].clone(), down_key: down}, "nothing in it"),
        "nan": ({up_key: nan, down_key: down}, "NaN or infinity"),
        "inf": ({up_key: up.half(), down_key: infinite}, "NaN or infinity"),
        "integers": ({up_key: up.to(torch.int32), down_key: down}, "holds I32"),
        "float8": ({up_key: up.to(torch.float8_e4m3fn), down_key: down}, "holds F8_E4M3"),
        "dora, kohya": ({**k, f"{kohya(QUERY)}.dora_scale": up.clone()}, "DoRA"),
        "dora, diffusers": ({**good, f"{QUERY}.lora_magnitude_vector": up.clone()}, "DoRA"),
        "loha": ({f"{kohya(QUERY)}.hada_w1_a": up}, "LoHa.*--convert"),
        "lokr": ({f"{kohya(QUERY)}.lokr_w1": up}, "LoKr.*--convert"),
        "twice": ({**good, f"unet.{up_key}": up.clone()}, "both .* name its up"),
        "no layer": ({}, "no LoRA layer"),
        "alpha 0": ({**k, alpha: torch.tensor(0.0)}, "not one number other than 0"),
        "alpha nan": ({**k, alpha: torch.tensor(float("nan"))}, "not one number"),
        "alphas": ({**k, alpha: torch.ones(2)}, "not one number"),
        "alpha alone": ({alpha: torch.tensor(1.0)}, "alpha alone"),
        "alpha overflows": (
            {kohya_up: up * 100, kohya_down: down, alpha: torch.tensor(3e38)},
            "overflows with alpha",
        ),
        "nothing": (b"", "is empty"),
        "text": (b"hello, this is not it", "not a safetensors file"),
        "truncated": (data[:-7], "damaged safetensors file"),
        "longer": (data + b"\0" * 8, "damaged safetensors file"),
        "header cut": (data[:40], "damaged safetensors file"),
        "huge header": (struct.pack("<Q", 1 << 62) + data[8:], "damaged safetensors file"),
        "forged offsets": (
            data.replace(b'"data_offsets":[0,', b'"data_offsets":[8,'),
            "damaged safetensors file",
        ),
        "pickle": (pickle.dumps(good), "is a pickle.*not opened"),
        "old pickle": (pickle.dumps([1.0], protocol=2), "is a pickle"),
        "torch": (zipped.read_bytes(), "is a pickle"),
    }


@pytest.mark.parametrize("name", broken(Path(__import__("tempfile").mkdtemp())))
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_one_line_says_what_is_wrong(tmp_path, name, suffix):
    content, message = broken(tmp_path)[name]
    path = tmp_path / f"bad{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_file(content, path)
    with pytest.raises(LoRAError, match=message) as error:
        load_lora(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_halves_whose_sum_overflows_are_finite_and_what_is_not_among_them_is_found(tmp_path):
    up, down = (torch.full(shape, 6e4, dtype=torch.float16) for shape in ((12, 4), (4, 6)))
    path = write(tmp_path / "a.safetensors", "diffusers", {QUERY: (up, down), OUT: (up, down)})
    assert torch.equal(load_lora(path)[OUT][0], up)
    for wrong in (float("nan"), float("inf"), float("-inf")):
        bad = down.clone()
        bad[3, 5] = wrong
        path = write(tmp_path / "b.safetensors", "diffusers", {QUERY: (up, down), OUT: (up, bad)})
        with pytest.raises(LoRAError, match=f"layer {OUT}: NaN or infinity"):
            load_lora(path)


def test_tensors_of_several_types_and_off_their_alignment_are_read(tmp_path):
    (up, down), alpha = matrices(QUERY), torch.tensor(2, dtype=torch.int16)
    stem = kohya(QUERY)
    tensors = {f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": down.half(), f"{stem}.alpha": alpha}
    save_file(tensors, tmp_path / "mixed.safetensors")
    data = (tmp_path / "mixed.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    odd = (size + 1).to_bytes(8, "little") + data[8 : 8 + size] + b" " + data[8 + size :]
    (tmp_path / "odd.safetensors").write_bytes(odd)
    for name in ("mixed", "odd"):
        read_up, read_down = load_lora(tmp_path / f"{name}.safetensors")[QUERY]
        assert torch.equal(read_up, up / 2) and torch.equal(read_down, down.half())


def test_no_pickle_is_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "exploded",)

    for protocol in range(6):
        (tmp_path / "bad.safetensors").write_bytes(pickle.dumps({"a": Bomb()}, protocol=protocol))
        with pytest.raises(LoRAError):
            load_lora(tmp_path / "bad.safetensors")
    assert not (tmp_path / "exploded").exists()


def test_places_that_cannot_be_read(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    for place, message in (
        (".", "is a folder"),
        ("pipe", "not a regular file"),
        ("none", "no such file"),
        ("a\0b", "not a valid path"),
    ):
        with pytest.raises(LoRAError, match=message):
            load_lora(tmp_path / place)


@pytest.mark.parametrize(
    "config",
    [
        '{"unet.lora_alpha": "x"}',
        "[1]",
        "{",
        '{"unet.alpha_pattern": {"(a": 1}}',
        '{"unet.use_dora": true}',
    ],
)
def test_a_damaged_config_is_refused(tmp_path, config):
    path = write(
        tmp_path / "a.safetensors",
        "diffusers",
        {QUERY: matrices(QUERY)},
        metadata={"lora_adapter_metadata": config},
    )
    with pytest.raises(LoRAError, match=r"config|DoRA"):
        load_lora(path)


# ---------------------------------------------------------------------------------------------------------
# LoHa and LoKr


@pytest.mark.parametrize("kind", ["LoHa", "LoKr", "LoKr, decomposed", "LoKr, whole"])
def test_converted_loha_and_lokr_equal_pefts_update(tmp_path, kind):
    from peft import LoHaConfig, LoKrConfig, get_peft_model

    options = {
        "LoHa": (LoHaConfig, {}),
        "LoKr": (LoKrConfig, {}),
        "LoKr, decomposed": (LoKrConfig, {"decompose_both": True}),
        "LoKr, whole": (LoKrConfig, {"r": 64}),
    }
    config, extra = options[kind]
    pipe = small_sdxl()
    model = get_peft_model(
        pipe.unet,
        config(**{"r": 2, "alpha": 6, "target_modules": ["to_q"], "init_weights": False, **extra}),
    )
    model.save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    with pytest.raises(LoRAError, match=f"{kind[:4]}, not a LoRA"):
        load_lora(path)
    lora = load_lora(path, convert=True)
    modules = {n: m for n, m in model.base_model.model.named_modules() if hasattr(m, "get_delta_weight")}
    assert {f"unet.{n}" for n in modules} == set(lora)
    for name, module in modules.items():
        expected = module.get_delta_weight("default").detach()
        torch.testing.assert_close(delta_weight(lora[f"unet.{name}"]), expected, rtol=1e-5, atol=1e-6)
    path.with_name("adapter_config.json").unlink()  # alpha stands there and nowhere else
    with pytest.raises(LoRAError, match=r"adapter_config\.json"):
        load_lora(path, convert=True)


def test_kohya_loha_and_lokr_scale_by_alpha_over_rank_unless_whole(tmp_path):
    stem, g = kohya(QUERY), torch.Generator().manual_seed(0)
    a1, a2 = torch.randn(8, 2, generator=g), torch.randn(8, 2, generator=g)
    b1, b2 = torch.randn(2, 6, generator=g), torch.randn(2, 6, generator=g)
    w1, w2 = torch.randn(4, 3, generator=g), torch.randn(2, 5, generator=g)
    alpha = torch.tensor(3.0)
    cases = {
        "hada": (
            {"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2},
            (a1 @ b1) * (a2 @ b2) * 1.5,
        ),
        "lokr": ({"lokr_w1": w1, "lokr_w2_a": a2, "lokr_w2_b": b2}, torch.kron(w1, a2 @ b2) * 1.5),
        "whole": ({"lokr_w1": w1, "lokr_w2": w2}, torch.kron(w1, w2)),
    }
    for parts, expected in cases.values():
        save_file(
            {f"{stem}.{k}": v for k, v in {**parts, "alpha": alpha}.items()}, tmp_path / "a.safetensors"
        )
        got = delta_weight(load_lora(tmp_path / "a.safetensors", convert=True)[QUERY])
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    del cases["hada"][0]["hada_w2_b"]
    save_file({f"{stem}.{k}": v for k, v in cases["hada"][0].items()}, tmp_path / "a.safetensors")
    with pytest.raises(LoRAError, match="expected a whole LoHa"):
        load_lora(tmp_path / "a.safetensors", convert=True)


# ---------------------------------------------------------------------------------------------------------
# ΔW, norms, coefficients


def test_delta_of_a_convolution_and_its_norm():
    up, down = torch.randn(5, 2, 1, 1), torch.randn(2, 3, 3, 3)
    expected = torch.nn.functional.conv2d(down.transpose(0, 1), up).transpose(0, 1)
    torch.testing.assert_close(delta_weight((up, down)), expected)
    assert norm((up, down)) == pytest.approx(float(expected.norm()), rel=1e-5)


def test_describe_counts_and_norms(tmp_path):
    pairs = {layer: matrices(layer) for layer in (QUERY, KEY, TEXT)}
    facts = describe(load_lora(write(tmp_path / "a.safetensors", "kohya", pairs, dict.fromkeys(pairs, 2.0))))
    assert facts["base"] == "SDXL" or facts["base"].startswith("UNet")
    assert facts["ranks"] == {4: 3} and facts["alphas"] == {2.0: 3} and facts["layers"] == 3
    expected = {layer: np.linalg.norm(dense(*pair)) / 2 for layer, pair in pairs.items()}
    assert facts["norm"] == pytest.approx(np.linalg.norm(list(expected.values())), rel=1e-5)
    block = facts["blocks"]["unet.down_blocks.1.attentions.0"]
    assert block["layers"] == 2
    assert block["norm"] == pytest.approx(np.hypot(expected[QUERY], expected[KEY]), rel=1e-5)


def test_coefficients_are_read_back(tmp_path):
    coefficients = {QUERY: (torch.rand(6), torch.rand(6)), KEY: (torch.rand(8), torch.rand(8))}
    save_coefficients(coefficients, tmp_path / "m.safetensors")
    again = load_coefficients(tmp_path / "m.safetensors")
    assert set(again) == set(coefficients)
    assert all(torch.equal(a, b) for n in again for a, b in zip(again[n], coefficients[n], strict=True))
    with pytest.raises(LoRAError, match=r"expected the keys LAYER\.content and LAYER\.style"):
        load_coefficients(write(tmp_path / "a.safetensors", "diffusers", {QUERY: matrices(QUERY)}))
