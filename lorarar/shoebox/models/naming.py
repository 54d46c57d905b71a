"""Heads that name what a picture shows, attribute by attribute, and compare two pictures by what they named.

To say "the same dog" of two pictures one has to know of each which colour the collar has, and how sure that
is: a collar of another colour makes another dog, however like the rest; one that a style hides says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

QUERIES, GLIMPSE = 16, 48
"""How many places a picture's names are looked up in at once, and how much is seen of each."""

DROPPED = 0.25
"""Share of what is seen that is left out while the names are learned, lest drawings be learned by heart."""


class Said(NamedTuple):
    """Logits of a picture's kind (n, kinds), and of its attributes' values under each (n, kinds, values)."""

    kind: Tensor
    values: Tensor


class Glimpses(nn.Module):
    """Attention from a first impression of a picture to places in it: where is the collar, what is there?"""

    def __init__(self, widths: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.keys = nn.ModuleList(nn.Conv2d(width, 2 * GLIMPSE, 1) for width in widths)
        self.place = nn.Parameter(0.1 * torch.randn(1, GLIMPSE, 16, 16))
        self.query = nn.Linear(hidden, QUERIES * GLIMPSE)
        self.out = nn.Linear(QUERIES * GLIMPSE, hidden)
        nn.init.normal_(self.out.weight, std=0.02)

    def forward(self, maps: Sequence[Tensor], hidden: Tensor) -> Tensor:
        """Look at maps of 16, 8 and 4 places a side after impressions (n, hidden): (n, hidden)."""
        fine, middle, coarse = (project(m) for project, m in zip(self.keys, maps, strict=True))
        seen = fine + F.interpolate(middle + F.interpolate(coarse, scale_factor=2), scale_factor=2)
        key, value = seen.chunk(2, 1)
        key = (key + self.place).flatten(2)  # (n, GLIMPSE, places)
        query = self.query(hidden).view(len(hidden), QUERIES, GLIMPSE)
        weight = (query @ key / math.sqrt(GLIMPSE)).softmax(2)
        return self.out(F.silu(weight @ value.flatten(2).transpose(1, 2)).flatten(1))


class Names(nn.Module):
    """Names a picture's kind, and each of its attributes under each kind.

    An attribute means something else in each kind (a dog's third number is not a teapot's), but a red collar
    is red on all: what all kinds share is learned from all pictures, and only the rest by kind.

    features: of a picture; kinds: how many; sizes: how many values each attribute has; widths: channels of
    the three maps to look closer at, if there are any.
    """

    def __init__(
        self, features: int, kinds: int, sizes: Sequence[int], hidden: int, widths: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.sizes, self.kinds = list(sizes), kinds
        self.read = nn.Linear(features, hidden)
        self.glimpses = Glimpses(widths, hidden) if widths else None
        self.kind = nn.Linear(hidden, kinds)
        self.shared = nn.Linear(hidden, sum(sizes))
        self.own = nn.Linear(hidden, kinds * sum(sizes))
        nn.init.zeros_(self.own.weight)
        nn.init.zeros_(self.shared.weight)

    def forward(self, seen: Tensor, maps: Sequence[Tensor] = ()) -> Said:
        """Name what features (n, features), and the maps they come from, show."""
        hidden = F.silu(self.read(F.dropout(seen, DROPPED, self.training)))
        kind = self.kind(hidden)
        if self.glimpses is not None:
            hidden = hidden + F.silu(self.glimpses(maps, hidden))
        hidden = F.dropout(hidden, DROPPED, self.training)
        own = self.own(hidden).view(len(hidden), self.kinds, sum(self.sizes))
        return Said(kind, self.shared(hidden)[:, None] + own)

    def losses(self, said: Said, kind: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropy of the true kinds (n,), and summed that of the true values (n, attributes).

        An attribute that cannot be seen is best answered with how common its values are, and then says
        nothing in `evidence`: none has to be left out.
        """
        true = said.values[torch.arange(len(kind), device=kind.device), kind]
        parts = zip(true.split(self.sizes, 1), values.unbind(1), strict=True)
        return F.cross_entropy(said.kind, kind), sum(F.cross_entropy(part, value) for part, value in parts)

    def evidence(self, references: Said, images: Said) -> Tensor:
        """Weigh for each image and name whether it is that of the references: (n, 1 + attributes).

        Each is the log of how much likelier the two answers are of one value than of two drawn apart:
        log Σ p(value | references) p(value | image) K of K values, the kind first. References (m) are taken
        as views of one thing: their probabilities multiply.
        """
        pairs = [(references.kind, images.kind)]
        kind = int(references.kind.log_softmax(1).sum(0).argmax())
        parts = (said.values[:, kind].split(self.sizes, 1) for said in (references, images))
        pairs += zip(*parts, strict=True)
        each = []
        for several, one in pairs:
            known = several.log_softmax(1).sum(0).log_softmax(0)
            each.append(torch.logsumexp(known + one.log_softmax(1), 1) + math.log(len(known)))
        return torch.stack(each, 1)


def likeness(evidence: Tensor) -> Tensor:
    """How much likelier all names are the same than all but one, whichever: (n, names) to (n,), logs.

    -log of the mean over names of exp(-evidence): one collar outweighs all else that is alike.
    """
    return math.log(evidence.shape[1]) - torch.logsumexp(-evidence, 1)
