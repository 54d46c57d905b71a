"""Which kind of network a file holds."""

import os
from pathlib import Path

import safetensors

from lorarar.hypernet.columns import Hypernetwork
from lorarar.hypernet.invariants import Invariants


def load_network(path: str | os.PathLike[str]) -> Hypernetwork | Invariants:
    """Read a network of either kind: our safetensors, or the released code's ``.pth``, as tensors only.

    Raises:
        LoRAError: not such a file, damaged, holding anything but finite tensors, or of other shapes.
    """
    kind = Invariants if _format(path) == Invariants.FORMAT else Hypernetwork
    return kind.load(path)


def is_network(path: str | os.PathLike[str]) -> bool:
    """Say whether a file claims to hold a network: by our metadata, or as a pickle that says it is one.

    No LoRA is read from a pickle; one that is called .safetensors is left to the reader of LoRAs to refuse.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(9)
    except (OSError, ValueError):
        return False
    if head[8:9] == b"{":  # safetensors, after eight bytes that may be anything
        return _format(path) in (Hypernetwork.FORMAT, Invariants.FORMAT)
    pickled = head[:4] == b"PK\x03\x04" or head[:1] == b"\x80"
    return pickled and Path(path).suffix.lower() != ".safetensors"


def _format(path: str | os.PathLike[str]) -> str | None:
    """What the metadata of a safetensors file call its kind; None if there is no such thing."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("format")
    except (OSError, ValueError, safetensors.SafetensorError):
        return None
