"""Losses evaluated without gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from watching import Watched, batch, mlp, train, watched

from gradwise.probes.losses import LOSS_FUNCTIONS
from gradwise.recording import signals


def sources(seen: Watched) -> dict[str, int]:
    """The series of validation losses, by the text of the line that asked for the evaluation."""
    places = seen.recording.happened("validation-place")
    return {e.data["callers"][0]["text"] if e.data["callers"] else e.data["text"]: e.source for e in places}


def evaluate(model: nn.Module, parts: list[int], **settings: str) -> float:
    """As scripts do it: the mean over all rows of batches that are not all of one size."""
    criterion = nn.CrossEntropyLoss(**settings)
    total = rows = 0.0
    with torch.no_grad():
        for seed, size in enumerate(parts):
            x, y = batch(size, seed=100 + seed)
            loss = criterion(model(x), y).mean().item()
            total += loss if settings.get("reduction") == "sum" else loss * size
            rows += size
    return total / rows


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_passes_at_their_steps(reduction: str) -> None:
    expected, at = [], []
    with watched() as seen:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        expected.append(evaluate(model, [16, 16, 5], reduction=reduction))
        at.append(0)
        for _ in range(3):
            train(model, optimizer, 7)
            expected.append(evaluate(model, [16, 16, 5], reduction=reduction))
            at.append(at[-1] + 7)
    values = [seen.recording.get(signals.VALIDATION, s) for s in seen.recording.sources(signals.VALIDATION)]
    assert [s.steps.tolist() for s in values] == [[0], [7, 14, 21]]
    assert [v for s in values for v in s.values] == pytest.approx(expected)


def test_call_sites_are_apart() -> None:
    with watched() as seen:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        training, held_out = [], []
        for _ in range(4):
            train(model, optimizer, 5)
            training.append(evaluate(model, [32]))
            held_out.append(evaluate(model, [8, 8, 8]))
    found = sources(seen)
    assert seen.values(signals.VALIDATION, found["training.append(evaluate(model, [32]))"]).tolist() == pytest.approx(
        training
    )
    assert seen.values(
        signals.VALIDATION, found["held_out.append(evaluate(model, [8, 8, 8]))"]
    ).tolist() == pytest.approx(held_out)
    assert len(found) == 2
    place = seen.recording.happened("validation-place")[0].data
    assert place["function"] == "evaluate"
    assert place["text"] == "loss = criterion(model(x), y).mean().item()"
    assert place["file"].endswith("test_validation_losses.py")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("functional", [True, False])
def test_ways_to_go_without_gradient(mode: type, functional: bool) -> None:
    with watched() as seen:
        model = nn.Linear(6, 1)
        x, _ = batch()
        for _ in range(2):
            with mode():
                loss = F.mse_loss(input=model(x), target=x[:, :1]) if functional else nn.MSELoss()(model(x), x[:, :1])
    (source,) = seen.recording.sources(signals.VALIDATION)
    assert seen.values(signals.VALIDATION, source).tolist() == [pytest.approx(loss.item())]


def test_what_has_a_gradient_is_no_validation() -> None:
    """A metric of the training batch, from outputs computed with gradient."""
    with watched() as seen:
        model = nn.Linear(6, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for step in range(3):
            x, _ = batch(seed=step)
            out = model(x)
            loss = F.mse_loss(out, x[:, :1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                F.l1_loss(out, x[:, :1])
    assert seen.recording.sources(signals.VALIDATION) == []


def test_losses_of_no_rows_and_of_one_number() -> None:
    with watched() as seen, torch.no_grad():
        F.mse_loss(torch.empty(0, 2), torch.empty(0, 2))
        for _ in range(2):
            F.mse_loss(torch.tensor(3.0), torch.tensor(1.0))
    (source,) = seen.recording.sources(signals.VALIDATION)
    assert seen.values(signals.VALIDATION, source).tolist() == [4.0]


def test_more_call_sites_than_anyone_reads_are_left_out() -> None:
    x = torch.ones(2)
    with watched() as seen, torch.no_grad():
        for i in range(80):
            exec(compile("\n" * i + "F.mse_loss(x, x)", f"script{i}.py", "exec"), {"F": F, "x": x})
    assert len(seen.recording.sources(signals.VALIDATION)) == 64


def test_the_functions_are_there() -> None:
    """Torch may rename one of them some day; then it must be found under its new name."""
    younger = {"linear_cross_entropy"}  # than the oldest torch there may be
    assert {name for name in LOSS_FUNCTIONS if not hasattr(F, name)} <= younger


def test_every_loss_module_of_torch_is_covered() -> None:
    names = {
        name for name in dir(nn) if name.endswith("Loss") and name not in ("AdaptiveLogSoftmaxWithLoss", "NLLLoss2d")
    }
    covered = set()
    for module in names:
        source = getattr(nn, module).forward.__code__.co_names
        covered |= {module} if set(source) & set(LOSS_FUNCTIONS) else set()
    assert covered == names
