"""Commands that live in wings of their own: the experiment, the manifest, the book, the benchmark.

They are loaded when they are called, so that `lorarar merge` does not wait for them.
"""

from collections.abc import Sequence
from importlib import import_module

from lorarar.parser import Commands
from lorarar.study import people

WINGS = {
    "study": ("lorarar.study.__main__", "Every method on every pair of subjects and styles, judged alike."),
    "manifest": (
        "lorarar.study.provenance",
        "What the project ships: hashes, commands, seeds, machines.",
    ),
    "book": ("lorarar.bookkit.__main__", "Execute and render the book."),
    "bench": ("lorarar.bench", "Time the merge at the size of SDXL."),
    "budget": ("lorarar.budget", "Count memory and operations of training at SDXL's real size."),
    "rehearse": ("lorarar.cli.rehearse", "The whole way at SDXL's real size, on random weights."),
}


def add_wings(commands: Commands) -> None:
    """List the wings in ``lorarar --help``; each reads its own arguments."""
    for name, (_, summary) in WINGS.items():
        commands.add_parser(name, help=summary, add_help=False)


def run_wing(name: str, arguments: Sequence[str]) -> int:
    """Run a wing's command and return its exit status."""
    module, _ = WINGS[name]
    if name == "study" and arguments and arguments[0] in people.RUN:
        module = people.__name__  # a page for people needs nothing of the experiment
    return import_module(module).main(list(arguments)) or 0
