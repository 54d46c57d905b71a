"""A network that reads invariants: how two columns stand to each other and to their layer.

LoRA.rar's network reads the entries of two columns, so that it knows the lengths it was trained on and the
directions it has met. This one reads six numbers that no rotation of a layer's outputs changes, and is told
where the layer stands by part, way and depth. It has a few thousand parameters and no column length, so that
one network serves any base model whose attention is named as diffusers names it.

With ΔW = B A the numbers come from the factors: with G = Bᵀ B' of two adapters and their columns a, a' of A,
the inner product of two columns of updates is aᵀ G a'. No update is formed.
"""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from lorarar.hypernet.network import Network, State, by_batches, filled, shared_layers
from lorarar.lora import LoRA, LoRAError
from lorarar.merging import PARTS
from lorarar.options import CONTEXTS

INVARIANTS = 6
PLACE = len(PARTS) + 5

_START = 0.7  # the first answer to every column, near the best single number
_FAR = 6.0  # a norm e⁶ times another is far away, however far: an empty column must not have the say
_EMPTY = 1e-30
_SEEDS = 4  # summaries that attention makes of a layer
_HEADS = 4
_SPOT = re.compile(
    r"unet\.(down|mid|up)_blocks?\.(?:(\d+)\.)?attentions\.(\d+)\.transformer_blocks\.(\d+)"
    r"\.attn([12])\.(.+)"
)
_EXPECTED = "expected a network that reads invariants"


def inner_products(content: LoRA, style: LoRA, layers: list[str], dtype: torch.dtype) -> Tensor:
    """‖c_j‖², ‖s_j‖² and c_j·s_j of the columns of ΔW_c and ΔW_s: (layers, in, 3), from the factors.

    The layers have equal shapes on both sides (`lorarar.merging.batches`).
    """
    (up_c, down_c), (up_s, down_s) = (
        [torch.stack([lora[layer][which] for layer in layers]).to(dtype) for which in (0, 1)]
        for lora in (content, style)
    )
    return torch.stack(
        [
            (a * (b.mT @ other_b @ other_a)).sum(1)
            for (b, a), (other_b, other_a) in (
                ((up_c, down_c), (up_c, down_c)),
                ((up_s, down_s), (up_s, down_s)),
                ((up_c, down_c), (up_s, down_s)),
            )
        ],
        -1,
    )


def invariants(products: Tensor) -> Tensor:
    """The six numbers of each column from its `inner_products`: (…, in, 3) → (…, in, 6).

    The cosine of the two columns; the logarithms of their norms in units of the layer's root mean square; the
    logarithm of the ratio of the norms, and of the layers'; cosine times the first ratio. Norms further than
    e⁶ from one another count as that far; an empty column has cosine 0.
    """
    squares = products[..., :2].clamp(min=_EMPTY)  # (…, in, 2)
    logs = squares.log() / 2
    layer = squares.mean(-2, keepdim=True).log().expand_as(logs) / 2
    relative = (logs - layer).clamp(-_FAR, _FAR)
    ratio = (logs[..., 0] - logs[..., 1]).clamp(-_FAR, _FAR)
    between = (layer[..., 0] - layer[..., 1]).clamp(-_FAR, _FAR)
    cosine = (products[..., 2] * logs.sum(-1).neg().exp()).clamp(-1, 1)
    return torch.stack([cosine, *relative.unbind(-1), ratio, between, cosine * ratio], -1)


def places(layers: Iterable[str]) -> dict[str, list[float]]:
    """Where each layer stands: its part and its way, as one of several, cross-attention, and depth in 0…1.

    Depth is that of the transformer block among those of ``layers``, from the UNet's input to its output.

    Raises:
        LoRAError: a layer whose name does not say where it stands.
    """
    spots = {}
    for layer in layers:
        if not (match := _SPOT.fullmatch(layer)):
            raise LoRAError(
                f"layer {layer}: its name does not say where in the UNet it stands, which a network that "
                "reads invariants needs; use method direct"
            )
        way, block, attention, depth, which, module = match.groups()
        order = ("down", "mid", "up").index(way), int(block or 0), int(attention), int(depth)
        spots[layer] = order, which == "2", module
    ranks = {order: rank for rank, order in enumerate(sorted({order for order, _, _ in spots.values()}))}
    return {
        layer: [
            *(float(module == one) for one in PARTS.values()),
            float(cross),
            *(float(order[0] == way) for way in range(3)),
            ranks[order] / (len(ranks) - 1) if len(ranks) > 1 else 0.5,
        ]
        for layer, (order, cross, module) in spots.items()
    }


class Invariants(Network):
    """Invariants and place → hidden, SiLU, hidden, SiLU, two coefficients: 3,218 parameters at width 48.

    ``context`` is one of `lorarar.options.CONTEXTS`; a blind one is told the place alone. A fresh network
    answers 0.7 to every column.

    Raises:
        LoRAError: an unknown context, or a width that attention's heads cannot share.
    """

    FORMAT: ClassVar[str] = "lorarar invariants"

    def __init__(
        self, hidden: int = 48, context: str = "none", metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(metadata)
        if context not in CONTEXTS:
            raise LoRAError(f"context {context!r}: expected one of {', '.join(CONTEXTS)}")
        self.context = context
        seen = INVARIANTS * {"moments": 3, "blind": 0}.get(context, 1) + PLACE
        self.first = nn.Linear(seen, hidden)
        if context == "attention":
            if hidden % _HEADS:
                raise LoRAError(f"hidden {hidden}: attention needs a multiple of {_HEADS}")
            self.seeds = nn.Parameter(torch.randn(_SEEDS, hidden) / math.sqrt(hidden))
            self.gather, self.spread = (
                nn.MultiheadAttention(hidden, _HEADS, batch_first=True) for _ in range(2)
            )
        self.second = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, 2)
        nn.init.zeros_(self.output.weight)
        nn.init.constant_(self.output.bias, _START)

    @property
    def hidden(self) -> int:
        """The width of the hidden layers."""
        return self.output.in_features

    def forward(self, numbers: Tensor, place: Tensor) -> Tensor:
        """Invariants (n, in, 6) of n layers and their places (n, 9) → coefficients (n, 2, in)."""
        if self.context == "blind":  # one answer a layer
            hidden = nn.functional.silu(self.second(nn.functional.silu(self.first(place))))
            return self.output(hidden)[..., None].expand(-1, -1, numbers.shape[1])
        if self.context == "moments":
            whole = torch.cat([numbers.mean(1), numbers.std(1, correction=0)], 1)
            place = torch.cat([whole, place], 1)
        # What the layer's columns share goes through the first layer once.
        own, shared = self.first.weight.split([INVARIANTS, place.shape[1]], 1)
        hidden = numbers @ own.T + (place @ shared.T + self.first.bias)[:, None]
        hidden = nn.functional.silu(hidden)
        if self.context == "attention":
            summary, _ = self.gather(self.seeds.expand(len(hidden), -1, -1), hidden, hidden)
            hidden = hidden + self.spread(hidden, summary, summary)[0]
        hidden = nn.functional.silu(self.second(hidden))
        return self.output(hidden).mT

    def coefficients(
        self, content: LoRA, style: LoRA, parts: Iterable[str] = ("query", "output")
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Layer → (m_c, m_s), each (in,), for every attention layer of ``parts`` that both adapters have.

        Layers of equal shapes go through together, in the network's own precision. Gradients flow to the
        network's parameters (and to the factors, if they ask for them).

        Raises:
            LoRAError: no such layer, or one whose name does not say where it stands.
        """
        layers = shared_layers(content, style, parts)
        where = places(shared_layers(content, style, PARTS))
        weight = self.output.weight

        def work(names: list[str]) -> dict[str, tuple[Tensor, Tensor]]:
            numbers = invariants(inner_products(content, style, names, weight.dtype))
            place = torch.tensor([where[name] for name in names], dtype=weight.dtype, device=weight.device)
            return dict(zip(names, map(tuple, self(numbers, place).unbind()), strict=True))

        return by_batches(work, content, style, layers)

    @classmethod
    def from_state(cls, path: Path, state: State, metadata: Mapping[str, str]) -> Self:
        """Return the network of a state dict.

        Raises:
            LoRAError: the state is another network's.
        """
        first, last = (state.get(f"{name}.weight") for name in ("first", "output"))
        if first is None or last is None or first.ndim != 2 or last.ndim != 2:
            raise LoRAError(f"{path}: layers missing; {_EXPECTED}")
        widths = {3 * INVARIANTS + PLACE: "moments", PLACE: "blind"}
        context = "attention" if "seeds" in state else widths.get(first.shape[1], "none")
        with torch.device("meta"):
            network = cls(last.shape[1], context, metadata)
        filled(network, state, _EXPECTED, path)
        return network
