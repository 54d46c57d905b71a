"""The critic that names attributes: its labels, its heads and how it compares, against hand computations."""

import itertools
import math

import numpy as np
import pytest
import torch

from lorarar.shoebox.models import critic_training, hardest
from lorarar.shoebox.models.critic import Critic, Namer
from lorarar.shoebox.models.critic_training import accepted, threshold, train_namer
from lorarar.shoebox.models.examination import Case
from lorarar.shoebox.models.loop import Recipe
from lorarar.shoebox.models.naming import Names, Said, likeness
from lorarar.shoebox.world import attributes, styles, subjects, world
from lorarar.shoebox.world.drawing import MARKINGS
from lorarar.shoebox.world.scene import COLOUR_NAMES, SIZE

NOISE = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)


# --- what there is to say
def test_attributes_say_what_an_identity_and_a_style_are():
    named = attributes.of_identity(subjects.SUBJECTS["cat #1"])
    assert [COLOUR_NAMES[k] for k in named[:3]] == ["orange", "white", "blue"]
    assert MARKINGS[named[3]] == "striped"
    assert named[4:] == [4, 8, 7, 3, 9, 3, 7, 2]  # 0.4, 0.8, 0.7, 0.35, 0.9, 0.3, 0.7, 0.2
    look = attributes.of_style(styles.STYLES["cyberpunk"])
    assert (look[0], [COLOUR_NAMES[k] for k in look[1:4]]) == (0, ["purple", "pink", "teal"])
    assert look[4:] == [5, 5, 5, 7, 5, 5, 5, 3]
    for said, sizes in ((named, attributes.SUBJECT), (look, attributes.STYLE)):
        assert all(0 <= value < size for value, size in zip(said, sizes, strict=True))


def test_attributes_of_groups_are_of_who_was_drawn(monkeypatch):
    shown = []

    def draw(identity, style, rng):
        shown.append((identity, style))
        return np.zeros((SIZE, SIZE, 3), np.uint8)

    monkeypatch.setattr(world, "draw", draw)
    for index in range(3):
        world.draw_group(2, index)
    said = attributes.of_groups(3, 2)
    assert said.shape == (18, 24)
    for row, (identity, style) in zip(said, shown, strict=True):
        assert row[:12].tolist() == attributes.of_identity(identity)
        photo = style.family == "photo" and not row[12:].any()
        assert photo or row[12:].tolist() == attributes.of_style(style)


def test_portraits_are_drawn_once_and_said_rightly(tmp_path, monkeypatch):
    drawn = attributes.portraits(3, 5, cache=tmp_path, workers=1)
    assert drawn.images.shape == (3, SIZE, SIZE, 3)
    assert (drawn.kinds.shape, drawn.subject.shape, drawn.style.shape) == ((3, 2), (3, 12), (3, 12))
    image, said = attributes.portrait(5, 1)
    np.testing.assert_array_equal(drawn.images[1], image)
    assert said == [*drawn.kinds[1], *drawn.subject[1], *drawn.style[1]]
    monkeypatch.setattr(attributes, "portrait", None)  # read back
    np.testing.assert_array_equal(attributes.portraits(3, 5, cache=tmp_path).images, drawn.images)


# --- heads and comparison
def names(kinds=3, sizes=(2, 4), features=6):
    torch.manual_seed(1)
    head = Names(features, kinds, sizes, hidden=8)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    return head


def test_losses_are_of_the_values_under_the_true_kind():
    head, seen = names(), torch.randn(5, 6)
    kind, values = torch.tensor([0, 2, 1, 1, 0]), torch.tensor([[0, 3], [1, 2], [1, 0], [0, 0], [1, 1]])
    said = head(seen)
    of_kind, of_values = head.losses(said, kind, values)
    by_hand = [0.0, 0.0]
    for row in range(5):
        by_hand[0] -= said.kind[row].softmax(0)[kind[row]].log().item() / 5
        under = said.values[row, kind[row]]
        for part, value in ((under[:2], values[row, 0]), (under[2:], values[row, 1])):
            by_hand[1] -= part.softmax(0)[value].log().item() / 5
    assert [of_kind.item(), of_values.item()] == pytest.approx(by_hand, rel=1e-5)


def test_evidence_is_that_of_bayes_with_references_as_views_of_one_thing():
    head = names()
    torch.manual_seed(2)
    references = Said(torch.tensor([[9.0, 0, 0], [8.0, 1, 0]]), torch.randn(2, 3, 6))
    images = Said(torch.randn(4, 3), torch.randn(4, 3, 6))
    found = head.evidence(references, images)
    assert found.shape == (4, 3)
    for k, part in enumerate((slice(0, 2), slice(2, 6)), 1):
        views, shown = references.values[:, 0, part].softmax(1), images.values[:, 0, part].softmax(1)
        together = views.prod(0) / views.prod(0).sum()  # posterior of two views, all values as common
        size = views.shape[1]
        for n in range(4):
            pairs = itertools.product(range(size), repeat=2)
            same = sum(together[a] * shown[n, b] for a, b in pairs if a == b)
            assert found[n, k].item() == pytest.approx(math.log(same * size), rel=1e-4, abs=1e-5)


def test_what_cannot_be_seen_says_nothing_and_one_change_outweighs_the_rest():
    head = names(kinds=2, sizes=(3, 3))
    sure, flat = torch.tensor([20.0, 0, 0]), torch.zeros(3)
    values = [[sure, sure], [sure, flat], [sure, sure.roll(1)]]  # alike; one hidden; one changed
    images = Said(
        torch.tensor([[20.0, 0]] * 3), torch.stack([torch.cat(v) for v in values])[:, None].repeat(1, 2, 1)
    )
    references = Said(images.kind[:1], images.values[:1])
    found = head.evidence(references, images)
    np.testing.assert_allclose(found[:2], np.log([[2, 3, 3], [2, 3, 1]]), atol=1e-4)
    alike = likeness(found)
    assert alike[0] > alike[1] > 0 > -10 > alike[2]
    assert alike[1].item() == pytest.approx(math.log(3 / (1 / 2 + 1 / 3 + 1)), abs=1e-4)


# --- the critic
def test_a_namer_is_read_back_and_sees_as_the_critic_it_began_from(tmp_path):
    torch.manual_seed(3)
    before, model = Critic(width=8, embedding=8).eval(), Namer(width=8)
    model.begin_from(before)
    pixels = torch.rand(2, 3, SIZE, SIZE)
    torch.testing.assert_close(model.see(pixels)[0], before.see(pixels)[0])
    model.subject_threshold.fill_(-0.3)
    model.save(tmp_path)
    again = Critic.load(tmp_path)
    assert isinstance(again, Namer) and not again.training
    assert float(again.subject_threshold) == pytest.approx(-0.3)
    for first, second in zip(model.look(NOISE, batch=2), again.look(NOISE), strict=True):
        torch.testing.assert_close(first, second, atol=2e-2, rtol=0)  # weights in half precision
    cls, family, subject, style = again.look(NOISE)
    assert cls.shape == (5, len(subjects.CLASSES)) and family.shape == (5, len(styles.FAMILIES))
    assert subject.shape[1:] == (len(subjects.CLASSES), sum(attributes.SUBJECT))
    assert style.shape[1:] == (len(styles.FAMILIES), sum(attributes.STYLE))


@pytest.mark.parametrize("axis", ["subject", "style"])
def test_same_is_more_alike_than_the_threshold(axis):
    torch.manual_seed(4)
    model = Namer(width=8).eval()
    alike = likeness(model.evidence(axis, NOISE[:2], NOISE))
    getattr(model, f"{axis}_threshold").fill_(float(alike.median()))
    assert model.same(axis, NOISE[:2], NOISE).tolist() == (alike > alike.median()).tolist()


def case(changes: list[str]) -> hardest.Examined:
    nothing = np.zeros((0, SIZE, SIZE, 3), np.uint8)
    yes = np.array([not change for change in changes])
    return hardest.Examined(Case("subject", "x", nothing, nothing, yes, ""), tuple(changes))


def test_the_threshold_weighs_changed_ones_and_others_alike():
    drawn = [case(["", "", "part", hardest.ANOTHER]), case(["", "", *["part"] * 5])]
    alike = [np.array([3.0, 2.0, 2.5, -9.0]), np.array([4.0, 1.5, *[0.0] * 5])]
    chosen = threshold(alike, drawn)
    assert 0 <= chosen < 1.5  # all of the same, five of six changed and no other
    said = np.concatenate(alike) > chosen
    assert accepted(said, drawn) == {
        "the same": 1.0,
        "changed": pytest.approx(1 / 6, abs=1e-4),
        "another": 0.0,
    }


def test_restaging_moves_a_picture_a_little():
    torch.manual_seed(5)
    ramp = torch.linspace(-1, 1, SIZE).expand(8, 3, SIZE, SIZE)
    moved = critic_training.restage(ramp)
    assert moved.shape == ramp.shape
    inside = (slice(None), slice(None), slice(16, 48), slice(16, 48))
    apart = (moved - ramp)[inside].abs()
    assert 0.005 < apart.mean() < 0.15 and apart.max() < 0.4
    assert len({round(float(m), 4) for m in moved[inside].mean((1, 2, 3))}) == 8  # each its own way


@pytest.mark.slow
def test_a_namer_is_trained_chosen_and_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(critic_training, "STRANGERS", 1)
    monkeypatch.setattr(critic_training, "NAMED", 4)
    Critic(width=32, embedding=8).save(tmp_path / "old")
    recipe = Recipe(2, 4, 1e-3, warmup=1)
    facts = train_namer(tmp_path / "out", tmp_path / "run", recipe, 0, "cpu", 8, tmp_path / "old")
    assert set(facts["test"]["style"]) == {"the same", "changed", "another"}
    assert (
        f"--init {tmp_path / 'old'} --portraits 8" in (tmp_path / "out" / "critic" / "README.md").read_text()
    )
    assert isinstance(Critic.load(tmp_path / "out" / "critic"), Namer)
