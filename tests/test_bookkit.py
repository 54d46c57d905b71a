"""The book's machinery by itself: facts and statements, claims, exercises, ledger, records, controls."""

import json
import os
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

from lorarar.bookkit import claims, exercises, facts, ledger, records, runs, sources, style
from lorarar.bookkit.__main__ import main
from lorarar.bookkit.controls import Control
from lorarar.bookkit.kernels import can_be_warm
from lorarar.bookkit.tables import table
from lorarar.images import GREEN, RED
from lorarar.records import save_recorded, save_sheet
from lorarar.study.base import recorded_sheet

# ---------------------------------------------------------------- facts and statements


def test_facts_are_plain_numbers_by_name():
    found = facts.Facts({"share": np.float32(0.5)}, count=np.int64(3), right=np.bool_(True))
    assert found == {"share": 0.5, "count": 3, "right": True}
    assert [type(value) for value in found.values()] == [float, int, bool]
    assert (found | {"more": 1.5}).more == 1.5 and "more" not in found
    with pytest.raises(AttributeError, match="no fact is called gone: there are count, right, share"):
        _ = found.gone


@pytest.mark.parametrize(
    ("value", "says"),
    [(float("nan"), "is nan"), ("word", "facts are numbers"), ([1], "got list"), (None, "got NoneType")],
)
def test_facts_refuse_what_is_no_number(value, says):
    with pytest.raises(ValueError, match=says):
        facts.Facts(x=value)
    with pytest.raises(ValueError, match="needs a Python name"):
        facts.Facts({"not a name": 1})


def test_published_facts_are_read_back_from_a_run(tmp_path):
    import nbformat
    from nbclient import NotebookClient
    from nbformat import v4

    code = "from lorarar.bookkit.facts import publish\npublish({'gain': 0.25, 'pairs': 12});"
    notebook = v4.new_notebook(cells=[v4.new_code_cell(code)])
    NotebookClient(notebook, kernel_name="python3").execute()
    nbformat.write(notebook, tmp_path / "x.ipynb")
    assert ledger.values(tmp_path / "x.ipynb") == {"gain": 0.25, "pairs": 12}


@pytest.mark.slow
def test_sentences_that_do_not_hold_are_named_and_stay_in_the_run(tmp_path, monkeypatch, capsys):
    import nbformat
    from nbclient import NotebookClient
    from nbformat import v4

    code = "from lorarar.bookkit.facts import hold\nhold({'the sum loses': False, 'it wins': True})"
    for scale, left in (("shoebox", ["the sum loses"]), ("smoke", [])):
        monkeypatch.setenv("LORARAR_RUN", scale)
        notebook = v4.new_notebook(cells=[v4.new_code_cell(code)])
        NotebookClient(notebook, kernel_name="python3").execute()
        nbformat.write(notebook, tmp_path / "x.ipynb")
        assert facts.broken(tmp_path / "x.ipynb") == left
        assert "1 of 2 sentences do not hold" in notebook.cells[0].outputs[0]["data"]["text/html"]
    monkeypatch.delenv("LORARAR_RUN")
    facts.hold({"the merge wins": True})
    assert "All 1 sentences" in capsys.readouterr().out


# ---------------------------------------------------------------- claims, tables, exercises


def test_verdicts():
    assert claims.verdict(True) == "reproduced"
    assert claims.verdict(False, True) == "partly"
    assert claims.verdict(False, False) == "not at this scale"
    assert claims.verdict(False, True, against=True) == "contradicted"
    signs = [claims.sign_verdict(*ends) for ends in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.2))]
    assert signs == ["reproduced", "contradicted", "not at this scale"]
    with pytest.raises(ValueError, match="claim a: verdict 'maybe' is none of"):
        claims.Claim("a", "It works", "Paper", "0.9 of 1", "maybe")


def test_the_table_of_claims_shows_verdicts_and_escapes_text():
    page = claims.claims_table(
        [claims.Claim("a", "It <flies>", "Paper, §2", "0.1", "not examined")]
    ).to_html()
    assert "It &lt;flies&gt;" in page and 'class="verdict verdict-not-examined"' in page
    assert 'class="lorarar-claims"' in page


def test_tables_are_pandas_and_written_as_told():
    rows = [{"Method": "sum", "Right": 0.251, "Pairs": 1200}, {"Method": "a < b", "Right": 0.5, "Pairs": 3}]
    shown = table(rows, {"Right": ".0%"}, caption="All pairs.")
    assert isinstance(shown.data, pd.DataFrame) and list(shown.data["Right"]) == [0.251, 0.5]
    page = shown.to_html()
    assert all(part in page for part in ("25%", "1,200", "a &lt; b", "All pairs.", "lorarar-results"))
    assert page == table(rows, {"Right": ".0%"}, caption="All pairs.").to_html()


def test_attempt(capsys):
    def check_two(answer):
        if answer() != 2:
            raise AssertionError("it is even")

    def stub():
        raise NotImplementedError

    outcomes = [exercises.attempt(check_two, answer) for answer in (lambda: 2, lambda: 3, stub, None)]
    assert outcomes == [True, False, False, False]
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["✓ two: right", "✗ two: it is even", "✗ two: not written yet"]
    assert lines[3].startswith("✗ two: stopped with TypeError")


# ---------------------------------------------------------------- style


def test_frames_take_the_verdicts_colour_and_leave_the_rest():
    image = np.full((64, 64, 3), 7, np.uint8)
    for verdict, colour in style.VERDICT_COLOURS.items():
        drawn = style.framed(image, verdict)
        assert tuple(drawn[0, 0]) == tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
        assert (drawn[2:-2, 2:-2] == 7).all()
    assert (style.framed(image, np.array([True, False])) == style.framed(image, (True, False))).all()


def test_intervals_and_points_are_written_one_way():
    assert style.interval((0.54, 0.42, 0.66)) == "54% (42% to 66%)"
    assert style.points((0.28, 0.15, 0.42)) == "+28 points (+15 to +42)"


def test_every_method_of_the_experiment_has_a_name():
    from lorarar.study.methods import METHODS

    assert set(METHODS) <= set(style.NAMES) and len(set(style.NAMES.values())) == len(style.NAMES)
    assert style.judge_of("smoke") == style.judge_of("shoebox") in style.JUDGES


# ---------------------------------------------------------------- ledger, runs, records


def test_differences_name_what_is_wrong_missing_and_extra():
    expected = {
        "wrong": {"value": 1.0, "tolerance": 0.1, "reason": ""},
        "close": {"value": 1.0, "tolerance": 0.1, "reason": ""},
        "missing": {"value": 1, "tolerance": 0, "reason": ""},
        "word": {"value": "partly", "tolerance": 0, "reason": ""},
        "seconds": {"value": 1.0, "tolerance": None, "reason": ""},
    }
    found = {"wrong": 1.2, "close": 1.05, "word": "reproduced", "seconds": 99.0, "extra": 1}
    lines = ledger.differences(expected, found)
    assert [line.split(":")[0] for line in lines] == ["missing", "extra", "wrong", "word"]


def test_a_new_scale_takes_tolerances_and_reasons_of_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "LEDGERS", tmp_path)
    ledger.write_ledger("01_x", "smoke", {"gain": 0.2})
    content = ledger.ledger("01_x")
    content["smoke"]["gain"] |= {"tolerance": 0.1, "reason": "measured twice"}
    (tmp_path / "01_x.json").write_text(json.dumps(content))
    ledger.write_ledger("01_x", "shoebox", {"gain": 0.4, "other": 1})
    found = ledger.ledger("01_x")["shoebox"]
    assert found["gain"] == {"value": 0.4, "tolerance": 0.1, "reason": "measured twice"}
    assert found["other"] == {"value": 1, "tolerance": 0, "reason": ""}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a chapter of one cell, beside data of its own."""
    monkeypatch.setenv("LORARAR_DATA", str(tmp_path))
    head = "---\nfile_format: mystnb\nkernelspec: {name: python3, language: python}\n---\n\n"

    def write(code):
        chapter = tmp_path / "01_x.md"
        chapter.write_text(f"{head}```{{code-cell}} python3\n{code}\n```\n")
        return chapter

    return write


def test_a_run_is_stale_once_code_or_data_or_scale_change(write, tmp_path):
    chapter = write("1")
    marks = [runs.fingerprint(chapter, "smoke"), runs.fingerprint(chapter, "shoebox")]
    marks.append(runs.fingerprint(chapter, "smoke", seed=1))
    write("2")
    marks.append(runs.fingerprint(chapter, "smoke"))
    (tmp_path / "weights").write_text("new")
    marks.append(runs.fingerprint(chapter, "smoke"))
    assert len(set(marks)) == 5
    executed = tmp_path / "01_x.ipynb"
    executed.write_text(json.dumps({"metadata": {"lorarar": {"fingerprint": marks[-1]}}}))
    assert runs.is_fresh(executed, marks[-1]) and not runs.is_fresh(executed, marks[0])
    assert not runs.is_fresh(tmp_path / "none.ipynb", marks[0])


@pytest.mark.slow
@pytest.mark.skipif(not can_be_warm(), reason="no kernel is forked here")
def test_a_warm_kernel_has_the_libraries_and_else_nothing(write, tmp_path, monkeypatch):
    """No module of the project, an empty folder, its own environment; and an error ends it."""
    from papermill import PapermillExecutionError

    monkeypatch.setattr(runs, "RUNS", tmp_path / "runs")
    code = "import json, os, sys\n"
    code += "found = [[m for m in ('torch', 'diffusers', 'pandas', 'lorarar.lora') if m in sys.modules]]\n"
    code += "found += [os.listdir(), __name__, os.environ['LORARAR_RUN'], os.getpid()]\n"
    code += "open(os.environ['LORARAR_DATA'] + '/found', 'w').write(json.dumps(found))\n"
    ends = {"": nullcontext(), "1 / 0": pytest.raises(PapermillExecutionError, match="ZeroDivisionError")}
    for end, outcome in ends.items():
        with outcome:
            runs.run(write(code + end), "smoke", warm=True)
        *found, process = json.loads((tmp_path / "found").read_text())
        assert found == [["torch", "diffusers", "pandas"], [], "__main__", "smoke"]
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_recorded_runs_keep_their_provenance(tmp_path, monkeypatch):
    monkeypatch.setenv("LORARAR_DATA", str(tmp_path))
    save_recorded(
        "scores", {"direct": 0.5}, command="make scores", seed=3, scale="shoebox", inputs=["pyproject.toml"]
    )
    found = records.recorded("scores")
    assert found == {"direct": 0.5} and found.provenance["command"] == "make scores"
    shown = records.provenance("scores").data
    rows = dict(zip(shown["Recorded run"], shown[""], strict=True))
    assert (rows["name"], rows["changed since"]) == ("scores", "none")
    both = records.provenance("scores", "scores").data
    assert list(both["Recorded run"]) == [*shown["Recorded run"]] * 2  # one below the other: pages are narrow
    with pytest.raises(ValueError, match=r"no recorded run .*nothing\.json: there are scores"):
        records.recorded("nothing")
    (tmp_path / "recorded" / "bare.json").write_text('{"values": {}}')
    with pytest.raises(ValueError, match="lacks command, seed"):
        records.recorded("bare")


def test_provenance_counts_the_files_of_a_large_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LORARAR_DATA", str(tmp_path))
    ledgers = sorted(f"tests/ledger/{path.name}" for path in (sources.ROOT / "tests" / "ledger").iterdir())
    given = ["README.md", *ledgers]
    save_recorded("many", {}, command="make many", seed=0, scale="smoke", inputs=given)
    shown = records.provenance("many").data
    rows = dict(zip(shown["Recorded run"], shown[""], strict=True))
    assert rows["inputs"] == f"README.md, tests/ledger/ ({len(ledgers)} files)"
    assert list(records.recorded("many").provenance["inputs"]) == given


def test_every_recorded_run_can_be_read():
    for path in (sources.ROOT / "data" / "recorded").glob("*.json"):
        assert records.recorded(path.stem)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_sheet_has_a_picture_for_each_pair_and_method(split):
    run = records.recorded(f"experiment_{split}")
    found = records.sheet(run.name, len(run["methods"]))
    assert found.shape == (len(run["subjects"]) * len(run["styles"]), len(run["methods"]), 64, 64, 3)
    assert found.dtype == np.uint8
    samples = records.sheet(f"{run.name}_samples", 3)
    assert samples.shape == (len(run["samples"]), 3, 72, 72, 3), "framed"
    for picture, sample in zip(samples[:, 0], run["samples"], strict=True):
        assert (picture[0] == (GREEN if sample["subject"] and sample["style"] else RED)).all()
        whole = found[sample["pair"], run["methods"].index(sample["method"])]
        assert np.array_equal(picture[4:-4, 4:-4], whole) or sample["image"]


def test_sheets_that_are_read_as_pixels_are_shipped_without_loss():
    data = sources.ROOT / "data"
    sheets = [*(data / "recorded").glob("*.webp"), data / "shoebox" / "base" / "sheet.webp"]
    assert len(sheets) >= 7
    for file in sheets:
        assert file.read_bytes()[12:16] == b"VP8L", f"{file} has lost something"
    generated, cells = recorded_sheet()
    assert generated.shape == (len(cells), 64, 64, 3) and len(cells) == 22 * 16


@pytest.mark.parametrize("shape", [(48, 32, 3), (16384, 8, 3)], ids=["WebP", "too long for WebP"])
def test_a_sheet_is_read_as_it_was_written(shape, tmp_path, monkeypatch):
    monkeypatch.setenv("LORARAR_DATA", str(tmp_path))
    folder, side = tmp_path / "recorded", shape[1] // 2
    folder.mkdir()
    for file in ("some.webp", "some.png"):
        (folder / file).write_bytes(b"of a run before")
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    save_sheet(pixels, folder / "some.webp")
    found = records.sheet("some", 2)
    assert len(list(folder.iterdir())) == 1 and found.shape == (shape[0] // side, 2, side, side, 3)
    assert np.array_equal(found[1, 0], pixels[side : 2 * side, :side])
    assert np.array_equal(found[-1, 1], pixels[-side:, side:])


@pytest.mark.parametrize("arguments", [["build", "--scale", "huge"], ["run", "77"], ["run", "--scale", "x"]])
def test_bad_input_is_one_line_and_status_2(arguments, capsys):
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


# ---------------------------------------------------------------- controls


def shade(red: int, side: str) -> tuple[np.ndarray, str]:
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[:, : 3 if side == "left" else 6, 0] = red
    return picture, f"red is {red}"


def control(**more) -> Control:
    options = {"red": range(0, 256, 5), "side": ["left", "both"]}
    return Control(shade, options, alt="red", frames={"red": [0, 100, 200]}, start={"red": 100}, **more)


def picture_of(live: Control) -> np.ndarray:
    from io import BytesIO

    from PIL import Image

    return np.asarray(Image.open(BytesIO(live.image.value)).convert("RGB"))


def test_a_control_computes_what_is_set():
    live = control(enlarge=3)
    box = live.widget
    assert [type(one).__name__ for one in box.children] == ["SelectionSlider", "Dropdown", "Image", "HTML"]
    assert live.text.value == "red is 100"
    live.set(red=255, side="both")
    assert live.text.value == "red is 255" and (picture_of(live)[..., 0] == 255).all()
    assert picture_of(live).shape == (12, 18, 3)


def test_a_page_has_the_same_pictures_as_frames():
    still = control().static()
    assert len(still.frames) == 6 and still.labels[still.start] == "red is 100"
    assert (still.frames[1, :, :, 0] == 0).all() and (still.frames[5, :, :, 0] == 200).all()
    page = still._repr_html_()
    assert page.count('type="range"') == 2 and 'aria-label="side"' in page


def test_a_control_shows_widgets_to_readers_and_frames_in_the_book(monkeypatch):
    InteractiveShell.instance()
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.delenv("LORARAR_RUN", raising=False)
    control()._ipython_display_()
    for scale in ("shoebox", "smoke"):
        monkeypatch.setenv("LORARAR_RUN", scale)
        control()._ipython_display_()
    assert [type(one).__name__ for one in shown] == ["VBox", "Frames", "Frames"]


def test_the_smoke_test_has_the_ends_and_the_start_of_a_control():
    one = Control(shade, {"red": range(0, 90, 10), "side": ["left"]}, alt="red", start={"red": 30})
    still = one.static(few=True)
    assert still.labels == ["red is 0", "red is 30", "red is 80"] and still.start == 1
    np.testing.assert_array_equal(still.frames, one.static().frames[[0, 3, 8]])


def test_a_control_can_draw_figures():
    import matplotlib.pyplot as plt

    def curve(power):
        figure, axes = plt.subplots(figsize=(2, 1))
        axes.plot([0, 1, 2], [0, 1, 2**power])
        return figure, f"power {power}"

    still = Control(curve, {"power": [1, 2]}, alt="a curve").static()
    assert (still.frames[0] != still.frames[1]).any()


def test_a_control_refuses_what_a_page_cannot_hold():
    with pytest.raises(ValueError, match="100 frames are too many"):
        Control(shade, {"red": range(50), "side": ["left", "both"]}, alt="red")
    with pytest.raises(ValueError, match="the control has no red = 3"):
        Control(shade, {"red": [0, 100], "side": ["left"]}, alt="red", start={"red": 3})


@pytest.mark.slow
def test_the_control_of_chapter_5_optimises_and_draws():
    """Steps of ZipLoRA are set from code; picture and words follow; the start is the plain sum."""
    from lorarar.bookkit.chapters import ch05_ziplora as ch05
    from lorarar.pipelines import load_pipeline
    from lorarar.shoebox import zoo
    from lorarar.study.training import with_pictures
    from lorarar.train import optimise

    pipe = load_pipeline("smoke")
    loras = zoo.load_pair(*ch05.PAIR, "smoke")
    sides = [with_pictures(name, lora) for name, lora in zip(ch05.PAIR, loras, strict=True)]

    def fit(measure, steps):
        return optimise(pipe, *sides, steps=steps, learning_rate=0.3, measure=measure, progress=False)[0]

    live = ch05.control(pipe, *loras, fit, [0, 2], scale="smoke")
    _ = live.widget
    assert "mean coefficient" in live.text.value
    after = picture_of(live)
    live.set(steps=0)
    before = picture_of(live)
    wide = before.shape[1] // 4
    assert (before[:, 2 * wide : 3 * wide] == before[:, 3 * wide :]).all()
    assert (after[:, : 2 * wide] == before[:, : 2 * wide]).all() and (after != before).any()


def test_a_quiz_hides_the_verdict_until_one_has_answered():
    from lorarar.bookkit.quiz import Quiz

    pictures = np.zeros((2, 4, 4, 3), np.uint8)
    pictures[1] = 200
    quiz = Quiz(pictures, ["subject", "style"], [[True, False], [True, True]], judge="MARS²", alt="a square")
    _ = quiz.widget
    first = quiz.image.value
    quiz.inputs[1].value = "yes"
    assert quiz.text.value == ""
    quiz.button.click()
    assert quiz.text.value == "MARS² said subject yes, style no. You agree in 1 of 2."
    quiz.button.click()
    assert quiz.image.value != first and quiz.text.value == ""
    quiz.button.click()
    assert quiz.text.value.endswith("You agree in 3 of 4.")
    page = quiz._repr_html_()
    assert page.count("<select>") == 2 and "data-quiz" in page
    with pytest.raises(ValueError, match="verdicts of shape"):
        Quiz(pictures, ["subject"], [[True, False], [True, True]], judge="MARS²", alt="a square")
