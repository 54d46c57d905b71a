"""Chapter 8: its numbers, what it states, the claims it examines, and its figures."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from lorarar import bench
from lorarar.bookkit import style
from lorarar.bookkit.claims import NOT_AT_THIS_SCALE, Claim, verdict
from lorarar.bookkit.facts import Facts
from lorarar.hypernet import Hypernetwork, layers_of
from lorarar.lora import LoRA, delta_weight, norm, save_lora
from lorarar.merging import compress, direct, lorarar, singular_values
from lorarar.records import recorded as load_record
from lorarar.records import suffix

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from matplotlib.figure import Figure

PAIR = ("dog #2", "watercolor painting #1")
RANK = 64
"""Of both LoRAs at SDXL's size, as in the papers."""

OURS = "LoRA.rar, on factors"
NARROW = 64
"""Width of a layer that is too narrow for factors to pay."""

# ---------------------------------------------------------------- numbers


def recorded(scale: str) -> Facts:
    """Return the numbers that come from shapes alone, and from the recorded times of the experiment."""
    times = load_record(f"merge_times{suffix(scale)}")
    sdxl = bench.shapes()
    slow, fast = bench.multiplications(sdxl, RANK, Hypernetwork().hidden)
    return Facts(
        sdxl_layers=len(sdxl),
        sdxl_slow=slow / 1e9,
        sdxl_fast=fast / 1e9,
        sdxl_saving=slow / fast,
        sdxl_dense=sum(o * i for o, i in sdxl.values()) / 1e6,
        sdxl_thin=sum(2 * RANK * (o + i) for o, i in sdxl.values()) / 1e6,
        narrow_saving=saving(NARROW, RANK),
        coefficients=sum(2 * i for _, i in sdxl.values()) / 1e6,
        weights=sum(p.numel() for p in Hypernetwork().parameters()) / 1e6,
        times_ratio=times["ziplora"]["median"] / times["lorarar"]["median"],
        recorded_ms=1000 * times["lorarar"]["median"],
    )


def live(
    clock: Mapping[str, bench.Seconds],
    shrinking: Mapping[str, bench.Seconds],
    files: Mapping[str, bench.Seconds],
    waiting: Mapping[str, bench.Seconds],
    errors: Mapping[str, Sequence[float]],
    kept: Mapping[str, np.ndarray],
    silent: Mapping[str, float],
    pictures: Mapping[str, np.ndarray],
    rank: int,
) -> Facts:
    """Return the numbers that the chapter computed.

    Args:
        clock: seconds of four ways to merge.
        shrinking: of three ways to a smaller rank.
        files: of a merge from file to file, and of a copy.
        waiting: of a merge, an answer of the UNet, a picture.
        errors: relative error of each layer, by number format (`rounding`).
        kept: share of the energy by rank (`energies`).
        silent: relative error of other tools' sums.
        pictures: images with two files, one file, kohya's names, and none.
        rank: of one LoRA.
    """
    names = {
        "this package, halves": "ours", "cross terms (peft)": "linear", "cross terms, halves": "script",
        "ratio squared": "squared", "alpha lost": "alpha", "rsLoRA (peft)": "rslora",
        "one alpha (diffusers)": "one_alpha",
    }  # fmt: skip
    two = pictures["two files"].astype(int)
    levels = {name: int(np.abs(two - images).max()) for name, images in pictures.items()}
    return Facts(
        times_dense=clock["LoRA.rar, dense"].cpu / clock[OURS].cpu,
        times_cat=clock["sum, peft's cat"].cpu / clock["sum, on factors"].cpu,
        times_svd=shrinking["SVD"].cpu / shrinking["QR"].cpu,
        times_copy=files["merge"].cpu / files["copy"].cpu,
        pictures=waiting["picture"] / waiting["merge"],
        merge_ms=1000 * waiting["merge"],
        bound=100 * waiting["answer"] / waiting["merge"],
        error_single=max(errors["float32"]),
        error_bfloat=max(errors["bfloat16"]),
        error_half=max(errors["float16"]),
        error_fused=max(errors["fused, float16"]),
        rank=rank,
        rank_merged=len(kept["mean"]),
        **{f"kept_{key.split()[0]}": share[rank - 1] for key, share in kept.items()},
        **{f"silent_{key}": silent[name] for name, key in names.items()},
        levels_merged=levels["one file"],
        levels_kohya=levels["kohya"],
        levels_without=levels["no file"],
    )


def strongest(lora: LoRA) -> str:
    """Return the query layer with the largest update."""
    return max((k for k in lora if k.endswith("to_q")), key=lambda k: norm(lora[k]))


def saving(width: int, rank: int) -> float:
    """Return how many times fewer multiplications coefficients on factors take, in a square query layer."""
    slow, fast = bench.multiplications(
        {"unet.mid_block.attn1.to_q": (width, width)}, rank, Hypernetwork().hidden
    )
    return slow / fast


def more_clocks(
    pair: Sequence[LoRA], network: Hypernetwork, repeat: int
) -> tuple[dict[str, bench.Seconds], dict[str, bench.Seconds]]:
    """Time two ways to a smaller rank of the widest layer, and a merge from file to file beside a copy."""
    both = direct(*pair)
    widest = max(both, key=lambda layer: len(both[layer][0]))
    one, update = LoRA({widest: both[widest]}), delta_weight(both[widest])
    shrinking = bench.seconds(
        {
            "QR": lambda: compress(one, RANK),
            "SVD": lambda: torch.linalg.svd(update, full_matrices=False),
        },
        1,
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.safetensors" for name in ("content", "style", "out")]
        for lora, path in zip(pair, paths[:2], strict=True):
            save_lora(lora, path)
        files = bench.seconds(
            {
                "merge": lambda: bench.merge_files(*paths[:2], network, paths[2]),
                "copy": lambda: bench.copy_files(*paths),
            },
            repeat,
        )
    return shrinking, files


def cast(lora: LoRA, dtype: torch.dtype) -> LoRA:
    """Return a LoRA in another number format."""
    return LoRA({layer: (up.to(dtype), down.to(dtype)) for layer, (up, down) in lora.items()})


def rounding(
    pipe: DiffusionPipeline, content: LoRA, other: LoRA, network: Hypernetwork
) -> dict[str, list[float]]:
    """Return the relative error of each weighed layer against double precision, by format of the file.

    The last entry is the same merge fused: added to the base's weights and stored in half precision.
    """

    def error(given: Tensor, true: Tensor) -> float:
        return float((given.double() - true).norm() / true.norm())

    exact = copy.deepcopy(network).double()
    layers = layers_of(content, ("query", "output"))
    errors = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        two = [cast(lora, dtype) for lora in (content, other)]
        true = bench.dense_merge(*(cast(lora, torch.float64) for lora in two), exact)
        ours = cast(lorarar(*two, network, rest="sum"), torch.float64)
        errors[str(dtype).removeprefix("torch.")] = [error(delta_weight(ours[k]), true[k]) for k in layers]
    errors["fused, float16"] = []
    for k in layers:
        base = pipe.unet.get_submodule(k.removeprefix("unet.")).weight.detach().cpu().half()
        fused = (base.double() + true[k]).half()
        errors["fused, float16"].append(error(fused.double() - base.double(), true[k]))
    return errors


def energies(content: LoRA, other: LoRA, seed: int) -> dict[str, np.ndarray]:
    """Return the share of ‖ΔW‖² that the sum's largest singular values hold, (ranks,): mean, worst, noise."""

    def energy(lora: LoRA) -> np.ndarray:
        squares = np.stack([singular_values(pair).numpy() ** 2 for pair in lora.values()])
        return squares.cumsum(1) / squares.sum(1, keepdims=True)  # (layers, ranks)

    shapes = {k: (len(up), down.shape[1]) for k, (up, down) in content.items()}
    rank = next(iter(content.values()))[1].shape[0]
    noise = direct(*(bench.adapter(seed + n, rank, shapes) for n in (3, 4)))
    kept = energy(direct(content, other))
    return {"mean": kept.mean(0), "worst layer": kept.min(0), "noise": energy(noise).mean(0)}


# ---------------------------------------------------------------- findings


def statements(f: Facts) -> dict[str, bool]:
    """Return what the chapter's prose states, by its own words."""
    wrong = [value for name, value in f.items() if name.startswith("silent_") and name != "silent_ours"]
    return {
        "several times faster than the dense way": f.times_dense > 3,
        "the brackets are better left where they were": f.narrow_saving < 1,
        "many merges in the time of one picture": f.pictures > 10,
        "hundreds of times": f.bound > 100,
        "The file's format decides": f.error_single < 1e-5 < f.error_half < f.error_bfloat,
        "Fusing costs more digits than the merge did": f.error_fused > 5 * f.error_half,
        "keeps nearly all of it": f.kept_mean > 0.95 and f.kept_worst > 0.85,
        "Noise would lose far more": f.kept_noise < f.kept_mean - 0.2,
        "All six are far from what was asked": min(wrong) > 0.3,
        "Ours is exact to the last digits": f.silent_ours < 1e-6,
        "No pixel can be told apart": max(f.levels_merged, f.levels_kohya) <= 1 < f.levels_without,
    }


def claims(f: Facts) -> list[Claim]:
    """Return the papers' claims that the chapter examines."""
    apart = max(f.levels_merged, f.levels_kohya)
    return [
        Claim(
            "stays_thin",
            "The column-wise merge of two LoRAs is itself a LoRA",
            "ZipLoRA, eq. 3, rewritten",
            f"Rank {f.rank_merged} from {f.rank} and {f.rank}; the worst layer is off by "
            f"{f.error_single:.0e} in single and by {f.error_half:.0e} in half precision.",
            verdict(f.error_single <= 1e-6 and f.error_half <= 2e-3, f.error_single <= 1e-4),
        ),
        Claim(
            "real_time",
            "Merging happens in real time",
            "LoRA.rar, abstract",
            f"A merge takes {f.merge_ms:.0f} ms in the chapter's run, where {f.pictures:.0f} of them fit "
            f"into the time of one picture, and {f.recorded_ms:.0f} ms in the recorded one.",
            verdict(f.pictures > 1),
        ),
        Claim(
            "faster",
            "More than 4000 times faster than ZipLoRA's optimisation",
            "LoRA.rar, abstract",
            f"In the shoebox {f.times_ratio:,.0f} times, as recorded. The UNet's part grows with the picture "
            "and the model, so that SDXL is where the number belongs; it was not measured there.",
            verdict(f.times_ratio > 4000, otherwise=NOT_AT_THIS_SCALE),
        ),
        Claim(
            "fewer_numbers",
            "0.49 M parameters once, instead of 1.5 M coefficients for each pair",
            "LoRA.rar, beside ZipLoRA",
            f"{f.weights:.2f} M parameters against {f.coefficients:.2f} M coefficients at SDXL's shapes.",
            verdict(round(f.weights, 2) == 0.49 and 1.5 <= f.coefficients < 1.6, f.weights < f.coefficients),
        ),
        Claim(
            "same_pictures",
            "One merged file draws what two active adapters draw",
            "PEFT and diffusers, as their users expect",
            f"The largest difference of a pixel is {apart} of 255 grey levels.",
            verdict(apart <= 2, against=apart > 16),
        ),
    ]


# ---------------------------------------------------------------- figures


def columns_figure(pair: tuple[Tensor, Tensor]) -> Figure:
    """Show a corner of B, A and BA, and below it the same with a coefficient for each column."""
    up, down = pair[0].float()[:64], pair[1].float()[:, :64]
    wave = 0.5 + 0.5 * torch.cos(torch.linspace(0, 6 * np.pi, down.shape[1]))
    figure, axes = plt.subplots(
        2, 3, figsize=(style.WIDTH, 5.6), width_ratios=[1, 4, 4], layout="constrained"
    )
    for row, m, gate in zip(axes, (torch.ones_like(wave), wave), ("", " diag(m)"), strict=True):
        whole = (up, down, up @ down)
        shown = (up, down * m, (up @ down) * m)
        for ax, every, matrix, label in zip(row, whole, shown, ("B", f"A{gate}", f"BA{gate}"), strict=True):
            top = float(every.abs().quantile(0.99))
            ax.imshow(matrix, cmap=style.DIVERGING, vmin=-top, vmax=top, aspect="equal")
            ax.set_title(label)
            ax.axis("off")
    return figure


def errors_table(errors: Mapping[str, Sequence[float]]) -> list[dict[str, object]]:
    """Return rows of the table of rounding: the middle and the worst layer."""
    return [
        {"Stored as": name, "Middle layer": float(np.median(e)), "Worst layer": max(e)}
        for name, e in errors.items()
    ]
