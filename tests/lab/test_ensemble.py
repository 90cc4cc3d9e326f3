"""Nets trained side by side train as each would by itself."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradwise import optim
from gradwise.lab.ensemble import Ensemble

RULES: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "momentum": lambda p: optim.SGD(p, momentum=0.9),
    "RMSprop": lambda p: optim.RMSprop(p),
    "Adam": lambda p: optim.Adam(p),
}


def nets(count: int) -> list[nn.Module]:
    torch.manual_seed(3)
    return [nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)) for _ in range(count)]


def rows(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(*shape, 2, 3, generator=generator), torch.randint(3, shape, generator=generator)


@pytest.mark.parametrize("rule", RULES)
def test_each_net_goes_the_way_it_goes_alone(rule: str) -> None:
    members, rates, (x, y) = nets(2), (0.1, 0.003), rows(16)
    together = Ensemble(members, F.cross_entropy, copies=2)
    optimizer = RULES[rule]([{"params": together.parameters(k), "lr": lr} for k, lr in enumerate(rates)])
    for _ in range(10):
        losses = together.backward(x, y)
        optimizer.step()
    for k, lr in enumerate(rates):
        for m, member in enumerate(members):
            alone = copy.deepcopy(member)
            own = RULES[rule]([{"params": list(alone.parameters()), "lr": lr}])
            for _ in range(10):
                own.zero_grad()
                loss = F.cross_entropy(alone(x), y)
                loss.backward()
                own.step()
            assert losses[k, m].item() == pytest.approx(loss.item(), rel=1e-4)
            torch.testing.assert_close(together.predict(x)[k, m], alone(x).detach(), rtol=1e-3, atol=1e-4)


def test_each_net_may_have_rows_of_its_own() -> None:
    members, (x, y) = nets(2), rows(4, 8)
    together = Ensemble(members, F.cross_entropy, copies=2)
    found = together.loss(x, y, shared=False)
    for k in range(2):
        for m in range(2):
            own = 2 * k + m
            assert found[k, m].item() == pytest.approx(F.cross_entropy(members[m](x[own]), y[own]).item(), rel=1e-5)
    assert together.predict(x, shared=False).shape == (2, 2, 8, 3)
    assert torch.equal(together.backward(x, y, shared=False), found)


def test_one_that_diverges_harms_no_other() -> None:
    members, (x, y) = nets(1), rows(16)
    together = Ensemble(members, F.cross_entropy, copies=2)
    optimizer = optim.SGD([{"params": together.parameters(k), "lr": lr} for k, lr in enumerate((1e38, 0.1))])
    before = together.loss(x, y)
    for _ in range(5):
        together.backward(x, y)
        optimizer.step()
    after = together.loss(x, y)
    assert not after[0].isfinite().any()
    assert (after[1] < before[1]).all()


def test_what_cannot_be_kept_per_net_is_refused() -> None:
    with pytest.raises(ValueError, match="buffers"):
        Ensemble([nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))], F.mse_loss)
    with pytest.raises(ValueError, match="one net or more"):
        Ensemble([], F.mse_loss)
