"""Mix-of-Show's gradient fusion against dense least squares and against L-BFGS on the whole weight."""

import numpy as np
import pytest
import torch
from test_regmean import LAYER, dense, factors, given, moment

from lorarar.lora import LoRA, LoRAError
from lorarar.merging import merge, regmean

KEY = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


def small(seed, rank=3):
    """Factors whose gradients are so small that the first step does not depend on the coordinates."""
    up, down = factors(seed, rank=rank)[LAYER]
    return LoRA({LAYER: (0.02 * up.double(), 0.02 * down.double())})


def moments(x_c, x_s, layer=LAYER):
    return {layer: moment(x_c)}, {layer: moment(x_s)}


def objective(update, loras, inputs):
    """Word for word: Σ_i ‖ΔW_i X_i − ΔW X_i‖², a mean over inputs and entries of an answer."""
    errors = [(x @ (update - dense(lora)).T).square() for lora, x in zip(loras, inputs, strict=True)]
    return float(torch.cat(errors).mean())


def by_the_weight(loras, inputs, steps):
    """As the paper has it: L-BFGS on W, from W_0, with single inputs and automatic gradients."""
    start = torch.randn(7, 5, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    x = torch.cat(inputs)
    wanted = torch.cat([x @ (start + dense(lora)).T for lora, x in zip(loras, inputs, strict=True)])
    weight = start.clone().requires_grad_()

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.mse_loss(x @ weight.T, wanted)
        value.backward()
        return value

    optimizer = torch.optim.LBFGS(
        [weight], max_iter=steps, max_eval=1000, history_size=25, line_search_fn="strong_wolfe",
        tolerance_grad=0, tolerance_change=0,
    )  # fmt: skip
    optimizer.step(loss)
    return weight.detach() - start


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_every_step_is_that_of_the_whole_weight(steps):
    loras, inputs = (small(0), small(1, rank=2)), (given(2), given(3))
    merged = regmean(*loras, moments(*inputs), fusion_steps=steps)
    expected = by_the_weight(loras, inputs, steps)
    assert dense(merged) == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert merged[LAYER][1].shape[0] == 5, "r_c + r_s: nothing dense"


def test_many_steps_arrive_at_the_answer_of_regmean():
    loras, inputs = (factors(0), factors(1, rank=2)), (given(2), given(3))
    x = torch.cat(inputs)
    answers = torch.cat([x @ dense(lora).T for lora, x in zip(loras, inputs, strict=True)])
    expected = np.linalg.lstsq(x.numpy(), answers.numpy(), rcond=None)[0].T
    merged = regmean(*loras, moments(*inputs), fusion_steps=300)
    assert dense(merged).numpy() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    closed = regmean(*loras, moments(*inputs), ridge=1e-12)
    assert dense(merged) == pytest.approx(dense(closed), rel=1e-4, abs=1e-5)


def test_few_steps_leave_something_of_the_base():
    loras, inputs = (small(0), small(1)), (given(2), given(3))
    found = [dense(regmean(*loras, moments(*inputs), fusion_steps=n)) for n in (1, 2, 4, 100)]
    errors = [objective(update, loras, inputs) for update in (torch.zeros(7, 5), *found)]
    assert errors == sorted(errors, reverse=True) and len(set(errors)) == len(errors)
    assert found[0].norm() < found[-1].norm()


def test_a_layer_that_reads_the_text_gets_ten_times_as_many_steps():
    loras, inputs = (small(0), small(1)), (given(2), given(3))
    named = [LoRA({KEY: lora[LAYER]}) for lora in loras]
    reads = regmean(*named, moments(*inputs, KEY), fusion_steps=1)[KEY]
    plain = regmean(*loras, moments(*inputs), fusion_steps=10)[LAYER]
    assert all(torch.equal(one, other) for one, other in zip(reads, plain, strict=True))


def test_weights_multiply_what_is_to_be_answered():
    (content, style), inputs = (small(0), small(1)), (given(2), given(3))
    merged = regmean(content, style, moments(*inputs), fusion_steps=100, content_weight=2, style_weight=0.5)
    up, down = content[LAYER]
    lower, other = style[LAYER]
    by_hand = LoRA({LAYER: (up, 2 * down)}), LoRA({LAYER: (lower, 0.5 * other)})
    assert dense(merged) == pytest.approx(
        dense(regmean(*by_hand, moments(*inputs), ridge=1e-12)), rel=1e-3, abs=1e-7
    )


def test_half_precision_goes_in_and_comes_out():
    loras, inputs = (factors(0), factors(1)), (given(2), given(3))
    halves = [LoRA({LAYER: tuple(x.half() for x in lora[LAYER])}) for lora in loras]
    merged = merge(*halves, "regmean", inputs=moments(*inputs), fusion_steps=50)
    assert merged[LAYER][0].dtype == merged[LAYER][1].dtype == torch.float16
    assert '"fusion_steps": 50' in merged.metadata["lorarar_options"]
    assert dense(merged) == pytest.approx(
        dense(regmean(*loras, moments(*inputs), fusion_steps=50)), rel=0.02, abs=0.02
    )


def test_steps_must_be_some():
    with pytest.raises(LoRAError, match="fusion_steps must be a whole number of at least 1, not 0"):
        regmean(factors(0), factors(1), moments(given(2), given(3)), fusion_steps=0)
