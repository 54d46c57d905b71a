"""Chapter 1, the shoebox: its numbers, what it states, the papers' claims, and the figures only it has."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from lorarar.bookkit import figures, style
from lorarar.bookkit.claims import Claim, verdict
from lorarar.bookkit.controls import Control
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.tables import table
from lorarar.pipelines import generate
from lorarar.shoebox.world import world
from lorarar.shoebox.world.styles import STYLES, random_style
from lorarar.shoebox.world.subjects import SUBJECTS, random_identity
from lorarar.study.base import card

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

    from lorarar.shoebox.models.critic import Critic
    from lorarar.study.base import Clip

Right = tuple[np.ndarray, np.ndarray]
"""Where the class is right, and where the family is: two (n,) bool."""

PROMPTS = (
    "a teapot in watercolor painting style",
    "a robot toy in sticker style",
    "a cat in oil painting style",
    "a sofa in line drawing style",
    "a clock in glowing style",
    "a dog in wooden sculpture style",
    "a vase in cyberpunk style",
    "a boot in kid crayon drawing style",
)
"""On which guidance is measured."""


# ---------------------------------------------------------------- numbers


def recorded(scale: str) -> Facts:
    """Return the numbers that come from the miniatures' cards; all scales share the shoebox's."""
    cards = {name: card(name) for name in ("base", "base/vae", "clip", "critic")}
    before = re.search(r"\(([\d,]+) s ", cards["base"]["note"])  # an earlier run, from which base went on
    seconds = [c["seconds"] for c in cards.values()] + [float(before[1].replace(",", ""))]
    return Facts(
        hours=sum(seconds) / 3600,
        clip_card=cards["clip"]["held-out drawings"]["zero-shot class accuracy"],
        critic_subject=cards["critic"]["held-out drawings"]["test"]["subject balanced accuracy, hard pairs"],
        critic_style=cards["critic"]["held-out drawings"]["test"]["style balanced accuracy, hard pairs"],
    )


def live(
    *,
    gap: float,
    clip: Right,
    photos: np.ndarray,
    critic: Right,
    guided: Mapping[float, Mapping[str, float]],
    signal: float,
    sheet: Right,
    accepted: Mapping[str, Mapping[str, float]],
) -> Facts:
    """Return the numbers that the chapter computed.

    Args:
        gap: least distance of random dogs from the named ones.
        clip: in which drawings CLIP names the class, and the family, each (n,) bool.
        photos: CLIP's cosines of photos, of every class in turn, with each class's name: (n, classes).
        critic: the same as `clip`, of the critic.
        guided: what was measured at each guidance scale.
        signal: ᾱ of the last step.
        sheet: in which recorded pictures the critic sees class and family.
        accepted: shares that the critic accepts: {"subject" or "style": {what: share}}.
    """
    low, high = min(guided), max(guided)
    right = photos.argmax(1) == np.arange(len(photos)) % photos.shape[1]
    return Facts(
        {
            f"{eye}_{what}": right.mean()
            for eye, both in (("clip", clip), ("critic", critic))
            for what, right in zip(("class", "family"), both, strict=True)
        },
        {f"{what}_{w:g}": guided[w][what] for w in guided for what in ("near", "varied") if w in (1, 2, 8)},
        {f"{axis}_{what}": share for axis, shares in accepted.items() for what, share in shares.items()},
        gap=gap,
        clip_photos=right.mean(),
        contrast_gain=guided[high]["contrast"] / guided[low]["contrast"] - 1,
        near_best=max(guided, key=lambda w: guided[w]["near"]),
        signal_last=signal,
        sheet_class=sheet[0].mean(),
        sheet_family=sheet[1].mean(),
    )


# ---------------------------------------------------------------- findings


def statements(f: Facts) -> dict[str, bool]:
    """Return what the chapter's prose states, by its own words."""
    return {
        "the class that is asked for appears in": f.sheet_class > 0.97 and f.sheet_family > 0.95,
        "Words alone do not give the individual": f.subject_words < f.subject_again - 0.3,
        "could differ, say, in its main colour and a little in its build": 0.6 < f.gap < 0.75,
        "a CLIP good for that seldom names the class": f.clip_class < 0.3 and f.clip_card < 0.4,
        "on photos CLIP is better": f.clip_photos > f.clip_class + 0.1,
        "Its scores are good for style and little else": f.clip_family > 0.8 > 2 * f.clip_class,
        "Variety falls all the way": f.varied_1 > f.varied_2 + 0.05 and f.varied_2 > f.varied_8 + 0.01,
        "So guidance brings pictures nearer to their words only at first": f.near_best in (2, 3)
        and f.near_1 < f.near_2 - 0.02
        and f.near_8 < f.near_2 - 0.01,
        "words go some of the way": f.subject_strangers + 0.1 < f.subject_words < 0.7,
        "in about a third of pictures": 0.2 < f.subject_words < 0.45 and 0.2 < f.style_words < 0.45,
        "Our critic can be used": min(f.critic_class, f.critic_family) > 0.95
        and min(f.critic_subject, f.critic_style) > 0.85
        and min(f.subject_again, f.style_again) > 0.9
        and max(f.subject_strangers, f.style_strangers) < 0.3,
    }


def claims(f: Facts) -> list[Claim]:
    """Return the papers' claims that the chapter examines."""

    def by_words(again: float, strangers: float, words: float) -> tuple[str, str]:
        measured = (
            f"The critic accepts {words:.0%} of pictures from words, {again:.0%} of other drawings of it "
            f"and {strangers:.0%} of others."
        )
        if words > strangers + 0.1:
            measured += " Words get part of the way."
        return measured, verdict(words < strangers + 0.1, words < again / 2, against=words > again - 0.1)

    subject = by_words(f.subject_again, f.subject_strangers, f.subject_words)
    hand = by_words(f.style_again, f.style_strangers, f.style_words)
    return [
        Claim(
            "classes",
            "A text-to-image model knows classes: a prompt's noun appears",
            "DreamBooth, §1",
            f"The critic sees the class in {f.sheet_class:.0%} of 352 pictures.",
            verdict(f.sheet_class >= 0.95, f.sheet_class >= 0.5),
        ),
        Claim(
            "families",
            "It knows kinds of style: the one that a prompt names appears",
            "StyleDrop, §1",
            f"The critic sees the family in {f.sheet_family:.0%} of 352 pictures.",
            verdict(f.sheet_family >= 0.9, f.sheet_family >= 0.5),
        ),
        Claim("identity", "Words alone do not give a particular subject", "DreamBooth, §1", *subject),
        Claim("instance", "Words alone do not give a particular style", "StyleDrop, §1", *hand),
        Claim(
            "guidance",
            "Guidance brings pictures nearer to the prompt, and they vary less",
            "Classifier-free guidance, §4",
            f"Variety falls throughout ({f.varied_1:.2f} to {f.varied_8:.2f}). Nearness rises up to scale "
            f"{f.near_best:g} ({f.near_1:.2f} to {f.near_2:.2f} at 2) and falls to {f.near_8:.2f} at 8.",
            verdict(
                f.near_8 > f.near_2 and f.varied_8 < f.varied_1,
                f.near_2 > f.near_1 and f.varied_8 < f.varied_1,
                against=f.near_2 < f.near_1,
            ),
        ),
    ]


# ---------------------------------------------------------------- figures, tables, control


def axes_figure(rng: np.random.Generator) -> Figure:
    """Draw four subjects in five styles."""
    rows = ["dog #6", "colorful sneaker", "cat #2", "teapot"]
    columns = ["watercolor painting #1", "oil painting #2", "line drawing", "glowing", "wooden sculpture"]
    return figures.image_grid(
        [[world.draw(SUBJECTS[s], STYLES[t], rng) for t in columns] for s in rows],
        rows=rows,
        columns=columns,
    )


def twins_figure(rng: np.random.Generator) -> Figure:
    """Draw one subject against one class, and one style against one family."""
    hand, photo = STYLES["watercolor painting #1"], random_style(rng, "photo")
    things = [SUBJECTS[name] for name in ("dog #6", "rc car", "vase", "cat #1", "can")]
    return figures.image_grid(
        [
            [world.draw(SUBJECTS["dog #6"], photo, rng) for _ in range(5)],
            [world.draw(random_identity(rng, "dog"), photo, rng) for _ in range(5)],
            [world.draw(thing, hand, rng) for thing in things],
            [world.draw(things[0], random_style(rng, hand.family), rng) for _ in range(5)],
        ],
        rows=["one subject", "one class", "one style", "one family"],
    )


def models_table(pipe: DiffusionPipeline, clip: Clip, critic: Critic) -> Styler:
    """Return the miniatures: what each stands for, its class, its size, and how long it was trained."""

    def row(role: str, models: Sequence[torch.nn.Module], name: str) -> dict[str, str]:
        about = card(name)
        return {
            "In the papers": role,
            "Class": type(models[0]).__name__,
            "Weights": " + ".join(f"{sum(p.numel() for p in m.parameters()) / 1e6:.1f} M" for m in models),
            "Trained": f"{about['steps']:,} steps, {about['seconds'] / 60:.0f} min",
        }

    texts = [pipe.components[n] for n in ("text_encoder", "text_encoder_2") if n in pipe.components]
    read = row("SDXL's text encoders", texts, "clip") | {"Trained": "with CLIP, then with the UNet"}
    rows = [
        row("SDXL's UNet", [pipe.unet], "base"),
        row("SDXL's VAE", [pipe.vae], "base/vae"),
        read,
        row("CLIP, for scores", [clip.model], "clip"),
        row("people, or a judge", [critic], "critic"),
    ]
    return table(rows)


def guidance_figure(guided: Mapping[float, Mapping[str, float]]) -> Figure:
    """Show nearness to the words and variety over the guidance scale."""
    figure, panels = figures.panels(2, 3.2)
    for ax, key, title, colour in zip(
        panels, ("near", "varied"), ("near the words", "varied"), (style.SUBJECT, style.STYLE), strict=True
    ):
        ax.plot(list(guided), [values[key] for values in guided.values()], "o-", color=colour)
        ax.set(xlabel="guidance scale", title=title, xticks=[round(w) for w in guided])
        ax.set_ylim(0, None) if key == "varied" else None
    panels[0].set_ylabel("cosine")
    panels[1].set_ylabel("1 − cosine")
    return figure


def guidance_control(
    pipe: DiffusionPipeline, clip: Clip, known: dict[tuple[str, float], np.ndarray], seeds: Sequence[int]
) -> Control:
    """Return the control of prompt and guidance scale, which shows a picture for each seed.

    Args:
        pipe: the base.
        clip: that says how near the words a picture is.
        known: pictures that are there already, by prompt and scale.
        seeds: of the noises.
    """
    scales = sorted({w for _, w in known})

    def show(prompt: str, guidance: float) -> tuple[np.ndarray, str]:
        if (prompt, guidance) not in known:
            known[prompt, guidance] = generate(pipe, prompt, list(seeds), guidance=guidance)
        images = known[prompt, guidance]
        near = clip.cosines(images, [prompt]).mean()
        return np.concatenate(list(images), 1), f"Guidance {guidance:g}: nearness to the words {near:.2f}."

    return Control(
        show,
        {"prompt": PROMPTS, "guidance": sorted({*scales, 1.5, 2.5, 4, 6, 12})},
        frames={"prompt": PROMPTS[:4], "guidance": scales},
        start={"prompt": PROMPTS[0], "guidance": scales[1]},
        alt="One picture for each seed, from the same noise at every scale; colours grow with it",
    )
