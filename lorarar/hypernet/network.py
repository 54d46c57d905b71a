"""What every network that predicts coefficients has: how it was trained, its file, the layers it works on."""

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import safetensors.torch
from torch import Tensor, nn

from lorarar.atomic import atomic
from lorarar.hypernet.files import read_state
from lorarar.lora import LoRA, LoRAError
from lorarar.merging import batches, layers_of, matching, parallel
from lorarar.options import MergeOptions

State = Mapping[str, Tensor]


class Network(nn.Module):
    """A network that predicts a pair's coefficients.

    ``metadata`` (strings) is saved along: how it was trained, and for which parts. ``FORMAT`` is the name of
    its kind in a file's metadata.
    """

    FORMAT: ClassVar[str]

    def __init__(self, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.metadata = dict(metadata or {})

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of attention that it was trained to predict; else what a merge takes by itself."""
        parts = self.metadata.get("parts")
        return tuple(parts.split(",") if parts else MergeOptions().parts)

    @property
    def rest(self) -> str:
        """What the other layers had while it was trained, one of `lorarar.options.RESTS`."""
        return self.metadata.get("rest", MergeOptions().rest)

    @property
    def merge_options(self) -> dict[str, Any]:
        """The options of `lorarar.merging.merge` that it was trained for, ``parts`` and ``rest``."""
        return {"parts": self.parts, "rest": self.rest}

    @property
    def size(self) -> int:
        """How many parameters it has."""
        return sum(p.numel() for p in self.parameters())

    @abstractmethod
    def coefficients(
        self, content: LoRA, style: LoRA, parts: Iterable[str] = ("query", "output")
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Layer → (m_c, m_s), each (in,), for every attention layer of ``parts`` that both adapters have.

        Raises:
            LoRAError: no such layer, or one that the network cannot read.
        """

    @classmethod
    @abstractmethod
    def from_state(cls, path: Path, state: State, metadata: Mapping[str, str]) -> Self:
        """Return the network of a state of finite float tensors; ``path`` is for the words of an error.

        Raises:
            LoRAError: the state is another network's.
        """

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a network of this kind (`lorarar.hypernet.load_network` reads either).

        Raises:
            LoRAError: not such a file, damaged, holding anything but finite tensors, or another network's.
        """
        state, metadata = read_state(Path(path))
        return cls.from_state(Path(path), state, {k: v for k, v in metadata.items() if k != "format"})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write safetensors; the file appears whole or not at all.

        Raises:
            LoRAError: the place cannot be written.
        """
        path = Path(path)
        tensors = {name: x.detach().cpu().contiguous() for name, x in self.state_dict().items()}
        data = safetensors.torch.save(tensors, {**self.metadata, "format": self.FORMAT})
        try:
            with atomic(path) as aside:
                aside.write_bytes(data)
        except OSError as error:
            raise LoRAError(f"{path}: cannot be written: {error.strerror}") from None


def shared_layers(content: LoRA, style: LoRA, parts: Iterable[str]) -> list[str]:
    """The attention layers of ``parts`` that both adapters have.

    Raises:
        LoRAError: there is none.
    """
    if layers := layers_of(matching(content, style), parts):
        return layers
    raise LoRAError(
        "the LoRAs share no attention layer of a UNet in these parts, where a hypernetwork works; "
        "use method direct"
    )


def by_batches(
    work: Callable[[list[str]], Mapping[str, tuple[Tensor, Tensor]]],
    content: LoRA,
    style: LoRA,
    layers: list[str],
) -> dict[str, tuple[Tensor, Tensor]]:
    """Let ``work`` predict the coefficients of layers of equal shapes together, on all cores; in order."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for pairs in parallel(work, list(batches(content, style, layers)), content[layers[0]][0].device):
        found.update(pairs)
    return {layer: found[layer] for layer in layers}


def filled(network: Network, state: State, expected: str, path: Path) -> None:
    """Give a network, made on the meta device, its weights in float32.

    Raises:
        LoRAError: a tensor is missing, unknown or of another shape; ``expected`` ends the line.
    """
    wanted = {name: x.shape for name, x in network.state_dict().items()}
    if wrong := sorted(set(wanted) ^ set(state)):
        what = "missing" if wrong[0] in wanted else "unknown"
        raise LoRAError(f"{path}: {wrong[0]} is {what}; {expected}")
    for name, shape in wanted.items():
        if state[name].shape != shape:
            raise LoRAError(
                f"{path}: {name} has shape {tuple(state[name].shape)}, expected {tuple(shape)}; {expected}"
            )
    network.load_state_dict({name: x.float().clone() for name, x in state.items()}, assign=True)
    network.requires_grad_(True)
