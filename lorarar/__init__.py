"""lorarar: merge a subject LoRA and a style LoRA, exactly and fast.

The public names are loaded on first use, so that ``import lorarar`` and ``lorarar --help`` stay quick.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "LoRA": "lora",
    "load_lora": "lora",
    "save_lora": "lora",
    "merge": "merging",  # no package may be called merge: it would hide the function
    "Hypernetwork": "hypernet",
}

__all__ = ["Hypernetwork", "LoRA", "__version__", "load_lora", "merge", "save_lora"]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import the module that holds a public name when the name is first asked for (PEP 562)."""
    if name in _HOME:
        value = getattr(import_module(f"lorarar.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'lorarar' has no attribute {name!r}")
