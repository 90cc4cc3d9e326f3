"""X1: what is measured of pairs of paths, and when the judgement turns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gradwise.lab.data import load
from gradwise.lab.experiment import DOES_NOT_HOLD, HOLDS, WITH_CONDITIONS, Bench
from gradwise.lab.models import mlp
from gradwise.lab.training import seeded
from gradwise.lab.x01_loss_scale import ADAPTIVE, EXPERIMENT, LINEAR

pytest.importorskip("sklearn")


def measured(name: str, steps: int = 4) -> Any:
    (cell,) = (c for c in EXPERIMENT.cells(True) if c.name == name)
    return EXPERIMENT.measure({**cell.settings, "steps": steps}, 0, Bench(quick=True))


def test_paths_of_sgd_are_those_of_torch() -> None:
    found = measured("gradient descent, all rows, as it is", steps=2)
    data = load("digits").train
    x, y = data.x.double(), data.y

    def path(loss: float, rate: float) -> list[torch.Tensor]:
        with seeded(0):
            net = mlp([64, 32, 10], nn.Tanh).double()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01 * rate)
        been = [nn.utils.parameters_to_vector(net.parameters()).detach()]
        for _ in range(2):
            optimizer.zero_grad()
            (loss * cross_entropy(net(x), y)).backward()
            optimizer.step()
            been.append(nn.utils.parameters_to_vector(net.parameters()).detach())
        return been

    scaled, before = path(10, 1), path(1, 1)
    way = max(float((p[-1] - p[0]).norm()) for p in (scaled, before))
    assert found["10"]["unscaled"][-1] == pytest.approx(float((scaled[-1] - before[-1]).norm()) / way, rel=1e-6)
    assert found["10"]["as rate"][-1] < 1e-13
    assert found["0.1"]["first step"] == pytest.approx(1)


def test_an_adaptive_rule_forgets_the_scale_of_the_loss_but_for_epsilon() -> None:
    usual, tiny, large = (measured(f"Adam, {v}")["10"] for v in ("as it is", "ε = 1e-30", "ε = 0.01"))
    assert tiny["unscaled"][-1] < 1e-13 < usual["unscaled"][-1] < 1e-3 < large["unscaled"][-1]
    assert usual["as rate"][-1] > 0.5
    assert measured("Adam, as it is") == measured("Adam, as it is")


def runs(**changes: dict[str, Any]) -> Any:
    """Measures as the claim has them; `changes` are of the cells of a rule, by question."""
    made: dict[str, Any] = {}
    for cell in EXPERIMENT.cells(True):
        rule, variant = cell.settings["rule"], cell.settings["variant"]
        linear, plain = rule in LINEAR, variant == "as it is"
        exact = {"as rate": linear and plain, "unscaled": not linear and variant in ("as it is", "ε = 1e-30")}
        if plain and not linear and rule != "root-mean-square Adagrad":
            exact["unscaled"] = False
        ends = {question: 1e-15 if same else 0.1 for question, same in exact.items()} | changes.get(rule, {})
        of_c = {"as rate": [ends["as rate"]], "unscaled": [ends["unscaled"]], "first step": ends.get("first", 1.0)}
        one = {"rounding": 1e-15, "steps": [1], "0.1": of_c, "10": of_c}
        for question, same in exact.items():
            one[f"foretold {question}"], one[f"because {question}"] = "exact" if same else "no", []
        made[cell.name] = dict.fromkeys((1, 2, 3), one)
    return made


def held(*args: Any, **changes: Any) -> list[bool | None]:
    return [s.held for s in EXPERIMENT.judge(runs(**changes)).statements]


def test_the_judgement_turns_with_what_was_measured() -> None:
    verdict = EXPERIMENT.judge(runs())
    assert verdict.word == WITH_CONDITIONS  # decay and clipping break it
    assert all(s.held for s in verdict.statements)
    assert "coupled decay" in verdict.statements[0].condition
    assert held(momentum={"as rate": 0.1}) == [False, True, True, True, False]
    assert held(Adam={"as rate": 1e-15}) == [True, False, True, True, False]
    assert held(RMSprop={"unscaled": 0.1})[2] is False
    assert held(Adagrad={"first": 1.1})[3] is False
    # Without terms that break it, it holds as it stands.
    unbroken = runs(momentum={"as rate": 1e-15}, **{rule: {"unscaled": 1e-15} for rule in ADAPTIVE})
    for cell in unbroken:
        for question in ("as rate", "unscaled"):
            for m in unbroken[cell].values():
                m[f"foretold {question}"] = "exact" if m["10"][question][-1] < 1e-12 else "no"
    assert EXPERIMENT.judge(unbroken).word == HOLDS
    everything = {rule: {"as rate": 0.1 if rule in LINEAR else 1e-15, "unscaled": 0.1, "first": 2.0} for rule in
                  {c.settings["rule"] for c in EXPERIMENT.cells(True)}}  # fmt: skip
    assert EXPERIMENT.judge(runs(**everything)).word == DOES_NOT_HOLD


def test_seeds_that_disagree_leave_it_open() -> None:
    seen = runs()
    cell = "momentum, as it is"
    other = {**seen[cell][1], "10": {**seen[cell][1]["10"], "as rate": [0.1]}}
    seen[cell] = {1: seen[cell][1], 2: other, 3: seen[cell][1]}
    assert EXPERIMENT.judge(seen).statements[0].held is None
