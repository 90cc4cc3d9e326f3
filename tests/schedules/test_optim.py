"""Schedules and decay groups with gradwise's own optimizers."""

from __future__ import annotations

import torch

import gradwise as gw
from gradwise.schedules import Schedule, attach, cosine, function, step, warmup

RATE = 3e-4 * (warmup(5) >> cosine(20))


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1))


def walk(net: torch.nn.Module, optimizer: torch.optim.Optimizer, n: int) -> list[float]:
    used = []
    for _ in range(n):
        net(torch.ones(2, 3)).square().mean().backward()
        optimizer.step()
        used.append(optimizer.param_groups[0]["lr"])
    return used


def test_a_rate_goes_straight_into_an_optimizer() -> None:
    net = model()
    optimizer = gw.optim.AdamW(gw.decay_groups(net, weight_decay=0.01), lr=RATE)
    assert walk(net, optimizer, 12) == [RATE(t) for t in range(12)]
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.01, 0.0]
    kept = optimizer.state_dict()["gradwise"]["schedules"]
    assert [Schedule.from_json(data) for data in kept] == [RATE, RATE]


def test_a_rate_of_ones_own_has_no_json_but_hinders_no_checkpoint() -> None:
    net = model()
    optimizer = gw.optim.SGD(net.parameters(), lr=0.1 * function(lambda t: 1 / (1 + t)))
    walk(net, optimizer, 3)
    again = gw.optim.SGD(net.parameters(), lr=0.1 * function(lambda t: 1 / (1 + t)))
    again.load_state_dict(optimizer.state_dict())
    assert walk(net, again, 1) == [0.1 * (1 / 4)]


def test_attached_schedules_do_as_well() -> None:
    net = model()
    optimizer = gw.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.1)
    attach(optimizer, cosine(10), momentum=step(1, 0.5), weight_decay=cosine(10), step=5)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["betas"][0]) == (
        1e-3 * cosine(10)(5),
        0.1 * cosine(10)(5),
        0.9 / 32,
    )
    walk(net, optimizer, 2)
