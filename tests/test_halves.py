"""Weights kept in half precision answer as the same weights in float32 do, and take half the memory."""

import copy

import numpy as np
import pytest
import torch
from test_objective import CONTENT, STYLE, adapter
from tiny import tiny_pipeline

from lorarar.halves import HalfConvolution, HalfLinear, keep_halves
from lorarar.pipelines import generate, load_pipeline, loaded
from lorarar.scales import SCALES
from lorarar.train import Trained, optimise, train_lora

LIKE = SCALES["sd15"]  # any scale in half precision


@pytest.fixture(scope="module")
def pipe():
    """All weights are numbers of half precision, in float32."""
    pipe = tiny_pipeline()
    for model in (pipe.unet, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        for parameter in model.parameters():
            parameter.data = parameter.data.half().float()
    return pipe


@pytest.fixture(scope="module")
def folder(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def kept(folder, monkeypatch):
    """The same base as a CPU has it at a scale of half precision; small weights count as large ones here."""
    monkeypatch.setattr("lorarar.pipelines.keep_halves", lambda model: keep_halves(model, least=256))
    return load_pipeline(folder, "cpu", LIKE)


def layer(kind):
    return torch.nn.Linear(9, 7) if kind == "linear" else torch.nn.Conv2d(4, 6, 3, 2, 1, groups=2)


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_a_layer_and_its_gradient_are_those_of_float32(kind):
    torch.manual_seed(0)
    first = torch.nn.Linear(1, 1)  # by which a model tells its type
    half = torch.nn.ModuleList([first, layer(kind)]).half().requires_grad_(False)
    whole = copy.deepcopy(half).float()
    keep_halves(half, least=1)
    assert type(half[1]) is (HalfLinear if kind == "linear" else HalfConvolution)
    assert (
        half[1].weight.dtype == torch.float16 and half[1].bias.dtype == half[0].weight.dtype == torch.float32
    )
    answers = []
    for model in (half, whole):
        x = torch.randn(
            2, *((5, 9) if kind == "linear" else (4, 6, 8)), generator=torch.Generator().manual_seed(1)
        )
        x.requires_grad_(True)
        y = model[1](x)
        y.square().sum().backward()
        answers.append((y, x.grad))
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_the_base_is_kept_in_halves_and_draws_the_same_picture(pipe, kept):
    assert kept.unet.dtype == kept.vae.dtype == kept.text_encoder.dtype == torch.float32
    halves = [p for p in kept.unet.parameters() if p.dtype == torch.float16]
    assert sum(p.numel() for p in halves) > 0.9 * sum(p.numel() for p in kept.unet.parameters())
    assert kept.scale is LIKE
    lora = adapter(pipe, 1)
    images = []
    for one in (pipe, kept):
        with loaded(one, lora):
            images.append(generate(one, "a cat", 3, steps=2, guidance=4.0).astype(int))
    assert np.abs(images[0] - images[1]).max() <= 1 and images[0].std() > 1


@pytest.mark.slow
def test_trainings_are_those_of_float32(pipe, kept):
    options = {"rank": 2, "steps": 2, "learning_rate": 1e-2, "progress": False}
    sides = [Trained(adapter(pipe, i), *concept) for i, concept in ((1, CONTENT), (2, STYLE))]
    losses = []
    for one in (pipe, kept):
        found = []
        train_lora(one, *CONTENT, **options, callback=lambda step, loss, found=found: found.append(loss))
        terms = optimise(one, *sides, steps=2, draws=2, gradient_checkpointing=True, progress=False)[1]
        losses.append([*found, *terms["content"], *terms["style"]])
    np.testing.assert_allclose(*losses, rtol=1e-3)
