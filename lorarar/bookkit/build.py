"""The book as pages: runs handed to Jupyter Book through its execution cache, and the executed notebooks."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from lorarar.bookkit.facts import broken
from lorarar.bookkit.notebook import write_executed
from lorarar.bookkit.runs import run_all
from lorarar.bookkit.sources import ROOT, pages, read_chapter


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


def build(scale: str, seed: int = 0, strict: bool = False, only: Sequence[str] = ()) -> Path:
    """Execute the chapters where needed and render the book. Returns the first page.

    The executed notebooks, outputs and figures in, are written to ``notebooks`` beside the ``html``.

    Args:
        scale: at which the chapters run. ``shoebox`` renders into ``_build/html``, any other into
            ``_build/<scale>/_build/html``.
        seed: of the chapters.
        strict: from scratch, with warnings as errors.
        only: beginnings of names, such as "05": a book of these chapters alone, in ``_build/only``, to look
            at while writing. What refers to other chapters stays without a link.

    Raises:
        subprocess.CalledProcessError: the rendering failed.
        ValueError: strict, and the text states what does not hold in this run; otherwise that is a warning.
    """
    chosen = [path for path in pages() if not only or path.stem.startswith(tuple(only))]
    runs = list(zip(chosen, run_all(chosen, scale, seed), strict=True))
    wrong = [f"{path.stem}: {sentence}" for path, executed in runs for sentence in broken(executed)]
    for line in wrong:
        print(f"does not hold in this run: {line}", file=sys.stderr)
    if wrong and strict:
        raise ValueError(f"the text says {len(wrong)} things that do not hold: rewrite them")
    if only and not runs:
        raise ValueError(f"no chapter {', '.join(only)} in the book")
    place = ROOT / "_build" / "only" if only else ROOT if scale == "shoebox" else ROOT / "_build" / scale
    stamp, doctrees = place / "_build" / ".rendered", place / "_build" / ".doctrees"
    cached = fill_cache(runs)
    if strict or not stamp.is_file() or stamp.read_text() != cached:
        # Sphinx reads a page again only when its source changes; here its outputs did.
        shutil.rmtree(doctrees, ignore_errors=True)
        stamp.unlink(missing_ok=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(ROOT)]
    command += ["--quiet", "--path-output", str(place), *(["-W", "-n", "--keep-going"] if strict else [])]
    if only:
        command += ["--toc", str(_contents_of([path for path, _ in runs], place))]
    subprocess.run(command, check=True, env={**os.environ, "LORARAR_RUN": scale})
    stamp.write_text(cached)
    for path, executed in runs:
        write_executed(path, executed, place / "_build" / "notebooks")
    first = f"book/{runs[0][0].stem}.html" if only else "index.html"
    return place / "_build" / "html" / first


def _contents_of(chosen: Sequence[Path], place: Path) -> Path:
    """Write the contents of a book of some chapters and return the file."""
    import yaml

    reference = [{"file": f"book/{name}.md"} for name in ("glossary", "bibliography")]
    listed = [{"file": str(path.relative_to(ROOT))} for path in chosen]
    contents = {
        "format": "jb-book",
        "root": "book/intro",
        "parts": [
            {"caption": "Chapters", "numbered": True, "chapters": listed},
            {"caption": "Reference", "chapters": reference},
        ],
    }
    place.mkdir(parents=True, exist_ok=True)
    path = place / "_toc.yml"
    path.write_text(yaml.safe_dump(contents, sort_keys=False))
    return path
