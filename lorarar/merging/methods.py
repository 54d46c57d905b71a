"""Every method by its name, with a rank for the result."""

import json
import warnings
from typing import Any

import torch

from lorarar.lora import LoRA, LoRAError, LoRAWarning, is_vague
from lorarar.merging.columns import direct, levels, lorarar, table, ziplora
from lorarar.merging.nullspace import np_lora
from lorarar.merging.pairs import Gates, Predictor, Progress, checked, widened
from lorarar.merging.prune import dare, dare_ties, ties
from lorarar.merging.rank import compress
from lorarar.merging.regression import Inputs, regmean
from lorarar.options import METHODS, WITH_BASE, MergeOptions

BY_LAYER = {"ties": ties, "dare": dare, "dare-ties": dare_ties, "np-lora": np_lora}
"""The methods that need nothing but two LoRAs and work layer by layer."""


def merge(
    content: LoRA,
    style: LoRA,
    method: str = "direct",
    options: MergeOptions | None = None,
    *,
    hypernetwork: Predictor | None = None,
    coefficients: Gates | None = None,
    inputs: tuple[Inputs, Inputs] | None = None,
    dtype: torch.dtype | None = None,
    later: bool = False,
    progress: Progress = iter,
    **changes: Any,
) -> LoRA:
    """Merge a content and a style LoRA by one of `METHODS`, or by ``regmean``.

    Each method's own function says what it does.

    The inputs are left as they are. The result's metadata holds the method, its options and a summary of the
    coefficients, and what the inputs' say of the base model and of words, titles and licences.

    Args:
        content: the subject's LoRA.
        style: the style's.
        method: its name; _ may stand for -.
        options: `lorarar.options.MergeOptions`, which say what belongs to which method. ``rank`` compresses
            the result (`compress`); ties and dare on ΔW go to it directly.
        hypernetwork: that ``lorarar`` needs.
        coefficients: that ``ziplora`` and ``table`` need.
        inputs: second moments of both sides' inputs (`lorarar.train.own_inputs`), that ``regmean`` needs.
        dtype: that the result is to have: factors in halves come out in float32 for it, where they would be
            rounded to halves first.
        later: the methods that only weigh columns, unless a rank is given, compute their factors when the
            result is saved (`Outline`): the result is never held in memory.
        progress: wraps the layers, as ``tqdm.tqdm`` does.
        **changes: single options by name, which take precedence.

    Raises:
        LoRAError: unknown method or option, adapters that do not match, or something the method needs is
            missing.
    """
    method, o = method.replace("_", "-"), checked(options, changes)
    if dtype is not None:
        content, style = widened(content, dtype), widened(style, dtype)
    later = later and o.rank is None
    if method == "direct":
        merged = direct(content, style, o, later=later)
    elif method == "levels":
        merged = levels(content, style, o, later=later)
    elif method == "lorarar":
        if hypernetwork is None:
            raise LoRAError("method lorarar needs a hypernetwork; give one, or use method direct")
        merged = lorarar(content, style, hypernetwork, o, later=later)
    elif method in ("ziplora", "table"):
        if coefficients is None:
            first = "optimise them" if method == "ziplora" else "make a table"
            raise LoRAError(f"method {method} needs coefficients; {first} first, or use method direct")
        by_columns = ziplora if method == "ziplora" else table
        merged = by_columns(content, style, coefficients, o, later=later)
    elif method == "regmean":
        if inputs is None:
            raise LoRAError(
                "method regmean needs what the layers are given; `lorarar regmean` measures that, "
                "`lorarar.train.own_inputs` from Python"
            )
        merged = regmean(content, style, inputs, o, progress=progress)
    elif method in BY_LAYER:
        merged = BY_LAYER[method](content, style, o, progress=progress)
    else:
        raise LoRAError(f"method {method!r}: expected one of {', '.join([*METHODS, *WITH_BASE])}")
    if o.rank is not None and any(down.shape[0] > o.rank for _, down in merged.values()):
        merged = compress(merged, o.rank, progress=progress)
    one, other = content.base, style.base
    if one != other and not is_vague(one) and not is_vague(other):
        warnings.warn(
            f"content is for {one}, style for {other}: their layers have the same names and shapes and were "
            f"merged; use the result with either, or choose two LoRAs of one base model",
            LoRAWarning,
            stacklevel=2,
        )
    merged.metadata["lorarar_method"] = method
    merged.metadata["lorarar_options"] = json.dumps(o.of_method(method), default=str)
    return merged
