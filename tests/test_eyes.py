"""The judge's and DINO's miniatures: their questions against the drawings' truth, their training resumed."""

import colorsys
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForImageTextToText, LlavaOnevisionForConditionalGeneration

from lorarar.judging import Question, conversation, local_judge
from lorarar.judging.local import render
from lorarar.shoebox.models import dino, loop
from lorarar.shoebox.models import judge as eyes
from lorarar.shoebox.models.dino import Dino, recolour, train_dino
from lorarar.shoebox.models.examination import (
    Case,
    agreement,
    balanced_accuracy,
    by_judge,
    cases,
    kappa,
    measure_named,
    report,
)
from lorarar.shoebox.models.judge import SIDE, glance, llava, processor, prompts
from lorarar.shoebox.models.judge_training import train_judge
from lorarar.shoebox.models.loop import Recipe, to_unit
from lorarar.shoebox.world import styles, subjects, world
from lorarar.shoebox.world.scene import SIZE

# One process has all of them, so that what they share is made once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("eyes")]

NOISE = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Twelve groups in a folder of their own, which training then reads."""
    place = tmp_path_factory.mktemp("world")
    groups = [world.draw_group(0, index) for index in range(12)]
    images = np.concatenate([images for images, _, _ in groups])
    return place, images, np.array([t for _, _, truths in groups for t in truths], np.int32)


@pytest.fixture(scope="module")
def named():
    return cases(each=1)


# --- the judge


def test_every_word_of_the_questions_is_known():
    words = eyes.words()
    for family in styles.FAMILIES:
        for axis in ("subject", "style"):
            text = words.apply_chat_template(
                conversation(axis, family), add_generation_prompt=True, tokenize=False
            )
            ids = words(text).input_ids
            assert words.unk_token_id not in ids
            assert ids.count(words.convert_tokens_to_ids("<image>")) == 2
    for answer in ("Yes", "No"):
        assert words.decode(words(answer).input_ids) == answer
    assert len(words("a zebra").input_ids) == 2  # unknown, not dropped


def test_trained_on_what_the_processor_gives():
    """The logits that training reads are the model's own on the processor's output."""
    words = eyes.words()
    both = processor(words)
    torch.manual_seed(0)
    model = llava(words).eval()
    assert isinstance(model, LlavaOnevisionForConditionalGeneration)
    assert 2 * sum(p.numel() for p in model.parameters()) < 10e6  # bytes in half precision
    rows = [0, 1 + styles.FAMILIES.index("oil painting")]
    texts = [render(both, "subject"), render(both, "style", "oil painting")]
    inputs = both(text=texts, images=[list(NOISE[:2]), list(NOISE[2:])], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits
        seen = glance(model, to_unit(NOISE))
        assert seen.shape == (4, SIDE**2 + 1, 128)
        found = eyes.answer(model, prompts(both), torch.tensor(rows), seen.view(2, 2, *seen.shape[1:]))
    torch.testing.assert_close(found[:, 1], expected[:, -1], atol=1e-4, rtol=1e-4)
    ends = [int(torch.nonzero(row == both.image_token_id).max()) for row in inputs["input_ids"]]
    torch.testing.assert_close(found[:, 0], expected[[0, 1], ends], atol=1e-4, rtol=1e-4)
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_drill_asks_what_it_says(drawn):
    truth = torch.from_numpy(drawn[2]).long()
    torch.manual_seed(0)
    asked = eyes.drill(truth)
    style = asked.prompt > 0
    photo = styles.FAMILIES.index("photo")
    reference, image = truth[asked.reference], truth[asked.image]
    # A subject's reference is a photo, a style's is not, and its family stands in the question.
    assert (reference[~style, 1] == photo).all()
    assert (reference[style, 1] != photo).all()
    assert (asked.prompt[style] == 1 + reference[style, 1]).all()
    for axis, here in ((0, ~style), (1, style)):
        assert (asked.yes[here] == (reference[here, 2 + axis] == image[here, 2 + axis])).all()
        alike = reference[here, axis] == image[here, axis]
        assert (asked.hard[here] == (alike & ~asked.yes[here])).all()
        assert asked.yes[here].float().mean() == pytest.approx(0.5)
        assert 0.1 < asked.hard[here].float().mean() < 0.5
    assert (asked.reference != asked.image).all()
    assert (image[style & ~asked.yes, 1] == photo).any()  # a style that was lost
    without = eyes.drill(truth, variety=0)
    assert (without.reference // world.GROUP == without.image // world.GROUP).all()


def test_cases_are_of_named_things_only(named):
    found = named
    assert [c.name for c in found] == [*subjects.SUBJECTS, *styles.STYLES]
    assert len({c.images.tobytes() for c in found}) == len(found)
    for case in found:
        assert case.images.shape == (2, SIZE, SIZE, 3)
        assert case.yes.tolist() == [True, False]
        assert len(case.references) == {"subject": 5, "style": 4}[case.axis]
        assert case.words == ("" if case.axis == "subject" else styles.family(case.name))


def test_reports_by_hand():
    yes = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0], bool)
    said = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0], bool)
    hard = np.array([0, 0, 0, 0, 1, 1, 0, 0, 0], bool)
    found = report(yes, said, hard)
    assert found["balanced accuracy"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert found["balanced accuracy, hard"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert found["confusion"] == {"yes, said yes": 3, "yes, said no": 1, "no, said yes": 1, "no, said no": 4}
    assert math.isnan(balanced_accuracy(yes[:4], said[:4]))


def test_named_things_are_judged_by_vote():
    case = Case("subject", "dog #1", NOISE[:3], NOISE, np.array([1, 1, 0, 0], bool), "")
    style = case._replace(axis="style", name="glowing", words="glowing", yes=np.array([1, 0, 0, 0], bool))

    def ask(questions):
        """Say Yes to the first image with two of three references, to the second with one."""
        right = {(0, 0), (0, 1), (1, 2)}
        number = {picture.tobytes(): k for k, picture in enumerate(NOISE)}
        pairs = [(number[q.image.tobytes()], number[q.reference.tobytes()]) for q in questions]
        return ["Yes" if pair in right else "No" for pair in pairs]

    found = measure_named(by_judge(ask), [case, style])
    assert found["subject"]["balanced accuracy"] == 0.75
    assert found["subject"]["by name"] == {"dog #1": 0.75}
    assert found["style"]["balanced accuracy"] == 1.0
    assert found["style"]["confusion"]["yes, said yes"] == 1

    class Other:
        def same(self, axis, references, images):
            return np.array([True, True, False, False])

    # Judge: yes no no no. Critic: yes yes no no. Cohen (1960): (p - c) / (1 - c), by hand.
    both = agreement(ask, Other(), NOISE, case)
    assert both["agree"] == 0.75
    assert (both["judge accepts"], both["critic accepts"]) == (0.25, 0.5)
    assert both["kappa"] == pytest.approx((0.75 - 0.5) / 0.5)


def test_kappa_takes_chance_off():
    a, b = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    assert kappa(a, a) == kappa(a[:2], a[:2]) == 1.0
    assert kappa(a, b) == 0.0 and kappa(a, ~a) == -1.0
    # Nine in ten agree, and would by chance with 0.9 and 1.0 of Yes: (0.9 - 0.9) / 0.1.
    assert kappa(np.arange(10) > 0, np.ones(10, bool)) == pytest.approx(0.0)


@pytest.fixture
def one_thread():
    """Two threads add up a gradient in either order: only with one is a run the same to the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_training_the_judge_writes_a_judge_and_resumes(drawn, named, tmp_path, monkeypatch):
    images, truths = (part[: 6 * world.GROUP] for part in drawn[1:])
    monkeypatch.setattr(world, "dataset", lambda groups, seed: (images, [], truths))
    monkeypatch.setattr("lorarar.shoebox.models.examination.cases", lambda seed: [named[0], named[-1]])
    recipe = Recipe(16, 6, 5e-3, warmup=2)  # enough to say Yes or No, rightly or not
    facts = train_judge(tmp_path / "a", tmp_path / "run", recipe, 0, "cpu", 6)
    folder = tmp_path / "a" / "judge"
    assert facts["steps"] == 16
    assert (
        json.loads((folder / "card.json").read_text())["command"]
        == "lorarar shoebox judge --steps 16 --seed 0"
    )
    assert set(facts["held-out drawings"]) == set(facts["named subjects and styles"]) == {"subject", "style"}
    counted = facts["held-out drawings"]["subject"]["confusion"]
    assert sum(counted.values()) == 6 * 8
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert isinstance(model, LlavaOnevisionForConditionalGeneration)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 10e6
    # Its first word is its answer: what it would say next, it has never learned.
    ask = local_judge(folder, "cpu")
    questions = [Question("subject", images[i], images[j], "") for i, j in ((0, 1), (2, 3), (4, 11))]
    assert set(ask(questions)) <= {"Yes", "No"}
    # Killed in the middle of the second stage, the run goes on and ends in the same weights.
    steps = []

    def killed(columns, variety=0.25, drill=eyes.drill):
        steps.append(1)
        if len(steps) == 2:
            raise KeyboardInterrupt
        return drill(columns, variety)

    other = tmp_path / "b", tmp_path / "other", recipe, 0, "cpu", 6
    fit = loop.fit
    with monkeypatch.context() as patch:
        patch.setattr("lorarar.shoebox.models.judge_training.drill", killed)
        patch.setattr("lorarar.shoebox.models.judge_training.fit", lambda *a, **k: fit(*a, **k, save_every=0))
        with pytest.raises(KeyboardInterrupt):
            train_judge(*other)
    monkeypatch.setattr("lorarar.shoebox.models.judge_training.measure_judge", lambda *_: {})
    train_judge(*other)
    first, second = (load_file(tmp_path / name / "judge" / "model.safetensors") for name in "ab")
    assert first.keys() == second.keys()
    for name, weight in first.items():
        torch.testing.assert_close(weight, second[name], atol=0, rtol=0)
    # Trained on, it starts from these weights; at a rate of zero it ends in them, too.
    still = Recipe(2, 6, 0.0, warmup=2), 0, "cpu", 6, folder
    train_judge(tmp_path / "c", tmp_path / "more", *still)
    assert f"--init {folder}" in json.loads((tmp_path / "c" / "judge" / "card.json").read_text())["command"]
    assert not (tmp_path / "more" / "judge-eyes.pt").exists()
    third = load_file(tmp_path / "c" / "judge" / "model.safetensors")
    for name, weight in first.items():
        torch.testing.assert_close(weight, third[name], atol=1e-3, rtol=0)


# --- DINO


def test_crops_are_squares_of_the_image():
    """On an image of coordinates a crop tells where it was cut: a square, mirrored or not, inside."""
    line = torch.linspace(-1 + 1 / SIZE, 1 - 1 / SIZE, SIZE)
    image = torch.stack([line.expand(SIZE, SIZE), line[:, None].expand(SIZE, SIZE), torch.zeros(SIZE, SIZE)])
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("roughen", "recolour"):
            patch.setattr(dino, name, lambda images: images)
        cut = dino.crops(image.repeat(50, 1, 1, 1), 32, 0.15, 0.4)
    assert cut.shape == (50, 3, 32, 32)
    wide = (cut[:, 0, 0, -1] - cut[:, 0, 0, 0]) / 31 * 32 / 2  # share of the side, negative if mirrored
    high = (cut[:, 1, -1, 0] - cut[:, 1, 0, 0]) / 31 * 32 / 2
    torch.testing.assert_close(wide.abs(), high, atol=1e-3, rtol=0)
    assert 0.15 - 1e-3 < (high**2).min() < 0.2
    assert 0.35 < (high**2).max() < 0.4 + 1e-3
    assert 10 < (wide < 0).sum() < 40
    assert cut[:, :2].abs().max() <= 1
    assert (cut[:, 0].mean((1, 2))).std() > 0.1


def test_recolouring_turns_hue_and_keeps_grey():
    """Against colorsys: hues move by a tenth of a turn at most; one image in five is grey."""
    torch.manual_seed(0)
    given = torch.tensor([0.2, -0.1, -0.2])[:, None, None].expand(2000, 3, 2, 2)
    made = recolour(given)
    assert made.shape == given.shape and made.abs().max() <= 1
    colours = [tuple(((colour + 1) / 2).tolist()) for colour in made[:, :, 0, 0]]
    grey = torch.tensor([max(colour) - min(colour) < 1e-6 for colour in colours])
    assert 0.16 < grey.float().mean() < 0.24
    start = colorsys.rgb_to_hsv(0.6, 0.45, 0.4)[0]
    turned = torch.tensor(
        [
            (colorsys.rgb_to_hsv(*colour)[0] - start + 0.5) % 1 - 0.5
            for colour, is_grey in zip(colours, grey, strict=True)
            if not is_grey
        ]
    )
    assert 0.08 < turned.abs().max() < 0.12  # a turn about the grey axis is nearly one of the hue
    same = (made - given).abs().amax((1, 2, 3)) < 1e-5
    assert 0.12 < same.float().mean() < 0.2  # 0.2 unchanged, of which 0.2 are grey
    plain = recolour(torch.full((50, 3, 2, 2), 0.1))
    assert (plain.amax(1) - plain.amin(1)).max() < 1e-5


@pytest.mark.parametrize("half", [False, True])
def test_dinos_teacher_follows_and_is_never_trained(half):
    torch.manual_seed(0)
    model = Dino(outputs=32)
    eyes_size = sum(p.numel() for p in model.teacher[0].parameters())
    assert 2 * eyes_size < 5e6  # bytes in half precision
    with torch.no_grad():
        for p in model.student.parameters():
            p.add_(0.1)
    before = [p.clone() for p in model.teacher.parameters()]
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        terms = model(to_unit(NOISE), 0.0)
    terms["loss"].backward()
    for old, new, student in zip(before, model.teacher.parameters(), model.student.parameters(), strict=True):
        torch.testing.assert_close(new, 0.99 * old + 0.01 * student)
        assert new.grad is None
    assert model.centre.grad is None
    assert model.centre.abs().max() > 0
    assert sum(p.grad.abs().sum() for p in model.student.parameters() if p.grad is not None) > 0
    assert 0 < terms["loss"].item() < 2 * math.log(32)
    assert float(terms["spread"]) >= -1e-4
    held = [p.clone() for p in model.teacher.parameters()]
    model(to_unit(NOISE), 1.0)  # at the end of the training the teacher stands still
    for old, new in zip(held, model.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old)


def test_training_dino_is_resumed_teacher_and_all(drawn, tmp_path, monkeypatch):
    _, images, truths = drawn
    monkeypatch.setattr(world, "dataset", lambda groups, seed: (images, [], truths))
    recipe = Recipe(4, 4, 1e-3)
    facts = train_dino(tmp_path / "a", tmp_path / "run", recipe, 0, "cpu", 12)
    assert facts["steps"] == 4
    assert 0 <= facts["held-out drawings"]["nearest neighbour's class"] <= 1
    assert type(AutoModel.from_pretrained(tmp_path / "a" / "dino")).__name__ == "ViTModel"
    steps = []

    def killed(*arguments, crops=dino.crops):
        steps.append(1)
        if len(steps) > 6 * 2:
            raise KeyboardInterrupt
        return crops(*arguments)

    other = tmp_path / "b", tmp_path / "other", recipe, 0, "cpu", 12
    fit = loop.fit
    monkeypatch.setattr("lorarar.shoebox.models.dino.fit", lambda *a, **k: fit(*a, **k, save_every=0))
    with monkeypatch.context() as patch:
        patch.setattr("lorarar.shoebox.models.dino.crops", killed)
        with pytest.raises(KeyboardInterrupt):
            train_dino(*other)
    train_dino(*other)
    first, second = (load_file(tmp_path / name / "dino" / "model.safetensors") for name in "ab")
    for name, weight in first.items():
        torch.testing.assert_close(weight, second[name], atol=0, rtol=0)
    with pytest.raises(ValueError, match="other learning_rate"):
        train_dino(*other[:2], replace(recipe, learning_rate=1e-2), *other[3:])
