"""A recorded run of the experiment as chapters read it: verdicts by method and judge, shares, differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lorarar.bookkit.records import recorded, sheet, suffix
from lorarar.bookkit.style import judge_of
from lorarar.judging import Verdicts
from lorarar.pipelines import generate, load_pipeline
from lorarar.shoebox import zoo
from lorarar.study import cells, statistics
from lorarar.study.methods import METHODS, applying
from lorarar.study.records import from_record
from lorarar.study.statistics import Entry
from lorarar.study.verdicts import find_judge

CONTROLS = ("base", "content", "style")
"""What merges nothing: no LoRA, the subject's alone, the style's alone."""

Axis = Literal["subject", "style", "right"]
Case = Literal["average", "best"]


@dataclass(frozen=True)
class Board:
    """Every method on every pair of a split, with the verdicts of all judges.

    Shares and differences have intervals over subjects and styles (`statistics.crossed`); with
    ``over="pairs"`` those of a bootstrap over pairs, which are too narrow (`statistics.independent`).
    """

    name: str
    subjects: tuple[str, ...]
    styles: tuple[str, ...]
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    """In the order of the columns of `pictures`."""
    verdicts: Mapping[str, Mapping[str, Verdicts]]
    """{judge: {method: verdicts, each (pairs, images)}}."""
    judge: str
    """Whose verdicts are quoted where none is named."""

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every subject with every style, the styles of a subject next to each other."""
        return [(subject, style) for subject in self.subjects for style in self.styles]

    @property
    def merges(self) -> list[str]:
        """The methods that merge, best average first."""
        merging = [m for m in self.methods if m not in CONTROLS]
        return sorted(merging, key=lambda m: -self.verdicts[self.judge][m].right.mean())

    def of(self, method: str, axis: Axis = "right", judge: str | None = None) -> np.ndarray:
        """Return the verdicts on a method's images, (pairs, images) bool."""
        return getattr(self.verdicts[judge or self.judge][method], axis)

    def scores(
        self, method: str, axis: Axis = "right", case: Case = "average", judge: str | None = None
    ) -> np.ndarray:
        """Return the score of each pair, (subjects, styles)."""
        return statistics.grid(self.of(method, axis, judge), len(self.subjects), case)

    def share(
        self, method: str, axis: Axis = "right", case: Case = "average", judge: str | None = None
    ) -> Entry:
        """Return the share of images that are right (or of pairs, in the best case)."""
        return statistics.crossed(self.scores(method, axis, case, judge))

    def difference(
        self,
        first: str,
        second: str,
        case: Case = "average",
        judge: str | None = None,
        over: Literal["subjects and styles", "pairs"] = "subjects and styles",
    ) -> Entry:
        """Return by how much the first method is ahead of the second on the same pairs."""
        gaps = self.scores(first, case=case, judge=judge) - self.scores(second, case=case, judge=judge)
        return statistics.independent(gaps) if over == "pairs" else statistics.crossed(gaps)

    def pictures(self) -> np.ndarray:
        """Return the first seed's image of each pair and method, (pairs, methods, h, w, 3) uint8."""
        return sheet(self.name, len(self.methods))


def load(split: Literal["test", "validation"], scale: str = "shoebox") -> Board:
    """Load the recorded experiment of a split.

    Raises:
        ValueError: it was never recorded at that scale.
    """
    run = recorded(f"experiment_{split}{suffix(scale)}")
    return Board(
        name=run.name,
        subjects=tuple(run["subjects"]),
        styles=tuple(run["styles"]),
        seeds=tuple(run["seeds"]),
        methods=tuple(run["methods"]),
        verdicts={judge: from_record(run, judge) for judge in run["verdicts"]},
        judge=judge_of(scale),
    )


def made_again(
    board: Board, methods: tuple[str, ...], pairs: int, scale: str
) -> tuple[np.ndarray, np.ndarray]:
    """Merge and draw the first image of some pairs, (pairs, methods, h, w, 3) uint8, and get the recorded."""
    setting = cells.setting("test", scale, progress=False)
    chosen = board.pairs[:pairs]
    made = []
    for task in cells.tasks(setting, chosen, load_pipeline(scale)):
        for name in methods:
            method = METHODS[name]
            with applying(task, method.merge(task, **method.options)):
                made.append(generate(task.pipe, zoo.words(*task.pair), board.seeds[0])[0])
    images = np.stack(made).reshape(pairs, len(methods), *made[0].shape)
    return images, board.pictures()[:pairs, [board.methods.index(m) for m in methods]]


def judged_again(board: Board, images: np.ndarray, methods: tuple[str, ...], scale: str) -> float:
    """Let the judge see images (pairs, methods, …): which share of verdicts is the recorded one."""
    shows = find_judge(board.judge, scale).shows
    same: list[bool] = []
    for p, pair in enumerate(board.pairs[: len(images)]):
        for axis, name in zip(("subject", "style"), pair, strict=True):
            recorded = [board.of(m, axis)[p, 0] for m in methods]
            same += list(shows(name, images[p]) == recorded)
    return float(np.mean(same))
