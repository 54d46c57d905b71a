"""Scales; pipelines come from diffusers' own folders; an image depends on its own seed and prompt."""

import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForText2Image, StableDiffusionXLPipeline
from tiny import tiny_pipeline

from lorarar.lora import LoRA
from lorarar.pipelines import find_device, generate, load_pipeline, loaded
from lorarar.scales import SCALES, data_folder, find_scale

PROMPTS = ["a dog", "a cat", "a red vase", "a dog", "a can"]
SEEDS = [3, 1, 4, 1, 5]


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionXLPipeline:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def folder(pipe, tmp_path_factory):
    """Return a data folder whose shoebox base is the tiny pipeline."""
    folder = tmp_path_factory.mktemp("data")
    pipe.save_pretrained(folder / "shoebox" / "base")
    return folder


def apart(a: np.ndarray, b: np.ndarray) -> int:
    """Return the largest difference between two uint8 images, in levels."""
    return int(np.abs(a.astype(int) - b).max())


def test_sdxl_has_the_supplements_numbers():
    sdxl = SCALES["sdxl"]
    for recipe in (sdxl.content, sdxl.style):
        assert (recipe.rank, recipe.steps, recipe.batch_size, recipe.learning_rate) == (64, 1000, 1, 5e-5)
    assert sdxl.inference_steps == 50
    assert (sdxl.ziplora.steps, sdxl.ziplora.learning_rate, sdxl.ziplora.similarity) == (100, 0.01, 0.01)
    assert (sdxl.hypernetwork.steps, sdxl.hypernetwork_pairs) == (5000, 100)


def test_scales_are_found_by_name():
    assert list(SCALES) == ["smoke", "shoebox", "sdxl", "koala", "sd15"]
    assert find_scale("koala") is find_scale(SCALES["koala"]) is SCALES["koala"]
    with pytest.raises(ValueError, match="unknown scale 'huge': choose one of smoke, shoebox"):
        find_scale("huge")


def test_data_folder_is_beside_the_package_or_named(monkeypatch, tmp_path):
    monkeypatch.delenv("LORARAR_DATA", raising=False)
    assert data_folder().name == "data"
    assert (data_folder().parent / "lorarar" / "pipelines.py").is_file()
    monkeypatch.setenv("LORARAR_DATA", str(tmp_path))
    assert data_folder() == tmp_path


@pytest.mark.parametrize("name", ["smoke", "shoebox", "path"])
def test_loads_what_diffusers_loads(pipe, folder, monkeypatch, capfd, name):
    monkeypatch.setenv("LORARAR_DATA", str(folder))
    ours = load_pipeline(folder / "shoebox" / "base" if name == "path" else name, "cpu")
    assert capfd.readouterr() == ("", "")
    assert type(ours) is StableDiffusionXLPipeline
    assert ours.scale is SCALES["shoebox" if name == "path" else name]
    assert ours.unet.dtype == ours.vae.dtype == ours.text_encoder_2.dtype == torch.float32
    want = pipe("a dog", num_inference_steps=2, generator=torch.Generator().manual_seed(7), output_type="np")
    got = generate(ours, "a dog", 7, steps=2, guidance=5.0)
    assert apart(got, (want.images * 255).round().astype(np.uint8)) <= 1


def test_a_folder_outside_the_scales_has_none(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "mine")
    assert load_pipeline(tmp_path / "mine", "cpu").scale is None


def test_a_missing_or_broken_folder_is_one_line(pipe, tmp_path, monkeypatch):
    monkeypatch.setenv("LORARAR_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"no model folder .*shoebox/base: expected LORARAR_DATA"):
        load_pipeline("shoebox")
    with pytest.raises(ValueError, match=r"no model folder .*: expected a folder"):
        load_pipeline(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"no model_index.json"):
        load_pipeline(tmp_path)
    broken = tmp_path / "broken"
    pipe.save_pretrained(broken)
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    (tmp_path / "model_index.json").write_text("{ not json")
    for folder in (broken, tmp_path):
        with pytest.raises(ValueError, match=r"cannot load .* as a diffusers pipeline: ") as caught:
            load_pipeline(folder, "cpu")
        assert "\n" not in str(caught.value)


def test_an_unreachable_model_is_one_line(monkeypatch):
    def unreachable(name: str, **options: object) -> None:
        assert name == SCALES["sdxl"].base
        assert options["variant"] == "fp16"  # half the download; a CPU keeps the halves
        raise OSError("\nWe couldn't connect.\nCheck your connection.")

    monkeypatch.setattr(AutoPipelineForText2Image, "from_pretrained", unreachable)
    with pytest.raises(ValueError, match=r"cannot load stabilityai/.*: We couldn't connect.$"):
        load_pipeline("sdxl", "cpu")


def test_devices():
    assert find_device("cpu").type == "cpu"
    assert find_device(None).type in ("cpu", "cuda", "mps")
    for name in ("abacus", "meta"):
        with pytest.raises(ValueError, match=f"no device '{name}'"):
            find_device(name)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no device 'cuda'"):
            find_device("cuda")


def test_images_depend_on_their_own_seed_and_prompt(pipe):
    together = generate(pipe, PROMPTS, SEEDS, steps=3, batch_size=5)
    assert together.shape == (5, 32, 32, 3)
    assert together.dtype == np.uint8
    turned = generate(pipe, PROMPTS[::-1], SEEDS[::-1], steps=3, batch_size=2)[::-1]
    assert apart(together, turned) <= 1
    for i, (prompt, seed) in enumerate(zip(PROMPTS, SEEDS, strict=True)):
        assert apart(together[i], generate(pipe, prompt, seed, steps=3)[0]) <= 1
    assert apart(together[0], together[3]) > 8  # one prompt, two seeds


def test_generation_uses_neither_the_global_generator_nor_too_many_steps(pipe, monkeypatch):
    calls = []
    forward = pipe.unet.forward

    def counted(sample: torch.Tensor, *arguments: object, **options: object) -> object:
        calls.append(len(sample))
        return forward(sample, *arguments, **options)

    monkeypatch.setattr(pipe.unet, "forward", counted)
    monkeypatch.setattr(pipe, "scale", SCALES["smoke"], raising=False)
    before = torch.get_rng_state()
    seen = []
    generate(
        pipe, "a dog", range(3), batch_size=2, callback=lambda start, made: seen.append((start, len(made)))
    )
    assert torch.equal(before, torch.get_rng_state())
    assert seen == [(0, 2), (2, 1)]
    assert calls == [4] * SCALES["smoke"].inference_steps + [2] * SCALES["smoke"].inference_steps


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a dog"] * 2, [1, 2, 3]), "2 prompts but 3 seeds"),
        (([], [1]), "0 prompts but"),
        ((["a dog"], []), "prompts but 0 seeds"),
    ],
)
def test_prompts_and_seeds_must_match(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(pipe, *arguments, steps=1)


def test_numbers_out_of_range(pipe):
    for name, value in (("steps", 0), ("batch_size", 0), ("guidance", -1)):
        with pytest.raises(ValueError, match=rf"{name} must (be .* at least 1|not be negative)"):
            generate(pipe, "a dog", 0, **{name: value})


def test_loaded_loras_equal_weights_changed_by_hand(pipe):
    generator = torch.Generator().manual_seed(0)
    block = "unet.down_blocks.1.attentions.0.transformer_blocks.0"
    text = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"

    def lora(*ranks: int) -> LoRA:
        pairs = {}
        for layer, rank in zip((f"{block}.attn1.to_q", f"{block}.attn2.to_out.0", text), ranks, strict=True):
            up, down = torch.randn(32, rank, generator=generator), torch.randn(rank, 32, generator=generator)
            pairs[layer] = (up / 4, down / 4)
        return LoRA(pairs)

    first, second = lora(2, 5, 3), lora(4, 4, 1)
    plain = generate(pipe, "a dog", 0, steps=2)
    with loaded(pipe, first, second, weights=[1.0, -0.5]):
        got = generate(pipe, "a dog", 0, steps=2)
        with pytest.raises(ValueError, match="already carries a LoRA"), loaded(pipe, first):
            pass
    assert apart(generate(pipe, "a dog", 0, steps=2), plain) == 0

    changed = tiny_pipeline()
    for weight, part in ((1.0, first), (-0.5, second)):
        for layer, (up, down) in part.items():
            component, _, name = layer.partition(".")
            model = getattr(changed, component)
            name = name if hasattr(model, "text_model") else name.removeprefix("text_model.")
            model.get_submodule(name).weight.data += weight * up @ down
    want = generate(changed, "a dog", 0, steps=2)
    assert apart(want, plain) > 8
    assert apart(got, want) <= 1


def test_a_lora_for_another_base_is_refused(pipe):
    pair = torch.zeros(8, 2), torch.zeros(2, 8)
    layer = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    with (
        pytest.raises(ValueError, match=r"attn1.to_q is \(32, 32\) there, \(8, 8\) here"),
        loaded(pipe, LoRA({layer: pair})),
    ):
        pass
    with (
        pytest.raises(ValueError, match=r"no layer transformer.x"),
        loaded(pipe, LoRA({"transformer.x": pair})),
    ):
        pass
