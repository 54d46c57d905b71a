"""Adapters with the pictures and captions they were trained on, as both optimisations take them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lorarar.images import Images, image_files, read_images
from lorarar.lora import LoRA, load_lora
from lorarar.train.pictures import read_captions


@dataclass(frozen=True)
class Trained:
    """A LoRA with what it was trained on: images, and one prompt for all or a caption for each.

    ``name`` is what errors call it.
    """

    lora: LoRA
    images: Images
    prompt: str | Sequence[str]
    name: str = "the LoRA"


def read_trained(
    lora: str | Path, images: str | Path, prompt: str | None = None, captions: str | Path | None = None
) -> Trained:
    """Read a LoRA file, a folder of images, and one prompt or a file of captions (`read_captions`).

    Raises:
        ValueError: in one line, if one of them cannot be used, or not just one of the last two is given.
    """
    files = image_files(images)
    if (prompt is None) == (captions is None):
        raise ValueError(f"{lora}: give either the prompt it was trained with, or a file of captions")
    words = prompt if captions is None else read_captions(captions, [file.name for file in files])
    return Trained(load_lora(lora), read_images(files), words, Path(lora).name)


def read_list(file: str | Path) -> list[Trained]:
    """Read LoRAs with their images from JSON lines of ``{"lora": …, "images": …, "prompt": …}``.

    Instead of a prompt, ``"captions"`` names a file of captions. Paths are relative to the list's folder.

    Raises:
        ValueError: in one line, if the list or something it names cannot be used.
    """
    file = Path(file)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the list {file}: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            known = isinstance(entry, dict) and all(isinstance(value, str) for value in entry.values())
        except ValueError:
            known = False
        if not known or not {"lora", "images"} <= set(entry) <= {"lora", "images", "prompt", "captions"}:
            raise ValueError(
                f'{file}, line {number}: expected {{"lora": "…", "images": "…", "prompt": "…"}}, '
                f"found {line[:80]!r}"
            )
        places = {key: file.parent / value for key, value in entry.items() if key != "prompt"}
        try:
            found.append(read_trained(**places, prompt=entry.get("prompt")))
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {error}") from error
    if not found:
        raise ValueError(f"{file}: names no LoRA")
    return found


def opened(trained: Trained) -> Trained:
    """Return it with its images read, and as many captions. Raises ValueError, with its name, if not so."""
    try:
        images = read_images(trained.images)
        words = trained.prompt
        if not isinstance(words, str) and len(words) != len(images):
            raise ValueError(f"{len(words)} captions for {len(images)} images")
    except ValueError as error:
        raise ValueError(f"{trained.name}: {error}") from error
    return replace(trained, images=images)


def fingerprint(trained: Trained) -> str:
    """Return the SHA-256 of a LoRA's factors, its images (read) and its prompts."""
    digest = hashlib.sha256(repr(trained.prompt).encode())
    for image in trained.images:
        digest.update(image.tobytes())
    for layer in sorted(trained.lora):
        digest.update(layer.encode())
        for factor in trained.lora[layer]:
            digest.update(factor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
