"""What is kept of a run in data/recorded, and read back from there."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from lorarar.collection import Folders, command_of
from lorarar.judging import Verdicts
from lorarar.records import Recorded, inside, recorded, save_recorded, save_sheet, save_values
from lorarar.scales import Scale, data_folder
from lorarar.study.cells import Setting, cell_of
from lorarar.study.digits import digits, from_digits
from lorarar.study.images import read_cell
from lorarar.study.methods import METHODS
from lorarar.study.samples import overview, samples, sheet
from lorarar.study.tables import agreement, scoreboard
from lorarar.study.verdicts import verdicts


def record(
    run: Setting, judges: Sequence[str], methods: Sequence[str] = tuple(METHODS), name: str | None = None
) -> Path:
    """Write a run's verdicts, tables and sample sheet to ``data/recorded/<name>.json`` and ``.webp``.

    The verdicts are written as a string of 0 and 1 for each pair, so that a chapter can make every table anew
    (`from_record`). The first judge chooses the samples.

    Args:
        run: the setting; all of its images must have been judged.
        judges: the names under which `judged` has kept verdicts.
        methods: those to record.
        name: of the record; None takes ``experiment_SPLIT``, with the scale's name unless it is shoebox.

    Raises:
        ValueError: images or verdicts are missing.
    """
    if name is None:
        name = record_name(run.scale, f"{own_name(run)}experiment_{run.split}")
    found = {judge: verdicts(run, judge, methods) for judge in judges}
    seconds = {
        method: [read_cell(cell_of(run, method, pair))[0]["seconds"] for pair in run.pairs]
        for method in methods
    }
    first = found[judges[0]]
    ours = {m: first[m] for m in ("lorarar", "ziplora") if m in first} or first
    rows = samples(ours, len(run.subjects))
    values = {
        "split": run.split,
        "subjects": list(run.subjects),
        "styles": list(run.styles),
        "seeds": run.seeds,
        "methods": list(methods),
        "verdicts": {
            judge: {method: written(said) for method, said in by_method.items()}
            for judge, by_method in found.items()
        },
        **tables(found, len(run.subjects)),
        "seconds while the images were made": {m: statistics.median(s) for m, s in seconds.items()},
        "samples": [vars(row) for row in rows],
    }
    path = save_recorded(
        name,
        values,
        command=f"{record_command('record', run)} --judges {' '.join(judges)}",
        seed=run.seed,
        scale=run.scale.name,
        inputs=inside(deciding(run)),
    )
    if rows:
        shown = sheet(run, rows)  # (rows, 3, h, w, 3)
        pixels = shown.swapaxes(1, 2).reshape(shown.shape[0] * shown.shape[2], -1, 3)
        save_sheet(pixels, path.with_name(f"{name}_samples.webp"))
    shown = overview(run, methods)
    pixels = shown.swapaxes(1, 2).reshape(shown.shape[0] * shown.shape[2], -1, 3)
    save_sheet(pixels, path.with_suffix(".webp"))
    return path


def tables(found: Mapping[str, Mapping[str, Verdicts]], subjects: int) -> dict[str, Any]:
    """Return what a record says beside its verdicts, {judge: {method: Verdicts}}: tables and agreement."""
    return {
        "tables": {judge: scoreboard(by_method, subjects) for judge, by_method in found.items()},
        "agreement": {
            f"{one}, {other}": agreement(found[one], found[other]) for one, other in combinations(found, 2)
        },
    }


def make_tables(name: str) -> Path:
    """Make the tables of a recorded experiment anew from its verdicts; nothing is drawn or judged.

    What made the verdicts, and when, stays in the record.

    Raises:
        ValueError: there is no such record, or it has no verdicts.
    """
    run: Recorded = recorded(name)
    if "verdicts" not in run:
        raise ValueError(f"the record {name} has no verdicts: name one of `lorarar study record`")
    found = {judge: from_record(run, judge) for judge in run["verdicts"]}
    return save_values(run, {**run, **tables(found, len(run["subjects"]))})


def deciding(run: Setting) -> list[Path]:
    """Return the files that decide a run's images and verdicts: LoRAs, hypernetwork, miniatures."""
    files = [run.world.file_of(name, run.loras) for name in (*run.subjects, *run.styles)]
    files += [run.hypernetwork] if run.hypernetwork.is_file() else []
    return files + sorted((data_folder() / "shoebox").glob("*/**/*.safetensors"))


def record_name(scale: Scale, name: str) -> str:
    """Return what a record is called at a scale: the shoebox's have plain names."""
    return name if scale.name == "shoebox" else f"{name}_{scale.name}"


def record_command(step: str, run: Setting) -> str:
    """Return the command that makes a record anew."""
    said = f"lorarar study {step} --split {run.split} --scale {run.scale.name}"
    return f"{said}{command_of(run.world)}"


def own_name(run: Setting) -> str:
    """Return what the records of a world of one's own begin with: they are not the book's."""
    return f"{run.world.root.resolve().name}_" if isinstance(run.world, Folders) else ""


def written(said: Verdicts) -> dict[str, list[str]]:
    """Return verdicts as a record has them: for either axis a string of 0 and 1 for each pair."""
    return {axis: [digits(row) for row in getattr(said, axis)] for axis in ("subject", "style")}


def from_record(values: Mapping[str, Any], judge: str) -> dict[str, Verdicts]:
    """Return the verdicts of a record (`record`, `lorarar.records.recorded`): {method: Verdicts}.

    Raises ValueError if that judge's are not in it.
    """
    if judge not in values["verdicts"]:
        raise ValueError(f"no verdicts of {judge}: there are {', '.join(values['verdicts'])}")
    found = {}
    for method, sides in values["verdicts"][judge].items():
        subject, style = (
            np.array([from_digits(row) for row in sides[axis]]) for axis in ("subject", "style")
        )
        found[method] = Verdicts(subject, style, subject & style)
    return found
