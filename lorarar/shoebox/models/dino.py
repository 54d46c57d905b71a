"""The miniature DINO: a ViT that learns without labels which crops are of one image."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel

from lorarar.shoebox.models import architectures
from lorarar.shoebox.models.critic_training import balanced, pairs, roughen
from lorarar.shoebox.models.loop import GROUPS, HELD_OUT, RECIPES, Recipe, card, command, fit, to_unit
from lorarar.shoebox.world import world
from lorarar.shoebox.world.scene import SIZE


# --- DINO ---------------------------------------------------------------------------------------------
def vit(width: int = 128, layers: int = 4) -> ViTModel:
    """Build DINO's network in miniature: a ViT on 8 × 8 patches, 0.8 M parameters."""
    config = ViTConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        image_size=SIZE,
        patch_size=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return ViTModel(config, add_pooling_layer=False)


class Projection(nn.Module):
    """DINO's head: a bottleneck on the unit sphere, then as many prototypes as there are outputs."""

    def __init__(self, width: int, outputs: int = 1024, hidden: int = 512, bottleneck: int = 64) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.prototypes = nn.Parameter(F.normalize(torch.randn(outputs, bottleneck), dim=-1))

    def forward(self, features: Tensor) -> Tensor:
        """Compare features (n, width) with the prototypes: cosines (n, outputs)."""
        unit = F.normalize(self.mlp(features).float(), dim=-1)
        with torch.autocast(unit.device.type, enabled=False):  # to divide by 0.04 takes full precision
            return unit @ F.normalize(self.prototypes.float(), dim=-1).T


def crops(images: Tensor, side: int, smallest: float, largest: float) -> Tensor:
    """Cut a random square out of each image, mirrored half of the time, softened and its colours changed.

    images: (n, 3, SIZE, SIZE) in [-1, 1]; smallest, largest: of the square, as shares of the area.
    Returns (n, 3, side, side).
    """
    n = len(images)
    half = (smallest + (largest - smallest) * torch.rand(n, device=images.device)).sqrt()
    free = 1 - half
    x, y = ((2 * torch.rand(n, device=images.device) - 1) * free for _ in range(2))
    mirror = torch.where(torch.rand(n, device=images.device) < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(x)
    moves = torch.stack([torch.stack([half * mirror, zero, x], 1), torch.stack([zero, half, y], 1)], 1)
    grid = F.affine_grid(moves, [n, 3, side, side], align_corners=False)
    cut = F.grid_sample(images, grid, "bilinear", "reflection", align_corners=False)
    return roughen(recolour(cut))


def recolour(images: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of four images in five, and make one in five grey.

    The strengths are DINO's (Caron et al. 2021, their code's ColorJitter(0.4, 0.4, 0.2, 0.1)): a drawing's
    palette is the easiest thing that two crops share. images: (n, 3, h, w) in [-1, 1].
    """
    n = len(images)
    changed = torch.rand(n, 1, 1, device=images.device) < 0.8
    light, contrast, saturation, turn = (
        strength * changed * (2 * torch.rand(n, 1, 1, device=images.device) - 1)
        for strength in (0.4, 0.4, 0.2, 0.1)
    )
    # Hue turns colours about the grey axis (Rodrigues' formula); saturation scales what is not grey.
    grey = torch.full((3, 3), 1 / 3, device=images.device)
    same = torch.eye(3, device=images.device)
    a = 1 / 3**0.5
    cross = torch.tensor([[0, -a, a], [a, 0, -a], [-a, a, 0]], device=images.device)
    angle = 2 * torch.pi * turn
    colour = grey + (1 + saturation) * (angle.cos() * (same - grey) + angle.sin() * cross)
    colour = torch.where(torch.rand(n, 1, 1, device=images.device) < 0.2, grey, colour)
    unit = (torch.einsum("nij,njhw->nihw", colour, images) + 1) / 2 * (1 + light)[..., None]
    mean = unit.mean((1, 2, 3), keepdim=True)
    return (mean + (1 + contrast)[..., None] * (unit - mean)).clamp(0, 1) * 2 - 1


class Dino(nn.Module):
    """Student, teacher and centre (Caron et al. 2021, algorithm 1).

    The teacher follows the student and is never trained. It still counts as trainable: `train.fit` saves and
    restores what does, and leaves alone what has no gradient.
    """

    def __init__(self, outputs: int = 1024) -> None:
        super().__init__()
        networks = [nn.ModuleList([vit(), Projection(128, outputs)]) for _ in range(2)]
        self.student, self.teacher = networks
        self.teacher.load_state_dict(self.student.state_dict())
        self.centre = nn.Parameter(torch.zeros(outputs))

    @staticmethod
    def project(network: nn.ModuleList, images: Tensor) -> Tensor:
        """Give a network's cosines (n, outputs) for images of any size that is a multiple of the patches'."""
        eyes, head = network
        whole = images.shape[-1] == SIZE
        return head(eyes(images, interpolate_pos_encoding=not whole).last_hidden_state[:, 0])

    def forward(self, images: Tensor, share: float) -> dict[str, Tensor]:
        """Advance teacher and centre and return the student's losses; share: of the training that is done.

        Two large crops and four small ones of each image; the teacher sees the large ones.
        """
        with torch.no_grad():
            momentum = 1 - (1 - 0.99) * (1 + np.cos(np.pi * share)) / 2  # 0.99 rising to 1
            for slow, quick in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                slow.lerp_(quick.to(slow.dtype), 1 - momentum)
            large = [crops(images, SIZE, 0.4, 1.0) for _ in range(2)]
            small = [crops(images, SIZE // 2, 0.15, 0.4) for _ in range(4)]
            seen = self.project(self.teacher, torch.cat(large))
            target = ((seen - self.centre) / 0.04).softmax(-1).chunk(2)
            self.centre.lerp_(seen.mean(0), 0.1)
        said = [*self.project(self.student, torch.cat(large)).chunk(2)]
        said += self.project(self.student, torch.cat(small)).chunk(4)
        terms = [
            -(goal * (guess / 0.1).log_softmax(-1)).sum(-1).mean()
            for i, goal in enumerate(target)
            for j, guess in enumerate(said)
            if i != j  # not the very crop the teacher saw
        ]
        both = torch.cat(target)
        mean = both.mean(0)
        return {
            "loss": sum(terms) / len(terms),
            # Collapsed if a target is flat (its entropy is log of the outputs) or all are alike (this is 0).
            "spread": -(mean * (mean + 1e-9).log()).sum() + (both * (both + 1e-9).log()).sum(-1).mean(),
        }


def train_dino(
    out: Path,
    run: Path,
    recipe: Recipe = RECIPES["dino"],
    seed: int = 0,
    device: str = "cpu",
    groups: int = GROUPS,
) -> dict:
    """Train a ViT on drawings without any label, by DINO's recipe, and measure what it tells apart.

    The teacher is kept, as in the paper. Writes `out`/dino.
    """
    images, _, _ = world.dataset(groups, seed)
    torch.manual_seed(seed)
    model = Dino().to(device)

    def loss(indices: Tensor, step: int) -> dict[str, Tensor]:
        return model(to_unit(images[np.sort(indices.numpy())]).to(device), step / recipe.steps)

    spent = fit("dino", model, loss, len(images), recipe, run=run, seed=seed, device=device)
    eyes = model.teacher[0].to("cpu").eval()
    folder = out / "dino"
    facts = {
        "seed": seed,
        "recipe": asdict(recipe),
        **spent,
        "held-out drawings": measure_dino(eyes, seed, HELD_OUT),
    }
    eyes.half().save_pretrained(folder)
    architectures.image_processor().save_pretrained(folder)
    card(folder, "DINO in miniature", command("dino", recipe, seed), facts)
    return facts


@torch.no_grad()
def measure_dino(eyes: ViTModel, seed: int, groups: int = HELD_OUT) -> dict:
    """Measure a self-supervised ViT on held-out drawings by the cosine of its class tokens.

    Nearest neighbour's class and family; and the best balanced accuracy that a threshold reaches on hard
    pairs, as for the critic, chosen on the same pairs: what the metric could tell, not what it does.
    """
    images, _, truths = world.dataset(groups, seed + 3)
    parts = [eyes(to_unit(images[i : i + 200])).last_hidden_state[:, 0] for i in range(0, len(images), 200)]
    seen = F.normalize(torch.cat(parts), dim=-1)
    truth = torch.from_numpy(truths).long()
    cosine = seen @ seen.T
    group = torch.arange(len(seen)) // world.GROUP
    nearest = cosine.masked_fill(group[:, None] == group[None], -1).argmax(1)
    facts = {
        f"nearest neighbour's {name}": round(float((truth[nearest, k] == truth[:, k]).float().mean()), 4)
        for k, name in enumerate(("class", "family"))
    }
    for axis, label, alike in (("subject", 2, 0), ("style", 3, 1)):
        found = pairs(seen, truth[:, label], truth[:, alike])
        best = max(
            balanced(*found, float(t)) for t in torch.cat(found).quantile(torch.linspace(0.02, 0.98, 97))
        )
        facts[f"{axis} balanced accuracy, hard pairs, best threshold"] = round(best, 4)
    return facts
