"""The experiment's command line: ``lorarar study STEP …``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lorarar.collection import Folders
from lorarar.judging import load_encoder
from lorarar.lora import load_lora
from lorarar.parser import EXIT_STATUSES, Parser, status_of
from lorarar.scales import based, find_scale
from lorarar.shoebox import zoo
from lorarar.study import labelling, people, steps
from lorarar.study.cells import COUNT, SPLITS, hypernetwork_of, setting, tasks
from lorarar.study.images import images
from lorarar.study.means import save_table, table_by, table_of, table_of_nothing
from lorarar.study.methods import METHODS, find_method, make
from lorarar.study.metrics import encoders, measured, table_a2
from lorarar.study.recipes import RECIPES
from lorarar.study.records import (
    deciding,
    make_tables,
    own_name,
    record,
    record_command,
    record_name,
)
from lorarar.study.tables import scoreboard
from lorarar.study.times import times
from lorarar.study.tuning import tuned
from lorarar.study.verdicts import find_judge, judged

RECORDED = (
    "metrics", "times", "record", "tables", "judges", "wordings", "tune", "ladder", "networks", "contest",
    "novelty", "costs",
)  # fmt: skip
"""Steps that write a record."""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="lorarar study",
        description="Every method on every pair of test subjects and styles, judged alike.",
        epilog=f"example:\n  lorarar study images --methods direct k-lora\n\n{EXIT_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = parser.add_subparsers(dest="step", metavar="STEP", required=True)
    for name, text in (
        ("make", "work out what takes minutes for a pair: ZipLoRA's coefficients, joint training's LoRA"),
        ("images", "make the images of methods, for all pairs that lack them"),
        ("verdicts", "let a judge see the images"),
        ("metrics", "measure CLIP-I, DINO and CLIP-T of the images, and record Table A2"),
        ("times", "measure how long each method takes to merge, and record it"),
        ("record", "write verdicts, tables and sheets into data/recorded"),
        ("tables", "make a record's tables anew from its verdicts; nothing is drawn or judged"),
        ("judges", "let judges and metrics see drawings whose truth is known, and record that"),
        ("wordings", "ask judges the same questions in other words, and record what they say"),
        ("tune", "let a judge see LoRA.rar's images by several hypernetworks, and record that"),
        (
            "ladder",
            "measure the error of LoRA.rar's coefficients and of rivals that know less, and record it",
        ),
        ("networks", "train hypernetworks by recipes that differ in one thing, measure and record them"),
        ("means", "write the mean of coefficients over pairs, for `lorarar merge --method table`"),
        ("contest", "make and judge what a plan says, written down before, and record its answers"),
        ("novelty", "measure how new LoRAs are and whether that foretells ρ of a contest, and record it"),
        ("costs", "count what each part of the path costs, and record it"),
    ):
        step = known.add_parser(name, help=text, description=text)
        step.add_argument("--scale", metavar="NAME", default="shoebox", help="default: %(default)s")
        step.add_argument("--seed", type=int, default=0, help="default: %(default)s")
        step.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:N or mps (default: the best)")
        step.add_argument("--quiet", action="store_true", help="no progress bar, no report")
        if name in ("record", "judges"):
            step.add_argument("--judges", nargs="+", default=["critic", "mars2"], help="default: both")
        if name == "wordings":
            step.add_argument("--judges", nargs="+", default=["mars2", "critic"], help="default: both")
            step.add_argument("--out", type=Path, metavar="DIR", help="default: runs/wordings/verdicts")
        if name == "contest":
            step.add_argument("plan", type=Path, metavar="PLAN", help="such as data/plans/strangers.json")
            step.add_argument("--measure", metavar="NAME", help="rho or a judge, in place of the plan's own")
            step.add_argument(
                "--base", type=Path, metavar="DIR", help="another base than the scale's, with --loras"
            )
        if name == "metrics":
            step.add_argument(
                "--plan", type=Path, metavar="PLAN", help="of the images that this contest made, row by row"
            )
        if name == "novelty":
            step.add_argument("--contest", metavar="NAME", default="strangers", help="its record, of ρ")
        if name in RECORDED:
            step.add_argument("--record", metavar="NAME", help="default: by step, split and scale")
        if name in ("judges", "wordings"):
            step.add_argument(
                "--each",
                type=int,
                default=6 if name == "judges" else 3,
                metavar="N",
                help="default: %(default)s",
            )
        if name == "networks":
            step.add_argument(
                "--recipes", nargs="+", metavar="NAME", choices=RECIPES, help=f"of: {'; '.join(RECIPES)}"
            )
            step.add_argument(
                "--seeds", nargs="+", type=int, metavar="N", default=[0], help="of each; default: 0"
            )
            step.add_argument("--steps", type=int, metavar="N", help="of all recipes but the shipped one")
            step.add_argument("--batch-size", type=int, metavar="N", help="likewise")
            step.add_argument("--out", type=Path, metavar="DIR", help="default: runs/networks/SCALE")
        if name == "means":
            step.add_argument("-o", "--output", type=Path, metavar="FILE", required=True)
            step.add_argument("--by", choices=("layer", "column"), default="layer", help="default: layer")
            source = step.add_mutually_exclusive_group()
            source.add_argument(
                "--hypernetwork",
                type=Path,
                metavar="FILE",
                help="whose answers to its training pairs; default: the scale's",
            )
            step.add_argument(
                "--empty",
                type=Path,
                metavar="LORA",
                help="the network's answers to empty columns instead, for the layers of this LoRA",
            )
            source.add_argument(
                "--coefficients", type=Path, metavar="FILE", nargs="+", help="or of files (`lorarar ziplora`)"
            )
        if name in ("tables", "wordings"):
            step.add_argument("--split", choices=SPLITS, default="validation", help="default: %(default)s")
        if name in ("tables", "judges", "wordings", "ladder", "networks", "means"):
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
        if name not in ("contest", "novelty"):
            step.add_argument(
                "--count", type=int, default=COUNT, help="images of each cell; default: %(default)s"
            )
        step.add_argument("--out", type=Path, metavar="DIR", help="default: runs/experiment/SCALE/SPLIT")
        if name == "make":
            step.add_argument("--methods", nargs="+", metavar="NAME", default=["ziplora", "joint"])
        elif name not in ("tune", "costs", "contest", "novelty"):
            step.add_argument("--methods", nargs="+", metavar="NAME", help="default: all")
        if name == "images":
            step.add_argument(
                "--batch-size", type=int, metavar="N", help="images at once; default: a megapixel's worth"
            )
        if name == "costs":
            step.set_defaults(methods=None)
        if name in ("contest", "novelty"):
            step.set_defaults(methods=None, count=COUNT)
        if name in ("verdicts", "tune", "costs"):
            step.add_argument("--judge", default="mars2", help="mars2, mars2=PATH_OR_URL or critic")
        if name == "times":
            step.add_argument("--repeat", type=int, default=5, help="default: %(default)s")
            step.add_argument("--slow-pairs", type=int, default=1, metavar="N", help="default: %(default)s")
    people.add_steps(known)
    labelling.add_steps(known)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step and return the exit status: 0, 2 for bad input, said in one line, 130 if interrupted."""
    options = _parser().parse_args(arguments)
    return status_of(lambda: _run(options), "lorarar study")


def _run(options: argparse.Namespace) -> None:
    def say(text: object) -> None:
        if not options.quiet:
            print(text)

    if options.step in people.RUN:
        options.people(options, say)
        return
    if options.step == "labels":
        labelling.run(options, say)
        return
    if options.step == "judges":
        say(steps.record_judges(options))
        return
    if options.step == "wordings":
        say(steps.record_wordings(options))
        return
    if options.step == "ladder":
        say(steps.record_ladder(options))
        return
    if options.step == "networks":
        say(steps.record_networks(options))
        return
    if options.step == "means":
        network = options.hypernetwork or hypernetwork_of(options.scale)
        if options.coefficients and options.empty:
            raise ValueError("--empty LORA asks a network: give --hypernetwork FILE, not --coefficients")
        if options.coefficients:
            found = table_of(options.coefficients)
        elif options.empty:
            found = table_of_nothing(network, load_lora(options.empty))
        else:
            found = table_by(network, options.scale)
        say(save_table(found, options.output, options.by))
        return
    if options.step == "tables":
        name = record_name(find_scale(options.scale), f"experiment_{options.split}")
        say(make_tables(options.record or name))
        return
    common = {"device": options.device, "progress": not options.quiet, "seed": options.seed}
    world = Folders(options.world) if options.world else zoo
    if options.step == "record" and options.world and options.judges == ["critic", "mars2"]:
        options.judges = ["mars2"]  # the critic knows the drawn world alone
    base, out = getattr(options, "base", None), options.out
    if base and not options.loras:
        raise ValueError("--base DIR has LoRAs of its own: add --loras DIR")
    if base and not out:
        out = Path("runs") / "experiment" / base.name / options.split
    run = setting(
        options.split,
        based(options.scale, base),
        names=options.names,
        out=out,
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
        for method, row in scoreboard(found, len(run.subjects)).items():
            say(f"{method:16} average {row['average'].value:.3f}  best {row['best'].value:.3f}")
    elif options.step == "tune":
        from lorarar.records import inside, save_recorded

        by = find_judge(options.judge, run.scale, options.device, world)
        found = tuned(run, by, options.hypernetworks)
        path = save_recorded(
            options.record or record_name(run.scale, f"{own_name(run)}hypernetworks"),
            {"judge": by.name, "of": found},
            command=f"{record_command('tune', run)} --judge {by.name} "
            f"--hypernetworks {' '.join(path.name for path in options.hypernetworks)}",
            seed=run.seed,
            scale=run.scale.name,
            inputs=inside([*deciding(run), *options.hypernetworks]),
        )
        say(path)
    elif options.step == "costs":
        say(steps.record_costs(options, run))
    elif options.step == "contest":
        say(steps.record_contest(options, run))
    elif options.step == "metrics" and options.plan:
        say(steps.record_alignments(options, run))
    elif options.step == "novelty":
        say(steps.record_novelty(options, run))
    elif options.step in ("times", "metrics"):
        from lorarar.records import inside, save_recorded

        if options.step == "metrics":
            name = record_name(run.scale, f"{own_name(run)}metrics_{run.split}")
            clip, dino = (load_encoder(source, options.device) for source in encoders(run.scale))
            found = table_a2(measured(run, clip, dino, methods), len(run.subjects))
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
            inputs=inside(deciding(run)),
        )
        say(path)
    else:
        say(record(run, options.judges, methods, options.record))


if __name__ == "__main__":
    sys.exit(main())
