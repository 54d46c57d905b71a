"""What the book's chapters need, and what executes and renders them.

A chapter calls `record`, `recorded`, `claims` and `attempt`. The builder (`python -m lorarar.book`) executes
each chapter once with papermill, keeps the run in ``_build/runs/<scale>/`` until the chapter, the package or
the data change, and hands the outputs to Jupyter Book through its execution cache.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from itertools import groupby
from math import isclose, isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lorarar.models import data_folder, find_scale

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
RUNS = ROOT / "_build" / "runs"
LEDGERS = ROOT / "tests" / "ledger"

Value = bool | int | float | str

VERDICTS = ("reproduced", "partly", "not at this scale")

_GLUE = "application/papermill.record/"  # the prefix by which myst-nb and papermill know a hidden value


# ---------------------------------------------------------------- what chapters call


class Table:
    """A table that Jupyter and the book show as HTML, and everything else as Markdown."""

    def __init__(
        self, header: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "", name: str = "table"
    ) -> None:
        self.header = [str(cell) for cell in header]
        self.rows = [[_text(cell) for cell in row] for row in rows]
        self.caption, self.name = caption, name
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"a row of {len(row)} cells in a table of {len(self.header)} columns: {row}")

    def _repr_html_(self) -> str:
        def line(cells: Sequence[str], tag: str) -> str:
            # The label lets the style sheet turn rows into cards on a phone.
            return "".join(
                f'<{tag} data-label="{html.escape(label)}">{_badge(html.escape(cell))}</{tag}>'
                for label, cell in zip(self.header, cells, strict=True)
            )

        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in self.rows)
        return (
            f'<table class="lorarar-{self.name}">{caption}<thead><tr>{line(self.header, "th")}</tr></thead>'
            f"<tbody>{body}</tbody></table>"
        )

    def _repr_markdown_(self) -> str:
        rows = [self.header, ["---"] * len(self.header), *self.rows]
        text = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
        return f"{text}\n\n{self.caption}".strip()

    __repr__ = _repr_markdown_


def _text(cell: object) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def _badge(cell: str) -> str:
    if cell not in VERDICTS:
        return cell
    return f'<span class="verdict verdict-{cell.split()[0]}">{cell}</span>'


def record(name: str, value: Any) -> Value:  # noqa: ANN401  (NumPy and torch scalars come in many types)
    """Record a value that the prose quotes as ``{glue:text}`name:.2f```, and that the ledger checks.

    Args:
        name: unique in the chapter.
        value: bool, int, float or str, or a NumPy or torch scalar, which is turned into one.

    Returns:
        The plain Python value.

    Raises:
        ValueError: the value is something else, or not finite.
    """
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f"cannot record {name}: expected a number or a string, got {type(value).__name__}")
    if isinstance(value, float) and not isfinite(value):
        raise ValueError(f"cannot record {name}: it is {value}")
    try:
        from IPython import get_ipython
        from IPython.display import publish_display_data
    except ImportError:
        return value
    if get_ipython() is not None:
        # The same message as myst_nb.glue(name, value, display=False), without needing Sphinx in Colab.
        publish_display_data(
            {f"{_GLUE}text/plain": repr(value)},
            {"scrapbook": {"name": name, "mime_prefix": _GLUE}, "lorarar": {"value": value}},
        )
        if "LORARAR_RUN" not in os.environ:  # a reader who runs the cell sees what the prose will call it
            print(f"{name} = {value}")
    return value


def verdict(full: bool, part: bool = False) -> str:
    """Return "reproduced" if `full` holds, "partly" if only `part` does, else "not at this scale"."""
    return VERDICTS[0] if full else VERDICTS[1] if part else VERDICTS[2]


@dataclass(frozen=True)
class Claim:
    """A claim of a paper and what this chapter's own code says about it.

    Args:
        key: a short name; the verdict is recorded as ``claim_<key>``.
        text: the claim in our words.
        source: where it stands, such as "LoRA.rar, Table 2".
        measured: what was measured here, written by code.
        verdict: one of `VERDICTS`, a bool, or a function of no arguments that returns one of these.
    """

    key: str
    text: str
    source: str
    measured: str
    verdict: str | bool | Callable[[], str | bool]


def claims(*rows: Claim) -> Table:
    """Record the verdict of each claim and return the chapter's table of claims.

    Raises:
        ValueError: a verdict is none of `VERDICTS`.
    """
    lines = []
    for claim in rows:
        found = claim.verdict() if callable(claim.verdict) else claim.verdict
        found = verdict(bool(found)) if not isinstance(found, str) else found
        if found not in VERDICTS:
            raise ValueError(f"claim {claim.key}: verdict {found!r} is none of {', '.join(VERDICTS)}")
        record(f"claim_{claim.key}", found)
        lines.append((claim.text, claim.source, claim.measured, found))
    return Table(("Claim", "Source", "Measured here", "Verdict"), lines, name="claims")


def attempt(check: Callable[[Any], object], answer: object) -> bool:
    """Run an exercise's check on an answer and print the outcome: ``✓ name`` or ``✗ name: hint``.

    Args:
        check: ``check_<name>(answer)``; it raises AssertionError with a hint for an answer that is wrong.
        answer: the reader's, the solution's, or a plausible wrong one.
    """
    name = check.__name__.removeprefix("check_")
    try:
        check(answer)
    except NotImplementedError:
        print(f"✗ {name}: not written yet")
    except AssertionError as error:
        print(f"✗ {name}: {error or 'not right yet'}")
    except Exception as error:
        print(f"✗ {name}: stopped with {type(error).__name__}: {error}")
    else:
        print(f"✓ {name}: right")
        return True
    return False


class Recorded(dict):
    """The values of a recorded run, with its provenance: command, seed, scale, machine, date, inputs."""

    def __init__(self, name: str, values: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.name, self.provenance = name, dict(provenance)


def recorded(name: str) -> Recorded:
    """Load ``data/recorded/<name>.json``, a result too long in the making for a chapter.

    Raises:
        ValueError: there is no such recorded run, or it lacks part of its provenance.
    """
    path = data_folder() / "recorded" / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.json"))) or "none"
        raise ValueError(f"no recorded run {path}: there are {known}")
    content = json.loads(path.read_text())
    missing = [key for key in (*_PROVENANCE, "values") if key not in content]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    return Recorded(name, content["values"], {key: content[key] for key in _PROVENANCE})


_PROVENANCE = ("command", "seed", "scale", "machine", "date", "commit", "inputs")


def save_recorded(
    name: str,
    values: Mapping[str, Any],
    *,
    command: str,
    seed: int,
    scale: str,
    inputs: Iterable[str | Path] = (),
) -> Path:
    """Write ``data/recorded/<name>.json``: values and provenance, whole or not at all. Returns the path.

    Args:
        name: of the run.
        values: JSON values.
        command: the one that makes these values anew.
        seed: that the command used.
        scale: that the command used.
        inputs: files that decided the result, relative to the project's root; kept as SHA-256.
    """
    path = data_folder() / "recorded" / f"{name}.json"
    content = {
        "command": command,
        "seed": seed,
        "scale": scale,
        "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "inputs": {str(i): hashlib.sha256((ROOT / i).read_bytes()).hexdigest() for i in inputs},
        "values": dict(values),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(content, indent=1) + "\n")
    aside.rename(path)
    return path


def inside(files: Iterable[Path]) -> list[Path]:
    """Return the files that lie in the project, relative to its root, as `save_recorded` takes them."""
    return [file.relative_to(ROOT) for file in map(Path.resolve, files) if file.is_relative_to(ROOT)]


def provenance(name: str) -> Table:
    """Return the provenance of a recorded run as a table; inputs that changed since are named."""
    about = recorded(name).provenance
    changed = [path for path, digest in about["inputs"].items() if _digest(ROOT / path) != digest]
    rows = [(key, about[key]) for key in _PROVENANCE if key != "inputs"]
    rows.append(("inputs", ", ".join(_by_folder(about["inputs"])) or "none"))
    rows.append(("changed since", ", ".join(changed) or "none"))
    return Table(("Recorded run", name), rows, name="provenance")


def _by_folder(paths: Iterable[str]) -> Iterator[str]:
    # A page has no room for every file of a zoo; its record has.
    for folder, files in groupby(sorted(paths), os.path.dirname):
        files = list(files)
        yield from files if len(files) <= 3 else [f"{folder}/ ({len(files)} files)"]


def machine() -> str:
    """Describe this machine without naming it: processor or GPU, cores, system, Python."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    unit = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{cores} CPU cores"
    return f"{unit}, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


def status() -> Table:
    """Return the table of the status page: each chapter's run time and outcome, as last executed here."""
    found = {
        (run.parent.name, run.stem): json.loads(run.read_text())["metadata"]["lorarar"]
        for run in sorted(RUNS.glob("*/*.ipynb"))
    }
    rows = [
        (title(BOOK / f"{chapter}.md"), scale, f"{run['seconds']:.0f} s", run["seed"], run["date"])
        for (scale, chapter), run in sorted(found.items(), key=lambda item: (item[0][1], item[0][0]))
        if (BOOK / f"{chapter}.md").is_file()
    ]
    return Table(("Chapter", "Scale", "Run time", "Seed", "Executed"), rows, name="status")


def versions() -> Table:
    """Return the table of what the book stands on here: the machine, and the versions of packages."""
    names = ("lorarar", "torch", "diffusers", "transformers", "peft", "safetensors", "numpy", "scipy")
    names += ("matplotlib", "papermill", "jupyter-book", "myst-nb", "sphinx")
    rows = [("machine", machine())]
    for name in names:
        try:
            rows.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            rows.append((name, "not installed"))
    return Table(("What", "Version"), rows, name="versions")


# ---------------------------------------------------------------- what builds the book


def chapters() -> list[Path]:
    """Return the chapters' sources, ``book/NN_topic.md``, that ``_toc.yml`` lists; others are drafts."""
    import yaml

    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = [ROOT / entry["file"] for part in contents["parts"] for entry in part["chapters"]]
    return [path for path in listed if re.match(r"\d\d_", path.name)]


def title(path: Path) -> str:
    """Return the first heading of a page."""
    return next((line[2:].strip() for line in path.read_text().splitlines() if line[:2] == "# "), path.stem)


def read_chapter(path: Path) -> Any:  # noqa: ANN401  (an nbformat.NotebookNode)
    """Read a chapter's MyST source as a notebook without outputs."""
    from myst_nb.core.read import read_myst_markdown_notebook

    return read_myst_markdown_notebook(path.read_text(), path=path)


@cache
def repository() -> str:
    """Return the address of the project's repository; it stands in ``_config.yml`` and nowhere else."""
    import yaml

    return yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _commit() -> str:
    found = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True
    )
    return found.stdout.strip() or "none"


def source_hash() -> str:
    """Return a hash of all that decides a chapter's outputs beside its own cells: package, data, versions."""
    package = sorted((ROOT / "lorarar").rglob("*.py"))
    data = sorted(path for path in data_folder().rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in [*package, *data, ROOT / "constraints.txt"]:
        digest.update(f"{path.name} {_digest(path)}\n".encode())
    return digest.hexdigest()


def fingerprint(path: Path, scale: str, seed: int = 0) -> str:
    """Return a hash of all that decides a chapter's run: its cells, scale, seed and `source_hash`."""
    cells = [cell for cell in read_chapter(path).cells if cell.cell_type == "code"]
    code = [(cell.source, cell.metadata.get("tags", [])) for cell in cells]
    return hashlib.sha256(json.dumps([code, scale, seed, source_hash()]).encode()).hexdigest()


def is_fresh(executed: Path, mark: str) -> bool:
    """Tell whether a run is there and has that fingerprint."""
    if not executed.is_file():
        return False
    return json.loads(executed.read_text())["metadata"].get("lorarar", {}).get("fingerprint") == mark


def run(path: Path, scale: str, seed: int = 0) -> Path:
    """Execute a chapter with papermill, unless this very run is there already.

    Args:
        path: the chapter's source.
        scale: name of a `Scale`.
        seed: of the chapter's random numbers.

    Returns:
        The executed notebook, ``_build/runs/<scale>/<chapter>.ipynb``. Its metadata ``lorarar`` holds
        fingerprint, scale, seed, seconds, machine and date.

    Raises:
        papermill.PapermillExecutionError: a cell failed.
    """
    import nbformat
    import papermill

    find_scale(scale)
    target, mark = RUNS / scale / f"{path.stem}.ipynb", fingerprint(path, scale, seed)
    if is_fresh(target, mark):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    before, os.environ["LORARAR_RUN"] = os.environ.get("LORARAR_RUN"), scale
    start = time.perf_counter()
    try:
        # An empty folder: a chapter that only runs beside its own files would fail in Colab.
        with TemporaryDirectory() as folder:
            executed = papermill.execute_notebook(
                read_chapter(path),
                None,
                {"scale": scale, "seed": seed},
                cwd=folder,
                progress_bar=False,
                start_timeout=180,
                extra_arguments=["--log-level=50"],  # the kernel's notices about itself
            )
    finally:
        if before is None:
            del os.environ["LORARAR_RUN"]
        else:
            os.environ["LORARAR_RUN"] = before
    executed.metadata["lorarar"] = {
        "fingerprint": mark,
        "scale": scale,
        "seed": seed,
        "seconds": time.perf_counter() - start,
        "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    aside = target.with_suffix(f".{os.getpid()}")
    nbformat.write(executed, aside)
    aside.rename(target)
    return target


def values(executed: Path) -> dict[str, Value]:
    """Return the values that a run recorded. Raises ValueError if a name was recorded twice."""
    found: dict[str, Value] = {}
    for cell in json.loads(executed.read_text())["cells"]:
        for output in cell.get("outputs", []):
            name = output.get("metadata", {}).get("scrapbook", {}).get("name")
            if name is None:
                continue
            if name in found:
                raise ValueError(f"{executed.stem} records {name} twice")
            found[name] = output["metadata"]["lorarar"]["value"]
    return found


def ledger(chapter: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return a chapter's ledger, {scale: {name: {value, tolerance, reason}}}; empty if there is none.

    A tolerance is absolute; null says that any value will do, and the reason says why.
    """
    path = LEDGERS / f"{chapter}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def differences(expected: Mapping[str, Mapping[str, Any]], found: Mapping[str, Value]) -> list[str]:
    """Return one line for each value that is wrong, missing or extra against a ledger of one scale."""
    lines = [f"{name}: missing from the run" for name in expected if name not in found]
    lines += [f"{name}: not in the ledger (it is {found[name]!r})" for name in found if name not in expected]
    for name, entry in expected.items():
        if name not in found or entry["tolerance"] is None:
            continue
        value, wanted, tolerance = found[name], entry["value"], entry["tolerance"]
        if isinstance(value, str) or isinstance(wanted, str):
            right = value == wanted
        else:
            right = isclose(value, wanted, rel_tol=1e-9, abs_tol=tolerance)
        if not right:
            lines.append(f"{name}: {value!r}, expected {wanted!r} within {tolerance}")
    return lines


def write_ledger(chapter: str, scale: str, found: Mapping[str, Value]) -> Path:
    """Bring a chapter's ledger up to a run: new values, with the tolerances and reasons kept.

    A new name gets tolerance 0 and an empty reason, which the tests refuse until someone writes one.
    """
    content = ledger(chapter)
    old = content.get(scale, {})
    content[scale] = {
        name: {
            "value": value,
            "tolerance": old.get(name, {}).get("tolerance", 0),
            "reason": old.get(name, {}).get("reason", ""),
        }
        for name, value in sorted(found.items())
    }
    path = LEDGERS / f"{chapter}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def fill_cache(runs: Iterable[tuple[Path, Path]]) -> str:
    """Replace Jupyter Book's execution cache by runs (source, executed). Returns a hash of them.

    The cache knows a notebook by its code alone, so it is emptied every time: what is fresh is decided by
    the runs' fingerprints.
    """
    import nbformat
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn

    folder = ROOT / ".jupyter_cache"
    shutil.rmtree(folder, ignore_errors=True)
    store = get_cache(str(folder))
    digest = hashlib.sha256()
    for path, target in runs:
        executed = nbformat.read(target, as_version=4)
        notebook = read_chapter(path)
        outputs = [
            cell
            for cell in executed.cells
            if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", [])
        ]
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for cell, ran in zip(code, outputs, strict=True):
            cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
        about = executed.metadata["lorarar"]
        store.cache_notebook_bundle(
            CacheBundleIn(notebook, str(path), data={"execution_seconds": about["seconds"]}),
            check_validity=False,
            overwrite=True,
        )
        digest.update(f"{about['fingerprint']} {about['date']} {about['seconds']}".encode())
    return digest.hexdigest()


def build(scale: str, seed: int = 0, strict: bool = False) -> Path:
    """Execute the chapters where needed and render the book. Returns the first page.

    Args:
        scale: at which the chapters run. ``shoebox`` renders into ``_build/html``, any other into
            ``_build/<scale>/_build/html``.
        seed: of the chapters.
        strict: from scratch, with warnings as errors.

    Raises:
        subprocess.CalledProcessError: the rendering failed.
    """
    runs = []
    for path in chapters():
        print(f"{path.stem}: executing at scale {scale}", end=" … ", flush=True)
        start = time.perf_counter()
        runs.append((path, run(path, scale, seed)))
        print(f"{time.perf_counter() - start:.0f} s", flush=True)
    place = ROOT if scale == "shoebox" else ROOT / "_build" / scale
    stamp, doctrees = place / "_build" / ".rendered", place / "_build" / ".doctrees"
    cached = fill_cache(runs)
    if strict or not stamp.is_file() or stamp.read_text() != cached:
        # Sphinx reads a page again only when its source changes; here its outputs did.
        shutil.rmtree(doctrees, ignore_errors=True)
        stamp.unlink(missing_ok=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(ROOT)]
    command += ["--quiet", "--path-output", str(place), *(["-W", "-n", "--keep-going"] if strict else [])]
    subprocess.run(command, check=True, env={**os.environ, "LORARAR_RUN": scale})
    stamp.write_text(cached)
    return place / "_build" / "html" / "index.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m lorarar.book build|run|ledger|notebooks|cover``; exit status 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m lorarar.book", description="Execute and render the book."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("build", "execute the chapters where needed and render the book"),
        ("run", "execute chapters and compare their values with the ledger"),
        ("ledger", "execute chapters and write their values into the ledger"),
        ("notebooks", "write the .ipynb sibling of every chapter, for Colab"),
        ("cover", "draw the cover, book/_static/cover.webp"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        if name in ("notebooks", "cover"):
            continue
        command.add_argument("--scale", default="shoebox")
        command.add_argument("--seed", type=int, default=0)
        if name == "build":
            command.add_argument("--strict", action="store_true", help="from scratch, warnings are errors")
        else:
            command.add_argument("chapters", nargs="*", help="such as 02; all if none is given")
    args = parser.parse_args(arguments)

    if args.command == "notebooks":
        from lorarar.colab import write_siblings

        for path in write_siblings():
            print(path.relative_to(ROOT))
        return 0
    if args.command == "cover":
        from lorarar.plots import cover

        cover().save(BOOK / "_static" / "cover.webp", quality=90, method=6)
        return 0
    try:
        find_scale(args.scale)
        if args.command == "build":
            print(f"\nThe book: {build(args.scale, args.seed, args.strict)}")
            return 0
        wanted = [
            p for p in chapters() if not args.chapters or any(p.stem.startswith(c) for c in args.chapters)
        ]
        if not wanted:
            raise ValueError(f"no chapter {', '.join(args.chapters)} in {BOOK}")
    except ValueError as error:
        print(f"lorarar.book: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"lorarar.book: rendering the book failed (exit status {error.returncode})", file=sys.stderr)
        return 1
    failed = False
    for path in wanted:
        found = values(run(path, args.scale, args.seed))
        if args.command == "ledger":
            print(write_ledger(path.stem, args.scale, found).relative_to(ROOT))
            continue
        lines = differences(ledger(path.stem).get(args.scale, {}), found)
        failed |= bool(lines)
        print(f"{path.stem} at scale {args.scale}: {'; '.join(lines) or 'as in the ledger'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
