"""The wheel, installed where there is nothing but what its base dependencies ask for."""

import json
import shutil
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[1]
LAYER = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"

# One process has all of them, so that what they share is made once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]


def closure(names):
    """The installed distributions that these need, with theirs, extras left out."""
    found = {}
    todo = list(names)
    while todo:
        name = canonicalize_name(todo.pop())
        if name in found:
            continue
        found[name] = metadata.distribution(name)
        for line in found[name].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(requirement.name)
    return found.values()


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of an environment with the wheel and links to its base dependencies alone."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in ("lorarar", "pyproject.toml", "README.md", "LICENSE"):  # setuptools builds in place
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / "source" / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", folder, folder / "source"], check=True)
    (wheel,) = folder.glob("lorarar-*.whl")
    venv.create(folder / "env", with_pip=False)
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    subprocess.run([*install, "--target", site, wheel], check=True)
    (distribution,) = metadata.distributions(path=[str(site)])
    base = [Requirement(line) for line in distribution.requires]
    needed = closure(r.name for r in base if r.marker is None or r.marker.evaluate({"extra": ""}))
    for top in {Path(file).parts[0] for d in needed for file in d.files or ()} - {"..", "__pycache__"}:
        for d in needed:
            source = Path(d.locate_file(top))
            if source.exists() and not (site / top).exists():
                (site / top).symlink_to(source)
    return folder / "env" / "bin" / "python"


def lorarar(python, *arguments, folder):
    command = [python, "-I", "-m", "lorarar.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture
def files(tmp_path):
    torch.manual_seed(0)
    for name in ("content", "style"):
        factors = {f"{LAYER}.lora_A.weight": torch.randn(4, 8), f"{LAYER}.lora_B.weight": torch.randn(8, 4)}
        save_file(factors, tmp_path / f"{name}.safetensors")
    return tmp_path


def test_info_and_merge_need_the_base_dependencies_alone(python, files):
    merged = lorarar(
        python, "merge", "content.safetensors", "style.safetensors", "-o", "out.safetensors", folder=files
    )
    assert merged.returncode == 0, merged.stderr
    shown = lorarar(python, "info", "out.safetensors", "--json", folder=files)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["ranks"] == {"8": 1}


@pytest.mark.parametrize(
    ("extra", "arguments"),
    [
        ("train", ("train-lora", "--images", ".", "--prompt", "A sks dog", "-o", "dog.safetensors")),
        ("train", ("generate", "--prompt", "a dog", "-o", "dog.png")),
    ],
)
def test_a_missing_extra_is_named_with_the_command_that_mends_it(python, files, extra, arguments):
    done = lorarar(python, *arguments, folder=files)
    (line,) = done.stderr.strip().splitlines()
    assert f"pip install 'lorarar[{extra}]'" in line
    assert done.returncode == 2
    assert {path.name for path in files.iterdir()} == {"content.safetensors", "style.safetensors"}


def test_missing_data_are_named_with_the_command_that_mends_it(python):
    # Everything of `train` is at hand here, and the wheel's own package comes first.
    code = (
        "import sys; sys.path.append(sys.argv[1]); from lorarar.cli import main\n"
        "sys.exit(main(['generate', '--prompt', 'a dog', '-o', 'dog.png']))"
    )
    more = Path(torch.__file__).parents[1]
    done = subprocess.run([python, "-I", "-c", code, more], capture_output=True, text=True)
    (line,) = done.stderr.strip().splitlines()
    assert done.returncode == 2
    assert "no model folder" in line and "LORARAR_DATA" in line and "git clone" in line


def test_the_wheel_says_that_it_is_typed(python):
    where = "import lorarar, pathlib; print((pathlib.Path(lorarar.__file__).parent / 'py.typed').is_file())"
    done = subprocess.run([python, "-I", "-c", where], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr
