"""The book: its sources, its runs at scale smoke, the ledger, the exercises, and the copies for Colab."""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from prose import typed_numbers

from lorarar import book, colab

CHAPTERS = book.chapters()
PAGES = sorted(p for p in book.BOOK.glob("*.md") if p.name != "README.md")
SECTIONS = (
    "The mathematics",
    "The experiment",
    "The claims",
    "Exercises",
    "Takeaways",
    "Pitfalls",
    "References",
)

each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)


@cache
def cells(chapter: Path) -> list:
    return book.read_chapter(chapter).cells


@cache
def smoke(chapter: Path) -> Path:
    return book.run(chapter, "smoke")


def tagged(chapter: Path, tag: str) -> list:
    return [cell for cell in cells(chapter) if tag in cell.metadata.get("tags", [])]


def printed(cell) -> str:
    return "".join("".join(o["text"]) for o in cell.get("outputs", []) if o["output_type"] == "stream")


# ---------------------------------------------------------------- the installation


@pytest.mark.parametrize("python", ["3.11.0", "3.12.0", "3.13.0"])
def test_pinned_versions_install_on_the_first_release_of_every_python(python):
    """Debian 12 has Python 3.11.2: a pin that asks for 3.11.5 leaves pip there without an answer."""
    project = tomllib.loads((book.ROOT / "pyproject.toml").read_text())["project"]
    assert Version(python) in SpecifierSet(project["requires-python"])
    pins = [
        Requirement(line)
        for line in (book.ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    installed = {canonicalize_name(d.metadata["Name"]): d for d in metadata.distributions()}
    found = {pin: installed.get(canonicalize_name(pin.name)) for pin in pins}
    known = {pin: d for pin, d in found.items() if d and Version(d.version) in pin.specifier}
    assert len(known) > len(pins) / 2  # an extra may be left out
    for pin, distribution in known.items():
        wanted = SpecifierSet(distribution.metadata["Requires-Python"] or "")
        assert Version(python) in wanted, f"{pin} needs Python {wanted}"


# ---------------------------------------------------------------- the sources


def test_the_contents_list_chapters_in_order():
    assert CHAPTERS and list(CHAPTERS) == sorted(set(CHAPTERS))
    # The suffix stays: with it, the Colab button opens the .ipynb beside the source.
    assert all(chapter.suffix == ".md" and chapter.is_file() for chapter in CHAPTERS)
    assert {path.stem for path in book.BOOK.glob("[0-9]*.ipynb")} == {path.stem for path in CHAPTERS}


@each_chapter
def test_anatomy(chapter):
    text = chapter.read_text()
    head = text[: text.index("```{code-cell}")]
    assert re.search(r"\{admonition\} The question\n.*\?", head, re.DOTALL), "asks its question first"
    assert "{admonition} You will be able to" in head
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    places = [next((i for i, s in enumerate(sections) if s.startswith(name)), -1) for name in SECTIONS]
    assert -1 not in places, f"lacks {SECTIONS[places.index(-1)]}; it has {sections}"
    assert places == sorted(places), f"sections in another order: {sections}"
    assert text.index("figure:") < min(
        (m.start() for m in re.finditer(r"^\s*\$\$|\{math\}\s", text, re.MULTILINE)), default=len(text)
    ), "a picture comes before the first formula"
    assert "claims(" in text
    references = text[text.index("## References") :]
    assert re.search(r"\{cite:t\}`", references), "references say what to read in each"


@each_chapter
def test_parameters(chapter):
    (cell,) = tagged(chapter, "parameters")
    assert cell.source.split() == ["scale", "=", '"shoebox"', "seed", "=", "0"]


@each_chapter
def test_mathematics_is_short_and_checked(chapter):
    shown = tagged(chapter, "mathematics")
    assert shown, "tag `mathematics` on the cell that computes the formula"
    for cell in shown:
        code = [
            line for line in cell.source.splitlines() if line.strip() and not line.strip().startswith("#")
        ]
        assert len(code) <= 15
        assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(cell.source)))


@each_chapter
def test_code_fits_the_column(chapter):
    for cell in cells(chapter):
        if cell.cell_type == "code" and "remove-cell" not in cell.metadata.get("tags", []):
            assert [line for line in cell.source.splitlines() if len(line) > 84] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_no_number_is_typed_into_prose(page):
    for cell in cells(page):
        if cell.cell_type == "markdown":
            assert typed_numbers(cell.source) == []
        else:
            shown = cell.metadata.get("mystnb", {})
            assert typed_numbers(str(shown.get("figure", {}).get("caption", ""))) == []
            assert typed_numbers(str(shown.get("image", {}).get("alt", ""))) == []


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("The loss falls to 0.31 within 300 steps.", 1),
        ("It is 4,000 times faster.", 1),
        ("- It wins 71 % of the time.\n- Nothing here.\n- But 3 here.", 2),
        ("| method | score |\n|---|---|\n| direct | 0.4 |", 1),
        ("A quarter, twenty-five per cent.", 1),
        ("```{note}\nIt takes 12 s.\n```", 1),
        ("It wins {glue:text}`share:.2f` of the time.", 0),
        ("The authors report 71 % {cite}`lorarar`.", 0),
        ("See Table A1, §3, Figures 2 and 3, SD 1.5, Python 3.11, a 3D rendering, dog #2, the year 2024.", 0),
        ("Rank $r = 8$ and `rank=8` and\n\n$$\nx = 3\n$$ (eq-three)\n", 0),
        ("```python\nx = 3\n```\n\n1. first\n2. second", 0),
        ("Images are 64 × 64. <!-- numbers: 64, the images' size -->", 0),
        ("Images are 64 × 64. <!-- numbers: 32 -->", 1),
    ],
)
def test_the_rule_about_numbers(text, numbers):
    assert len(typed_numbers(text)) == numbers, typed_numbers(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_images_in_prose_have_alternative_texts(page):
    text = page.read_text()
    for alt in re.findall(r"!\[(.*?)\]\(", text):
        assert len(alt) > 30
    for options in re.findall(r"\{(?:figure|image)\} \S+\n((?::.*\n)*)", text):
        assert re.search(r"^:alt: .{31,}$", options, re.MULTILINE)


# ---------------------------------------------------------------- the runs


@each_chapter
def test_figures_have_alternative_texts(chapter):
    executed = json.loads(smoke(chapter).read_text())["cells"]
    for cell in executed:
        images = [
            o for o in cell.get("outputs", []) if any(m.startswith("image/") for m in o.get("data", {}))
        ]
        if not images:
            continue
        shown, start = cell["metadata"].get("mystnb", {}), "".join(cell["source"])[:80]
        alt = str(shown.get("image", {}).get("alt", ""))
        caption = str(shown.get("figure", {}).get("caption", ""))
        assert len(alt) > 30, f"mystnb: image: alt: is missing or says little: {start}"
        assert caption, f"mystnb: figure: caption: is missing: {start}"
        assert shown["figure"].get("name", "").startswith("fig-"), f"mystnb: figure: name: fig-…: {start}"
        assert alt.strip(" .") != caption.strip(" ."), f"the alternative text repeats the caption: {start}"
        assert len(images) == 1, f"one figure per cell: {start}"


@each_chapter
@pytest.mark.parametrize("scale", ["smoke", "shoebox"])
def test_values_are_those_of_the_ledger(chapter, scale):
    executed = book.RUNS / scale / f"{chapter.stem}.ipynb"
    if scale == "smoke":
        executed = smoke(chapter)
    elif not book.is_fresh(executed, book.fingerprint(chapter, scale)):
        pytest.skip("`make book` has not run this chapter since it changed")
    expected = book.ledger(chapter.stem).get(scale, {})
    assert book.differences(expected, book.values(executed)) == []


@each_chapter
def test_the_ledger_gives_reasons(chapter):
    for scale, entries in book.ledger(chapter.stem).items():
        for name, entry in entries.items():
            assert set(entry) == {"value", "tolerance", "reason"}, f"{scale}: {name}"
            assert len(entry["reason"]) > 10, f"{scale}: {name}: why this tolerance?"


@each_chapter
def test_checks_tell_right_from_wrong(chapter):
    outcomes: dict[str, dict[str, list[str]]] = {}
    for cell in json.loads(smoke(chapter).read_text())["cells"]:
        for kind in ("exercise", "solution", "wrong"):
            if kind in cell["metadata"].get("tags", []):
                lines = [s for s in printed(cell).splitlines() if s[:1] in "✓✗"]
                assert lines, f"a cell tagged {kind} calls attempt(check_…, answer)"
                for line in lines:
                    name = re.match(r". (\w+)", line)[1]
                    outcomes.setdefault(name, {}).setdefault(kind, []).append(line)
    assert outcomes, "the chapter has no exercise"
    for name, by_kind in outcomes.items():
        assert set(by_kind) == {"exercise", "solution", "wrong"}, f"{name} has only {set(by_kind)}"
        assert all(line[0] == "✗" for line in by_kind["exercise"]), f"{name}: the stub passes"
        assert all(line[0] == "✓" for line in by_kind["solution"]), f"{name}: {by_kind['solution']}"
        for line in by_kind["wrong"]:
            assert line[0] == "✗", f"{name}: a wrong answer passes"
            assert "stopped with" not in line, f"{name}: the wrong answer is not plausible: {line}"
            assert "not written yet" not in line and "not right yet" not in line, f"{name}: give a hint"


@each_chapter
def test_exercises_are_folded_and_described(chapter):
    assert all("hide-cell" in c.metadata["tags"] for c in tagged(chapter, "solution"))
    assert all("remove-cell" in c.metadata["tags"] for c in tagged(chapter, "wrong"))
    boxes = re.findall(r"\{admonition\} Exercise.*?\n```", chapter.read_text(), re.DOTALL)
    assert boxes, "an exercise stands in an {admonition} Exercise: …"
    for box in boxes:
        assert all(word in box for word in ("Difficulty", "Importance", "Minutes")), box


# ---------------------------------------------------------------- copies for Colab


@each_chapter
def test_notebook_follows_its_source(chapter):
    beside = chapter.with_suffix(".ipynb")
    assert beside.is_file() and beside.read_text() == colab.sibling_text(chapter), "run `make notebooks`"


def test_no_notebook_without_a_source():
    assert {p.stem for p in book.BOOK.glob("*.ipynb")} == {p.stem for p in CHAPTERS}


@each_chapter
def test_notebook_is_plain(chapter):
    notebook = json.loads(chapter.with_suffix(".ipynb").read_text())
    assert notebook["cells"][0]["source"], "the bootstrap comes first"
    for cell in notebook["cells"]:
        assert not cell.get("outputs")
        if cell["cell_type"] == "markdown":
            rest = re.sub(r"```.*?```|`[^`]*`", "", "".join(cell["source"]), flags=re.DOTALL)
            assert not re.search(r"\{[\w:-]+\}`|```\{|:::|^\([\w-]+\)=", rest, re.MULTILINE), rest


@pytest.mark.parametrize(
    ("myst", "plain"),
    [
        ("A {term}`LoRA` of {term}`low rank <rank>`.", "A LoRA of low rank."),
        ("It is {glue:text}`norm:.2f`.", "It is `norm`."),
        ("(ch-one)=\n# One", "# One"),
        ("```{note}\nMind $x$.\n```", "> **Note**\n>\n> Mind $x$."),
        ("```{admonition} Why\n:class: tip\nSo.\n```", "> **Why**\n>\n> So."),
        (
            "```{admonition} More\n:class: dropdown\nSo.\n```",
            "<details><summary>More</summary>\n\nSo.\n\n</details>",
        ),
        ("$$\nx\n$$ (eq-x)", "$$\nx \\tag{1}\n$$"),
        ("```{math}\n:label: eq-x\nx\n```", "$$\nx \\tag{1}\n$$"),
        ("$$\na &= b \\\\\nc &= d\n$$", "$$\n\\begin{aligned}\na &= b \\\\\nc &= d\n\\end{aligned}\n$$"),
        (
            "{eq}`eq-x`, {numref}`fig-x`, {numref}`fig. %s <fig-x>`, {ref}`ch-x`",
            "(1), Figure 1, Figure 1, The x",
        ),
        ("{ref}`there <ch-x>`", "there"),
        ("`{term}` stays", "`{term}` stays"),
        ("```python\n{a}`b`\n```", "```python\n{a}`b`\n```"),
        ("text <!-- numbers: 3 -->", "text"),
        ("::::{note}\n:::{tip}\nIn.\n:::\n::::", "> **Note**\n>\n> > **Tip**\n> >\n> > In."),
        (
            "{cite:t}`lora` and {cite}`ties`",
            "[Hu et al. (2022)](https://arxiv.org/abs/2106.09685) and "
            "([Yadav et al., 2023](https://arxiv.org/abs/2306.01708))",
        ),
    ],
)
def test_flattening(myst, plain):
    labels = {"eq-x": "(1)", "fig-x": "Figure 1", "ch-x": "The x"}
    assert colab.flatten(myst, labels) == plain


@pytest.mark.parametrize("text", ["{nonsense}`x`", "```{nonsense} x\n```", "{numref}`nonsense`"])
def test_flattening_refuses_what_it_does_not_know(text):
    with pytest.raises(ValueError, match="nonsense"):
        colab.flatten(text)


def test_colab_bootstrap_from_an_empty_folder(tmp_path):
    """Run the first cell and every import of every chapter where lorarar is neither present nor installed."""
    clone, place, fresh = tmp_path / "clone", tmp_path / "empty", tmp_path / "venv"
    ignore = shutil.ignore_patterns(".*", "_build", "runs", "data", "*.egg-info", "__pycache__")
    shutil.copytree(book.ROOT, clone, ignore=ignore)
    (clone / "data").mkdir()
    git = ["git", "-C", str(clone), "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "copy"]):
        subprocess.run([*git, *command], check=True)
    place.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(fresh)], check=True)
    # The fresh environment borrows what Colab has (pip, torch and so on), but no editable install:
    # Python reads no .pth file of a folder that a .pth file names.
    (packages,) = fresh.glob("lib/python*/site-packages")
    borrowed = [str(Path(p)) for p in sys.path if p.endswith("site-packages")]
    (packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")

    imports = {
        ast.unparse(node)
        for chapter in CHAPTERS
        for cell in cells(chapter)
        if cell.cell_type == "code"
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    script = "\n".join(
        [
            "import importlib.util",
            "assert importlib.util.find_spec('lorarar') is None, 'lorarar is here already'",
            colab.BOOTSTRAP.format(repository="https://invalid.example/never-asked"),
            *sorted(imports),
            "import lorarar, lorarar.scales",
            "print(lorarar.__file__)",
            "assert lorarar.scales.data_folder().is_relative_to(folder)",
        ]
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LORARAR_DATA")}
    done = subprocess.run(
        [str(fresh / "bin" / "python"), "-c", script],
        cwd=place,
        env={**clean, "LORARAR_REPOSITORY": f"file://{clone}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert Path(done.stdout.split()[-1]).is_relative_to(place / "lorarar-book")


@pytest.mark.parametrize(
    ("latex", "part"),
    [
        (r"\Delta W = \frac{\alpha}{r} B A", "<mfrac>"),
        (r"\begin{split} a &= b \\ c &= d \end{split}", "<mtr>"),
        (r"a < b", 'alttext="a &lt; b"'),
    ],
)
def test_formulas_become_mathml(latex, part):
    spec = importlib.util.spec_from_file_location("mathml", book.BOOK / "_ext" / "mathml.py")
    mathml = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mathml)
    assert part in mathml.to_mathml(latex)
    for wrong in (r"a_", r"\unheard x", r"\big\| x \big\|"):
        with pytest.raises(ValueError, match="cannot read the formula"):
            mathml.to_mathml(wrong)


def test_the_repository_stands_in_one_place():
    address = book.repository().removeprefix("https://")
    text_files = [
        path
        for pattern in (
            "*.md",
            "*.toml",
            "*.yml",
            "*.cff",
            "Makefile",
            "lorarar/**/*.py",
            "book/*",
            ".github/**/*",
        )
        for path in book.ROOT.glob(pattern)
        if path.suffix in {".md", ".toml", ".yml", ".cff", ".py", ""} and path.is_file()
    ]
    holders = {path.name for path in text_files if address in path.read_text()}
    assert holders - {"README.md"} == {"_config.yml"}


# ---------------------------------------------------------------- lorarar.book itself


def test_verdicts_and_claims():
    assert [book.verdict(True), book.verdict(False, True), book.verdict(False)] == list(book.VERDICTS)
    table = book.claims(
        book.Claim("a", "It works", "Paper, Table 1", "0.9 of 1", True),
        book.Claim("b", "It <flies>", "Paper, §2", "0.1", lambda: book.verdict(False, True)),
    )
    assert "verdict-reproduced" in table._repr_html_() and "&lt;flies&gt;" in table._repr_html_()
    assert table._repr_markdown_().splitlines()[-1] == "| It <flies> | Paper, §2 | 0.1 | partly |"
    with pytest.raises(ValueError, match="claim c: verdict 'maybe'"):
        book.claims(book.Claim("c", "", "", "", "maybe"))


def test_record_returns_plain_values_and_refuses_others():
    assert book.record("a", np.float32(0.5)) == 0.5 and type(book.record("a", np.int64(3))) is int
    with pytest.raises(ValueError, match="cannot record a: it is nan"):
        book.record("a", float("nan"))
    with pytest.raises(ValueError, match="expected a number or a string, got list"):
        book.record("a", [1])


def test_attempt(capsys):
    def check_two(answer):
        if answer() != 2:
            raise AssertionError("it is even")

    def stub():
        raise NotImplementedError

    outcomes = [book.attempt(check_two, answer) for answer in (lambda: 2, lambda: 3, stub, None)]
    assert outcomes == [True, False, False, False]
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["✓ two: right", "✗ two: it is even", "✗ two: not written yet"]
    assert lines[3].startswith("✗ two: stopped with TypeError")


def test_differences_name_what_is_wrong_missing_and_extra():
    expected = {
        "wrong": {"value": 1.0, "tolerance": 0.1, "reason": ""},
        "close": {"value": 1.0, "tolerance": 0.1, "reason": ""},
        "missing": {"value": 1, "tolerance": 0, "reason": ""},
        "word": {"value": "partly", "tolerance": 0, "reason": ""},
        "seconds": {"value": 1.0, "tolerance": None, "reason": ""},
    }
    found = {"wrong": 1.2, "close": 1.05, "word": "reproduced", "seconds": 99.0, "extra": 1}
    lines = book.differences(expected, found)
    assert [line.split(":")[0] for line in lines] == ["missing", "extra", "wrong", "word"]


def test_a_run_is_stale_once_code_or_data_or_scale_change(tmp_path, monkeypatch):
    monkeypatch.setenv("LORARAR_DATA", str(tmp_path))
    chapter = tmp_path / "01_x.md"

    def write(code):
        chapter.write_text(f"---\nfile_format: mystnb\n---\n\n```{{code-cell}} python3\n{code}\n```\n")

    write("1")
    marks = [book.fingerprint(chapter, "smoke"), book.fingerprint(chapter, "shoebox")]
    marks.append(book.fingerprint(chapter, "smoke", seed=1))
    write("2")
    marks.append(book.fingerprint(chapter, "smoke"))
    (tmp_path / "weights").write_text("new")
    marks.append(book.fingerprint(chapter, "smoke"))
    assert len(set(marks)) == 5
    executed = tmp_path / "01_x.ipynb"
    executed.write_text(json.dumps({"metadata": {"lorarar": {"fingerprint": marks[-1]}}}))
    assert book.is_fresh(executed, marks[-1]) and not book.is_fresh(executed, marks[0])
    assert not book.is_fresh(tmp_path / "none.ipynb", marks[0])


def test_recorded_runs_keep_their_provenance(tmp_path, monkeypatch):
    monkeypatch.setenv("LORARAR_DATA", str(tmp_path))
    book.save_recorded(
        "scores", {"direct": 0.5}, command="make scores", seed=3, scale="shoebox", inputs=["pyproject.toml"]
    )
    found = book.recorded("scores")
    assert found == {"direct": 0.5} and found.provenance["command"] == "make scores"
    assert ["changed since", "none"] in book.provenance("scores").rows
    with pytest.raises(ValueError, match=r"no recorded run .*nothing\.json: there are scores"):
        book.recorded("nothing")
    (tmp_path / "recorded" / "bare.json").write_text('{"values": {}}')
    with pytest.raises(ValueError, match="lacks command, seed"):
        book.recorded("bare")


def test_provenance_counts_the_files_of_a_large_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LORARAR_DATA", str(tmp_path))
    ledgers = sorted(f"tests/ledger/{path.name}" for path in (book.ROOT / "tests" / "ledger").iterdir())
    given = ["README.md", *ledgers]
    book.save_recorded("many", {}, command="make many", seed=0, scale="smoke", inputs=given)
    rows = dict(map(tuple, book.provenance("many").rows))
    assert rows["inputs"] == f"README.md, tests/ledger/ ({len(ledgers)} files)"
    assert list(book.recorded("many").provenance["inputs"]) == given


def test_every_recorded_run_can_be_read():
    for path in (book.ROOT / "data" / "recorded").glob("*.json"):
        assert book.recorded(path.stem)


@pytest.mark.parametrize("arguments", [["build", "--scale", "huge"], ["run", "77"], ["run", "--scale", "x"]])
def test_bad_input_is_one_line_and_status_2(arguments, capsys):
    assert book.main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
