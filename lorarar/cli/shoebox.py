"""Commands of the drawn world: shoebox, zoo."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lorarar.atomic import atomic
from lorarar.options import SPLITS
from lorarar.parser import Commands, command


def _decoder(options: argparse.Namespace, out: Path, device: str, groups: int) -> dict:
    from lorarar.shoebox.models import decoder

    recipe = replace(decoder.RECIPE, steps=options.steps or decoder.RECIPE.steps)
    init = options.init or out / "base"
    arguments = (out / "next", init, options.checkpoints, recipe, options.seed, device, groups)
    return decoder.train_decoder(*arguments, wide=options.wide)


def _sharpness(options: argparse.Namespace, out: Path, device: str, _: int) -> dict:
    from lorarar.shoebox.models import sharpness

    found = sharpness.measure(
        out / "base",
        out / "critic",
        options.checkpoints,
        options.images,
        vae=options.vae,
        seed=options.seed,
        steps=options.steps,
        guidance=options.guidance,
        device=device,
    )
    said = f"lorarar shoebox sharpness --seed {options.seed} --images {options.images}"
    said += f" --steps {found['steps']} --guidance {found['guidance']:g}"
    said += f" --vae {options.vae}" if options.vae else ""
    name = "sharpness" if options.vae is None else f"sharpness_{options.vae.resolve().parent.name}"
    inputs = [out / "base" / "unet", options.vae or out / "base" / "vae", out / "critic"]
    _save(name, found, said, options.seed, inputs)
    return found


def _changed(options: argparse.Namespace, out: Path, device: str, _: int) -> dict:
    from lorarar.judging import local_judge
    from lorarar.shoebox.models import hardest
    from lorarar.shoebox.models.critic import Critic
    from lorarar.shoebox.models.examination import by_critic, by_judge
    from lorarar.shoebox.models.sharpness import weights_hash

    drawn = hardest.cases(options.each, options.seed)
    present = [who for who in ("critic", "judge") if (out / who).is_dir()]
    found = {}
    for who in present:
        if who == "critic":
            verdict = by_critic(Critic.load(out / who))
        else:
            verdict = by_judge(local_judge(out / who, device, batch_size=64))
        digest = weights_hash(out, (who,))
        file = options.checkpoints / f"changed-{who}-{digest}-{options.seed}.json"
        found[who] = hardest.measure(hardest.remembered(verdict, file), drawn)
    said = f"lorarar shoebox changed --seed {options.seed} --each {options.each}"
    said += f" --out {options.out}" if options.out else ""
    name = f"changed_{options.out.resolve().name}" if options.out else "changed"
    _save(name, found, said, options.seed, [out / who for who in present])
    return found


def _save(name: str, found: dict, said: str, seed: int, folders: Sequence[Path]) -> None:
    from lorarar.records import inside, save_recorded

    files = [file for folder in folders for file in sorted(folder.glob("*.safetensors"))]
    save_recorded(name, found, command=said, seed=seed, scale="shoebox", inputs=inside(files))


def _strangers(options: argparse.Namespace, out: Path, _device: str, _: int) -> dict:
    from lorarar.shoebox.zoo import strangers

    made = strangers.draw(out, *options.sizes, seed=options.seed, split=options.split)
    return {"world": str(made), "individuals": options.sizes[0], "styles": options.sizes[1]}


_MORE = {"strangers": _strangers, "sharpness": _sharpness, "changed": _changed, "decoder": _decoder}


def add_shoebox(commands: Commands) -> None:
    """``lorarar shoebox STEP``: draw the world, and train the miniatures, one step each."""
    parser = command(
        commands,
        "shoebox",
        "Draw the world, train its miniatures (clip, vae, critic, judge, dino, base), measure the base "
        "(measure; sharpness: against drawings) and the judges on things with one change (changed); train a "
        "sharper decoder for the latents there are (decoder); draw individuals and styles without a name "
        "into folders (strangers).",
        "lorarar shoebox base --steps 7000 --out data/shoebox",
    )
    steps = ("draw", "clip", "vae", "critic", "judge", "dino", "base", "measure", *_MORE)
    parser.add_argument("step", choices=steps)
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: shoebox in the data folder")
    parser.add_argument(
        "--checkpoints", type=Path, metavar="DIR", default=Path("runs"), help="default: %(default)s"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="default: the recipe's")
    parser.add_argument("--groups", type=int, metavar="N", help="drawings in groups of six; default: all")
    parser.add_argument(
        "--init",
        type=Path,
        metavar="DIR",
        help="what to train on: vae, base, decoder: a pipeline; judge: a judge; critic: a critic's folder",
    )
    parser.add_argument(
        "--portraits",
        type=int,
        metavar="N",
        help="critic: train one that names attributes, on so many single drawings",
    )
    parser.add_argument("--images", type=int, metavar="N", default=352, help="sharpness: default: 352")
    parser.add_argument("--guidance", type=float, metavar="G", help="sharpness: default: the scale's")
    parser.add_argument(
        "--vae", type=Path, metavar="DIR", help="sharpness: an autoencoder in place of the base's"
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs=2,
        metavar="N",
        default=[20, 10],
        help="strangers: how many individuals and styles; default: 20 10",
    )
    parser.add_argument(
        "--split", choices=SPLITS, default="test", help="strangers: of all of them; default: %(default)s"
    )
    parser.add_argument("--wide", action="store_true", help="decoder: twice the channels")
    parser.add_argument(
        "--changed",
        type=float,
        metavar="SHARE",
        default=0.0,
        help="critic, judge: share of groups of drawings in which one thing is changed; default: 0",
    )
    parser.add_argument(
        "--wordings",
        choices=("paper", "several"),
        default="paper",
        help="judge: the questions in the paper's words, or in eight ways by lot; default: %(default)s",
    )
    parser.add_argument(
        "--each", type=int, metavar="N", default=6, help="changed: pictures of a case, twice; default: 6"
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", default=1, help="measure: images per cell; default: 1"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--device", help="cpu, cuda, …; default: the best there is")
    parser.set_defaults(run=_shoebox)


def _shoebox(options: argparse.Namespace) -> None:
    for name in ("steps", "groups", "rounds", "each", "portraits"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, not {value}")
    if options.images < 2:
        raise ValueError(f"--images must be at least 2, not {options.images}")
    if not 0 <= options.changed < 1:
        raise ValueError(f"--changed must be at least 0 and below 1, not {options.changed:g}")
    if options.portraits and options.step != "critic":
        raise ValueError("--portraits goes with the step critic")
    if options.wordings != "paper" and options.step != "judge":
        raise ValueError("--wordings goes with the step judge")
    if options.wordings != "paper" and (options.changed or not options.init):
        raise ValueError("--wordings several teaches a judge its words: add --init DIR, and no --changed")
    if options.step == "critic" and options.init and not options.portraits:
        raise ValueError("--init goes with the step critic only where it names attributes: add --portraits")
    starts = {
        "vae": "vae/config.json",
        "base": "unet/config.json",
        "judge": "config.json",
        "decoder": "vae/config.json",
        "critic": "critic.safetensors",
    }
    if options.init and options.step not in starts:
        raise ValueError("--init goes with the steps vae, base, decoder, judge and critic")
    if options.vae and not (options.vae / "config.json").is_file():
        raise ValueError(f"--vae {options.vae}: no config.json in it; name a folder with an autoencoder")
    if options.init and not (options.init / starts[options.step]).is_file():
        raise ValueError(
            f"--init {options.init}: no {starts[options.step]} in it; name a folder in the layout of "
            "diffusers, for a judge of transformers, for a critic one of data/shoebox/critic"
        )

    from lorarar.pipelines import find_device
    from lorarar.scales import data_folder
    from lorarar.shoebox.models import critic_training
    from lorarar.shoebox.models.loop import GROUPS
    from lorarar.shoebox.models.train import scaled, train_base, train_clip, train_vae
    from lorarar.shoebox.world import world

    if options.step in ("judge", "dino"):
        from lorarar.shoebox.models.dino import train_dino
        from lorarar.shoebox.models.judge_training import train_judge, train_words

    if options.step == "strangers" and not options.out:
        raise ValueError("strangers need a folder of their own: add --out DIR")
    out = options.out or data_folder() / "shoebox"
    device = str(find_device(options.device))
    groups = options.groups or GROUPS
    needs = {
        "base": ("base/vae", "clip"),
        "measure": ("base/unet", "critic"),
        "sharpness": ("base/unet", "critic"),
        "changed": ("critic",),
    }
    for name in needs.get(options.step, ()):
        if not (out / name).is_dir():
            step = {"base/vae": "vae", "base/unet": "base"}.get(name, name)
            raise ValueError(f"{out} has no {name}: train it first, with `lorarar shoebox {step}`")
    if options.step == "draw":
        world.dataset(groups, options.seed)
        return
    if options.step == "measure":
        print(json.dumps(critic_training.measure_base(out, options.rounds, options.seed, device), indent=1))
        return
    if options.step in _MORE:
        print(json.dumps(_MORE[options.step](options, out, device, groups), indent=1))
        return
    several = options.wordings == "several"
    recipe = scaled("namer" if options.portraits else "words" if several else options.step, options.steps)
    arguments = (out, options.checkpoints, recipe, options.seed, device, groups)
    trained = {
        "clip": lambda: train_clip(*arguments),
        "vae": lambda: train_vae(*arguments, init=options.init),
        "critic": lambda: (
            critic_training.train_namer(*arguments[:-1], options.portraits, options.init)
            if options.portraits
            else critic_training.train_critic(*arguments, changed=options.changed)
        ),
        "base": lambda: train_base(*arguments, init=options.init),
        "judge": lambda: (
            train_words(*arguments, init=options.init)
            if several
            else train_judge(*arguments, init=options.init, changed=options.changed)
        ),
        "dino": lambda: train_dino(*arguments),
    }[options.step]()
    print(json.dumps(trained, indent=1))


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

    from lorarar.collection import Folders
    from lorarar.shoebox import zoo

    world = Folders(options.world) if options.world else None
    names = world.expand(options.names or ["all"]) if world else zoo.expand(options.names or zoo.FIRST)
    loras = options.out or (world or zoo).folder(options.scale)
    common = {"seed": options.seed, "device": options.device, "progress": not options.quiet}
    if options.step == "train":
        made = zoo.train(
            names, loras, options.scale, count=options.images, targets=options.targets, world=world, **common
        )
        for path in made:
            if not options.quiet:
                print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
        return

    from PIL import Image

    from lorarar.records import inside, save_recorded
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
        with atomic(path.with_suffix(".png")) as aside:
            Image.fromarray(pixels).save(aside, format="PNG", optimize=True)
    if not options.quiet:
        print(f"{path}: {', '.join(names)}; {count} images each")
