"""The examination of a judge on named subjects and styles in which one thing was changed.

Those of `examination.cases` are other individuals and other styles; here a judge has to see a collar.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from lorarar.atomic import atomic
from lorarar.shoebox.models.examination import Case, Verdict, measure_named
from lorarar.shoebox.world import changed, styles, subjects, world
from lorarar.shoebox.world.canvas import Style
from lorarar.shoebox.world.drawing import Identity

ANOTHER = "another"
"""What was changed in an individual, or a style, of which all is another's."""


class Examined(NamedTuple):
    """A case whose wrong images show the named thing with one change, and what was changed in each (n,)."""

    case: Case
    changes: tuple[str, ...]


def _examined(case: Case, wrong: Sequence[np.ndarray], changes: Sequence[str]) -> Examined:
    """Put images that do not show it, and what of it was changed in each, behind a case's right ones."""
    yes = np.arange(len(case.images) + len(wrong)) < len(case.images)
    images = np.concatenate([case.images, np.stack(wrong)])
    return Examined(case._replace(images=images, yes=yes), ("",) * len(case.images) + tuple(changes))


def _individual(
    rng: np.random.Generator,
    name: str,
    identity: Identity,
    references: np.ndarray,
    among: Iterable[Style],
    each: int,
    another: bool = False,
) -> Examined:
    chosen, others, changes = [], [], []
    for drawn in among:
        try:
            other, change = changed.individual(rng, identity, drawn=drawn)
        except ValueError:  # nothing of it can be changed to be seen in this style
            continue
        chosen.append(drawn)
        others.append(other)
        changes.append(change)
        if len(chosen) == each:
            break
    right = [world.draw(identity, drawn, rng) for drawn in chosen]
    wrong = [world.draw(other, drawn, rng) for other, drawn in zip(others, chosen, strict=True)]
    if another:
        wrong += [world.draw(subjects.random_identity(rng, identity.cls), drawn, rng) for drawn in chosen]
        changes += [ANOTHER] * len(chosen)
    case = Case("subject", name, references, np.stack(right), np.ones(len(right), bool), "")
    return _examined(case, wrong, changes)


def _style(
    rng: np.random.Generator,
    name: str,
    style: Style,
    references: np.ndarray,
    each: int,
    another: bool = False,
) -> Examined:
    others, changes = zip(*(changed.style(rng, style) for _ in range(each)), strict=True)
    shown = [subjects.random_identity(rng, str(cls)) for cls in rng.choice(subjects.CLASSES, each)]
    right = [world.draw(who, style, rng) for who in shown]
    wrong = [world.draw(who, other, rng) for who, other in zip(shown, others, strict=True)]
    if another:
        wrong += [world.draw(who, styles.random_style(rng, style.family), rng) for who in shown]
        changes += (ANOTHER,) * each
    case = Case("style", name, references, np.stack(right), np.ones(each, bool), style.family)
    return _examined(case, wrong, changes)


def cases(each: int = 6, seed: int = 0) -> list[Examined]:
    """Draw named subjects and styles and their changed selves, in the same settings.

    As `examination.cases`: per subject `each` drawings of it and `each` of it with one attribute changed, in
    the same named styles, in which the change is seen; per style `each` drawings of random individuals in it,
    and of the same individuals in the style with one parameter changed. Styles that cannot be changed in such
    a way are left out.
    """
    found = []
    for number, (name, identity) in enumerate(subjects.SUBJECTS.items()):
        rng = np.random.default_rng([seed, 8, number])
        among = (styles.STYLES[words] for words in rng.permutation(list(styles.STYLES)))
        found.append(_individual(rng, name, identity, world.subject_images(name, 5, seed + 1), among, each))
    for number, (name, named) in enumerate(styles.STYLES.items()):
        rng = np.random.default_rng([seed, 9, number])
        references = world.style_images(name, 4, seed + 1)[0]
        with suppress(ValueError):
            found.append(_style(rng, name, named, references, each))
    return found


def strangers(count: int, seed: int, each: int = 6) -> list[Examined]:
    """Draw cases as `cases` does, of `count` random individuals and `count` random styles, for thresholds.

    Behind the changed ones of each stand as many of other individuals of its class, or styles of its family,
    whose change is `ANOTHER`.
    """
    found = []
    drawn = [family for family in styles.FAMILIES if family != "photo"]
    for number in range(count):
        rng = np.random.default_rng([seed, 11, number])
        cls, family = subjects.CLASSES[number % len(subjects.CLASSES)], drawn[number % len(drawn)]
        identity = subjects.random_identity(rng, cls)
        views = [world.draw(identity, styles.random_style(rng, "photo"), rng) for _ in range(5)]
        among = (styles.random_style(rng, drawn[rng.integers(len(drawn))]) for _ in range(5 * each))
        found.append(
            _individual(rng, f"{cls} {number}", identity, np.stack(views), among, each, another=True)
        )
        while True:
            style = styles.random_style(rng, family)
            shown = [subjects.random_identity(rng, str(c)) for c in rng.permutation(subjects.CLASSES)[:4]]
            views = [world.draw(who, style, rng) for who in shown]
            with suppress(ValueError):  # it cannot be changed so that it is seen: another one
                found.append(_style(rng, f"{family} {number}", style, np.stack(views), each, another=True))
                break
    return found


def measure(verdict: Verdict, drawn: Sequence[Examined]) -> dict:
    """Examine a judge on changed things: `measure_named`, and the share accepted, by what was changed."""
    said = [verdict(examined.case) for examined in tqdm(drawn, "examine", unit="case")]
    answers = iter(said)
    facts = measure_named(lambda case: next(answers), [examined.case for examined in drawn])
    for axis, kinds in (("subject", changed.ATTRIBUTES), ("style", changed.PARAMETERS)):
        accepted: dict[str, list[bool]] = {kind: [] for kind in kinds}
        for examined, verdicts in zip(drawn, said, strict=True):
            if examined.case.axis == axis:
                for kind, yes in zip(examined.changes, verdicts, strict=True):
                    if kind:
                        accepted[kind].append(bool(yes))
        if axis in facts:
            facts[axis]["wrongly accepted, by what was changed"] = {
                kind: {"share": round(float(np.mean(yes)), 3), "images": len(yes)}
                for kind, yes in accepted.items()
                if yes
            }
    return facts


def remembered(verdict: Verdict, file: Path) -> Verdict:
    """Give the same verdicts, kept in `file` case by case, so that an examination that was killed goes on."""
    known: dict[str, list[bool]] = json.loads(file.read_text()) if file.is_file() else {}

    def ask(case: Case) -> np.ndarray:
        key = f"{case.axis} {case.name} {len(case.yes)}"
        if key not in known:
            known[key] = verdict(case).tolist()
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic(file) as aside:
                aside.write_text(json.dumps(known))
        return np.array(known[key], bool)

    return ask
