"""Which judge, and what it is given: an address or a folder, remembered answers, folders of images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lorarar.judging.local import local_judge
from lorarar.judging.mars2 import Ask, Question, majority, votes
from lorarar.judging.served import served_judge
from lorarar.options import JudgeOptions


def find_judge(
    source: str | Path,
    options: JudgeOptions | None = None,
    *,
    device: str | None = None,
    key: str | None = None,
    progress: bool = False,
    **changes: Any,
) -> Ask:
    """Take the judge behind an address (`served_judge`), or in a folder or on the hub (`local_judge`).

    Raises:
        ValueError: a model is named for a judge that is not served; and as the two do.
    """
    o = JudgeOptions.of(options, **changes)
    if str(source).startswith(("http://", "https://")):
        return served_judge(str(source), o, key=key, progress=progress)
    if o.model:
        raise ValueError("--model goes with the address of a server; give a model's folder to --judge")
    return local_judge(source, device, o, progress=progress)


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


def judge_files(ask: Ask, images: Path, subject: Path, style: Path, words: str) -> dict[str, Any]:
    """Judge the images of a folder by two folders of references: what `lorarar judge` prints.

    Returns a row per image, {"file", "subject", "style", "right"}, the share that is right, and with how many
    references of how many each row's verdicts were reached.

    Raises:
        ValueError: a folder holds no image, or one that cannot be read; and as `judge` does.
    """
    from lorarar.images import image_files, read_images

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
