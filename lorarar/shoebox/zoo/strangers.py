"""Strangers: individuals and styles that nobody has named, drawn by the world's generators into folders.

The named ones are few, thirty and twenty-six, and every choice of the project was made beside them. Here are
as many others as one likes, none of them near a named one, in the form of one's own pictures
(`lorarar.collection.Folders`): ``lorarar zoo train --world DIR`` and ``lorarar study … --world DIR`` take it
from there.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from lorarar.collection import DRAWN_BY
from lorarar.options import SPLITS
from lorarar.shoebox.world import styles, subjects, world
from lorarar.shoebox.zoo.names import RARE, REFERENCES, VIEWS, slug

SIZES = 20, 10
"""How many individuals and styles a large test has: every one with every other makes 200 pairs."""


def draw(root: Path, individuals: int = SIZES[0], looks: int = SIZES[1], *, seed: int, split: str) -> Path:
    """Draw a world of strangers: pictures to train on, references for a judge, captions and ``world.json``.

    Classes and families come in random order, each once before any comes twice. As many pictures are drawn as
    for the zoo: five photos of an individual, twelve drawings in a style.

    Args:
        root: the folder to write, new or empty.
        individuals: how many subjects.
        looks: how many styles.
        seed: of all that is drawn. Another seed's strangers are others.
        split: of all of them, one of `lorarar.options.SPLITS`.

    Returns:
        ``root``.

    Raises:
        ValueError: a number below 1, no such split, or a folder that holds something.
    """
    if individuals < 1 or looks < 1:
        raise ValueError(f"a world needs at least 1 individual and 1 style, not {individuals} and {looks}")
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: choose one of {', '.join(SPLITS)}")
    if root.exists() and any(root.iterdir()):
        raise ValueError(f"{root}: holds something already; name a new folder")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".drawing-") as aside:
        _draw(Path(aside) / root.name, individuals, looks, seed, split)
        if root.exists():  # and is empty
            root.rmdir()
        (Path(aside) / root.name).rename(root)
    return root


def _draw(root: Path, individuals: int, looks: int, seed: int, split: str) -> None:
    rng = np.random.default_rng([seed, 5])
    said: dict[str, dict[str, dict[str, str]]] = {"subjects": {}, "styles": {}}
    for number, cls in enumerate(_in_turn(rng, subjects.CLASSES, individuals)):
        name = f"{slug(cls)}-{number:03}"
        said["subjects"][name] = {"class": cls, "split": split}
        who = subjects.random_identity(rng, cls)
        for place, count in _places(root / "subjects" / name, "subject"):
            photos = [world.draw(who, styles.random_style(rng, "photo"), rng) for _ in range(count)]
            _write(place, photos, [f"a {RARE} {cls}"] * count)
    families = tuple(family for family in styles.FAMILIES if family != "photo")
    for number, family in enumerate(_in_turn(rng, families, looks)):
        name = f"{slug(family)}-{number:03}"
        said["styles"][name] = {"words": family, "split": split}
        look = styles.random_style(rng, family)
        for place, count in _places(root / "styles" / name, "style"):
            classes = [str(cls) for cls in rng.permutation(subjects.CLASSES)[:count]]
            drawings = [world.draw(subjects.random_identity(rng, cls), look, rng) for cls in classes]
            _write(place, drawings, [world.prompt(cls, family) for cls in classes])
    (root / "world.json").write_text(
        json.dumps({DRAWN_BY: world.VERSION, "seed": seed, **said}, indent=1) + "\n"
    )


def _in_turn(rng: np.random.Generator, words: tuple[str, ...], count: int) -> list[str]:
    """Return ``count`` of the words in random order, each once before any comes twice."""
    rounds = [rng.permutation(words) for _ in range(-(-count // len(words)))]
    return [str(word) for word in np.concatenate(rounds)[:count]]


def _places(folder: Path, axis: str) -> list[tuple[Path, int]]:
    """Return where pictures to train on and references lie, and how many there are of each."""
    return [(folder, VIEWS[axis]), (folder / "references", REFERENCES[axis])]


def _write(folder: Path, pictures: list[np.ndarray], captions: list[str]) -> None:
    """Write pictures with their captions, as a training reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        Image.fromarray(picture).save(folder / f"{number:02}.png")
        lines.append({"file_name": f"{number:02}.png", "text": caption})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
