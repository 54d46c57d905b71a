"""The command line: ``lorarar COMMAND …``."""

from lorarar.cli.program import main

__all__ = ["main"]
