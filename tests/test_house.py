"""The house: a module imports only from floors below its own, and no file is a room too large to see."""

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in (ROOT / "lorarar").rglob("*.py")}
# From the ground up; a wing is a package or a file, and everything in it.
FLOORS = (
    ("atomic", "options", "parser", "stamp", "halves"),
    ("shoebox.world", "lora", "resume"),
    ("merging",),
    ("hypernet", "scales"),
    ("records",),
    ("pipelines",),
    ("switching", "klora", "estlora", "images", "stand_in"),
    ("train", "judging", "bench"),
    ("shoebox.models", "pair", "budget", "collection"),
    ("shoebox.zoo",),
    ("study",),
    ("bookkit",),
    ("bookkit.chapters", "bookkit.checks"),
    ("ui", "comfyui"),
    ("cli",),
)


def floor(module):
    wings = {f"lorarar.{wing}": level for level, wings in enumerate(FLOORS) for wing in wings}
    inside = [wing for wing in wings if f"{module}.".startswith(f"{wing}.")]
    return wings[max(inside, key=len)] if inside else -1


@cache
def imports(module):
    """The modules of ours that a module imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lorarar"):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names = (full, f"{full}.__init__", node.module, f"{node.module}.__init__")
                found.add(next(name for name in names if name in FILES))
    return found


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_go_downwards(module):
    for other in imports(module):
        same = module.rpartition(".")[0] == other.rpartition(".")[0]
        assert floor(other) < floor(module) or (
            floor(other) == floor(module) and (same or module.endswith("__init__"))
        ), f"{module} imports {other}, which is not on a lower floor"


def test_no_module_imports_itself_by_a_detour():
    graph = {m: imports(m) - {m} for m in FILES}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_every_module_is_on_a_floor():
    assert not [m for m in FILES if floor(m) < 0 and not re.fullmatch(r"lorarar(\.shoebox)?\.__init__", m)]


def test_files_can_be_read_at_a_sitting():
    long = {m for m, path in FILES.items() if len(path.read_text().splitlines()) > 400}
    assert not long, "split them by what they hold"
