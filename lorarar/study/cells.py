"""Cells: one method and pair of a setting, and what they are made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from lorarar.collection import Collection, Folders, command_of
from lorarar.hypernet import load_network
from lorarar.lora import LoRA, load_lora
from lorarar.pipelines import load_pipeline
from lorarar.scales import Scale, data_folder, find_scale
from lorarar.shoebox import zoo
from lorarar.study.training import Pair, Task, slug

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


SPLITS = ("validation", "test")
COUNT = 10
"""Images of a method and pair, as in the paper."""


@dataclass(frozen=True)
class Setting:
    """One run of the experiment: what its cells have in common.

    ``out`` holds the cells, ``out/made`` what `make` keeps. ``count`` images of each method and pair come
    from the seeds ``1000·seed, 1000·seed + 1, …``.
    """

    split: str
    scale: Scale
    subjects: tuple[str, ...]
    styles: tuple[str, ...]
    out: Path
    loras: Path
    hypernetwork: Path
    count: int = COUNT
    seed: int = 0
    device: str | None = None
    progress: bool = True
    world: Collection = zoo

    @property
    def seeds(self) -> list[int]:
        """The one list of seeds that all methods share."""
        return list(range(1000 * self.seed, 1000 * self.seed + self.count))

    @property
    def pairs(self) -> list[Pair]:
        """Every subject with every style, the styles of a subject next to each other."""
        return list(product(self.subjects, self.styles))


def setting(
    split: str,
    scale: str | Scale = "shoebox",
    *,
    names: Sequence[str] | None = None,
    out: Path | None = None,
    loras: Path | None = None,
    hypernetwork: Path | None = None,
    count: int = COUNT,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
    world: Collection = zoo,
) -> Setting:
    """Return a run's setting.

    Args:
        split: validation or test.
        scale: whose base, recipes and inference settings are used.
        names: subjects and styles of the split; None takes all.
        out: None takes ``runs/experiment/SCALE/SPLIT``.
        loras: the folder of the zoo; None takes the scale's.
        hypernetwork: its file; None takes the scale's (`hypernetwork_of`).
        count: images of each method and pair.
        seed: of the images, and of what is trained for a pair.
        device: where to compute; None takes the best there is.
        progress: show bars.
        world: whose subjects and styles; the drawn world's by default.

    Raises:
        ValueError: unknown split or scale, a name that is not of the split, no subject or no style among the
            names, a count below 1, or a negative seed.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: choose one of {', '.join(SPLITS)}")
    scale = find_scale(scale)
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, but is {seed}")
    both = world.split(split)
    if names is not None:
        if foreign := [name for name in names if name not in (*both[0], *both[1])]:
            raise ValueError(f"{foreign[0]!r} is not of the split {split}: {', '.join([*both[0], *both[1]])}")
        both = tuple(tuple(name for name in side if name in names) for side in both)
        if not all(both):
            raise ValueError("a pair needs a subject and a style: name at least one of each")
    return Setting(
        split,
        scale,
        *both,
        _out(world) / scale.name / split if out is None else out,
        world.folder(scale) if loras is None else loras,
        hypernetwork_of(scale) if hypernetwork is None else hypernetwork,
        count,
        seed,
        device,
        progress,
        world,
    )


def _out(world: Collection) -> Path:
    """Return the folder of a world's runs: a world of one's own has its own."""
    runs = Path("runs") / "experiment"
    return runs / world.root.resolve().name if isinstance(world, Folders) else runs


def hypernetwork_of(scale: str | Scale) -> Path:
    """Return where a scale's hypernetwork lies: the shoebox's, which ``smoke`` uses too, or its own."""
    name = find_scale(scale).name
    return data_folder() / "hypernetworks" / f"{'shoebox' if name == 'smoke' else name}.safetensors"


def cell_of(run: Setting, method: str, pair: Pair) -> Path:
    """Return the folder of a method and pair."""
    return run.out / method.replace(":", "-").replace("=", "-").replace(",", "-") / slug(pair)


def adapters(names: Iterable[str], loras: Path, scale: Scale, world: Collection = zoo) -> dict[str, LoRA]:
    """Read LoRAs by name. Raises ValueError, with the command that trains it, if one is missing."""
    found = {}
    for name in names:
        path = world.file_of(name, loras)
        if not path.is_file():
            raise ValueError(
                f'no LoRA {path}: make it with `lorarar zoo train --names "{name}" --out {loras} '
                f"--scale {scale.name}{command_of(world)}`"
            )
        found[name] = load_lora(path)
    return found


def tasks(
    run: Setting, wanted: Iterable[Pair] | None = None, pipe: DiffusionPipeline | None = None
) -> Iterator[Task]:
    """Yield the task of each pair. Raises ValueError if a pair is not of the run, or its LoRA is missing."""
    wanted = run.pairs if wanted is None else list(wanted)
    if foreign := [pair for pair in wanted if pair not in run.pairs]:
        raise ValueError(f"{' and '.join(foreign[0])} are no pair of this run, on {run.split}")
    named = dict.fromkeys(name for pair in wanted for name in pair)
    loras = adapters(named, run.loras, run.scale, run.world)
    pipe = load_pipeline(run.scale, run.device) if pipe is None else pipe
    network = load_network(run.hypernetwork) if run.hypernetwork.is_file() else None
    for pair in wanted:
        both = loras[pair[0]], loras[pair[1]]
        yield Task(pipe, run.scale, pair, *both, network, run.out / "made", run.seed, world=run.world)
