"""Recorded runs, ``data/recorded/<name>.json``: results with what made them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lorarar.atomic import atomic
from lorarar.scales import data_folder
from lorarar.stamp import ROOT, commit, machine, sha256, today

WEBP = 16383
"""The longest side that a WebP picture can have."""

PROVENANCE = ("command", "seed", "scale", "machine", "date", "commit", "inputs")


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
    missing = [key for key in (*PROVENANCE, "values") if key not in content]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    return Recorded(name, content["values"], {key: content[key] for key in PROVENANCE})


def sheet(name: str, columns: int) -> np.ndarray:
    """Return the pictures of a recorded run, its `sheet_file`, as (rows, columns, h, w, 3) uint8.

    Args:
        name: of the run. That of an experiment has one row for each pair, one column for each method.
        columns: how many pictures stand side by side; all are square.
    """
    from PIL import Image

    with Image.open(sheet_file(name)) as picture:
        return tiles(np.asarray(picture.convert("RGB")), columns)


def sheet_file(name: str) -> Path:
    """Return where the pictures of a recorded run are: ``data/recorded/<name>.webp``, else ``.png``."""
    path = data_folder() / "recorded" / f"{name}.webp"
    return path if path.is_file() else path.with_suffix(".png")


def save_sheet(pixels: np.ndarray, path: Path) -> None:
    """Write a sheet of pictures, (h, w, 3) uint8, whole or not at all, so that they can be read as they were.

    That is WebP without loss; a sheet with a side of more than `WEBP` becomes a PNG of that name instead.
    """
    from PIL import Image

    webp, png = path.with_suffix(".webp"), path.with_suffix(".png")
    fits = max(pixels.shape) <= WEBP
    file, other, how = (webp, png, {"lossless": True}) if fits else (png, webp, {"optimize": True})
    with atomic(file) as aside:
        Image.fromarray(pixels).save(aside, format=file.suffix[1:], **how)
    other.unlink(missing_ok=True)


def tiles(pixels: np.ndarray, columns: int) -> np.ndarray:
    """Cut a sheet of square pictures, (height, width, 3), into (rows, columns, h, w, 3)."""
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
    provenance = {
        "command": command,
        "seed": seed,
        "scale": scale,
        "machine": machine(),
        "date": today(),
        "commit": commit(),
        "inputs": {str(i): sha256(ROOT / i) for i in inputs},
    }
    return save_values(Recorded(name, {}, provenance), values)


def save_values(run: Recorded, values: Mapping[str, Any]) -> Path:
    """Write a recorded run with other values, such as tables made anew from it; its provenance stays."""
    path = data_folder() / "recorded" / f"{run.name}.json"
    content = {**run.provenance, "values": dict(values)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as aside:
        aside.write_text(json.dumps(content, indent=1) + "\n")
    return path


def inside(files: Iterable[Path]) -> list[Path]:
    """Return the files that lie in the project, relative to its root, as `save_recorded` takes them."""
    return [file.relative_to(ROOT) for file in map(Path.resolve, files) if file.is_relative_to(ROOT)]
