"""Merged files in the clients: which base they see, at which strength they load, what they show.

The clients' rules are written anew here from their public code: A1111's ``extensions-builtin/Lora``, Forge's
``extensions-builtin/sd_forge_lora/network.py``, sd-scripts' ``library/sai_model_spec.py``. diffusers and
peft are themselves: run on the oldest versions that are allowed, this file tests those.
"""

import warnings

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from loras import DEEP, KOALA, UNETS, dense, kohya, metadata_of, of, pair, unet_layers
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lorarar.lora import (
    LoRA,
    LoRAWarning,
    inherited,
    load_lora,
    own_format,
    save_lora,
)
from lorarar.merging import merge

# --- which base a client sees


def a1111(metadata):
    if metadata.get("ss_base_model_version", "").startswith("sdxl_"):
        return "SDXL"
    return "SD 2.x" if metadata.get("ss_v2") == "True" else "SD 1.x" if metadata else "unknown"


def forge(metadata):
    architecture = metadata.get("modelspec.architecture", "")
    if (
        metadata.get("modelspec.implementation") == "https://github.com/black-forest-labs/flux"
        or architecture == "flux-1-dev/lora"
    ):
        return "Flux"
    if architecture == "stable-diffusion-xl-v1-base/lora" or a1111(metadata) == "SDXL":
        return "SDXL"
    if metadata.get("ss_v2") == "True":
        return "SD 2.x"
    return "SD 1.x" if architecture == "stable-diffusion-v1/lora" else "unknown"


SAID = {
    "SDXL": {
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_v2": "False",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
    },
    "SD 1.x": {"ss_base_model_version": "sd_v1", "ss_v2": "False"},
    "SD 2.x": {"ss_base_model_version": "sd_v2_v", "ss_v2": "True", "modelspec.prediction_type": "v"},
}


@pytest.mark.parametrize("said", [True, False], ids=["by the trainer", "by nobody"])
@pytest.mark.parametrize("format", ["kohya", "diffusers"])
@pytest.mark.parametrize("base", UNETS)
def test_a1111_and_forge_see_the_base(tmp_path, base, format, said):
    files = [
        kohya(tmp_path / f"{n}.safetensors", unet_layers(base), SAID[base] if said else None) for n in "ab"
    ]
    merged = merge(*map(load_lora, files))
    save_lora(merged, tmp_path / "m.safetensors", format=format)
    metadata = metadata_of(tmp_path / "m.safetensors")
    assert a1111(metadata) == forge(metadata) == merged.base == base
    if said:
        assert {key: metadata[key] for key in SAID[base]} == SAID[base]
    again = load_lora(tmp_path / "m.safetensors")
    save_lora(again, tmp_path / "again.safetensors", format=format)
    assert forge(metadata_of(tmp_path / "again.safetensors")) == base


def test_flux_is_flux_to_forge_where_a_file_says_so(tmp_path):
    layers = {"lora_unet_double_blocks_0_img_attn_proj": pair(8, 8)}
    files = [kohya(tmp_path / f"{n}.safetensors", layers, {"ss_base_model_version": "flux1"}) for n in "ab"]
    save_lora(merge(*map(load_lora, files)), tmp_path / "m.safetensors", format="kohya")
    assert forge(metadata_of(tmp_path / "m.safetensors")) == "Flux"


def test_one_says_it_for_both_and_what_they_do_not_agree_on_is_derived():
    one = {"ss_base_model_version": "sd_v2_v", "ss_v2": "True", "modelspec.prediction_type": "v"}
    assert inherited([one, {}]) == {"ss_base_model_version": "sd_v2_v", "ss_v2": "True"}
    other = {"ss_base_model_version": "sd_v2", "ss_v2": "True", "ss_sd_model_name": "v2"}
    assert inherited([one, other]) == {"ss_v2": "True"}


def test_hashes_and_ranks_of_the_inputs_are_not_passed_off_as_the_files(tmp_path):
    stale = {"sshs_model_hash": "1", "modelspec.hash_sha256": "0x2", "ss_network_dim": "2"}
    path = kohya(tmp_path / "a.safetensors", unet_layers("SDXL"), {**SAID["SDXL"], **stale})
    save_lora(merge(load_lora(path), load_lora(path)), tmp_path / "m.safetensors", format="kohya")
    metadata = metadata_of(tmp_path / "m.safetensors")
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("4", "4")
    save_lora(load_lora(path), tmp_path / "one.safetensors", format="kohya")
    assert not {"sshs_model_hash", "modelspec.hash_sha256"} & (
        metadata.keys() | metadata_of(tmp_path / "one.safetensors").keys()
    )


# --- guesses are called guesses

SEVEN = [
    *DEEP,
    "down_blocks.1.attentions.0.transformer_blocks.0",
    "mid_block.attentions.0.transformer_blocks.9",
]
SEVEN += [f"up_blocks.{i}.attentions.{j}.transformer_blocks.0" for i in (0, 1) for j in (0, 1)]


@pytest.mark.parametrize(
    ("layers", "base"),
    [
        (of(KOALA), "KOALA"),
        (of(SEVEN), "SDXL"),  # the blocks that KOALA-1B has, but as deep as SDXL
        (of(["down_blocks.2.attentions.0.transformer_blocks.0"]), "SDXL"),
        (of(["down_blocks.2.resnets.0.conv1"], "x", 8), "unknown UNet"),
        ({"unet.up_blocks.1.resnets.0.conv1": pair(640, 8, kernel=3)}, "SDXL (a guess)"),
        ({"unet.up_blocks.1.resnets.0.conv1": pair(1280, 8, kernel=3)}, "SD 1.x or 2.x (a guess)"),
        ({"unet.down_blocks.3.resnets.0.conv1": pair(8, 8, kernel=3)}, "SD 1.x or 2.x"),
        (of(["transformer_blocks.0"], "attn.to_q", 3072, "transformer"), "unknown transformer"),
        (of(["transformer_blocks.0"], "attn1.to_q", 1152, "transformer"), "unknown transformer"),  # PixArt
        (of(["transformer_blocks.0"], "attn.add_q_proj", 3072, "transformer"), "Flux (a guess)"),
        (of(["transformer_blocks.0"], "attn.add_q_proj", 1536, "transformer"), "SD3"),
        (of(["transformer_blocks.0"], "img_mlp.net.2", 8, "transformer"), "Qwen-Image (a guess)"),
        (of(["text_model.encoder.layers.0"], "mlp.fc1", 768, "text_encoder"), "text encoder"),
    ],
)
def test_the_base_is_told_or_called_a_guess(layers, base):
    assert LoRA(layers).base == base


def test_a_koala_and_an_sdxl_lora_get_a_line():
    koala, sdxl = LoRA(of(KOALA)), LoRA(of([*KOALA, *DEEP]))
    with pytest.warns(LoRAWarning, match="content is for KOALA, style for SDXL"):
        merge(koala, sdxl)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merge(koala, koala)
        merge(sdxl, LoRA(of(DEEP)))


def test_what_the_spelling_said_of_the_base_stays(tmp_path):
    """lora_te_ is SD 1 or 2, and convolutions under the original block names are SDXL's: no shape says so."""
    text = {"lora_te_text_model_encoder_layers_0_mlp_fc1": pair(8, 12)}
    conv = {"lora_unet_input_blocks_4_0_in_layers_2": pair(8, 4, kernel=3)}
    for layers in (text, conv):
        files = [kohya(tmp_path / f"{n}.safetensors", layers) for n in "ab"]
        merged = merge(*map(load_lora, files))
        save_lora(merged, tmp_path / "m.safetensors", format="kohya")
        names = {key.split(".")[0] for key in load_file(tmp_path / "m.safetensors")}
        assert names == set(layers)
        assert own_format(merged) == "kohya"


# --- at which strength diffusers loads them

UNET = "down_blocks.1.attentions.0"
BLOCK = f"{UNET}.transformer_blocks.0"


@pytest.fixture(scope="module")
def pipe():
    """A pipeline of SDXL's class without tokenizers, which every transformers makes in another way."""
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    unet = UNet2DConditionModel(
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=4,
        use_linear_projection=True,
    )
    parts = {"vae": AutoencoderKL(), "scheduler": DDIMScheduler(), "unet": unet}
    encoders = {"text_encoder": CLIPTextModel(text), "text_encoder_2": CLIPTextModelWithProjection(text)}
    return StableDiffusionXLPipeline(**parts, **encoders, tokenizer=None, tokenizer_2=None)


def of_pipe(pipe, ranks):
    """A LoRA of layers of the tiny pipeline; ranks: layer → rank."""
    layers = {}
    for layer, rank in ranks.items():
        component, _, name = layer.partition(".")
        model = getattr(pipe, component)
        if not hasattr(model, "text_model"):  # transformers 5 has one level less
            name = name.removeprefix("text_model.")
        layers[layer] = pair(*model.get_submodule(name).weight.shape, rank=rank)
    return LoRA(layers)


def loaded(pipe, path):
    """Layer → the update of the weights that diffusers makes of a file, in float64."""
    pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="merged")
    found = {}
    for component in ("unet", "text_encoder", "text_encoder_2"):
        for name, module in getattr(pipe, component).named_modules():
            if "merged" in getattr(module, "lora_A", {}):
                up, down = module.lora_B["merged"].weight, module.lora_A["merged"].weight
                name = name.removeprefix("text_model.")
                found[f"{component}.{name}"] = dense((up.detach(), down.detach()), module.scaling["merged"])
    pipe.unload_lora_weights()
    return found


@pytest.mark.parametrize("order", [0, 1])
def test_mixed_ranks_load_at_full_strength(tmp_path, pipe, order):
    """diffusers before 0.40 takes the first layer's rank for every alpha where a file says none."""
    text = [
        f"text_encoder{n}.text_model.encoder.layers.{i}.mlp.fc{j}"
        for n in ("", "_2")
        for i, j in ((0, 1), (1, 2))
    ]
    shared = [f"unet.{BLOCK}.attn1.to_q", f"unet.{BLOCK}.attn2.to_k", f"unet.{BLOCK}.ff.net.2", *text[::2]]
    one = of_pipe(pipe, dict.fromkeys([*shared, f"unet.{UNET}.proj_in", *text], 4))
    other = of_pipe(pipe, dict.fromkeys(shared, 2))
    merged = merge(*((one, other), (other, one))[order])
    assert len({len(down) for _, down in merged.values()}) == 2
    save_lora(merged, tmp_path / "m.safetensors")
    got = loaded(pipe, tmp_path / "m.safetensors")
    assert {n.replace(".text_model.", ".") for n in merged} == set(got)
    for layer, factors in merged.items():
        np.testing.assert_allclose(got[layer.replace(".text_model.", ".")], dense(factors), rtol=0, atol=1e-5)
    again = load_lora(tmp_path / "m.safetensors")
    for layer, factors in merged.items():
        np.testing.assert_array_equal(dense(again[layer]), dense(factors))


def test_one_rank_needs_no_config(tmp_path, pipe):
    lora = of_pipe(pipe, {f"unet.{BLOCK}.attn1.to_q": 3, f"unet.{BLOCK}.attn2.to_k": 3})
    save_lora(lora, tmp_path / "m.safetensors")
    assert "lora_adapter_metadata" not in metadata_of(tmp_path / "m.safetensors")
    got = loaded(pipe, tmp_path / "m.safetensors")
    for layer, factors in lora.items():
        np.testing.assert_allclose(got[layer], dense(factors), rtol=0, atol=1e-6)
