"""What a file cannot tell, what is no update, no LoRA or no file: said in one line, which says what it is."""

import json

import numpy as np
import pytest
from handmade import KOHYA, PEFT, close, dense, flat, pair, updates, write
from safetensors.numpy import save_file

from lorarar.hypernet import Hypernetwork
from lorarar.lora import LoRAError, LoRAWarning, load_lora

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"


def peft_folder(folder, config, layers=None, name="adapter_model.safetensors"):
    folder.mkdir()
    layers = layers or {
        f"base_model.model.{BLOCK}.attn1.to_q": pair(),
        f"base_model.model.{BLOCK}.attn1.to_k": pair(seed=4),
    }
    write(folder / name, layers, PEFT[:2])
    if config is not None:
        (folder / "adapter_config.json").write_text(
            json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 6, **config})
        )
    return folder


@pytest.mark.parametrize(
    "init", ["pissa", "pissa_niter_16", "PiSSA", "olora", "OLoRA", "corda", "loftq", "lora_ga"]
)
@pytest.mark.parametrize("where", ["folder", "metadata"])
def test_an_adapter_that_is_no_update_of_its_base_is_refused(tmp_path, init, where):
    if where == "folder":
        path = peft_folder(tmp_path / "a", {"init_lora_weights": init})
    else:
        config = {"unet.r": 2, "unet.lora_alpha": 2, "unet.init_lora_weights": init}
        path = write(
            tmp_path / "a.safetensors",
            {f"unet.{BLOCK}.attn1.to_q": pair()},
            PEFT,
            {"lora_adapter_metadata": json.dumps(config)},
        )
    with pytest.raises(LoRAError, match=rf"init_lora_weights.*{init}") as error:
        load_lora(path)
    assert "path_initial_model_for_weight_conversion" in str(error.value) or init in ("loftq",)


@pytest.mark.parametrize("init", [True, False, "gaussian", "eva", "orthogonal", "mica"])
def test_starts_that_leave_the_base_alone_are_read(tmp_path, init):
    assert len(load_lora(peft_folder(tmp_path / "a", {"init_lora_weights": init}))) == 2


@pytest.mark.parametrize(
    ("pattern", "scales"),
    [
        ({r".*attn1\.to_q": 1}, (0.5, 3)),
        ({r"(down|up)_blocks\.\d+\.attentions\.\d+.*to_[qv]": 1}, (0.5, 3)),
        ({r"^down_blocks.*to_k$": 1, "to_k": 5}, (3, 0.5)),
        ({"to_q": 1, "attn1.to_k": 4}, (0.5, 2)),
        ({r"^to_q": 1}, (3, 3)),
        ({"o_q": 1}, (3, 3)),
    ],
)
def test_alpha_patterns_are_pefts_regular_expressions(tmp_path, pattern, scales):
    from peft.utils.other import get_pattern_key

    folder = peft_folder(tmp_path / "a", {"alpha_pattern": pattern})
    q, k = (f"{BLOCK}.attn1.{x}" for x in ("to_q", "to_k"))
    expected = [pattern.get(get_pattern_key(pattern, name), 6) / 2 for name in (q, k)]
    assert tuple(expected) == scales
    close(
        updates(load_lora(folder)),
        {f"unet.{q}": dense(*pair(), scales[0]), f"unet.{k}": dense(*pair(seed=4), scales[1])},
    )


@pytest.mark.slow
def test_a_pattern_that_never_ends_is_refused_in_time(tmp_path):
    folder = peft_folder(tmp_path / "a", {"alpha_pattern": {r"((\w|[a-z]|.)+)+[0-9]": 1}})
    with pytest.raises(LoRAError, match="alpha_pattern"):
        load_lora(folder)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "pytorch_lora_weights.safetensors"])
def test_folders_are_read_and_named(tmp_path, name):
    layers = None if name.startswith("adapter") else {f"unet.{BLOCK}.attn1.to_q": pair()}
    folder = peft_folder(tmp_path / "cat", {} if layers is None else None, layers, name)
    lora = load_lora(folder)
    assert lora.sources[0].name == f"cat/{name}"
    if layers is None:
        close(
            updates(lora),
            {
                f"unet.{BLOCK}.attn1.to_q": dense(*pair(), 3),
                f"unet.{BLOCK}.attn1.to_k": dense(*pair(seed=4), 3),
            },
        )
    (folder / name).unlink()
    with pytest.raises(LoRAError, match="is a folder"):
        load_lora(folder)
    (folder / "adapter_model.bin").write_bytes(b"PK")
    with pytest.raises(LoRAError, match="pickle"):
        load_lora(folder)


@pytest.mark.parametrize(
    ("layers", "parts", "metadata", "warns"),
    [
        ({f"base_model.model.{BLOCK}.attn1.to_q": pair()}, PEFT, None, "adapter_config.json"),
        ({f"unet.{BLOCK}.attn1.to_q": pair()}, PEFT, {"lora_alpha": "16"}, "lora_alpha"),
        ({f"unet.{BLOCK}.attn1.to_q": pair()}, PEFT, {"lora_alpha": "2"}, None),
        ({f"unet.{BLOCK}.attn1.to_q": pair()}, PEFT, {"lora_alpha": "16", "lorarar_version": "1"}, None),
        (
            {f"lora_unet_{flat(BLOCK)}_attn1_to_q": pair()},
            KOHYA,
            {"ss_network_alpha": "1.0"},
            "ss_network_alpha",
        ),
        ({f"lora_unet_{flat(BLOCK)}_attn1_to_q": (*pair(), 1.0)}, KOHYA, {"ss_network_alpha": "1.0"}, None),
        ({f"unet.{BLOCK}.attn1.to_q": pair()}, PEFT, {"format": "pt"}, None),
    ],
)
def test_an_alpha_that_may_be_missing_is_warned_of_in_one_line(
    tmp_path, layers, parts, metadata, warns, recwarn
):
    load_lora(write(tmp_path / "a.safetensors", layers, parts, metadata))
    said = [str(w.message) for w in recwarn if issubclass(w.category, LoRAWarning)]
    assert len(said) == bool(warns)
    if warns:
        assert warns in said[0] and "\n" not in said[0] and "alpha" in said[0]


REFUSED = {  # tensors → what the message must say; it never advises to remove what was trained
    "numbered": ({"unet:0:up": 2, "unet:0:down": 2}, "numbers its layers"),
    "numbered, embeddings": ({"<s1>": 1, "text_encoder:0:up": 2}, "numbers its layers"),
    "embedding": ({"bundle_emb.cat.string_to_param.*": 2, "lora_unet_x_y.lora_up.weight": 2}, "embedding"),
    "inversion": ({"clip_l": 2, "clip_g": 2}, "embedding"),
    "OFT": ({"lora_unet_a_b.oft_blocks": 3}, "OFT"),
    "OFT of sd-scripts": ({"oft_unet_a_b.oft_blocks": 3}, "OFT"),
    "BOFT": ({"lora_unet_a_b.oft_diag": 3}, "OFT"),
    "IA3": ({"lora_unet_a_b.weight": 1, "lora_unet_a_b.on_input": 0}, r"IA3|\(IA\)"),
    "GLoRA": ({"lora_unet_a_b.a1.weight": 2, "lora_unet_a_b.b1.weight": 2}, "GLoRA"),
    "full": ({"lora_unet_a_b.diff": 2}, "whole differences"),
    "bias": ({"diffusion_model.blocks.0.ff.diff_b": 1}, "bias"),
    "peft bias": ({"transformer.a.b.lora_B.bias": 1}, "bias"),
    "norm": ({"lora_unet_a_norm.w_norm": 1}, "norm"),
    "DoRA": ({"lora_unet_a_b.dora_scale": 2}, "DoRA"),
    "DoRA of peft": ({"unet.a.b.lora_magnitude_vector": 1}, "DoRA"),
    "VeRA": ({"base_model.model.a.vera_lambda_b": 1}, "VeRA"),
    "checkpoint": ({"model.diffusion_model.input_blocks.0.0.weight": 2}, "whole model"),
    "diffusers UNet": ({"down_blocks.0.resnets.0.conv1.weight": 4, "conv_in.bias": 1}, "whole model"),
    "IP-Adapter": ({"image_proj.proj.weight": 2, "ip_adapter.1.to_k_ip.weight": 2}, "IP-Adapter"),
    "ControlNet-LLLite": ({"lllite_unet_a.down.0.weight": 2}, "ControlNet"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_lora_is_called_what_it_is(tmp_path, name):
    tensors, says = REFUSED[name]
    save_file(
        {key: np.ones([2] * ndim, np.float32) for key, ndim in tensors.items()}, tmp_path / "a.safetensors"
    )
    with pytest.raises(LoRAError, match=says) as error:
        load_lora(tmp_path / "a.safetensors")
    text = str(error.value)
    assert "\n" not in text and "remove" not in text and len(text) < 500


@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        b"<!DOCTYPE html><html><body>Sign in</body></html>",
        b"\n  <html lang='en'>",
        b"\xef\xbb\xbf<!-- a page -->",
        b'<?xml version="1.0"?><Error>AccessDenied</Error>',
        b'{"error":"Unauthorized","message":"The creator of this asset requires you to be logged in"}',
    ],
)
def test_what_came_instead_of_the_file_is_to_be_downloaded_again(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    for load in (load_lora, Hypernetwork.load):
        with pytest.raises(LoRAError, match="download it again"):
            load(tmp_path / "a.safetensors")


def test_a_bias_of_zeros_changes_nothing_and_is_read_over(tmp_path):
    up, down = pair()
    stem = "diffusion_model.blocks.0.self_attn.q"
    save_file(
        {
            f"{stem}.lora_up.weight": up,
            f"{stem}.lora_down.weight": down,
            f"{stem}.diff_b": np.zeros(9, np.float32),
        },
        tmp_path / "a.safetensors",
    )
    close(
        updates(load_lora(tmp_path / "a.safetensors")), {"transformer.blocks.0.attn1.to_q": dense(up, down)}
    )


def test_one_layer_under_two_names_is_refused(tmp_path):
    layers = {"diffusion_model.a.0.b_c": pair(), "diffusion_model.a.0.b.c": pair()}
    with pytest.raises(LoRAError, match="two names of one layer"):
        load_lora(write(tmp_path / "a.safetensors", layers, PEFT))


@pytest.mark.parametrize("command", ["info", "merge"])
def test_the_commands_take_a_folder_and_say_a_warning_in_one_line(tmp_path, capsys, command):
    from lorarar.cli import main

    whole, bare = peft_folder(tmp_path / "whole", {}), peft_folder(tmp_path / "bare", None)
    output = ["-o", str(tmp_path / "m.safetensors")] if command == "merge" else []
    for folder, warns in ((whole, False), (bare, True), (bare, True)):
        assert main([command, str(folder), *([str(whole)] if output else []), *output, "--quiet"]) == 0
        said = capsys.readouterr().err
        assert said.count("\n") == warns and said.startswith("lorarar: warning: " if warns else "")
    if output:
        layer = f"unet.{BLOCK}.attn1.to_q"
        expected = dense(*pair()) * (1 + 3)  # alpha = rank, and 6 / 2
        np.testing.assert_allclose(updates(load_lora(output[1]))[layer], expected, rtol=0, atol=1e-5)
        assert main(["merge", str(whole), str(bare), "-o", str(whole / "adapter_model.safetensors")]) == 2
