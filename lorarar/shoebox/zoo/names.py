"""The names of the zoo: which files, words and pictures belong to a subject or a style."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lorarar.lora import LoRA, load_lora
from lorarar.scales import Scale, data_folder, find_scale
from lorarar.shoebox.world import styles, subjects, world

RARE = world.RARE_TOKENS[0]

VIEWS = {"subject": 5, "style": 12}
"""How many pictures a LoRA is trained on."""

REFERENCES = {"subject": 5, "style": 4}
"""How many other pictures of the same a judge compares an image with."""

FIRST = ("dog #2", "clock", "bear plushie", "3D rendering #2", "oil painting #1", "watercolor painting #1")
"""The validation subjects and styles that the first chapters use."""


def axis(name: str) -> str:
    """Return what a name is, "subject" or "style". Raises ValueError, with all names, for others."""
    if name in subjects.SUBJECTS:
        return "subject"
    if name in styles.STYLES:
        return "style"
    known = ", ".join([*subjects.SUBJECTS, *styles.STYLES])
    raise ValueError(f"no subject or style {name!r}: expected a split, all, or of {known}")


def expand(names: Sequence[str]) -> list[str]:
    """Replace "train", "validation", "test" and "all" (the 30 subjects and 26 styles) by their names.

    Raises:
        ValueError: a name is neither a split nor a subject or style.
    """
    sets = ("train", "validation", "test")
    splits = {split: [*subjects.SPLIT[split], *styles.SPLIT[split]] for split in sets}
    splits["all"] = [name for split in splits.values() for name in split]
    found = [one for name in names for one in splits.get(name, [name])]
    for name in found:
        axis(name)
    return list(dict.fromkeys(found))


def slug(name: str) -> str:
    """Return a name as a file is called: "dog #2" is dog-2."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def folder(scale: str | Scale) -> Path:
    """Return where a scale's LoRAs lie: those of the shoebox, which ``smoke`` uses too, in ``data/loras``."""
    name = find_scale(scale).name
    loras = data_folder() / "loras"
    return loras if name in ("smoke", "shoebox") else loras / name


def file_of(name: str, loras: Path) -> Path:
    """Return the file of a subject or style in a folder of LoRAs."""
    return loras / f"{axis(name)}s" / f"{slug(name)}.safetensors"


def load(name: str, scale: str | Scale = "shoebox", variant: str = "") -> LoRA:
    """Read a LoRA of the zoo; ``variant`` names a folder of others beside it, such as "one-image".

    Raises:
        ValueError: it has not been trained yet.
    """
    loras = folder(scale) / variant
    path = file_of(name, loras)
    if not path.is_file():
        raise ValueError(f'no LoRA {path}: make it with `lorarar zoo train --names "{name}" --out {loras}`')
    return load_lora(path)


def load_pair(subject: str, style: str, scale: str | Scale = "shoebox") -> tuple[LoRA, LoRA]:
    """Read the LoRAs of a subject and of a style, in single precision."""
    return tuple(
        LoRA({k: (up.float(), down.float()) for k, (up, down) in lora.items()}, metadata=lora.metadata)
        for lora in (load(subject, scale), load(style, scale))
    )


def split(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the subjects and the styles of a split."""
    return subjects.SPLIT[name], styles.SPLIT[name]


def family(style: str) -> str:
    """Return what a style is called in a prompt."""
    return styles.family(style)


def class_of(name: str) -> str:
    """Return the class word of a subject."""
    return subjects.SUBJECTS[name].cls


def words(subject: str | None = None, style: str | None = None, cls: str | None = None) -> str:
    """Return the prompt that asks for a subject, a style, or both: "a sks dog in oil painting style".

    ``cls`` is the class to draw where no subject is named.
    """
    shown = f"{RARE} {class_of(subject)}" if subject else str(cls)
    if style:
        return world.prompt(shown, styles.family(style))
    return f"a {shown}" if subject else world.prompt(shown, "photo")


def pictures(name: str, count: int | None = None, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Draw a subject's photos or a style's examples: (count, SIZE, SIZE, 3) uint8, and each one's caption.

    LoRAs are trained on seed 0; another seed gives views that no LoRA has seen. Without a count there are as
    many as `VIEWS` says with seed 0, and as `REFERENCES` says with others.
    """
    kind = axis(name)
    count = (REFERENCES if seed else VIEWS)[kind] if count is None else count
    if kind == "subject":
        return world.subject_images(name, count, seed), [words(subject=name)] * count
    images, classes = world.style_images(name, count, seed)
    return images, [words(style=name, cls=cls) for cls in classes]


def targets(subject: str, style: str, count: int, seed: int = 0) -> np.ndarray:
    """Draw a subject in a style: what a perfect merge would show, (count, SIZE, SIZE, 3) uint8."""
    known = sorted(subjects.SUBJECTS).index(subject), sorted(styles.STYLES).index(style)
    rng = np.random.default_rng([seed, 3, *known])
    return np.stack([world.draw(subjects.SUBJECTS[subject], styles.STYLES[style], rng) for _ in range(count)])


def rivals(name: str) -> list[str]:
    """Return the subjects of the same class, or the styles of the same family: the easiest to mistake."""
    if axis(name) == "subject":
        return [n for n, other in subjects.SUBJECTS.items() if n != name and other.cls == class_of(name)]
    return [n for n in styles.STYLES if n != name and styles.family(n) == styles.family(name)]


def tests(name: str, count: int) -> list[str]:
    """Return `count` prompts that show whether a LoRA works: a style's name classes it was not trained on."""
    if axis(name) == "subject":
        return [words(subject=name)] * count
    seen = world.style_images(name, VIEWS["style"])[1]
    classes = [cls for cls in subjects.CLASSES if cls not in seen]
    # A step that shares no factor with their number spreads a few prompts over all classes.
    step = next(n for n in (7, 5, 11) if len(classes) % n)
    return [words(style=name, cls=classes[step * i % len(classes)]) for i in range(count)]
