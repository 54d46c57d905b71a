"""Examinations of the judge and the critic: cases with a known answer, and how many are right."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from lorarar.judging import Ask, Axis, Question, majority, said_yes, votes
from lorarar.shoebox.models.critic import Critic
from lorarar.shoebox.models.judge import Drill, drill
from lorarar.shoebox.models.loop import HELD_OUT
from lorarar.shoebox.world import styles, subjects, world
from lorarar.shoebox.world import subjects as world_subjects
from lorarar.shoebox.world.scene import SIZE


# --- the judge judged ---------------------------------------------------------------------------------
def confusion(yes: np.ndarray, said: np.ndarray) -> dict[str, int]:
    """Count what should be Yes and No, yes (n,) bool, against what was said, (n,) bool."""
    yes, said = np.asarray(yes, bool), np.asarray(said, bool)
    return {
        "yes, said yes": int((yes & said).sum()),
        "yes, said no": int((yes & ~said).sum()),
        "no, said yes": int((~yes & said).sum()),
        "no, said no": int((~yes & ~said).sum()),
    }


def balanced_accuracy(yes: np.ndarray, said: np.ndarray) -> float:
    """Mean of the shares of Yes and of No that were said rightly; NaN where there is none of one."""
    from sklearn.metrics import balanced_accuracy_score

    yes, said = np.asarray(yes, bool), np.asarray(said, bool)
    if yes.all() or not yes.any():
        return float("nan")
    return float(balanced_accuracy_score(yes, said))


def report(yes: np.ndarray, said: np.ndarray, hard: np.ndarray) -> dict:
    """Sum up answers (n,): on all questions, and where what is wrong is hard to tell (hard, (n,) bool)."""
    kept = yes | hard
    return {
        "balanced accuracy": round(balanced_accuracy(yes, said), 4),
        "balanced accuracy, hard": round(balanced_accuracy(yes[kept], said[kept]), 4),
        "confusion": confusion(yes, said),
    }


def measure_groups(ask: Ask, groups: int, seed: int) -> tuple[dict, np.ndarray]:
    """Ask single questions about drawings of random individuals in random styles.

    Returns the report, with balanced accuracy by family of the image (subject) or the reference (style), and
    the wrongly accepted pairs, hard ones first: (n, 2, SIZE, SIZE, 3) uint8.
    """
    images, _, truths = world.dataset(groups, seed)
    truth = torch.from_numpy(truths).long()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        asked = Drill(*(column.numpy() for column in drill(truth)))
    axes = np.where(asked.prompt == 0, "subject", "style")
    families = [styles.FAMILIES[row - 1] if row else "" for row in asked.prompt]
    questions = [
        Question(str(axis), images[i], images[j], family)
        for axis, i, j, family in zip(axes, asked.reference, asked.image, families, strict=True)
    ]
    said = np.array([said_yes(text) for text in ask(questions)])
    facts = {}
    for axis in ("subject", "style"):
        here = axes == axis
        facts[axis] = report(asked.yes[here], said[here], asked.hard[here])
        family = truths[asked.image if axis == "subject" else asked.reference, 1]
        facts[axis]["hard, by family"] = {}
        for k, name in enumerate(styles.FAMILIES):
            these = here & (asked.yes | asked.hard) & (family == k)
            if asked.yes[these].any() and asked.hard[these].any():
                right = balanced_accuracy(asked.yes[these], said[these])
                facts[axis]["hard, by family"][name] = round(right, 3)
    mistaken = np.flatnonzero(said & ~asked.yes)
    mistaken = mistaken[np.argsort(~asked.hard[mistaken], kind="stable")]
    return facts, np.stack([images[asked.reference[mistaken]], images[asked.image[mistaken]]], 1)


class Case(NamedTuple):
    """A named subject or style with references, and images of which some show it.

    references: (r, SIZE, SIZE, 3) uint8; images: (n, SIZE, SIZE, 3) uint8; yes: (n,) bool; words: of a style.
    """

    axis: Axis
    name: str
    references: np.ndarray
    images: np.ndarray
    yes: np.ndarray
    words: str


Verdict = Callable[[Case], np.ndarray]
"""Says which of a case's images show it, (n,) bool."""


def cases(each: int = 6, seed: int = 0, names: Collection[str] | None = None) -> list[Case]:
    """Draw the hard cases of every named subject and style, none of which any training drawing shows.

    Per subject: `each` drawings of it, and of others of its class, named ones first, in the same named
    styles. Per style: drawings of random individuals in it, and in others of its family. References are as in
    the experiment: five photos of a subject, four drawings in a style. With `names`, only theirs are drawn.
    """
    found = []
    for number, (name, identity) in enumerate(subjects.SUBJECTS.items()):
        if names is not None and name not in names:
            continue
        rng = np.random.default_rng([seed, 5, number])
        chosen = rng.permutation(list(styles.STYLES))[:each]
        named = [o for n, o in subjects.SUBJECTS.items() if n != name and o.cls == identity.cls]
        others = [*named, *(subjects.random_identity(rng, identity.cls) for _ in range(each))][:each]
        right = [world.draw(identity, styles.STYLES[style], rng) for style in chosen]
        wrong = [world.draw(o, styles.STYLES[s], rng) for o, s in zip(others, chosen, strict=True)]
        found.append(("subject", name, world.subject_images(name, 5, seed + 1), [*right, *wrong], ""))
    for number, (name, style) in enumerate(styles.STYLES.items()):
        if names is not None and name not in names:
            continue
        rng = np.random.default_rng([seed, 6, number])
        named = [s for n, s in styles.STYLES.items() if n != name and s.family == style.family]
        others = [*named, *(styles.random_style(rng, style.family) for _ in range(each))][:each]
        shown = [
            subjects.random_identity(rng, str(cls)) for cls in rng.choice(world_subjects.CLASSES, 2 * each)
        ]
        right = [world.draw(who, style, rng) for who in shown[:each]]
        wrong = [world.draw(who, o, rng) for who, o in zip(shown[each:], others, strict=True)]
        references = world.style_images(name, 4, seed + 1)[0]
        found.append(("style", name, references, [*right, *wrong], style.family))
    yes = np.arange(2 * each) < each
    return [Case(axis, name, ref, np.stack(drawn), yes, said) for axis, name, ref, drawn, said in found]


def measure_named(verdict: Verdict, drawn: Sequence[Case]) -> dict:
    """Judge cases as the experiment does, references voting: a report per axis, and per named thing.

    verdict(case) gives (n,) bool.
    """
    said = [verdict(case) for case in drawn]
    facts = {}
    for axis in ("subject", "style"):
        here = [(case, answers) for case, answers in zip(drawn, said, strict=True) if case.axis == axis]
        if not here:
            continue
        yes, all_said = (np.concatenate(parts) for parts in zip(*((c.yes, a) for c, a in here), strict=True))
        facts[axis] = {
            "balanced accuracy": round(balanced_accuracy(yes, all_said), 4),
            "confusion": confusion(yes, all_said),
            "by name": {case.name: round(balanced_accuracy(case.yes, a), 3) for case, a in here},
        }
    return facts


def by_judge(ask: Ask) -> Verdict:
    """Give the judge's verdicts on cases."""
    return lambda case: majority(votes(ask, case.axis, case.references, case.images, case.words))


def by_critic(critic: Critic) -> Verdict:
    """Give the critic's verdicts on the same cases."""
    return lambda case: critic.same(case.axis, case.references, case.images)


def measure_judge(ask: Ask, seed: int = 0, sheet: Path | None = None, groups: int = HELD_OUT) -> dict:
    """Measure a judge on drawings it never saw; `sheet`: where to show what it wrongly accepted, by pairs."""
    single, mistaken = measure_groups(ask, groups, seed + 3)
    if sheet is not None and len(mistaken):
        tiles = mistaken[:40].reshape(-1, SIZE, SIZE, 3)
        Image.fromarray(world.sheet(tiles, 10)).save(sheet, quality=90)  # only looked at
    return {
        "held-out drawings": single,
        "named subjects and styles": measure_named(by_judge(ask), cases(seed=seed)),
    }


def agreement(ask: Ask, critic: Critic, images: np.ndarray, case: Case) -> dict:
    """Compare judge and critic on images of unknown truth, such as generated ones, by a case's references.

    images: (n, SIZE, SIZE, 3) uint8. Returns the share they agree on, Cohen's κ (chance taken off), and the
    share each accepts.
    """
    case = case._replace(images=images)
    one, two = by_judge(ask)(case), by_critic(critic)(case)
    agreed, p, q = float((one == two).mean()), float(one.mean()), float(two.mean())
    return {"agree": agreed, "kappa": kappa(one, two), "judge accepts": p, "critic accepts": q}


def kappa(one: np.ndarray, two: np.ndarray) -> float:
    """Give Cohen's κ of two judges' verdicts, bool arrays of one shape: agreement, with chance taken off.

    1 is full agreement, 0 what two judges who do not look would reach with as many Yes (Cohen 1960).
    """
    from sklearn.metrics import cohen_kappa_score

    one, two = np.ravel(np.asarray(one, bool)), np.ravel(np.asarray(two, bool))
    if (one.all() and two.all()) or (not one.any() and not two.any()):
        return 1.0  # both always say the same: they agree, whatever chance would do
    return float(cohen_kappa_score(one, two))
