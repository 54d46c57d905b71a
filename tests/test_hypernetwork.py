"""Training the hypernetwork: a step against dense weights, resumed runs, all sets of parts, refusals."""

import copy
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_objective import CONTENT, PICTURES, STYLE, adapter, answer64, dense_merge
from tiny import tiny_pipeline

import lorarar.train.hypernetwork
from lorarar import Hypernetwork, merge
from lorarar.hypernet import PARTS, Invariants, layers_of, load_network
from lorarar.lora import LoRA, LoRAError, delta_weight
from lorarar.options import HypernetworkOptions
from lorarar.scales import SCALES
from lorarar.train import Trained, train_hypernetwork
from lorarar.train.gates import updates
from lorarar.train.hypernetwork import fresh, sample_pairs, schedule
from lorarar.train.objective import chosen, teach

pytestmark = pytest.mark.xdist_group("hypernetwork")  # one network is trained for several tests

QUICK = {"pairs": 2, "steps": 4, "batch_size": 1, "draws": 2, "hidden": 8, "progress": False}


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def loras(pipe):
    contents = [
        Trained(adapter(pipe, seed), PICTURES[:seed], f"a sks {word}", name=word)
        for seed, word in ((1, "cat"), (2, "can"))
    ]
    styles = [
        Trained(adapter(pipe, 3, rank=2), *STYLE, name="oil"),
        Trained(adapter(pipe, 4), *CONTENT, name="ink"),
    ]
    return contents, styles


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_one_step_is_that_of_dense_weights(pipe, loras):
    """AdamW's first step is ±the learning rate by the gradient's sign: the gradient comes from dense ΔW."""
    options = {**QUICK, "pairs": [(1, 0)], "steps": 1, "weight_decay": 0.0, "learning_rate": 1e-3}
    network, history = train_hypernetwork(pipe, *loras, **options)

    content, style = loras[0][1], loras[1][0]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference = Hypernetwork({64}, 8)
    start = weights(reference).double()
    reference.double()
    layers = layers_of(content.lora, ["query", "output"])
    with updates(pipe, content.lora) as update:
        banks = [teach(pipe, update, content, 2, 1), teach(pipe, update, style, 2, 1_000_003)]
    generator = torch.Generator().manual_seed(0)
    samples = [chosen(bank, torch.randperm(2, generator=generator)[:1]) for bank in banks]
    gates = {}
    for layer in layers:
        dense = [delta_weight([x.double() for x in side.lora[layer]]) for side in (content, style)]
        gates[layer] = reference(torch.cat(dense).mT).unbind(-1)
    merged = dense_merge(content.lora, style.lora, gates, "average")
    terms = []
    for side, batch in zip((content, style), samples, strict=True):
        alone = {layer: delta_weight([x.double() for x in pair]) for layer, pair in side.lora.items()}
        with torch.no_grad():
            teacher = answer64(pipe, alone, batch)
        terms.append(torch.nn.functional.mse_loss(answer64(pipe, merged, batch), teacher))
    terms.append(sum((m_c @ m_s).abs() for m_c, m_s in gates.values()) / 8**3)
    for name, term in zip(("content", "style", "similarity"), terms, strict=True):
        assert history[name] == [pytest.approx(term.item(), rel=1e-4)]
    (terms[0] + terms[1] + 0.01 * terms[2]).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in reference.parameters()])
    moved = weights(network).double() - start
    clear = gradient.abs() > 1e-3 * gradient.abs().max()
    assert clear.float().mean() > 0.3
    torch.testing.assert_close(moved[clear], -1e-3 * gradient[clear].sign(), rtol=1e-2, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["in turn", "mixed"])
def test_a_killed_run_resumes_to_the_same_bits(pipe, loras, tmp_path, order):
    options = {**QUICK, "order": order, "pairs": 3, "steps": 6}
    whole, history = train_hypernetwork(pipe, *loras, **options)
    state = tmp_path / "run.checkpoint"

    def kill(step, terms):
        if step == 5:
            raise KeyboardInterrupt

    options.update(checkpoint=state, checkpoint_every=2)
    with pytest.raises(KeyboardInterrupt):
        train_hypernetwork(pipe, *loras, callback=kill, **options)
    assert torch.load(state, weights_only=True)["step"] == 4
    assert all(not module._forward_hooks for module in pipe.unet.modules())
    for other, what in (({"learning_rate": 1e-3}, "learning_rate"), ({"parts": ["key"]}, "parts")):
        with pytest.raises(ValueError, match=f"run with other {what}: remove it or do not resume"):
            train_hypernetwork(pipe, *loras, resume=True, **{**options, **other})
    with pytest.raises(ValueError, match="run with other loras"):
        train_hypernetwork(
            pipe, [replace(one, prompt="a dog") for one in loras[0]], loras[1], resume=True, **options
        )
    steps = []
    resumed, rest = train_hypernetwork(
        pipe, *loras, resume=True, callback=lambda step, _: steps.append(step), **options
    )
    assert steps == [5, 6]
    assert torch.equal(weights(resumed), weights(whole))
    assert rest == history
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_all_fifteen_sets_of_parts_train(pipe, loras):
    sets = [s for n in range(1, 5) for s in itertools.combinations(PARTS, n)]
    assert len(sets) == 15
    moved = []
    for parts in sets:
        options = {**QUICK, "pairs": 1, "steps": 1, "draws": 1}
        network, history = train_hypernetwork(pipe, *loras, parts=parts, **options)
        assert network.metadata["parts"] == ",".join(parts)
        assert network.columns == (64,)
        # The similarity is over the layers of these parts, with the start's coefficients.
        with torch.random.fork_rng():
            torch.manual_seed(0)
            start = Hypernetwork({64}, 8)
        content, style = (side[i] for side, i in zip(loras, sample_pairs(2, 2, 1, 0)[0], strict=True))
        gates = start.coefficients(content.lora, style.lora, parts)
        want = sum(float((m_c @ m_s).abs().detach()) for m_c, m_s in gates.values()) / 8**3
        assert history["similarity"] == [pytest.approx(want, rel=1e-3)]
        moved.append(weights(network))
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(moved, 2))


def test_training_lowers_the_loss_of_its_pairs(pipe, loras):
    options = {"pairs": 1, "steps": 20, "batch_size": 2, "draws": 4, "hidden": 16, "progress": False}
    _, history = train_hypernetwork(pipe, *loras, **options)
    total = np.add(history["content"], history["style"])
    assert total[-5:].mean() < 0.8 * total[:5].mean()


def test_each_lora_is_taught_once_with_its_own_captions(pipe, loras, monkeypatch):
    taught = []

    def spy(pipe, update, side, *arguments):
        taught.append((side.name, side.prompt))
        return teach(pipe, update, side, *arguments)

    monkeypatch.setattr(lorarar.train.hypernetwork, "teach", spy)
    train_hypernetwork(pipe, *loras, **{**QUICK, "pairs": 4, "steps": 8, "order": "mixed"})
    assert sorted(name for name, _ in taught) == ["can", "cat", "ink", "oil"]
    assert dict(taught) == {side.name: side.prompt for group in loras for side in group}


def test_the_file_says_how_it_was_trained(pipe, loras, tmp_path):
    network, _ = train_hypernetwork(
        pipe, *loras, **QUICK, seed=3, rest="sum", measure="cosine", command="lorarar …"
    )
    network.save(tmp_path / "h.safetensors")
    back = Hypernetwork.load(tmp_path / "h.safetensors")
    assert torch.equal(weights(back), weights(network)) and back.hidden == 8
    assert back.metadata["command"] == "lorarar …"
    assert (back.metadata["parts"], back.metadata["rest"]) == ("query,output", "sum")
    training = json.loads(back.metadata["lorarar_training"])
    assert (training["steps"], training["pairs"], training["seed"]) == (4, 2, 3)
    assert training["measure"] == "cosine" and training["similarity"] == 0.01
    named = {side.name for group in loras for side in group}
    assert set(training["contents"]) | set(training["styles"]) <= named and training["contents"]
    other, _ = train_hypernetwork(pipe, *loras, **QUICK, seed=4, rest="sum", measure="cosine")
    assert not torch.equal(weights(other), weights(network))


# The other network, and what helps training to converge


READER = {**QUICK, "steps": 20, "batch_size": 2, "pairs": 1, "reads": "invariants", "context": "moments"}
READER |= {"parts": tuple(PARTS), "warmup": 2, "decay": 0.5, "similarity": 0.0}


@pytest.fixture(scope="module")
def reader(pipe, loras):
    return train_hypernetwork(pipe, *loras, **READER)


@pytest.mark.slow
def test_a_network_of_invariants_trains_resumes_and_says_so(pipe, loras, reader, tmp_path):
    options, (whole, history) = READER, reader
    assert isinstance(whole, Invariants) and (whole.context, whole.hidden) == ("moments", 8)
    total = np.add(history["content"], history["style"])
    assert total[-5:].mean() < 0.95 * total[0]

    def kill(step, terms):
        if step == 15:
            raise KeyboardInterrupt

    state = {"checkpoint": tmp_path / "state", "checkpoint_every": 10}
    with pytest.raises(KeyboardInterrupt):
        train_hypernetwork(pipe, *loras, **options, **state, callback=kill)
    resumed, rest = train_hypernetwork(pipe, *loras, **options, **state, resume=True)
    assert torch.equal(weights(resumed), weights(whole)) and rest == history
    whole.save(tmp_path / "i.safetensors")
    back = load_network(tmp_path / "i.safetensors")
    assert back.parts == tuple(PARTS)
    training = json.loads(back.metadata["lorarar_training"])
    assert (training["reads"], training["context"], training["decay"]) == ("invariants", "moments", 0.5)


BASES = {  # places of attention, widths there, inputs from text: in the real ones' proportions
    "SD 1.5": (("down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.3"), (40, 80, 160, 40), 96),
    "KOALA": (("down_blocks.1", "down_blocks.2", "up_blocks.0", "up_blocks.1"), (80, 160, 160, 80), 256),
}


def of_base(base, seed, rank, size):
    """A LoRA with the layers of a base, its entries of some size."""
    draw, lora = torch.Generator().manual_seed(seed), LoRA({})
    for spot, width in zip(*BASES[base][:2], strict=True):
        for a, module in itertools.product((1, 2), PARTS.values()):
            inputs = BASES[base][2] if a == 2 and module in ("to_k", "to_v") else width
            up, down = (torch.randn(shape, generator=draw) for shape in ((width, rank), (rank, inputs)))
            lora[f"unet.{spot}.attentions.0.transformer_blocks.0.attn{a}.{module}"] = size * up, down
    return lora


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
def test_it_serves_other_bases_unchanged(loras, reader, base):
    """Other places, column lengths, ranks and sizes than it was trained with: answers as it has at home."""
    network, (contents, styles) = reader[0], loras
    content, style = of_base(base, 1, 16, 0.003), of_base(base, 2, 4, 0.01)
    with pytest.raises(LoRAError, match="its columns have length"):
        Hypernetwork([64]).coefficients(content, style)
    with torch.no_grad():
        home = network.coefficients(contents[0].lora, styles[0].lora, PARTS)
        found = network.coefficients(content, style, PARTS)
    assert list(found) == layers_of(content, PARTS)
    for side in (0, 1):
        here, there = (torch.cat([pair[side] for pair in said.values()]) for said in (home, found))
        assert bool(there.isfinite().all()) and 0 < float(there.mean()) < 1.5
        assert here.min() - 0.5 < there.min() and there.max() < here.max() + 0.5
    merged = merge(content, style, "lorarar", hypernetwork=network, **network.merge_options)
    for layer, (m_c, m_s) in found.items():
        c, s = (delta_weight(lora[layer]) for lora in (content, style))
        torch.testing.assert_close(delta_weight(merged[layer]), c * m_c + s * m_s, atol=1e-5, rtol=1e-4)


def test_the_rate_rises_and_falls(pipe, loras):
    """AdamW's first step is ±the rate: at the first of four steps of warming up, a quarter of it."""
    options = {**QUICK, "steps": 1, "pairs": 1, "weight_decay": 0.0, "learning_rate": 1e-3}
    start = weights(fresh(HypernetworkOptions(hidden=8), {64}))
    for rate, want in (({}, 1e-3), ({"warmup": 4}, 2.5e-4), ({"decay": 1.0}, 1e-3)):
        moved = (weights(train_hypernetwork(pipe, *loras, **options, **rate)[0]) - start).abs()
        assert float(moved.max()) == pytest.approx(want, rel=1e-2)
    both = [train_hypernetwork(pipe, *loras, **{**options, "steps": 2, "decay": d})[0] for d in (0.0, 1.0)]
    assert not torch.equal(*map(weights, both)), "the last of two steps is half as long"


def test_inputs_of_rms_one_are_in_the_weights_that_are_saved(pipe, loras):
    """With a rate of next to nothing the trained network is the fresh one, times what scales its inputs."""
    options = {**QUICK, "unit_inputs": True, "learning_rate": 1e-12, "weight_decay": 0.0, "pairs": 4}
    network, history = train_hypernetwork(pipe, *loras, **options)
    start = fresh(HypernetworkOptions(hidden=8), {64})
    entries = torch.cat(
        [
            delta_weight([x.double() for x in side.lora[layer]]).flatten()
            for group in loras
            for side in group
            for layer in layers_of(side.lora, ("query", "output"))
        ]
    )
    factor = network.inputs["64"].weight / start.inputs["64"].weight
    want = 1 / float(entries.square().mean().sqrt())
    torch.testing.assert_close(factor, torch.full_like(factor, want), rtol=1e-4, atol=0)
    torch.testing.assert_close(network.output.weight, start.output.weight)
    plain = train_hypernetwork(pipe, *loras, **{**options, "unit_inputs": False})[1]
    assert history["similarity"] != plain["similarity"], "it is trained on what it will be merged by"


def test_scales_are_arguments(pipe, loras):
    scale = SCALES["smoke"]
    network, history = train_hypernetwork(
        pipe, *loras, pairs=scale.hypernetwork_pairs, **vars(scale.hypernetwork), draws=2, progress=False
    )
    assert len(history["content"]) == scale.hypernetwork.steps and network.hidden == 128


# Pairs and their order


def test_pairs_are_drawn_without_repetition():
    pairs = sample_pairs(21, 18, 100, seed=0)
    assert len(set(pairs)) == 100
    assert {c for c, _ in pairs} <= set(range(21)) and {s for _, s in pairs} <= set(range(18))
    assert pairs == sample_pairs(21, 18, 100, seed=0) != sample_pairs(21, 18, 100, seed=1)
    assert set(sample_pairs(2, 3, 6, 0)) == set(itertools.product(range(2), range(3)))
    with pytest.raises(ValueError, match="7 pairs of 2 content and 3 style LoRAs: ask for at most 6"):
        sample_pairs(2, 3, 7, 0)


def test_the_papers_schedule_and_the_mixed_one():
    in_turn = schedule(5000, 100, "in turn", 0)
    assert in_turn == [pair for pair in range(100) for _ in range(50)]
    mixed = schedule(10, 4, "mixed", 0)
    assert sorted(mixed[:4]) == sorted(mixed[4:8]) == [0, 1, 2, 3] and len(mixed) == 10
    assert mixed == schedule(10, 4, "mixed", 0) != schedule(10, 4, "mixed", 1)


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, not 0"),
        ({"steps": 1}, "1 steps for 2 pairs"),
        ({"pairs": 5}, "5 pairs of 2 content and 2 style LoRAs"),
        ({"pairs": 0}, "pairs must be a whole number"),
        ({"pairs": [(0, 2)]}, "pairs must be indices of 2 content and 2 style LoRAs"),
        ({"pairs": []}, "pairs must be indices"),
        ({"parts": ("queries",)}, "expected some of query, key, value, output"),
        ({"parts": ()}, "expected some of query, key, value, output"),
        ({"order": "sorted"}, "unknown order 'sorted'"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative"),
        ({"hidden": 0}, "hidden must be"),
        ({"decay": 2.0}, "decay must lie between 0 and 1"),
        ({"reads": "entries"}, "unknown reads 'entries': choose one of columns, invariants"),
        ({"context": "moments"}, "context is not for a network that reads columns"),
        (
            {"reads": "invariants", "unit_inputs": True},
            "unit_inputs is not for a network that reads invariants",
        ),
        (
            {"reads": "invariants", "context": "attention", "hidden": 6},
            "hidden 6: attention needs a multiple of 4",
        ),
        ({"learning_rate": 1e30}, "training diverged"),
        ({"checkpoint": "absent/run.checkpoint"}, "its folder does not exist"),
    ],
)
def test_bad_settings_are_one_line(pipe, loras, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        train_hypernetwork(pipe, *loras, **{**QUICK, **options})
    assert "\n" not in str(caught.value)


def test_bad_loras_are_named_before_the_training(pipe, loras):
    contents, styles = loras
    strange = LoRA({"unet.down_blocks.7.attentions.0.attn1.to_q": (torch.ones(8, 1), torch.ones(1, 8))})
    query_only = LoRA({k: v for k, v in styles[0].lora.items() if k.endswith("to_q")})
    every = {**QUICK, "pairs": 4}
    for group, message in (
        ([styles[0], replace(styles[1], lora=strange)], "ink: the LoRA is for another base model"),
        ([styles[0], replace(styles[1], images=[])], "ink: no images"),
        ([styles[0], replace(styles[1], prompt=["one"])], "ink: 1 captions for 3 images"),
        ([], "at least one content LoRA and one style LoRA"),
    ):
        with pytest.raises(ValueError, match=message):
            train_hypernetwork(pipe, contents, group, **every)
    with pytest.raises(ValueError, match=r"(cat|can) and oil: they share no attention layer of output"):
        train_hypernetwork(pipe, contents, [replace(styles[0], lora=query_only)], **QUICK, parts=["output"])
    before = copy.deepcopy(contents[0].lora)
    train_hypernetwork(pipe, contents, styles, **QUICK)
    assert all(torch.equal(a, b) for k in before for a, b in zip(before[k], contents[0].lora[k], strict=True))
