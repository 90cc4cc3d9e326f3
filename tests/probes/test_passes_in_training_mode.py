"""Accuracy counted without eval(): seen by dropout's and batch normalization's own functions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from watching import batch, watched
from wired import found

EPOCHS, STEPS, BATCHES = 6, 12, 4
LAYERS = {"dropout": lambda: nn.Dropout(0.3), "batch norm": lambda: nn.BatchNorm1d(8)}


def net(layer: str) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), LAYERS[layer](), nn.ReLU(), nn.Linear(8, 3))


def held_out() -> list[tuple[Tensor, Tensor]]:
    return [batch(seed=100 + i) for i in range(BATCHES)]


def hits(model: nn.Module) -> int:
    with torch.no_grad():
        return sum(int((model(x).argmax(1) == y).sum()) for x, y in held_out())


def training(
    model: nn.Module, evaluate: Callable[[nn.Module], object], each_step: Callable[[nn.Module], object] = lambda _: None
) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(EPOCHS):
        for step in range(STEPS):
            x, y = batch(seed=step)
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            each_step(model)
        evaluate(model)


@pytest.mark.parametrize("layer", LAYERS)
def test_hits_counted_in_training_mode(layer: str) -> None:
    result = found(lambda: training(net(layer), hits))
    assert list(result) == ["train-mode-in-eval"]
    finding = result["train-mode-in-eval"]
    assert finding.evidence["passes"] == EPOCHS
    assert finding.place is not None
    assert "model(x).argmax(1)" in finding.place.text


def test_dropout_called_as_a_function_and_one_large_batch() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.b(functional.dropout(self.a(x), 0.3, self.training))
            return out

    def evaluate(model: nn.Module) -> None:
        with torch.inference_mode():
            model(torch.randn(100, 6))

    assert list(found(lambda: training(Net(), evaluate))) == ["train-mode-in-eval"]


def in_evaluation_mode(model: nn.Module) -> None:
    model.eval()
    hits(model)
    model.train()


def without_a_call_of_eval(model: nn.Module) -> None:
    model.train(False)
    hits(model)
    model.train()


def sampled(model: nn.Module) -> None:
    x, _ = batch(seed=50)
    with torch.no_grad():
        torch.stack([model(x) for _ in range(10)]).mean(0)


def of_what_was_trained_on(model: nn.Module) -> None:
    x, y = batch(seed=STEPS - 1)
    with torch.no_grad():
        (model(x).argmax(1) == y).float().mean()


RIGHT = {
    "in evaluation mode": in_evaluation_mode,
    "by train(False)": without_a_call_of_eval,
    "dropout sampled on purpose": sampled,
    "the batch that was trained on": of_what_was_trained_on,
}


@pytest.mark.parametrize("how", RIGHT)
def test_what_is_as_it_should_be_or_may_be_meant(how: str) -> None:
    assert found(lambda: training(net("dropout"), RIGHT[how])) == {}


def test_passes_between_all_steps_belong_to_training() -> None:
    teacher = net("dropout")

    def ask(_: nn.Module) -> None:
        with torch.no_grad():
            teacher(batch(seed=1)[0])
            teacher(batch(seed=2)[0])

    assert found(lambda: training(net("batch norm"), lambda _: None, ask)) == {}


def test_once_at_the_end_is_no_habit() -> None:
    def script() -> None:
        model = net("dropout")
        training(model, lambda _: None)
        hits(model)

    assert found(script) == {}


def test_random_numbers_are_untouched() -> None:
    def end() -> list[float]:
        model = net("dropout")
        training(model, hits)
        return [p.sum().item() for p in model.parameters()]

    plain = end()
    with watched():
        assert end() == plain


class Scored(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.drop = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out = functional.dropout(self.drop(self.norm(self.a(x))), 0.1, self.training)
        return functional.mse_loss(out, y)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_compiles_the_originals() -> None:
    with watched():
        scripted = torch.jit.script(Scored())
        loss = scripted(torch.randn(5, 6), torch.randn(5, 8))
        loss.backward()
    assert torch.isfinite(loss)
