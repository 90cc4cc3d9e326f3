"""Recommendations follow D2's guide and D4's table (O11), can be run, and say why."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

import gradwise
import gradwise.optim as optim
from gradwise.optim.choosing import _CASES, state_bytes

LONG = {"trials": 20, "epochs": 50, "data": 50_000, "batch": 128}
CASES: list[tuple[dict[str, Any], str, str]] = [
    ({}, "AdamW", "D2"),
    ({"sparse": True}, "Adam", "D2"),
    ({"sparse": True, "kind": "linear"}, "Adagrad", "D2"),
    ({"sparse": True, "layers": 1}, "Adagrad", "D2"),
    ({"unequal": True}, "RMSprop", "D4"),
    ({"unsteady": True}, "SGD", "D4"),
    ({"unequal": True, "unsteady": True}, "AdamW", "D4"),
    ({"layers": 50}, "AdamW", "D2"),
    ({"layers": 2, **LONG}, "SGD", "D2"),
    ({"layers": 2}, "AdamW", "D2"),
    ({"kind": "cnn", **LONG}, "SGD", "Wilson et al. 2017"),
    ({"kind": "cnn", "trials": 20, "steps": 500}, "AdamW", "D2"),
    ({"kind": "transformer", "batch": 512}, "AdamW", "Zhang et al. 2020"),
    ({"kind": "transformer", "batch": 32768}, "LAMB", "You et al. 2020"),
    ({"kind": "rnn"}, "Adam", "Pascanu, Mikolov & Bengio 2013"),
    ({"kind": "gan"}, "Adam", "Radford, Metz & Chintala 2016"),
    ({"kind": "transformer", "parameters": 10**9, "memory": 8e9}, "AdamW", "D2"),
    ({"kind": "transformer", "parameters": 10**9, "memory": 5e9}, "Lion", "Chen et al. 2023"),
    ({"parameters": 10**9, "memory": 1e9}, "SGD", "counted"),
]


@pytest.mark.parametrize(("facts", "rule", "source"), CASES)
def test_facts_lead_to_a_rule_and_its_reason(facts: dict[str, Any], rule: str, source: str) -> None:
    advice = gradwise.recommend(**facts)
    assert advice.rule == rule
    assert source in {s.strip() for r in advice.reasons for s in r.source.split(";")}
    assert json.loads(json.dumps(advice.to_json()))["rule"] == rule
    assert all(r.says in str(advice) and r.source in str(advice) for r in advice.reasons)


@pytest.mark.parametrize(("facts", "rule"), [(facts, rule) for facts, rule, _ in CASES])
def test_what_is_recommended_runs_and_learns(facts: dict[str, Any], rule: str) -> None:
    advice = gradwise.recommend(**facts)
    assert advice.code.startswith(f"gradwise.optim.{rule}(params, lr=")
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = getattr(optim, advice.rule)(model.parameters(), **advice.settings)
    x = torch.randn(64, 4)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_every_case_is_reached_by_some_facts() -> None:
    reached = {id(next(c for c in _CASES if c.applies(_task(facts)))) for facts, _, _ in CASES}
    assert reached == {id(c) for c in _CASES}


def _task(facts: dict[str, Any]) -> Any:
    from gradwise.optim.choosing import Task

    return Task(**facts)


def test_rules_named_as_alike_are_there() -> None:
    for case in _CASES:
        assert all(hasattr(optim, name) for name in case.alike)


def test_it_says_when_several_are_alike() -> None:
    assert "about as good: Adam, Adadelta" in str(gradwise.recommend(unequal=True))
    assert any("alike in many cases" in r.says for r in gradwise.recommend(unequal=True).reasons)


def test_state_is_counted_from_the_rules_themselves() -> None:
    assert [state_bytes(c, {}) for c in (optim.SGD, optim.Lion, optim.AdamW)] == [0, 4, 8]
    assert state_bytes(optim.SGD, {"momentum": 0.9}) == 4
    assert state_bytes(optim.Adam, {"amsgrad": True}) == 12


def test_a_budget_brings_a_schedule_and_a_full_batch_a_warning() -> None:
    said = str(gradwise.recommend(epochs=10, data=1000, batch=100))
    assert "schedules.cosine(100, end=0.01)" in said
    assert "100 steps are few" in said
    assert "no noise" in str(gradwise.recommend(batch=1000, data=1000))


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"kind": "rbm"}, "unknown kind of model: 'rbm'"),
        ({"layers": 0}, "layers is a positive number"),
        ({"steps": 1, "epochs": 1}, "in steps or in epochs"),
        ({"memory": 1e9}, "memory needs to know the number of parameters"),
    ],
)
def test_facts_that_can_not_be(facts: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gradwise.recommend(**facts)
