"""Merging methods against dense float64 references, peft, and two active adapters in diffusers."""

import json
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from lorarar import Hypernetwork, merge, save_lora
from lorarar.hypernet import layers_of
from lorarar.lora import LoRA, LoRAError, Outline, delta_weight, load_lora
from lorarar.merging import (
    METHODS,
    compress,
    dare,
    dare_ties,
    direct,
    levels,
    np_lora,
    singular_values,
    ties,
    ziplora,
)

BLOCK = "unet.down_blocks.1.attentions.0.transformer_blocks.{}"
SHAPES = {  # layer → weight's shape
    **{
        f"{BLOCK.format(b)}.attn1.{m}": (24, 24) for b in (0, 1) for m in ("to_q", "to_k", "to_v", "to_out.0")
    },
    **{f"{BLOCK.format(b)}.attn2.{m}": (24, 40) for b in (0, 1) for m in ("to_k", "to_v")},
    f"{BLOCK.format(0)}.attn2.to_q": (24, 24),
    f"{BLOCK.format(0)}.ff.net.0.proj": (48, 24),
    "unet.down_blocks.1.resnets.0.conv1": (16, 8, 3, 3),
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj": (20, 20),
}
LINEAR = {layer: shape for layer, shape in SHAPES.items() if len(shape) == 2}
LAYER = next(iter(SHAPES))


def adapter(seed, rank=4, dtype=torch.float32, shapes=SHAPES, up=0.1, down=0.3):
    draw = torch.Generator().manual_seed(seed)

    def pair(shape):
        b = torch.randn(shape[0], rank, *[1] * len(shape[2:]), generator=draw, dtype=torch.float64) * up
        a = torch.randn(rank, *shape[1:], generator=draw, dtype=torch.float64) * down
        return b.to(dtype), a.to(dtype)

    return LoRA({layer: pair(shape) for layer, shape in shapes.items()})


def exact(lora, layer):
    """ΔW in float64, flattened to a matrix."""
    return delta_weight(tuple(x.double() for x in lora[layer])).flatten(1)


def error(lora, layer, want):
    return float((exact(lora, layer) - want).norm() / want.norm())


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Hypernetwork((48,), 16)


def needed(method):
    """What a method needs beside the two LoRAs."""
    return {
        "hypernetwork": network(),
        "coefficients": {LAYER: (torch.ones(1),) * 2} if method == "table" else {},
    }


TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
HALVES = (torch.float16, torch.bfloat16)
TYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


# Column methods, exactly ---------------------------------------------------------------------------------


@TYPES
def test_direct_is_the_sum(dtype):
    content, style = adapter(1, 4, dtype), adapter(2, 6, dtype)
    merged = direct(content, style, content_weight=0.7, style_weight=-1.3)
    assert list(merged) == list(SHAPES)
    for layer in SHAPES:
        assert (
            error(merged, layer, 0.7 * exact(content, layer) - 1.3 * exact(style, layer)) <= TOLERANCE[dtype]
        )
        up, down = merged[layer]
        assert up.shape[1] == down.shape[0] == 10 and up.dtype == down.dtype == dtype
        assert (*up.shape[:1], *down.shape[1:]) == SHAPES[layer]


@TYPES
@pytest.mark.parametrize("parts", [("query", "output"), ("query", "key", "value", "output"), ("value",)])
@pytest.mark.parametrize("rest, share", [("average", 0.5), ("sum", 1.0)])
def test_lorarar_is_the_dense_algorithm(dtype, parts, rest, share):
    content, style = adapter(1, 4, dtype), adapter(2, 6, dtype)
    merged = merge(
        content, style, "lorarar", hypernetwork=network(), parts=parts, rest=rest, style_weight=0.8
    )
    reference = network().double()
    gated = set(layers_of(SHAPES, parts))
    for layer in SHAPES:
        d_c, d_s = exact(content, layer), exact(style, layer)
        if layer in gated:
            m = reference(torch.cat([d_c, d_s]).mT)  # (in, 2): the released algorithm, column by column
            want = d_c * m[:, 0] + 0.8 * d_s * m[:, 1]
        else:
            want = share * (d_c + 0.8 * d_s)
        assert error(merged, layer, want.detach()) <= max(TOLERANCE[dtype], 1e-6)
    assert merged[LAYER][1].dtype == dtype and merged[LAYER][1].shape[0] == 10
    assert not merged[LAYER][1].requires_grad


def test_ziplora_applies_the_given_coefficients():
    content, style = adapter(1), adapter(2)
    gates = {layer: (torch.rand(24), torch.rand(24)) for layer in layers_of(SHAPES, ("query",))}
    merged = ziplora(content, style, gates, content_weight=2.0)
    for layer in SHAPES:
        m_c, m_s = (m.double() for m in gates[layer]) if layer in gates else (0.5, 0.5)
        assert error(merged, layer, 2 * exact(content, layer) * m_c + exact(style, layer) * m_s) <= 1e-6
    summary = json.loads(merged.metadata["lorarar_coefficients"])
    assert summary["content"][0] == pytest.approx(
        float(torch.cat([m for m, _ in gates.values()]).mean()), abs=1e-6
    )


@TYPES
@pytest.mark.parametrize("parts", [("query", "output"), ("value",)])
def test_levels_are_two_constants_a_side(dtype, parts):
    content, style = adapter(1, 4, dtype), adapter(2, 6, dtype)
    w = {"content_weight": 0.8, "style_weight": -0.6, "content_rest": 0.3, "style_rest": 1.7}
    for later in (False, True):
        merged = merge(content, style, "levels", parts=parts, **w, later=later)
        merged = LoRA(dict(merged.made())) if later else merged
        for layer in SHAPES:
            a, b = (0.8, -0.6) if layer in layers_of(SHAPES, parts) else (0.3, 1.7)
            want = a * exact(content, layer) + b * exact(style, layer)
            assert error(merged, layer, want) <= TOLERANCE[dtype]
            assert merged[layer][1].shape[0] == 10 and merged[layer][1].dtype == dtype
    options = json.loads(merge(content, style, "levels", parts=parts, **w).metadata["lorarar_options"])
    assert options == {"parts": list(parts), **w, "rank": None}


def test_levels_of_one_half_are_the_average_and_of_one_the_sum():
    content, style = adapter(1), adapter(2, 6)
    for level in (0.5, 1.0):
        merged = levels(
            content, style, content_weight=level, style_weight=level, content_rest=level, style_rest=level
        )
        for layer in SHAPES:
            assert error(merged, layer, level * (exact(content, layer) + exact(style, layer))) <= 1e-6


@TYPES
def test_a_table_is_spread_over_the_columns(dtype):
    """By layer or by column; what the pair does not share is passed over, what is missing is averaged."""
    content, style = adapter(1, 4, dtype), adapter(2, 6, dtype)
    queries = layers_of(SHAPES, ("query",))
    means = {layer: (torch.tensor([0.2 + i]), torch.tensor([0.9 - i])) for i, layer in enumerate(queries)}
    columns = {layer: (torch.rand(24), torch.rand(24)) for layer in queries}
    absent = {LAYER.replace("down", "up"): (torch.ones(1),) * 2}
    for gates in (means, columns):
        merged = merge(content, style, "table", coefficients={**gates, **absent}, style_weight=0.5)
        for layer in SHAPES:
            m_c, m_s = (m.double() for m in gates[layer]) if layer in gates else (0.5, 0.5)
            want = exact(content, layer) * m_c + 0.5 * exact(style, layer) * m_s
            assert error(merged, layer, want) <= max(TOLERANCE[dtype], 1e-6)


def test_float16_keeps_its_range():
    """A weight that one half-precision factor cannot hold is shared by both."""
    for weight, up, down in ((1e-4, 0.05, 0.02), (3e4, 1e-3, 8.0), (1.0, 0.1, 1e-5), (1e-3, 30.0, 2e-5)):
        content = adapter(1, 4, torch.float16, up=up, down=down)
        style = adapter(2, 4, torch.float16, up=up, down=down)
        merged = direct(content, style, content_weight=weight, style_weight=weight)
        for layer in SHAPES:
            want = weight * (exact(content, layer) + exact(style, layer))
            assert error(merged, layer, want) <= 2e-3, (weight, layer)
    huge = adapter(1, 4, torch.float16, up=100.0, down=100.0)
    with pytest.raises(LoRAError, match="overflows float16"):
        direct(huge, huge, content_weight=1e9)


@pytest.mark.parametrize("alpha", [1 / 64, 1e-4, 1e4])
def test_a_scale_that_had_to_be_folded_in_float32_fits_float16_again(alpha):
    """The reader multiplies up by alpha / rank in float32; the file that is written has the inputs' type."""
    halves = adapter(1, 4, torch.float16), adapter(2, 4, torch.float16)
    content, style = (LoRA({k: (u.float() * alpha, d) for k, (u, d) in lora.items()}) for lora in halves)
    merged = direct(content, style)
    for layer in SHAPES:
        assert merged[layer][0].dtype == merged[layer][1].dtype == torch.float16
        assert error(merged, layer, exact(content, layer) + exact(style, layer)) <= 2e-3


def test_types_are_promoted():
    merged = direct(adapter(1, dtype=torch.float16), adapter(2))
    assert merged[LAYER][0].dtype == merged[LAYER][1].dtype == torch.float32


@pytest.mark.parametrize("method", METHODS)
def test_inputs_stay_as_they_are_and_results_are_their_own(method):
    content, style = adapter(1), adapter(2)
    before = [{k: (u.clone(), d.clone()) for k, (u, d) in x.items()} for x in (content, style)]
    merge(content, style, method, **needed(method))
    for lora, old in zip((content, style), before, strict=True):
        assert all(torch.equal(a, b) for k in old for a, b in zip(lora[k], old[k], strict=True))


# NP-LoRA -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(
    "mu, directions", [(0.5, None), (math.inf, None), (2.0, 2), (math.inf, 1), (0.0, None)]
)
def test_np_lora_against_the_dense_formula(dtype, mu, directions):
    content, style = adapter(1, 4, dtype), adapter(2, 6, dtype)
    merged = np_lora(content, style, mu=mu, directions=directions, content_weight=0.9, style_weight=1.1)
    for layer in SHAPES:
        d_c, d_s = exact(content, layer), exact(style, layer)
        v = torch.linalg.svd(d_s).Vh[: directions or 6].mT
        share = 1 if math.isinf(mu) else mu / (1 + mu)
        want = 1.1 * d_s + 0.9 * (d_c - share * d_c @ v @ v.mT)
        assert error(merged, layer, want) <= TOLERANCE[dtype]


def test_np_lora_hard_projection_leaves_nothing_in_the_style():
    content, style = adapter(1), adapter(2)
    merged = np_lora(content, style, mu=math.inf)
    for layer in SHAPES:
        v = torch.linalg.svd(exact(style, layer)).Vh[:4].mT
        left = (exact(merged, layer) - exact(style, layer)) @ v
        assert float(left.norm() / exact(content, layer).norm()) < 1e-6


def test_np_lora_of_a_style_without_full_rank():
    content, style = adapter(1), adapter(2)
    style[LAYER] = style[LAYER][0], style[LAYER][1].clone().index_fill_(0, torch.tensor([1, 2]), 0)
    v = torch.linalg.svd(exact(style, LAYER)).Vh[:2].mT
    want = exact(style, LAYER) + exact(content, LAYER) @ (torch.eye(24, dtype=torch.float64) - v @ v.mT)
    assert error(np_lora(content, style, mu=math.inf), LAYER, want) <= 1e-6
    style[LAYER] = style[LAYER][0], torch.zeros_like(style[LAYER][1])
    assert error(np_lora(content, style, mu=math.inf), LAYER, exact(content, LAYER)) <= 1e-6


# TIES and DARE -------------------------------------------------------------------------------------------


def peft_merge(content, style, combination, weights, density=0.5, seed=0, **options):
    """The same merge by peft's `add_weighted_adapter`, on linear layers of the adapters' shapes."""
    from peft import LoraConfig, get_peft_model
    from peft.utils import set_peft_model_state_dict

    model = nn.Module()
    for layer in LINEAR:
        *path, leaf = layer.split(".")
        node = model
        for name in path:
            if not hasattr(node, name):
                node.add_module(name, nn.Module())
            node = getattr(node, name)
        node.add_module(leaf, nn.Linear(*LINEAR[layer][::-1], bias=False))
    order = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    dtype = content[order[0]][0].dtype
    rank = content[order[0]][1].shape[0]
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=order)
    wrapped = get_peft_model(model, config, adapter_name="content")
    wrapped.add_adapter("style", config)
    for name, lora in (("content", content), ("style", style)):
        state = {}
        for layer in order:
            state[f"base_model.model.{layer}.lora_A.weight"] = lora[layer][1]
            state[f"base_model.model.{layer}.lora_B.weight"] = lora[layer][0]
        set_peft_model_state_dict(wrapped, state, adapter_name=name)
    wrapped.to(dtype)
    inject = wrapped.base_model.inject_adapter

    def inject_then_seed(*args, **kwargs):  # the new adapter's own initialisation draws numbers as well
        inject(*args, **kwargs)
        torch.manual_seed(seed)

    wrapped.base_model.inject_adapter = inject_then_seed
    wrapped.add_weighted_adapter(
        ["content", "style"],
        list(weights),
        "merged",
        combination_type=combination,
        density=density,
        **options,
    )
    modules = dict(wrapped.base_model.model.named_modules())
    merged = {
        layer: (modules[layer].lora_B["merged"].weight.data, modules[layer].lora_A["merged"].weight.data)
        for layer in order
    }
    return order, merged


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("weights", [(0.5, 0.5), (1.0, -0.3)])
@pytest.mark.parametrize("ours, theirs", [(ties, "ties"), (dare, "dare_linear"), (dare_ties, "dare_ties")])
def test_factors_flavour_is_peft_to_the_last_bit(ours, theirs, weights, dtype):
    content, style = adapter(1, dtype=dtype, shapes=LINEAR), adapter(2, dtype=dtype, shapes=LINEAR)
    order, want = peft_merge(content, style, theirs, weights, density=0.4, seed=7)
    content, style = (LoRA({layer: lora[layer] for layer in order}) for lora in (content, style))
    options = {} if ours is ties else {"seed": 7}
    got = ours(
        content, style, density=0.4, flavour="factors",
        content_weight=weights[0], style_weight=weights[1], **options,
    )  # fmt: skip
    for layer in order:
        for x, y in zip(got[layer], want[layer], strict=True):
            assert x.dtype == y.dtype == dtype and torch.equal(x, y), layer


def best(delta, rank):
    u, s, vh = torch.linalg.svd(delta, full_matrices=False)
    return u[:, :rank] * s[:rank] @ vh[:rank]


def ties_reference(deltas, weights, density):
    """TIES by its definition, with loops over the two sides."""
    trimmed = []
    for d in deltas:
        threshold = d.abs().flatten().sort(descending=True).values[int(density * d.numel()) - 1]
        trimmed.append(torch.where(d.abs() >= threshold, d, 0.0))
    elected = torch.where(sum(trimmed) >= 0, 1.0, -1.0)
    total, count = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
    for d, w in zip(trimmed, weights, strict=True):
        total += torch.where(d.sign() == elected, w * d, 0.0)
        count += (d.sign() == elected).double()
    return total / count.clamp(min=1)


@pytest.mark.parametrize("rank", [None, 3])
def test_ties_of_the_update(rank):
    content, style = adapter(1, 4, torch.float64), adapter(2, 6, torch.float64)
    merged = ties(content, style, density=0.3, rank=rank, content_weight=0.5, style_weight=1.5)
    kept = total = 0.0
    for layer in SHAPES:
        want = ties_reference([exact(content, layer), exact(style, layer)], (0.5, 1.5), 0.3)
        assert error(merged, layer, best(want, rank or 10)) < 1e-6
        assert merged[layer][1].shape[0] == (rank or 10)
        kept, total = kept + best(want, rank or 10).square().sum(), total + want.square().sum()
    energy = json.loads(merged.metadata["lorarar_energy_kept"])["all"]
    assert energy == pytest.approx(float(kept / total), abs=2e-6)


@pytest.mark.parametrize("method", [dare, dare_ties])
def test_dare_of_the_update(method):
    content, style = (
        adapter(1, 24, shapes=LINEAR),
        adapter(2, 24, shapes=LINEAR),
    )  # full rank: nothing truncated
    merged = method(content, style, density=0.5, seed=3)
    again, other = method(content, style, density=0.5, seed=3), method(content, style, density=0.5, seed=4)
    assert all(torch.equal(merged[layer][0], again[layer][0]) for layer in LINEAR)
    assert not torch.equal(merged[LAYER][0], other[LAYER][0])
    torch.manual_seed(3)
    for layer in LINEAR:
        dropped = []
        for lora in (content, style):
            d = delta_weight(lora[layer])
            dropped.append((d * torch.bernoulli(torch.full_like(d, 0.5)) / 0.5).double())
        want = sum(dropped)
        if method is dare_ties:
            sign = torch.where(want >= 0, 1.0, -1.0)
            agree = [d.sign() == sign for d in dropped]
            want = sum(d * a for d, a in zip(dropped, agree, strict=True)) / sum(agree).clamp(min=1)
        assert error(merged, layer, want) < 1e-5


def test_density_one_prunes_nothing():
    content, style = adapter(1), adapter(2)
    merged = dare(content, style, density=1.0)
    assert all(error(merged, k, exact(content, k) + exact(style, k)) < 1e-5 for k in SHAPES)


# One-sided layers and refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_one_sided_layers_are_kept_with_their_weight(method):
    content, style = adapter(1), adapter(2, 6)
    text, conv = (
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
        "unet.down_blocks.1.resnets.0.conv1",
    )
    del style[text], content[conv]
    merged = merge(content, style, method, content_weight=0.25, style_weight=3.0, **needed(method))
    assert set(merged) == set(SHAPES)
    assert error(merged, text, 0.25 * exact(content, text)) < 1e-6
    assert error(merged, conv, 3.0 * exact(style, conv)) < 1e-6
    assert merged[conv][1].shape == style[conv][1].shape


def shifted(shape_of):
    return adapter(5, shapes={layer: shape_of(shape) for layer, shape in SHAPES.items()})


@pytest.mark.parametrize("method", METHODS)
def test_other_base_models_are_refused(method):
    options = needed(method)
    keys = [f"unet.{side}_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k" for side in ("up", "down")]
    linear = {n: shape for n, shape in SHAPES.items() if "attn2" not in n}
    one = adapter(1, shapes=linear | dict.fromkeys(keys, (24, 2048)))
    other = adapter(2, shapes={LAYER: SHAPES[LAYER]} | {n.replace(".1.", ".3."): (24, 768) for n in keys})
    with pytest.raises(LoRAError, match=r"different base models \((SDXL|KOALA) and SD 1\.x\)"):
        merge(one, other, method, **options)
    with pytest.raises(LoRAError, match="share no layer, and nothing in them says"):
        merge(*(LoRA({n: one[LAYER]}) for n in (LAYER, LAYER.replace("down", "up"))), method, **options)
    with pytest.raises(LoRAError, match="the style LoRA has no layer"):
        merge(adapter(1), LoRA(), method, **options)
    with pytest.raises(LoRAError, match=rf"layer {LAYER}: content updates a weight of shape \(24, 24\)") as e:
        merge(adapter(1), shifted(lambda shape: (shape[0], shape[1] + 1, *shape[2:])), method, **options)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "options, what",
    [
        ({"method": "average"}, "expected one of direct, levels, ties"),
        ({"method": "lorarar"}, "needs a hypernetwork"),
        ({"method": "ziplora"}, "needs coefficients"),
        ({"method": "ziplora", "coefficients": {}, "rest": "mean"}, "expected one of average, sum"),
        ({"method": "ziplora", "coefficients": {"a": (torch.ones(1),) * 2}}, "not in both LoRAs"),
        (
            {"method": "ziplora", "coefficients": {LAYER: (torch.ones(24), torch.ones(5))}},
            "expected \\(24,\\)",
        ),
        (
            {
                "method": "ziplora",
                "coefficients": {"unet.down_blocks.1.resnets.0.conv1": (torch.ones(8),) * 2},
            },
            "for a convolution",
        ),
        ({"method": "table"}, "table needs coefficients; make a table first"),
        ({"method": "table", "coefficients": {"a": (torch.ones(1),) * 2}}, "share no layer with the table"),
        ({"method": "table", "coefficients": {LAYER: (torch.ones(5),) * 2}}, "expected \\(24,\\)"),
        ({"method": "levels", "content_rest": math.nan}, "content_rest nan"),
        ({"method": "levels", "parts": ("queries",)}, "expected some of query, key, value, output"),
        ({"method": "ties", "density": 0.0}, "density 0.0"),
        ({"method": "dare", "density": math.nan}, "density nan"),
        ({"method": "dare", "density": 1.5}, "density 1.5"),
        ({"method": "ties", "flavour": "peft"}, "expected one of delta, factors"),
        ({"method": "np-lora", "mu": -1.0}, "mu -1"),
        ({"method": "np-lora", "mu": math.nan}, "mu nan"),
        ({"method": "np-lora", "directions": 0}, "directions 0"),
        ({"content_weight": math.nan}, "content_weight nan"),
        ({"style_weight": math.inf}, "style_weight inf"),
        ({"rank": 0}, "rank 0"),
    ],
)
def test_bad_options_get_one_clear_line(options, what):
    with pytest.raises(LoRAError, match=what) as e:
        merge(adapter(1), adapter(2), **options)
    assert "\n" not in str(e.value)


def test_levels_need_a_layer_to_weigh_apart():
    shapes = {"transformer.transformer_blocks.0.attn.to_q": (24, 24)}
    with pytest.raises(LoRAError, match=r"no attention layer of a UNet in these parts \(query, output\)"):
        levels(adapter(1, shapes=shapes), adapter(2, shapes=shapes))


def test_factors_flavour_needs_equal_ranks():
    with pytest.raises(LoRAError, match="ranks 4 and 6"):
        ties(adapter(1, 4), adapter(2, 6), flavour="factors")


def test_metadata_tells_how_it_was_made():
    merged = merge(adapter(1), adapter(2), "dare_ties", density=0.3, seed=5, rank=2)
    assert merged.metadata["lorarar_method"] == "dare-ties"
    options = json.loads(merged.metadata["lorarar_options"])
    assert options == {
        "density": 0.3, "flavour": "delta", "seed": 5, "content_weight": 1.0, "style_weight": 1.0, "rank": 2,
    }  # fmt: skip
    assert all(isinstance(value, str) for value in merged.metadata.values())


# Rank ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_rank_bounds_every_method(method):
    content, style = adapter(1, 4), adapter(2, 4)
    del style["unet.down_blocks.1.resnets.0.conv1"]
    merged = merge(content, style, method, rank=3, **needed(method))
    assert all(up.shape[1] == down.shape[0] == 3 for up, down in merged.values())
    assert 0 < json.loads(merged.metadata["lorarar_energy_kept"])["all"] <= 1


@TYPES
def test_compression_is_optimal(dtype):
    merged = direct(adapter(1, 4, dtype), adapter(2, 6, dtype))
    small = compress(merged, 5)
    kept = total = 0.0
    for layer in SHAPES:
        want = best(exact(merged, layer), 5)
        assert error(small, layer, want) <= 3 * TOLERANCE[dtype]
        assert small[layer][0].dtype == dtype
        kept, total = kept + want.square().sum(), total + exact(merged, layer).square().sum()
    energy = json.loads(small.metadata["lorarar_energy_kept"])
    assert energy["all"] == pytest.approx(float(kept / total), abs=2e-6)
    assert energy["lowest"] <= energy["all"] and energy["lowest_layer"] in SHAPES


def test_compression_of_what_is_small_changes_nothing():
    lora = adapter(1, 4)
    small = compress(lora, 4)
    assert all(small[layer][0] is lora[layer][0] for layer in SHAPES)
    assert json.loads(small.metadata["lorarar_energy_kept"])["all"] == 1


# Properties ----------------------------------------------------------------------------------------------

SIZES = st.integers(1, 9)
WEIGHTS = st.floats(-2, 2, allow_subnormal=False)
SEEDS = st.integers(0, 2**16)
QUICK = settings(max_examples=40, deadline=None)


@st.composite
def pairs(draw):
    """Two adapters of equal layers and any ranks, in float64."""
    shapes = {LAYER: (draw(SIZES), draw(SIZES)), "unet.other.conv": (draw(SIZES), draw(SIZES), 3, 3)}
    return tuple(adapter(draw(SEEDS), draw(SIZES), torch.float64, shapes, 1.0, 1.0) for _ in range(2))


def same(a, b, tolerance=1e-9):
    return all(torch.allclose(exact(a, k), exact(b, k), rtol=tolerance, atol=tolerance) for k in a)


@QUICK
@given(pairs(), WEIGHTS, WEIGHTS, WEIGHTS, WEIGHTS)
def test_direct_is_linear_in_the_weights(two, w_c, w_s, v_c, v_s):
    content, style = two
    one, other = (
        direct(content, style, content_weight=w_c, style_weight=w_s),
        direct(content, style, content_weight=v_c, style_weight=v_s),
    )
    both = direct(content, style, content_weight=w_c + v_c, style_weight=w_s + v_s)
    assert same(both, direct(one, other))


@QUICK
@given(pairs(), WEIGHTS, WEIGHTS, st.sampled_from(["direct", "ties", "ziplora"]))
def test_symmetric_methods_are_symmetric(two, w_c, w_s, method):
    content, style = two
    one = merge(content, style, method, coefficients={}, content_weight=w_c, style_weight=w_s)
    other = merge(style, content, method, coefficients={}, content_weight=w_s, style_weight=w_c)
    assert same(one, other, 1e-6)


@QUICK
@given(pairs(), SIZES)
def test_compression_error_is_the_dropped_singular_values(two, rank):
    merged = direct(*two)
    small = compress(merged, rank)
    for layer in merged:
        s = torch.linalg.svdvals(exact(merged, layer))
        ours = singular_values(merged[layer])
        n = min(len(s), len(ours))
        torch.testing.assert_close(ours[:n], s[:n], rtol=1e-9, atol=1e-9)
        assert small[layer][1].shape[0] <= min(rank, merged[layer][1].shape[0])
        missing = (exact(merged, layer) - exact(small, layer)).norm()
        torch.testing.assert_close(missing, s[rank:].norm(), rtol=1e-6, atol=1e-8)


@QUICK
@given(pairs(), st.floats(0, 10), WEIGHTS)
def test_np_lora_lies_between_direct_and_hard_projection(two, mu, weight):
    """The result moves on the straight line from the one to the other, by μ/(1+μ)."""
    content, style = two
    at = {m: np_lora(content, style, mu=m, content_weight=weight) for m in (0.0, mu, math.inf)}
    share = mu / (1 + mu)
    line = direct(at[0.0], at[math.inf], content_weight=1 - share, style_weight=share)
    assert same(at[mu], line, 1e-8)


# In diffusers --------------------------------------------------------------------------------------------


def image(pipe):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.as_tensor(
            pipe(
                "a red dog", num_inference_steps=3, output_type="np", guidance_scale=3.0,
                generator=torch.Generator().manual_seed(0),
            ).images
        )  # fmt: skip


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.7, 1.2)])
def test_a_merged_file_gives_the_images_of_two_active_adapters(tmp_path, weights):
    from tiny import tiny_pipeline

    pipe = tiny_pipeline()
    shapes = {
        f"{component}.{name}": tuple(module.weight.shape)
        for component, ends in (("unet", ("to_q", "to_k", "to_v", "to_out.0")), ("text_encoder", ("q_proj",)))
        for name, module in getattr(pipe, component).named_modules()
        if name.endswith(ends)
    }
    shapes = {
        k.replace("text_encoder.encoder", "text_encoder.text_model.encoder"): s for k, s in shapes.items()
    }
    content, style = adapter(1, 4, shapes=shapes), adapter(2, 6, shapes=shapes)
    merged = merge(content, style, content_weight=weights[0], style_weight=weights[1])
    for name, lora in (("content", content), ("style", style), ("merged", merged)):
        save_lora(lora, tmp_path / f"{name}.safetensors")
    plain = image(pipe)
    for name in ("content", "style"):
        pipe.load_lora_weights(tmp_path / f"{name}.safetensors", adapter_name=name)
    pipe.set_adapters(["content", "style"], list(weights))
    two = image(pipe)
    pipe.unload_lora_weights()
    pipe.load_lora_weights(tmp_path / "merged.safetensors", adapter_name="merged")
    one = image(pipe)
    assert float((two - plain).abs().max()) > 1e-2  # the adapters do something
    assert float((one - two).abs().max()) <= 1e-5


# ---------------------------------------------------------------------------------------------------------
# Files


@pytest.mark.parametrize("format", ["diffusers", "kohya"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("method", ["direct", "lorarar", "ziplora"])
def test_written_while_it_is_made_it_is_the_same_file(method, threads, format, tmp_path):
    names = [f"unet.down_blocks.1.attentions.0.transformer_blocks.{n}.attn1.{m}" for n in (0, 1, 2)
             for m in ("to_q", "to_k")]  # fmt: skip
    shapes = dict.fromkeys(names, (24, 24))
    content, style = adapter(1, 4, torch.float16, shapes), adapter(2, 6, torch.float16, shapes)
    del style[names[-1]], content[names[0]]  # a layer that only one of them has
    gates = {names[2]: (torch.rand(24), torch.rand(24))}
    options = {"lorarar": {"hypernetwork": Hypernetwork([48], 8)}, "ziplora": {"coefficients": gates}}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for later in (False, True):
            merged = merge(content, style, method, content_weight=0.7, later=later, **options.get(method, {}))
            assert isinstance(merged, Outline) == later
            save_lora(merged, tmp_path / f"{later}.safetensors", format=format)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    whole = (tmp_path / "False.safetensors").read_bytes()
    assert whole == (tmp_path / "True.safetensors").read_bytes()


def test_what_goes_wrong_while_it_is_made_leaves_nothing(tmp_path):
    huge = adapter(1, dtype=torch.float16, up=1e3, down=1e3)
    merged = direct(huge, huge, content_weight=1e9, later=True)
    with pytest.raises(LoRAError, match="overflows float16"):
        save_lora(merged, tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_rank_and_pruning_methods_are_made_at_once():
    for options in ({"rank": 2}, {"method": "ties"}):
        assert not isinstance(merge(adapter(1), adapter(2), later=True, **options), Outline)


@pytest.mark.parametrize("later", [False, True])
def test_alpha_1_at_rank_64_is_exact_in_a_float16_file(tmp_path, later):
    """alpha / rank = 1/64 takes up, 3e-4, to where half precision has no digits left."""
    shapes = {LAYER: (96, 80)}
    raw = [adapter(seed, 64, torch.float16, shapes, up=3e-4) for seed in (1, 2)]
    sides = []
    for number, lora in enumerate(raw):
        name = "lora_unet_" + LAYER.removeprefix("unet.").replace(".", "_")
        up, down = lora[LAYER]
        tensors = {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
        save_file({**tensors, f"{name}.alpha": torch.tensor(1.0)}, tmp_path / f"{number}.safetensors")
        sides.append(load_lora(tmp_path / f"{number}.safetensors"))
    save_lora(direct(*sides, later=later), tmp_path / "out.safetensors")
    written = load_lora(tmp_path / "out.safetensors")
    assert {x.dtype for x in written[LAYER]} == {torch.float16}
    assert error(written, LAYER, sum(exact(lora, LAYER) for lora in raw) / 64) <= 2e-3


def test_casting_to_float16_keeps_small_numbers(tmp_path):
    lora = adapter(1, up=1e-7)
    save_lora(lora, tmp_path / "half.safetensors", dtype=torch.float16)
    written = load_lora(tmp_path / "half.safetensors")
    for layer in SHAPES:
        assert written[layer][0].dtype == torch.float16
        assert error(written, layer, exact(lora, layer)) <= 2e-3
