"""Dropout and batch normalization in training mode while training, in evaluation mode while evaluating."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from watching import batch, watched
from wired import found, hypotheses

from gradwise.diagnosis.hypotheses import REPORT

EPOCHS, BATCHES = 6, 12


def noisy(layer: Callable[[], nn.Module] = lambda: nn.Dropout(0.3)) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), layer(), nn.Linear(8, 3))


LAYERS = {"dropout": lambda: nn.Dropout(0.3), "batch norm": lambda: nn.BatchNorm1d(8)}


def training(
    model: nn.Module,
    before: Callable[[int], object] = lambda epoch: None,
    validate: Callable[[int], object] = lambda epoch: None,
    loss: bool = True,
) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(EPOCHS):
        before(epoch)
        for step in range(BATCHES):
            x, y = batch(seed=step)
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
        validate(epoch)
        if loss:
            with torch.no_grad():
                criterion(model(batch(seed=99)[0]), batch(seed=99)[1])


@pytest.mark.parametrize("layer", LAYERS)
def test_right_modes(layer: str) -> None:
    def script() -> None:
        model = noisy(LAYERS[layer])
        training(model, lambda _: model.train(), lambda _: model.eval())

    assert found(script) == {}


@pytest.mark.parametrize("layer", LAYERS)
def test_never_back_in_training_mode(layer: str) -> None:
    def script() -> None:
        model = noisy(LAYERS[layer])
        training(model, validate=lambda _: model.eval())

    result = found(script)
    assert list(result) == ["eval-mode-in-training"]
    finding = result["eval-mode-in-training"]
    assert finding.confidence > 0.9
    assert finding.place is not None
    assert "model.eval()" in finding.place.text
    assert finding.step > 0


def test_never_back_in_training_mode_is_seen_between_examinations() -> None:
    model = noisy()
    with watched() as seen:

        def validate(_: int) -> None:
            seen.watcher.examinations.due = 10**9
            model.eval()

        training(model, validate=validate)
    assert [h.id for h in hypotheses(seen)] == ["eval-mode-in-training"]


def test_evaluation_in_the_midst_of_an_epoch_on_purpose_or_not_is_not_certain() -> None:
    """The rest of the epoch is in evaluation mode, the next one begins in training mode again."""

    def script() -> None:
        model = noisy()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(12):
            model.train()
            for step in range(20):
                x, y = batch(seed=step)
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
                if step == 10:
                    model.eval()

    assert all(h.confidence < REPORT for h in found(script).values())


@pytest.mark.parametrize(("layer", "least"), [("batch norm", 0.85), ("dropout", REPORT)])
def test_a_new_model_in_evaluation_mode_from_the_start(layer: str, least: float) -> None:
    def script() -> None:
        model = noisy(LAYERS[layer])
        model.eval()
        training(model)

    result = found(script)
    assert list(result) == ["eval-mode-in-training"]
    assert result["eval-mode-in-training"].confidence >= least


@pytest.mark.parametrize("layer", LAYERS)
def test_a_loaded_model_in_evaluation_mode_is_a_suspicion(layer: str) -> None:
    def script() -> None:
        model = noisy(LAYERS[layer])
        model.load_state_dict(noisy(LAYERS[layer]).state_dict())
        model.eval()
        training(model)

    assert found(script)["eval-mode-in-training"].confidence < REPORT


def test_batch_norm_frozen_while_the_rest_trains() -> None:
    def script() -> None:
        model = nn.Sequential(noisy(LAYERS["batch norm"]), nn.Dropout(0.1))

        def before(_: int) -> None:
            model.train()
            for module in model.modules():
                if isinstance(module, nn.BatchNorm1d):
                    module.eval()

        training(model, before, lambda _: model.eval())

    assert found(script) == {}


def test_without_dropout_or_batch_norm_modes_mean_nothing() -> None:
    def script() -> None:
        model = noisy(lambda: nn.Dropout(0.0))
        training(model, validate=lambda _: model.eval())

    assert found(script) == {}


@pytest.mark.parametrize("layer", LAYERS)
def test_evaluated_in_training_mode(layer: str) -> None:
    result = found(lambda: training(noisy(LAYERS[layer])))
    assert list(result) == ["train-mode-in-eval"]
    finding = result["train-mode-in-eval"]
    assert finding.confidence > REPORT
    assert finding.place is not None
    assert finding.place.text == "criterion(model(batch(seed=99)[0]), batch(seed=99)[1])"
    assert ("learns from the validation data" in finding.says) is (layer == "batch norm")


def test_dropout_on_purpose_while_evaluating() -> None:
    def script() -> None:
        model = noisy()

        def sample(_: int) -> None:
            model.eval()
            model[1].train()

        training(model, lambda _: model.train(), sample)

    assert found(script) == {}


def test_the_training_batch_once_more() -> None:
    def script() -> None:
        model = noisy()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for step in range(60):
            x, y = batch(seed=step)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            with torch.no_grad():
                F.cross_entropy(model(x), y.clone())

    assert found(script) == {}


def test_another_model_evaluated() -> None:
    """A teacher in evaluation mode gives the loss; the student stays in training mode."""

    def script() -> None:
        student, teacher = noisy(), noisy()
        list(teacher.parameters())
        teacher.eval()

        def validate(_: int) -> None:
            with torch.no_grad():
                x, y = batch(seed=99)
                F.cross_entropy(teacher(x), y)

        training(student, validate=validate, loss=False)

    assert found(script) == {}


@pytest.mark.parametrize("after", ["an attack", "a head on top"])
def test_a_trained_model_that_only_hands_gradients_on(after: str) -> None:
    def script() -> None:
        model = noisy()
        training(model, lambda _: model.train(), lambda _: model.eval())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        head = nn.Linear(3, 3)
        if after == "a head on top":
            optimizer = torch.optim.SGD(head.parameters(), lr=0.01)
        for step in range(90):
            x, y = batch(seed=step)
            x.requires_grad_()
            loss = F.cross_entropy(head(model(x)), y)
            loss.backward()
            if after == "a head on top":
                optimizer.step()
                optimizer.zero_grad()

    assert found(script) == {}


def test_a_loss_without_gradient_at_every_step_is_a_suspicion() -> None:
    """Hard examples are chosen among many, by their loss."""

    def script() -> None:
        model = noisy()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for step in range(60):
            x, y = batch(64, seed=step)
            with torch.no_grad():
                hard = F.cross_entropy(model(x), y, reduction="none").topk(16).indices
            optimizer.zero_grad()
            F.cross_entropy(model(x[hard]), y[hard]).backward()
            optimizer.step()

    assert all(h.confidence < REPORT for h in found(script).values())
