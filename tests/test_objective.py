"""The merging loss against dense weights and autograd, and against diffusers with a merged file."""

import copy

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tiny import WIDTH, tiny_pipeline

from lorarar.hypernet import PARTS, layers_of
from lorarar.lora import LoRA, LoRAError, delta_weight, load_lora, save_lora
from lorarar.merging import ziplora
from lorarar.pipelines import loaded
from lorarar.train import Trained, merging_loss, similarity
from lorarar.train.adapters import fingerprint, opened
from lorarar.train.dreambooth import ATTENTION, adapted
from lorarar.train.gates import Gated, gated, updates
from lorarar.train.objective import Terms, chosen, joined, predict, teach
from lorarar.train.pictures import encode, encode_prompts

PICTURES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
CONTENT, STYLE = (
    (PICTURES, "a sks dog"),
    (PICTURES[::-1].copy(), ["a can in oil", "a cat in oil", "a dog in oil"]),
)


def adapter(pipe, seed, rank=3, modules=ATTENTION, size=0.3):
    """A random LoRA on the UNet's layers of these names."""
    draw = torch.Generator().manual_seed(seed)
    lora = LoRA()
    for name, module in pipe.unet.named_modules():
        if name.endswith(tuple(modules)):
            out, *wide = module.weight.shape
            up, down = torch.randn(out, rank, generator=draw), torch.randn(rank, *wide, generator=draw)
            up = up if len(wide) == 1 else up[..., None, None]
            lora[f"unet.{name}"] = size * up, down / np.sqrt(np.prod(wide))
    return lora


def random_gates(lora, layers, seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    return {
        layer: tuple(torch.randn(lora[layer][1].shape[1], generator=draw).to(dtype) for _ in range(2))
        for layer in layers
    }


def answer64(pipe, deltas, batch):
    """What the UNet answers in float64 with ΔW added to its weights: the definition, open to autograd."""
    unet = copy.deepcopy(pipe.unet).double().requires_grad_(False)
    weights = {f"{layer.removeprefix('unet.')}.weight": delta for layer, delta in deltas.items()}
    weights = {name: unet.get_parameter(name) + delta for name, delta in weights.items()}
    batch = in_double(batch)
    arguments = (batch.noised, batch.timesteps, batch.text)
    conditions = {"added_cond_kwargs": batch.conditions}
    return torch.func.functional_call(unet, weights, arguments, conditions).sample


def dense_merge(content, style, gates, rest):
    """ΔW_c·diag(m_c) + ΔW_s·diag(m_s) layer by layer, dense, float64."""
    found = {}
    for layer in [*content, *(layer for layer in style if layer not in content)]:
        dense = [
            delta_weight([x.double() for x in lora[layer]]) if layer in lora else None
            for lora in (content, style)
        ]
        if layer in gates:
            found[layer] = sum(d * m for d, m in zip(dense, gates[layer], strict=True))
        elif None in dense:
            found[layer] = next(d for d in dense if d is not None)
        else:
            found[layer] = sum(dense) * (0.5 if rest == "average" else 1)
    return found


def in_double(batch):
    parts = {
        k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in vars(batch).items()
    }
    conditions = batch.conditions and {k: v.double() for k, v in batch.conditions.items()}
    return type(batch)(**{**parts, "conditions": conditions})


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def pair(pipe):
    return adapter(pipe, 1), adapter(pipe, 2, rank=2)


@pytest.fixture(scope="module")
def lessons(pipe, pair):
    with updates(pipe, pair[0]) as update:
        return [
            teach(pipe, update, Trained(lora, *concept), 4, seed)
            for lora, concept, seed in zip(pair, (CONTENT, STYLE), (5, 6), strict=True)
        ]


@pytest.fixture(scope="module")
def sd15():
    """A pipeline of SD 1.5's class: one text encoder, convolutions around its transformers."""
    parts = tiny_pipeline()
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        block_out_channels=(16, 32),
        down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=WIDTH,
        norm_num_groups=8,
    )
    return StableDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=unet,
        scheduler=DDIMScheduler.from_config(parts.scheduler.config, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


# The gate


@pytest.mark.parametrize("rest", ["average", "sum"])
@pytest.mark.parametrize("parts", [("query", "output"), tuple(PARTS)])
def test_the_gated_unet_is_the_dense_one(pipe, pair, lessons, rest, parts):
    gates = random_gates(pair[0], layers_of(pair[0], parts))
    want = answer64(pipe, dense_merge(*pair, gates, rest), lessons[0])
    with gated(pipe, *pair, gates, rest=rest), torch.no_grad():
        got = predict(pipe.unet, lessons[0])
    torch.testing.assert_close(got.double(), want.detach(), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert (got - predict(pipe.unet, lessons[0])).abs().max() > 0.05


@pytest.mark.parametrize("rest", ["average", "sum"])
def test_layers_of_one_lora_and_convolutions(sd15, rest):
    """SD 1.5's class, with LoRAs that also update convolutions and that have layers of their own."""
    modules = (*ATTENTION, "proj_in", "conv1", "downsamplers.0.conv")
    content = adapter(sd15, 1, modules=modules)
    style = adapter(sd15, 2, rank=2, modules=(*modules[:-1], "proj_out"))
    assert any(down.ndim == 4 and down.shape[-1] == 3 for _, down in content.values())
    assert set(content) - set(style) and set(style) - set(content)
    gates = random_gates(content, layers_of(content, ["query", "output"]))
    batch = one_batch(sd15)
    want = answer64(sd15, dense_merge(content, style, gates, rest), batch)
    with gated(sd15, content, style, gates, rest=rest), torch.no_grad():
        got = predict(sd15.unet, batch)
    torch.testing.assert_close(got.double(), want.detach(), rtol=1e-4, atol=1e-4)


def one_batch(pipe):
    with updates(pipe, []) as update:
        return teach(pipe, update, Trained(LoRA(), *CONTENT), 3, 0)


def test_a_merged_file_in_diffusers_gives_the_gated_prediction(pipe, pair, lessons, tmp_path):
    gates = random_gates(pair[0], layers_of(pair[0], PARTS))
    save_lora(ziplora(*pair, gates), tmp_path / "merged.safetensors")
    with gated(pipe, *pair, gates), torch.no_grad():
        got = predict(pipe.unet, lessons[1])
    with loaded(pipe, load_lora(tmp_path / "merged.safetensors")), torch.no_grad():
        torch.testing.assert_close(predict(pipe.unet, lessons[1]), got, rtol=1e-4, atol=1e-5)


def test_the_pipeline_is_left_as_it_was_found(pipe, pair):
    def state():
        return {
            "modules": [(name, type(module)) for name, module in pipe.unet.named_modules()],
            "hooks": [len(module._forward_hooks) for module in pipe.unet.modules()],
            "grad": [parameter.requires_grad for parameter in pipe.unet.parameters()],
            "mode": (pipe.unet.training, pipe.unet.is_gradient_checkpointing, pipe.vae.dtype),
            "weights": [parameter.clone() for parameter in pipe.unet.parameters()],
        }

    pipe.unet.train()
    before, generator = state(), torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt), updates(pipe, pair[0], gradient_checkpointing=True) as update:
        teach(pipe, update, Trained(pair[0], *CONTENT), 2, 0)
        assert sum(map(len, (m._forward_hooks for m in pipe.unet.modules()))) == len(pair[0])
        raise KeyboardInterrupt
    with gated(pipe, *pair, {}):
        pass
    after = state()
    weights = before.pop("weights"), after.pop("weights")
    pipe.unet.eval()
    assert before == after
    assert all(torch.equal(*two) for two in zip(*weights, strict=True))
    assert torch.equal(generator, torch.get_rng_state())


# The loss


@pytest.mark.parametrize(
    ("measure", "parts"), [("dot", ("query", "output")), ("dot", tuple(PARTS)), ("cosine", ("key",))]
)
def test_terms_and_gradients_are_those_of_dense_weights(pipe, pair, lessons, measure, parts):
    layers = layers_of(pair[0], parts)
    ours = {k: tuple(m.requires_grad_() for m in v) for k, v in random_gates(pair[0], layers).items()}
    with updates(pipe, pair[0]) as update:
        terms = merging_loss(pipe.unet, update, Gated(*pair, layers), ours, *lessons, measure)
        terms.loss(0.01).backward()

    theirs = {
        k: tuple(m.requires_grad_() for m in v)
        for k, v in random_gates(pair[0], layers, dtype=torch.float64).items()
    }
    merged = dense_merge(*pair, theirs, "average")
    want = []
    for lora, batch in zip(pair, lessons, strict=True):
        alone = {k: delta_weight([x.double() for x in v]) for k, v in lora.items()}
        with torch.no_grad():
            teacher = answer64(pipe, alone, batch)
        torch.testing.assert_close(batch.target.double(), teacher, rtol=1e-4, atol=1e-4)
        want.append(torch.nn.functional.mse_loss(answer64(pipe, merged, batch), teacher))
    alike = {
        "dot": lambda c, s: c @ s / (8 * 8 * 8),  # the equation divided by a prediction's entries
        "cosine": lambda c, s: c @ s / (c.norm() * s.norm()),
    }[measure]
    want.append(sum(alike(*m).abs() for m in theirs.values()))
    for got, value in zip(terms, want, strict=True):
        assert got.item() == pytest.approx(value.item(), rel=1e-4)
    (want[0] + want[1] + 0.01 * want[2]).backward()
    for layer in layers:
        for got, value in zip(ours[layer], theirs[layer], strict=True):
            scale = value.grad.abs().max()
            assert scale > 0
            torch.testing.assert_close(got.grad.double(), value.grad, rtol=1e-3, atol=1e-3 * scale)
    assert all(parameter.grad is None for parameter in pipe.unet.parameters())


def test_gradient_checkpointing_changes_nothing(pipe, pair, lessons):
    layers, found = layers_of(pair[0], PARTS), []
    for checkpointing in (False, True):
        gates = {k: tuple(m.requires_grad_() for m in v) for k, v in random_gates(pair[0], layers).items()}
        with updates(pipe, pair[0], gradient_checkpointing=checkpointing) as update:
            merging_loss(pipe.unet, update, Gated(*pair, layers), gates, *lessons).loss(0.01).backward()
        found.append(torch.cat([m.grad for pairs in gates.values() for m in pairs]))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


def test_one_lora_alone_is_its_own_teacher(pipe, pair, lessons):
    layers = layers_of(pair[0], PARTS)
    width = {layer: pair[0][layer][1].shape[1] for layer in layers}
    with updates(pipe, pair[0]) as update, torch.no_grad():
        for side in (0, 1):
            gates = {
                k: (torch.full((n,), 1.0 - side), torch.full((n,), float(side))) for k, n in width.items()
            }
            terms = merging_loss(pipe.unet, update, Gated(*pair, layers), gates, *lessons)
            assert terms[side] == pytest.approx(0, abs=1e-9)
            assert terms[1 - side] > 1e-3
            assert terms.similarity == 0


def test_the_lessons_are_the_schedulers_noised_images(pipe, pair, lessons):
    data = encode(pipe, [STYLE])
    assert data.text.shape[0] == 3, "each picture of a style has its own caption"
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    generator = torch.Generator().manual_seed(6)
    pick = torch.multinomial(data.share, 4, True, generator=generator)
    timesteps = torch.randint(1000, (4,), generator=generator)
    noise = torch.randn(4, 8, 8, 8, generator=generator)
    batch = lessons[1]
    assert torch.equal(batch.timesteps, timesteps)
    torch.testing.assert_close(batch.noised, schedule.add_noise(data.latents[pick], noise, timesteps))
    captions = [STYLE[1][i] for i in pick]
    for i, caption in enumerate(captions):
        text, pooled = encode_prompts(pipe, [caption])
        torch.testing.assert_close(batch.text[i], text[0])
        torch.testing.assert_close(batch.conditions["text_embeds"][i], pooled[0])


def test_samples_are_chosen_and_joined(lessons):
    both = joined(*lessons)
    back = chosen(both, torch.tensor([5, 0]))
    assert torch.equal(back.target, torch.stack([lessons[1].target[1], lessons[0].target[0]]))
    assert torch.equal(back.conditions["time_ids"][0], lessons[1].conditions["time_ids"][1])


# Similarity


def test_at_the_start_cosine_has_no_gradient_and_dot_has():
    for measure, size in (("dot", 1.0), ("cosine", 0.0)):
        m_c, m_s = torch.ones(6, requires_grad=True), torch.ones(6, requires_grad=True)
        similarity({"layer": (m_c, m_s)}, measure).backward()
        torch.testing.assert_close(m_c.grad, torch.full((6,), size), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(m_s.grad, torch.full((6,), size), rtol=1e-5, atol=1e-6)


def test_similarity_is_a_sum_of_magnitudes():
    gates = {
        "a": (torch.tensor([1.0, 2.0]), torch.tensor([-3.0, 0.5])),
        "b": (torch.tensor([2.0, 0.0, 0.0]), torch.tensor([1.0, 5.0, 2.0])),
        "c": (torch.tensor([0.0, 1.0]), torch.tensor([4.0, 0.0])),
    }
    assert similarity(gates, "dot").item() == pytest.approx(2 + 2 + 0)
    cosines = 2 / np.sqrt(5 * 9.25) + 2 / (2 * np.sqrt(30))
    assert similarity(gates, "cosine").item() == pytest.approx(cosines, rel=1e-6)
    assert Terms(torch.tensor(1.0), torch.tensor(2.0), torch.tensor(3.0)).loss(0.5).item() == 4.5
    with pytest.raises(ValueError, match="unknown measure 'angle'"):
        similarity(gates, "angle")


# Bad input


def test_what_does_not_fit_is_named(pipe, pair):
    content, style = pair
    other = LoRA({layer: (torch.ones(7, 2), torch.ones(2, 7)) for layer in content})
    text = LoRA(
        {"text_encoder.text_model.encoder.layers.0.self_attn.q_proj": (torch.ones(2, 1), torch.ones(1, 2))}
    )
    for wrong, message in (
        (other, "style: the LoRA is for another base model: unet"),
        (text, "style: layer text_encoder.* is not the UNet's"),
        (LoRA(), "style: holds no layer"),
    ):
        with pytest.raises(LoRAError, match=message) as caught, gated(pipe, content, wrong, {}):
            pass
        assert "\n" not in str(caught.value)
    with pytest.raises(LoRAError, match="rest 'median'"):
        Gated(content, style, [], rest="median")
    with pytest.raises(LoRAError, match=r"coefficients for layer unet\.nowhere"):
        Gated(content, style, ["unet.nowhere"])
    with adapted(pipe, 2), pytest.raises(ValueError, match="already carries a LoRA"), updates(pipe, content):
        pass
    with (
        updates(pipe, []) as update,
        pytest.raises(ValueError, match="no update was announced for layer unet"),
    ):
        update(content)


def test_images_and_captions_are_checked_and_named(pair, tmp_path):
    lora = pair[0]
    for images, prompt, message in (
        (tmp_path / "absent", "a dog", "oil: no image folder"),
        (tmp_path, "a dog", "oil: .* holds no images"),
        ([], "a dog", "oil: no images"),
        (PICTURES, ["a dog"], "oil: 1 captions for 3 images"),
    ):
        with pytest.raises(ValueError, match=message):
            opened(Trained(lora, images, prompt, name="oil"))
    marks = {
        fingerprint(opened(Trained(*one)))
        for one in (
            (lora, PICTURES, "a dog"),
            (lora, PICTURES, "a cat"),
            (lora, PICTURES[:2], "a dog"),
            (pair[1], PICTURES, "a dog"),
        )
    }
    assert len(marks) == 4
    assert fingerprint(opened(Trained(LoRA(lora), PICTURES.copy(), "a dog"))) in marks
