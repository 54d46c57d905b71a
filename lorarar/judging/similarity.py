"""CLIP-I, DINO and CLIP-T: cosine similarities of images with references and with prompts (table A2).

The same code takes the shoebox's miniatures and the public models of the papers. As the supplement says
(§A2.1), DINO is highest where the subject's references are copied, CLIP-I where the style's are: neither
measures a subject in a style, which is why there is a judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from lorarar.pipelines import find_device, quiet


class Encoder(NamedTuple):
    """A model that turns images, and if it is a CLIP also texts, into vectors."""

    model: nn.Module
    images: object
    words: object | None


def load_encoder(source: str | Path, device: str | torch.device | None = None) -> Encoder:
    """Load a CLIP, or a vision transformer such as DINO's, from a folder or the hub, in float32.

    Raises:
        ValueError: in one line, if there is no such model.
    """
    where = find_device(device)
    with quiet():
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        try:
            model = AutoModel.from_pretrained(source, dtype=torch.float32)
            images = AutoImageProcessor.from_pretrained(source)
            words = AutoTokenizer.from_pretrained(source) if hasattr(model, "get_text_features") else None
        except Exception as error:  # the hub, safetensors and transformers raise anything here
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
            raise ValueError(f"cannot load {source} to compare images with: {reason}") from error
    return Encoder(model.to(where).eval(), images, words)


@torch.inference_mode()
def embed_images(encoder: Encoder, images: Sequence[np.ndarray] | np.ndarray, batch_size: int = 64) -> Tensor:
    """Turn images, n of (h, w, 3) uint8, into unit vectors (n, d) on the CPU.

    CLIP's are those of its joint space, a vision transformer's the last hidden state of the class token, as
    DreamBooth takes DINO's.
    """
    model = encoder.model
    parts = []
    for start in range(0, len(images), batch_size):
        some = [Image.fromarray(image) for image in images[start : start + batch_size]]
        pixels = encoder.images(images=some, return_tensors="pt").pixel_values.to(model.device)
        if hasattr(model, "get_image_features"):
            vectors = model.get_image_features(pixel_values=pixels)
            vectors = getattr(vectors, "pooler_output", vectors)  # a bare tensor before transformers 5
        else:
            vectors = model(pixel_values=pixels).last_hidden_state[:, 0]
        parts.append(F.normalize(vectors.float(), dim=-1).cpu())
    if not parts:
        raise ValueError("no images to compare")
    return torch.cat(parts)


@torch.inference_mode()
def embed_texts(encoder: Encoder, texts: Sequence[str]) -> Tensor:
    """Turn texts into unit vectors (n, d) in CLIP's joint space, on the CPU.

    Raises:
        ValueError: the model takes no text.
    """
    if encoder.words is None:
        raise ValueError(f"CLIP-T needs a CLIP: a {type(encoder.model).__name__} takes no text")
    ids = encoder.words(list(texts), padding=True, truncation=True, return_tensors="pt")
    ids = {name: ids[name].to(encoder.model.device) for name in ("input_ids", "attention_mask")}
    vectors = encoder.model.get_text_features(**ids)
    return F.normalize(getattr(vectors, "pooler_output", vectors).float(), dim=-1).cpu()


def image_similarity(
    encoder: Encoder, images: Sequence[np.ndarray] | np.ndarray, references: Sequence[np.ndarray] | np.ndarray
) -> np.ndarray:
    """Give each image's mean cosine with the references, (n,): CLIP-I with a CLIP, DINO with a DINO.

    images (n, h, w, 3), references (m, h', w', 3) uint8: the style's for CLIP-I, the subject's for DINO.
    """
    return (embed_images(encoder, images) @ embed_images(encoder, references).T).mean(1).numpy()


def text_similarity(
    encoder: Encoder, images: Sequence[np.ndarray] | np.ndarray, texts: str | Sequence[str]
) -> np.ndarray:
    """Give each image's cosine with its prompt, (n,): CLIP-T. One text serves all images.

    Raises:
        ValueError: neither one text nor one for each image.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    if len(texts) not in (1, len(images)):
        raise ValueError(f"{len(texts)} texts for {len(images)} images: give one for each, or one for all")
    return (embed_images(encoder, images) * embed_texts(encoder, texts)).sum(1).numpy()


def measure_files(
    clip: Encoder, dino: Encoder, images: Path, subject: Path, style: Path, prompt: str
) -> dict[str, float]:
    """Give the means of CLIP-I, DINO and CLIP-T over a folder's images: what `lorarar metrics` prints.

    subject, style: folders of references.

    Raises:
        ValueError: a folder holds no image, or one that cannot be read.
    """
    from lorarar.images import read_images

    shown, *references = ([np.asarray(i) for i in read_images(folder)] for folder in (images, subject, style))
    found = {
        "CLIP-I": image_similarity(clip, shown, references[1]),
        "DINO": image_similarity(dino, shown, references[0]),
        "CLIP-T": text_similarity(clip, shown, prompt),
    }
    return {name: float(values.mean()) for name, values in found.items()}
