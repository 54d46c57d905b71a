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

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from prose import normal, share_of_prose, typed_measurements

from lorarar.bookkit import claims, exercises, facts, ledger, notebook, runs, sources
from lorarar.bookkit.markdown import Context, flatten

CHAPTERS = sources.chapters()
PAGES = sorted(p for p in sources.BOOK.glob("*.md") if p.name != "README.md")
RUN = sources.pages()
WITH_CONTROL = ("03", "04", "05", "07", "09")

# One process has all tests of a chapter, so that it is read, and run, once.
each_chapter = pytest.mark.parametrize(
    "chapter", [pytest.param(path, id=path.stem, marks=pytest.mark.xdist_group(path.stem)) for path in RUN]
)
# What executes a chapter.
each_run = pytest.mark.parametrize(
    "chapter",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.chapter, pytest.mark.xdist_group(path.stem)])
        for path in RUN
    ],
)


@cache
def cells(chapter: Path) -> list:
    return sources.read_chapter(chapter).cells


@cache
def known(chapter: Path) -> facts.Facts:
    return ledger.known(chapter)


@cache
def smoke(chapter: Path) -> Path:
    return runs.run(chapter, "smoke", warm=True)


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def tagged(chapter: Path, tag: str) -> list:
    return [cell for cell in cells(chapter) if tag in tags(cell)]


def code(chapter: Path) -> list:
    return [cell for cell in cells(chapter) if cell.cell_type == "code"]


def is_folded(cell) -> bool:
    return bool({"hide-input", "hide-cell", "remove-input", "remove-cell", "solution"} & set(tags(cell)))


def is_appendix(chapter: Path) -> bool:
    return not chapter.stem[0].isdigit()


def lines_of(cell) -> int:
    return sum(bool(line.strip()) for line in cell.source.splitlines())


def captions(chapter: Path) -> list[str]:
    about = [cell.metadata.get("mystnb", {}) for cell in cells(chapter)]
    return [str(a.get(k, {}).get(w, "")) for a in about for k, w in (("figure", "caption"), ("image", "alt"))]


def printed(cell) -> str:
    return "".join("".join(o["text"]) for o in cell.get("outputs", []) if o["output_type"] == "stream")


# ---------------------------------------------------------------- the installation


@pytest.mark.parametrize("python", ["3.11.0", "3.12.0", "3.13.0"])
def test_pinned_versions_install_on_the_first_release_of_every_python(python):
    """Debian 12 has Python 3.11.2: a pin that asks for 3.11.5 leaves pip there without an answer."""
    project = tomllib.loads((sources.ROOT / "pyproject.toml").read_text())["project"]
    assert Version(python) in SpecifierSet(project["requires-python"])
    pins = [
        Requirement(line)
        for line in (sources.ROOT / "constraints.txt").read_text().splitlines()
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
    assert {path.stem for path in sources.BOOK.glob("*.ipynb")} == {path.stem for path in RUN}


@each_chapter
def test_parameters(chapter):
    (cell,) = tagged(chapter, "parameters")
    assert cell.source.split() == ["scale", "=", '"shoebox"', "seed", "=", "0"]


@each_chapter
def test_code_fits_the_column(chapter):
    for cell in code(chapter):
        if "remove-cell" not in tags(cell):
            assert [line for line in cell.source.splitlines() if len(line) > 84] == []


@each_chapter
def test_mathematics_is_short_and_checked(chapter):
    shown = tagged(chapter, "mathematics")
    assert shown or is_appendix(chapter), "tag `mathematics` on the cell that computes the formula"
    for cell in shown:
        written = [s for s in cell.source.splitlines() if s.strip() and not s.strip().startswith("#")]
        assert len(written) <= 15
        assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(cell.source)))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_no_measurement_is_typed_into_prose(page):
    texts = [cell.source for cell in cells(page) if cell.cell_type == "markdown"] + captions(page)
    assert [line for text in texts for line in typed_measurements(text)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_no_comment_begins_a_line_of_prose(page):
    """What follows it on that line is shown as it is written, roles and all."""
    assert re.findall(r"^<!--.*?-->.+", page.read_text(), re.MULTILINE) == []


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("The loss falls to 0.31 within 300 steps.", 1),
        ("It is 4,000 times faster.", 1),
        ("- It wins 71 % of the time.\n- Nothing here.\n- But 3.5 here.", 2),
        ("| method | score |\n|---|---|\n| direct | 0.4 |", 1),
        ("```{note}\nIt takes 12 s.\n```", 1),
        ("It takes 3 minutes and leads by 15 points.", 1),
        ("It wins {glue:text}`share:.2f` of the time.", 0),
        ("The authors report 71 % {cite}`lorarar`.", 0),
        ("Five recipes, 100 steps, 95 % intervals, 12 pairs, images of 64 × 64.", 0),
        ("See Table A1, §3, Figures 2 and 3, SD 1.5, Python 3.11, a 3D rendering, dog #2, the year 2024.", 0),
        ("Rank $r = 8.5$ and `rank=0.8` and\n\n$$\nx = 0.3\n$$ (eq-three)\n", 0),
        ("```python\nx = 0.3\n```\n\n1. first\n2. second", 0),
        ("A learning rate of 0.01. <!-- numbers: 0.01, a setting -->", 0),
        ("A learning rate of 0.01. <!-- numbers: 32 -->", 1),
        ("*Difficulty: easy. Importance: high. Minutes: 15 minutes.* Write it.", 0),
    ],
)
def test_the_rule_about_measurements(text, numbers):
    assert len(typed_measurements(text)) == numbers, typed_measurements(text)


def test_the_share_of_prose_counts_lines_that_say_something():
    page = """---
file_format: mystnb
---

# Title

Two lines
of prose.

```{code-cell} python3
---
tags: [hide-input]
---
x = 1

y = 2
```
"""
    assert share_of_prose(page) == 3 / 5


def test_prose_is_compared_without_its_dress():
    text = "The *dot* product\nkeeps {glue:text}`x:.0%` of the {term}`rank <r>`, says {cite}`a`; see `m_c`."
    assert normal(text) == "The dot product keeps # of the rank, says a; see `m_c`."


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_images_in_prose_have_alternative_texts(page):
    text = page.read_text()
    for alt in re.findall(r"!\[(.*?)\]\(", text):
        assert len(alt) > 30
    for options in re.findall(r"\{(?:figure|image)\} \S+\n((?::.*\n)*)", text):
        assert re.search(r"^:alt: .{31,}$", options, re.MULTILINE)


# ---------------------------------------------------------------- the form of a chapter


@each_chapter
def test_anatomy(chapter):
    if is_appendix(chapter):
        return
    text = chapter.read_text()
    head = text[: text.index("\n## ")]
    assert re.search(r"\{admonition\} The question\n.*\?", head, re.DOTALL), "asks its question first"
    assert "{admonition} You will be able to" in head
    short = re.search(r"\{admonition\} In short\n:class: short\n(.*?)\n```", head, re.DOTALL)
    assert short, "answers it: {admonition} In short, :class: short"
    sentences = re.findall(r"[.!](?=\s|$)", normal(short[1]))
    assert 3 <= len(sentences) <= 6, f"In short: three to five sentences, not {len(sentences)}"
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    last = ["Exercises", "The claims", "Takeaways", "Pitfalls", "References"]
    assert sections[-5:] == last, f"ends with {', '.join(last)}; it has {sections}"
    assert text.index("figure:") < min(
        (m.start() for m in re.finditer(r"^\s*\$\$|\{math\}\s", text, re.MULTILINE)), default=len(text)
    ), "a picture comes before the first formula"
    assert re.search(r"\{cite:t\}`", text[text.index("## References") :]), "say what to read in each"


@each_chapter
def test_length(chapter):
    text = chapter.read_text()
    assert share_of_prose(text) >= 0.5, "at least half of the lines are prose"
    if not is_appendix(chapter):
        assert len(text.splitlines()) <= 450
        assert sum("figure" in cell.metadata.get("mystnb", {}) for cell in cells(chapter)) <= 7
    for folder in ("chapters", "checks"):
        module = sources.module_of(chapter, folder)
        assert module is None or len(Path(module.__file__).read_text().splitlines()) <= 400


@each_chapter
def test_cells_are_short_and_folds_say_what_they_do(chapter):
    for cell in code(chapter):
        start = cell.source.strip()[:70]
        assert lines_of(cell) <= (25 if is_folded(cell) else 12), f"{lines_of(cell)} lines: {start}"
        if is_folded(cell) and "solution" not in tags(cell):
            assert notebook.fold_title(cell.source)[0] != "Code", f"a comment says what it does: {start}"


@each_chapter
def test_findings_stand_in_the_prose_and_hold(chapter):
    facts = known(chapter)
    statements = sources.module_of(chapter).statements(facts)
    prose = " ".join(cell.source for cell in cells(chapter) if cell.cell_type == "markdown")
    prose = normal(f"{prose} {' '.join(captions(chapter))}")
    assert statements, "a chapter finds something"
    for sentence, holds in statements.items():
        assert normal(sentence) in prose, f"not in the prose, word for word: {sentence}"
        assert len(sentence.split()) >= 3, f"too short to say anything: {sentence}"
        assert holds, f"rewrite: {sentence}"


@each_chapter
def test_statements_can_fail(chapter):
    """A statement that holds whatever was measured says nothing: facts are turned round, one at a time."""
    facts, module = known(chapter), sources.module_of(chapter)
    never = set(module.statements(facts))
    for name, value in facts.items():
        for other in (not value,) if isinstance(value, bool) else (0, 1, -value, value + 1e6, 1e-9):
            try:
                turned = module.statements(facts | {name: other})
            except (ZeroDivisionError, ValueError):
                continue
            never -= {sentence for sentence, holds in turned.items() if not holds}
    assert not never, f"hold whatever is measured: {sorted(never)}"


@each_chapter
def test_claims_are_worked_out_from_facts(chapter):
    facts, module = known(chapter), sources.module_of(chapter)
    found = module.claims(facts)
    assert found == module.claims(facts) and len({claim.key for claim in found}) == len(found)
    assert found or is_appendix(chapter)
    for claim in found:
        assert claim.verdict in claims.VERDICTS and claim.text and claim.source
        assert len(claim.measured.split()) > 3, f"{claim.key}: say what was measured"


@each_chapter
def test_every_number_is_used(chapter):
    module, asked = sources.module_of(chapter), set()

    class Watched(facts.Facts):
        def __getitem__(self, name):
            asked.add(name)
            return super().__getitem__(name)

    watched = Watched(known(chapter))
    module.statements(watched)
    module.claims(watched)
    quoted = set(re.findall(r"\{glue:text\}`([^`:]+)", chapter.read_text()))
    assert quoted <= set(watched), f"quoted and not known: {sorted(quoted - set(watched))}"
    idle = sorted(set(watched) - quoted - asked)
    assert not idle, f"neither quoted nor used in statements or claims: {idle}"


@each_chapter
def test_the_ledger_keeps_what_is_computed_live(chapter):
    module = sources.module_of(chapter)
    for scale in ("smoke", "shoebox"):
        both = set(module.recorded(scale)) & set(ledger.ledger(chapter.stem).get(scale, {}))
        assert not both, f"recorded runs are not in the ledger: {both}"


@each_chapter
def test_checks_refuse_wrong_answers(chapter):
    module = sources.module_of(chapter, "checks")
    if module is None:
        assert is_appendix(chapter)
        return
    checks = {name[6:]: check for name, check in vars(module).items() if name.startswith("check_")}
    assert set(checks) == set(module.WRONG), "one plausible wrong answer for each check"
    for name, wrong in module.WRONG.items():
        line = exercises.outcome(checks[name], wrong)
        assert line[0] == "✗", f"{name}: a wrong answer passes"
        assert "stopped with" not in line, f"{name}: the wrong answer is not plausible: {line}"
        assert "not written yet" not in line and "not right yet" not in line, f"{name}: give a hint"


@each_chapter
def test_control(chapter):
    if chapter.stem[:2] in WITH_CONTROL:
        module = sources.module_of(chapter)
        assert re.search(r"\b(Control|Quiz)\(", chapter.read_text() + Path(module.__file__).read_text())


# ---------------------------------------------------------------- the runs


@each_run
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


@each_run
@pytest.mark.parametrize("scale", ["smoke", "shoebox"])
def test_values_are_those_of_the_ledger(chapter, scale):
    executed = runs.RUNS / scale / f"{chapter.stem}.ipynb"
    if scale == "smoke":
        executed = smoke(chapter)
    elif not runs.is_fresh(executed, runs.fingerprint(chapter, scale)):
        pytest.skip("`make book` has not run this chapter since it changed")
    assert facts.broken(executed) == [], "rewrite these sentences"
    expected = ledger.ledger(chapter.stem).get(scale, {})
    assert ledger.differences(expected, ledger.live_values(chapter, executed, scale)) == []


@each_chapter
def test_the_ledger_gives_reasons(chapter):
    for scale, entries in ledger.ledger(chapter.stem).items():
        for name, entry in entries.items():
            assert set(entry) == {"value", "tolerance", "reason"}, f"{scale}: {name}"
            assert len(entry["reason"]) > 10, f"{scale}: {name}: why this tolerance?"


@each_run
def test_checks_tell_right_from_wrong(chapter):
    outcomes: dict[str, dict[str, list[str]]] = {}
    for cell in json.loads(smoke(chapter).read_text())["cells"]:
        for kind in ("exercise", "solution"):
            if kind in cell["metadata"].get("tags", []):
                lines = [s for s in printed(cell).splitlines() if s[:1] in "✓✗"]
                assert lines, f"a cell tagged {kind} calls attempt(check_…, answer)"
                for line in lines:
                    name = re.match(r". (\w+)", line)[1]
                    outcomes.setdefault(name, {}).setdefault(kind, []).append(line)
    assert outcomes or is_appendix(chapter), "the chapter has no exercise"
    kinds = {"exercise", "solution"}
    for name, by_kind in outcomes.items():
        assert set(by_kind) == kinds, f"{name} has only {set(by_kind)}"
        assert all(line[0] == "✗" for line in by_kind["exercise"]), f"{name}: the stub passes"
        assert all(line[0] == "✓" for line in by_kind["solution"]), f"{name}: {by_kind['solution']}"


@each_chapter
def test_exercises_are_folded_and_described(chapter):
    assert all("hide-cell" in c.metadata["tags"] for c in tagged(chapter, "solution"))
    boxes = re.findall(r"\{admonition\} Exercise.*?\n```", chapter.read_text(), re.DOTALL)
    assert boxes or is_appendix(chapter), "an exercise stands in an {admonition} Exercise: …"
    for box in boxes:
        assert all(word in box for word in ("Difficulty", "Importance", "Minutes")), box


# ---------------------------------------------------------------- copies for Colab


@each_chapter
def test_notebook_follows_its_source(chapter):
    beside = chapter.with_suffix(".ipynb")
    assert beside.is_file() and beside.read_text() == notebook.sibling_text(chapter), "run `make notebooks`"


@each_chapter
def test_no_placeholder_is_left_in_the_notebook(chapter):
    """Every number stands as text: no name of a value shows where a number should."""
    source = chapter.read_text()
    written = json.loads(chapter.with_suffix(".ipynb").read_text())["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in written if cell["cell_type"] == "markdown")
    for name in set(re.findall(r"\{glue:text\}`([^`:]+)", source)):
        assert prose.count(f"`{name}`") == source.count(f" `{name}`"), f"{name} stands where a number should"


def test_numbers_of_figures_and_links_are_those_of_the_book():
    (hyper,) = (path for path in CHAPTERS if path.stem == "06_hypernetwork")
    labels = [label for label in notebook.labels_of(hyper).values() if label.startswith("Figure")]
    assert labels == [f"Figure 6.{i + 1}" for i in range(len(labels))]
    links = notebook.context_of(hyper, {}).links
    assert links["ch-ziplora"].endswith("/blob/main/book/05_ziplora.ipynb") and "ch-hypernetwork" not in links


@each_run
def test_executed_notebook_has_outputs_and_numbers(chapter):
    written = notebook.executed(chapter, smoke(chapter))
    outputs = [output for cell in written.cells for output in cell.get("outputs", [])]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert is_appendix(chapter) or "image/png" in kinds  # an appendix may have tables alone
    assert outputs and not any("papermill" in kind for kind in kinds)
    assert not any("{glue" in cell.source for cell in written.cells if cell.cell_type == "markdown")


def test_no_notebook_without_a_source():
    assert {p.stem for p in sources.BOOK.glob("*.ipynb")} == {p.stem for p in RUN}


@each_chapter
def test_notebook_is_plain(chapter):
    written = json.loads(chapter.with_suffix(".ipynb").read_text())
    assert written["cells"][0]["source"], "the bootstrap comes first"
    for cell in written["cells"]:
        assert not cell.get("outputs")
        if cell["cell_type"] == "markdown":
            rest = re.sub(r"```.*?```|`[^`]*`", "", "".join(cell["source"]), flags=re.DOTALL)
            assert not re.search(r"\{[\w:-]+\}`|```\{|:::|^\([\w-]+\)=", rest, re.MULTILINE), rest


@pytest.mark.parametrize(
    ("myst", "plain"),
    [
        ("A {term}`LoRA` of {term}`low rank <rank>`.", "A LoRA of low rank."),
        ("It is {glue:text}`norm:.2f`, {glue:text}`share:.0%`.", "It is 0.31, 54%."),
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
        ("{ref}`there <ch-y>`, {ref}`ch-y`", "[there](https://y), [The y](https://y)"),
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
    labels = {"eq-x": "(1)", "fig-x": "Figure 1", "ch-x": "The x", "ch-y": "The y"}
    context = Context(labels, {"ch-y": "https://y"}, {"norm": 0.314, "share": 0.536})
    assert flatten(myst, context) == plain


@pytest.mark.parametrize(
    "text", ["{nonsense}`x`", "```{nonsense} x\n```", "{numref}`nonsense`", "{glue:text}`nonsense`"]
)
def test_flattening_refuses_what_it_does_not_know(text):
    with pytest.raises(ValueError, match="nonsense"):
        flatten(text)


@pytest.mark.slow
def test_colab_bootstrap_from_an_empty_folder(tmp_path):
    """Run the first cell and every import of every chapter where lorarar is neither present nor installed."""
    clone, place, fresh = tmp_path / "clone", tmp_path / "empty", tmp_path / "venv"
    ignore = shutil.ignore_patterns(".*", "_build", "runs", "data", "*.egg-info", "__pycache__")
    shutil.copytree(sources.ROOT, clone, ignore=ignore)
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
        for chapter in RUN
        for cell in cells(chapter)
        if cell.cell_type == "code"
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    script = "\n".join(
        [
            "import importlib.util",
            "assert importlib.util.find_spec('lorarar') is None, 'lorarar is here already'",
            notebook.BOOTSTRAP.format(repository="https://invalid.example/never-asked"),
            *sorted(imports),
            "import lorarar, lorarar.scales",
            "print(lorarar.__file__)",
            "assert lorarar.scales.data_folder().is_relative_to(folder)",
        ]
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LORARAR_DATA")}
    given = {"LORARAR_REPOSITORY": f"file://{clone}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        [str(fresh / "bin" / "python"), "-c", script],
        cwd=place,
        env=clean | given,
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
    spec = importlib.util.spec_from_file_location("mathml", sources.BOOK / "_ext" / "mathml.py")
    mathml = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mathml)
    assert part in mathml.to_mathml(latex)
    for wrong in (r"a_", r"\unheard x", r"\big\| x \big\|"):
        with pytest.raises(ValueError, match="cannot read the formula"):
            mathml.to_mathml(wrong)


def test_the_repository_stands_in_one_place():
    address = sources.repository().removeprefix("https://")
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
        for path in sources.ROOT.glob(pattern)
        if path.suffix in {".md", ".toml", ".yml", ".cff", ".py", ""} and path.is_file()
    ]
    holders = {path.name for path in text_files if address in path.read_text()}
    # Pages with commands to copy write it out.
    assert holders - {"README.md", "CONTRIBUTING.md", "use.md"} == {"_config.yml"}
