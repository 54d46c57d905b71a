"""The manifest of what the project ships: each artefact's hash, and how, when and on what it was made.

The workflow in ``data/Snakefile`` runs every command through ``run``, which writes a piece of the manifest
when the command has succeeded; ``gather`` joins the pieces into ``data/manifest.json``; ``check`` compares
the manifest with the files. Nothing here imports torch: it would cost seconds for each of many jobs.

    lorarar manifest run shoebox/clip -- lorarar shoebox clip --steps 480
    lorarar manifest gather
    lorarar manifest check
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorarar.atomic import atomic
from lorarar.parser import EXIT_STATUSES, Parser, status_of
from lorarar.scales import data_folder
from lorarar.stamp import files_of, machine, sha256, today

FACTS = ("sha256", "bytes", "command", "seed", "seconds", "machine", "date")
"""What the manifest says of each artefact."""


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as aside:
        aside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def run(artefacts: Sequence[str], command: Sequence[str], pieces: Path, seed: int = 0) -> int:
    """Run a command, and if it succeeds write the piece of the manifest of each artefact that it made.

    Args:
        artefacts: files or folders, relative to the data folder.
        command: begins with ``lorarar`` or ``python``, which stand for this interpreter's.
        pieces: the folder of the pieces.
        seed: that the command uses.

    Returns:
        The command's exit status. A signal that asks this process to stop is handed on to the command.

    Raises:
        ValueError: no command, or it has not made an artefact.
    """
    if not command:
        raise ValueError("no command: put it after --")
    words = {"lorarar": [sys.executable, "-m", "lorarar.cli"], "python": [sys.executable]}
    began = time.monotonic()
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def stop(number: int, _: object) -> None:
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    # Before the command starts: asked to stop in between, this process must not leave it behind.
    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        process = subprocess.Popen([*words.get(command[0], [command[0]]), *command[1:]])
        for number in early:
            process.send_signal(number)
        # With a timeout it looks up now and then: a signal just before a wait without one would be seen late.
        status = process.wait(timeout=math.inf)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if status:
        return status if status > 0 else 128 - status
    seconds = round(time.monotonic() - began, 1)
    for name in artefacts:
        path = data_folder() / name
        facts = {
            "sha256": sha256(path),
            "bytes": sum(file.stat().st_size for file in files_of(path)),
            "command": _spoken(command),
            "seed": seed,
            "seconds": seconds,
            "machine": machine(),
            "date": today(),
        }
        _write(pieces / f"{name.replace('/', '--')}.json", {"artefact": name, **facts})
    return 0


def _spoken(command: Sequence[str]) -> str:
    """Write a command as one would type it in the project's folder: paths of the data folder as data/…"""
    folder = str(data_folder())
    return shlex.join([f"data{word[len(folder) :]}" if word.startswith(folder) else word for word in command])


def gather(pieces: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Join the pieces with the manifest that is there, write ``data/manifest.json``, and return it.

    An entry of either is taken only if its hash is still the artefact's; the pieces come first.

    Returns:
        {artefact: facts}, and the artefacts that were dropped: changed or gone since their entry was written.

    Raises:
        ValueError: a piece or the manifest cannot be read.
    """
    path = data_folder() / "manifest.json"
    entries = dict(_read(path)["artefacts"]) if path.is_file() else {}
    known = {name: [facts] for name, facts in entries.items()}
    for file in sorted(pieces.glob("*.json")):
        facts = _read(file)
        known.setdefault(facts.pop("artefact"), []).insert(0, facts)
    found, dropped = {}, []
    for name in sorted(known):
        place = data_folder() / name
        digest = sha256(place) if place.exists() else None
        facts = next((facts for facts in known[name] if facts["sha256"] == digest), None)
        if facts is None:
            dropped.append(name)
        else:
            found[name] = {fact: facts[fact] for fact in FACTS}
    _write(path, {"artefacts": found})
    return found, dropped


def check() -> list[str]:
    """Return one line for each artefact that is not what ``data/manifest.json`` says.

    Raises ValueError if there is no manifest.
    """
    path = data_folder() / "manifest.json"
    if not path.is_file():
        raise ValueError(f"no manifest {path}: `make artefacts` writes it")
    lines = []
    for name, facts in _read(path)["artefacts"].items():
        place = data_folder() / name
        if not place.exists():
            lines.append(f"{name}: missing; made by `{facts['command']}`")
        elif (digest := sha256(place)) != facts["sha256"]:
            lines.append(f"{name}: SHA-256 {digest[:12]}…, the manifest says {facts['sha256'][:12]}…")
    return lines


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no manifest: remove it ({error})") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``lorarar manifest STEP``; exit status 2 for bad input, 1 if the check fails."""
    parser = Parser(
        prog="lorarar manifest",
        description="The manifest of what the project ships: hashes, commands, seeds, times, machines.",
        epilog=f"example:\n  lorarar manifest check\n\n{EXIT_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(dest="step", metavar="STEP", required=True)
    for name, text in (
        ("run", "run the command after --, lorarar … or python …, and note what it made"),
        ("gather", "write data/manifest.json"),
        ("check", "compare data/manifest.json with the files"),
    ):
        step = steps.add_parser(name, help=text, description=text)
        if name == "check":
            continue
        step.add_argument("--pieces", type=Path, metavar="DIR", default=Path("runs") / "manifest")
        if name == "run":
            step.add_argument("--seed", type=int, default=0)
            step.add_argument("artefacts", nargs="*", metavar="ARTEFACT", help="relative to the data folder")
    given = list(sys.argv[1:] if arguments is None else arguments)
    given, command = (
        (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    )
    options = parser.parse_args(given)
    return status_of(lambda: _step(options, command), "lorarar manifest")


def _step(options: argparse.Namespace, command: Sequence[str]) -> int:
    if options.step == "run":
        return run(options.artefacts, command, options.pieces, options.seed)
    if options.step == "gather":
        found, dropped = gather(options.pieces)
        for name in dropped:
            print(f"{name}: changed or gone since it was made; left out")
        print(f"{data_folder() / 'manifest.json'}: {len(found)} artefacts")
        return 0
    lines = check()
    print("\n".join(lines) or "every artefact is as the manifest says")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
