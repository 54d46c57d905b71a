"""The program as it is started from a shell, where Python's way into torch and out again counts.

Of the seconds that ``lorarar merge`` takes on two files of SDXL, most went to importing torch and to taking
it apart at the end (`lorarar bench` times both). A quarter of an import is Python's own kernels
for the device ``meta``, on which a merge makes empty tensors and nothing else.
"""

import gc
import os
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import NoReturn

from lorarar.cli.program import main

QUICK = ("info", "merge")
"""The commands that last a second, start no process and leave nothing to be cleared away."""

TRIED = ("2.13.",)
"""The releases of torch that were tried without their kernels for meta; others are imported whole."""


class _Later(ModuleType):
    """Stands for a module that is imported for what it does, until something in it is asked for."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def defer(name: str) -> None:
    """Leave a module out until something in it is asked for; without effect if it has been imported."""
    sys.modules.setdefault(name, _Later(name))


def run() -> NoReturn:
    """Run the command of the command line and end the process with its exit status."""
    if sys.argv[1:2] and sys.argv[1] in QUICK:
        gc.set_threshold(100_000)  # what importing makes is here to stay
        # DARE draws random numbers, and torch's generator wants the kernels.
        if _release_of_torch().startswith(TRIED) and not any("dare" in word for word in sys.argv):
            defer("torch._meta_registrations")
        status = main()
        sys.stderr.flush()
        os._exit(status)  # else every module is taken apart first; output is flushed, files are closed
    sys.exit(main())


def _release_of_torch() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""
