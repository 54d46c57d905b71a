"""Chapter 2, training a LoRA: its numbers, what it states, the papers' claims, and its own figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import torch

from lorarar.bookkit import figures, style
from lorarar.bookkit.claims import Claim, verdict
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.tables import table
from lorarar.lora import LoRA, delta_weight, norm
from lorarar.merging import singular_values
from lorarar.pipelines import generate, loaded
from lorarar.records import recorded as load_record
from lorarar.records import suffix
from lorarar.shoebox import zoo
from lorarar.study.cuts import energy

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

    from lorarar.shoebox.models.critic import Critic
    from lorarar.study.cuts import Gain

Label = str | int | float
SUBJECT, STYLE = "dog #2", "watercolor painting #1"
KEPT = {("rank", 4), ("rank", 1), ("largest", 0.5), ("largest", 0.2), ("largest", 0.05), ("any", 0.2)}
"""The cuts whose ρ the text quotes."""
WEAK = 0.7  # a LoRA that is right in fewer images counts as weak

# ---------------------------------------------------------------- numbers


def recorded(scale: str) -> Facts:
    """Return the numbers that come from recorded runs."""
    every = load_record(f"zoo{suffix(scale)}")["of"]
    ones = load_record(f"one_image_loras{suffix(scale)}")
    default, *others = recipes = load_record(f"recipes{suffix(scale)}")["of"]
    facts = Facts(
        kilobytes=every[SUBJECT]["bytes"] / 1000,
        seconds=np.mean([row["seconds"] for row in every.values()]),
        weak=sum(row["lora"] < WEAK for row in every.values()),
        weak_train=sum(every[name]["lora"] < WEAK for name in zoo.expand(["train"])),
        worst=min(row["lora"] for row in every.values()),
        least=min(min(row["subject"], row["style"]) for row in recipes),
        most_ahead=max(row[kind] - default[kind] for row in others for kind in ("subject", "style")),
        one_right=np.mean([row["lora"] for row in ones["of"].values()]),
        one_base=np.mean([row["base"] for row in ones["of"].values()]),
        twelve_right=np.mean([every[name]["lora"] for name in ones["of"]]),
        one_worst=ones["of"][STYLE]["lora"],
        one_worst_base=ones["of"][STYLE]["base"],
        words_right=every[STYLE]["base"],
    )
    for kind in ("subject", "style"):
        rows = [row for row in every.values() if row["axis"] == kind]
        facts |= {f"{kind}_{key}": np.mean([row[key] for row in rows]) for key in ("lora", "base")}
    return facts


def live(
    lora: LoRA,
    other: LoRA,
    pipe: DiffusionPipeline,
    curves: Mapping[str, Sequence[float]],
    rho: Mapping[tuple[str, float], tuple[float, float]],
    gains: Mapping[float | str, Gain],
    right: Mapping[str, float],
    fifths: Mapping[str, float],
) -> Facts:
    """Return the numbers that the chapter computed.

    Args:
        lora: the subject's.
        other: the style's.
        pipe: the base, without a LoRA.
        curves: the loss of each probe in training, from step 0.
        rho: (ρ of the subject's LoRA, ρ of the style's) by (way to cut, how much is kept).
        gains: of the style's LoRA, by strength, and "a fifth of the entries".
        right: the share of images that the critic accepts, by name.
        fifths: the share of the squared entries that the largest fifth holds: update, noise.
    """
    layer = strongest(lora)
    weight = pipe.unet.get_submodule(layer.removeprefix("unet.")).weight.detach().float()
    dense = sum(up.shape[0] * down.shape[1] for up, down in lora.values())
    thin = sum(up.numel() + down.numel() for up, down in lora.values())
    first = {"its photos": "own", "new photos": "new", "other dogs": "others"}
    facts = Facts(
        {f"loss_{first[name]}": values[-1] / values[0] for name, values in curves.items()},
        {f"right_{name}": share for name, share in right.items()},
        {f"energy_{name}": share for name, share in fifths.items()},
        layers=len(lora),
        dense=dense,
        thin=thin,
        ratio=dense / thin,
        strength=norm(lora[layer]) / float(weight.norm()),
        rank_one_energy=min(first_energy(lora), first_energy(other)),
    )
    for (way, kept), (of_subject, of_style) in rho.items():
        if (way, kept) in KEPT:
            end = f"{way}_{round(100 * kept) if kept < 1 else kept}"
            facts |= {f"rho_subject_{end}": of_subject, f"rho_style_{end}": of_style}
    for at, gain in gains.items():
        end = f"{round(100 * at)}" if isinstance(at, float) else "fifth"
        facts |= {f"own_{end}": gain.own, f"new_{end}": gain.new}
    return facts


def strongest(lora: LoRA) -> str:
    """Return the layer with the largest ‖ΔW‖."""
    return max(lora, key=lambda layer: norm(lora[layer]))


def first_energy(lora: LoRA) -> float:
    """Return the share of ‖ΔW‖² in the first singular value, averaged over layers."""
    values = [singular_values(pair).square() for pair in lora.values()]
    return float(np.mean([float(v[0] / v.sum()) for v in values]))


def fifths(lora: LoRA, seed: int) -> dict[str, float]:
    """Return the share of ‖ΔW‖² in the largest fifth of the entries: of the LoRA, and of Gaussian noise."""
    deltas = [delta_weight(pair) for pair in lora.values()]
    source = torch.Generator().manual_seed(seed)
    noise = [torch.randn(delta.shape, generator=source) for delta in deltas]
    return {"fifth": energy(deltas, 0.2), "noise": energy(noise, 0.2)}


def right_of(
    critic: Critic,
    ranked: Mapping[str | int, np.ndarray],
    styled: Mapping[int, np.ndarray],
    accepted: Mapping[float, float],
    training: Training,
) -> dict[str, float]:
    """Return the share of images that the critic accepts, by the name that `live` takes."""
    names = {"base": "base", "LoRA": "subject", 2: "rank_2", 1: "rank_1"}
    first, last = training.pictures[0], training.pictures[max(training.pictures)]
    return {
        **{names[label]: zoo.shows(critic, SUBJECT, images).mean() for label, images in ranked.items()},
        **{f"style_{kept}": zoo.shows(critic, STYLE, images).mean() for kept, images in styled.items()},
        **{f"strength_{round(100 * w)}": share for w, share in accepted.items() if w < 1},
        "untrained": zoo.shows(critic, SUBJECT, first).mean(),
        "trained": zoo.shows(critic, SUBJECT, last).mean(),
    }


# ---------------------------------------------------------------- pictures and training


def draw(
    pipe: DiffusionPipeline, name: str, loras: Mapping[Label, LoRA | None], count: int
) -> dict[Label, np.ndarray]:
    """Generate a subject or a style with each LoRA, or with none, from the same noises: {label: images}."""
    images = {}
    for label, lora in loras.items():
        with loaded(pipe, *([] if lora is None else [lora])):
            images[label] = generate(pipe, zoo.tests(name, count), range(count))
    return images


def enlarged(drawings: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return drawings (n, h, w, 3) as large as other images, by repeating pixels."""
    times = like.shape[1] // drawings.shape[1]
    return drawings.repeat(times, 1).repeat(times, 2)


class Training:
    """Watches a LoRA while it is trained: the loss of three probes at eleven moments, pictures at four.

    Args:
        pipe: the base, whose UNet is being trained.
        name: of the subject.
        steps: of the training.
        samples: noised pictures of each probe.
    """

    def __init__(self, pipe: DiffusionPipeline, name: str, steps: int, samples: int) -> None:
        self.pipe, self.name = pipe, name
        others = np.concatenate([zoo.pictures(other, 1)[0] for other in zoo.rivals(name)])
        self.probes = {
            "its photos": zoo.probe(pipe, *zoo.pictures(name), samples),
            "new photos": zoo.probe(pipe, *zoo.pictures(name, seed=2), samples),
            "other dogs": zoo.probe(pipe, others, ["a dog"] * len(others), samples),
        }
        self.steps = sorted({round(steps * k / 10) for k in range(11)})
        self.moments = {round(steps * share) for share in (0, 0.25, 0.5, 1)}
        self.curves: dict[str, list[float]] = {probe: [] for probe in self.probes}
        self.pictures: dict[int, np.ndarray] = {}
        self.watch(0)

    def watch(self, step: int, loss: float = 0.0) -> None:
        """Measure, and draw, with the LoRA as it is after this step."""
        if step in self.steps:
            for probe, batch in self.probes.items():
                self.curves[probe].append(zoo.loss(self.pipe, batch))
        if step in self.moments:
            self.pictures[step] = generate(self.pipe, zoo.words(self.name), range(4))

    def frames(self) -> tuple[np.ndarray, list[str]]:
        """Return the pictures of each moment side by side, (moments, h, 4 w, 3), and a label for each."""
        rows = [np.concatenate(list(images), 1) for images in self.pictures.values()]
        return np.stack(rows), [f"after {step} steps" for step in self.pictures]


# ---------------------------------------------------------------- findings


def statements(f: Facts) -> dict[str, bool]:
    """Return what the chapter's prose states, by its own words."""
    halves = f.rho_subject_rank_4, f.rho_style_rank_4, f.rho_subject_largest_50, f.rho_style_largest_50
    return {
        "take credit for what the base model does anyway": f.subject_base < 0.2 < 0.9 < f.subject_lora,
        "All three belong to training pairs": f.weak == f.weak_train == 3,
        "Small is not weak": f.strength > 0.2,
        "More than half of what the LoRA gained is learnt by heart": 0
        < 1 - f.loss_new
        < (1 - f.loss_own) / 2,
        "On other dogs the loss has risen": f.loss_others > 1.01,
        "Every recipe gets at least": f.least >= 0.9 and f.most_ahead < 0.05,
        "answers nearly as the whole LoRA does": max(halves) < 0.12,
        "about a quarter of its effect is gone": 0.2 < f.rho_style_largest_20 < 0.35,
        "Rank 1 is not": min(f.rho_subject_rank_1, f.rho_style_rank_1) > 0.25,
        "Which entries are kept matters": f.rho_style_any_20 > f.rho_style_largest_20 + 0.2
        and f.rho_subject_any_20 > f.rho_subject_largest_20 + 0.2,
        "pictures fade as ρ grows": f.right_style_100 > f.right_style_5 > f.right_style_1
        and f.right_subject > f.right_rank_1,
        "no more than words alone give": f.right_style_1 < f.words_right + 0.1,
        "by the loss, throwing away four fifths of the update is an improvement": f.new_fifth
        > 1.2 * f.new_100
        > 0
        and f.own_fifth < f.own_100,
        "while the pictures get worse": f.right_style_20 < f.right_style_100 - 0.1,
        "the loss falls as long as the strength grows to one": f.own_25 < f.own_50 < f.own_75 < f.own_100
        and f.own_125 < f.own_100,
        "lowest at three quarters of a LoRA's strength": f.new_75
        > max(f.new_25, f.new_50, f.new_100, f.new_125),
        "beyond full strength the LoRA soon does harm": f.new_125 < 0,
        "the share it accepts rises with the strength": f.right_strength_50 + 0.1 < f.right_style_100,
        "Most of what looks like sparsity": 0.5 * f.energy_fifth < f.energy_noise < f.energy_fifth - 0.05,
        "One drawing teaches much": f.one_base + 0.3 < f.one_right < f.twelve_right - 0.1,
        "But it depends on the style": f.one_worst < f.one_right - 0.15,
    }


def claims(f: Facts) -> list[Claim]:
    """Return the papers' claims that the chapter examines."""
    return [
        Claim(
            "few_photos",
            "A handful of photos and a rare token bind a subject, so that the model draws it anew",
            "DreamBooth, §1",
            f"30 LoRAs: the subject is right in {f.subject_lora:.0%} of images, without the LoRA in "
            f"{f.subject_base:.0%}.",
            verdict(f.subject_lora >= 0.9 and f.subject_base <= 0.15, f.subject_lora > f.subject_base + 0.3),
        ),
        Claim(
            "low_rank",
            "A very small rank suffices",
            "LoRA, §7.2",
            f"Cut to rank 4 of 8, ρ is {f.rho_subject_rank_4:.2f} and {f.rho_style_rank_4:.2f}; "
            f"to rank 1, {f.rho_subject_rank_1:.2f} and {f.rho_style_rank_1:.2f}. Trained at "
            "rank 4, LoRAs do as well as at 8. So rank 4 is enough; rank 1, by cutting, is not.",
            verdict(
                max(f.rho_subject_rank_1, f.rho_style_rank_1) < 0.1,
                max(f.rho_subject_rank_4, f.rho_style_rank_4) < 0.1,
            ),
        ),
        Claim(
            "sparse",
            "A style survives when 80 % of the entries of ΔW are thrown away",
            "ZipLoRA, supplement §3",
            f"One style, 20 images: right in {f.right_style_20:.0%}, with all entries in "
            f"{f.right_style_100:.0%}; ρ {f.rho_style_largest_20:.2f}. It survives in part.",
            verdict(
                f.right_style_20 >= f.right_style_100 - 0.1,
                f.right_style_20 >= f.right_style_100 / 2,
                against=f.right_style_20 < f.right_style_1 + 0.1,
            ),
        ),
        Claim(
            "too_sparse",
            "It suffers when still more are thrown away",
            "ZipLoRA, supplement §3",
            f"Right in {f.right_style_5:.0%} of images with 5 % of the entries and in {f.right_style_1:.0%} "
            "with 1 %.",
            verdict(f.right_style_1 < f.right_style_20 - 0.15, against=f.right_style_1 > f.right_style_20),
        ),
        Claim(
            "one_image",
            "A style is learnt from a single picture, without feedback",
            "ZipLoRA, supplement §3",
            f"Three styles: right in {f.one_right:.0%} of images from one picture, {f.twelve_right:.0%} from "
            f"twelve, {f.one_base:.0%} from none. One is hardly learnt ({f.one_worst:.0%} against "
            f"{f.one_worst_base:.0%}).",
            verdict(f.one_right >= f.twelve_right - 0.1, f.one_right >= f.one_base + 0.3),
        ),
    ]


# ---------------------------------------------------------------- figures and tables


def factors_figure(lora: LoRA) -> Figure:
    """Show up, down and their product, of the strongest layer."""
    up, down = (factor.float() for factor in lora[strongest(lora)])
    figure, axes = plt.subplots(
        1, 3, figsize=(style.WIDTH, 2.4), width_ratios=[1, 4, 4], layout="constrained"
    )
    for ax, matrix, label in zip(axes, (up, down, up @ down), ("up", "down", "ΔW"), strict=True):
        largest = float(matrix.abs().quantile(0.99))
        ax.imshow(
            matrix, cmap=style.DIVERGING, vmin=-largest, vmax=largest, interpolation="nearest", aspect="equal"
        )
        ax.set_title(label)
        ax.axis("off")
    return figure


def curves_figure(steps: Sequence[int], curves: Mapping[str, Sequence[float]]) -> Figure:
    """Show the loss of each probe as a share of the base model's."""
    return figures.lines(
        steps,
        {name: np.array(values) / values[0] for name, values in curves.items()},
        xlabel="step",
        ylabel="loss ÷ base model's",
        colours={"its photos": style.SUBJECT, "new photos": style.SKY, "other dogs": style.GREY},
    )


def images_figure(images: Mapping[Label, np.ndarray], name: str, critic: Critic) -> Figure:
    """Show a row of at most five images for each label, framed by whether the critic accepts them."""
    colours = {True: style.VERDICT_COLOURS[True, True], False: style.VERDICT_COLOURS[False, False]}
    rows = [
        [style.framed(image, colours[bool(right)]) for image, right in zip(row, seen, strict=True)][:5]
        for row, seen in ((row, zoo.shows(critic, name, row)) for row in images.values())
    ]
    return figures.image_grid(rows, rows=[str(label) for label in images])


def cuts_figure(rho: Mapping[tuple[str, float], tuple[float, float]]) -> Figure:
    """Show ρ of the cut updates: by rank on the left, by entries kept on the right."""
    figure, (left, right) = figures.panels(2, 4.0, sharey=True)
    sides = (("subject", 0, style.SUBJECT), ("style", 1, style.STYLE))
    for side, which, colour in sides:
        ranks = {kept: both[which] for (way, kept), both in rho.items() if way == "rank"}
        left.plot(list(ranks), list(ranks.values()), "o-", color=colour, label=side)
        for way, line in (("largest", "-"), ("any", ":")):
            kept = {100 * share: both[which] for (how, share), both in rho.items() if how == way}
            name = f"{side}, largest" if way == "largest" else f"{side}, chosen blindly"
            right.plot(list(kept), list(kept.values()), marker="o", linestyle=line, color=colour, label=name)
    left.set(
        xlabel="rank kept", ylabel="ρ", title="rank", xticks=[8, 4, 2, 1], xlim=(0.5, 8.5), ylim=(0, 1.05)
    )
    left.invert_xaxis()
    right.set(xlabel="entries kept, %", title="entries", xscale="log", xlim=(200, 0.7))
    right.set_xticks([100, 20, 5, 1], ["100", "20", "5", "1"])
    right.minorticks_off()
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def strength_figure(gains: Mapping[float | str, Gain], right: Mapping[float, float]) -> Figure:
    """Show, by strength of the style's LoRA, what the losses fall by, and which share of images is right."""
    strengths = [at for at in gains if isinstance(at, float)]
    figure, (left, panel) = figures.panels(2, 3.6)
    for kind, colour, label in (
        ("own", style.STYLE, "its own examples"),
        ("new", style.OTHER, "new drawings"),
    ):
        left.plot(strengths, [getattr(gains[w], kind) for w in strengths], "o-", color=colour, label=label)
    left.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    left.set(xlabel="strength", title="the loss falls by")
    panel.plot(list(right), list(right.values()), "o-", color=style.INK, label="images, by the critic")
    panel.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    panel.set(xlabel="strength", title="style is right in", xticks=list(right), ylim=(0, 1.05), xmargin=0.2)
    figures.legend_below(figure)
    return figure


def recipes_table(scale: str) -> Styler:
    """Return what the critic says of LoRAs by other recipes."""
    words = {"rank": "rank", "steps": "steps", "learning_rate": "learning rate"}
    rows = [
        {
            "Changed": ", ".join(f"{words[k]} {v:g}" for k, v in row["changed"].items()) or "nothing",
            "Subjects right": row["subject"],
            "Worst subject": row["worst subject"],
            "Styles right": row["style"],
            "Worst style": row["worst style"],
        }
        for row in load_record(f"recipes{suffix(scale)}")["of"]
    ]
    return table(rows, ".0%")
