"""Custom Diffusion's merge against its optimality conditions, solved as one dense system in float64."""

import numpy as np
import pytest
import torch
from test_merging import BLOCK, LINEAR, adapter, exact
from tiny import tiny_pipeline

from lorarar.lora import LoRAError
from lorarar.merging import custom_diffusion
from lorarar.shoebox import zoo
from lorarar.study.constrained import captions
from lorarar.train import own_words, word_features
from lorarar.train.pictures import encode_prompts

WIDTH = 40
KEYS_AND_VALUES = [layer for layer in LINEAR if ".attn2.to_k" in layer or ".attn2.to_v" in layer]


def features(seed, count):
    source = torch.Generator().manual_seed(seed)
    return torch.randn(count, WIDTH, generator=source, dtype=torch.float64)


WORDS, CAPTIONS = (features(0, 3), features(1, 5)), features(2, 100)


def by_conditions(base, deltas):
    """The weight by Lagrange: for every row w of W, C_regᵀC_reg w + Cᵀ λ = C_regᵀC_reg w_0 and C w = v."""
    c, reg = torch.cat(WORDS).numpy(), CAPTIONS.numpy()
    answers = np.concatenate(
        [own.numpy() @ (base + delta).T for own, delta in zip(WORDS, deltas, strict=True)]
    )
    kkt = np.block([[reg.T @ reg, c.T], [c, np.zeros((len(c), len(c)))]])
    right = np.concatenate([reg.T @ (reg @ base.T), answers])
    return np.linalg.solve(kkt, right)[:WIDTH].T


def test_the_merge_solves_the_constrained_problem():
    content, style = adapter(0, shapes=LINEAR), adapter(1, rank=3, shapes=LINEAR)
    merged = custom_diffusion(content, style, WORDS, CAPTIONS)
    assert list(merged) == KEYS_AND_VALUES, "what is elsewhere is dropped"
    for layer in merged:
        base = np.random.default_rng(0).normal(size=LINEAR[layer])
        expected = by_conditions(base, [exact(lora, layer).numpy() for lora in (content, style)])
        assert base + exact(merged, layer).numpy() == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert merged[layer][1].shape[0] == 7, "r_c + r_s"


def test_words_get_their_own_answers_and_captions_keep_the_bases_as_far_as_can_be():
    content, style = adapter(0, shapes=LINEAR), adapter(1, shapes=LINEAR)
    layer = KEYS_AND_VALUES[0]
    update = exact(custom_diffusion(content, style, WORDS, CAPTIONS), layer)
    for lora, own in zip((content, style), WORDS, strict=True):
        assert own @ update.T == pytest.approx(own @ exact(lora, layer).T, rel=1e-4, abs=1e-4)
    # Another update that answers the words the same, by a step inside the constraint, disturbs captions more.
    free = torch.linalg.svd(torch.cat(WORDS))[2][8:]
    disturbed = (CAPTIONS @ update.T).norm()
    for seed in range(3):
        step = torch.randn(24, len(free), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert (CAPTIONS @ (update + 0.01 * step @ free).T).norm() > disturbed


def test_captions_that_never_meet_the_words_are_left_alone():
    words, others = features(0, 6), features(1, 60)
    words[:, 10:], others[:, :10] = 0, 0
    others = torch.cat([others, 0.1 * torch.eye(WIDTH, dtype=torch.float64)[:10]])
    content, style = adapter(0, shapes=LINEAR), adapter(1, shapes=LINEAR)
    merged = custom_diffusion(content, style, (words[:3], words[3:]), others)
    assert (others[:60] @ exact(merged, KEYS_AND_VALUES[0]).T).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("words", "kept", "said"),
    [
        (WORDS, CAPTIONS[:20], "captions lie in too few directions; give more"),
        ((WORDS[0], WORDS[0]), CAPTIONS, "words of both sides are not independent"),
        (
            (features(0, 3)[:, :9], features(1, 3)[:, :9]),
            CAPTIONS[:, :9],
            "takes 40 inputs, the words have 9",
        ),
    ],
)
def test_refusals(words, kept, said):
    with pytest.raises(LoRAError, match=said):
        custom_diffusion(adapter(0, shapes=LINEAR), adapter(1, shapes=LINEAR), words, kept)


def test_loras_without_keys_and_values_of_cross_attention_are_refused():
    own = {f"{BLOCK.format(0)}.attn1.to_k": (24, 24)}
    with pytest.raises(LoRAError, match="share no key or value of cross-attention"):
        custom_diffusion(adapter(0, shapes=own), adapter(1, shapes=own), WORDS, CAPTIONS)


def test_half_precision_comes_out_as_it_went_in():
    content, style = (adapter(seed, shapes=LINEAR, dtype=torch.float16) for seed in (0, 1))
    merged = custom_diffusion(content, style, WORDS, CAPTIONS)
    assert {x.dtype for pair in merged.values() for x in pair} == {torch.float16}


# ---------------------------------------------------------------------------------------------------------
# Words


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()  # whose tokens are letters


def test_own_words_are_what_only_one_side_says(pipe):
    first, second = own_words(pipe, ["a b c"], ["a d"])
    texts = encode_prompts(pipe, ["a b c", "a d"])[0]
    assert first == pytest.approx(texts[0, 2:5]) and second == pytest.approx(texts[1, 2:4]), (
        "to the end's mark"
    )
    with pytest.raises(ValueError, match="no words of their own"):
        own_words(pipe, ["a b"], ["a b"])


def test_a_word_after_the_same_words_is_counted_once(pipe):
    found = word_features(pipe, ["a b", "a b c", "b"] * 30)
    assert len(found) == 3 + 2 + 2, "a, b, end; c, end; b, end"
    alone = word_features(pipe, ["a b c"])
    assert all(found[said] == pytest.approx(x, abs=1e-5) for said, x in alone.items())


def test_captions_are_about_other_things():
    said = captions(zoo, "oil painting #1")
    assert "a dog in glowing style" in said and not any("oil painting" in one for one in said)
    assert len(said) == len(set(said)) > 200
