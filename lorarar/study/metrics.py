"""The standard metrics on the experiment's images: LoRA.rar's table A2, ZipLoRA's table 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from lorarar.judging import Encoder, image_similarity, text_similarity
from lorarar.scales import Scale, find_scale, local
from lorarar.study.cells import Setting, cell_of
from lorarar.study.contest import Plan
from lorarar.study.images import read_cell
from lorarar.study.methods import METHODS
from lorarar.study.statistics import Entry, crossed


def encoders(scale: str | Scale) -> tuple[str, str]:
    """Return where a scale's CLIP and DINO are: the miniatures in the data folder, or the public models."""
    scale = find_scale(scale)
    return str(local(scale.clip)), str(local(scale.dino))


def measured(
    run: Setting, clip: Encoder, dino: Encoder, methods: Sequence[str] = tuple(METHODS)
) -> dict[str, dict[str, np.ndarray]]:
    """Measure every image of the methods: {method: {"CLIP-I", "DINO", "CLIP-T": (pairs, images)}}.

    As in Table A2: CLIP-I compares with the style's references, DINO with the subject's, CLIP-T with the
    prompt, its rare token left out, which CLIP has never met. References are views that no LoRA was trained
    on.

    Raises:
        ValueError: a cell is missing: make the images first.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    seen = {name: run.world.pictures(name, seed=1)[0] for pair in run.pairs for name in pair}
    with tqdm(
        total=len(methods) * len(run.pairs), desc="metrics", unit="cell", disable=not run.progress
    ) as bar:
        for method in methods:
            rows: dict[str, list[np.ndarray]] = {"CLIP-I": [], "DINO": [], "CLIP-T": []}
            for subject, style in run.pairs:
                made = read_cell(cell_of(run, method, (subject, style)))[1]
                rows["CLIP-I"].append(image_similarity(clip, made, seen[style]))
                rows["DINO"].append(image_similarity(dino, made, seen[subject]))
                prompt = run.world.words(style=style, cls=run.world.class_of(subject))
                rows["CLIP-T"].append(text_similarity(clip, made, prompt))
                bar.update()
            found[method] = {name: np.stack(values) for name, values in rows.items()}
    return found


def table_a2(found: Mapping[str, Mapping[str, np.ndarray]], subjects: int) -> dict[str, dict[str, Entry]]:
    """Return each method's means of `measured` with 95 % intervals over the subjects and their styles."""
    return {
        method: {name: crossed(values.mean(1).reshape(subjects, -1)) for name, values in rows.items()}
        for method, rows in found.items()
    }


def aligned(run: Setting, plan: Plan, clip: Encoder, dino: Encoder) -> dict[str, dict[str, np.ndarray]]:
    """Measure style, subject and text alignment of a plan's rows on the run's pairs (`Plan.setting`).

    So ZipLoRA's table 1 calls CLIP-I, DINO and CLIP-T of `measured`; the images are those that
    `lorarar.study.contest` has made.

    Returns:
        {row: {"CLIP-I", "DINO", "CLIP-T": (trainings, subjects, styles)}}, the mean of a pair's images.

    Raises:
        ValueError: an image is missing: run the contest first, by a judge.
    """
    found = {}
    for row in plan.rows:
        own = row.setting(run)
        places = [cell_of(own, name, pair) for name in row.cells for pair in own.pairs]
        if missing := [place for place in places if not (place / "cell.json").is_file()]:
            raise ValueError(f"no images {missing[0]}: make them first, with `lorarar study contest PLAN`")
        rows = measured(own, clip, dino, row.cells).values()
        found[row.name] = {
            metric: np.stack([one[metric].mean(1).reshape(len(own.subjects), -1) for one in rows])
            for metric in ("CLIP-I", "DINO", "CLIP-T")
        }
    return found
