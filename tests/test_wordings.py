"""Other words for the judge's questions: their texts, who is asked in them, and a trial counted by hand."""

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.stats import spearmanr
from transformers import AutoModelForImageTextToText

from lorarar.cli import main
from lorarar.judging import IMAGE, WORDINGS, Question, conversation, local_judge, served_judge
from lorarar.judging.local import load_processor, render
from lorarar.judging.mars2 import meant
from lorarar.judging.wordings import TRAINED
from lorarar.options import WORDINGS as NAMES
from lorarar.options import JudgeOptions
from lorarar.scales import find_scale, local
from lorarar.shoebox.models import judge_training
from lorarar.shoebox.models.asking import Miniature, is_miniature
from lorarar.shoebox.models.examination import Case
from lorarar.shoebox.models.judge import llava, processor, words
from lorarar.shoebox.models.judge_training import begin_from, train_words
from lorarar.shoebox.models.loop import Recipe
from lorarar.shoebox.world import world
from lorarar.shoebox.world.world import style_images, subject_images
from lorarar.study import wordings
from lorarar.study.wordings import COUNTS, PAPER, Tried, Variant

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("eyes")]


def pieces(name: str, axis: str) -> list[str]:
    """The words of a prompt, white space apart."""
    return " ".join("" if part is IMAGE else part for part in getattr(WORDINGS[name], axis)).split()


# --- the words


def test_the_codes_wording_differs_in_two_words():
    paper, code = pieces("paper", "subject"), pieces("code", "subject")
    place = paper.index("details") - 1
    assert paper[place] == "the"
    expected = paper[:place] + paper[place + 1 :]
    assert ["colour." if word == "color." else word for word in expected] == code != expected
    assert pieces("paper", "style") == pieces("code", "style")
    assert "explanation." in pieces("explained", "subject")


@pytest.mark.parametrize("name", NAMES)
def test_a_wording_has_two_images_and_asks_for_yes_or_no(name):
    assert tuple(WORDINGS) == NAMES
    for axis in ("subject", "style"):
        parts = getattr(WORDINGS[name], axis)
        assert parts.count(IMAGE) == 2 and all(parts)
        said = " ".join(pieces(name, axis))
        assert "Yes or No" in said
        assert ("{style}" in said) == (axis == "style")
        text = conversation(axis, "oil painting", wording=WORDINGS[name])[1]["content"]
        assert "{style}" not in str(text)
    parts = WORDINGS[name].subject
    headings = [parts[i - 1].strip().splitlines()[-1] for i, part in enumerate(parts) if part is IMAGE]
    if name != "plain":  # its headings name neither
        assert headings[0].startswith("Test") == WORDINGS[name].swapped
        assert headings[1].startswith("Test") != WORDINGS[name].swapped


def test_an_opposite_question_is_answered_the_other_way():
    for answer, turned in (("Yes", "No"), ("No, it is not", "Yes"), ("a cat", "a cat")):
        assert meant(answer, WORDINGS["opposite"]) == turned
        assert meant(answer, WORDINGS["paper"]) == answer
    with pytest.raises(ValueError, match="unknown wording 'loud'"):
        JudgeOptions.of(wording="loud")


def test_new_words_come_last():
    old, new = words(), words([WORDINGS[name] for name in TRAINED])
    assert {w: i for w, i in new.get_vocab().items() if i < len(old)} == old.get_vocab()
    for name in TRAINED:
        for axis in ("subject", "style"):
            text = " ".join(pieces(name, axis)).replace("{style}", "glowing")
            assert new.unk_token_id not in new(text).input_ids
    assert new.unk_token_id in new(" ".join(pieces("plain", "subject"))).input_ids


# --- who is asked

MINIATURE = local(find_scale("shoebox").judge)
"""The shipped one; what it says of names that it never saw depends on what it is shown."""


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    dogs, cats = (subject_images(name, 3, seed=1) for name in ("dog #8", "cat #2"))
    lit, oil = (style_images(name, 2, seed=1)[0] for name in ("glowing", "oil painting #2"))
    return [
        *(Question("subject", dogs[0], other) for other in (*dogs[1:], *cats[1:], lit[0])),
        *(Question("style", lit[0], other, "glowing") for other in (lit[1], oil[1], dogs[1])),
        Question("style", oil[0], oil[1], "oil painting"),
        Question("subject", cats[0], cats[1]),
    ]


@pytest.mark.parametrize("name", ["paper", "swapped", "opposite", "plain"])
def test_the_miniature_answers_as_the_model_does(questions, name):
    """What it says at a glance is what transformers' own generation says."""
    ask = Miniature(MINIATURE, "cpu").asks(name)
    said, expected = ask(questions), local_judge(MINIATURE, "cpu", wording=name)(questions)
    assert said == expected
    assert set(said) <= {"Yes", "No"} and (name != "paper" or len(set(said)) == 2)
    assert ask(questions[:1]) == said[:1]  # an image seen before, and alone


def test_swapped_images_are_those_of_the_other_question(questions):
    turned = [q._replace(reference=q.image, image=q.reference) for q in questions]
    eyes = Miniature(MINIATURE, "cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WORDINGS, "straight", WORDINGS["swapped"]._replace(swapped=False))
        assert eyes.asks("swapped")(questions) == eyes.asks("straight")(turned)


def first_logits(question):
    """The logits of the first word, from the whole model on the processor's output."""
    both = load_processor(MINIATURE)
    model = AutoModelForImageTextToText.from_pretrained(MINIATURE, dtype=torch.float32).eval()
    pictures = [Image.fromarray(question.reference), Image.fromarray(question.image)]
    text = render(both, question.axis, question.style)
    inputs = both(text=[text], images=[pictures], return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits[0, -1]


def test_drawn_answers_follow_their_likelihood(questions):
    eyes = Miniature(MINIATURE, "cpu")
    yes, no = (eyes.processor.tokenizer.convert_tokens_to_ids(word) for word in ("Yes", "No"))
    logits = [first_logits(q) for q in questions[:4]]
    least = int(np.argmin([abs(float(row[yes] - row[no])) for row in logits]))
    one, row = questions[least], logits[least]
    heat = max(0.5, abs(float(row[yes] - row[no])))  # at which even a sure judge wavers
    share = float((row / heat).softmax(-1)[yes])
    assert 0.02 < share < 0.98
    said = eyes.asks(temperature=heat, seed=3)([one] * 2000)
    assert said.count("Yes") / 2000 == pytest.approx(share, abs=4 * (0.25 / 2000) ** 0.5)
    first, again, other = (eyes.asks(temperature=heat, seed=seed)([one] * 100) for seed in (3, 3, 4))
    assert first == again != other
    assert eyes.asks(temperature=1e-3)([one] * 20) == eyes.asks()([one]) * 20
    # The same by transformers' own sampling.
    torch.manual_seed(0)
    drawn = local_judge(MINIATURE, "cpu", temperature=heat, batch_size=100)([one] * 200)
    assert sum(text.startswith("Yes") for text in drawn) / 200 == pytest.approx(
        share, abs=4 * (0.25 / 200) ** 0.5
    )


def test_what_is_no_miniature(tmp_path):
    assert is_miniature(MINIATURE)
    assert not is_miniature(tmp_path)
    config = {"model_type": "llava_onevision", "vision_config": {"model_type": "siglip"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert not is_miniature(tmp_path)


def test_a_server_is_asked_in_these_words(questions):
    heard = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            message = {"role": "assistant", "content": " Yes"}
            text = json.dumps({"choices": [{"message": message, "index": 0}]})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    pytest.importorskip("openai")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/v1"
        for name, expected in (("swapped", "Yes"), ("opposite", "No")):
            asked = served_judge(url, model="any", wording=name, temperature=0.7)
            assert asked(questions[:1]) == [expected]
    finally:
        server.shutdown()
        server.server_close()
    parts = heard[0]["messages"][1]["content"]
    assert heard[0]["temperature"] == 0.7
    assert parts[0]["text"].startswith("Test image:")
    data = [part["image_url"]["url"].split(",")[1] for part in parts if part["type"] == "image_url"]
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in data]
    np.testing.assert_array_equal(shown, [questions[0].image, questions[0].reference])


# --- training


def wordings_heard(monkeypatch) -> list[int]:
    """Let training tell in which wordings its questions were, step after step."""
    heard = []
    answer = judge_training.answer

    def told(model, asked, which, seen):
        rows = (which // (len(asked.ids) // len(TRAINED))).unique()
        assert len(rows) == 1  # those of a step are in one
        heard.append(int(rows))
        return answer(model, asked, which, seen)

    monkeypatch.setattr(judge_training, "answer", told)
    return heard


def test_a_judge_of_several_wordings_begins_from_one(tmp_path, monkeypatch):
    groups = [world.draw_group(0, index) for index in range(4)]
    images = np.concatenate([images for images, _, _ in groups])
    truths = np.array([t for _, _, truth in groups for t in truth], np.int32)
    monkeypatch.setattr(world, "dataset", lambda groups, seed: (images, [], truths))
    monkeypatch.setattr(judge_training, "measure_judge", lambda *_: {})
    torch.manual_seed(0)
    llava(words()).save_pretrained(tmp_path / "old")
    processor(words()).save_pretrained(tmp_path / "old")
    heard = wordings_heard(monkeypatch)
    arguments = tmp_path / "run", Recipe(12, 6, 0.0, warmup=2), 0, "cpu", 4
    facts = train_words(tmp_path / "new", *arguments, init=tmp_path / "old")
    assert facts["wordings"] == list(TRAINED) and facts["steps"] == 12
    card = json.loads((tmp_path / "new" / "judge" / "card.json").read_text())
    assert card["command"].endswith("--wordings several")
    assert len(set(heard)) > 3 and max(heard) < len(TRAINED)
    # At a rate of zero the weights are the old ones, and the words of the paper still mean the same.
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("old", "new/judge"))
    for name, weight in second.items():
        torch.testing.assert_close(weight[: len(first[name])].float(), first[name], atol=1e-3, rtol=0)
    # At another rate its words change, and its eyes do not.
    arguments = tmp_path / "again", Recipe(3, 6, 1e-2, warmup=1), 0, "cpu", 4
    train_words(tmp_path / "newer", *arguments, init=tmp_path / "old")
    third = load_file(tmp_path / "newer" / "judge" / "model.safetensors")
    for name, weight in third.items():
        assert torch.equal(weight, second[name]) == ("language_model" not in name), name
    known = len(words([WORDINGS[name] for name in TRAINED]))
    assert known in {len(weight) for name, weight in second.items() if "embed_tokens" in name}


def test_a_model_of_fewer_words_gives_its_own():
    torch.manual_seed(0)
    few, many = llava(words()), llava(words([WORDINGS[name] for name in TRAINED]))
    kept = many.get_input_embeddings().weight[len(words()) :].clone()
    begin_from(many, few)
    table = many.get_input_embeddings().weight
    torch.testing.assert_close(table[: len(words())], few.get_input_embeddings().weight)
    torch.testing.assert_close(table[len(words()) :], kept)


def test_wordings_are_the_judges(capsys, tmp_path):
    assert main(["shoebox", "clip", "--wordings", "several", "--out", str(tmp_path)]) == 2
    assert "--wordings goes with the step judge" in capsys.readouterr().err
    assert main(["shoebox", "judge", "--wordings", "several", "--out", str(tmp_path)]) == 2
    assert "add --init DIR" in capsys.readouterr().err


# --- a trial counted by hand


def flat(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value, np.uint8)


YES = np.array([1, 1, 0, 0], bool)
DRAWN = [
    Case(axis, name, np.stack([flat(7)] * 4), np.stack([flat(7), flat(7), flat(1), flat(2)]), YES, said)
    for axis, name, said in (
        ("subject", "dog #8", ""),
        ("subject", "can", ""),
        ("style", "glowing", "glowing"),
    )
]
PAIRS = [("dog #8", "glowing"), ("dog #8", "oil painting #2"), ("can", "glowing"), ("can", "oil painting #2")]
METHODS = ["x", "a", "b"]
PICTURES = np.stack(
    [np.stack([flat(v) for v in row]) for row in ([0, 9, 1], [0, 9, 9], [0, 3, 1], [9, 3, 3])]
)


def at_least(bound: int):
    """A judge to whom everything is shown that is as bright as that, whatever the reference."""
    return lambda axis, references, images, said: images[:, 0, 0, 0] >= bound


def test_every_variant_sees_everything():
    asked = []

    def says(axis, references, images, said):
        asked.append((axis, len(references), len(images), said))
        return images[:, 0, 0, 0] % 2 == 1

    found = wordings.hear(says, 2, DRAWN, PAIRS, PICTURES)
    assert asked[:3] == [("subject", 2, 4, ""), ("subject", 2, 4, ""), ("style", 2, 4, "glowing")]
    assert asked[3:] == [
        ("subject", 2, 6, ""),
        ("subject", 2, 6, ""),
        ("style", 2, 6, "glowing"),
        ("style", 2, 6, "oil painting"),
    ]
    np.testing.assert_array_equal(found.pictures["style"], PICTURES[..., 0, 0, 0] % 2 == 1)
    back = wordings.from_record(json.loads(json.dumps(wordings.written(found))))
    np.testing.assert_array_equal(back.pictures["subject"], found.pictures["subject"])
    np.testing.assert_array_equal(back.drawings["can"], found.drawings["can"])


def test_measures_by_hand():
    strict, lax = (wordings.hear(at_least(bound), 3, DRAWN, PAIRS, PICTURES) for bound in (5, 2))
    np.testing.assert_array_equal(strict.pictures["style"], [[0, 1, 0], [0, 1, 1], [0, 0, 0], [1, 0, 0]])
    found = wordings.compared(lax, strict, DRAWN, 2, METHODS)
    # Strict is right about all drawings; lax takes the 2 for a 7: three of four are right.
    assert found["subject"]["balanced accuracy"][0] == 0.75
    assert found["style"]["less the paper's"] == [-0.25, -0.25, -0.25]
    # Of twelve pictures the three of value 3 are seen otherwise.
    assert found["subject"]["agreement"][0] == 0.75
    # κ by Cohen's formula: strict says yes to 4 of 12, lax to 7 of 12.
    chance = (4 * 7 + 8 * 5) / 144
    assert found["subject"]["kappa"] == pytest.approx((0.75 - chance) / (1 - chance), abs=1e-3)
    # Right are of x, a, b: one, two, one to the strict; one, four, two to the lax: nothing is turned round.
    assert found["swapped"] == []
    assert found["rank correlation"][0] == pytest.approx(spearmanr([1, 2, 1], [1, 4, 2]).statistic, abs=1e-4)
    assert found["right"] == pytest.approx(7 / 12, abs=1e-4)


def test_swaps_are_strict():
    one = np.array([[1.0, 1.0], [0.5, 0.5], [0.0, 0.0], [0.5, 0.5]])
    other = np.array([[0.0, 0.0], [0.5, 0.5], [1.0, 0.0], [0.2, 0.2]])
    # w falls behind all; y passes z; x and y are tied in the second, x and z in the first: no order.
    expected = [("w", "x"), ("w", "y"), ("w", "z"), ("z", "y")]
    assert wordings.swapped(one, other, ["w", "x", "y", "z"]) == expected
    assert wordings.swapped(one, one, ["w", "x", "y", "z"]) == []


def test_a_trial_goes_on_where_it_was(tmp_path, monkeypatch):
    subjects, styles = ["dog #8", "can"], ["glowing", "oil painting #2"]
    run = {"split": "test", "subjects": subjects, "styles": styles, "methods": ["base", *METHODS]}
    shown = np.concatenate([PICTURES[:, :1], PICTURES], 1)
    heard = []

    def says(variant):
        heard.append(variant.name)
        return at_least(5 if variant.references == 3 else 2)

    monkeypatch.setattr(wordings, "cases", lambda each, seed: DRAWN)
    judge = {"j": Tried("abc", COUNTS, says)}
    first = wordings.trial(judge, run, shown, kept=tmp_path, progress=False)
    assert heard == ["paper", "1 reference", "2 references", "4 references"]
    assert wordings.trial(judge, run, shown, kept=tmp_path, progress=False) == first
    assert len(heard) == 4
    other = {"j": Tried("other", COUNTS[:1], says), "k": Tried("abe", COUNTS[:1], lambda _: at_least(2))}
    second = wordings.trial(other, run, shown, kept=tmp_path, progress=False)
    assert len(heard) == 5  # another judge's verdicts are not its own
    assert second["between"]["j, k"]["style"]["agreement"][0] == 0.75
    assert first["methods"] == METHODS  # what merges nothing is not shown
    assert first["compared"]["j"]["1 reference"]["style"]["agreement"][0] == 0.75
    assert first["compared"]["j"]["paper"]["swapped"] == [] and first["between"] == {}
    with pytest.raises(ValueError, match="each must be at least 1"):
        wordings.trial(judge, run, shown, kept=tmp_path, each=0)


def test_variants_are_told_apart():
    names = [variant.name for variant in wordings.VARIANTS]
    assert len(set(names)) == len(names) and PAPER.name == "paper"
    assert Variant(references=1).name == "1 reference"
    assert sum(name in NAMES for name in names) == len(NAMES) >= 8 + 2


def test_references_vote_in_any_words():
    says = wordings.in_words(
        lambda asked: ["Yes" if q.reference[0, 0, 0] == q.image[0, 0, 0] else "No" for q in asked]
    )
    references = np.stack([flat(7), flat(7), flat(1)])
    assert says("subject", references, np.stack([flat(7), flat(1)]), "").tolist() == [True, False]
    assert says("subject", references[1:], np.stack([flat(7)]), "").tolist() == [False]  # a tie
