"""The formats of merged files, who reads them, and the words, titles and licences that travel."""

import json
import math

import numpy as np
import pytest
import torch
from loras import DEEP, KOALA, dense, kohya, metadata_of, of, pair, unet_layers
from safetensors.torch import load_file

from lorarar.cli import main
from lorarar.lora import (
    LoRA,
    load_lora,
    own_format,
    readers,
    save_lora,
    state_dict,
    who_reads,
)
from lorarar.merging import merge

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"

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
