"""Recorded runs, ``data/recorded/<name>.json``: results too long in the making for a chapter."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lorarar.bookkit.sources import ROOT
from lorarar.bookkit.style import judge_of
from lorarar.scales import data_folder

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

    from lorarar.judging import Verdicts

_PROVENANCE = ("command", "seed", "scale", "machine", "date", "commit", "inputs")


class Recorded(dict):
    """The values of a recorded run, with its provenance: command, seed, scale, machine, date, inputs."""

    def __init__(self, name: str, values: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.name, self.provenance = name, dict(provenance)


def suffix(scale: str) -> str:
    """Return the end of a recorded run's name: none for the shoebox, whose runs a smoke test uses too."""
    return "" if scale in ("smoke", "shoebox") else f"_{scale}"


def recorded(name: str) -> Recorded:
    """Load ``data/recorded/<name>.json``.

    Raises:
        ValueError: there is no such recorded run, or it lacks part of its provenance.
    """
    path = data_folder() / "recorded" / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.json"))) or "none"
        raise ValueError(f"no recorded run {path}: there are {known}")
    content = json.loads(path.read_text())
    missing = [key for key in (*_PROVENANCE, "values") if key not in content]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    return Recorded(name, content["values"], {key: content[key] for key in _PROVENANCE})


def experiment(split: str, scale: str = "shoebox") -> tuple[Recorded, dict[str, Verdicts]]:
    """Return the recorded experiment of a split, and the verdicts of the book's judge.

    Args:
        split: "validation" or "test".
        scale: of the chapter.

    Returns:
        The run, and {method: Verdicts}, each (pairs, images) of bool. Pairs are subjects × styles, the style
        fastest.
    """
    from lorarar.study.records import from_record

    run = recorded(f"experiment_{split}{suffix(scale)}")
    return run, from_record(run, judge_of(scale))


def sheet(name: str, columns: int) -> np.ndarray:
    """Return the pictures of a recorded run, ``data/recorded/<name>.png``, as (rows, columns, h, w, 3) uint8.

    Args:
        name: of the run. That of an experiment has one row for each pair, one column for each method.
        columns: how many pictures stand side by side; all are square.
    """
    from PIL import Image

    with Image.open(data_folder() / "recorded" / f"{name}.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    side = pixels.shape[1] // columns
    return pixels.reshape(pixels.shape[0] // side, side, columns, side, 3).swapaxes(1, 2)


def save_recorded(
    name: str,
    values: Mapping[str, Any],
    *,
    command: str,
    seed: int,
    scale: str,
    inputs: Iterable[str | Path] = (),
) -> Path:
    """Write ``data/recorded/<name>.json``: values and provenance, whole or not at all. Returns the path.

    Args:
        name: of the run.
        values: JSON values.
        command: the one that makes these values anew.
        seed: that the command used.
        scale: that the command used.
        inputs: files that decided the result, relative to the project's root; kept as SHA-256.
    """
    path = data_folder() / "recorded" / f"{name}.json"
    content = {
        "command": command,
        "seed": seed,
        "scale": scale,
        "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "inputs": {str(i): digest(ROOT / i) for i in inputs},
        "values": dict(values),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(content, indent=1) + "\n")
    aside.rename(path)
    return path


def inside(files: Iterable[Path]) -> list[Path]:
    """Return the files that lie in the project, relative to its root, as `save_recorded` takes them."""
    return [file.relative_to(ROOT) for file in map(Path.resolve, files) if file.is_relative_to(ROOT)]


def provenance(*names: str) -> Styler:
    """Return where recorded runs come from, one column for each; inputs that changed since are named."""
    from lorarar.bookkit.tables import table

    rows = []
    for name in names:
        about = recorded(name).provenance
        changed = [path for path, mark in about["inputs"].items() if digest(ROOT / path) != mark]
        row = {key: about[key] for key in _PROVENANCE if key != "inputs"}
        row["inputs"] = ", ".join(_by_folder(about["inputs"])) or "none"
        rows.append(row | {"changed since": ", ".join(changed) or "none"})
    columns = {name: list(row.values()) for name, row in zip(names, rows, strict=True)}
    return table({"Recorded run": list(rows[0]), **columns}, kind="provenance")


def _by_folder(paths: Iterable[str]) -> Iterator[str]:
    # A page has no room for every file of a zoo; its record has.
    for folder, files in groupby(sorted(paths), os.path.dirname):
        files = list(files)
        yield from files if len(files) <= 3 else [f"{folder}/ ({len(files)} files)"]


def machine() -> str:
    """Describe this machine without naming it: processor or GPU, cores, system, Python."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    unit = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{cores} CPU cores"
    return f"{unit}, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file; "" if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _commit() -> str:
    answer = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True
    )
    return answer.stdout.strip() or "none"
