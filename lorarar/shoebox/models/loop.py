"""The training loop of all miniatures, their recipes, and the card that is written beside each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from lorarar.atomic import atomic
from lorarar.shoebox.world import world
from lorarar.stamp import machine
from lorarar.train.loop import Checkpoint, Run, learning_rate_factor

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

GROUPS = 12_000
"""Groups of drawings (six images each) that the miniatures are trained on."""
HELD_OUT = 200
"""Groups of drawings, from the next seed, that measurements are made on."""


@dataclass(frozen=True)
class Recipe:
    """How long and how fast a miniature is trained.

    The learning rate rises over `warmup` steps, stays, and falls to zero over the last `decay` (a share).
    """

    steps: int
    batch: int
    learning_rate: float
    warmup: int = 100
    decay: float = 0.3
    ema: float = 0.998
    weight_decay: float = 0.01


RECIPES: dict[str, Recipe] = {
    "clip": Recipe(1_500, 128, 1e-3, decay=0.5),
    "vae": Recipe(9_000, 8, 2e-3, decay=0.5, weight_decay=1e-4),
    "base": Recipe(17_300, 32, 1e-3),
    "critic": Recipe(3_000, 96, 1e-3, decay=0.5),
    "namer": Recipe(4_300, 64, 1e-3, decay=0.6),
    "judge": Recipe(10_400, 48, 1e-3, decay=0.5),
    "words": Recipe(200, 24, 1e-3, warmup=20, decay=0.5),
    "dino": Recipe(2_000, 48, 1e-3, weight_decay=0.04),
}


def has_bfloat16(device: str) -> bool:
    """Tell whether `device` multiplies bfloat16 faster than float32."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.device(device).type == "cpu" and bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file aside, then put it in place at once: a kill leaves the old file or the new."""
    with atomic(path) as aside:
        write(aside)


class Clock:
    """Seconds since it was made, and before: its state is taken up by a resumed run."""

    def __init__(self) -> None:
        self.load_state_dict({"seconds": 0.0})

    @property
    def seconds(self) -> float:
        """So far."""
        return self._before + time.monotonic() - self._began

    def state_dict(self) -> dict[str, float]:
        """Return the seconds so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from these seconds."""
        self._before, self._began = state["seconds"], time.monotonic()


def fit(
    name: str,
    model: nn.Module,
    loss: Callable[[Tensor, int], Mapping[str, Tensor]],
    items: int,
    recipe: Recipe,
    *,
    run: Path,
    seed: int = 0,
    device: str = "cpu",
    group: int = 1,
    half: bool = False,
    save_every: float = 60,
) -> dict[str, object]:
    """Train `model` in place on a loss over random items, and leave the averaged (EMA) weights in it.

    loss(indices (batch,), step) gives named terms; "loss" is what is minimised. `items` are drawn in runs of
    `group` neighbours. half: the loss may be computed in bfloat16 where that is fast; weights stay float32.
    All randomness at a step follows from (seed, step), so that a run that was killed and resumed ends in the
    same weights. State lies in `run`/NAME.pt, written every `save_every` seconds. Returns steps, seconds over
    all resumptions, and precision. `ValueError` where the state is of another run.
    """
    from diffusers.training_utils import EMAModel

    run.mkdir(parents=True, exist_ok=True)
    log_file = run / f"{name}.jsonl"
    half = half and has_bfloat16(device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay, fused=True
    )
    average = EMAModel(parameters, decay=recipe.ema, use_ema_warmup=True, power=0.75)
    average.to(device)
    clock, logged = Clock(), Clock()
    terms: dict[str, Tensor] = {}
    window: dict[str, float] = {}

    def drawn(step: int) -> tuple[Tensor, tuple[Tensor]]:
        numbers = np.random.default_rng([seed, step])
        torch.manual_seed(int(numbers.integers(2**62)))
        starts = numbers.integers(items // group, size=recipe.batch // group)
        indices = torch.from_numpy((starts[:, None] * group + np.arange(group)).ravel())
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
            terms.update(loss(indices, step))
        return terms["loss"], (terms["loss"].detach(),)

    def after() -> None:
        average.step(parameters)
        for key, value in terms.items():
            window[key] = 0.98 * window.get(key, value.item()) + 0.02 * value.item()
        if logged.seconds > 10:
            logged.load_state_dict({"seconds": 0.0})
            with log_file.open("a") as log:
                facts = {"step": average.optimization_step, "spent": round(clock.seconds, 1), **window}
                log.write(json.dumps(facts) + "\n")

    model.train()
    Run(
        drawn,
        parameters,
        optimiser,
        recipe.steps,
        {"seed": seed, **asdict(recipe)},
        clip=1.0,
        rate=lambda step: learning_rate_factor(step, recipe.steps, recipe.warmup, recipe.decay),
        parts={"average": average, "clock": clock},
        after=after,
        checkpoint=Checkpoint(run / f"{name}.pt", resume=True, seconds=save_every, stays=True),
    ).go(name, ("loss",))
    average.copy_to(parameters)
    model.eval()
    precision = "bfloat16 and float32" if half else "float32"
    return {"steps": recipe.steps, "seconds": round(clock.seconds, 1), "precision": precision}


def command(step: str, recipe: Recipe, seed: int, init: Path | None = None) -> str:
    """Give the command that trains a miniature this way."""
    began = "" if init is None else f" --init {init}"
    return f"lorarar shoebox {step} --steps {recipe.steps} --seed {seed}{began}"


def card(folder: Path, title: str, command: str, facts: dict) -> None:
    """Write the model card README.md and card.json into `folder`: how it was made and what it measures."""
    facts = {"command": command, "world": world.VERSION, "machine": machine()} | facts
    (folder / "card.json").write_text(json.dumps(facts, indent=1) + "\n")
    rows = "\n".join(
        f"| {k} | {json.dumps(v) if isinstance(v, dict | list) else v} |" for k, v in facts.items()
    )
    (folder / "README.md").write_text(
        f"# {title}\n\nTrained on drawings by lorarar; no outside data or weights.\n\n"
        f"| | |\n| --- | --- |\n{rows}\n"
    )


def to_unit(images: np.ndarray) -> Tensor:
    """Bring images (n, h, w, 3) uint8 to (n, 3, h, w) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_bytes(images: Tensor) -> np.ndarray:
    """Bring images (n, 3, h, w) in [-1, 1] back to (n, h, w, 3) uint8."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def tokens(words: CLIPTokenizer, captions: list[list[str]]) -> Tensor:
    """Tokenise n lists of k captions each: (n, k, TOKENS) int64."""
    flat = [caption for several in captions for caption in several]
    ids = words(flat, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return ids.view(len(captions), -1, ids.shape[-1])
