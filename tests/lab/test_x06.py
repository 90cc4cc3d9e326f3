"""X6: disparities against what can be worked out, and when the judgement turns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gradwise.lab.experiment import Bench
from gradwise.lab.x06_disparity import BOTH, CURES, EXPERIMENT, INITIALIZED, NONE, NORMALIZED, RMSPROP, disparities
from lab.manipulated import held

pytest.importorskip("sklearn")


def measured(cure: str, steps: int = 4) -> Any:
    return EXPERIMENT.measure({"data": "wine", "cure": cure, "steps": steps}, 0, Bench(quick=True))


def test_disparities_of_a_linear_model_are_those_of_its_inputs() -> None:
    """It is dW = δ xᵀ and db = δ: columns go as the inputs, weights over biases as their root mean square."""
    x, delta = torch.tensor([3.0, 0.01, 0.0]), torch.tensor([2.0, -1.0])
    found = disparities([torch.outer(delta, x)], [delta])
    assert found["a"] == pytest.approx(300)  # the input that is always 0 doesn't count
    assert found["b"] == pytest.approx(1)
    assert found["c"] == pytest.approx(float(x.square().mean().sqrt()))


def test_the_first_step_of_rmsprop_is_as_long_everywhere() -> None:
    plain, rmsprop = measured(NONE), measured(RMSPROP)
    assert plain["a"][0] > 1000
    assert plain["c"][0] > 100
    # g/√(0.1 g²), whatever g is, but for ε
    assert max(rmsprop[source][0] for source in "abc") < 10
    assert measured(RMSPROP) == rmsprop


def runs(**ratios: dict[str, float]) -> Any:
    """Measures as the claim has them, with 10,000 and a cured 10; `ratios` are other ones, by cure and source."""
    cured = {NORMALIZED: "a", INITIALIZED: "b", RMSPROP: "abc", NONE: "", BOTH: "ab"}
    made = {}
    for cure, sources in cured.items():
        first = {s: ratios.get(cure, {}).get(s, 10.0 if s in sources else 1e4) for s in "abc"}
        one = {"marks": [1, 10], "loss": 1.0, **{s: [v, v] for s, v in first.items()}}
        if cure == INITIALIZED:
            one["b"] = [10.0, ratios.get("later", {}).get("b", 50.0)]
        made[f"wine, {cure}"] = dict.fromkeys((1, 2, 3), one)
    return made


def test_the_judgement_turns_with_what_was_measured() -> None:
    assert len(CURES) == 3
    assert held(EXPERIMENT, runs()) == [True] * 13
    assert EXPERIMENT.judge(runs()).word == "holds"
    small = dict.fromkeys("abc", 5.0)
    assert held(EXPERIMENT, runs(**{NONE: small}))[:3] == [False, False, False]
    assert held(EXPERIMENT, runs(**{NORMALIZED: {"a": 5e3}}))[3] is False
    assert held(EXPERIMENT, runs(**{NORMALIZED: {"c": 2.0}}))[4:6] == [True, False]
    assert held(EXPERIMENT, runs(later={"b": 5.0}))[7] is False
    assert held(EXPERIMENT, runs(**{INITIALIZED: {"a": 2.0}}))[8] is False
    assert held(EXPERIMENT, runs(**{RMSPROP: {"b": 5e3}}))[11] is False

    open_ = runs()
    for seed, ratio in ((1, 3.0), (2, 100.0), (3, 9e3)):
        open_[f"wine, {RMSPROP}"][seed] = {**open_[f"wine, {RMSPROP}"][seed], "c": [ratio, ratio]}
    assert held(EXPERIMENT, open_)[12] is None
