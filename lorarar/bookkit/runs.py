"""Runs of chapters: executed once by papermill, kept until code, data, scale or seed change."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from lorarar.atomic import atomic
from lorarar.bookkit.sources import BOOK, ROOT, read_chapter, title
from lorarar.scales import data_folder, find_scale
from lorarar.stamp import machine, sha256

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

RUNS = ROOT / "_build" / "runs"


@cache
def _sha256(path: Path, changed: int) -> str:
    """Return a file's hash, worked out anew when it was changed: every chapter asks for all files."""
    return sha256(path)


def source_hash(chapter: str = "") -> str:
    """Return a hash of all that decides a chapter's outputs beside its own cells: package, data, versions.

    Of the modules that belong to one chapter each, only this chapter's count.
    """
    own = {f"ch{chapter}.py", f"{chapter}.py", "__init__.py"}
    package = [
        path
        for path in sorted((ROOT / "lorarar").rglob("*.py"))
        if path.parent.name not in ("chapters", "checks") or path.name in own
    ]
    data = sorted(path for path in data_folder().rglob("*") if path.is_file())
    mark = hashlib.sha256()
    for path in [*package, *data, ROOT / "constraints.txt"]:
        mark.update(f"{path.name} {_sha256(path, path.stat().st_mtime_ns)}\n".encode())
    return mark.hexdigest()


def fingerprint(path: Path, scale: str, seed: int = 0) -> str:
    """Return a hash of all that decides a chapter's run: its cells, scale, seed and `source_hash`."""
    cells = [cell for cell in read_chapter(path).cells if cell.cell_type == "code"]
    code = [(cell.source, cell.metadata.get("tags", [])) for cell in cells]
    return hashlib.sha256(json.dumps([code, scale, seed, source_hash(path.stem)]).encode()).hexdigest()


def is_fresh(executed: Path, mark: str) -> bool:
    """Tell whether a run is there and has that fingerprint."""
    if not executed.is_file():
        return False
    return json.loads(executed.read_text())["metadata"].get("lorarar", {}).get("fingerprint") == mark


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def run(path: Path, scale: str, seed: int = 0, warm: bool = False) -> Path:
    """Execute a chapter with papermill, unless this very run is there already.

    Args:
        path: the chapter's source.
        scale: name of a `Scale`.
        seed: of the chapter's random numbers.
        warm: in a kernel that has torch and diffusers imported already (`WarmManager`), where that is
            possible: it pays from the second chapter on.

    Returns:
        The executed notebook, ``_build/runs/<scale>/<chapter>.ipynb``. Its metadata ``lorarar`` holds
        fingerprint, scale, seed, seconds, machine and date.

    Raises:
        papermill.PapermillExecutionError: a cell failed.
    """
    import nbformat
    import papermill

    from lorarar.bookkit.kernels import WarmManager, can_be_warm

    find_scale(scale)
    target, mark = RUNS / scale / f"{path.stem}.ipynb", fingerprint(path, scale, seed)
    if is_fresh(target, mark):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    # Sentences are held to the shoebox's own seed. An empty folder: a chapter that only runs beside its own
    # files would fail in Colab.
    mode = scale if seed == 0 else f"{scale} with seed {seed}"
    with _environment({"LORARAR_RUN": mode}), TemporaryDirectory() as folder:
        executed = papermill.execute_notebook(
            read_chapter(path),
            None,
            {"scale": scale, "seed": seed},
            cwd=folder,
            progress_bar=False,
            start_timeout=180,
            extra_arguments=["--log-level=50"],  # the kernel's notices about itself
            **({"kernel_manager_class": WarmManager} if warm and can_be_warm() else {}),
        )
    executed.metadata["lorarar"] = {
        "fingerprint": mark,
        "scale": scale,
        "seed": seed,
        "seconds": time.perf_counter() - start,
        "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    with atomic(target) as aside:
        aside.write_text(nbformat.writes(executed) + "\n")
    return target


def run_all(paths: Sequence[Path], scale: str, seed: int = 0) -> list[Path]:
    """Execute chapters as `run` does, each in a process of one thread, as many at once as there are cores.

    Small models gain little from a second thread, and two chapters at once gain a chapter.

    Raises:
        subprocess.CalledProcessError: a chapter failed; what it printed stands above.
    """
    code = "import sys; from pathlib import Path; from lorarar.bookkit.runs import run; "
    code += "run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))"
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

    def execute(path: Path) -> Path:
        target = RUNS / scale / f"{path.stem}.ipynb"
        if not is_fresh(target, fingerprint(path, scale, seed)):
            start = time.perf_counter()
            command = [sys.executable, "-c", code, str(path), scale, str(seed)]
            subprocess.run(command, check=True, env=one_thread)
            print(
                f"{path.stem}: executed at scale {scale} in {time.perf_counter() - start:.0f} s", flush=True
            )
        return target

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(min(4, cores)) as pool:
        return list(pool.map(execute, paths))


def status() -> Styler:
    """Return the table of the status page: each chapter's run time and outcome, as last executed here."""
    from lorarar.bookkit.tables import table

    about = {
        (run.stem, run.parent.name): json.loads(run.read_text())["metadata"]["lorarar"]
        for run in RUNS.glob("*/*.ipynb")
    }
    rows = [
        {
            "Chapter": title(BOOK / f"{chapter}.md"),
            "Scale": scale,
            "Run time": f"{run['seconds']:.0f} s",
            "Seed": run["seed"],
            "Executed": run["date"],
        }
        for (chapter, scale), run in sorted(about.items())
        if (BOOK / f"{chapter}.md").is_file()
    ]
    return table(rows, kind="status")


def versions() -> Styler:
    """Return the table of what the book stands on here: the machine, and the versions of packages."""
    from lorarar.bookkit.tables import table

    names = ("lorarar", "torch", "diffusers", "transformers", "peft", "safetensors", "numpy", "scipy")
    names += ("matplotlib", "pandas", "ipywidgets", "papermill", "jupyter-book", "myst-nb", "sphinx")
    rows = [{"What": "machine", "Version": machine()}]
    for name in names:
        try:
            rows.append({"What": name, "Version": metadata.version(name)})
        except metadata.PackageNotFoundError:
            rows.append({"What": name, "Version": "not installed"})
    return table(rows, kind="versions")
