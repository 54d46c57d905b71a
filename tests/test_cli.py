"""The command line: what it prints, its exit statuses, what it writes, what it imports."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lorarar import cli
from lorarar.lora import LoRA, load_lora, save_coefficients, save_lora

LAYERS = {  # name → (out, in)
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": (8, 8),
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": (8, 2048),
    "unet.down_blocks.2.attentions.1.transformer_blocks.0.attn1.to_out.0": (8, 8),
    "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj": (6, 6),
}


def write(path, seed, rank=4, **options):
    generator = torch.Generator().manual_seed(seed)
    lora = LoRA()
    for layer, (out, width) in LAYERS.items():
        lora[layer] = tuple(torch.randn(*s, generator=generator) for s in ((out, rank), (rank, width)))
    save_lora(lora, path, **options)
    return path


@pytest.fixture
def pair(tmp_path):
    return write(tmp_path / "cat.safetensors", 0), write(tmp_path / "oil.safetensors", 1, rank=2)


def run(*arguments):
    return cli.main([str(a) for a in arguments])


def dense(pair):
    return pair[0].double().numpy() @ pair[1].double().numpy()


def test_merge_writes_the_exact_sum_and_says_so(pair, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    assert run("merge", *pair, "-o", out, "--content-weight", 2, "--style-weight", -0.5) == 0
    said = capsys.readouterr()
    assert said.err == "" and said.out.startswith(f"{out}: direct, 4 layers, rank 6")
    cat, oil, merged = load_lora(pair[0]), load_lora(pair[1]), load_lora(out)
    assert set(merged) == set(LAYERS)
    for layer in LAYERS:
        expected = 2 * dense(cat[layer]) - 0.5 * dense(oil[layer])
        np.testing.assert_allclose(dense(merged[layer]), expected, rtol=0, atol=1e-5)
    assert merged.metadata["lorarar_method"] == "direct"
    assert [s["file"] for s in json.loads(merged.metadata["lorarar_sources"])] == [
        "cat.safetensors",
        "oil.safetensors",
    ]


def test_quiet_says_nothing_and_json_is_json(pair, tmp_path, capsys):
    assert run("merge", *pair, "-o", tmp_path / "a.safetensors", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert run("merge", *pair, "-o", tmp_path / "a.safetensors", "--json", "--rank", 3) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["ranks"] == [3] and facts["bytes"] == (tmp_path / "a.safetensors").stat().st_size


@pytest.mark.parametrize("method", ["direct", "ties", "dare", "dare-ties", "np-lora"])
@pytest.mark.parametrize("format", ["diffusers", "kohya"])
def test_every_method_and_format(pair, tmp_path, method, format):
    out = tmp_path / "out.safetensors"
    options = ("--method", method, "--format", format, "--dtype", "float16", "--seed", 3, "--quiet")
    assert run("merge", *pair, "-o", out, *options) == 0
    merged = load_lora(out)
    assert set(merged) == set(LAYERS) and merged.metadata["lorarar_method"] == method
    assert {x.dtype for x in merged[next(iter(LAYERS))]} == {torch.float16}
    assert any("lora_unet_input_blocks_4_1" in key for key in load_file(out)) == (format == "kohya")


def test_methods_are_those_of_merge(capsys):
    from lorarar.merging import METHODS

    with pytest.raises(SystemExit):
        run("merge", "--help")
    shown = re.search(r"--method \{(.*?)\}", capsys.readouterr().out.replace("\n", ""))[1]
    assert {m.strip() for m in shown.split(",")} == set(METHODS)


def test_hypernetwork_and_coefficients_from_files(pair, tmp_path):
    from lorarar.hypernet import Hypernetwork

    out = tmp_path / "out.safetensors"
    Hypernetwork([16]).save(tmp_path / "h.safetensors")
    assert run("merge", *pair, "-o", out, "--hypernetwork", tmp_path / "h.safetensors", "--quiet") == 0
    metadata = load_lora(out).metadata
    assert metadata["lorarar_method"] == "lorarar" and "content" in metadata["lorarar_coefficients"]
    layer = next(iter(LAYERS))
    save_coefficients({layer: (torch.full((8,), 2.0), torch.zeros(8))}, tmp_path / "m.safetensors")
    assert run("merge", *pair, "-o", out, "--coefficients", tmp_path / "m.safetensors", "--quiet") == 0
    expected = 2 * dense(load_lora(pair[0])[layer])
    np.testing.assert_allclose(dense(load_lora(out)[layer]), expected, rtol=0, atol=1e-5)


def test_info_is_a_table_or_json(tmp_path, capsys):
    path = write(tmp_path / "cat.safetensors", 0, format="kohya")
    assert run("info", path) == 0
    table = capsys.readouterr().out
    for text in ("kohya (sgm block names)", "SDXL", "4 × 4", "unet.down_blocks.1.attentions.0", "norm of ΔW"):
        assert text in table
    assert run("info", path, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["base"] == "SDXL" and facts["layers"] == 4 and facts["alphas"] == {"4.0": 4}
    assert facts["blocks"]["unet.down_blocks.1.attentions.0"]["layers"] == 2
    cat = load_lora(path)
    assert facts["norm"] == pytest.approx(np.sqrt(sum((dense(p) ** 2).sum() for p in cat.values())), rel=1e-5)


def test_loha_is_merged_when_asked(pair, tmp_path, capsys):
    stem = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    parts = {
        f"{stem}.hada_w{i}_{s}": torch.randn(8, 2).mT if s == "b" else torch.randn(8, 2)
        for i in (1, 2)
        for s in "ab"
    }
    save_file({k: v.contiguous() for k, v in parts.items()}, tmp_path / "loha.safetensors")
    arguments = (
        "merge",
        tmp_path / "loha.safetensors",
        pair[1],
        "-o",
        tmp_path / "out.safetensors",
        "--quiet",
    )
    assert run(*arguments) == 2
    assert "--convert" in capsys.readouterr().err
    assert run(*arguments, "--convert") == 0


# ---------------------------------------------------------------------------------------------------------
# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cat", "none", "-o", "out"), "none.safetensors: no such file"),
        (("cat", "oil", "-o", "cat"), "cat.safetensors: is one of the inputs"),
        (("cat", "oil", "-o", "no/out"), "its folder does not exist"),
        (("cat", "oil", "-o", ""), "is a folder"),
        (("cat", "other", "-o", "out"), "different base models"),
        (("cat", "text", "-o", "out"), "not a safetensors file"),
        (("cat", "oil", "-o", "out", "--density", "0", "--method", "ties"), "density"),
        (("cat", "oil", "-o", "out", "--rank", "0"), "rank 0"),
        (("cat", "oil", "-o", "out", "--content-weight", "nan"), "content_weight"),
        (
            ("cat", "oil", "-o", "out", "--method", "lorarar"),
            "--hypernetwork FILE goes with --method lorarar",
        ),
        (("cat", "oil", "-o", "out", "--method", "ziplora"), "--coefficients FILE goes with"),
        (("cat", "oil", "-o", "out", "--method", "ties", "--hypernetwork", "oil"), "not ties"),
        (("cat", "oil", "-o", "out", "--hypernetwork", "oil"), "oil.safetensors"),
        (("cat", "oil", "-o", "out", "--coefficients", "oil"), "expected the keys"),
        (("cat", "oil", "-o", "out", "--content-weight", "1e30", "--dtype", "float16"), "not finite in F16"),
    ],
)
def test_one_line_status_2_and_nothing_written(pair, tmp_path, capsys, arguments, message):
    (tmp_path / "text.safetensors").write_text("hello")
    other = {"unet.up_blocks.0.attentions.0.proj_in.lora_A.weight": torch.ones(1, 4)}
    save_file(
        {**other, "unet.up_blocks.0.attentions.0.proj_in.lora_B.weight": torch.ones(4, 1)},
        tmp_path / "other.safetensors",
    )
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    names = {"cat", "oil", "none", "out", "other", "text", "no/out", ""}
    spelled = [
        tmp_path / f"{a}.safetensors" if a and a in names else tmp_path if a == "" else a for a in arguments
    ]
    assert run("merge", *spelled) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("lorarar: ")
    assert message in said.err
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("merge", "a"), ("info", "a", "--rank", "2")])
def test_wrong_usage_is_one_line_and_status_2(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    said = capsys.readouterr().err
    assert (
        stop.value.code == 2 and said.count("\n") == 1 and said.startswith("lorarar: ") and "--help" in said
    )


def test_every_command_has_an_example_and_the_exit_statuses(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    everything = capsys.readouterr().out
    names = re.findall(r"^    (\w[\w-]*) ", everything, re.M)
    assert {"info", "merge"} <= set(names) and "exit status" in everything
    for name in names:
        with pytest.raises(SystemExit) as stop:
            run(name, "--help")
        text = capsys.readouterr().out
        assert stop.value.code == 0
        assert f"example:\n  lorarar {name} " in text and "exit status: 0" in text


# ---------------------------------------------------------------------------------------------------------
# Processes


def process(*arguments, code="import sys; from lorarar.cli import main; sys.exit(main())", **options):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_interrupting_leaves_nothing_and_exits_130(pair, tmp_path):
    slow = (
        "import signal, sys, threading, time, lorarar.lora as l, lorarar.cli\n"
        # A shell lets its background jobs ignore Ctrl-C, and the tests may be one.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "write = l._finite\n"
        "def stop(x):\n"
        "    writer = threading.current_thread() is threading.main_thread()\n"
        "    if writer and list(l.Path(sys.argv[-1]).glob('.out*')):\n"
        "        print('writing', flush=True); time.sleep(60)\n"
        "    return write(x)\n"
        "l._finite = stop\n"
        "sys.exit(lorarar.cli.main(sys.argv[1:-1]))"
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        child = subprocess.Popen(
            [sys.executable, "-c", slow, "merge", *pair, "-o", tmp_path / "out.safetensors", tmp_path],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stdout.readline() == "writing\n"
        time.sleep(0.1)
        child.send_signal(number)
        _, said = child.communicate(timeout=60)
        assert child.returncode == 130 and said == ""
        assert sorted(p.name for p in tmp_path.iterdir()) == ["cat.safetensors", "oil.safetensors"]


def test_help_imports_nothing_heavy_and_merge_no_diffusers(pair, tmp_path):
    watch = (
        "import sys, atexit\n"
        "from lorarar.cli import main\n"
        "heavy = ('torch', 'diffusers', 'transformers', 'peft', 'numpy')\n"
        "atexit.register(lambda: print(*[m for m in heavy if m in sys.modules], file=sys.stderr))\n"
        "sys.exit(main())"
    )
    assert process("--help", code=watch).stderr.split() == []
    for arguments in (("info", pair[0]), ("merge", *pair, "-o", tmp_path / "out.safetensors")):
        done = process(*arguments, code=watch)
        assert done.returncode == 0 and set(done.stderr.split()) <= {"torch", "numpy"}


def test_a_closed_pipe_and_a_full_disk_are_no_tracebacks(pair):
    read, written = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "lorarar.cli", "info", str(pair[0])]
    done = subprocess.run(command, stdout=written, stderr=subprocess.PIPE, check=False)
    os.close(written)
    assert done.returncode == 128 + signal.SIGPIPE and done.stderr == b""
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
