"""Commands on images: generate, judge, metrics."""

import argparse
import json
from pathlib import Path

from lorarar.atomic import atomic
from lorarar.cli.adapters import check_output
from lorarar.cli.options import add_base, add_options, given
from lorarar.options import JudgeOptions, SeriesOptions
from lorarar.parser import Commands, command


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
        help="a LoRA; may be repeated: they are summed",
    )
    parser.add_argument(
        "--weight",
        metavar="X",
        type=float,
        action="append",
        help="weight of each --lora, in order (default: 1)",
    )
    add_base(parser)
    add_options(parser, SeriesOptions)
    parser.set_defaults(run=_generate)


def _generate(options: argparse.Namespace) -> None:
    check_output(options.output, options.lora)
    settings = SeriesOptions.of(**given(options, SeriesOptions))
    from PIL import Image

    formats = Image.registered_extensions()
    kind = formats.get(options.output.suffix.lower())
    if kind not in ("PNG", "JPEG", "WEBP"):
        raise ValueError(f"{options.output}: expected a name that ends in .png, .jpg or .webp")
    from lorarar.lora import load_lora
    from lorarar.pipelines import generate, grid, load_pipeline, loaded
    from lorarar.scales import find_scale

    scale = find_scale(options.scale or "shoebox") if options.scale or not options.base else None
    loras = [load_lora(file) for file in options.lora]
    pipe = load_pipeline(options.base or scale, options.device, scale)
    with loaded(pipe, *loras, weights=options.weight):
        images = generate(
            pipe,
            options.prompt,
            settings.seeds,
            settings,
            progress=not options.quiet,
        )
    with atomic(options.output) as aside:
        Image.fromarray(grid(images)).save(aside, format=kind)
    if not options.quiet:
        print(f"{options.output}: {len(images)} × {images.shape[2]} × {images.shape[1]} pixels")


def _add_looked_at(parser: argparse.ArgumentParser) -> None:
    """Add what the two commands that look at images have in common."""
    parser.add_argument("images", metavar="IMAGES", type=Path, help="a folder of images to look at")
    parser.add_argument("--subject", metavar="DIR", type=Path, required=True, help="images of the subject")
    parser.add_argument("--style", metavar="DIR", type=Path, required=True, help="images in the style")
    parser.add_argument(
        "--scale",
        metavar="NAME",
        default="shoebox",
        help="which scale's models look at them; default: %(default)s",
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
    add_options(parser, JudgeOptions)
    parser.set_defaults(run=_judge)


def _judge(options: argparse.Namespace) -> None:
    from lorarar.judging import find_judge, judge_files
    from lorarar.scales import find_scale, local

    if not options.words.strip():
        raise ValueError('--words: say what the style is called, such as "oil painting"')
    source = options.judge or str(local(find_scale(options.scale).judge))
    for folder in (options.images, options.subject, options.style):
        _check_folder(folder)
    settings = JudgeOptions.of(**given(options, JudgeOptions))
    ask = find_judge(source, settings, device=options.device, progress=not options.json)
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
        "Measure how close images are to a style (CLIP-I), a subject (DINO) and a prompt (CLIP-T).",
        'lorarar metrics images --subject my-dog --style paintings --prompt "a dog in oil painting style"',
    )
    _add_looked_at(parser)
    parser.add_argument("--prompt", metavar="TEXT", required=True, help="what the images were made from")
    parser.set_defaults(run=_metrics)


def _metrics(options: argparse.Namespace) -> None:
    from lorarar.judging import load_encoder, measure_files
    from lorarar.scales import find_scale, local

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
