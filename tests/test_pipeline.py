"""One pair from folder to picture: every step, stopped and gone on with, and bad input."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import dense, run
from test_objective import PICTURES, adapter
from tiny import tiny_pipeline

import lorarar.pair
from lorarar.atomic import atomic
from lorarar.lora import load_lora, save_coefficients, save_lora
from lorarar.merging import merge
from lorarar.pipelines import generate, load_pipeline, loaded
from lorarar.resume import missing
from lorarar.scales import data_folder
from lorarar.train import own_inputs

PROMPTS = ("--content-prompt", "a cat", "--style-prompt", "a vase in oil painting style")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A tiny base, two folders of pictures and two LoRAs."""
    folder, pipe = tmp_path_factory.mktemp("given"), tiny_pipeline()
    pipe.save_pretrained(folder / "base")
    for seed, name in enumerate(("cat", "oil")):
        save_lora(adapter(pipe, seed), folder / f"{name}.safetensors")
        (folder / name).mkdir()
        for i, picture in enumerate(PICTURES[: seed + 1]):
            Image.fromarray(picture).save(folder / name / f"{i}.png")
    return folder


def words(given, *sides, out):
    base = ("--base", given / "base", "--scale", "smoke", "--device", "cpu")
    return "pipeline", *(given / side for side in sides), "-o", out, *base


def test_files_are_made_once_and_anew_from_something_else(tmp_path):
    files = [tmp_path / name for name in ("a", "b")]
    step, beside = tmp_path / "step.json", tmp_path / "a.checkpoint"
    assert missing(step, {"seed": (0, 1)}, files) == files
    files[0].write_text("made")
    beside.write_text("half")
    assert missing(step, {"seed": (0, 1)}, files, [beside]) == files[1:] and beside.exists()
    assert missing(step, {"seed": (0, 2)}, files, [beside]) == files
    assert not files[0].exists() and not beside.exists()
    step.write_text("{ torn")
    files[0].write_text("of unknown origin")
    assert missing(step, {"seed": (0, 2)}, files) == files


@pytest.mark.slow
def test_two_folders_become_a_sheet_and_a_stopped_run_goes_on(given, tmp_path, monkeypatch, capsys):
    judge = data_folder() / "shoebox" / "judge"
    if not judge.is_dir():
        pytest.skip("needs the judge in data")
    whole, out = tmp_path / "whole", tmp_path / "out"
    more = (*PROMPTS, "--rank", 2, "--lora-steps", 3, "--count", 2, "--judge", judge)
    assert run(*words(given, "cat", "oil", out=whole), *more) == 0
    said = capsys.readouterr().out
    assert "merged.safetensors: ziplora, 64 layers" in said and "sheet.png: 2 pictures" in said
    assert {path.name for path in whole.iterdir()} == {
        *("content.safetensors", "style.safetensors", "merged.safetensors", "pictures"),
        *("verdicts.json", "sheet.png", "steps"),
    }
    assert {str(x.dtype) for x in next(iter(load_lora(whole / "content.safetensors").values()))} == {
        "torch.float16"
    }
    merged = load_lora(whole / "merged.safetensors")
    pipe = load_pipeline(given / "base", "cpu")
    with loaded(pipe, merged):  # what the files say is what the pictures show
        want = generate(pipe, "a cat in oil painting style", [0, 1], steps=2, guidance=3.0)
    shown = [np.asarray(Image.open(whole / "pictures" / f"00{i}.png")) for i in (0, 1)]
    assert np.abs(np.stack(shown).astype(int) - want).max() <= 1
    rows = json.loads((whole / "verdicts.json").read_text())["images"]
    assert [row["file"] for row in rows] == ["000.png", "001.png"]
    edge = np.asarray(Image.open(whole / "sheet.png"))[0, 0]
    assert tuple(edge) == ((0, 158, 115) if rows[0]["right"] else (213, 45, 45))

    # Killed after the first picture; nothing that is there is made again.
    real, calls = lorarar.pair.atomic, []

    def killed(path):
        calls.append(path.name)
        if path.name == "001.png":
            raise KeyboardInterrupt
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(lorarar.pair, "atomic", killed)
        assert run(*words(given, "cat", "oil", out=out), *more, "--quiet") == 130
    assert not (out / "pictures" / "001.png").exists() and (out / "pictures" / "000.png").exists()
    with monkeypatch.context() as patch:
        patch.setattr(lorarar.pair, "train_lora", None)
        patch.setattr(lorarar.pair, "optimise", None)
        assert run(*words(given, "cat", "oil", out=out), *more) == 0
    assert "content.safetensors: is there" in capsys.readouterr().out
    for name in ("merged.safetensors", "pictures/000.png", "pictures/001.png", "sheet.png"):
        assert (out / name).read_bytes() == (whole / name).read_bytes() or name.endswith("safetensors")
    assert atomic is real

    # Another prompt makes the pictures anew, and fewer leave none of the old ones behind.
    other = ("--prompt", "a dog", "--count", 1, "--judge", "none", "--quiet")
    assert run(*words(given, "cat", "oil", out=out), *more, *other) == 0
    assert [path.name for path in (out / "pictures").iterdir()] == ["000.png"]
    assert (out / "pictures" / "000.png").read_bytes() != (whole / "pictures" / "000.png").read_bytes()


def test_two_files_are_merged_by_the_books_first_advice(given, tmp_path, capsys):
    out = tmp_path / "out"
    two = words(given, "cat.safetensors", "oil.safetensors", out=out)
    assert run(*two, "--prompt", "a cat in oil", "--count", 1) == 0
    assert "verdicts: none" in capsys.readouterr().out
    merged = load_lora(out / "merged.safetensors")
    one, other = (load_lora(given / f"{name}.safetensors") for name in ("cat", "oil"))
    for layer in merged:
        expected = 0.7 * dense(one[layer]) + 0.7 * dense(other[layer])
        np.testing.assert_allclose(dense(merged[layer]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["levels", "table"])
def test_constants_are_merged_by_too(given, tmp_path, method):
    two = words(given, "cat.safetensors", "oil.safetensors", out=tmp_path / "out")
    one, other = (load_lora(given / f"{name}.safetensors") for name in ("cat", "oil"))
    table = {layer: (torch.full((1,), 0.6), torch.full((1,), 0.3)) for layer in one}
    more = ["--content-weight", 0.6, "--style-weight", 0.3]
    if method == "table":
        save_coefficients(table, tmp_path / "table.safetensors")
        more = ["--coefficients", tmp_path / "table.safetensors"]
    assert run(*two, "--method", method, *more, "--prompt", "a cat", "--count", 1, "--quiet") == 0
    merged = load_lora(tmp_path / "out" / "merged.safetensors")
    for layer in merged:
        predicted = method == "table" or layer.endswith(("to_q", "to_out.0"))
        content, style = (0.6, 0.3) if predicted else (0.5, 0.5)
        expected = content * dense(one[layer]) + style * dense(other[layer])
        np.testing.assert_allclose(dense(merged[layer]), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_two_files_and_their_prompts_are_merged_by_regmean(given, tmp_path):
    two = words(given, "cat.safetensors", "oil.safetensors", out=tmp_path / "out")
    assert run(*two, "--method", "regmean", *PROMPTS, "--count", 1, "--quiet") == 0
    pipe = load_pipeline(given / "base", "cpu")
    loras = [load_lora(given / f"{name}.safetensors") for name in ("cat", "oil")]
    said = PROMPTS[1], PROMPTS[3]
    inputs = tuple(own_inputs(pipe, lora, prompt) for lora, prompt in zip(loras, said, strict=True))
    expected, merged = merge(*loras, "regmean", inputs=inputs), load_lora(tmp_path / "out/merged.safetensors")
    for layer in expected:
        np.testing.assert_allclose(dense(merged[layer]), dense(expected[layer]), rtol=1e-3, atol=1e-4)


def test_each_bad_input_has_a_line(given, tmp_path, capsys):
    broken = shutil.copytree(given / "cat", tmp_path / "broken")
    for name in ("one.png", "two.jpg"):
        (broken / name).write_text("no picture")
    (tmp_path / "bad.safetensors").write_text("no LoRA")
    out = tmp_path / "out"
    arguments = words(given, broken, tmp_path / "bad.safetensors", out=out)
    assert run(*arguments, "--content-prompt", "a cat", "--count", 0) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4 and all(line.startswith("lorarar: ") for line in said)
    for line, name in zip(said, ("one.png", "two.jpg", "bad.safetensors", "--count"), strict=True):
        assert name in line
    assert not out.exists()
    for change, message in (
        (("cat", "oil"), "--content-prompt TEXT, or captions"),
        (("cat.safetensors", "oil.safetensors"), "--prompt TEXT is missing"),
        (("cat.safetensors", "nowhere"), "nowhere: no such file or folder"),
    ):
        assert run(*words(given, *change, out=out)) == 2
        assert message in capsys.readouterr().err
    files = words(given, "cat.safetensors", "oil.safetensors", out=out)
    for more, message in (
        (("--method", "ziplora"), "--method ziplora needs the pictures of both"),
        (("--method", "regmean"), "give --content-prompt and --style-prompt"),
        (("--method", "lorarar"), "--hypernetwork FILE goes with --method lorarar"),
        (("--method", "table"), "--coefficients FILE goes with --method table"),
        (("--method", "table", "--coefficients", given / "cat.safetensors"), "cat.safetensors"),
        (("--content-images", given / "cat"), "--content-prompt TEXT, or captions"),
    ):
        assert run(*files, "--prompt", "a cat", *more) == 2
        assert message in capsys.readouterr().err
    assert not out.exists()
