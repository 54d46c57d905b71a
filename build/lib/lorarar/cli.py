"""The command line: ``lorarar COMMAND …``.

A command is a function ``add_…(commands)`` that adds its parser and sets ``run``, a function of the parsed
arguments. What a command needs is imported when it runs, so that ``lorarar --help`` loads nothing.
"""

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lorarar import __version__

if TYPE_CHECKING:
    from lorarar.models import Fit, Scale
    from lorarar.objective import Trained

Commands = Any  # argparse's own type for what add_subparsers returns is private

EXIT_STATUSES = """\
exit status: 0 done; 2 bad input or usage, said in one line on standard error, and nothing was written;
130 interrupted, and nothing was written; 141 whoever read the output closed it early (a pipe to head)"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, as every other error is said."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"lorarar: {' '.join(message.split())}; see `{self.prog} --help`\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status (see `EXIT_STATUSES`)."""
    parser = _Parser(
        prog="lorarar",
        description="Merge a subject LoRA and a style LoRA, exactly and fast.",
        epilog=f"`lorarar COMMAND --help` shows an example of each.\n\n{EXIT_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lorarar {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(commands)
    options = parser.parse_args(arguments)
    options.spoken = _spoken(sys.argv[1:] if arguments is None else arguments)
    try:
        # Asked to stop, a command takes back what it has begun to write, as it does after Ctrl-C.
        previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            options.run(options)
            sys.stdout.flush()
        finally:
            signal.signal(signal.SIGTERM, previous)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `lorarar info FILE | head`: the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (ValueError, OSError, MemoryError) as error:  # LoRAError is a ValueError
        print(f"lorarar: {_one_line(error)}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, for a GPU; torch may not be imported here
            raise
        print("lorarar: out of GPU memory: choose a smaller --batch-size or rank", file=sys.stderr)
        return 2
    return 0


def _spoken(arguments: Sequence[str]) -> str:
    """The command as it was given, for a file's metadata; of a machine's own paths only the last name."""
    return shlex.join(
        ["lorarar", *(Path(word).name if Path(word).is_absolute() else word for word in arguments)]
    )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"out of memory{text and f': {text}'}"
    return text or type(error).__name__


def command(commands: Commands, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    """Add a command's parser: its line in ``lorarar --help``, and its own help with an example."""
    return commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}\n\n{EXIT_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


# ---------------------------------------------------------------------------------------------------------
# lorarar info


def add_info(commands: Commands) -> None:
    """``lorarar info FILE``: what is in a LoRA file."""
    parser = command(
        commands,
        "info",
        "Show what is in a LoRA file: dialect, base model, layers, ranks, alphas, norms per block.",
        "lorarar info cat.safetensors",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="a .safetensors file of any dialect")
    parser.add_argument("--convert", action="store_true", help="read a LoHa or LoKr as the LoRA it equals")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=_info)


def _info(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from lorarar.lora import describe, load_lora

    lora = load_lora(options.file, convert=options.convert)
    facts = describe(lora, lambda work: tqdm(work, desc="info", unit="layer", delay=2, disable=options.quiet))
    if options.json:
        print(json.dumps({"file": str(options.file), **facts}, indent=2))
        return
    alphas = _counts(facts["alphas"]) or "none in the file: alpha = rank"
    rows = [
        ("file", str(options.file)),
        ("sha256", facts["sources"][0]["sha256"]),
        ("dialect", facts["dialect"]),
        ("base model", facts["base"]),
        ("layers", f"{facts['layers']} ({_counts(facts['components'])})"),
        ("parameters", f"{facts['parameters']:,} ({', '.join(facts['dtypes'])})"),
        ("rank × layers", _counts(facts["ranks"])),
        ("alpha × layers", alphas),
        ("norm of ΔW", f"{facts['norm']:.4g}"),
    ]
    for key in sorted(k for k in facts["metadata"] if k.startswith("lorarar_")):
        rows.append((key.removeprefix("lorarar_"), _short(facts["metadata"][key])))
    for name, value in rows:
        print(f"{name:15} {value}")
    width = max(5, *map(len, facts["blocks"]))
    print(f"\n{'block':{width}}  layers  rank      norm of ΔW")
    for name, block in facts["blocks"].items():
        ranks = "–".join(str(r) for r in sorted({block["ranks"][0], block["ranks"][-1]}))
        print(f"{name:{width}}  {block['layers']:6}  {ranks:8}  {block['norm']:.4g}")


def _counts(counts: dict[Any, int]) -> str:
    """``64 × 560, 32 × 12``; at most eight of them."""
    shown = [f"{k:g} × {n}" if isinstance(k, float) else f"{k} × {n}" for k, n in list(counts.items())[:8]]
    return ", ".join(shown + ["…"] * (len(counts) > 8))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 100 else f"{text[:99]}…"


# ---------------------------------------------------------------------------------------------------------
# lorarar merge


def add_merge(commands: Commands) -> None:
    """``lorarar merge CONTENT STYLE -o OUT``: two LoRA files into one."""
    parser = command(
        commands,
        "merge",
        "Merge a content (subject) LoRA and a style LoRA into one LoRA file.",
        "lorarar merge cat.safetensors oil.safetensors -o out.safetensors --hypernetwork hyper.safetensors",
    )
    parser.add_argument("content", metavar="CONTENT", type=Path, help="the subject's LoRA file, any dialect")
    parser.add_argument("style", metavar="STYLE", type=Path, help="the style's LoRA file, any dialect")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="the file to write")
    parser.add_argument(
        "--method",
        choices=("lorarar", "direct", "ties", "dare", "dare-ties", "ziplora", "np-lora"),
        help="default: lorarar with --hypernetwork, ziplora with --coefficients, else direct",
    )
    parser.add_argument("--content-weight", type=float, default=1.0, metavar="W", help="default: 1")
    parser.add_argument("--style-weight", type=float, default=1.0, metavar="W", help="default: 1")
    parser.add_argument("--rank", type=int, metavar="R", help="compress to this rank; default: sum of both")
    parser.add_argument(
        "--format", choices=("diffusers", "kohya"), default="diffusers", help="kohya: ComfyUI, A1111"
    )
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), help="default: as the inputs")
    parser.add_argument("--convert", action="store_true", help="read a LoHa or LoKr as the LoRA it equals")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print the result's facts as JSON")
    by_columns = parser.add_argument_group("lorarar and ziplora")
    by_columns.add_argument("--hypernetwork", type=Path, metavar="FILE", help="lorarar: the trained network")
    by_columns.add_argument(
        "--coefficients", type=Path, metavar="FILE", help="ziplora: optimised coefficients"
    )
    by_columns.add_argument(
        "--parts",
        help="lorarar: layers that get coefficients, of query,key,value,output; default: those the "
        "hypernetwork was trained for, else query,output",
    )
    by_columns.add_argument(
        "--rest",
        choices=("average", "sum"),
        help="the layers without coefficients: averaged (the paper) or summed (its released code); default: "
        "as the hypernetwork was trained, else averaged",
    )
    by_entries = parser.add_argument_group("ties, dare and dare-ties")
    by_entries.add_argument(
        "--density", type=float, default=0.5, metavar="D", help="share kept; default: 0.5"
    )
    by_entries.add_argument("--seed", type=int, default=0, help="of dare's random choice; default: 0")
    by_entries.add_argument(
        "--flavour",
        choices=("delta", "factors"),
        default="delta",
        help="work on the updates (default) or on their factors, as peft does and the paper's comparison did",
    )
    by_projection = parser.add_argument_group("np-lora")
    by_projection.add_argument(
        "--mu", type=float, default=0.5, help="softness of the projection; default: 0.5"
    )
    parser.set_defaults(run=_merge)


def _merge(options: argparse.Namespace) -> None:
    _check_output(options.output, [options.content, options.style])
    method = options.method or (
        "lorarar" if options.hypernetwork else "ziplora" if options.coefficients else "direct"
    )
    for name, needs in (("hypernetwork", "lorarar"), ("coefficients", "ziplora")):
        given = getattr(options, name) is not None
        if given != (method == needs):
            raise ValueError(
                f"--{name} FILE goes with --method {needs}" + (f", not {method}" if given else "")
            )

    import torch
    from tqdm import tqdm

    from lorarar.lora import load_coefficients, load_lora, save_lora
    from lorarar.merging import merge

    content = load_lora(options.content, convert=options.convert)
    style = load_lora(options.style, convert=options.convert)
    hypernetwork = coefficients = None
    trained: dict[str, str] = {}
    if options.hypernetwork:
        from lorarar.hypernet import Hypernetwork

        hypernetwork = Hypernetwork.load(options.hypernetwork)
        trained = hypernetwork.metadata
    if options.coefficients:
        coefficients = load_coefficients(options.coefficients)
    merged = merge(
        content,
        style,
        method,
        content_weight=options.content_weight,
        style_weight=options.style_weight,
        hypernetwork=hypernetwork,
        coefficients=coefficients,
        parts=(options.parts or trained.get("parts", "query,output")).split(","),
        rest=options.rest or trained.get("rest", "average"),
        density=options.density,
        seed=options.seed,
        flavour=options.flavour,
        mu=options.mu,
        rank=options.rank,
        later=True,
        progress=lambda work: tqdm(work, desc=method, unit="layer", delay=2, disable=options.quiet),
    )
    dtype = getattr(torch, options.dtype) if options.dtype else None
    save_lora(merged, options.output, format=options.format, dtype=dtype)
    ranks = sorted({down.shape[0] for _, down in merged.values()})
    facts = {
        "file": str(options.output),
        "method": method,
        "base": merged.base,
        "layers": len(merged),
        "ranks": ranks,
        "bytes": options.output.stat().st_size,
        "sources": [{"file": source.name, "sha256": source.sha256} for source in merged.sources],
        "metadata": merged.metadata,
    }
    if options.json:
        print(json.dumps(facts, indent=2))
    elif not options.quiet:
        rank = "–".join(str(r) for r in sorted({ranks[0], ranks[-1]}))
        print(f"{options.output}: {method}, {len(merged)} layers, rank {rank}, {facts['bytes'] / 1e6:.1f} MB")


def _check_output(output: Path, inputs: Sequence[Path]) -> None:
    """Refuse a place that cannot be written before any work is done."""
    if output.is_dir():
        raise ValueError(f"{output}: is a folder, expected the name of a file to write")
    if not output.parent.is_dir():
        raise ValueError(f"{output}: its folder does not exist; make it first")
    if any(output.exists() and path.exists() and output.samefile(path) for path in inputs):
        raise ValueError(f"{output}: is one of the inputs; name another file to write")


# ---------------------------------------------------------------------------------------------------------
# lorarar ziplora, lorarar train-hypernetwork


def _add_fit(parser: argparse.ArgumentParser) -> None:
    """Add what the two commands that minimise the merging loss have in common."""
    parser.add_argument("--base", metavar="PATH_OR_ID", help="base model (default: the scale's)")
    parser.add_argument(
        "--scale",
        metavar="NAME",
        help="smoke, shoebox, sdxl, koala or sd15: base model and settings (default: shoebox, or the base's)",
    )
    parser.add_argument("--steps", metavar="N", type=int)
    parser.add_argument("--learning-rate", metavar="X", type=float)
    parser.add_argument("--similarity", metavar="X", type=float, help="λ, the similarity term's weight")
    parser.add_argument("--batch-size", metavar="N", type=int, help="samples a step of either LoRA")
    parser.add_argument(
        "--measure",
        choices=("dot", "cosine"),
        default="dot",
        help="of similarity: the papers' equation (default), or LoRA.rar's released code",
    )
    parser.add_argument(
        "--rest",
        choices=("average", "sum"),
        default="average",
        help="the layers without coefficients: averaged (the paper, default) or summed (its released code)",
    )
    parser.add_argument(
        "--draws", metavar="N", type=int, default=64, help="noised images of either LoRA; default: 64"
    )
    parser.add_argument("--loras", metavar="DIR", type=Path, help="the zoo's LoRAs; default: the scale's")
    parser.add_argument("--history", metavar="FILE", type=Path, help="write the loss's three terms as JSON")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="less memory, more time")
    parser.add_argument("--seed", metavar="N", type=int, default=0)
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:N or mps (default: the best)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no report")


def _fit(options: argparse.Namespace, scale: "Scale | None", fit: "Fit") -> dict[str, Any]:
    """The arguments that the two functions have in common: a scale's settings, with what was given."""
    given = {name: value for name in vars(fit) if (value := getattr(options, name)) is not None}
    return {
        **vars(fit),
        **given,
        "measure": options.measure,
        "rest": options.rest,
        "draws": options.draws,
        "seed": options.seed,
        "gradient_checkpointing": options.gradient_checkpointing
        or bool(scale and scale.gradient_checkpointing),
        "progress": not options.quiet,
    }


def _save_history(history: dict[str, list[float]], path: Path | None) -> None:
    if path is None:
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(json.dumps(history) + "\n")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _of_zoo(names: Sequence[str], loras: Path | None, scale: str) -> "list[Trained]":
    """The zoo's LoRAs of these names, with the pictures and captions they were trained on."""
    from lorarar.lora import load_lora
    from lorarar.objective import Trained
    from lorarar.shoebox import zoo

    folder = zoo.folder(scale) if loras is None else loras
    return [Trained(load_lora(zoo.file_of(name, folder)), *zoo.pictures(name), name) for name in names]


def add_ziplora(commands: Commands) -> None:
    """``lorarar ziplora CONTENT STYLE -o OUT``: coefficients for one pair, by optimisation."""
    parser = command(
        commands,
        "ziplora",
        "Find the merger coefficients of a content and a style LoRA by optimisation (ZipLoRA), and merge.",
        'lorarar ziplora cat.safetensors oil.safetensors --content-images cat --content-prompt "A sks cat"'
        ' --style-images oil --style-prompt "A vase in oil painting style" -o out.safetensors --scale sdxl\n'
        '  lorarar ziplora "dog #2" "oil painting #1" -o out.safetensors',
    )
    for side, what in (("content", "subject"), ("style", "style")):
        parser.add_argument(
            side, metavar=side.upper(), help=f"the {what}'s LoRA file, or its name in the zoo"
        )
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, help="the merged LoRA to write")
    parser.add_argument("--coefficients", metavar="FILE", type=Path, help="write the coefficients")
    for side in ("content", "style"):
        parser.add_argument(f"--{side}-images", metavar="DIR", type=Path, help="what its LoRA was trained on")
        words = parser.add_mutually_exclusive_group()
        words.add_argument(f"--{side}-prompt", metavar="TEXT", help="with which prompt")
        words.add_argument(
            f"--{side}-captions", metavar="FILE", type=Path, help="or with which captions, as in train-lora"
        )
    parser.add_argument(
        "--format", choices=("diffusers", "kohya"), default="diffusers", help="kohya: ComfyUI, A1111"
    )
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), help="default: as the inputs")
    parser.add_argument("--rank", type=int, metavar="R", help="compress to this rank; default: sum of both")
    _add_fit(parser)
    parser.set_defaults(run=_ziplora)


def _ziplora(options: argparse.Namespace) -> None:
    if not options.output and not options.coefficients:
        raise ValueError("nothing to write: give -o OUT for the merged LoRA, or --coefficients FILE, or both")
    if options.output == options.coefficients:
        raise ValueError(f"{options.output}: named for the merged LoRA and for the coefficients; name two")
    inputs = [Path(options.content), Path(options.style)]
    for path in (options.output, options.coefficients, options.history):
        if path is not None:
            _check_output(path, inputs)

    import torch

    from lorarar.lora import save_coefficients, save_lora
    from lorarar.merging import merge
    from lorarar.models import Fit, find_scale, load_pipeline
    from lorarar.objective import read_trained
    from lorarar.ziplora import optimise

    # What is cheap to check is checked before the base is loaded.
    scale = find_scale(options.scale or "shoebox") if options.scale or not options.base else None
    sides = []
    for side, path in zip(("content", "style"), inputs, strict=True):
        images, prompt, captions = (
            getattr(options, f"{side}_{kind}") for kind in ("images", "prompt", "captions")
        )
        if images is not None:
            if prompt is None and captions is None:
                raise ValueError(f"--{side}-images without --{side}-prompt TEXT or --{side}-captions FILE")
            sides.append(read_trained(path, images, prompt, captions))
        elif path.is_file() or path.suffix == ".safetensors":
            raise ValueError(
                f"{path}: give --{side}-images DIR and --{side}-prompt TEXT, which it was trained on"
            )
        else:
            sides += _of_zoo([str(path)], options.loras, options.scale or "shoebox")
    pipe = load_pipeline(options.base or scale, options.device)
    scale = scale or pipe.scale
    settings = _fit(options, scale, scale.ziplora if scale else Fit(steps=100))
    coefficients, history = optimise(pipe, *sides, **settings)
    said = {"lorarar_command": options.spoken}
    content, style = (side.lora for side in sides)
    merged = merge(content, style, "ziplora", coefficients=coefficients, rest=options.rest, rank=options.rank)
    if options.output:
        dtype = getattr(torch, options.dtype) if options.dtype else None
        save_lora(merged, options.output, format=options.format, dtype=dtype, metadata=said)
    if options.coefficients:
        save_coefficients(coefficients, options.coefficients, metadata=said)
    _save_history(history, options.history)
    if not options.quiet:
        first, last = (
            [sum(history[name][part]) / len(history[name][part]) for name in ("content", "style")]
            for part in (slice(0, 10), slice(-10, None))
        )
        written = ", ".join(str(path) for path in (options.output, options.coefficients) if path)
        print(
            f"{written}: {len(coefficients)} layers, {len(history['content'])} steps; content and style term "
            f"from {first[0]:.4f} and {first[1]:.4f} to {last[0]:.4f} and {last[1]:.4f}"
        )


def add_train_hypernetwork(commands: Commands) -> None:
    """``lorarar train-hypernetwork -o OUT``: LoRA.rar's network, on many pairs of LoRAs."""
    parser = command(
        commands,
        "train-hypernetwork",
        "Train the hypernetwork of LoRA.rar on pairs of content and style LoRAs: the zoo's, or your own.",
        "lorarar train-hypernetwork -o hypernet.safetensors\n"
        "  lorarar train-hypernetwork --contents c.jsonl --styles s.jsonl --scale sdxl -o hyper.safetensors",
    )
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="the file to write")
    parser.add_argument(
        "--names",
        nargs="+",
        metavar="NAME",
        help="subjects and styles of the zoo, or train, validation, test, all; default: train",
    )
    for side in ("contents", "styles"):
        parser.add_argument(
            f"--{side}",
            metavar="FILE",
            type=Path,
            help='instead of the zoo: JSON lines of {"lora": …, "images": …, "prompt": … or "captions": …}',
        )
    parser.add_argument("--pairs", metavar="N", type=int, help="how many pairs are drawn")
    parser.add_argument(
        "--parts",
        default="query,output",
        help="layers that get coefficients, of query,key,value,output; default: %(default)s",
    )
    parser.add_argument(
        "--order",
        choices=("in turn", "mixed"),
        default="in turn",
        help="of the pairs: all steps of one, then the next's (default), or round after round",
    )
    parser.add_argument("--hidden", metavar="N", type=int, default=128, help="hidden width; default: 128")
    parser.add_argument("--weight-decay", metavar="X", type=float, default=0.01, help="default: 0.01")
    parser.add_argument("--checkpoint-every", metavar="N", type=int, default=100)
    parser.add_argument(
        "--resume", action="store_true", help="go on from OUT.checkpoint, which an interrupted run leaves"
    )
    _add_fit(parser)
    parser.set_defaults(run=_train_hypernetwork)


def _train_hypernetwork(options: argparse.Namespace) -> None:
    for path in (options.output, options.history):
        if path is not None:
            _check_output(path, [])
    if (options.contents is None) != (options.styles is None):
        raise ValueError("--contents FILE and --styles FILE go together")
    if options.contents and (options.names or options.loras):
        raise ValueError("give either the zoo's --names and --loras, or --contents and --styles")

    from lorarar.models import Fit, find_scale, load_pipeline
    from lorarar.objective import read_list
    from lorarar.rar import train

    # What is cheap to check is checked before the base is loaded.
    scale = find_scale(options.scale or "shoebox") if options.scale or not options.base else None
    if options.contents:
        contents, styles = read_list(options.contents), read_list(options.styles)
    else:
        from lorarar.shoebox import zoo

        names = zoo.expand(options.names or ["train"])
        contents, styles = (
            _of_zoo(
                [name for name in names if zoo.axis(name) == axis], options.loras, options.scale or "shoebox"
            )
            for axis in ("subject", "style")
        )
    pipe = load_pipeline(options.base or scale, options.device)
    scale = scale or pipe.scale
    pairs = options.pairs if options.pairs is not None else scale.hypernetwork_pairs if scale else 100
    network, history = train(
        pipe,
        contents,
        styles,
        pairs=pairs,
        **_fit(options, scale, scale.hypernetwork if scale else Fit(steps=5000)),
        parts=options.parts.split(","),
        order=options.order,
        hidden=options.hidden,
        weight_decay=options.weight_decay,
        checkpoint=f"{options.output}.checkpoint",
        checkpoint_every=options.checkpoint_every,
        resume=options.resume,
        command=options.spoken,
    )
    network.save(options.output)
    _save_history(history, options.history)
    if not options.quiet:
        print(
            f"{options.output}: {len(contents)} content and {len(styles)} style LoRAs, {pairs} pairs, "
            f"{len(history['content'])} steps, {sum(p.numel() for p in network.parameters()):,} parameters"
        )


# ---------------------------------------------------------------------------------------------------------
# lorarar shoebox


def add_shoebox(commands: Commands) -> None:
    """``lorarar shoebox STEP``: draw the world, and train the miniatures, one step each."""
    parser = command(
        commands,
        "shoebox",
        "Draw the world, train its miniatures (clip, vae, critic, judge, dino, base), measure the base.",
        "lorarar shoebox base --steps 7000 --out data/shoebox",
    )
    steps = ("draw", "clip", "vae", "critic", "judge", "dino", "base", "measure")
    parser.add_argument("step", choices=steps)
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: shoebox in the data folder")
    parser.add_argument(
        "--checkpoints", type=Path, metavar="DIR", default=Path("runs"), help="default: %(default)s"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="default: the recipe's")
    parser.add_argument("--groups", type=int, metavar="N", help="drawings in groups of six; default: all")
    parser.add_argument(
        "--init", type=Path, metavar="DIR", help="what to train on: vae, base: a pipeline; judge: a judge"
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", default=1, help="measure: images per cell; default: 1"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--device", help="cpu, cuda, …; default: the best there is")
    parser.set_defaults(run=_shoebox)


def _shoebox(options: argparse.Namespace) -> None:
    for name in ("steps", "groups", "rounds"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, not {value}")
    part = {"vae": "vae", "base": "unet", "judge": ""}.get(options.step)
    if options.init and part is None:
        raise ValueError("--init goes with the steps vae, base and judge")
    if options.init and not (options.init / part / "config.json").is_file():
        raise ValueError(
            f"--init {options.init}: no {Path(part) / 'config.json'} in it; name a folder in the layout of "
            "diffusers, or for a judge of transformers"
        )

    from lorarar.models import data_folder, find_device
    from lorarar.shoebox import critic, train, world

    if options.step in ("judge", "dino"):
        from lorarar.shoebox import eyes

    out = options.out or data_folder() / "shoebox"
    device = str(find_device(options.device))
    groups = options.groups or train.GROUPS
    needs = {"base": ("base/vae", "clip"), "measure": ("base/unet", "critic")}
    for name in needs.get(options.step, ()):
        if not (out / name).is_dir():
            step = {"base/vae": "vae", "base/unet": "base"}.get(name, name)
            raise ValueError(f"{out} has no {name}: train it first, with `lorarar shoebox {step}`")
    if options.step == "draw":
        world.dataset(groups, options.seed)
        return
    if options.step == "measure":
        print(json.dumps(critic.measure_base(out, options.rounds, options.seed, device), indent=1))
        return
    recipe = train.scaled(options.step, options.steps)
    arguments = (out, options.checkpoints, recipe, options.seed, device, groups)
    trained = {
        "clip": lambda: train.train_clip(*arguments),
        "vae": lambda: train.train_vae(*arguments, init=options.init),
        "critic": lambda: critic.train_critic(*arguments),
        "base": lambda: train.train_base(*arguments, init=options.init),
        "judge": lambda: eyes.train_judge(*arguments, init=options.init),
        "dino": lambda: eyes.train_dino(*arguments),
    }[options.step]()
    print(json.dumps(trained, indent=1))


# ---------------------------------------------------------------------------------------------------------
# lorarar zoo


def add_zoo(commands: Commands) -> None:
    """``lorarar zoo STEP``: the LoRAs of the drawn world's subjects and styles, and their measurements."""
    parser = command(
        commands,
        "zoo",
        "Train the LoRAs of named subjects and styles (train), measure each alone (measure) and their sums "
        "(sums), and compare recipes (choose); the measurements go into data/recorded.",
        'lorarar zoo train --names "dog #2" "oil painting #1" --out data/loras',
    )
    parser.add_argument("step", choices=("train", "measure", "sums", "choose"))
    parser.add_argument(
        "--names",
        nargs="+",
        metavar="NAME",
        help="subjects, styles, or train, validation, test, all; default: the first chapters' six",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the LoRAs; default: data/loras (choose: runs/choose)"
    )
    parser.add_argument("--scale", metavar="NAME", default="shoebox", help="default: %(default)s")
    parser.add_argument("--images", type=int, metavar="N", help="train: pictures; default: 5 and 12")
    parser.add_argument(
        "--count",
        type=int,
        metavar="N",
        help="images judged; measure, choose: 20 a LoRA, sums: 10 a pair and weight",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:N or mps (default: the best)")
    parser.add_argument("--record", metavar="NAME", help="default: first_loras, first_sums, recipes")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no report")
    parser.set_defaults(run=_zoo)


def _zoo(options: argparse.Namespace) -> None:
    for name in ("images", "count"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, not {value}")
    if options.seed < 0:
        raise ValueError(f"--seed must not be negative, but is {options.seed}")
    if options.record and not options.record.replace("_", "").isalnum():
        raise ValueError(f"--record {options.record}: expected letters, digits and _")

    from lorarar.shoebox import zoo

    names = zoo.expand(options.names or zoo.FIRST)
    loras = options.out or zoo.folder(options.scale)
    common = {"seed": options.seed, "device": options.device, "progress": not options.quiet}
    if options.step == "train":
        for path in zoo.train(names, loras, options.scale, count=options.images, **common):
            if not options.quiet:
                print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
        return

    from PIL import Image

    from lorarar.book import inside, save_recorded
    from lorarar.models import data_folder

    sheet = None
    if options.step == "measure":
        record, count = options.record or "first_loras", options.count or 20
        values = zoo.measure(names, loras, options.scale, count=count, **common)
    elif options.step == "choose":
        record, count = options.record or "recipes", options.count or 20
        loras = options.out or Path("runs") / "choose" / options.scale
        values = zoo.choose(names, loras, options.scale, count=count, **common)
    else:
        record, count = options.record or "first_sums", options.count or 10
        values, sheet = zoo.sums(names, loras, options.scale, count=count, **common)
    judged = [] if options.step == "choose" else [zoo.file_of(name, loras) for name in names]
    judged += sorted((data_folder() / "shoebox").glob("*/**/*.safetensors"))
    spoken = " ".join(f'"{name}"' for name in options.names or ())
    path = save_recorded(
        record,
        {"count": count, "of": values},
        command=f"lorarar zoo {options.step}{f' --names {spoken}' if spoken else ''} --count {count}"
        + (f" --out {options.out}" if options.out and not options.out.is_absolute() else "")
        + (f" --scale {options.scale}" if options.scale != "shoebox" else "")
        + (f" --record {options.record}" if options.record else ""),
        seed=options.seed,
        scale=options.scale,
        inputs=inside(judged),
    )
    if sheet is not None:  # a row of images per pair, a column per cell
        pairs, columns, height, width, _ = sheet.shape
        pixels = sheet.swapaxes(1, 2).reshape(pairs * height, columns * width, 3)
        aside = path.with_suffix(f".{os.getpid()}")
        Image.fromarray(pixels).save(aside, format="PNG", optimize=True)
        os.replace(aside, path.with_suffix(".png"))
    if not options.quiet:
        print(f"{path}: {', '.join(names)}; {count} images each")


# ---------------------------------------------------------------------------------------------------------
# lorarar train-lora


def add_train_lora(commands: Commands) -> None:
    """``lorarar train-lora --images DIR --prompt TEXT -o OUT``: a LoRA of a few images (DreamBooth)."""
    parser = command(
        commands,
        "train-lora",
        "Train a LoRA on a few images of a subject or a style (DreamBooth), saved as a diffusers file.",
        'lorarar train-lora --images my-dog --prompt "A sks dog" -o dog.safetensors --scale sdxl',
    )
    parser.add_argument("--images", metavar="DIR", type=Path, required=True, help="the folder of images")
    words = parser.add_mutually_exclusive_group(required=True)
    words.add_argument("--prompt", metavar="TEXT", help='the prompt of all images, such as "A sks dog"')
    words.add_argument(
        "--captions",
        metavar="FILE",
        type=Path,
        help='a caption for each image: JSON lines of {"file_name": …, "text": …}',
    )
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="the file to write")
    parser.add_argument("--base", metavar="PATH_OR_ID", help="base model (default: the scale's)")
    parser.add_argument(
        "--scale",
        metavar="NAME",
        help="smoke, shoebox, sdxl, koala or sd15: base model and settings (default: shoebox, or the base's)",
    )
    parser.add_argument("--style", action="store_true", help="take the scale's settings for a style")
    parser.add_argument("--rank", metavar="R", type=int)
    parser.add_argument("--steps", metavar="N", type=int)
    parser.add_argument("--learning-rate", metavar="X", type=float)
    parser.add_argument("--batch-size", metavar="N", type=int)
    parser.add_argument("--warmup", metavar="N", type=int, help="steps over which the learning rate rises")
    parser.add_argument("--decay", metavar="SHARE", type=float, help="share of the steps over which it falls")
    parser.add_argument("--class-prompt", metavar="TEXT", help='prior preservation, such as "a dog"')
    parser.add_argument(
        "--prior-images", metavar="N|DIR", default="100", help="class images: how many to make, or a folder"
    )
    parser.add_argument("--prior-weight", metavar="X", type=float, default=1.0)
    parser.add_argument("--flip", action="store_true", help="also train on mirror images")
    parser.add_argument("--optimizer", choices=("adamw", "adamw8bit"), default="adamw")
    parser.add_argument("--precision", choices=("fp16", "bf16"), help="default: that of the base's weights")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="less memory, more time")
    parser.add_argument("--seed", metavar="N", type=int, default=0)
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:N or mps (default: the best)")
    parser.add_argument("--checkpoint-every", metavar="N", type=int, default=100)
    parser.add_argument(
        "--resume", action="store_true", help="go on from OUT.checkpoint, which an interrupted run leaves"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no report")
    parser.set_defaults(run=_train_lora)


def _train_lora(options: argparse.Namespace) -> None:
    _check_output(options.output, [])
    from lorarar.dreambooth import image_files, read_captions, read_images, train_lora
    from lorarar.lora import save_lora
    from lorarar.models import Recipe, find_scale, load_pipeline

    # What is cheap to check is checked before the base is loaded.
    scale = find_scale(options.scale or "shoebox") if options.scale or not options.base else None
    files = image_files(options.images)
    images = read_images(files)
    prompt = options.prompt
    if options.captions:
        prompt = read_captions(options.captions, [file.name for file in files])
    prior: int | Path = (
        int(options.prior_images) if options.prior_images.isdecimal() else Path(options.prior_images)
    )
    if options.class_prompt and isinstance(prior, Path):
        image_files(prior)
    pipe = load_pipeline(options.base or scale, options.device)
    scale = scale or pipe.scale
    recipe = vars(Recipe() if scale is None else scale.style if options.style else scale.content)
    given = {name: getattr(options, name) for name in recipe if getattr(options, name) is not None}
    lora = train_lora(
        pipe,
        images,
        prompt,
        **{**recipe, **given},
        class_prompt=options.class_prompt,
        class_images=prior,
        prior_weight=options.prior_weight,
        flip=options.flip,
        optimizer=options.optimizer,
        precision=options.precision,
        gradient_checkpointing=options.gradient_checkpointing or bool(scale and scale.gradient_checkpointing),
        seed=options.seed,
        checkpoint=f"{options.output}.checkpoint",
        checkpoint_every=options.checkpoint_every,
        resume=options.resume,
        progress=not options.quiet,
    )
    save_lora(lora, options.output, dtype=pipe.unet.dtype)
    if not options.quiet:
        size = options.output.stat().st_size / 1e6
        print(f"{options.output}: {len(images)} images, {len(lora)} layers, {size:.1f} MB")


# ---------------------------------------------------------------------------------------------------------
# lorarar generate


def add_generate(commands: Commands) -> None:
    """``lorarar generate --prompt TEXT -o OUT``: images from words, with LoRAs."""
    parser = command(
        commands,
        "generate",
        "Generate images from a prompt, with one or several LoRAs; several images make one grid.",
        'lorarar generate --prompt "A sks dog" --lora dog.safetensors --count 4 -o dogs.png',
    )
    parser.add_argument("--prompt", metavar="TEXT", required=True)
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="the image to write")
    parser.add_argument(
        "--lora",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="may be repeated: they are summed",
    )
    parser.add_argument(
        "--weight", metavar="X", type=float, action="append", help="of each --lora, in order (default: 1)"
    )
    parser.add_argument("--base", metavar="PATH_OR_ID", help="base model (default: the scale's)")
    parser.add_argument(
        "--scale",
        metavar="NAME",
        help="smoke, shoebox, sdxl, koala or sd15 (default: shoebox, or the base's)",
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, default=0, help="of the first image; then one more each"
    )
    parser.add_argument("--count", metavar="N", type=int, default=1, help="how many images")
    parser.add_argument("--steps", metavar="N", type=int, help="inference steps (default: the scale's)")
    parser.add_argument("--guidance", metavar="X", type=float, help="default: the scale's")
    parser.add_argument("--batch-size", metavar="N", type=int, default=16, help="images at once")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:N or mps (default: the best)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no report")
    parser.set_defaults(run=_generate)


def _generate(options: argparse.Namespace) -> None:
    _check_output(options.output, options.lora)
    if options.count < 1:
        raise ValueError(f"--count must be at least 1, not {options.count}")
    from PIL import Image

    formats = Image.registered_extensions()
    kind = formats.get(options.output.suffix.lower())
    if kind not in ("PNG", "JPEG", "WEBP"):
        raise ValueError(f"{options.output}: expected a name that ends in .png, .jpg or .webp")
    from lorarar.lora import load_lora
    from lorarar.models import find_scale, generate, grid, load_pipeline, loaded

    scale = find_scale(options.scale or "shoebox") if options.scale or not options.base else None
    loras = [load_lora(file) for file in options.lora]
    pipe = load_pipeline(options.base or scale, options.device)
    pipe.scale = scale or pipe.scale
    with loaded(pipe, *loras, weights=options.weight):
        images = generate(
            pipe,
            options.prompt,
            range(options.seed, options.seed + options.count),
            steps=options.steps,
            guidance=options.guidance,
            batch_size=options.batch_size,
            progress=not options.quiet,
        )
    aside = options.output.with_name(f".{options.output.name}.{os.getpid()}")
    try:
        Image.fromarray(grid(images)).save(aside, format=kind)
        os.replace(aside, options.output)
    finally:
        aside.unlink(missing_ok=True)
    if not options.quiet:
        print(f"{options.output}: {len(images)} × {images.shape[2]} × {images.shape[1]} pixels")


# ---------------------------------------------------------------------------------------------------------
# lorarar judge, lorarar metrics


def _add_looked_at(parser: argparse.ArgumentParser) -> None:
    """Add what the two commands that look at images have in common."""
    parser.add_argument("images", metavar="IMAGES", type=Path, help="a folder of images to look at")
    parser.add_argument("--subject", metavar="DIR", type=Path, required=True, help="images of the subject")
    parser.add_argument("--style", metavar="DIR", type=Path, required=True, help="images in the style")
    parser.add_argument(
        "--scale", metavar="NAME", default="shoebox", help="whose models look; default: %(default)s"
    )
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:N or mps (default: the best)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def add_judge(commands: Commands) -> None:
    """``lorarar judge IMAGES --subject DIR --style DIR --words TEXT``: MARS² of a folder."""
    parser = command(
        commands,
        "judge",
        "Let a multimodal language model say whether each image shows the subject in the style (MARS²).",
        'lorarar judge images --subject my-dog --style paintings --words "oil painting"',
    )
    _add_looked_at(parser)
    parser.add_argument("--words", metavar="TEXT", required=True, help='the style in words: "oil painting"')
    parser.add_argument(
        "--judge",
        metavar="SOURCE",
        help="a model's folder or id, or the address of an OpenAI-compatible server; default: the scale's",
    )
    parser.add_argument(
        "--model", metavar="NAME", help="of a server: which of its models; default: the first"
    )
    parser.add_argument("--batch-size", metavar="N", type=int, default=16, help="default: %(default)s")
    parser.set_defaults(run=_judge)


def _judge(options: argparse.Namespace) -> None:
    from lorarar.judge import find_judge, judge_files
    from lorarar.models import find_scale, local

    if not options.words.strip():
        raise ValueError('--words: say what the style is called, such as "oil painting"')
    source = options.judge or str(local(find_scale(options.scale).judge))
    for folder in (options.images, options.subject, options.style):
        _check_folder(folder)
    if source.startswith(("http://", "https://")):
        ask = find_judge(source, model=options.model, progress=not options.json)
    else:
        if options.model:
            raise ValueError("--model goes with the address of a server; give a model's folder to --judge")
        asked = {"device": options.device, "batch_size": options.batch_size, "progress": not options.json}
        ask = find_judge(source, **asked)
    found = judge_files(ask, options.images, options.subject, options.style, options.words)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    width = max(len(row["file"]) for row in found["images"])
    for row in found["images"]:
        answers = "  ".join(
            f"{axis} {'yes' if row[axis] else 'no ':<3} {row[f'{axis} votes']:>5}"
            for axis in ("subject", "style")
        )
        print(f"{row['file']:<{width}}  {answers}  {'right' if row['right'] else 'wrong'}")
    print(f"{found['right']:.1%} of {len(found['images'])} images show the subject in the style")


def add_metrics(commands: Commands) -> None:
    """``lorarar metrics IMAGES --subject DIR --style DIR --prompt TEXT``: CLIP-I, DINO and CLIP-T."""
    parser = command(
        commands,
        "metrics",
        "Measure how alike images are to a style's (CLIP-I), a subject's (DINO) and a prompt (CLIP-T).",
        'lorarar metrics images --subject my-dog --style paintings --prompt "a dog in oil painting style"',
    )
    _add_looked_at(parser)
    parser.add_argument("--prompt", metavar="TEXT", required=True, help="what the images were made from")
    parser.set_defaults(run=_metrics)


def _metrics(options: argparse.Namespace) -> None:
    from lorarar.metrics import load_encoder, measure_files
    from lorarar.models import find_scale, local

    scale = find_scale(options.scale)
    folders = (options.images, options.subject, options.style)
    for folder in folders:
        _check_folder(folder)
    clip, dino = (load_encoder(str(local(model)), options.device) for model in (scale.clip, scale.dino))
    found = measure_files(clip, dino, *folders, options.prompt)
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        for name, value in found.items():
            print(f"{name:<7}{value:.4f}")


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give a folder of images")


COMMANDS = [
    add_info,
    add_merge,
    add_ziplora,
    add_train_hypernetwork,
    add_shoebox,
    add_zoo,
    add_train_lora,
    add_generate,
    add_judge,
    add_metrics,
]


if __name__ == "__main__":
    sys.exit(main())
