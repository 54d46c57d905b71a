"""Every method by its name, with a rank for the result."""

import json
import math
import warnings
from collections.abc import Iterable
from typing import Any

import torch

from lorarar.lora import LoRA, LoRAError, LoRAWarning, is_vague
from lorarar.merging.columns import direct, levels, lorarar, table, ziplora
from lorarar.merging.nullspace import np_lora
from lorarar.merging.pairs import Gates, Predictor, Progress, widened
from lorarar.merging.prune import dare, dare_ties, ties
from lorarar.merging.rank import compress

METHODS = ("direct", "levels", "ties", "dare", "dare-ties", "lorarar", "ziplora", "table", "np-lora")


def merge(
    content: LoRA,
    style: LoRA,
    method: str = "direct",
    *,
    content_weight: float = 1.0,
    style_weight: float = 1.0,
    hypernetwork: Predictor | None = None,
    coefficients: Gates | None = None,
    parts: Iterable[str] = ("query", "output"),
    rest: str = "average",
    content_rest: float = 0.5,
    style_rest: float = 0.5,
    density: float = 0.5,
    seed: int = 0,
    flavour: str = "delta",
    mu: float = 0.5,
    directions: int | None = None,
    rank: int | None = None,
    dtype: torch.dtype | None = None,
    later: bool = False,
    progress: Progress = iter,
) -> LoRA:
    """Merge a content and a style LoRA by one of `METHODS`; each method's own function says what it does.

    ``hypernetwork`` belongs to ``lorarar``, ``coefficients`` to ``ziplora`` and ``table``, ``rest`` to these
    three, ``parts`` to ``lorarar`` and ``levels``, ``content_rest`` and ``style_rest`` to ``levels``;
    ``density``, ``seed`` and ``flavour`` to ``ties``, ``dare`` and ``dare-ties``; ``mu`` and ``directions``
    to ``np-lora``. ``rank`` compresses the result (`compress`); ties and dare on ΔW go to it directly.
    ``dtype`` is the type that the result is to have: factors in halves come out in float32 for it, where they
    would be rounded to halves first. The inputs are left as they are. The result's metadata holds the
    method, its options and a summary of the coefficients, and what the inputs' say of the base model and of
    words, titles and licences. With ``later`` the methods that only weigh columns, unless a rank is given,
    compute their factors when the result is saved (`Outline`): the result is never held in memory.

    Raises:
        LoRAError: unknown method or option, adapters that do not match, or something the method needs is
        missing.
    """
    method = method.replace("_", "-")
    if dtype is not None:
        content, style = widened(content, dtype), widened(style, dtype)
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
    elif method == "levels":
        options = {"parts": parts, "content_rest": content_rest, "style_rest": style_rest}
        merged = levels(content, style, **options, **weights, later=later)
    elif method == "lorarar":
        if hypernetwork is None:
            raise LoRAError("method lorarar needs a hypernetwork; give one, or use method direct")
        options = {"parts": parts, "rest": rest}
        merged = lorarar(content, style, hypernetwork, **options, **weights, later=later)
    elif method in ("ziplora", "table"):
        if coefficients is None:
            first = "optimise them" if method == "ziplora" else "make a table"
            raise LoRAError(f"method {method} needs coefficients; {first} first, or use method direct")
        options = {"rest": rest}
        by_columns = ziplora if method == "ziplora" else table
        merged = by_columns(content, style, coefficients, **options, **weights, later=later)
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
    one, other = content.base, style.base
    if one != other and not is_vague(one) and not is_vague(other):
        warnings.warn(
            f"content is for {one}, style for {other}: their layers have the same names and shapes and were "
            f"merged; use the result with either, or choose two LoRAs of one base model",
            LoRAWarning,
            stacklevel=2,
        )
    merged.metadata["lorarar_method"] = method
    merged.metadata["lorarar_options"] = json.dumps({**options, **weights, "rank": rank}, default=str)
    return merged
