"""Rules on a grid of rates: each run is the one that a plain loop makes, and the best rate lies inside the grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gradwise.lab.data import load
from gradwise.lab.experiment import Bench
from gradwise.lab.sweeps import RULES, coded, sweep, task, uneven
from gradwise.lab.training import evaluate

BENCH = Bench(quick=True)


def test_a_run_is_that_of_a_plain_loop() -> None:
    todo = task("breast_cancer", BENCH)
    found = sweep(todo, ["SGD", "Adam"], 3, steps=20, low=-2, high=-1, spacing=0.5, marks=2)
    for rule in ("SGD", "Adam"):
        swept = found[rule]
        assert {0.01, 0.1} <= set(np.round(swept.rates, 9))
        for k in (swept.best(), 0):
            net = todo.net(3)
            optimizer = RULES[rule](net.parameters(), lr=float(swept.rates[k]))
            assert evaluate(net, todo.data.validation)[0] == pytest.approx(swept.start, rel=1e-5)
            for step, (x, y) in enumerate(todo.batches(3, 20), 1):
                optimizer.zero_grad()
                F.cross_entropy(net(x), y).backward()
                optimizer.step()
                if step == 10:
                    assert swept.validation[k, 0] == pytest.approx(evaluate(net, todo.data.validation)[0], rel=1e-3)
            parts = (todo.data.validation, todo.data.train, todo.data.test)
            for seen, part in zip((swept.validation[k, -1], swept.train[k], swept.test[k]), parts, strict=True):
                assert seen == pytest.approx(evaluate(net, part)[0], rel=1e-3)


def test_the_grid_is_widened_until_the_best_rate_lies_inside() -> None:
    todo = task("wine", BENCH)
    swept = sweep(todo, ["SGD"], 0, steps=40, low=-4, high=-3, spacing=0.5, marks=1)["SGD"]
    assert 0 < swept.best() < len(swept.rates) - 1
    assert swept.rates[swept.best()] > 1e-3
    np.testing.assert_allclose(np.diff(np.log10(swept.rates)), 0.5)


def test_one_that_diverges_is_never_the_best() -> None:
    found = sweep(task("diabetes", BENCH), ["SGD"], 0, steps=40, low=-2, high=2, spacing=1, marks=1)["SGD"]
    assert np.isinf(found.validation[-1, -1])
    assert np.isfinite(found.validation[found.best(), -1])


def test_coded_inputs_are_one_indicator_for_each_input() -> None:
    data = load("breast_cancer")
    split = coded(data, 5).validation
    assert split.x.shape == (len(data.validation), 30 * 5)
    indicators = split.x.reshape(len(split), 30, 5)
    assert torch.equal(indicators.sum(-1), torch.ones(len(split), 30))
    # Levels rise with the input.
    first = data.validation.x[:, 0].argsort()
    levels = indicators[first, 0].argmax(-1)
    assert (levels.diff() >= 0).all()


def test_uneven_inputs_are_the_same_in_other_units() -> None:
    data = load("wine")
    changed = uneven(data)
    ratio = changed.train.x / data.train.x
    torch.testing.assert_close(ratio[0], ratio[5])
    torch.testing.assert_close(ratio[0].log10().sort().values, torch.linspace(-2, 2, 13))
    torch.testing.assert_close((changed.test.x / data.test.x)[0], ratio[0])


def test_batches_go_through_all_rows_before_any_comes_again() -> None:
    todo = task("wine", BENCH)
    rows = len(todo.data.train) // todo.batch
    seen = torch.cat([x for x, _ in todo.batches(0, rows)])
    assert len(seen.unique(dim=0)) == len(seen)
    again = torch.cat([x for x, _ in todo.batches(0, rows)])
    assert torch.equal(seen, again)
    assert not torch.equal(seen, torch.cat([x for x, _ in todo.batches(1, rows)]))
