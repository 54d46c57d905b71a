"""LoRA.rar: training the hypernetwork on many pairs of LoRAs (Shenaj et al. 2025, arXiv 2412.05148).

The loss is ZipLoRA's (`lorarar.objective`), but the coefficients are the hypernetwork's answer to the pair,
and what moves is the hypernetwork. A hundred pairs of training LoRAs, drawn at random, get fifty steps each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from lorarar.dreambooth import Batch, keep, restore
from lorarar.hypernet import Hypernetwork, layers_of
from lorarar.lora import LoRA, LoRAError
from lorarar.merging import matching
from lorarar.models import base_sha256
from lorarar.objective import (
    Gated,
    Trained,
    check_settings,
    check_unet,
    chosen,
    fingerprint,
    merging_loss,
    opened,
    teach,
    updates,
)

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from lorarar.ziplora import History

ORDERS = ("in turn", "mixed")


def schedule(steps: int, pairs: int, order: str, seed: int) -> list[int]:
    """Say which of the pairs each step trains on.

    ``in turn`` is the authors' code: all steps of a pair, then the next pair's. ``mixed`` goes through all
    pairs in a new random order again and again, so that the last ones do not have the last word.
    """
    if order == "in turn":
        return [step * pairs // steps for step in range(steps)]
    generator = torch.Generator().manual_seed(seed)
    rounds = [torch.randperm(pairs, generator=generator) for _ in range(-(-steps // pairs))]
    return torch.cat(rounds)[:steps].tolist()


def sample_pairs(contents: int, styles: int, count: int, seed: int) -> list[tuple[int, int]]:
    """Draw different (content, style) pairs of indices. Raises ValueError if there are not ``count``."""
    if count > contents * styles:
        raise ValueError(
            f"{count} pairs of {contents} content and {styles} style LoRAs: ask for at most "
            f"{contents * styles}"
        )
    order = torch.randperm(contents * styles, generator=torch.Generator().manual_seed(seed))
    return [divmod(i, styles) for i in order[:count].tolist()]


def train(
    pipe: DiffusionPipeline,
    contents: Sequence[Trained],
    styles: Sequence[Trained],
    *,
    pairs: int | Sequence[tuple[int, int]] = 100,
    steps: int = 5000,
    learning_rate: float = 0.01,
    similarity: float = 0.01,
    batch_size: int = 1,
    parts: Iterable[str] = ("query", "output"),
    rest: str = "average",
    measure: str = "dot",
    order: str = "in turn",
    hidden: int = 128,
    weight_decay: float = 0.01,
    draws: int = 64,
    seed: int = 0,
    gradient_checkpointing: bool = False,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    resume: bool = False,
    command: str = "",
    progress: bool = True,
    callback: Callable[[int, tuple[float, float, float]], None] | None = None,
) -> tuple[Hypernetwork, History]:
    """Train the hypernetwork. The pipeline is left as it was found.

    The defaults are the paper's (§A1.3: 100 pairs, 5000 steps, λ 0.01, AdamW with learning rate 0.01, query
    and output predicted, key and value averaged); a scale's come with ``train(pipe, contents, styles,
    pairs=scale.hypernetwork_pairs, **vars(scale.hypernetwork))``. Each style's own captions are used; the
    authors' code has one prompt for all styles.

    Args:
        pipe: a diffusers SDXL or SD 1.5 pipeline without a LoRA.
        contents: the subjects' LoRAs with the images and prompts they were trained on; training ones only.
        styles: the styles'.
        pairs: how many different pairs are drawn, or the pairs themselves, as indices (content, style).
        steps: of AdamW, over all pairs.
        learning_rate: of AdamW.
        similarity: λ, the similarity term's weight.
        batch_size: samples a step of either LoRA.
        parts: of attention that the hypernetwork predicts: some of query, key, value, output.
        rest: the other layers: ``average`` (the text) or ``sum`` (the released code).
        measure: of similarity, ``dot`` or ``cosine`` (see `lorarar.objective.merging_loss`).
        order: of the pairs, ``in turn`` or ``mixed`` (see `schedule`).
        hidden: width of the hypernetwork's hidden layer.
        weight_decay: of AdamW.
        draws: fixed (image, noise, timestep) samples of each LoRA, from which each step takes some; the
            LoRA's own predictions are computed for them once, when the LoRA's first turn comes, and kept on
            the pipeline's device.
        seed: of the pairs, their order, the hypernetwork's start and everything drawn.
        gradient_checkpointing: recompute activations in the backward pass: slower, with less memory.
        checkpoint: a file in which the run's state is kept, written aside and renamed; removed at the end.
        checkpoint_every: steps between two checkpoints.
        resume: go on from ``checkpoint``, if there is one; the result is the same as without the
            interruption.
        command: how the run was started, for the hypernetwork's metadata.
        progress: show a bar.
        callback: called after each step with its number, from 1, and the three terms.

    Returns:
        The hypernetwork in memory, float32 on the CPU, its metadata saying how it was trained (``parts`` and
        ``rest`` are those to merge with); and the three terms of each step.

    Raises:
        ValueError: in one line, if an argument is out of range, an image or the checkpoint cannot be used, or
            a LoRA is for another base.
    """
    parts = tuple(parts)
    check_settings(
        learning_rate=learning_rate, similarity=similarity, measure=measure, rest=rest, steps=steps,
        batch_size=batch_size, draws=draws, hidden=hidden, checkpoint_every=checkpoint_every,
    )  # fmt: skip
    if order not in ORDERS:
        raise ValueError(f"unknown order {order!r}: choose one of {', '.join(ORDERS)}")
    if not 0 <= weight_decay < float("inf"):
        raise ValueError(f"weight_decay must not be negative, but is {weight_decay}")
    if checkpoint is not None and not Path(checkpoint).parent.is_dir():
        raise ValueError(f"{checkpoint}: its folder does not exist; make it first")
    if not contents or not styles:
        raise ValueError("a hypernetwork needs at least one content LoRA and one style LoRA to train on")
    if isinstance(pairs, int):
        check_settings(
            learning_rate=learning_rate, similarity=similarity, measure=measure, rest=rest, pairs=pairs
        )
        pairs = sample_pairs(len(contents), len(styles), pairs, seed)
    pairs = [(int(c), int(s)) for c, s in pairs]
    if not pairs or not all(0 <= c < len(contents) and 0 <= s < len(styles) for c, s in pairs):
        raise ValueError(
            f"pairs must be indices of {len(contents)} content and {len(styles)} style LoRAs, not {pairs[:3]}"
        )
    if steps < len(pairs):
        raise ValueError(f"{steps} steps for {len(pairs)} pairs: give each pair at least one")

    # What can be wrong with any file is said before the training, not hours later.
    used = [[(0, c) for c, _ in pairs], [(1, s) for _, s in pairs]]
    sides = {key: opened((contents, styles)[key[0]][key[1]]) for key in dict.fromkeys([*used[0], *used[1]])}
    for side in sides.values():
        check_unet(pipe, side.lora, side.name)
    layers: dict[tuple[int, int], list[str]] = {}
    columns = set()
    for c, s in pairs:
        content, style = sides[0, c], sides[1, s]
        try:
            layers[c, s] = layers_of(matching(content.lora, style.lora), parts)
            if not layers[c, s]:
                raise LoRAError(f"they share no attention layer of {', '.join(parts)}")
        except LoRAError as error:
            raise LoRAError(f"{content.name} and {style.name}: {error}") from None
        columns |= {2 * len(content.lora[layer][0]) for layer in layers[c, s]}

    unet = pipe.unet
    where = {"device": unet.device, "dtype": unet.dtype}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Hypernetwork(columns, hidden).to(unet.device)
    rule = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=weight_decay)
    scaler = torch.amp.GradScaler(unet.device.type, enabled=unet.dtype == torch.float16)
    generator = torch.Generator().manual_seed(seed)
    count = max(batch_size, draws)
    turns = schedule(steps, len(pairs), order, seed)
    recipe = {
        "steps": steps,
        "pairs": len(pairs),
        "learning_rate": learning_rate,
        "similarity": similarity,
        "measure": measure,
        "batch_size": batch_size,
        "parts": list(parts),
        "rest": rest,
        "order": order,
        "hidden": hidden,
        "weight_decay": weight_decay,
        "draws": count,
        "seed": seed,
    }
    settings = {  # what decides where the run goes: a checkpoint belongs to one setting of it
        **recipe,
        "pairs": [list(pair) for pair in pairs],
        "loras": hashlib.sha256("".join(map(fingerprint, sides.values())).encode()).hexdigest(),
        "base": base_sha256(pipe),
    }
    history = torch.zeros(steps, 3, device=unet.device)
    # The history is restored with the parameters: curves without a gap after an interruption.
    state = {
        "parameters": [*network.parameters(), history],
        "optimizer": rule,
        "scaler": scaler,
        "generator": generator,
    }
    start = 0
    if resume and checkpoint is not None and Path(checkpoint).exists():
        start = restore(checkpoint, settings, **state)

    loras = {key: _on(side.lora, unet.device) for key, side in sides.items()}
    lessons: dict[tuple[int, int], Batch] = {}
    current, both = None, None
    everything = dict.fromkeys(layer for side in sides.values() for layer in side.lora)
    with (
        updates(pipe, everything, gradient_checkpointing=gradient_checkpointing) as update,
        tqdm(initial=start, total=steps, desc="hypernetwork", unit="step", disable=not progress) as bar,
    ):
        for step in range(start, steps):
            pair = pairs[turns[step]]
            keys = (0, pair[0]), (1, pair[1])
            for key in keys:
                if key not in lessons:  # from the seed and the LoRA alone, whenever its turn comes
                    own_seed = (seed * 2 + key[0]) * 1_000_003 + key[1]
                    lessons[key] = teach(pipe, update, sides[key], count, own_seed)
            content, style = (loras[key] for key in keys)
            if pair != current:
                current, both = pair, Gated(content, style, layers[pair], rest=rest, **where)
            picks = [torch.randperm(count, generator=generator)[:batch_size] for _ in keys]
            samples = [
                chosen(lessons[key], pick.to(unet.device)) for key, pick in zip(keys, picks, strict=True)
            ]
            coefficients = network.coefficients(content, style, parts)
            terms = merging_loss(unet, update, both, coefficients, *samples, measure)
            scaler.scale(terms.loss(similarity)).backward()
            scaler.unscale_(rule)
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            scaler.step(rule)
            scaler.update()
            rule.zero_grad()
            history[step] = torch.stack(terms).detach()
            bar.update()
            if checkpoint is not None and (step + 1) % checkpoint_every == 0 and step + 1 < steps:
                keep(checkpoint, settings, step + 1, **state)
            if callback or step % 10 == 9:  # reading the loss waits for the GPU, so not every step
                values = tuple(history[step].tolist())
                bar.set_postfix(content=f"{values[0]:.4f}", style=f"{values[1]:.4f}", refresh=False)
                if callback:
                    callback(step + 1, values)
    network = network.cpu()
    if not all(bool(x.isfinite().all()) for x in (*network.parameters(), history)):
        raise ValueError("training diverged: choose a smaller learning rate, or full precision")
    network.metadata = {
        "lorarar_training": json.dumps({**recipe, "base": settings["base"], "loras": settings["loras"]}),
        "parts": ",".join(parts),
        "rest": rest,
        "command": command,
    }
    if checkpoint is not None:
        Path(checkpoint).unlink(missing_ok=True)
    columns_of = dict(zip(("content", "style", "similarity"), history.T.tolist(), strict=True))
    return network, columns_of


def _on(lora: LoRA, device: torch.device) -> LoRA:
    """Return the LoRA on a device, in its own types."""
    return LoRA({layer: (up.to(device), down.to(device)) for layer, (up, down) in lora.items()})
