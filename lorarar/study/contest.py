"""A contest by a plan: its rows, its judge and its questions are written down before a picture is made.

A plan is a JSON file under version control, so that the history shows which came first:

    {"judge": "critic", "count": 4,
     "rows": {"tuned sum": {"method": "direct", "options": {"content_weight": 0.8, "style_weight": 0.6}},
              "LoRA.rar": {"method": "lorarar", "files": ["data/hypernetworks/shoebox.safetensors"]}},
     "questions": [["LoRA.rar", "tuned sum", 0]]}

A row with "subjects": 10 is made for the first ten alone, as what takes minutes a pair, and compared there.
A row with several files is one thing that was trained several times: their luck is resampled with subjects
and styles (`lorarar.study.statistics`). A question [one, other, margin] asks whether the first is ahead of
the second by more than ``margin`` points: yes if the interval of the difference lies above it, no if it lies
below, else open.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lorarar.judging import Verdicts
from lorarar.lora import LoRA, load_coefficients
from lorarar.merging import merge
from lorarar.pipelines import load_pipeline
from lorarar.shoebox import zoo
from lorarar.stamp import ROOT, sha256
from lorarar.study.cells import Setting
from lorarar.study.images import images
from lorarar.study.methods import METHODS, Method
from lorarar.study.records import written
from lorarar.study.statistics import Entry, crossed, grid
from lorarar.study.training import Task
from lorarar.study.verdicts import Judge, judged

BY_FILE = ("lorarar", "table")
"""Methods that need a file: a hypernetwork, or a table of coefficients."""
PLAIN = ("direct", "levels", "ziplora")


@dataclass(frozen=True)
class Row:
    """One row: a method of the plan, with the files of its trainings, if it has any."""

    name: str
    method: str
    options: Mapping[str, Any]
    files: tuple[Path, ...]
    subjects: int | None = None

    @property
    def entrants(self) -> list[tuple[str, Path | None]]:
        """What is judged: a name for its cells, and its file."""
        if self.method == "ziplora":
            return [("ziplora", None)]  # the name under which `make` keeps its coefficients
        own = zoo.slug(self.name)
        return [(f"{own}-{i}", file) for i, file in enumerate(self.files)] or [(own, None)]


@dataclass(frozen=True)
class Plan:
    """What was written down before: judge, images a pair, rows and questions (one, other, margin)."""

    judge: str
    count: int
    rows: tuple[Row, ...]
    questions: tuple[tuple[str, str, float], ...]


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        ValueError: it cannot be read, a method or row is unknown, a file is missing, or one is given to a
            method that takes none.
    """
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(
            Row(
                name,
                row["method"],
                row.get("options", {}),
                tuple(ROOT / file for file in row.get("files", ())),
                row.get("subjects"),
            )
            for name, row in said["rows"].items()
        )
        questions = tuple((str(one), str(other), float(by)) for one, other, by in said["questions"])
        plan = Plan(str(said["judge"]), int(said["count"]), rows, questions)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: is no plan of a contest: {error!r}") from error
    for row in rows:
        if row.method not in (*BY_FILE, *PLAIN):
            known = ", ".join((*BY_FILE, *PLAIN))
            raise ValueError(f"{path}: {row.name}: no method {row.method!r}: choose one of {known}")
        if bool(row.files) != (row.method in BY_FILE):
            need = "needs files" if row.method in BY_FILE else "takes no files"
            raise ValueError(f"{path}: {row.name}: method {row.method} {need}")
        if missing := [file for file in row.files if not file.is_file()]:
            raise ValueError(f"{path}: {row.name}: there is no file {missing[0]}")
    names = {row.name for row in rows}
    if unknown := [name for one, other, _ in questions for name in (one, other) if name not in names]:
        raise ValueError(f"{path}: a question about {unknown[0]!r}, which is no row of the plan")
    return plan


def method_of(row: Row, file: Path | None) -> Method:
    """Return how a row merges, as the experiment's other methods are written."""
    if row.method == "table":
        return Method(_by_table(file), {"table": sha256(file)})
    own = METHODS.get(row.method) or Method(_by_levels)
    return replace(own, options={**own.options, **row.options})


def _by_table(file: Path) -> Callable[..., LoRA]:
    def merged(task: Task, **_: Any) -> LoRA:
        return merge(task.content, task.style, "table", coefficients=load_coefficients(file))

    return merged


def _by_levels(task: Task, **options: Any) -> LoRA:
    return merge(task.content, task.style, "levels", **options)


def contest(run: Setting, plan: Plan, by: Judge) -> dict[str, list[Verdicts]]:
    """Make and judge the images of every row; what is there is kept, so that a run goes on where it stopped.

    Returns:
        {row: verdicts of each of its trainings, bool (pairs, images)}.
    """
    pipe = load_pipeline(run.scale, run.device)
    found: dict[str, list[Verdicts]] = {}
    for row in plan.rows:
        found[row.name] = []
        for name, file in row.entrants:
            own = replace(run, subjects=run.subjects[: row.subjects])
            own = replace(own, hypernetwork=file) if row.method == "lorarar" and file else own
            images(own, {name: method_of(row, file)}, pipe=pipe)
            found[row.name].append(judged(own, by, [name])[name])
    return found


def scores(said: Sequence[Verdicts], styles: int) -> np.ndarray:
    """Return the share of images that are right of each training and pair: (trainings, subjects, styles)."""
    return np.stack([grid(verdicts, len(verdicts.right) // styles) for verdicts in said])


def mean(rows: np.ndarray) -> Entry:
    """Return the mean of scores (trainings, subjects, styles) with its interval over all that varies."""
    return crossed(rows[0]) if len(rows) == 1 else crossed(rows, factors=3)


def difference(one: np.ndarray, other: np.ndarray) -> Entry:
    """Return the mean difference of two rows (trainings, subjects, styles), over all that varies.

    The subjects are those that both have, the first. Both rows share the draws of subjects and styles; their
    trainings have nothing to do with one another, so each has draws of its own.
    """
    both = min(one.shape[1], other.shape[1])
    gaps = one[:, None, :both] - other[None, :, :both]  # (trainings, trainings, subjects, styles)
    several = [axis for axis in (0, 1) if gaps.shape[axis] > 1]
    gaps = gaps.squeeze(tuple(axis for axis in (0, 1) if axis not in several))
    return crossed(gaps, factors=2 + len(several))


def answer(gap: Entry, margin: float) -> str:
    """Answer a question: is the difference above so many points?"""
    return "yes" if gap.low > margin / 100 else "no" if gap.high < margin / 100 else "open"


def values(run: Setting, plan: Plan, found: Mapping[str, Sequence[Verdicts]]) -> dict[str, Any]:
    """Return what is recorded: verdicts, means and answers."""
    shares = {name: scores(said, len(run.styles)) for name, said in found.items()}
    gaps = [(one, other, by, difference(shares[one], shares[other])) for one, other, by in plan.questions]
    return {
        "judge": plan.judge,
        "subjects": list(run.subjects),
        "styles": list(run.styles),
        "seeds": run.seeds,
        "rows": {
            name: {
                "subjects": share.shape[1],
                "right": mean(share),
                "trainings": [float(one.mean()) for one in share],
                "verdicts": [written(one) for one in found[name]],
            }
            for name, share in shares.items()
        },
        "questions": [
            {"one": one, "other": other, "margin": by, "difference": gap, "answer": answer(gap, by)}
            for one, other, by, gap in gaps
        ],
    }
