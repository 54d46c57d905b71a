"""Steps of a long run that are not done twice: files are kept with what decided them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lorarar.atomic import atomic


def missing(
    step: Path, decided: Mapping[str, Any], files: Sequence[Path], beside: Iterable[Path] = ()
) -> list[Path]:
    """Return which files of a step are still to be made.

    A file counts as made if it is there, so it has to appear whole or not at all (`atomic`). Files that were
    made from something else are removed first.

    Args:
        step: a JSON file that remembers what decided the step.
        decided: all that decides what the files hold, as JSON values.
        files: what the step makes.
        beside: what goes with the files, such as a checkpoint.
    """
    said = json.loads(json.dumps(decided))  # as it is read back: lists for tuples
    try:
        same = json.loads(step.read_text()) == said
    except (OSError, ValueError):
        same = False
    if not same:
        for file in (*files, *beside):
            file.unlink(missing_ok=True)
        with atomic(step) as aside:
            aside.write_text(json.dumps(said, indent=1) + "\n")
    return [file for file in files if not file.is_file()]
