"""Mutate valid LoRA files and see that each is merged rightly or refused in one line.

    python tests/fuzz.py --cases 10000

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
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from fuzz_files import DIALECTS, NUMPY, corpus, packed, sums, updates

SECONDS = 20
OTHERS = ("BF16", "F8_E4M3", "F8_E5M2", "C64", "F4", "", "f32")


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
                    key.replace("img_attn", "txt_attn"),
                    key.replace("single", "double"),
                    key.replace("_", ".", 3),
                    key.replace(".", "_", 2),
                    key.replace("lora_down", "lora_mid"),
                    key.replace("weight", "diff_b"),
                    key.replace("lora_unet_", dice.choice(("diffusion_model.", "lycoris_", "lora_unet__"))),
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
    '{"unet.lora_alpha": 4, "unet.alpha_pattern": {".*attn1.*": 1, "to_v": 3}}',
    '{"unet.r": 2, "unet.init_lora_weights": "pissa_niter_4"}',
    "[" * 5000,
)


# ---------------------------------------------------------------------------------------------------------
# Cases


def wrong(status: int, said: str, output: Path, content: bytes, other: bytes) -> str | None:
    """What is wrong with the outcome of a merge, or None."""
    lines = [line for line in said.splitlines() if not line.startswith("lorarar: warning: ")]
    if status == 2:
        if len(lines) != 1 or not lines[0].startswith("lorarar: ") or len(lines[0]) > 900:
            return f"not one short line: {said!r}"
        return "refused, but wrote a file" if output.exists() else None
    if status != 0:
        return f"exit status {status}"
    if lines:
        return f"said {said!r}"
    with np.errstate(all="ignore"):  # damaged bits may be numbers whose products no type holds
        expected, got = sums(updates(content), updates(other)), updates(output.read_bytes())
    for layer in {**expected, **got}:
        one, reference = got.get(layer, np.zeros(1)), expected.get(layer, np.zeros(1))
        if layer in got and layer in expected and one.shape != reference.shape:
            return f"{layer}: shape {one.shape}, expected {reference.shape}"
        if not (
            np.abs(reference) < 1e150
        ).all():  # a product that float64 cannot hold; its factors can be right
            continue
        error = np.linalg.norm(one - reference)
        if not error <= 2e-3 * np.linalg.norm(reference) + 1e-6:
            return f"{layer}: off by {error:g} of {np.linalg.norm(reference):g}"
    return None


def run(cases: int, seed: int = 0, keep: Path | None = None, progress: bool = False) -> Counter[str]:
    """Run the cases; how many were merged, refused and failed. Failing files are kept in ``keep``."""
    from tqdm import trange

    import lorarar.merging  # noqa: F401 (torch: a case's time must not run while it is imported)
    from lorarar.cli import program
    from lorarar.cli.adapters import add_merge

    seeds, counts = corpus(), Counter()

    def too_long(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    previous = signal.signal(signal.SIGALRM, too_long)
    all_commands = program.COMMANDS
    program.COMMANDS = [add_merge]  # the parsers of all the others would take most of a case's time
    try:
        with tempfile.TemporaryDirectory() as folder:
            one, other, out = (Path(folder, f"{n}.safetensors") for n in ("damaged", "plain", "out"))
            for case in trange(cases, disable=not progress, delay=2, unit="case"):
                dice = random.Random(f"{seed}-{case}")
                dialect = dice.choice(list(seeds))
                names, content = damaged(*seeds[dialect], dice)
                plain = packed(*seeds[DIALECTS[dialect][3] if dialect in DIALECTS else "new"])
                one.write_bytes(content)
                other.write_bytes(plain)
                out.unlink(missing_ok=True)
                said, printed = io.StringIO(), io.StringIO()
                signal.alarm(SECONDS)
                try:
                    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
                        status = program.main(
                            ["merge", str(one), str(other), "-o", str(out), "--quiet", "--convert"]
                        )
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
                    print(f"case {case} of seed {seed} ({dialect}: {names}): {failure}", file=sys.stderr)
                    if keep:
                        keep.mkdir(parents=True, exist_ok=True)
                        (keep / f"{seed}-{case}.safetensors").write_bytes(content)
    finally:
        signal.signal(signal.SIGALRM, previous)
        program.COMMANDS = all_commands
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
