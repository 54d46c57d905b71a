"""What all commands share: the parser, the exit statuses, what becomes of errors and signals."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

Commands = Any  # argparse's own type for what add_subparsers returns is private

EXIT_STATUSES = """\
exit status: 0 done; 2 bad input or usage, said in one line on standard error, and nothing was written;
130 interrupted, and nothing was written; 141 whoever read the output closed it early (a pipe to head)"""


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, as every other error is said."""

    def error(self, message: str) -> NoReturn:
        """Print one line on standard error and exit with status 2."""
        self.exit(2, f"lorarar: {' '.join(message.split())}; see `{self.prog} --help`\n")


def as_typed(arguments: Sequence[str]) -> str:
    """The command as it was given, for a file's metadata; of a machine's own paths only the last name."""
    return shlex.join(
        ["lorarar", *(Path(word).name if Path(word).is_absolute() else word for word in arguments)]
    )


def one_line(error: Exception) -> str:
    """Return an error's message on one line; its type's name if it has no message."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"out of memory{text and f': {text}'}"
    return text or type(error).__name__


def command(commands: Commands, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    """Add a command's parser: its line in ``lorarar --help``, and its own help with an example."""
    return commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}\n\n{EXIT_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


EXTRAS = {
    **dict.fromkeys(("diffusers", "peft", "transformers", "accelerate", "PIL"), "train"),
    **dict.fromkeys(("openai", "sklearn", "scipy"), "judge"),
    **dict.fromkeys(("matplotlib", "pandas", "ipywidgets", "IPython", "papermill", "nbformat"), "book"),
    "gradio": "ui",
    "tornado": "people",
}
"""Which extra of the package brings a module that is missing."""


def status_of(work: Callable[[], int | None], name: str, needs: str = "") -> int:
    """Do a command's work and return the exit status (see `EXIT_STATUSES`); errors are said in one line.

    Args:
        work: returns its own exit status, or None for 0.
        name: that begins the line.
        needs: the command as one types it, for the line on a missing extra.
    """
    try:
        # Asked to stop, a command takes back what it has begun to write, as it does after Ctrl-C.
        previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            status = work()
            sys.stdout.flush()
            return status or 0
        finally:
            signal.signal(signal.SIGTERM, previous)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `lorarar info FILE | head`: the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except ModuleNotFoundError as error:
        if (extra := EXTRAS.get((error.name or "").partition(".")[0])) is None:
            raise
        said = f"`{needs or name}` needs {error.name}, which is not installed: pip install 'lorarar[{extra}]'"
    except (ValueError, OSError, MemoryError) as error:  # LoRAError is a ValueError
        said = one_line(error)
    except ExceptionGroup as group:  # several inputs are bad: a line for each
        if group.split(ValueError)[1] is not None:
            raise
        *others, last = map(one_line, group.exceptions)
        for other in others:
            print(f"{name}: {other}", file=sys.stderr)
        said = last
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, for a GPU; torch may not be imported here
            raise
        said = "out of GPU memory: choose a smaller --batch-size or rank"
    print(f"{name}: {said}", file=sys.stderr)
    return 2
