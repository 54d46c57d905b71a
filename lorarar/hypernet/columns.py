"""The hypernetwork of LoRA.rar: one small MLP that predicts the merging coefficients of a pair of LoRAs.

It looks at one column of both updates at a time, x_j = [ΔW_c[:, j]; ΔW_s[:, j]], and answers (m_c, m_s) for
that column. Columns of different lengths have an input layer each and share the rest. Since ΔW = B A, the
first layer needs no dense update:

    W x_j + b = (W_c B_c) A_c[:, j] + (W_s B_s) A_s[:, j] + b,    W = [W_c  W_s].
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, Self, cast

import torch
from torch import Tensor, nn

from lorarar.hypernet.network import Network, State, by_batches, filled, shared_layers
from lorarar.lora import LoRA, LoRAError

_EXPECTED = "expected a hypernetwork (input layers by column length, two outputs)"


class Hypernetwork(Network):
    """Linear(column length → hidden), one per length, ReLU, Linear(hidden → 2): the supplement's A1, fig. A1.

    ``columns`` are the lengths of the concatenated columns, twice the layers' outputs; the default is SDXL's,
    492,034 parameters. `load_network` reads its files, and those of the authors' released code.
    """

    FORMAT: ClassVar[str] = "lorarar hypernetwork"

    def __init__(
        self,
        columns: Iterable[int] = (1280, 2560),
        hidden: int = 128,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(metadata)
        self.inputs = nn.ModuleDict({str(n): nn.Linear(n, hidden) for n in sorted(set(columns))})
        self.output = nn.Linear(hidden, 2)

    @property
    def columns(self) -> tuple[int, ...]:
        """The column lengths it can read."""
        return tuple(int(n) for n in self.inputs)

    @property
    def hidden(self) -> int:
        """The width of the hidden layer."""
        return self.output.in_features

    def forward(self, columns: Tensor) -> Tensor:
        """Concatenated columns (…, 2·out) → coefficients (…, 2), content's first: the definition, dense."""
        return self.output(torch.relu(self.inputs[str(columns.shape[-1])](columns)))

    def coefficients(
        self, content: LoRA, style: LoRA, parts: Iterable[str] = ("query", "output")
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Layer → (m_c, m_s), each (in,), for every attention layer of ``parts`` that both adapters have.

        Equal to `forward` on every column of the dense updates. Layers of equal shapes go through together,
        in the network's own precision, in batches of bounded size. Gradients flow to the network's
        parameters (and to the factors, if they ask for them).

        Raises:
            LoRAError: no such layer, or one whose columns have a length without an input layer.
        """
        layers = shared_layers(content, style, parts)
        for layer in layers:
            if str(2 * len(content[layer][0])) not in self.inputs:
                raise LoRAError(
                    f"layer {layer}: its columns have length {2 * len(content[layer][0])}, the hypernetwork "
                    f"knows {', '.join(self.inputs)}; use one trained for this base model, or method direct"
                )
        dtype = self.output.weight.dtype

        def work(names: list[str]) -> dict[str, tuple[Tensor, Tensor]]:
            n, out = len(names), len(content[names[0]][0])
            first = cast(nn.Linear, self.inputs[str(2 * out)])
            down = torch.cat([lora[layer][1] for layer in names for lora in (content, style)])
            down = down.to(dtype).view(n, -1, down.shape[1])  # (n, r_c + r_s, in)
            # W·up, (hidden, out) × (out, r): the first layer's weights as the ranks see them.
            ranks = [
                torch.bmm(w.expand(n, -1, -1), torch.stack([lora[layer][0] for layer in names]).to(dtype))
                for lora, w in zip((content, style), first.weight.split(out, 1), strict=True)
            ]
            hidden = torch.baddbmm(first.bias[:, None], torch.cat(ranks, 2), down).relu_()
            m = torch.baddbmm(self.output.bias[:, None], self.output.weight.expand(n, -1, -1), hidden)
            return dict(zip(names, map(tuple, m.unbind()), strict=True))  # m: (n, 2, in)

        return by_batches(work, content, style, layers)

    @classmethod
    def from_state(cls, path: Path, state: State, metadata: Mapping[str, str]) -> Self:
        """Return the network of a state dict: ours, or that of the authors' released code.

        Raises:
            LoRAError: the state is another network's.
        """

        def fail(what: str) -> LoRAError:
            return LoRAError(f"{path}: {what}; {_EXPECTED}")

        ours: dict[str, Tensor] = {}
        for key, x in state.items():
            # The released code counts its input layers from 1 and keeps the ReLU as output.0.
            if match := re.fullmatch(r"input_(\d+)\.(weight|bias)", key):
                partner = state.get(f"input_{match[1]}.weight")
                if partner is None or partner.ndim != 2:
                    raise fail(f"{key} without a weight matrix")
                key = f"inputs.{partner.shape[1]}.{match[2]}"
            key = re.sub(r"^output\.1\.", "output.", key)
            if key in ours:
                raise fail(f"two layers for {key}")
            ours[key] = x
        weights = {m[1]: x for k, x in ours.items() if (m := re.fullmatch(r"inputs\.(\d{1,6})\.weight", k))}
        if not weights or "output.weight" not in ours or ours["output.weight"].ndim != 2:
            raise fail("layers missing")
        if any(int(n) == 0 or int(n) % 2 for n in weights):
            raise fail("a column length that is not two equal halves")
        with torch.device("meta"):
            network = cls([int(n) for n in weights], ours["output.weight"].shape[1], metadata)
        filled(network, ours, _EXPECTED, path)
        return network
