"""K-LoRA against a dense float64 reference: what each layer takes at each step, and the images."""

import copy

import numpy as np
import psutil
import pytest
import torch
from diffusers import EulerDiscreteScheduler, HeunDiscreteScheduler
from tiny import tiny_pipeline

from lorarar import klora
from lorarar.lora import LoRA, LoRAError
from lorarar.pipelines import generate, loaded
from lorarar.train.dreambooth import adapted

pytestmark = pytest.mark.slow

PROMPTS = ["a dog in oil painting style", "a cat", "a can"]
SEEDS = [3, 1, 4]


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


def adapter(pipe, seed, rank, strength):
    """A LoRA for the tiny pipeline's attention whose layers differ in strength by up to ten times."""
    draw = torch.Generator().manual_seed(seed)
    with adapted(pipe, rank) as factors:
        shapes = {layer: (len(up), down.shape[1]) for layer, (up, down) in factors.items()}
    return LoRA(
        {
            layer: (
                torch.randn(out, rank, generator=draw)
                * strength
                * 10 ** torch.rand(1, generator=draw).item(),
                torch.randn(rank, into, generator=draw),
            )
            for layer, (out, into) in shapes.items()
        }
    )


@pytest.fixture(scope="module")
def content(pipe):
    return adapter(pipe, 0, 2, 0.05)


@pytest.fixture(scope="module")
def style(pipe):
    return adapter(pipe, 1, 3, 0.01)


def dense(pair):
    up, down = (x.double().numpy() for x in pair)
    return up @ down


def reference(content, style, step, steps, k=None, gamma=None):
    """The paper's rule, word for word, in float64: layer → the update that it takes."""
    both = {layer: (dense(content[layer]), dense(style[layer])) for layer in content}
    if gamma is None:
        gamma = np.divide(*(sum(np.abs(pair[i]).sum() for pair in both.values()) for i in (0, 1)))
    taken = {}
    for layer, (c, s) in both.items():
        many = k or content[layer][1].shape[0] * style[layer][1].shape[0]
        s_c, s_s = (np.sort(np.abs(x), axis=None)[-many:].sum() for x in (c, s))
        taken[layer] = "content" if s_c >= s_s * (1.5 * step / steps + 0.5) * gamma else "style"
    return taken


@pytest.mark.parametrize("steps", [1, 4, 16])
@pytest.mark.parametrize("k", [None, 1, 64, 10**9])
def test_choices_are_the_papers(content, style, steps, k):
    claims = klora.ratios(content, style, k=k)
    chosen = klora.choices(claims, steps)
    assert chosen.shape == (steps, len(content)) and list(claims) == list(content)
    for step in range(steps):
        want = reference(content, style, step, steps, k)
        assert ["content" if c else "style" for c in chosen[step]] == list(want.values())
    if steps == 16:
        assert 0 < chosen.mean() < 1, "both are taken somewhere"
        assert chosen[0].sum() > chosen[-1].sum(), "the content early, the style late"
        assert (np.diff(chosen.astype(int), axis=0) <= 0).all(), "no layer goes back to the content"


def test_a_stronger_lora_is_not_taken_more_often(content, style):
    """γ takes a common factor out."""
    louder = LoRA({layer: (7 * up, down) for layer, (up, down) in style.items()})
    one, other = (list(klora.ratios(content, s).values()) for s in (style, louder))
    assert np.allclose(one, other, rtol=1e-5)


def test_balance_of_the_released_code(content, style):
    each = np.array([np.abs(dense(content[x])).sum() / np.abs(dense(style[x])).sum() for x in content])
    gamma = each[each < 3 * each.mean()].mean()
    assert gamma < each.mean(), "a layer was left out"
    chosen = klora.choices(klora.ratios(content, style, balance="mean", k=64), 10)
    for step in range(10):
        want = reference(content, style, step, 10, 64, gamma)
        assert ["content" if c else "style" for c in chosen[step]] == list(want.values())


def merged_by_hand(pipe, content, style, prompt, seed, steps):
    """One image, each step with the base's weights plus the dense update of that step's choice."""
    theirs = copy.deepcopy(pipe)
    base = {layer: theirs.unet.get_submodule(layer[5:]).weight.detach().double() for layer in content}
    calls = []

    def put(*_):  # these schedulers call the network once a step
        calls.append(len(calls))
        for layer, side in reference(content, style, calls[-1], steps).items():
            update = torch.from_numpy(dense({"content": content, "style": style}[side][layer]))
            theirs.unet.get_submodule(layer[5:]).weight.data = (base[layer] + update).float()

    theirs.unet.register_forward_pre_hook(put)
    scale = {"num_inference_steps": steps, "guidance_scale": 3.0, "output_type": "np"}
    image = theirs(prompt, generator=torch.Generator().manual_seed(seed), **scale).images
    return image, calls


@pytest.mark.parametrize("schedule", [None, EulerDiscreteScheduler])
def test_images_are_those_of_the_dense_choice(pipe, content, style, schedule):
    if schedule:
        pipe = copy.deepcopy(pipe)
        pipe.scheduler = schedule.from_config(pipe.scheduler.config, rescale_betas_zero_snr=False)
    made = klora.generate(
        pipe, PROMPTS, SEEDS, content=content, style=style, steps=5, guidance=3.0, batch_size=2
    )
    for image, prompt, seed in zip(made, PROMPTS, SEEDS, strict=True):
        want, calls = merged_by_hand(pipe, content, style, prompt, seed, 5)
        assert calls == [0, 1, 2, 3, 4]
        assert np.abs(image.astype(int) - (want[0] * 255).round()).max() <= 1
    with loaded(pipe, content, style):
        direct = generate(pipe, PROMPTS, SEEDS, steps=5, guidance=3.0)
    assert np.abs(made.astype(int) - direct).max() > 3, "not the sum"


def test_a_scheduler_that_calls_twice_a_step(pipe, content, style):
    """Heun's timesteps come in pairs; the choice is that of the timestep."""
    pipe = copy.deepcopy(pipe)
    pipe.scheduler = HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    made = klora.generate(pipe, "a dog", 1, content=content, style=style, steps=3)
    assert made.shape == (1, 32, 32, 3)


def test_leaves_the_pipeline_as_it_was(pipe, content, style):
    before = generate(pipe, "a dog", 1, steps=2)
    with pytest.raises(RuntimeError, match="stop"), klora.applied(pipe, content, style):
        assert not np.array_equal(generate(pipe, "a dog", 1, steps=2), before)
        raise RuntimeError("stop")
    assert np.array_equal(generate(pipe, "a dog", 1, steps=2), before)
    assert not pipe.unet._forward_pre_hooks and not pipe.get_list_adapters()


def test_an_image_does_not_depend_on_its_batch(pipe, content, style):
    claims = klora.ratios(content, style)
    settings = {"content": content, "style": style, "claims": claims, "steps": 3}
    alone = [klora.generate(pipe, p, s, **settings) for p, s in zip(PROMPTS, SEEDS, strict=True)]
    together = klora.generate(pipe, PROMPTS, SEEDS, **settings)
    assert np.abs(np.concatenate(alone).astype(int) - together).max() <= 1


def test_layers_of_one_lora_stay_and_text_encoders_are_averaged(pipe, content, style):
    """Equal to dense weights: the missing layer with its one update, the text encoder with half of both."""
    only = next(iter(content))
    words = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    draw = torch.Generator().manual_seed(5)
    texts = [torch.randn(32, 2, generator=draw) * 0.2 for _ in range(2)]
    down = torch.randn(2, 32, generator=draw)
    content = LoRA({**content, words: (texts[0], down)})
    style = LoRA({**{x: p for x, p in style.items() if x != only}, words: (texts[1], down)})
    assert only not in klora.ratios(content, style) and words not in klora.ratios(content, style)
    with klora.applied(pipe, content, style):
        got = generate(pipe, "a dog", 1, steps=1, guidance=1.0)
    theirs = copy.deepcopy(pipe)
    chosen = dict(
        zip(klora.ratios(content, style), klora.choices(klora.ratios(content, style), 1)[0], strict=True)
    )
    for layer in content:
        if layer.startswith("unet."):
            side = content if chosen.get(layer, True) else style
            theirs.unet.get_submodule(layer[5:]).weight.data += torch.from_numpy(dense(side[layer])).float()
    name = words.removeprefix("text_encoder.")
    if not hasattr(theirs.text_encoder, "text_model"):
        name = name.removeprefix("text_model.")
    half = (dense(content[words]) + dense(style[words])) / 2
    theirs.text_encoder.get_submodule(name).weight.data += torch.from_numpy(half).float()
    want = generate(theirs, "a dog", 1, steps=1, guidance=1.0)
    assert np.abs(got.astype(int) - want).max() <= 1


def test_memory_is_bounded_by_one_layer():
    """Forty layers of 4 MB on two sides would be 320 MB, if they were held."""
    layers = [f"unet.mid_block.attentions.0.transformer_blocks.{i}.attn1.to_q" for i in range(40)]
    draw = torch.Generator().manual_seed(0)

    def pair():
        return torch.randn(1024, 2, generator=draw), torch.randn(2, 1024, generator=draw)

    content, style = (LoRA({layer: pair() for layer in layers}) for _ in range(2))
    used = []

    def watch(names):
        for name in names:
            used.append(psutil.Process().memory_info().rss)
            yield name

    klora.ratios(content, style, progress=watch)
    assert len(used) == 40 and max(used) - used[0] < 200e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k 0: expected at least 1"),
        ({"balance": "mine"}, "balance 'mine': expected one of total, mean"),
    ],
)
def test_wrong_arguments(content, style, change, message):
    with pytest.raises(LoRAError, match=message):
        klora.ratios(content, style, **change)


def test_wrong_adapters(pipe, content, style):
    nothing = LoRA({layer: (0 * up, down) for layer, (up, down) in style.items()})
    with pytest.raises(LoRAError, match="the style LoRA changes no layer"):
        klora.ratios(content, nothing)
    with (
        pytest.raises(LoRAError, match="expected a finite number"),
        klora.applied(pipe, content, style, alpha=float("nan")),
    ):
        pass
    words = {"text_encoder.text_model.encoder.layers.0.self_attn.q_proj": next(iter(content.values()))}
    with pytest.raises(LoRAError, match="no layer of the denoiser"):
        klora.ratios(LoRA(words), LoRA(words))
