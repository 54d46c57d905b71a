"""What is stored otherwise than as one pair of matrices becomes one, exactly: LyCORIS, Tucker, fused layers.

Every update is worked out here in float64 by the formula of the paper or of the trainer (LyCORIS,
arXiv 2309.14859), entry by entry with einsum, and compared with the product of the factors that are read.
"""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from lorarar.lora import LoRA, LoRAError, delta_weight, joined, load_lora, save_lora, split
from lorarar.merging import compress, merge

CONV, POINT = "down_blocks.1.resnets.0.conv1", "down_blocks.1.resnets.0.conv_shortcut"
LINEAR = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
KERNEL = {CONV: (3, 3), POINT: (1, 1), LINEAR: ()}
O, I, R = 8, 6, 2  # noqa: E741


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def write(path, layers):
    tensors = {
        f"lora_unet_{layer.replace('.', '_')}.{part}": np.asarray(x, np.float32)
        for layer, parts in layers.items()
        for part, x in parts.items()
    }
    save_file(tensors, path)
    return path


def single(parts):
    """The values that a float32 file keeps, in float64."""
    return {part: np.asarray(x, np.float32).astype(np.float64) for part, x in parts.items()}


def loha(kernel, seed=0):
    n = I * int(np.prod(kernel))
    x = single(
        {
            f"hada_w{i}_{k}": numbers(*s, seed=seed + i)
            for i in (1, 2)
            for k, s in (("a", (O, R)), ("b", (R, n)))
        }
    )
    delta = (x["hada_w1_a"] @ x["hada_w1_b"]) * (x["hada_w2_a"] @ x["hada_w2_b"])
    return x, delta.reshape(O, I, *kernel), R


def loha_tucker(kernel, seed=0):
    x = {}
    for i in (1, 2):
        x |= single({f"hada_t{i}": numbers(R, R, *kernel, seed=seed + i)})
        x |= single(
            {
                f"hada_w{i}_a": numbers(R, O, seed=seed + 2 * i),
                f"hada_w{i}_b": numbers(R, I, seed=seed + 3 * i),
            }
        )
    one, other = (
        np.einsum("ijkl,ip,jr->prkl", x[f"hada_t{i}"], x[f"hada_w{i}_a"], x[f"hada_w{i}_b"]) for i in (1, 2)
    )
    return x, one * other, R


def kron(one, other):
    """(a, b) ⊗ (c, d, …): (a c, b d, …)."""
    (a, b), (c, d, *kernel) = one.shape, other.shape
    return np.einsum("ab,cd...->acbd...", one, other).reshape(a * c, b * d, *kernel)


def lokr(kernel, seed=0, whole=False):
    n = 3 * int(np.prod(kernel))
    x = single({"lokr_w1": numbers(2, 2, seed=seed)})
    if whole:
        x |= single({"lokr_w2": numbers(4, 3, *kernel, seed=seed)})
        return x, kron(x["lokr_w1"], x["lokr_w2"]), None
    x |= single({"lokr_w2_a": numbers(4, R, seed=seed + 1), "lokr_w2_b": numbers(R, n, seed=seed + 2)})
    return x, kron(x["lokr_w1"], (x["lokr_w2_a"] @ x["lokr_w2_b"]).reshape(4, 3, *kernel)), R


def lokr_whole(kernel, seed=0):
    return lokr(kernel, seed, whole=True)


def lokr_tucker(kernel, seed=0):
    x = single({"lokr_w1_a": numbers(2, R, seed=seed), "lokr_w1_b": numbers(R, 2, seed=seed + 1)})
    x |= single(
        {"lokr_t2": numbers(R, R, *kernel, seed=seed), "lokr_w2_a": numbers(R, 4), "lokr_w2_b": numbers(R, 3)}
    )
    w2 = np.einsum("ijkl,ip,jr->prkl", x["lokr_t2"], x["lokr_w2_a"], x["lokr_w2_b"])
    return x, kron(x["lokr_w1_a"] @ x["lokr_w1_b"], w2), R


def tucker(kernel, seed=0):
    x = {
        "lora_up.weight": numbers(O, R, 1, 1, seed=seed),
        "lora_mid.weight": numbers(R, 3, *kernel, seed=seed + 1),
    }
    x = single(x | {"lora_down.weight": numbers(3, I, 1, 1, seed=seed + 2)})
    up, mid, down = (x[f"lora_{part}.weight"] for part in ("up", "mid", "down"))
    return x, np.einsum("or,rskl,si->oikl", up[..., 0, 0], mid, down[..., 0, 0]), 3


KINDS = [
    *((kind, layer) for kind in (loha, lokr, lokr_whole) for layer in KERNEL),
    *((kind, CONV) for kind in (loha_tucker, lokr_tucker, tucker)),
]


@pytest.mark.parametrize(("kind", "layer"), KINDS)
@pytest.mark.parametrize("alpha", [None, 3.0])
def test_the_factors_are_the_update_and_have_the_shape_of_the_layer(tmp_path, kind, layer, alpha):
    parts, delta, rank = kind(KERNEL[layer])
    scale = alpha / rank if alpha and rank else 1.0
    path = write(tmp_path / "a.safetensors", {layer: parts | ({"alpha": alpha} if alpha else {})})
    up, down = load_lora(path, convert=kind is not tucker)[f"unet.{layer}"]
    assert down.shape[1:] == (I, *KERNEL[layer]) and up.shape[2:] == (1,) * len(KERNEL[layer])
    np.testing.assert_allclose(
        delta_weight((up, down)).numpy(), scale * delta, rtol=0, atol=1e-5 * np.abs(delta).max()
    )


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_merged_and_written_a_convolution_stays_one(tmp_path, form):
    one, other = loha((3, 3)), tucker((3, 3), seed=5)
    files = [
        write(tmp_path / f"{n}.safetensors", {CONV: parts, LINEAR: loha((), seed=n)[0]})
        for n, (parts, _, _) in enumerate((one, other))
    ]
    merged = merge(*(load_lora(path, convert=True) for path in files))
    save_lora(merged, tmp_path / "m.safetensors", format=form)
    tensors = load_file(tmp_path / "m.safetensors")
    assert {
        x.shape[1:]
        for key, x in tensors.items()
        if "conv1" in key and ("lora_A" in key or "lora_down" in key)
    } == {(I, 3, 3)}
    got = delta_weight(load_lora(tmp_path / "m.safetensors")[f"unet.{CONV}"]).numpy()
    np.testing.assert_allclose(got, one[1] + other[1], rtol=0, atol=1e-5 * np.abs(got).max())


def test_what_does_not_fit_is_refused(tmp_path):
    parts, _, _ = tucker((3, 3))
    for name, wrong in {
        "lora_mid.weight": numbers(R, R, 3, 3),
        "lora_down.weight": numbers(3, I, 3, 3),
    }.items():
        with pytest.raises(LoRAError, match="do not fit"):
            load_lora(write(tmp_path / "a.safetensors", {CONV: parts | {name: wrong}}))
    parts, _, _ = loha((3, 3))
    with pytest.raises(LoRAError, match="fitting shapes"):  # no in · 9 columns
        load_lora(
            write(
                tmp_path / "a.safetensors",
                {CONV: parts | {k: parts[k][:, :-1] for k in ("hada_w1_b", "hada_w2_b")}},
            ),
            convert=True,
        )


@pytest.mark.parametrize("kind", ["LoHa", "LoKr"])
@pytest.mark.parametrize("effective", [False, True])
def test_pefts_convolutions(tmp_path, kind, effective):
    """peft's own update of a convolution, decomposed (Tucker) or not."""
    from peft import LoHaConfig, LoKrConfig, get_peft_model

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv_in = torch.nn.Conv2d(I, O, 3)

    config = {"LoHa": LoHaConfig, "LoKr": LoKrConfig}[kind](
        r=R, alpha=5, target_modules=["conv_in"], init_weights=False, use_effective_conv2d=effective
    )
    model = get_peft_model(Model(), config)
    model.save_pretrained(tmp_path)
    expected = model.base_model.model.conv_in.get_delta_weight("default").detach()
    got = delta_weight(load_lora(tmp_path, convert=True)["unet.conv_in"])
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------
# Layers that one spelling has as one matrix and another as several

H = 4
BLOCK, SINGLE = "transformer.transformer_blocks.0", "transformer.single_transformer_blocks.0"
PARTS = {
    f"{BLOCK}.attn.to_qkv": [f"{BLOCK}.attn.to_{x}" for x in "qkv"],
    f"{BLOCK}.attn.to_added_qkv": [f"{BLOCK}.attn.add_{x}_proj" for x in "qkv"],
    f"{SINGLE}.linear1": [*(f"{SINGLE}.attn.to_{x}" for x in "qkv"), f"{SINGLE}.proj_mlp"],
}
ROWS = {layer: [H, H, H, 4 * H][: len(parts)] for layer, parts in PARTS.items()}


def factors(out, rank, seed):
    return tuple(
        torch.from_numpy(x).float() for x in (numbers(out, rank, seed=seed), numbers(rank, H, seed=seed + 50))
    )


def fused(seed=0, rank=2):
    return LoRA(
        {n: factors(sum(rows), rank, seed + i) for i, (n, rows) in enumerate(ROWS.items())}, model="Flux"
    )


def parted(seed=0, rank=3, leave_out=()):
    pairs = {
        part: factors(rows, rank + i, seed + 7 * i)
        for layer, parts in PARTS.items()
        for i, (part, rows) in enumerate(zip(parts, ROWS[layer], strict=True))
        if part not in leave_out
    }
    return LoRA(pairs, model="Flux")


def whole(lora):
    """Fused layer → its dense update in float64, parts of it stacked, absent ones zero."""
    found = {}
    for layer, parts in PARTS.items():
        if layer in lora:
            found[layer] = delta_weight(lora[layer]).double().numpy()
        else:
            rows = zip(parts, ROWS[layer], strict=True)
            found[layer] = np.concatenate(
                [delta_weight(lora[p]).numpy() if p in lora else np.zeros((n, H)) for p, n in rows]
            )
    return found


def same(got, expected, tolerance=1e-6):
    for layer, x in expected.items():
        np.testing.assert_allclose(got[layer], x, rtol=0, atol=tolerance * np.abs(x).max(), err_msg=layer)


def test_split_is_exact_and_copies_nothing():
    lora = fused()
    parts = split(lora)
    assert set(parts) == {part for of in PARTS.values() for part in of}
    same(whole(parts), whole(lora), 0)
    assert parts[f"{BLOCK}.attn.to_k"][1].data_ptr() == lora[f"{BLOCK}.attn.to_qkv"][1].data_ptr()


def test_split_and_joined_again_it_is_the_same_file():
    lora = fused()
    again = joined(split(lora), "Flux")
    assert list(again) == list(lora)
    assert all(torch.equal(x, y) for n in lora for x, y in zip(lora[n], again[n], strict=True))


@pytest.mark.parametrize(
    "leave_out", [(), (f"{BLOCK}.attn.to_k",), (f"{SINGLE}.proj_mlp", f"{SINGLE}.attn.to_q")]
)
def test_joined_is_exact_also_of_different_ranks_and_absent_parts(leave_out):
    lora = parted(leave_out=leave_out)
    one = joined(lora, "Flux")
    assert set(one) == set(PARTS)
    same({n: delta_weight(x).double().numpy() for n, x in one.items()}, whole(lora))
    assert one[f"{BLOCK}.attn.to_added_qkv"][1].shape[0] == 3 + 4 + 5


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("form", ["kohya", "diffusers"])
def test_fused_and_split_files_merge_in_either_spelling(tmp_path, order, later, form):
    sides = [fused(seed=3), parted(seed=30)]
    expected = {
        n: 0.5 * x + 2 * y
        for (n, x), y in zip(whole(sides[0]).items(), whole(sides[1]).values(), strict=True)
    }
    weights = dict(zip(("content_weight", "style_weight"), (0.5, 2.0)[::order], strict=True))
    merged = merge(*sides[::order], later=later, **weights)
    save_lora(merged, tmp_path / "m.safetensors", format=form)
    again = load_lora(tmp_path / "m.safetensors")
    assert (set(again) == set(PARTS)) == (form == "kohya")
    same(whole(again), expected)


def test_files_of_one_spelling_stay_in_it_and_keep_their_rank():
    merged = merge(fused(seed=1), fused(seed=2, rank=3))
    assert set(merged) == set(PARTS) and {len(down) for _, down in merged.values()} == {5}
    same(
        whole(merged),
        {n: x + y for (n, x), y in zip(whole(fused(1)).items(), whole(fused(2, 3)).values(), strict=True)},
    )


def test_the_authors_single_block_and_xlabs_share_query_key_and_value():
    """XLabs trains query, key and value of a single block, the authors have the feed-forward with them."""
    xlabs = LoRA({f"{SINGLE}.attn.to_qkv": factors(3 * H, 2, 5)}, model="Flux")
    merged = merge(fused(), xlabs)
    expected = whole(fused())
    expected[f"{SINGLE}.linear1"][: 3 * H] += delta_weight(xlabs[f"{SINGLE}.attn.to_qkv"]).numpy()
    same(whole(merged), expected)
    one = joined(xlabs, "Flux")
    assert list(one) == [f"{SINGLE}.linear1"] and one[f"{SINGLE}.linear1"][0].shape == (7 * H, 2)


def test_a_fused_layer_of_other_rows_and_a_part_beside_its_whole_are_refused():
    with pytest.raises(LoRAError, match="are not those of its parts"):
        split(LoRA({f"{BLOCK}.attn.to_qkv": factors(3 * H + 1, 2, 0)}))
    both = LoRA({**fused(), f"{BLOCK}.attn.to_q": factors(H, 2, 0)})
    for change in (split, lambda lora: joined(lora, "Flux")):
        with pytest.raises(LoRAError, match="both in one LoRA"):
            change(both)


def test_kohyas_flux_file_is_what_diffusers_converter_makes_of_it(tmp_path):
    """diffusers' converter knows Flux's true widths only, and shares down as we do."""
    from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers
    from safetensors.torch import load_file as load_torch

    width = 3072
    up, down = (torch.randn(s) for s in ((7 * width, 2), (2, width)))
    lora = LoRA(
        {f"{SINGLE}.linear1": (up, down), f"{BLOCK}.attn.to_qkv": (up[: 3 * width], down)}, model="Flux"
    )
    save_lora(lora, tmp_path / "k.safetensors", format="kohya")
    theirs = _convert_kohya_flux_lora_to_diffusers(load_torch(tmp_path / "k.safetensors"))
    save_lora(lora, tmp_path / "d.safetensors", format="diffusers")
    ours = load_torch(tmp_path / "d.safetensors")
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_compression_and_pruning_work_on_the_layers_as_they_are_merged():
    merged = merge(fused(), parted(), "ties", density=1.0, rank=4)
    assert {len(down) for _, down in merged.values()} == {4} and not set(merged) & set(PARTS)
    assert compress(fused(), 1).model == merged.model == "Flux"
