"""Losses written out by hand, recognized from their graphs: the target comes out as it went in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from watching import mlp, watched

from gradwise.probes.written import Written, written
from gradwise.recording import signals

N = 12


def regressor(*shape: Callable[[Tensor], Tensor]) -> Tensor:
    torch.manual_seed(0)
    out: Tensor = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))(torch.randn(N, 5))
    for change in shape:
        out = change(out)
    return out


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def seen(loss: Tensor) -> Written | None:
    with torch.no_grad():
        return written(torch, loss)


SQUARES = {
    "difference": lambda p, y: ((p - y) ** 2).mean(),
    "the other way": lambda p, y: (y - p).square().mean(),
    "sum over n": lambda p, y: ((p - y) ** 2).sum() / N,
    "product": lambda p, y: torch.mean((e := p - y) * e),
    "pow": lambda p, y: (p - y).pow(2).mean(),
    "by torch.sub": lambda p, y: torch.sub(p, y).pow(2).mean(),
}
OUTPUTS = {
    "column": (lambda p: p, (N, 1)),
    "squeezed": (lambda p: p.squeeze(1), (N,)),
    "picked": (lambda p: p[:, 0], (N,)),
    "viewed": (lambda p: p.view(-1), (N,)),
    "sigmoid": (lambda p: torch.sigmoid(p)[:, 0], (N,)),
    "relu": (lambda p: torch.relu(p), (N, 1)),
    "scaled": (lambda p: 1e-5 * p, (N, 1)),
}


@pytest.mark.parametrize("square", SQUARES)
@pytest.mark.parametrize("output", OUTPUTS)
def test_squared_errors(square: str, output: str) -> None:
    change, shape = OUTPUTS[output]
    given, target = regressor(change), numbers(*shape)
    found = seen(SQUARES[square](given, target))
    assert found is not None
    assert found.name == "mse_loss"
    assert found.alone
    torch.testing.assert_close(found.target, target)
    torch.testing.assert_close(found.given, given.detach())
    torch.testing.assert_close(found.value(), functional.mse_loss(given.detach(), target))


def test_absolute_errors() -> None:
    given, target = regressor(), numbers(N, 1)
    found = seen((given - target).abs().mean())
    assert found is not None
    assert found.name == "l1_loss"
    torch.testing.assert_close(found.target, target)


CLASSES = {
    "range": lambda z, y: -z.log_softmax(1)[range(N), y].mean(),
    "arange": lambda z, y: -torch.log_softmax(z, -1)[torch.arange(N), y].sum() / N,
    "gather": lambda z, y: -z.log_softmax(1).gather(1, y[:, None]).mean(),
    "log of softmax": lambda z, y: -torch.log(torch.softmax(z, 1))[torch.arange(N), y].mean(),
    "logsumexp": lambda z, y: (torch.logsumexp(z, 1) - z[torch.arange(N), y]).mean(),
}


@pytest.mark.parametrize("form", CLASSES)
def test_classes_that_are_picked(form: str) -> None:
    torch.manual_seed(0)
    z, y = nn.Linear(5, 4)(torch.randn(N, 5)), torch.randint(0, 4, (N,))
    found = seen(CLASSES[form](z, y))
    assert found is not None
    assert found.name == "nll_loss"
    assert found.alone
    assert found.target.tolist() == y.tolist()
    torch.testing.assert_close(found.given, z.detach().log_softmax(1))
    torch.testing.assert_close(found.value(), functional.cross_entropy(z.detach(), y))


def test_shares_of_classes() -> None:
    z = nn.Linear(5, 4)(numbers(N, 5))
    y = numbers(N, 4).softmax(1)
    found = seen(-(y * z.log_softmax(1)).sum(1).mean())
    assert found is not None
    assert found.name == "cross_entropy"
    torch.testing.assert_close(found.target, y)
    torch.testing.assert_close(found.value(), functional.cross_entropy(z.detach(), y))


@pytest.mark.parametrize("guard", [0.0, 1e-7])
def test_binary_cross_entropy(guard: float) -> None:
    p, t = torch.sigmoid(regressor()).squeeze(1), (numbers(N) > 0).float()
    for loss in (
        -(t * torch.log(p + guard) + (1 - t) * torch.log(1 - p + guard)).mean(),
        -((1 - t) * torch.log(1 - p + guard) + t * torch.log(p + guard)).mean(),
    ):
        found = seen(loss)
        assert found is not None
        assert found.name == "binary_cross_entropy"
        assert found.target.tolist() == t.tolist()
        torch.testing.assert_close(found.value(), functional.binary_cross_entropy(p.detach(), t))


NOT_A_LOSS_OF_TARGETS = {
    "a penalty": lambda p, y: sum((w**2).sum() for w in [nn.Linear(2, 2).weight]),
    "two outputs": lambda p, y: ((p[1:] - p[:-1]) ** 2).mean(),
    "rows weighted": lambda p, y: (y.abs() * (p - y) ** 2).mean(),
    "a policy": lambda p, y: -(torch.cat([p, -p], 1).log_softmax(1)[range(N), (y[:, 0] > 0).long()] * y[:, 0]).mean(),
    "broadcast": lambda p, y: ((p - y[:, 0]) ** 2).mean(),
    "no loss at all": lambda p, y: p.mean(),
}


@pytest.mark.parametrize("form", NOT_A_LOSS_OF_TARGETS)
def test_what_is_something_else_is_let_be(form: str) -> None:
    assert seen(NOT_A_LOSS_OF_TARGETS[form](regressor(), numbers(N, 1))) is None


def test_parts_of_a_sum_are_not_all_of_it() -> None:
    given, target = regressor(), numbers(N, 1)
    found = seen(((given - target) ** 2).mean() + 0.1 * (given**2).mean())
    assert found is not None
    assert not found.alone
    torch.testing.assert_close(found.target, target)


def train(loss: Callable[[Tensor, Tensor], Tensor], steps: int = 6) -> list[Tensor]:
    model, given = mlp(), []
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for i in range(steps):
        generator = torch.Generator().manual_seed(i)
        x = torch.randn(20, 6, generator=generator)
        y = torch.randint(0, 3, (20,), generator=generator)
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
        given.append(torch.bincount(y, minlength=3))
    return given


def test_targets_of_steps_are_noted_as_those_of_torchs_functions() -> None:
    with watched() as by_hand:
        given = train(lambda z, y: -z.log_softmax(1)[torch.arange(len(y)), y].mean())
    with watched() as by_function:
        train(functional.cross_entropy)
    for run in (by_hand, by_function):
        assert run.values(signals.CLASSES).tolist() == [counts.tolist() for counts in given]
    (told,) = by_hand.recording.happened("targets")
    assert told.data["by_hand"]
    assert told.data["plain"]
    assert told.data["scale"] == 1
    (first, *_), (same, *_) = by_hand.recording.happened("layers"), by_function.recording.happened("layers")
    assert first.data["loss"]["value"] == pytest.approx(same.data["loss"]["value"], rel=1e-5)
    assert first.data["loss"]["guess"] == same.data["loss"]["guess"]


def test_a_multiple_is_told_with_its_factor() -> None:
    with watched() as seen:
        train(lambda z, y: 3 * -z.log_softmax(1)[torch.arange(len(y)), y].mean())
    (told,) = seen.recording.happened("targets")
    assert told.data["scale"] == pytest.approx(3, rel=1e-4)


def test_training_is_untouched() -> None:
    def end(watch: bool) -> list[float]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        losses = []
        for _ in range(20):
            x = torch.randn(16, 4)
            loss = ((model(x)[:, 0] - x[:, 0].sin()) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    plain = end(False)
    with watched():
        assert end(True) == plain
