"""What the path costs: counts against counting by hand and whole trainings, and when a method pays."""

import numpy as np
import pytest
import torch

from lorarar.shoebox import zoo
from lorarar.study import costs
from lorarar.study.cells import setting, tasks
from lorarar.study.training import with_pictures
from lorarar.train import optimise, train_lora


def test_a_product_and_its_gradients_are_counted_as_by_hand():
    one, two = torch.randn(3, 5, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    assert costs.counted(lambda: one @ two) == 2 * 3 * 5 * 7
    assert costs.counted(lambda: (one @ two).sum().backward()) == 3 * 2 * 3 * 5 * 7


def test_steps_are_many_times_one_step():
    weight = torch.randn(4, 4)

    def run(steps):
        weight @ weight  # once
        for _ in range(steps):
            weight @ weight[:, :2]

    assert costs.of_steps(run, 10) == 2 * 4 * 4 * 4 + 10 * 2 * 4 * 4 * 2


@pytest.mark.parametrize(
    ("once", "each", "rival", "pairs"),
    [(330, 0.0, 22, 15), (330, 22, 22, None), (0, 1, 2, 0), (10, 1, 2, 10)],
)
def test_a_method_pays_from_the_first_pair_that_costs_no_more(once, each, rival, pairs):
    assert costs.break_even(once, each, rival) == pairs
    if pairs is not None:
        n = np.arange(1000)
        assert n[once + n * each <= n * rival][0] == pairs


def test_the_whole_path():
    part = {
        "content LoRA": 30.0, "style LoRA": 60.0, "images": 2.0, "verdicts": 1.0, "hypernetwork": 300.0,
        "merge": {"ziplora": 20.0, "joint": 90.0},
    }  # fmt: skip
    assert costs.totals(part, "ziplora", 1, 1) == 30 + 60 + 20 + 3
    assert costs.totals(part, "ziplora", 5, 4) == 5 * 30 + 4 * 60 + 20 * 23
    assert costs.totals(part, "joint", 5, 4) == 20 * 93
    assert costs.once(part, (21, 18)) == (300, 21 * 30 + 18 * 60)


@pytest.mark.slow
def test_trainings_are_counted_without_running_them_whole():
    run = setting("validation", "smoke", progress=False)
    (task,) = tasks(run, run.pairs[:1])
    recipe = run.scale.content
    images, captions = zoo.pictures(task.pair[0])
    whole = costs.counted(lambda: train_lora(task.pipe, images, captions, recipe, progress=False))
    assert costs._lora(task, task.pair[:1], recipe) == whole
    sides = [with_pictures(task.pair[0], task.content), with_pictures(task.pair[1], task.style)]
    whole = costs.counted(lambda: optimise(task.pipe, *sides, run.scale.ziplora, progress=False))
    # Which samples two random steps take is left to chance: one prediction more or less.
    assert costs._ziplora(task) == pytest.approx(whole, abs=1.01 * costs._prediction(task))
