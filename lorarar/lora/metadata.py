"""What stands beside the tensors of a file: for which base it is, its alphas, its words, titles and licences.

The clients read it. A1111 and Forge offer a LoRA only for the base that ``ss_base_model_version``, ``ss_v2``
and ``modelspec.architecture`` name (kohya-ss/sd-scripts writes them); a file with other metadata counts as
SD 1. diffusers before 0.40 takes the first layer's rank for the alpha of all layers, where
``lora_adapter_metadata`` does not say otherwise (huggingface/diffusers #14409).
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lorarar.lora.base import FLUX, SD_1, SD_2, SDXL, Pairs

Metadata = Mapping[str, str]


class _Named(NamedTuple):
    """How sd-scripts names a base model in a LoRA's metadata."""

    version: str
    v2: str
    architecture: str
    implementation: str
    resolution: str


_NAMED = {
    SD_1: _Named("sd_v1", "False", "stable-diffusion-v1/lora", "diffusers", "512x512"),
    SD_2: _Named("sd_v2", "True", "", "", ""),  # 512 or 768 with v-prediction: not to be told from the layers
    SDXL: _Named(
        "sdxl_base_v1-0",
        "False",
        "stable-diffusion-xl-v1-base/lora",
        "https://github.com/Stability-AI/generative-models",
        "1024x1024",
    ),
    FLUX: _Named("flux1", "", "flux-1/lora", "https://github.com/black-forest-labs/flux", "1024x1024"),
}

# Which base model it is: carried over where no two files say different things.
_THE_BASE = (
    "ss_base_model_version",
    "ss_v2",
    "modelspec.sai_model_spec",
    "modelspec.architecture",
    "modelspec.implementation",
    "modelspec.resolution",
)
# What else is said of it: carried over where all say the same.
_OF_THE_BASE = (
    "ss_sd_model_name",
    "ss_sd_model_hash",
    "ss_new_sd_model_hash",
    "ss_vae_name",
    "ss_vae_hash",
    "ss_new_vae_hash",
    "ss_clip_skip",
    "ss_zero_terminal_snr",
    "modelspec.prediction_type",
    "modelspec.encoder_layer",
)

# What is said of the file itself, under the names that trainers give it, and how two are put together.
_WORDS = {
    "title": (("modelspec.title", "ss_output_name", "name"), " + "),
    "author": (("modelspec.author", "author"), ", "),
    "licence": (("modelspec.license", "license", "licence"), " and "),
    "trigger words": (
        ("modelspec.trigger_phrase", "trigger_words", "trigger_word", "trained_words", "activation text"),
        ", ",
    ),
    "usage": (("modelspec.usage_hint",), "; "),
    "tags": (("modelspec.tags", "tags"), ", "),
}
_TAGS = "ss_tag_frequency"


def words(metadata: Metadata) -> dict[str, str]:
    """Title, author, licence, trigger words, usage, tags of a file, as far as its metadata have them."""
    found = {}
    for name, (keys, _) in _WORDS.items():
        if text := next((plain for key in keys if (plain := _plain(metadata.get(key, "")))), ""):
            found[name] = text
    if counts := _tag_counts(metadata):
        common: Counter[str] = Counter()
        for tags in counts.values():
            common.update(tags)
        found["training captions"] = ", ".join(tag for tag, _ in common.most_common(8))
    return found


def _plain(value: object) -> str:
    """A value as one line of text; a JSON list as its entries."""
    text = " ".join(str(value).split())
    if text.startswith("["):
        try:
            listed = json.loads(text)
        except ValueError:
            return text
        text = ", ".join(str(x) for x in listed)
    return "" if text in ("None", "null") else text


def _tag_counts(metadata: Metadata) -> dict[str, dict[str, int]]:
    """sd-scripts' count of the captions' tags, for each folder of images; empty where there is none."""
    try:
        folders = json.loads(metadata.get(_TAGS, "{}"))
        return {str(f): {str(t): int(n) for t, n in tags.items()} for f, tags in folders.items() if tags}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}


def inherited(sides: Iterable[Metadata]) -> dict[str, str]:
    """What a merge of files keeps of their metadata: what they agree on of the base, and the words of each.

    Titles, authors, licences, trigger words, usage hints and tags of the files are listed one after the other
    under their names in Stability AI's model specification; the counts of caption tags are added up.
    """
    sides = list(sides)
    kept = {}
    for key in (*_THE_BASE, *_OF_THE_BASE):
        said = {side.get(key) for side in sides}
        if key in _THE_BASE:  # one model for all, so that one may say it for both
            said.discard(None)
        if len(said) == 1 and None not in said:
            kept[key] = str(said.pop())
    for name, (keys, between) in _WORDS.items():
        texts = [text for side in sides if (text := words(side).get(name))]
        if texts:
            key = next(key for key in keys if key.startswith("modelspec."))
            kept[key] = between.join(dict.fromkeys(texts))
    folders: dict[str, Counter[str]] = {}
    for side in sides:
        for folder, tags in _tag_counts(side).items():
            folders.setdefault(folder, Counter()).update(tags)
    if folders:
        kept[_TAGS] = json.dumps(folders)
    return kept


def for_clients(base: str, metadata: Metadata) -> dict[str, str]:
    """What A1111 and Forge need to list a LoRA for its base; what ``metadata`` says of it stays.

    Nothing for a base that is a guess, or one that they do not name.
    """
    named = _NAMED.get(base)
    if not named:  # not by a name with "(a guess)" either
        return {}
    derived = {
        "ss_base_model_version": named.version,
        "ss_v2": named.v2,
        "modelspec.architecture": named.architecture,
        "modelspec.implementation": named.implementation,
        "modelspec.resolution": named.resolution,
    }
    return {key: value for key, value in derived.items() if value and key not in metadata}


def described(pairs: Pairs, format: str) -> dict[str, str]:
    """What a format's readers need to know of the factors: ranks and alphas."""
    if format == "diffusers":
        config = adapter_config(pairs)
        return {"lora_adapter_metadata": json.dumps(config)} if config else {}
    ranks = {down.shape[0] for _, down in pairs.values()}
    rank = str(ranks.pop()) if len(ranks) == 1 else "Dynamic"  # sd-scripts' word
    kohya = {"ss_network_module": "networks.lora", "ss_network_dim": rank, "ss_network_alpha": rank}
    return kohya if format == "kohya" else {}


def adapter_config(pairs: Pairs) -> dict[str, Any]:
    """peft's config of each component as diffusers packs it: ``unet.r``, ``unet.alpha_pattern``, …

    Every layer has alpha = rank, as our factors hold the scale. Empty where each component has one rank,
    which every version of diffusers reads rightly.
    """
    ranks: dict[str, dict[str, int]] = {}
    for layer, (_, down) in pairs.items():
        component, _, name = layer.partition(".")
        if component.startswith("text_encoder"):
            # A suffix fits the module in every transformers: 5 dropped the level text_model.
            name = name.removeprefix("text_model.")
        ranks.setdefault(component, {})[name] = down.shape[0]
    if all(len(set(of.values())) == 1 for of in ranks.values()):
        return {}
    config: dict[str, Any] = {}
    for component, of in ranks.items():
        rank = Counter(of.values()).most_common(1)[0][0]
        start = "" if component.startswith("text_encoder") else "^"  # else proj_out is any block's proj_out
        others = {f"{start}{name}": r for name, r in of.items() if r != rank}
        entries = {
            "r": rank,
            "lora_alpha": rank,
            "rank_pattern": others,
            "alpha_pattern": others,
            "target_modules": sorted(of),
        }
        config |= {f"{component}.{key}": value for key, value in entries.items()}
    return config
