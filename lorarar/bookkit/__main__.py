"""``lorarar book``: execute and render the book."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lorarar.bookkit.sources import BOOK, ROOT, pages
from lorarar.parser import EXIT_STATUSES, Parser, status_of


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="lorarar book",
        description="Execute and render the book.",
        epilog=f"example:\n  lorarar book run --scale smoke 05\n\n{EXIT_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
        command.add_argument("chapters", nargs="*", help="such as 02; all if none is given")
        if name == "build":
            command.add_argument("--strict", action="store_true", help="from scratch, warnings are errors")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``build|run|ledger|notebooks|cover``; exit status 2 for bad input, in one line."""
    options = _parser().parse_args(arguments)
    try:
        return status_of(lambda: _COMMANDS[options.command](options), "lorarar book")
    except subprocess.CalledProcessError as error:
        print(f"lorarar book: rendering the book failed (exit status {error.returncode})", file=sys.stderr)
        return 1


def _chosen(options: argparse.Namespace) -> list[Path]:
    from lorarar.scales import find_scale

    find_scale(options.scale)
    every = pages()
    chosen = [p for p in every if not options.chapters or p.stem.startswith(tuple(options.chapters))]
    if not chosen:
        raise ValueError(f"no chapter {', '.join(options.chapters)} in {BOOK}")
    return chosen


def _build(options: argparse.Namespace) -> int:
    from lorarar.bookkit.build import build

    _chosen(options)
    print(f"\nThe book: {build(options.scale, options.seed, options.strict, options.chapters)}")
    return 0


def _run(options: argparse.Namespace) -> int:
    from lorarar.bookkit.facts import broken
    from lorarar.bookkit.ledger import differences, ledger, live_values
    from lorarar.bookkit.runs import run

    failed = False
    for path in _chosen(options):
        executed = run(path, options.scale, options.seed)
        found = live_values(path, executed, options.scale)
        lines = differences(ledger(path.stem).get(options.scale, {}), found)
        lines += [f"rewrite: {sentence}" for sentence in broken(executed)]
        failed |= bool(lines)
        print(f"{path.stem} at scale {options.scale}: {'; '.join(lines) or 'as in the ledger'}")
    return int(failed)


def _ledger(options: argparse.Namespace) -> int:
    from lorarar.bookkit.facts import broken
    from lorarar.bookkit.ledger import live_values, write_ledger
    from lorarar.bookkit.runs import run

    for path in _chosen(options):
        executed = run(path, options.scale, options.seed)
        found = live_values(path, executed, options.scale)
        print(write_ledger(path.stem, options.scale, found).relative_to(ROOT))
        for sentence in broken(executed):
            print(f"  rewrite: {sentence}")
    return 0


def _notebooks(_: argparse.Namespace) -> int:
    from lorarar.bookkit.notebook import write_siblings

    for path in write_siblings():
        print(path.relative_to(ROOT))
    return 0


def _cover(_: argparse.Namespace) -> int:
    from lorarar.bookkit.cover import cover

    cover().save(BOOK / "_static" / "cover.webp", quality=90, method=6)
    return 0


_COMMANDS = {"build": _build, "run": _run, "ledger": _ledger, "notebooks": _notebooks, "cover": _cover}

if __name__ == "__main__":
    sys.exit(main())
