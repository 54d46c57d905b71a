"""The commands of a study among people: ``lorarar study questions | serve | export | analyse | power``."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lorarar.atomic import atomic
from lorarar.parser import EXIT_STATUSES, Parser, status_of
from lorarar.study.survey import FORMS, SCENARIOS

Say = Callable[[object], None]
COLUMNS = (
    "participant", "place", "part", "subject", "style", "first", "second", "first_seed", "second_seed",
    "first_judged_right", "second_judged_right", "option_1", "choice",
)  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Run one of these steps without loading the experiment, and return the exit status.

    A page that was killed is back within a second.
    """
    parser = Parser(prog="lorarar study", epilog=EXIT_STATUSES)
    add_steps(parser.add_subparsers(dest="step", metavar="STEP", required=True))
    options = parser.parse_args(arguments)
    return status_of(lambda: options.people(options, _silent if options.quiet else print), parser.prog)


def _silent(_: object) -> None:
    pass


def add_steps(steps: Any) -> None:  # noqa: ANN401  (argparse's own type is private)
    """Add the parsers of these steps."""
    questions = _step(steps, "questions", "draw the questions of a study among people, and write its file")
    questions.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="the study")
    questions.add_argument(
        "--form", choices=tuple(FORMS), default="lorarar", help="whose form; default: %(default)s"
    )
    questions.add_argument(
        "--methods", nargs="+", metavar="NAME", help="ours, then its rival or rivals; default: the form's"
    )
    questions.add_argument(
        "--scenarios",
        nargs="+",
        metavar="NAME",
        default=list(SCENARIOS),
        help="of random and best; default: both",
    )
    questions.add_argument(
        "--judge", default="critic", help="whose verdicts go with the images, or none; default: %(default)s"
    )
    questions.add_argument("--scale", metavar="NAME", default="shoebox", help="default: %(default)s")
    questions.add_argument(
        "--split", choices=("validation", "test"), default="test", help="default: %(default)s"
    )
    questions.add_argument("--names", nargs="+", metavar="NAME", help="of the split; default: all")
    questions.add_argument("--count", type=int, default=10, help="images of each cell; default: %(default)s")
    questions.add_argument(
        "--seed", type=int, default=0, help="of the images and the draw; default: %(default)s"
    )
    questions.add_argument(
        "--cells", type=Path, metavar="DIR", help="the images; default: runs/experiment/SCALE/SPLIT"
    )

    serve = _step(steps, "serve", "serve a study among people as a web page")
    serve.add_argument("file", metavar="FILE", type=Path, help="of `lorarar study questions`")
    serve.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets others in; default: %(default)s")
    serve.add_argument("--port", type=int, default=8000, help="default: %(default)s")
    serve.add_argument("--contact", metavar="TEXT", default="", help="whom participants can ask")

    export = _step(steps, "export", "write the answers of a study among people as CSV")
    export.add_argument("file", metavar="FILE", type=Path, help="the study")
    export.add_argument("-o", "--output", metavar="CSV", type=Path, help="default: print")

    analyse = _step(steps, "analyse", "work out what the answers of a study among people come to")
    analyse.add_argument("file", metavar="FILE", type=Path, help="the study")
    analyse.add_argument("--json", action="store_true", help="print JSON")

    power = _step(steps, "power", "simulate how many people and pairs a study needs, and record it")
    power.add_argument("--studies", type=int, default=400, metavar="N", help="default: %(default)s")
    power.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    power.add_argument("--record", metavar="NAME", default="people_power", help="default: %(default)s")


def _step(steps: Any, name: str, text: str) -> argparse.ArgumentParser:  # noqa: ANN401
    step = steps.add_parser(name, help=text, description=text)
    step.add_argument("--quiet", action="store_true", help="no progress bar, no report")
    step.set_defaults(people=RUN[name])
    return step


def _questions(options: argparse.Namespace, say: Say) -> None:
    from lorarar.study.answers import Study
    from lorarar.study.cells import setting
    from lorarar.study.questions import draw
    from lorarar.study.records import record_command

    run = setting(
        options.split,
        options.scale,
        names=options.names,
        out=options.cells,
        count=options.count,
        seed=options.seed,
    )
    judge = None if options.judge == "none" else options.judge
    questions, pictures, left_out = draw(run, options.form, options.methods, options.scenarios, judge)
    about = {
        "form": options.form,
        "command": record_command("questions", run),
        "judge": judge,
        "split": run.split,
        "scale": run.scale.name,
        "seed": run.seed,
        "left out": left_out,
    }
    Study.create(options.output, about, questions, pictures)
    for part in dict.fromkeys(q.part for q in questions):
        asked = [q for q in questions if q.part == part]
        without = left_out.get(part, 0)
        say(
            f"{part}: {len(asked)} questions, {' or '.join(asked[0].methods)}"
            + (f"; {without} left out, where {judge} found no right image of one of them" * bool(without))
        )
    say(f"{options.output}: serve it with `lorarar study serve {options.output}`")


def _serve(options: argparse.Namespace, say: Say) -> None:
    from lorarar.study.answers import Study
    from lorarar.study.survey_page import serve

    with Study(options.file) as study:
        serve(study, options.host, options.port, options.contact)


def _export(options: argparse.Namespace, say: Say) -> None:
    from lorarar.study.answers import Study

    with Study(options.file) as study:
        answers = study.answers()
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for person, place, question, swapped, choice in answers:
        by = dict(zip(("first", "second"), question.methods, strict=True))
        judged = ("", "") if question.right is None else map(int, question.right)
        rows.writerow(
            [
                *(person, place, question.part, question.subject, question.style),
                *(*question.methods, *question.seeds, *judged),
                *(question.methods[swapped], by.get(choice, choice)),
            ]
        )
    if options.output is None:
        print(text.getvalue(), end="")
        return
    with atomic(options.output) as aside:
        aside.write_text(text.getvalue(), newline="")
    say(f"{options.output}: {len(answers)} answers")


def _analyse(options: argparse.Namespace, say: Say) -> None:
    from lorarar.study.answers import Study
    from lorarar.study.preference import analysed

    with Study(options.file) as study:
        found = analysed(study.answers(), study.questions)
        judge = study.about["judge"]
    if options.json:
        print(json.dumps(_without_nan(found), indent=1))
        return
    for part, facts in found.items():
        print("\n".join(_told(part, facts, judge)))


def _told(part: str, facts: Mapping[str, Any], judge: str | None) -> list[str]:
    """Return the lines that tell what the answers to one part come to."""
    first, second = facts["methods"]
    lines = [
        f"{part}: {facts['participants']} participants, {facts['questions']} pairs, "
        f"{facts['answers']} answers"
    ]
    for name, words in (("first", first), ("similar", "similar"), ("second", second)):
        lines.append(f"  {words:24} {_interval(facts[name], '.0%')}")
    lines.append(f"  {f'{first} ahead by':24} {_interval(facts['lead'], '+.0%')}")
    lines.append(f"  {'people agree (κ)':24} {_interval(facts['agreement'], '.2f')}")
    if facts["judge"]:
        kappa, correlation = facts["judge"]["kappa"], facts["judge"]["correlation"]
        lines.append(f"  {f'with {judge} (κ)':24} {_interval(kappa, '.2f')}")
        lines.append(f"  {f'with {judge} (ρ)':24} {_interval(correlation, '.2f')}")
    share, decided, chance = facts["left"]
    lines.append(f"  {'left image chosen':24} {share:.0%} of {decided}, p = {chance:.2f}")
    if facts["participants"] == 1:
        lines.append("  One participant: these intervals speak of other pairs, not of other people.")
    return lines


def _interval(entry: tuple[float, float, float] | None, form: str) -> str:
    if entry is None or math.isnan(entry[0]):
        return "– (nothing varies)"
    value, low, high = (format(x, form) for x in entry)
    return f"{value} ({low} to {high})"


def _without_nan(values: Any) -> Any:  # noqa: ANN401  (JSON)
    if isinstance(values, Mapping):
        return {key: _without_nan(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_without_nan(value) for value in values]
    return None if isinstance(values, float) and math.isnan(values) else values


def _power(options: argparse.Namespace, say: Say) -> None:
    from lorarar.records import save_recorded
    from lorarar.study.power import planned

    if options.studies < 1:
        raise ValueError(f"--studies must be at least 1, not {options.studies}")
    found = planned(studies=options.studies, seed=options.seed, progress=not options.quiet)
    command = f"lorarar study power --studies {options.studies}"
    say(save_recorded(options.record, found, command=command, seed=options.seed, scale="shoebox"))


RUN: dict[str, Callable[[argparse.Namespace, Say], None]] = {
    "questions": _questions,
    "serve": _serve,
    "export": _export,
    "analyse": _analyse,
    "power": _power,
}
