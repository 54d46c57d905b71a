"""Budgets, counted: the peak memory and the floating-point operations of a training step at SDXL's size.

    lorarar budget           (a row is kept in runs/budgets as soon as it is counted; stopped, it goes on)

Nothing is computed: the very training code runs on torch's fake tensors, which have shapes and types and no
numbers. A mode below autograd sees every operation; `Tracker` follows the bytes of all storages that are
alive, torch's FlopCounterMode counts multiplications and additions. What kernels take for themselves while
they run, and what an allocator wastes, is not in the count.

Beside ours stands the dense form of the released implementations (LoRA.rar's, ZipLoRA's): ΔW of both LoRAs as
matrices, merged anew in every layer and pass, the hypernetwork run in each of them, content and style as two
passes with gradients and both teachers' as two without, in each step.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

from lorarar import stand_in
from lorarar.atomic import atomic
from lorarar.budget.steps import STEPS, Bench
from lorarar.budget.tracking import Count, counting, faked
from lorarar.parser import EXIT_STATUSES, Parser, one_line


def count(
    step: str,
    *,
    kind: str = "sdxl",
    size: int = 1024,
    rank: int = 64,
    checkpointing: bool = False,
    narrow: int = 1,
    dtype: torch.dtype = torch.bfloat16,
    fake: bool = True,
) -> Count:
    """Count a step of `STEPS` on a base of a `lorarar.stand_in` kind, for images of ``size`` pixels.

    The memory is that of the UNet, the step and its optimizer; text encoders and autoencoder are not needed
    in a step (`beside`). ``fake=False`` computes with real numbers, by which the count can be checked.
    """
    with faked() if fake else nullcontext(), counting() as (tracker, flops):
        unet = _unet(kind, size, narrow, dtype)
        bench = Bench(unet, rank, checkpointing)
        if checkpointing:
            unet.enable_gradient_checkpointing()
        STEPS[step](bench)
        return Count(tracker.peak, flops.get_total_flops())


def decoding(kind: str = "sdxl", size: int = 1024, narrow: int = 1) -> Count:
    """Count the decoding of one picture by the autoencoder, in float32, which SDXL's needs."""
    with faked(), counting() as (tracker, flops):
        vae = stand_in.autoencoder(kind, size, narrow)
        with torch.no_grad():
            vae.decode(torch.zeros(1, vae.config.latent_channels, size // 8, size // 8))
        return Count(tracker.peak, flops.get_total_flops())


def beside(kind: str = "sdxl") -> int:
    """Return the bytes of text encoders and autoencoder in half precision, which stay beside the UNet."""
    return _bytes(kind, ("vae", "text_encoder", "text_encoder_2"))


def _bytes(kind: str, names: Sequence[str]) -> int:
    with torch.device("meta"):
        networks = stand_in.models(kind, 64)
    return sum(2 * p.numel() for name in names if name in networks for p in networks[name].parameters())


def _unet(kind: str, size: int, narrow: int, dtype: torch.dtype) -> nn.Module:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return stand_in.unet(kind, size, narrow).requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def rows() -> list[tuple[str, bool]]:
    """Return what the table holds: each step, and whether with checkpointing."""
    return [
        ("LoRA", False),
        ("LoRA", True),
        ("hypernetwork", False),
        ("hypernetwork, dense", False),
        ("hypernetwork", True),
        ("forward", False),
        ("inference step", False),
        ("decoding", False),
        ("ZipLoRA", True),
        ("ZipLoRA", False),
        ("ZipLoRA, dense", False),
    ]


def name_of(step: str, checkpointing: bool) -> str:
    """Return a row's name."""
    return f"{step}, checkpointing" if checkpointing else step


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, print the table, and record it if asked."""
    parser = Parser(
        prog="lorarar budget",
        description="Count the peak memory and the operations of training steps at a public model's real "
        "size, on fake tensors: no weights, no GPU.",
        epilog=f"example:\n  lorarar budget --scale sdxl --record\n\n{EXIT_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scale", choices=stand_in.KINDS, default="sdxl", help="default: %(default)s")
    parser.add_argument("--size", type=int, default=1024, metavar="N", help="pixels a side; default: 1024")
    parser.add_argument("--rank", type=int, default=64, metavar="R", help="of the LoRAs; default: 64")
    parser.add_argument("--rows", type=int, metavar="N", help="count this many rows more; default: all")
    parser.add_argument("--record", action="store_true", help="write data/recorded/budgets.json")
    options = parser.parse_args(arguments)
    try:
        _main(options)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        print(f"lorarar budget: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


def _main(options: argparse.Namespace) -> None:
    for name, least in (("size", 64), ("rank", 1), ("rows", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} must be at least {least}, not {value}")
    if options.size % 64:
        raise ValueError(f"--size must be a multiple of 64, not {options.size}")
    kept = Path("runs") / "budgets" / f"{options.scale}-{options.size}-{options.rank}.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    known: dict[str, list[int]] = json.loads(kept.read_text()) if kept.is_file() else {}
    asked = {"kind": options.scale, "size": options.size}
    print(f"{options.scale}, {options.size} pixels, rank {options.rank}, one sample of each LoRA a step")
    new = 0
    for step, checkpointing in rows():
        name = name_of(step, checkpointing)
        if name not in known:
            if new == options.rows:
                continue
            new += 1
            if step == "decoding":
                known[name] = list(decoding(**asked))
            else:
                found = count(step, **asked, rank=options.rank, checkpointing=checkpointing)
                known[name] = list(found)
            with atomic(kept) as aside:
                aside.write_text(json.dumps(known, indent=1) + "\n")
        memory, operations = known[name]
        print(f"{name:36}{memory / 2**30:7.1f} GiB{operations / 1e12:8.1f} TFLOP", flush=True)
    still = beside(options.scale)
    print(f"{'text encoders and autoencoder beside':36}{still / 2**30:7.1f} GiB")
    if options.record:
        from lorarar.records import save_recorded

        values = {"size": options.size, "rank": options.rank, "beside": still}
        values |= {"unet": _bytes(options.scale, ("unet",)), "of": known}
        said = f"lorarar budget --scale {options.scale} --size {options.size} --rank {options.rank} --record"
        print(save_recorded("budgets", values, command=said, seed=0, scale=options.scale))
