"""Training the critics on drawings, choosing their thresholds, and what they say of the base model."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lorarar.pipelines import generate, load_pipeline
from lorarar.records import save_sheet
from lorarar.shoebox.models import hardest, loop
from lorarar.shoebox.models.critic import Critic, Namer
from lorarar.shoebox.models.loop import GROUPS, HELD_OUT, Recipe, card, fit, machine, to_unit
from lorarar.shoebox.models.naming import Said, likeness
from lorarar.shoebox.world import attributes, styles, subjects, world
from lorarar.shoebox.world.changed import mixed


def contrast(vectors: Tensor, identity: Tensor, temperature: float = 0.1) -> Tensor:
    """Supervised contrastive loss (Khosla et al. 2020) over unit vectors (n, d) with labels (n,)."""
    logits = vectors @ vectors.T / temperature
    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    positive = (identity[:, None] == identity[None]) & ~itself
    share = logits.masked_fill(itself, float("-inf")).log_softmax(1)
    counted = positive.any(1)
    per_row = share.masked_fill(~positive, 0).sum(1) / positive.sum(1).clamp(min=1)
    return -per_row[counted].mean()


def verify(vectors: Tensor, labels: Tensor, kind: Tensor, judgement: Tensor) -> Tensor:
    """Logistic loss of "the same" from scale · cosine + bias, over all pairs of unit vectors (n, d).

    `labels`, `kind` (n,): who or what it is, and of which class or family; `judgement` (2,): scale and bias.
    Pairs that are the same, pairs of one kind that are not, and pairs of two kinds count alike, however few
    there are: one threshold has to serve them all.
    """
    logits = judgement[0] * (vectors @ vectors.T) + judgement[1]
    upper = torch.ones_like(logits, dtype=torch.bool).triu(1)
    same, alike = labels[:, None] == labels[None], kind[:, None] == kind[None]
    losses = (
        F.softplus(-logits[same & upper]),
        F.softplus(logits[~same & alike & upper]),
        F.softplus(logits[~alike & upper]),
    )
    return sum(values.mean() for values in losses if len(values)) / 3


def roughen(images: Tensor) -> Tensor:
    """Blur and shift colours a little, at random: generated images are not as crisp as drawings."""
    n = len(images)
    soft = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear")
    amount = torch.rand(n, 1, 1, 1, device=images.device) * 0.7
    images = images * (1 - amount) + soft * amount
    gain = 1 + 0.06 * torch.randn(n, 3, 1, 1, device=images.device)
    shift = 0.05 * torch.randn(n, 3, 1, 1, device=images.device)
    return (images * gain + shift + 0.03 * torch.randn_like(images)).clamp(-1, 1)


def restage(images: Tensor) -> Tensor:
    """Zoom, turn and shift images (n, 3, h, w) a little, at random: what they show is still the same."""
    n, device = len(images), images.device
    zoom, turn = 1 + 0.1 * (2 * torch.rand(n, device=device) - 1), 0.06 * torch.randn(n, device=device)
    shift = 0.12 * (2 * torch.rand(n, 2, 1, device=device) - 1)
    across, up = zoom * turn.cos(), zoom * turn.sin()
    rows = torch.stack([torch.stack([across, -up], 1), torch.stack([up, across], 1)], 1)
    grid = F.affine_grid(torch.cat([rows, shift], 2), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def pairs(vectors: Tensor, labels: Tensor, hard: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of all pairs with one label, and of all hard pairs: other label, same `hard` value."""
    cosine = vectors @ vectors.T
    upper = torch.ones_like(cosine, dtype=torch.bool).triu(1)
    same = labels[:, None] == labels[None]
    alike = hard[:, None] == hard[None]
    return cosine[same & upper], cosine[~same & alike & upper]


def balanced(positive: Tensor, negative: Tensor, threshold: float) -> float:
    """Balanced accuracy of "cosine above threshold" on pairs that are, and are not, the same."""
    return float(((positive > threshold).float().mean() + (negative <= threshold).float().mean()) / 2)


def train_critic(
    out: Path,
    run: Path,
    recipe: Recipe,
    seed: int,
    device: str,
    groups: int = GROUPS,
    changed: float = 0.0,
) -> dict:
    """Train the critic on drawings, choose its thresholds on one held-out set, measure it on another.

    changed: share of the groups in which the other individual and style are the first with one change.
    Writes `out`/critic. The negatives of the measurement are the hard ones only: another identity of the same
    class, another style of the same family.
    """
    images, truths, _ = mixed(groups, seed, changed)
    truth = torch.from_numpy(truths).long()
    torch.manual_seed(seed)
    model = Critic().to(device)

    def loss(indices: Tensor, step: int) -> dict[str, Tensor]:
        pixels = roughen(to_unit(images[indices.numpy()]).to(device))
        cls, family, identity, style = truth[indices].to(device).unbind(1)
        said = model(pixels)
        terms = {
            "cls": F.cross_entropy(said[0], cls, label_smoothing=0.02),
            "family": F.cross_entropy(said[1], family, label_smoothing=0.02),
            "subject": contrast(said[2], identity),
            "style": contrast(said[3], style),
            "same subject": verify(said[2], identity, cls, model.judgement[0]),
            "same style": verify(said[3], style, family, model.judgement[1]),
        }
        return {"loss": sum(terms.values()), **terms}

    spent = fit(
        "critic", model, loss, len(images), recipe, run=run, seed=seed, device=device, group=world.GROUP
    )
    facts: dict = {}
    for split, held_seed in (("validation", seed + 2), ("test", seed + 3)):
        held, _, labels = world.dataset(HELD_OUT, held_seed)
        labels = torch.from_numpy(labels).long()
        said = model.look(held)
        found = {
            "subject": pairs(said[2], labels[:, 2], labels[:, 0]),
            "style": pairs(said[3], labels[:, 3], labels[:, 1]),
        }
        if split == "validation":
            for axis, (positive, negative) in found.items():
                best = max(np.linspace(-0.2, 0.95, 116), key=lambda t: balanced(positive, negative, t))
                getattr(model, f"{axis}_threshold").fill_(best)
        facts[split] = {
            "class accuracy": round(float((said[0].argmax(1) == labels[:, 0]).float().mean()), 4),
            "family accuracy": round(float((said[1].argmax(1) == labels[:, 1]).float().mean()), 4),
            **{
                f"{axis} balanced accuracy, hard pairs": round(
                    balanced(*found[axis], float(getattr(model, f"{axis}_threshold"))), 4
                )
                for axis in found
            },
        }
    model.save(out / "critic")
    facts = {"seed": seed, "recipe": asdict(recipe), **spent, "held-out drawings": facts}
    said = loop.command("critic", recipe, seed) + (f" --changed {changed:g}" if changed else "")
    card(out / "critic", "The critic", said, facts)
    return facts


PORTRAITS = 54_000
"""Drawings that the critic which names attributes is trained on."""
NAMED = 1_000
"""Drawings of which the critic names class and family to be measured."""
STRANGERS = 88
"""Individuals, and styles, by which its thresholds are chosen, and others by which it is measured."""


def threshold(alike: Sequence[np.ndarray], drawn: Sequence[hardest.Examined]) -> float:
    """Choose the likeness above which most is said rightly, changed ones and others counting alike.

    alike: by case, (n,) of its pictures.
    """
    scores, kinds = np.concatenate(alike), _kinds(drawn)
    ranks = np.quantile(scores, np.linspace(0, 1, 401))
    right = [scores[kinds == name] > ranks[:, None] for name in ("the same", "changed", "another")]
    same, changed, another = (said.mean(1) for said in right)
    return float(ranks[np.argmax(2 * same - changed - another)])


def train_namer(
    out: Path,
    run: Path,
    recipe: Recipe,
    seed: int,
    device: str,
    portraits: int = PORTRAITS,
    init: Path | None = None,
) -> dict:
    """Train the critic that names attributes, on single drawings; choose its thresholds, and measure it.

    init: the folder of a critic of embeddings to start from. Writes `out`/critic. Thresholds come from random
    individuals and styles, their changed selves and others; the measurement is on others of them.
    """
    drawn = attributes.portraits(portraits, seed)
    kinds, subject, style = (torch.from_numpy(table) for table in drawn[1:])
    torch.manual_seed(seed)
    model = Namer()
    if init is not None:
        model.begin_from(Critic.load(init))
    model.to(device)

    def loss(indices: Tensor, step: int) -> dict[str, Tensor]:
        pixels = roughen(restage(to_unit(drawn.images[indices.numpy()]).to(device)))
        kind, individual, manner = (table[indices].to(device) for table in (kinds, subject, style))
        cls, family, parts, knobs = model(pixels)
        terms = {}
        terms["cls"], terms["subject"] = model.subject.losses(Said(cls, parts), kind[:, 0], individual)
        terms["family"], terms["style"] = model.style.losses(Said(family, knobs), kind[:, 1], manner)
        return {"loss": sum(terms.values()), **terms}

    spent = fit("namer", model, loss, portraits, recipe, run=run, seed=seed, device=device)
    model.to("cpu")
    found = {split: _examine(model, split, seed) for split in ("validation", "test")}
    model.save(out / "critic")
    facts = {"seed": seed, "recipe": asdict(recipe), "portraits": portraits, **spent, **found}
    said = f"{loop.command('critic', recipe, seed, init)} --portraits {portraits}"
    card(out / "critic", "The critic that names attributes", said, facts)
    return facts


def _examine(model: Namer, split: str, seed: int) -> dict:
    """Measure a critic on strangers; those of the validation first give it its thresholds."""
    held = seed + (2 if split == "validation" else 3)
    shown = attributes.portraits(NAMED, held)
    said = model.look(shown.images)
    facts: dict = {
        name: round(float((said[k].argmax(1).numpy() == shown.kinds[:, k]).mean()), 4)
        for k, name in enumerate(("class accuracy", "family accuracy"))
    }
    strangers = hardest.strangers(STRANGERS, held)
    for axis in ("subject", "style"):
        drawn = [examined for examined in strangers if examined.case.axis == axis]
        cases = [examined.case for examined in drawn]
        alike = [likeness(model.evidence(axis, case.references, case.images)).numpy() for case in cases]
        if split == "validation":
            getattr(model, f"{axis}_threshold").fill_(threshold(alike, drawn))
        facts[axis] = accepted(np.concatenate(alike) > float(getattr(model, f"{axis}_threshold")), drawn)
    return facts


def accepted(said: np.ndarray, drawn: Sequence[hardest.Examined]) -> dict[str, float]:
    """Share of yes, said (n,) bool, of pictures of the very thing, of it with one change, and of another."""
    kinds = _kinds(drawn)
    return {name: round(float(said[kinds == name].mean()), 4) for name in ("the same", "changed", "another")}


def _kinds(drawn: Sequence[hardest.Examined]) -> np.ndarray:
    """Tell of every picture of several cases whether it shows the same, a changed one or another."""
    names = {"": "the same", hardest.ANOTHER: "another"}
    return np.array([names.get(change, "changed") for examined in drawn for change in examined.changes])


def measure_base(out: Path, rounds: int = 1, seed: int = 0, device: str | None = None) -> dict:
    """Let the critic judge the base model on every class × every family, and write the contact sheet.

    rounds: images per cell. Adds the measurements to the card of `out`/base and writes `out`/base/sheet.webp,
    the first round with a row per class and a column per family.
    """
    critic = Critic.load(out / "critic")
    pipe = load_pipeline(out / "base", device)
    cells = [(c, f) for c in subjects.CLASSES for f in styles.FAMILIES] * rounds
    began = time.monotonic()
    images = generate(
        pipe,
        [world.prompt(c, f) for c, f in cells],
        [seed * 1_000_000 + i for i in range(len(cells))],
        batch_size=32,
        progress=True,
    )
    seconds = (time.monotonic() - began) / len(cells)
    said = critic.look(images)
    cls, family = said[0].argmax(1).numpy(), said[1].argmax(1).numpy()
    cls_right = cls == [subjects.CLASSES.index(c) for c, _ in cells]
    family_right = family == [styles.FAMILIES.index(f) for _, f in cells]

    def shares(right: np.ndarray, names: tuple[str, ...], of: int) -> dict[str, float]:
        hits = {n: [r for r, cell in zip(right, cells, strict=True) if cell[of] == n] for n in names}
        return {n: round(float(np.mean(hit)), 3) for n, hit in hits.items()}

    facts = {
        "images": len(cells),
        "seed": seed,
        "seconds per image": round(seconds, 3),
        "machine": machine(),
        "class shown": round(float(cls_right.mean()), 4),
        "family shown": round(float(family_right.mean()), 4),
        "class shown, by class": shares(cls_right, subjects.CLASSES, 0),
        "family shown, by family": shares(family_right, styles.FAMILIES, 1),
    }
    sheet = world.sheet(
        images[: len(subjects.CLASSES) * len(styles.FAMILIES)], len(styles.FAMILIES), enlarge=1
    )
    save_sheet(sheet, out / "base" / "sheet.webp")
    kept = json.loads((out / "base" / "card.json").read_text())
    command = kept.pop("command")
    kept["judged by the critic"] = facts
    card(out / "base", "The base model: SDXL in miniature", command, kept)
    return facts
