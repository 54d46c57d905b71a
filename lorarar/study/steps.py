"""Steps of the experiment that end in a record: what is measured, by which command, from which files."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from lorarar.judging import load_encoder
from lorarar.records import inside, recorded, save_recorded, sheet, sheet_file
from lorarar.scales import data_folder, find_scale
from lorarar.shoebox import zoo
from lorarar.shoebox.world import styles, subjects
from lorarar.study import ladder
from lorarar.study.cells import Setting, hypernetwork_of
from lorarar.study.contest import Plan, contest, mean, read_plan, values
from lorarar.study.judges import examined
from lorarar.study.metrics import aligned, encoders
from lorarar.study.networks import networks
from lorarar.study.recipes import RECIPES
from lorarar.study.records import record_command, record_name
from lorarar.study.verdicts import find_judge


def record_judges(options: argparse.Namespace) -> Path:
    """Let judges and metrics see drawings whose truth is known, and record what they say."""
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


def record_wordings(options: argparse.Namespace) -> Path:
    """Ask judges the same questions in other words, and record what they say."""
    from lorarar.study import wordings

    scale = find_scale(options.scale)
    run = recorded(record_name(scale, f"experiment_{options.split}"))
    methods = run["methods"]
    found = wordings.trial(
        {name: wordings.find(name, scale, options.device) for name in options.judges},
        run,
        sheet(run.name, len(methods)),
        kept=options.out or Path("runs") / "wordings" / "verdicts",
        each=options.each,
        seed=options.seed,
        progress=not options.quiet,
    )
    return save_recorded(
        options.record or record_name(scale, "wordings"),
        found,
        command=f"lorarar study wordings --scale {scale.name} --split {options.split} --judges "
        f"{' '.join(options.judges)} --each {options.each}",
        seed=options.seed,
        scale=scale.name,
        inputs=inside(
            [
                data_folder() / "recorded" / f"{run.name}.json",
                sheet_file(run.name),
                *sorted((data_folder() / "shoebox" / "judge").glob("*.safetensors")),
                *sorted((data_folder() / "shoebox" / "critic").glob("*.safetensors")),
            ]
        ),
    )


def record_costs(options: argparse.Namespace, run: Setting) -> Path:
    """Record what each part of the path costs."""
    from lorarar.study.costs import measured

    return save_recorded(
        options.record or record_name(run.scale, "costs"),
        measured(run, find_judge(options.judge, run.scale, options.device, run.world)),
        command=f"{record_command('costs', run)} --judge {options.judge}",
        seed=run.seed,
        scale=run.scale.name,
    )


def _planned(options: argparse.Namespace, run: Setting) -> tuple[Plan, Setting]:
    """Return the plan and its run; one that names its pairs has a folder of its own."""
    plan = read_plan(options.plan)
    run = plan.setting(run)
    if options.out is None and (plan.subjects or plan.styles):
        run = replace(run, out=run.out.with_name(options.plan.stem))
    return plan, run


def record_contest(options: argparse.Namespace, run: Setting) -> Path:
    """Make and judge what a plan says, and record its answers."""
    plan, run = _planned(options, run)
    own, name = "", options.plan.stem
    if options.measure:
        plan = replace(plan, measure=options.measure)
        own, name = f" --measure {options.measure}", f"{name}_{options.measure}"
    found = contest(run, plan)
    if options.base:
        own += f" --base {options.base} --loras {options.loras}"
    files = [options.plan, *(file for row in plan.rows for file in row.files)]
    return save_recorded(
        options.record or record_name(run.scale, name),
        values(run, plan, found),
        command=record_command(f"contest data/plans/{options.plan.name}{own}", run),
        seed=run.seed,
        scale=run.scale.name,
        inputs=inside([*files, *sorted((data_folder() / "shoebox").glob("*/**/*.safetensors"))]),
    )


def record_alignments(options: argparse.Namespace, run: Setting) -> Path:
    """Record style, subject and text alignment of the images that a plan's contest has made."""
    plan, run = _planned(options, run)
    found = aligned(run, plan, *(load_encoder(source, options.device) for source in encoders(run.scale)))
    rows = {
        name: {
            metric: {"mean": mean(of), "pairs": np.round(of, 4).tolist()} for metric, of in metrics.items()
        }
        for name, metrics in found.items()
    }
    return save_recorded(
        options.record or record_name(run.scale, f"{options.plan.stem}_alignments"),
        {"subjects": list(run.subjects), "styles": list(run.styles), "seeds": run.seeds, "rows": rows},
        command=record_command(f"metrics --plan data/plans/{options.plan.name}", run),
        seed=run.seed,
        scale=run.scale.name,
        inputs=inside(
            [
                options.plan,
                *sorted((data_folder() / "shoebox" / "clip").glob("*.safetensors")),
                *sorted((data_folder() / "shoebox" / "dino").glob("*.safetensors")),
            ]
        ),
    )


def record_novelty(options: argparse.Namespace, run: Setting) -> Path:
    """Record how new a run's LoRAs are, and what that foretells of a contest's ρ."""
    from lorarar.study.novelty import measured

    found = recorded(options.contest)
    if found["measure"] != "rho" or [found["subjects"], found["styles"]] != [[*run.subjects], [*run.styles]]:
        raise ValueError(f"{options.contest}: is no record of ρ of this run's pairs")
    return save_recorded(
        options.record or record_name(run.scale, "novelty"),
        measured(run, {name: np.mean(row["pairs"], axis=0) for name, row in found["rows"].items()}),
        command=record_command("novelty", run),
        seed=run.seed,
        scale=run.scale.name,
        inputs=inside([data_folder() / "recorded" / f"{options.contest}.json"]),
    )


def record_ladder(options: argparse.Namespace) -> Path:
    """Record the error of the hypernetwork's coefficients and of rivals that know less."""
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


def record_networks(options: argparse.Namespace) -> Path:
    """Train networks by recipes, and record their errors."""
    scale = find_scale(options.scale)
    seeds, recipes = options.seeds, options.recipes or list(RECIPES)
    changes = {"steps": options.steps, "batch_size": options.batch_size}
    changes = {name: value for name, value in changes.items() if value is not None}
    found = networks(
        scale,
        options.device,
        wanted=dict.fromkeys(recipes, seeds),
        folder=options.out,
        progress=not options.quiet,
        **changes,
    )
    words = ["lorarar study networks --scale", scale.name, "--recipes", *map(repr, recipes)]
    words += ["--seeds", *map(str, seeds)]
    words += [f"--{name.replace('_', '-')} {value}" for name, value in changes.items()]
    words += [f"--out {inside([options.out])[0]}"] if options.out and inside([options.out]) else []
    names = [
        name for axis in (subjects, styles) for name in (*axis.SPLIT["train"], *axis.SPLIT["validation"])
    ]
    return save_recorded(
        options.record or record_name(scale, "networks"),
        found,
        command=" ".join(words),
        seed=options.seed,
        scale=scale.name,
        inputs=inside([hypernetwork_of(scale), *(zoo.file_of(n, zoo.folder(scale)) for n in names)]),
    )
