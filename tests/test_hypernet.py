"""The hypernetwork: its factored form against the dense definition, its files, and its refusals."""

import itertools
import os
import pickle
import re

import pytest
import safetensors.torch
import torch
from torch import nn

from lorarar import Hypernetwork
from lorarar.hypernet import PARTS, layers_of
from lorarar.lora import LoRA, LoRAError, delta_weight

BLOCK = "unet.down_blocks.1.attentions.0.transformer_blocks.{}"
LAYERS = [f"{BLOCK.format(b)}.attn{a}.{m}" for b in (0, 1) for a in (1, 2) for m in PARTS.values()]
WIDTH, TEXT = 12, 20


def adapter(seed, rank=3, dtype=torch.float32, layers=LAYERS, width=WIDTH):
    draw = torch.Generator().manual_seed(seed)

    def pair(layer):
        inputs = TEXT if "attn2.to_k" in layer or "attn2.to_v" in layer else width
        up, down = (torch.randn(s, generator=draw) for s in ((width, rank), (rank, inputs)))
        return up.to(dtype), down.to(dtype)

    return LoRA({layer: pair(layer) for layer in layers})


def network(columns=(2 * WIDTH,), hidden=16, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Hypernetwork(columns, hidden)


def dense(net, content, style, layer):
    """The definition: every column of both dense updates, concatenated, through the MLP."""
    net = net.double()
    columns = torch.cat(
        [delta_weight(tuple(x.double() for x in lora[layer])) for lora in (content, style)]
    ).mT
    return net(columns).unbind(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("ranks", [(3, 3), (2, 5), (1, 16)])
def test_factored_is_dense(dtype, ranks):
    content, style = adapter(1, ranks[0], dtype), adapter(2, ranks[1], dtype)
    found = network().coefficients(content, style, PARTS)
    assert list(found) == LAYERS
    for layer in LAYERS:
        for got, want in zip(found[layer], dense(network(), content, style, layer), strict=True):
            assert got.shape == (content[layer][1].shape[1],)
            torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=2e-6)


def test_several_column_lengths():
    wide = [layer.replace("down_blocks.1", "down_blocks.2") for layer in LAYERS]
    content, style = (LoRA({**adapter(s), **adapter(s + 9, layers=wide, width=24)}) for s in (1, 2))
    net = network((48, 24))
    assert net.columns == (24, 48)
    found = net.coefficients(content, style)
    for layer in (LAYERS[0], wide[0]):
        want = dense(network((24, 48)), content, style, layer)[1]
        torch.testing.assert_close(found[layer][1].double(), want, rtol=1e-5, atol=2e-6)


def test_sdxl_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in Hypernetwork().parameters()) == 492_034


@pytest.mark.parametrize("parts", [c for n in range(1, 5) for c in itertools.combinations(PARTS, n)])
def test_all_fifteen_sets_of_parts(parts):
    found = network().coefficients(adapter(1), adapter(2), parts)
    assert {re.split(r"attn[12]\.", layer)[1] for layer in found} == {PARTS[part] for part in parts}
    assert len(found) == 4 * len(parts)
    everything = network().coefficients(adapter(1), adapter(2), PARTS)
    assert all(torch.allclose(found[layer][0], everything[layer][0]) for layer in found)


def test_only_attention_of_the_unet_has_parts():
    others = [
        "unet.mid_block.attentions.0.proj_in",
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
    ]
    others += [LAYERS[0].replace("unet.", "transformer."), LAYERS[0].replace("attn1", "ff")]
    assert layers_of([*others, LAYERS[0]], PARTS) == [LAYERS[0]]


@pytest.mark.parametrize("parts", [(), ("queries",), ("query", "to_k")])
def test_unknown_parts_are_refused(parts):
    with pytest.raises(LoRAError, match="expected some of query, key, value, output"):
        network().coefficients(adapter(1), adapter(2), parts)


def test_gradients_are_those_of_the_dense_form():
    content, style = adapter(1), adapter(2)
    net, reference = network(), network().double()
    sum((m_c * m_s).sum() for m_c, m_s in net.coefficients(content, style).values()).backward()
    layers = layers_of(LAYERS, ("query", "output"))
    sum((c * s).sum() for c, s in (dense(reference, content, style, layer) for layer in layers)).backward()
    for got, want in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(got.grad.double(), want.grad, rtol=1e-3, atol=1e-3)


def test_unknown_column_length_is_named():
    with pytest.raises(
        LoRAError, match=r"attn1\.to_q: its columns have length 24, the hypernetwork knows 1280, 2560"
    ):
        Hypernetwork().coefficients(adapter(1), adapter(2))


def test_no_unet_layer_is_refused():
    layers = ["transformer.transformer_blocks.0.attn.to_q"]
    with pytest.raises(LoRAError, match="no attention layer of a UNet"):
        network().coefficients(adapter(1, layers=layers), adapter(2, layers=layers))


def test_save_and_load(tmp_path):
    net = network((24, 40), hidden=7)
    net.metadata = {"parts": "query,output"}
    net.save(tmp_path / "h.safetensors")
    again = Hypernetwork.load(tmp_path / "h.safetensors")
    assert again.columns == (24, 40) and again.hidden == 7 and again.metadata == net.metadata
    assert all(torch.equal(x, again.state_dict()[k]) for k, x in net.state_dict().items())
    assert all(p.requires_grad for p in again.parameters())
    assert [f.name for f in tmp_path.iterdir()] == ["h.safetensors"]


class Released(nn.Module):
    """The parameter names of the authors' released network (field notes)."""

    def __init__(self):
        super().__init__()
        self.input_1, self.input_2 = nn.Linear(1280, 128), nn.Linear(2560, 128)
        self.output = nn.Sequential(nn.ReLU(), nn.Linear(128, 2))


@pytest.mark.parametrize("legacy", [False, True])
def test_reads_the_released_checkpoint(tmp_path, legacy):
    theirs = Released()
    torch.save(theirs.state_dict(), tmp_path / "h.pth", _use_new_zipfile_serialization=not legacy)
    ours = Hypernetwork.load(tmp_path / "h.pth")
    assert ours.columns == (1280, 2560)
    for length, layer in ((1280, theirs.input_1), (2560, theirs.input_2)):
        x = torch.randn(5, length)
        torch.testing.assert_close(ours(x), theirs.output(layer(x)))


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("bomb",)


def tampered():
    good = network((24,), hidden=4).state_dict()
    yield "not a dictionary of tensors", {"inputs": {"24": torch.zeros(2)}}
    yield "layers missing", {}
    yield "layers missing", {k: x for k, x in good.items() if not k.startswith("inputs")}
    yield "inputs.24.bias is missing", {k: x for k, x in good.items() if k != "inputs.24.bias"}
    yield "stray is unknown", {**good, "stray": torch.zeros(1)}
    yield "expected \\(2, 4\\)", {**good, "output.weight": torch.zeros(3, 4)}
    yield "expected \\(4, 24\\)", {**good, "inputs.24.weight": torch.zeros(4, 22)}
    yield "finite", {**good, "output.bias": torch.tensor([0.0, torch.nan])}
    yield "finite", {**good, "output.bias": torch.tensor([0, 1])}
    yield "without a weight matrix", {"input_1.bias": torch.zeros(4), "output.1.weight": torch.zeros(2, 4)}


@pytest.mark.parametrize("what, state", list(tampered()))
def test_other_states_are_refused(tmp_path, what, state):
    torch.save(state, tmp_path / "h.pth")
    with pytest.raises(LoRAError, match=what) as error:
        Hypernetwork.load(tmp_path / "h.pth")
    assert "\n" not in str(error.value) and "h.pth" in str(error.value)


def test_other_files_are_refused_and_nothing_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = safetensors.torch.save(network((24,)).state_dict())
    files = {
        "bomb.pth": pickle.dumps(Bomb()),
        "bomb.safetensors": pickle.dumps({"a": Bomb()}),
        "empty": b"",
        "text": b"hello, I am no network at all",
        "cut.safetensors": good[: len(good) // 2],
        "zip.pth": b"PK\x03\x04 and then nothing",
    }
    torch.save({"input_1.weight": Bomb()}, "torch.pth")
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    for name in [*files, "torch.pth", "missing", "."]:
        with pytest.raises(LoRAError) as error:
            Hypernetwork.load(name)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "bomb").exists()


def test_saving_where_one_cannot(tmp_path):
    with pytest.raises(LoRAError, match="cannot be written"):
        network().save(tmp_path / "no" / "h.safetensors")
