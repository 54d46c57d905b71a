"""MARS² against the supplement's words, hand-computed tables, plain loops, and real servers and models."""

import base64
import contextlib
import io
import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from lorarar.cli import main
from lorarar.judging import (
    Question,
    by_pair,
    conversation,
    find_judge,
    heat_maps,
    judge,
    judge_files,
    local_judge,
    majority,
    remembered,
    said_yes,
    served_judge,
    votes,
)
from lorarar.judging.local import load_processor, render, without_video

# Figures A1 and A2 of the supplement, white space apart.
SUBJECT = """Your task is to identify if the test image shows the same subject as the support image. Support
image: {Image} Test image: {Image} Pay attention to the details of the subject, it should for
example have the same color. However, the general style of the image may be different. Does the
test image show the same subject as the support image? Answer with Yes or No only."""
STYLE = """Your task is to identify if the test image shows the subject in {style} style. An example image
in the {style} style is provided. Example image in the {style} style: {Image} Test image:
{Image} The example image shows an illustration of the {style} style and the details of the
subject are expected to be different. Do not check similarity with the subject. Is the test
image in the {style} style? Answer with Yes or No only."""

rng = np.random.default_rng(0)
PICTURES = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


# --- the questions


@pytest.mark.parametrize(("axis", "figure"), [("subject", SUBJECT), ("style", STYLE)])
def test_prompts_are_the_supplements_word_for_word(axis, figure):
    system, user = conversation(axis, "oil painting")
    assert (system["role"], user["role"]) == ("system", "user")
    assert system["content"] == [{"type": "text", "text": "You are a helpful assistant."}]
    said = " ".join("{Image}" if part["type"] == "image" else part["text"] for part in user["content"])
    assert said.split() == figure.replace("{style}", "oil painting").split()


def test_a_question_about_style_needs_words():
    with pytest.raises(ValueError, match="words"):
        conversation("style", " ")
    with pytest.raises(ValueError, match="subject or style"):
        conversation("colour")


@pytest.mark.parametrize(
    ("answer", "yes"), [("Yes", True), ("yes.", True), ("No", False), ("", False), ("YES, it does", True)]
)
def test_yes_anywhere_in_the_answer_is_yes(answer, yes):
    assert said_yes(answer) is yes


# --- verdicts


def test_references_vote_and_a_tie_is_no():
    voted = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    np.testing.assert_array_equal(majority(voted), [False, True, False, True])
    np.testing.assert_array_equal(majority(voted[:, :1]), [True, True, False, True])
    np.testing.assert_array_equal(majority(voted[None, :, 1:4]), [[False, True, False, True]])


def test_right_is_subject_and_style():
    """A judge that looks at one channel for the subject and at another for the style."""

    def ask(questions):
        channel = {"subject": 0, "style": 1}
        for q in questions:
            assert q.style == ("oil painting" if q.axis == "style" else "")
        return [
            "Yes" if q.image[0, 0, channel[q.axis]] == q.reference[0, 0, channel[q.axis]] else "No"
            for q in questions
        ]

    def picture(subject, style):
        return np.full((2, 2, 3), (subject, style, 0), np.uint8)

    images = np.stack([picture(1, 7), picture(1, 8), picture(2, 7), picture(2, 8)])
    subject = np.stack([picture(1, 99), picture(1, 99), picture(2, 99)])  # two of three say 1
    style = np.stack([picture(99, 7)])
    found = judge(ask, images, subject, style, "oil painting")
    np.testing.assert_array_equal(found.subject, [True, True, False, False])
    np.testing.assert_array_equal(found.style, [True, False, True, False])
    np.testing.assert_array_equal(found.right, [True, False, False, False])
    assert votes(ask, "subject", subject, images[:0]).shape == (0, 3)


def test_folders_are_judged(tmp_path):
    def ask(questions):
        return ["Yes" if (q.image[0, 0] == q.reference[0, 0]).any() else "No" for q in questions]

    shown = {
        "images": [(1, 7, 0), (1, 8, 0)],
        "subject": [(1, 99, 9), (1, 99, 8), (5, 99, 9)],
        "style": [(99, 7, 9)],
    }
    for name, colours in shown.items():
        (tmp_path / name).mkdir()
        for i, colour in enumerate(colours):
            Image.new("RGB", (4 + i, 4), colour).save(tmp_path / name / f"{i}.png")
    found = judge_files(ask, *(tmp_path / name for name in shown), "oil painting")
    first, second = found["images"]
    assert first == {
        "file": "0.png",
        "subject": True,
        "style": True,
        "right": True,
        "subject votes": "2/3",
        "style votes": "1/1",
    }
    assert (second["subject"], second["style"], second["right"]) == (True, False, False)
    assert found["right"] == 0.5
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="image"):
        judge_files(ask, tmp_path / "empty", tmp_path / "subject", tmp_path / "style", "oil painting")


def test_a_model_that_is_no_judge_is_told():
    with pytest.raises(ValueError, match=r"does not answer Yes or No: 2 of 2.*'a cat'"):
        votes(lambda questions: ["a cat"] * len(questions), "subject", PICTURES[:1], PICTURES[:2])
    with pytest.raises(ValueError, match="at least one reference of the style"):
        votes(lambda questions: [], "style", PICTURES[:0], PICTURES[:2], "oil painting")


# --- tables


def test_cases_by_hand():
    right = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0]], bool)
    assert by_pair(right, "average").tolist() == [1 / 4, 0, 1, 1 / 2]
    assert by_pair(right, "best").tolist() == [1, 0, 1, 1]
    assert by_pair(right.astype(int), "average").mean() == 7 / 16


def test_the_supplements_best_cases_are_twelfths():
    """Table A3: 4 validation subjects × 3 validation styles; so many pairs have at least one right image."""
    for pairs, printed in ((11, 0.92), (10, 0.83), (9, 0.75), (7, 0.58), (6, 0.50), (4, 0.33)):
        right = np.zeros((4, 3, 10), bool)
        right.reshape(12, 10)[rng.permutation(12)[:pairs], rng.integers(10)] = True
        assert round(by_pair(right.reshape(12, 10), "best").mean(), 2) == printed
        average, best = heat_maps(right)
        assert average.shape == best.shape == (4, 3)
        assert best.sum() == pairs
        assert average.sum() == pytest.approx(pairs / 10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: by_pair(np.zeros((2, 3, 4)), "average"), r"\(pairs, images\)"),
        (lambda: by_pair(np.zeros((0, 3)), "best"), "at least one"),
        (lambda: by_pair(np.full((2, 2), 0.5), "average"), "true or false"),
        (lambda: by_pair(np.ones((2, 2)), "worst"), "average or best"),
        (lambda: heat_maps(np.ones((2, 2))), "subjects, styles, images"),
    ],
)
def test_tables_refuse_what_is_no_verdict(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- a model on this machine: LLaVA-OneVision with SigLIP and Qwen2, as the paper's, in tiny and random

SIDE, PATCHES = 32, 4
# As in LLaVA-OneVision's own template, images go to the front, wherever they stood.
FRONT = (
    "{% for m in messages %}<|im_start|> {{ m['role'] }} "
    "{% for c in m['content'] if c['type'] == 'image' %}<image> {% endfor %}"
    "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %} <|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)


@pytest.fixture(scope="module")
def tiny_judge(tmp_path_factory):
    words = sorted(
        set(re.findall(r"\w+|[^\w\s]+", f"{SUBJECT} {STYLE} system user assistant You are a helpful Yes No"))
    )
    special = ["<pad>", "<unk>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
    inner = Tokenizer(WordLevel({w: i for i, w in enumerate([*special, *words])}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        additional_special_tokens=["<|im_start|>", "<image>", "<video>"],
    )
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=SIDE // PATCHES,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.3,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    model = LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(
            vision_config=vision.to_dict(),
            text_config=text.to_dict(),
            image_token_index=4,
            video_token_index=5,
            image_grid_pinpoints=[[SIDE, SIDE]],
        )
    ).eval()
    with torch.no_grad():  # let what it sees weigh more than what it reads
        model.model.multi_modal_projector.linear_2.weight *= 100
    processor = without_video(LlavaOnevisionProcessor)(
        image_processor=LlavaOnevisionImageProcessor(
            size={"height": SIDE, "width": SIDE},
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
            image_grid_pinpoints=[[SIDE, SIDE]],
        ),
        tokenizer=tokenizer,
        num_image_tokens=PATCHES**2,
        vision_feature_select_strategy="full",
        chat_template=FRONT,
    )
    folder = tmp_path_factory.mktemp("judge")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder, model, tokenizer


def by_hand(model, tokenizer, question) -> str:
    """Answer one question with the model alone: words, pixels and decoding written out."""
    figure = {"subject": SUBJECT, "style": STYLE}[question.axis].replace("{style}", question.style)
    system = "<|im_start|> system You are a helpful assistant. <|im_end|>"
    text = f"{system} <|im_start|> user {figure} <|im_end|> <|im_start|> assistant"
    text = text.replace("{Image}", "<image>" * (PATCHES**2 + 1))  # one more ends the row
    ids = tokenizer(text, return_tensors="pt").input_ids
    pixels = torch.from_numpy(np.stack([question.reference, question.image])).permute(0, 3, 1, 2) / 127.5 - 1
    said = []
    with torch.no_grad():
        for _ in range(8):
            grown = torch.cat([ids, torch.tensor([said], dtype=torch.long)], 1)
            logits = model(
                input_ids=grown,
                pixel_values=pixels[:, None],
                image_sizes=torch.tensor([[SIDE, SIDE]] * 2),
                batch_num_images=torch.tensor([2]),
            ).logits
            said.append(int(logits[0, -1].argmax()))
            if said[-1] == tokenizer.eos_token_id:
                break
    return tokenizer.decode(said, skip_special_tokens=True).strip()


def test_local_judge_says_what_the_model_says(tiny_judge):
    folder, model, tokenizer = tiny_judge
    questions = [
        Question("style" if k % 2 else "subject", PICTURES[i], PICTURES[j], "oil painting" if k % 2 else "")
        for k, (i, j) in enumerate([(0, 1), (0, 1), (1, 0), (1, 0), (2, 3), (2, 3), (4, 5)])
    ]
    expected = [by_hand(model, tokenizer, q) for q in questions]
    assert len(set(expected)) > 2  # it depends on what it is shown, and in which order
    # Prompts of unequal length share a batch; the last batch is short.
    assert local_judge(folder, "cpu", batch_size=3)(questions) == expected
    assert find_judge(folder, device="cpu")([]) == []


def test_images_stand_where_the_prompt_says(tiny_judge):
    processor = load_processor(tiny_judge[0])
    for axis, figure in (("subject", SUBJECT), ("style", STYLE)):
        said = render(processor, axis, "glowing")
        middle = figure.replace("{style}", "glowing").replace("{Image}", "<image>")
        assert " ".join(middle.split()) in " ".join(said.split())
    processor.chat_template = FRONT.replace("'image'", "'picture'").replace("c['text']", "c['text'][:9]")
    with pytest.raises(ValueError, match="does not take two images"):
        render(processor, "subject")
    processor.chat_template = None
    with pytest.raises(ValueError, match="template"):
        render(processor, "subject")


def test_what_is_no_judge_is_refused_in_one_line(tmp_path):
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match="cannot load") as caught:
            local_judge(place, "cpu")
        assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(ValueError, match="not an image-text model") as caught:
        local_judge(tmp_path, "cpu")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="batch_size"):
        local_judge(tmp_path, "cpu", batch_size=0)


# --- a server in OpenAI's format


class Server(ThreadingHTTPServer):
    """Answers Yes if both images are the same; `fail(request number)` may give (status, text) instead."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.fail, self.slow, self.lock = [], lambda number: None, 0.0, threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def reply(self, status, text):
        with contextlib.suppress(ConnectionError):  # whoever asked may have given up
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

    def begin(self, body):
        with self.server.lock:
            self.server.requests.append((self.path, dict(self.headers), body))
            number = len(self.server.requests)
        time.sleep(self.server.slow)
        failure = self.server.fail(number)
        if failure:
            self.reply(*failure)
        return failure

    def do_GET(self):
        if not self.begin(None):
            self.reply(200, json.dumps({"data": [{"id": "llava-critic"}, {"id": "other"}]}))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.begin(body):
            return
        urls = [p["image_url"]["url"] for p in body["messages"][1]["content"] if p["type"] == "image_url"]
        first, second = (np.array(Image.open(io.BytesIO(base64.b64decode(u.split(",", 1)[1])))) for u in urls)
        said = " Yes\n" if np.array_equal(first, second) else "No."
        self.reply(200, json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]}))

    def log_message(self, *_):
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


QUESTIONS = [Question("subject", PICTURES[0], PICTURES[i], "") for i in (0, 1, 0, 2, 0)]


def test_served_judge_speaks_openais_format(server):
    ask = find_judge(server.url + "/", key="secret")
    assert ask(QUESTIONS) == ["Yes", "No.", "Yes", "No.", "Yes"]
    assert ask([Question("style", PICTURES[3], PICTURES[4], "oil painting")]) == ["No."]
    assert [path for path, *_ in server.requests] == ["/v1/models"] + ["/v1/chat/completions"] * 6
    _, headers, body = server.requests[-1]
    assert {k.lower(): v for k, v in headers.items()}["authorization"] == "Bearer secret"
    assert (body["model"], body["temperature"]) == ("llava-critic", 0)
    system, user = body["messages"]
    assert system == {"role": "system", "content": "You are a helpful assistant."}
    kinds = [part["type"] for part in user["content"]]
    assert kinds == ["text", "image_url", "text", "image_url", "text"]
    said = " ".join(part.get("text", "{Image}") for part in user["content"])
    assert said.split() == STYLE.replace("{style}", "oil painting").split()
    sent = user["content"][1]["image_url"]["url"]
    assert sent.startswith("data:image/png;base64,")
    reference = Image.open(io.BytesIO(base64.b64decode(sent.split(",")[1])))
    np.testing.assert_array_equal(np.array(reference), PICTURES[3])  # the reference comes first


def test_served_judge_tries_again_when_a_server_is_busy(server):
    server.fail = lambda number: (503, "busy") if number in (1, 3) else None
    ask = served_judge(server.url, model="m", parallel=1)
    assert ask(QUESTIONS[:3]) == ["Yes", "No.", "Yes"]
    assert len(server.requests) == 5


@pytest.mark.parametrize(
    ("failure", "message", "requests"),
    [
        ((500, '{"error": {"message": "out\\nof memory"}}'), r"HTTP 500 'out of memory' \(3 tries\)$", 3),
        ((500, ""), r"HTTP 500 Internal Server Error \(3 tries\)$", 3),
        ((401, '{"message": "wrong key"}'), r"HTTP 401 'wrong key'$", 1),
        ((404, "<html>\nnothing here"), r"HTTP 404 '<html> nothing here'$", 1),
        ((200, "<html>hello"), r"expected JSON in OpenAI's format, got '<html>hello'$", 1),
        ((200, ""), r"expected JSON in OpenAI's format, got ''$", 1),
        ((200, "[1, 2]"), r"expected choices\[0\].message.content, got '\[1, 2\]'$", 1),
        ((200, '{"choices": []}'), r"expected choices\[0\].message.content, got '\{", 1),
        ((200, '{"choices": [{"message": {"content": null}}]}'), r"expected choices\[0\]", 1),
    ],
)
def test_a_server_that_fails_is_told_in_one_line(server, failure, message, requests):
    server.fail = lambda number: failure
    with pytest.raises(ValueError, match=message) as caught:
        served_judge(server.url, model="m", key="secret", tries=3)(QUESTIONS[:1])
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"judge {server.url}/chat/completions: ")
    assert "secret" not in str(caught.value)
    assert len(server.requests) == requests


def test_a_server_without_models_or_that_is_slow_or_gone(server):
    server.fail = lambda number: (200, '{"data": []}')
    with pytest.raises(ValueError, match=r"/models: expected a list of models .or name the model."):
        served_judge(server.url)(QUESTIONS[:1])
    server.fail, server.slow = lambda number: None, 0.6
    with pytest.raises(ValueError, match=r"no answer within 0\.1 s \(2 tries\)$"):
        served_judge(server.url, model="m", timeout=0.1, tries=2)(QUESTIONS[:1])
    with pytest.raises(ValueError, match=r"judge http://127\.0\.0\.1:9/v1/models: .*refused"):
        served_judge("http://127.0.0.1:9/v1", tries=1)(QUESTIONS[:1])


def test_bad_addresses_and_numbers_are_refused():
    for url, options, message in (
        ("localhost:8000", {}, "expected an address"),
        ("http://x/v1", {"tries": 0}, "tries must be"),
        ("http://x/v1", {"timeout": 0}, "timeout must be"),
        ("http://x/v1", {"parallel": 0}, "parallel must be"),
    ):
        with pytest.raises(ValueError, match=message):
            served_judge(url, **options)


# --- a run that was stopped


def test_answers_are_remembered(tmp_path):
    asked = []

    def ask(questions):
        asked.extend(questions)
        return ["Yes" if np.array_equal(q.reference, q.image) else "No" for q in questions]

    file = tmp_path / "answers" / "judge.jsonl"
    kept = remembered(ask, file, "tiny")
    assert kept(QUESTIONS) == ["Yes", "No", "Yes", "No", "Yes"]
    assert len(asked) == 3  # what is asked twice is answered once
    with file.open("a") as log:
        log.write('{"cut off by a ki')
    again = remembered(ask, file, "tiny")
    assert again(QUESTIONS[::-1]) == ["Yes", "No", "Yes", "No", "Yes"]
    assert len(asked) == 3
    style = Question("style", PICTURES[0], PICTURES[0], "oil painting")
    assert again([style, style._replace(style="glowing"), *QUESTIONS[:1]]) == ["Yes"] * 3
    assert len(asked) == 5
    assert remembered(ask, file, "tiny")([style]) == ["Yes"]
    assert len(asked) == 5
    assert remembered(ask, file, "another")(QUESTIONS[:1]) == ["Yes"]
    assert len(asked) == 6


# --- the command line


@pytest.fixture
def folders(tmp_path):
    shown = {"images": PICTURES[:2], "subject": [PICTURES[0]], "style": [PICTURES[0]]}
    for name, pictures in shown.items():
        (tmp_path / name).mkdir()
        for i, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / name / f"{i}.png")
    return tmp_path


def judged(folders, *more):
    asked = ["judge", folders / "images", "--subject", folders / "subject", "--style", folders / "style"]
    return main([str(word) for word in (*asked, "--words", "oil painting", *more)])


def test_the_command_asks_a_server_and_prints_a_table_or_json(server, folders, capsys):
    assert judged(folders, "--judge", server.url) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[:2]] == ["right", "wrong"]
    assert lines[2].startswith("50.0% of 2 images")
    assert judged(folders, "--judge", server.url, "--model", "other", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["right"] for row in found["images"]] == [True, False]
    assert server.requests[-1][2]["model"] == "other"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--judge", "http://127.0.0.1:9/v1", "--words", " "), "--words: say what the style is called"),
        (("--judge", "nowhere", "--model", "x"), "--model goes with the address of a server"),
        (("--subject", "missing"), "no such folder"),
        (("--scale", "huge"), "unknown scale"),
        (("--judge", "nowhere/at-all/here"), "cannot load nowhere/at-all/here"),
    ],
)
def test_bad_input_to_the_command_is_one_line(folders, capsys, monkeypatch, more, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert judged(folders, *more) == 2
    said = capsys.readouterr()
    assert not said.out
    assert message in said.err.splitlines()[-1]
