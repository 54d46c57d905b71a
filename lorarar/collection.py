"""Whose subjects and styles an experiment is about: the drawn world's, or folders of one's own pictures.

The experiment asks a collection by name, for pictures, words and places of LoRAs. The drawn world's
collection is the module `lorarar.shoebox.zoo` itself; `Folders` answers from disk:

    my-world/
      world.json            {"subjects": {"my-dog": {"class": "dog", "split": "test"}, …},
                             "styles": {"oil": {"words": "oil painting", "split": "test"}, …}}
      subjects/my-dog/      its pictures; and references/ in there, if the judge shall see others
      styles/oil/           likewise; with metadata.jsonl, a caption for each picture
      loras/SCALE/          what is trained
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lorarar.images import image_files, read_images
from lorarar.options import SPLITS
from lorarar.scales import Scale, find_scale
from lorarar.train.pictures import read_captions

DRAWN_BY = "drawn by"
"""The key of ``world.json`` that says which drawn world the pictures are of, if they are of one."""
RARE = "sks"


class Collection(Protocol):
    """What the experiment asks about subjects and styles."""

    def split(self, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the subjects and the styles of a split."""

    def axis(self, name: str) -> str:
        """Return what a name is, "subject" or "style"."""

    def pictures(
        self, name: str, count: int | None = None, seed: int = 0
    ) -> tuple[Sequence[np.ndarray] | np.ndarray, list[str]]:
        """Return pictures (h, w, 3) uint8 to train on with their captions; with seed 1, references."""

    def words(self, subject: str | None = None, style: str | None = None, cls: str | None = None) -> str:
        """Return the prompt that asks for a subject, a style, or both."""

    def class_of(self, name: str) -> str:
        """Return the class word of a subject."""

    def family(self, style: str) -> str:
        """Return what a style is called in a prompt."""

    def folder(self, scale: str | Scale) -> Path:
        """Return where a scale's LoRAs lie."""

    def file_of(self, name: str, loras: Path) -> Path:
        """Return the file of a subject or style in a folder of LoRAs."""


class Folders:
    """A collection of one's own: folders of pictures and a file that says what they show.

    Args:
        root: the folder that holds ``world.json``, ``subjects`` and ``styles``.

    Raises:
        ValueError: in one line, if the file or a folder is missing or not as described above.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        file = self.root / "world.json"
        try:
            said = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot read {file}, which says what the pictures show: {error}") from error
        self.drawn_by = said.get(DRAWN_BY) if isinstance(said, dict) else None
        self._known: dict[str, dict[str, dict[str, str]]] = {}
        for axis, word in (("subject", "class"), ("style", "words")):
            entries = said.get(f"{axis}s") if isinstance(said, dict) else None
            if not isinstance(entries, dict) or not entries:
                raise ValueError(f'{file}: expected {{"{axis}s": {{"NAME": {{"{word}": …, "split": …}}}}}}')
            for name, entry in entries.items():
                self._check(file, axis, word, name, entry)
            self._known[axis] = entries
        if both := sorted(set(self._known["subject"]) & set(self._known["style"])):
            raise ValueError(f"{file}: {both[0]} is the name of a subject and of a style; give each its own")

    def _check(self, file: Path, axis: str, word: str, name: str, entry: object) -> None:
        if not re.fullmatch(r"[\w-]+", name):
            raise ValueError(f"{file}: {name!r} is no name: use letters, digits, - and _")
        said = entry if isinstance(entry, dict) else {}
        if not isinstance(said.get(word), str) or not said[word].strip() or said.get("split") not in SPLITS:
            raise ValueError(
                f'{file}: {name}: expected {{"{word}": "…", "split": "{"|".join(SPLITS)}"}}, found {entry}'
            )
        image_files(self.root / f"{axis}s" / name)

    @property
    def names(self) -> list[str]:
        """All subjects and styles."""
        return [*self._known["subject"], *self._known["style"]]

    def split(self, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the subjects and the styles of a split. Raises ValueError if it has none of either."""
        found = tuple(
            tuple(one for one, entry in self._known[axis].items() if entry["split"] == name)
            for axis in ("subject", "style")
        )
        if not all(found):
            raise ValueError(f"{self.root / 'world.json'}: the split {name} needs a subject and a style")
        return found[0], found[1]

    def axis(self, name: str) -> str:
        """Return what a name is. Raises ValueError, with all names, for others."""
        for axis, entries in self._known.items():
            if name in entries:
                return axis
        raise ValueError(f"no subject or style {name!r} in {self.root}: there are {', '.join(self.names)}")

    def expand(self, names: Sequence[str]) -> list[str]:
        """Replace splits and "all" by the names in them."""
        found: list[str] = []
        for name in names:
            entries = [(n, e["split"]) for side in self._known.values() for n, e in side.items()]
            known = (
                [n for n, split in entries if name in ("all", split)] if name in (*SPLITS, "all") else [name]
            )
            found += known
        for name in found:
            self.axis(name)
        return list(dict.fromkeys(found))

    def pictures(
        self, name: str, count: int | None = None, seed: int = 0
    ) -> tuple[list[np.ndarray], list[str]]:
        """Return the pictures to train on with their captions; with another seed than 0, the references.

        References are those of a folder ``references`` in there, else the same pictures. A style's captions
        stand in ``metadata.jsonl``; without it all are "a picture in … style".
        """
        axis = self.axis(name)
        place = self.root / f"{axis}s" / name
        if seed and (place / "references").is_dir():
            place = place / "references"
        files = image_files(place)[:count]
        images = [np.asarray(image) for image in read_images(files)]
        if not seed and (place / "metadata.jsonl").is_file():
            return images, read_captions(place / "metadata.jsonl", [file.name for file in files])
        said = self.words(subject=name) if axis == "subject" else self.words(style=name, cls="picture")
        return images, [said] * len(images)

    def words(self, subject: str | None = None, style: str | None = None, cls: str | None = None) -> str:
        """Return the prompt that asks for a subject, a style, or both: "a sks dog in oil painting style"."""
        shown = f"a {RARE} {self.class_of(subject)}" if subject else f"a {cls}"
        return f"{shown} in {self.family(style)} style" if style else shown

    def class_of(self, name: str) -> str:
        """Return the class word of a subject."""
        return self._known["subject"][name]["class"]

    def family(self, style: str) -> str:
        """Return what a style is called in a prompt."""
        return self._known["style"][style]["words"]

    def folder(self, scale: str | Scale) -> Path:
        """Return where a scale's LoRAs lie: ``loras/SCALE``."""
        return self.root / "loras" / find_scale(scale).name

    def file_of(self, name: str, loras: Path) -> Path:
        """Return the file of a subject or style in a folder of LoRAs."""
        return loras / f"{self.axis(name)}s" / f"{name}.safetensors"


def command_of(collection: Any) -> str:  # noqa: ANN401
    """Return what a command line says of a collection: nothing for the drawn world's."""
    return f" --world {collection.root.name}" if isinstance(collection, Folders) else ""
