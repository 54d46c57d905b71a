"""The LoRA zoo: names, pictures, training that goes on where it stopped, measurements, the command."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_pipeline

from lorarar.cli import main
from lorarar.lora import load_lora
from lorarar.options import LoraRecipe
from lorarar.pipelines import load_pipeline, loaded
from lorarar.scales import SCALES, Scale, based, data_folder, local
from lorarar.shoebox import zoo
from lorarar.shoebox.models.critic import Critic
from lorarar.shoebox.world import styles, subjects, world

# One process has all of them, so that what they share is made once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("zoo")]

PAIR = ["dog #2", "oil painting #1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data folder with a tiny base and an untrained critic."""
    folder = tmp_path_factory.mktemp("data")
    tiny_pipeline().save_pretrained(folder / "base")
    Critic(width=8, embedding=8).save(folder / "shoebox" / "critic")
    return folder


@pytest.fixture
def scale(place, monkeypatch):
    recipe = LoraRecipe(rank=2, steps=2, learning_rate=1e-2, batch_size=2)
    tiny = Scale("tiny", "data/base", 32, inference_steps=1, dtype="float32", content=recipe, style=recipe)
    monkeypatch.setenv("LORARAR_DATA", str(place))
    monkeypatch.setitem(SCALES, "tiny", tiny)
    return tiny


@pytest.fixture
def loras(scale, place):
    zoo.train(PAIR, scale=scale, device="cpu", progress=False)
    return zoo.folder(scale)


# ---------------------------------------------------------------- names, pictures, words


def test_every_name_has_its_own_file(tmp_path):
    names = zoo.expand(["all"])
    assert len(names) == 30 + 26
    assert len({zoo.file_of(name, tmp_path) for name in names}) == len(names)
    assert zoo.file_of("dog #2", tmp_path) == tmp_path / "subjects" / "dog-2.safetensors"
    assert zoo.file_of("3D rendering #4", tmp_path) == tmp_path / "styles" / "3d-rendering-4.safetensors"


def test_splits_are_those_of_the_world():
    assert zoo.expand(["validation"]) == [*subjects.SPLIT["validation"], *styles.SPLIT["validation"]]
    assert zoo.expand(["dog #2", "validation"]).count("dog #2") == 1
    with pytest.raises(ValueError, match="no subject or style 'dog #9'"):
        zoo.expand(["dog #9"])
    assert all(name in zoo.expand(["validation"]) for name in zoo.FIRST)


@pytest.mark.parametrize(
    ("arguments", "prompt"),
    [
        ({"subject": "dog #2"}, "a sks dog"),
        ({"style": "oil painting #1", "cls": "owl"}, "an owl in oil painting style"),
        ({"subject": "bear plushie", "style": "glowing"}, "a sks plushie in glowing style"),
        ({"cls": "dog"}, "a photo of a dog"),
    ],
)
def test_words(arguments, prompt):
    assert zoo.words(**arguments) == prompt


def test_pictures_are_those_of_the_world():
    images, captions = zoo.pictures("dog #2")
    assert np.array_equal(images, world.subject_images("dog #2", 5)) and captions == ["a sks dog"] * 5
    images, captions = zoo.pictures("oil painting #1")
    drawn, classes = world.style_images("oil painting #1", 12)
    assert np.array_equal(images, drawn)
    assert [caption.split(" ", 1)[1] for caption in captions] == [
        f"{c} in oil painting style" for c in classes
    ]
    # One picture is the first of all: a LoRA of one image saw nothing that a LoRA of all did not.
    assert np.array_equal(zoo.pictures("oil painting #1", 1)[0], images[:1])
    assert not np.array_equal(zoo.pictures("dog #2", seed=1)[0], zoo.pictures("dog #2")[0])
    assert np.array_equal(zoo.pictures("glowing", seed=1)[0], world.style_images("glowing", 4, 1)[0])


@pytest.mark.parametrize("name", ["dog #2", *styles.STYLES])
def test_a_style_is_tested_on_classes_it_was_not_trained_on(name):
    prompts = zoo.tests(name, 10)
    if zoo.axis(name) == "subject":
        assert prompts == ["a sks dog"] * 10
        return
    assert len(set(prompts)) == 10, "on as many classes as there are prompts"
    assert not set(prompts) & set(zoo.pictures(name)[1])


def test_rivals_and_targets():
    assert "dog #3" in zoo.rivals("dog #2") and "cat #2" not in zoo.rivals("dog #2")
    assert set(zoo.rivals("oil painting #1")) == {"oil painting #2", "oil painting #3"}
    drawn = zoo.targets(*PAIR, 3)
    assert drawn.shape == (3, 64, 64, 3) and drawn.dtype == np.uint8
    assert np.array_equal(drawn, zoo.targets(*PAIR, 3)) and not np.array_equal(
        drawn, zoo.targets(*PAIR, 3, 1)
    )


# ---------------------------------------------------------------- training


def test_training_writes_ordinary_files_and_keeps_what_is_there(scale, loras):
    files = [zoo.file_of(name, loras) for name in PAIR]
    assert loras == data_folder() / "loras" / "tiny"
    lora = zoo.load("dog #2", scale)
    assert {down.shape[0] for _, down in lora.values()} == {2}
    assert {up.dtype for up, _ in lora.values()} == {torch.float16}
    said = json.loads(lora.metadata["lorarar_zoo"])
    assert (said["name"], said["scale"], said["base"]) == ("dog #2", "tiny", scale.base)
    before = [path.stat().st_mtime_ns for path in files]
    assert zoo.train(PAIR, scale=scale, device="cpu", progress=False) == files
    assert [path.stat().st_mtime_ns for path in files] == before
    assert not list(loras.rglob("*.checkpoint"))
    # Each begins with its own random numbers.
    downs = [next(iter(load_lora(path).values()))[1] for path in files]
    assert not torch.allclose(downs[0], downs[1], atol=0.1)


def test_another_recipe_or_number_of_images_is_trained_anew(scale, tmp_path):
    name = PAIR[1:]
    (path,) = zoo.train(name, tmp_path, scale, device="cpu", progress=False)
    first = path.read_bytes()
    zoo.train(name, tmp_path, scale, count=1, device="cpu", progress=False)
    one = path.read_bytes()
    assert one != first and len(json.loads(load_lora(path).metadata["lorarar_training"])["prompts"][0]) == 1
    longer = replace(scale, style=replace(scale.style, steps=3))
    zoo.train(name, tmp_path, longer, device="cpu", progress=False)
    assert path.read_bytes() not in (first, one)
    layers = "attn2.to_k", "attn2.to_v"
    zoo.train(name, tmp_path, longer, targets=layers, device="cpu", progress=False)
    assert load_lora(path) and all(layer.endswith(layers) for layer in load_lora(path))
    elsewhere = shutil.copytree(local(scale.base), tmp_path / "other-base")
    zoo.train(name, tmp_path, based(scale, elsewhere), device="cpu", progress=False)
    assert json.loads(load_lora(path).metadata["lorarar_zoo"])["base"] == "other-base"


def test_a_broken_file_is_trained_anew(scale, tmp_path):
    path = zoo.file_of("dog #2", tmp_path)
    path.parent.mkdir()
    path.write_bytes(b"torn")
    zoo.train(["dog #2"], tmp_path, scale, device="cpu", progress=False)
    assert len(load_lora(path)) > 0


def test_training_goes_on_where_it_was_stopped(scale, tmp_path, monkeypatch):
    slow = replace(scale, content=replace(scale.content, steps=8))
    (whole,) = zoo.train(["clock"], tmp_path / "whole", slow, device="cpu", progress=False)
    trained = zoo.training.train_lora

    def stopped(*arguments, callback, **options):
        def until(step, loss):
            if step == 5:
                raise KeyboardInterrupt
            callback(step, loss)

        return trained(*arguments, callback=until, checkpoint_every=3, **options)

    monkeypatch.setattr(zoo.training, "train_lora", stopped)
    with pytest.raises(KeyboardInterrupt):
        zoo.train(["clock"], tmp_path / "parts", slow, device="cpu", progress=False)
    assert list((tmp_path / "parts").rglob("*.checkpoint"))
    monkeypatch.setattr(zoo.training, "train_lora", trained)
    (parts,) = zoo.train(["clock"], tmp_path / "parts", slow, device="cpu", progress=False)
    one, other = load_lora(whole), load_lora(parts)
    assert all(torch.equal(a, b) for layer in one for a, b in zip(one[layer], other[layer], strict=True))


def test_smoke_reads_the_loras_of_the_shoebox(monkeypatch, tmp_path):
    monkeypatch.setenv("LORARAR_DATA", str(tmp_path))
    assert zoo.folder("smoke") == zoo.folder("shoebox") == tmp_path / "loras"
    assert zoo.folder("sdxl") == tmp_path / "loras" / "sdxl"
    with pytest.raises(ValueError, match=r"no LoRA .*dog-2.safetensors: make it with `lorarar zoo train"):
        zoo.load("dog #2", "smoke")


# ---------------------------------------------------------------- measuring


def test_measure(scale, loras):
    found = zoo.measure(PAIR, scale=scale, count=3, device="cpu", progress=False)
    assert [row["axis"] for row in found.values()] == ["subject", "style"]
    for name, row in found.items():
        assert {row["lora"], row["base"]} <= {0.0, 0.3333, 0.6667, 1.0}
        assert row["trained on"] == zoo.VIEWS[row["axis"]]
        assert row["bytes"] == zoo.file_of(name, loras).stat().st_size
    json.dumps(found)
    with pytest.raises(ValueError, match="count must be at least 1"):
        zoo.measure(PAIR, scale=scale, count=0)


def test_choose_trains_each_candidate_as_it_says(scale, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo.measurements, "CANDIDATES", ({}, {"rank": 3}))
    with_pair = zoo.choose(PAIR, tmp_path, scale, count=2, device="cpu", progress=False)
    assert [row["changed"] for row in with_pair] == [{}, {"rank": 3}]
    for row, label, rank in zip(with_pair, ("default", "rank-3"), (2, 3), strict=True):
        lora = load_lora(zoo.file_of(PAIR[0], tmp_path / label))
        assert {down.shape[0] for _, down in lora.values()} == {rank}
        alone = zoo.measure(PAIR[:1], tmp_path / label, scale, count=2, device="cpu", progress=False)
        assert row["subject"] == row["worst subject"] == alone[PAIR[0]]["lora"]
    (one, _) = zoo.choose(PAIR[1:], tmp_path, scale, count=2, device="cpu", progress=False)
    assert one["subject"] is None and one["worst subject"] is None and one["style"] == with_pair[0]["style"]


def test_sums(scale, loras):
    values, sheet = zoo.sums(PAIR, scale=scale, count=2, device="cpu", progress=False)
    assert sheet.shape == (1, len(values["columns"]), 32, 32, 3) and len(values["columns"]) == 6
    (pair,) = values["pairs"]
    assert [pair["subject"], pair["style"]] == PAIR
    assert np.shape(pair["subject right"]) == np.shape(pair["style right"]) == (len(zoo.WEIGHTS), 2)
    assert values["weights"] == [list(weights) for weights in zoo.WEIGHTS]
    with pytest.raises(ValueError, match="at least one subject and one style"):
        zoo.sums(PAIR[:1], scale=scale, device="cpu")


def test_shows_reduces_large_images(scale):
    critic = zoo.load_critic()
    images = zoo.pictures("dog #2", 4)[0]
    large = images.repeat(4, 1).repeat(4, 2)
    assert np.array_equal(zoo.shows(critic, "dog #2", images), zoo.shows(critic, "dog #2", large))


def test_probes_compare(scale, loras):
    pipe = load_pipeline(scale, "cpu")
    batch = zoo.probe(pipe, *zoo.pictures("dog #2"), 4)
    alone = zoo.loss(pipe, batch)
    assert alone == zoo.loss(pipe, zoo.probe(pipe, *zoo.pictures("dog #2"), 4))
    assert alone != zoo.loss(pipe, zoo.probe(pipe, *zoo.pictures("dog #2"), 4, seed=1))
    content, style = (zoo.load(name, scale) for name in PAIR)
    with loaded(pipe, content, style):
        with_both = zoo.loss(pipe, batch)
        zoo.apply_weights(pipe, (0, 0))
        assert zoo.loss(pipe, batch) == pytest.approx(alone, rel=1e-5)
        zoo.apply_weights(pipe, (1, 0))
        content_only = zoo.loss(pipe, batch)
    with loaded(pipe, content):
        assert zoo.loss(pipe, batch) == pytest.approx(content_only, rel=1e-5)
    assert len({alone, with_both, content_only}) == 3


# ---------------------------------------------------------------- the command


def test_the_command_trains_measures_sums_and_chooses(scale, place, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(zoo.measurements, "CANDIDATES", ({},))
    monkeypatch.chdir(tmp_path)
    common = ["--names", *PAIR, "--scale", "tiny", "--device", "cpu"]
    assert main(["zoo", "train", *common]) == 0
    assert "dog-2.safetensors" in capsys.readouterr().out
    for step, name in (("measure", "first_loras"), ("sums", "first_sums"), ("choose", "recipes")):
        assert main(["zoo", step, *common, "--count", "1", "--quiet"]) == 0
        written = json.loads((place / "recorded" / f"{name}.json").read_text())
        assert written["values"]["count"] == 1 and written["scale"] == "tiny"
        names = '"dog #2" "oil painting #1"'
        assert written["command"] == f"lorarar zoo {step} --names {names} --count 1 --scale tiny"
    with Image.open(place / "recorded" / "first_sums.webp") as sheet:
        assert sheet.size == (6 * 32, 32)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--names", "no such dog"],
        ["train", "--images", "0"],
        ["measure", "--count", "0"],
        ["measure", "--record", "../elsewhere"],
        ["measure", "--scale", "huge"],
        ["train", "--seed", "-1"],
        ["measure", "--targets", "to_q"],
        ["train", "--targets", "to_z"],
        ["measure", "--out", "/nowhere"],
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, capsys):
    assert main(["zoo", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if not line.startswith("[transformers]")]) == 1
