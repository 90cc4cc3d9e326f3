"""Schedules on torch's optimizers: what is set at which step, resuming, groups, and what frameworks ask for."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
from torch.optim import lr_scheduler as torch_lr

from gradwise.schedules import (
    Plateau,
    ScheduledLR,
    attach,
    constant,
    cosine,
    function,
    one_cycle,
    one_cycle_momentum,
    polynomial,
    reduce_on_plateau,
    sgdr,
    step,
    warmup,
)

RATE = warmup(5) >> sgdr(7, 2, end=0.1, decay=0.9)


def parameters(groups: int = 1) -> list[dict]:
    return [{"params": [torch.nn.Parameter(torch.ones(3))]} for _ in range(groups)]


def sgd(lr: float = 0.1, groups: int = 1, **settings) -> torch.optim.SGD:
    return torch.optim.SGD(parameters(groups), lr=lr, **settings)


def walk(optimizer, scheduler, n: int, metrics=()) -> list[float]:
    """The rates used in n steps."""
    used = []
    for k in range(n):
        used.append(optimizer.param_groups[0]["lr"])
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = p.detach().clone()
        optimizer.step()
        scheduler.step()
        if k < len(metrics):
            scheduler.step(metrics[k])
    return used


def through_a_file(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_each_step_has_its_rate() -> None:
    optimizer = sgd()
    scheduler = attach(optimizer, RATE)
    assert walk(optimizer, scheduler, 60) == [0.1 * RATE(t) for t in range(60)]
    assert scheduler.get_last_lr() == [0.1 * RATE(60)]
    assert scheduler.get_last_lr() == scheduler.get_lr()


OPTIMIZERS = [
    name for name in torch.optim.__all__ if isinstance(getattr(torch.optim, name), type) and name != "Optimizer"
]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_of_torch(name: str) -> None:
    weight = torch.nn.Parameter(torch.ones(3, 2), requires_grad=name != "SparseAdam")
    optimizer = getattr(torch.optim, name)([weight])
    own = optimizer.param_groups[0]["lr"]
    scheduler = attach(optimizer, step(1, 0.5))
    scheduler.load_state_dict({"last_epoch": 3})
    assert optimizer.param_groups[0]["lr"] == own / 8


def test_it_is_one_of_torchs_own() -> None:
    optimizer = sgd()
    scheduler = attach(optimizer, RATE)
    # What Lightning, Transformers and Accelerate go by.
    assert isinstance(scheduler, torch_lr.LRScheduler)
    assert not isinstance(scheduler, torch_lr.ReduceLROnPlateau)
    assert scheduler.optimizer is optimizer
    assert scheduler.base_lrs == [0.1]
    assert scheduler.last_epoch == 0
    assert isinstance(attach(sgd(), reduce_on_plateau()), torch_lr.ReduceLROnPlateau)


def test_torch_still_warns_of_the_wrong_order() -> None:
    scheduler = attach(sgd(), RATE)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        scheduler.step()


@pytest.mark.parametrize("loaded_first", [True, False])
@pytest.mark.parametrize("cut", [1, 4, 5, 12, 13, 40])
def test_a_resumed_run_has_bitwise_the_same_rates(cut: int, loaded_first: bool) -> None:
    whole = sgd(momentum=0.9, weight_decay=0.01)
    settings = {"momentum": one_cycle_momentum(60), "weight_decay": polynomial(60)}
    expected = walk(whole, attach(whole, RATE, **settings), 60)

    first = sgd(momentum=0.9, weight_decay=0.01)
    scheduler = attach(first, RATE, **settings)
    used = walk(first, scheduler, cut)
    saved, state = through_a_file(first.state_dict()), through_a_file(scheduler.state_dict())
    assert state == {"last_epoch": cut}

    second = sgd(momentum=0.9, weight_decay=0.01)
    if loaded_first:
        second.load_state_dict(saved)
        scheduler = attach(second, RATE, **settings)
    else:
        scheduler = attach(second, RATE, **settings)
        second.load_state_dict(saved)
    scheduler.load_state_dict(state)
    assert used + walk(second, scheduler, 60 - cut) == expected
    for ours, theirs in zip(second.param_groups, whole.param_groups, strict=True):
        assert {k: v for k, v in ours.items() if k != "params"} == {k: v for k, v in theirs.items() if k != "params"}


def test_the_number_of_steps_is_enough() -> None:
    optimizer = sgd()
    scheduler = attach(optimizer, RATE, step=31)
    assert walk(optimizer, scheduler, 5) == [0.1 * RATE(t) for t in range(31, 36)]


def test_the_state_of_one_of_torchs_will_do() -> None:
    theirs = torch_lr.CosineAnnealingLR(sgd(), 100)
    theirs.last_epoch = 42
    optimizer = sgd()
    attach(optimizer, cosine(100)).load_state_dict(theirs.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.1 * cosine(100)(42)


def test_groups_keep_their_own_rates_or_have_their_own_schedules() -> None:
    groups = [{**g, "lr": lr} for g, lr in zip(parameters(2), (0.1, 0.01), strict=True)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    attach(optimizer, cosine(10), step=5)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.05, 0.005])
    attach(optimizer, [cosine(10), constant()], step=5)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.05, 0.01])


def test_a_group_that_comes_later_is_scheduled_too() -> None:
    optimizer = sgd()
    scheduler = attach(optimizer, cosine(10))
    walk(optimizer, scheduler, 4)
    optimizer.add_param_group({**parameters()[0], "lr": 1.0})
    walk(optimizer, scheduler, 1)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.05, 0.5])


def test_momentum_and_weight_decay_follow_schedules() -> None:
    optimizer = sgd(momentum=0.95, weight_decay=0.02)
    scheduler = attach(optimizer, one_cycle(100), momentum=one_cycle_momentum(100), weight_decay=polynomial(100))
    walk(optimizer, scheduler, 29)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["momentum"]) == pytest.approx((0.1, 0.85))
    assert group["weight_decay"] == pytest.approx(0.02 * 0.71)


def test_betas_follow_schedules() -> None:
    optimizer = torch.optim.AdamW(parameters(), lr=1e-3, betas=(0.8, 0.99))
    attach(optimizer, momentum=step(1, 0.5), beta2=step(1, 0.1), step=2)
    assert optimizer.param_groups[0]["betas"] == pytest.approx((0.2, 0.0099))
    assert optimizer.param_groups[0]["lr"] == 1e-3
    attach(optimizer, momentum=0.95 * step(1, 0.5), absolute="momentum", step=0)
    assert optimizer.param_groups[0]["betas"] == pytest.approx((0.95, 0.0099))


def test_rates_that_are_not_scheduled_are_left_to_others() -> None:
    optimizer = sgd(lr=1.0, weight_decay=0.1)
    theirs = torch_lr.StepLR(optimizer, 1, 0.5)
    ours = attach(optimizer, weight_decay=polynomial(4), step=1)
    optimizer.step()
    theirs.step()
    ours.step()
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (0.5, 0.05)
    assert ours.get_last_lr() == [0.5]


def test_a_rate_can_be_meant_as_it_is() -> None:
    optimizer = sgd(lr=0.5)
    attach(optimizer, 3e-4 * cosine(10), absolute=["lr"], step=5)
    assert optimizer.param_groups[0]["lr"] == 3e-4 * 0.5


def test_a_rate_that_is_a_tensor_stays_that_tensor() -> None:
    rate = torch.tensor(0.5, dtype=torch.float64)
    optimizer = torch.optim.Adam(parameters(), lr=rate, capturable=False)
    scheduler = attach(optimizer, cosine(10))
    walk(optimizer, scheduler, 5)
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.25)
    scheduler.load_state_dict({"last_epoch": 0})
    assert rate.item() == 0.5


def test_a_plateau_is_told_its_metric_and_resumes() -> None:
    rule = warmup(4) * reduce_on_plateau(0.5, patience=2)
    losses = [1.0, 0.8, 0.9, 0.9, 0.9, 0.9, 0.7, 0.9, 0.9]
    whole = sgd()
    expected = walk(whole, attach(whole, rule), 12, losses)
    assert expected[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.05])

    first = sgd()
    scheduler = attach(first, rule)
    used = walk(first, scheduler, 3, losses)
    state = through_a_file(scheduler.state_dict())
    assert state == {"last_epoch": 3, "plateaus": [{"cuts": 0, "best": 0.8, "wait": 1, "cooldown": 0}]}
    second = sgd()
    scheduler = attach(second, rule)
    scheduler.load_state_dict(state)
    assert used + walk(second, scheduler, 9, losses[3:]) == expected


def test_a_plateau_takes_tensors_and_other_settings_too() -> None:
    optimizer = sgd(momentum=0.9, weight_decay=0.1)
    scheduler = attach(optimizer, weight_decay=reduce_on_plateau(patience=1))
    for _ in range(2):
        scheduler.step(torch.tensor(1.0))
    assert optimizer.param_groups[0]["weight_decay"] == pytest.approx(0.01)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_it_fits_into_torchs_sequences() -> None:
    optimizer = sgd(lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        both = torch_lr.SequentialLR(optimizer, [attach(optimizer, warmup(3)), attach(optimizer, cosine(4))], [5])
        assert walk(optimizer, both, 9) == [(warmup(3).until(5) >> cosine(4))(t) for t in range(9)]


def test_functions_can_be_attached() -> None:
    optimizer = sgd(lr=1.0)
    scheduler = attach(optimizer, function(lambda t: 1 / (1 + t)))
    assert walk(optimizer, scheduler, 3) == [1, 1 / 2, 1 / 3]


def test_what_makes_no_sense_is_said() -> None:
    with pytest.raises(TypeError, match=r"a torch.optim.Optimizer is needed, got int"):
        attach(3, cosine(3))
    with pytest.raises(TypeError, match=r"lr must be a schedule \(of a number: constant\(0.5\)\), got 0.5"):
        attach(sgd(), 0.5)
    with pytest.raises(ValueError, match="lr has 1 schedules for 2 groups"):
        attach(sgd(groups=2), [cosine(3)])
    with pytest.raises(ValueError, match="group 0 of Rprop has no weight_decay"):
        attach(torch.optim.Rprop(parameters()), weight_decay=cosine(3))
    with pytest.raises(ValueError, match="group 0 of SGD has no beta2"):
        attach(sgd(), beta2=cosine(3))
    with pytest.raises(ValueError, match=r"absolute is \['momentum'\], but scheduled are \['lr'\]"):
        attach(sgd(), cosine(3), absolute=["momentum"])
    with pytest.raises(ValueError, match="step must be at least 0"):
        attach(sgd(), cosine(3), step=-1)
    with pytest.raises(TypeError, match="the state's last_epoch must be an integer, got None"):
        attach(sgd(), cosine(3)).load_state_dict({})
    with pytest.raises(ValueError, match="the state of 1 plateaus is needed"):
        attach(sgd(), reduce_on_plateau()).load_state_dict({"last_epoch": 3})
    optimizer = sgd()
    scheduler = attach(optimizer, [cosine(3)])
    optimizer.add_param_group(parameters()[0])
    with pytest.raises(ValueError, match="group 1 came later and has no schedule"):
        walk(optimizer, scheduler, 1)


def test_one_schedule_for_many_groups_is_evaluated_once_a_step() -> None:
    asked: list[int] = []
    optimizer = sgd(lr=1.0, groups=50)
    scheduler = attach(optimizer, function(lambda t: asked.append(t) or 1.0))
    walk(optimizer, scheduler, 3)
    assert asked == [0, 1, 2, 3]


def test_kinds_are_named() -> None:
    assert type(attach(sgd(), cosine(3))) is ScheduledLR
    assert isinstance(reduce_on_plateau(), Plateau)
