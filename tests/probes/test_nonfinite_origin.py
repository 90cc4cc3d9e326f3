"""Where the first loss that isn't finite came from."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from watching import batch, mlp, watched


def first(train: Any) -> dict[str, Any]:
    with watched() as seen:
        train()
    events = seen.recording.happened("non-finite")
    assert len(events) <= 1
    if not events:
        return {}
    return {"step": events[0].step, "source": events[0].source, **events[0].data}


def run(
    steps: int = 6,
    lr: float = 0.1,
    change_x: Any = lambda x, step: x,
    change_y: Any = lambda y, step: y,
    criterion: Any = lambda out, y: F.mse_loss(out, y),
    model: nn.Module | None = None,
) -> None:
    model = mlp(classes=1) if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for step in range(steps):
        x, _ = batch(seed=step)
        y = change_y(x.sum(1, keepdim=True), step)
        out = model(change_x(x, step))
        loss = criterion(out, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def spoil(at: int, value: float = float("nan")) -> Any:
    return lambda tensor, step: (
        torch.where(torch.arange(len(tensor))[:, None] == 3, value, tensor) if step == at else tensor
    )


def test_a_run_without_any() -> None:
    assert first(run) == {}


def test_broken_targets() -> None:
    found = first(lambda: run(change_y=spoil(2)))
    assert (found["step"], found["stage"], found["value"]) == (2, "target", "nan")
    assert found["loss_function"] == "mse_loss"
    assert found["place"]["text"] == "loss.backward()"


def test_broken_inputs_break_the_output_while_the_parameters_are_fine() -> None:
    found = first(lambda: run(change_x=spoil(3)))
    assert (found["step"], found["stage"], found["bad_parameters"]) == (3, "output", 0)


def test_a_logarithm_of_zero_in_the_loss() -> None:
    """The one function given finite numbers that returns none."""

    def nll(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.poisson_nll_loss(out * 0, y.abs() + 1, log_input=False, eps=0.0)

    found = first(lambda: run(criterion=nll))
    assert (found["step"], found["stage"], found["value"]) == (0, "forward", "inf")
    assert found["loss_function"] == "poisson_nll_loss"

    def nll_kept(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        keep.append(out * 0)
        return F.poisson_nll_loss(keep[-1], y.abs() + 1, log_input=False, eps=0.0)

    keep: list[torch.Tensor] = []
    found = first(lambda: run(criterion=nll_kept))
    # With the arguments still there it can be told.
    assert found["stage"] == "loss" or found["stage"] == "target"


def test_a_root_at_zero_gives_a_gradient_that_breaks_the_parameters() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 4), nn.Linear(1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            distance = (self.a(x) - self.a(x)).pow(2).sum(1, keepdim=True).sqrt()
            return self.b(distance)

    found = first(lambda: run(model=Root()))
    assert (found["step"], found["stage"]) == (1, "parameters")
    assert set(found["parameters"]) == {"a.weight", "a.bias"}
    assert set(found["gradients"]) == {"a.weight", "a.bias"}  # step 0 was looked at


def test_a_rate_that_lets_everything_overflow() -> None:
    found = first(lambda: run(lr=1e20, steps=12, model=nn.Linear(6, 1)))
    assert found["stage"] in ("parameters", "output", "loss")
    assert found["value"] in ("nan", "inf")
    assert found["step"] >= 1


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_losses_without_a_loss_function(value: str) -> None:
    def train() -> None:
        p = nn.Parameter(torch.ones(2))
        optimizer = torch.optim.SGD([p], lr=0.1)
        for step in range(4):
            loss = p.sum() + (float(value) if step == 1 else 0.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    found = first(train)
    assert (found["step"], found["stage"], found["value"]) == (1, "forward", value)


def test_only_the_first_is_told_and_losses_are_all_recorded() -> None:
    with watched() as seen:
        p = nn.Parameter(torch.ones(2))
        optimizer = torch.optim.SGD([p], lr=0.1)
        for step in range(6):
            optimizer.zero_grad()
            # A constant has no part in the gradient.
            (p.sum() + (float("nan") if step in (2, 4) else 0.0)).backward()
            optimizer.step()
    assert len(seen.recording.happened("non-finite")) == 1
    assert [math.isnan(loss) for loss in seen.losses()] == [False, False, True, False, True, False]


def test_by_hand() -> None:
    def train() -> None:
        w = torch.ones(3, requires_grad=True)
        for _ in range(4):
            w.pow(3).sum().backward()
            w.data -= 1e20 * w.grad
            w.grad = None

    found = first(train)
    assert (found["step"], found["stage"], found["value"]) == (1, "forward", "-inf")
    assert found["place"]["text"] == "w.pow(3).sum().backward()"


def test_the_optimizer_it_belongs_to() -> None:
    def train() -> None:
        models = [nn.Linear(6, 1), nn.Linear(6, 1)]
        optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in models]
        for step in range(5):
            for which in (0, 1):
                x, _ = batch(seed=step)
                optimizers[which].zero_grad()
                loss = F.mse_loss(models[which](x), x[:, :1])
                (loss * float("inf") if (which, step) == (1, 3) else loss).backward()
                optimizers[which].step()

    found = first(train)
    assert (found["step"], found["source"]) == (3, 1)
