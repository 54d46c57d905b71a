"""The experiment on folders of pictures: the drawn world, written out, answers as the drawn world does."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_pipeline

from lorarar.collection import Folders
from lorarar.options import LoraRecipe, MergerRecipe
from lorarar.scales import SCALES, Scale, data_folder
from lorarar.shoebox import zoo
from lorarar.study.__main__ import main
from lorarar.study.cells import cell_of, setting
from lorarar.study.images import images, read_cell
from lorarar.study.verdicts import find_judge

PAIR = ("dog #2", "watercolor painting #1")
OWN = ("my-dog", "water")


def written(root):
    """A drawn subject and style as a user has pictures of them, and other views for the judge."""
    for axis, drawn, own in zip(("subjects", "styles"), PAIR, OWN, strict=True):
        place = root / axis / own
        (place / "references").mkdir(parents=True)
        for folder, seed in ((place, 0), (place / "references", 1)):
            pictures, captions = zoo.pictures(drawn, seed=seed)
            for i, picture in enumerate(pictures):
                Image.fromarray(picture).save(folder / f"{i:02}.png")
            if axis == "styles":
                lines = [{"file_name": f"{i:02}.png", "text": text} for i, text in enumerate(captions)]
                (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    world = {
        "subjects": {OWN[0]: {"class": "dog", "split": "validation"}},
        "styles": {OWN[1]: {"words": "watercolor painting", "split": "validation"}},
    }
    (root / "world.json").write_text(json.dumps(world))
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return written(tmp_path_factory.mktemp("world"))


@pytest.fixture
def scale(tmp_path, monkeypatch):
    """A tiny scale in a data folder of its own."""
    recipe = LoraRecipe(rank=2, steps=2, learning_rate=3e-2, batch_size=2)
    fit = MergerRecipe(steps=2, learning_rate=0.3, batch_size=2)
    tiny = Scale("tiny", "data/base", 32, 2, 2.0, "float32", content=recipe, style=recipe, ziplora=fit)
    tiny_pipeline().save_pretrained(tmp_path / "data" / "base")
    monkeypatch.setenv("LORARAR_DATA", str(tmp_path / "data"))
    monkeypatch.setitem(SCALES, "tiny", tiny)
    monkeypatch.chdir(tmp_path)
    return tiny


def test_folders_answer_as_the_drawn_world_does(root):
    own = Folders(root)
    assert own.split("validation") == ((OWN[0],), (OWN[1],)) and own.expand(["all"]) == list(OWN)
    assert own.words(*OWN) == zoo.words(*PAIR)
    assert own.words(style=OWN[1], cls=own.class_of(OWN[0])) == zoo.words(style=PAIR[1], cls="dog")
    for drawn, name in zip(PAIR, OWN, strict=True):
        assert own.axis(name) == zoo.axis(drawn)
        for seed in (0, 1):
            mine, theirs = own.pictures(name, seed=seed), zoo.pictures(drawn, seed=seed)
            assert np.array_equal(np.stack(mine[0]), theirs[0])
            assert mine[1] == theirs[1] or (seed and own.axis(name) == "style")
        assert len(own.pictures(name, 2)[0]) == 2


@pytest.mark.slow
def test_the_experiment_runs_on_folders(root, scale, tmp_path, capsys):
    judge = data_folder().parent / "none"
    common = ["--scale", "tiny", "--world", str(root), "--device", "cpu", "--quiet"]
    assert main(["images", *common, "--methods", "direct"]) == 2
    assert f"--out {root / 'loras' / 'tiny'} --scale tiny --world" in capsys.readouterr().err
    from lorarar.cli import main as program

    assert program(["zoo", "train", *common]) == 0
    own = Folders(root)
    assert all(own.file_of(name, own.folder("tiny")).is_file() for name in OWN)
    assert main(["images", *common, "--count", "2", "--methods", "direct", "ziplora"]) == 0
    cells = tmp_path / "runs" / "experiment" / root.name / "tiny" / "validation"
    facts, made = read_cell(cells / "direct" / "my-dog--water")
    assert facts["prompt"] == "a sks dog in watercolor painting style" and made.shape == (2, 32, 32, 3)

    # The same LoRAs under the drawn world's names make the same pictures, ZipLoRA's optimisation included.
    loras = tmp_path / "drawn"
    for drawn, name in zip(PAIR, OWN, strict=True):
        target = zoo.file_of(drawn, loras)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(own.file_of(name, own.folder("tiny")).read_bytes())
    options = {"names": PAIR, "loras": loras, "count": 2, "device": "cpu", "progress": False}
    run = setting("validation", scale, out=tmp_path / "cells", **options)
    images(run, ["direct", "ziplora"])
    for method in ("direct", "ziplora"):
        mine = read_cell(cells / method / "my-dog--water")[1]
        assert np.array_equal(mine, read_cell(cell_of(run, method, PAIR))[1])

    assert main(["verdicts", *common, "--judge", "critic", "--methods", "direct"]) == 2
    assert "the critic knows the drawn world alone" in capsys.readouterr().err
    assert main(["verdicts", *common, "--judge", f"mars2={judge}", "--methods", "direct"]) == 2


@pytest.mark.slow
def test_the_judge_sees_the_folders_references(root):
    place = data_folder() / "shoebox" / "judge"
    if not place.is_dir():
        pytest.skip("needs the judge in data")
    mine, theirs = (find_judge(f"mars2={place}", device="cpu", world=w) for w in (Folders(root), zoo))
    shown = zoo.targets(*PAIR, 3)
    for drawn, name in zip(PAIR, OWN, strict=True):
        assert np.array_equal(mine.shows(name, shown), theirs.shows(drawn, shown))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "cannot read .*world.json, which says what the pictures show"),
        ('{"subjects": {}}', 'expected {"subjects": {"NAME": {"class": '),
        ('{"subjects": {"my-dog": {"class": "dog"}}}', "my-dog: expected"),
        ('{"subjects": {"../x": {"class": "dog", "split": "test"}}}', "'../x' is no name"),
        ('{"subjects": {"cat": {"class": "cat", "split": "test"}}}', "no image folder .*cat"),
    ],
)
def test_a_bad_world_is_one_line(root, tmp_path, change, message):
    (tmp_path / "world.json").write_text(change)
    (tmp_path / "subjects").symlink_to(root / "subjects")
    with pytest.raises(ValueError, match=message) as caught:
        Folders(tmp_path)
    assert "\n" not in str(caught.value)
