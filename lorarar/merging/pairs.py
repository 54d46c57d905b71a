"""Two adapters side by side: layers that match, batches of equal shapes, factors as matrices."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch import Tensor

from lorarar.lora import LoRA, LoRAError, Pair, fitted, inherited, is_vague
from lorarar.options import MergeOptions

Gates = Mapping[str, tuple[Tensor, Tensor]]
"""Layer → (m_c, m_s), one coefficient per input column of the layer, each of shape (in,)."""

Progress = Callable[[Sequence[Any]], Iterable[Any]]
"""Wraps the sequence of work items, as ``tqdm.tqdm`` does."""

# Entries of the factors that are worked on at once: few on a CPU, so that they stay in its cache (two large
# layers, or many small ones); many elsewhere, where the number of operations is what counts.
BATCH = 1 << 20
BATCH_ON_DEVICE = 1 << 28


class Predictor(Protocol):
    """What predicts a pair's coefficients, such as `lorarar.hypernet.Hypernetwork`."""

    def coefficients(self, content: LoRA, style: LoRA, parts: Iterable[str] = ...) -> Gates:
        """Return layer → (m_c, m_s), each of shape (in,)."""


def checked(options: MergeOptions | None, changes: Mapping[str, Any]) -> MergeOptions:
    """Return ``options`` with ``changes``; what is wrong with them is a LoRAError."""
    try:
        return MergeOptions.of(options, **changes)
    except ValueError as error:
        raise LoRAError(str(error)) from None


def matching(content: LoRA, style: LoRA) -> list[str]:
    """The layers both adapters have, in the content's order; refuses adapters of different models.

    Two that share few layers or none are merged if names and shapes say that both are of one base model, as
    the blocks of two B-LoRAs are.

    Raises:
        LoRAError: less than half of the smaller adapter's layers are in the other one and their bases differ
            or are not known, or a layer has another shape on the other side.
    """
    for name, lora in (("content", content), ("style", style)):
        if not lora:
            raise LoRAError(f"the {name} LoRA has no layer; check the file")
    shared = [layer for layer in content if layer in style]
    one, other = content.base, style.base
    if len(shared) < min(len(content), len(style)) / 2 and (one != other or is_vague(one)):
        few = f"{len(shared)} of {len(content)} and {len(style)} layers" if shared else "no layer"
        if one == other or is_vague(one) or is_vague(other):
            raise LoRAError(
                f"content and style share {few}, and nothing in them says that both are of one base model "
                f"({one}; {other}); merge two that change the same layers"
            )
        raise LoRAError(
            f"content and style share {few}: they were trained for different base models "
            f"({one} and {other}); merge two of one base"
        )
    for layer in shared:
        shapes = [_weight_shape(pair) for pair in (content[layer], style[layer])]
        if shapes[0] != shapes[1] or content[layer][0].ndim != style[layer][0].ndim:
            bases = f"though both look like {one}" if one == other else f"{one} and {other}"
            raise LoRAError(
                f"layer {layer}: content updates a weight of shape {shapes[0]}, style one of {shapes[1]}, "
                f"expected the same ({bases}); merge two LoRAs of one base model"
            )
    return shared


def batches(
    content: LoRA, style: LoRA, layers: Iterable[str], limit: int | None = None
) -> Iterator[list[str]]:
    """Group layers of equal shapes, types and device on both sides, each group no larger than ``limit``
    entries.

    Raises:
        LoRAError: a layer's factors are on two devices.
    """
    groups: dict[tuple[Any, ...], list[str]] = {}
    for layer in layers:
        factors = (*content[layer], *style[layer])
        key = tuple((x.shape, x.dtype, x.device) for x in factors)
        groups.setdefault(key, []).append(layer)
    for key, names in groups.items():
        if len({device for _, _, device in key}) > 1:
            raise LoRAError(f"layer {names[0]}: content and style are on different devices; move one")
        most = limit or (BATCH if key[0][2].type == "cpu" else BATCH_ON_DEVICE)
        step = max(1, most // sum(shape.numel() for shape, _, _ in key))
        yield from (names[i : i + step] for i in range(0, len(names), step))


def parallel(
    work: Callable[[Any], Any], items: Sequence[Any], device: torch.device, progress: Progress = iter
) -> Iterator[Any]:
    """``map(work, items)``, on a CPU with one item to a core and only a few ahead of who takes them.

    The matrices of a layer are too small for two cores to share: LAPACK's threads would wait for each other.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or len(items) < 2:
        yield from map(work, progress(items))
        return
    # What is thread-local in torch has to be handed on.
    pool = ThreadPoolExecutor(
        threads, initializer=torch.set_grad_enabled, initargs=(torch.is_grad_enabled(),)
    )
    torch.set_num_threads(1)
    try:
        ahead: deque[Future[Any]] = deque()
        for item in progress(items):
            ahead.append(pool.submit(work, item))
            if len(ahead) > 2 * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """``torch.stack`` along a new first dimension, without a copy when there is only one."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(list(tensors))


def _weight_shape(pair: Pair) -> tuple[int, ...]:
    up, down = pair
    return (up.shape[0], *down.shape[1:])


def as_matrices(layer: str, pair: Pair) -> Pair:
    """The factors as matrices (out, r) and (r, in): a convolution's in is in · kh · kw."""
    up, down = pair
    if up.shape[2:].numel() != 1:
        raise LoRAError(
            f"layer {layer}: up is a convolution of size {tuple(up.shape[2:])}, expected 1 × 1; "
            "merge it with method direct"
        )
    return up.flatten(1), down.flatten(1)


def shaped_like(pair: Pair, like: Pair) -> Pair:
    """Undo `as_matrices`: give matrices of any rank the shape of ``like``'s factors."""
    (up, down), (up_like, down_like) = pair, like
    rank = up.shape[1]
    return up.reshape(-1, rank, *up_like.shape[2:]), down.reshape(rank, *down_like.shape[1:])


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type that products are computed in: float64 for float64, float32 otherwise."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def fitted_to(up: Tensor, down: Tensor, dtype: torch.dtype, layer: str) -> Pair:
    """Return a batch of factors in ``dtype``, as `lorarar.lora.fitted` does, with the layer in its error."""
    overflow = f"layer {layer}: the merged update overflows float16; use smaller weights"
    return fitted(up, down, dtype, overflow)


def apply_weights(layer: str, pair: Pair, weight: float, dtype: torch.dtype | None = None) -> Pair:
    """One layer's update times ``weight``, rounded to ``dtype`` or its own."""
    up, down = pair
    dtype = dtype or down.dtype
    if weight != 1:
        down = down.to(working_dtype(down.dtype)) * weight
    up, down = (x[0].to(dtype) for x in fitted_to(up[None], down[None], dtype, layer))
    return up, down


def one_sided(content: LoRA, style: LoRA, content_weight: float, style_weight: float) -> dict[str, Pair]:
    """The layers that only one adapter has, each with its adapter's weight."""
    return {
        layer: apply_weights(layer, pair, weight)
        for side, other, weight in ((content, style, content_weight), (style, content, style_weight))
        for layer, pair in side.items()
        if layer not in other
    }


def heritage(content: LoRA, style: LoRA) -> dict[str, Any]:
    """What a merge has of its two beside the layers, as keyword arguments of `LoRA`."""
    dialects = {*content.dialect.split(", "), *style.dialect.split(", ")} - {""}
    return {
        "metadata": inherited([content.metadata, style.metadata]),
        "dialect": ", ".join(sorted(dialects)),
        "sources": (*content.sources, *style.sources),
        "model": content.model or style.model,
    }


def in_order_of(content: LoRA, style: LoRA, pairs: Mapping[str, Pair], **metadata: str) -> LoRA:
    """Return merged layers as a LoRA: the content's order first, then the layers of the style alone."""
    layers = [*content, *(layer for layer in style if layer not in content)]
    merged = LoRA({layer: pairs[layer] for layer in layers}, **heritage(content, style))
    merged.metadata.update(metadata)
    return merged


def widened(lora: LoRA, dtype: torch.dtype) -> LoRA:
    """The same LoRA with its factors in a type that holds both theirs and ``dtype``."""

    def wide(x: Tensor) -> Tensor:
        return x.to(torch.promote_types(x.dtype, dtype))

    result = LoRA(
        {layer: (wide(up), wide(down)) for layer, (up, down) in lora.items()},
        metadata=lora.metadata,
        dialect=lora.dialect,
        alphas=lora.alphas,
        sources=lora.sources,
        model=lora.model,
    )
    result.stored = {layer: (wide(up), scale) for layer, (up, scale) in lora.stored.items()}
    return result
