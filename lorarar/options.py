"""Options as frozen dataclasses: of merging, of trainings, of generating and judging images.

Each default, its check and its help stand here once. Functions take them, files record them, and the command
line is made from them (`lorarar.cli.options`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from math import inf
from numbers import Integral, Real
from typing import Any, Self

MEASURES = ("dot", "cosine")
"""How alike m_c and m_s are: |m_c · m_s| (both papers' equation), |cos(m_c, m_s)| (LoRA.rar's code)."""

RESTS = ("average", "sum")
"""What becomes of layers without coefficients: averaged (LoRA.rar's text) or summed (its released code)."""

ORDERS = ("in turn", "mixed")
"""Of the pairs: all steps of one and then the next's (the authors' code), or round after round."""

SPLITS = ("train", "validation", "test")
"""What a subject or a style is for (`lorarar.collection`)."""

READS = ("columns", "invariants")
"""What a network reads of a pair: entries of two columns (LoRA.rar), or how the two stand to each other."""

WORDINGS = (
    "paper", "code", "explained", "short", "swapped", "strict", "lenient", "telegram", "first", "plain",
    "opposite",
)  # fmt: skip
"""Of a judge's questions: the supplement's, that of the authors' code, and others (`judging.wordings`)."""

CONTEXTS = ("none", "moments", "attention", "blind")
"""What a column's answer knows of its layer's other columns: nothing; mean and standard deviation of their
invariants; whatever attention over them finds."""


def option(
    default: object,
    help: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    choices: Sequence[str] = (),
    expected: str = "",
    shown: str | None = None,
    methods: Sequence[str] = (),
) -> Any:  # noqa: ANN401  (a dataclass field takes the type of its annotation)
    """Return a dataclass field with its check and its help.

    Args:
        default: its value if none is given; None, where it is the default, passes every check.
        help: a line for the command line and the reader.
        least: the smallest value allowed.
        above: a bound that the value must exceed.
        most: the largest value allowed; None allows every finite one.
        choices: the words allowed.
        expected: what a refusal says was expected, if bounds or words alone do not explain it.
        shown: the default as the help gives it, if it is no fixed value; "" gives none.
        methods: of merging that use it; () for what is no matter of a method.
    """
    about = {"help": help, "least": least, "above": above, "most": most, "choices": tuple(choices)}
    return field(
        default=default, metadata={**about, "expected": expected, "shown": shown, "methods": tuple(methods)}
    )


def is_whole(one: Field[Any]) -> bool:
    """Tell whether an option is a whole number."""
    return str(one.type) in ("int", "int | None")


def is_number(one: Field[Any]) -> bool:
    """Tell whether an option is a number, whole or not."""
    return is_whole(one) or str(one.type) in ("float", "float | None")


def check(one: Field[Any], value: Any) -> None:  # noqa: ANN401  (whatever was given)
    """Raise ValueError, in one line, if an option's value is not of its type or out of its range."""
    if (value is None and one.default is None) or not (refusal := _refusal(one, value)):
        return
    if expected := one.metadata["expected"]:
        refusal = f"{one.name} {repr(value) if isinstance(value, str) else value}: expected {expected}"
    raise ValueError(refusal)


def _refusal(one: Field[Any], value: Any) -> str:  # noqa: ANN401
    """What is wrong with a value; "" if nothing is."""
    name, about = one.name, one.metadata
    least, above, most = about["least"], about["above"], about["most"]
    if about["choices"]:
        words = ", ".join(about["choices"])
        return "" if value in about["choices"] else f"unknown {name} {value!r}: choose one of {words}"
    if least is None and above is None:
        return ""
    if is_whole(one):
        fits = isinstance(value, Integral) and not isinstance(value, bool) and value >= least
        return "" if fits else f"{name} must be a whole number of at least {least}, not {value}"
    if isinstance(value, bool) or not isinstance(value, Real):
        return f"{name} must be a number, not {value!r}"
    high_enough = value >= least if above is None else value > above
    if high_enough and (value < inf if most is None else value <= most):
        return ""
    if above is not None:
        return f"{name} must be positive, not {value}"
    if most is not None:
        return f"{name} must lie between {least:g} and {most:g}, but is {value}"
    return f"{name} must not be negative, but is {value}"


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


METHODS = ("direct", "levels", "ties", "dare", "dare-ties", "lorarar", "ziplora", "table", "np-lora")
"""Ways to merge (`lorarar.merging`) that need no more than files."""
WITH_BASE = ("regmean",)
"""Ways that need to see the two LoRAs at work on their base."""

FLAVOURS = ("delta", "factors")
"""What TIES and DARE prune: updates, or their factors apart, as peft does."""

_BY_COLUMNS, _BY_ENTRIES = ("lorarar", "ziplora", "table"), ("ties", "dare", "dare-ties")
_WEIGHT: dict[str, Any] = {"above": -inf, "expected": "a finite number"}
_REST: dict[str, Any] = {**_WEIGHT, "methods": ("levels",)}


@dataclass(frozen=True)
class MergeOptions(Options):
    """All options of `lorarar.merging.merge`; each method uses some of them."""

    parts: Sequence[str] = option(
        ("query", "output"),
        "which of query,key,value,output get coefficients, or the two weights",
        shown="those the hypernetwork was trained for, else query,output",
        methods=("lorarar", "levels"),
    )
    rest: str = option(
        "average",
        "the layers without coefficients: averaged (the paper) or summed (its released code)",
        choices=RESTS,
        expected=f"one of {', '.join(RESTS)}",
        shown="as the hypernetwork was trained, else averaged",
        methods=(*_BY_COLUMNS, "regmean"),
    )
    content_rest: float = option(0.5, "the content's weight in the other layers", **_REST)
    style_rest: float = option(0.5, "the style's weight in the other layers", **_REST)
    density: float = option(
        0.5,
        "share of entries that is kept",
        above=0,
        most=1,
        expected="a share above 0 and at most 1",
        methods=_BY_ENTRIES,
    )
    flavour: str = option(
        "delta",
        "prune the updates (default), or their factors, as peft does and the paper's comparison did",
        choices=FLAVOURS,
        expected=f"one of {', '.join(FLAVOURS)}",
        shown="",
        methods=_BY_ENTRIES,
    )
    seed: int = option(0, "seed of the random choice", methods=_BY_ENTRIES[1:])
    mu: float = option(
        0.5,
        "strength of the projection, from 0 (none: the direct sum) to inf (full)",
        least=0,
        most=inf,
        expected="a number from 0 (direct sum) to inf (hard projection)",
        methods=("np-lora",),
    )
    directions: int | None = option(
        None,
        "project out only this many of the style's strongest directions; default: all",
        least=1,
        expected="at least 1, or none for all",
        methods=("np-lora",),
    )
    ridge: float = option(
        0.1, "share of the inputs' mean square that is added in every direction", above=0, methods=WITH_BASE
    )
    columns: bool = option(
        False, "one coefficient a column, as ZipLoRA has, in place of a matrix", methods=WITH_BASE
    )
    fusion_steps: int | None = option(
        None,
        "approach the answer by so many steps from the base instead, without a ridge (Mix-of-Show: 50)",
        least=1,
        shown="",
        methods=WITH_BASE,
    )
    content_weight: float = option(1.0, "weight of the content's update", **_WEIGHT)
    style_weight: float = option(1.0, "weight of the style's update", **_WEIGHT)
    rank: int | None = option(
        None, "compress to this rank; default: the sum of both", least=1, expected="at least 1"
    )

    def of_method(self, method: str) -> dict[str, Any]:
        """Return the options that a method uses, its own first."""
        of = {one.name: one.metadata["methods"] for one in fields(self)}
        return {name: value for name, value in values(self).items() if not of[name] or method in of[name]}


_CHECKPOINTING = option(False, "recompute activations in the backward pass: less memory, more time")
_SEED = "seed of the start and of every random choice"
OF_SCALE = "the scale's"


@dataclass(frozen=True)
class LoraRecipe(Options):
    """How a LoRA is trained: what depends on the scale. The defaults are both papers', for SDXL."""

    rank: int = option(64, "rank of every layer's update", least=1, shown=OF_SCALE)
    steps: int = option(1000, "steps of the optimizer", least=1, shown=OF_SCALE)
    learning_rate: float = option(5e-5, "learning rate of AdamW, at its highest", above=0, shown=OF_SCALE)
    batch_size: int = option(
        1, "images a step; with prior preservation as many class images again", least=1, shown=OF_SCALE
    )
    warmup: int = option(0, "steps over which the learning rate rises from zero", least=0, shown=OF_SCALE)
    decay: float = option(
        0.0,
        "share of the steps, at the end, over which the rate falls to zero",
        least=0,
        most=1,
        shown=OF_SCALE,
    )


@dataclass(frozen=True)
class LoraOptions(LoraRecipe):
    """All options of `lorarar.train.train_lora`."""

    seed: int = option(0, _SEED)
    targets: Sequence[str] = option(
        ("to_q", "to_k", "to_v", "to_out.0"), "names of the linear layers that get an update"
    )
    class_prompt: str | None = option(
        None, 'prompt of the class, such as "a dog"; turns prior preservation on'
    )
    prior_weight: float = option(1.0, "weight of the loss on class images", least=0)
    flip: bool = option(False, "also train on mirror images; subjects are rarely symmetric")
    optimizer: str = option(
        "adamw", "optimizer; adamw8bit needs bitsandbytes", choices=("adamw", "adamw8bit")
    )
    precision: str | None = option(
        None,
        "precision of matrix products, by autocast; default: that of the base's weights",
        choices=("fp16", "bf16"),
    )
    gradient_checkpointing: bool = _CHECKPOINTING


@dataclass(frozen=True)
class MergerRecipe(Options):
    """How merger coefficients are found: what depends on the scale (ZipLoRA §1, LoRA.rar §A1.3)."""

    steps: int = option(100, "steps of the optimizer", least=1, shown=OF_SCALE)
    learning_rate: float = option(
        0.01, "learning rate; ZipLoRA's coefficients move by about this much a step", above=0, shown=OF_SCALE
    )
    similarity: float = option(0.01, "λ, the weight of the similarity term", least=0, shown=OF_SCALE)
    batch_size: int = option(1, "samples of each LoRA per step", least=1, shown=OF_SCALE)


@dataclass(frozen=True)
class ZipLoraOptions(MergerRecipe):
    """All options of `lorarar.train.optimise`."""

    measure: str = option(
        "dot",
        "measure of similarity: dot (the papers' equation) or cosine (LoRA.rar's code)",
        choices=MEASURES,
    )
    rest: str = option(
        "average", "layers without coefficients: average (paper's text) or sum (its code)", choices=RESTS
    )
    parts: Sequence[str] = option(
        ("query", "key", "value", "output"), "which of query,key,value,output get coefficients"
    )
    draws: int = option(
        64, "number of fixed noised images of each LoRA, from which each step takes some", least=1
    )
    same_noise: bool = option(
        False, "give both sides one noise and timestep, as LoRA.rar's released code does"
    )
    seed: int = option(0, _SEED)
    gradient_checkpointing: bool = _CHECKPOINTING


@dataclass(frozen=True)
class InputsOptions(Options):
    """All options of `lorarar.train.own_inputs`, by which RegMean merges."""

    pictures: int = option(12, "that either LoRA draws, for the inputs of its layers", least=1)
    drawing_steps: int = option(8, "of denoising for each of them", least=1)
    seed: int = option(0, "of the first of them", least=0)


@dataclass(frozen=True)
class HypernetworkOptions(ZipLoraOptions):
    """All options of `lorarar.train.train_hypernetwork`. LoRA.rar §A1.3."""

    steps: int = option(5000, "steps of AdamW, over all pairs", least=1, shown=OF_SCALE)
    parts: Sequence[str] = option(("query", "output"), "which of query,key,value,output get coefficients")
    order: str = option(
        "in turn", "order of the pairs: all steps of one, then the next; or mixed, in rounds", choices=ORDERS
    )
    hidden: int = option(128, "width of the hidden layer", least=1)
    weight_decay: float = option(0.01, "weight decay of AdamW", least=0)
    warmup: int = option(0, "steps over which the learning rate rises from zero", least=0)
    decay: float = option(
        0.0, "share of the steps, at the end, over which the rate falls to zero", least=0, most=1
    )
    unit_inputs: bool = option(
        False, "scale columns to rms 1 over the training LoRAs; the saved weights hold the factor"
    )
    reads: str = option(
        "columns",
        "what the network sees: columns (LoRA.rar), or invariants (how two columns stand to each other)",
        choices=READS,
    )
    context: str = option(
        "none",
        "with invariants, what else is seen: none; moments of the layer's other columns; attention to "
        "them; or blind: no invariants either, only the place of the layer",
        choices=CONTEXTS,
    )


@dataclass(frozen=True)
class GenerateOptions(Options):
    """All options of `lorarar.pipelines.generate`."""

    steps: int | None = option(None, "inference steps", least=1, shown=OF_SCALE)
    guidance: float | None = option(None, "scale of classifier-free guidance", least=0, shown=OF_SCALE)
    batch_size: int | None = option(None, "images at once", least=1, shown="a megapixel's worth, at most 16")


@dataclass(frozen=True)
class SeriesOptions(GenerateOptions):
    """All options of `lorarar generate`: images of one prompt, from seeds in a row."""

    seed: int = option(0, "seed of the first image; each further image has the next")
    count: int = option(1, "how many images", least=1)

    @property
    def seeds(self) -> range:
        """The seed of each image."""
        return range(self.seed, self.seed + self.count)


@dataclass(frozen=True)
class JudgeOptions(Options):
    """All options of a judge: of one on this machine, and of one that is served."""

    wording: str = option("paper", "of the questions", choices=WORDINGS)
    temperature: float = option(0.0, "of the answers; 0 takes the likeliest", least=0)
    batch_size: int = option(16, "on this machine: questions at once", least=1)
    model: str | None = option(None, "of a server: which of its models; default: the first")
    timeout: float = option(60.0, "of a server: seconds until a request counts as failed", above=0)
    tries: int = option(4, "of a server: how often a request is sent before the judge is given up", least=1)
    parallel: int = option(8, "of a server: requests under way at once, which it puts into batches", least=1)
