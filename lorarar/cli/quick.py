"""The program as it is started from a shell, where the way out of Python counts.

Of the seconds that ``lorarar merge`` takes on two files of SDXL, most go to importing torch and to taking it
apart at the end (`lorarar bench` times both). The second part is left out.
"""

import gc
import os
import sys
from typing import NoReturn

from lorarar.cli.program import main

QUICK = ("info", "merge")
"""The commands that last a second, start no process and leave nothing to be cleared away."""


def run() -> NoReturn:
    """Run the command of the command line and end the process with its exit status."""
    if sys.argv[1:2] and sys.argv[1] in QUICK:
        gc.set_threshold(100_000)  # what importing makes is here to stay
        status = main()
        sys.stderr.flush()
        os._exit(status)  # else every module is taken apart first; output is flushed, files are closed
    sys.exit(main())
