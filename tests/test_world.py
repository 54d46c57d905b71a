"""The drawn world against the names of Table A1, its own truth, and itself in another process."""

import hashlib
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lorarar.shoebox.world import styles, subjects, world
from lorarar.shoebox.world.drawing import MARKINGS
from lorarar.shoebox.world.scene import CANVAS, COLOUR_NAMES, SIZE, Pose, reduce
from lorarar.shoebox.world.styles import FAMILIES, STYLES, TREATMENTS, random_style
from lorarar.shoebox.world.subjects import CLASSES, SUBJECTS, random_identity, random_pose, too_close

# Table A1 of LoRA.rar, as printed, and the additions of its section A2.5.
CONTENTS = {
    "train": "backpack, backpack dog, berry bowl, candle, cat #1, colorful sneaker, dog #1, dog #5, dog #6, "
    "dog #7, duck toy, fancy boot, grey sloth plushie, monster toy, pink sunglasses, poop emoji, rc car, red "
    "cartoon, robot toy, shiny sneaker, vase",
    "validation": "dog #2, dog #3, clock, bear plushie",
    "test": "dog #8, cat #2, wolf plushie, teapot, can",
    "generalisation": "toaster, tv, sofa",
}
STYLE_NAMES = {
    "train": "3D rendering #1, 3D rendering #3, abstract rainbow, black statue, cartoon line drawing, "
    "flat cartoon illustration #1, glowing 3D rendering, kid crayon drawing, line drawing, "
    "melting golden rendering, oil painting #3, sticker, watercolor painting #2, "
    "watercolor painting #4, watercolor painting #5, watercolor painting #6, "
    "watercolor painting #7, wooden sculpture",
    "validation": "3D rendering #2, oil painting #1, watercolor painting #1",
    "test": "3D rendering #4, oil painting #2, watercolor painting #3, flat cartoon illustration #2, glowing",
    "generalisation": "cyberpunk",
}
WHOLE_NAMES = {  # where the word of a prompt is not the last word of the name
    "backpack dog": "backpack",
    "duck toy": "duck toy",
    "monster toy": "monster toy",
    "poop emoji": "poop emoji",
    "rc car": "rc car",
    "robot toy": "robot toy",
}
PINNED = {
    "3D rendering #2": (192.2, 146.5, 147.2),
    "oil painting #1": (102.8, 113.8, 132.3),
    "watercolor painting #1": (198.4, 208.4, 205.1),
    "sticker": (141.7, 173.1, 172.3),
    "line drawing": (220.1, 218.2, 215.8),
    "melting golden rendering": (84.9, 69.2, 32.1),
}
PHOTO = random_style(np.random.default_rng(0), "photo")


def test_the_names_and_the_split_are_those_of_table_a1():
    for table, module, named in ((CONTENTS, subjects, SUBJECTS), (STYLE_NAMES, styles, STYLES)):
        printed = {split: set(names.split(", ")) for split, names in table.items()}
        assert {split: set(names) for split, names in module.SPLIT.items()} == printed
        assert set(named) == set().union(*printed.values())
        assert sum(map(len, module.SPLIT.values())) == len(named)  # each name once
    assert len(SUBJECTS) == 30 + 3
    assert len(STYLES) == 26 + 1


def test_prompts_name_the_class_and_the_family():
    for name in SUBJECTS:
        bare = name.split(" #")[0]
        assert SUBJECTS[name].cls == WHOLE_NAMES.get(name, bare.split()[-1])
    for name in STYLES:
        assert styles.family(name) == name.split(" #")[0]
    assert {identity.cls for identity in SUBJECTS.values()} == set(CLASSES)
    assert {styles.family(name) for name in STYLES} | {"photo"} == set(FAMILIES)


def test_unknown_names_get_one_clear_line():
    rng = np.random.default_rng(0)
    for ask in (
        lambda: styles.family("3D rendering"),
        lambda: random_identity(rng, "dog #1"),
        lambda: random_style(rng, "cubism"),
    ):
        with pytest.raises(ValueError, match="there are: ") as error:
            ask()
        assert "\n" not in str(error.value)


def test_every_named_subject_and_style_draws():
    rng = np.random.default_rng(1)
    dog = random_identity(rng, "dog")
    pictures = [world.draw(identity, PHOTO, rng) for identity in SUBJECTS.values()]
    pictures += [world.draw(dog, style, rng) for style in STYLES.values()]
    for picture in pictures:
        assert picture.shape == (SIZE, SIZE, 3)
        assert picture.dtype == np.uint8
        assert picture.std() > 15  # something is to be seen


@pytest.mark.slow
def test_all_treatments_of_all_families_stay_in_range():
    rng = np.random.default_rng(2)
    scene = subjects.scene(random_identity(rng, "teapot"), random_pose(rng))
    for family in FAMILIES:
        for treatment in range(TREATMENTS[family]):
            style = replace(random_style(rng, family), treatment=treatment)
            painted = styles.paint(scene, style, rng)
            assert painted.shape == (CANVAS, CANVAS, 3)
            assert painted.dtype == np.float32
            assert np.isfinite(painted).all()
            assert painted.min() >= 0
            assert painted.max() <= 1


def test_reduction_is_the_mean_of_four():
    picture = np.random.default_rng(3).random((CANVAS, CANVAS, 3))
    mean = (picture[::2, ::2] + picture[1::2, ::2] + picture[::2, 1::2] + picture[1::2, 1::2]) / 4
    assert np.abs(reduce(picture) - mean * 255).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("cls", CLASSES)
def test_no_subject_is_cut_by_the_border_or_lost(cls):
    rng = np.random.default_rng([4, CLASSES.index(cls)])
    identities = [random_identity(rng, cls) for _ in range(8)]
    for identity in identities + [i for i in SUBJECTS.values() if i.cls == cls]:
        poses = [random_pose(rng) for _ in range(2)]
        poses += [replace(poses[0], limb=(side,) * 4) for side in (-1.0, 1.0)]
        for pose in poses:
            outline = np.concatenate([part.polygon for part in subjects.parts(identity, pose)])
            turned = (outline[:, 0] + 1j * outline[:, 1]) * np.exp(1j * pose.angle)
            placed = turned * pose.scale * 0.46 + (1 + pose.x) / 2 + 1j * (1 + pose.y) / 2  # in sides
            assert min(placed.real.min(), placed.imag.min()) > 0
            assert max(placed.real.max(), placed.imag.max()) < 1
            mask = subjects.scene(identity, pose).mask
            edge = mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()
            assert edge <= 12  # rounding may reach the last of the 128 pixels, on a tip
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert max(np.ptp(rows), np.ptp(columns)) > 0.75 * CANVAS


def test_an_identity_keeps_its_colours_from_view_to_view():
    rng = np.random.default_rng(5)
    for identity in SUBJECTS.values():
        one, two = (subjects.scene(identity, random_pose(rng)) for _ in range(2))
        np.testing.assert_array_equal(one.palette, two.palette)
        shares = [np.bincount(view.slot[view.mask], minlength=11) / view.mask.sum() for view in (one, two)]
        assert np.abs(shares[0] - shares[1]).max() < 0.06


# --- determinism


def test_the_drawings_are_those_of_any_machine():
    """Mean colours as they were measured; the tolerance is for other versions of the libraries."""
    dog = SUBJECTS["dog #2"]
    for name, colour in PINNED.items():
        picture = world.draw(dog, STYLES[name], np.random.default_rng(6), Pose())
        np.testing.assert_allclose(picture.mean((0, 1)), colour, atol=4)


def test_a_fresh_process_draws_the_same():
    images, captions, truths = world.draw_group(7, 3)
    code = (
        "from lorarar.shoebox.world import world; import hashlib\n"
        "i, c, t = world.draw_group(7, 3)\n"
        "print(hashlib.sha256(i.tobytes()).hexdigest(), c, [tuple(x) for x in t], sep='\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    pixels = hashlib.sha256(images.tobytes()).hexdigest()
    assert done.stdout.splitlines() == [pixels, str(captions), str([tuple(truth) for truth in truths])]


def test_another_world_needs_another_name():
    """Models and caches name the world they know by `world.VERSION`; what it draws must stay as it was."""
    assert world.VERSION == "0f561cb16435"
    before = np.load(Path(__file__).parent / "drawings.npy")  # means of 4 × 4 fields of an image
    images = np.concatenate([world.draw_group(19, index)[0] for index in range(24)])
    fields = images.reshape(len(images), 4, SIZE // 4, 4, SIZE // 4, 3).mean((2, 4))
    np.testing.assert_allclose(fields, before, atol=1)


def test_seed_and_index_both_matter():
    first = world.draw_group(7, 3)[0]
    np.testing.assert_array_equal(first, world.draw_group(7, 3)[0])
    assert (first != world.draw_group(7, 4)[0]).any()
    assert (first != world.draw_group(8, 3)[0]).any()


# --- what is kept unseen


@pytest.mark.parametrize("cls", CLASSES)
def test_random_identities_keep_away_from_the_named(cls):
    rng = np.random.default_rng([8, CLASSES.index(cls)])
    named = [i for i in SUBJECTS.values() if i.cls == cls]
    for drawn in (random_identity(rng, cls) for _ in range(40)):
        assert drawn.cls == cls
        assert drawn.marking in MARKINGS
        assert set(drawn.colours) <= set(COLOUR_NAMES)
        for other in named:
            dress = [
                a == b
                for a, b in zip((*drawn.colours, drawn.marking), (*other.colours, other.marking), strict=True)
            ]
            shape = math.sqrt(sum((a - b) ** 2 for a, b in zip(drawn.shape, other.shape, strict=True)) / 8)
            assert not all(dress)
            weights = (0.5, 0.3, 0.2, 0.3)
            assert sum(w for w, alike in zip(weights, dress, strict=True) if not alike) + shape >= 0.6


def test_near_duplicates_are_too_close():
    for named in SUBJECTS.values():
        nudged = tuple(min(1.0, value + 0.03) for value in named.shape)
        accent = next(c for c in COLOUR_NAMES if c not in named.colours)
        main, second, third = named.colours
        assert too_close(named, named)
        assert too_close(replace(named, shape=nudged, tint=((5.0, -5.0, 5.0),) * 3), named)
        assert too_close(replace(named, shape=tuple(1 - v for v in named.shape)), named)  # the same dress
        assert too_close(replace(named, shape=nudged, colours=(main, second, accent)), named)
        assert not too_close(replace(named, shape=nudged, colours=(third, main, second)), named)
        assert not too_close(replace(named, cls="dog" if named.cls != "dog" else "cat"), named)


def test_what_comes_too_close_is_drawn_again(monkeypatch):
    met = random_identity(np.random.default_rng(9), "dog")
    monkeypatch.setattr(subjects, "SUBJECTS", {**SUBJECTS, "met": met})
    again = random_identity(np.random.default_rng(9), "dog")
    assert again != met
    assert not too_close(again, met)
    seen = random_style(np.random.default_rng(9), "sticker")
    monkeypatch.setattr(styles, "STYLES", {**STYLES, "seen": seen})
    other = random_style(np.random.default_rng(9), "sticker")
    assert other != seen
    assert styles.distance(other, seen) >= styles.NEAR


def test_random_styles_keep_away_from_the_named():
    rng = np.random.default_rng(10)
    for family in FAMILIES:
        named = [style for style in STYLES.values() if style.family == family]
        for drawn in (random_style(rng, family) for _ in range(60)):
            assert drawn.family == family
            assert 0 <= drawn.treatment < TREATMENTS[family]
            for other in named:
                knobs = sum(abs(a - b) for a, b in zip(drawn.knobs, other.knobs, strict=True)) / 8
                more = 0.2 * (drawn.treatment != other.treatment) + 0.1 * (drawn.hues[0] != other.hues[0])
                assert knobs + more >= 0.22 - 1e-9


def test_named_individuals_are_told_apart():
    for a, one in SUBJECTS.items():
        for b, two in SUBJECTS.items():
            assert a == b or not too_close(one, two), (a, b)
    for a, first in STYLES.items():
        for b, second in STYLES.items():
            assert a == b or styles.distance(first, second) >= styles.NEAR, (a, b)


# --- captions


def test_captions_speak_as_prompts_do():
    rng = np.random.default_rng(11)
    rare = 0
    for _ in range(400):
        identity = random_identity(rng, str(rng.choice(CLASSES)))
        style = random_style(rng, str(rng.choice(FAMILIES)))
        caption = world.caption(identity, style, rng)
        if style.family == "photo":
            subject = re.fullmatch(r"(?:a photo of )?(an? .+)", caption)[1]
        else:
            subject = re.fullmatch(rf"(an? .+) in {style.family} style", caption)[1]
        article, rest = subject.split(" ", 1)
        assert article == ("an" if rest[0] in "aeiou" else "a")
        assert rest.endswith(identity.cls)
        described = rest.removesuffix(identity.cls).split()
        if described and described[0] in world.RARE_TOKENS:
            rare += 1
            described = described[1:]
        main, second, accent = identity.colours
        allowed = [[], [main], [main, "and", second], [main, "and", accent]]
        if identity.marking != "plain":
            allowed = [[], [main, "and", second, identity.marking]]
        assert described in allowed
    assert 5 <= rare <= 45  # one in twenty of 400


def test_caption_colours_are_to_be_seen():
    rng = np.random.default_rng(12)
    for _ in range(60):
        identity = random_identity(rng, str(rng.choice(CLASSES)))
        slots = subjects.scene(identity, Pose()).slot
        for colour in set(subjects.words(identity).split()) & set(identity.colours):
            slot = 1 + identity.colours.index(colour)
            assert (slots == slot).sum() > 0.02 * (slots > 0).sum(), (identity, colour)


# --- groups


def test_a_group_differs_in_one_thing_at_a_time(monkeypatch):
    drawn = []

    def watch(identity, style, rng, pose=None):
        drawn.append((identity, style))
        return np.zeros((SIZE, SIZE, 3), np.uint8)

    monkeypatch.setattr(world, "draw", watch)
    same_class = ids = 0
    for index in range(60):
        drawn.clear()
        images, captions, truths = world.draw_group(13, index)
        assert len(images) == len(captions) == len(truths) == len(drawn) == world.GROUP == 6
        first, second = drawn[0][0], drawn[3][0]
        assert [identity for identity, _ in drawn] == [first] * 3 + [second] * 3
        assert first != second
        assert drawn[0][1] == drawn[3][1] != drawn[1][1] == drawn[4][1]  # both in both styles
        assert drawn[0][1].family == drawn[1][1].family
        assert drawn[2][1].family == drawn[5][1].family == "photo"
        assert drawn[2][1] != drawn[5][1]
        for (identity, style), truth in zip(drawn, truths, strict=True):
            assert CLASSES[truth.cls] == identity.cls
            assert FAMILIES[truth.family] == style.family
        for a in range(6):
            for b in range(6):
                assert (truths[a].identity == truths[b].identity) == (drawn[a][0] == drawn[b][0])
                assert (truths[a].style == truths[b].style) == (drawn[a][1] == drawn[b][1])
        assert all(len(pair) == 2 for pair in captions)
        same_class += first.cls == second.cls
        ids += len({t.identity for t in truths}) + len({t.style for t in truths})
        assert {t.identity for t in truths} == {2 * index, 2 * index + 1}  # of this group alone
        assert {t.style // 4 for t in truths} == {index}
    assert 18 <= same_class <= 45  # half of them, and a few by chance
    assert ids == 60 * (2 + 4)


# --- the cache


def test_a_dataset_is_its_groups_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(world, "CHUNK", 3)  # more than one
    images, captions, truths = world.dataset(5, 14, cache=tmp_path, workers=1)
    assert images.shape == (5 * 6, SIZE, SIZE, 3)
    assert truths.shape == (5 * 6, 4)
    for index in (0, 2, 3, 4):
        at = slice(index * 6, index * 6 + 6)
        group = world.draw_group(14, index)
        np.testing.assert_array_equal(images[at], group[0])
        assert captions[at] == group[1]
        assert [tuple(row) for row in truths[at]] == group[2]


def test_a_drawn_dataset_is_read_back(tmp_path, monkeypatch):
    first = world.dataset(1, 15, cache=tmp_path, workers=1)
    monkeypatch.setattr(world, "draw_group", None)
    again = world.dataset(1, 15, cache=tmp_path, workers=1)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]
    np.testing.assert_array_equal(first[2], again[2])
    assert [p.name for p in tmp_path.iterdir()] == [f"{world.VERSION}-15-1"]


@pytest.fixture
def killed(tmp_path, monkeypatch):
    """A cache whose only dataset was killed while it was written."""

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(world.np, "save", kill)
        with pytest.raises(KeyboardInterrupt):
            world.dataset(1, 16, cache=tmp_path, workers=1)
    assert list(tmp_path.glob("*/images.npy"))  # half of it is there
    return tmp_path


def test_a_half_written_dataset_is_not_taken_for_whole(killed, monkeypatch):
    monkeypatch.setattr(world.os, "getpid", lambda: 12345)  # the next run is another process
    images, _, truths = world.dataset(1, 16, cache=killed, workers=1)
    np.testing.assert_array_equal(images, world.draw_group(16, 0)[0])
    assert len(truths) == 6


def test_another_world_is_another_dataset(tmp_path, monkeypatch):
    world.dataset(1, 17, cache=tmp_path, workers=1)
    monkeypatch.setattr(world, "VERSION", "0" * 12)
    world.dataset(1, 17, cache=tmp_path, workers=1)
    assert len(list(tmp_path.iterdir())) == 2


def test_drawing_resumes_in_the_process_that_was_interrupted(killed):
    images, _, _ = world.dataset(1, 16, cache=killed, workers=1)
    assert len(images) == 6


# --- reference images and sheets


def test_reference_images_are_those_of_their_name():
    views = world.subject_images("cat #1", count=3)
    assert views.shape == (3, SIZE, SIZE, 3)
    assert len({view.tobytes() for view in views}) == 3
    np.testing.assert_array_equal(views, world.subject_images("cat #1", count=3))
    np.testing.assert_array_equal(views[:2], world.subject_images("cat #1", count=2))
    assert (views != world.subject_images("cat #1", count=3, seed=1)).any()
    assert (views != world.subject_images("cat #2", count=3)).any()
    drawings, classes = world.style_images("sticker", count=4)
    assert drawings.shape == (4, SIZE, SIZE, 3)
    assert len(set(classes)) == 4
    assert set(classes) <= set(CLASSES)


def test_a_sheet_has_every_image_in_its_place():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] + np.zeros((5, 4, 4, 3), np.uint8)
    sheet = world.sheet(images, columns=3, enlarge=2, gap=1)
    assert sheet.shape == (2 * 9 - 1, 3 * 9 - 1, 3)
    for k in range(5):
        y, x = divmod(k, 3)
        assert (sheet[y * 9 : y * 9 + 8, x * 9 : x * 9 + 8] == k).all()
    assert (sheet[8] == 255).all()  # the gap
    assert (sheet[9:, 18:] == 255).all()  # no sixth image
