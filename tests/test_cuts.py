"""Cuts of an update: what is kept, against dense matrices."""

import torch

from lorarar.lora import LoRA, delta_weight
from lorarar.study.cuts import energy, keep_any, keep_largest, scaled, sparse

DELTA = torch.tensor([[4.0, -5.0, 0.1], [0.2, -3.0, 2.0]])


def lora():
    source = torch.Generator().manual_seed(0)
    return LoRA({"layer": (torch.randn(6, 2, generator=source), torch.randn(2, 5, generator=source))})


def test_the_largest_entries_are_kept_with_their_signs():
    assert keep_largest(DELTA, 0.5).tolist() == [[4.0, -5.0, 0.0], [0.0, -3.0, 0.0]]
    assert torch.equal(keep_largest(DELTA, 1.0), DELTA)
    assert keep_largest(DELTA, 0.01).count_nonzero() == 1  # at least one


def test_entries_chosen_blindly_are_about_as_many():
    kept = keep_any(torch.ones(200, 200), 0.2)
    assert 0.18 < kept.mean() < 0.22 and torch.equal(kept, keep_any(torch.ones(200, 200), 0.2))


def test_a_sparse_lora_is_the_pruned_update():
    dense = delta_weight(lora()["layer"])
    for share in (1.0, 0.3):
        assert torch.allclose(delta_weight(sparse(lora(), share)["layer"]), keep_largest(dense, share))


def test_strength_scales_the_update():
    assert torch.allclose(delta_weight(scaled(lora(), 0.75)["layer"]), 0.75 * delta_weight(lora()["layer"]))


def test_energy_is_the_share_of_squares():
    assert abs(energy([DELTA], 0.5) - 50 / float(DELTA.square().sum())) < 1e-6
