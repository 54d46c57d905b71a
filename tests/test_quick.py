"""The program in a process of its own: what it writes, says and returns is what `main` does."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from lorarar.cli import main
from lorarar.hypernet import Hypernetwork

LAYERS = [
    f"unet.down_blocks.1.attentions.0.transformer_blocks.{n}.attn1.to_{x}" for n in (0, 1) for x in "qk"
]


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quick")
    draw = torch.Generator().manual_seed(3)
    for name in "ab":
        tensors = {}
        for layer in LAYERS:
            tensors[f"{layer}.lora_B.weight"] = torch.randn(8, 4, generator=draw).half()
            tensors[f"{layer}.lora_A.weight"] = torch.randn(4, 8, generator=draw).half()
        save_file(tensors, folder / f"{name}.safetensors")
    torch.manual_seed(0)
    Hypernetwork([16]).save(folder / "net.safetensors")
    return folder


def started(folder, *arguments, **options):
    command = [sys.executable, "-m", "lorarar.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, **options)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--method", "dare-ties", "--rank", "3", "--format", "kohya"),
        ("--hypernetwork", "net.safetensors", "--dtype", "float32"),
    ],
    ids=str,
)
def test_a_process_of_its_own_writes_the_same_file(folder, options, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    done = started(folder, "merge", "a.safetensors", "b.safetensors", "-o", "m.safetensors", *options)
    assert done.returncode == 0, done.stderr
    theirs = (folder / "m.safetensors").read_bytes()
    assert main(["merge", "a.safetensors", "b.safetensors", "-o", "m.safetensors", *options]) == 0
    assert (folder / "m.safetensors").read_bytes() == theirs
    assert capsys.readouterr().out == done.stdout


def test_errors_and_help_end_it_as_before(folder):
    failed = started(folder, "info", "missing.safetensors")
    assert (failed.returncode, failed.stdout, len(failed.stderr.splitlines())) == (2, "", 1)
    assert started(folder, "merge", "--help").returncode == 0
    assert started(folder, "merge").returncode == 2
