"""Training against diffusers' schedulers and pipeline, saved files, and runs without an interruption."""

import json

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from tiny import TOKENS, WIDTH, tiny_pipeline

from lorarar import save_lora
from lorarar.cli import main
from lorarar.images import image_files, read_images
from lorarar.lora import LoRA, load_lora
from lorarar.pipelines import generate, loaded
from lorarar.scales import SCALES
from lorarar.train import read_captions, train_lora
from lorarar.train.denoising import denoising_loss, denoising_target, draw
from lorarar.train.dreambooth import adapted
from lorarar.train.loop import learning_rate_factor
from lorarar.train.pictures import encode, encode_images, encode_prompts, square

pytestmark = pytest.mark.slow

PICTURES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
QUICK = {"rank": 2, "steps": 8, "learning_rate": 1e-2, "batch_size": 2, "progress": False}


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionXLPipeline:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def sd15() -> StableDiffusionPipeline:
    """Return a pipeline of SD 1.5's class: one text encoder, nothing else to condition on."""
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
    pipe = StableDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=unet,
        scheduler=DDIMScheduler.from_config(parts.scheduler.config, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def same(a: LoRA, b: LoRA) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(x, y) for layer in a for x, y in zip(a[layer], b[layer], strict=True)
    )


def rounded(lora: LoRA) -> LoRA:
    """Return the LoRA in half precision, as files keep it."""
    return LoRA({layer: tuple(f.half() for f in pair) for layer, pair in lora.items()})


def fixed_loss(pipe, concepts, seed: int = 99) -> float:
    """Return the mean loss over one fixed batch."""
    data = encode(pipe, concepts)
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    batch = draw(
        [data],
        64,
        schedule.alphas_cumprod,
        schedule.config.prediction_type,
        torch.Generator().manual_seed(seed),
    )
    with torch.no_grad():
        return denoising_loss(pipe.unet, batch).item()


# What the UNet is given


def test_latents_are_the_autoencoders_normalised(pipe):
    mean, std = [0.1, -0.2, 0.3, 0.4], [0.5, 1.5, 2.0, 0.8]
    for one in (pipe, tiny_pipeline(channels=4, statistics=(mean, std))):
        images = read_images(PICTURES)
        pixels = one.image_processor.preprocess(images)
        with torch.no_grad():
            want = one.vae.encode(pixels).latent_dist.mean
        if one is not pipe:
            want = (want - torch.tensor(mean).view(1, 4, 1, 1)) / torch.tensor(std).view(1, 4, 1, 1)
        got = encode_images(one, images)
        torch.testing.assert_close(got, want * 0.7, rtol=1e-5, atol=1e-5)
        assert one.vae.dtype == torch.float32


def test_conditions_are_those_of_the_pipeline_itself(pipe, monkeypatch):
    seen = {}
    forward = pipe.unet.forward

    def spy(sample: torch.Tensor, timestep: torch.Tensor, **options: object) -> object:
        seen.update(options)
        return forward(sample, timestep, **options)

    monkeypatch.setattr(pipe.unet, "forward", spy)
    pipe("a sks dog", num_inference_steps=1, guidance_scale=1.0, output_type="latent")
    data = encode(pipe, [(PICTURES, "a sks dog")])
    torch.testing.assert_close(data.text, seen["encoder_hidden_states"])
    torch.testing.assert_close(data.pooled, seen["added_cond_kwargs"]["text_embeds"])
    assert torch.equal(data.time_ids[:1], seen["added_cond_kwargs"]["time_ids"])


def test_a_prompt_is_encoded_once(pipe):
    data = encode(pipe, [(PICTURES, ["a can", "a dog", "a can"])])
    assert data.text.shape == (2, TOKENS, 2 * WIDTH)
    assert data.prompt.tolist() == [0, 1, 0]
    torch.testing.assert_close(data.text[1:], encode_prompts(pipe, ["a dog"])[0])


def test_concepts_are_drawn_equally_often(pipe):
    data = encode(pipe, [(PICTURES, "a dog"), (PICTURES[:1], "a can")], flip=True)
    assert len(data.latents) == 8
    assert data.share.sum() == pytest.approx(1)
    assert data.share[:6].sum() == pytest.approx(0.5)
    mirrored = encode_images(pipe, read_images(PICTURES[:1, :, ::-1].copy()))
    torch.testing.assert_close(data.latents[3:4], mirrored)


def test_a_picture_is_scaled_and_cropped_to_a_square():
    wide = Image.new("RGB", (100, 50))
    crop, ids = square(wide, 32)
    assert crop.size == (32, 32)
    assert ids == [32, 32, 0, 16, 32, 32]
    small, ids = square(Image.new("RGB", (20, 30)), 32)
    assert small.size == (32, 32)
    assert ids == [30, 20, 8, 0, 32, 32]
    picture = Image.fromarray(PICTURES[0])
    same_size, _ = square(picture, 32)
    assert np.array_equal(np.array(same_size), PICTURES[0])


# The objective


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_noise_and_target_are_the_schedulers(prediction_type, zero_snr):
    schedule = DDPMScheduler(
        beta_schedule="scaled_linear", prediction_type=prediction_type, rescale_betas_zero_snr=zero_snr
    )
    x, noise = torch.randn(2, 4, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([0, 10, 500, 999])
    noised, target = denoising_target(x, noise, schedule.alphas_cumprod[timesteps], prediction_type)
    torch.testing.assert_close(noised, schedule.add_noise(x, noise, timesteps))
    wanted = {"epsilon": noise, "sample": x, "v_prediction": schedule.get_velocity(x, noise, timesteps)}
    torch.testing.assert_close(target, wanted[prediction_type])


def test_an_unknown_prediction_is_refused():
    x = torch.zeros(1, 1, 1, 1)
    with pytest.raises(ValueError, match="unknown prediction type 'flow'"):
        denoising_target(x, x, torch.ones(1), "flow")


def test_prior_preservation_is_the_weighted_sum_of_two_means(pipe):
    """The reference draws the same numbers, but goes through diffusers' scheduler, one image at a time."""
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    sets = [encode(pipe, [(PICTURES, "a sks dog")]), encode(pipe, [(classes, "a dog")], weight=0.3)]
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    alphas = schedule.alphas_cumprod
    batch = draw(sets, 3, alphas, "v_prediction", torch.Generator().manual_seed(5))
    with torch.no_grad():
        got = denoising_loss(pipe.unet, batch)

    generator = torch.Generator().manual_seed(5)
    means = []
    for pictures, prompt in ((PICTURES, "a sks dog"), (classes, "a dog")):
        pick = torch.multinomial(
            torch.full((len(pictures),), 1 / len(pictures), dtype=torch.float64), 3, True, generator=generator
        )
        timesteps = torch.randint(1000, (3,), generator=generator)
        noise = torch.randn(3, 8, 8, 8, generator=generator)
        text, _, pooled, _ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False)
        errors = []
        for i in range(3):
            pixels = pipe.image_processor.preprocess(Image.fromarray(pictures[pick[i]]))
            with torch.no_grad():
                x = pipe.vae.encode(pixels).latent_dist.mean * 0.7
                answer = pipe.unet(
                    schedule.add_noise(x, noise[i : i + 1], timesteps[i : i + 1]),
                    timesteps[i],
                    text,
                    added_cond_kwargs={
                        "text_embeds": pooled,
                        "time_ids": torch.tensor([[32.0, 32, 0, 0, 32, 32]]),
                    },
                ).sample
            target = schedule.get_velocity(x, noise[i : i + 1], timesteps[i : i + 1])
            errors.append(torch.nn.functional.mse_loss(answer, target).item())
        means.append(np.mean(errors))
    assert got.item() == pytest.approx(means[0] + 0.3 * means[1], rel=1e-5)


def test_learning_rate_rises_and_falls():
    factors = [learning_rate_factor(step, 10, 2, 0.4) for step in range(10)]
    assert factors == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    assert [learning_rate_factor(step, 3, 0, 0.0) for step in range(3)] == [1, 1, 1]


# Training


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_it_learns_and_the_saved_file_is_what_was_trained(prediction_type, tmp_path):
    pipe = tiny_pipeline(prediction_type=prediction_type)
    concept = (PICTURES[:1], "a sks dog")
    sample = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(3))
    text, _, pooled, _ = pipe.encode_prompt(["a sks dog"] * 2, do_classifier_free_guidance=False)
    conditions = {"text_embeds": pooled, "time_ids": torch.tensor([[32.0, 32, 0, 0, 32, 32]] * 2)}

    def answer() -> torch.Tensor:
        with torch.no_grad():
            return pipe.unet(sample, 500, text, added_cond_kwargs=conditions).sample

    during = []
    untrained, before = answer(), fixed_loss(pipe, [concept])
    lora = train_lora(
        pipe,
        *concept,
        rank=4,
        steps=30,
        learning_rate=3e-2,
        batch_size=4,
        progress=False,
        callback=lambda step, loss: during.append(answer()) if step == 30 else None,
    )
    assert torch.equal(answer(), untrained)
    save_lora(lora, tmp_path / "dog.safetensors")
    pipe.load_lora_weights(tmp_path / "dog.safetensors")
    torch.testing.assert_close(answer(), during[0], rtol=1e-4, atol=1e-5)
    assert (answer() - untrained).abs().max() > 0.05
    assert fixed_loss(pipe, [concept]) < 0.97 * before
    pipe.unload_lora_weights()


def test_every_attention_projection_is_trained_and_nothing_else(pipe):
    lora = train_lora(pipe, PICTURES, "a dog", **{**QUICK, "steps": 2})
    projections = {
        f"unet.{name}"
        for name, module in pipe.unet.named_modules()
        if isinstance(module, torch.nn.Linear) and name.endswith((".to_q", ".to_k", ".to_v", ".to_out.0"))
    }
    assert set(lora) == projections
    assert len(projections) == 8 * len([n for n, _ in pipe.unet.named_modules() if n.endswith("attn1")])
    for layer, (up, down) in lora.items():
        weight = pipe.unet.get_submodule(layer.removeprefix("unet.")).weight
        assert (up.shape[0], down.shape[1]) == weight.shape
        assert up.shape[1] == down.shape[0] == 2
        assert up.dtype == down.dtype == torch.float32
        assert not up.requires_grad
        assert up.abs().max() > 0
    only = train_lora(pipe, PICTURES, "a dog", targets=("to_q",), **{**QUICK, "steps": 1})
    assert set(only) == {layer for layer in projections if layer.endswith("to_q")}


def test_the_pipeline_is_left_as_it_was_found(pipe):
    def state() -> dict[str, object]:
        return {
            "modules": [(name, type(module)) for name, module in pipe.unet.named_modules()],
            "grad": [parameter.requires_grad for parameter in pipe.unet.parameters()],
            "mode": (pipe.unet.training, pipe.unet.is_gradient_checkpointing, pipe.vae.dtype),
            "weights": {name: tensor.clone() for name, tensor in pipe.unet.state_dict().items()},
        }

    def stop(step: int, loss: float) -> None:
        raise KeyboardInterrupt

    before, generator = state(), torch.get_rng_state()
    train_lora(pipe, PICTURES, "a dog", gradient_checkpointing=True, **QUICK)
    with pytest.raises(KeyboardInterrupt):
        train_lora(pipe, PICTURES, "a dog", callback=stop, **QUICK)
    with pytest.raises(ValueError, match="no layers named to_z"):
        train_lora(pipe, PICTURES, "a dog", targets=("to_q", "to_z"), **QUICK)
    with pytest.raises(ValueError, match=r"no layers named attn2$"):  # a block of layers is none
        train_lora(pipe, PICTURES, "a dog", targets=("to_q", "attn2"), **QUICK)
    after = state()
    weights = before.pop("weights"), after.pop("weights")
    assert before == after
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert torch.equal(generator, torch.get_rng_state())


def test_a_seed_decides_everything(pipe):
    options = {**QUICK, "steps": 3}
    first = train_lora(pipe, PICTURES, "a dog", **options)
    torch.rand(5)
    assert same(first, train_lora(pipe, PICTURES, "a dog", **options))
    assert not same(first, train_lora(pipe, PICTURES, "a dog", seed=1, **options))
    recomputed = train_lora(pipe, PICTURES, "a dog", gradient_checkpointing=True, **options)
    for layer in first:
        torch.testing.assert_close(recomputed[layer], first[layer], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kill_at", [3, 7])
def test_a_killed_run_resumes_to_the_same_bits(pipe, tmp_path, kill_at):
    options = {**QUICK, "warmup": 3, "decay": 0.5, "class_prompt": "a dog", "class_images": PICTURES[1:]}
    whole = train_lora(pipe, PICTURES, "a sks dog", **options)
    state = tmp_path / "run.checkpoint"

    def kill(step: int, loss: float) -> None:
        if step == kill_at:
            raise KeyboardInterrupt

    options.update(checkpoint=state, checkpoint_every=3)
    with pytest.raises(KeyboardInterrupt):
        train_lora(pipe, PICTURES, "a sks dog", callback=kill, **options)
    assert torch.load(state, weights_only=True)["step"] == kill_at // 3 * 3
    steps = []
    resumed = train_lora(
        pipe, PICTURES, "a sks dog", resume=True, callback=lambda s, _: steps.append(s), **options
    )
    assert steps == list(range(kill_at // 3 * 3 + 1, 9))
    assert same(resumed, whole)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_run_is_refused(pipe, tmp_path):
    state = tmp_path / "run.checkpoint"
    options = {**QUICK, "checkpoint": state, "checkpoint_every": 1}

    def kill(step: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_lora(pipe, PICTURES, "a dog", callback=kill, **options)
    for other, what in (
        ({"learning_rate": 1e-3}, "learning_rate"),
        ({"rank": 3}, "rank"),
        ({"seed": 1}, "seed"),
    ):
        with pytest.raises(ValueError, match=rf"run with other {what}: remove it or do not resume"):
            train_lora(pipe, PICTURES, "a dog", resume=True, **{**options, **other})
    with pytest.raises(ValueError, match="run with other images, prompts"):
        train_lora(pipe, PICTURES[:2], "a can", resume=True, **options)
    with pytest.raises(ValueError, match="run with other base"):
        train_lora(tiny_pipeline(seed=1), PICTURES, "a dog", resume=True, **options)
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(ValueError, match="not a checkpoint of this training"):
        train_lora(pipe, PICTURES, "a dog", resume=True, **options)


def test_class_images_are_made_by_the_base(pipe, monkeypatch):
    monkeypatch.setattr(pipe, "scale", SCALES["smoke"], raising=False)
    options = {**QUICK, "steps": 4, "class_prompt": "a dog"}
    made = generate(pipe, "a dog", range(4, 6))
    given = train_lora(pipe, PICTURES, "a sks dog", class_images=made, seed=4, **options)
    assert same(given, train_lora(pipe, PICTURES, "a sks dog", class_images=2, seed=4, **options))


def test_several_concepts_jointly_and_captions(pipe):
    joint = train_lora(pipe, concepts=[(PICTURES[:2], "a sks dog"), (PICTURES[2:], ["a can"])], **QUICK)
    assert all(torch.isfinite(up).all() and up.abs().max() > 0 for up, _ in joint.values())
    training = json.loads(joint.metadata["lorarar_training"])
    assert training["prompts"] == ["a sks dog", ["a can"]]
    assert training["rank"] == 2


def test_sd15_trains_and_loads(sd15):
    lora = train_lora(sd15, PICTURES, "a dog", **QUICK)
    plain = generate(sd15, "a dog", 0, steps=2)
    with loaded(sd15, lora):
        assert not np.array_equal(generate(sd15, "a dog", 0, steps=2), plain)


def test_half_precision_keeps_the_lora_in_full(pipe):
    lora = train_lora(pipe, PICTURES, "a dog", precision="bf16", **QUICK)
    full = train_lora(pipe, PICTURES, "a dog", **QUICK)
    assert all(up.dtype == torch.float32 for up, _ in lora.values())
    assert not same(lora, full)
    half = tiny_pipeline()
    half.to(torch.bfloat16)
    trained = train_lora(half, PICTURES, "a dog", **{**QUICK, "steps": 2})
    assert all(up.dtype == torch.float32 and torch.isfinite(up).all() for up, _ in trained.values())
    with adapted(half, 2) as factors:
        assert all(factor.dtype == torch.float32 for pair in factors.values() for factor in pair)
    assert {p.dtype for p in half.unet.parameters()} == {torch.bfloat16}
    encode_images(half, read_images(PICTURES))
    assert half.vae.dtype == torch.bfloat16


def test_recipes_are_arguments(pipe):
    lora = train_lora(pipe, PICTURES, "a dog", **vars(SCALES["smoke"].style), progress=False)
    assert all(down.shape[0] == SCALES["smoke"].style.rank for _, down in lora.values())


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank must be a whole number of at least 1, not 0"),
        ({"rank": 2.5}, "rank must be"),
        ({"rank": 33}, "rank 33 is more than the UNet's greatest width, 32"),
        ({"steps": 0}, "steps must be"),
        ({"batch_size": True}, "batch_size must be"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
        ({"learning_rate": 1e30, "steps": 3}, "training diverged"),
        ({"decay": 1.5}, "decay must lie between 0 and 1, but is 1.5"),
        ({"precision": "int4"}, "unknown precision"),
        ({"optimizer": "sgd"}, "unknown optimizer"),
        ({"class_prompt": "a dog", "class_images": 0}, "class_images must be at least 1"),
        ({"prompt": ["a dog", "a cat"]}, "2 captions for 3 images"),
        ({"prompt": None}, "give either images and a prompt, or concepts"),
        ({"concepts": [(PICTURES, "a dog")]}, "give either"),
        ({"images": PICTURES[0]}, r"an image must be \(h, w, 3\) uint8, not \(32, 3\)"),
        ({"checkpoint": "absent/run.checkpoint"}, "absent/run.checkpoint: its folder does not exist"),
        ({"images": []}, "no images to train on"),
    ],
)
def test_bad_arguments_are_one_line(pipe, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        train_lora(pipe, **{"images": PICTURES, "prompt": "a dog", **QUICK, **options})
    assert "\n" not in str(caught.value)


def test_a_pipeline_with_a_lora_is_refused(pipe):
    with adapted(pipe, 2), pytest.raises(ValueError, match="already carries a LoRA"):
        train_lora(pipe, PICTURES, "a dog", **QUICK)


def test_images_are_read_upright_opaque_and_in_order(tmp_path):
    with pytest.raises(ValueError, match="no image folder"):
        image_files(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("not a picture")
    with pytest.raises(ValueError, match="holds no images"):
        read_images(tmp_path)
    upright = Image.fromarray(PICTURES[0][:16])
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways
    upright.save(tmp_path / "b.png", exif=exif)
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a.PNG")
    Image.new("L", (4, 4), 7).save(tmp_path / "c.webp", lossless=True)
    assert [file.name for file in image_files(tmp_path)] == ["a.PNG", "b.png", "c.webp"]
    clear, turned, gray = read_images(tmp_path)
    assert clear.getpixel((0, 0)) == (255, 255, 255)
    assert np.array_equal(np.array(turned), np.rot90(PICTURES[0][:16], -1))
    assert gray.getpixel((3, 3)) == (7, 7, 7)
    (tmp_path / "d.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    with pytest.raises(ValueError, match=r"cannot read the image .*d\.jpg"):
        read_images(tmp_path)
    whole = (tmp_path / "b.png").read_bytes()
    (tmp_path / "d.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cannot read the image .*d\.jpg"):
        read_images(tmp_path)


def test_captions_come_from_metadata(tmp_path):
    file = tmp_path / "metadata.jsonl"
    lines = [{"file_name": "b.png", "text": "a can"}, {"file_name": "a.png", "text": "a dog"}]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert read_captions(file, ["a.png", "b.png"]) == ["a dog", "a can"]
    with pytest.raises(ValueError, match=r"no caption for c\.png and 1 more"):
        read_captions(file, ["a.png", "c.png", "d.png"])
    with pytest.raises(ValueError, match="cannot read the captions"):
        read_captions(tmp_path / "absent.jsonl", ["a.png"])
    file.write_text('{"file_name": "a.png"}')
    with pytest.raises(ValueError, match="line 1: expected"):
        read_captions(file, ["a.png"])


# The command line


@pytest.fixture(scope="module")
def base(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(folder / f"{i}.png")
    return folder


def train(photos, base, output, *more: str) -> int:
    return main(
        ["train-lora", "--images", f"{photos}", "--base", f"{base}", "-o", f"{output}", "--device", "cpu"]
        + ["--rank", "2", "--steps", "4", "--batch-size", "2", "--learning-rate", "0.01"]
        + (["--prompt", "a dog"] if "--captions" not in more else [])
        + list(more)
    )


def test_commands_train_and_generate_what_the_functions_do(pipe, photos, base, tmp_path, capsys):
    file, picture = tmp_path / "dog.safetensors", tmp_path / "dogs.png"
    assert train(photos, base, file, "--class-prompt", "a cat", "--prior-images", f"{photos}") == 0
    options = {**QUICK, "steps": 4, "class_prompt": "a cat", "class_images": PICTURES}
    lora = rounded(train_lora(pipe, PICTURES, "a dog", **options))
    assert same(load_lora(file), lora)
    assert capsys.readouterr().out.startswith(f"{file}: 3 images, 64 layers, ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dog.safetensors", "photos"]

    words = [
        "generate",
        "--prompt",
        "a dog",
        "--base",
        f"{base}",
        "--steps",
        "2",
        "--device",
        "cpu",
        "--quiet",
    ]
    more = ["--lora", f"{file}", "--weight", "0.5", "--seed", "7", "--count", "3"]
    assert main([*words, *more, "-o", f"{picture}"]) == 0
    assert capsys.readouterr() == ("", "")
    with loaded(pipe, lora, weights=[0.5]):
        a, b, c = generate(pipe, "a dog", [7, 8, 9], steps=2)
    want = np.vstack([np.hstack([a, b]), np.hstack([c, np.full_like(c, 255)])]).astype(int)
    assert np.abs(np.array(Image.open(picture)) - want).max() <= 1


def test_a_command_that_was_interrupted_resumes(pipe, photos, base, tmp_path, monkeypatch, capsys):
    whole, file = tmp_path / "whole.safetensors", tmp_path / "dog.safetensors"
    captions = tmp_path / "metadata.jsonl"
    captions.write_text(
        "\n".join(json.dumps({"file_name": f"{i}.png", "text": f"dog {i}"}) for i in range(3))
    )
    options = ["--captions", f"{captions}", "--checkpoint-every", "3", "--quiet"]
    assert train(photos, base, whole, *options) == 0

    def kill_at_third(step: int, *_: object) -> float:
        if step == 3:
            raise KeyboardInterrupt
        return learning_rate_factor(step, *_)

    with monkeypatch.context() as patch:
        patch.setattr("lorarar.train.dreambooth.learning_rate_factor", kill_at_third)
        assert train(photos, base, file, *options) == 130
    assert not file.exists()
    assert train(photos, base, file, *options, "--resume") == 0
    assert file.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "dog.safetensors.checkpoint").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--images", "absent"], "no image folder absent"),
        (["--images", "empty"], "empty holds no images"),
        (["--images", "corrupt"], "cannot read the image corrupt/a.png"),
        (["--base", "absent"], "no model folder absent"),
        (["--base", "empty"], "empty is not a diffusers pipeline"),
        (["--scale", "huge"], "unknown scale 'huge'"),
        (["--rank", "0"], "rank must be a whole number of at least 1, not 0"),
        (["--rank", "4096"], "rank 4096 is more than the UNet's greatest width"),
        (["--steps", "-1"], "steps must be"),
        (["--device", "abacus"], "no device 'abacus'"),
        (["--captions", "absent.jsonl"], "cannot read the captions absent.jsonl"),
        (["--class-prompt", "a dog", "--prior-images", "absent"], "no image folder absent"),
        (["-o", "absent/dog.safetensors"], "its folder does not exist"),
    ],
)
def test_bad_input_to_train_lora_is_one_line(photos, base, tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "corrupt").mkdir()
    (tmp_path / "corrupt" / "a.png").write_bytes(b"\x89PNG not a picture")
    assert train(photos, base, tmp_path / "dog.safetensors", *more) == 2
    out, error = capsys.readouterr()
    assert not out
    assert message in error
    assert error.startswith("lorarar: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "dog.safetensors").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--count", "0"], "count must be a whole number of at least 1"),
        (["-o", "dog.txt"], "expected a name that ends in .png"),
        (["--lora", "absent.safetensors"], "absent.safetensors"),
        (["--weight", "2"], "1 weights for 0 LoRAs"),
        (["--steps", "0"], "steps must be a whole number of at least 1"),
        (["--base", "absent"], "no model folder absent"),
    ],
)
def test_bad_input_to_generate_is_one_line(base, tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.chdir(tmp_path)
    words = ["generate", "--prompt", "a dog", "--base", f"{base}", "-o", "dog.png", "--device", "cpu"]
    assert main([*words, *more]) == 2
    out, error = capsys.readouterr()
    assert not out
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
