"""The options of all trainings, as frozen dataclasses: each default, its check and its help stand here once.

Functions take them, files record them, and the command line is made from them (`lorarar.cli.options`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from math import inf
from typing import Any, Self

MEASURES = ("dot", "cosine")
"""How alike m_c and m_s are: |m_c · m_s| (both papers' equation), |cos(m_c, m_s)| (LoRA.rar's code)."""

RESTS = ("average", "sum")
"""What becomes of layers without coefficients: averaged (LoRA.rar's text) or summed (its released code)."""

ORDERS = ("in turn", "mixed")
"""Of the pairs: all steps of one and then the next's (the authors' code), or round after round."""

READS = ("columns", "invariants")
"""What a network reads of a pair: entries of two columns (LoRA.rar), or how the two stand to each other."""

CONTEXTS = ("none", "moments", "attention")
"""What a column's answer knows of its layer's other columns: nothing; mean and standard deviation of their
invariants; whatever attention over them finds."""


def option(
    default: object,
    help: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float = inf,
    choices: Sequence[str] = (),
    by_scale: bool = False,
) -> Any:  # noqa: ANN401  (a dataclass field takes the type of its annotation)
    """Return a dataclass field with its check and its help.

    Args:
        default: its value if none is given.
        help: a line for the command line and the reader.
        least: the smallest value allowed.
        above: a bound that the value must exceed.
        most: the largest value allowed.
        choices: the words allowed; None is allowed as well where it is the default.
        by_scale: whether a `lorarar.scales.Scale` has its own value.
    """
    about = {"help": help, "least": least, "above": above, "most": most}
    return field(default=default, metadata={**about, "choices": tuple(choices), "by_scale": by_scale})


def check(one: Field[Any], value: object) -> None:
    """Raise ValueError, in one line, if an option's value is not of its type or out of its range."""
    name, about = one.name, one.metadata
    choices, least, above = (about.get(key) for key in ("choices", "least", "above"))
    if choices:
        if value not in choices and not (value is None and one.default is None):
            raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(choices)}")
    elif least is None and above is None:
        return
    elif isinstance(one.default, int):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value}")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number, not {value!r}")
    elif above is not None and not above < value < inf:
        raise ValueError(f"{name} must be positive, not {value}")
    elif about["most"] < inf and not least <= value <= about["most"]:
        raise ValueError(f"{name} must lie between {least:g} and {about['most']:g}, but is {value}")
    elif least is not None and not least <= value < inf:
        raise ValueError(f"{name} must not be negative, but is {value}")


@dataclass(frozen=True)
class Options:
    """What every set of options can do: check itself, and be made of another with changes."""

    def __post_init__(self) -> None:
        for one in fields(self):
            check(one, getattr(self, one.name))

    @classmethod
    def of(cls, given: Options | None = None, **changes: Any) -> Self:
        """Return options with the values of `given`, where it has them, and `changes` on top.

        Raises:
            ValueError: a value is out of range, or there is no such option.
        """
        known = {one.name for one in fields(cls)}
        if strange := sorted(set(changes) - known):
            raise ValueError(f"no option is called {strange[0]}: there are {', '.join(sorted(known))}")
        return cls(**{name: value for name, value in values(given).items() if name in known} | changes)


def values(options: Options | None) -> dict[str, Any]:
    """Return options by name."""
    return {} if options is None else {one.name: getattr(options, one.name) for one in fields(options)}


_CHECKPOINTING = option(False, "recompute activations in the backward pass: less memory, more time")
_SEED = "of the start and of everything drawn"


@dataclass(frozen=True)
class LoraRecipe(Options):
    """How a LoRA is trained: what depends on the scale. The defaults are both papers', for SDXL."""

    rank: int = option(64, "of every layer's update", least=1, by_scale=True)
    steps: int = option(1000, "of the optimizer", least=1, by_scale=True)
    learning_rate: float = option(5e-5, "of AdamW, at its highest", above=0, by_scale=True)
    batch_size: int = option(
        1, "images a step; with prior preservation as many class images again", least=1, by_scale=True
    )
    warmup: int = option(0, "steps over which the learning rate rises from zero", least=0, by_scale=True)
    decay: float = option(
        0.0, "share of the steps, at the end, over which it falls to zero", least=0, most=1, by_scale=True
    )


@dataclass(frozen=True)
class LoraOptions(LoraRecipe):
    """All options of `lorarar.train.train_lora`."""

    seed: int = option(0, _SEED)
    targets: Sequence[str] = option(
        ("to_q", "to_k", "to_v", "to_out.0"), "names of the linear layers that get an update"
    )
    class_prompt: str | None = option(None, 'turns prior preservation on, such as "a dog"')
    prior_weight: float = option(1.0, "the factor of the class images' loss", least=0)
    flip: bool = option(False, "also train on mirror images; subjects are rarely symmetric")
    optimizer: str = option("adamw", "adamw8bit needs bitsandbytes", choices=("adamw", "adamw8bit"))
    precision: str | None = option(
        None,
        "of matrix products, by autocast; by default that of the base's weights",
        choices=("fp16", "bf16"),
    )
    gradient_checkpointing: bool = _CHECKPOINTING


@dataclass(frozen=True)
class MergerRecipe(Options):
    """How merger coefficients are found: what depends on the scale (ZipLoRA §1, LoRA.rar §A1.3)."""

    steps: int = option(100, "of the optimizer", least=1, by_scale=True)
    learning_rate: float = option(
        0.01, "of the optimizer; coefficients move by about this much a step", above=0, by_scale=True
    )
    similarity: float = option(0.01, "λ, the weight of the similarity term", least=0, by_scale=True)
    batch_size: int = option(1, "samples a step of either LoRA", least=1, by_scale=True)


@dataclass(frozen=True)
class ZipLoraOptions(MergerRecipe):
    """All options of `lorarar.train.optimise`."""

    measure: str = option(
        "dot", "of similarity: the papers' equation, or LoRA.rar's released code", choices=MEASURES
    )
    rest: str = option(
        "average", "layers without coefficients: the paper's text, or its released code", choices=RESTS
    )
    draws: int = option(64, "fixed noised images of either LoRA, from which each step takes some", least=1)
    seed: int = option(0, _SEED)
    gradient_checkpointing: bool = _CHECKPOINTING


@dataclass(frozen=True)
class HypernetworkOptions(ZipLoraOptions):
    """All options of `lorarar.train.train_hypernetwork`. LoRA.rar §A1.3."""

    steps: int = option(5000, "of AdamW, over all pairs", least=1, by_scale=True)
    parts: Sequence[str] = option(
        ("query", "output"), "layers that get coefficients, of query,key,value,output"
    )
    order: str = option(
        "in turn", "of the pairs: all steps of one and then the next's, or round after round", choices=ORDERS
    )
    hidden: int = option(128, "width of the hidden layer", least=1)
    weight_decay: float = option(0.01, "of AdamW", least=0)
    warmup: int = option(0, "steps over which the learning rate rises from zero", least=0)
    decay: float = option(0.0, "share of the steps, at the end, over which it falls to zero", least=0, most=1)
    unit_inputs: bool = option(
        False, "scale columns to rms 1 over the training LoRAs; the saved weights hold the factor"
    )
    reads: str = option(
        "columns", "what the network sees: LoRA.rar's columns, or their invariants", choices=READS
    )
    context: str = option(
        "none", "what invariants are seen together with: those of the layer's other columns", choices=CONTEXTS
    )
