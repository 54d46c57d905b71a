"""Labels by eye: the draw, the sheet, the table of labels, and agreement, against counts made by hand."""

import csv

import numpy as np
import pytest
from PIL import Image

from lorarar.bookkit import by_eye
from lorarar.bookkit.board import load as board_of
from lorarar.cli import main
from lorarar.records import recorded
from lorarar.study import labelling, labels
from lorarar.study.labels import COLUMNS, Picture
from lorarar.study.statistics import crossed

HEAD = ",".join(COLUMNS)


def table(tmp_path, *rows, head=HEAD):
    path = tmp_path / "labels.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def pairs(subjects=3, styles=4, each=1):
    return [
        Picture(f"subject {i}", f"style {j}", "one", k)
        for i in range(subjects)
        for j in range(styles)
        for k in range(each)
    ]


# --- what is drawn and shown -----------------------------------------------------------------------------


def test_a_draw_takes_each_picture_at_most_once_in_an_order_that_a_seed_fixes():
    found = labels.drawn(204, 200, 0)
    assert len(set(found.tolist())) == 200 and set(found.tolist()) <= set(range(204))
    assert (labels.drawn(204, 200, 0) == found).all() and (labels.drawn(204, 200, 1) != found).any()
    with pytest.raises(ValueError, match="between 1 and 204"):
        labels.drawn(204, 205, 0)


def test_a_page_has_each_picture_enlarged_beside_its_drawings():
    colours = {"picture": (200, 0, 0), "subject": (0, 200, 0), "style": (0, 0, 200)}
    picture, *names = (np.full((16, 16, 3), colour, np.uint8) for colour in colours.values())
    shown = np.asarray(labels.page([(7, picture, *(np.stack([n] * 3) for n in names))] * 3))
    for colour in colours.values():
        assert ((shown == colour).all(-1)).any()
    red = (shown == colours["picture"]).all(-1).sum()
    assert red == 3 * (16 * labels.ENLARGED) ** 2
    green, blue = ((shown == colours[axis]).all(-1).sum() for axis in ("subject", "style"))
    assert green == blue == 3 * 3 * (2 * 16 - 4) ** 2  # half as large, four pixels apart


def test_the_shipped_pictures_are_those_of_the_recorded_sheet_and_no_control_is_among_them():
    pictures, images = labelling.load()
    board = board_of("validation")
    sheet = board.pictures()
    assert len(pictures) == len(images) == 200 and len(set(pictures)) == 200
    assert not {"base", "content", "style"} & {picture.method for picture in pictures}
    of = [picture for picture in pictures if picture.method in board.methods]
    assert len(of) > 100
    for picture, image in zip(pictures, images, strict=True):
        if picture.method in board.methods:
            pair = board.pairs.index((picture.subject, picture.style))
            assert (image == sheet[pair, board.methods.index(picture.method)]).all()


@pytest.mark.slow
def test_a_sheet_comes_with_a_table_to_fill_in_and_spares_one_that_is_there(tmp_path):
    assert main(["study", "labels", "sheet", "-o", str(tmp_path), "--order", "3"]) == 0
    pages = sorted(tmp_path.glob("page-*.png"))
    assert len(pages) == 20 and Image.open(pages[0]).width > 1000
    rows = list(csv.reader((tmp_path / "labels.csv").read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert sorted(int(row[0]) for row in rows[1:]) == list(range(1, 201)) != [int(row[0]) for row in rows[1:]]
    (tmp_path / "labels.csv").write_text("my work")
    assert main(["study", "labels", "sheet", "-o", str(tmp_path)]) == 0
    assert (tmp_path / "labels.csv").read_text() == "my work"


# --- the table of labels ---------------------------------------------------------------------------------


def test_labels_are_read_in_the_order_of_their_numbers(tmp_path):
    path = table(tmp_path, "3,no,no,repeat", "1,yes,yes,none", "2,yes,no,style: other")
    found = labels.read_labels(path, 3)
    assert found.subject.tolist() == [True, True, False] and found.style.tolist() == [True, False, False]
    assert found.right.tolist() == [True, False, False]
    assert found.kinds == ("none", "style: other", "repeat")


def test_a_table_that_a_spreadsheet_has_saved_is_read(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"{HEAD}\r\n1,yes,yes,none\r\n".encode())
    assert labels.read_labels(path, 1).right.tolist() == [True]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["1,yes,yes,none"], "1 pictures have no label, the first is 2"),
        (["1,yes,yes,none", "2,maybe,yes,none"], "line 3: subject must be yes or no, not 'maybe'"),
        (["1,yes,yes,none", "1,yes,yes,none"], "line 3: picture 1 has a label already"),
        (["3,yes,yes,none"], "line 2: there is no picture '3': their numbers are 1 to 2"),
        (["one,yes,yes,none"], "line 2: there is no picture 'one'"),
        (["1,no,yes,subject: blurred"], "line 2: no kind 'subject: blurred': choose one of none; "),
        (["1,no,yes,none"], "line 2: kind 'none' does not go with subject no, style yes"),
        (["1,yes,yes,repeat"], "line 2: kind 'repeat' does not go with subject yes, style yes"),
        (["1,yes"], "line 2: style must be yes or no, not None"),
    ],
)
def test_a_table_with_a_fault_is_refused_in_one_line_that_names_it(tmp_path, rows, says):
    with pytest.raises(ValueError) as refused:
        labels.read_labels(table(tmp_path, *rows), 2)
    assert says in str(refused.value) and "\n" not in str(refused.value)
    assert str(tmp_path / "labels.csv") in str(refused.value)


def test_another_table_and_no_table_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the first line must be number,subject,style,kind"):
        labels.read_labels(table(tmp_path, head="number,verdict"), 2)
    with pytest.raises(ValueError, match="cannot be read as a table"):
        labels.read_labels(tmp_path / "none.csv", 2)


def test_the_command_refuses_a_fault_with_status_two(tmp_path, capsys):
    assert main(["study", "labels", "agree", str(table(tmp_path, "1,yes,yes,none"))]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "199 pictures have no label, the first is 2" in error


@pytest.mark.slow
def test_the_shipped_labels_agree_with_themselves_and_not_quite_with_their_second_time(capsys):
    assert main(["study", "labels", "agree", str(labelling.folder() / "eye.csv")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["eye", "subject", "100%"] and "1.00 (1.00 to 1.00)" in lines[1]
    again = labelling.by_eye("eye-again")
    assert 0.8 < (again.right == labelling.by_eye().right).mean() < 1


# --- agreement -------------------------------------------------------------------------------------------


def test_agreement_is_that_of_a_table_counted_by_hand():
    """Twenty times both say yes, fifteen times both no, 5 and 10 times they differ: κ = 0.4 (Wikipedia)."""
    truth = np.repeat([True, True, False, False], [20, 5, 10, 15])
    said = np.repeat([True, False, True, False], [20, 5, 10, 15])
    found = labels.agreement(truth, said, np.ones((5, 50)))
    assert found["share"] == pytest.approx((0.7, 0.7, 0.7))
    assert found["kappa"] == pytest.approx((0.4, 0.4, 0.4))
    assert found["balanced"] == pytest.approx((0.7, 0.7, 0.7))  # (20/25 + 15/25) / 2


def test_a_picture_that_counts_twice_is_as_good_as_two():
    truth, said = np.array([True, True, False, False]), np.array([True, False, False, True])
    twice = np.array([2, 1, 1, 1])
    found = labels.agreement(truth, said, np.ones((1, 4)) * twice)
    repeated = labels.agreement(truth.repeat(twice), said.repeat(twice), np.ones((1, 5)))
    for name in ("share", "kappa", "balanced"):
        assert found[name].low == pytest.approx(repeated[name].value)


def test_intervals_are_those_of_crossed_resampling():
    yes = np.random.default_rng(5).random((3, 4)) < 0.4
    counts = labels.weights(pairs(), draws=4000, seed=2)
    found = labels.interval(lambda count: labels.share(yes.ravel(), count), counts)
    assert found == pytest.approx(crossed(yes, resamples=4000, seed=2))


def test_pictures_of_one_pair_count_alike():
    counts = labels.weights(pairs(each=3), draws=50)
    assert (counts.reshape(50, 12, 3) == counts.reshape(50, 12, 3)[..., :1]).all()
    assert counts.sum(1).mean() == pytest.approx(36, rel=0.2)


def test_where_nothing_varies_there_is_no_kappa_and_no_balance():
    same = np.ones(12, bool)
    found = labels.agreement(same, same, labels.weights(pairs(), draws=20))
    assert found["share"].value == 1
    assert np.isnan(found["kappa"].value) and np.isnan(found["balanced"].value)


def test_ranking_is_spearmans_of_the_shares():
    methods = [name for name in "abc" for _ in range(4)]
    one = np.array([0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1, 1], bool)  # a < b < c
    other = np.array([1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0], bool)  # b < c < a
    counts = np.ones((3, 12))
    assert labels.ranking(one, one, methods, counts).value == pytest.approx(1)
    # Ranks (1, 2, 3) and (3, 1, 2): 1 - 6 (4 + 1 + 1) / (3 · 8)
    assert labels.ranking(one, other, methods, counts).value == pytest.approx(-0.5)


def test_pictures_of_one_pair_are_put_in_order():
    pictures = pairs(1, 2, 4)
    truth = np.array([1, 1, 0, 0, 1, 0, 0, 0], bool)
    said = np.array([1, 0, 0, 1, 1, 1, 0, 0], bool)
    # First pair: yes 1, 0 against no 0, 1: 1, 1/2, 1/2, 0. Second: yes 1 against no 1, 0, 0: 1/2, 1, 1.
    assert labels.ordered(truth, said, pictures, np.ones((2, 8))).value == pytest.approx((2 + 2.5) / 7)
    counts = np.ones((1, 8)) * np.repeat([3, 1], 4)  # the first pair drawn three times
    assert labels.ordered(truth, said, pictures, counts).low == pytest.approx((3 * 2 + 2.5) / 15)
    always = np.repeat([True, False], 4)  # a judge that goes by the pair alone
    assert labels.ordered(truth, always, pictures, counts) == pytest.approx((0.5, 0.5, 0.5))


def test_kinds_are_counted_for_each_method():
    words = ["none", "repeat", "none", "style: other", "repeat"]
    found = labels.tally(words, ["x", "x", "x", "y", "y"])
    assert found == {"x": {"none": 2, "repeat": 1}, "y": {"repeat": 1, "style: other": 1}}


@pytest.mark.slow
def test_what_is_compared_is_what_was_counted_by_hand():
    pictures = [picture._replace(method="ab"[i % 2]) for i, picture in enumerate(pairs(2, 2, 2))]
    yes = np.array([1, 1, 0, 0, 1, 0, 0, 0], bool)
    always = np.ones(8, bool)
    kinds = ("none", "none", "subject: parts", "repeat", "none", *["subject: colours"] * 3)
    eye = labels.Labels(yes, always, kinds)
    judge = np.array([1, 0, 1, 0, 1, 0, 0, 1], bool)
    found = labelling.compared(
        pictures, {"eye": eye}, {"judge": {"subject": judge, "style": always, "right": judge}}
    )
    assert found["shares"]["eye"]["right"].value == 3 / 8
    assert found["agreement"]["eye, judge"]["right"]["share"].value == 5 / 8
    assert found["lenient"]["judge"]["right"]["share"].value == 6 / 8  # and with the third picture
    assert found["methods"]["a"]["eye"].value == 2 / 4 and found["methods"]["b"]["judge"].value == 1 / 4
    assert found["accepted"]["subject: colours"] == {
        "pictures": 3,
        "judge": {"subject": 1 / 3, "style": 1.0, "right": 1 / 3},
    }
    assert list(found["accepted"]) == ["none", "subject: colours", "subject: parts", "repeat"]
    assert found["kinds"]["a"] == {"none": 2, "subject: colours": 1, "subject: parts": 1}


def test_a_judge_is_asked_about_each_name_once_and_its_answers_find_their_pictures():
    pictures = [Picture("cat", "oil", "m", 0), Picture("dog", "oil", "m", 0), Picture("cat", "ink", "m", 0)]
    images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1) * np.ones((3, 2, 2, 3), np.uint8)
    asked = []

    def shows(name, seen):
        asked.append(name)
        return seen[:, 0, 0, 0] == {"cat": 2, "dog": 1, "oil": 0, "ink": 2}[name]

    found = labelling.judged(pictures, images, shows)
    assert asked == ["cat", "dog", "oil", "ink"]
    assert found["subject"].tolist() == [False, True, True]
    assert found["style"].tolist() == [True, False, True] and found["right"].tolist() == [False, False, True]


# --- what is recorded ------------------------------------------------------------------------------------


@pytest.mark.parametrize("judge", labelling.JUDGES)
@pytest.mark.parametrize("axis", labels.AXES)
def test_the_record_is_what_labels_and_verdicts_come_to(judge, axis):
    truth, said = getattr(labelling.by_eye(), axis), labelling.said_by_judges()[judge][axis]
    found = recorded("labels")["agreement"][f"eye, {judge}"][axis]
    equal = (truth == said).mean()
    chance = truth.mean() * said.mean() + (1 - truth.mean()) * (1 - said.mean())
    assert found["share"][0] == pytest.approx(equal)
    assert found["kappa"][0] == pytest.approx((equal - chance) / (1 - chance))
    assert found["balanced"][0] == pytest.approx((said[truth].mean() + (1 - said[~truth].mean())) / 2)


def test_every_picture_stands_once_in_the_table_of_methods():
    frame = by_eye.methods_table().data
    pictures, _ = labelling.load()
    eye = labelling.by_eye()
    assert frame["Pictures"].sum() == len(pictures) == 200
    assert frame[["absent", "other", "colours", "parts", "smeared", "other style"]].sum().sum() == (
        200 - eye.right.sum()
    )
    sums = [eye.right[i] for i, picture in enumerate(pictures) if picture.method == "ziplora"]
    (row,) = frame[frame["Method"] == "ZipLoRA"]["Eye"]
    assert row.startswith(f"{np.mean(sums):.0%} (")
