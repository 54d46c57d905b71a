"""The formats a file can be written in, and who reads them.

Tried with the loading code of each client: ComfyUI's ``comfy/lora.py``, A1111's ``extensions-builtin/Lora``,
Forge's ``packages_3rdparty``, InvokeAI's and sd-scripts' loaders, diffusers' ``lora_conversion_utils``.
"""

from lorarar.lora.adapter import LoRA
from lorarar.lora.base import FLUX, GUESS, KOALA, SD3, UNKNOWN_UNET

FORMATS = ("diffusers", "kohya", "old-diffusers")
_CLIENTS = ("ComfyUI", "A1111", "Forge", "InvokeAI", "diffusers")


def own_format(*loras: LoRA) -> str:
    """The format of the dialect that all adapters came in; diffusers, where they came in several.

    kohya's names of a UNet depend on the base model: they are not the default where that is not known.
    """
    dialects = [dialect for lora in loras for dialect in lora.dialect.split(", ")]
    if all(dialect.endswith("(doubled prefix)") for dialect in dialects):
        return "old-diffusers"
    guessed = all(lora.base == UNKNOWN_UNET or lora.base.endswith(GUESS) for lora in loras)
    guessed = guessed and any(_is_of_unet(lora) for lora in loras)
    flat = all(dialect.startswith(("kohya", "ComfyUI", "LoHa", "LoKr")) for dialect in dialects)
    return "kohya" if flat and not guessed else "diffusers"


def comfyui_format(lora: LoRA) -> str:
    """The format in which ComfyUI finds every layer."""
    return "kohya" if lora.model or _is_of_unet(lora) else "diffusers"


def readers(lora: LoRA, format: str) -> tuple[str, ...]:
    """Which of the usual clients read a LoRA that is written in a format."""
    base = lora.base.removesuffix(GUESS)
    if format == "old-diffusers":
        return ()
    if format == "diffusers" and (_is_of_unet(lora) or "unknown" in base):
        return ("diffusers",)
    if format == "kohya" and base.startswith("SD") and base != SD3:
        return _CLIENTS
    if base == FLUX:
        return tuple(client for client in _CLIENTS if client != "A1111")
    return ("ComfyUI", "diffusers") if base in (KOALA, SD3) or format == "diffusers" else ("ComfyUI",)


def who_reads(lora: LoRA, format: str) -> str:
    """One line on who reads the file, where some of the usual clients do not; else nothing."""
    can = readers(lora, format)
    if not can:
        return "read by the scripts of ZipLoRA, K-LoRA and LoRA.rar; diffusers reads --format diffusers"
    if can == ("diffusers",) and _is_of_unet(lora):
        return "read by diffusers; ComfyUI, A1111 and Forge read --format kohya"
    return "" if can == _CLIENTS else f"read by {' and '.join(', '.join(can).rsplit(', ', 1))}"


def _is_of_unet(lora: LoRA) -> bool:
    return not any(layer.startswith("transformer.") for layer in lora)
