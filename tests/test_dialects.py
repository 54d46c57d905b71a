"""Every spelling of a layer that trainers and clients write is read as the one layer it is.

The update of each is worked out here, densely and in float64, from the numbers in the file. The names are
those that the loading code of ComfyUI, sd-scripts, OneTrainer, InvokeAI, musubi-tuner and diffusers reads.
"""

import itertools

import numpy as np
import pytest
import torch
from handmade import KOHYA, PEFT, close, dense, flat, pair, updates, write

from lorarar.lora import LoRAError, load_lora, save_lora
from lorarar.merging import merge

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
CLIP = "text_model.encoder.layers.0.self_attn.q_proj"
T5 = "encoder.block.3.layer.0.SelfAttention.q"
WI = "encoder.block.3.layer.1.DenseReluDense.wi_0"
DOUBLE, SINGLE = "transformer.transformer_blocks.7", "transformer.single_transformer_blocks.11"

SPELLINGS = {  # stem → layer
    # the UNet of SD and SDXL
    f"lora_unet_{flat(BLOCK)}_attn1_to_q": f"unet.{BLOCK}.attn1.to_q",
    "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q": f"unet.{BLOCK}.attn1.to_q",
    f"lora_unet_unet_{flat(BLOCK)}_attn1_to_q": f"unet.{BLOCK}.attn1.to_q",
    f"lora_unet_unet_{flat(BLOCK)}_attn1_processor_to_q": f"unet.{BLOCK}.attn1.to_q",
    f"lycoris_{flat(BLOCK)}_attn1_to_q": f"unet.{BLOCK}.attn1.to_q",
    "unet.input_blocks.4.1.transformer_blocks.0.attn1.to_q": f"unet.{BLOCK}.attn1.to_q",
    "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q": f"unet.{BLOCK}.attn1.to_q",
    "model.diffusion_model.input_blocks.4.1.proj_out": "unet.down_blocks.1.attentions.0.proj_out",
    "diffusion_model.output_blocks.5.2.conv": "unet.up_blocks.1.upsamplers.0.conv",
    "diffusion_model.middle_block.1.proj_in": "unet.mid_block.attentions.0.proj_in",
    "diffusion_model.label_emb.0.0": "unet.add_embedding.linear_1",
    "diffusion_model.time_embed.2": "unet.time_embedding.linear_2",
    f"base_model.model.unet.unet.{BLOCK}.attn1.to_out": f"unet.{BLOCK}.attn1.to_out.0",
    f"unet.base_model.model.{BLOCK}.attn1.to_q": f"unet.{BLOCK}.attn1.to_q",
    # text encoders
    f"lora_te_{flat(CLIP)}": f"text_encoder.{CLIP}",
    f"lora_te1_{flat(CLIP)}": f"text_encoder.{CLIP}",
    f"lora_te2_{flat(CLIP)}": f"text_encoder_2.{CLIP}",
    f"clip_l.{CLIP}": f"text_encoder.{CLIP}",
    f"clip_g.{CLIP}": f"text_encoder_2.{CLIP}",
    f"text_encoders.clip_l.transformer.{CLIP}": f"text_encoder.{CLIP}",
    f"text_encoders.clip_g.transformer.{CLIP}": f"text_encoder_2.{CLIP}",
    f"text_encoder_2.{CLIP}": f"text_encoder_2.{CLIP}",
    CLIP: f"text_encoder.{CLIP}",
    # without a level that transformers 5 dropped
    f"text_encoder.{CLIP.removeprefix('text_model.')}": f"text_encoder.{CLIP}",
    f"text_encoder_2.{CLIP.removeprefix('text_model.')}": f"text_encoder_2.{CLIP}",
    f"lora_te_{flat(CLIP.removeprefix('text_model.'))}": f"text_encoder.{CLIP}",
    f"lora_te2_{flat(CLIP.removeprefix('text_model.'))}": f"text_encoder_2.{CLIP}",
    f"clip_g.{CLIP.removeprefix('text_model.')}": f"text_encoder_2.{CLIP}",
    # T5 by its own names; alone, the third encoder, as in SD3
    f"lora_te3_{flat(T5)}": f"text_encoder_3.{T5}",
    f"lora_te3_{flat(WI)}": f"text_encoder_3.{WI}",
    f"t5.{WI}": f"text_encoder_3.{WI}",
    f"text_encoders.t5xxl.transformer.{T5}": f"text_encoder_3.{T5}",
    f"text_encoder_3.{WI}": f"text_encoder_3.{WI}",
    WI: f"text_encoder_3.{WI}",
    # Flux
    "lora_unet_double_blocks_7_img_attn_qkv": f"{DOUBLE}.attn.to_qkv",
    "lora_unet_double_blocks_7_txt_attn_qkv": f"{DOUBLE}.attn.to_added_qkv",
    "lora_unet_double_blocks_7_img_mlp_0": f"{DOUBLE}.ff.net.0.proj",
    "lora_unet_double_blocks_7_txt_mod_lin": f"{DOUBLE}.norm1_context.linear",
    "lora_unet_single_blocks_11_linear2": f"{SINGLE}.proj_out",
    "lora_unet_single_blocks_11_modulation_lin": f"{SINGLE}.norm.linear",
    "diffusion_model.double_blocks.7.txt_mlp.2": f"{DOUBLE}.ff_context.net.2",
    "diffusion_model.single_blocks.11.linear1": f"{SINGLE}.linear1",
    "base_model.model.double_blocks.7.img_attn.proj": f"{DOUBLE}.attn.to_out.0",
    "transformer.single_transformer_blocks.11.attn.to_q": f"{SINGLE}.attn.to_q",
    "single_transformer_blocks.11.proj_mlp": f"{SINGLE}.proj_mlp",
    "base_model.model.transformer.transformer_blocks.7.attn.add_q_proj": f"{DOUBLE}.attn.add_q_proj",
    "lora_transformer_transformer_blocks_7_attn_to_out_0": f"{DOUBLE}.attn.to_out.0",
    "lora_transformer_single_transformer_blocks_11_proj_mlp": f"{SINGLE}.proj_mlp",
    "lycoris_transformer_blocks_7_ff_context_net_0_proj": f"{DOUBLE}.ff_context.net.0.proj",
    "lora_transformer_time_text_embed_guidance_embedder_linear_1": (
        "transformer.time_text_embed.guidance_embedder.linear_1"
    ),
    "transformer.double_blocks.7.img_attn.qkv.1": f"{DOUBLE}.attn.to_k",
    "transformer.single_blocks.11.linear1.3": f"{SINGLE}.proj_mlp",
    # SD3, Wan, Qwen-Image, Z-Image
    "lora_unet_joint_blocks_7_x_block_attn_qkv": f"{DOUBLE}.attn.to_qkv",
    "diffusion_model.joint_blocks.7.context_block.mlp.fc1": f"{DOUBLE}.ff_context.net.0.proj",
    "diffusion_model.blocks.2.self_attn.q": "transformer.blocks.2.attn1.to_q",
    "lora_unet_blocks_2_cross_attn_k_img": "transformer.blocks.2.attn2.add_k_proj",
    "lora_unet__blocks_2_cross_attn_o": "transformer.blocks.2.attn2.to_out.0",
    "transformer.blocks.2.attn1.to_out.0": "transformer.blocks.2.attn1.to_out.0",
    "lora_unet_transformer_blocks_7_img_mlp_net_0_proj": f"{DOUBLE}.img_mlp.net.0.proj",
    "diffusion_model.transformer_blocks.7.txt_mod.1": f"{DOUBLE}.txt_mod.1",
    "diffusion_model.layers.4.attention.to_q": "transformer.layers.4.attention.to_q",
    "lora_unet_layers_4_attention_to_out_0": "transformer.layers.4.attention.to_out.0",
    "diffusion_model.layers.4.attention.out": "transformer.layers.4.attention.to_out.0",
    # models that no table has, under their own names
    "diffusion_model.blocks.0.cross_thing.deep_proj": "transformer.blocks.0.cross_thing.deep_proj",
    "lora_unet_blocks_0_cross_thing_deep_proj": "transformer.blocks_0_cross_thing_deep_proj",
    "base_model.model.model.layers.0.self_attn.q_proj": "transformer.model.layers.0.self_attn.q_proj",
    "text_encoders.qwen3_06b.transformer.model.layers.0.mlp.up_proj": (
        "text_encoders.qwen3_06b.transformer.model.layers.0.mlp.up_proj"
    ),
}
BESIDE = {  # layers outside the blocks are the model's whose blocks lie beside them
    "double_blocks.0.img_mlp.2": {
        "img_in": "x_embedder",
        "txt_in": "context_embedder",
        "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
        "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
        "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
        "final_layer.linear": "proj_out",
    },
    "joint_blocks.0.x_block.mlp.fc2": {
        "final_layer.linear": "proj_out",
        "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    },
    "blocks.0.ffn.2": {
        "head.head": "proj_out",
        "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    },
    "transformer_blocks.0.img_mod.1": {"img_in": "img_in", "proj_out": "proj_out"},
}


@pytest.mark.filterwarnings("ignore::lorarar.lora.LoRAWarning")
@pytest.mark.parametrize("stem", SPELLINGS)
def test_every_spelling_is_read_as_its_layer(tmp_path, stem):
    up, down = pair()
    layer, parts = SPELLINGS[stem], PEFT if stem.startswith(("base_model", "transformer.")) else KOHYA
    lora = load_lora(write(tmp_path / "a.safetensors", {stem: (up, down, 3.0)}, parts))
    close(updates(lora), {layer: dense(up, down, 3 / 2)})
    assert lora.alphas == {layer: 3.0}


@pytest.mark.parametrize("block", BESIDE)
@pytest.mark.parametrize("spell", ["diffusion_model.{}", "lora_unet_{}", "transformer.{}"])
def test_layers_outside_the_blocks_are_named_by_their_model(tmp_path, block, spell):
    stems = {spell.format(flat(n) if spell.endswith("_{}") else n): n for n in (block, *BESIDE[block])}
    lora = load_lora(write(tmp_path / "a.safetensors", dict.fromkeys(stems, pair())))
    assert {f"transformer.{ours}" for ours in BESIDE[block].values()} <= set(lora)
    assert len(lora) == len(stems)


def test_flux_has_t5_as_its_second_encoder_whoever_numbered_it(tmp_path):
    beside = {"lora_unet_single_blocks_0_linear2": pair()}
    for number in "23":  # OneTrainer's and sd-scripts'
        path = write(tmp_path / "a.safetensors", {**beside, f"lora_te{number}_{flat(T5)}": pair()})
        assert f"text_encoder_2.{T5}" in load_lora(path)


def test_a_layer_that_tells_no_model_is_written_as_it_was_read(tmp_path):
    for stem in (
        "lora_unet_img_in",
        "lora_unet_blocks_0_cross_thing_deep_proj",
        "lora_te_layers_0_mlp_up_proj",
    ):
        lora = load_lora(write(tmp_path / "a.safetensors", {stem: pair()}))
        save_lora(lora, tmp_path / "b.safetensors", format="kohya")
        again = load_lora(tmp_path / "b.safetensors")
        close(updates(again), updates(lora))
        if not stem.startswith("lora_unet_img"):
            with pytest.raises(LoRAError, match="no diffusers name that is known"):
                save_lora(lora, tmp_path / "c.safetensors", format="diffusers")
    lora = load_lora(write(tmp_path / "a.safetensors", {"transformer.x_embedder": pair()}, PEFT))
    with pytest.raises(LoRAError, match="no kohya name for unknown transformer"):
        save_lora(lora, tmp_path / "b.safetensors", format="kohya")


@pytest.mark.parametrize("part", ["processor.qkv_lora1", "processor.qkv_lora2", "processor.proj_lora1"])
def test_xlabs(tmp_path, part):
    up, down = pair()
    parts = ("{}.up.weight", "{}.down.weight")
    stems = {f"double_blocks.7.{part}": (up, down), "single_blocks.11.processor.qkv_lora": (up, down)}
    lora = load_lora(write(tmp_path / "a.safetensors", stems, parts))
    ours = {"qkv_lora1": "to_qkv", "qkv_lora2": "to_added_qkv", "proj_lora1": "to_out.0"}[part.split(".")[1]]
    close(updates(lora), {f"{DOUBLE}.attn.{ours}": dense(up, down), f"{SINGLE}.attn.to_qkv": dense(up, down)})


def test_conversions_with_no_dot_before_the_part(tmp_path):
    (up, down), stem = pair(), f"lora_unet_unet_{flat(BLOCK)}_attn2_to_k"
    path = write(tmp_path / "a.safetensors", {stem: (up, down)}, ("{}_lora_up.weight", "{}_lora_down.weight"))
    close(updates(load_lora(path)), {f"unet.{BLOCK}.attn2.to_k": dense(up, down)})


@pytest.mark.parametrize(
    "parts", [("{}.lora_B", "{}.lora_A"), ("{}.lora_B.default.weight", "{}.lora_A.default.weight")]
)
def test_parts_without_weight_or_with_an_adapters_name(tmp_path, parts):
    up, down = pair()
    lora = load_lora(
        write(tmp_path / "a.safetensors", {"diffusion_model.blocks.0.attn.qkv_x": (up, down)}, parts)
    )
    close(updates(lora), {"transformer.blocks.0.attn.qkv_x": dense(up, down)})


def test_the_modulation_at_the_end_has_its_halves_in_the_order_of_diffusers(tmp_path):
    """(shift, scale) to the authors of Flux and SD3, (scale, shift) to diffusers."""
    (up, down), beside = pair(6, 3), pair()
    stems = {
        "lora_unet_single_blocks_0_linear2": beside,
        "lora_unet_final_layer_adaLN_modulation_1": (up, down),
    }
    lora = load_lora(write(tmp_path / "a.safetensors", stems))
    theirs = np.concatenate([up[3:], up[:3]])
    close(
        updates(lora),
        {
            "transformer.single_transformer_blocks.0.proj_out": dense(*beside),
            "transformer.norm_out.linear": dense(theirs, down),
        },
    )


THEIRS = {  # layers as the authors call them, whose names in diffusers its own converter tells
    "wan": {
        **{f"blocks.0.{a}_attn.{x}": (8, 8) for a in ("self", "cross") for x in "qkvo"},
        **{f"blocks.0.cross_attn.{x}_img": (8, 8) for x in "kv"},
        **{
            "blocks.0.ffn.0": (16, 8),
            "blocks.0.ffn.2": (8, 16),
            "head.head": (4, 8),
            "time_projection.1": (48, 8),
        },
        **{f"{x}_embedding.{n}": (8, 8) for x in ("text", "time") for n in (0, 2)},
        **{f"img_emb.proj.{n}": (8, 8) for n in (1, 3)},
    },
    "flux2": {
        **{
            f"double_blocks.0.{x}_attn.{y}": s
            for x in ("img", "txt")
            for y, s in (("qkv", (24, 8)), ("proj", (8, 8)))
        },
        **{
            f"double_blocks.0.{x}_mlp.{n}": s for x in ("img", "txt") for n, s in ((0, (48, 8)), (2, (8, 24)))
        },
        **{
            "single_blocks.0.linear1": (72, 8),
            "single_blocks.0.linear2": (8, 32),
            "img_in": (8, 4),
            "txt_in": (8, 4),
        },
        **{f"double_stream_modulation_{x}.lin": (48, 8) for x in ("img", "txt")},
        **{f"{x}_in.{y}_layer": (8, 8) for x in ("time", "guidance") for y in ("in", "out")},
        **{"single_stream_modulation.lin": (24, 8), "final_layer.linear": (4, 8)},
    },
    "qwen": {
        **{
            f"transformer_blocks.0.attn.{x}": (8, 8) for x in ("to_q", "add_k_proj", "to_out.0", "to_add_out")
        },
        **{f"transformer_blocks.0.{x}": (8, 8) for x in ("img_mlp.net.0.proj", "txt_mlp.net.2", "img_mod.1")},
        **{"img_in": (8, 4), "txt_in": (8, 4), "proj_out": (4, 8), "norm_out.linear": (16, 8)},
    },
    "z_image": {
        **{f"layers.0.attention.{x}": (8, 8) for x in ("to_q", "to_k", "to_v", "out")},
        **{f"noise_refiner.1.feed_forward.{x}": (8, 8) for x in ("w1", "w2", "w3")},
        "layers.0.adaLN_modulation.0": (32, 8),
    },
}


@pytest.mark.parametrize("model", THEIRS)
def test_other_transformers_have_the_names_that_diffusers_gives_them(tmp_path, model):
    from diffusers.loaders import lora_conversion_utils
    from safetensors.torch import load_file

    convert = getattr(lora_conversion_utils, f"_convert_non_diffusers_{model}_lora_to_diffusers")
    layers = {
        f"diffusion_model.{n}": pair(*shape, seed=i) for i, (n, shape) in enumerate(THEIRS[model].items())
    }
    parts = ("{}.lora_up.weight", "{}.lora_down.weight") if model == "z_image" else PEFT
    path = write(tmp_path / "a.safetensors", layers, parts)
    theirs = convert(load_file(path))
    save_lora(load_lora(path), tmp_path / "b.safetensors", format="diffusers")
    ours = load_file(tmp_path / "b.safetensors")
    assert {k for k in ours if "norm_out" not in k} == {k for k in theirs if "norm_out" not in k}
    assert all(torch.equal(ours[k], theirs[k]) for k in ours if "norm_out" not in k)
    flat_file = write(tmp_path / "c.safetensors", {f"lora_unet_{flat(n[16:])}": x for n, x in layers.items()})
    assert set(load_lora(flat_file)) == set(load_lora(path))


# ---------------------------------------------------------------------------------------------------------
# Two spellings of one layer merge


def merged(tmp_path, one, other, parts=(KOHYA, KOHYA), **options):
    files = [
        write(tmp_path / f"{n}.safetensors", x, p)
        for n, (x, p) in enumerate(zip((one, other), parts, strict=True))
    ]
    return merge(*map(load_lora, files), **options)


ALIKE = [
    group
    for _, same in itertools.groupby(sorted(SPELLINGS, key=SPELLINGS.get), SPELLINGS.get)
    if len(group := list(same)) > 1
]


@pytest.mark.filterwarnings("ignore::lorarar.lora.LoRAWarning")
@pytest.mark.parametrize("stems", ALIKE, ids=lambda group: SPELLINGS[group[0]])
def test_any_two_spellings_of_a_layer_are_summed(tmp_path, stems):
    a, b = pair(), pair(rank=3, seed=5)
    for one, other in itertools.permutations(stems, 2):
        got = merged(tmp_path, {one: a}, {other: b})
        close(updates(got), {SPELLINGS[stems[0]]: dense(*a) + dense(*b)})


@pytest.mark.parametrize("order", [1, -1])
def test_an_unknown_model_merges_by_its_own_names_with_dots_or_without(tmp_path, order):
    names = [f"blocks.{n}.cross_thing.deep_proj" for n in range(3)]
    a, b = (
        {n: pair(seed=i) for i, n in enumerate(names)},
        {n: pair(rank=3, seed=9 + i) for i, n in enumerate(names)},
    )
    sides = [
        {f"diffusion_model.{n}": x for n, x in a.items()},
        {f"lora_unet_{flat(n)}": x for n, x in b.items()},
    ]
    got = merged(tmp_path, *sides[::order])
    close(updates(got), {f"transformer.{n}": dense(*a[n]) + dense(*b[n]) for n in names})


@pytest.mark.parametrize("method", ["direct", "ties", "np-lora"])
@pytest.mark.parametrize("order", [1, -1])
def test_a_projection_as_a_convolution_of_one_pixel_and_as_a_matrix(tmp_path, method, order):
    """sd-scripts trains SD 2's projections as convolutions; diffusers has linear layers there."""
    (ua, da), (ub, db), k = pair(8, 8, 4), pair(8, 8, 2, seed=7), (pair(8, 1024), pair(8, 1024, seed=3))
    block, proj = BLOCK.removesuffix(".transformer_blocks.0"), "proj_in"
    as_convolution = ua[..., None, None], da[..., None, None]
    sides = [
        {f"lora_unet_{flat(block)}_{proj}": as_convolution, f"lora_unet_{flat(BLOCK)}_attn2_to_k": k[0]},
        {f"unet.{block}.{proj}": (ub, db), f"unet.{BLOCK}.attn2.to_k": k[1]},
    ]
    options = {"ties": {"density": 1.0}, "np-lora": {"mu": 0.0}}.get(method, {})
    got = merged(tmp_path, *sides[::order], parts=(KOHYA, PEFT)[::order], method=method, **options)
    proj = next(layer for layer in got if layer.endswith("proj_in"))
    if method != "ties":
        close(
            updates(got),
            {f"unet.{BLOCK}.attn2.to_k": dense(*k[0]) + dense(*k[1]), proj: dense(ua, da) + dense(ub, db)},
        )
    assert got[proj][0].ndim == got[proj][1].ndim == 2  # SD 2's are linear


def blora(block, seed):
    leaves = {"attn1_to_q": (6, 6), "attn2_to_k": (6, 2048), "attn1_to_out_0": (6, 6)}
    return {
        f"lora_unet_{block}_transformer_blocks_{n}_{leaf}": pair(*shape, seed=seed + n)
        for n in range(2)
        for leaf, shape in leaves.items()
    }


def test_two_files_of_one_base_that_share_no_layer_are_joined(tmp_path):
    """B-LoRA: the content is one block of SDXL, the style another."""
    one, other = blora("output_blocks_0_1", 0), blora("output_blocks_1_1", 8)
    got = merged(tmp_path, one, other, content_weight=0.5, style_weight=2.0)
    save_lora(got, tmp_path / "k.safetensors", format="kohya")
    again = updates(load_lora(tmp_path / "k.safetensors"))
    expected = [dense(*x, 0.5) for x in one.values()] + [dense(*x, 2.0) for x in other.values()]
    assert len(again) == len(expected) == 12
    for x in expected:
        assert min(np.abs(x - y).max() if y.shape == x.shape else 9 for y in again.values()) < 1e-5


SD_1 = "unet.up_blocks.3.attentions.0.transformer_blocks.0.attn2.to_k"
FLUX = "lora_unet_double_blocks_0_img_mlp_0"


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        (blora("output_blocks_0_1", 0), {SD_1: pair(6, 768)}, "different base models (SDXL and SD 1.x)"),
        ({FLUX: pair()}, {"lora_unet_joint_blocks_0_x_block_mlp_fc1": pair()}, None),
        ({"diffusion_model.a.b": pair()}, {"diffusion_model.c.d": pair()}, "share no layer"),
    ],
)  # fmt: skip
def test_what_cannot_be_of_one_base_is_refused_and_no_model_differs_from_itself(tmp_path, one, other, says):
    try:
        merged(tmp_path, one, other)
    except LoRAError as error:
        found = str(error)
        assert "\n" not in found and (says is None or says in found)
        if "base models (" in found:
            named = found.split("base models (")[1].split(")")[0].split(" and ")
            assert len(named) == 2 and named[0] != named[1]
    else:
        assert says is None
