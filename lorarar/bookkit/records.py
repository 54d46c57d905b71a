"""What chapters show of recorded runs: verdicts, pictures, and where a run comes from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from lorarar.bookkit.style import judge_of
from lorarar.records import PROVENANCE, Recorded, recorded, sheet, suffix
from lorarar.stamp import ROOT, sha256

__all__ = ["experiment", "provenance", "recorded", "sheet", "suffix"]

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

    from lorarar.judging import Verdicts


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


def provenance(*names: str) -> Styler:
    """Return where recorded runs come from, one below the other; inputs that changed since are named."""
    from lorarar.bookkit.tables import table

    rows: list[tuple[str, object]] = []
    for name in names:
        about = recorded(name).provenance
        changed = [path for path, mark in about["inputs"].items() if sha256(ROOT / path) != mark]
        rows.append(("name", name))
        rows += [(key, about[key]) for key in PROVENANCE if key != "inputs"]
        rows.append(("inputs", ", ".join(_by_folder(about["inputs"])) or "none"))
        rows.append(("changed since", ", ".join(changed) or "none"))
    keys, values = zip(*rows, strict=True)
    return table({"Recorded run": keys, "": values}, kind="provenance")


def _by_folder(paths: Iterable[str]) -> Iterator[str]:
    # A page has no room for every file of a zoo; its record has.
    for folder, files in groupby(sorted(paths), lambda path: "/".join(path.split("/")[:-1][:2])):
        files = list(files)
        yield from files if len(files) <= 3 else [f"{folder}/ ({len(files)} files)"]
