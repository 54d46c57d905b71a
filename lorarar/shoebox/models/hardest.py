"""The examination of a judge on named subjects and styles in which one thing was changed.

Those of `examination.cases` are other individuals and other styles; here a judge has to see a collar.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from lorarar.atomic import atomic
from lorarar.shoebox.models.examination import Case, Verdict, measure_named
from lorarar.shoebox.world import changed, styles, subjects, world


class Examined(NamedTuple):
    """A case whose wrong images show the named thing with one change, and what was changed in each (n,)."""

    case: Case
    changes: tuple[str, ...]


def cases(each: int = 6, seed: int = 0) -> list[Examined]:
    """Draw named subjects and styles and their changed selves, in the same settings.

    As `examination.cases`: per subject `each` drawings of it and `each` of it with one attribute changed, in
    the same named styles, in which the change is seen; per style `each` drawings of random individuals in it,
    and of the same individuals in the style with one parameter changed. Styles that cannot be changed in such
    a way are left out.
    """
    found = []
    yes = np.arange(2 * each) < each
    none = ("",) * each
    for number, (name, identity) in enumerate(subjects.SUBJECTS.items()):
        rng = np.random.default_rng([seed, 8, number])
        chosen, others, changes = [], [], []
        for words in rng.permutation(list(styles.STYLES)):
            if len(chosen) == each:
                break
            try:
                other, change = changed.individual(rng, identity, drawn=styles.STYLES[words])
            except ValueError:  # nothing of it can be changed to be seen in this style
                continue
            chosen.append(styles.STYLES[words])
            others.append(other)
            changes.append(change)
        right = [world.draw(identity, s, rng) for s in chosen]
        wrong = [world.draw(o, s, rng) for o, s in zip(others, chosen, strict=True)]
        references = world.subject_images(name, 5, seed + 1)
        case = Case("subject", name, references, np.stack([*right, *wrong]), yes, "")
        found.append(Examined(case, (*none, *changes)))
    for number, (name, named) in enumerate(styles.STYLES.items()):
        rng = np.random.default_rng([seed, 9, number])
        try:
            others, changes = zip(*(changed.style(rng, named) for _ in range(each)), strict=True)
        except ValueError:
            continue
        shown = [subjects.random_identity(rng, str(cls)) for cls in rng.choice(subjects.CLASSES, each)]
        right = [world.draw(who, named, rng) for who in shown]
        wrong = [world.draw(who, o, rng) for who, o in zip(shown, others, strict=True)]
        references = world.style_images(name, 4, seed + 1)[0]
        case = Case("style", name, references, np.stack([*right, *wrong]), yes, named.family)
        found.append(Examined(case, (*none, *changes)))
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
