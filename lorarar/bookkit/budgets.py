"""The table of what training and generating take at SDXL's size, as counted (`lorarar budget`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pandas.io.formats.style import Styler

from lorarar.bookkit.tables import table
from lorarar.records import recorded

CARDS = {"T4, 16 GB": 16e9, "24 GB": 24e9, "80 GB": 80e9}
"""Cards by their memory in bytes."""
SPARE = 0.1
"""The share of a card that is left for kernels and for what an allocator wastes."""

NAMES = {
    "LoRA": "training a LoRA",
    "ZipLoRA": "ZipLoRA",
    "ZipLoRA, dense": "ZipLoRA, as released",
    "hypernetwork": "LoRA.rar's network",
    "hypernetwork, dense": "LoRA.rar's network, as released",
    "inference step": "a picture, each step",
    "decoding": "a picture, at the end",
}


def smallest(needed: float) -> str:
    """Return the smallest card that holds so many bytes, with a tenth to spare."""
    return next((name for name, size in CARDS.items() if needed <= (1 - SPARE) * size), "more")


def rows(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the table's rows from the record's values."""
    found = []
    for name, (memory, operations) in values["of"].items():
        step, checkpointing = name.removesuffix(", checkpointing"), name.endswith(", checkpointing")
        if step not in NAMES:
            continue
        # At the end of a picture the UNet still lies beside the autoencoder.
        more = values["beside"] + (values["unet"] if step == "decoding" else 0)
        found.append(
            {
                "Step": NAMES[step],
                "Checkpointing": "yes" if checkpointing else "no",
                "Memory, GB": (memory + more) / 1e9,
                "TFLOP": operations / 1e12,
                "Fits": smallest(memory + more),
            }
        )
    return found


def budgets() -> Styler:
    """Return the table of the record ``budgets``."""
    return table(rows(recorded("budgets")), {"Memory, GB": ".1f", "TFLOP": ".1f"})


def rehearsal() -> Styler:
    """Return the table of the record ``rehearsal``: each command's seconds and peak memory."""
    found = [
        {"Command": stage["name"], "Seconds": stage["seconds"], "Memory, GB": stage["memory"] / 1e9}
        for stage in recorded("rehearsal")["stages"]
    ]
    return table(found, {"Seconds": ".0f", "Memory, GB": ".1f"})
