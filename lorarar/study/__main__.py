"""The experiment's command line: ``lorarar study STEP …``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lorarar.collection import Folders
from lorarar.judging import load_encoder
from lorarar.parser import EXIT_STATUSES, Parser
from lorarar.scales import data_folder, find_scale
from lorarar.shoebox import zoo
from lorarar.study import ladder
from lorarar.study.cells import COUNT, SPLITS, hypernetwork_of, setting, tasks
from lorarar.study.images import images
from lorarar.study.judges import examined
from lorarar.study.methods import METHODS, find_method, make
from lorarar.study.metrics import encoders, measured, table_a2
from lorarar.study.records import own_name, record, record_command, record_name
from lorarar.study.tables import scoreboard
from lorarar.study.times import times
from lorarar.study.tuning import tuned
from lorarar.study.verdicts import find_judge, judged


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="lorarar study",
        description="Every method on every pair of test subjects and styles, judged alike.",
        epilog=f"example:\n  lorarar study images --methods direct k-lora\n\n{EXIT_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(dest="step", metavar="STEP", required=True)
    for name, text in (
        ("make", "work out what takes minutes for a pair: ZipLoRA's coefficients, joint training's LoRA"),
        ("images", "make the images of methods, for all pairs that lack them"),
        ("verdicts", "let a judge see the images"),
        ("metrics", "measure CLIP-I, DINO and CLIP-T of the images, and record Table A2"),
        ("times", "measure how long each method takes to merge, and record it"),
        ("record", "write verdicts, tables and sheets into data/recorded"),
        ("judges", "let judges and metrics see drawings whose truth is known, and record that"),
        ("tune", "let a judge see LoRA.rar's images by several hypernetworks, and record that"),
        (
            "ladder",
            "measure the error of LoRA.rar's coefficients and of rivals that know less, and record it",
        ),
    ):
        step = steps.add_parser(name, help=text, description=text)
        step.add_argument("--scale", metavar="NAME", default="shoebox", help="default: %(default)s")
        step.add_argument("--seed", type=int, default=0, help="default: %(default)s")
        step.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:N or mps (default: the best)")
        step.add_argument("--quiet", action="store_true", help="no progress bar, no report")
        if name in ("record", "judges"):
            step.add_argument("--judges", nargs="+", default=["critic", "mars2"], help="default: both")
        if name in ("metrics", "times", "record", "judges", "tune", "ladder"):
            step.add_argument("--record", metavar="NAME", help="default: by step, split and scale")
        if name == "judges":
            step.add_argument("--each", type=int, default=6, metavar="N", help="default: %(default)s")
        if name in ("judges", "ladder"):
            continue
        step.add_argument(
            "--world", type=Path, metavar="DIR", help="folders of your own pictures, with a world.json"
        )
        step.add_argument("--loras", type=Path, metavar="DIR", help="the zoo; default: the scale's")
        if name == "tune":
            step.add_argument("--hypernetworks", type=Path, metavar="FILE", nargs="+", required=True)
            step.set_defaults(hypernetwork=None, methods=["lorarar"])
        else:
            step.add_argument("--hypernetwork", type=Path, metavar="FILE", help="default: the scale's")
        step.add_argument("--names", nargs="+", metavar="NAME", help="of the split; default: all")
        step.add_argument("--split", choices=SPLITS, default="validation", help="default: %(default)s")
        step.add_argument(
            "--count", type=int, default=COUNT, help="images of each cell; default: %(default)s"
        )
        step.add_argument("--out", type=Path, metavar="DIR", help="default: runs/experiment/SCALE/SPLIT")
        if name == "make":
            step.add_argument("--methods", nargs="+", metavar="NAME", default=["ziplora", "joint"])
        elif name != "tune":
            step.add_argument("--methods", nargs="+", metavar="NAME", help="default: all")
        if name == "images":
            step.add_argument(
                "--batch-size", type=int, metavar="N", help="images at once; default: a megapixel's worth"
            )
        if name in ("verdicts", "tune"):
            step.add_argument("--judge", default="mars2", help="mars2, mars2=PATH_OR_URL or critic")
        if name == "times":
            step.add_argument("--repeat", type=int, default=5, help="default: %(default)s")
            step.add_argument("--slow-pairs", type=int, default=1, metavar="N", help="default: %(default)s")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step and return the exit status: 0, 2 for bad input, said in one line, 130 if interrupted."""
    options = _parser().parse_args(arguments)
    try:
        previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            _run(options)
        finally:
            signal.signal(signal.SIGTERM, previous)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, MemoryError) as error:
        print(f"lorarar study: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace) -> None:
    def say(text: object) -> None:
        if not options.quiet:
            print(text)

    if options.step == "judges":
        say(_record_judges(options))
        return
    if options.step == "ladder":
        say(_record_ladder(options))
        return
    common = {"device": options.device, "progress": not options.quiet, "seed": options.seed}
    world = Folders(options.world) if options.world else zoo
    if options.step == "record" and options.world and options.judges == ["critic", "mars2"]:
        options.judges = ["mars2"]  # the critic knows the drawn world alone
    run = setting(
        options.split,
        options.scale,
        names=options.names,
        out=options.out,
        loras=options.loras,
        hypernetwork=options.hypernetwork,
        count=options.count,
        world=world,
        **common,
    )
    methods = options.methods or list(METHODS)
    for name in methods:
        find_method(name, run.split)
    if options.step == "make":
        for task in tasks(run):
            for method in methods:
                path, seconds = make(replace(task, progress=not options.quiet), method)
                say(f"{path}: made in {seconds:.1f} s")
    elif options.step == "images":
        cells = images(run, methods, batch_size=options.batch_size)
        say(f"{run.out}: {len(cells)} cells of {run.count} images")
    elif options.step == "verdicts":
        found = judged(run, find_judge(options.judge, run.scale, options.device, world), methods)
        for method, row in scoreboard(found).items():
            say(f"{method:16} average {row['average'].value:.3f}  best {row['best'].value:.3f}")
    elif options.step == "tune":
        from lorarar.records import save_recorded

        by = find_judge(options.judge, run.scale, options.device, world)
        found = tuned(run, by, options.hypernetworks)
        path = save_recorded(
            options.record or record_name(run.scale, f"{own_name(run)}hypernetworks"),
            {"judge": by.name, "of": found},
            command=f"{record_command('tune', run)} --judge {by.name} "
            f"--hypernetworks {' '.join(path.name for path in options.hypernetworks)}",
            seed=run.seed,
            scale=run.scale.name,
        )
        say(path)
    elif options.step in ("times", "metrics"):
        from lorarar.records import save_recorded

        if options.step == "metrics":
            name = record_name(run.scale, f"{own_name(run)}metrics_{run.split}")
            clip, dino = (load_encoder(source, options.device) for source in encoders(run.scale))
            found = table_a2(measured(run, clip, dino, methods))
        else:
            if options.repeat < 1 or options.slow_pairs < 0:
                raise ValueError("--repeat must be at least 1, --slow-pairs not negative")
            name = record_name(run.scale, f"{own_name(run)}merge_times")
            found = times(run, options.methods, repeat=options.repeat, slow_pairs=options.slow_pairs)
        path = save_recorded(
            options.record or name,
            found,
            command=record_command(options.step, run),
            seed=run.seed,
            scale=run.scale.name,
        )
        say(path)
    else:
        say(record(run, options.judges, methods, options.record))


def _record_judges(options: argparse.Namespace) -> Path:
    from lorarar.records import inside, save_recorded

    scale = find_scale(options.scale)
    by = [find_judge(name, scale, options.device) for name in options.judges]
    metrics = {
        name: load_encoder(source, options.device)
        for name, source in zip(("CLIP-I", "DINO"), encoders(scale), strict=True)
    }
    found = examined(by, metrics, each=options.each, seed=options.seed, progress=not options.quiet)
    return save_recorded(
        options.record or record_name(scale, "judges"),
        found,
        command=f"lorarar study judges --scale {scale.name} --judges "
        f"{' '.join(options.judges)} --each {options.each}",
        seed=options.seed,
        scale=scale.name,
        inputs=inside(
            file
            for name in ("judge", "critic", "clip", "dino")
            for file in sorted((data_folder() / "shoebox" / name).glob("*.safetensors"))
        ),
    )


def _record_ladder(options: argparse.Namespace) -> Path:
    from lorarar.records import inside, save_recorded

    scale = find_scale(options.scale)
    found = ladder.measure(scale, options.device, seed=options.seed, progress=not options.quiet)
    names = {name for pairs in found["pairs"].values() for pair in pairs for name in pair}
    return save_recorded(
        options.record or record_name(scale, "rho"),
        found,
        command=f"lorarar study ladder --scale {scale.name}",
        seed=options.seed,
        scale=scale.name,
        inputs=inside(
            [hypernetwork_of(scale), *(zoo.file_of(name, zoo.folder(scale)) for name in sorted(names))]
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
