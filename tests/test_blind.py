"""The control of chapter 9, set from code as a reader would, and the recorded experiment it draws from."""

import numpy as np
import pytest

from lorarar.bookkit import board as boards
from lorarar.bookkit.blind import OPEN, SHOWN, BlindControl, Exhibit
from lorarar.bookkit.chapters import ch10_scoreboard as ch10
from lorarar.bookkit.frames import Frames
from lorarar.study import statistics

ASKED = []


def exhibits(count=3):
    grey = np.full((16, 16, 3), 90, np.uint8)
    return [
        Exhibit("dog #8", "glowing", (grey, grey), np.full((16, 16, 3), 40 * i, np.uint8))
        for i in range(count)
    ]


def strict(name, images):
    ASKED.append(name)
    return np.zeros(len(images), bool)


def lenient(name, images):
    return np.ones(len(images), bool)


@pytest.fixture
def control():
    ASKED.clear()
    return BlindControl(exhibits(), {"MARS²": strict, "the critic": lenient})


def test_nobody_is_asked_before_the_reader_has_answered(control):
    control.set(picture=2)
    assert "What does the image on the right show" in control.text.value and not ASKED
    control.set(verdict="neither")
    assert ASKED == ["dog #8", "glowing"]
    assert "MARS²: neither. the critic: both." in control.text.value


def test_agreement_is_counted_over_the_pictures(control):
    for picture, verdict in ((1, "neither"), (2, "both"), (3, "neither")):
        control.set(picture=picture)
        control.set(verdict=verdict)
    assert control.agreement("MARS²") == (2, 3) and control.agreement("the critic") == (1, 3)
    assert "with MARS² in 2 of 3, with the critic in 1 of 3" in control.text.value


def test_the_first_word_counts(control):
    control.set(verdict="both")
    control.set(verdict="neither")
    assert control.given == {1: (True, True)}


def test_another_picture_hides_the_verdict(control):
    control.set(verdict="only the style")
    control.set(picture=2)
    assert control.inputs["verdict"].value == OPEN and "MARS²" not in control.text.value
    control.set(picture=1)  # judged before: the verdicts are known
    assert "You: only the style" in control.text.value


def test_a_page_has_each_picture_twice(control):
    frames = control.static()
    assert isinstance(frames, Frames) and len(frames.labels) == 6
    assert frames.axes["verdict"] == [OPEN, SHOWN]
    assert "So far the judges agree in 0 of 3" in frames.labels[-1] and "MARS²" not in frames.labels[0]


def test_the_board_is_the_record():
    board = boards.load("test")
    assert len(board.pairs) == 25 and board.pictures().shape[:2] == (25, len(board.methods))
    right = board.of("lorarar")
    assert (right == (board.of("lorarar", "subject") & board.of("lorarar", "style"))).all()
    assert board.share("lorarar").value == pytest.approx(right.mean())
    wide, narrow = (
        board.difference("lorarar", "ziplora"),
        board.difference("lorarar", "ziplora", over="pairs"),
    )
    assert wide.value == pytest.approx(narrow.value) and wide.high - wide.low > narrow.high - narrow.low
    assert board.merges[0] == "ziplora" and not set(boards.CONTROLS) & set(board.merges)


def test_a_comparison_is_settled_on_both_splits():
    test, validation = boards.load("test"), boards.load("validation")
    for comparison in ch10.comparisons(test, validation):
        expected = statistics.settled(*filter(None, (comparison.test, comparison.validation)))
        assert comparison.settled == expected
    assert {c.second for c in ch10.comparisons(test, validation) if c.validation is None} == {"joint"}


def test_sums_and_methods_are_compared_on_the_same_images():
    scores = ch10.shared_images("shoebox")
    assert {grid.shape for grid in scores.values()} == {(3, 3)}
    assert "plain sum" not in scores and "sum 1 and 1" in scores
