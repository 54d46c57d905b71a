"""A contest by a plan: its rows, its judge and its questions are written down before a picture is made.

A plan is a JSON file under version control, so that the history shows which came first:

    {"measure": "critic", "count": 4,
     "rows": {"tuned sum": {"method": "direct", "options": {"content_weight": 0.8, "style_weight": 0.6}},
              "LoRA.rar": {"method": "lorarar", "files": ["data/hypernetworks/shoebox.safetensors"]}},
     "questions": [["LoRA.rar", "tuned sum", 0]]}

A row of networks that are trained for it says how, and the run trains what is missing:

    {"method": "lorarar", "train": {"recipe": "place alone", "seeds": [0, 1], "options": {"parts": ["value"]},
                                    "pairs": 30, "subjects": ["dog #1", …], "styles": […], "world": "runs/…"}}

A number in place of "subjects" or "styles" has each seed draw so many.

A plan whose pairs are not those of a split names them: "on": {"subjects": […], "styles": […]}.
A row with "subjects": 10 is made for the first ten alone, as what takes minutes a pair, and compared there.
A row with "loras": "runs/…" merges LoRAs of its own from that folder; its ρ is against those.
The measure is a judge's, who says which of ``count`` images of a pair are right, or ``rho``, the error of a
merge (`lorarar.study.ruler`), which needs no images, is better when it is lower, and says nothing of a method
that merges while it samples. A method is one of `lorarar.study.methods.KNOWN`, or ``table``.
A row with several files is one thing that was trained several times: their luck is resampled with subjects
and styles (`lorarar.study.statistics`). A question [one, other, margin] asks whether the first is ahead of
the second by more than ``margin`` hundredths: yes if the interval of the lead lies above it, no if it lies
below, else open.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from lorarar.atomic import atomic
from lorarar.lora import LoRA, load_coefficients
from lorarar.merging import merge
from lorarar.pipelines import load_pipeline
from lorarar.shoebox import zoo
from lorarar.stamp import ROOT, sha256
from lorarar.study.cells import Setting, adapters, tasks
from lorarar.study.images import images
from lorarar.study.methods import KNOWN, METHODS, Method, make
from lorarar.study.recipes import Training, trained
from lorarar.study.ruler import Ruler, ruler
from lorarar.study.statistics import Entry, crossed, grid
from lorarar.study.training import Task, slug, with_pictures
from lorarar.study.verdicts import Judge, find_judge, judged

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

BY_FILE = ("lorarar", "table")
"""Methods that need a file: a hypernetwork, or a table of coefficients."""
PLAIN = tuple(name for name, method in KNOWN.items() if not (method.hypernetwork or method.reference))
"""Methods that need none."""


@dataclass(frozen=True)
class Row:
    """One row: a method of the plan, with the files of its trainings, if it has any."""

    name: str
    method: str
    options: Mapping[str, Any]
    files: tuple[Path, ...]
    subjects: int | None = None
    trainings: tuple[Training, ...] = ()
    loras: Path | None = None

    @property
    def cells(self) -> list[str]:
        """The names of its cells, one for each file or training."""
        own = zoo.slug(self.name)
        if self.method in PLAIN and KNOWN[self.method].slow:  # `make` keeps what has no options of its own
            return [f"{self.method}:{own}" if self.options else self.method]
        return [f"{own}-{i}" for i in range(len(self.files or self.trainings))] or [own]

    @property
    def entrants(self) -> list[tuple[str, Path | None]]:
        """What is judged: a name for its cells, and its file."""
        return list(zip(self.cells, self.files or [None] * len(self.cells), strict=True))

    def setting(self, run: Setting) -> Setting:
        """Return a run with the row's own LoRAs, and those of its subjects that the row is made for."""
        return replace(run, subjects=run.subjects[: self.subjects], loras=self.loras or run.loras)


@dataclass(frozen=True)
class Plan:
    """What was written down before: measure, images a pair, rows and questions (one, other, margin).

    ``subjects`` and ``styles`` are those of its pairs, if they are not those of a split.
    """

    measure: str
    count: int
    rows: tuple[Row, ...]
    questions: tuple[tuple[str, str, float], ...]
    subjects: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()

    def setting(self, run: Setting) -> Setting:
        """Return a run with the plan's own images a pair, subjects and styles."""
        own = {of: getattr(self, of) for of in ("subjects", "styles") if getattr(self, of)}
        return replace(run, count=self.count, **own)


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
                _trainings(row.get("train")),
                Path(row["loras"]) if "loras" in row else None,
            )
            for name, row in said["rows"].items()
        )
        questions = tuple((str(one), str(other), float(by)) for one, other, by in said["questions"])
        pairs = (tuple(said.get("on", {}).get(of, ())) for of in ("subjects", "styles"))
        plan = Plan(str(said["measure"]), int(said.get("count", 1)), rows, questions, *pairs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: is no plan of a contest: {error!r}") from error
    for row in rows:
        if row.method not in (*BY_FILE, *PLAIN):
            known = ", ".join((*BY_FILE, *PLAIN))
            raise ValueError(f"{path}: {row.name}: no method {row.method!r}: choose one of {known}")
        if row.trainings and (row.files or row.method != "lorarar"):
            raise ValueError(f"{path}: {row.name}: what is trained is a network of lorarar, without files")
        if bool(row.files or row.trainings) != (row.method in BY_FILE):
            need = "needs files" if row.method in BY_FILE else "takes no files"
            raise ValueError(f"{path}: {row.name}: method {row.method} {need}")
        if missing := [file for file in row.files if not file.is_file()]:
            raise ValueError(f"{path}: {row.name}: there is no file {missing[0]}")
    names = {row.name for row in rows}
    if unknown := [name for one, other, _ in questions for name in (one, other) if name not in names]:
        raise ValueError(f"{path}: a question about {unknown[0]!r}, which is no row of the plan")
    return plan


def _trainings(said: Mapping[str, Any] | None) -> tuple[Training, ...]:
    if said is None:
        return ()
    names = {of: tuple(v) if isinstance(v := said.get(of), list) else v for of in ("subjects", "styles")}
    world = ROOT / said["world"] if said.get("world") else None
    return tuple(
        Training(said["recipe"], seed, said.get("options", {}), said.get("pairs"), **names, world=world)
        for seed in said.get("seeds", [0])
    )


def with_networks(plan: Plan, pipe: DiffusionPipeline, folder: Path, *, progress: bool = True) -> Plan:
    """Train the networks of the plan's rows that are not in ``folder`` yet; return it with their files."""
    rows = []
    for row in plan.rows:
        files = tuple(
            trained(
                pipe,
                one,
                folder / f"{zoo.slug(row.name)}-{one.seed}.safetensors",
                command=f'lorarar study contest, row "{row.name}"',
                progress=progress,
            )
            for one in row.trainings
        )
        rows.append(replace(row, files=row.files or files))
    return replace(plan, rows=tuple(rows))


def method_of(row: Row, file: Path | None) -> Method:
    """Return how a row merges, as the experiment's other methods are written."""
    if row.method == "table":
        return Method(_by_table(file), {"table": sha256(file)})
    own = KNOWN[row.method]
    return replace(own, options={**own.options, **row.options})


def _by_table(file: Path) -> Callable[..., LoRA]:
    def merged(task: Task, **_: Any) -> LoRA:
        return merge(task.content, task.style, "table", coefficients=load_coefficients(file))

    return merged


def contest(run: Setting, plan: Plan) -> dict[str, np.ndarray]:
    """Measure every row on the run's pairs (`Plan.setting`); what is there is kept for a run that goes on.

    Returns:
        {row: (trainings, subjects, styles)}: the share of a pair's images that are right, or ρ.

    Raises:
        ValueError: ρ of a method that merges while it samples.
    """
    if plan.measure == "rho":
        for row in plan.rows:
            if row.method in PLAIN and KNOWN[row.method].sampling:
                raise ValueError(
                    f"{row.name}: {row.method} merges while it samples: ρ needs a merge, take a judge"
                )
    pipe = load_pipeline(run.scale, run.device)
    plan = with_networks(plan, pipe, run.out / "networks", progress=run.progress)
    if plan.measure == "rho":
        with ExitStack() as stack:

            @cache
            def measure(loras: Path) -> Ruler:
                names = (*run.subjects, *run.styles)
                found = adapters(names, loras, run.scale, run.world)
                sides = {name: with_pictures(name, found[name], run.world) for name in names}
                return stack.enter_context(ruler(pipe, sides=sides))

            return _entered(run, plan, lambda own, *entry: _errors(own, *entry, pipe, measure(own.loras)))
    by = find_judge(plan.measure, run.scale, run.device, run.world)
    return _entered(run, plan, lambda *entry: _shares(*entry, pipe, by))


def _entered(
    run: Setting, plan: Plan, measured: Callable[[Setting, str, Method, Path | None], np.ndarray]
) -> dict[str, np.ndarray]:
    found = {}
    for row in plan.rows:
        own = row.setting(run)
        found[row.name] = np.stack(
            [
                measured(
                    replace(own, hypernetwork=file) if row.method == "lorarar" and file else own,
                    name,
                    method_of(row, file),
                    file,
                )
                for name, file in row.entrants
            ]
        )
    return found


def _shares(
    run: Setting, name: str, method: Method, _: Path | None, pipe: DiffusionPipeline, by: Judge
) -> np.ndarray:
    """Return the share of each pair's images that are right: (subjects, styles)."""
    images(run, {name: method}, pipe=pipe)
    return grid(judged(run, by, [name])[name], len(run.subjects))


def _errors(
    run: Setting, name: str, method: Method, file: Path | None, pipe: DiffusionPipeline, measure: Ruler
) -> np.ndarray:
    """Return ρ of each pair: (subjects, styles)."""
    kept = run.out / "rho" / f"{name.replace(':', '-')}.json"
    made_by = {"options": dict(method.options), "file": sha256(file) if file else "", "draws": measure.draws}
    made_by = json.loads(json.dumps(made_by))
    try:
        said = json.loads(kept.read_text())
    except (OSError, ValueError):
        said = {}
    found = said.get("rho", {}) if said.get("made by") == made_by else {}
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(run.pairs), desc=name, unit="pair", disable=not run.progress) as bar:
        for task in tasks(run, pipe=pipe):
            if slug(task.pair) not in found:
                if method.slow and name in METHODS:  # a row with options of its own is worked out below
                    make(task, name)
                found[slug(task.pair)] = measure.merged(task.pair, method.merge(task, **method.options)).both
                with atomic(kept) as aside:
                    aside.write_text(json.dumps({"made by": made_by, "rho": found}) + "\n")
            bar.update()
    return np.array([found[slug(pair)] for pair in run.pairs]).reshape(len(run.subjects), -1)


def mean(rows: np.ndarray) -> Entry:
    """Return the mean of a row (trainings, subjects, styles) with its interval over all that varies."""
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


def lead(one: np.ndarray, other: np.ndarray, measure: str) -> Entry:
    """Return how far the first row is ahead of the second: `difference`, of ρ the other way round."""
    return difference(other, one) if measure == "rho" else difference(one, other)


def answer(ahead: Entry, margin: float) -> str:
    """Answer a question: is the lead above so many hundredths?"""
    return "yes" if ahead.low > margin / 100 else "no" if ahead.high < margin / 100 else "open"


def values(run: Setting, plan: Plan, found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return what is recorded: every pair's measure, means and answers."""
    leads = [
        (one, other, by, lead(found[one], found[other], plan.measure)) for one, other, by in plan.questions
    ]
    return {
        "measure": plan.measure,
        "subjects": list(run.subjects),
        "styles": list(run.styles),
        "seeds": [] if plan.measure == "rho" else run.seeds,
        "rows": {
            name: {
                "mean": mean(rows),
                "trainings": [float(one.mean()) for one in rows],
                "pairs": np.round(rows, 4).tolist(),
            }
            for name, rows in found.items()
        },
        "questions": [
            {"one": one, "other": other, "margin": by, "lead": ahead, "answer": answer(ahead, by)}
            for one, other, by, ahead in leads
        ],
    }
