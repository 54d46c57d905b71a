"""What a result is stamped with: the hash of a file or folder, the machine, the day, the commit.

Nothing here imports torch: that would cost seconds for each of a workflow's many jobs.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds the package and, in a checkout, the whole project."""


def files_of(path: Path) -> list[Path]:
    """Return the files of an artefact, which is a file or a folder, in order; hidden ones are left out.

    Raises:
        ValueError: it is missing or an empty folder.
    """
    if path.is_file():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.is_file())
    found = [file for file in found if not any(p.startswith(".") for p in file.relative_to(path).parts)]
    if not found:
        raise ValueError(f"no artefact {path}: make it first")
    return found


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file; of a folder that of its ``sha256sum`` lines; "" if there is neither."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        return ""
    lines = [f"{sha256(file)}  {file.relative_to(path).as_posix()}\n" for file in files_of(path)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def machine() -> str:
    """Describe this machine without naming it: its GPU or its cores, processor, system and Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    unit = _gpu() or f"{cores} CPU cores"
    return f"{unit}, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


def _gpu() -> str:
    """The GPU's name, as torch says it where it is loaded; "" if there is none."""
    if (torch := sys.modules.get("torch")) is not None:
        return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    if not shutil.which("nvidia-smi"):
        return ""
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines()
    return said[0].strip() if said else ""


def today() -> str:
    """Return the day, in UTC: 2026-01-31."""
    return datetime.now(UTC).date().isoformat()


def commit() -> str:
    """Return the project's commit, twelve digits; "none" outside a checkout."""
    asked = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "none"
