"""The merging loss, which ZipLoRA minimises for one pair of LoRAs and LoRA.rar's hypernetwork for many.

With D the base model, L_m = ΔW_c·diag(m_c) + ΔW_s·diag(m_s) the merged update and (x, p) noised images and
prompts of either LoRA's own training set (Shah et al. 2024, ZipLoRA, arXiv 2311.13600, eq. 4):

    ‖(D + L_m)(x_c, p_c) - (D + L_c)(x_c, p_c)‖² + ‖(D + L_m)(x_s, p_s) - (D + L_s)(x_s, p_s)‖²
        + λ Σ_layers |m_c · m_s|.

Since ΔW·diag(m) = B·(A·diag(m)), a coefficient gates a column of the small A, or equally an entry of the
layer's input: y = W x + B_c A_c (m_c ⊙ x) + B_s A_s (m_s ⊙ x). No dense ΔW is formed and W is not touched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lorarar.dreambooth import Batch, Images, draw, encode, image_files, read_captions, read_images
from lorarar.lora import LoRA, LoRAError, Pair, load_lora
from lorarar.merging import RESTS, Gates, batches, matching, stacked
from lorarar.models import check_fit

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

MEASURES = ("dot", "cosine")
"""How alike two coefficient vectors are, see `similarity`."""

Update = Callable[[Mapping[str, Pair]], None]


@dataclass(frozen=True)
class Trained:
    """A LoRA with what it was trained on: images, and one prompt for all or a caption for each.

    ``name`` is what errors call it.
    """

    lora: LoRA
    images: Images
    prompt: str | Sequence[str]
    name: str = "the LoRA"


class Terms(NamedTuple):
    """The three terms of the merging loss (`merging_loss`), apart: scalars, the last without its λ."""

    content: Tensor
    style: Tensor
    similarity: Tensor

    def loss(self, weight: float) -> Tensor:
        """Return content + style + ``weight`` · similarity, ``weight`` being the papers' λ."""
        return self.content + self.style + weight * self.similarity


# ---------------------------------------------------------------------------------------------------------
# The merged update


def similarity(coefficients: Gates, measure: str = "dot") -> Tensor:
    """Return the sum over the layers of how alike m_c and m_s are, a scalar.

    ``dot`` is |m_c · m_s|, the equation of both papers; ``cosine`` is |cos(m_c, m_s)|, LoRA.rar's released
    code, whose gradient is zero wherever m_c and m_s are parallel, the all-ones start included.

    Raises:
        ValueError: an unknown measure.
    """
    if measure not in MEASURES:
        raise ValueError(f"unknown measure {measure!r} of similarity: choose one of {', '.join(MEASURES)}")
    widths: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for m_c, m_s in coefficients.values():
        widths.setdefault(len(m_c), []).append((m_c, m_s))
    total = []
    for pairs in widths.values():
        m_c, m_s = (torch.stack(side) for side in zip(*pairs, strict=True))  # (layers, width)
        if measure == "cosine":
            alike = torch.nn.functional.cosine_similarity(m_c, m_s, dim=1)
        else:
            alike = (m_c * m_s).sum(1)
        total.append(alike.abs().sum())
    return torch.stack(total).sum() if total else torch.zeros(())


class Gated:
    """A content and a style LoRA as one update of rank r_c + r_s, ready to be gated by coefficients.

    What does not depend on the coefficients is prepared once. The result is `lorarar.merging.ziplora`'s:
    layers of ``layers`` get coefficients, other layers of both LoRAs are averaged or summed (``rest``), and a
    layer of one LoRA only is kept.

    Args:
        content: the subject's LoRA.
        style: the style's.
        layers: linear layers of both that coefficients will be given for.
        rest: ``average`` (LoRA.rar's text) or ``sum`` (its released code).
        device: where the update is needed.
        dtype: of the update, the UNet's; the columns are gated in float32.

    Raises:
        ValueError: the LoRAs do not match, or ``rest`` is unknown.
    """

    def __init__(
        self,
        content: LoRA,
        style: LoRA,
        layers: Iterable[str],
        *,
        rest: str = "average",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if rest not in RESTS:
            raise LoRAError(f"rest {rest!r}: expected one of {', '.join(RESTS)}")
        shared, gated = matching(content, style), set(layers)
        if strange := sorted(gated - set(shared)):
            raise LoRAError(f"coefficients for layer {strange[0]}, which is not in both LoRAs")
        self.dtype = dtype
        self.groups: list[tuple[list[str], tuple[Tensor, ...], Tensor, Tensor]] = []
        self.constant: dict[str, Pair] = {}

        def factors(names: list[str], which: int) -> list[Tensor]:
            return [
                stacked([lora[layer][which] for layer in names]).to(device, torch.float32)
                for lora in (content, style)
            ]

        for names in batches(content, style, shared, 1 << 28):  # few large groups: few operations a step
            inside = [layer for layer in names if layer in gated]
            if inside:
                up = torch.cat(factors(inside, 0), 2).to(dtype)  # (n, out, r_c + r_s)
                self.groups.append((inside, up.unbind(), *factors(inside, 1)))
            outside = [layer for layer in names if layer not in gated]
            if outside:
                up = torch.cat(factors(outside, 0), 2).to(dtype)
                down = torch.cat(factors(outside, 1), 1) * (0.5 if rest == "average" else 1.0)
                pairs = zip(up.unbind(), down.to(dtype).unbind(), strict=True)
                self.constant.update(zip(outside, pairs, strict=True))
        for lora, other in ((content, style), (style, content)):
            one = LoRA({layer: pair for layer, pair in lora.items() if layer not in other})
            self.constant.update(placed(one, device, dtype))

    def update(self, coefficients: Gates) -> dict[str, Pair]:
        """Return layer → (B, A·diag(m)); gradients flow into the coefficients, (in,) each."""
        pairs = dict(self.constant)
        for names, ups, down_c, down_s in self.groups:
            m_c, m_s = (
                stacked([coefficients[layer][which] for layer in names]).to(down_c.device)[:, None]
                for which in (0, 1)
            )
            downs = torch.cat([down_c * m_c, down_s * m_s], 1).to(self.dtype)  # (n, r_c + r_s, in)
            pairs.update(zip(names, zip(ups, downs.unbind(), strict=True), strict=True))
        return pairs


def placed(lora: Mapping[str, Pair], device: torch.device | str, dtype: torch.dtype) -> dict[str, Pair]:
    """Return the factors on a device, in a type."""
    return {layer: (up.to(device, dtype), down.to(device, dtype)) for layer, (up, down) in lora.items()}


# ---------------------------------------------------------------------------------------------------------
# The update inside the UNet


def _added(module: torch.nn.Module, x: Tensor, pair: Pair) -> Tensor:
    """What an update (up, down) adds to a linear layer's or a convolution's answer to x."""
    up, down = pair
    if down.ndim == 2:
        return torch.nn.functional.linear(torch.nn.functional.linear(x, down), up)
    inner = torch.nn.functional.conv2d(x, down, None, module.stride, module.padding, module.dilation)
    return torch.nn.functional.conv2d(inner, up)


@contextmanager
def updates(
    pipe: DiffusionPipeline, layers: Iterable[str], *, gradient_checkpointing: bool = False
) -> Iterator[Update]:
    """Let layers of the UNet take low-rank updates while the block runs; then leave it as it was found.

    Yields a function that sets the updates, ``{layer: (up (out, r), down (r, in))}`` on the UNet's device and
    in its type, of all forward passes until it is called again; ``{}`` gives the base model. With gradient
    checkpointing it must not be called between a forward pass and its backward pass. The UNet's own weights
    are frozen.

    Raises:
        ValueError: the UNet carries a LoRA already.
    """
    from peft.tuners.lora import LoraLayer

    unet = pipe.unet
    if any(isinstance(module, LoraLayer) for module in unet.modules()):
        raise ValueError("the pipeline already carries a LoRA: call pipe.unload_lora_weights() first")
    now: dict[str, Pair] = {}

    def hook(layer: str) -> Callable[[torch.nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        def add(module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            return output + _added(module, inputs[0], now[layer]) if layer in now else None

        return add

    known = {layer: unet.get_submodule(layer.removeprefix("unet.")) for layer in layers}

    def update(pairs: Mapping[str, Pair]) -> None:
        if strange := sorted(set(pairs) - set(known)):
            raise ValueError(f"no update was announced for layer {strange[0]}")
        now.clear()
        now.update(pairs)

    frozen = {name: parameter.requires_grad for name, parameter in unet.named_parameters()}
    checkpointing, mode = unet.is_gradient_checkpointing, unet.training
    handles = []
    try:
        unet.requires_grad_(False)
        unet.eval()
        if gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        for layer, module in known.items():
            handles.append(module.register_forward_hook(hook(layer)))
        yield update
    finally:
        for handle in handles:
            handle.remove()
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(frozen[name])
        if gradient_checkpointing and not checkpointing:
            unet.disable_gradient_checkpointing()
        unet.train(mode)


@contextmanager
def gated(
    pipe: DiffusionPipeline, content: LoRA, style: LoRA, coefficients: Gates, *, rest: str = "average"
) -> Iterator[DiffusionPipeline]:
    """Apply a pair of LoRAs, gated by coefficients, while the block runs, as if merged and loaded.

    Raises:
        ValueError: a LoRA is not made for this base or not for its UNet alone, or the two do not match.
    """
    for lora, name in ((content, "content"), (style, "style")):
        check_unet(pipe, lora, name)
    where = {"device": pipe.unet.device, "dtype": pipe.unet.dtype}
    both = Gated(content, style, coefficients, rest=rest, **where)
    with updates(pipe, [*content, *(layer for layer in style if layer not in content)]) as update:
        update(both.update(coefficients))
        yield pipe


def check_unet(pipe: DiffusionPipeline, lora: LoRA, name: str) -> None:
    """Raise ValueError unless the LoRA fits the pipeline's UNet and updates nothing else."""
    if not lora:
        raise LoRAError(f"{name}: holds no layer; is it the right LoRA?")
    other = [layer for layer in lora if not layer.startswith("unet.")]
    if other:
        raise LoRAError(
            f"{name}: layer {other[0]} is not the UNet's; the merging loss is the UNet's alone, as in the "
            "papers: give LoRAs trained with frozen text encoders"
        )
    try:
        check_fit(pipe, lora)
    except ValueError as error:
        raise LoRAError(f"{name}: {error}") from None


# ---------------------------------------------------------------------------------------------------------
# The loss


def predict(unet: torch.nn.Module, batch: Batch) -> Tensor:
    """Return the UNet's prediction for a batch: (n, c, h, w) float32."""
    return unet(
        batch.noised.to(unet.dtype),
        batch.timesteps,
        batch.text,
        added_cond_kwargs=batch.conditions,
        return_dict=False,
    )[0].float()


def chosen(batch: Batch, index: Tensor | slice) -> Batch:
    """Return some samples of a batch."""
    conditions = batch.conditions and {name: value[index] for name, value in batch.conditions.items()}
    return Batch(
        **{f.name: getattr(batch, f.name)[index] for f in fields(Batch) if f.name != "conditions"},
        conditions=conditions,
    )


def joined(one: Batch, other: Batch) -> Batch:
    """Return the samples of two batches as one."""
    conditions = one.conditions and {
        name: torch.cat([value, other.conditions[name]]) for name, value in one.conditions.items()
    }
    return Batch(
        **{
            f.name: torch.cat([getattr(one, f.name), getattr(other, f.name)])
            for f in fields(Batch)
            if f.name != "conditions"
        },
        conditions=conditions,
    )


@torch.no_grad()
def teach(
    pipe: DiffusionPipeline, update: Update, teacher: Trained, count: int, seed: int, batch_size: int = 8
) -> Batch:
    """Draw noised images of a LoRA's training set, with the LoRA's own prediction as the target.

    The teacher's prediction depends on nothing that is optimised, nor on the other LoRA: it is computed once
    and serves every step, and every pair that the LoRA is in.

    Args:
        pipe: the pipeline, inside `updates`.
        update: what `updates` yields; the updates are removed afterwards.
        teacher: the LoRA, its images and prompts.
        count: of (image, noise, timestep) draws.
        seed: of the draws.
        batch_size: predictions computed at once.
    """
    from diffusers import DDPMScheduler

    unet = pipe.unet
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    batch = draw(
        [encode(pipe, [(teacher.images, teacher.prompt)])],
        count,
        schedule.alphas_cumprod.to(unet.device, torch.float32),
        schedule.config.prediction_type,
        torch.Generator().manual_seed(seed),
    )
    update(placed(teacher.lora, unet.device, unet.dtype))
    parts = [chosen(batch, slice(i, i + batch_size)) for i in range(0, count, batch_size)]
    answers = torch.cat([predict(unet, part) for part in parts])
    update({})
    return replace(batch, target=answers)


def merging_loss(
    unet: torch.nn.Module,
    update: Update,
    pair: Gated,
    coefficients: Gates,
    content: Batch,
    style: Batch,
    measure: str = "dot",
) -> Terms:
    """Return the three terms for one set of coefficients; both predictions are one pass through the UNet.

    The first two are means over the N entries of a prediction and over the batch, as in the released code.
    The equation's ‖·‖² is a sum, and there ``dot``, a sum too, is its match: all of the equation divided by N
    is what is returned for it, the similarity divided by N as well. Against the means the whole of it would
    drown them, and all coefficients fall alike. ``cosine`` is returned as it is, as in the released code.

    Args:
        unet: inside `updates`, whose yielded function is ``update``.
        update: see there.
        pair: the two LoRAs.
        coefficients: layer → (m_c, m_s), into which gradients flow, for the layers ``pair`` was made with.
        content: samples with the content LoRA's predictions as targets, from `teach`.
        style: the same of the style's.
        measure: see `similarity`.
    """
    update(pair.update(coefficients))
    both = joined(content, style)
    errors = (predict(unet, both) - both.target).square().mean((1, 2, 3))
    split = len(content.noised)
    alike = similarity(coefficients, measure).to(errors.device)
    if measure == "dot":
        alike = alike / both.target[0].numel()
    return Terms(errors[:split].mean(), errors[split:].mean(), alike)


# ---------------------------------------------------------------------------------------------------------
# What both optimisations ask for


def check_settings(*, learning_rate: float, similarity: float, measure: str, rest: str, **whole: int) -> None:
    """Raise ValueError for a setting out of range; ``whole`` are numbers of at least 1."""
    for name, value in whole.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, not {value}")
    if not 0 < learning_rate < float("inf") or not 0 <= similarity < float("inf"):
        raise ValueError(
            f"learning_rate must be positive and similarity not negative, but are {learning_rate} "
            f"and {similarity}"
        )
    for name, value, known in (("measure", measure, MEASURES), ("rest", rest, RESTS)):
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(known)}")


def read_trained(
    lora: str | Path, images: str | Path, prompt: str | None = None, captions: str | Path | None = None
) -> Trained:
    """Read a LoRA file, a folder of images, and one prompt or a file of captions (`read_captions`).

    Raises:
        ValueError: in one line, if one of them cannot be used, or not just one of the last two is given.
    """
    files = image_files(images)
    if (prompt is None) == (captions is None):
        raise ValueError(f"{lora}: give either the prompt it was trained with, or a file of captions")
    words = prompt if captions is None else read_captions(captions, [file.name for file in files])
    return Trained(load_lora(lora), read_images(files), words, Path(lora).name)


def read_list(file: str | Path) -> list[Trained]:
    """Read LoRAs with their images from JSON lines of ``{"lora": …, "images": …, "prompt": …}``.

    Instead of a prompt, ``"captions"`` names a file of captions. Paths are relative to the list's folder.

    Raises:
        ValueError: in one line, if the list or something it names cannot be used.
    """
    file = Path(file)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the list {file}: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            known = isinstance(entry, dict) and all(isinstance(value, str) for value in entry.values())
        except ValueError:
            known = False
        if not known or not {"lora", "images"} <= set(entry) <= {"lora", "images", "prompt", "captions"}:
            raise ValueError(
                f'{file}, line {number}: expected {{"lora": "…", "images": "…", "prompt": "…"}}, '
                f"found {line[:80]!r}"
            )
        places = {key: file.parent / value for key, value in entry.items() if key != "prompt"}
        try:
            found.append(read_trained(**places, prompt=entry.get("prompt")))
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {error}") from error
    if not found:
        raise ValueError(f"{file}: names no LoRA")
    return found


def opened(trained: Trained) -> Trained:
    """Return it with its images read, and as many captions. Raises ValueError, with its name, if not so."""
    try:
        images = read_images(trained.images)
        words = trained.prompt
        if not isinstance(words, str) and len(words) != len(images):
            raise ValueError(f"{len(words)} captions for {len(images)} images")
    except ValueError as error:
        raise ValueError(f"{trained.name}: {error}") from error
    return replace(trained, images=images)


def fingerprint(trained: Trained) -> str:
    """Return the SHA-256 of a LoRA's factors, its images (read) and its prompts."""
    digest = hashlib.sha256(repr(trained.prompt).encode())
    for image in trained.images:
        digest.update(image.tobytes())
    for layer in sorted(trained.lora):
        digest.update(layer.encode())
        for factor in trained.lora[layer]:
            digest.update(factor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
