"""The methods that are compared, each as what it applies to a pipeline."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lorarar import estlora, klora, switching
from lorarar.judging import embed_images, load_encoder
from lorarar.lora import LoRA, load_coefficients, load_lora, save_coefficients, save_lora
from lorarar.merging import merge
from lorarar.merging.fusion import STEPS
from lorarar.pipelines import generate, loaded
from lorarar.scales import local
from lorarar.study.constrained import by_constraint
from lorarar.study.regression import by_regression
from lorarar.study.training import (
    Task,
    decisive,
    file_metadata,
    kept_file,
    optimised,
    seconds_since,
    slug,
    trained_jointly,
)

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


Applied = LoRA | Callable[..., AbstractContextManager["DiffusionPipeline"]] | None
"""What a method applies: one LoRA, a way to sample with both (of pipeline, content, style), or nothing."""


@dataclass(frozen=True)
class Method:
    """How two LoRAs become what is applied: ``merge(task, **options)``.

    ``slow`` says that it trains for each pair, so that `make` keeps its result; ``hypernetwork`` that it
    needs one; ``sampling`` that there is no merge before, since it chooses while it samples. ``reference``
    marks what merges nothing at all, for comparison.
    """

    merge: Callable[..., Applied]
    options: Mapping[str, Any] = field(default_factory=dict)
    slow: bool = False
    hypernetwork: bool = False
    reference: bool = False
    sampling: bool = False


def _by_library(name: str) -> Callable[..., LoRA]:
    def merged(task: Task, **options: Any) -> LoRA:
        return merge(task.content, task.style, name, **options)

    return merged


def _by_hypernetwork(task: Task, **options: Any) -> LoRA:
    """LoRA.rar: the parts and the rest are those that the hypernetwork was trained for, unless given."""
    network = task.hypernetwork
    if network is None:
        raise ValueError("method lorarar needs a hypernetwork: make it with `lorarar train-hypernetwork`")
    options = network.merge_options | options
    return merge(task.content, task.style, "lorarar", hypernetwork=network, **options)


def _by_optimisation(task: Task, *, rest: str = "average", **options: Any) -> LoRA:
    """ZipLoRA: coefficients from `make`'s file, or optimised now."""
    kept = kept_file(task, "ziplora", options)
    coefficients = load_coefficients(kept) if kept else optimised(task, **options)
    return merge(task.content, task.style, "ziplora", coefficients=coefficients, rest=rest)


def _jointly(task: Task, **options: Any) -> LoRA:
    """Joint training: a LoRA from `make`'s file, or trained now."""
    kept = kept_file(task, "joint", options)
    return load_lora(kept) if kept else trained_jointly(task, **options)


def _k_lora(task: Task, **options: Any) -> Applied:
    return partial(klora.applied, claims=klora.ratios(task.content, task.style, **options))


def _est_lora(task: Task, **options: Any) -> Applied:
    """EST-LoRA: its start β is from a picture of the pair's prompt under either LoRA, which DINO compares."""
    claims = estlora.ratios(task.content, task.style, **options)
    alone = []
    for lora in (task.content, task.style):
        with loaded(task.pipe, lora):
            alone.append(generate(task.pipe, task.world.words(*task.pair), task.seed)[0])
    dino = load_encoder(local(task.scale.dino), task.pipe.device)
    content, style = embed_images(dino, alone)
    return partial(klora.applied, claims=claims, beta=1.0 - float(content @ style))


def _lora_switch(task: Task, *, every: int = switching.EVERY) -> Applied:
    switching.turns(1, every=every)  # a wrong number is said before a picture is begun
    return partial(switching.scheduled, choices=lambda steps: switching.turns(steps, every=every)[:, None])


# The paper ran TIES, DARE and DARE-TIES by peft, on the factors, with uniform weights and density 0.5 (A1.3);
# "… on ΔW" is what these methods mean by their own papers.
_PEFT = {"flavour": "factors", "content_weight": 0.5, "style_weight": 0.5, "density": 0.5}

METHODS: dict[str, Method] = {
    "base": Method(lambda task: None, reference=True),
    "content": Method(lambda task: task.content, reference=True),
    "style": Method(lambda task: task.style, reference=True),
    "joint": Method(_jointly, slow=True),
    "direct": Method(_by_library("direct")),
    "dare": Method(_by_library("dare"), _PEFT),
    "ties": Method(_by_library("ties"), _PEFT),
    "dare-ties": Method(_by_library("dare-ties"), _PEFT),
    "dare-delta": Method(_by_library("dare"), {"density": 0.5}),
    "ties-delta": Method(_by_library("ties"), {"density": 0.5}),
    "dare-ties-delta": Method(_by_library("dare-ties"), {"density": 0.5}),
    "np-lora": Method(_by_library("np-lora")),
    "k-lora": Method(_k_lora, sampling=True),
    "ziplora": Method(_by_optimisation, slow=True),
    "lorarar": Method(_by_hypernetwork, hypernetwork=True),
}
"""The scoreboard's methods; "base", "content" and "style" apply no LoRA and one of the two, as references."""

MORE: dict[str, Method] = {
    "levels": Method(_by_library("levels")),
    "regmean": Method(by_regression),
    "mix-of-show": Method(by_regression, {"fusion_steps": STEPS}),
    "custom-diffusion": Method(by_constraint),
    "est-lora": Method(_est_lora, sampling=True),
    "lora-switch": Method(_lora_switch, sampling=True),
    "lora-composite": Method(lambda task: switching.composed, sampling=True),
    "dynamic-fusion": Method(lambda task: switching.selected, sampling=True),
}
"""Methods that are asked for by name, in contests and on validation, and have no row on the scoreboard."""

KNOWN = METHODS | MORE


def find_method(name: str, split: str) -> Method:
    """Return the method of that name, or a variant of it: ``lorarar:parts=query+value,rest=sum``.

    Raises:
        ValueError: no such method; a variant that is not spelled so; or a variant on the test split, on which
            nothing is tuned.
    """
    name, _, given = name.partition(":")
    if name not in KNOWN:
        raise ValueError(f"no method {name!r}: choose one of {', '.join(KNOWN)}")
    if not given:
        return KNOWN[name]
    if split == "test":
        raise ValueError(f"{name}:{given}: variants are compared on validation, never on test")
    options: dict[str, Any] = {}
    for item in given.split(","):
        key, equals, value = item.partition("=")
        if not key or not equals:
            raise ValueError(f"{name}:{given}: expected NAME:OPTION=VALUE,OPTION=VALUE")
        options[key] = tuple(value.split("+")) if key == "parts" else _value(value)
    return replace(KNOWN[name], options={**KNOWN[name].options, **options})


def _value(text: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def applying(task: Task, applied: Applied) -> AbstractContextManager[DiffusionPipeline]:
    """Put what a method made into the task's pipeline, for as long as the block runs."""
    if isinstance(applied, LoRA):
        return loaded(task.pipe, applied)
    if applied is None:
        return loaded(task.pipe)
    return applied(task.pipe, task.content, task.style)


def make(task: Task, method: str) -> tuple[Path, float]:
    """Work out what a slow method needs of a pair and keep it, coefficients or a LoRA, in ``task.made``.

    Returns:
        The file, which is left alone if it is this very task's, and the seconds it took when it was made.

    Raises:
        ValueError: the method is not slow, or the task has no folder.
    """
    if method not in METHODS or not METHODS[method].slow or task.made is None:
        raise ValueError(f"method {method} merges at once: there is nothing to make before")
    options = METHODS[method].options
    path = task.made / method / f"{slug(task.pair)}.safetensors"
    if not kept_file(task, method, options):
        path.parent.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        facts = {"lorarar_experiment": decisive(task, method, options)}
        if method == "ziplora":
            found = optimised(task, **options)
            save_coefficients(found, path, metadata={**facts, "seconds": f"{seconds_since(began):.3f}"})
        else:
            lora = trained_jointly(replace(task, checkpoint=path.with_suffix(".checkpoint")), **options)
            lora.metadata |= {**facts, "seconds": f"{seconds_since(began):.3f}"}
            save_lora(lora, path, dtype=torch.float16)
    return path, float(file_metadata(path)["seconds"])
