"""A judge behind an endpoint that speaks OpenAI's protocol."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from lorarar.judging.mars2 import SYSTEM, Ask, Question, conversation, meant, shorten, shown
from lorarar.judging.wordings import WORDINGS
from lorarar.options import JudgeOptions


def served_judge(
    url: str,
    options: JudgeOptions | None = None,
    *,
    key: str | None = None,
    progress: bool = False,
    **changes: Any,
) -> Ask:
    """Take a judge that is served in OpenAI's format, as by `vllm serve MODEL` or `transformers serve`.

    Requests go through OpenAI's own client, which tries again after a broken connection, half an answer, a
    timeout, and the statuses 408, 409, 429 and 5xx, and waits as long as the server asks for.

    Args:
        url: up to and with the version, as in ``http://localhost:8000/v1``.
        options: `lorarar.options.JudgeOptions`.
        key: sent as the bearer token; None takes ``$OPENAI_API_KEY`` if set.
        progress: show a bar.
        **changes: single options by name, which take precedence.

    Raises:
        ValueError: in one line: an option is out of range; or, when the judge is first asked: the server
            cannot be reached, refuses, fails, is too slow, or answers in another format.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"judge {url}: expected an address such as http://localhost:8000/v1")
    o = JudgeOptions.of(options, **changes)
    import openai

    url = url.rstrip("/")
    client = openai.OpenAI(
        base_url=url,
        # It wants a key, also for servers that want none.
        api_key=key or os.environ.get("OPENAI_API_KEY") or "none",
        timeout=o.timeout,
        max_retries=o.tries - 1,
    )
    name = o.model

    def call(path: str, request: Callable[[], Any], part: Callable[[Any], Any], expected: str) -> str:
        """Send a request and take a part, which is text, of the reply."""
        after = f" ({o.tries} tries)" if o.tries > 1 else ""
        try:
            reply = request()
        except openai.APITimeoutError:
            reason = f"no answer within {o.timeout:g} s{after}"
        except openai.APIConnectionError as error:
            reason = f"{first_line(error.__cause__ or error)}{after}"
        except openai.APIStatusError as error:
            again = error.status_code in (408, 409, 429) or error.status_code >= 500
            reason = f"HTTP {error.status_code} {_said_by(error)}{after if again else ''}"
        except json.JSONDecodeError as error:
            reason = f"expected JSON in OpenAI's format, got {shorten(error.doc)}"
        else:
            try:
                said = part(reply)
            except (AttributeError, IndexError, KeyError, TypeError):
                said = None
            if isinstance(said, str):
                return said
            if isinstance(reply, str):
                expected, text = "JSON in OpenAI's format", reply
            else:
                text = reply.to_json(indent=None) if hasattr(reply, "to_json") else json.dumps(reply)
            reason = f"expected {expected}, got {shorten(text)}"
        raise ValueError(f"judge {url}{path}: {reason}") from None

    def answer(question: Question) -> str:
        wording = WORDINGS[o.wording]
        pictures = iter(shown(question, wording))
        messages = conversation(
            question.axis,
            question.style,
            lambda: {"type": "image_url", "image_url": {"url": data_url(next(pictures))}},
            wording,
        )
        messages[0]["content"] = SYSTEM  # not every server takes parts there
        said = call(
            "/chat/completions",
            lambda: client.chat.completions.create(
                model=name, messages=messages, temperature=o.temperature, max_tokens=8
            ),
            lambda reply: reply.choices[0].message.content,
            "choices[0].message.content",
        )
        return meant(said.strip(), wording)

    def ask(questions: Sequence[Question]) -> list[str]:
        nonlocal name
        if name is None:
            name = call(
                "/models",
                client.models.list,
                lambda reply: reply.data[0].id,
                "a list of models (or name the model)",
            )
        pool = ThreadPoolExecutor(o.parallel)
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


def _said_by(error: Any) -> str:  # noqa: ANN401 - openai.APIStatusError, which is not imported here
    """Return what a server wrote about its refusal, in a few words."""
    body = error.body
    said = body.get("message", body) if isinstance(body, dict) else body
    return shorten(str(said)) if said else str(error.response.reason_phrase)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that is not blank."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
