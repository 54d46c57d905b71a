"""The command line of options that are dataclasses (`lorarar.options`)."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any

from lorarar.options import METHODS, is_number, is_whole

if TYPE_CHECKING:
    from lorarar.options import Options


def add_base(parser: argparse.ArgumentParser) -> None:
    """Add what every command with a base model has: the base, the device, whether it reports."""
    parser.add_argument("--base", metavar="PATH_OR_ID", help="base model (default: the scale's)")
    parser.add_argument(
        "--scale",
        metavar="NAME",
        help="smoke, shoebox, sdxl, koala or sd15: base model and settings (default: shoebox, or the base's)",
    )
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:N or mps (default: the best)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no report")


def add_options(
    parser: argparse.ArgumentParser,
    kind: type[Options],
    leave_out: Collection[str] = (),
    methods: Sequence[str] = METHODS,
) -> None:
    """Give a parser a flag for each option, those of one or several of ``methods`` under their names.

    What is not given stays None, so that a scale or a file can decide.
    """
    for one in fields(kind):
        whose = [method for method in one.metadata["methods"] if method in methods]
        if one.name not in leave_out and (whose or not one.metadata["methods"]):
            place = parser if len(methods) == 1 else group_of(parser, whose)
            place.add_argument(f"--{one.name.replace('_', '-')}", **_flag(one))


def group_of(parser: argparse.ArgumentParser, methods: Sequence[str]) -> argparse._ActionsContainer:
    """Return the parser's group of options of these methods, "ties, dare and dare-ties"; itself for none."""
    if not methods:
        return parser
    title = " and ".join([", ".join(methods[:-1])] * (len(methods) > 1) + [methods[-1]])
    known = {group.title: group for group in parser._action_groups}
    return known.get(title) or parser.add_argument_group(title)


def _flag(one: Field[Any]) -> dict[str, Any]:
    default, about = one.default, one.metadata
    if isinstance(default, bool):
        return {"action": "store_true", "default": None, "help": about["help"]}
    shown = _shown(default) if about["shown"] is None else about["shown"]
    words = f"{about['help']}; default: {shown}" if shown else about["help"]
    flag = {"help": words.replace("%", "%%"), "default": None}
    if about["choices"]:
        return {**flag, "choices": about["choices"]}
    if isinstance(default, tuple):
        return {**flag, "type": _words, "metavar": "NAMES"}
    if is_number(one):
        return {**flag, "type": int if is_whole(one) else float, "metavar": "N" if is_whole(one) else "X"}
    return {**flag, "metavar": "TEXT"}


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        return ",".join(default)
    return "" if default is None else f"{default:g}" if isinstance(default, float) else str(default)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def given(options: argparse.Namespace, kind: type[Options]) -> dict[str, Any]:
    """Return the options of a kind that were given on the command line."""
    found = {one.name: getattr(options, one.name, None) for one in fields(kind)}
    return {name: value for name, value in found.items() if value is not None}
