"""One order, six deliveries whose truth is known: what judges and metrics are tried on.

An order is a subject in a style. The world draws what was ordered, and five pictures that are wrong in five
ways; a judge or a metric that is fit for the experiment prefers the first to each of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from lorarar.judging import Encoder, image_similarity, text_similarity
from lorarar.shoebox import zoo
from lorarar.shoebox.world import styles, subjects, world

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

WRONG = ("other subject", "other style", "photo", "other thing", "neither")
"""In which way deliveries two to six are wrong; "photo" ignores the style, "other thing" the subject."""


def references(name: str) -> np.ndarray:
    """Return what judges compare with: pictures of a subject or style that no LoRA was trained on."""
    return zoo.pictures(name, seed=1)[0]


def deliveries(subject: str, style: str, rng: np.random.Generator) -> np.ndarray:
    """Draw six deliveries for an order, the right one first, then as in `WRONG`: (6, h, w, 3) uint8.

    The first four share a pose. The rival subject is of the same class, the rival style of the same family.
    """
    who, how = subjects.SUBJECTS[subject], styles.STYLES[style]
    rivals = [subjects.SUBJECTS[name] for name in zoo.rivals(subject)]
    rivals.append(subjects.random_identity(rng, who.cls))
    manners = [styles.STYLES[name] for name in zoo.rivals(style)]
    manners.append(styles.random_style(rng, how.family))
    photo = styles.random_style(rng, "photo")
    other = rng.choice([cls for cls in subjects.CLASSES if cls != who.cls])
    thing = subjects.random_identity(rng, str(other))
    pose = subjects.random_pose(rng)
    return np.stack(
        [
            world.draw(who, how, rng, pose),
            world.draw(rivals[0], how, rng, pose),
            world.draw(who, manners[0], rng, pose),
            world.draw(who, photo, rng, pose),
            world.draw(thing, how, rng),
            world.draw(rivals[-1], photo, rng),
        ]
    )


def prefers(scores: np.ndarray) -> np.ndarray:
    """Return how often the right delivery scores higher than each wrong one, a tie counting half.

    Args:
        scores: (orders, 6), the right delivery first; verdicts are scores of 0 and 1.

    Returns:
        (5,) shares, as in `WRONG`.
    """
    right, wrong = scores[:, :1], scores[:, 1:]
    return ((right > wrong) + 0.5 * (right == wrong)).mean(0)


def picks(scores: np.ndarray) -> np.ndarray:
    """Return whether the right delivery scores highest of six, ties shared: (orders, 6) to (orders,)."""
    top = scores >= scores.max(1, keepdims=True) - 1e-12
    return (top / top.sum(1, keepdims=True))[:, 0]


@torch.no_grad()
def through_vae(vae: AutoencoderKL, images: np.ndarray) -> np.ndarray:
    """Return what is left of images (n, h, w, 3) uint8 when they have been coded and decoded by the VAE."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(vae.device, vae.dtype) / 127.5 - 1
    back = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.float().cpu()
    return ((back.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def scored(
    pairs: Sequence[tuple[str, str]],
    shows: Mapping[str, Callable[[str, np.ndarray], np.ndarray]],
    clip: Encoder,
    dino: Encoder,
    seed: int = 0,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Draw the six deliveries of each pair, and let judges and metrics score them.

    Args:
        pairs: of a subject and a style.
        shows: {judge: which images show the subject or style of that name}; subject and style score 1.
        clip: for CLIP-I and CLIP-T.
        dino: for DINO.
        seed: of the drawings.

    Returns:
        {score: (pairs, 6)}, the right delivery first, "sum of three" among them; and {metric: (pairs,)}, by
        how much a reference that is simply copied scores higher than the right delivery.
    """
    rng = np.random.default_rng([seed, 10])
    rows: list[dict[str, np.ndarray]] = []
    copies: dict[str, list[float]] = {"CLIP-I": [], "DINO": []}
    for subject, style in pairs:
        images = deliveries(subject, style, rng)
        photos, drawings = references(subject), references(style)
        row = {
            "CLIP-I": image_similarity(clip, images, drawings),
            "DINO": image_similarity(dino, images, photos),
            "CLIP-T": text_similarity(clip, images, zoo.words(style=style, cls=zoo.class_of(subject))),
        }
        row["sum of three"] = row["CLIP-I"] + row["DINO"] + row["CLIP-T"]
        row |= {name: judge(subject, images) & judge(style, images) for name, judge in shows.items()}
        rows.append(row)
        for metric, encoder, own in (("CLIP-I", clip, drawings), ("DINO", dino, photos)):
            copies[metric].append(float(image_similarity(encoder, own[:1], own)[0] - row[metric][0]))
    tables = {score: np.stack([row[score] for row in rows]).astype(float) for score in rows[0]}
    return tables, {metric: np.array(values) for metric, values in copies.items()}
