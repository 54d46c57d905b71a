"""Chapter 5, ZipLoRA: its numbers, what it states, the papers' claims, and the figures only it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from lorarar.bookkit import board as boards
from lorarar.bookkit import figures, missing_rows, style, sums
from lorarar.bookkit.claims import Claim, sign_verdict, verdict
from lorarar.bookkit.controls import Control
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.images import Seen, images_of, judged
from lorarar.bookkit.pictures import reference
from lorarar.bookkit.records import experiment, sheet
from lorarar.merging import direct, ziplora
from lorarar.records import recorded as load_record
from lorarar.records import suffix
from lorarar.study import statistics
from lorarar.train import similarity

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from matplotlib.figure import Figure

    from lorarar.lora import LoRA
    from lorarar.study.ruler import Error

Coefficients = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""Layer → (m_c, m_s)."""

PAIR = ("bear plushie", "watercolor painting #1")
RIVALS = {"plain sum": "sum", "sum at 0.7": "even"}
ENDS = ("", "_low", "_high")


# ---------------------------------------------------------------- numbers


def recorded(scale: str) -> Facts:
    """Return the numbers that come from recorded runs."""
    validation, test = boards.load("validation", scale), boards.load("test", scale)
    times = load_record(f"merge_times{suffix(scale)}")
    new = load_record(f"rho{suffix(scale)}")["ladder"]["new"]
    errors = {m: np.reshape(new[m], (len(validation.subjects), -1)) for m in (*RIVALS, "ZipLoRA")}
    shared = sums.shared(scale, ["ziplora"])
    ahead = test.scores("ziplora") - test.scores("direct")
    leads = {
        "gain": test.difference("ziplora", "direct"),
        "over_joint": test.difference("ziplora", "joint"),
        "shared": statistics.crossed(shared["ziplora"] - shared[sums.EVEN]),
        **{f"lead_{key}": statistics.crossed(errors[m] - errors["ZipLoRA"]) for m, key in RIVALS.items()},
    }
    return Facts(
        {f"test_{m}": test.of(m).mean() for m in ("direct", "joint", "ziplora")},
        {f"validation_{m}": validation.of(m).mean() for m in ("direct", "ziplora")},
        {f"{name}{end}": x for name, lead in leads.items() for end, x in zip(ENDS, lead, strict=True)},
        {f"new_{key}": errors[m].mean() for m, key in RIVALS.items()},
        missing_rows.lead_of_ziplora(scale),
        new_ziplora=errors["ZipLoRA"].mean(),
        validation_pairs=len(validation.pairs),
        test_pairs=len(test.pairs),
        better=int((ahead > 0).sum()),
        worse=int((ahead < 0).sum()),
        shared_pairs=shared["ziplora"].size,
        shared_weighted=shared[sums.EVEN].mean(),
        shared_ziplora=shared["ziplora"].mean(),
        times_ziplora=times["ziplora"]["median"],
        times_lorarar=times["lorarar"]["median"] * 1000,
        times_ratio=times["ziplora"]["median"] / times["lorarar"]["median"],
    )


def live(
    found: Mapping[str, Coefficients],
    history: Mapping[str, Mapping[str, Sequence[float]]],
    errors: Mapping[str, Error],
    swept: Mapping[float, Coefficients],
    rhos: Mapping[float, float],
    *,
    weight: float,
    again: tuple[float, float],
) -> Facts:
    """Return the numbers that the chapter computed.

    Args:
        found: the coefficients by measure, "dot" and "cosine".
        history: the three terms step by step, by measure.
        errors: ρ by merge.
        swept: the coefficients by λ.
        rhos: ρ by λ.
        weight: λ.
        again: agreement with the recorded verdicts, and the largest mean difference in grey levels.
    """
    first, half, last = (lessons(history["dot"], at) for at in (0, 0.5, 1))
    none, most = min(swept), max(swept)
    every = torch.cat([torch.cat(flat(coefficients)) for coefficients in found.values()])
    facts = Facts(
        layers=len(found["dot"]),
        coefficients=len(every) // len(found),
        lowest=every.min(),
        highest=every.max(),
        loss_first=first,
        loss_half=half,
        loss_last=last,
        loss_cosine_half=lessons(history["cosine"], 0.5),
        loss_cosine_last=lessons(history["cosine"], 1),
        share_dot=weight * history["dot"]["similarity"][0] / first,
        share_cosine=weight * history["cosine"]["similarity"][0] / first,
        again_agreement=again[0],
        again_levels=again[1],
        rho_none=rhos[none],
        rho_most=rhos[most],
        cosine_none=cosine(swept[none]),
        cosine_most=cosine(swept[most]),
        mean_dot=mean(found["dot"]),
        mean_none=mean(swept[none]),
        mean_most=mean(swept[most]),
    )
    for measure, coefficients in found.items():
        m_c, m_s = flat(coefficients)
        facts |= {
            f"cosine_{measure}": cosine(coefficients),
            f"small_{measure}": (torch.cat([m_c, m_s]) < 0.1).float().mean(),
            f"one_{measure}": ((m_c > 0.5) ^ (m_s > 0.5)).float().mean(),
        }
    for merge, error in errors.items():
        name = {"plain sum": "sum", "half sum": "half"}.get(merge, merge)
        facts |= {f"rho_{name}": error.both}
        facts |= {f"rho_{name}_subject": error.subject, f"rho_{name}_style": error.style}
    return facts


def lessons(history: Mapping[str, Sequence[float]], at: float) -> float:
    """Return the error of both lessons at a point of the run, 0 to 1, averaged over a tenth of the steps."""
    steps = len(history["content"])
    wide = max(steps // 10, 1)
    start = round(at * (steps - wide))
    return float(np.mean([np.mean(history[side][start : start + wide]) for side in ("content", "style")]))


def flat(coefficients: Coefficients) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all m_c and all m_s as two vectors."""
    return tuple(torch.cat([both[i] for both in coefficients.values()]) for i in (0, 1))


def mean(coefficients: Coefficients) -> float:
    """Return the mean coefficient."""
    return float(torch.cat(flat(coefficients)).mean())


def cosine(coefficients: Coefficients) -> float:
    """Return the mean over layers of |cos(m_c, m_s)|."""
    return float(similarity(dict(coefficients), "cosine")) / len(coefficients)


def again(images: Mapping[str, np.ndarray], seen: Mapping[str, Seen], scale: str) -> tuple[float, float]:
    """Compare images of the pair with the record's: share of equal verdicts, largest mean difference.

    A smoke test optimises otherwise, so that it compares the plain sum only.
    """
    run, verdicts = experiment("validation", scale)
    pair = run["subjects"].index(PAIR[0]) * len(run["styles"]) + run["styles"].index(PAIR[1])
    pictures = sheet(run.name, len(run["methods"]))[pair]
    same, levels = [], []
    for name, method in (("plain sum", "direct"), ("dot", "ziplora"))[: 1 if scale == "smoke" else 2]:
        before = verdicts[method].subject[pair], verdicts[method].style[pair]
        same += [now == was[: len(now)] for now, was in zip(seen[name], before, strict=True)]
        recorded_image = pictures[run["methods"].index(method)].astype(int)
        levels.append(np.abs(images[name][0].astype(int) - recorded_image).mean())
    return float(np.mean(same)), float(max(levels))


# ---------------------------------------------------------------- findings


def statements(f: Facts) -> dict[str, bool]:
    """Return what the chapter's prose states, by its own words."""
    worst = {
        name: max(f[f"rho_{name}_subject"], f[f"rho_{name}_style"])
        for name in ("sum", "half", "dot", "cosine")
    }
    return {
        "ZipLoRA is right more than twice as often as the plain sum": f.test_ziplora > 2 * f.test_direct
        and f.validation_ziplora > 2 * f.validation_direct,
        "The interval of this lead lies above zero": f.gain_low > 0.02,
        "Over a sum with smaller weights its lead is not settled on the validation pairs": f.shared_low
        < 0
        < f.shared_high,
        "it is not a lead beyond chance": f.shared_low < 0 < f.shared_high,
        "cannot be told apart from joint training": f.over_joint_low < 0 < f.over_joint_high,
        "The error falls to less than a third": f.loss_last < f.loss_first / 3,
        "most of it in the first half": f.loss_first - f.loss_half > 2 * (f.loss_half - f.loss_last) > 0,
        "With the cosine it stops falling half-way": 0.9 < f.loss_cosine_last / f.loss_cosine_half < 1.3
        and f.loss_cosine_last > 1.1 * f.loss_last,
        "as large as the lessons' error": 0.7 < f.share_dot < 1.4,
        "more than twenty times as large": f.share_cosine > 20,
        "Some travel further than that": f.lowest < 0 and f.highest > 2,
        "The dot product turned the volume down": f.mean_dot < 0.7
        and f.small_dot < 0.05
        and f.cosine_dot > 0.8,
        "The cosine separated the columns": f.cosine_cosine < 0.1
        and f.one_cosine > 0.9 > 4 * f.one_dot
        and f.small_cosine > 0.3,
        "The plain sum disturbs the subject more than the style": f.rho_sum_subject > f.rho_sum_style + 0.05,
        "Half of everything already does better than the plain sum": worst["half"] < worst["sum"],
        "it is ahead of that sum on the validation pairs by an interval clear of zero": f.lead_even_low > 0,
        "ZipLoRA is closer to both LoRAs than either": worst["dot"] < worst["half"]
        and worst["dot"] < worst["sum"],
        "The cosine is a little behind": worst["dot"] < worst["cosine"] < 1.6 * worst["dot"],
        "A larger λ lowers the mean and leaves the cosine where it was": f.mean_most < 0.75 * f.mean_none
        and abs(f.cosine_most - f.cosine_none) < 0.02,
        "It costs next to nothing here": f.rho_most < 1.15 * f.rho_none,
        "and behind in a few": 0 < f.worse < f.better / 3,
        "thousands of times": f.times_ratio > 2000,
        "The verdicts are those of the record": f.again_agreement >= 0.9,
    }


def claims(f: Facts) -> list[Claim]:
    """Return the papers' claims that the chapter examines."""
    return [
        Claim(
            "keeps_both",
            "Coefficients per column keep both LoRAs where the sum does not",
            "ZipLoRA, abstract",
            f"ρ on {f.validation_pairs} validation pairs: plain sum {f.new_sum:.2f}, sum at 0.7 "
            f"{f.new_even:.2f}, ZipLoRA {f.new_ziplora:.2f}; the sum's is higher by "
            f"{style.interval((f.lead_sum, f.lead_sum_low, f.lead_sum_high), '.2f')}.",
            sign_verdict(f.lead_sum_low, f.lead_sum_high),
        ),
        Claim(
            "enough_steps",
            "A hundred steps are enough",
            "LoRA.rar, supplement §A1.3",
            f"One pair: the lessons' error falls from {f.loss_first:.4f} to {f.loss_last:.4f}, most of the "
            f"way; but half-way it was {f.loss_half:.4f}, so it was still falling.",
            verdict(
                f.loss_last < f.loss_first / 2 and f.loss_half < 1.1 * f.loss_last,
                f.loss_last < f.loss_first / 2,
            ),
        ),
        Claim(
            "separates",
            "The similarity term makes the two LoRAs use different columns",
            "ZipLoRA, §4.2",
            f"One pair: with the papers' dot product the cosine of m_c and m_s ends at {f.cosine_dot:.2f}, "
            f"with ten times their λ at {f.cosine_most:.2f}. The cosine of LoRA.rar's code, which is another "
            f"term, separates them ({f.cosine_cosine:.2f}).",
            verdict(f.cosine_dot < 0.5, against=min(f.cosine_dot, f.cosine_most) > 0.8),
        ),
        Claim(
            "better_than_sum",
            "ZipLoRA is better than the direct merge",
            "ZipLoRA, user study (82.7 %); LoRA.rar, §4",
            f"Test pairs: {style.points((f.gain, f.gain_low, f.gain_high))}; the sum has weights of one.",
            sign_verdict(f.gain_low, f.gain_high),
        ),
        Claim(
            "better_than_weights",
            "ZipLoRA is better than a sum with smaller weights",
            "not examined by the papers",
            f"Right {f.shared_ziplora:.0%} against {f.shared_weighted:.0%}, on {f.shared_pairs} validation "
            f"pairs of four images each: {style.points((f.shared, f.shared_low, f.shared_high))}, "
            f"undecided. On the test pairs {f.test_lead:+.0f} points ({f.test_lead_low:+.0f} to "
            f"{f.test_lead_high:+.0f}).",
            sign_verdict(f.test_lead_low, f.test_lead_high),
        ),
        Claim(
            "better_than_joint",
            "ZipLoRA is better than joint training",
            "ZipLoRA, user study (71.1 %)",
            f"Test pairs: {style.points((f.over_joint, f.over_joint_low, f.over_joint_high))}: undecided.",
            sign_verdict(f.over_joint_low, f.over_joint_high),
        ),
    ]


# ---------------------------------------------------------------- figures


def loss_figure(history: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Show the lessons' error, smoothed, and the similarity relative to its start, step by step."""
    figure, (left, right) = figures.panels(2, 4.0)
    for measure, line in (("dot", "-"), ("cosine", ":")):
        for side, colour in (("content", style.SUBJECT), ("style", style.STYLE)):
            values = np.asarray(history[measure][side])
            wide = min(9, len(values))
            ends = np.pad(values, wide // 2, mode="edge")[: len(values) + wide - 1]
            smooth = np.convolve(ends, np.full(wide, 1 / wide), "valid")
            name = "subject" if side == "content" else side
            left.plot(range(1, len(values) + 1), values, color=colour, alpha=0.2, linewidth=1)
            left.plot(
                range(1, len(smooth) + 1), smooth, color=colour, linestyle=line, label=f"{name}, {measure}"
            )
        values = np.array(history[measure]["similarity"])
        right.plot(
            range(1, len(values) + 1), values / values[0], color=style.MERGED, linestyle=line, label=measure
        )
    left.set(yscale="log", xlabel="step", title="lessons' error")
    right.set(xlabel="step", title="similarity", ylim=(0, None))
    figures.legend_below(figure)
    return figure


def overlap_figure(found: Mapping[str, Coefficients]) -> Figure:
    """Show each column by its two coefficients, the subject's across and the style's up."""
    vectors = {measure: flat(coefficients) for measure, coefficients in found.items()}
    low = min(0.0, *(float(v.min()) for both in vectors.values() for v in both)) - 0.05
    high = max(1.0, *(float(v.max()) for both in vectors.values() for v in both)) + 0.05
    figure, axes = figures.panels(len(found), 3.2, sharey=True)
    for ax, (measure, (m_c, m_s)) in zip(axes, vectors.items(), strict=True):
        ax.hexbin(
            m_c,
            m_s,
            gridsize=34,
            extent=(low, high, low, high),
            cmap=style.SEQUENTIAL,
            bins="log",
            linewidths=0.1,
        )
        ax.axvline(1, color=style.GREY, linestyle=":", linewidth=1.2)
        ax.axhline(1, color=style.GREY, linestyle=":", linewidth=1.2)
        ax.set(title=measure, xlabel="subject", xlim=(low, high), ylim=(low, high), aspect="equal")
        ax.grid(False)
    axes[0].set_ylabel("style")
    return figure


# ---------------------------------------------------------------- the control


def control(
    pipe: DiffusionPipeline,
    content: LoRA,
    other: LoRA,
    fit: Callable[[str, int], Coefficients],
    steps: Sequence[int],
    *,
    scale: str = "shoebox",
    seed: int = 0,
) -> Control:
    """Return the control of the number of steps: subject, style, and the merge with either measure.

    Args:
        pipe: the base.
        content: the subject's LoRA.
        other: the style's.
        fit: gives the coefficients by measure and number of steps, 1 or more.
        steps: that can be chosen, 0 among them; 0 is the plain sum.
        scale: whose judge frames the pictures.
        seed: of the pictures' noise.
    """

    def show(steps: int) -> tuple[np.ndarray, str]:
        fits = {measure: fit(measure, steps) for measure in ("dot", "cosine")} if steps else {}
        merges = {name: ziplora(content, other, m) for name, m in fits.items()} or {
            "plain sum": direct(content, other)
        }
        images = images_of(pipe, merges, PAIR, [seed], scale)
        seen = judged(images, PAIR, scale)
        tiles = [style.framed(images[name][0], [side[0] for side in seen[name]]) for name in merges]
        tiles = (tiles * 2)[:2]  # at the start both are the plain sum
        row = [reference(name, tiles[0].shape[0]) for name in PAIR] + tiles
        words = "; ".join(f"{name}, mean coefficient {mean(m):.2f}" for name, m in fits.items())
        return np.concatenate(row, 1), f"After {steps} steps: {words or 'the plain sum, twice'}."

    return Control(
        show,
        {"steps": steps},
        start={"steps": max(steps)},
        alt="The subject, the style, and the merge by the dot product and by the cosine after so many steps",
    )
