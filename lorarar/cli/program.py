"""The program ``lorarar``: all commands."""

import argparse
import sys
import warnings
from collections.abc import Sequence

from lorarar import __version__
from lorarar.cli.adapters import add_info, add_merge
from lorarar.cli.images import add_generate, add_judge, add_metrics
from lorarar.cli.pipeline import add_pipeline
from lorarar.cli.regmean import add_regmean
from lorarar.cli.shoebox import add_shoebox
from lorarar.cli.train import add_train_hypernetwork, add_train_lora, add_ziplora
from lorarar.cli.ui import add_ui
from lorarar.cli.wings import WINGS, add_wings, run_wing
from lorarar.cli.zoo import add_zoo
from lorarar.parser import EXIT_STATUSES, Parser, as_typed, status_of


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

    def work() -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("always", module=r"lorarar\.")
            warnings.showwarning = _show
            options.run(options)

    return status_of(work, "lorarar", needs=f"lorarar {options.command}")


def _show(message: Warning | str, category: type[Warning], file: str, line: int, *_: object) -> None:
    """A warning of ours in one line; any other as Python shows it."""
    if category.__name__ == "LoRAWarning":  # its module imports torch
        print(f"lorarar: warning: {' '.join(str(message).split())}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, file, line), end="", file=sys.stderr)


COMMANDS = [
    add_info,
    add_merge,
    add_ziplora,
    add_regmean,
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
