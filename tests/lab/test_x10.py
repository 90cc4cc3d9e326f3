"""X10: rates and steps of features against what can be worked out, and when the judgement turns."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from gradwise import optim
from gradwise.lab.experiment import Bench
from gradwise.lab.x10_rare_features import EXPERIMENT, LONG, RULES, _rates
from lab.manipulated import held, updated

pytest.importorskip("sklearn")


def test_rates_of_features_that_occur_now_and_then() -> None:
    """Adagrad's rate is η over the root of the sum of squares: after k equal gradients η/(|g|√k)."""
    p = torch.nn.Parameter(torch.zeros(3))
    optimizer = optim.Adagrad([p], lr=0.1)
    for step in range(16):
        p.grad = torch.tensor([2.0, 2.0 if step % 4 == 0 else 0.0, 0.0])
        optimizer.step()
    rates = _rates(optimizer, p)
    assert rates[:2].tolist() == pytest.approx([0.1 / (2 * 4), 0.1 / (2 * 2)])
    assert rates[2].isnan(), "what has had no gradient has no rate"


def test_sgd_has_one_rate_for_all_and_adagrad_larger_ones_for_rare() -> None:
    sgd, adagrad = (
        EXPERIMENT.measure({"part": "features", "text": "bundled", "rule": rule, "steps": 60}, 0, Bench(quick=True))
        for rule in ("SGD", "Adagrad")
    )
    assert sgd["rates"] == pytest.approx(1)
    assert sgd["slope"] == pytest.approx(0, abs=1e-6)
    assert adagrad["rates"] > 1.5
    assert -1 < adagrad["slope"] < -0.25


def test_a_long_run_is_the_same_twice() -> None:
    settings = {"part": "long", "text": "bundled", "rate": "0.01", "steps": 64, "new": 8}
    first = EXPERIMENT.measure(settings, 0, Bench(quick=True))
    assert first == EXPERIMENT.measure(settings, 0, Bench(quick=True))
    assert first["rates"] == sorted(first["rates"], reverse=True)
    assert first["losses"][0] > first["losses"][-1]


def runs() -> Any:
    """Measures as the claim has them: it stops learning."""
    made: dict[str, Any] = {}
    for rule in RULES:
        ratio = 4.0 if rule == "Adagrad" else 1.0
        features = {"rates": ratio, "steps": ratio, "slope": -0.5, "rate": 0.1, "loss": 2.0}
        made[f"features, {rule}"] = dict.fromkeys((1, 2, 3), features)
    for rate in LONG:
        new = {"before": 5.0, "old rates": 4.9, "fresh rates": 2.0}
        one = {
            "rate": 0.01,
            "steps": [100, 200, 400],
            "rates": [4.0, 2.8, 2.0],
            "losses": [3.0, 2.0, 1.9, 1.95],
            "new": new,
        }
        made[f"long, {rate} rate"] = dict.fromkeys((1, 2, 3), one)
    return made


def test_the_judgement_turns_with_what_was_measured() -> None:
    assert held(EXPERIMENT, runs()) == [True] * 10
    assert EXPERIMENT.judge(runs()).word == "holds"

    def changed(cell: str, **changes: Any) -> list[bool | None]:
        return held(EXPERIMENT, updated(runs(), cell, **changes))

    assert changed("features, Adagrad", rates=0.5)[0] is False
    assert changed("features, SGD", steps=8.0)[1] is False
    long = "long, own rate"
    assert changed(long, rates=[4.0, 3.9, 3.8])[6] is False
    assert changed(long, losses=[3.0, 2.0, 1.9, 1.5])[7] is False
    learns = {"before": 5.0, "old rates": 2.5, "fresh rates": 2.0}
    assert changed(long, new=learns)[8:] == [False, True]
    assert changed(long, new={**learns, "old rates": 1.9})[9] is False

    seen = copy.deepcopy(runs())
    for seed, last in ((1, 1.8), (2, 1.9), (3, 2.0)):
        seen[long][seed] = {**seen[long][seed], "losses": [3.0, 2.0, 1.9, last]}
    assert held(EXPERIMENT, seen)[7] is None
