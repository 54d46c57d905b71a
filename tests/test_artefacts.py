"""The manifest, and the workflow that makes all artefacts: its whole graph, and some of its jobs."""

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import tiny_pipeline

from lorarar.shoebox import zoo
from lorarar.shoebox.world import styles, subjects
from lorarar.stamp import sha256
from lorarar.study.methods import METHODS
from lorarar.study.provenance import FACTS, _spoken, check, gather, main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
HAS_SNAKEMAKE = importlib.util.find_spec("snakemake") is not None
HAS_CLUSTER = importlib.util.find_spec("snakemake_executor_plugin_cluster_generic") is not None
needs_snakemake = pytest.mark.skipif(
    not HAS_SNAKEMAKE, reason="needs Snakemake: pip install -c constraints.txt -e '.[artefacts]'"
)


# ---------------------------------------------------------------- the manifest


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("LORARAR_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "clip").mkdir(parents=True)
    return tmp_path / "data"


def write(path, text):
    """Return a command that writes a file."""
    return ["python", "-c", f"from pathlib import Path; Path({str(path)!r}).write_text({text!r})"]


def run(*arguments):
    return main(["run", *arguments])


def test_a_command_leaves_a_piece_with_all_facts(data):
    assert run("--seed", "3", "one.txt", "--", *write(data / "one.txt", "hello")) == 0
    piece = json.loads(Path("runs/manifest/one.txt.json").read_text())
    assert piece["artefact"] == "one.txt" and set(piece) == {"artefact", *FACTS}
    assert piece["sha256"] == hashlib.sha256(b"hello").hexdigest()
    assert (piece["bytes"], piece["seed"]) == (5, 3) and piece["seconds"] >= 0
    assert piece["command"].startswith("python -c") and str(data) not in _spoken(["x", f"{data}/y"])
    assert _spoken(["lorarar", "zoo", "train", "--out", f"{data}/loras", "dog #2"]) == (
        "lorarar zoo train --out data/loras 'dog #2'"
    )
    assert "CPU cores" in piece["machine"] or "NVIDIA" in piece["machine"]


def test_a_command_that_fails_leaves_none(data, capsys):
    assert run("one.txt", "--", "python", "-c", "raise SystemExit(3)") == 3
    assert not Path("runs/manifest").exists()
    assert run("one.txt", "--", "python", "-c", "pass") == 2, "nor one that does not make what it should"
    assert "no artefact" in capsys.readouterr().err and not Path("runs/manifest").exists()
    assert run("one.txt") == 2


def test_a_folder_is_known_by_all_its_files(data):
    (data / "clip" / "b.txt").write_text("b")
    (data / "clip" / "a.txt").write_text("a")
    (data / "clip" / ".hidden").write_text("not counted")
    said = subprocess.run(
        "find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum",
        shell=True, cwd=data / "clip", capture_output=True, text=True,
    )  # fmt: skip
    assert sha256(data / "clip") == said.stdout.split()[0]
    before = sha256(data / "clip")
    (data / "clip" / "a.txt").rename(data / "clip" / "c.txt")
    assert sha256(data / "clip") != before


def test_manifest_holds_what_is_there_and_check_finds_what_is_not(data, capsys):
    for name in ("one.txt", "two.txt"):
        run(name, "--", *write(data / name, name))
    assert main(["gather"]) == 0
    assert set(json.loads((data / "manifest.json").read_text())["artefacts"]) == {"one.txt", "two.txt"}
    assert main(["check"]) == 0
    # The pieces of another machine are elsewhere: what the manifest says and still holds stays.
    for piece in Path("runs/manifest").iterdir():
        piece.unlink()
    (data / "two.txt").write_text("changed")
    capsys.readouterr()
    assert main(["check"]) == 1
    assert capsys.readouterr().out.startswith("two.txt: SHA-256 ")
    found, dropped = gather(Path("runs/manifest"))
    assert list(found) == ["one.txt"] and dropped == ["two.txt"]
    (data / "one.txt").unlink()
    assert main(["check"]) == 1 and "one.txt: missing; made by" in capsys.readouterr().out
    (data / "manifest.json").write_text("{")
    assert main(["check"]) == 2 and "is no manifest" in capsys.readouterr().err


def test_asked_to_stop_it_stops_the_command(data, tmp_path):
    code = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(7))\nprint(flush=True)\n"
    # Many short sleeps: a signal just before a long one is seen only after it.
    code += "for _ in range(600): time.sleep(0.1)"
    process = subprocess.Popen(
        [sys.executable, "-m", "lorarar.cli", "manifest", "run", "one.txt", "--", "python", "-c", code],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    process.stdout.readline()
    process.terminate()
    assert process.wait(60) == 7 and not (tmp_path / "runs").exists()


@pytest.mark.skipif(not (ROOT / "data" / "manifest.json").is_file(), reason="no manifest is shipped yet")
def test_shipped_artefacts_are_as_the_manifest_says(monkeypatch):
    monkeypatch.delenv("LORARAR_DATA", raising=False)
    assert check() == []


# ---------------------------------------------------------------- the workflow


def snakemake(folder, *arguments, **options):
    """Run the workflow at smoke scale in a folder, its data in there too, with jobs of one thread."""
    command = [
        sys.executable, "-m", "snakemake", "-s", str(ROOT / "data" / "Snakefile"), "--directory", str(folder),
        "--nocolor", *([] if "--executor" in arguments else ["--cores", "2"]), *arguments,
        "--config", f"data={folder / 'data'}", "scale=smoke", "small=1", "threads=1",
    ]  # fmt: skip
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )


def finished(process):
    said, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, said
    return said


def jobs(said):
    """Read the table of jobs that a dry run prints."""
    counts = {}
    for line in said.splitlines():
        words = line.split()
        if len(words) == 2 and words[1].isdecimal():
            counts[words[0]] = int(words[1])
    return counts


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder whose data has a tiny base, newer than nothing: the LoRAs are next."""
    folder = tmp_path_factory.mktemp("workflow")
    tiny_pipeline(size=64).save_pretrained(folder / "data" / "shoebox" / "base")
    for made in ("clip/model.safetensors", "base/vae/diffusion_pytorch_model.safetensors"):
        path = folder / "data" / "shoebox" / made
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "runs").mkdir()
    (folder / "runs" / "drawn").touch()
    for name in ("drawn", "clip/model.safetensors", "base/vae", "base/unet"):  # in the order they are made
        paths = [folder / "runs" / name, *(folder / "data" / "shoebox" / name).rglob("*")]
        for path in [*paths, folder / "data" / "shoebox" / name]:
            if path.is_file():
                os.utime(path)
    return folder


@needs_snakemake
def test_dry_run_of_the_whole_graph(tmp_path):
    """From an empty folder: every artefact has a rule, and every method and judge its job."""
    counts = jobs(finished(snakemake(tmp_path, "--dry-run", "--quiet", "rules")))
    methods = len(METHODS)
    assert counts["make_images"] == 2 * methods and counts["judge"] == 2 * 2 * methods
    assert counts["lora"] == 3 * (2 + 2) and counts["make"] == 2 * 2 * 4
    for rule in (
        "draw",
        "clip",
        "vae",
        "critic",
        "base",
        "measure",
        "hypernetwork",
        "measure_zoo",
        "time",
        "gather",
    ):
        assert counts[rule] == 1, rule
    assert counts["eyes"] == counts["record"] == 2 and counts["measure_images"] == 1
    assert list(tmp_path.glob("data")) == [], "nothing was made"


def test_names_of_the_workflow_are_the_projects():
    """The Snakefile spells out what would take seconds to import."""
    text = (ROOT / "data" / "Snakefile").read_text()
    slug = text[text.index("def slug") : text.index("def lora")]
    space = {"re": __import__("re")}
    exec(slug, space)
    for name in [*subjects.SUBJECTS, *styles.STYLES]:
        assert space["slug"](name) == zoo.slug(name)
    start = text.index("METHODS = (") + len("METHODS = ")
    space = {}
    exec(f"found = {text[start : text.index(')', start) + 1]}", space)
    assert space["found"] == tuple(METHODS)


def elsewhere(folder):
    """Words that submit jobs as to a cluster: a job starts in an empty environment, with another home."""
    submit = folder / "submit"
    submit.write_text(
        "#!/bin/sh\n"
        f"mkdir -p {folder}/home\n"
        f"cd / && env -i HOME={folder}/home PATH=/usr/bin:/bin OMP_NUM_THREADS=1 "
        f'setsid sh "$1" > {folder}/log 2>&1 < /dev/null &\n'
        "echo $!\n"
    )
    submit.chmod(0o755)
    words = ["--executor", "cluster-generic", "--jobs", "2", "--latency-wait", "10"]
    return [*words, "--cluster-generic-submit-cmd", str(submit)]


@needs_snakemake
def test_a_killed_run_goes_on_elsewhere_and_ends_in_a_manifest(place, tmp_path):
    """A LoRA by the workflow; all is killed in the middle, and a job with nothing of this shell goes on."""
    path = zoo.file_of("dog #2", place / "data" / "loras")
    targets = [str(path), "--rerun-triggers", "mtime"]
    process = snakemake(place, *targets, "--quiet", "all")
    deadline = time.monotonic() + 600
    while not list(place.rglob("*.lock")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not path.exists()
    finished(snakemake(place, "--unlock"))
    more = elsewhere(tmp_path) if HAS_CLUSTER else []
    said = finished(
        snakemake(
            place, *targets, "--rerun-incomplete", *more, env={**os.environ, "LORARAR_DATA": "/nowhere"}
        )
    )
    assert path.is_file(), said
    environment = {**os.environ, "LORARAR_DATA": str(place / "data"), "PYTHONPATH": str(ROOT)}
    for step in ("gather", "check"):
        command = [sys.executable, "-m", "lorarar.cli", "manifest", step]
        assert subprocess.run(command, cwd=place, env=environment).returncode == 0
    found = json.loads((place / "data" / "manifest.json").read_text())["artefacts"]
    assert list(found) == ["loras/subjects/dog-2.safetensors"]
    piece = found["loras/subjects/dog-2.safetensors"]
    assert piece["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert piece["command"].startswith("lorarar zoo train --names 'dog #2'")
    assert "Nothing to be done" in finished(snakemake(place, *targets))
