"""The parts of attention, and which layers of a LoRA they are."""

import re
from collections.abc import Iterable

from lorarar.lora import LoRAError

PARTS = {"query": "to_q", "key": "to_k", "value": "to_v", "output": "to_out.0"}
"""The parts of attention, self and cross alike, and the modules that hold them."""

_ATTENTION = re.compile(r"unet\..+\.attn[12]\.(to_q|to_k|to_v|to_out\.0)")


def layers_of(lora: Iterable[str], parts: Iterable[str]) -> list[str]:
    """The layers of the UNet's attention that are one of ``parts``, in order.

    Raises:
        LoRAError: ``parts`` is empty or names something else than query, key, value, output.
    """
    parts = list(parts)
    if not parts or not set(parts) <= set(PARTS):
        given = ", ".join(map(str, parts)) or "(none)"
        raise LoRAError(f"parts {given}: expected some of {', '.join(PARTS)}")
    modules = {PARTS[part] for part in parts}
    return [layer for layer in lora if (m := _ATTENTION.fullmatch(layer)) and m[1] in modules]
