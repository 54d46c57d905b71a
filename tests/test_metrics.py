"""CLIP-I, DINO and CLIP-T against transformers used by hand, on tiny random models."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, ViTConfig, ViTModel

from lorarar.cli import main
from lorarar.judging import embed_images, image_similarity, load_encoder, measure_files, text_similarity
from lorarar.scales import SCALES
from lorarar.shoebox.models import architectures
from lorarar.shoebox.world.scene import SIZE

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
REFERENCES = rng.integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
TEXTS = [
    "a red dog",
    "a photo of an orange striped cat in oil painting style",
    "a cat",
    "a dog",
    "an orange cat",
]


def pixels(images) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    torch.manual_seed(0)
    words = architectures.tokenizer(TEXTS)
    model = architectures.clip(words).eval()
    folder = tmp_path_factory.mktemp("clip")
    for part in (model, words, architectures.image_processor()):
        part.save_pretrained(folder)
    return folder, model, words


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    torch.manual_seed(1)
    config = ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=16,
        initializer_range=0.2,
    )
    model = ViTModel(config, add_pooling_layer=False).eval()  # DINO's checkpoints have no pooling layer
    folder = tmp_path_factory.mktemp("vit")
    model.save_pretrained(folder)
    architectures.image_processor().save_pretrained(folder)
    return folder, model


def test_clip_t_is_what_clip_says_of_a_pair(clip):
    """CLIP's own logits are the cosines times a temperature."""
    folder, model, words = clip
    assert isinstance(CLIPModel.from_pretrained(folder), CLIPModel)
    expected = []
    for image, text in zip(IMAGES, TEXTS, strict=True):
        with torch.no_grad():
            said = model(pixel_values=pixels(image[None]), **words(text, return_tensors="pt"))
        expected.append((said.logits_per_image / model.logit_scale.exp()).item())
    encoder = load_encoder(folder, "cpu")
    np.testing.assert_allclose(text_similarity(encoder, IMAGES, TEXTS), expected, atol=2e-5)
    for_all = text_similarity(encoder, IMAGES, TEXTS[0])
    assert for_all[0] == pytest.approx(expected[0], abs=2e-5)
    assert len(for_all) == len(IMAGES)
    with pytest.raises(ValueError, match="2 texts for 5 images"):
        text_similarity(encoder, IMAGES, TEXTS[:2])


def test_clip_i_is_the_mean_cosine_with_the_references(clip):
    folder, model, _ = clip
    with torch.no_grad():
        seen = [
            model.visual_projection(model.vision_model(pixels(x)).pooler_output) for x in (IMAGES, REFERENCES)
        ]
    a, b = (x.double().numpy() for x in seen)
    expected = [np.mean([x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in b]) for x in a]
    np.testing.assert_allclose(
        image_similarity(load_encoder(folder, "cpu"), IMAGES, REFERENCES), expected, atol=2e-5
    )


def test_dino_compares_the_class_token(vit):
    folder, model = vit
    with torch.no_grad():
        a, b = (model(pixels(x)).last_hidden_state[:, 0].double().numpy() for x in (IMAGES, REFERENCES))
    expected = [np.mean([x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in b]) for x in a]
    encoder = load_encoder(folder, "cpu")
    found = image_similarity(encoder, IMAGES, REFERENCES)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert found.std() > 1e-4  # the images differ to it
    np.testing.assert_allclose(image_similarity(encoder, IMAGES[:1], IMAGES[:1]), 1, atol=1e-5)
    with pytest.raises(ValueError, match="takes no text"):
        text_similarity(encoder, IMAGES, TEXTS)


def test_batches_and_larger_images_are_taken(vit):
    encoder = load_encoder(vit[0], "cpu")
    whole = embed_images(encoder, IMAGES)
    torch.testing.assert_close(embed_images(encoder, IMAGES, batch_size=2), whole)
    twice = IMAGES.repeat(2, 1).repeat(2, 2)
    assert image_similarity(encoder, twice[:1], IMAGES[:1])[0] > 0.9
    with pytest.raises(ValueError, match="no images"):
        embed_images(encoder, IMAGES[:0])


def test_a_missing_model_is_told_in_one_line(tmp_path):
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match="cannot load") as caught:
            load_encoder(place, "cpu")
        assert "\n" not in str(caught.value)


def test_folders_are_measured(clip, vit, tmp_path, monkeypatch, capsys):
    """CLIP-I is with the style's references, DINO with the subject's."""
    parts = {"images": IMAGES[:2], "subject": IMAGES[2:4], "style": REFERENCES}
    for name, pictures in parts.items():
        (tmp_path / name).mkdir()
        for i, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / name / f"{i}.png")
    both = load_encoder(clip[0], "cpu"), load_encoder(vit[0], "cpu")
    found = measure_files(*both, *(tmp_path / name for name in parts), "a red dog")
    assert found["CLIP-I"] == pytest.approx(image_similarity(both[0], IMAGES[:2], REFERENCES).mean())
    assert found["DINO"] == pytest.approx(image_similarity(both[1], IMAGES[:2], IMAGES[2:4]).mean())
    assert found["CLIP-T"] == pytest.approx(text_similarity(both[0], IMAGES[:2], "a red dog").mean())
    scale = replace(SCALES["shoebox"], name="here", clip=str(clip[0]), dino=str(vit[0]))
    monkeypatch.setitem(SCALES, "here", scale)
    asked = ["metrics", "images", "--subject", "subject", "--style", "style", "--scale", "here"]
    monkeypatch.chdir(tmp_path)
    assert main([*asked, "--prompt", "a red dog", "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == pytest.approx(found)
    assert main([*asked, "--prompt", "a red dog", "--device", "cpu"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(found)
    assert main([*asked, "--prompt", "a red dog", "--style", "missing"]) == 2
    assert "missing: no such folder" in capsys.readouterr().err
