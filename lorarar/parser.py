"""What all commands share: the parser, the exit statuses, the words for an error."""

import argparse
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


def status_of(run: Callable[[], None], program: str) -> int:
    """Run a program's step, and return its exit status: 0, 2 for bad input, said in one line, 130 if stopped.

    Asked to stop, it ends as after Ctrl-C.
    """
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run()
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, MemoryError) as error:
        print(f"{program}: {one_line(error)}", file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def command(commands: Commands, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    """Add a command's parser: its line in ``lorarar --help``, and its own help with an example."""
    return commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}\n\n{EXIT_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
