"""LoRA.rar: training the hypernetwork on many pairs of LoRAs (Shenaj et al. 2025, arXiv 2412.05148).

The loss is ZipLoRA's (`lorarar.train.objective`), but the coefficients are the hypernetwork's answer to the
pair, and what moves is the hypernetwork. A hundred pairs of training LoRAs, drawn at random, get fifty steps
each. The same loop trains a network that reads invariants instead (`lorarar.hypernet.Invariants`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lorarar.hypernet import Hypernetwork, Invariants, layers_of
from lorarar.lora import LoRA, LoRAError, norm
from lorarar.merging import matching
from lorarar.options import HypernetworkOptions, MergerRecipe, values
from lorarar.pipelines import base_sha256
from lorarar.train.adapters import Trained, fingerprint, opened
from lorarar.train.denoising import Batch
from lorarar.train.gates import Gated, check_unet, updates
from lorarar.train.loop import Checkpoint, Run, learning_rate_factor
from lorarar.train.objective import Lessons, Terms, merging_loss, teach

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from lorarar.train.ziplora import History


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


def train_hypernetwork(
    pipe: DiffusionPipeline,
    contents: Sequence[Trained],
    styles: Sequence[Trained],
    options: MergerRecipe | None = None,
    *,
    pairs: int | Sequence[tuple[int, int]] = 100,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    resume: bool = False,
    command: str = "",
    progress: bool = True,
    callback: Callable[[int, tuple[float, ...]], None] | None = None,
    **changes: Any,
) -> tuple[Hypernetwork | Invariants, History]:
    """Train the hypernetwork. The pipeline is left as it was found.

    Each style's own captions are used; the authors' code has one prompt for all styles. A LoRA's own
    predictions are computed once, when its first turn comes, for those of its ``draws`` samples that a step
    takes.

    Args:
        pipe: a diffusers SDXL or SD 1.5 pipeline without a LoRA.
        contents: the subjects' LoRAs with the images and prompts they were trained on; training ones only.
        styles: the styles'.
        options: `lorarar.options.HypernetworkOptions`, or a scale's recipe; the defaults are the paper's
            (§A1.3: 5000 steps, λ 0.01, AdamW with learning rate 0.01, query and output predicted, key and
            value averaged).
        pairs: how many different pairs are drawn (the paper: 100), or the pairs, as indices (content, style).
        checkpoint: a file in which the run's state is kept, written aside and renamed; removed at the end.
        checkpoint_every: steps between two checkpoints.
        resume: go on from ``checkpoint``, if there is one; the result is the same as without the
            interruption.
        command: how the run was started, for the hypernetwork's metadata.
        progress: show a bar.
        callback: called after each step with its number, from 1, and the three terms.
        **changes: single options by name, which take precedence.

    Returns:
        The hypernetwork in memory, float32 on the CPU, its metadata saying how it was trained (``parts`` and
        ``rest`` are those to merge with); and the three terms of each step.

    Raises:
        ValueError: an option is out of range, an image or the checkpoint cannot be used, or a LoRA is for
            another base.
    """
    o = HypernetworkOptions.of(options, **changes)
    parts = tuple(o.parts)
    kept = Checkpoint.at(checkpoint, checkpoint_every, resume)
    pairs = _pairs(pairs, len(contents), len(styles), o)
    # What can be wrong with any file is said before the training, not hours later.
    used = dict.fromkeys([*((0, c) for c, _ in pairs), *((1, s) for _, s in pairs)])
    sides = {key: opened((contents, styles)[key[0]][key[1]]) for key in used}
    for side in sides.values():
        check_unet(pipe, side.lora, side.name)
    layers = {(c, s): _layers(sides[0, c], sides[1, s], parts) for c, s in pairs}
    columns = {2 * len(sides[0, c].lora[layer][0]) for (c, _), names in layers.items() for layer in names}

    unet = pipe.unet
    where = {"device": unet.device, "dtype": unet.dtype}
    network = fresh(o, columns).to(unet.device)
    generator = torch.Generator().manual_seed(o.seed)
    count = max(o.batch_size, o.draws)
    turns = schedule(o.steps, len(pairs), o.order, o.seed)
    recipe = {
        **{name: value for name, value in values(o).items() if name != "gradient_checkpointing"},
        "pairs": len(pairs),
        "parts": list(parts),
        "draws": count,
    }
    settings = {
        **recipe,
        "pairs": [list(pair) for pair in pairs],
        "loras": hashlib.sha256("".join(map(fingerprint, sides.values())).encode()).hexdigest(),
        "base": base_sha256(pipe),
    }
    history = torch.zeros(o.steps, 3, device=unet.device)
    loras = {key: _on(side.lora, unet.device) for key, side in sides.items()}
    keys = [((0, pairs[turn][0]), (1, pairs[turn][1])) for turn in turns]
    scales = _unit_scales(loras.values(), parts) if o.unit_inputs else {}
    seen = {key: _scaled(lora, scales) for key, lora in loras.items()}
    gates: dict[tuple[int, int], Gated] = {}  # of the pair whose turn it is
    everything = dict.fromkeys(layer for side in sides.values() for layer in side.lora)
    with updates(pipe, everything, gradient_checkpointing=o.gradient_checkpointing) as update:

        def lesson(key: tuple[int, int], wanted: list[int]) -> Batch:
            """From the seed and the LoRA alone, whenever its turn comes."""
            own_seed = o.seed if o.same_noise else (o.seed * 2 + key[0]) * 1_000_003 + key[1]
            return teach(pipe, update, sides[key], count, own_seed, wanted)

        lessons = Lessons(keys, count, o.batch_size, generator, lesson, same=o.same_noise)

        def loss(step: int) -> tuple[Tensor, Tensor]:
            pair = pairs[turns[step]]
            content, style = (loras[key] for key in keys[step])
            samples = lessons.samples(step)
            if pair not in gates:
                gates.clear()
                gates[pair] = Gated(content, style, layers[pair], rest=o.rest, **where)
            coefficients = network.coefficients(*(seen[key] for key in keys[step]), parts)
            terms = merging_loss(unet, update, gates[pair], coefficients, *samples, o.measure)
            history[step] = torch.stack(terms).detach()
            return terms.loss(o.similarity), history[step]

        parameters = list(network.parameters())
        Run(
            loss,
            parameters,
            torch.optim.AdamW(parameters, o.learning_rate, weight_decay=o.weight_decay),
            o.steps,
            settings,
            generator,
            half=unet.dtype == torch.float16,
            clip=1.0,
            rate=lambda step: learning_rate_factor(step, o.steps, o.warmup, o.decay),
            kept=[history],  # curves without a gap after an interruption
            checkpoint=kept,
        ).go("hypernetwork", Terms._fields, progress, callback)
    network = network.cpu()
    if not all(bool(x.isfinite().all()) for x in (*network.parameters(), history)):
        raise ValueError("training diverged: choose a smaller learning rate, or full precision")
    kept.remove()
    with torch.no_grad():
        for length, factor in scales.items():  # L·(a x) = (a L)·x
            network.inputs[str(2 * length)].weight.mul_(factor)
    names = {
        of: [side.name for (kind, _), side in sides.items() if kind == i]
        for i, of in enumerate(("contents", "styles"))
    }
    made_of = {"base": settings["base"], "loras": settings["loras"], **names}
    network.metadata = {
        "lorarar_training": json.dumps({**recipe, **made_of}),
        "parts": ",".join(parts),
        "rest": o.rest,
        "command": command,
    }
    return network, dict(zip(Terms._fields, history.T.tolist(), strict=True))


def fresh(options: HypernetworkOptions, columns: Iterable[int]) -> Hypernetwork | Invariants:
    """Return an untrained network of the kind, width and seed of the options.

    Args:
        options: which network.
        columns: lengths of the concatenated columns, for a network that reads them.

    Raises:
        ValueError: options of one kind of network for the other.
    """
    other = {"columns": {"context": "none"}, "invariants": {"unit_inputs": False}}[options.reads]
    for name, default in other.items():
        if getattr(options, name) != default:
            raise ValueError(f"{name} is not for a network that reads {options.reads}: leave it out")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        if options.reads == "columns":
            return Hypernetwork(columns, options.hidden)
        return Invariants(options.hidden, options.context)


def _unit_scales(loras: Iterable[LoRA], parts: Sequence[str]) -> dict[int, float]:
    """Return, by length of a column, the factor that brings the entries of all updates to rms 1."""
    squares: dict[int, list[tuple[float, int]]] = {}
    for lora in loras:
        for layer in layers_of(lora, parts):
            out, inputs = len(lora[layer][0]), lora[layer][1].shape[1]
            squares.setdefault(out, []).append((norm(lora[layer]) ** 2, out * inputs))
    return {
        out: (sum(count for _, count in found) / max(sum(square for square, _ in found), 1e-30)) ** 0.5
        for out, found in squares.items()
    }


def _scaled(lora: LoRA, scales: Mapping[int, float]) -> LoRA:
    """Return the LoRA with each layer times the factor of its length."""
    if not scales:
        return lora
    return LoRA({layer: (up.float() * scales.get(len(up), 1.0), down) for layer, (up, down) in lora.items()})


def _pairs(
    pairs: int | Sequence[tuple[int, int]], contents: int, styles: int, options: HypernetworkOptions
) -> list[tuple[int, int]]:
    """Return the pairs to train on, as indices, each with a step of its own at least."""
    if not contents or not styles:
        raise ValueError("a hypernetwork needs at least one content LoRA and one style LoRA to train on")
    if isinstance(pairs, int):
        if isinstance(pairs, bool) or pairs < 1:
            raise ValueError(f"pairs must be a whole number of at least 1, not {pairs}")
        pairs = sample_pairs(contents, styles, pairs, options.seed)
    pairs = [(int(c), int(s)) for c, s in pairs]
    if not pairs or not all(0 <= c < contents and 0 <= s < styles for c, s in pairs):
        raise ValueError(
            f"pairs must be indices of {contents} content and {styles} style LoRAs, not {pairs[:3]}"
        )
    if options.steps < len(pairs):
        raise ValueError(f"{options.steps} steps for {len(pairs)} pairs: give each pair at least one")
    return pairs


def _layers(content: Trained, style: Trained, parts: Sequence[str]) -> list[str]:
    """Return the layers of a pair that get coefficients."""
    try:
        if layers := layers_of(matching(content.lora, style.lora), parts):
            return layers
        raise LoRAError(f"they share no attention layer of {', '.join(parts)}")
    except LoRAError as error:
        raise LoRAError(f"{content.name} and {style.name}: {error}") from None


def _on(lora: LoRA, device: torch.device) -> LoRA:
    """Return the LoRA on a device, in its own types."""
    return LoRA({layer: (up.to(device), down.to(device)) for layer, (up, down) in lora.items()})
