"""X3: noise, saddles and minima against what can be worked out, and when the judgement turns."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gradwise.lab.data import Split, load
from gradwise.lab.experiment import Bench
from gradwise.lab.models import mlp
from gradwise.lab.stuck import Starts, at_saddle
from gradwise.lab.training import seeded
from gradwise.lab.x03_batch_size import ALL, EXPERIMENT, RANDOM, SINGLE, SIZES, WAY, ZERO
from gradwise.optim import SGD
from lab.manipulated import held, updated

pytest.importorskip("sklearn")
BENCH = Bench(quick=True)


def test_noise_is_the_spread_of_the_rows_gradients() -> None:
    found = EXPERIMENT.measure({"part": "noise", "rows": 60, "draws": 400}, 0, BENCH)
    train = load("digits").train.first(60)
    with seeded(0):
        net = mlp([64, 32, 10], nn.Tanh)
    rows = []
    for x, y in zip(train.x, train.y, strict=True):
        net.zero_grad()
        cross_entropy(net(x[None]), y[None]).backward()
        rows.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    each = torch.stack(rows)
    spread = float((each - each.mean(0)).square().sum(1).mean().sqrt() / each.mean(0).norm())
    assert found["noise"][0] == pytest.approx(spread, rel=0.06)
    assert found["noise"][4] == pytest.approx(spread / 4, rel=0.06)
    assert found["slope"] == pytest.approx(-0.5, abs=0.02)


@pytest.mark.parametrize("biases", [True, False])
def test_the_saddle_is_one(biases: bool) -> None:
    data = load("digits").train.first(50)
    train = Split(data.x.double()[:, :, :2, 2:4], data.y)
    net = at_saddle(train, 3, 0, biases=biases)
    shapes = [p.shape for p in net.parameters()]

    def loss(flat: torch.Tensor) -> torch.Tensor:
        w1, b1, w2, b2 = (
            part.view(shape) for part, shape in zip(flat.split([s.numel() for s in shapes]), shapes, strict=True)
        )
        return cross_entropy(torch.tanh(train.x.flatten(1) @ w1.T + b1) @ w2.T + b2, train.y)

    flat = nn.utils.parameters_to_vector(net.parameters()).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(flat), flat)
    assert float(gradient.norm()) < 1e-15
    values = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))
    assert float(values[0]) < -1e-3 < 1e-3 < float(values[-1])


def test_side_by_side_is_one_by_one() -> None:
    train = Split(torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), torch.ones(9, 1))
    nets = Starts(4, 3, 5, seed=0)
    alone = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    with torch.no_grad():
        for p, q in zip(alone.parameters(), (nets.w1[2].T, nets.b1[2, 0], nets.w2[2].T, nets.b2[2, 0]), strict=True):
            p.copy_(q)
    nets.train_on(train, SGD(nets.parameters(), lr=0.1), 20, ALL, 0)
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        (alone(train.x) - train.y).square().mean().backward()
        optimizer.step()
    assert nets.losses(train)[2].item() == pytest.approx(
        float((alone(train.x) - train.y).square().mean().detach()), rel=1e-4
    )


def test_descent_on_all_rows_stays_and_noise_leaves() -> None:
    settings = {"part": "saddle", "rows": 100, "place": RANDOM}
    stays = EXPERIMENT.measure({**settings, "batch": ALL}, 0, BENCH)
    leaves = EXPERIMENT.measure({**settings, "batch": 8}, 0, BENCH)
    assert stays["kind"] == "saddle"
    assert stays["out"] is None
    assert leaves["out"] is not None
    assert leaves["steps"][-1] <= WAY / leaves["rate"] + 1
    assert leaves == EXPERIMENT.measure({**settings, "batch": 8}, 0, BENCH)


def runs() -> Any:
    """Measures as the claim has them: small batches get out of everything."""
    made: dict[str, Any] = {"noise": {s: {"noise": [1.0], "slope": -0.5 + 0.001 * s} for s in (1, 2, 3)}}
    for k, name in enumerate(SIZES):
        for rate in ("shared", "own"):
            one = {"rate": 0.1, "to target": 10, "rows": 10, "seconds per step": 1e-3, "rises": 0.4 - 0.2 * k}
            made[f"descent, {name}, {rate} rate"] = {s: one | {"rises": one["rises"] + 0.001 * s} for s in (1, 2, 3)}
        for place in (RANDOM, ZERO):
            stays = {"kind": "saddle", "lowest": -1.0, "gradient": 0.0, "rate": 0.1, "steps": [0, 1]}
            left = {"losses": [2.0, 1.0], "out": 1} if name != "all rows" else {"losses": [2.0, 2.0], "out": None}
            made[f"{place}, {name}"] = dict.fromkeys((1, 2, 3), stays | left)
    ends = {"one row, rate 0.03": [1.0, 1.0], "32 rows, rate 0.03": [1.0, 1.0], "all rows, rate 0.03": [1.0, 2.0]}
    minima = {"rates": [0.03], "before": [1.0, 2.0], **ends}
    made["poor minima"] = dict.fromkeys((1, 2, 3), minima)
    return made


def test_the_judgement_turns_with_what_was_measured() -> None:
    assert held(EXPERIMENT, runs()) == [True] * 8
    assert EXPERIMENT.judge(runs()).word == "holds"

    def changed(cell: str, **changes: Any) -> list[bool | None]:
        return held(EXPERIMENT, updated(runs(), cell, **changes))

    assert changed("noise", slope=-1.0)[0] is False
    assert changed("descent, one row, own rate", rises=0.1)[2] is False
    assert changed("descent, one row, own rate", rises=0.202)[2] is None
    assert changed(f"{RANDOM}, all rows", losses=[2.0, 1.9])[3] is False
    assert changed(f"{ZERO}, 32 rows", losses=[2.0, 2.0])[4] is False
    assert changed(f"{RANDOM}, one row", out=None)[5] is None
    assert changed("poor minima", **{"32 rows, rate 0.03": [1.0, 2.0]})[7] is False
    for cell in (f"{RANDOM}, one row", f"{RANDOM}, 32 rows"):
        stuck = copy.deepcopy(runs())
        for name in (cell, f"{RANDOM}, one row", f"{RANDOM}, 32 rows"):
            for seed in stuck[name]:
                stuck[name][seed] = {**stuck[name][seed], "out": None}
    assert held(EXPERIMENT, stuck)[5] is False


def test_conditions_are_told() -> None:
    seen = runs()
    for name in ("one row", "32 rows"):
        seen[f"{ZERO}, {name}"] = {s: {**m, "out": None} for s, m in seen[f"{ZERO}, {name}"].items()}
    seen[SINGLE] = {s: {**m, "out": 300} for s, m in seen[f"{RANDOM}, all rows"].items()}
    verdict = EXPERIMENT.judge(seen)
    assert verdict.word == "holds with conditions"
    assert "300 steps" in verdict.statements[3].condition
    assert "points along the way out" in verdict.statements[5].condition
    assert math.isfinite(WAY)
