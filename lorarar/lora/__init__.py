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
from lorarar.lora.base import is_vague
from lorarar.lora.config import Scaling
from lorarar.lora.files import instead_of
from lorarar.lora.formats import FORMATS, comfyui_format, own_format, readers, who_reads
from lorarar.lora.fused import joined, split
from lorarar.lora.lycoris import kernel_of
from lorarar.lora.metadata import inherited
from lorarar.lora.read import load_coefficients, load_lora
from lorarar.lora.report import report
from lorarar.lora.spellings import parts_of
from lorarar.lora.write import save_coefficients, save_lora, state_dict

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
    "comfyui_format",
    "delta_weight",
    "describe",
    "fitted",
    "inherited",
    "instead_of",
    "is_vague",
    "joined",
    "kernel_of",
    "load_coefficients",
    "load_lora",
    "norm",
    "own_format",
    "parts_of",
    "readers",
    "report",
    "save_coefficients",
    "save_lora",
    "split",
    "state_dict",
    "who_reads",
]
