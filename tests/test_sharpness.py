"""The measure of sharpness and the decoder that is trained for it, against hand computations."""

import numpy as np
import pytest
import scipy.linalg
import torch
from diffusers import AutoencoderKL

from lorarar.shoebox.models import architectures, critic, decoder, sharpness
from lorarar.shoebox.models.loop import Recipe, to_unit
from lorarar.shoebox.world import styles, subjects
from lorarar.shoebox.world.scene import SIZE


def test_cells_come_once_before_any_comes_again():
    every = {(c, f) for c in subjects.CLASSES for f in styles.FAMILIES}
    first = sharpness.cells(2 * len(every) + 5)
    assert set(first[: len(every)]) == set(first[len(every) : 2 * len(every)]) == every
    assert first[:7] == sharpness.cells(7)


def test_a_drawing_does_not_depend_on_how_many_there_are():
    np.testing.assert_array_equal(sharpness.drawings(3)[:2], sharpness.drawings(2))
    assert (sharpness.drawings(2) != sharpness.drawings(2, sharpness.DRAWN + 1)).any()


def test_the_laplacian_of_known_pictures():
    flat = np.full((SIZE, SIZE, 3), 7, np.uint8)
    slope = np.broadcast_to(np.arange(SIZE, dtype=np.uint8)[:, None, None], flat.shape)
    point = np.zeros_like(flat)
    point[10, 20] = 100  # 400 in its place, -100 beside it, four times
    found = sharpness.laplacian(np.stack([flat, slope, point]))
    np.testing.assert_allclose(found, [0, 0, 800 / (SIZE - 2) ** 2])


def test_blur_lowers_it_and_noise_raises_it():
    drawn = sharpness.drawings(4)
    x = torch.from_numpy(drawn).permute(0, 3, 1, 2).float()
    soft = torch.nn.functional.avg_pool2d(x, 3, 1, 1).permute(0, 2, 3, 1).numpy().astype(np.uint8)
    rough = (drawn + np.random.default_rng(0).normal(0, 9, drawn.shape)).clip(0, 255).astype(np.uint8)
    middle = sharpness.laplacian(drawn)
    assert (sharpness.laplacian(soft) < middle).all()
    assert (sharpness.laplacian(rough) > middle).all()


def test_the_frechet_distance_is_that_of_scipys_matrix_root():
    numbers = np.random.default_rng(0)
    one = numbers.normal(size=(50, 6)) @ numbers.normal(size=(6, 6))
    two = numbers.normal(size=(70, 6)) @ numbers.normal(size=(6, 6)) + 0.3
    roots = scipy.linalg.sqrtm(np.cov(one.T) @ np.cov(two.T)).real
    wanted = ((one.mean(0) - two.mean(0)) ** 2).sum() + np.trace(np.cov(one.T) + np.cov(two.T) - 2 * roots)
    assert sharpness.frechet(one, two) == pytest.approx(wanted, rel=1e-8)
    assert sharpness.frechet(one, two) == pytest.approx(sharpness.frechet(two, one), rel=1e-8)


def test_the_frechet_distance_of_a_shift_is_its_square_and_of_itself_nothing():
    x = np.random.default_rng(1).normal(size=(10, 20))  # fewer images than features
    assert sharpness.frechet(x, x + 2.0) == pytest.approx(20 * 4)
    assert sharpness.frechet(x, x) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="two images"):
        sharpness.frechet(x[:1], x)


def test_features_are_what_the_heads_read_but_for_the_last_places():
    torch.manual_seed(0)
    model = critic.Critic().eval()
    read = []
    model.cls.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    drawn = sharpness.drawings(3)
    model.look(drawn)
    texture, places = read[0][:, :384], read[0][:, 384:].view(3, 192, -1)
    wanted = torch.cat([texture, places.mean(2)], 1)
    np.testing.assert_allclose(sharpness.features(model, drawn, batch=2), wanted, atol=1e-5)


# --- the decoder


@pytest.fixture
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return architectures.vae().eval()


def test_a_wider_autoencoder_has_the_same_function_and_room_to_learn(vae):
    wide = decoder.widen(vae).eval()
    x = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    with torch.no_grad():
        code = vae.encode(x).latent_dist.mode()
        torch.testing.assert_close(wide.encode(x).latent_dist.mode(), code, atol=1e-4, rtol=0)
        torch.testing.assert_close(wide.decode(code).sample, vae.decode(code).sample, atol=1e-4, rtol=0)
    assert wide.config.block_out_channels == (32, 64, 128)
    wide.decode(code).sample.square().mean().backward()
    slope = wide.decoder.conv_norm_out.weight.grad[:4]  # two channels and their doubles
    assert not torch.allclose(slope[:2], slope[2:], rtol=1e-2)


def test_each_adversarial_term_reaches_its_own_side():
    torch.manual_seed(0)
    patches = decoder.Patches(4)
    made = torch.rand(2, 3, 16, 16, requires_grad=True)
    drawn = torch.rand(2, 3, 16, 16)
    for_decoder, for_patches = decoder.adversarial(patches, made, drawn)
    for_decoder.backward()
    assert made.grad.abs().sum() > 0
    assert all(p.grad is None for p in patches.parameters())
    made.grad = None
    for_patches.backward()
    assert made.grad is None
    assert all(p.grad.abs().sum() > 0 for p in list(patches.parameters())[:-1])
    assert all(p.requires_grad for p in patches.parameters())


def test_the_penalty_is_the_squared_slope():
    patches = decoder.Patches(4)
    patches.layers = torch.nn.Conv2d(6, 1, 1)
    patches.layers.weight.data[:, 3:] = 0  # the picture itself, without its Laplacian
    slope = patches.layers.weight.square().sum()
    found = decoder.penalty(patches, torch.rand(2, 3, 8, 8))
    torch.testing.assert_close(found, slope)


@pytest.mark.slow
def test_training_leaves_the_latents_alone(vae, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vae.save_pretrained("base/vae")
    drawn = sharpness.drawings(4)
    recipe = Recipe(3, 2, 1e-3, warmup=1)
    for wide in (False, True):
        out = tmp_path / f"out-{wide}"
        facts = decoder.train_decoder(
            out, tmp_path / "base", tmp_path / f"run-{wide}", recipe, wide=wide, images=drawn
        )
        assert facts["steps"] == 3
        made = AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32)
        with torch.no_grad():
            x = to_unit(drawn)
            code = vae.encode(x).latent_dist.mode()
            torch.testing.assert_close(made.encode(x).latent_dist.mode(), code, atol=5e-3, rtol=0)
            assert (made.decode(code).sample - vae.decode(code).sample).abs().max() > 1e-3
