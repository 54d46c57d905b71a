"""One adapter in memory: ``{layer: (up, down)}``, read from every dialect, written in two."""

from lorarar.lora.adapter import (
    LoRA,
    LoRAError,
    LoRAWarning,
    Outline,
    Pair,
    Source,
    block_of,
    delta_weight,
    describe,
    fitted,
    norm,
)
from lorarar.lora.config import Scaling
from lorarar.lora.fused import joined, split
from lorarar.lora.lycoris import kernel_of
from lorarar.lora.names import is_vague
from lorarar.lora.read import load_coefficients, load_lora
from lorarar.lora.spellings import parts_of
from lorarar.lora.write import FORMATS, save_coefficients, save_lora

__all__ = [
    "FORMATS",
    "LoRA",
    "LoRAError",
    "LoRAWarning",
    "Outline",
    "Pair",
    "Scaling",
    "Source",
    "block_of",
    "delta_weight",
    "describe",
    "fitted",
    "is_vague",
    "joined",
    "kernel_of",
    "load_coefficients",
    "load_lora",
    "norm",
    "parts_of",
    "save_coefficients",
    "save_lora",
    "split",
]
