"""The stand-ins have the public models' sizes, and the whole chain runs on a small one."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorarar import stand_in
from lorarar.cli import rehearse
from lorarar.lora import load_lora
from lorarar.scales import data_folder

# Parameters of the published checkpoints.
PUBLISHED = {
    "sdxl": {
        "unet": 2_567_463_684,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
    },
    "sd15": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
}


@pytest.mark.parametrize("kind", stand_in.KINDS)
def test_a_stand_in_has_the_published_size(kind):
    with torch.device("meta"):
        networks = stand_in.models(kind, 1024)
    counts = {name: sum(p.numel() for p in model.parameters()) for name, model in networks.items()}
    assert counts == PUBLISHED[kind]
    assert networks["unet"].config.sample_size == 128
    assert rehearse.KINDS == stand_in.KINDS
    with pytest.raises(ValueError, match="no stand-in for 'koala': choose one of sdxl, sd15"):
        stand_in.unet_config("koala", 64)


def test_the_tokenizer_is_of_clips_size_and_merges_bytes():
    words = stand_in.tokenizer()
    assert len(words) == 49_408 and words.model_max_length == 77
    ids = words("a sks dog, élan 犬").input_ids
    assert (ids[0], ids[-1]) == (49_406, 49_407) and words.unk_token_id not in ids[1:-1]
    assert words.decode(ids[1:-1]) == "a sks dog , élan 犬"
    assert [words.convert_ids_to_tokens(i) for i in ids[1:4]] == ["a</w>", "sks</w>", "dog</w>"]


@pytest.mark.slow
def test_the_chain_runs_on_a_small_one(tmp_path, capsys):
    if not (data_folder() / "shoebox" / "judge").is_dir():
        pytest.skip("needs the judge in data")
    options = ["--tiny", "--device", "cpu", "--folder", str(tmp_path), "--steps", "1"]
    assert rehearse.main([*options, "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)
    assert [stage["name"] for stage in stages] == [
        *("build the base", "train-lora", "train-lora", "ziplora", "train-hypernetwork"),
        *("merge", "regmean", "generate", "judge"),
    ]
    assert all(stage["finite"] and stage["memory"] > 1e6 for stage in stages)
    # The layout is SDXL's, in small: the same names, one transformer block each.
    lora = load_lora(tmp_path / "subject.safetensors")
    assert len(lora) == 11 * 8 and {x.dtype for pair in lora.values() for x in pair} == {torch.float16}
    assert "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k" in lora
    unet = load_file(tmp_path / "base" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {x.dtype for x in unet.values()} == {torch.float16}

    # A base that overflows is found out: pictures are not finite, and the status says so.
    unet["conv_out.bias"].fill_(float("nan"))
    save_file(unet, tmp_path / "base" / "unet" / "diffusion_pytorch_model.safetensors")
    assert rehearse.main(options) == 1
    assert "train-lora has failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "0"], "--steps must be at least 1, not 0"),
        (["--size", "100"], "--size must be a multiple of 64, not 100"),
        (["--device", "abacus"], "no device 'abacus'"),
    ],
)
def test_bad_input_is_one_line(words, message, capsys):
    assert rehearse.main(["--tiny", *words]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
