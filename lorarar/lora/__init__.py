"""One adapter in memory: ``{layer: (up, down)}``, read from every dialect, written in the clients' own.

A key is a prefix, a layer's name and a part (`spellings` has the tables; W is the update):

==================================================  =======================================  ==============
prefix and name                                     parts                                    alpha
==================================================  =======================================  ==============
``unet.`` ``transformer.`` ``text_encoder.``, none  ``lora_A`` ``lora_B``, ``lora.down`` …   header, else r
``base_model.model.`` (peft)                        ``lora_A`` ``lora_B``                    config, else ?
``lora_unet_`` ``lora_te1_`` … (kohya, OneTrainer)  ``lora_down`` ``lora_mid`` ``lora_up``   tensor, else r
``lycoris_`` (SimpleTuner)                          ``hada_…`` ``lokr_…``, as kohya's        tensor, else r
``diffusion_model.`` ``text_encoders.`` (ComfyUI)   as diffusers' or kohya's                 tensor, else r
``clip_l.`` ``clip_g.`` ``t5.`` (OneTrainer)        as kohya's                               tensor, else r
``double_blocks.N.processor.qkv_lora1`` (XLabs)     ``down`` ``up``                          none: r
==================================================  =======================================  ==============

W = alpha / r · up·down, r the rank; "?" is read as r with a `LoRAWarning`, since the config may say another.
"""

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
