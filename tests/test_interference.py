"""How two updates stand to each other, merges at equal volume, and ρ of any merge that is a LoRA."""

import numpy as np
import pytest
import torch
from test_ruler import PAIR, gates, pipe, sides  # noqa: F401  (fixtures)

from lorarar import LoRA, merge
from lorarar.lora import delta_weight
from lorarar.merging import ziplora
from lorarar.study import interference, volume
from lorarar.study.ruler import Error, ruler


def lora(seed: int, ranks: int = 3) -> LoRA:
    source = torch.Generator().manual_seed(seed)
    shapes = {"unet.a": (8, 6), "unet.b": (5, 10)}
    return LoRA(
        {
            name: (torch.randn(out, ranks, generator=source), torch.randn(ranks, in_, generator=source))
            for name, (out, in_) in shapes.items()
        }
    )


def test_rho_of_a_merged_lora_is_that_of_its_coefficients(pipe, sides, gates):  # noqa: F811
    merged = ziplora(*(sides[name].lora for name in PAIR), gates)
    with ruler(pipe, draws=2, sides=sides) as measure:
        whole, alone = measure.merged(PAIR, merged), measure.merged(PAIR, sides["cat"].lora)
        assert whole.both == pytest.approx(measure.rho(PAIR, gates), rel=1e-4)
        nothing = measure.merged(PAIR, LoRA({}))
    assert alone.subject == pytest.approx(0, abs=1e-8) and alone.style > 0
    assert nothing == pytest.approx((1, 1, 1))


def test_cosines_are_those_of_columns():
    one, other = interference.deltas(lora(1)), interference.deltas(lora(2))
    a, b = (torch.cat([update[k] / update[k].norm(dim=0) for k in ["unet.a"]]) for update in (one, other))
    assert torch.allclose(interference.cosines(one, other)[:6], (a * b).sum(0), atol=1e-6)
    assert torch.allclose(interference.cosines(one, {k: -2 * x for k, x in one.items()}), torch.tensor(-1.0))


def test_columns_are_shared_wholly_or_not_at_all():
    left = {"k": torch.tensor([[1.0, 2.0, 0.0, 0.0]])}
    assert interference.shared_columns(left, {"k": 3 * left["k"]}) == pytest.approx(1)
    assert interference.shared_columns(left, {"k": torch.tensor([[0.0, 0.0, 1.0, 5.0]])}) == 0


def test_noise_has_the_shapes_of_its_model():
    one, other = (interference.noise_like(lora(1), seed) for seed in (0, 1))
    assert {k: x.shape for k, x in one.items()} == {
        k: x.shape for k, x in interference.deltas(lora(1)).items()
    }
    assert not torch.allclose(one["unet.a"], other["unet.a"])


def test_cross_terms_are_what_adding_factors_adds():
    content, style = lora(1), lora(2)
    true = {k: delta_weight(content[k]) + delta_weight(style[k]) for k in content}
    mixed = {k: (content[k][0] + style[k][0]) @ (content[k][1] + style[k][1]) for k in content}
    away = sum((mixed[k] - true[k]).square().sum() for k in true) / sum(
        x.square().sum() for x in true.values()
    )
    assert interference.cross_terms(content, style) == pytest.approx(float(away) ** 0.5, rel=1e-5)


def test_ties_of_factors_is_its_own_and_its_cross_terms():
    content, style = lora(1), lora(2)
    options = {"flavour": "factors", "content_weight": 0.5, "style_weight": 0.5}
    merged = merge(content, style, "ties", **options)
    for layer, (own, cross) in interference.ties_of_factors(content, style).items():
        assert torch.allclose(own + cross, delta_weight(merged[layer]), atol=1e-5)
    assert 0 < interference.ties_cross(content, style) < 10


def test_correlation_holds_the_value_in_its_interval():
    rng = np.random.default_rng(0)
    grid = rng.normal(size=(6, 5))
    entry = interference.correlation(grid, grid**3, resamples=200)
    assert entry.value == pytest.approx(1) and entry.low > 0.99
    value, low, high = interference.correlation(grid, rng.normal(size=(6, 5)), resamples=200)
    assert low < value < high and low < 0 < high


@pytest.mark.parametrize("method", ["direct", "ties-delta", "dare-delta", "np-lora", "ties", "dare"])
def test_a_merge_at_another_volume_is_a_merge_with_other_weights(method):
    content, style = lora(1), lora(2)
    merged = volume.louder(volume.as_used(method, content, style), 0.7)
    options = volume.METHODS[method].options
    weights = {f"{side}_weight": 0.7 * options.get(f"{side}_weight", 1.0) for side in ("content", "style")}
    other = merge(content, style, method.removesuffix("-delta"), **{**options, **weights})
    for layer in content:
        assert torch.allclose(delta_weight(merged[layer]), delta_weight(other[layer]), atol=1e-4)


def test_only_merges_of_factors_move_with_the_spelling():
    content, style = lora(1), lora(2)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q
    turned = LoRA({k: (up @ turn, turn.T @ down) for k, (up, down) in content.items()})
    assert volume.moved("ties-delta", content, turned, style) < 1e-4
    assert volume.moved("ties", content, turned, style) > 0.1


def test_the_best_volume_has_the_lowest_mean():
    errors = {
        ("a", 0.5): [Error(0.4, 0, 0), Error(0.6, 0, 0)],
        ("a", 1.0): [Error(0.3, 0, 0), Error(0.9, 0, 0)],
        ("b", 1.0): [Error(2.0, 0, 0)],
    }
    assert volume.best(errors) == {"a": (0.5, 0.5), "b": (1.0, 2.0)}
    assert volume.means(errors)["a", 1.0] == pytest.approx(0.6)


def test_what_a_method_computes_before_it_is_cut_to_a_rank():
    content, style = lora(1, 2), lora(2, 2)
    exact = volume.exact(content, style, "ties", "unet.a")
    cut = delta_weight(merge(content, style, "ties")["unet.a"])
    assert torch.linalg.matrix_rank(exact) > 4 == torch.linalg.matrix_rank(cut)
    assert (exact == 0).sum() > 5 * (cut.abs() < 1e-4).sum()
