"""What every training has: the loop itself, the learning rate, the optimiser, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from lorarar.atomic import atomic


class Stateful(Protocol):
    """What can say its state and take it up again, such as an optimiser."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state."""


def learning_rate_factor(step: int, steps: int, warmup: int, decay: float) -> float:
    """Return the learning rate's factor: up over ``warmup`` steps, down over the last ``decay`` of them."""
    up = min(1.0, (step + 1) / warmup) if warmup else 1.0
    down = min(1.0, (steps - step) / (decay * steps)) if decay else 1.0
    return up * down


def make_optimizer(
    name: str, parameters: list[torch.nn.Parameter], learning_rate: float
) -> torch.optim.Optimizer:
    """Return AdamW, with its state in 8 bits if asked, at the usual DreamBooth weight decay of 0.01."""
    if name == "adamw":
        fused = parameters[0].device.type in ("cpu", "cuda")  # one kernel for hundreds of small matrices
        return torch.optim.AdamW(parameters, learning_rate, weight_decay=0.01, fused=fused)
    if name == "adamw8bit":
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError as error:
            raise ValueError(
                "8-bit AdamW needs the bitsandbytes package: pip install bitsandbytes"
            ) from error
        return AdamW8bit(parameters, learning_rate, weight_decay=0.01)
    raise ValueError(f"unknown optimizer {name!r}: choose adamw or adamw8bit")


def keep(
    file: str | Path,
    settings: dict[str, Any],
    step: int,
    parameters: Sequence[Tensor],
    generator: torch.Generator,
    **parts: Stateful,
) -> None:
    """Write a run's state aside and rename it, so that a kill at any moment leaves a whole checkpoint."""
    state = {
        "settings": settings,
        "step": step,
        "parameters": [parameter.detach() for parameter in parameters],
        "generator": generator.get_state(),
        **{name: part.state_dict() for name, part in parts.items()},
    }
    with atomic(file) as aside:
        torch.save(state, aside)


def restore(
    file: str | Path,
    settings: dict[str, Any],
    parameters: Sequence[Tensor],
    generator: torch.Generator,
    **parts: Stateful,
) -> int:
    """Take up a run's state and return its steps so far. Raises ValueError if the file is another run's."""
    try:
        state = torch.load(file, map_location=parameters[0].device, weights_only=True)
        other = [name for name in settings if state["settings"].get(name) != settings[name]]
    except Exception as error:  # a torn or foreign file fails in torch, zipfile or pickle
        raise ValueError(
            f"{file} is not a checkpoint of this training: remove it or do not resume"
        ) from error
    if other:
        raise ValueError(
            f"{file} is the checkpoint of a run with other {', '.join(other)}: remove it or do not resume"
        )
    with torch.no_grad():
        for parameter, value in zip(parameters, state["parameters"], strict=True):
            parameter.copy_(value)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    generator.set_state(state["generator"].cpu())
    return state["step"]


@dataclass
class Checkpoint:
    """A file in which a run's state is kept, so that it can be killed at any time and go on.

    Args:
        file: written aside and renamed. None keeps nothing.
        every: steps between two writes.
        resume: go on from the file, if there is one; the result is that of an uninterrupted run.
        seconds: between two writes, in place of steps.
        stays: also written after the last step, so that a run that has ended is read and not repeated.

    Raises:
        ValueError: ``every`` is below 1, or the file's folder does not exist.
    """

    file: Path | None = None
    every: int = 100
    resume: bool = False
    seconds: float | None = None
    stays: bool = False

    def __post_init__(self) -> None:
        self._written = time.monotonic()
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"checkpoint_every must be a whole number of at least 1, not {self.every}")
        if self.file is not None and not self.file.parent.is_dir():
            raise ValueError(f"{self.file}: its folder does not exist; make it first")

    @classmethod
    def at(cls, file: str | Path | None, every: int, resume: bool) -> Checkpoint:
        """Return the checkpoint of a run, its file named by a path or a string."""
        return cls(None if file is None else Path(file), every, resume)

    def start(self, settings: dict[str, Any], state: dict[str, Any]) -> int:
        """Take up the kept state, if that is asked and there is one; return the number of steps done."""
        if self.resume and self.file is not None and self.file.exists():
            return restore(self.file, settings, **state)
        return 0

    def step(self, done: int, steps: int, settings: dict[str, Any], state: dict[str, Any]) -> None:
        """Keep the state when it is time; after the last step there may be nothing to go on with."""
        if self.seconds is None:
            due = done % self.every == 0
        else:
            due = time.monotonic() - self._written >= self.seconds
        if self.file is not None and (due if done < steps else self.stays):
            keep(self.file, settings, done, **state)
            self._written = time.monotonic()

    def remove(self) -> None:
        """Remove the file of a run that has ended."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)


@dataclass
class Run:
    """A training: what moves, by which rule, and what decides where it goes.

    Args:
        loss: called with the number of the step, from 0; returns the loss, a scalar, and the terms to report.
        parameters: that the optimiser moves.
        optimiser: of them.
        steps: in all.
        settings: what decides where the run goes: a checkpoint belongs to one setting of it.
        generator: of what is drawn in the loss; its state is kept.
        half: whether gradients are scaled, as float16 needs it.
        clip: the largest norm of all gradients together; 0 leaves them as they are.
        rate: the factor of the learning rate at a step.
        kept: tensors that are kept and restored with the parameters.
        parts: whatever else has a state that is kept, by name.
        after: called when the parameters have moved, before the state is kept.
        checkpoint: where the state is kept.
    """

    loss: Callable[[int], tuple[Tensor, Sequence[Tensor]]]
    parameters: list[torch.nn.Parameter] | list[Tensor]
    optimiser: torch.optim.Optimizer
    steps: int
    settings: dict[str, Any]
    generator: torch.Generator = field(default_factory=torch.Generator)
    half: bool = False
    clip: float = 0.0
    rate: Callable[[int], float] | None = None
    kept: Sequence[Tensor] = ()
    parts: Mapping[str, Stateful] = field(default_factory=dict)
    after: Callable[[], None] | None = None
    checkpoint: Checkpoint = field(default_factory=Checkpoint)

    def go(
        self,
        name: str,
        terms: Sequence[str],
        progress: bool = True,
        callback: Callable[[int, tuple[float, ...]], None] | None = None,
    ) -> None:
        """Take all steps, or those that an interrupted run has left.

        Args:
            name: of the bar.
            terms: names of what the loss reports, for the bar.
            progress: show a bar.
            callback: called after each step with its number, from 1, and the terms.
        """
        device = self.parameters[0].device.type
        scaler = torch.amp.GradScaler(device, enabled=self.half)
        state = {
            "parameters": [*self.parameters, *self.kept],
            "generator": self.generator,
            "optimizer": self.optimiser,
            "scaler": scaler,
            **self.parts,
        }
        highest = [group["lr"] for group in self.optimiser.param_groups]
        start = self.checkpoint.start(self.settings, state)
        with tqdm(initial=start, total=self.steps, desc=name, unit="step", disable=not progress) as bar:
            for step in range(start, self.steps):
                for group, lr in zip(self.optimiser.param_groups, highest, strict=True):
                    group["lr"] = lr * (self.rate(step) if self.rate else 1.0)
                loss, values = self.loss(step)
                scaler.scale(loss).backward()
                if self.clip:
                    scaler.unscale_(self.optimiser)
                    torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
                scaler.step(self.optimiser)
                scaler.update()
                self.optimiser.zero_grad()
                if self.after:
                    self.after()
                bar.update()
                if callback or step % 10 == 9:  # reading the loss waits for the GPU, so not every step
                    read = tuple(value.item() for value in values)
                    shown = {term: f"{value:.4f}" for term, value in zip(terms, read, strict=True)}
                    bar.set_postfix(shown, refresh=False)
                self.checkpoint.step(step + 1, self.steps, self.settings, state)
                if callback:
                    callback(step + 1, read)
