"""The critic: says which class, family, identity and style an image shows, so that the rest can be measured.

It is trained on drawings only, apart from the base model, and never sees a prompt. Class and family are
classified; identities and styles, which are new at test time, are compared with reference images: by the
cosine of two embeddings, or, by the critic that is to follow (`Namer`), attribute by attribute.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lorarar.shoebox.models.loop import to_unit, write_whole
from lorarar.shoebox.models.naming import Names, Said, likeness
from lorarar.shoebox.world import attributes, styles, subjects

JUDGEMENT = ((10.0, -5.0), (10.0, -5.0))
"""Scale and bias with which `verify` begins to turn a cosine into "the same", for subject and style."""


def _trunk(width: int) -> tuple[nn.Sequential, list[int]]:
    """Build four blocks, each halving the side, and tell their channels."""
    widths = [width, 2 * width, 3 * width, 6 * width]
    return nn.Sequential(*[_block(a, b) for a, b in zip([3, *widths], widths, strict=False)]), widths


def _features(widths: Sequence[int]) -> int:
    """Count what `Critic.see` makes of an image."""
    return widths[-1] * 16 + sum(2 * w for w in widths[:3])


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
        self.trunk, widths = _trunk(width)
        features = _features(widths)
        self.cls = nn.Linear(features, len(subjects.CLASSES))
        self.family = nn.Linear(features, len(styles.FAMILIES))
        self.subject = nn.Sequential(nn.Linear(features, 256), nn.SiLU(), nn.Linear(256, embedding))
        self.style = nn.Sequential(nn.Linear(features, 256), nn.SiLU(), nn.Linear(256, embedding))
        self.judgement = nn.Parameter(torch.tensor(JUDGEMENT))  # only to learn by
        self.register_buffer("subject_threshold", torch.tensor(0.5))
        self.register_buffer("style_threshold", torch.tensor(0.5))

    def see(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return features (n, features) of images (n, 3, 64, 64), and the maps of the four blocks."""
        maps = [images]
        for block in self.trunk:
            maps.append(block(maps[-1]))
        texture = [value for m in maps[1:4] for value in (m.mean((2, 3)), m.std((2, 3)))]  # wherever it is
        return torch.cat([*texture, maps[-1].flatten(1)], 1), maps[1:]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Answer for images (n, 3, 64, 64): class logits, family logits, unit subject and style vectors."""
        seen, _ = self.see(images)
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
        device = next(self.parameters()).device
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
            width, names = len(state["trunk.0.0.weight"]), "subject.own.weight" in state
            model = (
                Namer(width, len(state["subject.read.weight"]))
                if names
                else Critic(width, len(state["subject.2.weight"]))
            )
            model.load_state_dict(state)
        except (KeyError, RuntimeError):
            path = folder / "critic.safetensors"
            raise ValueError(
                f"{path}: not the weights of this critic; train it, with `lorarar shoebox critic`"
            ) from None
        return model.eval()


class Namer(Critic):
    """A critic that names the attributes of an image's individual and style, and compares by those.

    Of its four answers the last two are the logits of attributes' values under each class, and each family:
    see `Names`. The thresholds are on `likeness`.
    """

    def __init__(self, width: int = 32, hidden: int = 256) -> None:
        nn.Module.__init__(self)
        self.trunk, widths = _trunk(width)
        features = _features(widths)
        self.subject = Names(features, len(subjects.CLASSES), attributes.SUBJECT, hidden, widths[1:])
        self.style = Names(features, len(styles.FAMILIES), attributes.STYLE, hidden, widths[1:])
        self.register_buffer("subject_threshold", torch.tensor(0.0))
        self.register_buffer("style_threshold", torch.tensor(0.0))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Answer for images (n, 3, 64, 64): class, family, and values of the subject and of the style."""
        seen, maps = self.see(images)
        subject, style = self.subject(seen, maps[1:]), self.style(seen, maps[1:])
        return subject.kind, style.kind, subject.values, style.values

    def evidence(self, axis: str, references: np.ndarray, images: np.ndarray) -> Tensor:
        """Weigh by attributes whether images (n, 64, 64, 3) show what references (m, 64, 64, 3) do."""
        which = {"subject": 0, "style": 1}[axis]
        said = [Said(*self.look(some)[which::2]) for some in (references, images)]
        return getattr(self, axis).evidence(*said)

    def same(self, axis: str, references: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Tell which images (n, 64, 64, 3) show the references' identity ("subject") or style ("style").

        References (m, 64, 64, 3) are taken together. Returns (n,) bool.
        """
        alike = likeness(self.evidence(axis, references, images))
        return (alike > getattr(self, f"{axis}_threshold")).numpy()

    def begin_from(self, other: Critic) -> None:
        """Take over what a critic of the same width has learned: to see, and to name if it does."""
        if isinstance(other, Namer):
            self.load_state_dict(other.state_dict())
            return
        self.trunk.load_state_dict(other.trunk.state_dict())
        for axis in ("subject", "style"):
            getattr(self, axis).read.load_state_dict(getattr(other, axis)[0].state_dict())
