"""Training another backbone in miniature, taught by the shoebox's base.

The loss is KOALA's (Lee et al. 2024, arXiv 2312.04005), a sum of three squared errors: of the answer against
the drawing's velocity, of the answer against the teacher's, and of features against the teacher's. The
features are what each self-attention answers, for the paper finds that these teach the most, and where
a stage has no attention, what leaves the stage. Their errors are shares of the teacher's mean square, since
what the miniature's layers answer differs in size a hundredfold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from lorarar.pipelines import load_pipeline
from lorarar.scales import SCALES
from lorarar.shoebox.models import architectures, sharpness
from lorarar.shoebox.models.backbones import TITLES, begun
from lorarar.shoebox.models.loop import GROUPS, Recipe, card, fit
from lorarar.shoebox.models.train import anywhere, coded, timesteps
from lorarar.shoebox.world import world
from lorarar.stamp import machine

RECIPE = Recipe(600, 8, 5e-4, warmup=30, decay=0.7, ema=0.99)
SHOWN = 6
"""Pictures in a row of the sheet."""
Features = dict[str, Tensor]


def compared(teacher: nn.Module, student: nn.Module) -> list[str]:
    """Name the modules whose answers are compared: self-attention that both have, ends of plain stages.

    A stage is plain if neither has attention in it; it ends with its last residual block.
    """
    both = [name for name, _ in teacher.named_modules() if name in dict(student.named_modules())]
    ends = {}
    for name in both:
        stage, _, rest = name.partition(".resnets.")
        if rest.isdigit() and not any(
            f"{stage}.attentions" in dict(one.named_modules()) for one in (teacher, student)
        ):
            ends[stage] = name
    return [name for name in both if name.endswith(".attn1")] + list(ends.values())


@contextmanager
def watched(network: nn.Module, names: Iterable[str]) -> Iterator[Features]:
    """Keep what the modules of those names answer last, while the block runs: yields {name: answer}."""
    seen: Features = {}
    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda _module, _given, answer, name=name: seen.__setitem__(name, answer)
        )
        for name in names
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def distillation(
    answer: Tensor, velocity: Tensor, told: Tensor, shown: Mapping[str, Tensor], seen: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the loss and its three terms: two mean squared errors, and the mean share of the features'.

    Args:
        answer: the student's, (n, c, h, w).
        velocity: of the drawings, in the same shape.
        told: the teacher's answer.
        shown: the student's features.
        seen: the teacher's, under the same names.
    """
    terms = {
        "task": F.mse_loss(answer, velocity),
        "output": F.mse_loss(answer, told),
        "features": torch.stack(
            [
                (shown[name] - one).float().square().mean() / one.float().square().mean()
                for name, one in seen.items()
            ]
        ).mean(),
    }
    return {"loss": sum(terms.values()), **terms}


def train_backbone(
    kind: str,
    home: Path,
    out: Path,
    run: Path,
    recipe: Recipe = RECIPE,
    seed: int = 0,
    device: str = "cpu",
    groups: int = GROUPS,
) -> dict:
    """Train a backbone (`backbones.KINDS`) as a student of the base in `home`/base; write it to `out`.

    One caption in ten is dropped, for guidance: SDXL has zeros for no words, SD 1.5 the empty prompt. SD
    1.5's text encoder learns too, KOALA's are the base's. The state of the training lies in `run`.
    """
    pipe = load_pipeline(home / "base", device)
    torch.manual_seed(seed)
    made = begun(kind, pipe)
    teacher, student = pipe.unet.requires_grad_(False).eval(), made.unet.to(device)
    own = made.text_encoder.to(device) if isinstance(made, StableDiffusionPipeline) else None
    latents, ids = coded(pipe.vae, home / "base" / "vae", pipe.tokenizer, run, seed, device, groups)
    empty = torch.tensor(pipe.tokenizer("", padding="max_length").input_ids, device=device)
    names = compared(teacher, student)
    if device == "cpu":
        for network in (teacher, student):
            network.set_attn_processor(AttnProcessor())  # trains faster than SDPA there
    schedule = architectures.scheduler()

    def loss(indices: Tensor, step: int) -> dict[str, Tensor]:
        clean = latents[indices].float().to(device)
        text = ids[indices, torch.randint(2, (len(indices),))].to(device)
        keep = torch.rand(len(indices), device=device) > 0.1
        noise, t = torch.randn_like(clean), timesteps(len(indices), device)
        noisy = schedule.add_noise(clean, noise, t)
        with torch.no_grad():
            one = pipe.text_encoder(text, output_hidden_states=True).hidden_states[-2]
            two = pipe.text_encoder_2(text, output_hidden_states=True)
            hidden = torch.cat([one, two.hidden_states[-2]], -1) * keep.view(-1, 1, 1)
            added = {
                "text_embeds": two.text_embeds * keep[:, None],
                "time_ids": architectures.time_ids(len(text), device),
            }
            with watched(teacher, names) as seen:
                told = teacher(noisy, t, hidden, added_cond_kwargs=added).sample.float()
        if own is not None:
            hidden, added = own(torch.where(keep[:, None], text, empty))[0], None
        with watched(student, names) as shown:
            answer = student(noisy, t, hidden, added_cond_kwargs=added).sample.float()
        return distillation(answer, schedule.get_velocity(clean, noise, t), told, shown, seen)

    learns = nn.ModuleList([student] if own is None else [student, own])
    where = {"run": run, "seed": seed, "device": device, "half": True}
    spent = fit(f"backbone-{kind}", learns, loss, len(latents), recipe, **where)
    student.set_default_attn_processor()
    for part in made.components.values():
        if isinstance(part, nn.Module):
            part.to("cpu").half()
    made.save_pretrained(out)
    anywhere(out)
    facts = {
        "seed": seed,
        "recipe": asdict(recipe),
        **spent,
        "UNet parameters": sum(p.numel() for p in student.parameters()),
        "the base's": sum(p.numel() for p in teacher.parameters()),
    }
    said = f"lorarar shoebox backbone --kind {kind} --out {out} --steps {recipe.steps} --seed {seed}"
    card(out, TITLES[kind], said + ("" if groups == GROUPS else f" --groups {groups}"), facts)
    return facts


def examined(
    folder: Path, home: Path, run: Path, count: int, seed: int = 0, device: str | None = None
) -> tuple[dict, np.ndarray]:
    """Measure a pipeline's pictures (`lorarar.shoebox.models.sharpness`); return that and the first `SHOWN`.

    home: where the critic is. The pictures' latents lie in `run`, so that a stopped measurement goes on.
    """
    found = sharpness.measure(folder, home / "critic", run, count, seed=seed, device=device)
    pipe = load_pipeline(folder, device)
    kept = run / f"sharpness-{sharpness.weights_hash(folder)}-{seed}-{found['steps']}-{found['guidance']:g}"
    scale = SCALES["shoebox"]
    asked = {"seed": seed, "steps": scale.inference_steps, "guidance": scale.guidance}
    codes = sharpness.latents(pipe, SHOWN, kept, **asked)[0]
    about = {key: found[key] for key in ("seconds an image", "processor seconds an image")}
    return about | found["generated"], sharpness.decode(pipe.vae, codes)


def beside(
    folders: Mapping[str, Path], home: Path, run: Path, count: int, seed: int = 0, device: str | None = None
) -> tuple[dict, np.ndarray]:
    """Measure several pipelines on the same prompts and noise, and show the first pictures of each in a row.

    Returns:
        What is recorded, and the sheet (rows · 64, `SHOWN` · 64, 3) uint8.
    """
    rows, shown = {}, []
    for name, folder in folders.items():
        rows[name], pictures = examined(folder, home, run, count, seed, device)
        shown.append(pictures)
    values = {
        "images": count,
        "prompts": [world.prompt(*cell) for cell in sharpness.cells(SHOWN)],
        "machine": machine(),
        "of": rows,
    }
    return values, np.concatenate([np.concatenate(list(row), 1) for row in shown])
