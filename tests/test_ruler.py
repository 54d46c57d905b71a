"""The error ρ, what is done with coefficients, the ladder's pieces, and the training loop of chapter 6."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_objective import CONTENT, STYLE, adapter, answer64, dense_merge
from tiny import tiny_pipeline

from lorarar import Hypernetwork
from lorarar.bookkit import sources
from lorarar.bookkit.chapters.ch07_coefficients import places
from lorarar.hypernet import PARTS, layers_of
from lorarar.lora import LoRA, delta_weight
from lorarar.merging import ziplora
from lorarar.study import coefficients as co
from lorarar.study.ladder import Reader, disjoint, groups, mean_rho
from lorarar.study.predictions import looks, predict
from lorarar.study.ruler import ruler
from lorarar.train import Trained, merging_loss, objective, train_hypernetwork
from lorarar.train.gates import Gated, updates
from lorarar.train.objective import chosen, teach

PAIR = "cat", "oil"


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def sides(pipe):
    return {"cat": Trained(adapter(pipe, 1), *CONTENT), "oil": Trained(adapter(pipe, 2, rank=2), *STYLE)}


@pytest.fixture(scope="module")
def gates(sides):
    """Coefficients for all layers of attention, drawn at random."""
    source = torch.Generator().manual_seed(3)
    return {
        layer: tuple(torch.rand(pair[1].shape[1], generator=source) for _ in PAIR)
        for layer, pair in sides["cat"].lora.items()
    }


@pytest.mark.slow
def test_rho_is_that_of_dense_weights(pipe, sides, gates):
    """The reference: dense merges and answers in double precision, on the ruler's own probes."""
    with ruler(pipe, draws=2, sides=sides) as measure:
        found = measure.rho(PAIR, gates)
        probes = [measure.probes(name) for name in PAIR]
    merges = dense_merge(*(sides[name].lora for name in PAIR), gates, "average"), {}
    errors = [0.0, 0.0]
    for name, batch in zip(PAIR, probes, strict=True):
        alone = {k: delta_weight([x.double() for x in pair]) for k, pair in sides[name].lora.items()}
        teacher = answer64(pipe, alone, batch)
        for i, merge in enumerate(merges):
            errors[i] += float((answer64(pipe, merge, batch) - teacher).square().mean())
    assert found == pytest.approx(errors[0] / errors[1], rel=1e-3)


def test_rho_has_its_two_ends_and_is_the_same_for_a_merged_file(pipe, sides, gates):
    content, style = (sides[name].lora for name in PAIR)
    with ruler(pipe, draws=2, sides=sides) as measure:
        zero = {layer: tuple(torch.zeros_like(m) for m in both) for layer, both in gates.items()}
        assert measure.rho(PAIR, zero) == 1
        one = measure.rho(PAIR, gates)
        assert measure.rho(PAIR, gates) == one
        assert measure.merged(PAIR, ziplora(content, style, gates)).both == pytest.approx(one, rel=1e-4)
    with ruler(pipe, draws=2, sides=sides) as again:
        assert again.rho(PAIR, gates) == one, "probes depend on the names alone"


def test_between_two_measurements_the_unet_is_the_bases_own(pipe, sides, gates):
    """Or what a method sees of the base, such as the inputs of its layers, would be of the last merge."""
    content, style = (sides[name].lora for name in PAIR)
    with ruler(pipe, draws=2, sides=sides) as measure:
        batch = measure.probes("cat")
        base = objective.predict(pipe.unet, batch)
        for measured in (
            lambda: measure.rho(PAIR, gates),
            lambda: measure.merged(PAIR, ziplora(content, style, gates)),
            lambda: measure.alone("cat", style),
        ):
            measured()
            assert torch.equal(objective.predict(pipe.unet, batch), base)


def test_rho_of_one_lora_is_its_side_of_a_merge(pipe, sides):
    own, other = (sides[name].lora for name in PAIR)
    with ruler(pipe, draws=2, sides=sides) as measure:
        assert measure.alone("cat", other) == pytest.approx(measure.merged(PAIR, other).subject, rel=1e-4)
        assert measure.alone("cat", own) == pytest.approx(0, abs=1e-6)
        assert measure.alone("cat", LoRA({})) == pytest.approx(1)


def test_replacements_leave_what_they_are_given(gates, sides):
    before = {layer: tuple(m.clone() for m in both) for layer, both in gates.items()}
    some = list(gates)[:2]
    for found in (co.halve(gates, some), co.layer_means(gates, some), co.one_level(gates, some)):
        assert set(found) == set(gates)
        for layer in gates:
            same = all(torch.equal(*both) for both in zip(found[layer], gates[layer], strict=True))
            assert same == (layer not in some)
    for layer, both in before.items():
        assert all(torch.equal(*pair) for pair in zip(both, gates[layer], strict=True))
    level = co.one_level(gates, some)
    assert float(level[some[0]][0][0]) == pytest.approx(float(torch.cat([gates[k][0] for k in some]).mean()))
    assert torch.equal(co.halve(gates, some)[some[0]][1], torch.full_like(gates[some[0]][1], 0.5))


def test_constants_and_averages(gates, sides):
    lora = sides["cat"].lora
    for rest, value in (("average", 0.5), ("sum", 1.0)):
        predicted = {k: gates[k] for k in layers_of(lora, ("query", "output"))}
        whole = co.complete(lora, predicted, rest)
        assert set(whole) == set(layers_of(lora, PARTS))
        for layer, both in whole.items():
            assert both == predicted.get(layer, both)
            assert layer in predicted or all((m == value).all() for m in both)
    double = {k: tuple(3 * m for m in both) for k, both in gates.items()}
    for layer, both in co.average([gates, double]).items():
        assert torch.allclose(both[1], 2 * gates[layer][1])


def test_the_four_shares_are_found_where_they_were_put():
    draw = np.random.default_rng(0).normal
    layers, pairs = [draw(size=(1, 1)) for _ in range(3)], 5
    for put, make in (
        (0, lambda level: np.broadcast_to(level, (pairs, 7))),
        (1, lambda level: np.tile(np.r_[draw(size=3), 0.0], (pairs, 1))),
    ):
        tables = [make(level) for level in layers]
        found = co.shares(tables)
        assert found.sum() == pytest.approx(np.concatenate([t.ravel() for t in tables]).var())
        assert found[2:] == pytest.approx([0, 0], abs=1e-12)
        assert put == 1 or found[1] == pytest.approx(0, abs=1e-12)
    tables = [draw(size=(pairs, width)) for width in (4, 9)]
    assert co.shares(tables).sum() == pytest.approx(np.concatenate([t.ravel() for t in tables]).var())


def test_the_share_of_the_length():
    levels, widths = {"a": 0.0, "b": 0.0, "c": 1.0}, {"a": 2, "b": 1, "c": 3}
    assert co.share_of_length(levels, widths, {"a": 8, "b": 8, "c": 4}) == pytest.approx(1)
    assert co.share_of_length(levels, widths, {"a": 8, "b": 8, "c": 8}) == pytest.approx(0)


def test_the_energy_that_is_kept(gates, sides):
    lora, layers = sides["cat"].lora, list(gates)[:3]
    dense = [delta_weight(lora[layer]) for layer in layers]
    kept = sum(float((d * gates[k][0]).square().sum()) for d, k in zip(dense, layers, strict=True))
    whole = sum(float(d.square().sum()) for d in dense)
    assert co.energy_kept(lora, gates, 0, layers) == pytest.approx(kept / whole, rel=1e-5)
    half = co.halve(gates, layers)
    assert co.energy_kept(lora, half, 1, layers) == pytest.approx(0.25, rel=1e-5)


def test_between_rows_and_empty_columns():
    assert co.between_rows(np.array([[1.0, 1], [2, 2]])) == 1
    assert co.between_rows(np.array([[1.0, 2], [2, 1]])) == 0
    network = Hypernetwork([8], 4)
    wanted = network(torch.zeros(8)).tolist()
    assert co.empty_answers(network) == {4: pytest.approx(tuple(wanted))}


def test_places_have_names():
    layer = "unet.{}.attentions.1.transformer_blocks.0.{}"
    assert co.block_of(layer.format("up_blocks.2", "attn1.to_q")) == "up 2.1"
    assert co.block_of(layer.format("mid_block", "attn2.to_k")) == "mid"
    assert co.part_of(layer.format("mid_block", "attn2.to_out.0")) == "cross output"
    assert co.part_of(layer.format("mid_block", "attn1.to_v")) == "self value"


def test_a_reader_completes_what_a_network_predicts(pipe, sides):
    lora = sides["cat"].lora
    network = Hypernetwork({2 * len(up) for up, _ in lora.values()}, 8, {"rest": "sum", "parts": "query"})
    with ruler(pipe, draws=1, sides=sides) as measure:
        said = Reader(network, measure)(PAIR)
        assert mean_rho(measure, network, [PAIR, PAIR]) == measure.rho(PAIR, said)
    query = layers_of(lora, ["query"])
    assert all((m == 1).all() for k, both in said.items() if k not in query for m in both)
    taken = groups(lora, ["query"])
    assert taken["everything"] == query and {k for k in taken if " " in k} <= {"self query", "cross query"}


def test_disjoint_pairs():
    pairs = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("c", "z")]
    assert disjoint(pairs, 2) == [("a", "x"), ("b", "y")]
    assert disjoint(pairs, 9) == [("a", "x"), ("b", "y"), ("c", "z")]


def test_the_loop_of_chapter_6_is_the_packages(pipe, sides):
    """The cell is taken from the page: with one draw of each LoRA nothing is left to chance."""
    (page,) = (path for path in sources.chapters() if path.stem == "06_hypernetwork")
    (cell,) = (c.source for c in sources.read_chapter(page).cells if c.source.startswith("def learn("))
    scope = {"torch": torch, "chosen": chosen, "merging_loss": merging_loss, "Gated": Gated}
    scope |= {"pipe": SimpleNamespace(unet=pipe.unet), "draws": 1}
    exec(cell, scope)
    lists = [[sides[name]] for name in PAIR]
    theirs, _ = train_hypernetwork(pipe, *lists, pairs=1, steps=3, draws=1, hidden=8, progress=False)
    torch.manual_seed(0)
    mine = Hypernetwork(theirs.columns, 8)
    with updates(pipe, sides["cat"].lora) as update:
        lessons = {name: teach(pipe, update, sides[name], 1, i * 1_000_003) for i, name in enumerate(PAIR)}
        scope["learn"](mine, [PAIR] * 3, lessons, update, sides)
    for ours, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(ours, other, atol=1e-5)


def test_maps_of_what_the_shipped_network_predicts():
    p = predict("shoebox", [("clock", "oil painting #1")])
    shape = (2, len(p.blocks), len(p.kinds))
    assert p.maps().shape == p.energy().shape == shape and not np.isnan(p.maps()).any()
    assert p.spent(0, p.blocks) == pytest.approx(1) and p.kept(1, p.layers) > 0
    assert all(
        table.shape == (1, len(p.said[p.pairs[0]][k][0]))
        for table, k in zip(p.tables(0), p.layers, strict=True)
    )
    assert looks(p, p.pairs).shape == (2, 3)


def test_the_control_of_chapter_7_computes_what_is_set():
    p = predict("shoebox", [("clock", "oil painting #1"), ("dog #2", "3D rendering #2")])
    live = places(p)
    assert live.widget.children
    before = live.image.value
    assert live.text.value.startswith("up 1.1, cross output: 128 columns")
    live.set(pair="clock + oil painting #1", block="mid", part="self query")
    assert live.image.value != before and live.text.value.startswith("mid, self query: 192 columns")
    mean = float(
        p.said["clock", "oil painting #1"][next(k for k in p.layers if "mid" in k and "attn1.to_q" in k)][
            0
        ].mean()
    )
    assert f"mean {mean:.2f} for the subject" in live.text.value
