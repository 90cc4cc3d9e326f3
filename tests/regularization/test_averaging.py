"""Averages of weights, and the model that borrows them."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from gradwise.regularization import average


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.layer = nn.Linear(3, 2)
        self.register_buffer("mask", torch.tensor([0.0, float("-inf")]))


def moved(model: Net, value: float) -> Net:
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(value)
        model.norm.running_mean.fill_(value)
        model.norm.num_batches_tracked.fill_(int(10 * value))
    return model


@pytest.mark.parametrize(("decay", "expected"), [(0.5, 0.5**2 * 1 + 0.5**2 * 2 + 0.5 * 4), (None, 7 / 3), (0.0, 4.0)])
def test_the_average_is_what_its_formula_says(decay: float | None, expected: float) -> None:
    model = Net()
    mean = average(model, decay)
    for value in (1.0, 2.0, 4.0):
        mean.update(moved(model, value))
    for p in (*mean.module.parameters(), mean.module.norm.running_mean):
        assert torch.allclose(p, torch.full_like(p, expected))
    assert mean.module.norm.num_batches_tracked == 40
    assert mean.module.mask.tolist() == [0.0, float("-inf")]
    assert int(mean.n_averaged) == 3
    assert not any(p.requires_grad for p in mean.parameters())


def test_the_model_borrows_it_and_gets_its_own_back() -> None:
    model = Net()
    mean = average(model, None)
    mean.update(moved(model, 1.0))
    mean.update(moved(model, 3.0))
    pointers = [p.data_ptr() for p in model.parameters()]

    def borrow() -> None:
        with mean.applied_to(model) as same:
            assert same is model
            assert model.layer.weight[0, 0] == model.norm.running_mean[0] == 2.0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        borrow()
    assert model.layer.weight[0, 0] == model.norm.running_mean[0] == 3.0
    assert mean.module.layer.weight[0, 0] == 2.0
    assert pointers == [p.data_ptr() for p in model.parameters()]


def test_it_resumes() -> None:
    model = Net()
    first = average(model, 0.9)
    first.update(moved(model, 1.0))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = average(Net(), 0.9)
    second.load_state_dict(torch.load(file, weights_only=True))
    moved(model, 2.0)
    first.update(model)
    second.update(model)
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_tied_weights_stay_tied() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    mean = average(model, 0.5)
    mean.update(model)
    assert mean.module[0].weight is mean.module[1].weight


def test_what_makes_no_sense_is_said() -> None:
    with pytest.raises(ValueError, match="decay must be from 0 to 1, or None"):
        average(Net(), 1.5)
    with pytest.raises(RuntimeError, match="nothing has been averaged yet"), average(Net()).applied_to(Net()):
        pass
