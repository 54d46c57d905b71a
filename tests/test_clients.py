"""Merged files in the clients: which base they see, at which strength they load, what they show.

The clients' rules are written anew here from their public code: A1111's ``extensions-builtin/Lora``, Forge's
``extensions-builtin/sd_forge_lora/network.py``, sd-scripts' ``library/sai_model_spec.py``. diffusers and
peft are themselves: run on the oldest versions that are allowed, this file tests those.
"""

import json
import math
import warnings

import numpy as np
import peft
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from packaging.version import Version
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lorarar.cli import main
from lorarar.lora import (
    LoRA,
    LoRAWarning,
    inherited,
    load_lora,
    own_format,
    readers,
    save_lora,
    state_dict,
    who_reads,
)
from lorarar.merging import merge

rng = torch.Generator().manual_seed(5)


def pair(out, width, rank=2, *, kernel=None, dtype=torch.float32):
    shape = (kernel, kernel) if kernel else ()
    up, down = torch.randn(out, rank, generator=rng), torch.randn(rank, width, *shape, generator=rng)
    return (up.reshape(out, rank, *[1] * len(shape)).to(dtype), down.to(dtype))


def dense(pair, scale=1.0):
    up, down = (x.double().flatten(1).numpy() for x in pair)
    return scale * (up @ down)


def metadata_of(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


def kohya(path, layers, metadata=None, alpha=1.0):
    tensors = {}
    for stem, (up, down) in layers.items():
        tensors |= {f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": down}
        tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path, metadata=metadata)
    return path


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


UNETS = {
    "SDXL": ("input_blocks_4_1", "output_blocks_1_1", 2048),
    "SD 1.x": ("down_blocks_0_attentions_0", "up_blocks_3_attentions_2", 768),
    "SD 2.x": ("down_blocks_0_attentions_0", "up_blocks_3_attentions_2", 1024),
}


def unet_layers(base):
    *blocks, width = UNETS[base]
    return {f"lora_unet_{b}_transformer_blocks_0_attn2_to_k": pair(6, width) for b in blocks}


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

DEEP = [f"down_blocks.2.attentions.0.transformer_blocks.{n}" for n in range(10)]
KOALA = [
    f"down_blocks.{i}.attentions.0.transformer_blocks.{n}" for i, m in ((1, 2), (2, 5)) for n in range(m)
]
KOALA += [
    f"up_blocks.{i}.attentions.{j}.transformer_blocks.{n}"
    for i, m in ((0, 5), (1, 2))
    for j in (0, 1)
    for n in range(m)
]
SEVEN = [
    *DEEP,
    "down_blocks.1.attentions.0.transformer_blocks.0",
    "mid_block.attentions.0.transformer_blocks.9",
]
SEVEN += [f"up_blocks.{i}.attentions.{j}.transformer_blocks.0" for i in (0, 1) for j in (0, 1)]


def of(names, leaf="attn2.to_k", width=2048, component="unet"):
    return {f"{component}.{name}.{leaf}": pair(6, width) for name in names}


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


# --- formats, and who reads them


def test_the_papers_scripts_find_what_they_look_for(tmp_path):
    """ziplora-pytorch and K-LoRA multiply unet.unet.…to_q.lora.up.weight by its down, without alpha."""
    names = [f"unet.{BLOCK}.attn1.{leaf}" for leaf in ("to_q", "to_k", "to_v", "to_out.0")]
    lora = LoRA({name: pair(8, 8) for name in names})
    save_lora(lora, tmp_path / "m.safetensors", format="old-diffusers")
    tensors = load_file(tmp_path / "m.safetensors")
    for part in ("to_q", "to_k", "to_v", "to_out.0"):
        key = f"unet.unet.{BLOCK}.attn1.{part}.lora"
        got = tensors.pop(f"{key}.up.weight") @ tensors.pop(f"{key}.down.weight")
        np.testing.assert_allclose(got, dense(lora[f"unet.{BLOCK}.attn1.{part}"]), atol=1e-5)
    assert not tensors
    assert own_format(load_lora(tmp_path / "m.safetensors")) == "old-diffusers"


def test_the_format_is_the_inputs_own(tmp_path, capsys):
    unet = unet_layers("SDXL")
    flat = [kohya(tmp_path / f"k{n}.safetensors", unet) for n in (1, 2)]
    dotted = tmp_path / "d.safetensors"
    save_lora(load_lora(flat[0]), dotted, format="diffusers")
    old = tmp_path / "o.safetensors"
    save_lora(load_lora(flat[0]), old, format="old-diffusers")
    for one, two, starts, line in (
        (*flat, "lora_unet_input_blocks", None),
        (
            dotted,
            dotted,
            "unet.down_blocks",
            "read by diffusers; ComfyUI, A1111 and Forge read --format kohya",
        ),
        (flat[0], dotted, "unet.down_blocks", "read by diffusers"),
        (old, old, "unet.unet.down_blocks", "read by the scripts of ZipLoRA, K-LoRA and LoRA.rar"),
    ):
        assert main(["merge", str(one), str(two), "-o", str(tmp_path / "m.safetensors")]) == 0
        said = capsys.readouterr().out
        assert any(key.startswith(starts) for key in load_file(tmp_path / "m.safetensors"))
        assert (line in said) if line else len(said.splitlines()) == 1


def test_who_reads_what():
    sdxl = LoRA(of(DEEP))
    assert set(readers(sdxl, "kohya")) == {"ComfyUI", "A1111", "Forge", "InvokeAI", "diffusers"}
    assert not who_reads(sdxl, "kohya")
    assert readers(LoRA(of(KOALA)), "kohya") == ("ComfyUI", "diffusers")
    flux = LoRA(of(["single_transformer_blocks.0"], "attn.to_q", 8, "transformer"))
    assert who_reads(flux, "diffusers") == "read by ComfyUI, Forge, InvokeAI and diffusers"


def test_in_memory_it_is_the_same_as_in_the_file(tmp_path):
    lora = merge(LoRA(of(DEEP)), LoRA(of(DEEP)))
    for format in ("diffusers", "kohya", "old-diffusers"):
        save_lora(lora, tmp_path / "m.safetensors", format=format)
        there, here = load_file(tmp_path / "m.safetensors"), state_dict(lora, format)
        assert there.keys() == here.keys()
        assert all(torch.equal(there[key], here[key]) for key in there)


# --- words, titles, licences


def test_words_titles_and_licences_of_both_travel_and_are_shown(tmp_path, capsys):
    metadata = (
        {
            "modelspec.title": "My cat",
            "modelspec.license": "CC BY 4.0",
            "modelspec.trigger_phrase": "a sks cat",
            "modelspec.author": "Ann",
            "ss_tag_frequency": json.dumps({"10_cat": {"sks cat": 10, "sofa": 2}}),
            "ss_output_name": "cat_v3",
        },
        {
            "ss_output_name": "Oil",
            "license": "openrail++",
            "trained_words": '["oil style"]',
            "author": "Ann",
            "ss_tag_frequency": json.dumps({"5_oil": {"oil style": 5}, "10_cat": {"sofa": 1}}),
        },
    )
    files = [kohya(tmp_path / f"{i}.safetensors", unet_layers("SDXL"), m) for i, m in enumerate(metadata)]
    out = tmp_path / "m.safetensors"
    assert main(["merge", *map(str, files), "-o", str(out), "--quiet"]) == 0
    kept = metadata_of(out)
    assert kept["modelspec.title"] == "My cat + Oil"
    assert kept["modelspec.license"] == "CC BY 4.0 and openrail++"
    assert kept["modelspec.trigger_phrase"] == "a sks cat, oil style"
    assert kept["modelspec.author"] == "Ann"
    assert "ss_output_name" not in kept  # A1111 would call the merge by the name of one of the two
    assert json.loads(kept["ss_tag_frequency"]) == {
        "10_cat": {"sks cat": 10, "sofa": 3},
        "5_oil": {"oil style": 5},
    }
    assert main(["info", str(out), "--quiet"]) == 0
    shown = dict(
        line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if len(line.split()) > 1
    )
    assert shown["title"] == "My cat + Oil" and shown["licence"] == "CC BY 4.0 and openrail++"
    assert main(["info", str(out), "--json", "--quiet"]) == 0
    words = json.loads(capsys.readouterr().out)["words"]
    assert words["trigger words"] == "a sks cat, oil style" and words["training captions"].startswith(
        "sks cat"
    )


@pytest.mark.parametrize("damaged", ["{", "[1]", '{"a": 1}', '{"a": {"b": "x"}}', "null", "1e999"])
def test_damaged_counts_of_tags_are_left_out(tmp_path, damaged):
    path = kohya(tmp_path / "a.safetensors", unet_layers("SDXL"), {"ss_tag_frequency": damaged})
    assert main(["merge", str(path), str(path), "-o", str(tmp_path / "m.safetensors"), "--quiet"]) == 0
    assert "ss_tag_frequency" not in metadata_of(tmp_path / "m.safetensors")
    assert main(["info", str(path), "--quiet"]) == 0
    assert math.isfinite(
        load_lora(path)["unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"][0].sum()
    )
