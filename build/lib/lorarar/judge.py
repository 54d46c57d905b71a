"""MARS²: a multimodal language model says whether an image shows the subject and the style (LoRA.rar, §A1.1).

The judge sees one reference and one image and answers Yes or No, once about the subject and once about the
style; the references vote. An image is right if both are. The judge is a function from questions to answers
(`Ask`): a transformers model on this machine (`local_judge`), whatever its size, or one that is served behind
an OpenAI-compatible endpoint such as vLLM's (`served_judge`).
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from lorarar.models import _quiet, find_device

if TYPE_CHECKING:
    from transformers import ProcessorMixin

Axis = Literal["subject", "style"]

SYSTEM = "You are a helpful assistant."
IMAGE = object()
"""Stands in a prompt where an image is: first the reference, then the image to be judged."""

# Word for word figures A1 and A2 of the supplement.
SUBJECT_PROMPT: tuple[Any, ...] = (
    "Your task is to identify if the test image shows the same subject as the support image.\n"
    "Support image:\n",
    IMAGE,
    "\nTest image:\n",
    IMAGE,
    "\nPay attention to the details of the subject, it should for example have the same color. However, the "
    "general style of the image may be different.\nDoes the test image show the same subject as the support "
    "image?\nAnswer with Yes or No only.",
)
STYLE_PROMPT: tuple[Any, ...] = (
    "Your task is to identify if the test image shows the subject in {style} style. An example image in the "
    "{style} style is provided.\nExample image in the {style} style:\n",
    IMAGE,
    "\nTest image:\n",
    IMAGE,
    "\nThe example image shows an illustration of the {style} style and the details of the subject are "
    "expected to be different.\nDo not check similarity with the subject.\n"
    "Is the test image in the {style} style?\nAnswer with Yes or No only.",
)


class Question(NamedTuple):
    """One thing to ask: does `image` show what `reference` shows? Images are (h, w, 3) uint8.

    style: the words for the style, such as "oil painting"; only questions about style have them.
    """

    axis: Axis
    reference: np.ndarray
    image: np.ndarray
    style: str = ""


Ask = Callable[[Sequence[Question]], list[str]]
"""A judge: one answer in words for each question."""


def conversation(axis: Axis, style: str = "", image: Callable[[], dict] | None = None) -> list[dict]:
    """Write a question as the messages that chat templates and endpoints take.

    image: gives the content part for the next image; a bare ``{"type": "image"}`` unless told otherwise.

    Raises:
        ValueError: the axis is neither "subject" nor "style", or a style has no words.
    """
    if axis not in ("subject", "style"):
        raise ValueError(f"no axis {axis!r}: choose subject or style")
    if axis == "style" and not style.strip():
        raise ValueError('a question about style needs the words for it, such as "oil painting"')
    parts = []
    for part in SUBJECT_PROMPT if axis == "subject" else STYLE_PROMPT:
        if part is IMAGE:
            parts.append(image() if image else {"type": "image"})
        else:
            parts.append({"type": "text", "text": part.replace("{style}", style)})
    return [
        {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
        {"role": "user", "content": parts},
    ]


def said_yes(answer: str) -> bool:
    """Read an answer as the paper's code does: Yes if "yes" is anywhere in it."""
    return "yes" in answer.lower()


# ---------------------------------------------------------------------------------------------------------
# A model on this machine


def without_video(kind: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """Derive a processor class that neither loads nor needs the video part, which needs torchvision."""

    def get_attributes(cls: type) -> list[str]:
        return [name for name in kind.get_attributes() if name != "video_processor"]

    return type(kind.__name__, (kind,), {"get_attributes": classmethod(get_attributes)})


def load_processor(source: str | Path) -> ProcessorMixin:
    """Load the processor of an image-text model, without its video part.

    Raises:
        ValueError: in one line, if there is none.
    """
    with _quiet():
        from transformers import AutoConfig
        from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

        try:
            kind = PROCESSOR_MAPPING[type(AutoConfig.from_pretrained(source))]
        except KeyError as error:
            raise ValueError(f"{source} is not an image-text model: {_first_line(error)}") from error
        except Exception as error:  # the hub and transformers raise anything here
            raise ValueError(f"cannot load {source} as an image-text model: {_first_line(error)}") from error
        try:
            return without_video(kind).from_pretrained(source)
        except Exception as error:
            raise ValueError(f"cannot load the processor of {source}: {_first_line(error)}") from error


def render(processor: ProcessorMixin, axis: Axis, style: str = "") -> str:
    """Write a question with the model's chat template, ready for its answer, each image where it belongs.

    Some templates (LLaVA-OneVision's own) move all images to the front; then the images' token is put into
    the text itself, so that "Test image:" stands before the test image.

    Raises:
        ValueError: the model has no chat template, or none that takes two images.
    """
    token = getattr(processor, "image_token", None) or "<image>"
    try:
        text = processor.apply_chat_template(conversation(axis, style), add_generation_prompt=True)
        if not _in_order(text, axis, token):
            said = conversation(axis, style, lambda: {"type": "text", "text": token})
            joined = "".join(part["text"] for part in said[1]["content"])
            said[1]["content"] = [{"type": "text", "text": joined}]
            text = processor.apply_chat_template(said, add_generation_prompt=True)
    except Exception as error:  # jinja raises its own errors, transformers ValueError
        raise ValueError(
            f"cannot write the question with the model's template: {_first_line(error)}"
        ) from error
    if not _in_order(text, axis, token):
        raise ValueError(f"the model's chat template does not take two images: {token!r} is not in place")
    return text


def _in_order(text: str, axis: Axis, token: str) -> bool:
    """Tell whether a rendered prompt has the reference and the test image each after its heading."""
    heading = "Support image:" if axis == "subject" else "Example image in"
    places = [text.find(heading), text.find(token), text.find("\nTest image:"), text.rfind(token)]
    return text.count(token) == 2 and -1 < places[0] < places[1] < places[2] < places[3]


def local_judge(
    source: str | Path,
    device: str | torch.device | None = None,
    batch_size: int = 16,
    progress: bool = False,
) -> Ask:
    """Load an image-text model that judges: a folder or a hub's id, the shoebox's miniature or LLaVA-Critic.

    Any model that `AutoModelForImageTextToText` knows and whose chat template takes two images. Decoding is
    greedy. On a CPU it computes in float32.

    Raises:
        ValueError: in one line, if it cannot be loaded or is not such a model.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    where = find_device(device)
    processor = load_processor(source)
    with _quiet():
        from transformers import AutoModelForImageTextToText

        dtype = torch.float32 if where.type == "cpu" else "auto"
        try:
            model = AutoModelForImageTextToText.from_pretrained(source, dtype=dtype)
        except Exception as error:  # the hub, safetensors and transformers raise anything here
            raise ValueError(f"cannot load {source} as an image-text model: {_first_line(error)}") from error
    model.to(where).eval()
    processor.tokenizer.padding_side = "left"  # answers begin where the padded prompts end, side by side
    prompts: dict[tuple[str, str], str] = {}

    def prompt(question: Question) -> str:
        key = question.axis, question.style
        if key not in prompts:
            prompts[key] = render(processor, *key)
        return prompts[key]

    @torch.inference_mode()
    def ask(questions: Sequence[Question]) -> list[str]:
        answers: list[str] = []
        starts = tqdm(range(0, len(questions), batch_size), "judge", unit="batch", disable=not progress)
        for start in starts:
            some = questions[start : start + batch_size]
            pictures = [[Image.fromarray(q.reference), Image.fromarray(q.image)] for q in some]
            inputs = processor(
                text=[prompt(q) for q in some], images=pictures, padding=True, return_tensors="pt"
            ).to(where)
            if "pixel_values" in inputs:
                inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
            with _quiet():
                said = model.generate(
                    **inputs, max_new_tokens=8, do_sample=False, temperature=None, top_p=None, top_k=None
                )
            said = said[:, inputs["input_ids"].shape[1] :]
            answers += [a.strip() for a in processor.batch_decode(said, skip_special_tokens=True)]
        return answers

    return ask


# ---------------------------------------------------------------------------------------------------------
# A model behind an endpoint


def served_judge(
    url: str,
    model: str | None = None,
    *,
    key: str | None = None,
    timeout: float = 60,
    tries: int = 4,
    wait: float = 1,
    parallel: int = 8,
    progress: bool = False,
) -> Ask:
    """Take a judge that is served in OpenAI's format, as by `vllm serve MODEL`.

    Args:
        url: up to and with the version, as in ``http://localhost:8000/v1``.
        model: its name there; None takes the first one served.
        key: sent as the bearer token; None takes ``$OPENAI_API_KEY`` if set.
        timeout: seconds until a request counts as failed.
        tries: how often a request is sent before the judge is given up; busy servers and broken connections
            are tried again, refused requests are not.
        wait: seconds before the second try; twice as long before each next.
        parallel: requests under way at once: the server puts them into batches.

    Raises:
        ValueError: in one line, when it is first asked: the server cannot be reached, refuses, fails, is too
            slow, or answers in another format.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"judge {url}: expected an address such as http://localhost:8000/v1")
    for name, value in (("tries", tries), ("parallel", parallel)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if not (math.isfinite(timeout) and timeout > 0):
        raise ValueError(f"timeout must be a positive number of seconds, not {timeout}")
    url = url.rstrip("/")
    key = os.environ.get("OPENAI_API_KEY") if key is None else key
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    name = model

    def call(path: str, body: dict | None = None) -> Any:  # noqa: ANN401 - whatever the server sends
        data = None if body is None else json.dumps(body).encode()
        for attempt in range(1, tries + 1):
            try:
                request = urllib.request.Request(url + path, data, headers)
                with urllib.request.urlopen(request, timeout=timeout) as reply:
                    text = reply.read().decode("utf-8", "replace")
                break
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code} {_said_by(error)}".strip()
                final = error.code not in (408, 409, 425, 429) and error.code < 500
            except TimeoutError:
                reason, final = f"no answer within {timeout:g} s", False
            except (http.client.HTTPException, OSError, ValueError) as error:
                slow = isinstance(getattr(error, "reason", None), TimeoutError)
                reason = f"no answer within {timeout:g} s" if slow else _first_line(error)
                final = isinstance(error, ValueError)  # an address that cannot be one
            if final or attempt == tries:
                after = "" if attempt == 1 else f" ({attempt} tries)"
                raise ValueError(f"judge {url}{path}: {reason}{after}")
            time.sleep(wait * 2 ** (attempt - 1))
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            raise ValueError(
                f"judge {url}{path}: expected JSON in OpenAI's format, got {_short(text)}"
            ) from None

    def answer(question: Question) -> str:
        pictures = iter((question.reference, question.image))
        body = {
            "model": name,
            "messages": conversation(
                question.axis,
                question.style,
                lambda: {"type": "image_url", "image_url": {"url": data_url(next(pictures))}},
            ),
            "temperature": 0,
            "max_tokens": 8,
        }
        body["messages"][0]["content"] = SYSTEM  # not every server takes parts there
        reply = call("/chat/completions", body)
        try:
            said = reply["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            said = None
        if not isinstance(said, str):
            raise ValueError(
                f"judge {url}/chat/completions: expected choices[0].message.content, got "
                f"{_short(json.dumps(reply))}"
            )
        return said.strip()

    def ask(questions: Sequence[Question]) -> list[str]:
        nonlocal name
        if name is None:
            reply = call("/models")
            try:
                name = str(reply["data"][0]["id"])
            except (KeyError, IndexError, TypeError):
                raise ValueError(
                    f"judge {url}/models: expected a list of models, got {_short(json.dumps(reply))}; "
                    "name the model"
                ) from None
        pool = ThreadPoolExecutor(parallel)
        try:
            bar = tqdm(
                pool.map(answer, questions), "judge", len(questions), unit="question", disable=not progress
            )
            return list(bar)
        finally:
            pool.shutdown(cancel_futures=True)  # after one failure, ask no more

    return ask


def data_url(image: np.ndarray) -> str:
    """Write an image (h, w, 3) uint8 as a data URL, a PNG without loss."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _said_by(error: urllib.error.HTTPError) -> str:
    """Return what a server wrote about its refusal, in a few words."""
    try:
        text = error.read().decode("utf-8", "replace")
    except OSError:
        return error.reason
    try:
        said = json.loads(text)
        said = said.get("error", said)
        return _short(str(said.get("message", said) if isinstance(said, dict) else said))
    except (json.JSONDecodeError, AttributeError):
        return _short(text) if text.strip() else str(error.reason)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 80 else text[:80] + "…")


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


def find_judge(source: str | Path, **options: Any) -> Ask:  # noqa: ANN401 - passed on
    """Take the judge behind an address (`served_judge`), or in a folder or on the hub (`local_judge`)."""
    served = str(source).startswith(("http://", "https://"))
    return served_judge(str(source), **options) if served else local_judge(source, **options)


def remembered(ask: Ask, file: Path, name: str) -> Ask:
    """Let a judge keep its answers in a file, so that a stopped run goes on where it was.

    name: of the judge; answers kept under another name are not its own. The file holds a JSON line per
    answer; a line that a kill cut off is asked again.
    """

    def digest(question: Question) -> str:
        found = hashlib.sha256(json.dumps([name, question.axis, question.style]).encode())
        for image in (question.reference, question.image):
            found.update(json.dumps(image.shape).encode() + np.ascontiguousarray(image).tobytes())
        return found.hexdigest()[:32]

    known: dict[str, str] = {}
    if file.is_file():
        for line in file.read_text().splitlines():
            try:
                known.update(json.loads(line))
            except (json.JSONDecodeError, ValueError, TypeError):
                continue

    def again(questions: Sequence[Question], chunk: int = 256) -> list[str]:
        keys = [digest(question) for question in questions]
        new = list({key: q for key, q in zip(keys, questions, strict=True) if key not in known}.items())
        file.parent.mkdir(parents=True, exist_ok=True)
        for start in range(0, len(new), chunk):
            some = new[start : start + chunk]
            said = dict(zip([key for key, _ in some], ask([q for _, q in some]), strict=True))
            with file.open("a") as log:
                log.write("\n" + "\n".join(json.dumps({key: answer}) for key, answer in said.items()) + "\n")
            known.update(said)
        return [known[key] for key in keys]

    return again


# ---------------------------------------------------------------------------------------------------------
# Verdicts


def votes(
    ask: Ask,
    axis: Axis,
    references: Sequence[np.ndarray] | np.ndarray,
    images: Sequence[np.ndarray] | np.ndarray,
    style: str = "",
) -> np.ndarray:
    """Ask about each image with each reference: (images, references) bool.

    references, images: arrays (n, h, w, 3) uint8, or sequences of (h, w, 3) of any sizes.

    Raises:
        ValueError: there is no reference, or most answers are neither Yes nor No, so that the model is no
            judge.
    """
    if len(references) == 0:
        raise ValueError(f"the judge needs at least one reference of the {axis}")
    if len(images) == 0:
        return np.zeros((0, len(references)), bool)
    answers = ask([Question(axis, reference, image, style) for image in images for reference in references])
    unclear = [a for a in answers if "yes" not in a.lower() and "no" not in a.lower()]
    if 2 * len(unclear) > len(answers):
        raise ValueError(
            f"the judge does not answer Yes or No: {len(unclear)} of {len(answers)} answers are like "
            f"{_short(unclear[0])}"
        )
    return np.array([said_yes(answer) for answer in answers]).reshape(len(images), len(references))


def majority(votes: np.ndarray) -> np.ndarray:
    """Let references vote: (…, references) bool to (…) bool, a strict majority says yes (a tie does not)."""
    votes = np.asarray(votes, bool)
    return 2 * votes.sum(-1) > votes.shape[-1]


class Verdicts(NamedTuple):
    """What the judge says of each image: three arrays of bool of one shape. right = subject and style."""

    subject: np.ndarray
    style: np.ndarray
    right: np.ndarray


def judge(ask: Ask, images: np.ndarray, subject: np.ndarray, style: np.ndarray, words: str) -> Verdicts:
    """Judge images that should show a subject in a style: MARS².

    Args:
        ask: the judge.
        images: (n, h, w, 3) uint8.
        subject: the subject's reference images; style: the style's.
        words: what the style is called in the prompt, such as "oil painting".

    Returns:
        Verdicts, each (n,).
    """
    found = [
        majority(votes(ask, "subject", subject, images)),
        majority(votes(ask, "style", style, images, words)),
    ]
    return Verdicts(*found, found[0] & found[1])


def judge_files(ask: Ask, images: Path, subject: Path, style: Path, words: str) -> dict[str, Any]:
    """Judge the images of a folder by two folders of references: what `lorarar judge` prints.

    Returns a row per image, {"file", "subject", "style", "right"}, the share that is right, and with how many
    references of how many each row's verdicts were reached.

    Raises:
        ValueError: a folder holds no image, or one that cannot be read; and as `judge` does.
    """
    from lorarar.dreambooth import image_files, read_images

    files = image_files(images)
    shown, *references = ([np.asarray(i) for i in read_images(folder)] for folder in (files, subject, style))
    counted = {
        "subject": votes(ask, "subject", references[0], shown),
        "style": votes(ask, "style", references[1], shown, words),
    }
    said = {axis: majority(voted) for axis, voted in counted.items()}
    rows = [
        {"file": Path(file).name}
        | {axis: bool(said[axis][i]) for axis in said}
        | {"right": bool(said["subject"][i] and said["style"][i])}
        | {f"{axis} votes": f"{counted[axis][i].sum()}/{counted[axis].shape[1]}" for axis in said}
        for i, file in enumerate(files)
    ]
    return {"images": rows, "right": sum(row["right"] for row in rows) / len(rows)}


# ---------------------------------------------------------------------------------------------------------
# Tables. `right` is bool (pairs, images): for each subject-style pair, which images are right.


class Entry(NamedTuple):
    """A table's entry: a share, and the ends of its confidence interval."""

    value: float
    low: float
    high: float


def _pairs(right: np.ndarray) -> np.ndarray:
    right = np.asarray(right)
    if right.ndim != 2 or right.size == 0:
        raise ValueError(
            f"expected verdicts for (pairs, images), at least one of each, not shape {right.shape}"
        )
    if right.dtype != bool and not np.isin(right, (0, 1)).all():
        raise ValueError("verdicts are true or false (0 or 1)")
    return right.astype(bool)


def by_pair(right: np.ndarray, case: Literal["average", "best"]) -> np.ndarray:
    """Score each pair, (pairs,): the share of its images that are right, or whether any is."""
    if case not in ("average", "best"):
        raise ValueError(f"no case {case!r}: choose average or best")
    right = _pairs(right)
    return right.mean(1) if case == "average" else right.any(1).astype(float)


def average_case(right: np.ndarray) -> float:
    """Share of images that are right."""
    return float(by_pair(right, "average").mean())


def best_case(right: np.ndarray) -> float:
    """Share of pairs with at least one image that is right."""
    return float(by_pair(right, "best").mean())


def bootstrap(
    scores: np.ndarray, resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Give the percentile bootstrap interval of a mean over pairs (Efron 1979): (low, high).

    Pairs are drawn with replacement, each with all its images, since images of one pair are alike. scores:
    (pairs,).
    """
    scores = np.asarray(scores, float)
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"expected one score for each pair, not shape {scores.shape}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    drawn = np.random.default_rng(seed).integers(len(scores), size=(resamples, len(scores)))
    low, high = np.quantile(scores[drawn].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def entry(right: np.ndarray, case: Literal["average", "best"], **options: Any) -> Entry:  # noqa: ANN401
    """Give a table's entry for verdicts (pairs, images); options are `bootstrap`'s."""
    scores = by_pair(right, case)
    return Entry(float(scores.mean()), *bootstrap(scores, **options))


def table(verdicts: Mapping[str, np.ndarray], **options: Any) -> dict[str, dict[str, Entry]]:  # noqa: ANN401
    """Give average and best case of each method, as {method: {"average": …, "best": …}}.

    verdicts: (pairs, images) for each method; options are `bootstrap`'s.
    """
    return {
        method: {case: entry(right, case, **options) for case in ("average", "best")}
        for method, right in verdicts.items()
    }


def difference(
    first: np.ndarray,
    second: np.ndarray,
    case: Literal["average", "best"] = "average",
    **options: Any,  # noqa: ANN401
) -> Entry:
    """Say by how much the first method is better than the second on the same pairs, with an interval.

    Narrower than the two entries' intervals suggest, for a pair that is hard is hard for both.
    """
    if len(first) != len(second):
        raise ValueError(f"methods are compared on the same pairs, not on {len(first)} and {len(second)}")
    scores = by_pair(first, case) - by_pair(second, case)
    return Entry(float(scores.mean()), *bootstrap(scores, **options))


def heat_maps(right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the two heat maps of figure A7, each (subjects, styles): shares, and whether any image is right.

    right: bool (subjects, styles, images).
    """
    right = np.asarray(right)
    if right.ndim != 3:
        raise ValueError(f"expected verdicts for (subjects, styles, images), not shape {right.shape}")
    flat = right.reshape(-1, right.shape[-1])
    maps = (by_pair(flat, case).reshape(right.shape[:2]) for case in ("average", "best"))
    return tuple(maps)
