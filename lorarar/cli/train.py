"""Commands that train: ziplora, train-hypernetwork, train-lora."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lorarar.atomic import atomic
from lorarar.cli.adapters import check_output
from lorarar.cli.options import add_base, add_options, given
from lorarar.options import HypernetworkOptions, LoraOptions, ZipLoraOptions
from lorarar.parser import Commands, command

if TYPE_CHECKING:
    from lorarar.options import Options
    from lorarar.scales import Scale
    from lorarar.train import Trained


def _add_resume(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint-every", metavar="N", type=int, default=100)
    parser.add_argument(
        "--resume", action="store_true", help="go on from OUT.checkpoint, which an interrupted run leaves"
    )


def _add_merger(parser: argparse.ArgumentParser) -> None:
    """Add what the two commands that minimise the merging loss have in common."""
    add_base(parser)
    parser.add_argument("--loras", metavar="DIR", type=Path, help="the zoo's LoRAs; default: the scale's")
    parser.add_argument("--history", metavar="FILE", type=Path, help="write the loss's three terms as JSON")


def _options(
    kind: "type[Options]", options: argparse.Namespace, scale: "Scale | None", recipe: "Options | None"
) -> "Options":
    """Return a training's options: the scale's recipe, with what was given."""
    changes = given(options, kind)
    if scale is not None and scale.gradient_checkpointing:
        changes["gradient_checkpointing"] = True
    return kind.of(recipe, **changes)


def _save_history(history: dict[str, list[float]], path: Path | None) -> None:
    if path is not None:
        # Five digits: a loss says no more, and all of them would be twice as many bytes.
        short = {term: [float(f"{value:.5g}") for value in values] for term, values in history.items()}
        with atomic(path) as aside:
            aside.write_text(json.dumps(short) + "\n")


def _of_zoo(names: Sequence[str], loras: Path | None, scale: str) -> "list[Trained]":
    """The zoo's LoRAs of these names, with the pictures and captions they were trained on."""
    from lorarar.lora import load_lora
    from lorarar.shoebox import zoo
    from lorarar.train import Trained

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
        parser.add_argument(
            f"--{side}-images", metavar="DIR", type=Path, help="the pictures its LoRA was trained on"
        )
        words = parser.add_mutually_exclusive_group()
        words.add_argument(f"--{side}-prompt", metavar="TEXT", help="the prompt it was trained with")
        words.add_argument(
            f"--{side}-captions", metavar="FILE", type=Path, help="or its captions, as in train-lora"
        )
    parser.add_argument(
        "--format", choices=("diffusers", "kohya"), default="diffusers", help="kohya: ComfyUI, A1111"
    )
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), help="default: as the inputs")
    parser.add_argument("--rank", type=int, metavar="R", help="compress to this rank; default: sum of both")
    _add_merger(parser)
    add_options(parser, ZipLoraOptions)
    parser.set_defaults(run=_ziplora)


def _ziplora(options: argparse.Namespace) -> None:
    if not options.output and not options.coefficients:
        raise ValueError("nothing to write: give -o OUT for the merged LoRA, or --coefficients FILE, or both")
    if options.output == options.coefficients:
        raise ValueError(f"{options.output}: named for the merged LoRA and for the coefficients; name two")
    inputs = [Path(options.content), Path(options.style)]
    for path in (options.output, options.coefficients, options.history):
        if path is not None:
            check_output(path, inputs)

    import torch

    from lorarar.lora import save_coefficients, save_lora
    from lorarar.merging import merge
    from lorarar.pipelines import load_pipeline
    from lorarar.scales import find_scale
    from lorarar.train import optimise, read_trained

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
    pipe = load_pipeline(options.base or scale, options.device, scale)
    scale = pipe.scale
    settings = _options(ZipLoraOptions, options, scale, scale and scale.ziplora)
    coefficients, history = optimise(pipe, *sides, settings, progress=not options.quiet)
    said = {"lorarar_command": options.spoken}
    content, style = (side.lora for side in sides)
    merged = merge(
        content, style, "ziplora", coefficients=coefficients, rest=settings.rest, rank=options.rank
    )
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
        "Train the hypernetwork of LoRA.rar, or one that reads invariants, on pairs of content and style "
        "LoRAs: the zoo's, or your own.",
        "lorarar train-hypernetwork -o hypernet.safetensors\n"
        "  lorarar train-hypernetwork --reads invariants --hidden 48 --parts query,key,value,output"
        " --order mixed --batch-size 4 --steps 2000 --decay 1 -o reader.safetensors\n"
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
    _add_merger(parser)
    add_options(parser, HypernetworkOptions)
    _add_resume(parser)
    parser.set_defaults(run=_train_hypernetwork)


def _train_hypernetwork(options: argparse.Namespace) -> None:
    for path in (options.output, options.history):
        if path is not None:
            check_output(path, [])
    if (options.contents is None) != (options.styles is None):
        raise ValueError("--contents FILE and --styles FILE go together")
    if options.contents and (options.names or options.loras):
        raise ValueError("give either the zoo's --names and --loras, or --contents and --styles")

    from lorarar.pipelines import load_pipeline
    from lorarar.scales import find_scale
    from lorarar.train import read_list, train_hypernetwork

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
    pipe = load_pipeline(options.base or scale, options.device, scale)
    scale = pipe.scale
    pairs = options.pairs if options.pairs is not None else scale.hypernetwork_pairs if scale else 100
    network, history = train_hypernetwork(
        pipe,
        contents,
        styles,
        _options(HypernetworkOptions, options, scale, scale and scale.hypernetwork),
        pairs=pairs,
        progress=not options.quiet,
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
            f"{len(history['content'])} steps, {network.size:,} parameters"
        )


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
    add_base(parser)
    parser.add_argument("--style", action="store_true", help="take the scale's settings for a style")
    parser.add_argument(
        "--prior-images", metavar="N|DIR", default="100", help="class images: how many to make, or a folder"
    )
    parser.add_argument(
        "--dtype",
        choices=("float16", "bfloat16", "float32"),
        default="float16",
        help="number format of the file; default: %(default)s",
    )
    add_options(parser, LoraOptions, leave_out=("targets",))
    _add_resume(parser)
    parser.set_defaults(run=_train_lora)


def _train_lora(options: argparse.Namespace) -> None:
    check_output(options.output, [])
    import torch

    from lorarar.images import image_files, read_images
    from lorarar.lora import save_lora
    from lorarar.pipelines import load_pipeline
    from lorarar.scales import find_scale
    from lorarar.train import read_captions, train_lora

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
    pipe = load_pipeline(options.base or scale, options.device, scale)
    scale = pipe.scale
    recipe = scale and (scale.style if options.style else scale.content)
    lora = train_lora(
        pipe,
        images,
        prompt,
        _options(LoraOptions, options, scale, recipe),
        class_images=prior,
        checkpoint=f"{options.output}.checkpoint",
        checkpoint_every=options.checkpoint_every,
        resume=options.resume,
        progress=not options.quiet,
    )
    save_lora(lora, options.output, dtype=getattr(torch, options.dtype))
    if not options.quiet:
        size = options.output.stat().st_size / 1e6
        print(f"{options.output}: {len(images)} images, {len(lora)} layers, {size:.1f} MB")
