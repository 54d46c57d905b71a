"""The command pipeline: two folders of pictures, or LoRA files, to a merged file, pictures and verdicts."""

import argparse
from pathlib import Path

from lorarar.options import METHODS, WITH_BASE
from lorarar.parser import Commands, command


def add_pipeline(commands: Commands) -> None:
    """``lorarar pipeline CONTENT STYLE -o DIR``: from folder to picture, for one pair."""
    parser = command(
        commands,
        "pipeline",
        "Do everything for one pair: train what is not trained, merge, make pictures, and let the judge "
        "look at them. It can be stopped at any time; the same command then goes on where it stopped.",
        'lorarar pipeline my-dog oil-paintings -o dog-in-oil --scale sdxl --content-prompt "a sks dog"'
        ' --style-prompt "a vase in oil painting style"\n'
        "  lorarar pipeline dog.safetensors oil.safetensors -o dog-in-oil --scale sdxl"
        ' --prompt "a sks dog in oil painting style"',
    )
    for side, what in (("content", "subject"), ("style", "style")):
        parser.add_argument(
            side,
            metavar=side.upper(),
            type=Path,
            help=f"a folder of pictures of the {what}, or its LoRA file",
        )
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, required=True, help="folder for all results"
    )
    for side in ("content", "style"):
        parser.add_argument(
            f"--{side}-images", metavar="DIR", type=Path, help="with a LoRA file: what it was trained on"
        )
        words = parser.add_mutually_exclusive_group()
        words.add_argument(f"--{side}-prompt", metavar="TEXT", help="what all these pictures show")
        words.add_argument(
            f"--{side}-captions",
            metavar="FILE",
            type=Path,
            help="or a caption for each, as in train-lora; default: metadata.jsonl among the pictures",
        )
    parser.add_argument(
        "--prompt",
        metavar="TEXT",
        help="prompt of the pictures to make; default: the subject's, in the style's words",
    )
    parser.add_argument(
        "--words", metavar="TEXT", help='the style in words: "oil painting"; default: from its prompt'
    )
    parser.add_argument(
        "--method",
        choices=(*METHODS, *WITH_BASE),
        help="default: lorarar with --hypernetwork, ziplora where both sides have pictures, else direct",
    )
    parser.add_argument("--hypernetwork", metavar="FILE", type=Path, help="lorarar: the trained network")
    parser.add_argument(
        "--coefficients", metavar="FILE", type=Path, help="table: stored means (`lorarar study means`)"
    )
    for side in ("content", "style"):
        parser.add_argument(
            f"--{side}-weight", metavar="W", type=float, help="default: 0.7 for direct, else 1"
        )
    parser.add_argument(
        "--count", metavar="N", type=int, default=4, help="how many pictures; default: %(default)s"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="seed of every random choice")
    parser.add_argument(
        "--rank", metavar="R", type=int, help="rank of LoRAs that are trained; default: the scale's"
    )
    parser.add_argument("--lora-steps", metavar="N", type=int, help="default: the scale's")
    parser.add_argument("--ziplora-steps", metavar="N", type=int, help="default: the scale's")
    parser.add_argument("--inference-steps", metavar="N", type=int, help="default: the scale's")
    parser.add_argument("--judge", metavar="SOURCE", help="as in judge, or none; default: the scale's")
    parser.add_argument("--base", metavar="PATH_OR_ID", help="base model (default: the scale's)")
    parser.add_argument(
        "--scale",
        metavar="NAME",
        default="shoebox",
        help="smoke, shoebox, sdxl, koala or sd15: base model and settings; default: %(default)s",
    )
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:N or mps (default: the best)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no report")
    parser.set_defaults(run=_pipeline)


def _pipeline(options: argparse.Namespace) -> None:
    from lorarar.pair import Plan, Run, Side, read_side, style_words
    from lorarar.scales import find_scale

    scale = find_scale(options.scale)
    wrong: list[Exception] = []
    sides: list[Side] = []
    for name in ("content", "style"):
        given = (getattr(options, f"{name}_{kind}") for kind in ("images", "prompt", "captions"))
        side, problems = read_side(name, getattr(options, name), *given)
        sides.append(side)
        wrong += problems
    content, style = sides
    pictures = all(side.images is not None for side in sides)
    words = options.words or style_words(style.prompt)
    if options.prompt is None and not (content.prompt and words) and not wrong:
        wrong.append(ValueError('--prompt TEXT is missing, such as "a sks dog in oil painting style"'))
    if pictures and words is None and options.judge != "none" and not wrong:
        wrong.append(ValueError('--words TEXT is missing: what the style is called, such as "oil painting"'))
    method = options.method or ("lorarar" if options.hypernetwork else "ziplora" if pictures else "direct")
    if (method == "lorarar") != (options.hypernetwork is not None):
        wrong.append(ValueError("--hypernetwork FILE goes with --method lorarar"))
    if (method == "table") != (options.coefficients is not None):
        wrong.append(ValueError("--coefficients FILE goes with --method table"))
    if method == "ziplora" and not pictures and not wrong:
        wrong.append(
            ValueError("--method ziplora needs the pictures of both: --content-images, --style-images")
        )
    if method == "regmean" and not (content.words and style.words) and not wrong:
        wrong.append(
            ValueError("--method regmean lets both LoRAs draw: give --content-prompt and --style-prompt")
        )
    wrong += _numbers(options)
    wrong += _files(options)
    if wrong:
        raise ExceptionGroup("bad input", wrong)
    usual = 0.7 if method == "direct" else 1.0
    weights = tuple(
        usual if weight is None else weight for weight in (options.content_weight, options.style_weight)
    )
    plan = Plan(
        scale,
        options.prompt or f"{content.prompt} in {words} style",
        words,
        method,
        options.base,
        weights,
        options.hypernetwork,
        options.count,
        options.seed,
        _given(rank=options.rank, steps=options.lora_steps),
        _given(steps=options.ziplora_steps),
        _given(steps=options.inference_steps),
        options.judge,
        options.device,
        options.coefficients,
    )
    options.output.mkdir(exist_ok=True)
    report = (lambda line: None) if options.quiet else (lambda line: print(line, flush=True))
    Run(content, style, plan, options.output, progress=not options.quiet, report=report).go()


def _given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def _numbers(options: argparse.Namespace) -> list[ValueError]:
    """Find numbers that are out of range."""
    names = ("count", "rank", "lora_steps", "ziplora_steps", "inference_steps")
    least = {"seed": 0} | dict.fromkeys(names, 1)
    return [
        ValueError(f"--{name.replace('_', '-')} must be at least {low}, not {value}")
        for name, low in least.items()
        if (value := getattr(options, name)) is not None and value < low
    ]


def _files(options: argparse.Namespace) -> list[Exception]:
    """Find files and folders that cannot be used: the hypernetwork, a table, the output."""
    wrong: list[Exception] = []
    if options.coefficients is not None:
        from lorarar.lora import load_coefficients

        try:
            load_coefficients(options.coefficients)
        except ValueError as error:
            wrong.append(error)
    if options.hypernetwork is not None:
        from lorarar.hypernet import load_network

        try:
            load_network(options.hypernetwork)
        except ValueError as error:
            wrong.append(error)
    if options.output.exists() and not options.output.is_dir():
        wrong.append(ValueError(f"{options.output}: is a file, expected the name of a folder"))
    elif not options.output.parent.is_dir():
        wrong.append(ValueError(f"{options.output}: its folder does not exist; make it first"))
    return wrong
