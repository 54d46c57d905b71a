"""The ledger: what each chapter computes live, with a tolerance and its reason, for every scale.

Numbers that come from recorded runs are not in it: they are read anew from the shipped files (`recorded` of
the chapter's module).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isclose
from pathlib import Path
from typing import Any

from lorarar.bookkit.facts import Facts
from lorarar.bookkit.sources import ROOT, module_of

LEDGERS = ROOT / "tests" / "ledger"

Value = bool | int | float | str  # texts stand in chapters of the old form


def values(executed: Path) -> dict[str, Value]:
    """Return the values that a run published. Raises ValueError if a name was published twice."""
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


def live_values(path: Path, executed: Path, scale: str) -> dict[str, Value]:
    """Return what a run of the page computed itself: its values without those of recorded runs."""
    module = module_of(path)
    shipped = module.recorded(scale) if module else {}
    return {name: value for name, value in values(executed).items() if name not in shipped}


def ledger(chapter: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return a chapter's ledger, {scale: {name: {value, tolerance, reason}}}; empty if there is none.

    A tolerance is absolute; null says that any value will do, and the reason says why.
    """
    path = LEDGERS / f"{chapter}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def known(path: Path, scale: str = "shoebox") -> Facts | dict[str, Value]:
    """Return all numbers of a page without running it: from recorded runs, and from its ledger."""
    live = {name: entry["value"] for name, entry in ledger(path.stem).get(scale, {}).items()}
    module = module_of(path)
    return live if module is None else module.recorded(scale) | live


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

    A new name takes tolerance and reason of another scale, if it is there, else tolerance 0 and an empty
    reason, which the tests refuse until someone writes one.
    """
    content = ledger(chapter)
    others = {name: entry for entries in content.values() for name, entry in entries.items()}
    old = others | content.get(scale, {})
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
