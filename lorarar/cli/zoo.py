"""The command of the drawn world's LoRAs: zoo."""

import argparse
from pathlib import Path

from lorarar.parser import Commands, command


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
    parser.add_argument(
        "--base", type=Path, metavar="DIR", help="train: another base than the scale's, with --out"
    )
    parser.add_argument(
        "--world", type=Path, metavar="DIR", help="train: folders of your own pictures, with a world.json"
    )
    parser.add_argument("--images", type=int, metavar="N", help="train: pictures; default: 5 and 12, or all")
    parser.add_argument(
        "--targets",
        nargs="+",
        metavar="LAYER",
        help="train: how the names of the layers end that get an update; default: all of attention",
    )
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

    if options.targets and options.step != "train":
        raise ValueError("--targets goes with zoo train")
    if options.world and options.step != "train":
        raise ValueError("--world DIR goes with zoo train; see lorarar study for the rest")
    if options.base and not (options.step == "train" and options.out):
        raise ValueError("--base DIR goes with zoo train, and needs a folder for its LoRAs: add --out DIR")

    from lorarar.collection import Folders
    from lorarar.scales import based
    from lorarar.shoebox import zoo

    world = Folders(options.world) if options.world else None
    names = world.expand(options.names or ["all"]) if world else zoo.expand(options.names or zoo.FIRST)
    loras = options.out or (world or zoo).folder(options.scale)
    common = {"seed": options.seed, "device": options.device, "progress": not options.quiet}
    if options.step == "train":
        scale = based(options.scale, options.base)
        made = zoo.train(
            names, loras, scale, count=options.images, targets=options.targets, world=world, **common
        )
        for path in made:
            if not options.quiet:
                print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
        return

    from lorarar.records import inside, save_recorded, save_sheet
    from lorarar.scales import data_folder

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
        save_sheet(pixels, path.with_suffix(".webp"))
    if not options.quiet:
        print(f"{path}: {', '.join(names)}; {count} images each")
