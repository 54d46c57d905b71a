"""RegMean against dense least squares in float64, and the inputs it goes by against recorded ones."""

import numpy as np
import pytest
import torch
from test_objective import CONTENT, STYLE, adapter
from tiny import tiny_pipeline

from lorarar.cli.program import main
from lorarar.lora import LoRA, LoRAError, delta_weight, load_lora, save_lora
from lorarar.merging import merge, regmean
from lorarar.pipelines import generate, loaded
from lorarar.train import Trained, own_inputs, pictured_inputs

LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


def factors(seed, out=7, rank=3, columns=5):
    source = torch.Generator().manual_seed(seed)
    return LoRA(
        {LAYER: (torch.randn(out, rank, generator=source), torch.randn(rank, columns, generator=source))}
    )


def given(seed, columns=5, count=40):
    source = torch.Generator().manual_seed(seed)
    mixed = torch.randn(count, columns, generator=source) @ torch.randn(columns, columns, generator=source)
    return mixed.double()


def moment(x):
    return x.T @ x / len(x)


def dense(lora):
    return delta_weight(lora[LAYER]).double()


def test_the_merge_is_the_least_squares_answer_on_both_sides_inputs():
    content, style = factors(0), factors(1, rank=2)
    x_c, x_s = given(2), given(3)
    merged = regmean(content, style, ({LAYER: moment(x_c)}, {LAYER: moment(x_s)}), ridge=1e-12)
    assert merged[LAYER][1].shape[0] == 5  # r_c + r_s: nothing dense
    # Stack what either LoRA answers to its own inputs and let numpy find the map that answers so.
    inputs = torch.cat([x_c, x_s])
    answers = torch.cat([x_c @ dense(content).T, x_s @ dense(style).T])
    expected = np.linalg.lstsq(inputs.numpy(), answers.numpy(), rcond=None)[0].T
    assert dense(merged).numpy() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_by_columns_it_is_the_least_squares_answer_of_that_form():
    content, style = factors(0), factors(1, rank=2)
    x_c, x_s = given(2), given(3)
    inputs = {LAYER: moment(x_c)}, {LAYER: moment(x_s)}
    merged = regmean(content, style, inputs, ridge=1e-12, columns=True)
    assert merged[LAYER][1].shape[0] == 5
    # What each column of either update answers to all inputs is a regressor, and numpy weighs them.
    columns = torch.cat([dense(content).T, dense(style).T])
    regressors = torch.cat([torch.cat([x_c, x_s]), torch.cat([x_c, x_s])], 1)[..., None] * columns
    answers = torch.cat([x_c @ dense(content).T, x_s @ dense(style).T])
    a, b = regressors.transpose(1, 2).reshape(-1, 10).numpy(), answers.reshape(-1).numpy()
    m = torch.from_numpy(np.linalg.lstsq(a, b, rcond=None)[0])
    assert dense(merged) == pytest.approx(dense(content) * m[:5] + dense(style) * m[5:], rel=1e-4, abs=1e-5)
    by_matrix = regmean(content, style, inputs, ridge=1e-12)
    gaps = [
        sum(((dense(one) - dense(lora)) @ x.T).square().sum() for lora, x in ((content, x_c), (style, x_s)))
        for one in (by_matrix, merged, regmean(content, style, inputs, ridge=1e9))
    ]
    assert gaps == sorted(gaps)  # a matrix does best, then columns, then the average
    average = (dense(content) + dense(style)) / 2
    far = regmean(content, style, inputs, ridge=1e9, columns=True)
    assert dense(far) == pytest.approx(average, rel=1e-4, abs=1e-5)


def test_by_columns_layers_without_an_update_and_a_second_answer():
    untrained = LoRA({LAYER: (torch.zeros(7, 3), factors(0)[LAYER][1])})
    inputs = {LAYER: moment(given(2))}, {LAYER: moment(given(3))}
    assert not dense(regmean(untrained, untrained, inputs, columns=True)).any()
    assert dense(regmean(untrained, factors(1), inputs, columns=True)).isfinite().all()
    with pytest.raises(LoRAError, match="give one of them"):
        regmean(factors(0), factors(1), inputs, columns=True, fusion_steps=3)


def test_inputs_that_never_meet_let_both_keep_their_answers():
    content, style = factors(0), factors(1)
    x_c, x_s = given(2), given(3)
    x_c[:, 3:], x_s[:, :3] = 0, 0
    merged = regmean(content, style, ({LAYER: moment(x_c)}, {LAYER: moment(x_s)}), ridge=1e-9)
    for lora, x in ((content, x_c), (style, x_s)):
        assert x @ dense(merged).T == pytest.approx(x @ dense(lora).T, rel=1e-4, abs=1e-4)


def test_without_limit_the_ridge_gives_the_average_and_equal_inputs_do_so_at_once():
    content, style = factors(0), factors(1)
    average = (dense(content) + dense(style)) / 2
    inputs = {LAYER: moment(given(2))}, {LAYER: moment(given(3))}
    assert dense(regmean(content, style, inputs, ridge=1e9)) == pytest.approx(average, rel=1e-4, abs=1e-5)
    same = inputs[0], inputs[0]
    assert dense(regmean(content, style, same)) == pytest.approx(average, rel=1e-4, abs=1e-5)
    assert dense(regmean(content, style, inputs)) != pytest.approx(average, rel=1e-2)


def test_weights_and_layers_without_moments():
    content, style = factors(0), factors(1)
    extra = {"unet.conv_in": (torch.ones(2, 1, 1, 1), torch.ones(1, 3, 1, 1))}
    content, style = LoRA(dict(content) | extra), LoRA(dict(style) | extra)
    inputs = {LAYER: moment(given(2))}, {LAYER: moment(given(3))}
    plain = merge(content, style, "regmean", inputs=inputs)
    assert plain.metadata["lorarar_method"] == "regmean" and "ridge" in plain.metadata["lorarar_options"]
    twice = merge(content, style, "regmean", inputs=inputs, content_weight=2, style_weight=2)
    assert dense(twice) == pytest.approx(2 * dense(plain), rel=1e-5)
    for rest, share in (("average", 1.0), ("sum", 2.0)):
        found = merge(content, style, "regmean", inputs=inputs, rest=rest)["unet.conv_in"]
        assert float((found[0].flatten(1) @ found[1].flatten(1)).mean()) == pytest.approx(share)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (None, "needs what the layers are given"),
        (({}, {}), "no layer whose inputs are known"),
        (({LAYER: torch.eye(4)},) * 2, r"attn1.to_q: second moments of shape \(4, 4\), expected \(5, 5\)"),
    ],
)
def test_refusals(inputs, said):
    with pytest.raises(LoRAError, match=said):
        merge(factors(0), factors(1), "regmean", inputs=inputs)


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


@pytest.mark.slow
def test_own_inputs_are_the_moments_of_what_passes_by(pipe):
    lora, prompt = adapter(pipe, 0), "a sks cat"
    found = own_inputs(pipe, lora, [prompt, "a cat"], pictures=3, drawing_steps=2, seed=5)
    assert set(found) == set(lora)
    seen = {layer: [] for layer in found}
    with loaded(pipe, lora):
        handles = [
            pipe.unet.get_submodule(layer.removeprefix("unet.")).register_forward_hook(
                lambda _, x, __, layer=layer: seen[layer].append(x[0].reshape(-1, x[0].shape[-1]).double())
            )
            for layer in found
        ]
        generate(pipe, [prompt, "a cat", prompt], [5, 6, 7], steps=2, guidance=1.0)
        for handle in handles:
            handle.remove()
    for layer, passed in seen.items():
        assert found[layer].double() == pytest.approx(moment(torch.cat(passed)), rel=1e-3, abs=1e-4)
    keys = [layer for layer in found if layer.endswith(("attn2.to_k", "attn2.to_v"))]
    assert len({id(found[layer]) for layer in keys}) == 1  # one text for all
    assert not pipe.get_list_adapters()


def test_inputs_of_a_training_set_follow_the_seed(pipe):
    side = Trained(adapter(pipe, 0), *CONTENT)
    one, again, other = (pictured_inputs(pipe, side, 3, seed) for seed in (0, 0, 1))
    assert set(one) == set(side.lora)
    layer = next(layer for layer in one if layer.endswith("attn1.to_q"))
    assert torch.equal(one[layer], again[layer]) and not torch.equal(one[layer], other[layer])
    style = pictured_inputs(pipe, Trained(adapter(pipe, 1), *STYLE), 3, 0)
    assert not torch.allclose(one[layer], style[layer], rtol=1e-3)


def test_a_lora_without_a_prompt_is_asked_for_one(pipe):
    with pytest.raises(ValueError, match="Give the prompt"):
        own_inputs(pipe, adapter(pipe, 0), [])


# ---------------------------------------------------------------------------------------------------------
# The command


@pytest.fixture(scope="module")
def home(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    pipe.save_pretrained(folder / "base")
    for seed, name in enumerate(("cat", "oil")):
        save_lora(adapter(pipe, seed), folder / f"{name}.safetensors")
    return folder


def words(home, *more):
    files = [home / "cat.safetensors", home / "oil.safetensors"]
    said = ["--content-prompt", "a sks cat", "--style-prompt", "a dog in oil", "a vase in oil"]
    asked = ["--pictures", 2, "--drawing-steps", 2, "--base", home / "base", "--device", "cpu"]
    return [str(word) for word in ("regmean", *files, *said, *asked, *more)]


@pytest.mark.slow
def test_the_command_writes_what_the_functions_find(home, pipe, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    assert main(words(home, "-o", out, "--ridge", "0.01")) == 0
    assert f"{out}: regmean, 64 layers by their inputs" in capsys.readouterr().out
    two = [load_lora(home / f"{name}.safetensors") for name in ("cat", "oil")]
    said = "a sks cat", ["a dog in oil", "a vase in oil"]
    inputs = tuple(
        own_inputs(pipe, lora, of, pictures=2, drawing_steps=2) for lora, of in zip(two, said, strict=True)
    )
    expected, found = merge(*two, "regmean", inputs=inputs, ridge=0.01), load_lora(out)
    for layer in expected:
        both = [delta_weight(lora[layer]) for lora in (found, expected)]
        assert both[0] == pytest.approx(both[1], rel=1e-3, abs=1e-4)
    assert found.metadata["lorarar_method"] == "regmean"
    assert found.metadata["lorarar_command"].startswith("lorarar regmean cat.safetensors oil.safetensors")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("-o", "absent/out"), "its folder does not exist"),
        (("-o", "out", "--ridge", "0"), "ridge must be"),
        (("-o", "out", "--pictures", "0"), "pictures must be"),
        (("-o", "out", "--base", "absent"), "no model folder absent"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(home, tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.chdir(tmp_path)
    assert main(words(home, *more)) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_lora_for_another_base_is_named(home, tmp_path, capsys):
    other = {"unet.elsewhere.to_q": (torch.zeros(4, 2), torch.zeros(2, 4))}
    save_lora(LoRA(other), tmp_path / "other.safetensors")
    asked = words(home, "-o", tmp_path / "out.safetensors")
    asked[2] = str(tmp_path / "other.safetensors")
    assert main(asked) == 2
    assert "other.safetensors: " in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()
