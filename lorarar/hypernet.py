"""The hypernetwork of LoRA.rar: one small MLP that predicts the merging coefficients of a pair of LoRAs.

It looks at one column of both updates at a time, x_j = [ΔW_c[:, j]; ΔW_s[:, j]], and answers (m_c, m_s) for
that column. Columns of different lengths have an input layer each and share the rest. Since ΔW = B A, the
first layer needs no dense update:

    W x_j + b = (W_c B_c) A_c[:, j] + (W_s B_s) A_s[:, j] + b,    W = [W_c  W_s].
"""

import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor, nn

from lorarar.atomic import atomic
from lorarar.lora import LoRA, LoRAError, instead_of
from lorarar.merging import batches, matching, parallel
from lorarar.options import MergeOptions

PARTS = {"query": "to_q", "key": "to_k", "value": "to_v", "output": "to_out.0"}
"""The parts of attention, self and cross alike, and the modules that hold them."""

_ATTENTION = re.compile(r"unet\..+\.attn[12]\.(to_q|to_k|to_v|to_out\.0)")


def layers_of(lora: Iterable[str], parts: Iterable[str]) -> list[str]:
    """The layers of the UNet's attention that are one of ``parts``, in order.

    Raises:
        LoRAError: ``parts`` is empty or names something else than query, key, value, output.
    """
    parts = list(parts)
    if not parts or not set(parts) <= set(PARTS):
        given = ", ".join(map(str, parts)) or "(none)"
        raise LoRAError(f"parts {given}: expected some of {', '.join(PARTS)}")
    modules = {PARTS[part] for part in parts}
    return [layer for layer in lora if (m := _ATTENTION.fullmatch(layer)) and m[1] in modules]


class Hypernetwork(nn.Module):
    """Linear(column length → hidden), one per length, ReLU, Linear(hidden → 2): the supplement's A1, fig. A1.

    ``columns`` are the lengths of the concatenated columns, twice the layers' outputs; the default is SDXL's,
    492,034 parameters. ``metadata`` (strings) is saved along: how it was trained, and for which parts.
    """

    def __init__(
        self,
        columns: Iterable[int] = (1280, 2560),
        hidden: int = 128,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.inputs = nn.ModuleDict({str(n): nn.Linear(n, hidden) for n in sorted(set(columns))})
        self.output = nn.Linear(hidden, 2)
        self.metadata = dict(metadata or {})

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

    @property
    def merge_options(self) -> dict[str, Any]:
        """The options of `lorarar.merging.merge` that it was trained for, ``parts`` and ``rest``."""
        default = MergeOptions()
        parts = self.metadata.get("parts")
        return {
            "parts": tuple(parts.split(",")) if parts else default.parts,
            "rest": self.metadata.get("rest", default.rest),
        }

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
        layers = layers_of(matching(content, style), parts)
        if not layers:
            raise LoRAError(
                "the LoRAs share no attention layer of a UNet in these parts, where a hypernetwork works; "
                "use method direct"
            )
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

        found: dict[str, tuple[Tensor, Tensor]] = {}
        for pairs in parallel(work, list(batches(content, style, layers)), content[layers[0]][0].device):
            found.update(pairs)
        return {layer: found[layer] for layer in layers}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write safetensors; the file appears whole or not at all.

        Raises:
            LoRAError: the place cannot be written.
        """
        path = Path(path)
        tensors = {name: x.detach().cpu().contiguous() for name, x in self.state_dict().items()}
        data = safetensors.torch.save(tensors, {**self.metadata, "format": "lorarar hypernetwork"})
        try:
            with atomic(path) as aside:
                aside.write_bytes(data)
        except OSError as error:
            raise LoRAError(f"{path}: cannot be written: {error.strerror}") from None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Hypernetwork":
        """Read our safetensors, or the state dict of the authors' released code (``.pth``), as tensors only.

        Raises:
            LoRAError: not such a file, damaged, holding anything but finite tensors, or of other shapes.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                head = file.read(512)
        except OSError as error:
            raise LoRAError(f"{path}: cannot be read: {error.strerror}") from None
        if head[8:9] != b"{" and (instead := instead_of(head)):
            raise LoRAError(f"{path}: {instead}")
        metadata: dict[str, str] = {}
        try:
            if head[8:9] == b"{":
                with safetensors.safe_open(path, "pt") as file:
                    metadata = file.metadata() or {}
                    state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            else:
                with warnings.catch_warnings(action="ignore"):  # on the age of the pickle's format
                    state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged pickle raises anything; with weights_only it runs nothing
            reason = str(error).split("\n")[0].split(". ")[0][:120]
            raise LoRAError(
                f"{path}: neither safetensors nor a plain state dict ({reason}), expected a hypernetwork"
            ) from None
        return cls._from_state(path, state, metadata)

    @classmethod
    def _from_state(cls, path: Path, state: object, metadata: Mapping[str, str]) -> "Hypernetwork":
        def fail(what: str) -> LoRAError:
            return LoRAError(
                f"{path}: {what}; expected a hypernetwork (input layers by column length, two outputs)"
            )

        if not isinstance(state, dict) or not all(
            isinstance(k, str) and isinstance(x, Tensor) for k, x in state.items()
        ):
            raise fail("not a dictionary of tensors")
        ours: dict[str, Tensor] = {}
        for key, x in state.items():
            if not x.is_floating_point() or not bool(x.isfinite().all()):
                raise fail(f"{key} is not made of finite floating-point numbers")
            # The released code counts its input layers from 1 and keeps the ReLU as output.0.
            if match := re.fullmatch(r"input_(\d+)\.(weight|bias)", key):
                partner = state.get(f"input_{match[1]}.weight")
                if partner is None or partner.ndim != 2:
                    raise fail(f"{key} without a weight matrix")
                key = f"inputs.{partner.shape[1]}.{match[2]}"
            key = re.sub(r"^output\.1\.", "output.", key)
            if key in ours:
                raise fail(f"two layers for {key}")
            ours[key] = x.to(torch.float32)
        weights = {m[1]: x for k, x in ours.items() if (m := re.fullmatch(r"inputs\.(\d{1,6})\.weight", k))}
        if not weights or "output.weight" not in ours or ours["output.weight"].ndim != 2:
            raise fail("layers missing")
        if any(int(n) == 0 or int(n) % 2 for n in weights):
            raise fail("a column length that is not two equal halves")
        with torch.device("meta"):
            network = cls([int(n) for n in weights], ours["output.weight"].shape[1])
        wanted = {name: x.shape for name, x in network.state_dict().items()}
        if wrong := sorted(set(wanted) ^ set(ours)):
            raise fail(f"{wrong[0]} is {'missing' if wrong[0] in wanted else 'unknown'}")
        for name, shape in wanted.items():
            if ours[name].shape != shape:
                raise fail(f"{name} has shape {tuple(ours[name].shape)}, expected {tuple(shape)}")
        network.load_state_dict({name: x.clone() for name, x in ours.items()}, assign=True)
        network.metadata = {k: v for k, v in metadata.items() if k != "format"}
        return network.requires_grad_(True)
