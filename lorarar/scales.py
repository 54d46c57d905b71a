"""Which models a run uses and how long they train (`SCALES`), and where they lie."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from lorarar.options import LoraRecipe, MergerRecipe


@dataclass(frozen=True)
class Scale:
    """One size of the experiments: the same cells run at every scale.

    ``base`` is a Hugging Face model id, or a path that begins with ``data/`` and lies in the project's data
    folder. ``dtype`` is that of the base's weights; a GPU computes in it, a CPU in float32. ``variant`` names
    the files of a repository that hold them so. ``size`` is the image's side in pixels.
    ``hypernetwork_pairs`` is how many (content, style) pairs the hypernetwork sees while it trains. ``judge``
    is MARS²'s model, by default the paper's in the format that transformers reads; ``clip`` and ``dino`` are
    those of CLIP-I, CLIP-T and DINO, by default the papers' (DreamBooth §4.1, LoRA.rar table A2).
    """

    name: str
    base: str
    size: int
    inference_steps: int = 50
    guidance: float = 5.0
    dtype: str = "float16"
    variant: str | None = None
    content: LoraRecipe = field(default_factory=LoraRecipe)
    style: LoraRecipe = field(default_factory=LoraRecipe)
    ziplora: MergerRecipe = field(default_factory=lambda: MergerRecipe(steps=100))
    hypernetwork: MergerRecipe = field(default_factory=lambda: MergerRecipe(steps=5000))
    hypernetwork_pairs: int = 100
    gradient_checkpointing: bool = False
    judge: str = "FuryMartin/llava-critic-7b-hf"
    clip: str = "openai/clip-vit-large-patch14"
    dino: str = "facebook/dino-vits16"


_SHOEBOX = LoraRecipe(rank=8, steps=250, learning_rate=1e-3, batch_size=4, warmup=20, decay=0.3)
_SHOEBOX_STYLE = replace(_SHOEBOX, steps=500)  # a style is harder to learn than a thing
_SMOKE = LoraRecipe(rank=4, steps=4, learning_rate=1e-3, batch_size=2)

_SHOEBOX_SCALE = Scale(
    name="shoebox",
    base="data/shoebox/base",
    size=64,
    inference_steps=16,
    guidance=2.0,
    dtype="float32",
    content=_SHOEBOX,
    style=_SHOEBOX_STYLE,
    ziplora=MergerRecipe(steps=100, batch_size=4),
    hypernetwork=MergerRecipe(steps=5000),
    judge="data/shoebox/judge",
    clip="data/shoebox/clip",
    dino="data/shoebox/dino",
)

# sdxl, koala and sd15 follow the papers' supplements (LoRA.rar §A1.3, ZipLoRA §1): rank 64, 1000 steps of one
# image, learning rate 5e-5, λ 0.01, ZipLoRA 100 steps, the hypernetwork 5000 steps over 100 pairs, 50
# inference steps.
SCALES: dict[str, Scale] = {
    scale.name: scale
    for scale in (
        replace(
            _SHOEBOX_SCALE,
            name="smoke",
            inference_steps=2,
            guidance=3.0,
            content=_SMOKE,
            style=_SMOKE,
            ziplora=MergerRecipe(steps=2, batch_size=2),
            hypernetwork=MergerRecipe(steps=4, batch_size=2),
            hypernetwork_pairs=2,
        ),
        _SHOEBOX_SCALE,
        Scale(
            name="sdxl",
            base="stabilityai/stable-diffusion-xl-base-1.0",
            size=1024,
            variant="fp16",
            gradient_checkpointing=True,
        ),
        Scale(
            name="koala",
            base="etri-vilab/koala-700m",
            size=1024,
            gradient_checkpointing=True,
        ),
        Scale(
            name="sd15",
            base="stable-diffusion-v1-5/stable-diffusion-v1-5",
            size=512,
            guidance=7.5,
            variant="fp16",
        ),
    )
}


MODEL_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")  # owner/name, as on the Hugging Face hub


DATA = (
    "the folder data of a checkout (the package alone has no models: `git clone` the project, as its README "
    "says)"
)
"""What to do where the shoebox's models are missing, for an error's one line."""


def data_folder() -> Path:
    """Return the folder of shipped weights and images: ``$LORARAR_DATA``, or ``data`` beside the package."""
    return Path(os.environ.get("LORARAR_DATA") or Path(__file__).resolve().parents[1] / "data")


def find_scale(name: str | Scale) -> Scale:
    """Return the scale of that name. Raises ValueError, with the names there are, for any other."""
    if isinstance(name, Scale):
        return name
    if name not in SCALES:
        raise ValueError(f"unknown scale {name!r}: choose one of {', '.join(SCALES)}")
    return SCALES[name]


def based(name: str | Scale, base: Path | None) -> Scale:
    """Return the scale of that name, with the pipeline in the folder ``base`` for its base unless it is None.

    Raises:
        ValueError: an unknown scale, or the folder holds no pipeline.
    """
    scale = find_scale(name)
    if base is None:
        return scale
    if not (base / "model_index.json").is_file():
        raise ValueError(f"--base {base}: no model_index.json in it; name a folder in diffusers' layout")
    return replace(scale, base=str(base.resolve()))


def local(model: str) -> Path:
    """Return where a scale's model lies on this machine; a model id comes back as it is."""
    return data_folder() / model.removeprefix("data/") if model.startswith("data/") else Path(model)
