"""Methods that choose while they sample, against weights put in by hand."""

import copy

import numpy as np
import pytest
import torch
from test_klora import adapter, dense
from tiny import tiny_pipeline

from lorarar import estlora, klora, switching
from lorarar.lora import LoRA, LoRAError
from lorarar.pipelines import generate, loaded

pytestmark = pytest.mark.slow

PROMPTS = ["a dog in oil painting style", "a cat", "a can"]
SEEDS = [3, 1, 4]
SETTINGS = {"steps": 4, "guidance": 3.0}


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def content(pipe):
    return adapter(pipe, 0, 2, 0.05)


@pytest.fixture(scope="module")
def style(pipe):
    return adapter(pipe, 1, 3, 0.01)


def made(pipe, applied):
    with applied:
        return generate(pipe, PROMPTS, SEEDS, **SETTINGS)


def apart(one, other):
    return np.abs(one.astype(int) - other).max()


def by_hand(pipe, put):
    """Every image by itself; ``put(unet, step)`` sets the weights, and gives a second step's or None."""
    images = []
    for prompt, seed in zip(PROMPTS, SEEDS, strict=True):
        theirs = copy.deepcopy(pipe)
        steps = iter(range(99))
        answer = theirs.unet.forward

        def forward(*arguments, _answer=answer, _steps=steps, _unet=theirs.unet, **named):
            return put(_unet, next(_steps), lambda: _answer(*arguments, **named))

        theirs.unet.forward = forward
        images.append(generate(theirs, prompt, seed, **SETTINGS)[0])
    return np.stack(images)


def weighted(unet, base, loras, weights):
    """Put base + Σ w·ΔW into every layer, from float64."""
    for layer in loras[0]:
        delta = sum(w * dense(lora[layer]) for w, lora in zip(weights, loras, strict=True))
        unet.get_submodule(layer[5:]).weight.data = (base[layer] + torch.from_numpy(delta)).float()


def weights_of(pipe, lora):
    return {layer: pipe.unet.get_submodule(layer[5:]).weight.detach().double().clone() for layer in lora}


def test_turns_are_the_papers_equation():
    for every in (1, 2, 5):
        want = [((t - 1) % (2 * every)) // every + 1 for t in range(1, 17)]
        assert (switching.turns(16, every=every) == (np.array(want) == 1)).all()
    assert switching.turns(16).sum() == 10, "content for 1–5 and 11–15"
    with pytest.raises(LoRAError, match="every 0: expected at least 1"):
        switching.turns(16, every=0)


def test_lora_switch_is_one_lora_at_a_time(pipe, content, style):
    base = weights_of(pipe, content)

    def put(unet, step, answer):
        first = step % 2 == 0
        weighted(unet, base, (content, style), (float(first), float(not first)))
        return answer()

    choices = lambda steps: switching.turns(steps, every=1)[:, None]  # noqa: E731
    got = made(pipe, switching.scheduled(pipe, content, style, choices))
    assert apart(got, by_hand(pipe, put)) <= 1
    assert apart(got, made(pipe, loaded(pipe, content, style))) > 3, "not the sum"


def test_lora_composite_is_the_average_of_two_guided_answers(pipe, content, style):
    base = weights_of(pipe, content)

    def put(unet, _, answer):
        said = []
        for weights in ((1.0, 0.0), (0.0, 1.0)):
            weighted(unet, base, (content, style), weights)
            said.append(answer()[0].double())
        return ((sum(said) / 2).float(),)

    got = made(pipe, switching.composed(pipe, content, style))
    assert apart(got, by_hand(pipe, put)) <= 1
    halves = made(pipe, loaded(pipe, content, style, weights=[0.5, 0.5]))
    assert apart(got, halves) > 3, "not half of the sum"


def kl(base, changed):
    """Word for word: KL of softmax over channels, the mean of the places, in float64."""
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (base, changed))
    return (p * np.log(p / q)).sum(-1).mean(tuple(range(1, p.ndim - 1)))


def test_divergence_is_the_formula():
    draw = np.random.default_rng(0)
    base, changed = draw.normal(size=(2, 3, 5, 7))
    found = switching.divergence(torch.tensor(base), torch.tensor(changed))
    assert found.shape == (3,) and np.allclose(found, kl(base, changed), atol=1e-6)
    picture = [torch.tensor(x.transpose(0, 2, 1).reshape(3, 7, 5, 1)) for x in (base, changed)]
    assert torch.allclose(switching.divergence(*picture), found)
    assert not switching.divergence(picture[0], picture[0]).abs().max() > 1e-6


def test_selection_takes_the_lora_that_moves_a_layer_more(pipe, content, style):
    """By hooks of our own on the bare network: base + the update whose divergence is larger, per sample."""
    louder = LoRA({layer: (5 * up, down) for layer, (up, down) in style.items()})  # so that both are taken
    theirs = copy.deepcopy(pipe)
    taken = []
    for layer in content:
        deltas = [torch.from_numpy(dense(lora[layer])).float() for lora in (content, louder)]

        def select(_, arguments, base, deltas=deltas):
            both = [arguments[0] @ delta.T for delta in deltas]
            of = [kl(*(x.double().numpy() for x in (base, base + update))) for update in both]
            taken.append(of[0] >= of[1])
            return base + torch.stack(
                [both[0 if one else 1][i] for i, one in enumerate(taken[-1])]
            )  # sample by sample

        theirs.unet.get_submodule(layer[5:]).register_forward_hook(select)
    want = generate(theirs, PROMPTS, SEEDS, **SETTINGS)
    got = made(pipe, switching.selected(pipe, content, louder))
    assert apart(got, want) <= 1
    assert 0.1 < np.concatenate(taken).mean() < 0.9, "both are taken"
    with switching.selected(pipe, content, louder):
        alone = [generate(pipe, p, s, **SETTINGS)[0] for p, s in zip(PROMPTS, SEEDS, strict=True)]
    assert apart(np.stack(alone), got) <= 1, "an image does not depend on its batch"


def test_est_lora_compares_energies(content, style):
    gamma = np.array([np.abs(dense(content[x])).sum() / np.abs(dense(style[x])).sum() for x in content])
    gamma = gamma[gamma < 3 * gamma.mean()].mean()
    chosen = klora.choices(estlora.ratios(content, style), 10, alpha=1.5, beta=0.3)
    for step in range(10):
        scale = 1.5 * step / 10 + 0.3
        want = [
            np.linalg.norm(dense(content[x])) ** 2 / gamma > scale * np.linalg.norm(dense(style[x])) ** 2
            for x in content
        ]
        assert chosen[step].tolist() == want
    assert 0 < chosen.mean() < 1
    louder = LoRA({layer: (2 * up, down) for layer, (up, down) in content.items()})
    more = klora.choices(estlora.ratios(louder, style), 10, alpha=1.5, beta=0.3)
    assert more.mean() > chosen.mean(), "γ takes out one factor of two"


@pytest.mark.parametrize("way", [switching.composed, switching.selected])
def test_the_pipeline_is_left_as_it_was(pipe, content, style, way):
    before = generate(pipe, "a dog", 1, steps=2)
    with pytest.raises(RuntimeError, match="stop"), way(pipe, content, style):
        assert apart(generate(pipe, "a dog", 1, steps=2), before) > 0
        raise RuntimeError("stop")
    assert np.array_equal(generate(pipe, "a dog", 1, steps=2), before)
    assert not pipe.unet._forward_hooks and not pipe.get_list_adapters()


@pytest.mark.parametrize("way", [switching.composed, switching.selected])
def test_a_layer_of_one_lora_keeps_it(pipe, content, style, way):
    """With the style's only shared layer silent, all that is heard is the content's other layers."""
    one, *others = content
    rest = LoRA({layer: content[layer] for layer in others})
    up, down = content[one]
    silent = LoRA({one: (0 * up, down)})
    with loaded(pipe, rest):
        want = generate(pipe, "a dog", 1, **SETTINGS)
    both = LoRA({one: (0 * up, down), **rest})
    with way(pipe, both, silent):
        got = generate(pipe, "a dog", 1, **SETTINGS)
    assert apart(got, want) <= 1
