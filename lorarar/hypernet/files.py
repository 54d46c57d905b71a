"""A network's file as tensors and metadata; nothing in it is executed."""

import warnings
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from lorarar.lora import LoRAError, instead_of

_EXPECTED = "expected a hypernetwork"


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A network's tensors and metadata, from safetensors or a pickled state dict (tensors only).

    Raises:
        LoRAError: not such a file, damaged, or holding anything but finite floating-point tensors.
    """
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
            f"{path}: neither safetensors nor a plain state dict ({reason}); {_EXPECTED}"
        ) from None
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(x, Tensor) for k, x in state.items()
    ):
        raise LoRAError(f"{path}: not a dictionary of tensors; {_EXPECTED}")
    for key, x in state.items():
        if not x.is_floating_point() or not bool(x.isfinite().all()):
            raise LoRAError(f"{path}: {key} is not made of finite floating-point numbers; {_EXPECTED}")
    return state, metadata
