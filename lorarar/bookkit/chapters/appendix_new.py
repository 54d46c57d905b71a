"""The appendix on new things: other words for a merge, and concepts learnt from a single picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from lorarar.bookkit import contests, figures
from lorarar.bookkit import style as look
from lorarar.bookkit.claims import Claim, sign_verdict
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.pictures import image_grid
from lorarar.hypernet import load_network
from lorarar.merging import merge
from lorarar.pipelines import generate, load_pipeline, loaded
from lorarar.shoebox import zoo
from lorarar.train import own_inputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAIR = ("bear plushie", "watercolor painting #1")
RECIPE = "the same, inputs of rms 1"
"""Of LoRA.rar's network, trained to its end."""
WATERCOLOUR = "watercolor painting style"
PROMPTS = (
    f"a sks plushie in {WATERCOLOUR}",
    f"a green sks plushie in {WATERCOLOUR}",
    f"a blue and white sks plushie in {WATERCOLOUR}",
    "a sks plushie",
    "a sks plushie in wooden sculpture style",
    f"a sks cat in {WATERCOLOUR}",
)
"""The pair's own prompt, and five others."""
COLOURED = {"green": (1, 1), "blue": (2, 2)}
"""Words of colour: the prompt that has one, and the channel that it should raise."""
CONCEPTS = ("toaster", "tv", "sofa", "cyberpunk")
"""LoRA.rar, §A2.5: three pieces of furniture and a style."""
SPLITS = {
    "plushies": ("objects_to_plushies", "Stuffed animals in cartoons"),
    "objects": ("animals_to_objects", "Objects in rainbow, wood, gold"),
}
"""LoRA.rar, §A2.6: the two new splits, their records and what is merged."""
SPLIT_ROWS = {
    "LoRA.rar, this split": "rar",
    "place alone, this split": "place",
    "ZipLoRA": "zip",
    "sum at 0.7": "sum",
    "plain sum": "plain",
}
"""The rows of a split's contest, in the figure's order."""
ROWS = {
    "LoRA.rar, as shipped": "shipped",
    "LoRA.rar, converged": "rar",
    "ZipLoRA": "zip",
    "sum at 0.7": "sum",
}
"""The rows whose means are told."""


def recorded(scale: str = "shoebox") -> Facts:
    """Return the numbers from shipped files: the contests on new concepts and on new splits."""
    return Facts(_concepts(scale), *(_split(key, scale) for key in SPLITS))


def _split(key: str, scale: str) -> dict[str, float]:
    name, network = SPLITS[key][0], "LoRA.rar, this split"
    rows, leads = contests.means(name, scale), contests.leads(name, scale)
    facts = {f"{key}_{short}": rows[row].value for row, short in SPLIT_ROWS.items()}
    for short, row in (("sum", "sum at 0.7"), ("place", "place alone, this split")):
        lead = leads[network, row]
        facts |= {f"{key}_over_{short}": 100 * lead.value, f"{key}_over_{short}_least": lead.low}
    return facts | contests.ends(f"{key}_behind_zip", leads[network, "ZipLoRA"], -100)


def _concepts(scale: str) -> dict[str, float]:
    rows = contests.means("new_concepts", scale)
    facts = {f"new_{key}": rows[row].value for row, key in ROWS.items()}
    leads = contests.leads("new_concepts", scale)
    facts |= contests.ends("rar_over_zip", leads["LoRA.rar, converged", "ZipLoRA"], 100)
    facts["shipped_over_zip_low"] = leads["LoRA.rar, as shipped", "ZipLoRA"].low
    facts["rar_over_sum_low"] = leads["LoRA.rar, converged", "sum at 0.7"].low
    return facts


def drawn(scale: str, seed: int = 0) -> dict[str, list[np.ndarray]]:
    """Draw `PROMPTS` from one noise by two merges of `PAIR`: {merge: [(h, w, 3) uint8, …]}."""
    pipe, (content, style) = load_pipeline(scale), zoo.load_pair(*PAIR)
    asked = {"pictures": 2, "drawing_steps": 2} if scale == "smoke" else {}
    things = [f"a {thing} in {WATERCOLOUR}" for thing in ("dog", "vase", "can")]
    inputs = own_inputs(pipe, content, "a sks plushie", **asked), own_inputs(pipe, style, things, **asked)
    network = load_network(contests.shipped(RECIPE))
    merges = {
        "RegMean": merge(content, style, "regmean", inputs=inputs),
        "LoRA.rar": merge(content, style, "lorarar", hypernetwork=network, **network.merge_options),
    }
    pictures = {}
    for name, merged in merges.items():
        with loaded(pipe, merged):
            pictures[name] = [generate(pipe, prompt, seed + 3)[0] for prompt in PROMPTS]
    return pictures


def live(pictures: Mapping[str, Sequence[np.ndarray]]) -> Facts:
    """Return how far a word of colour raises its channel over the other two, in grey levels of 256, by merge.

    Args:
        pictures: of `PROMPTS`, by merge, from one noise, each (h, w, 3).
    """
    facts = {}
    for name, shown in pictures.items():
        for word, (place, channel) in COLOURED.items():
            gain = (_excess(shown[place], channel) - _excess(shown[0], channel)).mean()
            facts[f"{contests.key(name)}_{word}"] = float(gain)
    return Facts(facts)


def _excess(image: np.ndarray, channel: int) -> np.ndarray:
    """Return by how much a channel exceeds the mean of the other two: (h, w)."""
    levels = image.astype(float)
    return 1.5 * (levels[..., channel] - levels.mean(-1))


def statements(facts: Facts) -> dict[str, bool]:
    """Return the findings of the prose, each by a fragment of it."""
    f = facts
    return {
        "Both follow the words": min(f[f"{m}_{w}"] for m in ("regmean", "rar") for w in COLOURED) > 2,
        "Nothing is settled": max(f.rar_over_zip_low, f.shipped_over_zip_low, f.rar_over_sum_low) <= 0,
        "On both splits LoRA.rar's network is behind ZipLoRA": (
            min(f.plushies_behind_zip_low, f.objects_behind_zip_low) > 0
        ),
        "Neither is it shown ahead of a sum at": all(
            f[f"{key}_over_{row}_least"] <= 0 for key in SPLITS for row in ("sum", "place")
        ),
        "All ways to merge are right in few images": f.new_rar < 0.25 and f.new_rar > f.new_shipped,
    }


def claims(facts: Facts) -> list[Claim]:
    """Return the paper's claim that the page examines."""
    f = facts
    return [
        Claim(
            "new_concepts",
            "On new kinds of things, each learnt from a single image, LoRA.rar outperforms ZipLoRA",
            "LoRA.rar, supplement §A2.5: 0.8 against 0.6",
            f"{f.new_rar:.0%} of the images are right by the network trained to its end, {f.new_shipped:.0%} "
            f"as shipped, {f.new_zip:.0%} by ZipLoRA: a difference of {f.rar_over_zip:+.0f} points "
            f"({f.rar_over_zip_low:+.0f} to {f.rar_over_zip_high:+.0f}).",
            sign_verdict(f.rar_over_zip_low, f.rar_over_zip_high),
        ),
        Claim(
            "new_splits",
            "Trained on objects in 3D and tested on stuffed animals in cartoons, or on animals in "
            "watercolours and tested on objects in rainbow, wood and gold, LoRA.rar outperforms ZipLoRA",
            "LoRA.rar, supplement §A2.6, Figure A10",
            f"{f.plushies_rar:.0%} of the images are right on the first split and {f.objects_rar:.0%} on the "
            f"second, three trainings each; by ZipLoRA {f.plushies_zip:.0%} and {f.objects_zip:.0%}, by a "
            f"sum at 0.7 {f.plushies_sum:.0%} and {f.objects_sum:.0%}, by the plain sum "
            f"{f.plushies_plain:.0%} and {f.objects_plain:.0%}, by a table {f.plushies_place:.0%} and "
            f"{f.objects_place:.0%}.",
            sign_verdict(-f.plushies_behind_zip_high, -f.plushies_behind_zip_low),
        ),
    ]


def prompts_figure(pictures: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """Show what merges draw for `PROMPTS`: the first three, a row for each merge, then the rest."""
    half = len(PROMPTS) // 2
    rows = [(name, shown[i : i + half]) for i in (0, half) for name, shown in pictures.items()]
    return image_grid([shown for _, shown in rows], rows=[name for name, _ in rows])


def concepts_figure() -> Figure:
    """Show the one picture that each of the new concepts was learnt from."""
    shown = [zoo.pictures(name, 1)[0][0] for name in CONCEPTS]
    return image_grid(np.array(shown), titles=CONCEPTS)


def contest_figure(scale: str = "shoebox") -> Figure:
    """Show the share of the new concepts' images that are right, by row, with intervals."""
    return contests.contest_figure("new_concepts", scale)


def splits_figure(scale: str = "shoebox") -> Figure:
    """Show the share of images that are right on each new split, by row, with intervals."""
    figure, panels = plt.subplots(2, figsize=(look.WIDTH, 5), sharex=True, layout="constrained")
    for axes, (name, told) in zip(panels, SPLITS.values(), strict=True):
        rows = contests.means(name, scale)
        entries = {row: rows[row] for row in SPLIT_ROWS}
        figures.forest(entries, label="", colours=contests.hues(entries), axes=axes)
        axes.set_title(told)
    panels[0].set_xlim(0, None)
    panels[-1].set_xlabel("share right")
    return figure
