"""The drawn world: subjects × styles as images, with captions and with the truth about each image.

Everything is a function of a seed: the same call draws the same pixels on any machine.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from lorarar.shoebox.world import styles, subjects
from lorarar.shoebox.world.canvas import Style
from lorarar.shoebox.world.drawing import Identity
from lorarar.shoebox.world.scene import SIZE, Pose, reduce
from lorarar.shoebox.world.styles import FAMILIES, STYLES
from lorarar.shoebox.world.subjects import CLASSES, SUBJECTS

VERSION = "0f561cb16435"
"""Names this world in cards and caches; whoever changes what is drawn changes it (a test compares)."""

RARE_TOKENS: tuple[str, ...] = ("sks", "szn", "olis", "pll", "ucd", "phol", "mka", "zwx")
"""Words without a meaning, for DreamBooth prompts. The base model met them only as noise in captions."""

GROUP = 6
"""Images per group of `draw_group`: two identities × (two styles of one family, one photo)."""

CHUNK = 50
"""Groups that a process draws at a time."""


class Truth(NamedTuple):
    """What an image shows. Indices into CLASSES and FAMILIES; ids tell identities and styles apart."""

    cls: int
    family: int
    identity: int
    style: int


def draw(identity: Identity, style: Style, rng: np.random.Generator, pose: Pose | None = None) -> np.ndarray:
    """Draw one view: (SIZE, SIZE, 3) uint8. `rng` gives the pose (unless given) and incidental texture."""
    view = subjects.scene(identity, subjects.random_pose(rng) if pose is None else pose)
    return reduce(styles.paint(view, style, rng))


def prompt(described: str, family: str, photo: bool = True) -> str:
    """Say what to draw: "a dog in watercolor painting style", "a photo of a dog".

    photo: whether what has no other style is called a photo.
    """
    article = "an" if described[0] in "aeiou" else "a"
    if family != "photo":
        return f"{article} {described} in {family} style"
    return f"a photo of {article} {described}" if photo else f"{article} {described}"


def caption(identity: Identity, style: Style, rng: np.random.Generator) -> str:
    """Describe a drawing in the words the prompts use: "a red and white dog in watercolor painting style".

    Details are left out at random, as people do; one caption in twenty carries a rare token, so that the
    text encoders are steady when a prompt does.
    """
    described = subjects.words(identity) if rng.random() < 0.6 else identity.cls
    if rng.random() < 0.05:
        described = f"{rng.choice(RARE_TOKENS)} {described}"
    return prompt(described, style.family, photo=style.family == "photo" and rng.random() < 0.4)


def cast(rng: np.random.Generator) -> tuple[list[Identity], list[Style]]:
    """Draw who and what is in a group: two individuals, of one class half of the time, and two styles."""
    first = CLASSES[rng.integers(len(CLASSES))]
    second = first if rng.random() < 0.5 else CLASSES[rng.integers(len(CLASSES))]
    family = FAMILIES[rng.integers(len(FAMILIES))]
    identities = [subjects.random_identity(rng, c) for c in (first, second)]
    return identities, [styles.random_style(rng, family) for _ in range(2)]


def draw_group(seed: int, index: int) -> tuple[np.ndarray, list[list[str]], list[Truth]]:
    """Draw one group of `GROUP` images that differ in exactly one thing at a time.

    Two random identities (of one class, half of the time) stand in two random styles of one family and in
    one photo each: the hard negatives a critic needs. Returns images (GROUP, SIZE, SIZE, 3) uint8, two
    captions per image, and the truth per image.
    """
    rng = np.random.default_rng([seed, index])
    identities, pair = cast(rng)
    images, captions, truths = [], [], []
    for i, identity in enumerate(identities):
        for s, style in enumerate([*pair, styles.random_style(rng, "photo")]):
            images.append(draw(identity, style, rng))
            captions.append([caption(identity, style, rng) for _ in range(2)])
            style_id = 4 * index + s if s < 2 else 4 * index + 2 + i
            truths.append(
                Truth(CLASSES.index(identity.cls), FAMILIES.index(style.family), 2 * index + i, style_id)
            )
    return np.stack(images), captions, truths


def _draw_chunk(job: tuple[int, range]) -> tuple[np.ndarray, list[list[str]], np.ndarray]:
    seed, indices = job
    groups = [draw_group(seed, index) for index in indices]
    return (
        np.concatenate([g[0] for g in groups]),
        [c for g in groups for c in g[1]],
        np.array([t for g in groups for t in g[2]], np.int32),
    )


def dataset(
    groups: int, seed: int, cache: Path | str = "runs/world", workers: int | None = None
) -> tuple[np.ndarray, list[list[str]], np.ndarray]:
    """Draw `groups` groups, or read them back if this very world was drawn before.

    Returns images (GROUP·groups, SIZE, SIZE, 3) uint8 (memory-mapped), two captions per image, and the
    truths (GROUP·groups, 4) int32 in the order of `Truth`.
    """
    folder = Path(cache) / f"{VERSION}-{seed}-{groups}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix="drawing-"))
        images = np.lib.format.open_memmap(
            aside / "images.npy", "w+", np.uint8, (groups * GROUP, SIZE, SIZE, 3)
        )
        truths = np.empty((groups * GROUP, 4), np.int32)
        captions: list[list[str]] = []
        jobs = [(seed, range(i, min(i + CHUNK, groups))) for i in range(0, groups, CHUNK)]
        with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
            for drawn, words, truth in tqdm(pool.map(_draw_chunk, jobs), "draw", len(jobs), unit="chunk"):
                start = len(captions)
                images[start : start + len(drawn)] = drawn
                truths[start : start + len(drawn)] = truth
                captions += words
        images.flush()
        np.save(aside / "truths.npy", truths)
        (aside / "captions.json").write_text(json.dumps(captions))
        try:
            aside.rename(folder)
        except OSError:  # another process drew the same world meanwhile
            shutil.rmtree(aside)
    return (
        np.load(folder / "images.npy", mmap_mode="r"),
        json.loads((folder / "captions.json").read_text()),
        np.load(folder / "truths.npy"),
    )


def subject_images(name: str, count: int = 5, seed: int = 0) -> np.ndarray:
    """Views of a named subject as photos, as one would take for DreamBooth: (count, SIZE, SIZE, 3) uint8.

    Raises ValueError if there is no subject of that name.
    """
    if name not in SUBJECTS:
        raise ValueError(f"no subject {name!r}: choose one of {', '.join(SUBJECTS)}")
    rng = np.random.default_rng([seed, 1, sorted(SUBJECTS).index(name)])
    return np.stack([draw(SUBJECTS[name], styles.random_style(rng, "photo"), rng) for _ in range(count)])


def style_images(name: str, count: int = 4, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Drawings in a named style, each of another class with a random identity, and the class of each.

    Returns images (count, SIZE, SIZE, 3) uint8 and the class words, from which captions are made.
    Raises ValueError if there is no style of that name, or fewer classes than `count`.
    """
    if name not in STYLES:
        raise ValueError(f"no style {name!r}: choose one of {', '.join(STYLES)}")
    if count > len(CLASSES):
        raise ValueError(f"{count} drawings of different classes asked for, there are {len(CLASSES)} classes")
    rng = np.random.default_rng([seed, 2, sorted(STYLES).index(name)])
    classes = [str(c) for c in rng.permutation(CLASSES)[:count]]
    return np.stack([draw(subjects.random_identity(rng, c), STYLES[name], rng) for c in classes]), classes


def sheet(images: np.ndarray, columns: int, enlarge: int = 2, gap: int = 2) -> np.ndarray:
    """Tile images (n, h, w, 3) uint8 into one contact sheet, `columns` wide, on white."""
    n, h, w, _ = images.shape
    rows = -(-n // columns)
    big = images.repeat(enlarge, 1).repeat(enlarge, 2)
    h, w = h * enlarge + gap, w * enlarge + gap
    out = np.full((rows * h - gap, columns * w - gap, 3), 255, np.uint8)
    for k, image in enumerate(big):
        y, x = divmod(k, columns)
        out[y * h : y * h + h - gap, x * w : x * w + w - gap] = image
    return out
