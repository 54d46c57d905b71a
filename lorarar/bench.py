"""How fast, how lean: the merge at the size of SDXL, beside the ways it is done elsewhere, in one run.

    lorarar bench            (make bench)

Two random rank-64 LoRAs in float16 on all 560 attention layers of SDXL, two files of 186 MB. Each row is a
median of several runs, taken in turns with what it is compared to; CPU seconds, of all threads together,
stand beside. Nothing here is a test: machines differ.

What bounds the two ratios on a CPU is timed in the same run and printed beside them as their limit: the
coefficients need L·B and (L·B)·A for every gated layer (the dense way ΔW of every layer and L·ΔW of the gated
ones), and every factor is read and written once; that a merge returns new memory, which the system has to
clear first, is not in the limit. A merged file also holds the SHA-256 of its sources, so that every byte of
both inputs is hashed as well as copied.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lorarar.hypernet import PARTS, Hypernetwork, Invariants, layers_of
from lorarar.lora import LoRA, delta_weight, load_lora, save_lora
from lorarar.merging import compress, direct, lorarar, parallel
from lorarar.parser import EXIT_STATUSES, Parser

# SDXL's attention: place, number of attentions there, transformer blocks in each, width.
SDXL = (
    ("down_blocks.1", 2, 2, 640),
    ("down_blocks.2", 2, 10, 1280),
    ("mid_block", 1, 10, 1280),
    ("up_blocks.0", 3, 10, 1280),
    ("up_blocks.1", 3, 2, 640),
)
TEXT = 2048  # inputs of cross-attention's key and value


def shapes(blocks: int | None = None) -> dict[str, tuple[int, int]]:
    """Layer → (out, in) of SDXL's attention; with ``blocks``, that many transformer blocks per attention."""
    found = {}
    for place, attentions, depth, width in SDXL:
        for i in range(attentions):
            for j in range(min(depth, blocks or depth)):
                for n in (1, 2):
                    for module in ("to_q", "to_k", "to_v", "to_out.0"):
                        inputs = TEXT if n == 2 and module in ("to_k", "to_v") else width
                        name = f"unet.{place}.attentions.{i}.transformer_blocks.{j}.attn{n}.{module}"
                        found[name] = (width, inputs)
    return found


def adapter(seed: int, rank: int, layers: dict[str, tuple[int, int]]) -> LoRA:
    """A random LoRA of trained size in float16."""
    draw = torch.Generator().manual_seed(seed)

    def factor(*shape: int, size: float) -> Tensor:
        return (torch.randn(*shape, generator=draw) * size).half()

    return LoRA({k: (factor(o, rank, size=0.02), factor(rank, i, size=0.02)) for k, (o, i) in layers.items()})


def dense_merge(content: LoRA, style: LoRA, hypernetwork: Hypernetwork) -> dict[str, Tensor]:
    """LoRA.rar as its released code does it, straightforwardly: dense updates, every column through the MLP.

    Returns each layer's merged update (out, in) in the type of the factors; keys and values are added. Half
    precision is computed in float32, which a CPU does many times faster.
    """
    merged = {}
    gated = set(layers_of(content, ("query", "output")))
    with torch.no_grad():
        for layer in content:
            update_c, update_s = delta_weight(content[layer]), delta_weight(style[layer])
            if layer in gated:
                m_c, m_s = hypernetwork(torch.cat([update_c, update_s]).mT).unbind(1)
                update = update_c * m_c + update_s * m_s
            else:
                update = update_c + update_s
            merged[layer] = update.to(content[layer][0].dtype)
    return merged


def peft_model(content: LoRA, style: LoRA) -> nn.Module:
    """A peft model with both adapters loaded; its base weights are one zero each, expanded."""
    from peft import LoraConfig, get_peft_model

    root = nn.Module()
    for layer, (up, down) in content.items():
        *path, leaf = layer.split(".")
        node = root
        for name in path:
            if name not in node._modules:
                node.add_module(name, nn.Module())
            node = node._modules[name]
        linear = nn.Linear(down.shape[1], up.shape[0], bias=False, device="meta")
        zero = torch.zeros((), dtype=up.dtype).expand(up.shape[0], down.shape[1])
        linear.weight = nn.Parameter(zero, requires_grad=False)
        node.add_module(leaf, linear)
    rank = next(iter(content.values()))[1].shape[0]
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(content), init_lora_weights=False)
    model = get_peft_model(root, config, adapter_name="content", autocast_adapter_dtype=False)
    model.add_adapter("style", config, autocast_adapter_dtype=False)
    modules = dict(root.named_modules())
    for name, lora in (("content", content), ("style", style)):
        for layer, (up, down) in lora.items():
            modules[layer].lora_A[name].weight.data = down
            modules[layer].lora_B[name].weight.data = up
    return model


def peft_merge(model: nn.Module, combination: str) -> None:
    """peft's own merge of the two adapters into a third, which is deleted again."""
    model.add_weighted_adapter(["content", "style"], [1.0, 1.0], "merged", combination_type=combination)
    model.delete_adapter("merged")


class Seconds(float):
    """Median seconds by the clock; ``cpu``: the median of the CPU seconds of all threads."""

    cpu: float


def seconds(runs: dict[str, Callable[[], Any]], repeat: int, settle: int = 1) -> dict[str, Seconds]:
    """The median time of each, in turns, after ``settle`` rounds that are not counted."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for round_ in range(-settle, repeat):
        for name, run in runs.items():
            start = time.perf_counter(), time.process_time()
            result = run()
            if round_ >= 0:
                times[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
            del result
    found = {}
    for name, values in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*values, strict=True))
        found[name] = Seconds(wall)
        found[name].cpu = cpu
    return found


def multiplications(layers: dict[str, tuple[int, int]], rank: int, hidden: int) -> tuple[int, int]:
    """What the dense algorithm and the factored coefficients multiply, the last layer of the MLP left out."""
    gated = [layers[layer] for layer in layers_of(layers, ("query", "output"))]
    dense = sum(2 * o * i * rank for o, i in layers.values()) + sum(2 * hidden * o * i for o, i in gated)
    return dense, sum(2 * hidden * rank * (o + i) for o, i in gated)


def products(layers: dict[str, tuple[int, int]], rank: int, hidden: int) -> Callable[[], None]:
    """The matrix products of the factored coefficients and nothing else, on operands kept in the cache."""
    gated = [layers[layer] for layer in layers_of(layers, ("query", "output"))]
    operands = {
        (o, i): [torch.ones(*shape) for shape in ((hidden, o), (o, rank), (hidden, 2 * rank), (2 * rank, i))]
        for o, i in gated
    }

    def work(shape: tuple[int, int]) -> None:
        first, up, ranks, down = operands[shape]
        for _ in range(2):
            torch.mm(first, up)
        torch.mm(ranks, down)

    def run() -> None:
        for _ in parallel(work, gated, torch.device("cpu")):
            pass

    return run


def copied(content: LoRA, style: LoRA) -> Callable[[], Any]:
    """A copy of every factor into memory that is there already."""
    factors = torch.cat([x.flatten() for lora in (content, style) for pair in lora.values() for x in pair])
    return partial(torch.empty_like(factors).copy_, factors)


def hashed(*paths: Path) -> Callable[[], Any]:
    """SHA-256 of the bytes of each file, which are in memory already, one file after the other."""
    contents = [path.read_bytes() for path in paths]
    return lambda: [hashlib.sha256(content) for content in contents]


def merge_files(content: Path, style: Path, hypernetwork: Hypernetwork | None, out: Path) -> None:
    """Read both, merge (by direct sum without a hypernetwork), write."""
    two = load_lora(content), load_lora(style)
    save_lora(lorarar(*two, hypernetwork, later=True) if hypernetwork else direct(*two, later=True), out)


def copy_files(content: Path, style: Path, out: Path) -> None:
    """Copy both inputs: as many bytes read and written as the merge."""
    shutil.copyfile(content, out.with_name("content.copy"))
    shutil.copyfile(style, out.with_name("style.copy"))


def started(*arguments: str | Path) -> None:
    """Python in a process of its own, to its end."""
    subprocess.run([sys.executable, *map(str, arguments)], check=True)


def resident() -> int:
    """The largest resident size this process has had, in bytes; file pages that it maps count."""
    try:
        status = Path("/proc/self/status").read_text()  # getrusage would inherit the parent's peak
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


_CHILD = """
import sys
from pathlib import Path
from lorarar.bench import Hypernetwork, merge_files, resident
before = resident()
hypernetwork = Hypernetwork.load(sys.argv[3])
merge_files(Path(sys.argv[1]), Path(sys.argv[2]), hypernetwork, Path(sys.argv[4]))
print(before, resident())
"""


def peak_memory(content: Path, style: Path, hypernetwork: Path, out: Path) -> tuple[int, int]:
    """Peak resident bytes of a fresh process: after its imports, and after it merged two files."""
    arguments = [sys.executable, "-c", _CHILD, *map(str, (content, style, hypernetwork, out))]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    before, after = map(int, done.stdout.split())
    return before, after


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = Parser(
        prog="lorarar bench",
        description=__doc__.split("\n")[0],
        epilog=f"example:\n  lorarar bench --quick\n\n{EXIT_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rank", type=int, default=64, help="of both LoRAs; default: 64")
    parser.add_argument("--repeat", type=int, default=5, help="runs behind each median; default: 5")
    parser.add_argument("--quick", action="store_true", help="an eighth of SDXL, one run each: a smoke test")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args(arguments)
    repeat = 1 if options.quick else options.repeat
    layers = shapes(1 if options.quick else None)
    content, style = (adapter(seed, options.rank, layers) for seed in (1, 2))
    torch.manual_seed(0)
    network = Hypernetwork()
    nn.init.ones_(network.output.bias)  # a trained one answers numbers near 1
    reader = Invariants()
    nn.init.normal_(reader.output.weight, std=0.1)
    figures: dict[str, float] = {}

    def row(name: str, value: float, unit: str, note: str = "") -> None:
        figures[f"{name} [{unit}]"] = value
        if isinstance(value, Seconds):
            figures[f"{name} [CPU s]"] = value.cpu
            note = f"{value.cpu:.3f} CPU s"
        if not options.json:
            print(f"{name:<52}{value:>10.3f} {unit:<4} {note}", flush=True)

    if not options.json:
        print(f"{len(layers)} layers, rank {options.rank}, float16, torch {torch.__version__},", end=" ")
        print(f"{torch.get_num_threads()} threads; medians of {repeat}\n")

    # Files first, as in a process that does nothing else: memory that a dense merge has given back to the
    # system is handed out again more slowly than any copy takes.
    with tempfile.TemporaryDirectory(prefix="lorarar-bench-") as folder:
        paths = [Path(folder) / name for name in ("c.safetensors", "s.safetensors", "out.safetensors")]
        for lora, path in ((content, paths[0]), (style, paths[1])):
            save_lora(lora, path)
        network.save(Path(folder) / "h.safetensors")
        files = seconds(
            {
                "copy": lambda: copy_files(paths[0], paths[1], paths[2]),
                "direct": lambda: merge_files(paths[0], paths[1], None, paths[2]),
                "merge": lambda: merge_files(paths[0], paths[1], network, paths[2]),
                "hash": hashed(*paths[:2]),
            },
            max(3, repeat),
        )
        before, after = peak_memory(paths[0], paths[1], Path(folder) / "h.safetensors", paths[2])
        size = sum(os.path.getsize(path) for path in paths)
        whole = seconds(
            {
                "merge": lambda: started("-m", "lorarar.cli", "merge", *paths[:2], "-o", paths[2], "--quiet"),
                "torch": lambda: started("-c", "import torch"),
            },
            max(3, repeat),
        )

    ours = seconds(
        {
            "lorarar": lambda: lorarar(content, style, network),
            "direct": lambda: direct(content, style),
            "dense": lambda: dense_merge(content, style, network),
            "invariants": lambda: lorarar(content, style, reader),
            "four parts": lambda: lorarar(content, style, reader, parts=PARTS),
            "products": products(layers, options.rank, network.hidden),
            "copied": copied(content, style),
        },
        min(3, repeat),
    )
    dense_products, ours_products = multiplications(layers, options.rank, network.hidden)
    row("merge, lorarar", ours["lorarar"], "s")
    row("merge, direct", ours["direct"], "s")
    row("merge, a network of invariants", ours["invariants"], "s")
    row("  the same, coefficients for all four parts", ours["four parts"], "s")
    row("  its parameters, LoRA.rar's", reader.size, "", f"{network.size:,}")
    row("merge, LoRA.rar's released algorithm, dense", ours["dense"], "s")
    row("  its coefficients' matrix products alone, factored", ours["products"], "s")
    row("  every factor copied once, into memory at hand", ours["copied"], "s")
    row("  dense / lorarar", ours["dense"] / ours["lorarar"], "×", "aim: 40 or more")
    limit = ours["dense"] / (ours["products"] + ours["copied"])
    row("  its limit: dense / (products + copy)", limit, "×")
    row("  dense / lorarar in CPU seconds", ours["dense"].cpu / ours["lorarar"].cpu, "×")
    limit = ours["dense"].cpu / (ours["products"].cpu + ours["copied"].cpu)
    row("  its limit in CPU seconds", limit, "×")
    row("  the same in multiplications, coefficients only", dense_products / ours_products, "×")

    cat_model = peft_model(content, style)
    cat = seconds({"cat": lambda: peft_merge(cat_model, "cat")}, repeat)["cat"]
    row("merge, peft cat", cat, "s")
    row("  peft cat / direct", cat / ours["direct"], "×")

    # An SVD of every layer takes minutes: a layer of each shape is timed and counted as often as it occurs.
    kinds: dict[tuple[int, int], list[str]] = {}
    for layer, shape in layers.items():
        kinds.setdefault(shape, []).append(layer)
    svd = 0.0
    for names in kinds.values():
        one = [LoRA({names[0]: lora[names[0]]}) for lora in (content, style)]
        model = peft_model(*(LoRA({k: (u.float(), d.float()) for k, (u, d) in x.items()}) for x in one))
        svd += len(names) * seconds({"svd": lambda m=model: peft_merge(m, "svd")}, 1, 0)["svd"]
    row("merge, peft svd (a layer of each shape, scaled up)", svd, "s")
    row("  peft svd / lorarar", svd / ours["lorarar"], "×")

    merged = direct(content, style)
    small = dense_svd = 0.0
    for names in kinds.values():
        some = LoRA({layer: merged[layer] for layer in names[:4]})
        updates = [delta_weight(merged[names[0]])]
        times = seconds({"ours": lambda x=some: compress(x, options.rank)}, repeat)
        small += len(names) * times["ours"] / len(some)
        times = seconds({"dense": lambda x=updates: torch.linalg.svd(x[0], full_matrices=False)}, 1, 0)
        dense_svd += len(names) * times["dense"]
    row(f"compress to rank {options.rank} (four layers of each shape, scaled up)", small, "s")
    row("the same by dense SVD (one of each shape, scaled up)", dense_svd, "s")
    row("  dense SVD / compress", dense_svd / small, "×", "aim: 50 or more")

    row("file to file, lorarar", files["merge"], "s")
    row("file to file, direct", files["direct"], "s")
    row("copying both files", files["copy"], "s")
    row("SHA-256 of both files, on one core", files["hash"], "s")
    row("  file to file / copy", files["merge"] / files["copy"], "×", "at most 2.0, aim: 1.3")
    row("  the same for direct", files["direct"] / files["copy"], "×")
    least = files["copy"].cpu + files["hash"].cpu
    for name, cpu in (("lorarar", least + ours["products"].cpu), ("direct", least)):
        limit = cpu / torch.get_num_threads() / files["copy"]
        row(f"  limit of {name}: copy + SHA-256{' + products' * (cpu > least)}, on all cores", limit, "×")
    row("  file to file / copy in CPU seconds, lorarar", files["merge"].cpu / files["copy"].cpu, "×")
    row("  the same for direct", files["direct"].cpu / files["copy"].cpu, "×")
    row(
        "peak memory of a process that merges two files", after / 1e6, "MB", f"{before / 1e6:.0f} of it torch"
    )
    row("`lorarar merge` from the shell, direct, the whole process", whole["merge"], "s", "aim: 1.2")
    row("  a process that imports torch and ends", whole["torch"], "s")
    row("both inputs and the output", size / 1e6, "MB")
    row("  peak / (inputs + output)", after / size, "×", "at most 1.3")
    row("  the same without what importing torch takes", (after - before) / size, "×")
    if torch.cuda.is_available():
        network.cuda()
        two = [LoRA({k: (u.cuda(), d.cuda()) for k, (u, d) in lora.items()}) for lora in (content, style)]

        def on_device() -> None:
            lorarar(*two, network)
            torch.cuda.synchronize()

        device = seconds({"ours": on_device}, max(10, repeat), 3)["ours"]
        row(f"merge, lorarar, on {torch.cuda.get_device_name()}", device * 1e3, "ms", "at most 10 on an H200")
    if options.json:
        print(json.dumps({name: round(value, 6) for name, value in figures.items()}, indent=2))


if __name__ == "__main__":
    main()
