"""What one can do with merger coefficients: complete, replace and average them, and split their variance.

Coefficients are `lorarar.merging.Gates`: layer → (m_c, m_s), one number a column, (in,) each.
Nothing here changes what it is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lorarar.hypernet import PARTS, Hypernetwork, layers_of
from lorarar.lora import LoRA, delta_weight
from lorarar.merging import Gates

KINDS = tuple(f"{which} {part}" for part in PARTS for which in ("self", "cross"))
"""The parts of attention: "self query", "cross query", and so on."""

SHARES = ("layer", "column", "pair", "column and pair")
"""The four terms of `shares`, in order."""

_PLACE = re.compile(r"unet\.(\w+?)_blocks?\.(?:(\d+)\.)?attentions\.(\d+)\.")


def block_of(layer: str) -> str:
    """Return where in the UNet: "down 1.0" is the first attention of its second block on the way down."""
    way, number, attention = _PLACE.match(layer).groups()
    return way if number is None else f"{way} {number}.{attention}"


def part_of(layer: str) -> str:
    """Return what of attention, one of `KINDS`."""
    which = "self" if ".attn1." in layer else "cross"
    return f"{which} {next(part for part, module in PARTS.items() if layer.endswith(module))}"


# ---------------------------------------------------------------------------------------------------------
# Coefficients from coefficients


def constant(lora: LoRA, content: float, style: float | None = None) -> dict[str, tuple[Tensor, Tensor]]:
    """Return one number for each side, for all columns of all attention layers of a LoRA."""
    values = content, content if style is None else style
    return {
        layer: tuple(torch.full((lora[layer][1].shape[1],), float(value)) for value in values)
        for layer in layers_of(lora, PARTS)
    }


def complete(lora: LoRA, predicted: Gates, rest: str = "average") -> dict[str, tuple[Tensor, Tensor]]:
    """Return predicted coefficients together with the constant of the attention layers left out.

    ``rest`` is that of `lorarar.merging.lorarar`: ``average`` is one half, ``sum`` is one.
    """
    return {**constant(lora, {"average": 0.5, "sum": 1.0}[rest]), **predicted}


def halve(gates: Gates, layers: Iterable[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the coefficients, those of some layers replaced by one half, which is the plain average."""
    half = {layer: tuple(torch.full_like(m, 0.5) for m in gates[layer]) for layer in layers}
    return {**gates, **half}


def layer_means(gates: Gates, layers: Iterable[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the coefficients, those of some layers replaced by the layer's mean: columns are forgotten."""
    means = {layer: tuple(m.mean().expand_as(m).clone() for m in gates[layer]) for layer in layers}
    return {**gates, **means}


def one_level(gates: Gates, layers: Sequence[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the coefficients, those of some layers replaced by one mean a side, over all columns."""
    levels = [float(torch.cat([gates[layer][side] for layer in layers]).mean()) for side in (0, 1)]
    flat = {
        layer: tuple(torch.full_like(m, level) for m, level in zip(gates[layer], levels, strict=True))
        for layer in layers
    }
    return {**gates, **flat}


def average(many: Sequence[Gates]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the mean over pairs, column by column: a table that could be stored once and for all."""
    return {
        layer: tuple(torch.stack([gates[layer][side] for gates in many]).mean(0) for side in (0, 1))
        for layer in many[0]
    }


# ---------------------------------------------------------------------------------------------------------
# Numbers from coefficients


def means(gates: Gates, side: int, blocks: Sequence[str], kinds: Sequence[str]) -> np.ndarray:
    """Return the mean coefficient of one side by block and part, (blocks, kinds); nan where there is none."""
    table = np.full((len(blocks), len(kinds)), np.nan)
    for row, block in enumerate(blocks):
        for column, kind in enumerate(kinds):
            here = [gates[k][side] for k in gates if (block_of(k), part_of(k)) == (block, kind)]
            if here:
                table[row, column] = float(torch.cat(here).mean())
    return table


def shares(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Split the variance of coefficients m[p, l, j] by layer, column, pair, and column and pair together.

    Args:
        tables: one for each layer l, (pairs, columns).

    Returns:
        (4,), in the order of `SHARES`. The four are orthogonal: they add up to the variance.
    """
    mean, terms = np.concatenate([table.ravel() for table in tables]).mean(), np.zeros(4)
    for table in tables:
        level, column, pair = table.mean(), table.mean(0), table.mean(1)[:, None]
        both = table - column - pair + level
        for term, x in enumerate((level - mean, column - level, pair - level, both)):
            terms[term] += np.broadcast_to(np.square(x), table.shape).sum()
    return terms / sum(table.size for table in tables)


def share_of_length(
    levels: Mapping[str, float], widths: Mapping[str, int], lengths: Mapping[str, int]
) -> float:
    """Return which share of the variance between layers lies between the lengths of their columns.

    Args:
        levels: layer → mean coefficient.
        widths: layer → how many columns it has, its weight.
        lengths: layer → how long they are.
    """

    def spread(layers: Iterable[str]) -> float:
        weights = np.array([widths[k] for k in layers], float)
        values = np.array([levels[k] for k in layers])
        return float((weights * (values - np.average(values, weights=weights)) ** 2).sum())

    inside = sum(spread([k for k in levels if lengths[k] == n]) for n in set(lengths.values()))
    return 1 - inside / max(spread(list(levels)), 1e-12)


def correlation(one: np.ndarray | Tensor, other: np.ndarray | Tensor) -> float:
    """Return the correlation of two vectors; zero where nothing varies."""
    one, other = np.asarray(one), np.asarray(other)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def agreement(one: Gates, other: Gates, side: int, layers: Sequence[str]) -> tuple[float, float]:
    """Return the correlation over all columns of the layers, and the mean of those within each layer."""
    mine, theirs = ([gates[k][side].numpy() for k in layers] for gates in (one, other))
    inside = [correlation(*both) for both in zip(mine, theirs, strict=True)]
    return correlation(np.concatenate(mine), np.concatenate(theirs)), float(np.mean(inside))


def cosine(gates: Gates, layers: Sequence[str]) -> float:
    """Return how parallel m_c and m_s are, the mean of |cos| over layers: one at ZipLoRA's start."""
    return float(torch.stack([torch.cosine_similarity(*gates[k], dim=0).abs() for k in layers]).mean())


def properties(content: LoRA, style: LoRA, layer: str) -> dict[str, np.ndarray]:
    """Return what can be said of each column of a layer without the others, (in,) each."""
    one, other = (delta_weight(lora[layer]) for lora in (content, style))
    return {
        "strength of the subject's": one.norm(dim=0).numpy(),
        "strength of the style's": other.norm(dim=0).numpy(),
        "cosine of the two": torch.cosine_similarity(one, other, dim=0).numpy(),
    }


def energy(lora: LoRA, gates: Gates, side: int, layers: Sequence[str]) -> float:
    """Return ‖ΔW diag(m)‖² of one side (0 the content's, 1 the style's), summed over layers."""
    return sum(float((delta_weight(lora[k]) * gates[k][side]).square().sum()) for k in layers)


def energy_kept(lora: LoRA, gates: Gates, side: int, layers: Sequence[str]) -> float:
    """Return the share ‖ΔW diag(m)‖² / ‖ΔW‖² that one side keeps of its update; it may be more than one."""
    whole = {layer: (torch.ones_like(gates[layer][side]),) * 2 for layer in layers}
    return energy(lora, gates, side, layers) / energy(lora, whole, side, layers)


def between_rows(table: np.ndarray) -> float:
    """Return which share of the variance of a table (rows, columns) lies between its rows."""
    return float(table.mean(1).var() / table.var())


@torch.no_grad()
def empty_answers(network: Hypernetwork) -> dict[int, tuple[float, float]]:
    """Return what a hypernetwork answers to a pair of empty columns: {length of one column: (m_c, m_s)}."""
    return {n // 2: tuple(map(float, network(torch.zeros(n)))) for n in network.columns}
