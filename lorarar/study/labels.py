"""Merged pictures labelled by eye: which, the sheet a labeller sees, the labels, and who agrees with them.

The pictures are drawn and shuffled by a seed, so that their order tells nothing of their method. A labeller
sees a number, the picture, and drawings of its subject and of its style, and writes a row of `COLUMNS`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score

from lorarar.study.preference import DRAWS, entry
from lorarar.study.statistics import Entry, rank_correlation

COLUMNS = ("number", "subject", "style", "kind")
AXES = ("subject", "style", "right")
KINDS = {
    "none": "nothing is wrong: subject and style are there",
    "subject: absent": "another thing, or nothing that can be named",
    "subject: other": "a thing of its class, but of another build",
    "subject: colours": "its build, in other colours",
    "subject: parts": "its build and colours, but a marking or an accessory is missing",
    "subject: smeared": "something of its colours, too blurred or broken to know",
    "repeat": "it stands there more than once, or grown together with a second one",
    "style: absent": "another family of styles, or none",
    "style: other": "the family, but another style of it",
}
"""How a picture fails, one main word each: of the subject if it is not there, else of the style."""

PARTS = "subject: parts"

DRAWINGS, ENLARGED = 3, 4
"""Drawings of either name beside a picture, and how much larger than it is a labeller sees it."""


class Picture(NamedTuple):
    """Where a picture comes from: the pair, the method, and the seed of its noise."""

    subject: str
    style: str
    method: str
    seed: int


class Labels(NamedTuple):
    """What an eye said of pictures in the order of their numbers: (n,) bool twice, and n words of `KINDS`."""

    subject: np.ndarray
    style: np.ndarray
    kinds: tuple[str, ...]

    @property
    def right(self) -> np.ndarray:
        """Subject and style are both there, (n,) bool."""
        return self.subject & self.style


def drawn(pool: int, count: int, seed: int) -> np.ndarray:
    """Draw ``count`` of a pool without replacement, in an order that tells nothing: (count,) indices.

    Raises ValueError if the pool has fewer.
    """
    if not 1 <= count <= pool:
        raise ValueError(f"--count must be between 1 and {pool}, the pictures there are, not {count}")
    return np.random.default_rng(seed).permutation(pool)[:count]


def page(rows: Sequence[tuple[int, np.ndarray, np.ndarray, np.ndarray]], across: int = 2) -> Image.Image:
    """Return a page of a labeller's sheet: each picture, numbered, its subject above its style beside it.

    Args:
        rows: (number, picture (h, w, 3) uint8, drawings of the subject and of the style (3, h, w, 3)).
        across: how many stand side by side.
    """
    side = ENLARGED * rows[0][1].shape[0]
    small, edge, top = side // 2, side // 16, side // 8
    wide, high = side + DRAWINGS * small + 2 * edge, side + top + edge
    sheet = Image.new("RGB", (across * wide + edge, -(-len(rows) // across) * high), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=0.8 * top)
    for place, (number, picture, *names) in enumerate(rows):
        x, y = edge + place % across * wide, place // across * high
        pen.text((x, y), str(number), fill="black", font=font)
        sheet.paste(_enlarged(picture, side), (x, y + top))
        for row, drawings in enumerate(names):
            for column, drawing in enumerate(drawings[:DRAWINGS]):
                at = x + side + edge // 2 + column * small, y + top + row * small
                sheet.paste(_enlarged(drawing, small - 4), at)
    return sheet


def _enlarged(picture: np.ndarray, side: int) -> Image.Image:
    return Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC)


def read_labels(path: Path, count: int) -> Labels:
    """Read a labeller's file: CSV with the `COLUMNS`, a row for each picture 1 … ``count``, in any order.

    Raises:
        ValueError: a number is missing, twice there or none of the pictures'; an answer is neither yes nor
            no; a kind is unknown, or not one of what the answers say.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            rows = [(table.line_num, row) for row in table]
            named = tuple(table.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as a table of labels: {error}") from error
    if named != COLUMNS:
        raise ValueError(f"{path}: the first line must be {','.join(COLUMNS)}, not {','.join(named)}")
    found: dict[int, tuple[bool, bool, str]] = {}
    for line, row in rows:
        where, text = f"{path}, line {line}", row["number"] or ""
        number = int(text) if text.isascii() and text.isdigit() else 0
        if not 1 <= number <= count:
            raise ValueError(f"{where}: there is no picture {text!r}: their numbers are 1 to {count}")
        if number in found:
            raise ValueError(f"{where}: picture {number} has a label already")
        found[number] = _label(row, where)
    if missing := [number for number in range(1, count + 1) if number not in found]:
        raise ValueError(f"{path}: {len(missing)} pictures have no label, the first is {missing[0]}")
    subject, style, kinds = zip(*(found[number] for number in range(1, count + 1)), strict=True)
    return Labels(np.array(subject), np.array(style), kinds)


def _label(row: Mapping[str, str | None], where: str) -> tuple[bool, bool, str]:
    said = []
    for axis in COLUMNS[1:3]:
        if row[axis] not in ("yes", "no"):
            raise ValueError(f"{where}: {axis} must be yes or no, not {row[axis]!r}")
        said.append(row[axis] == "yes")
    subject, style = said
    kind = row["kind"] or ""
    if kind not in KINDS:
        raise ValueError(f"{where}: no kind {kind!r}: choose one of {'; '.join(KINDS)}")
    fits = ("subject", "repeat") if not subject else ("style",) if not style else ("none",)
    if not kind.startswith(fits):
        raise ValueError(
            f"{where}: kind {kind!r} does not go with subject {row['subject']}, style {row['style']}"
        )
    return subject, style, kind


def weights(pictures: Sequence[Picture], draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Draw subjects and styles anew, each for itself: how often each picture counts, (draws, pictures).

    So are all intervals of the book drawn (`lorarar.study.statistics`); here pairs may have different numbers
    of pictures.
    """
    rng = np.random.default_rng(seed)
    counts = np.ones((draws, len(pictures)))
    for axis in ("subject", "style"):
        known, which = np.unique([getattr(p, axis) for p in pictures], return_inverse=True)
        counts *= rng.multinomial(len(known), np.full(len(known), 1 / len(known)), draws)[:, which]
    return counts


def interval(statistic: Callable[[np.ndarray], float], counts: np.ndarray) -> Entry:
    """Return a statistic of how often each picture counts, with its 95 % interval over ``counts``.

    Draws for which there is no such number (NaN) are left out.
    """
    return entry(statistic(np.ones(counts.shape[1])), np.array([statistic(row) for row in counts]))


def share(said: np.ndarray, count: np.ndarray) -> float:
    """Return the weighed share of yes among (n,) bool; NaN if nothing counts."""
    return float(said @ count / count.sum()) if count.sum() else float("nan")


def agreement(truth: np.ndarray, said: np.ndarray, counts: np.ndarray) -> dict[str, Entry]:
    """Return how well verdicts (n,) bool agree with labels (n,) bool.

    Args:
        truth: the labels.
        said: the verdicts.
        counts: of `weights`.

    Returns:
        "share", of equal ones; "kappa", Cohen's; "balanced", the mean of the shares of yes and of no that are
        found, one half for who does not look. NaN stands where labels or verdicts do not vary.
    """

    def kappa(count: np.ndarray) -> float:
        there = count > 0
        if len(np.union1d(truth[there], said[there])) < 2:
            return float("nan")
        return float(cohen_kappa_score(truth, said, sample_weight=count))

    def balanced(count: np.ndarray) -> float:
        if len(np.unique(truth[count > 0])) < 2:
            return float("nan")
        return float(balanced_accuracy_score(truth, said, sample_weight=count))

    return {
        "share": interval(lambda count: share(truth == said, count), counts),
        "kappa": interval(kappa, counts),
        "balanced": interval(balanced, counts),
    }


def ordered(truth: np.ndarray, said: np.ndarray, pictures: Sequence[Picture], counts: np.ndarray) -> Entry:
    """Return how often verdicts order two pictures of one pair, of which labels accept one, as labels do.

    A tie counts half, so that one half is a coin: it is the area under the curve, pair by pair. What makes a
    judge accept all pictures of a pair, whatever they show, does not count here.

    Args:
        truth: the labels, (n,) bool.
        said: the verdicts, (n,) bool.
        pictures: whose they are; those of one pair count alike.
        counts: of `weights`.
    """
    pairs = np.array(["/".join(picture[:2]) for picture in pictures])
    places, rows = [], []
    for pair in np.unique(pairs):
        of = np.flatnonzero(pairs == pair)
        gaps = np.subtract.outer(said[of[truth[of]]].astype(int), said[of[~truth[of]]].astype(int))
        places.append(of[0])
        rows.append(((1 + gaps).sum() / 2, gaps.size))
    hits, couples = np.array(rows).T

    def found(count: np.ndarray) -> float:
        weighed = count[places] @ couples
        return float(count[places] @ hits / weighed) if weighed else float("nan")

    return interval(found, counts)


def ranking(one: np.ndarray, other: np.ndarray, methods: Sequence[str], counts: np.ndarray) -> Entry:
    """Return Spearman's correlation of methods' shares by two sides, (n,) bool each; one method a picture."""
    of = np.array(methods)
    rows = [of == name for name in dict.fromkeys(methods)]

    def correlation(count: np.ndarray) -> float:
        if not all((count[row] > 0).any() for row in rows):
            return float("nan")
        sides = [np.array([share(side[row], count[row]) for row in rows]) for side in (one, other)]
        return rank_correlation(*sides)

    return interval(correlation, counts)


def tally(words: Sequence[str], methods: Sequence[str]) -> dict[str, dict[str, int]]:
    """Count the kinds of each method's pictures: {method: {kind: how many}}, in the order of `KINDS`."""
    couples = list(zip(methods, words, strict=True))
    return {
        name: {kind: n for kind in KINDS if (n := couples.count((name, kind)))}
        for name in sorted(set(methods))
    }
