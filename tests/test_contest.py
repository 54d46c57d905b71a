"""A contest by a plan: what is written down is what is made, judged and answered."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lorarar.collection import Folders
from lorarar.hypernet import load_network
from lorarar.lora import load_lora
from lorarar.pipelines import load_pipeline
from lorarar.scales import SCALES
from lorarar.shoebox import zoo
from lorarar.shoebox.world import styles, subjects
from lorarar.shoebox.zoo import strangers
from lorarar.shoebox.zoo.training import train
from lorarar.stamp import ROOT
from lorarar.study import coefficients as co
from lorarar.study import contest
from lorarar.study.cells import setting
from lorarar.study.recipes import recipe
from lorarar.study.ruler import ruler
from lorarar.study.training import with_pictures
from lorarar.study.verdicts import find_judge


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return strangers.draw(tmp_path_factory.mktemp("drawn") / "strangers", 3, 2, seed=7, split="test")


@pytest.fixture(scope="module")
def loras(root, tmp_path_factory):
    world, folder = Folders(root), tmp_path_factory.mktemp("loras")
    train(world.names, folder, "smoke", world=world, progress=False)
    return folder


def test_strangers_are_a_collection_like_the_zoo(root):
    world = Folders(root)
    individuals, looks = world.split("test")
    assert (len(individuals), len(looks)) == (3, 2)
    assert len({world.class_of(name) for name in individuals}) == 3
    for name in (*individuals, *looks):
        axis = world.axis(name)
        images, captions = world.pictures(name)
        others, _ = world.pictures(name, seed=1)
        assert len(images) == zoo.VIEWS[axis] and len(others) == zoo.REFERENCES[axis]
        assert all(image.shape == (64, 64, 3) for image in (*images, *others))
        assert not any(np.array_equal(one, two) for one in images for two in others)
    assert captions[0].endswith(f"in {world.family(looks[-1])} style")
    assert world.pictures(individuals[0])[1] == [f"a sks {world.class_of(individuals[0])}"] * 5


def test_strangers_are_the_seeds_and_no_others(root, tmp_path):
    again = strangers.draw(tmp_path / "again", 3, 2, seed=7, split="test")
    files = sorted(path.relative_to(root) for path in root.rglob("*.*"))
    assert all((again / file).read_bytes() == (root / file).read_bytes() for file in files)
    other = Folders(strangers.draw(tmp_path / "other", 3, 2, seed=8, split="train"))
    assert not np.array_equal(
        other.pictures(other.names[0])[0][0], Folders(root).pictures(Folders(root).names[0])[0][0]
    )


@pytest.mark.parametrize(
    ("sizes", "split", "said"), [((0, 1), "test", "at least 1"), ((1, 1), "all", "split")]
)
def test_strangers_that_cannot_be(tmp_path, sizes, split, said):
    with pytest.raises(ValueError, match=said):
        strangers.draw(tmp_path / "new", *sizes, seed=0, split=split)
    assert not (tmp_path / "new").exists()


def test_a_full_folder_is_left_alone(root):
    with pytest.raises(ValueError, match="name a new folder"):
        strangers.draw(root, 1, 1, seed=0, split="test")


def test_a_drawing_that_is_stopped_leaves_nothing(tmp_path, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    (tmp_path / "new").mkdir()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(styles, "random_style", stopped)
        strangers.draw(tmp_path / "new", 1, 1, seed=0, split="test")
    assert list(tmp_path.iterdir()) == [tmp_path / "new"] and not any((tmp_path / "new").iterdir())
    assert len(Folders(strangers.draw(tmp_path / "new", 1, 1, seed=0, split="test")).names) == 2


def test_classes_come_in_turn():
    rng = np.random.default_rng(0)
    found = strangers._in_turn(rng, subjects.CLASSES, 2 * len(subjects.CLASSES))
    assert all(found.count(cls) == 2 for cls in subjects.CLASSES)
    assert len(set(strangers._in_turn(rng, styles.FAMILIES, 5))) == 5


def test_the_critic_knows_strangers_and_no_folders_of_others(root, tmp_path):
    world = Folders(root)
    judge = find_judge("critic", world=world)
    name, other = world.split("test")[0][:2]
    seen = np.stack(world.pictures(name)[0])
    assert judge.shows(name, seen).mean() > 0.7 > 0.3 > judge.shows(other, seen).mean()
    said = json.loads((root / "world.json").read_text())
    (tmp_path / "world.json").write_text(json.dumps({k: said[k] for k in ("subjects", "styles")}))
    for axis in ("subjects", "styles"):
        (tmp_path / axis).symlink_to(root / axis)
    with pytest.raises(ValueError, match="drawn world alone"):
        find_judge("critic", world=Folders(tmp_path))


PLAN = {
    "measure": "critic",
    "count": 2,
    "rows": {
        "plain sum": {"method": "direct"},
        "tuned sum": {"method": "direct", "options": {"content_weight": 0.8}},
        "shipped": {"method": "lorarar", "files": ["data/hypernetworks/shoebox.safetensors"]},
    },
    "questions": [["shipped", "plain sum", 0]],
}


def plan(tmp_path, **changes):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(PLAN | changes))
    return file


def test_a_plan_is_read(tmp_path):
    found = contest.read_plan(plan(tmp_path))
    assert [row.entrants[0][0] for row in found.rows] == ["plain-sum", "tuned-sum", "shipped-0"]
    assert found.questions == (("shipped", "plain sum", 0.0),)
    assert contest.method_of(found.rows[1], None).options == {"content_weight": 0.8}


def test_a_plan_may_name_its_own_pairs(tmp_path):
    run = setting("validation", "smoke", out=tmp_path)
    assert contest.read_plan(plan(tmp_path)).setting(run) == replace(run, count=2)
    on = {"subjects": ["toaster", "sofa"], "styles": ["cyberpunk"]}
    found = contest.read_plan(plan(tmp_path, on=on)).setting(run)
    assert found.pairs == [("toaster", "cyberpunk"), ("sofa", "cyberpunk")] and found.count == 2


@pytest.mark.parametrize("file", sorted((ROOT / "data" / "plans").glob("*.json")), ids=lambda file: file.stem)
def test_the_plans_of_the_book_can_be_read(file, root):
    found = contest.read_plan(file)
    assert found.rows and found.questions
    for name in (*found.subjects, *found.styles):
        zoo.axis(name)
    for row in found.rows:
        for training in row.trainings:
            recipe(SCALES["shoebox"], training.recipe, training.seed, **training.changes)
            taught = (replace(training, world=root) if training.world else training).names()
            assert training.pairs is None or training.pairs <= len(taught[0]) * len(taught[1])
            # What a network is tested on it has not seen.
            assert not set(found.subjects) & set(taught[0]) and not set(found.styles) & set(taught[1])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": {"a": {"method": "magic"}}}, "no method 'magic'"),
        ({"rows": {"a": {"method": "lorarar"}}}, "needs files"),
        ({"rows": {"a": {"method": "direct", "files": ["x"]}}}, "takes no files"),
        ({"rows": {"a": {"method": "table", "files": ["nowhere"]}}}, "there is no file"),
        ({"rows": {"a": {"method": "direct", "train": {"recipe": "columns"}}}}, "a network of lorarar"),
        ({"rows": {"a": {"method": "lorarar", "train": {}}}}, "is no plan"),
        ({"questions": [["a", "b", 0]]}, "which is no row"),
        ({"questions": 3}, "is no plan"),
    ],
)
def test_a_plan_that_is_none(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        contest.read_plan(plan(tmp_path, **changes))


def test_a_plan_takes_every_method_that_needs_no_file(tmp_path):
    rows = {
        name: {"method": name} for name in ("k-lora", "lora-switch", "levels", "regmean", "joint", "ties")
    }
    found = contest.read_plan(plan(tmp_path, rows=rows, questions=[]))
    assert [contest.method_of(row, None).sampling for row in found.rows] == [True, True, *[False] * 4]
    for reference in ("base", "content"):
        with pytest.raises(ValueError, match=f"no method '{reference}'"):
            contest.read_plan(plan(tmp_path, rows={"a": {"method": reference}}, questions=[]))


def test_what_merges_while_it_samples_has_no_error_of_a_merge(tmp_path):
    run = setting("validation", "smoke", out=tmp_path / "out", progress=False)
    rows = {"plain sum": {"method": "direct"}, "one at a time": {"method": "k-lora"}}
    with pytest.raises(ValueError, match="one at a time: k-lora merges while it samples"):
        contest.contest(run, contest.read_plan(plan(tmp_path, measure="rho", rows=rows, questions=[])))
    assert not (tmp_path / "out").exists()


def test_a_difference_has_the_luck_of_every_training_in_it():
    rng = np.random.default_rng(0)
    one = rng.random((3, 6, 5)) + np.array([0.0, 0.3, 0.6])[:, None, None]  # trainings differ much
    other = rng.random((1, 6, 5))
    with_luck = contest.difference(one, other)
    without = contest.difference(one.mean(0, keepdims=True), other)
    assert np.isclose(with_luck.value, (one.mean(0) - other[0]).mean())
    assert np.isclose(with_luck.value, without.value)
    assert with_luck.high - with_luck.low > 1.3 * (without.high - without.low)
    fewer = contest.difference(one, other[:, :4])  # made for the first four subjects alone
    assert np.isclose(fewer.value, (one.mean(0)[:4] - other[0, :4]).mean())
    both = contest.difference(one, one[::-1])
    assert np.isclose(both.value, 0) and both.high - both.low > with_luck.high - with_luck.low


def test_an_answer_is_open_unless_the_interval_says():
    from lorarar.study.statistics import Entry

    assert contest.answer(Entry(0.1, 0.02, 0.2), 0) == "yes"
    assert contest.answer(Entry(-0.1, -0.2, -0.02), 0) == "no"
    assert contest.answer(Entry(0.0, -0.02, 0.02), 0) == "open"
    assert contest.answer(Entry(0.0, -0.02, 0.02), -3) == "yes"  # not worse by three points


@pytest.mark.parametrize(("measure", "sign"), [("critic", 1), ("rho", -1)])
def test_what_is_recorded_follows_from_the_pairs(tmp_path, measure, sign):
    class Run:
        subjects, styles, seeds = ("a", "b"), ("c", "d", "e"), [0, 1]

    rng = np.random.default_rng(1)
    found = {
        "plain sum": rng.random((1, 2, 3)),
        "tuned sum": rng.random((1, 2, 3)),
        "shipped": rng.random((3, 2, 3)),
    }
    values = contest.values(Run, contest.read_plan(plan(tmp_path, measure=measure)), found)
    assert values["rows"]["shipped"]["trainings"] == [float(one.mean()) for one in found["shipped"]]
    ahead = values["questions"][0]["lead"]
    assert np.isclose(ahead.value, sign * (found["shipped"].mean() - found["plain sum"].mean()))


@pytest.mark.slow
def test_a_contest_by_rho_measures_merges_and_goes_on_where_it_stopped(root, loras, tmp_path, monkeypatch):
    scale = replace(SCALES["smoke"], ziplora=replace(SCALES["smoke"].ziplora, steps=1))
    world = Folders(root)
    run = setting("test", scale, loras=loras, out=tmp_path / "out", world=world, progress=False)
    rows = {name: PLAN["rows"][name] | {"subjects": 2} for name in ("plain sum", "shipped")}
    rows |= {"ZipLoRA": {"method": "ziplora", "subjects": 1}}
    rows |= {"by cosine": rows["ZipLoRA"] | {"options": {"measure": "cosine", "learning_rate": 0.1}}}
    rows |= {"halves": {"method": "levels", "options": {"content_weight": 0.5, "style_weight": 0.5}}}
    written = contest.read_plan(plan(tmp_path, measure="rho", rows=rows))
    found = contest.contest(run, written)
    assert {name: one.shape for name, one in found.items()} == {
        "plain sum": (1, 2, 2), "shipped": (1, 2, 2), "ZipLoRA": (1, 1, 2), "by cosine": (1, 1, 2),
        "halves": (1, 3, 2),
    }  # fmt: skip
    assert (found["ZipLoRA"] != found["by cosine"]).all()
    # By the other way that ρ has, from coefficients.
    pair = run.pairs[3]
    sides = {name: with_pictures(name, load_lora(world.file_of(name, loras)), world) for name in pair}
    with ruler(load_pipeline(scale, "cpu"), sides=sides) as measure:
        gates = co.constant(sides[pair[0]].lora, 0.5)
        assert found["halves"].ravel()[3] == pytest.approx(measure.rho(pair, gates), rel=1e-3)
    monkeypatch.setattr(contest, "merge", None)  # nothing is merged or measured twice
    assert all(np.array_equal(one, found[name]) for name, one in contest.contest(run, written).items())


@pytest.mark.slow
def test_a_row_may_merge_loras_of_its_own(root, loras, tmp_path):
    world, others = Folders(root), tmp_path / "others"
    names = (*world.split("test")[0][:2], world.split("test")[1][0])
    train(names, others, "smoke", targets=["attn2.to_v"], seed=5, world=world, progress=False)
    rows = {"sum": {"method": "direct"}, "sum of others": {"method": "direct", "loras": str(others)}}
    written = contest.read_plan(plan(tmp_path, measure="rho", rows=rows, questions=[]))
    run = setting(
        "test", "smoke", names=names, loras=loras, out=tmp_path / "out", world=world, progress=False
    )
    found = contest.contest(run, written)
    first = replace(written, rows=written.rows[:1])
    alone = contest.contest(replace(run, loras=others, out=tmp_path / "alone"), first)
    assert found["sum of others"] == pytest.approx(alone["sum"], rel=1e-4)
    before = contest.contest(replace(run, out=tmp_path / "before"), first)
    assert found["sum"] == pytest.approx(before["sum"], rel=1e-4)
    assert found["sum"] != pytest.approx(alone["sum"], rel=1e-2)


@pytest.mark.slow
def test_a_row_is_trained_as_its_plan_says_and_once(root, loras, tmp_path):
    world = Folders(root)
    names = (*world.split("test")[0][:2], world.split("test")[1][0])
    out = tmp_path / "out"
    run = setting("test", "smoke", names=names, loras=loras, out=out, world=world, progress=False)
    how = {
        "recipe": "the same, inputs of rms 1",
        "seeds": [0, 1],
        "pairs": 2,
        "subjects": ["dog #8", "can"],
        "styles": ["glowing"],
        "options": {"parts": ["value"], "steps": 2, "batch_size": 1, "draws": 1},
    }
    rows = {"value": {"method": "lorarar", "train": how}, "sum": {"method": "direct"}}
    written = contest.read_plan(plan(tmp_path, measure="rho", rows=rows, questions=[["value", "sum", 0]]))
    found = contest.contest(run, written)
    assert found["value"].shape == (2, 2, 1) and np.ptp(found["value"], axis=0).min() > 0
    files = sorted((run.out / "networks").iterdir())
    assert [file.name for file in files] == ["value-0.safetensors", "value-1.safetensors"]
    said = json.loads(load_network(files[1]).metadata["lorarar_training"])
    assert (said["parts"], said["pairs"], said["seed"]) == (["value"], 2, 1)
    assert (sorted(said["contents"]), said["styles"]) == (["can", "dog #8"], ["glowing"])
    before = [file.stat().st_mtime_ns for file in files]
    assert all(np.array_equal(one, found[name]) for name, one in contest.contest(run, written).items())
    assert [file.stat().st_mtime_ns for file in files] == before


def test_pictures_of_strangers_are_files_anybody_can_open(root):
    for file in root.rglob("*.png"):
        with Image.open(file) as image:
            assert image.size == (64, 64)
