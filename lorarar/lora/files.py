"""A safetensors file on disk: checked, mapped, and called what it is where it is something else."""

import hashlib
import json
import math
import re
import stat
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from io import BufferedReader
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lorarar.lora.adapter import LoRAError, printable

FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
_HASHING = ThreadPoolExecutor(2, thread_name_prefix="sha256")
_IN_FOLDERS = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")  # peft's name, diffusers'


class File(NamedTuple):
    """What a safetensors file holds; ``finite`` only says that all its numbers are, not that one is not."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    finite: bool


def digest_of(path: Path) -> "Future[str]":
    """The SHA-256 of a file in hexadecimal, computed on a thread."""
    return _HASHING.submit(_sha256, path.open("rb"))


def _sha256(file: BufferedReader) -> str:
    # Read, not mapped: a thread that looks at a map of a file which is cut short meanwhile ends the process.
    with file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def adapter_file(path: Path) -> Path:
    """The file that a path names: itself, or the one of an adapter in a folder of peft's or diffusers'.

    Raises:
        LoRAError: a folder without one.
    """
    try:
        if not path.is_dir():
            return path
        for name in _IN_FOLDERS:
            if (path / name).is_file():
                return path / name
        if (path / "adapter_model.bin").is_file():
            raise LoRAError(f"{path}: {_PICKLE.format('holds adapter_model.bin, which is a pickle; it')}")
    except LoRAError:
        raise
    except (OSError, ValueError):
        return path  # `_regular` says what is wrong with it
    raise LoRAError(f"{path}: is a folder without {' or '.join(_IN_FOLDERS)}; name the file inside it")


def _regular(path: Path) -> bytes:
    """The first 512 bytes of a file that is one and may be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for ever
            raise LoRAError(f"{path}: is not a regular file, expected a .safetensors file")
        with path.open("rb") as file:
            return file.read(512)
    except LoRAError:
        raise
    except FileNotFoundError:
        raise LoRAError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise LoRAError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:  # a zero byte
        raise LoRAError(f"{printable(str(path))}: not a valid path") from None


_PICKLE = (
    "{} was not opened, since unpickling can run code; convert it to safetensors with the tool that made it"
)
_SIGNED_IN = "download it again, signed in where the site asks for it"
_INSTEAD = {  # how a file begins → what came in place of the one that was asked for
    rb"version https://git-lfs": "is a pointer of Git LFS to a file; download it again (git lfs pull)",
    rb"(\xef\xbb\xbf)?\s*<": f"is a web page; {_SIGNED_IN}",
    rb'\s*[{\[]\s*"': f"is a server's answer in JSON; {_SIGNED_IN}",
}
_OTHER = {
    rb"PK|\x80[\x02-\x05]": _PICKLE.format("is a pickle, whatever its name ends in; it"),
    rb"$": "is empty, expected a .safetensors file; download or export it again",
    rb"": "is not a safetensors file; export the LoRA as .safetensors",
}


def instead_of(head: bytes) -> str | None:
    """What a file that begins so is, where a download brought something else than the file."""
    return next((what for begin, what in _INSTEAD.items() if re.match(begin, head, re.IGNORECASE)), None)


def open_file(path: Path, check: Callable[[Path, Iterable[str]], None] | None = None) -> File:
    """Map a file; ``check`` looks at its keys first.

    Raises:
        LoRAError: it cannot be read, or is not safetensors.
    """
    head = _regular(path)
    if head[8:9] != b"{":
        other = next(what for begin, what in _OTHER.items() if re.match(begin, head))
        raise LoRAError(f"{path}: {instead_of(head) or other}")
    try:
        with safe_open(path, "pt") as file:  # checks the header, and every tensor's size against the file's
            if check:
                check(path, file.keys())
            return _mapped(path, file)
    except LoRAError:
        raise
    except (SafetensorError, ValueError, TypeError, RuntimeError, OverflowError, OSError) as error:
        reason = printable(str(error).removeprefix("Error while deserializing header: "))
        raise LoRAError(f"{path}: damaged safetensors file ({reason}); download or export it again") from None


def _mapped(path: Path, file: safe_open) -> File:
    """A checked file as slices of one map: four times as fast as one call to ``file`` for each tensor.

    Tensors of one type lie together; each such run is looked through and cut up in one go.
    """
    whole = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    begin = 8 + int.from_bytes(whole[:8].numpy().tobytes(), "little")
    header = json.loads(whole[8:begin].numpy().tobytes())
    header.pop("__metadata__", None)
    for key, entry in header.items():
        if entry["dtype"] not in FLOATS and not key.endswith(".alpha"):
            raise LoRAError(
                f"{path}: {printable(key)} holds {entry['dtype']} numbers, expected F16, BF16, F32 or F64; "
                "export the LoRA unquantised"
            )
    tensors: dict[str, Tensor] = {}
    finite = True
    for kind, entries in groupby(
        sorted(header.items(), key=lambda item: item[1]["data_offsets"]), lambda item: item[1]["dtype"]
    ):
        run = dict(entries)
        offsets = [offset for entry in run.values() for offset in entry["data_offsets"]]
        start, end = begin + offsets[0], begin + offsets[-1]
        if kind in FLOATS and start % FLOATS[kind].itemsize == 0:
            numbers = whole[start:end].view(FLOATS[kind])
            finite = finite and all_finite(numbers)
            parts = numbers.split([math.prod(entry["shape"]) for entry in run.values()])
            tensors |= {key: x.view(run[key]["shape"]) for key, x in zip(run, parts, strict=True)}
        else:  # not aligned to its type, or of a type that only alphas have
            finite = False
            tensors |= {key: file.get_tensor(key) for key in run}
    return File(tensors, file.metadata() or {}, finite)


def all_finite(x: Tensor) -> bool:
    """Say whether no number of a tensor is infinite or NaN."""
    # NaN and infinity survive a sum; only a sum that is not finite, as halves' may be, needs a second look.
    return math.isfinite(x.sum().item()) or all(math.isfinite(end.item()) for end in torch.aminmax(x))
