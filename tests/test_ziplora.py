"""ZipLoRA's optimisation: what it reaches, that it is deterministic, the merged file, and its refusals."""

from dataclasses import replace

import pytest
import torch
from test_objective import CONTENT, STYLE, adapter
from tiny import tiny_pipeline

import lorarar.train.ziplora
from lorarar.hypernet import PARTS, layers_of
from lorarar.lora import LoRA, load_coefficients, load_lora, save_coefficients, save_lora
from lorarar.merging import merge
from lorarar.pipelines import loaded
from lorarar.scales import SCALES
from lorarar.train import Trained, merging_loss, optimise
from lorarar.train.gates import Gated, gated, updates
from lorarar.train.objective import predict, teach

QUICK = {"steps": 6, "batch_size": 2, "draws": 4, "learning_rate": 0.05, "progress": False}


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def pair(pipe):
    sides = ((adapter(pipe, 1), *CONTENT), (adapter(pipe, 2, rank=2), *STYLE))
    return [Trained(*side, name=name) for side, name in zip(sides, ("cat", "oil"), strict=True)]


@pytest.fixture(scope="module")
def optimised(pipe, pair):
    return optimise(pipe, *pair, **QUICK)


def reconstruction(pipe, pair, gates):
    """The first two terms on draws that the optimisation has not seen."""
    loras = [side.lora for side in pair]
    with updates(pipe, loras[0]) as update, torch.no_grad():
        lessons = [teach(pipe, update, side, 6, 1000 + i) for i, side in enumerate(pair)]
        terms = merging_loss(pipe.unet, update, Gated(*loras, gates), gates, *lessons)
    return float(terms.content + terms.style)


def test_the_loss_goes_down_and_every_attention_layer_has_coefficients(pipe, pair, optimised):
    gates, history = optimised
    assert list(gates) == layers_of(pair[0].lora, PARTS) and len(gates) == len(pair[0].lora)
    for layer, sides in gates.items():
        assert all(m.shape == pair[0].lora[layer][1].shape[1:] and m.dtype == torch.float32 for m in sides)
        assert not any(torch.equal(m, torch.ones_like(m)) for m in sides)
    assert {name: len(values) for name, values in history.items()} == dict.fromkeys(
        ("content", "style", "similarity"), 6
    )
    start = {layer: tuple(map(torch.ones_like, sides)) for layer, sides in gates.items()}
    assert reconstruction(pipe, pair, gates) < 0.8 * reconstruction(pipe, pair, start)
    columns = sum(down.shape[1] for _, down in pair[0].lora.values())
    assert history["similarity"][0] == pytest.approx(columns / (8 * 8 * 8))
    assert history["similarity"][-1] < history["similarity"][0]


def test_the_merged_file_predicts_what_the_gates_predict(pipe, pair, optimised, tmp_path):
    gates, _ = optimised
    save_coefficients(gates, tmp_path / "m.safetensors")
    loras = [side.lora for side in pair]
    merged = merge(*loras, "ziplora", coefficients=load_coefficients(tmp_path / "m.safetensors"))
    save_lora(merged, tmp_path / "merged.safetensors")
    with updates(pipe, []) as update:
        batch = teach(pipe, update, replace(pair[0], lora=LoRA()), 2, 3)
    with gated(pipe, *loras, gates), torch.no_grad():
        want = predict(pipe.unet, batch)
    with loaded(pipe, load_lora(tmp_path / "merged.safetensors")), torch.no_grad():
        torch.testing.assert_close(predict(pipe.unet, batch), want, rtol=1e-4, atol=1e-5)


def test_a_seed_decides_everything(pipe, pair, optimised):
    def flat(gates):
        return torch.cat([m for sides in gates.values() for m in sides])

    torch.rand(5)
    again, history = optimise(pipe, *pair, **QUICK)
    assert torch.equal(flat(again), flat(optimised[0])) and history == optimised[1]
    other, _ = optimise(pipe, *pair, **{**QUICK, "steps": 1, "seed": 1})
    first, _ = optimise(pipe, *pair, **{**QUICK, "steps": 1})
    assert not torch.equal(flat(other), flat(first))


def test_cosine_moves_by_the_first_two_terms_alone_at_first(pipe, pair):
    """At the all-ones start the cosine's gradient is zero: λ does not change the first step. Dot's does."""
    first = {"steps": 1, "batch_size": 2, "progress": False}
    for measure, same in (("cosine", True), ("dot", False)):
        with_term, _ = optimise(pipe, *pair, measure=measure, similarity=1.0, **first)
        without, _ = optimise(pipe, *pair, measure=measure, similarity=0.0, **first)
        moved = [torch.cat([m for sides in gates.values() for m in sides]) for gates in (with_term, without)]
        agree = ((moved[0] - moved[1]).abs() < 1e-3).float().mean()
        assert (agree > 0.9) if same else (agree < 0.9)


def test_coefficients_of_some_parts_only(pipe, pair):
    found, _ = optimise(pipe, *pair, **QUICK, parts=("query", "output"))
    assert list(found) == layers_of(pair[0].lora, ("query", "output"))
    with pytest.raises(ValueError, match="expected some of query, key, value, output"):
        optimise(pipe, *pair, **QUICK, parts=("queries",))


def test_both_sides_can_share_noise_and_timestep(pipe, pair, monkeypatch):
    """Then the same numbers of both lessons are drawn, and these have one timestep, however many images."""
    seen = []

    def spy(unet, update, both, gates, *samples):
        seen.append([sample.timesteps.tolist() for sample in samples[:2]])
        return merging_loss(unet, update, both, gates, *samples)

    monkeypatch.setattr(lorarar.train.ziplora, "merging_loss", spy)
    two = [pair[0], replace(pair[1], images=pair[1].images[:1], prompt=pair[1].prompt[:1])]
    for same in (True, False):
        seen.clear()
        optimise(pipe, *two, **QUICK, same_noise=same)
        assert len(seen) == QUICK["steps"] and all((one == other) == same for one, other in seen)


def test_scales_are_arguments(pipe, pair):
    seen = []
    fit = SCALES["smoke"].ziplora
    optimise(
        pipe, *pair, **vars(fit), progress=False, callback=lambda step, terms: seen.append((step, terms))
    )
    assert [step for step, _ in seen] == list(range(1, fit.steps + 1))
    assert all(len(terms) == 3 for _, terms in seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, not 0"),
        ({"batch_size": 1.5}, "batch_size must be"),
        ({"draws": True}, "draws must be"),
        ({"learning_rate": 0}, "learning_rate must be positive"),
        ({"similarity": float("nan")}, "similarity must not be negative, but is nan"),
        ({"measure": "angle"}, "unknown measure 'angle': choose one of dot, cosine"),
        ({"rest": "median"}, "unknown rest 'median'"),
        ({"learning_rate": 1e30, "steps": 3}, "the optimisation diverged"),
    ],
)
def test_bad_settings_are_one_line(pipe, pair, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        optimise(pipe, *pair, **{**QUICK, **options})
    assert "\n" not in str(caught.value)


def test_loras_of_other_bases_are_refused(pipe, pair):
    cat, oil = pair
    attention = "unet.{}.attentions.0.transformer_blocks.0.attn1.to_q"
    strange = LoRA({attention.format("down_blocks.7"): (torch.ones(8, 1), torch.ones(1, 8))})
    outside = LoRA({"unet.conv_in": (torch.ones(16, 1, 1, 1), torch.ones(1, 8, 3, 3))})
    for one, other, message in (
        (
            cat,
            replace(oil, lora=strange),
            "share no layer, and nothing in them says that both are of one base",
        ),
        (replace(cat, lora=strange), replace(oil, lora=strange), "cat: the LoRA is for another base model"),
        (replace(cat, lora=outside), replace(oil, lora=outside), "share no attention layer"),
        (cat, replace(oil, images=[]), "oil: no images"),
    ):
        with pytest.raises(ValueError, match=message):
            optimise(pipe, one, other, **QUICK)
