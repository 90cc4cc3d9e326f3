"""Whether the gradients of one step are still there when those of the next are added to them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from watching import batch, mlp, watched
from wired import found, hypotheses

from gradwise.recording import signals

STEPS = 60


def clear_to_none(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()


def clear_in_place(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad(set_to_none=False)


def clear_model(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.zero_grad()


def forget(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for p in model.parameters():
        p.grad = None


def zero_data(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for p in model.parameters():
        if p.grad is not None:
            p.grad.data.zero_()


def fade(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """A momentum of one's own."""
    for p in model.parameters():
        if p.grad is not None:
            p.grad.data.mul_(0.9)


def nothing(model: nn.Module, optimizer: torch.optim.Optimizer) -> None: ...


CLEARING = [clear_to_none, clear_in_place, clear_model, forget, zero_data, fade]


def training(
    clear: Callable[[nn.Module, torch.optim.Optimizer], None],
    first: bool = True,
    accumulate: int = 1,
    clip: bool = False,
) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(STEPS):
        if first:
            clear(model, optimizer)
        for part in range(accumulate):
            x, y = batch(seed=accumulate * step + part)
            F.cross_entropy(model(x), y).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        if not first:
            clear(model, optimizer)


@pytest.mark.parametrize("clear", CLEARING)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_cleared_gradients(clear: Callable[..., None], first: bool, accumulate: int) -> None:
    assert found(lambda: training(clear, first, accumulate)) == {}


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("clip", [False, True])
def test_gradients_that_pile_up(accumulate: int, clip: bool) -> None:
    finding = found(lambda: training(nothing, accumulate=accumulate, clip=clip))["missing-zero-grad"]
    assert finding.confidence > 0.9
    assert finding.place is not None
    assert "optimizer.step()" in finding.place.text
    assert finding.evidence["examined_steps"] == finding.evidence["gradients_carried_over"] >= 2


def test_cleared_once_an_epoch_is_not_enough() -> None:
    def script() -> None:
        model = mlp()
        optimizer = torch.optim.Adam(model.parameters())
        for _ in range(4):
            optimizer.zero_grad()
            for seed in range(20):
                x, y = batch(seed=seed)
                F.cross_entropy(model(x), y).backward()
                optimizer.step()

    assert set(found(script)) == {"missing-zero-grad"}


@pytest.mark.parametrize("order", ["generator last", "generator first"])
def test_adversaries_leave_gradients_in_each_other(order: str) -> None:
    def script() -> None:
        torch.manual_seed(0)
        g, d = nn.Linear(4, 2), nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
        og, od = torch.optim.Adam(g.parameters()), torch.optim.Adam(d.parameters())

        def critic() -> None:
            od.zero_grad()
            real, fake = d(torch.randn(8, 2)), d(g(torch.randn(8, 4)).detach())
            (F.softplus(-real).mean() + F.softplus(fake).mean()).backward()
            od.step()

        def generator() -> None:
            og.zero_grad()
            F.softplus(-d(g(torch.randn(8, 4)))).mean().backward()
            og.step()

        for _ in range(40):
            for turn in (critic, generator) if order == "generator last" else (generator, critic):
                turn()

    assert found(script) == {}


def test_only_the_one_that_is_not_cleared() -> None:
    def script() -> None:
        a, b = mlp(0), mlp(1)
        oa, ob = torch.optim.SGD(a.parameters(), lr=0.01), torch.optim.SGD(b.parameters(), lr=0.01)
        for step in range(STEPS):
            x, y = batch(seed=step)
            oa.zero_grad()
            (F.cross_entropy(a(x), y) + F.cross_entropy(b(x), y)).backward()
            oa.step()
            ob.step()

    with watched() as seen:
        script()
    assert seen.values(signals.CARRIED, 0).max() == 0
    assert seen.values(signals.CARRIED, 1).min() == 1
    assert [h.id for h in hypotheses(seen)] == ["missing-zero-grad"]


@pytest.mark.parametrize("clear", [True, False])
def test_a_closure(clear: bool) -> None:
    def script() -> None:
        model = mlp()
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
        x, y = batch(64)

        def closure() -> torch.Tensor:
            if clear:
                optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss

        for _ in range(40):
            optimizer.step(closure)

    assert ("missing-zero-grad" in found(script)) is not clear


@pytest.mark.parametrize("clear", [True, False])
def test_steps_by_hand(clear: bool) -> None:
    def script() -> None:
        w = torch.zeros(3, requires_grad=True)
        for step in range(STEPS):
            x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
            ((x @ w - x.sum(1)) ** 2).mean().backward()
            assert w.grad is not None
            w.data -= 1e-3 * w.grad
            if clear:
                w.grad.zero_()

    assert list(found(script)) == ([] if clear else ["missing-zero-grad"])


@pytest.mark.parametrize("in_place", [True, False])
def test_cleared_between_backward_and_step(in_place: bool) -> None:
    def script() -> None:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(STEPS):
            x, y = batch(seed=step)
            F.cross_entropy(model(x), y).backward()
            optimizer.zero_grad(set_to_none=not in_place)
            optimizer.step()

    finding = found(script)["no-parameter-change"]
    assert "before the step" in finding.says
    assert finding.place is not None


def test_an_optimizer_that_clears_its_gradients_itself() -> None:
    class Tidy(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            super().step()
            self.zero_grad()

    def script() -> None:
        model = mlp()
        optimizer = Tidy(model.parameters(), lr=0.1)
        for step in range(STEPS):
            x, y = batch(seed=step)
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    assert found(script) == {}


def test_a_rate_of_zero() -> None:
    def script() -> None:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, step // 1000))
        for step in range(STEPS):
            x, y = batch(seed=step)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()

    finding = found(script)["no-parameter-change"]
    assert "rate was 0" in finding.says
    assert finding.place is not None
    assert "LambdaLR" in finding.place.text


def test_a_warm_up_from_zero() -> None:
    def script() -> None:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 40))
        for step in range(STEPS):
            x, y = batch(seed=step)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()

    assert found(script) == {}


def test_steps_that_are_never_made() -> None:
    def script() -> None:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(STEPS):
            x, y = batch(seed=step)
            (F.cross_entropy(model(x), y) / 1000).backward()
            if (step + 1) % 1000 == 0:
                optimizer.step()
                optimizer.zero_grad()

    finding = found(script)["no-parameter-change"]
    assert "never made a step" in finding.says
    assert finding.evidence["backward_passes"] == STEPS


@pytest.mark.parametrize("from_step", [STEPS // 2, 10**6])
def test_the_step_of_one_of_two_optimizers_is_forgotten(from_step: int) -> None:
    def script() -> None:
        model = mlp()
        first = torch.optim.SGD(model[0].parameters(), lr=0.1)
        second = torch.optim.SGD(model[2].parameters(), lr=0.1)
        for step in range(STEPS):
            x, y = batch(seed=step)
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()
            second.step()
            if step >= from_step:
                first.step()

    result = found(script)
    if from_step < STEPS:
        assert result == {}
    else:
        finding = result["no-parameter-change"]
        assert finding.place is not None
        assert finding.place.text.startswith("first = ")
