"""Files that appear whole or not at all: written aside, then renamed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a place beside `path` to write to, which takes its name when the block has ended well.

    A block that fails, or is interrupted, leaves what was there before. Killed outright, it also leaves a
    hidden file that ends in ``.part``.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.part")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
