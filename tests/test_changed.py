"""Individuals and styles with one thing changed: only that one, so that it is seen, and as an examination."""

import dataclasses
from dataclasses import fields

import numpy as np
import pytest

from lorarar.shoebox.models import hardest
from lorarar.shoebox.models.examination import Case
from lorarar.shoebox.world import attributes, changed, styles, subjects, world
from lorarar.shoebox.world.scene import Pose


def unlike(one, two) -> set[str]:
    return {f.name for f in fields(one) if getattr(one, f.name) != getattr(two, f.name)}


@pytest.mark.parametrize("attribute", changed.ATTRIBUTES)
def test_one_attribute_changes_and_is_seen(attribute):
    rng = np.random.default_rng(0)
    for name in ("dog #8", "cat #2", "bear plushie"):
        before = subjects.SUBJECTS[name]
        after, said = changed.individual(rng, before, attribute)
        assert said == attribute
        field = {"marking": "marking", "part": "shape"}.get(attribute, "colours")
        assert unlike(before, after) == {field}
        if field != "marking":
            places = [p != q for p, q in zip(getattr(before, field), getattr(after, field), strict=True)]
            assert sum(places) == 1
            assert places.index(True) == {"second colour": 1, "accent colour": 2}.get(
                attribute, places.index(True)
            )
        assert changed.visible(before, after) >= changed.SEEN


def test_what_is_not_seen_is_no_change():
    bare = subjects._named("dog", "brown white red", "plain", 0.1, 0.9, 0.3, 0.8, 0.1, 0.0, 0.6, 0.5)
    assert changed.visible(bare, bare) == 0  # and without a collar its colour changes nothing
    with pytest.raises(ValueError, match="no accent colour can be seen on this dog"):
        changed.individual(np.random.default_rng(0), bare, "accent colour")
    with pytest.raises(ValueError, match="no attribute 'tail'"):
        changed.individual(np.random.default_rng(0), bare, "tail")


def test_a_change_is_seen_in_the_style_it_is_drawn_in():
    rng = np.random.default_rng(0)
    wood, named = styles.STYLES["wooden sculpture"], subjects.SUBJECTS["robot toy"]
    red = dataclasses.replace(named, colours=("teal", "white", "red"))  # no colour is left in wood
    assert changed.visible(named, red) >= changed.SEEN
    assert changed.visible_in(named, red, wood) < changed.DRAWN
    for _ in range(3):
        other, _ = changed.individual(rng, named, drawn=wood)
        assert changed.visible_in(named, other, wood) >= changed.DRAWN


def test_one_parameter_of_a_style_changes_and_is_seen():
    rng = np.random.default_rng(1)
    before = styles.STYLES["oil painting #1"]
    for parameter, field in zip(changed.PARAMETERS, ("knobs", "hues", "treatment"), strict=True):
        after, said = changed.style(rng, before, parameter)
        assert said == parameter
        assert unlike(before, after) == {field}
        if field == "knobs":
            moved = np.abs(np.subtract(before.knobs, after.knobs))
            assert (moved > 0).sum() == 1
            assert moved.max() >= 0.4
        pictures = [
            world.draw(subjects.SUBJECTS["bear plushie"], s, np.random.default_rng(0), Pose()).astype(float)
            for s in (before, after)
        ]
        assert np.abs(pictures[0] - pictures[1]).mean() > 1
    with pytest.raises(ValueError, match="no parameter 'mood'"):
        changed.style(rng, before, "mood")


def test_a_group_is_laid_out_as_the_worlds():
    images, truths, said = changed.draw_group(3, 5)
    again, _, _ = changed.draw_group(3, 5)
    np.testing.assert_array_equal(images, again)
    _, _, ordinary = world.draw_group(3, 5)
    ordinary = np.array(ordinary)
    np.testing.assert_array_equal(truths[:, 2:], ordinary[:, 2:])  # the same ids in the same places
    assert len(set(truths[:, 0])) == 1  # one class
    apart = said[0] != said[4]  # another individual in the other style
    assert apart[:12].sum() == apart[12:].sum() == 1


def test_mixed_groups_have_ids_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, truths, said = changed.mixed(4, 0, 0.5)
    assert len(images) == len(truths) == len(said) == 24
    plain, _, _ = world.dataset(2, 0)
    more, _, names = changed.dataset(2, 0)
    np.testing.assert_array_equal(said, np.concatenate([attributes.of_groups(2, 0), names]))
    np.testing.assert_array_equal(images[np.array([20, 3, 12])], np.stack([more[8], plain[3], more[0]]))
    for column in (2, 3):
        assert not set(truths[:12, column]) & set(truths[12:, column])
    same, labels, _ = changed.mixed(4, 0, 0.0)
    wanted = world.dataset(4, 0)
    np.testing.assert_array_equal(same, wanted[0])
    np.testing.assert_array_equal(labels, wanted[2])
    with pytest.raises(ValueError, match="share of changed groups"):
        changed.mixed(4, 0, 1.0)


@pytest.mark.slow
def test_the_examination_counts_what_is_wrongly_accepted():
    drawn = hardest.cases(each=1)
    subject = [e for e in drawn if e.case.axis == "subject"]
    assert [e.case.name for e in subject] == list(subjects.SUBJECTS)
    assert all(e.changes[0] == "" and e.changes[1] for e in drawn)
    blind = hardest.measure(lambda case: np.ones(len(case.yes), bool), drawn)
    sure = hardest.measure(lambda case: case.yes, drawn)
    for axis in ("subject", "style"):
        assert blind[axis]["balanced accuracy"] == 0.5
        assert sure[axis]["balanced accuracy"] == 1.0
        for facts, share in ((blind, 1.0), (sure, 0.0)):
            by = facts[axis]["wrongly accepted, by what was changed"]
            assert {v["share"] for v in by.values()} == {share}
        counted = sum(v["images"] for v in by.values())
        assert counted == sum((~e.case.yes).sum() for e in drawn if e.case.axis == axis)
    assert isinstance(drawn[0].case, Case)


def test_strangers_are_no_named_ones_and_shown_changed_and_with_others():
    drawn = hardest.strangers(1, seed=4, each=2)
    assert [e.case.axis for e in drawn] == ["subject", "style"]
    for examined in drawn:
        assert examined.case.yes.tolist() == [True, True, False, False, False, False]
        assert examined.changes[:2] == ("", "") and examined.changes[4:] == (hardest.ANOTHER,) * 2
        assert all(change in (*changed.ATTRIBUTES, *changed.PARAMETERS) for change in examined.changes[2:4])
        assert len(examined.case.images) == 6
    assert [len(e.case.references) for e in drawn] == [5, 4]


def test_verdicts_are_remembered(tmp_path):
    drawn = world.subject_images("dog #2", count=2)
    case = Case("subject", "dog #2", drawn, drawn, np.array([True, False]), "")
    asked = []

    def verdict(case: Case) -> np.ndarray:
        asked.append(case.name)
        return case.yes

    for _ in range(2):  # a new start each time
        found = hardest.remembered(verdict, tmp_path / "runs" / "changed.json")(case)
        np.testing.assert_array_equal(found, case.yes)
    assert asked == [case.name]
