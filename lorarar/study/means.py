"""Tables of mean coefficients, made once, which `lorarar merge --method table` applies to any pair.

What a hypernetwork is worth that does not look at the pair; a table by layer has two numbers a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lorarar.hypernet import load_network
from lorarar.lora import LoRA, LoRAError, load_coefficients, save_coefficients
from lorarar.merging import Gates
from lorarar.scales import Scale, find_scale
from lorarar.shoebox import zoo
from lorarar.study import coefficients as co
from lorarar.study.ladder import training_pairs


@torch.no_grad()
def table_by(network: Path, scale: str | Scale = "shoebox") -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the mean of a network's answers over its training pairs of the zoo, by layer and column.

    Raises:
        ValueError: the file is no network, or does not say which pairs of the zoo it was trained on.
    """
    scale, net = find_scale(scale), load_network(network)
    if "lorarar_training" not in net.metadata:
        raise ValueError(
            f"{network}: does not say which pairs it was trained on; give --coefficients instead"
        )
    loras = {}
    for name in dict.fromkeys(name for pair in training_pairs(net) for name in pair):
        loras[name] = zoo.load(name, scale)
    return co.average(
        [net.coefficients(*(loras[n] for n in pair), net.parts) for pair in training_pairs(net)]
    )


@torch.no_grad()
def table_of_nothing(network: Path, like: LoRA) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return what a network answers to empty columns, for the layers of a LoRA: the constant it amounts to.

    Raises:
        LoRAError: the file is no network, or it cannot read the LoRA's layers.
    """
    net = load_network(network)
    nothing = LoRA({layer: (torch.zeros_like(up), down) for layer, (up, down) in like.items()})
    return net.coefficients(nothing, nothing, net.parts)


def table_of(files: Sequence[Path]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the mean of the coefficients in files of `lorarar ziplora`, by layer and column.

    Raises:
        LoRAError: a file is none, or has other layers or columns than the first.
    """
    many = [load_coefficients(path) for path in files]

    def shapes(gates: Gates) -> dict[str, list[int]]:
        return {layer: [len(m) for m in pair] for layer, pair in gates.items()}

    for path, gates in zip(files, many, strict=True):
        if shapes(gates) != shapes(many[0]):
            raise LoRAError(f"{path}: other layers or columns than {files[0]}; give files of one base model")
    return co.average(many)


def save_table(coefficients: Gates, path: Path, by: str = "layer") -> Path:
    """Write a table by layer, one number a side for each, or by layer and column."""
    if by == "layer":
        coefficients = {
            layer: (m_c.mean()[None], m_s.mean()[None]) for layer, (m_c, m_s) in coefficients.items()
        }
    save_coefficients(coefficients, path, metadata={"lorarar_table": by})
    return path
