"""Other backbones in miniature: what they take over from the base, what they learn from, their commands."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from test_cli import run
from torch import nn

from lorarar.hypernet import load_network
from lorarar.lora import LoRAError
from lorarar.pipelines import base_sha256, generate, load_pipeline
from lorarar.scales import based, data_folder, find_scale
from lorarar.shoebox.models import architectures, backbones, distillation
from lorarar.shoebox.models.loop import Recipe
from lorarar.shoebox.world import world
from lorarar.train import train_lora

pytestmark = pytest.mark.xdist_group("backbones")

HOME = data_folder() / "shoebox"
SHORT = Recipe(3, 2, 1e-3, warmup=1, decay=0.0, ema=0.9)


@pytest.fixture(scope="module")
def base():
    return load_pipeline(HOME / "base", "cpu")


@pytest.fixture(scope="module")
def koala(base):
    return backbones.begun("koala", base)


@pytest.fixture(scope="module")
def sd15(base):
    return backbones.begun("sd15", base)


def given(base, n=3):
    draw = torch.Generator().manual_seed(0)
    noised = torch.randn(n, 16, architectures.LATENT, architectures.LATENT, generator=draw)
    text = torch.randn(n, architectures.TOKENS, base.unet.config.cross_attention_dim, generator=draw)
    pooled = torch.randn(n, architectures.PROJECTION, generator=draw)
    return noised, torch.tensor([900, 500, 20]), text, pooled


# --- what they are before they learn


def test_each_kind_is_the_pipeline_of_its_name(koala, sd15):
    assert type(koala) is StableDiffusionXLPipeline and type(sd15) is StableDiffusionPipeline
    assert koala.unet.mid_block is None and sd15.unet.mid_block is not None
    assert not hasattr(sd15, "text_encoder_2") and not hasattr(sd15.unet, "add_embedding")
    layout = [hasattr(block, "attentions") for block in (*sd15.unet.down_blocks, *sd15.unet.up_blocks)]
    assert layout == [True, True, False, False, True, True]  # SD 1.5: nothing in the lowest stage
    assert isinstance(sd15.unet.down_blocks[0].attentions[0].proj_in, nn.Conv2d)


def test_they_are_smaller_than_the_base(base, koala, sd15):
    whole, *parts = (sum(p.numel() for p in one.unet.parameters()) for one in (base, koala, sd15))
    assert parts[0] < 0.75 * whole and parts[1] < 0.8 * whole


@torch.no_grad()
def test_koala_answers_as_the_base_without_what_is_removed(base, koala):
    noised, t, text, pooled = given(base)
    added = {"text_embeds": pooled, "time_ids": architectures.time_ids(len(t))}
    cut = load_pipeline(HOME / "base", "cpu").unet
    cut.mid_block = None
    for block in list(cut.up_blocks)[:2]:
        block.attentions[1].transformer_blocks = nn.ModuleList()
    wanted = cut(noised, t, text, added_cond_kwargs=added).sample
    assert torch.allclose(koala.unet(noised, t, text, added_cond_kwargs=added).sample, wanted, atol=1e-5)
    whole = base.unet(noised, t, text, added_cond_kwargs=added).sample
    assert (whole - wanted).abs().mean() > 0.01


@torch.no_grad()
def test_sd15_attends_as_the_base_does_to_its_first_text_encoder(base, sd15):
    """The second encoder's part of the base's context as zeros is what cutting the matrices amounts to."""
    place = "down_blocks.1.attentions.0"
    old, new = base.unet.get_submodule(place), sd15.unet.get_submodule(place)
    x = torch.randn(2, old.in_channels, 8, 8, generator=torch.Generator().manual_seed(1))
    one = torch.randn(2, 20, base.text_encoder.config.hidden_size, generator=torch.Generator().manual_seed(2))
    both = torch.cat([one, one.new_zeros(2, 20, base.text_encoder_2.config.hidden_size)], -1)
    (wanted,) = old(x, encoder_hidden_states=both, return_dict=False)
    (found,) = new(x, encoder_hidden_states=one, return_dict=False)
    assert torch.allclose(found, wanted, atol=1e-5)


@torch.no_grad()
def test_sd15_begins_with_silent_new_attention(base, sd15):
    for place in ("down_blocks.0.attentions.0", "up_blocks.2.attentions.1"):
        block = sd15.unet.get_submodule(place)
        x = torch.randn(1, block.in_channels, 4, 4)
        words = torch.randn(1, 20, 64)
        assert torch.equal(block(x, encoder_hidden_states=words, return_dict=False)[0], x)


@torch.no_grad()
def test_sd15_is_told_the_size_by_its_time(base, sd15):
    t = torch.tensor([300])
    times = base.unet.time_embedding(base.unet.time_proj(t))
    added = {"text_embeds": torch.zeros(1, architectures.PROJECTION), "time_ids": architectures.time_ids(1)}
    wanted = times + base.unet.get_aug_embed(times, torch.zeros(1, 1, 1), added)
    assert torch.allclose(sd15.unet.time_embedding(sd15.unet.time_proj(t)), wanted, atol=1e-5)


@torch.no_grad()
def test_sd15_reads_its_words_nearly_where_sdxl_reads_them(base, sd15):
    text = base.tokenizer("a red dog in glowing style", padding="max_length", return_tensors="pt").input_ids
    wanted = base.text_encoder(text, output_hidden_states=True).hidden_states[-2]
    found = sd15.text_encoder(text)[0]
    whole = base.text_encoder(text)[0]  # where SD 1.5 would read the base's, untrained there
    assert (found - wanted).square().mean() < 0.2 * wanted.var()
    assert (found - wanted).square().mean() < 0.5 * (whole - wanted).square().mean()


def test_an_unknown_kind_is_refused(base):
    with pytest.raises(ValueError, match="no backbone 'flux': choose one of koala, sd15"):
        backbones.begun("flux", base)


# --- what they learn from


def test_the_loss_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    answer, velocity, told = (rng.normal(size=(2, 3, 4, 4)) for _ in range(3))
    shown, seen = ({"a": rng.normal(size=(2, 5)), "b": rng.normal(size=(2, 7, 3))} for _ in range(2))
    task, output = ((answer - other) ** 2 for other in (velocity, told))
    features = [((shown[k] - seen[k]) ** 2).sum() / (seen[k] ** 2).sum() for k in seen]

    def tensors(arrays):
        return {k: torch.from_numpy(v) for k, v in arrays.items()}

    found = distillation.distillation(
        *map(torch.from_numpy, (answer, velocity, told)), tensors(shown), tensors(seen)
    )
    assert found["task"].item() == pytest.approx(task.mean())
    assert found["output"].item() == pytest.approx(output.mean())
    assert found["features"].item() == pytest.approx(np.mean(features), rel=1e-5)
    assert found["loss"].item() == pytest.approx(task.mean() + output.mean() + np.mean(features), rel=1e-5)


def test_features_are_self_attention_and_the_ends_of_plain_stages(base, koala, sd15):
    names = distillation.compared(base.unet, koala.unet)
    attention = [n for n in names if n.endswith("attn1")]
    assert len(attention) == 4 and set(names) - set(attention) == {
        "down_blocks.0.resnets.0",
        "up_blocks.2.resnets.1",
    }
    shared = distillation.compared(base.unet, sd15.unet)
    assert len(shared) == 4 and all(n.endswith("attn1") for n in shared)


@torch.no_grad()
def test_features_are_what_the_modules_answer(base):
    noised, t, text, pooled = given(base)
    place = "down_blocks.0.resnets.0"
    with distillation.watched(base.unet, [place]) as seen:
        base.unet(
            noised,
            t,
            text,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": architectures.time_ids(3)},
        )
    assert seen[place].shape == (3, 64, architectures.LATENT, architectures.LATENT)
    assert not base.unet.get_submodule(place)._forward_hooks


# --- their training


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Each kind, trained for three steps on twelve drawings, in the folder where that ran."""
    folder = tmp_path_factory.mktemp("backbones")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for kind in backbones.KINDS:
            distillation.train_backbone(kind, HOME, folder / kind, folder / "run", SHORT, 0, "cpu", groups=2)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["koala", "sd15"])
def test_a_trained_backbone_is_loaded_and_is_another_base(trained, kind, base):
    pipe = load_pipeline(trained / kind, "cpu")
    assert isinstance(pipe, StableDiffusionPipeline if kind == "sd15" else StableDiffusionXLPipeline)
    assert base_sha256(pipe) != base_sha256(base)
    images = generate(pipe, "a dog in oil painting style", [0, 1], steps=2, guidance=2.0)
    assert images.shape == (2, 64, 64, 3) and images.std() > 5
    card = json.loads((trained / kind / "card.json").read_text())
    assert card["world"] == world.VERSION and card["command"].startswith(
        f"lorarar shoebox backbone --kind {kind}"
    )
    assert card["UNet parameters"] < card["the base's"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["koala", "sd15"])
def test_a_killed_training_resumes_to_the_same_bits(trained, kind, monkeypatch):
    monkeypatch.chdir(trained)

    class Killed(Exception):
        pass

    taken = []
    real = distillation.distillation

    def until_killed(*arguments):
        taken.append(1)
        if len(taken) == 3:
            raise Killed
        return real(*arguments)

    fit = distillation.fit
    monkeypatch.setattr(distillation, "fit", lambda *a, **k: fit(*a, **k, save_every=0))
    monkeypatch.setattr(distillation, "distillation", until_killed)
    options = (HOME, trained / f"{kind}-again", trained / "parts", SHORT, 0, "cpu")
    with pytest.raises(Killed):
        distillation.train_backbone(kind, *options, groups=2)
    assert not (trained / f"{kind}-again").exists()
    monkeypatch.setattr(distillation, "distillation", lambda *a: (taken.append(1), real(*a))[1])
    distillation.train_backbone(kind, *options, groups=2)
    assert len(taken) == 4  # two, the one that was killed, one more
    whole, resumed = (load_pipeline(trained / place, "cpu").unet for place in (kind, f"{kind}-again"))
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_networks_that_know_no_length_read_what_lorarars_own_cannot(trained):
    pipe = load_pipeline(based("smoke", trained / "sd15"), "cpu")
    pictures, _ = world.style_images("oil painting #1", 2)
    made = [train_lora(pipe, pictures, "a dog", steps=2, rank=2, seed=s, progress=False) for s in (0, 1)]
    trials = data_folder() / "hypernetworks" / "trials"
    found = load_network(trials / "invariants-0.safetensors").coefficients(*made, parts=("query",))
    assert len(found) == 14 and all(torch.isfinite(m).all() for both in found.values() for m in both)
    with pytest.raises(LoRAError, match=r"its columns have length 128, the hypernetwork knows 256, 384"):
        load_network(trials / "the-same-inputs-of-rms-1-0.safetensors").coefficients(*made, parts=("query",))


# --- commands


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("shoebox backbone --out x", "needs --kind koala or --kind sd15"),
        ("shoebox base --kind koala --out x", "no other step takes it"),
        ("shoebox backbone --kind koala", "add --out DIR"),
        ("shoebox beside --out nowhere", "nowhere holds no pipelines"),
        ("zoo train --names clock --base nowhere --out x", "no model_index.json in it"),
        ("zoo train --names clock --base nowhere", "add --out DIR"),
        ("study contest data/plans/koala.json --base nowhere", "add --loras DIR"),
        ("study contest data/plans/koala.json --base nowhere --loras x", "no model_index.json in it"),
    ],
)
def test_bad_input_is_said_in_one_line(arguments, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments.split()) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert line in said[-1] and len(said) == 1
    assert list(Path().iterdir()) == []


def test_a_kind_that_there_is_not_is_said_in_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        run("shoebox", "backbone", "--kind", "flux", "--out", "x")
    assert ended.value.code == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert "invalid choice: 'flux' (choose from" in said


def test_a_scale_on_another_base_keeps_the_rest():
    scale = find_scale("shoebox")
    other = based("shoebox", HOME / "base")
    assert Path(other.base) == (HOME / "base").resolve()
    assert other.content == scale.content and based("shoebox", None) is scale
