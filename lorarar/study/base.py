"""The base model examined: what it draws from words, and what a CLIP and a critic say of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from lorarar.pipelines import generate
from lorarar.scales import data_folder
from lorarar.shoebox import zoo
from lorarar.shoebox.models.loop import to_unit
from lorarar.shoebox.world import styles, subjects, world
from lorarar.shoebox.world.scene import SIZE
from lorarar.shoebox.world.styles import FAMILIES, random_style
from lorarar.shoebox.world.subjects import CLASSES, SUBJECTS, random_identity

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from transformers import CLIPModel, CLIPTokenizer

    from lorarar.shoebox.models.critic import Critic

HOME = data_folder() / "shoebox"
Cell = tuple[str, str]
"""A class and a family."""

NAMED = ("dog #8", "cat #2", "wolf plushie", "teapot", "can", "clock")
HANDS = (
    "3D rendering #2", "oil painting #1", "watercolor painting #1", "watercolor painting #3",
    "flat cartoon illustration #2", "glowing",
)  # fmt: skip
"""Six subjects and six styles on which words are tried."""


def card(model: str) -> dict:
    """Return the card of a miniature, which lies beside its weights."""
    return json.loads((HOME / model / "card.json").read_text())


def fresh_drawings(per_family: int, rng: np.random.Generator) -> tuple[np.ndarray, list[Cell]]:
    """Draw random identities in random styles, each family equally often, classes in turn."""
    cells = [
        (CLASSES[(per_family * j + 3 * i) % len(CLASSES)], family)
        for i, family in enumerate(FAMILIES)
        for j in range(per_family)
    ]
    drawn = [world.draw(random_identity(rng, c), random_style(rng, f), rng) for c, f in cells]
    return np.stack(drawn), cells


def photos(each: int, rng: np.random.Generator) -> np.ndarray:
    """Draw photos of random identities, `each` of every class, the classes in turn."""
    cells = [c for _ in range(each) for c in CLASSES]
    return np.stack([world.draw(random_identity(rng, c), random_style(rng, "photo"), rng) for c in cells])


def resized(images: np.ndarray, side: int = SIZE) -> np.ndarray:
    """Bring images (n, h, w, 3) to a side; the shoebox's are of it already."""
    if images.shape[1] == side:
        return images
    return np.stack([np.asarray(Image.fromarray(x).resize((side, side))) for x in images])


class Clip:
    """The miniature CLIP."""

    def __init__(self) -> None:
        from transformers import CLIPModel, CLIPTokenizer

        self.model: CLIPModel = CLIPModel.from_pretrained(HOME / "clip", dtype=torch.float32).eval()
        self.tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(HOME / "clip")

    @torch.no_grad()
    def cosines(self, images: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Return the cosine of every image with every text: (images, texts)."""
        words = self.tokenizer(list(texts), padding="max_length", return_tensors="pt").input_ids
        seen = self.model(input_ids=words, pixel_values=to_unit(resized(images)))
        return (seen.image_embeds @ seen.text_embeds.T).numpy()

    @torch.no_grad()
    def vectors(self, images: np.ndarray) -> np.ndarray:
        """Return a vector of length one for every image: (images, width)."""
        seen = self.model.get_image_features(pixel_values=to_unit(resized(images))).pooler_output
        return torch.nn.functional.normalize(seen, dim=-1).numpy()


def names_rightly(answers: Sequence[np.ndarray], cells: Sequence[Cell]) -> tuple[np.ndarray, np.ndarray]:
    """Tell where the likeliest class, and the likeliest family, is the true one: (n,) bool each."""
    classes, families = (np.asarray(answer).argmax(1) for answer in answers)
    truth = [CLASSES.index(c) for c, _ in cells], [FAMILIES.index(f) for _, f in cells]
    return classes == np.array(truth[0]), families == np.array(truth[1])


def near_and_varied(
    clip: Clip, images: Mapping[tuple[str, float], np.ndarray]
) -> dict[float, dict[str, float]]:
    """Measure images of several prompts and guidance scales.

    Args:
        clip: that measures.
        images: (n, h, w, 3) by (prompt, scale), two or more of each.

    Returns:
        {scale: {"near": mean cosine of images with their words, "varied": mean 1 − cosine of two images of
        equal words, "contrast": mean standard deviation of an image's pixels}}.
    """
    found: dict[float, dict[str, float]] = {}
    for scale in sorted({w for _, w in images}):
        near, varied, contrast = [], [], []
        for words, pictures in ((p, x) for (p, w), x in images.items() if w == scale):
            vectors = clip.vectors(pictures)
            near.append(clip.cosines(pictures, [words]).mean())
            varied.append((1 - vectors @ vectors.T)[np.triu_indices(len(vectors), 1)].mean())
            contrast.append(pictures.std((1, 2, 3)).mean())
        means = (float(np.mean(values)) for values in (near, varied, contrast))
        found[scale] = dict(zip(("near", "varied", "contrast"), means, strict=True))
    return found


def recorded_sheet() -> tuple[np.ndarray, list[Cell]]:
    """Return the recorded pictures of the base model, one for every class in every family, and the cells."""
    cells = [(c, f) for c in CLASSES for f in FAMILIES]
    sheet = np.asarray(Image.open(HOME / "base" / "sheet.webp").convert("RGB"))
    side = SIZE + 2  # the sheet's cells stand two pixels apart
    sheet = np.pad(sheet, ((0, 2), (0, 2), (0, 0))).reshape(len(CLASSES), side, len(FAMILIES), side, 3)
    return sheet.swapaxes(1, 2)[:, :, :SIZE, :SIZE].reshape(len(cells), SIZE, SIZE, 3), cells


def strangers(name: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw photos of others of a subject's class, or things in other styles of a style's family."""
    drawn = []
    for _ in range(count):
        subject = name in SUBJECTS
        cls = SUBJECTS[name].cls if subject else str(rng.choice(CLASSES))
        family = "photo" if subject else styles.family(name)
        drawn.append(world.draw(random_identity(rng, cls), random_style(rng, family), rng))
    return np.stack(drawn)


def described(pipe: DiffusionPipeline, tries: int) -> dict[str, np.ndarray]:
    """Let the base model draw each of `NAMED` and `HANDS` from words: {name: (tries, h, w, 3)}."""
    things = ("dog", "teapot", "robot toy", "clock")
    images = {}
    for at, name in enumerate([*NAMED, *HANDS]):
        if name in SUBJECTS:
            prompts = [f"a photo of a {subjects.words(SUBJECTS[name])}"] * tries
        else:
            prompts = [world.prompt(things[i % len(things)], styles.family(name)) for i in range(tries)]
        images[name] = resized(generate(pipe, prompts, range(300 + 10 * at, 300 + 10 * at + tries)))
    return images


def accepted_shares(
    critic: Critic, told: Mapping[str, np.ndarray], views: int, rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Return what the critic accepts: {axis: {"again", "strangers", "words": share}}."""
    shares: dict[str, dict[str, float]] = {}
    for axis, names in (("subject", NAMED), ("style", HANDS)):
        answers: dict[str, list[bool]] = {"again": [], "strangers": [], "words": []}
        for name in names:
            tried = {
                "again": zoo.pictures(name, views, seed=2)[0],
                "strangers": strangers(name, views, rng),
                "words": told[name],
            }
            for what, images in tried.items():
                answers[what].extend(zoo.shows(critic, name, images))
        shares[axis] = {what: float(np.mean(answer)) for what, answer in answers.items()}
    return shares
