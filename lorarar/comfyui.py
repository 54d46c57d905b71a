"""A node for ComfyUI: two LoRA files, a method and weights in, MODEL and CLIP with their merge out.

Install the package into the Python that runs ComfyUI and link this one file into its folder of nodes::

    cd ComfyUI/custom_nodes
    ln -s "$(python -c 'import lorarar.comfyui as node; print(node.__file__)')" lorarar.py

The node stands beside ``LoraLoader`` under *loaders*. It merges in memory what ``lorarar merge`` would write
and hands it over as ``LoraLoader`` hands over a file, so the layers that are not the model's are named in
ComfyUI's log. Hypernetworks and coefficients are looked for in ``models/lorarar``.
"""

from pathlib import Path
from typing import Any

FOLDER = "lorarar"
NONE = "none"


class MergeLoRAs:
    """Merge a content (subject) LoRA and a style LoRA and apply the result (ComfyUI's node, version 1)."""

    RETURN_TYPES = ("MODEL", "CLIP")
    FUNCTION = "merge"
    CATEGORY = "loaders"
    DESCRIPTION = "Merges a subject LoRA and a style LoRA exactly, and applies the result."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the node takes, as ComfyUI asks for it."""
        import folder_paths

        from lorarar.merging import METHODS

        folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
        loras, networks = (folder_paths.get_filename_list(folder) for folder in ("loras", FOLDER))
        weight = ("FLOAT", {"default": 1.0, "min": -10.0, "max": 10.0, "step": 0.05})
        return {
            "required": {
                "model": ("MODEL",),
                "content": (loras, {"tooltip": "the subject's LoRA"}),
                "style": (loras, {"tooltip": "the style's LoRA"}),
                "method": (list(METHODS), {"tooltip": "how the two are merged; direct is their sum"}),
                "content_weight": weight,
                "style_weight": weight,
            },
            "optional": {
                "clip": ("CLIP",),
                "hypernetwork": (
                    [NONE, *networks],
                    {"tooltip": "method lorarar: the trained network, from models/lorarar"},
                ),
                "coefficients": (
                    [NONE, *networks],
                    {"tooltip": "ziplora: optimised for this pair; table: stored means; from models/lorarar"},
                ),
            },
        }

    def merge(
        self,
        model: Any,  # noqa: ANN401 - ComfyUI's ModelPatcher
        content: str,
        style: str,
        method: str,
        content_weight: float,
        style_weight: float,
        clip: Any = None,  # noqa: ANN401 - ComfyUI's CLIP
        hypernetwork: str = NONE,
        coefficients: str = NONE,
    ) -> tuple[Any, Any]:
        """Return ``model`` and ``clip`` with the merged LoRA on them, as ``LoraLoader`` would.

        Raises:
            LoRAError: a file that cannot be read, or two that do not fit; ComfyUI shows it at the node.
        """
        import comfy.sd
        import folder_paths

        from lorarar.lora import comfyui_format, load_coefficients, load_lora, state_dict
        from lorarar.merging import merge

        sides = [load_lora(folder_paths.get_full_path_or_raise("loras", name)) for name in (content, style)]
        options: dict[str, Any] = {}
        if method == "lorarar" and hypernetwork != NONE:
            from lorarar.hypernet import load_network

            network = load_network(folder_paths.get_full_path_or_raise(FOLDER, hypernetwork))
            options = {"hypernetwork": network, **network.merge_options}
        if method in ("ziplora", "table") and coefficients != NONE:
            gates = load_coefficients(folder_paths.get_full_path_or_raise(FOLDER, coefficients))
            options = {"coefficients": gates}
        merged = merge(*sides, method, content_weight=content_weight, style_weight=style_weight, **options)
        tensors = state_dict(merged, comfyui_format(merged))
        return comfy.sd.load_lora_for_models(model, clip, tensors, 1.0, 1.0)


NODE_CLASS_MAPPINGS = {"LorarMergeLoRAs": MergeLoRAs}
NODE_DISPLAY_NAME_MAPPINGS = {"LorarMergeLoRAs": "Merge two LoRAs (lorarar)"}
