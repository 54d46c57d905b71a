"""The program ``lorarar``: all commands, and what becomes of errors and signals."""

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from lorarar import __version__
from lorarar.cli.adapters import add_info, add_merge
from lorarar.cli.images import add_generate, add_judge, add_metrics
from lorarar.cli.pipeline import add_pipeline
from lorarar.cli.shoebox import add_shoebox, add_zoo
from lorarar.cli.train import add_train_hypernetwork, add_train_lora, add_ziplora
from lorarar.cli.ui import add_ui
from lorarar.cli.wings import WINGS, add_wings, run_wing
from lorarar.parser import EXIT_STATUSES, Parser, as_typed, one_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status (see `EXIT_STATUSES`)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in WINGS:
        return run_wing(arguments[0], arguments[1:])
    parser = Parser(
        prog="lorarar",
        description="Merge a subject LoRA and a style LoRA, exactly and fast.",
        epilog=f"`lorarar COMMAND --help` shows an example of each.\n\n{EXIT_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lorarar {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(commands)
    options = parser.parse_args(arguments)
    options.spoken = as_typed(arguments)
    try:
        # Asked to stop, a command takes back what it has begun to write, as it does after Ctrl-C.
        previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("always", module=r"lorarar\.")
                warnings.showwarning = _show
                options.run(options)
            sys.stdout.flush()
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
        print(
            f"lorarar: `lorarar {options.command}` needs {error.name}, which is not installed: "
            f"pip install 'lorarar[{extra}]'",
            file=sys.stderr,
        )
        return 2
    except (ValueError, OSError, MemoryError) as error:  # LoRAError is a ValueError
        print(f"lorarar: {one_line(error)}", file=sys.stderr)
        return 2
    except ExceptionGroup as group:  # several inputs are bad: a line for each
        if group.split(ValueError)[1] is not None:
            raise
        for error in group.exceptions:
            print(f"lorarar: {one_line(error)}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, for a GPU; torch may not be imported here
            raise
        print("lorarar: out of GPU memory: choose a smaller --batch-size or rank", file=sys.stderr)
        return 2
    return 0


def _show(message: Warning | str, category: type[Warning], file: str, line: int, *_: object) -> None:
    """A warning of ours in one line; any other as Python shows it."""
    if category.__name__ == "LoRAWarning":  # its module imports torch
        print(f"lorarar: warning: {' '.join(str(message).split())}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, file, line), end="", file=sys.stderr)


EXTRAS = {
    **dict.fromkeys(("diffusers", "peft", "transformers", "accelerate", "PIL"), "train"),
    **dict.fromkeys(("openai", "sklearn", "scipy"), "judge"),
    **dict.fromkeys(("matplotlib", "pandas", "ipywidgets", "IPython", "papermill", "nbformat"), "book"),
    "gradio": "ui",
}
"""Which extra of the package brings a module that is missing."""

COMMANDS = [
    add_info,
    add_merge,
    add_ziplora,
    add_train_hypernetwork,
    add_shoebox,
    add_zoo,
    add_train_lora,
    add_generate,
    add_judge,
    add_metrics,
    add_pipeline,
    add_ui,
    add_wings,
]


if __name__ == "__main__":
    sys.exit(main())
