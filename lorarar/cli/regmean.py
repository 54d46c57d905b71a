"""Command regmean: a merge by what the layers of either LoRA are given."""

import argparse
from pathlib import Path

from lorarar.cli.adapters import check_output
from lorarar.cli.options import add_base, add_options, given
from lorarar.options import InputsOptions, MergeOptions
from lorarar.parser import Commands, command


def add_regmean(commands: Commands) -> None:
    """``lorarar regmean CONTENT STYLE -o OUT``: merge by what the layers of either LoRA are given."""
    parser = command(
        commands,
        "regmean",
        "Merge by regression (RegMean): either LoRA draws a few pictures of its own, and the merge answers "
        "what its layers are given then as that LoRA would. Needs the base, no training and no images.",
        'lorarar regmean cat.safetensors oil.safetensors --content-prompt "a sks cat" '
        '--style-prompt "a vase in oil painting style" "a dog in oil painting style" -o out.safetensors '
        "--scale sdxl",
    )
    for side, what in (("content", "subject"), ("style", "style")):
        parser.add_argument(side, metavar=side.upper(), type=Path, help=f"the {what}'s LoRA")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="the file to write")
    for side, example in (
        ("content", '"a sks dog"'),
        ("style", '"a vase in oil painting style", or several'),
    ):
        parser.add_argument(
            f"--{side}-prompt",
            metavar="TEXT",
            nargs="+",
            required=True,
            help=f"what its LoRA was trained to draw, such as {example}",
        )
    parser.add_argument(
        "--format", choices=("diffusers", "kohya"), help="kohya: ComfyUI, A1111; default: as the inputs"
    )
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), help="default: as the inputs")
    add_base(parser)
    add_options(parser, InputsOptions)
    add_options(parser, MergeOptions, methods=("regmean",))
    parser.set_defaults(run=_regmean)


def _regmean(options: argparse.Namespace) -> None:
    check_output(options.output, [options.content, options.style])
    asked = InputsOptions.of(**given(options, InputsOptions))
    settings = MergeOptions.of(**given(options, MergeOptions))

    import torch
    from tqdm import tqdm

    from lorarar.lora import load_lora, own_format, save_lora
    from lorarar.merging import merge
    from lorarar.pipelines import check_fit, load_pipeline
    from lorarar.scales import find_scale
    from lorarar.train import own_inputs

    # What is cheap to check is checked before the base is loaded.
    scale = find_scale(options.scale or "shoebox") if options.scale or not options.base else None
    two = [load_lora(path) for path in (options.content, options.style)]
    pipe = load_pipeline(options.base or scale, options.device, scale)
    for path, lora in zip((options.content, options.style), two, strict=True):
        try:
            check_fit(pipe, lora)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    prompts = options.content_prompt, options.style_prompt
    first, second = (
        own_inputs(pipe, lora, said, asked, progress=not options.quiet)
        for lora, said in zip(two, prompts, strict=True)
    )
    dtype = getattr(torch, options.dtype) if options.dtype else None
    merged = merge(
        *two,
        "regmean",
        settings,
        inputs=(first, second),
        dtype=dtype,
        progress=lambda work: tqdm(work, desc="regmean", unit="layer", delay=2, disable=options.quiet),
    )
    format = options.format or own_format(*two)
    said = {"lorarar_command": options.spoken}
    save_lora(merged, options.output, format=format, dtype=dtype, metadata=said)
    if not options.quiet:
        ranks = max(down.shape[0] for _, down in merged.values())
        size = options.output.stat().st_size / 1e6
        print(f"{options.output}: regmean, {len(first)} layers by their inputs, rank {ranks}, {size:.1f} MB")
