"""The network that reads invariants: against dense float64 columns, what it cannot see, files, any base."""

import itertools
import json

import pytest
import torch

from lorarar import Hypernetwork, merge
from lorarar.hypernet import PARTS, Invariants, is_network, layers_of, load_network
from lorarar.hypernet.invariants import inner_products, invariants, places
from lorarar.lora import LoRA, LoRAError, delta_weight
from lorarar.options import CONTEXTS

SPOT = "unet.{}.attentions.0.transformer_blocks.0.attn{}.{}"
SPOTS = ("down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1")
LAYERS = [SPOT.format(spot, a, m) for spot in SPOTS for a in (1, 2) for m in PARTS.values()]


def adapter(seed, rank=3, dtype=torch.float32, layers=LAYERS, width=12, text=20, size=0.1):
    draw = torch.Generator().manual_seed(seed)

    def pair(layer):
        inputs = text if "attn2.to_k" in layer or "attn2.to_v" in layer else width
        up, down = (torch.randn(s, generator=draw) for s in ((width, rank), (rank, inputs)))
        return (size * up).to(dtype), down.to(dtype)

    return LoRA({layer: pair(layer) for layer in layers})


def network(context="none", hidden=8, seed=0):
    """A network that answers differently to different columns, as a trained one does."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Invariants(hidden, context)
        torch.nn.init.normal_(net.output.weight)
        return net


def dense(content, style, layer):
    """The six numbers by their definition, from dense updates in double precision: (in, 6).

    A norm that is e⁶ times another counts as that far, and no more.
    """
    c, s = (delta_weight(tuple(x.double() for x in lora[layer])) for lora in (content, style))
    n_c, n_s = c.norm(dim=0), s.norm(dim=0)
    rms_c, rms_s = (n.square().mean().sqrt() for n in (n_c, n_s))
    cosine = torch.cosine_similarity(c, s, dim=0)
    logs = [(n_c / rms_c).log(), (n_s / rms_s).log(), (n_c / n_s).log(), (rms_c / rms_s).log()]
    own, other, ratio, between = (x.clamp(-6, 6).expand_as(cosine) for x in logs)
    return torch.stack([cosine, own, other, ratio, between, cosine * ratio], 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("ranks", [(3, 3), (2, 5), (1, 16)])
def test_the_numbers_are_those_of_dense_columns(dtype, ranks):
    content, style = adapter(1, ranks[0], dtype), adapter(2, ranks[1], dtype)
    work = torch.float64 if dtype == torch.float64 else torch.float32
    for names in (LAYERS[:1], [LAYERS[1], LAYERS[3]], LAYERS[5:7]):
        found = invariants(inner_products(content, style, names, work))
        want = torch.stack([dense(content, style, layer) for layer in names])
        tolerance = 1e-10 if dtype == torch.float64 else 1e-4
        torch.testing.assert_close(found.double(), want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("context", CONTEXTS)
def test_coefficients_are_the_network_on_dense_columns(context):
    content, style = adapter(1, 2), adapter(2, 5)
    found, net = network(context).coefficients(content, style, PARTS), network(context).double()
    assert list(found) == LAYERS
    where = places(LAYERS)
    for layer in LAYERS:
        place = torch.tensor([where[layer]], dtype=torch.float64)
        want = net(dense(content, style, layer)[None], place)[0]
        for got, side in zip(found[layer], want, strict=True):
            torch.testing.assert_close(got.double(), side, rtol=1e-3, atol=1e-4)
    some = network(context).coefficients(content, style)
    assert list(some) == layers_of(LAYERS, ("query", "output"))
    assert all(torch.allclose(some[layer][0], found[layer][0], atol=1e-5) for layer in some)


@pytest.mark.parametrize("context", CONTEXTS)
def test_what_it_cannot_see_changes_nothing(context):
    """Rotated outputs, both LoRAs louder, other factors of the same update; columns in another order."""
    content, style, net = adapter(1), adapter(2, 5), network(context)
    want = net.coefficients(content, style, PARTS)
    turn = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(3))).Q
    order = torch.randperm(12, generator=torch.Generator().manual_seed(4))
    query = LAYERS[0]

    def answers(change):
        return net.coefficients(
            *(LoRA({k: change(*lora[k]) for k in lora}) for lora in (content, style)), PARTS
        )

    for change in (
        lambda up, down: (turn @ up, down),
        lambda up, down: (7 * up, down),
        lambda up, down: (up / 3, 3 * down),
    ):
        found = answers(change)
        for layer in LAYERS:
            for a, b in zip(found[layer], want[layer], strict=True):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    mixed = answers(lambda up, down: (up, down[:, order] if down.shape[1] == 12 else down))
    torch.testing.assert_close(mixed[query][0], want[query][0][order], rtol=1e-3, atol=1e-4)
    louder = net.coefficients(LoRA({k: (3 * u, d) for k, (u, d) in content.items()}), style, PARTS)
    same = torch.allclose(louder[query][0], want[query][0], atol=1e-3)
    assert same == (context == "blind"), "how loud one side is, it does see, unless it sees nothing"


@pytest.mark.parametrize("context", CONTEXTS)
def test_empty_columns_and_layers_have_a_finite_answer_and_gradient(context):
    content, style, net = adapter(1), adapter(2), network(context)
    content[LAYERS[0]][1][:, 3] = 0
    style[LAYERS[0]][1][:, 3] = 0
    style[LAYERS[1]][0].zero_()
    content[LAYERS[2]][0].zero_(), style[LAYERS[2]][0].zero_()
    found = net.coefficients(content, style, PARTS)
    assert all(bool(m.isfinite().all()) and m.abs().max() < 50 for pair in found.values() for m in pair)
    sum(m.square().sum() for pair in found.values() for m in pair).backward()
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters())


def test_a_fresh_network_is_one_number_of_a_few_thousand_parameters():
    found = Invariants().coefficients(adapter(1), adapter(2), PARTS)
    assert all(
        bool((m == 0.7).all()) or torch.allclose(m, torch.tensor(0.7)) for p in found.values() for m in p
    )
    assert Invariants().size == (6 + 9 + 1) * 48 + 49 * 48 + 49 * 2 == 3218


def test_places_go_from_the_input_to_the_output_whatever_the_order():
    where = places(reversed(LAYERS))
    for spot, depth, way in zip(SPOTS, (0, 1 / 3, 2 / 3, 1), (0, 1, 2, 2), strict=True):
        for a, (i, module) in itertools.product((1, 2), enumerate(PARTS.values())):
            row = where[SPOT.format(spot, a, module)]
            assert row[:4] == [float(k == i) for k in range(4)] and row[4] == float(a == 2)
            assert row[5:8] == [float(k == way) for k in range(3)] and row[8] == pytest.approx(depth)
    deep = [LAYERS[0].replace("blocks.0.attn", f"blocks.{i}.attn") for i in (10, 2, 1)]
    assert [places(deep)[layer][8] for layer in deep] == [1, 0.5, 0]


@pytest.mark.parametrize(
    "layer, message",
    [
        ("unet.some.attn1.to_q", "its name does not say where in the UNet it stands"),
        ("transformer.blocks.0.attn.to_q", "no attention layer of a UNet"),
    ],
)
def test_what_has_no_place_is_refused(layer, message):
    lora = LoRA({layer: (torch.ones(4, 1), torch.ones(1, 4))})
    with pytest.raises(LoRAError, match=message) as caught:
        Invariants().coefficients(lora, lora)
    assert "\n" not in str(caught.value)


# Files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_file_is_recognised_and_merges(tmp_path, context):
    net, path = network(context), tmp_path / "i.safetensors"
    net.metadata = {"parts": "query,value", "rest": "sum"}
    net.save(path)
    again = load_network(path)
    assert isinstance(again, Invariants) and (again.context, again.hidden) == (context, 8)
    assert again.metadata == net.metadata and (again.parts, again.rest) == (("query", "value"), "sum")
    assert is_network(path) and all(p.requires_grad for p in again.parameters())
    content, style = adapter(1), adapter(2)
    merged = merge(content, style, "lorarar", hypernetwork=again, parts=again.parts, rest=again.rest)
    want = net.coefficients(content, style, net.parts)
    for layer in LAYERS:
        c, s = (delta_weight([x.double() for x in lora[layer]]) for lora in (content, style))
        m_c, m_s = want.get(layer, (torch.ones(1), torch.ones(1)))
        torch.testing.assert_close(
            delta_weight(merged[layer]).double(), (c * m_c + s * m_s).detach(), rtol=1e-5, atol=1e-5
        )


def test_what_is_no_network_is_not_taken_for_one(tmp_path):
    from safetensors.torch import save_file

    header = 0
    for words in range(1, 80):  # a header's length comes first: one byte of it may be a pickle's
        save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", {"note": "x" * 8 * words})
        header |= (tmp_path / "a.safetensors").read_bytes()[0] == 0x80
        assert not is_network(tmp_path / "a.safetensors")
    assert header
    torch.save({"a": torch.ones(1)}, tmp_path / "b.safetensors")
    torch.save({"a": torch.ones(1)}, tmp_path / "b.pth")
    assert not is_network(tmp_path / "b.safetensors") and is_network(tmp_path / "b.pth")
    assert not is_network(tmp_path / "absent") and not is_network(tmp_path)


def test_each_kind_refuses_the_others_file(tmp_path):
    network().save(tmp_path / "i.safetensors")
    Hypernetwork([24], 4).save(tmp_path / "h.safetensors")
    assert isinstance(load_network(tmp_path / "h.safetensors"), Hypernetwork)
    with pytest.raises(LoRAError, match=r"i\.safetensors: layers missing; expected a hypernetwork"):
        Hypernetwork.load(tmp_path / "i.safetensors")
    with pytest.raises(LoRAError, match=r"h\.safetensors: layers missing; expected a network that reads"):
        Invariants.load(tmp_path / "h.safetensors")
    state = {**network().state_dict(), "second.weight": torch.zeros(3, 3)}
    with pytest.raises(LoRAError, match=r"second\.weight has shape \(3, 3\), expected \(8, 8\)"):
        Invariants.from_state(tmp_path / "x", state, {})
    with pytest.raises(LoRAError, match="context 'all': expected one of none, moments, attention"):
        Invariants(8, "all")


# What info says ------------------------------------------------------------------------------------------


def test_info_of_a_network(tmp_path, capsys):
    from lorarar.cli import main
    from lorarar.lora import save_lora

    network().save(tmp_path / "i.safetensors")
    torch.manual_seed(0)
    theirs = Hypernetwork([24, 40], 16)
    released = {f"output.1.{k}": v for k, v in theirs.output.state_dict().items()}  # the ReLU is output.0
    for i, n in enumerate((24, 40)):
        released |= {f"input_{i + 1}.{k}": v for k, v in theirs.inputs[str(n)].state_dict().items()}
    torch.save(released, tmp_path / "h.pth")
    files = []
    for seed, name in enumerate(("cat", "dog", "oil")):
        files.append(tmp_path / f"{name}.safetensors")
        save_lora(adapter(seed), files[-1])

    assert main(["info", str(tmp_path / "h.pth"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["lengths"] == [12, 20] and "variation" not in facts
    with torch.no_grad():
        for n in (12, 20):
            empty = theirs(torch.zeros(2 * n))
            assert facts["empty"][str(n)] == pytest.approx(empty.tolist())
            columns = torch.randn(200_000, 2 * n, generator=torch.Generator().manual_seed(9))
            for rms in (1e-4, 1e-2):
                want = (theirs(rms * columns) - empty).square().mean(0).sqrt().tolist()
                assert facts["moved"][str(n)][f"{rms}"] == pytest.approx(want, rel=0.15)

    pair = ["--contents", *map(str, files[:2]), "--styles", str(files[2])]
    assert main(["info", str(tmp_path / "h.pth"), *pair, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["variation"]
    loras = [adapter(seed) for seed in range(3)]
    said = [theirs.coefficients(lora, loras[2]) for lora in loras[:2]]
    table = torch.cat([torch.stack([gates[k][0] for gates in said]) for k in said[0]], 1).detach().double()
    assert told["pairs"] == 2 and told["content"]["spread"] == pytest.approx(
        float(table.std(correction=0)), 1e-4
    )
    assert sum(told["style"][k] for k in ("layer", "column", "pair", "column and pair")) == pytest.approx(1)
    entries = torch.cat([delta_weight(lora[k]).flatten() for lora in loras for k in said[0]])
    assert told["rms"]["12"] == pytest.approx(float(entries.square().mean().sqrt()), 1e-4)

    for name, words in (
        ("h.pth", "answer to empty columns of 12"),
        ("i.safetensors", "to Gaussian ones, the mean"),
    ):
        assert main(["info", str(tmp_path / name), *pair]) == 0
        text = capsys.readouterr().out
        assert words in text and "share of the column and pair" in text
    assert main(["info", str(tmp_path / "h.pth"), *pair[:2], *pair[3:]]) == 2
    assert "give at least two pairs" in capsys.readouterr().err
    assert main(["info", str(files[0]), "--styles", str(files[1])]) == 2
    assert "is no hypernetwork" in capsys.readouterr().err


def test_info_runs_no_pickle(tmp_path, monkeypatch, capsys):
    import os

    from lorarar.cli import main

    class Bomb:
        def __reduce__(self):
            return os.mkdir, ("bomb",)

    monkeypatch.chdir(tmp_path)
    torch.save({"input_1.weight": Bomb()}, "h.pth")
    assert main(["info", "h.pth"]) == 2
    said = capsys.readouterr().err
    assert (
        said.startswith("lorarar: h.pth: neither safetensors nor a plain state dict")
        and said.count("\n") == 1
    )
    assert not (tmp_path / "bomb").exists()
