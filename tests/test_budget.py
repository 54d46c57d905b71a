"""The count of memory against the allocations of a real step, and that of operations against arithmetic."""

import json

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from lorarar import budget
from lorarar.bookkit.budgets import CARDS, rows, smallest
from lorarar.budget import Tracker, count, counting, faked
from lorarar.scales import data_folder

SMALL = {"narrow": 16, "size": 64, "rank": 4, "dtype": torch.float32}


def test_the_tracker_follows_storages_not_tensors():
    with Tracker() as tracker:
        a = torch.empty(1000)
        view = a[10:20]
        assert (tracker.now, tracker.peak) == (4000, 4000)
        b = a.double() + 1  # 8000 bytes of the sum, and as many on the way
        assert (tracker.now, tracker.peak) == (12_000, 20_000)
        del a
        assert tracker.now == 12_000  # the view holds it
        del view
        assert tracker.now == 8000
        b.resize_(10)
        del b
        assert (tracker.now, tracker.peak) == (0, 20_000)


def test_what_autograd_keeps_counts():
    with faked(), counting() as (tracker, flops):
        x = torch.empty(64, 256, requires_grad=True)
        w = torch.empty(256, 256, requires_grad=True)
        y = (x @ w).relu()
        kept = 4 * (64 * 256 + 256 * 256 + 64 * 256)  # the product itself is let go
        assert tracker.now == kept
        y.sum().backward()
    assert flops.get_total_flops() == 3 * 2 * 64 * 256 * 256


def test_attention_on_a_cpu_is_counted():
    q = torch.randn(2, 4, 32, 16, requires_grad=True)
    with counting() as (_, flops):
        torch.nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()
    assert flops.get_total_flops() == (2 + 5) * 2 * (2 * 4) * 32 * 32 * 16  # the backward pass begins anew


@pytest.mark.slow
def test_the_count_is_what_a_real_step_allocates():
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        real = count("ZipLoRA", **SMALL, fake=False)
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    fake = count("ZipLoRA", **SMALL)
    assert fake.operations == real.operations
    assert fake.memory == pytest.approx(real.memory, rel=0.01)
    assert fake.memory == pytest.approx(peak, rel=0.1)


def test_the_record_says_what_the_table_needs():
    file = data_folder() / "recorded" / "budgets.json"
    values = json.loads(file.read_text())["values"]
    names = {budget.name_of(*row) for row in budget.rows()}
    assert set(values["of"]) == names
    # Self-attention's two products at 4096 and 1024 places, and those with 77 tokens of text.
    places = ((10, 4096, 640), (60, 1024, 1280))
    attention = sum(blocks * 4 * n * (n + 77) * width for blocks, n, width in places)
    assert values["of"]["forward"][1] - attention == pytest.approx(5.98e12, rel=0.01)  # as published
    shown = rows(values)
    assert [row["Step"] for row in shown].count("training a LoRA") == 2
    assert all(row["Fits"] in (*CARDS, "more") for row in shown)


def test_what_the_page_says_of_the_dense_form_holds():
    of = json.loads((data_folder() / "recorded" / "budgets.json").read_text())["values"]["of"]
    ours, dense, halved = of["hypernetwork"], of["hypernetwork, dense"], of["hypernetwork, checkpointing"]
    assert 0.63 < ours[0] / dense[0] < 0.70  # two thirds of the memory
    assert 0.53 < ours[1] / dense[1] < 0.60  # little more than half of the operations
    assert 0.45 < halved[0] / dense[0] < 0.55  # half of the memory
    assert halved[1] < 0.8 * dense[1]  # still fewer operations


def test_a_card_has_a_tenth_to_spare():
    assert smallest(14.4e9) == "T4, 16 GB" and smallest(14.5e9) == "24 GB" and smallest(73e9) == "more"


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--size", "1000"], "--size must be a multiple of 64"), (["--rank", "0"], "--rank must be at least 1")],
)
def test_bad_input_is_one_line(words, message, capsys):
    assert budget.main(words) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
