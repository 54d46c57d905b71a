"""The miniatures, their training and the critic, against hand computations and the libraries' own loading."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from lorarar.atomic import atomic
from lorarar.cli import main
from lorarar.pipelines import generate, load_pipeline
from lorarar.scales import SCALES
from lorarar.shoebox.models import architectures, critic_training, sharpness
from lorarar.shoebox.models.architectures import TOKENS
from lorarar.shoebox.models.critic import Critic
from lorarar.shoebox.models.critic_training import balanced, contrast, pairs, verify
from lorarar.shoebox.models.loop import (
    RECIPES,
    Recipe,
    fit,
    has_bfloat16,
    to_bytes,
    to_unit,
)
from lorarar.shoebox.models.train import encode, psnr, scaled, train_base, train_clip, train_vae
from lorarar.shoebox.world import styles, subjects, world
from lorarar.shoebox.world.scene import COLOUR_NAMES, SIZE
from lorarar.train.loop import learning_rate_factor

# One process has all of them, so that what they share is made once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("miniatures")]

CORPUS = ["a red and white dog in watercolor painting style", "a photo of an orange striped cat"]
NOISE = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.fixture(scope="module")
def words() -> CLIPTokenizer:
    return architectures.tokenizer(CORPUS)


# --- the tokenizer


def test_every_word_of_the_world_is_one_token(words):
    known = " ".join(
        [*subjects.CLASSES, *styles.FAMILIES, *COLOUR_NAMES, *world.RARE_TOKENS, *CORPUS]
    ).split()
    for word in sorted(set(known) - {"3D"}):  # CLIP takes digits apart
        for spelt in (word, word.upper()):
            ids = words(spelt).input_ids
            assert len(ids) == 3, word
            assert words.convert_ids_to_tokens(ids[1]) == word.lower() + "</w>"
    assert len(words("3D").input_ids) == 4
    assert len({words(word).input_ids[1] for word in world.RARE_TOKENS}) == len(world.RARE_TOKENS)


def test_the_longest_caption_fits(words):
    longest = max(
        (f"a photo of an sks {c} and {c} spotted {name}" for c in COLOUR_NAMES for name in subjects.CLASSES),
        key=lambda text: len(words(text).input_ids),
    )
    for family in styles.FAMILIES:
        assert len(words(f"{longest.removeprefix('a photo of ')} in {family} style").input_ids) <= TOKENS


def test_any_text_has_tokens(words):
    for text in ("", "zebra", "émigré 😀 漢字", "a\n\tb", "!?", "x" * 400, "<|endoftext|>"):
        ids = words(text, padding="max_length", truncation=True).input_ids
        assert len(ids) == TOKENS
        assert ids[0] == words.bos_token_id
        assert ids[-1] == words.eos_token_id
        assert max(ids) < len(words)
    assert words.decode(words("zebra qux").input_ids, skip_special_tokens=True).strip() == "zebra qux"


def test_the_tokenizer_is_read_back_by_its_class(words, tmp_path):
    words.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    assert again.model_max_length == TOKENS
    for text in (*CORPUS, "A SKS dog in 3D rendering style", "zebra 😀", ""):
        for asked in ({}, {"padding": "max_length", "truncation": True}):
            assert again(text, **asked).input_ids == words(text, **asked).input_ids


def test_the_tokenizer_is_a_function_of_its_corpus(words):
    again = architectures.tokenizer(reversed(CORPUS * 2))
    assert again.get_vocab() == words.get_vocab()
    assert again(CORPUS).input_ids == words(CORPUS).input_ids


# --- the architectures


def test_sizes_are_those_of_miniatures(words):
    clip, second = architectures.clip(words), architectures.second_text_encoder(words)
    context = clip.config.text_config.hidden_size + second.config.hidden_size
    unet, vae = architectures.unet(context), architectures.vae()
    assert 3e6 <= parameters(unet) <= 15e6
    text = parameters(clip.text_model)  # the base has a copy of CLIP's
    halves = 2 * sum(map(parameters, (unet, vae, clip, second, Critic()))) + 2 * text
    assert halves <= 40e6  # bytes of everything under data/shoebox
    assert unet.config.addition_embed_type == "text_time"
    kinds = {name.rsplit(".", 1)[-1] for name, _ in unet.named_modules()}
    assert {"attn1", "attn2", "to_q", "to_k", "to_v", "to_out", "mid_block"} <= kinds
    assert not any("attn" in name for name, _ in unet.down_blocks[0].named_modules())  # as in SDXL


def test_clip_pools_at_the_end_of_the_text(words):
    """The pooled embedding sees the last word, and not what stands behind the end."""
    torch.manual_seed(0)
    text = architectures.second_text_encoder(words).eval()
    asked = words(["a red dog", "a red cat"], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        padded = text(asked).text_embeds
        bare = text(asked[:, :5]).text_embeds
    torch.testing.assert_close(padded, bare)
    assert (padded[0] - padded[1]).abs().max() > 1e-3


def test_images_reach_clip_in_plus_minus_one():
    seen = architectures.image_processor()(images=list(NOISE), return_tensors="pt").pixel_values
    torch.testing.assert_close(
        seen, torch.from_numpy(NOISE).permute(0, 3, 1, 2) / 127.5 - 1, atol=1e-5, rtol=0
    )


def test_sensitivity_is_the_decoders_jacobian():
    torch.manual_seed(1)
    vae = architectures.vae((8, 16, 16), 3).eval()
    latents = torch.randn(1, 3, 16, 16)
    wanted = torch.zeros(3, 3)
    for place in range(256)[17::68]:  # four places of the sixteen, each on its own
        y, x = divmod(place, 16)
        columns = []
        for channel in range(3):
            along = torch.zeros_like(latents)
            along[0, channel, y, x] = 1
            _, change = torch.autograd.functional.jvp(lambda z: vae.decode(z).sample, latents, along)
            columns.append(change.flatten())
        wanted += torch.stack(columns) @ torch.stack(columns).T / 4
    found = architectures.sensitivity(vae, latents)
    torch.testing.assert_close(found, wanted, rtol=0.2, atol=0.1 * float(wanted.diagonal().max()))


def test_aligning_changes_the_latents_and_not_the_pictures():
    torch.manual_seed(1)
    vae = architectures.vae((8, 16, 16), 4).eval()
    pixels = to_unit(np.random.default_rng(0).integers(0, 256, (16, SIZE, SIZE, 3), np.uint8))
    with torch.no_grad():
        before = vae.encode(pixels).latent_dist.mode()
        picture = vae.decode(before).sample
        shown = architectures.align(vae, before)
        after = vae.encode(pixels).latent_dist.mode()
        torch.testing.assert_close(vae.decode(after).sample, picture, atol=1e-3, rtol=0)
    covariance = torch.cov(after.permute(1, 0, 2, 3).flatten(1))
    size = torch.tensor([1.0 if share > 0.005 else 0.1 for share in shown])
    torch.testing.assert_close(covariance, size.square().diag(), atol=2e-3, rtol=2e-3)
    assert shown == sorted(shown, reverse=True)
    metric = architectures.sensitivity(vae, after)
    steps = metric.diagonal().sqrt() * size  # what a standard deviation of each channel changes
    torch.testing.assert_close(steps / steps[0], torch.tensor(shown), atol=0.02, rtol=0.1)


def test_encoding_is_the_mode_in_batches():
    torch.manual_seed(2)
    vae = architectures.vae((8, 16, 16), 4).eval()
    latents = encode(vae, NOISE, batch=2)
    assert latents.shape == (5, 4, 16, 16)
    with torch.no_grad():
        moments = vae.quant_conv(vae.encoder(torch.from_numpy(NOISE).permute(0, 3, 1, 2) / 127.5 - 1))
    rounding = 2e-2 if has_bfloat16("cpu") else 1e-5
    torch.testing.assert_close(latents, moments[:, :4], atol=rounding, rtol=rounding)


def test_bytes_and_units():
    units = to_unit(NOISE)
    assert units.shape == (5, 3, SIZE, SIZE)
    assert float(units.min()) == -1
    assert float(units.max()) == 1
    np.testing.assert_array_equal(to_bytes(units), NOISE)
    np.testing.assert_array_equal(to_bytes(2 * torch.ones(1, 3, 1, 1)), 255 * np.ones((1, 1, 1, 3)))
    black, gray = -torch.ones(1, 3, 4, 4), -torch.ones(1, 3, 4, 4) + 0.2
    assert float(psnr(black, gray)) == pytest.approx(20.0)  # an error of a tenth of the range


def test_time_ids_are_the_pipelines_own(words):
    small = architectures.second_text_encoder(words)
    unet = architectures.unet(160, (16, 32), (1, 1))
    pipe = architectures.pipeline(
        architectures.vae((8, 16, 16)), CLIPTextModel(small.config), small, words, unet
    )
    own = pipe._get_add_time_ids(
        (SIZE, SIZE),
        (0, 0),
        (SIZE, SIZE),
        torch.float32,
        text_encoder_projection_dim=architectures.PROJECTION,
    )
    torch.testing.assert_close(architectures.time_ids(3), own.repeat(3, 1))


# --- all four recipes, two steps each


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder that the four commands write, and their runs beside it."""
    folder = tmp_path_factory.mktemp("shoebox")
    recipe = Recipe(steps=2, batch=6, learning_rate=1e-3, warmup=1)
    out, run = folder / "out", folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("lorarar.shoebox.models.train.HELD_OUT", 2)
        patch.setattr(critic_training, "HELD_OUT", 2)
        for make in (train_clip, train_vae, train_base, critic_training.train_critic):
            make(out, run, recipe, 0, "cpu", groups=3)
    return out


def test_the_measure_sees_what_the_pipeline_makes(trained, tmp_path, monkeypatch):
    """The measured pictures are those of `generate`; a second start makes none again."""
    monkeypatch.setattr(sharpness, "CHUNK", 2)
    base, judge = trained / "base", trained / "critic"
    found = sharpness.measure(base, judge, tmp_path, 3, steps=2)
    (folder,) = tmp_path.iterdir()
    files = sorted(folder.iterdir())
    assert len(files) == 2
    written = [file.stat().st_mtime_ns for file in files]
    pipe = load_pipeline(base, "cpu")
    codes = torch.cat([torch.load(file, weights_only=True)["latents"].float() for file in files])[:3]
    prompts = [world.prompt(*cell) for cell in sharpness.cells(3)]
    wanted = generate(pipe, prompts, [0, 1, 2], steps=2, guidance=SCALES["shoebox"].guidance)
    made = sharpness.decode(pipe.vae, codes)
    assert np.abs(made.astype(int) - wanted).max() <= 2  # latents are kept in half precision
    drawn = sharpness.drawings(3)
    assert found["generated"] == sharpness.compare(Critic.load(judge), drawn, made)
    assert found["other drawings"]["Fréchet distance"] > 0
    again = sharpness.measure(base, judge, tmp_path, 2, steps=2, vae=base / "vae")
    assert again["generated"]["Fréchet distance"] >= 0
    assert [file.stat().st_mtime_ns for file in files] == written


def test_diffusers_alone_loads_the_base_and_draws(trained):
    pipe = StableDiffusionXLPipeline.from_pretrained(trained / "base")
    pipe.set_progress_bar_config(disable=True)
    asked = {
        "height": SIZE,
        "width": SIZE,
        "num_inference_steps": 2,
        "guidance_scale": 4.0,
        "output_type": "np",
    }
    one, two, other = (
        pipe(prompt, generator=torch.Generator().manual_seed(seed), **asked).images
        for prompt, seed in (("a sks dog", 0), ("a sks dog", 0), ("a sks dog", 1))
    )
    assert one.shape == (1, SIZE, SIZE, 3)
    assert np.isfinite(one).all()
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_the_base_is_saved_whole_in_half_precision(trained):
    pipe = StableDiffusionXLPipeline.from_pretrained(trained / "base", torch_dtype=torch.float16)
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        (file,) = (trained / "base" / part).glob("*.safetensors")
        on_disk = load_file(file)
        assert {v.dtype for v in on_disk.values() if v.is_floating_point()} == {torch.float16}
        state = getattr(pipe, part).state_dict()
        for name, value in on_disk.items():
            if name in state:
                torch.testing.assert_close(state[name], value, rtol=0, atol=0)
    assert pipe.vae.config.latents_mean is None  # which SDXL's pipeline takes for four channels only


def test_the_text_encoders_of_the_base_go_on_from_clip(trained):
    pipe = StableDiffusionXLPipeline.from_pretrained(trained / "base")
    clip = CLIPModel.from_pretrained(trained / "clip", dtype=torch.float32).eval()
    assert pipe.text_encoder.dtype == pipe.unet.dtype == torch.float32  # unless asked otherwise
    theirs = clip.text_model.state_dict()
    ours = {k.removeprefix("text_model."): v for k, v in pipe.text_encoder.state_dict().items()}
    assert ours.keys() == theirs.keys()
    moved = torch.stack([(ours[k] - theirs[k]).float().norm() for k in theirs]).norm()
    size = torch.stack([v.float().norm() for v in theirs.values()]).norm()
    assert 0 < moved < 0.1 * size  # two steps: learned on, but began there


def test_latents_of_the_trained_vae_are_standard(trained):
    vae = AutoencoderKL.from_pretrained(trained / "base" / "vae", torch_dtype=torch.float32)
    images, _, _ = world.dataset(3, 0, cache=trained.parent / "runs/world")
    latents = encode(vae, images)
    assert latents.mean((0, 2, 3)).abs().max() < 0.02
    spread = latents.std((0, 2, 3))
    size = torch.where(spread > 0.5, 1.0, 0.1)  # what hardly shows gets a tenth
    assert (spread / size - 1).abs().max() < 0.02


def test_cards_say_how_it_was_made(trained):
    for place in ("clip", "base/vae", "base", "critic"):
        card = json.loads((trained / place / "card.json").read_text())
        assert card["command"] == f"lorarar shoebox {Path(place).name} --steps 2 --seed 0"
        assert card["steps"] == 2
        assert card["seconds"] > 0
        assert card["world"] == world.VERSION
        assert card["machine"]
        assert f"| command | {card['command']} |" in (trained / place / "README.md").read_text()


def test_no_part_names_a_folder_of_this_machine(trained):
    for config in (trained / "base").glob("*/config.json"):
        assert "_name_or_path" not in json.loads(config.read_text())


def test_latents_are_encoded_anew_for_another_vae(trained, monkeypatch):
    monkeypatch.chdir(trained.parent)
    run = trained.parent / "run"
    assert len(list(run.glob("latents-*"))) == 1
    (run / "base.pt").unlink()
    vae = AutoencoderKL.from_pretrained(trained / "base" / "vae", torch_dtype=torch.float32)
    vae.quant_conv.bias.data += 1
    vae.half().save_pretrained(trained / "base" / "vae")
    train_base(trained, run, Recipe(1, 2, 1e-3), 0, "cpu", groups=3)
    first, second = (torch.load(file) for file in run.glob("latents-*"))
    assert (first - second).abs().float().mean() == pytest.approx(1, abs=0.01)


# --- the training loop


class Killed(Exception):
    pass


def line(seed: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 2))


def fitted(
    run: Path, recipe: Recipe, kill_at: int | None = None, seen: list | None = None, **options
) -> nn.Module:
    model = line()
    items = torch.randn(20, 4, generator=torch.Generator().manual_seed(4))

    def loss(indices, step):
        if step == kill_at:
            raise Killed
        if seen is not None:
            seen.append((step, indices.tolist()))
        noise = torch.randn(len(indices), 4)  # randomness from the global generator
        return {"loss": model(items[indices] + 0.1 * noise).square().mean() + model(noise).mean()}

    fit("line", model, loss, len(items), recipe, run=run, **options)
    return model


SHORT = Recipe(steps=12, batch=4, learning_rate=0.05, warmup=3, ema=0.9)


def test_killed_and_resumed_is_uninterrupted_to_the_bit(tmp_path):
    whole = fitted(tmp_path / "whole", SHORT).state_dict()
    steps = []
    for kill_at in (5, 9):
        with pytest.raises(Killed):
            fitted(tmp_path / "parts", SHORT, kill_at, steps, save_every=0)
    resumed = fitted(tmp_path / "parts", SHORT, None, steps, save_every=0).state_dict()
    assert [step for step, _ in steps] == list(range(12))  # none twice
    for name, value in whole.items():
        assert torch.equal(value, resumed[name])


def test_steps_after_the_last_save_are_repeated(tmp_path):
    whole = fitted(tmp_path / "whole", SHORT).state_dict()
    with pytest.raises(Killed):
        fitted(tmp_path / "parts", SHORT, 7)  # nothing saved within the minute
    assert not (tmp_path / "parts/line.pt").exists()
    again = fitted(tmp_path / "parts", SHORT).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_a_finished_run_is_read_not_trained(tmp_path):
    first = fitted(tmp_path, SHORT).state_dict()
    again = fitted(tmp_path, SHORT, kill_at=0).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())


def test_the_state_of_another_run_is_refused(tmp_path):
    fitted(tmp_path, SHORT)
    with pytest.raises(ValueError, match=r"line\.pt is the checkpoint of a run with other seed: remove it"):
        fitted(tmp_path, SHORT, seed=1)
    with pytest.raises(ValueError, match="run with other steps"):
        fitted(tmp_path, replace(SHORT, steps=13))


def test_the_average_is_left_in_the_model(tmp_path):
    model = fitted(tmp_path, SHORT)
    state = torch.load(tmp_path / "line.pt", weights_only=True)
    for left, average, last in zip(
        model.parameters(), state["average"]["shadow_params"], state["parameters"], strict=True
    ):
        assert torch.equal(left, average)
        assert not torch.equal(left, last)
    assert not model.training


def test_items_come_in_whole_groups(tmp_path):
    seen = []
    fitted(tmp_path, replace(SHORT, batch=10), None, seen, group=5)
    for _, indices in seen:
        assert len(indices) == 10
        for start in (0, 5):
            run = indices[start : start + 5]
            assert run[0] % 5 == 0
            assert run == list(range(run[0], run[0] + 5))
    assert len({tuple(indices) for _, indices in seen}) > 3


def test_the_rate_warms_up_stays_and_falls():
    recipe = Recipe(steps=100, batch=1, learning_rate=1, warmup=10, decay=0.4)
    rates = [learning_rate_factor(step, 100, recipe.warmup, recipe.decay) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[10:61] == [1.0] * 51
    assert rates[60:] == pytest.approx([1 - k / 40 for k in range(41)])
    short = scaled("base", 20)
    assert short == replace(RECIPES["base"], steps=20, warmup=2)
    assert scaled("vae", None) == RECIPES["vae"]


def test_the_rate_reaches_the_optimiser(tmp_path):
    """With one step of AdamW each weight moves by the rate: its first update has unit size."""
    recipe = Recipe(steps=1, batch=4, learning_rate=0.01, warmup=4, decay=0.0, weight_decay=0.0)
    before = line().state_dict()
    fitted(tmp_path, recipe)
    after = torch.load(tmp_path / "line.pt", weights_only=True)["parameters"]
    moved = torch.cat([(a - b).abs().ravel() for a, b in zip(after, before.values(), strict=True)])
    moved = moved[moved > 0]  # a dropped unit does not move
    torch.testing.assert_close(moved, torch.full_like(moved, 0.01 / 4), rtol=1e-3, atol=0)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "weights.bin"
    with atomic(file) as aside:
        aside.write_text("old")

    with pytest.raises(Killed), atomic(file) as aside:
        aside.write_text("ha")
        raise Killed
    assert file.read_text() == "old"
    with atomic(file) as aside:
        aside.write_text("new")
    assert file.read_text() == "new"


# --- the critic


def unit(vectors: list) -> torch.Tensor:
    return nn.functional.normalize(torch.tensor(vectors, dtype=torch.float32), dim=-1)


def test_contrast_is_the_sum_over_pairs():
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((7, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = [0, 0, 0, 1, 1, 2, 3]  # two stand alone
    rows = []
    for i in range(7):
        others = [k for k in range(7) if k != i]
        total = sum(np.exp(vectors[i] @ vectors[k] / 0.1) for k in others)
        like = [k for k in others if labels[k] == labels[i]]
        if like:
            rows.append(-np.mean([np.log(np.exp(vectors[i] @ vectors[k] / 0.1) / total) for k in like]))
    value = contrast(torch.from_numpy(vectors), torch.tensor(labels))
    assert float(value) == pytest.approx(np.mean(rows), rel=1e-12)


def test_contrast_has_a_finite_slope_and_pulls_together():
    vectors = unit([[1, 0], [0, 1], [-1, 0.1]]).requires_grad_()
    contrast(vectors, torch.tensor([0, 0, 1])).backward()
    assert vectors.grad.isfinite().all()
    assert vectors.grad[0] @ torch.tensor([0.0, 1.0]) < 0  # descent moves the first towards the second


def test_verification_weighs_three_kinds_of_pairs_alike():
    rng = np.random.default_rng(6)
    vectors = rng.standard_normal((8, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels, kinds = [0, 0, 0, 1, 1, 2, 3, 4], [0, 0, 0, 0, 0, 0, 1, 1]
    found = {"same": [], "hard": [], "easy": []}
    for i in range(8):
        for k in range(i):
            said = 1 / (1 + np.exp(-(7 * vectors[i] @ vectors[k] - 2)))  # how likely it is the same
            if labels[i] == labels[k]:
                found["same"].append(-np.log(said))
            else:
                found["hard" if kinds[i] == kinds[k] else "easy"].append(-np.log(1 - said))
    judgement = torch.tensor([7.0, -2.0], dtype=torch.float64)
    value = verify(torch.from_numpy(vectors), torch.tensor(labels), torch.tensor(kinds), judgement)
    assert float(value) == pytest.approx(np.mean([np.mean(of) for of in found.values()]), rel=1e-12)
    # Where a kind of pairs is missing, the loss and its slope stay finite.
    alone = unit([[1, 0], [0, 1]]).requires_grad_()
    verify(alone, torch.tensor([0, 1]), torch.tensor([0, 0]), judgement.float()).backward()
    assert alone.grad.isfinite().all()


def test_pairs_and_the_hard_ones_among_them():
    vectors = unit([[1, 0], [1, 1], [0, 1], [-1, 0]])
    same, hard = pairs(vectors, torch.tensor([0, 0, 1, 2]), torch.tensor([5, 5, 5, 6]))
    half = 0.5**0.5
    assert sorted(same.tolist()) == pytest.approx([half])
    assert sorted(hard.tolist()) == pytest.approx([0, half])  # not those with the fourth


def test_balanced_accuracy_weighs_both_kinds_alike():
    positive, negative = torch.tensor([0.9, 0.8, 0.2, 0.5]), torch.tensor([0.1, 0.7])
    assert balanced(positive, negative, 0.5) == pytest.approx((2 / 4 + 1 / 2) / 2)
    assert balanced(positive, negative, 0.0) == pytest.approx((1 + 0) / 2)
    assert balanced(positive, negative, 1.0) == pytest.approx((0 + 1) / 2)


@pytest.mark.parametrize(("axis", "place"), [("subject", 2), ("style", 3)])
def test_same_is_a_strict_majority(monkeypatch, axis, place):
    """Vectors instead of images: the reference k is the k-th axis, an image is what it agrees with."""
    judge = Critic(width=8)
    getattr(judge, f"{axis}_threshold").fill_(0.4)
    table = torch.eye(4)

    def look(vectors, batch=200):
        nothing = torch.zeros(len(vectors), 4)
        return tuple(torch.as_tensor(vectors) if k == place else nothing for k in range(4))

    monkeypatch.setattr(judge, "look", look)
    images = unit([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [1, 1, 1, 1]])
    assert judge.same(axis, table, images).tolist() == [True, False, False, False, True]
    assert judge.same(axis, table[:3], images).tolist() == [True, True, False, False, True]
    assert judge.same(axis, table[:1], images).tolist() == [True, True, True, False, True]


def test_the_critic_is_read_back(tmp_path):
    torch.manual_seed(6)
    judge = Critic(width=8, embedding=16)
    judge.subject_threshold.fill_(0.61)
    judge.style_threshold.fill_(0.17)
    judge.save(tmp_path / "critic")
    again = Critic.load(tmp_path / "critic")
    assert not again.training
    assert float(again.subject_threshold) == pytest.approx(0.61)
    assert float(again.style_threshold) == pytest.approx(0.17)
    for first, second in zip(judge.look(NOISE, batch=2), again.look(NOISE), strict=True):
        assert first.shape == second.shape
        torch.testing.assert_close(first, second, atol=5e-3, rtol=0)  # weights in half precision
    _, _, subject, style = again.look(NOISE)
    torch.testing.assert_close(subject.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(style.norm(dim=1), torch.ones(5))


def test_roughening_keeps_the_picture():
    torch.manual_seed(7)
    images = to_unit(NOISE)
    rough = critic_training.roughen(images)
    assert rough.shape == images.shape
    assert float(rough.abs().max()) <= 1
    smooth = torch.full((4, 3, SIZE, SIZE), 0.2)
    assert (critic_training.roughen(smooth) - smooth).abs().mean() < 0.15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("clip", "--init", "somewhere"), "--init goes with the steps vae, base, decoder, judge and critic"),
        (("sharpness", "--images", "1"), "--images must be at least 2, not 1"),
        (("sharpness", "--vae", "somewhere"), "--vae somewhere: no config.json in it"),
        (("critic", "--changed", "1"), "--changed must be at least 0 and below 1, not 1"),
        (("changed", "--out", "nowhere"), "nowhere has no critic: train it first"),
        (("judge", "--init", "somewhere"), "no config.json in it"),
        (("judge", "--portraits", "9"), "--portraits goes with the step critic"),
        (("critic", "--init", "somewhere"), "only where it names attributes: add --portraits"),
        (("critic", "--init", "somewhere", "--portraits", "9"), "no critic.safetensors in it"),
        (("base", "--init", "somewhere"), "no unet/config.json in it"),
        (("vae", "--steps", "0"), "--steps must be at least 1, not 0"),
        (("base", "--out", "nowhere"), "nowhere has no base/vae: train it first"),
    ],
)
def test_bad_input_to_the_command_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["shoebox", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())
