"""Merging: pure functions LoRA × LoRA → LoRA, and the compression of a LoRA to a smaller rank.

A column coefficient scales an input column of the update, ΔW·diag(m) = B·(A·diag(m)). So every method that
only weighs columns (direct sum, ZipLoRA, LoRA.rar) has an exact result of rank r_c + r_s,

    B = [B_c  B_s],    A = [A_c·diag(m_c); A_s·diag(m_s)],

which is an ordinary LoRA: nothing dense is ever formed. NP-LoRA changes A_c only and fits the same form. TIES
and DARE change single entries; on ΔW they go layer by layer through one dense matrix and back by a truncated
eigendecomposition.

Everything is computed in float32 or better and rounded to the inputs' own type at the end. The functions run
on whatever device the factors are on.
"""

import json
import math
import mmap
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import accumulate, repeat
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lorarar.lora import LoRA, LoRAError, Outline, Pair, fitted

if TYPE_CHECKING:
    from lorarar.hypernet import Hypernetwork

Gates = Mapping[str, tuple[Tensor, Tensor]]
"""Layer → (m_c, m_s), one coefficient per input column of the layer, each of shape (in,)."""

Progress = Callable[[Sequence[Any]], Iterable[Any]]
"""Wraps the sequence of work items, as ``tqdm.tqdm`` does."""

# Entries of the factors that are worked on at once: few on a CPU, so that they stay in its cache (two large
# layers, or many small ones); many elsewhere, where the number of operations is what counts.
BATCH = 1 << 20
BATCH_ON_DEVICE = 1 << 28

# The C library gives freed memory back to the system, which takes its time to hand it out again, unless a
# block as large as this was freed before (glibc's dynamic threshold, 32 MB at most; elsewhere no effect).
torch.empty(31 << 20, dtype=torch.uint8)

FLAVOURS = ("delta", "factors")
RESTS = ("average", "sum")


# ---------------------------------------------------------------------------------------------------------
# Two adapters side by side


def matching(content: LoRA, style: LoRA) -> list[str]:
    """The layers both adapters have, in the content's order; refuses adapters of different models.

    Raises:
        LoRAError: less than half of the smaller adapter's layers are in the other one, or a layer has
            another shape on the other side.
    """
    shared = [layer for layer in content if layer in style]
    few = min(len(content), len(style)) / 2
    if not shared or len(shared) < few:
        raise LoRAError(
            f"content and style share {len(shared)} of {len(content)} and {len(style)} layers: they were "
            f"trained for different base models ({content.base} and {style.base}); merge two of one base"
        )
    for layer in shared:
        (up_c, down_c), (up_s, down_s) = content[layer], style[layer]
        one, other = (_weight_shape(pair) for pair in (content[layer], style[layer]))
        if one != other or up_c.ndim != up_s.ndim or down_c.ndim != down_s.ndim:
            raise LoRAError(
                f"layer {layer}: content updates a weight of shape {one}, style one of {other}, expected the "
                f"same ({content.base} and {style.base}); merge two LoRAs of one base model"
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
    return tensors[0][None] if len(tensors) == 1 else torch.stack(tensors)


def _weight_shape(pair: Pair) -> tuple[int, ...]:
    up, down = pair
    return (up.shape[0], *down.shape[1:])


def _flat(layer: str, pair: Pair) -> Pair:
    """The factors as matrices (out, r) and (r, in): a convolution's in is in · kh · kw."""
    up, down = pair
    if up.shape[2:].numel() != 1:
        raise LoRAError(
            f"layer {layer}: up is a convolution of size {tuple(up.shape[2:])}, expected 1 × 1; "
            "merge it with method direct"
        )
    return up.flatten(1), down.flatten(1)


def _shaped(pair: Pair, like: Pair) -> Pair:
    """Undo `_flat`: give matrices of any rank the shape of ``like``'s factors."""
    (up, down), (up_like, down_like) = pair, like
    rank = up.shape[1]
    return up.reshape(-1, rank, *up_like.shape[2:]), down.reshape(rank, *down_like.shape[1:])


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _fitted(up: Tensor, down: Tensor, dtype: torch.dtype, layer: str) -> Pair:
    overflow = f"layer {layer}: the merged update overflows float16; use smaller weights"
    return fitted(up, down, dtype, overflow)


def _block(size: int, device: torch.device) -> Tensor:
    """``size`` bytes, not to be read before they are written."""
    if device.type != "cpu" or not size or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8, device=device)
    # Hundreds of megabytes in pages of 4 kB: the kernel would take longer to hand them out than we to fill.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


def _weighted(layer: str, pair: Pair, weight: float, dtype: torch.dtype | None = None) -> Pair:
    """One layer's update times ``weight``, rounded to ``dtype`` or its own."""
    up, down = pair
    dtype = dtype or down.dtype
    if weight != 1:
        down = down.to(_wide(down.dtype)) * weight
    up, down = (x[0].to(dtype) for x in _fitted(up[None], down[None], dtype, layer))
    return up, down


def _one_sided(content: LoRA, style: LoRA, content_weight: float, style_weight: float) -> dict[str, Pair]:
    """The layers that only one adapter has, each with its adapter's weight."""
    return {
        layer: _weighted(layer, pair, weight)
        for side, other, weight in ((content, style, content_weight), (style, content, style_weight))
        for layer, pair in side.items()
        if layer not in other
    }


def _ordered(content: LoRA, style: LoRA, pairs: Mapping[str, Pair], **metadata: str) -> LoRA:
    layers = [*content, *(layer for layer in style if layer not in content)]
    return LoRA(
        {layer: pairs[layer] for layer in layers},
        metadata=metadata,
        sources=(*content.sources, *style.sources),
    )


def _gated(
    content: LoRA,
    style: LoRA,
    gates: Gates,
    rest: float,
    content_weight: float,
    style_weight: float,
    later: bool,
) -> LoRA:
    """The concatenation along the rank, columns weighed by ``gates`` where given, by ``rest`` elsewhere."""
    shared = matching(content, style)
    sides = ((content, content_weight), (style, style_weight))
    device = content[shared[0]][0].device

    def outline(layer: str) -> Pair:
        pairs = [side[layer] for side, _ in sides if layer in side]
        (up, down), rank = pairs[0], sum(len(down) for _, down in pairs)
        dtype = torch.promote_types(down.dtype, pairs[-1][1].dtype)
        up = torch.empty((len(up), rank, *up.shape[2:]), dtype=dtype, device="meta")
        return up, torch.empty((rank, *down.shape[1:]), dtype=dtype, device="meta")

    @torch.no_grad()
    def work(item: tuple[list[str], Tensor | None]) -> Iterable[tuple[str, Pair]]:
        names, room = item
        n, likes = len(names), outline(names[0])
        sizes = [n * like.nbytes for like in likes]
        if room is None:
            room = torch.empty(sum(sizes), dtype=torch.uint8, device=content[names[0]][0].device)
        ups, downs = (
            part.view(like.dtype).view(n, *like.shape)
            for part, like in zip(room.split(sizes), likes, strict=True)
        )
        at = 0
        for which, (side, weight) in enumerate(sides):
            factors = [side[layer][0] for layer in names]
            down = torch.stack([side[layer][1] for layer in names])
            rank = down.shape[1]
            place = ups.narrow(2, at, rank)
            up = torch.stack(factors, out=place if factors[0].dtype == place.dtype else None)
            if names[0] in gates:
                m = torch.stack([gates[layer][which] for layer in names])[:, None]  # (n, 1, in)
                scale = m.to(down.device, _wide(down.dtype)) * weight
            else:
                scale = weight * rest
            if names[0] in gates or scale != 1:
                down = down.to(_wide(down.dtype)).mul_(scale)
            up, down = _fitted(up, down, ups.dtype, names[0])
            place.copy_(up)  # rounds; nothing to do where it is the place itself
            downs.narrow(1, at, rank).copy_(down)
            at += rank
        return zip(names, zip(ups.unbind(), downs.unbind(), strict=True), strict=True)

    todo = [
        names
        for gated in (True, False)
        for names in batches(content, style, [layer for layer in shared if (layer in gates) == gated])
    ]

    def make(rooms: Iterable[Tensor | None] = repeat(None)) -> Iterator[tuple[str, Pair]]:
        yield from _one_sided(content, style, content_weight, style_weight).items()
        for pairs in parallel(work, list(zip(todo, rooms, strict=False)), device):
            yield from pairs

    if later:
        layers = [*content, *(layer for layer in style if layer not in content)]
        outlines = {layer: outline(layer) for layer in layers}
        return Outline(outlines, make, sources=(*content.sources, *style.sources))
    sizes = [len(names) * sum(like.nbytes for like in outline(names[0])) for names in todo]
    starts = list(accumulate((size + -size % 64 for size in sizes), initial=0))
    block = _block(starts.pop(), device)
    rooms = [
        block[start : start + size] if content[names[0]][0].device == device else None
        for names, start, size in zip(todo, starts, sizes, strict=True)
    ]
    return _ordered(content, style, dict(make(rooms)))


# ---------------------------------------------------------------------------------------------------------
# Methods that weigh columns


def direct(
    content: LoRA,
    style: LoRA,
    *,
    content_weight: float = 1.0,
    style_weight: float = 1.0,
    later: bool = False,
) -> LoRA:
    """The weighted sum w_c·ΔW_c + w_s·ΔW_s, exact, of rank r_c + r_s; linear layers and convolutions alike.

    A layer that only one adapter has is kept with that adapter's weight. With ``later`` the factors are
    computed when the result is saved (`Outline`).
    """
    return _gated(content, style, {}, 1.0, content_weight, style_weight, later)


def ziplora(
    content: LoRA,
    style: LoRA,
    coefficients: Gates,
    *,
    rest: str = "average",
    content_weight: float = 1.0,
    style_weight: float = 1.0,
    later: bool = False,
) -> LoRA:
    """ΔW_c·diag(m_c) + ΔW_s·diag(m_s) with given coefficients (ZipLoRA, arXiv 2311.13600, eq. 3); exact.

    Shared layers without coefficients (text encoders among them) are averaged, (ΔW_c + ΔW_s) / 2, or with
    ``rest="sum"`` added; a layer that only one adapter has is kept. The weights multiply all of it. ``later``
    as in `direct`.

    Raises:
        LoRAError: coefficients for a layer that is not in both adapters or has another number of columns.
    """
    if rest not in RESTS:
        raise LoRAError(f"rest {rest!r}: expected one of {', '.join(RESTS)}")
    shared = set(matching(content, style))
    for layer, (m_c, m_s) in coefficients.items():
        if layer not in shared:
            raise LoRAError(f"coefficients for layer {layer}, which is not in both LoRAs; drop them")
        down = content[layer][1]
        if down.ndim != 2:
            raise LoRAError(f"layer {layer}: coefficients for a convolution, expected a linear layer")
        if m_c.shape != down.shape[1:] or m_s.shape != down.shape[1:]:
            raise LoRAError(
                f"layer {layer}: {tuple(m_c.shape)} and {tuple(m_s.shape)} coefficients, expected "
                f"({down.shape[1]},) for each side; were they made for this base model?"
            )
    merged = _gated(
        content, style, coefficients, 0.5 if rest == "average" else 1.0, content_weight, style_weight, later
    )
    merged.metadata["lorarar_coefficients"] = json.dumps(summary(coefficients))
    return merged


def lorarar(
    content: LoRA,
    style: LoRA,
    hypernetwork: "Hypernetwork",
    *,
    parts: Iterable[str] = ("query", "output"),
    rest: str = "average",
    content_weight: float = 1.0,
    style_weight: float = 1.0,
    later: bool = False,
) -> LoRA:
    """ΔW_c·diag(m_c) + ΔW_s·diag(m_s) with coefficients from the hypernetwork (LoRA.rar, arXiv 2412.05148).

    ``parts`` of the UNet's attention get coefficients; every other shared layer is averaged as in the paper
    or, with ``rest="sum"``, added as in the authors' released code. A layer of one adapter only is kept.
    ``later`` as in `direct`; the coefficients are computed at once.

    Raises:
        LoRAError: no layer that the hypernetwork can work on, or one with a column length it does not know.
    """
    with torch.no_grad():
        coefficients = hypernetwork.coefficients(content, style, parts=parts)
    return ziplora(
        content, style, coefficients, rest=rest, content_weight=content_weight, style_weight=style_weight,
        later=later,
    )  # fmt: skip


def summary(coefficients: Gates) -> dict[str, list[float]]:
    """Mean, standard deviation, minimum and maximum of each side's coefficients, for a file's metadata."""
    if not coefficients:
        return {}
    sides: dict[str, list[float]] = {}
    for which, side in enumerate(("content", "style")):
        m = torch.cat([pair[which].detach() for pair in coefficients.values()]).float()
        numbers = torch.stack([m.mean(), m.std(correction=0), m.amin(), m.amax()]).tolist()
        sides[side] = [round(x, 6) for x in numbers]
    return sides


# ---------------------------------------------------------------------------------------------------------
# Null-space projection


def np_lora(
    content: LoRA,
    style: LoRA,
    *,
    mu: float = 0.5,
    directions: int | None = None,
    content_weight: float = 1.0,
    style_weight: float = 1.0,
    progress: Progress = iter,
) -> LoRA:
    """ΔW_s + ΔW_c·(I - μ/(1+μ)·V Vᵀ), V the style's right singular directions (NP-LoRA, arXiv 2511.11051,
    eq. 12).

    ``mu`` is the softness: 0 is the direct sum, ``math.inf`` the hard projection onto the null space of the
    style. ``directions`` keeps only the strongest directions of the style; the paper takes all that carry
    anything. Only A_c changes, A_c ← A_c - μ/(1+μ)·(A_c V) Vᵀ, and V comes from the QR of the style's
    factors and an SVD of their (r × r) core; in float64, since a hard projection leaves small numbers. The
    sum is then direct.

    Raises:
        LoRAError: ``mu`` is negative or ``directions`` is not positive.
    """
    if not mu >= 0:
        raise LoRAError(f"mu {mu}: expected a number from 0 (direct sum) to inf (hard projection)")
    if directions is not None and directions < 1:
        raise LoRAError(f"directions {directions}: expected at least 1, or none for all")
    share = 1.0 if math.isinf(mu) else mu / (1 + mu)

    def work(layer: str) -> Pair:
        up, down_c = _flat(layer, content[layer])
        _, s, vh = _svd(*(x.double() for x in _flat(layer, style[layer])))
        vh = vh[: min(int((s > s[0] * 1e-9).sum()), directions or len(s))]  # what float64 can tell from 0
        down = down_c.double()
        down = down - share * (down @ vh.mT) @ vh  # (r, in) - (r, k) @ (k, in)
        dtype = torch.promote_types(down_c.dtype, style[layer][1].dtype)
        one = _weighted(layer, _shaped((up, down), content[layer]), content_weight, dtype)
        other = _weighted(layer, style[layer], style_weight, dtype)
        return torch.cat([one[0], other[0]], 1), torch.cat([one[1], other[1]], 0)

    shared = matching(content, style)
    merged = _one_sided(content, style, content_weight, style_weight)
    pairs = parallel(work, shared, content[shared[0]][0].device, progress)
    merged.update(zip(shared, pairs, strict=True))
    return _ordered(content, style, merged)


# ---------------------------------------------------------------------------------------------------------
# Methods that prune entries


def _trimmed(x: Tensor, density: float) -> Tensor:
    """Keep the largest ``density`` of the entries by magnitude (TIES, arXiv 2306.01708, §4.2 step 1)."""
    if density >= 1:
        return x
    kept = torch.topk(x.abs().reshape(-1), k=int(density * x.numel())).indices
    mask = torch.zeros(x.numel(), dtype=x.dtype, device=x.device)
    return x * mask.index_fill_(0, kept, 1).reshape(x.shape)


def _dropped(x: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Drop entries at random and rescale the kept by 1/density (DARE, arXiv 2311.03099, eq. 3)."""
    if density >= 1:
        return x
    return x * torch.bernoulli(torch.full_like(x, density), generator=generator) / density


def _elected(xs: list[Tensor], weights: Tensor) -> Tensor:
    """Mean of the weighed entries that agree with the sign of the sum (TIES, §4.2 steps 2 and 3)."""
    stacked = torch.stack(xs)  # (2, …)
    agrees = stacked.sign() == torch.where(stacked.sum(0) >= 0, 1, -1)
    weighed = stacked * weights.reshape(-1, *[1] * xs[0].ndim)
    return (weighed * agrees).sum(0) / agrees.sum(0).clamp(min=1.0)


def _summed(xs: list[Tensor], weights: Tensor) -> Tensor:
    stacked = torch.stack(xs)
    return (stacked * weights.reshape(-1, *[1] * xs[0].ndim)).sum(0)


def _pruned_merge(
    content: LoRA,
    style: LoRA,
    *,
    random: bool,
    elect: bool,
    density: float,
    seed: int,
    flavour: str,
    rank: int | None,
    content_weight: float,
    style_weight: float,
    progress: Progress,
) -> LoRA:
    if not 0 < density <= 1:
        raise LoRAError(f"density {density}: expected a share above 0 and at most 1")
    if flavour not in FLAVOURS:
        raise LoRAError(f"flavour {flavour!r}: expected one of {', '.join(FLAVOURS)}")
    shared = set(matching(content, style))
    generators: dict[torch.device, torch.Generator] = {}

    def combine(xs: list[Tensor], weights: list[float]) -> Tensor:
        device = xs[0].device
        if random and device not in generators:
            generators[device] = torch.Generator(device).manual_seed(seed)
        kept = [_dropped(x, density, generators[device]) if random else _trimmed(x, density) for x in xs]
        return (_elected if elect else _summed)(
            kept, torch.tensor(weights, dtype=_wide(xs[0].dtype), device=device)
        )

    merged: dict[str, Pair] = {}
    kept = total = 0.0
    for layer in progress([*content, *(layer for layer in style if layer not in content)]):
        sides = [
            (lora[layer], weight)
            for lora, weight in ((content, content_weight), (style, style_weight))
            if layer in lora
        ]
        dtype = torch.promote_types(sides[0][0][1].dtype, sides[-1][0][1].dtype)
        if flavour == "factors":
            ups, downs = ([pair[which].to(dtype) for pair, _ in sides] for which in (0, 1))
            if len({x.shape for x in ups}) > 1:
                ranks = " and ".join(str(x.shape[1]) for x in ups)
                raise LoRAError(
                    f"layer {layer}: ranks {ranks}, expected equal ones for flavour factors; use delta"
                )
            # The root of the weight goes to each factor and its sign to one of them. A comes first: the
            # random numbers are drawn in peft's order.
            roots = [math.sqrt(abs(weight)) for _, weight in sides]
            down = combine(downs, [math.copysign(root, w) for root, (_, w) in zip(roots, sides, strict=True)])
            up = combine(ups, roots)
            merged[layer] = up.to(dtype), down.to(dtype)
        elif layer in shared:
            pairs = [_flat(layer, pair) for pair, _ in sides]
            deltas = [up.to(_wide(dtype)) @ down.to(_wide(dtype)) for up, down in pairs]
            delta = combine(deltas, [weight for _, weight in sides])
            factors = _truncated(delta, rank or sum(down.shape[0] for _, down in pairs))
            kept += float(factors[1].double().square().sum(1) @ factors[0].double().square().sum(0))
            total += float(delta.double().square().sum())
            merged[layer] = _weighted(layer, _shaped(factors, content[layer]), 1.0, dtype)
        else:
            pair = _weighted(layer, *sides[0])
            merged[layer] = pair if rank is None else compress(LoRA({layer: pair}), rank)[layer]
    metadata = {"lorarar_energy_kept": json.dumps({"all": round(kept / total, 6)})} if total else {}
    return _ordered(content, style, merged, **metadata)


def ties(
    content: LoRA,
    style: LoRA,
    *,
    density: float = 0.5,
    flavour: str = "delta",
    rank: int | None = None,
    content_weight: float = 1.0,
    style_weight: float = 1.0,
    progress: Progress = iter,
) -> LoRA:
    """Trim, elect sign, disjoint mean (TIES-Merging, arXiv 2306.01708).

    ``flavour="delta"`` works on ΔW, one dense layer at a time, and goes back to ``rank`` (r_c + r_s unless
    given) by the best approximation of that rank; a layer of one adapter only is kept with its weight.

    ``flavour="factors"`` works on A and B apart, each with the root of the weight: what peft's
    ``add_weighted_adapter(..., combination_type="ties")`` computes, to the last bit, and what the LoRA.rar
    paper ran, there with both weights 0.5 and density 0.5. It needs equal ranks, and it is no TIES of ΔW.

    The disjoint mean divides by the number of sides that agree, so weights 1 and 1 average where both agree.

    Raises:
        LoRAError: density outside (0, 1], unknown flavour, or unequal ranks for ``factors``.
    """
    return _pruned_merge(
        content, style, random=False, elect=True, density=density, seed=0, flavour=flavour, rank=rank,
        content_weight=content_weight, style_weight=style_weight, progress=progress,
    )  # fmt: skip


def dare(
    content: LoRA,
    style: LoRA,
    *,
    density: float = 0.5,
    seed: int = 0,
    flavour: str = "delta",
    rank: int | None = None,
    content_weight: float = 1.0,
    style_weight: float = 1.0,
    progress: Progress = iter,
) -> LoRA:
    """Drop entries at random, rescale the kept, add (DARE, arXiv 2311.03099).

    Flavours, ranks, one-sided layers and errors as in `ties`. ``factors`` is peft's ``dare_linear`` when the
    layers are in the order of the model's modules and the generator is seeded with ``seed`` where peft begins
    to draw, which is after its own initialisation of the new adapter.
    """
    return _pruned_merge(
        content, style, random=True, elect=False, density=density, seed=seed, flavour=flavour, rank=rank,
        content_weight=content_weight, style_weight=style_weight, progress=progress,
    )  # fmt: skip


def dare_ties(
    content: LoRA,
    style: LoRA,
    *,
    density: float = 0.5,
    seed: int = 0,
    flavour: str = "delta",
    rank: int | None = None,
    content_weight: float = 1.0,
    style_weight: float = 1.0,
    progress: Progress = iter,
) -> LoRA:
    """DARE's random drop, then TIES' election and disjoint mean (DARE-TIES of peft and mergekit).

    Flavours, ranks, one-sided layers, seed and errors as in `ties` and `dare`.
    """
    return _pruned_merge(
        content, style, random=True, elect=True, density=density, seed=seed, flavour=flavour, rank=rank,
        content_weight=content_weight, style_weight=style_weight, progress=progress,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------
# Rank


def _svd(up: Tensor, down: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The SVD of up @ down, (…, out, r) and (…, r, in), by QR of both and an SVD of the (r × r) core.

    All singular values come back, and the vectors of the first ``rank`` (of all unless given).
    """
    q_up, r_up = torch.linalg.qr(up)
    q_down, r_down = torch.linalg.qr(down.mT)
    u, s, vh = torch.linalg.svd(r_up @ r_down.mT, full_matrices=False)
    return q_up @ u[..., :rank], s, vh[..., :rank, :] @ q_down.mT


def _truncated(delta: Tensor, rank: int) -> Pair:
    """The best factors of ``rank`` for a dense (out, in) matrix, from the eigenvectors of its Gram matrix."""
    if delta.shape[0] > delta.shape[1]:
        up, down = _truncated(delta.mT, rank)
        return down.mT.contiguous(), up.mT.contiguous()
    wide = delta.double()
    _, vectors = torch.linalg.eigh(wide @ wide.mT)
    up = vectors[:, -rank:].flip(1)  # (out, k), strongest first
    down = up.mT @ wide
    root = torch.linalg.vector_norm(down, dim=1).sqrt()  # √σ on either side
    up, down = up * root, down / torch.where(root > 0, root, 1)[:, None]
    return up.to(delta.dtype), down.to(delta.dtype)


def singular_values(pair: Pair) -> Tensor:
    """The singular values of ΔW, largest first, without forming it: (min(out, r, in),), float64."""
    up, down = (x.flatten(1).double() for x in pair)
    r_up, r_down = torch.linalg.qr(up, mode="r").R, torch.linalg.qr(down.mT, mode="r").R
    return torch.linalg.svdvals(r_up @ r_down.mT)


def compress(lora: LoRA, rank: int, *, progress: Progress = iter) -> LoRA:
    """Bring every layer to at most ``rank``, with the least possible error (Eckart and Young, 1936).

    ΔW = B A with QRs B = Q_b R_b and Aᵀ = Q_a R_a has the singular values of the small R_b R_aᵀ; its SVD, cut
    at ``rank``, gives the new factors, each with √σ. A layer of no more than ``rank`` stays as it is. The
    share of the energy ‖ΔW‖² that is kept, over all layers and in the worst of them, is in the metadata.

    Raises:
        LoRAError: ``rank`` is not positive, or a convolution's up is not 1 × 1.
    """
    if rank < 1:
        raise LoRAError(f"rank {rank}: expected at least 1")
    compressed = dict(lora)
    small = [layer for layer, (_, down) in lora.items() if down.shape[0] <= rank]
    large = [layer for layer in lora if lora[layer][1].shape[0] > rank]
    kept = total = sum((singular_values(lora[layer]).square().sum() for layer in small), torch.zeros(()))
    worst = (1.0, "")

    def work(names: list[str]) -> tuple[dict[str, Pair], Tensor]:
        pairs = [_flat(layer, lora[layer]) for layer in names]
        dtype = pairs[0][1].dtype
        up, down = (stacked(x).to(_wide(dtype)) for x in zip(*pairs, strict=True))
        u, s, vh = _svd(up, down, rank)
        root = s[:, :rank].sqrt()
        factors = _fitted(u * root[:, None], root[..., None] * vh, dtype, names[0])
        ups, downs = (x.to(dtype).contiguous() for x in factors)
        factors = zip(names, ups.unbind(), downs.unbind(), strict=True)
        return {layer: _shaped((u_k, d_k), lora[layer]) for layer, u_k, d_k in factors}, s.double().square()

    device = next(iter(lora.values()))[0].device if lora else torch.device("cpu")
    for pairs, energy in parallel(work, list(batches(lora, lora, large)), device, progress):
        compressed.update(pairs)
        shares = (energy[:, :rank].sum(1) / energy.sum(1).clamp(min=1e-300)).tolist()
        kept, total = kept + energy[:, :rank].sum().cpu(), total + energy.sum().cpu()
        worst = min(worst, *zip(shares, pairs, strict=True))
    share = float(kept / total) if float(total) else 1.0
    metadata = {
        **lora.metadata,
        "lorarar_rank": str(rank),
        "lorarar_energy_kept": json.dumps(
            {"all": round(share, 6), "lowest": round(worst[0], 6), "lowest_layer": worst[1]}
        ),
    }
    return LoRA(compressed, metadata=metadata, dialect=lora.dialect, sources=lora.sources)


# ---------------------------------------------------------------------------------------------------------
# All of it by name

METHODS = ("direct", "ties", "dare", "dare-ties", "lorarar", "ziplora", "np-lora")


def merge(
    content: LoRA,
    style: LoRA,
    method: str = "direct",
    *,
    content_weight: float = 1.0,
    style_weight: float = 1.0,
    hypernetwork: "Hypernetwork | None" = None,
    coefficients: Gates | None = None,
    parts: Iterable[str] = ("query", "output"),
    rest: str = "average",
    density: float = 0.5,
    seed: int = 0,
    flavour: str = "delta",
    mu: float = 0.5,
    directions: int | None = None,
    rank: int | None = None,
    later: bool = False,
    progress: Progress = iter,
) -> LoRA:
    """Merge a content and a style LoRA by one of `METHODS`; each method's own function says what it does.

    ``hypernetwork`` and ``parts`` belong to ``lorarar``, ``coefficients`` to ``ziplora``, ``rest`` to both;
    ``density``, ``seed`` and ``flavour`` to ``ties``, ``dare`` and ``dare-ties``; ``mu`` and ``directions``
    to ``np-lora``. ``rank`` compresses the result (`compress`); ties and dare on ΔW go to it directly. The
    inputs are left as they are. The result's metadata holds the method, its options and a summary of the
    coefficients. With ``later`` the methods that only weigh columns, unless a rank is given, compute their
    factors when the result is saved (`Outline`): the result is never held in memory.

    Raises:
        LoRAError: unknown method or option, adapters that do not match, or something the method needs is
        missing.
    """
    method = method.replace("_", "-")
    weights: dict[str, Any] = {"content_weight": content_weight, "style_weight": style_weight}
    for name, weight in weights.items():
        if not math.isfinite(weight):
            raise LoRAError(f"{name} {weight}: expected a finite number")
    if rank is not None and rank < 1:
        raise LoRAError(f"rank {rank}: expected at least 1")
    parts = tuple(parts)
    options: dict[str, Any]
    later = later and rank is None
    if method == "direct":
        options = {}
        merged = direct(content, style, **weights, later=later)
    elif method == "lorarar":
        if hypernetwork is None:
            raise LoRAError("method lorarar needs a hypernetwork; give one, or use method direct")
        options = {"parts": parts, "rest": rest}
        merged = lorarar(content, style, hypernetwork, **options, **weights, later=later)
    elif method == "ziplora":
        if coefficients is None:
            raise LoRAError("method ziplora needs coefficients; optimise them first, or use method direct")
        options = {"rest": rest}
        merged = ziplora(content, style, coefficients, **options, **weights, later=later)
    elif method == "np-lora":
        options = {"mu": mu, "directions": directions}
        merged = np_lora(content, style, **options, **weights, progress=progress)
    elif method in ("ties", "dare", "dare-ties"):
        options = {"density": density, "flavour": flavour}
        if method != "ties":
            options["seed"] = seed
        function = {"ties": ties, "dare": dare, "dare-ties": dare_ties}[method]
        merged = function(content, style, **options, **weights, rank=rank, progress=progress)
    else:
        raise LoRAError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    if rank is not None and any(down.shape[0] > rank for _, down in merged.values()):
        merged = compress(merged, rank, progress=progress)
    merged.metadata["lorarar_method"] = method
    merged.metadata["lorarar_options"] = json.dumps({**options, **weights, "rank": rank}, default=str)
    return merged
