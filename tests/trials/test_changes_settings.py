"""Momentum, epsilon and weight decay of an optimizer, against the same written in the script."""

from __future__ import annotations

import pytest
import torch
from changing import adam, changed, net, sgd, stack, train
from torch import nn


@pytest.mark.parametrize(
    ("before", "after", "keys"),
    [
        (lambda m: sgd(m), lambda m: sgd(m, momentum=0.8), {"momentum": 0.8}),
        (lambda m: sgd(m, momentum=0.5, nesterov=True), lambda m: sgd(m), {"momentum": 0.0}),
        (lambda m: adam(m), lambda m: adam(m, betas=(0.5, 0.999)), {"momentum": 0.5}),
        (lambda m: torch.optim.RMSprop(m.parameters()), lambda m: torch.optim.RMSprop(m.parameters(), momentum=0.7),
         {"momentum": 0.7}),
        (lambda m: adam(m), lambda m: adam(m, eps=0.1), {"eps": 0.1}),
        (lambda m: torch.optim.Adagrad(m.parameters()), lambda m: torch.optim.Adagrad(m.parameters(), eps=1.0),
         {"eps": 1.0}),
        (lambda m: sgd(m, weight_decay=0.4), lambda m: sgd(m, weight_decay=0.1), {"decay_scale": 0.25}),
        (lambda m: torch.optim.AdamW(m.parameters(), weight_decay=0.4),
         lambda m: torch.optim.AdamW(m.parameters(), weight_decay=0.0), {"decay_scale": 0}),
        (lambda m: torch.optim.AdamW(split(m, 0.0, 0.0), lr=0.01),
         lambda m: torch.optim.AdamW(split(m, 0.3, 0.0), lr=0.01), {"decay": 0.3}),
        (lambda m: adam(m), lambda m: torch.optim.AdamW(split(m, 0.3, 0.0), lr=0.01), {"decay": 0.3}),
        (lambda m: sgd(m, weight_decay=0.4), lambda m: torch.optim.SGD(split(m, 0.4, 0.0), lr=0.05),
         {"fixes": ["decay-weights-only"]}),
        (lambda m: torch.optim.AdamW(m.parameters(), weight_decay=0.4),
         lambda m: torch.optim.AdamW(split(m, 0.4, 0.0)), {"fixes": ["decay-weights-only"]}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("make", [net, lambda: stack(0, nn.LayerNorm(8))], ids=["functional", "with norm"])
def test_as_if_it_stood_in_the_script(make, before, after, keys):
    edited = make()
    expected = train(edited, after(edited))
    untouched = make()
    assert train(untouched, before(untouched)) != pytest.approx(expected, rel=1e-5)
    with changed(**keys) as run:
        model = make()
        optimizer = before(model)
        was = [dict(group) for group in optimizer.param_groups]
        assert train(model, optimizer) == pytest.approx(expected, rel=1e-6)
        assert [dict(group) for group in optimizer.param_groups] == was
    assert not run.refused


def split(model: nn.Module, weights: float, rest: float) -> list[dict]:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    return [{"params": matrices, "weight_decay": weights}, {"params": others, "weight_decay": rest}]


def test_schedulers_see_the_scripts_own_momentum():
    with changed(momentum=0.3) as run:
        model = net()
        optimizer = sgd(model, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
        train(model, optimizer, 4)
        scheduler.step()
        assert optimizer.param_groups[0]["momentum"] > 0.8
    assert not run.refused


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"eps": 0.1}, "its optimizer has no epsilon"),
        ({"decay_scale": 0.1}, "its optimizer has no weight decay to scale"),
        ({"fixes": ["decay-weights-only"]}, "its optimizer decays no biases and no normalization"),
    ],
)
def test_what_an_optimizer_does_not_have_can_not_be_changed(keys, reason):
    with changed(**keys) as run:
        model = net()
        train(model, sgd(model))
    assert run.refused == reason
    assert [e.data["reason"] for e in run.recording.happened("not-applied")] == [reason]


def test_lbfgs_decays_once_a_step():
    w = torch.full((2, 2), 2.0, requires_grad=True)
    evaluations = 0

    def closure() -> torch.Tensor:
        nonlocal evaluations
        evaluations += 1
        optimizer.zero_grad()
        loss = 0 * w.sum()
        loss.backward()
        return loss + 1.0 / evaluations

    with changed(decay=0.5):
        optimizer = torch.optim.LBFGS([w], lr=1.0, tolerance_grad=-1, tolerance_change=-1, max_iter=3)
        optimizer.step(closure)
    assert evaluations > 1
    assert w.tolist() == [[1.0, 1.0], [1.0, 1.0]]
