"""Commands on files: info, merge."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from lorarar.cli.options import add_options, given, group_of
from lorarar.options import METHODS, MergeOptions
from lorarar.parser import Commands, command


def add_info(commands: Commands) -> None:
    """``lorarar info FILE``: what is in a LoRA file."""
    parser = command(
        commands,
        "info",
        "Show what is in a LoRA file: dialect, base model, layers, ranks, alphas, norms per block; or what "
        "the answers of a hypernetwork depend on.",
        "lorarar info cat.safetensors\n"
        "  lorarar info hypernet.pth --contents cat.safetensors dog.safetensors --styles oil.safetensors",
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="a .safetensors file of any dialect, a folder of peft's, or a hypernetwork: ours or a .pth",
    )
    for side in ("contents", "styles"):
        parser.add_argument(
            f"--{side}",
            nargs="+",
            metavar="LORA",
            type=Path,
            default=[],
            help="for a hypernetwork: LoRAs; shows what its answers to their pairs vary with",
        )
    parser.add_argument("--convert", action="store_true", help="read a LoHa or LoKr as the LoRA it equals")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=_info)


def _info(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from lorarar.hypernet import is_network
    from lorarar.lora import describe, load_lora, report

    if is_network(options.file):
        _info_of_network(options)
        return
    if options.contents or options.styles:
        raise ValueError(f"{options.file}: is no hypernetwork; leave out --contents and --styles")
    lora = load_lora(options.file, convert=options.convert)
    facts = describe(lora, lambda work: tqdm(work, desc="info", unit="layer", delay=2, disable=options.quiet))
    if options.json:
        print(json.dumps({"file": str(options.file), **facts}, indent=2))
        return
    print(f"{'file':15} {options.file}\n{report(facts)}")


def _info_of_network(options: argparse.Namespace) -> None:
    from lorarar.hypernet import load_network
    from lorarar.lora import load_lora
    from lorarar.study.sight import described, report

    network = load_network(options.file)
    sides = [
        [load_lora(path, convert=options.convert) for path in paths]
        for paths in (options.contents, options.styles)
    ]
    facts = described(network, *sides)
    if options.json:
        print(json.dumps({"file": str(options.file), **facts}, indent=2))
        return
    print(f"{'file':15} {options.file}\n{report(facts)}")


def add_merge(commands: Commands) -> None:
    """``lorarar merge CONTENT STYLE -o OUT``: two LoRA files into one."""
    parser = command(
        commands,
        "merge",
        "Merge a content (subject) LoRA and a style LoRA into one LoRA file.",
        "lorarar merge cat.safetensors oil.safetensors -o out.safetensors --hypernetwork hyper.safetensors",
    )
    parser.add_argument(
        "content",
        metavar="CONTENT",
        type=Path,
        help="the subject's LoRA, a file of any dialect or a folder of peft's",
    )
    parser.add_argument("style", metavar="STYLE", type=Path, help="the style's LoRA, likewise")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="the file to write")
    parser.add_argument(
        "--method",
        choices=METHODS,
        help="default: lorarar with --hypernetwork, ziplora with --coefficients, else direct",
    )
    parser.add_argument(
        "--format",
        choices=("diffusers", "kohya", "old-diffusers"),
        help="kohya: ComfyUI, A1111, Forge; old-diffusers: the papers' own scripts; default: as the inputs",
    )
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), help="default: as the inputs")
    parser.add_argument("--convert", action="store_true", help="read a LoHa or LoKr as the LoRA it equals")
    parser.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")
    parser.add_argument("--json", action="store_true", help="print the result's facts as JSON")
    group_of(parser, ["lorarar"]).add_argument(
        "--hypernetwork",
        type=Path,
        metavar="FILE",
        help="the trained network, which reads columns or invariants",
    )
    group_of(parser, ["ziplora", "table"]).add_argument(
        "--coefficients",
        type=Path,
        metavar="FILE",
        help="ziplora: optimised for this pair; table: stored means (`lorarar study means`)",
    )
    add_options(parser, MergeOptions)
    parser.set_defaults(run=_merge)


def _merge(options: argparse.Namespace) -> None:
    check_output(options.output, [options.content, options.style])
    method = options.method or (
        "lorarar" if options.hypernetwork else "ziplora" if options.coefficients else "direct"
    )
    for name, needs in (("hypernetwork", ["lorarar"]), ("coefficients", ["ziplora", "table"])):
        has = getattr(options, name) is not None
        if has != (method in needs):
            instead = f", not {method}" if has else ""
            raise ValueError(f"--{name} FILE goes with --method {' or '.join(needs)}{instead}")
    settings = given(options, MergeOptions)
    MergeOptions.of(**settings)  # what is cheap to check is checked before anything is loaded

    import torch
    from tqdm import tqdm

    from lorarar.lora import load_coefficients, load_lora, own_format, readers, save_lora, who_reads
    from lorarar.merging import merge

    dtype = getattr(torch, options.dtype) if options.dtype else None
    content = load_lora(options.content, convert=options.convert)
    style = load_lora(options.style, convert=options.convert)
    hypernetwork = coefficients = None
    if options.hypernetwork:
        from lorarar.hypernet import load_network

        hypernetwork = load_network(options.hypernetwork)
        settings = hypernetwork.merge_options | settings
    if options.coefficients:
        coefficients = load_coefficients(options.coefficients)
    merged = merge(
        content,
        style,
        method,
        MergeOptions.of(**settings),
        hypernetwork=hypernetwork,
        coefficients=coefficients,
        dtype=dtype,
        later=True,
        progress=lambda work: tqdm(work, desc=method, unit="layer", delay=2, disable=options.quiet),
    )
    format = options.format or own_format(content, style)
    save_lora(merged, options.output, format=format, dtype=dtype)
    ranks = sorted({down.shape[0] for _, down in merged.values()})
    facts = {
        "file": str(options.output),
        "format": format,
        "readers": readers(merged, format),
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
        if line := who_reads(merged, format):
            print(f"{options.output}: {line}")


def check_output(output: Path, inputs: Sequence[Path]) -> None:
    """Refuse a place that cannot be written before any work is done."""
    if output.is_dir():
        raise ValueError(f"{output}: is a folder, expected the name of a file to write")
    if not output.parent.is_dir():
        raise ValueError(f"{output}: its folder does not exist; make it first")
    files = [f for path in inputs for f in (path.iterdir() if path.is_dir() else [path])]
    if any(output.exists() and path.exists() and output.samefile(path) for path in files):
        raise ValueError(f"{output}: is one of the inputs; name another file to write")
