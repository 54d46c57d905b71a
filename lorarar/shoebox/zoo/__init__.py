"""The LoRA zoo: a LoRA for each named subject and style of the drawn world, and what the critic says of them.

A subject's LoRA is trained on photos of it with "a sks <class>", a style's on drawings in it with
"a <class> in <family> style". Files lie at ``subjects/<slug>.safetensors`` and ``styles/<slug>.safetensors``.
"""

from lorarar.shoebox.zoo.losses import answer, loss, probe
from lorarar.shoebox.zoo.measurements import (
    CANDIDATES,
    WEIGHTS,
    apply_weights,
    choose,
    load_critic,
    measure,
    shows,
    sums,
)
from lorarar.shoebox.zoo.names import (
    FIRST,
    REFERENCES,
    VIEWS,
    axis,
    class_of,
    expand,
    family,
    file_of,
    folder,
    load,
    load_pair,
    pictures,
    rivals,
    slug,
    split,
    targets,
    tests,
    words,
)
from lorarar.shoebox.zoo.training import train

__all__ = [
    "CANDIDATES",
    "FIRST",
    "REFERENCES",
    "VIEWS",
    "WEIGHTS",
    "answer",
    "apply_weights",
    "axis",
    "choose",
    "class_of",
    "expand",
    "family",
    "file_of",
    "folder",
    "load",
    "load_critic",
    "load_pair",
    "loss",
    "measure",
    "pictures",
    "probe",
    "rivals",
    "shows",
    "slug",
    "split",
    "sums",
    "targets",
    "tests",
    "train",
    "words",
]
