"""What is noted of the targets: classes, numbers, several calls of a step, and nothing where it would disturb."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from watching import batch, mlp, watched

from gradwise.diagnosis.targets import targets_of
from gradwise.recording import signals


def step(optimizer: torch.optim.Optimizer, *losses: torch.Tensor) -> None:
    optimizer.zero_grad()
    for loss in losses:
        loss.backward()
    optimizer.step()


def test_rows_per_class_at_each_step() -> None:
    with watched() as seen:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        given = []
        for i in range(5):
            x, y = batch(seed=i)
            step(optimizer, nn.CrossEntropyLoss()(model(x), y))
            given.append(torch.bincount(y, minlength=3).tolist())
    assert seen.values(signals.CLASSES).tolist() == given
    assert seen.steps(signals.CLASSES) == list(range(5))
    (told,) = seen.recording.happened("targets")
    assert (told.data["loss"], told.data["classes"], told.data["plain"]) == ("cross_entropy", 3, True)
    assert told.data["place"]["file"].endswith("test_targets_of_steps.py")


def test_mean_and_variance_of_numbers_over_the_calls_of_a_step() -> None:
    generator = torch.Generator().manual_seed(0)
    with watched() as seen:
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        all_targets = []
        for _ in range(3):
            parts = [5 + torch.randn(n, 1, generator=generator) for n in (4, 7)]
            step(optimizer, *[functional.mse_loss(model(torch.ones(len(y), 3)), y) for y in parts])
            all_targets.append(torch.cat(parts).numpy())
    noted = seen.values(signals.TARGET)
    expected = [[len(y), y.mean(), y.var()] for y in all_targets]
    np.testing.assert_allclose(noted, expected, rtol=1e-5)


def test_wide_targets_count_by_the_mean_of_a_row() -> None:
    y = torch.arange(24.0).reshape(4, 2, 3)
    with watched() as seen:
        model = nn.Linear(3, 3)
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)
        step(optimizer, functional.l1_loss(model(torch.ones(4, 2, 3)), y))
    rows = y.reshape(4, -1).mean(1).numpy()
    np.testing.assert_allclose(seen.values(signals.TARGET), [[4, rows.mean(), rows.var()]])


def test_many_classes_are_counted_in_bands_and_ignored_ones_not_at_all() -> None:
    y = torch.tensor([0, 1, 99, 98, 50, -100])
    with watched() as seen:
        model = nn.Linear(2, 100)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        step(optimizer, functional.cross_entropy(model(torch.ones(6, 2)), y))
    counts = seen.values(signals.CLASSES)[0]
    assert len(counts) == 16
    assert (counts[0], counts[8], counts[15], counts.sum()) == (2, 1, 2, 5)


def test_shares_of_classes_as_targets() -> None:
    y = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    with watched() as seen:
        model = nn.Linear(2, 3)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        step(optimizer, functional.cross_entropy(model(torch.ones(2, 2)), y))
    assert seen.values(signals.CLASSES).tolist() == [[1.5, 0.25, 0.25]]


@pytest.mark.parametrize("options", [{"weight": torch.ones(3)}, {"label_smoothing": 0.1}])
def test_what_is_weighted_or_smoothed_is_not_plain(options: dict[str, Any]) -> None:
    with watched() as seen:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        x, y = batch()
        step(optimizer, functional.cross_entropy(model(x), y, **options))
    assert [event.data["plain"] for event in seen.recording.happened("targets")] == [False]


def test_what_is_evaluated_or_depends_on_the_model_is_not_a_target() -> None:
    with watched() as seen:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        x, y = batch()
        with torch.no_grad():
            functional.cross_entropy(model(x), y)
        functional.cross_entropy(model(x).detach(), y)  # a metric
        out = model(x)
        step(optimizer, functional.mse_loss(out, model(x) * 2))
    assert not seen.recording.happened("targets")
    assert not len(seen.values(signals.CLASSES))


def test_targets_are_neither_changed_nor_kept() -> None:
    import gc
    import weakref

    with watched() as seen:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        x, y = batch()
        before, version, gone = y.clone(), y._version, weakref.ref(y)
        step(optimizer, functional.cross_entropy(model(x), y))
        assert torch.equal(before, y)
        assert y._version == version
        del y
        gc.collect()
        assert gone() is None
    assert len(seen.values(signals.CLASSES)) == 1


def test_within_a_function_transform_nothing_is_read() -> None:
    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(torch.func.functional_call(model, parameters, (x[None],)), y[None])

    with watched():
        model = mlp()
        x, y = batch()
        parameters = dict(model.named_parameters())
        gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
        assert gradients["0.weight"].shape[0] == 16


def test_the_loader_that_steps_are_fed_from() -> None:
    x, y = batch(rows=32)
    with watched() as seen:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        data = TensorDataset(x, y)
        shuffled, plain = DataLoader(data, 8, shuffle=True), DataLoader(data, 16)
        for _ in range(2):
            for a, b in shuffled:
                step(optimizer, functional.cross_entropy(model(a), b))
            for a, b in plain:
                functional.cross_entropy(model(a), b)
    (event,) = seen.recording.happened("loader")
    assert (event.data["sampler"], event.data["fed"], event.data["batch_size"]) == ("RandomSampler", 4, 8)
    assert event.data["place"]["text"].startswith("shuffled, plain =")


def test_a_loader_raises_what_it_would_have_raised() -> None:
    with watched(), pytest.raises(ValueError, match="batch_size"):
        DataLoader(TensorDataset(torch.ones(3)), batch_size=-1)


@pytest.mark.parametrize("classes", [40, 5000])
def test_what_a_guess_by_frequency_loses_of_many_classes(classes: int) -> None:
    with watched() as seen:
        model = mlp(classes=classes)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        given = []
        for i in range(6):
            x, y = batch(rows=64, classes=classes, seed=i)
            given.append(y)
            step(optimizer, nn.CrossEntropyLoss()(model(x), y))
    shares = torch.bincount(torch.cat(given)).double() / 384
    shares = shares[shares > 0]
    (found,) = targets_of(seen.recording)
    if classes > 4096:
        assert np.isnan(found.entropy)
    else:
        assert found.entropy == pytest.approx(-float((shares * shares.log()).sum()))
        assert found.uninformed == found.entropy
