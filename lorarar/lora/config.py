"""What a peft config says of an adapter: its scale layer by layer, and that it updates its base."""

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lorarar.lora.adapter import LoRA, LoRAError

Scaling = Callable[[str, int | None], tuple[float, float]]
"""The module's name in its model and the layer's rank → alpha and scale."""

# Starts that take B₀A₀ (or what quantising lost) out of the base's weights: B·A is no update of it.
_STARTS = {"pissa": "PiSSA", "olora": "OLoRA", "corda": "CorDA", "lora_ga": "LoRA-GA", "loftq": "LoftQ"}
_SECONDS = 2.0  # for all of a file's patterns; a stranger's expression may take for ever


def configs_of(path: Path, metadata: Mapping[str, str], peft: bool) -> dict[str, Scaling]:
    """Component ("" for any) → scaling, from diffusers' metadata or peft's config beside it.

    Raises:
        LoRAError: a damaged config, or an adapter that no sum of updates holds.
    """
    beside = path.parent / "adapter_config.json"
    try:
        if "lora_adapter_metadata" in metadata:
            configs: dict[str, dict[str, Any]] = {}
            for key, value in json.loads(metadata["lora_adapter_metadata"]).items():
                component, _, name = key.rpartition(".")
                configs.setdefault(component, {})[name] = value
        elif peft and beside.is_file() and beside.stat().st_size < 1 << 20:
            configs = {"": json.loads(beside.read_text("utf-8"))}
        else:
            return {}
        return {component: _scaling(config, str(path)) for component, config in configs.items()}
    except LoRAError:
        raise
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError, OSError):
        raise LoRAError(f"{path}: its LoRA config (alpha and rank) is damaged; export it again") from None


def doubt_of_alpha(lora: LoRA) -> str:
    """What speaks against alpha = rank in a LoRA that was read without any alpha; "" if nothing does."""
    if "lorarar_version" in lora.metadata:
        return ""  # folded in when it was written
    ranks = {float(len(down)) for _, down in lora.values()}
    off = "read as alpha = rank; if that is wrong, the update is off by alpha / rank"
    for key in ("lora_alpha", "network_alpha", "alpha", "ss_network_alpha"):
        try:
            alpha = float(lora.metadata.get(key, "nan"))
        except ValueError:
            continue
        if math.isfinite(alpha) and ranks != {alpha}:
            return f"its header says {key} {alpha:g}, its tensors no alpha: {off}, which a weight can mend"
    if lora.dialect.startswith("peft"):
        return f"peft keeps alpha in adapter_config.json, which is not beside it: {off}; put it there"
    return ""


def _refuse_no_update(config: Mapping[str, Any], where: str) -> None:
    start = config.get("init_lora_weights")
    name = next((n for word, n in _STARTS.items() if str(start).lower().startswith(word)), None)
    if name == "LoftQ":
        raise LoRAError(
            f"{where}: was trained on a base that LoftQ had quantised (init_lora_weights {start}), so it is "
            "no update of the base itself; retrain it without"
        )
    if name:
        raise LoRAError(
            f"{where}: was trained from the start of {name} (init_lora_weights {start}), so its product is "
            "no update of the base; convert it with peft: save_pretrained(FOLDER, "
            "path_initial_model_for_weight_conversion=FOLDER_OF_THE_START)"
        )
    if config.get("use_dora"):
        raise LoRAError(f"{where}: is a DoRA, which no sum of LoRAs equals; retrain or export it as LoRA")
    kind = config.get("peft_type") or "LORA"
    if str(kind).rpartition(".")[2].upper() not in ("LORA", "LOHA", "LOKR"):
        raise LoRAError(f"{where}: is {kind} by its config, which is no sum of updates; retrain it as LoRA")
    for extra in ("modules_to_save", "trainable_token_indices"):
        if config.get(extra):
            raise LoRAError(
                f"{where}: trained whole modules beside the LoRA ({extra} in its config), which a merge "
                "cannot hold; retrain it without them"
            )
    if config.get("fan_in_fan_out"):
        raise LoRAError(
            f"{where}: has its weights transposed (fan_in_fan_out), as no model of images has; check it"
        )


def _scaling(config: Mapping[str, Any], where: str) -> Scaling:
    """A peft config (also as diffusers stores it) as a function."""
    _refuse_no_update(config, where)
    default = config.get("lora_alpha", config.get("alpha"))  # LoHa and LoKr call it alpha
    whole_rank, patterns = config.get("r"), config.get("alpha_pattern") or {}
    root = math.sqrt if config.get("use_rslora") else float
    numbers = [x for x in (default, whole_rank, *patterns.values()) if x is not None]
    if not all(isinstance(x, int | float) and math.isfinite(x) and x != 0 for x in numbers):
        raise LoRAError(f"{where}: its LoRA config has a damaged rank, alpha or alpha_pattern; re-export it")
    own = _matcher({pattern: float(alpha) for pattern, alpha in patterns.items()}, where)

    def scaling(module: str, rank: int | None) -> tuple[float, float]:
        rank = rank or whole_rank
        if rank is None:
            raise LoRAError(f"{where}: its LoRA config has no r; add it")
        alpha = own(module)
        if alpha is None:
            alpha = float(rank if default is None else default)
        return alpha, alpha / root(rank)

    return scaling


def _matcher(patterns: Mapping[str, float], where: str) -> Callable[[str], float | None]:
    """peft's rule: the first that, as a regular expression, matches the name or its end from a dot on."""
    left = _SECONDS

    def plain(pattern: str, module: str) -> bool:
        name = pattern.strip("^$").replace("\\", "")
        return module == name or (not pattern.startswith("^") and module.endswith(f".{name}"))

    def own(module: str) -> float | None:
        nonlocal left
        for pattern, alpha in patterns.items():
            if re.fullmatch(r"\^?(\w|\\?\.)+\$?", pattern):
                if plain(pattern, module):
                    return alpha
                continue
            import regex  # of transformers; unlike re, it can be told to stop

            start = time.monotonic()
            try:
                found = regex.match(rf"(.*\.)?({pattern})$", module, timeout=max(left, 1e-3))
            except TimeoutError:
                found, left = None, 0
            except regex.error:
                raise LoRAError(
                    f"{where}: alpha_pattern {pattern[:80]!r} is no regular expression; re-export it"
                ) from None
            left -= time.monotonic() - start
            if left <= 0:
                raise LoRAError(
                    f"{where}: alpha_pattern {pattern[:80]!r} takes too long; name layers in its place"
                )
            if found:
                return alpha
        return None

    return own
