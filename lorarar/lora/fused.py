"""Layers that one spelling has as one matrix and another as several: split and joined, exactly.

The query, key and value of Flux and SD3 are one layer to their authors (and to kohya's trainer) and three to
diffusers. The parts of a fused layer share its ``down`` and have each some rows of its ``up``. The other way,
parts that have one and the same ``down`` share it again; others make one layer of all their ranks,

    up = diag(up_q, up_k, up_v),    down = [down_q; down_k; down_v].
"""

from collections.abc import Callable, Collection, Iterable, Iterator

import torch

from lorarar.lora.adapter import LoRA, LoRAError, Outline, Pair
from lorarar.lora.spellings import parts_of, whole_of

Remake = Callable[[Iterable[tuple[str, Pair]]], Iterator[tuple[str, Pair]]]


def _rows(layer: str, out: int, width: int) -> list[int]:
    """How many rows of a fused layer each of its parts has: thirds, or the input's width and the rest."""
    rows = [width, width, width, out - 3 * width] if layer.endswith(".linear1") else [out // 3] * 3
    if min(rows) < 1 or sum(rows) != out:
        raise LoRAError(
            f"layer {layer}: {out} rows for an input of {width} are not those of its parts in diffusers; "
            "merge it with a LoRA that has it as one layer too"
        )
    return rows


def _remade(lora: LoRA, remake: Remake, alphas: dict[str, float]) -> LoRA:
    pairs = dict(remake(lora.items()))
    if isinstance(lora, Outline):
        return Outline(pairs, lambda: remake(lora.made()), **lora.about)
    result = LoRA(pairs, alphas=alphas, **lora.about)
    result.stored = {layer: kept for layer, kept in lora.stored.items() if layer in pairs}
    return result


def split(lora: LoRA, layers: Collection[str] | None = None) -> LoRA:
    """A LoRA with its fused layers (all, or those in ``layers``) as diffusers' parts; nothing is copied.

    Raises:
        LoRAError: a fused layer has other rows than its parts, or a part is in the LoRA beside it.
    """
    chosen = [n for n in lora if len(parts_of(n)) > 1 and (layers is None or n in layers)]
    if not chosen:
        return lora
    fused = dict.fromkeys(chosen)
    for layer in fused:
        if both := [part for part in parts_of(layer) if part in lora]:
            raise LoRAError(f"layer {layer} and its part {both[0]} are both in one LoRA; export it again")

    def remake(pairs: Iterable[tuple[str, Pair]]) -> Iterator[tuple[str, Pair]]:
        for layer, (up, down) in pairs:
            if layer not in fused:
                yield layer, (up, down)
                continue
            for part, rows in zip(
                parts_of(layer), up.split(_rows(layer, len(up), down.shape[1])), strict=True
            ):
                yield part, (rows, down)

    alphas = {
        part: alpha
        for layer, alpha in lora.alphas.items()
        for part in (parts_of(layer) if layer in fused else (layer,))
    }
    return _remade(lora, remake, alphas)


def _whole(layer: str, model: str) -> str | None:
    component, _, name = layer.partition(".")
    fused = whole_of(name, model) if component == "transformer" else None
    return fused and f"{component}.{fused}"


def joined(lora: LoRA, model: str) -> LoRA:
    """A LoRA with the parts of what a model's authors have as one layer joined; absent parts become zeros.

    What an absent part would be is known of a model whose query, key and value are as wide as its input, with
    a feed-forward of four times that (Flux, SD3).
    """
    # XLabs has the query, key and value of a single block as one layer, the authors have more in it.
    lora = split(lora, [n for n in lora if (parts := parts_of(n))[1:] and _whole(parts[0], model) != n])
    whole = {}  # part → fused layer
    for layer in lora:
        if fused := _whole(layer, model):
            whole[layer] = fused
    if not whole:
        return lora
    groups: dict[str, list[str]] = {}
    for part, fused in whole.items():
        groups.setdefault(fused, []).append(part)
    for fused in groups:
        if fused in lora:
            raise LoRAError(
                f"layer {fused} and its part {groups[fused][0]} are both in one LoRA; export it again"
            )
    lazy = isinstance(lora, Outline)

    def one(fused: str, found: dict[str, Pair]) -> Pair:
        width = next(iter(found.values()))[1].shape[1]
        usual = [4 * width if part.endswith("proj_mlp") else width for part in parts_of(fused)]
        rows = [len(found[p][0]) if p in found else n for p, n in zip(parts_of(fused), usual, strict=True)]
        downs = [found[part][1] for part in parts_of(fused) if part in found]
        # Whether two layers still to be made will be equal cannot be known, so their ranks are added.
        shared = not lazy and all(x.dtype == downs[0].dtype and torch.equal(x, downs[0]) for x in downs[1:])
        down = downs[0] if shared else torch.cat(downs)
        dtype = found[next(iter(found))][0].dtype
        for up, _ in found.values():
            dtype = torch.promote_types(dtype, up.dtype)
        up = torch.zeros((sum(rows), len(down)), dtype=dtype, device=down.device)
        top = left = 0
        for part, n in zip(parts_of(fused), rows, strict=True):
            if part in found:
                rank = found[part][0].shape[1]
                up[top : top + n, left : left + rank] = found[part][0]
                left += 0 if shared else rank
            top += n
        return up, down

    def remake(pairs: Iterable[tuple[str, Pair]]) -> Iterator[tuple[str, Pair]]:
        waiting: dict[str, dict[str, Pair]] = {}
        for layer, pair in pairs:
            if layer not in whole:
                yield layer, pair
                continue
            fused = whole[layer]
            waiting.setdefault(fused, {})[layer] = pair
            if len(waiting[fused]) == len(groups[fused]):
                yield fused, one(fused, waiting.pop(fused))

    return _remade(lora, remake, {n: a for n, a in lora.alphas.items() if n not in whole})
