"""The range test in this process."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch

import gradwise
from gradwise import finder


def surface(lr: float = 3.0) -> tuple[torch.nn.Module, torch.optim.Optimizer, list]:
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = x @ torch.arange(8.0)[:, None]
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return model, optimizer, list(zip(x.split(32), y.split(32), strict=True))


def test_everything_is_as_before() -> None:
    model, optimizer, batches = surface()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    random = torch.get_rng_state()
    found = gradwise.range_test(model, batches, torch.nn.functional.mse_loss, optimizer=optimizer, budget=300)
    assert found.rate is not None
    assert 1e-4 < found.rate < 1
    assert found.steps <= 300
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert optimizer.param_groups[0]["lr"] == 3.0
    assert not optimizer.state


def test_a_whole_step_of_ones_own() -> None:
    model, optimizer, batches = surface()

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        x, y = batches[0]
        loss = torch.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    found = gradwise.range_test(step, optimizer=optimizer, budget=300, horizon=100)
    assert found.rate is not None
    assert found.horizon == 100
    figure = gradwise.figures.range_figure(found)
    assert len(figure.data) == 3
    assert np.nanmax(figure.data[0].y) < 4 * found.losses[0]
    data = found.to_json()
    assert data["lr"] == found.rate
    assert len(data["ramp"]["lr"]) == len(data["ramp"]["loss"]) == len(found.rates)


def test_held_out_data_decides_where_it_is_given() -> None:
    torch.manual_seed(1)
    x, y = torch.randn(60, 30), torch.randn(60, 1)  # nothing to learn: what fits the rows only costs
    model = torch.nn.Sequential(torch.nn.Linear(30, 64), torch.nn.Tanh(), torch.nn.Dropout(0.1), torch.nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches = list(zip(x[:40].split(10), y[:40].split(10), strict=True))
    held = [(x[40:], y[40:])]
    loss = torch.nn.functional.mse_loss
    random = torch.get_rng_state()
    trained, validated, called = (
        gradwise.range_test(model, batches, loss, optimizer=optimizer, budget=600, horizon=300, validation=v)
        for v in (None, held, lambda: loss(model(x[40:]), y[40:]))
    )
    assert (trained.metric, validated.metric, called.metric) == ("training loss", "validation loss", "validation loss")
    assert trained.rate is not None
    assert validated.rate is not None
    assert validated.rate < trained.rate / 3
    assert set(validated.validation) == set(validated.runs)
    assert validated.to_json()["runs"][0]["validation"]
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in model.modules())


def test_what_is_missing_is_said() -> None:
    model, optimizer, batches = surface()
    with pytest.raises(TypeError, match="a model needs batches and a loss"):
        gradwise.range_test(model, optimizer=optimizer)
    with pytest.raises(ValueError, match="60 at least"):
        gradwise.range_test(model, batches, torch.nn.functional.mse_loss, optimizer=optimizer, budget=5)
    with pytest.raises(TypeError, match="validation is held-out batches"):
        gradwise.range_test(lambda batch: None, batches, optimizer=optimizer, validation=batches)
    with pytest.raises(ValueError, match="validation has no batches"):
        gradwise.range_test(model, batches, torch.nn.functional.mse_loss, optimizer=optimizer, validation=[])


def test_the_examples_in_the_docstrings() -> None:
    from gradwise.diagnosis import forecast, ramp

    for module in (finder, ramp, forecast):
        assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0
