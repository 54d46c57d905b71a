"""What a network that predicts coefficients goes by: the words of ``lorarar info`` for its file.

Does it look at a pair at all? Its answer to empty columns, how far columns of a size that LoRAs have move
that answer, and, with LoRAs at hand, which share of its variation is the layer, the column, and the pair.
Needs torch and numpy only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch

from lorarar.hypernet import PARTS, Hypernetwork, Invariants, Network, layers_of
from lorarar.hypernet.invariants import inner_products, invariants, places
from lorarar.lora import LoRA, norm
from lorarar.study.coefficients import SHARES, empty_answers, shares

SIZES = (1e-4, 1e-3, 1e-2)
"""Root mean squares of the entries of typical columns: those of LoRAs for SDXL lie between the first two."""

COLUMNS = 1024
"""How many pairs of random columns are asked about; they are the same whenever they are."""


@torch.no_grad()
def moved(network: Hypernetwork, rms: float, length: int) -> tuple[float, float]:
    """Return how far Gaussian columns move a network from its answer to empty ones, for (m_c, m_s).

    Args:
        network: LoRA.rar's.
        rms: of the columns' entries.
        length: of one column, half of what the network reads.

    Returns:
        The root mean square over `COLUMNS` pairs of columns.
    """
    draw = torch.Generator().manual_seed(0)
    columns = rms * torch.randn(COLUMNS, 2 * length, generator=draw)
    change = network(columns) - network(torch.zeros(2 * length))
    content, style = change.square().mean(0).sqrt().tolist()
    return content, style


@torch.no_grad()
def by_part(network: Invariants) -> dict[str, dict[str, list[float]]]:
    """Return what a network of invariants answers in the middle of the UNet, self-attention, by part.

    A layer is made of Gaussian columns on both sides; the first is emptied on both.

    Returns:
        {part: {"empty": [m_c, m_s] of the empty columns, "mean" and "spread": mean and standard deviation
        of the others' answers}}.
    """
    draw = torch.Generator().manual_seed(0)
    pair = [torch.randn(64, COLUMNS, generator=draw) for _ in range(2)]
    for update in pair:
        update[:, 0] = 0
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.{}"
    found = {}
    for part, module in PARTS.items():
        layer = name.format(module)
        sides = [LoRA({layer: (torch.eye(64), update)}) for update in pair]
        numbers = invariants(inner_products(*sides, [layer], torch.float32))
        answer = network(numbers, torch.tensor([places([layer])[layer]]))[0]  # (2, columns)
        found[part] = {
            "empty": answer[:, 0].tolist(),
            "mean": answer[:, 1:].mean(1).tolist(),
            "spread": answer[:, 1:].std(1).tolist(),
        }
    return found


@torch.no_grad()
def variation(network: Network, contents: Sequence[LoRA], styles: Sequence[LoRA]) -> dict[str, Any]:
    """Return the shares of the variance of a network's answers to all pairs of some LoRAs.

    Returns:
        {"pairs": how many, "content" and "style": {one of `SHARES`: share, …, "spread": the standard
        deviation of that side's coefficients}, "rms": {length of a column: rms of the updates' entries}}.

    Raises:
        ValueError: fewer than two pairs, or LoRAs that the network cannot read.
    """
    pairs = list(product(contents, styles))
    if len(pairs) < 2:
        raise ValueError(
            f"{len(contents)} content and {len(styles)} style LoRAs: give at least two pairs to compare"
        )
    said = [network.coefficients(*pair, network.parts) for pair in pairs]
    layers = [layer for layer in said[0] if all(layer in gates for gates in said)]
    found: dict[str, Any] = {"pairs": len(pairs)}
    for side, name in enumerate(("content", "style")):
        tables = [np.stack([gates[layer][side].double().numpy() for gates in said]) for layer in layers]
        terms = shares(tables)
        total = max(float(terms.sum()), 1e-30)
        found[name] = dict(zip(SHARES, (terms / total).tolist(), strict=True)) | {"spread": total**0.5}
    squares: dict[int, list[tuple[float, int]]] = {}
    for lora in (*contents, *styles):
        for layer in layers_of(lora, network.parts):
            up, down = lora[layer]
            squares.setdefault(len(up), []).append((norm((up, down)) ** 2, len(up) * down.shape[1]))
    found["rms"] = {
        out: (sum(s for s, _ in all_of) / sum(n for _, n in all_of)) ** 0.5
        for out, all_of in sorted(squares.items())
    }
    return found


def described(network: Network, contents: Sequence[LoRA] = (), styles: Sequence[LoRA] = ()) -> dict[str, Any]:
    """Return what ``lorarar info`` says of a network; with LoRAs also `variation` over their pairs."""
    training = json.loads(network.metadata.get("lorarar_training", "{}"))
    facts: dict[str, Any] = {
        "kind": network.FORMAT,
        "parameters": network.size,
        "parts": list(network.parts),
        "rest": network.rest,
        "trained": {key: training[key] for key in sorted(training) if key not in ("parts", "rest")},
    }
    told = variation(network, contents, styles) if contents or styles else None
    if isinstance(network, Hypernetwork):
        facts["lengths"] = [n // 2 for n in network.columns]
        facts["empty"] = {n: list(answer) for n, answer in empty_answers(network).items()}
        sizes = {
            n: [*SIZES, *([told["rms"][n]] if told and n in told["rms"] else [])] for n in facts["empty"]
        }
        facts["moved"] = {n: {rms: list(moved(network, rms, n)) for rms in of} for n, of in sizes.items()}
    elif isinstance(network, Invariants):
        facts["context"] = network.context
        facts["by part"] = by_part(network)
    if told:
        facts["variation"] = told
    return facts


def report(facts: Mapping[str, Any]) -> str:
    """Return `described` as text."""

    def two(values: Sequence[float]) -> str:
        return " ".join(f"{value:8.3f}" for value in values)

    rows = [
        ("kind", facts["kind"]),
        ("parameters", f"{facts['parameters']:,}"),
        ("predicts", f"{', '.join(facts['parts'])}; the rest: {facts['rest']}"),
    ]
    if trained := facts["trained"]:
        rows.append(("trained", ", ".join(f"{k} {v}" for k, v in trained.items() if len(str(v)) < 20)))
    if "lengths" in facts:
        rows.append(("column lengths", ", ".join(map(str, facts["lengths"]))))
    lines = [f"{name:15} {value}" for name, value in rows]
    if "empty" in facts:
        lines += ["", f"{'':37}  content    style"]
        for n, answer in facts["empty"].items():
            lines.append(f"{'answer to empty columns of ' + str(n):37} {two(answer)}")
            for rms, change in facts["moved"][n].items():
                lines.append(f"{f'  moved by Gaussian ones of rms {rms:.2g}':37} {two(change)}")
    lines += ["", f"{'in the middle, self-attention':37}  content    style"] * ("by part" in facts)
    for part, said in facts.get("by part", {}).items():
        lines.append(part)
        lines.append(f"{'  answer to empty columns':37} {two(said['empty'])}")
        lines.append(f"{'  to Gaussian ones, the mean':37} {two(said['mean'])}")
        lines.append(f"{'  and their standard deviation':37} {two(said['spread'])}")
    if told := facts.get("variation"):
        sides = told["content"], told["style"]
        lines += ["", f"{'variation over ' + str(told['pairs']) + ' pairs':37}  content    style"]
        for name in SHARES:
            lines.append(f"{'  share of the ' + name:37} {two([side[name] for side in sides])}")
        lines.append(f"{'  standard deviation':37} {two([side['spread'] for side in sides])}")
        of = ", ".join(f"{n}: {rms:.2g}" for n, rms in told["rms"].items())
        lines.append(f"  rms of the LoRAs' updates by column length: {of}")
    return "\n".join(lines)
