"""The command line of options that are dataclasses (`lorarar.options`)."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lorarar.options import Options


def add_options(
    parser: argparse.ArgumentParser, kind: type[Options], leave_out: Collection[str] = ()
) -> None:
    """Give a parser a flag for each option; what is not given stays None, so that a scale can decide."""
    for one in fields(kind):
        if one.name not in leave_out:
            parser.add_argument(f"--{one.name.replace('_', '-')}", **_flag(one))


def _flag(one: Field[Any]) -> dict[str, Any]:
    default, about = one.default, one.metadata
    if isinstance(default, bool):
        return {"action": "store_true", "default": None, "help": about["help"]}
    if about["by_scale"]:
        shown = "; default: the scale's"
    elif default is None:
        shown = ""
    else:
        shown = f"; default: {','.join(default) if isinstance(default, tuple) else default}"
    flag = {"help": f"{about['help']}{shown}".replace("%", "%%"), "default": None}
    if about["choices"]:
        return {**flag, "choices": about["choices"]}
    if isinstance(default, tuple):
        return {**flag, "type": _words, "metavar": "NAMES"}
    if isinstance(default, int | float):
        return {**flag, "type": type(default), "metavar": "N" if isinstance(default, int) else "X"}
    return {**flag, "metavar": "TEXT"}


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def given(options: argparse.Namespace, kind: type[Options]) -> dict[str, Any]:
    """Return the options of a kind that were given on the command line."""
    found = {one.name: getattr(options, one.name, None) for one in fields(kind)}
    return {name: value for name, value in found.items() if value is not None}
