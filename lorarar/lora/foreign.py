"""Files that are no LoRA, told by their keys: what each is, and what can be done with it."""

import re
from collections.abc import Iterable
from pathlib import Path

from lorarar.lora.adapter import LoRAError, printable

_EXTRACT = "retrain it as LoRA, or extract a LoRA from the base model with it and without"

FOREIGN = (  # in a key → what it is
    (r"dora_scale|lora_magnitude_vector", f"is a DoRA, which no sum of LoRAs equals; {_EXTRACT}"),
    (
        r"^(unet|text_encoder(_2)?):\d+:(up|down)$",
        "numbers its layers as the first trainer (cloneofsimo's lora) did, in the order of the modules it "
        "had then, and their names are in no file; load it into its base with lora_diffusion and extract a "
        "LoRA from that",
    ),
    (
        r"^bundle_emb\.|string_to_param|^emb_params$|^(clip_[lg]|t5xxl)$|^<.*>$",
        "is a word's embedding (textual inversion), which belongs to a vocabulary and has no place in a "
        "merged LoRA; have the trainer save LoRA and embedding as two files, and use that beside the merge",
    ),
    (
        r"^(oft_unet|oft_te)|\.b?oft_(blocks|diag|r|s)\b",
        f"is an OFT, which turns weights; {_EXTRACT}",
    ),
    (r"\.on_input$|\.ia3_l\b", f"is an (IA)³ adapter, which scales activations; {_EXTRACT}"),
    (r"\.[ab][12]\.weight$", f"is a GLoRA, whose update depends on the base's weights; {_EXTRACT}"),
    (r"vera_(lambda_[bd]|[AB])\b", f"is a VeRA, whose matrices are random and in no file; {_EXTRACT}"),
    (r"^(image_proj|ip_adapter)\.", "is an IP-Adapter, not a LoRA; use it beside the merged file"),
    (
        r"^lllite_|^control_model\.|^lora_controlnet$",
        "is a ControlNet, not a LoRA; use it beside the merge",
    ),
    (r"^inputs\.\d+\.weight$", "is a layer of a hypernetwork; give the file to --hypernetwork"),
    (r"\.(content|style)$", "is a vector of merging coefficients; give the file to --coefficients"),
    (r"_norm\.scale$", "is a norm beside a LoRA (as BFL's control LoRAs have), which a merge cannot hold"),
    (
        r"^(?!.*(lora|hada|lokr|processor)).*\.(weight|bias|scale)$",
        "is a layer of a whole model, not of a LoRA; extract a LoRA from it and its base model",
    ),
)

_USUAL = (
    *(".lora_up.weight", ".lora_down.weight", ".alpha", ".lora_A.weight", ".lora_B.weight"),
    *(".lora.up.weight", ".lora.down.weight", "_lora.up.weight", "_lora.down.weight"),
)  # no key with such an end is in the table, and most files have no other


def refuse_foreign(path: Path, keys: Iterable[str]) -> None:
    """Refuse what is no LoRA by the first row of the table that any key is in.

    Raises:
        LoRAError: what it is, and what to do.
    """
    text = "\n".join(key for key in keys if not key.endswith(_USUAL))
    for pattern, what in FOREIGN:
        if match := re.search(pattern, text, re.MULTILINE):
            start = text.rfind("\n", 0, match.start() + 1) + 1
            key = text[start:].partition("\n")[0]
            raise LoRAError(f"{path}: {printable(key)} {what}")
