"""Learning rates and momenta, as they were used."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from watching import batch, mlp, train, watched

from gradwise.recording import signals


def test_a_constant_rate_is_recorded_once() -> None:
    with watched() as seen:
        model = mlp()
        train(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5), 30)
    assert (seen.steps(signals.LR), seen.values(signals.LR).tolist()) == ([0], [0.1])
    assert (seen.steps(signals.MOMENTUM), seen.values(signals.MOMENTUM).tolist()) == ([0], [0.5])


def test_a_schedule_is_recorded_step_by_step() -> None:
    used = []
    with watched() as seen:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 25)
        optimizer.register_step_pre_hook(lambda o, *_: used.append(o.param_groups[0]["lr"]))
        train(model, optimizer, 25, scheduler.step)
    assert seen.steps(signals.LR) == list(range(25))
    assert seen.values(signals.LR).tolist() == used
    (info,) = seen.recording.optimizers
    assert info.scheduler is not None
    assert "CosineAnnealingLR(optimizer, 25)" in info.scheduler.text


def test_a_plateau_scheduler_and_a_rate_set_by_hand() -> None:
    with watched() as seen:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        train(model, optimizer, 2)
        plateau.step(1.0)
        plateau.step(2.0)
        train(model, optimizer, 2)
        optimizer.param_groups[0]["lr"] = 7e-3
        train(model, optimizer, 2)
    assert seen.steps(signals.LR) == [0, 2, 4]
    assert seen.values(signals.LR).tolist() == [0.1, 0.05, 7e-3]
    assert seen.recording.optimizers[0].scheduler is not None


def test_a_rate_changed_around_each_step_is_the_one_recorded() -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    def set_(factor: float) -> None:
        optimizer.param_groups[0]["lr"] *= factor

    with watched() as seen:
        handles = [
            register_optimizer_step_pre_hook(lambda *_: set_(0.5)),
            register_optimizer_step_post_hook(lambda *_: set_(2.0)),
        ]
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
        train(model, optimizer, 20)
        for handle in handles:
            handle.remove()
    assert seen.values(signals.LR).tolist() == [0.125]


def test_groups_each_have_theirs() -> None:
    with watched() as seen:
        model = mlp()
        optimizer = torch.optim.Adam(
            [{"params": model[0].parameters(), "betas": (0.8, 0.9)}, {"params": model[2].parameters(), "lr": 1e-2}]
        )
        train(model, optimizer, 3)
        optimizer.param_groups[1]["lr"] = 1e-4
        train(model, optimizer, 3)
    rates = seen.recording.get(signals.LR)
    assert rates.labels == ("0", "1")
    assert rates.steps.tolist() == [0, 3]
    assert rates.values.tolist() == [[1e-3, 1e-2], [1e-3, 1e-4]]
    assert seen.values(signals.MOMENTUM).tolist() == [[0.8, 0.9]]


def test_cycled_momentum() -> None:
    with watched() as seen:
        model = mlp()
        optimizer = torch.optim.Adam(model.parameters())
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=21)
        betas = []
        optimizer.register_step_pre_hook(lambda o, *_: betas.append(o.param_groups[0]["betas"][0]))
        train(model, optimizer, 20, scheduler.step)
    assert seen.values(signals.MOMENTUM).tolist() == pytest.approx(betas)
    assert len(set(betas)) > 10


def test_a_rate_in_a_tensor_that_is_changed_in_place() -> None:
    with watched() as seen:
        model = mlp()
        rate = torch.tensor(0.1)
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        train(model, optimizer, 3)
        rate.fill_(0.05)
        train(model, optimizer, 3)
    assert seen.steps(signals.LR) == [0, 3]
    assert seen.values(signals.LR).tolist() == pytest.approx([0.1, 0.05])


class Rateless(torch.optim.Optimizer):
    def __init__(self, params: object, **settings: object) -> None:
        super().__init__(params, settings)  # type: ignore[arg-type]

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.data -= 0.1 * p.grad


@pytest.mark.parametrize("settings", [{}, {"lr": None}, {"lr": "auto"}, {"lr": math.nan}, {"betas": ()}, {"betas": 3}])
def test_settings_that_are_no_rates(settings: dict[str, object]) -> None:
    with watched() as seen:
        model = mlp()
        expected = train(model, Rateless(model.parameters(), **settings), 12)
    assert seen.losses() == expected
    assert len(seen.values(signals.LR)) == 0


def test_what_the_optimizer_is() -> None:
    with watched() as seen:
        model = mlp()
        model[0].bias.requires_grad_(False)
        train(model, torch.optim.AdamW(model.parameters(), lr=torch.tensor(1e-3), weight_decay=0.1), 2)
    (info,) = seen.recording.optimizers
    assert (info.index, info.kind, info.defaults["weight_decay"]) == (0, "AdamW", 0.1)
    assert info.defaults["betas"] == [0.9, 0.999]
    assert info.defaults["lr"] == pytest.approx(1e-3)
    assert [(p.name, p.shape, p.group, p.trainable) for p in info.parameters] == [
        ("0.weight", (8, 6), 0, True),
        ("0.bias", (8,), 0, False),
        ("2.weight", (3, 8), 0, True),
        ("2.bias", (3,), 0, True),
    ]
    assert info.made is not None
    assert "torch.optim.AdamW(" in info.made.text
    assert info.stepped is not None
    assert (info.stepped.function, info.stepped.text) == ("train", "optimizer.step()")


def test_rows_of_a_batch_where_they_change() -> None:
    with watched() as seen:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(20):
            x, y = batch(16 if step < 10 else 4, seed=step)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert seen.values(signals.BATCH).tolist() == [16, 4]
