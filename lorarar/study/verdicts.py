"""What a judge says of each cell's images, kept beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lorarar.atomic import atomic
from lorarar.collection import Collection
from lorarar.judging import Verdicts, majority, votes
from lorarar.scales import Scale, data_folder, find_scale, local
from lorarar.shoebox import zoo
from lorarar.shoebox.world.world import VERSION
from lorarar.study.cells import Setting, cell_of
from lorarar.study.images import read_cell
from lorarar.study.methods import METHODS
from lorarar.study.training import Pair

Shows = Callable[[str, np.ndarray], np.ndarray]
"""Tells which images (n, h, w, 3) uint8 show the subject or style of that name: (n,) bool."""


@dataclass(frozen=True)
class Judge:
    """Who judges: its name, what its verdicts depend on, and the verdicts."""

    name: str
    digest: str
    shows: Shows


def find_judge(
    name: str, scale: str | Scale = "shoebox", device: str | None = None, world: Collection = zoo
) -> Judge:
    """Return a judge: ``critic``, the shoebox's, or ``mars2``; ``mars2=SOURCE`` takes another model for it.

    MARS² asks the miniature in ``data/shoebox/judge`` at shoebox scale and LLaVA-Critic at the others; SOURCE
    is a folder, a hub's model id, or the address of an OpenAI-compatible endpoint. Its references are views
    that no LoRA was trained on, as the critic's are.

    Raises:
        ValueError: unknown judge, or its model is missing.
    """
    kind, _, source = name.partition("=")
    if kind == "critic" and world is not zoo and getattr(world, "drawn_by", None) != VERSION:
        raise ValueError("the critic knows the drawn world alone: choose mars2 or mars2=SOURCE")
    if kind == "critic" and not source:
        shows = partial(zoo.shows, zoo.load_critic(), world=world)
        return Judge(name, _folder_hash(data_folder() / "shoebox" / "critic"), shows)
    if kind != "mars2":
        raise ValueError(f"no judge {name!r}: choose critic, mars2 or mars2=SOURCE")
    from lorarar.judging import judges

    if not source:
        model = find_scale(scale).judge
        source = str(local(model))
        if model.startswith("data/") and not Path(source).is_dir():
            raise ValueError(f"no judge in {source}: train it with `lorarar shoebox judge`, or use critic")
    ask = judges.find_judge(source, device=device)

    def shows(name: str, images: np.ndarray) -> np.ndarray:
        words = world.family(name) if world.axis(name) == "style" else ""
        return majority(votes(ask, world.axis(name), world.pictures(name, seed=1)[0], images, words))

    return Judge(name, _folder_hash(Path(source)) if Path(source).is_dir() else source, shows)


def _folder_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def judged(run: Setting, by: Judge, methods: Sequence[str] = tuple(METHODS)) -> dict[str, Verdicts]:
    """Let a judge see every cell of the methods, except those with its verdicts; return the verdicts.

    Returns:
        {method: Verdicts of bool (pairs, images)}, the pairs in the order of ``run.pairs``.

    Raises:
        ValueError: a cell is missing: make the images first.
    """
    found: dict[str, Verdicts] = {}
    cells = len(methods) * len(run.pairs)
    with tqdm(total=cells, desc=by.name, unit="cell", disable=not run.progress) as bar:
        for method in methods:
            for pair in run.pairs:
                file = _verdict_file(run, method, pair, by.name)
                kept = _read_verdict(file)
                if kept is None or kept["digest"] != by.digest:
                    facts, images = read_cell(file.parent)
                    content = {"judge": by.name, "digest": by.digest}
                    for axis in ("subject", "style"):
                        content[axis] = [int(yes) for yes in by.shows(facts[axis], images)]
                    with atomic(file) as aside:
                        aside.write_text(json.dumps(content) + "\n")
                bar.update()
            found |= verdicts(run, by.name, [method])
    return found


def verdicts(run: Setting, judge: str, methods: Sequence[str] = tuple(METHODS)) -> dict[str, Verdicts]:
    """Read the verdicts that `judged` has kept: {method: Verdicts of bool (pairs, images)}.

    Raises:
        ValueError: some are missing.
    """
    found = {}
    for method in methods:
        sides: dict[str, list[list[int]]] = {"subject": [], "style": []}
        for pair in run.pairs:
            file = _verdict_file(run, method, pair, judge)
            kept = _read_verdict(file)
            if kept is None or len(kept["subject"]) != run.count:
                raise ValueError(f"no verdicts {file}: make the images, then the verdicts")
            for axis, rows in sides.items():
                rows.append(kept[axis])
        subject, style = (np.array(rows, bool) for rows in sides.values())
        found[method] = Verdicts(subject, style, subject & style)
    return found


def _verdict_file(run: Setting, method: str, pair: Pair, judge: str) -> Path:
    name = "".join(letter if letter.isalnum() else "-" for letter in judge)
    return cell_of(run, method, pair) / f"verdicts-{name}.json"


def _read_verdict(file: Path) -> dict[str, Any] | None:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None
