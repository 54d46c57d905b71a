"""A rehearsal: the whole way from pictures to verdicts at a public model's real size, on random weights.

    lorarar rehearse --scale sdxl

The commands are the user's own, one after the other, each for a step or two, through ``--base``: train-lora
for a subject and a style, ziplora, train-hypernetwork, merge, regmean, generate, judge. What comes out means
nothing; that it comes out, in what time, in what memory and in finite numbers, does. The base is built on
the spot (`lorarar.stand_in`), pictures are drawn, and the judge is the shoebox's.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lorarar.bench import resident
from lorarar.cli.program import main as program
from lorarar.parser import EXIT_STATUSES, Parser, one_line

KINDS = ("sdxl", "sd15")
NARROW = 16
"""By how much ``--tiny`` divides every width."""


class Stage(NamedTuple):
    """What a stage took: seconds by the clock, peak memory in bytes, and whether all it wrote is finite."""

    name: str
    seconds: float
    memory: int
    finite: bool
    wrote: str


class Failed(Exception):
    """A command that has ended with another status than 0, after saying why."""


def _commands(folder: Path, scale: str, steps: int, judge: str, device: str) -> Iterator[list[str]]:
    """Yield the commands of the chain, each as words; files lie in ``folder``, beside the base."""
    names = ("subject", "style", "merged", "zip", "regmean")
    lora = {name: str(folder / f"{name}.safetensors") for name in names}
    network = str(folder / "hypernetwork.safetensors")
    base = ["--base", str(folder / "base"), "--scale", scale, "--device", device, "--quiet"]
    few = ["--steps", str(steps)]
    prompts = {"subject": "a sks dog", "style": "a vase in watercolor painting style"}
    for name, prompt in prompts.items():
        words = ["train-lora", "--images", str(folder / name), "--prompt", prompt, "-o", lora[name]]
        yield [*words, *base, *few, *(["--style"] if name == "style" else [])]
    sides = []
    for side, name in (("content", "subject"), ("style", "style")):
        sides += [f"--{side}-images", str(folder / name), f"--{side}-prompt", prompts[name]]
    yield ["ziplora", lora["subject"], lora["style"], *sides, "-o", lora["zip"], *base, *few]
    lists = []
    for side, name in (("contents", "subject"), ("styles", "style")):
        entry = {"lora": lora[name], "images": str(folder / name), "prompt": prompts[name]}
        (folder / f"{side}.jsonl").write_text(json.dumps(entry) + "\n")
        lists += [f"--{side}", str(folder / f"{side}.jsonl")]
    yield ["train-hypernetwork", *lists, "--pairs", "1", "-o", network, *base, *few]
    both = [lora["subject"], lora["style"]]
    yield ["merge", *both, "--hypernetwork", network, "-o", lora["merged"], "--quiet"]
    asked = ["--content-prompt", prompts["subject"], "--style-prompt", prompts["style"]]
    asked += ["--pictures", "1", "--drawing-steps", str(steps)]
    yield ["regmean", *both, *asked, "-o", lora["regmean"], *base]
    (folder / "made").mkdir(exist_ok=True)
    words = ["generate", "--prompt", "a sks dog in watercolor painting style", "--lora", lora["merged"]]
    yield [*words, "-o", str(folder / "made" / "dog.png"), *base, *few]
    looked = ["--subject", str(folder / "subject"), "--style", str(folder / "style")]
    words = ["judge", str(folder / "made"), *looked, "--words", "watercolor painting", "--json"]
    yield [*words, "--judge", judge, "--device", device]


def _draw(folder: Path) -> None:
    """Draw the pictures of a subject and a style, two of each."""
    from PIL import Image

    from lorarar.shoebox import zoo

    for side, name in (("subject", "dog #2"), ("style", "watercolor painting #1")):
        (folder / side).mkdir(exist_ok=True)
        for i, image in enumerate(zoo.pictures(name, 2)[0]):
            Image.fromarray(image).save(folder / side / f"{i}.png")


@contextlib.contextmanager
def _measured(device: str) -> Iterator[Callable[[], tuple[float, int]]]:
    """Yield a function that says how many seconds and, at the peak, bytes the block has taken so far.

    On a GPU the bytes are those that torch has allocated there, else the resident memory of the process, of
    which pages of mapped files are a part.
    """
    import torch

    gc.collect()
    gpu = torch.device(device).type == "cuda"
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):  # elsewhere than on Linux the peak is that of the whole run
        Path("/proc/self/clear_refs").write_text("5")
    began = time.perf_counter()
    yield lambda: (
        time.perf_counter() - began,
        torch.cuda.max_memory_allocated() if gpu else resident(),
    )


def _finite(file: Path) -> bool:
    """Tell whether every number of a file of tensors is finite."""
    from safetensors.torch import load_file

    return all(bool(tensor.isfinite().all()) for tensor in load_file(file).values())


def rehearse(
    folder: Path,
    scale: str,
    *,
    size: int,
    judge: str,
    device: str,
    steps: int = 2,
    tiny: bool = False,
    report: Callable[[Stage], None] = lambda stage: None,
) -> list[Stage]:
    """Run the chain in a folder and return its stages, each reported as it ends.

    Args:
        folder: gets the base and everything the commands write; a base that is there is used again.
        scale: one of `KINDS`.
        size: the images' side in pixels.
        judge: the judge's model or address.
        device: where to compute.
        steps: of each training, and of inference.
        tiny: a sixteenth of every width.
        report: called with each stage.

    Raises:
        ValueError: there is no room for the base.
        Failed: a command did not end well.
    """
    from lorarar import stand_in

    stages = []

    def done(name: str, took: tuple[float, int], finite: bool, wrote: str) -> None:
        stages.append(Stage(name, round(took[0], 1), took[1], finite, wrote))
        report(stages[-1])

    base = folder / "base"
    if not (base / "model_index.json").is_file():
        needed, free = 0 if tiny else 8e9, shutil.disk_usage(folder).free
        if free < needed:
            raise ValueError(f"{folder}: {free / 1e9:.1f} GB are free, the base needs {needed / 1e9:.0f}")
        with _measured(device) as took:
            count = stand_in.write(scale, base, size, narrow=NARROW if tiny else 1)
            done("build the base", took(), True, f"a UNet of {count:,} parameters, {size} pixels")
    _draw(folder)
    for words in _commands(folder, scale, steps, judge, device):
        heard = io.StringIO()
        with _measured(device) as took:
            with contextlib.redirect_stdout(heard):
                status = program(words)
            if status == 130:
                raise KeyboardInterrupt
            if status:
                raise Failed(words[0])
            figures = took()
        if words[0] == "judge":
            verdicts = json.loads(heard.getvalue())["images"]
            done("judge", figures, True, f"{len(verdicts)} verdicts")
            continue
        out = Path(words[words.index("-o") + 1])
        finite = _finite(out) if out.suffix == ".safetensors" else True  # `generate` refuses what is not
        done(words[0], figures, finite, f"{out.name}, {out.stat().st_size / 1e6:.1f} MB")
    return stages


def record(name: str, stages: Sequence[Stage], scale: str, size: int, steps: int, device: str) -> Path:
    """Keep the stages of a rehearsal as a recorded run."""
    from lorarar.records import save_recorded

    said = f"lorarar rehearse --scale {scale} --size {size} --steps {steps} --device {device} --record {name}"
    values = {"size": size, "steps": steps, "stages": [stage._asdict() for stage in stages]}
    return save_recorded(name, values, command=said, seed=0, scale=scale)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="lorarar rehearse",
        description="Run the whole way from pictures to verdicts at a public model's real size, on random "
        "weights: nothing is downloaded, and seconds, memory and finiteness of each command are printed.",
        epilog="example:\n  lorarar rehearse --scale sdxl\n\nexit status 1: a command failed, or wrote a "
        f"number that is not finite; else\n{EXIT_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scale", choices=KINDS, default="sdxl", help="default: %(default)s")
    parser.add_argument(
        "--tiny", action="store_true", help="a sixteenth of every width, 64 pixels: takes seconds"
    )
    parser.add_argument(
        "--size", type=int, metavar="N", help="pixels a side; default: 256, the scale's on a GPU"
    )
    parser.add_argument(
        "--steps", type=int, default=2, metavar="N", help="steps of everything; default: %(default)s"
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="keep everything there; default: keep nothing"
    )
    parser.add_argument("--judge", metavar="SOURCE", help="default: the shoebox's")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:N or mps (default: the best)")
    parser.add_argument("--json", action="store_true", help="print the stages as JSON")
    parser.add_argument("--record", metavar="NAME", help="keep them in data/recorded")
    return parser


def _run(options: argparse.Namespace) -> int:
    from lorarar.pipelines import find_device
    from lorarar.scales import SCALES, local

    if options.steps < 1:
        raise ValueError(f"--steps must be at least 1, not {options.steps}")
    device = str(find_device(options.device))
    size = options.size or (64 if options.tiny else 256 if device == "cpu" else SCALES[options.scale].size)
    if size < 64 or size % 64:
        raise ValueError(f"--size must be a multiple of 64, not {size}")
    if options.folder is not None:
        options.folder.mkdir(exist_ok=True)

    def report(stage: Stage) -> None:
        finite = "finite" if stage.finite else "NOT FINITE"
        if not options.json:
            row = (
                f"{stage.name:20}{stage.seconds:8.1f} s {stage.memory / 1e9:6.1f} GB  {finite}  {stage.wrote}"
            )
            print(row, flush=True)

    with contextlib.ExitStack() as stack:
        made = stack.enter_context(tempfile.TemporaryDirectory(prefix="lorarar-rehearsal-"))
        stages = rehearse(
            (options.folder or Path(made)).resolve(),
            options.scale,
            size=size,
            judge=options.judge or str(local(SCALES["shoebox"].judge)),
            device=device,
            steps=options.steps,
            tiny=options.tiny,
            report=report,
        )
    if options.record:
        record(options.record, stages, options.scale, size, options.steps, device)
    if options.json:
        print(json.dumps([stage._asdict() for stage in stages], indent=1))
    return 0 if all(stage.finite for stage in stages) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rehearsal and return the exit status."""
    options: Any = _parser().parse_args(arguments)
    try:
        return _run(options)
    except KeyboardInterrupt:
        return 130
    except Failed as failed:
        print(f"lorarar rehearse: {failed} has failed", file=sys.stderr)
        return 1
    except (ValueError, OSError, MemoryError) as error:
        print(f"lorarar rehearse: {one_line(error)}", file=sys.stderr)
        return 2
