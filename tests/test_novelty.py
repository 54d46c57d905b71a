"""How new a LoRA is and what that foretells, against dense updates and errors made to order."""

import numpy as np
import pytest
import torch

from lorarar.lora import LoRA
from lorarar.records import recorded
from lorarar.study import novelty
from lorarar.study.interference import deltas


def adapter(seed, shapes=((6, 4), (5, 7)), rank=2):
    source = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(*shape, generator=source)

    return LoRA({f"layer{i}": (drawn(a, rank), drawn(rank, b)) for i, (a, b) in enumerate(shapes)})


def dense(lora):
    return torch.cat([delta.double().flatten() for delta in deltas(lora).values()])


def test_likeness_is_the_cosine_of_the_dense_updates():
    one, other = adapter(0), adapter(1, rank=3)
    expected = torch.cosine_similarity(dense(one), dense(other), dim=0)
    assert novelty.likeness(one, other) == pytest.approx(float(expected), rel=1e-5)
    assert novelty.size(one) == pytest.approx(float(dense(one).norm()), rel=1e-5)
    twice = LoRA({k: (-2 * up, down) for k, (up, down) in one.items()})
    assert novelty.likeness(one, twice) == pytest.approx(-1, rel=1e-5)
    apart = LoRA({"elsewhere": one["layer0"]})
    assert novelty.likeness(one, apart) == 0


def test_the_nearest_is_the_one_with_the_largest_cosine():
    known = {str(i): adapter(i) for i in range(5)}
    mixed = LoRA({k: (3 * up + 0.1, down) for k, (up, down) in known["3"].items()})
    name, like = novelty.nearest(mixed, known)
    assert name == "3" and 0.9 < like < 1


def test_signs_and_kinship_are_of_the_couples_they_name():
    subjects, styles = {"a": adapter(0), "b": adapter(1)}, {"x": adapter(2), "y": adapter(3), "z": adapter(4)}
    of = novelty.facts(subjects | styles, {"a": adapter(0), "x": adapter(2)})
    assert of["a"]["nearest"] == "a" and of["a"]["likeness"] == pytest.approx(1)
    found = novelty.signs(subjects, styles, of)
    assert {values.shape for values in found.values()} == {(2, 3)}
    assert found["newness of the subject"][0] == pytest.approx(np.zeros(3), abs=1e-6)
    assert found["likeness of the two"][1, 2] == pytest.approx(novelty.likeness(subjects["b"], styles["z"]))
    unequal = abs(np.log(novelty.size(subjects["b"]) / novelty.size(styles["x"])))
    assert found["how unequal the two are"][1, 0] == pytest.approx(unequal)
    kin = novelty.kinship(styles, lambda name: "first" if name < "z" else "last")
    assert kin["one kind"] == [novelty.likeness(styles["x"], styles["y"])] and len(kin["two kinds"]) == 2


@pytest.mark.slow
def test_what_foretells_is_told_from_what_does_not():
    rng = np.random.default_rng(0)
    error = rng.random((12, 8))
    good, chance = novelty.foretold(error**3, error, draws=300), novelty.foretold(rng.random((12, 8)), error)
    assert good.value == pytest.approx(1) and good.low > 0.99
    assert chance.low < 0 < chance.high and abs(chance.value) < 0.3
    # A sign of the style alone that happens to fit eight styles is one of eight, not of 96 pairs.
    by_style = error + 3 * np.arange(8)
    sign = np.tile(np.roll(np.arange(8), 3), (12, 1)).astype(float)
    found = novelty.foretold(sign, by_style, draws=300)
    assert found.high - found.low > 0.8


def test_the_record_is_of_the_contest_it_names():
    found, contest = recorded("novelty"), recorded("strangers")
    assert set(found["of"]) == {*contest["subjects"], *contest["styles"]}
    assert set(found["foretold"]) == set(contest["rows"])
    assert found.provenance["inputs"].keys() == {"data/recorded/strangers.json"}
    assert all(set(row) == set(novelty.SIGNS) for row in found["foretold"].values())


def test_new_subjects_are_held_against_the_others():
    rng = np.random.default_rng(0)
    new = np.arange(12) < 5
    error = 0.5 + 0.01 * rng.standard_normal((12, 8)) + 0.1 * rng.standard_normal(8)  # styles differ
    level = novelty.contrast(error, new, draws=400)  # styles are drawn for both, and cancel
    assert level.low < 0 < level.high and level.high - level.low < 0.05
    worse = novelty.contrast(error + 0.2 * new[:, None], new, draws=400)
    assert worse.value == pytest.approx(level.value + 0.2) and worse.low == pytest.approx(level.low + 0.2)
