"""The command ui: the page for the browser."""

import argparse

from lorarar.parser import Commands, command


def add_ui(commands: Commands) -> None:
    """``lorarar ui``: a page on which two files are merged."""
    parser = command(
        commands,
        "ui",
        "Open a page for the browser: two LoRA files in, a report and the merged file out.",
        "lorarar ui --port 7860",
    )
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets others in; default: %(default)s")
    parser.add_argument("--port", type=int, default=7860, help="default: %(default)s")
    parser.set_defaults(run=_ui)


def _ui(options: argparse.Namespace) -> None:
    from lorarar.ui import serve

    serve(options.host, options.port)
