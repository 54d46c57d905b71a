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

from lorarar.cli import main
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
    return main([str(a) for a in arguments])


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


@pytest.mark.parametrize("method", ["direct", "levels", "ties", "dare", "dare-ties", "np-lora"])
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


def test_levels_and_a_table_from_files(pair, tmp_path, capsys):
    out, (cat, oil) = tmp_path / "out.safetensors", (load_lora(path) for path in pair)
    query = [layer for layer in LAYERS if layer.endswith("to_q")]
    words = ("--content-weight", 0.9, "--style-weight", 0.4, "--content-rest", 0.1, "--style-rest", 0.2)
    assert run("merge", *pair, "-o", out, "--method", "levels", "--parts", "query", *words, "--quiet") == 0
    for layer, merged in load_lora(out).items():
        a, b = (0.9, 0.4) if layer in query else (0.1, 0.2)
        np.testing.assert_allclose(dense(merged), a * dense(cat[layer]) + b * dense(oil[layer]), atol=1e-5)
    table = tmp_path / "table.safetensors"
    save_coefficients({query[0]: (torch.tensor([2.0]), torch.tensor([0.25]))}, table)
    assert run("merge", *pair, "-o", out, "--method", "table", "--coefficients", table, "--quiet") == 0
    want = 2 * dense(cat[query[0]]) + 0.25 * dense(oil[query[0]])
    np.testing.assert_allclose(dense(load_lora(out)[query[0]]), want, atol=1e-5)
    assert run("merge", *pair, "-o", out, "--method", "table", "--quiet") == 2
    assert "--coefficients FILE goes with --method ziplora or table" in capsys.readouterr().err


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
# Coefficients: by optimisation, and by a network that is trained


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A tiny base, two LoRAs for it, the pictures and words they belong to, and lists that name all this."""
    from PIL import Image
    from test_objective import PICTURES, adapter
    from tiny import tiny_pipeline

    folder, pipe = tmp_path_factory.mktemp("taught"), tiny_pipeline()
    pipe.save_pretrained(folder / "base")
    for seed, name in enumerate(("cat", "oil")):
        save_lora(adapter(pipe, seed), folder / f"{name}.safetensors")
        (folder / name).mkdir()
        for i, picture in enumerate(PICTURES[: seed + 1]):
            Image.fromarray(picture).save(folder / name / f"{i}.png")
    lines = [json.dumps({"file_name": f"{i}.png", "text": f"picture {i} in oil"}) for i in range(2)]
    (folder / "oil.captions").write_text("\n".join(lines))
    cat = {"lora": "cat.safetensors", "images": "cat", "prompt": "a cat"}
    oil = {"lora": "oil.safetensors", "images": "oil", "captions": "oil.captions"}
    (folder / "cats.jsonl").write_text(json.dumps(cat) + "\n\n")
    (folder / "oils.jsonl").write_text(json.dumps(oil))
    return folder


def trained(folder):
    from test_objective import PICTURES

    from lorarar.train import Trained

    words = ["picture 0 in oil", "picture 1 in oil"]
    cat = Trained(load_lora(folder / "cat.safetensors"), PICTURES[:1], "a cat")
    return cat, Trained(load_lora(folder / "oil.safetensors"), PICTURES[:2], words)


def ziplora_words(folder):
    files = (folder / "cat.safetensors", folder / "oil.safetensors")
    cat = ("--content-images", folder / "cat", "--content-prompt", "a cat")
    oil = ("--style-images", folder / "oil", "--style-captions", folder / "oil.captions")
    return "ziplora", *files, *cat, *oil, "--base", folder / "base", "--device", "cpu"


def test_ziplora_writes_what_the_function_finds(taught, tmp_path, capsys):
    from lorarar.lora import load_coefficients
    from lorarar.pipelines import load_pipeline
    from lorarar.train import optimise

    out, m, curves = (tmp_path / name for name in ("out.safetensors", "m.safetensors", "curves.json"))
    options = ("--steps", 2, "--batch-size", 2, "--draws", 2, "--measure", "cosine", "--history", curves)
    assert run(*ziplora_words(taught), *options, "-o", out, "--coefficients", m) == 0
    assert capsys.readouterr().out.startswith(f"{out}, {m}: 64 layers, 2 steps")
    pipe = load_pipeline(taught / "base", "cpu")
    want, history = optimise(
        pipe, *trained(taught), steps=2, batch_size=2, draws=2, measure="cosine", progress=False
    )
    found = load_coefficients(m)
    assert found.keys() == want.keys()
    written = json.loads(curves.read_text())
    assert written.keys() == history.keys()
    for term, values in history.items():
        assert written[term] == pytest.approx(values, rel=1e-4, abs=0)
    for layer, sides in want.items():
        assert all(torch.equal(a, b) for a, b in zip(found[layer], sides, strict=True))
    merged = load_lora(out)
    assert merged.metadata["lorarar_method"] == "ziplora"
    assert merged.metadata["lorarar_command"].startswith("lorarar ziplora cat.safetensors oil.safetensors")
    assert str(tmp_path) not in merged.metadata["lorarar_command"]
    cat, oil = (side.lora for side in trained(taught))
    layer = next(iter(merged))
    expected = dense(cat[layer]) * want[layer][0].numpy() + dense(oil[layer]) * want[layer][1].numpy()
    np.testing.assert_allclose(dense(merged[layer]), expected, rtol=0, atol=1e-5)


def test_a_hypernetwork_is_trained_resumed_and_merges_as_it_was_trained(
    taught, tmp_path, monkeypatch, capsys
):
    import lorarar.train.hypernetwork
    from lorarar.hypernet import Hypernetwork

    words = ["train-hypernetwork", "--contents", taught / "cats.jsonl", "--styles", taught / "oils.jsonl"]
    words += ["--base", taught / "base", "--device", "cpu", "--pairs", 1, "--steps", 3, "--batch-size", 1]
    words += ["--draws", 2, "--hidden", 8, "--parts", "key", "--rest", "sum", "--checkpoint-every", 1]
    whole, out = tmp_path / "whole.safetensors", tmp_path / "h.safetensors"
    assert run(*words, "-o", whole, "--history", tmp_path / "curves.json") == 0
    assert "1 content and 1 style LoRAs, 1 pairs, 3 steps" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "curves.json").read_text())["content"]) == 3

    real, calls = lorarar.train.hypernetwork.merging_loss, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(lorarar.train.hypernetwork, "merging_loss", killed)
        assert run(*words, "-o", out, "--quiet") == 130
    assert not out.exists() and (tmp_path / "h.safetensors.checkpoint").exists()
    assert run(*words, "-o", out, "--quiet", "--resume") == 0
    one, other = (load_file(path) for path in (whole, out))
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert Hypernetwork.load(out).metadata["command"].startswith("lorarar train-hypernetwork --contents cats")

    files = (taught / "cat.safetensors", taught / "oil.safetensors")
    merged = tmp_path / "merged.safetensors"
    for given, parts, rest in (((), ["key"], "sum"), (("--parts", "query"), ["query"], "sum")):
        assert run("merge", *files, "--hypernetwork", out, "-o", merged, "--quiet", *given) == 0
        options = json.loads(load_lora(merged).metadata["lorarar_options"])
        assert (options["parts"], options["rest"]) == (parts, rest)


@pytest.mark.parametrize(
    ("drop", "more", "message"),
    [
        (None, (), "nothing to write: give -o OUT"),
        ("--content-images", ("-o", "out"), "cat.safetensors: give --content-images DIR"),
        ("--style-captions", ("-o", "out"), "--style-images without --style-prompt TEXT"),
        (None, ("-o", "out", "--content-images", "absent"), "no image folder absent"),
        (None, ("-o", "out", "--coefficients", "out"), "named for the merged LoRA and for the coefficients"),
        (None, ("-o", "out", "--base", "absent"), "no model folder absent"),
        (None, ("-o", "out", "--steps", "0"), "steps must be a whole number"),
        (None, ("-o", "out", "--history", "absent/curves"), "its folder does not exist"),
        (None, ("-o", "out", "--loras-of", "x"), None),
    ],
)
def test_bad_input_to_ziplora_is_one_line(taught, tmp_path, monkeypatch, capsys, drop, more, message):
    monkeypatch.chdir(tmp_path)
    words = list(ziplora_words(taught))
    if drop:
        at = words.index(drop)
        del words[at : at + 2]
    if message is None:
        with pytest.raises(SystemExit) as stop:
            run(*words, *more)
        assert stop.value.code == 2
    else:
        assert run(*words, *more) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no LoRA"),
        ("[1]", "line 1: expected"),
        ('{"lora": "cat.safetensors"}', "line 1: expected"),
        ('{"lora": "cat.safetensors", "images": "cat"}', "line 1: .*give either the prompt"),
        ('{"lora": "no.safetensors", "images": "cat", "prompt": "a"}', "line 1: .*no such file"),
        ('{"lora": "cat.safetensors", "images": "no", "prompt": "a"}', "line 1: no image folder"),
    ],
)
def test_bad_lists_of_loras_are_one_line(taught, tmp_path, capsys, text, message):
    (taught / "bad.jsonl").write_text(text)
    words = ("train-hypernetwork", "--contents", taught / "bad.jsonl", "--base", taught / "base")
    out = ("-o", tmp_path / "h.safetensors")
    assert run(*words, *out) == 2
    assert "--contents FILE and --styles FILE go together" in capsys.readouterr().err
    assert run(*words, "--styles", taught / "oils.jsonl", *out) == 2
    said = capsys.readouterr().err
    assert re.search(message, said) and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------------
# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cat", "none", "-o", "out"), "none.safetensors: no such file"),
        (("cat", "oil", "-o", "cat"), "cat.safetensors: is one of the inputs"),
        (("cat", "oil", "-o", "no/out"), "its folder does not exist"),
        (("cat", "oil", "-o", ""), "is a folder"),
        (("cat", "other", "-o", "out"), "share no layer, and nothing in them says"),
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


@pytest.mark.slow
def test_interrupting_leaves_nothing_and_exits_130(pair, tmp_path):
    slow = (
        "import signal, sys, threading, time, lorarar.lora.write as l, lorarar.cli\n"
        # A shell lets its background jobs ignore Ctrl-C, and the tests may be one.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "write = l.all_finite\n"
        "def stop(x):\n"
        "    writer = threading.current_thread() is threading.main_thread()\n"
        "    if writer and list(l.Path(sys.argv[-1]).glob('.out*')):\n"
        "        print('writing', flush=True); time.sleep(60)\n"
        "    return write(x)\n"
        "l.all_finite = stop\n"
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


@pytest.mark.slow
def test_help_imports_nothing_heavy_and_merge_no_diffusers(pair, tmp_path):
    watch = (
        "import sys, atexit\n"
        "from lorarar.cli import main\n"
        "heavy = ('torch', 'diffusers', 'transformers', 'peft', 'numpy')\n"
        "atexit.register(lambda: print(*[m for m in heavy if m in sys.modules], file=sys.stderr))\n"
        "commands = ' '.join(sys.argv[1:]).split(' then ')\n"
        "sys.exit(max(main(command.split()) for command in commands))"
    )
    assert process("--help", code=watch).stderr.split() == []
    both = ("info", pair[0], "then", "merge", *pair, "-o", tmp_path / "out.safetensors")
    done = process(*both, code=watch)
    assert done.returncode == 0 and set(done.stderr.split()) <= {"torch", "numpy"}


@pytest.mark.slow
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
