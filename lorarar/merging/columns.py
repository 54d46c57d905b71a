"""Methods that weigh columns: the plain sum, two levels, ZipLoRA's coefficients, LoRA.rar's, a table's."""

import json
import mmap
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import accumulate, repeat
from typing import Any

import torch
from torch import Tensor

from lorarar.lora import LoRA, LoRAError, Outline, Pair
from lorarar.merging.alike import alike
from lorarar.merging.pairs import (
    Gates,
    Predictor,
    batches,
    checked,
    fitted_to,
    heritage,
    in_order_of,
    matching,
    one_sided,
    parallel,
    working_dtype,
)
from lorarar.merging.parts import layers_of
from lorarar.options import MergeOptions

# The C library gives freed memory back to the system, which takes its time to hand it out again, unless a
# block as large as this was freed before (glibc's dynamic threshold, 32 MB at most; elsewhere no effect).
torch.empty(31 << 20, dtype=torch.uint8)


def _block(size: int, device: torch.device) -> Tensor:
    """``size`` bytes, not to be read before they are written."""
    if device.type != "cpu" or not size or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8, device=device)
    # Hundreds of megabytes in pages of 4 kB: the kernel would take longer to hand them out than we to fill.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


def _gated(
    content: LoRA,
    style: LoRA,
    gates: Gates,
    rest: tuple[float, float],
    o: MergeOptions,
    later: bool,
) -> LoRA:
    """The concatenation along the rank, columns weighed by ``gates`` and the two weights where given.

    A shared layer without gates is weighed by ``rest``, a layer of one side only by that side's weight.
    """
    content, style = alike(content, style)
    shared = matching(content, style)
    sides = ((content, o.content_weight), (style, o.style_weight))
    device = next(iter(content.values()))[0].device

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
            scale: Tensor | float = rest[which]
            if names[0] in gates:
                m = torch.stack([gates[layer][which] for layer in names])[:, None]  # (n, 1, in)
                scale = m.to(down.device, working_dtype(down.dtype)) * weight
            if names[0] in gates or scale != 1:
                down = down.to(working_dtype(down.dtype)).mul_(scale)
            up, down = fitted_to(up, down, ups.dtype, names[0])
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
        yield from one_sided(content, style, o.content_weight, o.style_weight).items()
        for pairs in parallel(work, list(zip(todo, rooms, strict=False)), device):
            yield from pairs

    if later:
        layers = [*content, *(layer for layer in style if layer not in content)]
        outlines = {layer: outline(layer) for layer in layers}
        return Outline(outlines, make, **heritage(content, style))
    sizes = [len(names) * sum(like.nbytes for like in outline(names[0])) for names in todo]
    starts = list(accumulate((size + -size % 64 for size in sizes), initial=0))
    block = _block(starts.pop(), device)
    rooms = [
        block[start : start + size] if content[names[0]][0].device == device else None
        for names, start, size in zip(todo, starts, sizes, strict=True)
    ]
    return in_order_of(content, style, dict(make(rooms)))


def direct(
    content: LoRA,
    style: LoRA,
    options: MergeOptions | None = None,
    *,
    later: bool = False,
    **changes: Any,
) -> LoRA:
    """The weighted sum w_c·ΔW_c + w_s·ΔW_s, exact, of rank r_c + r_s; linear layers and convolutions alike.

    A layer that only one adapter has is kept with that adapter's weight. With ``later`` the factors are
    computed when the result is saved (`Outline`). Of the options it looks at the two weights.
    """
    o = checked(options, changes)
    return _gated(content, style, {}, (o.content_weight, o.style_weight), o, later)


def levels(
    content: LoRA,
    style: LoRA,
    options: MergeOptions | None = None,
    *,
    later: bool = False,
    **changes: Any,
) -> LoRA:
    """Two constants a side: the weights for ``parts`` of the UNet's attention, the rests for other layers.

    What LoRA.rar amounts to when its network answers the same to every column; with all four one half, the
    plain average. Exact, of rank r_c + r_s. A layer that only one adapter has is kept with that adapter's
    weight. ``later`` as in `direct`.

    Raises:
        LoRAError: an option is out of range, or the adapters share no attention layer of ``parts``.
    """
    o = checked(options, changes)
    content, style = alike(content, style)
    gated = layers_of(matching(content, style), o.parts)
    if not gated:
        raise LoRAError(
            f"the LoRAs share no attention layer of a UNet in these parts ({', '.join(o.parts)}), which "
            "method levels weighs apart; use method direct"
        )
    ones = {layer: (torch.ones(content[layer][1].shape[1]),) * 2 for layer in gated}
    return _gated(content, style, ones, (o.content_rest, o.style_rest), o, later)


def ziplora(
    content: LoRA,
    style: LoRA,
    coefficients: Gates,
    options: MergeOptions | None = None,
    *,
    later: bool = False,
    **changes: Any,
) -> LoRA:
    """ΔW_c·diag(m_c) + ΔW_s·diag(m_s) with given coefficients (ZipLoRA, arXiv 2311.13600, eq. 3); exact.

    Shared layers without coefficients (text encoders among them) are averaged, (ΔW_c + ΔW_s) / 2, or with the
    option ``rest="sum"`` added; a layer that only one adapter has is kept. The weights multiply all of it.
    ``later`` as in `direct`.

    Raises:
        LoRAError: an option is out of range, or coefficients are for a layer that is not in both adapters or
            has another number of columns.
    """
    o = checked(options, changes)
    content, style = alike(content, style)
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
    share = 0.5 if o.rest == "average" else 1.0
    rest = share * o.content_weight, share * o.style_weight
    merged = _gated(content, style, coefficients, rest, o, later)
    merged.metadata["lorarar_coefficients"] = json.dumps(summary(coefficients))
    return merged


def lorarar(
    content: LoRA,
    style: LoRA,
    hypernetwork: Predictor,
    options: MergeOptions | None = None,
    *,
    later: bool = False,
    **changes: Any,
) -> LoRA:
    """ΔW_c·diag(m_c) + ΔW_s·diag(m_s) with coefficients from the hypernetwork (LoRA.rar, arXiv 2412.05148).

    The option ``parts`` names what of the UNet's attention gets coefficients; every other shared layer is
    averaged as in the paper or, with ``rest="sum"``, added as in the authors' released code. A layer of one
    adapter only is kept. ``later`` as in `direct`; the coefficients are computed at once.

    Raises:
        LoRAError: an option is out of range, or there is no layer that the hypernetwork can work on, or one
            with a column length it does not know.
    """
    o = checked(options, changes)
    content, style = alike(content, style)
    with torch.no_grad():
        coefficients = hypernetwork.coefficients(content, style, parts=o.parts)
    return ziplora(content, style, coefficients, o, later=later)


def table(
    content: LoRA,
    style: LoRA,
    coefficients: Gates,
    options: MergeOptions | None = None,
    *,
    later: bool = False,
    **changes: Any,
) -> LoRA:
    """ΔW_c·diag(m_c) + ΔW_s·diag(m_s) with mean coefficients that were stored once, for any pair of a base.

    ``coefficients`` hold one number a side for each layer, or one for each column (`lorarar study means`
    makes both); layers that the pair does not share are passed over. The rest as in `ziplora`.

    Raises:
        LoRAError: an option is out of range, or the pair shares no layer with the table or has another
            number of columns in one.
    """
    content, style = alike(content, style)
    shared = set(matching(content, style))
    found = {
        layer: (_spread(m_c, content[layer]), _spread(m_s, style[layer]))
        for layer, (m_c, m_s) in coefficients.items()
        if layer in shared
    }
    if not found:
        raise LoRAError(
            "the LoRAs share no layer with the table; was it made for this base model? use method direct"
        )
    return ziplora(content, style, found, options, later=later, **changes)


def _spread(m: Tensor, pair: Pair) -> Tensor:
    """One coefficient for a whole layer as one for each of its columns."""
    return m.expand(pair[1].shape[1]) if m.shape == (1,) else m


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
