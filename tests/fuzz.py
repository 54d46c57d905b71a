"""Mutate valid LoRA files and see that each is merged rightly or refused in one line.

    python -m tests.fuzz --cases 10000

A case takes a file of the seed corpus, damages its header, keys, shapes, metadata or data, and runs
``lorarar merge`` on it and on an undamaged file. Then either the exit status is 2, standard error holds one
line and no file was written; or it is 0 and every layer of the merged file is the sum of the dense float64
updates that an independent reader, which shares no code with the package, finds in the two files. Anything
else is a failure: another exception, a case of more than `SECONDS`, a wrong or missing layer.
"""

import argparse
import contextlib
import io
import json
import random
import re
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

SECONDS = 20
NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "u1"}
NUMPY |= {
    "I8": "i1",
    "I16": "<i2",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
}  # an alpha may be a whole number
OTHERS = ("BF16", "F8_E4M3", "F8_E5M2", "C64", "F4", "", "f32")

LAYERS = {  # name → (out, in); the text width of SD 1.x, small enough to be quick
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": (6, 5),
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0": (4, 6),
    "unet.down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_v": (4, 7),
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj": (3, 4),
}
SGM = {"down_blocks_1_attentions_0": "input_blocks_4_1", "down_blocks_2_attentions_1": "input_blocks_8_1"}


def spelled(layer: str, dialect: str) -> tuple[str, str, str]:
    """The keys of up, down and alpha of a layer in a dialect."""
    text = layer.startswith("text_encoder.")
    if dialect in ("kohya", "sgm"):
        stem = layer.replace("text_encoder.", "lora_te1.").replace("unet.", "lora_unet.").replace(".", "_")
        for ours, theirs in SGM.items() if dialect == "sgm" else ():
            stem = stem.replace(ours, theirs)
        return f"{stem}.lora_up.weight", f"{stem}.lora_down.weight", f"{stem}.alpha"
    if dialect == "processor" and not text:
        head, _, last = layer.removesuffix(".0").rpartition(".")
        stem = f"{head}.processor.{last}_lora"
        return f"{stem}.up.weight", f"{stem}.down.weight", f"{stem}.alpha"
    stem = {"doubled": "unet." + layer, "peft": "base_model.model." + layer}.get(dialect, layer)
    if dialect == "doubled" and text:
        stem = layer
    kind = ("lora_B", "lora_A") if dialect in ("peft", "new") else ("lora.up", "lora.down")
    return f"{stem}.{kind[0]}.weight", f"{stem}.{kind[1]}.weight", f"{stem}.alpha"


def plainly(stem: str) -> str:
    """A stem without the prefixes that mean nothing, which a mutation may add once more."""
    return re.sub(r"^(?:base_model\.model\.)?(?:unet\.(?=unet\.))*(?:unet\.(?=(?:down|up|mid)_))?", "", stem)


DIALECTS = ("kohya", "sgm", "processor", "doubled", "peft", "new", "old")
STEMS = {
    plainly(re.sub(r"\.alpha$", "", key)): layer
    for dialect in DIALECTS
    for layer in LAYERS
    for key in spelled(layer, dialect)[2:]
}


def corpus() -> list[tuple[dict, bytes]]:
    """The seed files, as header and data: each dialect, some with alphas, mixed ranks, each float type."""
    files = []
    for number, dialect in enumerate(DIALECTS):
        numbers = np.random.default_rng(number)
        header: dict = {"__metadata__": {"format": "pt", "ss_network_dim": "4"}}
        data = b""
        for i, (layer, (out, width)) in enumerate(LAYERS.items()):
            rank = 2 + (i + number) % 3
            up, down, alpha = spelled(layer, dialect)
            tensors = {up: (out, rank), down: (rank, width)}
            if dialect in ("kohya", "sgm", "processor"):
                tensors[alpha] = ()
            for key, shape in tensors.items():
                kind = ("F32", "F16", "F64")[(number + i) % 3] if shape else "F32"
                x = numbers.standard_normal(shape) if shape else np.array(float(1 + i))
                raw = x.astype(NUMPY[kind]).tobytes()
                header[key] = {
                    "dtype": kind,
                    "shape": list(shape),
                    "data_offsets": [len(data), len(data) + len(raw)],
                }
                data += raw
        files.append((header, data))
    return files


def packed(header: dict | bytes, data: bytes, length: int | None = None) -> bytes:
    """The bytes of a safetensors file."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


# ---------------------------------------------------------------------------------------------------------
# Damage


def damaged(header: dict, data: bytes, dice: random.Random) -> tuple[str, bytes]:
    """One to three mutations of a file: their names and the bytes."""
    header = json.loads(json.dumps(header))
    names = []
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        whole = ("dtype", "shape", "data_offsets")
        keys = [k for k, v in header.items() if isinstance(v, dict) and all(part in v for part in whole)]
        if not keys:
            break
        key = dice.choice(keys)
        entry = header[key]
        name = dice.choice(CHANGES)
        names.append(name)
        if name == "drop key":
            del header[key]
        elif name == "rename":
            spot = dice.randrange(max(1, len(key)))
            letter = dice.choice('._0129aqABk\n\x00é\\"/ ')
            new = key[:spot] + dice.choice(("", letter, letter + key[spot : spot + 1])) + key[spot + 1 :]
            header[new] = header.pop(key)
        elif name == "other name":
            new = dice.choice(
                (
                    key.replace(".weight", ".bias"),
                    key + ".weight",
                    "unet." + key,
                    "base_model.model." + key,
                    key.replace("unet", "transformer"),
                    key.replace("attn1", "attn2"),
                    key.replace("to_q", "to_out"),
                    key.replace("alpha", "dora_scale"),
                    key.replace("lora_up", "hada_w1_a"),
                    key.replace("_0_", "_1_"),
                    key.replace("input_blocks_4", "input_blocks_7"),
                    "bundle_emb.1",
                    "",
                )
            )
            header[new] = header.pop(key)
        elif name == "swap tensors":
            other = dice.choice(keys)
            header[key], header[other] = header[other], entry
        elif name == "copy tensor":
            copy = dict(entry)
            if dice.random() < 0.7:  # with bytes of its own; otherwise it overlaps
                start, end = entry["data_offsets"]
                copy["data_offsets"] = [len(data), len(data) + end - start]
                data += data[start:end]
            header[
                dice.choice((key.replace("0", "1", 1), key + "2", f"unet.{key}", key.replace("unet.", "", 1)))
            ] = copy
        elif name == "shape":
            shape = entry["shape"]
            entry["shape"] = dice.choice(
                (
                    shape[::-1],
                    [int(np.prod(shape))],
                    [*shape, 1],
                    [1, *shape],
                    [*shape, 1, 1],
                    [0],
                    [],
                    [-1, *shape[1:]],
                    [1 << 62, 4],
                    [1 << 31, 1 << 31],
                    [dice.randrange(9) for _ in range(dice.randrange(5))],
                )
            )
        elif name == "fitting shape":  # an equal number of entries, perhaps another rank
            count = int(np.prod(entry["shape"]))
            ranks = [n for n in range(1, count + 1) if count % n == 0]
            rank = dice.choice(ranks) if ranks else 1
            entry["shape"] = [rank, count // rank]
        elif name == "dtype":
            entry["dtype"] = dice.choice((*NUMPY, *OTHERS))
        elif name == "fitting dtype":
            entry["dtype"] = {"F32": "I32", "F16": "BF16", "F64": "I64"}.get(entry["dtype"], "U8")
        elif name == "offsets":
            entry["data_offsets"] = [
                dice.choice((o, o + 1, o - 1, o + 2, 0, len(data), 1 << 63, -8))
                for o in entry["data_offsets"]
            ]
        elif name == "odd entry":
            header[key] = dice.choice((None, 3, [], "x", {}, {**entry, "extra": 1}, {"dtype": "F32"}))
        elif name == "metadata":
            header["__metadata__"] = dice.choice(
                (
                    None,
                    [],
                    {"a": 1},
                    {"a": "x" * 5000},
                    {"format": "np"},
                    {"lora_adapter_metadata": dice.choice(CONFIGS)},
                    {"lora_adapter_metadata": dice.choice(CONFIGS)},
                )
            )
        elif name == "special number":
            start, end = entry["data_offsets"]
            kind = entry["dtype"]
            if kind in ("F64", "F32", "F16") and 0 <= start < end <= len(data):
                special = dice.choice((np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-8, 6e4, -2.5, 1e300))
                with np.errstate(over="ignore"):
                    raw = np.array(special).astype(NUMPY[kind]).tobytes()
                at = start + len(raw) * dice.randrange(max(1, (end - start) // len(raw)))
                data = data[:at] + raw + data[at + len(raw) :]
        elif name == "bits" and data:
            raw = bytearray(data)
            for _ in range(dice.randrange(1, 9)):
                raw[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
            data = bytes(raw)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=dice.random() < 0.5).encode(
        "utf-8", "surrogatepass"
    )
    content = packed(text, data)
    if dice.random() < 0.25:
        name = dice.choice(FILE_CHANGES)
        names.append(name)
        if name == "truncate":
            content = content[: dice.randrange(len(content))]
        elif name == "append":
            content += bytes(dice.randrange(256) for _ in range(dice.randrange(1, 40)))
        elif name == "header bits":
            raw = bytearray(content)
            for _ in range(dice.randrange(1, 4)):
                raw[dice.randrange(min(len(raw), 8 + len(text)))] ^= 1 << dice.randrange(8)
            content = bytes(raw)
        elif name == "header length":
            wrong = dice.choice((0, 1, len(text) - 1, len(text) + 1, len(text) + len(data), 1 << 40, 1 << 63))
            content = packed(text, data, wrong)
        elif name == "padding":
            content = packed(text + b" " * dice.randrange(1, 12), data)
        elif name == "repeated key":
            content = packed(text[:-1] + b"," + text[1:], data)
        elif name == "deep":
            content = packed(b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}", data)
        elif name == "zeros":
            content = bytes(len(content))
        elif name == "pickle":
            content = b"\x80\x04" + content
    return "+".join(names), content


CHANGES = (
    "drop key",
    "rename",
    "other name",
    "swap tensors",
    "copy tensor",
    "shape",
    "fitting shape",
    "dtype",
    "fitting dtype",
    "offsets",
    "odd entry",
    "metadata",
    "special number",
    "bits",
    "bits",
    "bits",
)
FILE_CHANGES = (
    "truncate",
    "append",
    "header bits",
    "header length",
    "padding",
    "padding",
    "repeated key",
    "deep",
    "zeros",
    "pickle",
)
CONFIGS = (
    "",
    "[]",
    "{",
    "null",
    '{"unet.r": 2}',
    '{"unet.r": 2, "unet.lora_alpha": 3}',
    '{"unet.lora_alpha": "3"}',
    '{"unet.lora_alpha": 1e999}',
    '{"unet.lora_alpha": 0}',
    '{"unet.use_dora": true}',
    '{"unet.alpha_pattern": {"(x+x+)+y": 1}}',
    "[" * 5000,
)


# ---------------------------------------------------------------------------------------------------------
# The independent reader


def updates(content: bytes) -> dict[str, np.ndarray]:
    """Layer → dense float64 ΔW of a file that is valid; an unknown layer is under its own stem.

    Raises anything at all where it is not.
    """
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    data = content[8 + length :]
    metadata = header.pop("__metadata__", None) or {}
    groups: dict[str, dict[str, np.ndarray]] = {}
    for key, entry in header.items():
        start, end = entry["data_offsets"]
        raw = data[start:end]
        if entry["dtype"] == "BF16":
            wide = np.frombuffer(raw, "<u2").astype("<u4") << 16
            x = wide.view("<f4").astype(float)
        else:
            x = np.frombuffer(raw, NUMPY[entry["dtype"]]).astype(float)
        x = x.reshape(entry["shape"])
        if not np.isfinite(x).all():
            raise ValueError(f"{key} is not finite")
        stem = re.sub(
            r"(\.lora_linear_layer|[._]lora)?\.(alpha|lora_(up|down|A|B)(\.\w+)?\.weight|(up|down)\.weight)$",
            "",
            key,
        )
        part = (
            "alpha"
            if key.endswith("alpha")
            else "up"
            if re.search(r"up|lora_B", key[len(stem) :])
            else "down"
        )
        stem = plainly(stem)
        stem = stem + "_lora" if f"{stem}_lora" in STEMS else stem
        groups.setdefault(STEMS.get(stem, stem), {})[part] = x
    found = {}
    for layer, parts in groups.items():
        up, down = parts["up"], parts["down"]
        scale = float(parts["alpha"].reshape(())) / len(down) if "alpha" in parts else 1.0
        if "lora_adapter_metadata" in metadata and layer.startswith("unet."):
            config = json.loads(metadata["lora_adapter_metadata"])
            scale = config.get("unet.lora_alpha", len(down)) / len(down)
        found[layer] = scale * (up.reshape(up.shape[:2]) @ down.reshape(len(down), -1))
    return found


def sums(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a direct merge must hold."""
    layers = [*one, *(layer for layer in other if layer not in one)]
    return {
        n: one[n] + other[n] if n in one and n in other else one[n] if n in one else other[n] for n in layers
    }


# ---------------------------------------------------------------------------------------------------------
# Cases


def wrong(status: int, said: str, output: Path, content: bytes, other: bytes) -> str | None:
    """What is wrong with the outcome of a merge, or None."""
    if status == 2:
        if said.count("\n") != 1 or not said.startswith("lorarar: ") or len(said) > 900:
            return f"not one short line: {said!r}"
        return "refused, but wrote a file" if output.exists() else None
    if status != 0:
        return f"exit status {status}"
    if said:
        return f"said {said!r}"
    with np.errstate(all="ignore"):  # damaged bits may be numbers whose products no type holds
        expected, got = sums(updates(content), updates(other)), updates(output.read_bytes())
    if len(expected) != len(got):
        return f"{len(got)} layers, expected {len(expected)}"
    for layer, delta in got.items():
        reference = expected.get(layer)
        if reference is None:  # a renamed layer: the reader does not know its name, but knows its update
            unnamed = [x for name, x in expected.items() if name not in LAYERS and x.shape == delta.shape]
            reference = min(unnamed, key=lambda x: float(np.abs(x - delta).max()), default=None)
        if reference is None or reference.shape != delta.shape:
            return f"{layer}: no such update in the files"
        if not (
            np.abs(reference) < 1e150
        ).all():  # a product that float64 cannot hold; its factors can be right
            continue
        error = np.linalg.norm(delta - reference)
        if not error <= 2e-3 * np.linalg.norm(reference) + 1e-6:
            return f"{layer}: off by {error:g} of {np.linalg.norm(reference):g}"
    return None


def run(cases: int, seed: int = 0, keep: Path | None = None, progress: bool = False) -> Counter[str]:
    """Run the cases; how many were merged, refused and failed. Failing files are kept in ``keep``."""
    from tqdm import trange

    import lorarar.merging  # noqa: F401 (torch: a case's time must not run while it is imported)
    from lorarar.cli import main

    seeds, counts = corpus(), Counter()
    plain = packed(*seeds[-1])

    def too_long(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    previous = signal.signal(signal.SIGALRM, too_long)
    try:
        with tempfile.TemporaryDirectory() as folder:
            one, other, out = (Path(folder, f"{n}.safetensors") for n in ("damaged", "plain", "out"))
            other.write_bytes(plain)
            for case in trange(cases, disable=not progress, delay=2, unit="case"):
                dice = random.Random(f"{seed}-{case}")
                names, content = damaged(*dice.choice(seeds), dice)
                one.write_bytes(content)
                out.unlink(missing_ok=True)
                said, printed = io.StringIO(), io.StringIO()
                signal.alarm(SECONDS)
                try:
                    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
                        status = main(["merge", str(one), str(other), "-o", str(out), "--quiet"])
                    failure = wrong(status, said.getvalue(), out, content, plain)
                except BaseException as error:
                    if isinstance(error, KeyboardInterrupt):
                        raise
                    status, failure = -1, f"{type(error).__name__}: {error}"
                finally:
                    signal.alarm(0)
                counts["failed" if failure else "merged" if status == 0 else "refused"] += 1
                left = {p.name for p in Path(folder).iterdir()} - {one.name, other.name, out.name}
                if left:
                    failure = f"left {left}"
                if failure:
                    print(f"case {case} of seed {seed} ({names}): {failure}", file=sys.stderr)
                    if keep:
                        keep.mkdir(parents=True, exist_ok=True)
                        (keep / f"{seed}-{case}.safetensors").write_bytes(content)
    finally:
        signal.signal(signal.SIGALRM, previous)
    return counts


def main() -> int:
    """Command line of the fuzz."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files of failing cases")
    options = parser.parse_args()
    start = time.perf_counter()
    counts = run(options.cases, options.seed, options.keep, progress=True)
    seconds = time.perf_counter() - start
    print(
        f"{options.cases} cases in {seconds:.0f} s: {counts['merged']} merged rightly, "
        f"{counts['refused']} refused in one line, {counts['failed']} failed"
    )
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
