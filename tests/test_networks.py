"""Recipes of networks and their rivals, tables of mean coefficients, and the commands that make them."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from test_objective import CONTENT, STYLE, adapter
from tiny import tiny_pipeline

from lorarar.hypernet import Hypernetwork, Invariants, load_network
from lorarar.lora import LoRA, LoRAError, load_coefficients, save_coefficients, save_lora
from lorarar.merging import merge
from lorarar.options import MergeOptions, values
from lorarar.pipelines import load_pipeline
from lorarar.scales import SCALES
from lorarar.shoebox.world import styles, subjects
from lorarar.shoebox.zoo import strangers
from lorarar.study import coefficients as co
from lorarar.study import means, networks, recipes
from lorarar.study.__main__ import main
from lorarar.study.ladder import Reader
from lorarar.study.ruler import ruler
from lorarar.train import Trained

PAIRS = [("cat", "oil"), ("can", "ink")]


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def sides(pipe):
    taught = {"cat": CONTENT, "can": CONTENT, "oil": STYLE, "ink": STYLE}
    return {name: Trained(adapter(pipe, i), *of) for i, (name, of) in enumerate(taught.items())}


def wild(pipe):
    """A network of invariants whose answers differ by layer, by column and by pair."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Invariants(8, metadata={"parts": "query,key"})
        torch.nn.init.normal_(network.output.weight)
    return network


def test_rivals_know_less_and_less(pipe, sides, monkeypatch):
    monkeypatch.setattr(networks, "training_pairs", lambda network: PAIRS)
    network = wild(pipe)
    with ruler(pipe, draws=2, sides=sides) as measure:
        found = networks.rivals(measure, network, PAIRS)
        read = Reader(network, measure)
        own = [read(pair) for pair in PAIRS]
        layers = list(network.coefficients(*(sides[n].lora for n in PAIRS[0]), ("query", "key")))
        table = {k: tuple(sum(m[k][i].mean() for m in own) / 2 for i in (0, 1)) for k in layers}
        flat = {k: tuple(torch.full_like(own[0][k][i], float(table[k][i])) for i in (0, 1)) for k in layers}
        level = [float(torch.cat([own[1][k][i] for k in layers]).mean()) for i in (0, 1)]
        one = {k: tuple(torch.full_like(own[1][k][i], level[i]) for i in (0, 1)) for k in layers}
        assert found["own"] == [measure.rho(pair, gates) for pair, gates in zip(PAIRS, own, strict=True)]
        assert found["other pairs' answers"] == [measure.rho(PAIRS[0], own[1]), measure.rho(PAIRS[1], own[0])]
        assert found["table by layer"][0] == pytest.approx(
            measure.rho(PAIRS[0], {**own[0], **flat}), rel=1e-5
        )
        assert found["its mean answer"][1] == pytest.approx(
            measure.rho(PAIRS[1], {**own[1], **one}), rel=1e-5
        )
        assert len({round(values[0], 5) for values in found.values()}) == len(networks.RIVALS)
        blind = networks.rivals(measure, Invariants(8), PAIRS)  # untrained, it answers one number to all
    assert np.ptp(list(blind.values()), axis=0) == pytest.approx(0, abs=1e-5)


def test_strangers_share_no_lora():
    pairs = [(c, s) for c in "abc" for s in "xyz"]
    for pair in pairs:
        found = networks._strangers(pair, pairs)
        assert len(found) == 2 and not {name for other in found for name in other} & set(pair)
    assert networks._strangers(("a", "x"), pairs[:3]) == []


def test_recipes_are_options_and_only_the_shipped_one_is_left_as_it_is():
    scale = SCALES["shoebox"]
    found = {name: recipes.recipe(scale, name, 1) for name in recipes.RECIPES}
    short = {name: recipes.recipe(scale, name, 1, steps=7).steps for name in found}
    assert short == dict.fromkeys(found, 7) | {"columns": 5000}
    assert len(set(found.values())) == len(found) and {o.seed for o in found.values()} == {1}
    assert found["invariants"] == replace(found["invariants, query and output"], parts=tuple(co.PARTS))
    with pytest.raises(ValueError, match="no recipe 'invariant': choose one of columns, "):
        recipes.recipe(scale, "invariant", 0)


def test_a_training_is_told_by_all_that_decides_it():
    said = recipes.Training("place alone", 1, {"steps": 7}, pairs=3, subjects=("dog #8", "can"))
    assert said.names() == (("dog #8", "can"), styles.SPLIT["train"])
    options = recipes.recipe(SCALES["shoebox"], said.recipe, said.seed, **said.changes)
    metadata = {**values(options), "parts": list(options.parts), "pairs": 3}
    of = {"contents": ["dog #8", "can"], "styles": ["sticker"]}
    names = [sorted(of["contents"]), of["styles"]]

    def known(**changes):
        network = Invariants(8, metadata={"lorarar_training": json.dumps(metadata | of | changes)})
        return recipes._is(network, options, 3, names)

    assert known() and known(contents=["can", "dog #8"])
    assert not known(pairs=4) and not known(styles=["glowing"]) and not known(steps=8)
    with pytest.raises(ValueError, match="can is no style"):
        replace(said, styles=("can",)).names()
    with pytest.raises(ValueError, match="no subject or style 'dog'"):
        replace(said, subjects=("dog",)).names()


def test_a_number_of_training_loras_is_drawn_by_the_seed(tmp_path):
    one, other = (recipes.Training("place alone", seed, subjects=5, styles=4) for seed in (0, 1))
    own, again = one.names(), replace(one, recipe="invariants").names()
    assert own == again and [len(names) for names in own] == [5, 4] and own != other.names()
    assert set(own[0]) < set(subjects.SPLIT["train"]) and set(own[1]) < set(styles.SPLIT["train"])
    with pytest.raises(ValueError, match="99 training LoRAs of subjects wanted, and there are 21"):
        replace(one, subjects=99).names()
    more = replace(
        one, subjects=None, styles=None, world=strangers.draw(tmp_path / "w", 3, 2, seed=5, split="test")
    )
    things, looks = more.names()
    assert things[:21] == subjects.SPLIT["train"] and len(things) == 24 and len(looks) == 20


@pytest.mark.slow
def test_networks_are_trained_once_and_measured(tmp_path, monkeypatch):
    for axis in (subjects, styles):
        for split in ("train", "validation"):
            monkeypatch.setitem(axis.SPLIT, split, axis.SPLIT[split][:2])
    scale = replace(SCALES["smoke"], hypernetwork_pairs=4)
    options = {"folder": tmp_path, "progress": False, "probes": 1, "steps": 4, "batch_size": 1, "draws": 1}
    options["evaluations"] = 3
    wanted = {"invariants": [0], "columns, falling rate": [0]}
    found = networks.networks(scale, "cpu", wanted=wanted, **options)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["columns-falling-rate-0.safetensors", "invariants-0.safetensors"]
    network = load_network(tmp_path / files[1])
    assert isinstance(network, Invariants) and network.metadata["command"].endswith(
        "--steps 4 --batch-size 1 --draws 1"
    )
    assert set(found["levels"]) <= {field.name for field in fields(MergeOptions)}
    assert len(found["constants"]["levels"]) == 4
    rows = found["of"]
    assert [(row["recipe"], row["parameters"]) for row in rows] == [
        ("invariants", 3218),
        ("columns, falling rate", load_network(tmp_path / files[0]).size),
    ]
    assert all(len(row["new"][rival]) == 4 for row in rows for rival in networks.RIVALS)
    assert all(
        set(pair) <= {*subjects.SPLIT["train"], *styles.SPLIT["train"]}
        for row in rows
        for pair in row["known pairs"]
    )
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert networks.networks(scale, "cpu", wanted=wanted, **options) == found
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    with pytest.raises(ValueError, match=r"invariants-0\.safetensors: was trained in another way"):
        networks.networks(scale, "cpu", wanted=wanted, **{**options, "steps": 5})


def test_levels_as_coefficients_are_the_method_of_that_name():
    pair = "dog #2", "watercolor painting #1"
    weights = {"content_weight": 0.9, "style_weight": 0.6, "content_rest": 0.4, "style_rest": 0.3}
    with ruler(load_pipeline("shoebox", "cpu"), draws=2) as measure:
        loras = [measure.side(name).lora for name in pair]
        by_gates = measure.rho(pair, networks.leveled(measure, pair, *weights.values()))
        by_method = measure.merged(pair, merge(*loras, "levels", **weights)).both
    assert by_gates == pytest.approx(by_method, rel=1e-4)


# Tables --------------------------------------------------------------------------------------------------


def test_a_table_is_the_mean_of_files(tmp_path, capsys):
    files, gates = [], []
    for seed in (1, 2, 3):
        draw = torch.Generator().manual_seed(seed)
        gates.append({k: (torch.rand(5, generator=draw), torch.rand(5, generator=draw)) for k in ("a", "b")})
        files.append(tmp_path / f"{seed}.safetensors")
        save_coefficients(gates[-1], files[-1])
    for by in ("layer", "column"):
        out = tmp_path / f"{by}.safetensors"
        assert main(["means", "--coefficients", *map(str, files), "--by", by, "-o", str(out)]) == 0
        assert capsys.readouterr().out == f"{out}\n"
        for layer, pair in load_coefficients(out).items():
            for side, m in enumerate(pair):
                want = np.mean([g[layer][side].numpy() for g in gates], 0)
                want = want.mean(keepdims=True) if by == "layer" else want
                np.testing.assert_allclose(m.numpy(), want, rtol=1e-6)
    save_coefficients({"a": (torch.ones(5), torch.ones(4))}, files[1])
    with pytest.raises(LoRAError, match=r"2\.safetensors: other layers or columns than .*1\.safetensors"):
        means.table_of(files)


def test_a_table_of_a_networks_answers(tmp_path, monkeypatch):
    pairs = [(subjects.SPLIT["train"][i], styles.SPLIT["train"][i]) for i in range(2)]
    monkeypatch.setattr(means, "training_pairs", lambda network: pairs)
    network = wild(None)
    network.metadata["lorarar_training"] = "{}"
    network.save(tmp_path / "i.safetensors")
    found = means.table_by(tmp_path / "i.safetensors", "smoke")
    loras = [[means.zoo.load(name, "smoke") for name in pair] for pair in pairs]
    said = [network.coefficients(*pair, ("query", "key")) for pair in loras]
    assert list(found) == list(said[0])
    for layer, (m_c, _) in found.items():
        torch.testing.assert_close(m_c, ((said[0][layer][0] + said[1][layer][0]) / 2).detach())
    Hypernetwork([8], 4).save(tmp_path / "h.safetensors")
    with pytest.raises(ValueError, match="does not say which pairs it was trained on"):
        means.table_by(tmp_path / "h.safetensors", "smoke")


def test_the_constant_that_a_network_amounts_to(tmp_path, capsys):
    """As the released one is said to do, it answers to nothing by the length of the columns."""
    torch.manual_seed(0)
    network, spot = Hypernetwork([8, 12], 4), "unet.mid_block.attentions.0.transformer_blocks.{}.attn1.to_q"
    network.save(tmp_path / "h.safetensors")
    widths = {spot.format(0): 4, spot.format(1): 6}
    save_lora(
        LoRA({k: (torch.ones(n, 2), torch.ones(2, 5)) for k, n in widths.items()}), tmp_path / "l.safetensors"
    )
    words = ["means", "--empty", str(tmp_path / "l.safetensors"), "-o", str(tmp_path / "t.safetensors")]
    assert main([*words, "--hypernetwork", str(tmp_path / "h.safetensors")]) == 0
    found = load_coefficients(tmp_path / "t.safetensors")
    for layer, width in widths.items():
        want = network(torch.zeros(2 * width)).detach()
        assert [float(m) for m in found[layer]] == pytest.approx(want.tolist(), abs=1e-6)
    assert main([*words, "--coefficients", str(tmp_path / "t.safetensors")]) == 2
    assert "--empty LORA asks a network" in capsys.readouterr().err
