"""Gradients changed between the loss and the step, against the same written in the script."""

from __future__ import annotations

import math

import pytest
import torch
from changing import adam, changed, data, net, sgd, stack, train
from torch import nn
from torch.nn import functional as F


@pytest.mark.parametrize("make", [net, stack])
@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_loss_scale_scales_what_is_differentiated_and_not_what_is_recorded(make, optimizer):
    edited = make()
    expected = train(edited, optimizer(edited), loss_of=lambda out, y: 8.0 * F.cross_entropy(out, y))
    with changed(loss_scale=8.0) as run:
        model = make()
        seen = train(model, optimizer(model))
        assert seen == pytest.approx([loss / 8.0 for loss in expected], rel=1e-6)
        assert run.losses == pytest.approx(seen)


@pytest.mark.parametrize("optimizer", [lambda m: sgd(m, momentum=0.9), adam])
@pytest.mark.parametrize("make", [net, stack])
def test_accumulation_makes_one_step_of_several(make, optimizer):
    expected, edited = [], make()
    own = optimizer(edited)
    for step in range(7):
        x, y = data(seed=step)
        loss = F.cross_entropy(edited(x), y)
        (loss / 3).backward()
        if step % 3 == 2:
            own.step()
            own.zero_grad()
        expected.append(loss.item())
    with changed(accumulate=3) as run:
        model = make()
        trained = optimizer(model)
        scheduler = torch.optim.lr_scheduler.LambdaLR(trained, lambda step: 1.0)
        assert train(model, trained, 7) == pytest.approx(expected, rel=1e-5)
        scheduler.step()
        assert len(run.losses) == 7
        counts = {int(s["step"]) for s in trained.state.values() if "step" in s}
        assert counts <= {2}
        assert all(p.grad is not None for p in model.parameters())  # the script's own, of its last batch


def test_accumulation_can_not_cross_a_closure():
    w = torch.ones(2, requires_grad=True)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = w.square().sum()
        loss.backward()
        return loss

    with changed(accumulate=2) as run:
        optimizer = torch.optim.LBFGS([w])
        optimizer.step(closure)
    assert "closure" in run.refused


@pytest.mark.parametrize("make", [net, stack])
def test_gradients_begin_from_nothing_after_each_step(make):
    edited = make()
    expected = train(edited, sgd(edited))
    untouched = make()
    assert train(untouched, sgd(untouched), zero=False) != pytest.approx(expected, rel=1e-3)
    with changed(fixes=["zero-grad"]) as run:
        model = make()
        assert train(model, sgd(model), zero=False) == expected
    assert not run.refused


def test_gradients_of_several_backward_passes_before_a_step_still_add_up():
    def half(model, optimizer, zero):
        for step in range(6):
            x, y = data(seed=step)
            (F.cross_entropy(model(x), y) / 2).backward()
            if step % 2:
                optimizer.step()
                if zero:
                    optimizer.zero_grad()
        return [p.detach().clone() for p in model.parameters()]

    edited, model = net(), net()
    expected = half(edited, sgd(edited), True)
    with changed(fixes=["zero-grad"]):
        made = half(model, sgd(model), False)
    assert all(map(torch.equal, made, expected))


def by_hand(steps: int, zero: bool) -> list[float]:
    w = torch.full((3,), 2.0, requires_grad=True)
    losses = []
    for _ in range(steps):
        loss = (w * torch.tensor([1.0, 2.0, 3.0])).square().sum()
        loss.backward()
        with torch.no_grad():
            w -= 0.02 * w.grad
        if zero:
            w.grad.zero_()
        losses.append(loss.item())
    return losses


def test_gradients_of_tensors_stepped_by_hand():
    expected = by_hand(6, True)
    assert by_hand(6, False) != expected
    with changed(fixes=["zero-grad"]) as run:
        assert by_hand(6, False) == expected
    assert not run.refused


@pytest.mark.parametrize("optimizer", [lambda m: sgd(m, momentum=0.9), adam])
def test_steps_that_are_not_finite_are_skipped(optimizer):
    def batches(step):
        x, y = data(seed=step)
        return (x * math.nan if step == 2 else x), y

    edited = net()
    expected = train(edited, optimizer(edited), 5, batches=lambda step: batches(step + (step >= 2)))
    with changed(fixes=["skip-non-finite"]) as run:
        model = net()
        losses = train(model, optimizer(model), 6, batches=batches)
    assert math.isnan(losses.pop(2))
    assert losses == pytest.approx(expected, rel=1e-6)
    assert not run.refused


def test_skipping_where_steps_are_made_by_hand():
    w = torch.ones(2, requires_grad=True)
    with changed(fixes=["skip-non-finite"]):
        for factor in (1.0, 1.0, math.inf, 1.0):
            w.grad = None
            (factor * w.square().sum()).backward()
            with torch.no_grad():
                w -= 0.1 * w.grad
    assert w.tolist() == pytest.approx([0.8**3] * 2)


def test_changes_of_gradients_go_with_another_rule_and_clipping():
    edited = net()
    expected = train(
        edited, sgd(edited, lr=0.01), 4, lambda out, y: 3.0 * F.cross_entropy(out, y),
    )  # fmt: skip
    with changed(loss_scale=3.0, rule="sgd", lr={"constant": {"factor": 0.01}}, clip_norm=1e9):
        model = nn.Sequential(net())
        losses = train(model, adam(model), 4)
    assert losses == pytest.approx([loss / 3 for loss in expected], rel=1e-5)
