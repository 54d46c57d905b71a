"""The command line: ``lorarar COMMAND …``.

A command is a function ``add_…(commands)`` that adds its parser and sets ``run``, a function of the parsed
arguments. What a command needs is imported when it runs, so that ``lorarar --help`` loads nothing.
"""

from lorarar.cli.program import main

__all__ = ["main"]
