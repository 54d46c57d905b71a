"""What every training has: learning rate, optimiser, checkpoints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


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
    parameters: list[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    generator: torch.Generator,
) -> None:
    """Write a run's state aside and rename it, so that a kill at any moment leaves a whole checkpoint."""
    aside = Path(f"{file}.part")
    torch.save(
        {
            "settings": settings,
            "step": step,
            "parameters": [parameter.detach() for parameter in parameters],
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict(),
            "generator": generator.get_state(),
        },
        aside,
    )
    os.replace(aside, file)


def restore(
    file: str | Path,
    settings: dict[str, Any],
    parameters: list[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    generator: torch.Generator,
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
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    generator.set_state(state["generator"].cpu())
    return state["step"]
