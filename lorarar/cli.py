"""The command line: ``lorarar COMMAND …``.

A command is a function ``add_…(commands)`` that adds its parser and sets ``run``, a function of the parsed
arguments. What a command needs is imported when it runs, so that ``lorarar --help`` loads nothing.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from lorarar import __version__

Commands = Any  # argparse's own type for what add_subparsers returns is private

EXIT_STATUSES = """\
exit status: 0 done; 2 bad input or usage, said in one line on standard error, and nothing was written;
130 interrupted, and nothing was written"""


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
    return 0


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
        default="query,output",
        help="lorarar: layers that get coefficients, of query,key,value,output; default: %(default)s",
    )
    by_columns.add_argument(
        "--rest",
        choices=("average", "sum"),
        default="average",
        help="the layers without coefficients: averaged (the paper, default) or summed (its released code)",
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
    from lorarar.merge import merge

    content = load_lora(options.content, convert=options.convert)
    style = load_lora(options.style, convert=options.convert)
    hypernetwork = coefficients = None
    if options.hypernetwork:
        from lorarar.hypernet import Hypernetwork

        hypernetwork = Hypernetwork.load(options.hypernetwork)
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
        parts=options.parts.split(","),
        rest=options.rest,
        density=options.density,
        seed=options.seed,
        flavour=options.flavour,
        mu=options.mu,
        rank=options.rank,
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


COMMANDS = [add_info, add_merge]


if __name__ == "__main__":
    sys.exit(main())
