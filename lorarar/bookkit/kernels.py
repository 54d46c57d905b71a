"""Warm kernels: one process imports the libraries once and forks itself for each chapter.

To start Python and to import torch, diffusers and pandas takes ten seconds of a core, as much as many a
chapter computes at scale smoke. What is imported beforehand is other people's: a kernel has a copy of it,
imports the project's modules itself, and begins with no names.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import uuid
from functools import cache
from pkgutil import resolve_name
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

LIBRARIES = (
    "ipykernel.kernelapp",
    "matplotlib.pyplot",
    "pandas",
    "peft",
    "scipy.stats",
    "sklearn.metrics",
    *(f"diffusers:{name}" for name in ("AutoencoderKL", "DDIMScheduler", "StableDiffusionXLPipeline")),
    *(f"transformers:CLIP{name}" for name in ("Model", "TextModel", "TextModelWithProjection", "Tokenizer")),
)
"""What takes long to import; of the lazy ones the parts that load the rest."""


def can_be_warm() -> bool:
    """Tell whether kernels may be forked here: on Linux, and where no GPU's driver may have been touched."""
    return sys.platform == "linux" and not shutil.which("nvidia-smi")


class WarmManager(AsyncKernelManager):
    """Jupyter's manager of a kernel that is forked from this process's one warm process."""

    async def _async_pre_start_kernel(self, **options: Any) -> tuple[list[str], dict[str, Any]]:
        self.kernel_id = self.kernel_id or str(uuid.uuid4())
        self.provisioner = self.provisioner or _Provisioner(
            kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self
        )
        return await super()._async_pre_start_kernel(**options)


class _Provisioner(LocalProvisioner):
    async def launch_kernel(self, cmd: list[str], **options: Any) -> dict[str, Any]:
        self.cwd = options.get("cwd") or os.getcwd()
        self.process = _Forked(cmd, options["env"], self.cwd)
        self.pid = self.pgid = self.process.pid
        return self.connection_info


class _Forked:
    """A kernel's process, with what Jupyter asks of a `subprocess.Popen`; its parent is the warm process."""

    stdin = stdout = stderr = None

    def __init__(self, command: list[str], environment: dict[str, str], folder: str) -> None:
        warm = _warm()
        print(json.dumps([command, environment, folder]), file=warm.stdin, flush=True)
        self.pid = int(warm.stdout.readline())

    def poll(self) -> int | None:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return 0
        return None

    def wait(self) -> int:
        return 0  # called when `poll` has seen the end; the warm process leaves no zombies

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _warm() -> subprocess.Popen:
    """Start the warm process; it ends with this one."""
    command = [sys.executable, "-c", "from lorarar.bookkit.kernels import _serve; _serve()"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.communicate)
    return process


def _serve() -> None:
    """Import the libraries; then, for each line of the input, fork and become the kernel it describes."""
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # a kernel's own choice
    for name in LIBRARIES:
        resolve_name(name)
    gc.freeze()  # what is there stays, and stays shared
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        if pid := os.fork():
            print(pid, flush=True)
        else:
            return _become(*json.loads(line))


def _become(command: list[str], environment: dict[str, str], folder: str) -> None:
    """Run ``python -m MODULE …`` in this process, as if it had just been started."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    module = command.index("-m") + 1
    sys.argv = command[module:]
    runpy.run_module(command[module], run_name="__main__", alter_sys=True)
