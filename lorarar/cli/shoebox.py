"""The command of the drawn world and its miniatures: shoebox."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

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


def _save(name: str, found: dict, said: str, seed: int, folders: Sequence[Path]) -> Path:
    from lorarar.records import inside, save_recorded

    files = [file for folder in folders for file in sorted(folder.glob("*.safetensors"))]
    return save_recorded(name, found, command=said, seed=seed, scale="shoebox", inputs=inside(files))


def _strangers(options: argparse.Namespace, out: Path, _device: str, _: int) -> dict:
    from lorarar.shoebox.zoo import strangers

    made = strangers.draw(out, *options.sizes, seed=options.seed, split=options.split)
    return {"world": str(made), "individuals": options.sizes[0], "styles": options.sizes[1]}


def _backbone(options: argparse.Namespace, out: Path, device: str, groups: int) -> dict:
    from lorarar.scales import data_folder
    from lorarar.shoebox.models import distillation

    recipe = replace(distillation.RECIPE, steps=options.steps or distillation.RECIPE.steps)
    arguments = (out, options.checkpoints, recipe, options.seed, device, groups)
    return distillation.train_backbone(options.kind, data_folder() / "shoebox", *arguments)


def _beside(options: argparse.Namespace, out: Path, device: str, _: int) -> dict:
    from lorarar.records import save_sheet
    from lorarar.scales import data_folder
    from lorarar.shoebox.models import distillation

    home = data_folder() / "shoebox"
    made = {file.parent.name: file.parent for file in sorted(out.glob("*/model_index.json"))}
    if not made:
        raise ValueError(f"{out} holds no pipelines: train one with `lorarar shoebox backbone`")
    folders = {"base": home / "base", **made}
    found, sheet = distillation.beside(
        folders, home, options.checkpoints, options.images, options.seed, device
    )
    for name, folder in made.items():
        found["of"][name] |= {"card": json.loads((folder / "card.json").read_text())}
    said = f"lorarar shoebox beside --out {options.out} --images {options.images} --seed {options.seed}"
    parts = [folder / "unet" for folder in folders.values()]
    path = _save("backbones", found, said, options.seed, [*parts, home / "critic"])
    save_sheet(sheet, path.with_suffix(".webp"))
    return found


_MORE = {
    "strangers": _strangers,
    "sharpness": _sharpness,
    "changed": _changed,
    "decoder": _decoder,
    "backbone": _backbone,
    "beside": _beside,
}


def add_shoebox(commands: Commands) -> None:
    """``lorarar shoebox STEP``: draw the world, and train the miniatures, one step each."""
    parser = command(
        commands,
        "shoebox",
        "Draw the world, train its miniatures (clip, vae, critic, judge, dino, base), measure the base "
        "(measure; sharpness: against drawings) and the judges on things with one change (changed); train a "
        "sharper decoder for the latents there are (decoder); train another backbone, taught by the base "
        "(backbone), and measure those in a folder beside it (beside); draw individuals and styles without "
        "a name into folders (strangers).",
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
        help="what to train on: vae, base, decoder: a pipeline; judge: a judge (the heads by which its eyes "
        "learnt are in no file and begin at random); critic: a critic's folder",
    )
    parser.add_argument(
        "--portraits",
        type=int,
        metavar="N",
        help="critic: train one that names attributes, on so many single drawings",
    )
    parser.add_argument("--kind", choices=("koala", "sd15"), help="backbone: KOALA or SD 1.5, in miniature")
    parser.add_argument(
        "--images", type=int, metavar="N", default=352, help="sharpness, beside: default: 352"
    )
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
    if bool(options.kind) != (options.step == "backbone"):
        raise ValueError("the step backbone needs --kind koala or --kind sd15, and no other step takes it")
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

    if options.step in ("strangers", "backbone", "beside") and not options.out:
        raise ValueError(f"{options.step}: a folder of their own is needed: add --out DIR")
    out = options.out or data_folder() / "shoebox"
    device = str(find_device(options.device))
    groups = options.groups or GROUPS
    home = data_folder() / "shoebox" if options.step in ("backbone", "beside") else out
    needs = {
        "backbone": ("base/unet",),
        "beside": ("base/unet", "critic"),
        "base": ("base/vae", "clip"),
        "measure": ("base/unet", "critic"),
        "sharpness": ("base/unet", "critic"),
        "changed": ("critic",),
    }
    for name in needs.get(options.step, ()):
        if not (home / name).is_dir():
            step = {"base/vae": "vae", "base/unet": "base"}.get(name, name)
            raise ValueError(f"{home} has no {name}: train it first, with `lorarar shoebox {step}`")
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
