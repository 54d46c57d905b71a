"""The commands of labels by eye: ``lorarar study labels draw | sheet | agree | record``."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lorarar.atomic import atomic
from lorarar.records import inside, recorded, save_recorded, save_sheet, sheet, tiles
from lorarar.scales import data_folder
from lorarar.study.cells import cell_of, setting
from lorarar.study.digits import digits, from_digits
from lorarar.study.images import read_cell
from lorarar.study.labels import (
    AXES,
    COLUMNS,
    DRAWINGS,
    KINDS,
    PARTS,
    Labels,
    Picture,
    agreement,
    drawn,
    interval,
    ordered,
    page,
    ranking,
    read_labels,
    share,
    tally,
    weights,
)
from lorarar.study.methods import METHODS
from lorarar.study.orders import references
from lorarar.study.verdicts import find_judge

Say = Callable[[object], None]
JUDGES = ("critic", "mars2")
EYES = ("eye", "eye-again")
"""The shipped files of labels: the book's makers, and the same eye a second time."""
ROWS = ("sum-at-0-7", "place-alone-0", "ridge-0-1")
"""Cells of the contest `inputs_validation` that stand beside the experiment's methods."""
EACH, A_PAGE = 2, 10


def folder() -> Path:
    """Return where the labelled pictures and their labels lie."""
    return data_folder() / "labels"


def load() -> tuple[list[Picture], np.ndarray]:
    """Return the shipped pictures in the order of their numbers: whose they are, and (n, h, w, 3) uint8.

    Raises ValueError if they were never drawn.
    """
    try:
        listed = json.loads((folder() / "pictures.json").read_text())
        with Image.open(folder() / "pictures.webp") as file:
            cut = tiles(np.asarray(file.convert("RGB")), listed["across"])
        pictures = [Picture(*row) for row in listed["pictures"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder()}: draw the pictures with `lorarar study labels draw` ({error})"
        ) from error
    return pictures, cut.reshape(-1, *cut.shape[2:])[: len(pictures)]


def by_eye(name: str = EYES[0]) -> Labels:
    """Return labels that are shipped, by the name of their file."""
    return read_labels(folder() / f"{name}.csv", len(load()[0]))


def add_steps(steps: Any) -> None:  # noqa: ANN401  (argparse's own type is private)
    """Add the parser of ``labels``, with its own steps."""
    text = "label merged pictures by eye, and compare judges with the labels"
    labels = steps.add_parser("labels", help=text, description=text)
    labels.add_argument("--quiet", action="store_true", help="no report")
    own = labels.add_subparsers(dest="part", metavar="STEP", required=True)

    one = own.add_parser("draw", help="draw the pictures from the experiment on validation, and keep them")
    one.add_argument("--count", type=int, default=200, help="default: %(default)s")
    one.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    one.add_argument("--cells", type=Path, metavar="DIR", help="default: runs/experiment/shoebox/validation")

    one = own.add_parser("sheet", help="write the pages that a labeller looks at, and a table to fill in")
    one.add_argument("-o", "--output", type=Path, metavar="DIR", required=True)
    one.add_argument("--order", type=int, metavar="SEED", help="shuffle the pages; default: by number")

    one = own.add_parser("agree", help="compare a table of labels with the shipped labels and the judges")
    one.add_argument("file", type=Path, metavar="CSV")

    own.add_parser("record", help="let the judges see the pictures, and record who agrees with the eye")


def run(options: argparse.Namespace, say: Say) -> None:
    """Run one of the steps of ``labels``."""
    {"draw": _draw, "sheet": _sheet, "agree": _agree, "record": _record}[options.part](options, say)


def _draw(options: argparse.Namespace, say: Say) -> None:
    pool = [*_of_experiment(), *_of_cells(options.cells)]
    chosen = [pool[i] for i in drawn(len(pool), options.count, options.seed)]
    across = 20
    blank = np.full_like(chosen[0][1], 255)
    shown = [picture for _, picture in chosen] + [blank] * (-len(chosen) % across)
    rows = [np.concatenate(shown[i : i + across], axis=1) for i in range(0, len(shown), across)]
    folder().mkdir(parents=True, exist_ok=True)
    save_sheet(np.concatenate(rows), folder() / "pictures.webp")
    text = ",\n  ".join(json.dumps(list(whose)) for whose, _ in chosen)
    with atomic(folder() / "pictures.json") as aside:
        aside.write_text(f'{{"across": {across},\n "pictures": [\n  {text}\n ]}}\n')
    say(f"{folder() / 'pictures.webp'}: {len(chosen)} of {len(pool)} pictures")


def _of_experiment() -> list[tuple[Picture, np.ndarray]]:
    """Return the first image of each merging method and pair, from the recorded sheet."""
    name = "experiment_validation"
    known = recorded(name)
    shown = sheet(name, len(known["methods"]))
    pairs = [(subject, style) for subject in known["subjects"] for style in known["styles"]]
    return [
        (Picture(*pair, method, known["seeds"][0]), shown[row, column])
        for row, pair in enumerate(pairs)
        for column, method in enumerate(known["methods"])
        if not METHODS[method].reference
    ]


def _of_cells(out: Path | None) -> list[tuple[Picture, np.ndarray]]:
    """Return the first images of each pair by the rows of the contest, from its cells."""
    found = []
    of = setting("validation", out=out)
    for method in ROWS:
        for pair in of.pairs:
            facts, images = read_cell(cell_of(of, method, pair))
            pictures = [Picture(*pair, method, seed) for seed in facts["seeds"][:EACH]]
            found += list(zip(pictures, images, strict=False))
    return found


def _sheet(options: argparse.Namespace, say: Say) -> None:
    pictures, images = load()
    order = np.arange(len(pictures))
    if options.order is not None:
        order = np.random.default_rng(options.order).permutation(order)
    shown = {name: references(name)[:DRAWINGS] for picture in pictures for name in picture[:2]}
    options.output.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(order), A_PAGE)
    for leaf, start in enumerate(starts, 1):
        rows = [
            (int(i) + 1, images[i], shown[pictures[i].subject], shown[pictures[i].style])
            for i in order[start : start + A_PAGE]
        ]
        with atomic(options.output / f"page-{leaf:02}.png") as aside:
            page(rows).save(aside, format="PNG")
    table = options.output / "labels.csv"
    if table.exists():
        say(f"{options.output}: {len(starts)} pages; {table} is there already and was left alone")
        return
    with atomic(table) as aside, aside.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *([int(i) + 1, "", "", ""] for i in order)])
    say(f"{options.output}: {len(starts)} pages; fill in {table}")


def _agree(options: argparse.Namespace, say: Say) -> None:
    pictures, _ = load()
    mine = read_labels(options.file, len(pictures))
    counts = weights(pictures)
    others: dict[str, Mapping[str, np.ndarray]] = {EYES[0]: _sides(by_eye())}
    if (data_folder() / "recorded" / "labels.json").is_file():
        others |= said_by_judges()
    say(f"{'':20}{'share':>24}{'κ':>24}{'balanced accuracy':>24}")
    for name, said in others.items():
        for axis in AXES:
            entries = agreement(getattr(mine, axis), said[axis], counts)
            cells = (
                f"{e.value:{form}} ({e.low:{form}} to {e.high:{form}})"
                for e, form in zip(entries.values(), (".0%", ".2f", ".0%"), strict=True)
            )
            say(f"{name:10}{axis:10}" + "".join(f"{cell:>24}" for cell in cells))


def said_by_judges() -> dict[str, dict[str, np.ndarray]]:
    """Return the recorded verdicts on the pictures: {judge: {axis: (n,) bool}}."""
    found = {}
    for judge, sides in recorded("labels")["verdicts"].items():
        subject, style = (from_digits(sides[axis]) for axis in AXES[:2])
        found[judge] = {"subject": subject, "style": style, "right": subject & style}
    return found


def judged(
    pictures: Sequence[Picture], images: np.ndarray, shows: Callable[[str, np.ndarray], np.ndarray]
) -> dict[str, np.ndarray]:
    """Ask a judge about the subject and the style of each picture: {axis: (n,) bool}."""
    found = {}
    for axis in AXES[:2]:
        names = np.array([getattr(picture, axis) for picture in pictures])
        found[axis] = np.zeros(len(names), bool)
        for name in dict.fromkeys(names.tolist()):
            found[axis][names == name] = shows(name, images[names == name])
    return found | {"right": found["subject"] & found["style"]}


def _sides(labels: Labels) -> dict[str, np.ndarray]:
    return {axis: getattr(labels, axis) for axis in AXES}


def compared(
    pictures: Sequence[Picture], eyes: Mapping[str, Labels], verdicts: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, Any]:
    """Return who agrees with whom, shares and kinds by method, and how alike the orders of methods are.

    "lenient" is the agreement of judges with the first labels if a subject that lacks no more than a part is
    taken for the subject; "within pairs" is `ordered`; "accepted" is what the judges say of each kind.

    Args:
        pictures: in the order of their numbers.
        eyes: labels by name; the first ones are what all others are compared with.
        verdicts: {judge: {axis: (n,) bool}}.
    """
    first, *_ = eyes
    sides = {name: _sides(labels) for name, labels in eyes.items()} | dict(verdicts)
    counts, methods = weights(pictures), [picture.method for picture in pictures]
    kinds = np.array(eyes[first].kinds)
    lenient = sides[first]["subject"] | (kinds == PARTS)
    milder = {"subject": lenient, "right": lenient & sides[first]["style"]}
    couples = [(first, name) for name in sides if name != first]
    couples += [(one, other) for i, one in enumerate(verdicts) for other in list(verdicts)[i + 1 :]]
    rows = {name: np.array([of == name for of in methods]) for name in dict.fromkeys(sorted(methods))}
    return {
        "agreement": {
            f"{one}, {other}": {a: agreement(sides[one][a], sides[other][a], counts) for a in AXES}
            for one, other in couples
        },
        "shares": {
            name: {a: interval(lambda c, of=said[a]: share(of, c), counts) for a in AXES}
            for name, said in sides.items()
        },
        "methods": {
            method: {"pictures": int(row.sum())}
            | {
                name: interval(lambda c, of=said["right"][row]: share(of, c), counts[:, row])
                for name, said in sides.items()
            }
            for method, row in rows.items()
        },
        "ranking": {
            f"{one}, {other}": ranking(sides[one]["right"], sides[other]["right"], methods, counts)
            for one, other in couples
        },
        "lenient": {
            name: {axis: agreement(yes, said[axis], counts) for axis, yes in milder.items()}
            for name, said in verdicts.items()
        },
        "within pairs": {
            name: {a: ordered(sides[first][a], said[a], pictures, counts) for a in AXES}
            for name, said in sides.items()
            if name != first
        },
        "kinds": tally(eyes[first].kinds, methods),
        "accepted": {
            kind: {"pictures": int(row.sum())}
            | {name: {a: float(said[a][row].mean()) for a in AXES} for name, said in verdicts.items()}
            for kind in KINDS
            if (row := kinds == kind).any()
        },
    }


def _record(options: argparse.Namespace, say: Say) -> None:
    pictures, images = load()
    eyes = {name: by_eye(name) for name in EYES}
    said = {name: judged(pictures, images, find_judge(name).shows) for name in JUDGES}
    written = {name: {axis: digits(sides[axis]) for axis in AXES[:2]} for name, sides in said.items()}
    files = sorted(folder().iterdir()) + [
        file
        for judge in ("critic", "judge")
        for file in (data_folder() / "shoebox" / judge).rglob("*.safetensors")
    ]
    path = save_recorded(
        "labels",
        {"verdicts": written, **compared(pictures, eyes, said)},
        command="lorarar study labels record",
        seed=0,
        scale="shoebox",
        inputs=inside(files),
    )
    say(path)
