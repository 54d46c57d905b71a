"""The critic: says which class, family, identity and style an image shows, so that the rest can be measured.

It is trained on drawings only, apart from the base model, and never sees a prompt. Class and family are
classified; identities and styles, which are new at test time, are compared with reference images by the
cosine of two embeddings.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lorarar.pipelines import generate, load_pipeline
from lorarar.shoebox.models import loop
from lorarar.shoebox.models.loop import GROUPS, HELD_OUT, Recipe, card, fit, machine, to_unit, write_whole
from lorarar.shoebox.world import styles, subjects, world
from lorarar.shoebox.world.changed import mixed

JUDGEMENT = ((10.0, -5.0), (10.0, -5.0))
"""Scale and bias with which `verify` begins to turn a cosine into "the same", for subject and style."""


def _block(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride=2, padding=1),
        nn.GroupNorm(8, outside),
        nn.SiLU(),
        nn.Conv2d(outside, outside, 3, padding=1),
        nn.GroupNorm(8, outside),
        nn.SiLU(),
    )


class Critic(nn.Module):
    """A small convolutional network with four answers about an image (n, 3, 64, 64) in [-1, 1].

    Attributes after training: `subject_threshold`, `style_threshold` – the cosine above which two images show
    the same identity (style), chosen on validation drawings.
    """

    def __init__(self, width: int = 32, embedding: int = 64) -> None:
        super().__init__()
        widths = [width, 2 * width, 3 * width, 6 * width]
        self.trunk = nn.Sequential(*[_block(a, b) for a, b in zip([3, *widths], widths, strict=False)])
        features = widths[-1] * 16 + sum(2 * w for w in widths[:3])
        self.cls = nn.Linear(features, len(subjects.CLASSES))
        self.family = nn.Linear(features, len(styles.FAMILIES))
        self.subject = nn.Sequential(nn.Linear(features, 256), nn.SiLU(), nn.Linear(256, embedding))
        self.style = nn.Sequential(nn.Linear(features, 256), nn.SiLU(), nn.Linear(256, embedding))
        self.judgement = nn.Parameter(torch.tensor(JUDGEMENT))  # only to learn by
        self.register_buffer("subject_threshold", torch.tensor(0.5))
        self.register_buffer("style_threshold", torch.tensor(0.5))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Answer for images (n, 3, 64, 64): class logits, family logits, unit subject and style vectors."""
        seen = []
        for depth, block in enumerate(self.trunk):
            images = block(images)
            if depth < 3:  # texture: what there is, wherever it is
                seen += [images.mean((2, 3)), images.std((2, 3))]
        seen = torch.cat([*seen, images.flatten(1)], 1)  # (n, features)
        return (
            self.cls(seen),
            self.family(seen),
            F.normalize(self.subject(seen), dim=-1),
            F.normalize(self.style(seen), dim=-1),
        )

    @torch.no_grad()
    def look(self, images: np.ndarray, batch: int = 200) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Answer for images (n, 64, 64, 3) uint8, in batches, on the CPU: see `forward`."""
        self.eval()
        device = self.cls.weight.device
        parts = [self(to_unit(images[i : i + batch]).to(device)) for i in range(0, len(images), batch)]
        return tuple(torch.cat(answers).cpu() for answers in zip(*parts, strict=True))

    def same(self, axis: str, references: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Tell which images (n, 64, 64, 3) show the references' identity ("subject") or style ("style").

        References (m, 64, 64, 3) vote as the judge's do: an image passes if a strict majority says yes.
        Returns (n,) bool.
        """
        which = {"subject": 2, "style": 3}[axis]
        cosine = self.look(images)[which] @ self.look(references)[which].T
        votes = cosine > getattr(self, f"{axis}_threshold")
        return (votes.float().mean(1) > 0.5).numpy()

    def save(self, folder: Path) -> None:
        """Write the weights, whose shapes tell the sizes, into `folder` as float16 safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: v.half() if v.dim() else v for k, v in self.state_dict().items()}
        write_whole(folder / "critic.safetensors", lambda aside: save_file(state, aside))

    @classmethod
    def load(cls, folder: Path) -> Critic:
        """Read a critic back from `folder`. Raises `ValueError` if its weights are of another network."""
        state = {k: v.float() for k, v in load_file(folder / "critic.safetensors").items()}
        try:
            model = cls(width=len(state["trunk.0.0.weight"]), embedding=len(state["subject.2.weight"]))
            model.load_state_dict(state)
        except (KeyError, RuntimeError):
            path = folder / "critic.safetensors"
            raise ValueError(
                f"{path}: not the weights of this critic; train it, with `lorarar shoebox critic`"
            ) from None
        return model.eval()


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
    images, truths = mixed(groups, seed, changed)
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


def measure_base(out: Path, rounds: int = 1, seed: int = 0, device: str | None = None) -> dict:
    """Let the critic judge the base model on every class × every family, and write the contact sheet.

    rounds: images per cell. Adds the measurements to the card of `out`/base and writes `out`/base/sheet.png,
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
    Image.fromarray(sheet).save(out / "base" / "sheet.png")
    kept = json.loads((out / "base" / "card.json").read_text())
    command = kept.pop("command")
    kept["judged by the critic"] = facts
    card(out / "base", "The base model: SDXL in miniature", command, kept)
    return facts
