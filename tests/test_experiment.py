"""The experiment: methods, cells that are whole or absent, one seed list, verdicts, tables, records."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import tiny_pipeline
from transformers import ViTConfig, ViTImageProcessor, ViTModel

from lorarar import estlora, klora, records, switching
from lorarar.hypernet import Hypernetwork
from lorarar.images import GREEN, RED, framed
from lorarar.judging import Verdicts, image_similarity, load_encoder
from lorarar.lora import LoRAError, delta_weight, load_coefficients, load_lora
from lorarar.merging import custom_diffusion, merge, ziplora
from lorarar.options import LoraRecipe, MergerRecipe
from lorarar.pipelines import generate, load_pipeline, loaded
from lorarar.scales import SCALES, Scale
from lorarar.shoebox import zoo
from lorarar.shoebox.models.critic import Critic
from lorarar.shoebox.models.examination import Case
from lorarar.shoebox.world import styles, subjects
from lorarar.study import images as study_images
from lorarar.study.__main__ import main
from lorarar.study.cells import SPLITS, cell_of, hypernetwork_of, setting, tasks
from lorarar.study.constrained import captions
from lorarar.study.contest import read_plan
from lorarar.study.images import read_cell
from lorarar.study.judges import better, examined
from lorarar.study.methods import METHODS, MORE, find_method
from lorarar.study.metrics import aligned, measured, table_a2
from lorarar.study.records import from_record
from lorarar.study.samples import KINDS, Sample, overview, samples
from lorarar.study.tables import agreement, maps, scoreboard
from lorarar.study.times import times
from lorarar.study.training import slug
from lorarar.study.tuning import tuned
from lorarar.study.verdicts import Judge, find_judge, judged, verdicts
from lorarar.train import own_inputs, own_words, word_features

# One process has all of them, so that what they share is made once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("experiment")]

NAMES = ["dog #2", "clock", "oil painting #1", "watercolor painting #1"]
PAIRS = [(subject, style) for subject in NAMES[:2] for style in NAMES[2:]]
QUICK = ["base", "direct", "k-lora"]


@pytest.fixture(scope="module")
def scale():
    recipe = LoraRecipe(rank=2, steps=2, learning_rate=3e-2, batch_size=2)
    fit = MergerRecipe(steps=2, learning_rate=0.3, batch_size=2)
    return Scale("tiny", "data/base", 32, 2, 2.0, "float32", content=recipe, style=recipe, ziplora=fit)


@pytest.fixture(scope="module")
def place(scale, tmp_path_factory):
    """A data folder with a tiny base, LoRAs, a hypernetwork and an untrained critic."""
    folder = tmp_path_factory.mktemp("data")
    tiny_pipeline().save_pretrained(folder / "base")
    Critic(width=8, embedding=8).save(folder / "shoebox" / "critic")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORARAR_DATA", str(folder))
        zoo.train(NAMES, scale=scale, device="cpu", progress=False)
        (folder / "hypernetworks").mkdir()
        network = Hypernetwork(
            [2 * width for width in (16, 32)], hidden=8, metadata={"parts": "query,output"}
        )
        network.save(hypernetwork_of(scale))
    return folder


@pytest.fixture(autouse=True)
def data(place, scale, monkeypatch):
    monkeypatch.setenv("LORARAR_DATA", str(place))
    monkeypatch.setitem(SCALES, "tiny", scale)


@pytest.fixture(scope="module")
def whole(place, scale, tmp_path_factory):
    """All methods on one pair, some on two by two, two images each; and the pipeline that made them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORARAR_DATA", str(place))
        out = tmp_path_factory.mktemp("whole")
        run = setting("validation", scale, names=NAMES, out=out, count=2, device="cpu", progress=False)
        pipe = load_pipeline(scale, "cpu")
        study_images.images(run, wanted=PAIRS[1:2], pipe=pipe)
        study_images.images(run, QUICK, pipe=pipe)
    return run, pipe


@pytest.fixture
def run(whole, tmp_path):
    return replace(whole[0], out=tmp_path / "cells")


def apart(a, b):
    return int(np.abs(a.astype(int) - b).max())


# ---------------------------------------------------------------- methods and cells


def test_pairs_are_the_papers():
    assert len(setting("validation").pairs) == 4 * 3 and len(setting("test").pairs) == 5 * 5
    assert setting("test").pairs[:2] == [("dog #8", "3D rendering #4"), ("dog #8", "oil painting #2")]
    assert setting("test", seed=2).seeds == list(range(2000, 2010))
    learned = {*subjects.SPLIT["train"], *styles.SPLIT["train"]}
    for split in SPLITS:
        assert not learned & {name for pair in setting(split).pairs for name in pair}


def test_every_method_makes_every_cell_from_the_same_seeds(whole):
    run, _ = whole
    assert set(METHODS) >= {
        "direct", "ties", "dare", "dare-ties", "np-lora", "joint", "k-lora", "ziplora", "lorarar"
    }  # fmt: skip
    assert {name for name, m in METHODS.items() if m.reference} == {"base", "content", "style"}
    shown = []
    for name in METHODS:
        facts, images = read_cell(cell_of(run, name, PAIRS[1]))
        assert images.shape == (2, 32, 32, 3) and images.dtype == np.uint8
        assert (facts["seeds"], facts["prompt"]) == ([0, 1], zoo.words(*PAIRS[1]))
        assert facts["seconds"] >= 0
        shown.append(images)
    assert not list(run.out.rglob(".*")), "nothing is left aside"
    assert len(np.unique(shown, axis=0)) == len(METHODS), "no two methods make the same images"
    assert overview(run, QUICK).shape == (4, len(QUICK), 32, 32, 3)


def test_images_are_those_of_the_method(whole):
    run, pipe = whole
    pair = PAIRS[1]
    content, style = (zoo.load(name, run.scale) for name in pair)
    prompt = zoo.words(*pair)

    def cell(method):
        return read_cell(cell_of(run, method, pair))[1]

    for method, applied in (
        ("base", []),
        ("content", [content]),
        ("style", [style]),
        ("direct", [content, style]),
    ):
        with loaded(pipe, *applied):
            assert apart(cell(method), generate(pipe, prompt, [0, 1])) <= 1
    assert apart(cell("k-lora"), klora.generate(pipe, prompt, [0, 1], content=content, style=style)) <= 1
    coefficients = load_coefficients(run.out / "made" / "ziplora" / f"{slug(pair)}.safetensors")
    with loaded(pipe, ziplora(content, style, coefficients)):
        assert apart(cell("ziplora"), generate(pipe, prompt, [0, 1])) <= 1
    with loaded(pipe, load_lora(run.out / "made" / "joint" / f"{slug(pair)}.safetensors")):
        assert apart(cell("joint"), generate(pipe, prompt, [0, 1])) <= 1


def test_methods_without_a_row_are_asked_for_by_name(whole, run):
    """Each against its own mechanism, with the pair's LoRAs."""
    pipe, pair = whole[1], PAIRS[1]
    both = [zoo.load(name, run.scale) for name in pair]
    subject, style = zoo.words(pair[0]), zoo.words(style=pair[1], cls=zoo.class_of(pair[0]))
    asked = [subject], [zoo.words(style=pair[1], cls=cls) for cls in subjects.CLASSES]
    inputs = (
        own_inputs(pipe, lora, said, pictures=2, seed=900) for lora, said in zip(both, asked, strict=True)
    )
    fused = merge(*both, "regmean", inputs=tuple(inputs), fusion_steps=2)
    kept = word_features(pipe, captions(zoo, pair[1])).values()
    constrained = custom_diffusion(*both, own_words(pipe, [subject], [style]), torch.stack(list(kept)))
    by_hand = {
        "lora-switch": switching.scheduled(pipe, *both, lambda n: switching.turns(n)[:, None]),
        "lora-switch:every=1": switching.scheduled(
            pipe, *both, lambda n: switching.turns(n, every=1)[:, None]
        ),
        "lora-composite": switching.composed(pipe, *both),
        "dynamic-fusion": switching.selected(pipe, *both),
        "levels:content_rest=1,style_rest=1": loaded(pipe, *both),
        "mix-of-show:fusion_steps=2,draws=2": loaded(pipe, fused),
        "custom-diffusion": loaded(pipe, constrained),
    }
    assert set(MORE) == {name.partition(":")[0] for name in by_hand} | {"est-lora", "regmean"}
    study_images.images(run, list(by_hand), wanted=[pair], pipe=pipe)
    for name, applied in by_hand.items():
        with applied:
            assert (
                apart(read_cell(cell_of(run, name, pair))[1], generate(pipe, zoo.words(*pair), [0, 1])) <= 1
            )
    with pytest.raises(LoRAError, match="every 0"):
        study_images.images(run, ["lora-switch:every=0"], wanted=[pair], pipe=pipe)


def test_est_lora_measures_its_start_on_two_pictures(whole, run, tmp_path):
    pipe, pair = whole[1], PAIRS[1]
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32,
        patch_size=8,
    )  # fmt: skip
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    here = replace(run, scale=replace(run.scale, dino=str(tmp_path)))
    study_images.images(here, ["est-lora"], wanted=[pair], pipe=pipe)
    both = [zoo.load(name, run.scale) for name in pair]
    alone = []
    for lora in both:
        with loaded(pipe, lora):
            alone.append(generate(pipe, zoo.words(*pair), 0)[0])
    likeness = image_similarity(load_encoder(tmp_path), alone[:1], alone[1:])[0]
    claims = estlora.ratios(*both)
    with klora.applied(pipe, *both, claims=claims, beta=1 - float(likeness)):
        want = generate(pipe, zoo.words(*pair), [0, 1])
    assert apart(read_cell(cell_of(here, "est-lora", pair))[1], want) <= 1


def test_papers_ties_is_pefts(whole):
    """By hand: uniform weights and density 0.5, the trimmed, elected mean of A and of B."""
    run, pipe = whole
    (task,) = tasks(run, [PAIRS[1]], pipe)
    merged = METHODS["ties"].merge(task, **METHODS["ties"].options)
    layer = next(iter(merged))
    for which in (0, 1):
        factors = [lora[layer][which] for lora in (task.content, task.style)]
        kept = []
        for x in factors:
            flat = x.flatten()
            order = flat.abs().topk(len(flat) // 2).indices
            kept.append(torch.zeros_like(flat).scatter(0, order, flat[order]).reshape(x.shape))
        stack = torch.stack(kept)
        agrees = stack.sign() == torch.where(stack.sum(0) >= 0, 1, -1)
        want = (stack * 0.5**0.5 * agrees).sum(0) / agrees.sum(0).clamp(min=1)
        assert torch.allclose(merged[layer][which].float(), want.float(), rtol=2e-3, atol=1e-5)


def test_joint_training_sees_both_concepts(whole):
    """The multi-concept LoRA: one adapter of the content's rank, both sets of pictures and captions."""
    run, _ = whole
    lora = load_lora(run.out / "made" / "joint" / f"{slug(PAIRS[1])}.safetensors")
    facts = json.loads(lora.metadata["lorarar_training"])
    assert facts["prompts"] == [["a sks dog"] * 5, zoo.pictures("watercolor painting #1")[1]]
    assert (facts["steps"], facts["rank"]) == (4, 2)
    assert all(delta_weight(pair).abs().max() > 0 for pair in lora.values())


def test_what_is_there_stays(whole):
    run, pipe = whole
    files = [path for path in run.out.rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert len(study_images.images(run, wanted=PAIRS[1:2], pipe=pipe)) == len(METHODS)
    assert len(study_images.images(run, QUICK, pipe=pipe)) == len(QUICK) * 4
    assert {path: path.stat().st_mtime_ns for path in run.out.rglob("*") if path.is_file()} == before


def test_a_stopped_run_leaves_whole_cells_and_goes_on(whole, run, monkeypatch):
    _, pipe = whole
    real, calls = study_images.generate, []

    def failing(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(study_images, "generate", failing)
    with pytest.raises(KeyboardInterrupt):
        study_images.images(run, QUICK[:2], pipe=pipe)
    cells = [path.parent for path in run.out.rglob("cell.json")]
    assert len(cells) == 4 and not list(run.out.rglob(".*"))
    assert all(read_cell(cell)[1].shape == (2, 32, 32, 3) for cell in cells)
    assert not pipe.get_list_adapters(), "the pipeline is as it was"
    study_images.images(run, QUICK[:2], pipe=pipe)
    assert len(calls) == 5 + 4, "only what was missing is made"


def test_what_a_kill_left_aside_is_no_cell(whole, run):
    """SIGKILL runs no clean-up: half a cell stays under its other name until the cell is made."""
    cell = cell_of(run, "direct", PAIRS[0])
    aside = cell.with_name(f".{cell.name}.1")
    aside.mkdir(parents=True)
    (aside / "images.png").write_bytes(b"half")
    with pytest.raises(ValueError, match="no verdicts"):
        verdicts(run, "critic", ["direct"])
    assert study_images.images(run, ["direct"], [PAIRS[0]], pipe=whole[1]) == [cell]
    assert [path.name for path in cell.parent.iterdir()] == [cell.name]
    assert read_cell(cell)[1].shape == (2, 32, 32, 3)
    (cell / "images.png").write_bytes(b"half")
    with pytest.raises(ValueError, match="is no cell of the experiment: remove it"):
        read_cell(cell)


def test_another_lora_makes_another_cell_and_drops_its_verdicts(whole, run, tmp_path):
    _, pipe = whole
    (cell,) = study_images.images(run, ["content"], [PAIRS[0]], pipe=pipe)
    (cell / "verdicts-critic.json").write_text("{}")
    first = read_cell(cell)[1]
    zoo.train(["dog #2"], tmp_path / "other", run.scale, seed=1, device="cpu", progress=False)
    same = zoo.file_of(PAIRS[0][1], tmp_path / "other")
    same.parent.mkdir()
    shutil.copy(zoo.file_of(PAIRS[0][1], run.loras), same)
    study_images.images(replace(run, loras=tmp_path / "other"), ["content"], [PAIRS[0]], pipe=pipe)
    assert not np.array_equal(read_cell(cell)[1], first)
    assert not (cell / "verdicts-critic.json").exists()


def test_variants_are_for_validation_only(whole, run):
    variant = find_method("lorarar:parts=query+value,rest=sum", "validation")
    assert variant.options == {"parts": ("query", "value"), "rest": "sum"} and variant.hypernetwork
    assert find_method("ties:density=0.3", "validation").options["density"] == 0.3
    with pytest.raises(ValueError, match="compared on validation, never on test"):
        find_method("lorarar:rest=sum", "test")
    with pytest.raises(ValueError, match="no method 'magic': choose one of base"):
        find_method("magic", "validation")
    with pytest.raises(ValueError, match="expected NAME:OPTION=VALUE"):
        find_method("ties:density", "validation")
    cells = study_images.images(run, ["lorarar", "lorarar:rest=sum"], [PAIRS[0]], pipe=whole[1])
    one, other = (read_cell(cell)[1] for cell in cells)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "train"}, "no split 'train': choose one of validation, test"),
        ({"names": ["dog #8", "oil painting #1"]}, "'dog #8' is not of the split validation"),
        ({"names": ["dog #2"]}, "a pair needs a subject and a style"),
        ({"count": 0}, "count must be at least 1, not 0"),
        ({"seed": -1}, "seed must not be negative"),
    ],
)
def test_settings_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        setting(**{"split": "validation", **change})


def test_missing_files_are_named_with_their_command(whole, run, tmp_path):
    with pytest.raises(ValueError, match=r"no LoRA .*dog-2.safetensors: make it with `lorarar zoo train"):
        study_images.images(replace(run, loras=tmp_path), ["direct"], pipe=whole[1])
    with pytest.raises(
        ValueError, match=r"no hypernetwork .*: make it with `lorarar train-hypernetwork --sc"
    ):
        study_images.images(replace(run, hypernetwork=tmp_path / "none"), ["lorarar"], pipe=whole[1])
    with pytest.raises(ValueError, match="no pair of this run"):
        study_images.images(run, ["direct"], [("dog #8", "oil painting #2")], pipe=whole[1])


# ---------------------------------------------------------------- verdicts


def by_brightness(seen=None):
    """A judge that says yes to a subject where red outweighs blue, and to a style in bright images."""

    def shows(name, images):
        if seen is not None:
            seen.append(name)
        mean = images.reshape(len(images), -1, 3).astype(float).mean(1)
        return mean[:, 0] > mean[:, 2] if zoo.axis(name) == "subject" else mean.mean(1) > 127

    return Judge("bright", "first", shows)


def test_verdicts_are_kept_and_in_the_order_of_the_pairs(whole):
    run, _ = whole
    seen = []
    found = judged(run, by_brightness(seen), QUICK)
    assert len(seen) == len(QUICK) * 4 * 2
    for method in QUICK:
        for i, pair in enumerate(PAIRS):
            images = read_cell(cell_of(run, method, pair))[1]
            want = [by_brightness().shows(name, images) for name in pair]
            assert np.array_equal(found[method].subject[i], want[0])
            assert np.array_equal(found[method].style[i], want[1])
            assert np.array_equal(found[method].right[i], want[0] & want[1])
    again = judged(run, by_brightness(seen), QUICK)
    assert len(seen) == len(QUICK) * 4 * 2, "nothing is judged twice"
    assert np.array_equal(again["direct"].right, found["direct"].right)
    judged(run, replace(by_brightness(seen), digest="second"), QUICK)
    assert len(seen) == 2 * len(QUICK) * 4 * 2, "another judge of the same name judges anew"
    with pytest.raises(ValueError, match=r"no verdicts .*: make the images, then"):
        verdicts(run, "nobody", QUICK)


def test_the_critic_judges(whole):
    run, _ = whole
    judge = find_judge("critic")
    found = judged(run, judge, ["base"])["base"]
    images = read_cell(cell_of(run, "base", PAIRS[2]))[1]
    assert np.array_equal(found.subject[2], zoo.shows(zoo.load_critic(), PAIRS[2][0], images))
    with pytest.raises(ValueError, match="no judge 'me': choose critic, mars2"):
        find_judge("me")
    with pytest.raises(ValueError, match="train it with `lorarar shoebox judge`, or use critic"):
        find_judge("mars2")


def test_mars2_asks_the_papers_questions_with_unseen_references(monkeypatch):
    asked = []

    def ask(questions):
        asked.extend(questions)
        return ["Yes" if q.reference is not None and i % 4 else "No" for i, q in enumerate(questions)]

    monkeypatch.setattr("lorarar.judging.judges.find_judge", lambda source, **options: ask)
    judge = find_judge("mars2=somebody/some-model")
    images = np.zeros((3, 32, 32, 3), np.uint8)
    assert judge.shows("oil painting #1", images).shape == (3,)
    assert {(q.axis, q.style) for q in asked} == {("style", "oil painting")} and len(asked) == 3 * 4
    references = zoo.pictures("oil painting #1", seed=1)[0]
    assert all(np.array_equal(asked[i].reference, references[i % 4]) for i in range(12))
    assert list(judge.shows("dog #2", images)) == [True] * 3, "majorities: 3, 4, 4 of 5"


# ---------------------------------------------------------------- tables


def said(subject, style):
    subject, style = np.array(subject, bool), np.array(style, bool)
    return Verdicts(subject, style, subject & style)


FOUND = {
    # two subjects × two styles, two images
    "lorarar": said([[1, 1], [1, 0], [0, 1], [1, 1]], [[1, 1], [1, 1], [1, 0], [0, 0]]),
    "direct": said([[0, 0], [1, 0], [0, 0], [0, 0]], [[1, 1], [0, 1], [1, 1], [1, 1]]),
}


def test_scoreboard_by_hand():
    board = scoreboard(FOUND, 2)
    assert board["lorarar"]["average"].value == 3 / 8 and board["lorarar"]["best"].value == 2 / 4
    assert board["lorarar"]["subject"].value == 6 / 8 and board["lorarar"]["style"].value == 5 / 8
    assert board["direct"]["average"].value == board["direct"]["best"].value == 0
    for row in board.values():
        for entry in row.values():
            assert 0 <= entry.low <= entry.value <= entry.high <= 1
    assert board["lorarar"]["average"].low < 3 / 8 < board["lorarar"]["average"].high


def test_heat_maps_by_hand():
    average, best = maps(FOUND["lorarar"], 2)
    assert average.tolist() == [[1, 0.5], [0, 0]] and best.tolist() == [[1, 1], [0, 0]]


def test_agreement_by_hand():
    other = {"direct": said([[0, 0], [1, 1], [0, 0], [0, 0]], [[1, 1], [0, 1], [1, 1], [1, 1]])}
    assert agreement(FOUND, other) == {"subject": 7 / 8, "style": 1.0, "right": 7 / 8}
    with pytest.raises(ValueError, match="no method in common"):
        agreement(FOUND, {"ties": other["direct"]})


def test_judges_are_examined_on_drawings_of_known_truth(monkeypatch):
    """Two judges and a metric that is the mean brightness, on one case of each axis, by hand."""
    light, dark = np.full((1, 8, 8, 3), 200, np.uint8), np.full((1, 8, 8, 3), 50, np.uint8)
    yes = np.array([True, True, False, False])
    shown = np.concatenate([light, dark, dark, dark])
    drawn = [
        Case("subject", "dog #2", light, shown, yes, ""),
        Case("style", "oil painting #1", dark, shown, yes, "oil painting"),
    ]
    monkeypatch.setattr("lorarar.study.judges.cases", lambda each, seed: drawn)
    monkeypatch.setattr(
        "lorarar.study.judges.image_similarity", lambda e, i, r: i.mean((1, 2, 3)) / 255 - r.mean() / 255
    )
    judges = [
        Judge("eager", "1", lambda name, images: np.ones(len(images), bool)),
        Judge("bright", "1", lambda name, images: images.mean((1, 2, 3)) > 127),
    ]
    found = examined(judges, {"DINO": None}, each=2, progress=False)
    assert found["verdicts"] == {
        "eager": {"dog #2": "1111", "oil painting #1": "1111"},
        "bright": {"dog #2": "1000", "oil painting #1": "1000"},
    }
    assert found["reports"]["eager"]["style"]["balanced accuracy"] == 0.5
    assert found["reports"]["bright"]["subject"]["balanced accuracy"] == 0.75
    assert found["reports"]["bright"]["subject"]["confusion"] == {
        "yes, said yes": 1, "yes, said no": 1, "no, said yes": 0, "no, said no": 2
    }  # fmt: skip
    assert found["scores"]["DINO"]["dog #2"] == [0, *[round((50 - 200) / 255, 4)] * 3]
    assert found["chosen"] == "bright" and json.loads(json.dumps(found)) == found
    with pytest.raises(ValueError, match="at least one judge"):
        examined([], {})
    with pytest.raises(ValueError, match="each must be at least 1, not 0"):
        examined(judges, {}, each=0)


def test_the_better_judge_is_the_one_whose_worse_axis_is_better():
    def report(subject, style):
        return {"subject": {"balanced accuracy": subject}, "style": {"balanced accuracy": style}}

    assert better({"a": report(0.99, 0.7), "b": report(0.8, 0.8)}) == "b"
    assert better({"a": report(0.9, 0.95), "b": report(0.9, 0.99)}) == "a", "the first of equals"


def test_samples_show_each_kind_and_spread():
    rows = samples(FOUND, 2)
    assert [(row.subject, row.style) for row in rows] == list(KINDS)
    assert len(set(rows)) == len(rows)
    for row in rows:
        assert FOUND[row.method].subject[row.pair, row.image] == row.subject
        assert FOUND[row.method].style[row.pair, row.image] == row.style
    assert rows[0] == Sample("lorarar", 0, 0, True, True)
    assert rows[3].pair == 3, "a pair that the sheet has not shown"
    nothing = {"lorarar": said([[0, 0]], [[0, 0]])}
    assert samples(nothing, 1) == []


def test_a_frame_says_right_or_wrong():
    image = np.full((32, 32, 3), 7, np.uint8)
    for right, colour in ((True, GREEN), (False, RED)):
        around = framed(image, right)
        assert around.shape == (36, 36, 3) and np.array_equal(around[2:-2, 2:-2], image)
        assert all(tuple(around[y, x]) == colour for y, x in ((0, 0), (1, 20), (20, 1), (35, 35)))


# ---------------------------------------------------------------- times, metrics, records, command


def test_times_of_all_methods_in_one_run(whole):
    run, pipe = whole
    found = times(run, repeat=2, pipe=pipe)
    assert set(found) == {name for name, method in METHODS.items() if not method.reference}
    assert found["direct"]["runs"] == 2 * 4 and found["ziplora"]["runs"] == 1
    assert found["ziplora"]["median"] > found["lorarar"]["median"] > 0, "optimised, not read from its file"


def test_hypernetworks_lie_with_their_scale(place, scale):
    assert hypernetwork_of(scale) == place / "hypernetworks" / "tiny.safetensors"
    assert hypernetwork_of("smoke") == hypernetwork_of("shoebox")


def test_metrics_compare_with_the_right_references(whole, monkeypatch, tmp_path):
    """With encoders that see the mean colour only, against the cosines by hand."""
    run, _ = whole

    def unit(images):
        means = images.reshape(len(images), -1, 3).astype(float).mean(1)
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    asked = []
    monkeypatch.setattr(
        "lorarar.study.metrics.image_similarity", lambda e, i, r: e * (unit(i) @ unit(r).T).mean(1)
    )
    monkeypatch.setattr(
        "lorarar.study.metrics.text_similarity", lambda e, i, text: asked.append(text) or np.full(len(i), 0.5)
    )
    found = measured(run, 1.0, 2.0, QUICK)
    for i, pair in enumerate(PAIRS):
        images = unit(read_cell(cell_of(run, "direct", pair))[1])
        subject, style = (unit(zoo.pictures(name, seed=1)[0]) for name in pair)
        assert np.allclose(found["direct"]["CLIP-I"][i], (images @ style.T).mean(1))
        assert np.allclose(found["direct"]["DINO"][i], 2 * (images @ subject.T).mean(1))
    assert asked[0] == "a dog in oil painting style" and "sks" not in " ".join(asked)
    table = table_a2(found, 1)
    entry = table["direct"]["CLIP-I"]
    assert (
        np.isclose(entry.value, found["direct"]["CLIP-I"].mean()) and entry.low <= entry.value <= entry.high
    )
    assert table["base"]["CLIP-T"] == (0.5, 0.5, 0.5)

    rows = {"direct": {"method": "direct"}, "k-lora": {"method": "k-lora", "subjects": 1}}
    written = tmp_path / "plan.json"
    written.write_text(json.dumps({"measure": "critic", "count": run.count, "rows": rows, "questions": []}))
    by_row = aligned(run, read_plan(written), 1.0, 2.0)
    assert np.allclose(by_row["direct"]["DINO"], found["direct"]["DINO"].mean(1).reshape(1, 2, 2))
    assert np.allclose(by_row["k-lora"]["CLIP-I"], found["k-lora"]["CLIP-I"].mean(1)[:2].reshape(1, 1, 2))
    with pytest.raises(ValueError, match=r"no images .*direct.*: make them first, with"):
        aligned(replace(run, out=tmp_path), read_plan(written), 1.0, 2.0)


def test_hypernetworks_are_compared_on_validation(whole, run, tmp_path):
    """Each of two networks gets the verdicts on its own images; none is chosen on the test split."""
    old = run.hypernetwork
    other = tmp_path / "other.safetensors"
    torch.manual_seed(5)
    network = Hypernetwork.load(old)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    network.metadata = {"parts": "query,output", "lorarar_training": '{"rest": "sum"}'}
    network.save(other)
    found = tuned(run, by_brightness(), [old, other])
    assert list(found) == [old.stem, "other"]
    assert found["other"]["recipe"] == {"rest": "sum"}
    assert found["other"]["sha256"] != found[old.stem]["sha256"]
    for path in (old, other):
        own = replace(run, hypernetwork=path, out=tmp_path / "own" / path.stem)
        study_images.images(own, ["lorarar"], pipe=whole[1])
        want = judged(own, by_brightness(), ["lorarar"])["lorarar"].right.mean()
        assert found[path.stem]["average"].value == want
        ahead = want - found[old.stem]["average"].value
        assert found[path.stem]["ahead"].value == pytest.approx(ahead)
    with pytest.raises(ValueError, match="on validation, never on test"):
        tuned(replace(run, split="test"), by_brightness(), [old])
    with pytest.raises(ValueError, match="a name of its own"):
        tuned(run, by_brightness(), [old, tmp_path / old.name])


def test_command_line_from_images_to_record(whole, tmp_path, capsys, monkeypatch):
    common = ["--scale", "tiny", "--names", *NAMES, "--count", "2", "--out", str(tmp_path), "--device", "cpu"]
    common += ["--methods", "direct", "k-lora", "--quiet"]
    for step in (["images"], ["verdicts", "--judge", "critic"], ["record", "--judges", "critic"]):
        assert main([*step, *common]) == 0
    written = records.recorded("experiment_validation_tiny")
    assert (
        written.provenance["scale"] == "tiny" and "record --split validation" in written.provenance["command"]
    )
    found = verdicts(replace(whole[0], out=tmp_path), "critic", ["direct", "k-lora"])
    again = from_record(written, "critic")
    assert list(again) == ["direct", "k-lora"]
    for method in again:
        assert all(np.array_equal(a, b) for a, b in zip(again[method], found[method], strict=True))
    assert written["tables"]["critic"]["direct"]["average"][0] == found["direct"].right.mean()
    own, shown = replace(whole[0], out=tmp_path), records.sheet("experiment_validation_tiny", 2)
    assert shown.shape == (len(PAIRS), 2, 32, 32, 3)
    for row, pair in zip(shown, PAIRS, strict=True):
        for picture, method in zip(row, ("direct", "k-lora"), strict=True):
            assert np.array_equal(picture, read_cell(cell_of(own, method, pair))[1][0])
    with pytest.raises(ValueError, match="no verdicts of mars2: there are critic"):
        from_record(written, "mars2")

    # Tables can be made anew from the verdicts alone; what made those stays.
    stale = {**written, "tables": {}, "agreement": {}}
    path = records.save_values(written, stale)
    assert records.recorded(written.name)["tables"] == {}
    assert main(["tables", "--scale", "tiny", "--quiet"]) == 0
    again = records.recorded(written.name)
    assert again == written and again.provenance == written.provenance
    assert main(["tables", "--scale", "tiny", "--record", "nothing"]) == 2
    assert "no recorded run" in capsys.readouterr().err and path.is_file()

    monkeypatch.setattr("lorarar.study.steps.load_encoder", lambda source, device: source)
    monkeypatch.setattr("lorarar.study.judges.image_similarity", lambda e, i, r: np.linspace(0, 1, len(i)))
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    references, yes = zoo.pictures("dog #2", seed=1)[0], np.array([True, False])
    case = Case("subject", "dog #2", references, noise, yes, "")
    monkeypatch.setattr("lorarar.study.judges.cases", lambda each, seed: [case])
    examine = ["judges", "--scale", "tiny", "--judges", "critic", "--each", "1", "--device", "cpu", "--quiet"]
    assert main(examine) == 0
    written = records.recorded("judges_tiny")
    assert written.provenance["command"].endswith("judges --scale tiny --judges critic --each 1")
    same = zoo.load_critic().same("subject", references, noise)
    assert written["verdicts"]["critic"] == {"dog #2": "".join(str(int(yes)) for yes in same)}
    assert written["scores"] == {"CLIP-I": {"dog #2": [0.0, 1.0]}, "DINO": {"dog #2": [0.0, 1.0]}}

    network = hypernetwork_of("tiny")
    tune = ["tune", *common[:-4], "--judge", "critic", "--hypernetworks", str(network), "--quiet"]
    assert main(tune) == 0
    assert list(records.recorded("hypernetworks_tiny")["of"]) == [network.stem]

    capsys.readouterr()
    assert main(["images", "--scale", "huge"]) == 2
    assert capsys.readouterr().err.startswith("lorarar study: unknown scale 'huge'")
    assert main(["images", "--split", "test", "--methods", "ties:density=0.3"]) == 2
    assert main(["make", *common[:-3], "direct", "--quiet"]) == 2
