"""A judge behind an endpoint that speaks OpenAI's protocol."""

from __future__ import annotations

import base64
import http.client
import io
import json
import math
import os
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from lorarar.judging.mars2 import SYSTEM, Ask, Question, conversation, shorten


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
                reason = f"no answer within {timeout:g} s" if slow else first_line(error)
                final = isinstance(error, ValueError)  # an address that cannot be one
            if final or attempt == tries:
                after = "" if attempt == 1 else f" ({attempt} tries)"
                raise ValueError(f"judge {url}{path}: {reason}{after}")
            time.sleep(wait * 2 ** (attempt - 1))
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            raise ValueError(
                f"judge {url}{path}: expected JSON in OpenAI's format, got {shorten(text)}"
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
                f"{shorten(json.dumps(reply))}"
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
                    f"judge {url}/models: expected a list of models, got {shorten(json.dumps(reply))}; "
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
        return shorten(str(said.get("message", said) if isinstance(said, dict) else said))
    except (json.JSONDecodeError, AttributeError):
        return shorten(text) if text.strip() else str(error.reason)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that is not blank."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
