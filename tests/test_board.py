"""The recorded experiment as chapters read it, and what chapters 9 and 10 make of it."""

import numpy as np
import pytest

from lorarar.bookkit import board as boards
from lorarar.bookkit import sums
from lorarar.bookkit.chapters import ch09_mars2 as ch09
from lorarar.bookkit.chapters import ch10_scoreboard as ch10
from lorarar.study import statistics


def test_the_quiz_asks_the_judge_and_counts_the_reader():
    board, asked = boards.load("test"), []

    def shows(name, images):
        asked.append(name)
        return np.full(len(images), name in board.subjects)  # the subject always, the style never

    quiz = ch09.quiz(board, shows, "MARS²", count=3, seed=1)
    assert len(asked) == 6 and quiz.verdicts.tolist() == [[True, False]] * 3
    box = quiz.widget
    for one, answer in zip(quiz.inputs, ("yes", "yes"), strict=True):
        one.value = answer
    quiz.button.click()
    assert "MARS² said subject yes, style no. You agree in 1 of 2." in quiz.text.value and box.children


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


def test_both_intervals_stand_side_by_side():
    """The scoreboard's table of why intervals are crossed: one value, and the crossed interval is wider."""
    shown = ch10.two_intervals(boards.load("test")).data
    assert len(shown) == 4
    for _, row in shown.iterrows():
        pairs, names = row["Pairs drawn"], row["Subjects and styles drawn"]
        assert pairs.split(" (")[0] == names.split(" (")[0]
        (a, b), (c, d) = (
            [float(x) for x in s.split("(")[1].rstrip(")").split(" to ")] for s in (pairs, names)
        )
        assert c < a < b < d


def test_a_comparison_is_settled_on_both_splits():
    test, validation = boards.load("test"), boards.load("validation")
    for comparison in ch10.comparisons(test, validation):
        expected = statistics.settled(*filter(None, (comparison.test, comparison.validation)))
        assert comparison.settled == expected
    assert {c.second for c in ch10.comparisons(test, validation) if c.validation is None} == {"joint"}


def test_sums_and_methods_are_compared_on_the_same_images():
    scores = sums.shared("shoebox", ["direct", "ziplora"])
    assert {grid.shape for grid in scores.values()} == {(3, 3)}
    assert (scores[sums.FULL] == scores["direct"]).all(), "one sum, one judge, two records"
