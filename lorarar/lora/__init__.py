"""One adapter in memory: ``{layer: (up, down)}``, read from every dialect, written in two."""

from lorarar.lora.adapter import (
    LoRA,
    LoRAError,
    Outline,
    Pair,
    Source,
    block_of,
    delta_weight,
    describe,
    fitted,
    norm,
)
from lorarar.lora.read import Scaling, load_coefficients, load_lora
from lorarar.lora.write import FORMATS, save_coefficients, save_lora

__all__ = [
    "FORMATS",
    "LoRA",
    "LoRAError",
    "Outline",
    "Pair",
    "Scaling",
    "Source",
    "block_of",
    "delta_weight",
    "describe",
    "fitted",
    "load_coefficients",
    "load_lora",
    "norm",
    "save_coefficients",
    "save_lora",
]
