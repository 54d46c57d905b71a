"""A short run of the fuzz, whose long one is `python -m tests.fuzz --cases 10000`, and a test of it."""

import pytest
from fuzz import DIALECTS, corpus, packed, run, updates

from lorarar.lora import delta_weight, load_lora, read, write


def test_the_seed_files_are_valid_and_read_as_the_independent_reader_reads_them(tmp_path):
    for dialect, (header, data) in zip(DIALECTS, corpus(), strict=True):
        path = tmp_path / f"{dialect}.safetensors"
        path.write_bytes(packed(header, data))
        ours, theirs = load_lora(path), updates(path.read_bytes())
        assert set(ours) == set(theirs)
        for layer, pair in ours.items():
            assert abs(delta_weight(pair).double().numpy() - theirs[layer]).max() < 1e-6


def test_damaged_files_are_merged_rightly_or_refused():
    counts = run(400, seed=1)
    assert counts["failed"] == 0
    assert counts["merged"] > 40 and counts["refused"] > 40


@pytest.mark.parametrize("name", ["_scaled", "all_finite"])
def test_the_fuzz_notices_a_reader_that_is_wrong(monkeypatch, capsys, name):
    wrong = {"_scaled": lambda factor, scale: factor, "all_finite": lambda x: True}
    monkeypatch.setattr(read, name, wrong[name])
    monkeypatch.setattr(write, name, wrong[name], raising=False)
    assert run(150, seed=2)["failed"] > 0
    assert "case " in capsys.readouterr().err
