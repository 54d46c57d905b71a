"""A short run of the fuzz, whose long one is `python tests/fuzz.py --cases 10000`, and a test of it."""

import numpy as np
import pytest
from fuzz import run
from fuzz_files import corpus, flat, packed, updates

from lorarar.lora import delta_weight, load_lora, read, split, write

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore::lorarar.lora.LoRAWarning")
@pytest.mark.parametrize("dialect", corpus())
def test_the_seed_files_are_valid_and_read_as_the_independent_reader_reads_them(tmp_path, dialect):
    path = tmp_path / "a.safetensors"
    path.write_bytes(packed(*corpus()[dialect]))
    ours = {flat(n): delta_weight(x).flatten(1) for n, x in split(load_lora(path, convert=True)).items()}
    theirs = {flat(n if "." in n else f"transformer.{n}"): x for n, x in updates(path.read_bytes()).items()}
    assert set(ours) == set(theirs)
    for layer, delta in ours.items():
        np.testing.assert_allclose(delta.double().numpy(), theirs[layer], rtol=0, atol=1e-5)


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
