"""Norms, promised progress and cosines against plain torch in double precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from watching import batch, mlp, watched

from gradwise.probes.sampling import due
from gradwise.recording import signals

Tensors = list[torch.Tensor]


class Oracle:
    """The same quantities, tensor by tensor, from copies of the tensors."""

    def __init__(self) -> None:
        self.before: list[Tensors] = []
        self.gradients: list[Tensors] = []
        self.after: list[Tensors] = []

    @staticmethod
    def copy(tensors: list[torch.Tensor | None], like: list[torch.Tensor]) -> Tensors:
        # Each at its own precision first: a change smaller than that is none.
        filled = [torch.zeros_like(p) if t is None else t.detach() for t, p in zip(tensors, like, strict=True)]
        dense = [t.to_dense() if t.layout is not torch.strided else t for t in filled]
        real = [torch.view_as_real(t) if t.is_complex() else t for t in dense]
        return [t.clone().double() for t in real]

    def look_before(self, parameters: list[torch.Tensor]) -> None:
        self.before.append(self.copy(parameters, parameters))
        self.gradients.append(self.copy([p.grad for p in parameters], parameters))

    def look_after(self, parameters: list[torch.Tensor]) -> None:
        self.after.append(self.copy(parameters, parameters))

    def norms(self, lists: list[Tensors]) -> np.ndarray:
        return np.array([[float(t.norm()) for t in tensors] for tensors in lists])

    def differences(self, lists: list[Tensors], others: list[Tensors]) -> list[Tensors]:
        return [[b - a for a, b in zip(x, y, strict=True)] for x, y in zip(lists, others, strict=True)]

    def dots(self, lists: list[Tensors], others: list[Tensors]) -> np.ndarray:
        return np.array(
            [[float((a * b).sum()) for a, b in zip(x, y, strict=True)] for x, y in zip(lists, others, strict=True)]
        )


def close(actual: np.ndarray, expected: np.ndarray, rel: float = 1e-6, scale: float = 1.0) -> None:
    np.testing.assert_allclose(actual, expected, rtol=rel, atol=rel * scale * max(1e-30, float(np.abs(expected).max())))


def compare(
    parameters: list[torch.Tensor],
    make: Callable[[Tensors], torch.optim.Optimizer],
    loss_of: Callable[[int], torch.Tensor],
    steps: int = 20,
    rel: float = 1e-6,
) -> None:
    """Train under watch beside the oracle, and hold the one against the other at every look."""
    oracle = Oracle()
    with watched() as seen:
        optimizer = make(parameters)
        for step in range(steps):
            optimizer.zero_grad()
            loss_of(step).backward()
            oracle.look_before(parameters)
            optimizer.step()
            oracle.look_after(parameters)
    looked = seen.steps(signals.PARAMETER)
    assert looked == [step for step in range(steps) if due(step)]
    changes = oracle.differences(oracle.before, oracle.after)
    close(seen.values(signals.PARAMETER), oracle.norms(oracle.before)[looked], rel)
    close(seen.values(signals.UPDATE), oracle.norms(changes)[looked], rel)
    close(seen.values(signals.GRADIENT), oracle.norms(oracle.gradients)[looked], rel)
    start = [oracle.before[0]] * steps
    close(seen.values(signals.TRAVEL), oracle.norms(oracle.differences(start, oracle.before))[looked], rel)
    close(seen.values(signals.PROGRESS), -oracle.dots(oracle.gradients, changes)[looked], rel, 10)

    followed = [step + 1 for step in looked if step + 1 < steps]
    assert seen.steps(signals.COSINE) == seen.steps(signals.KEPT) == followed
    products = oracle.dots(oracle.gradients[:-1], oracle.gradients[1:]).sum(1)
    lengths = np.sqrt((oracle.norms(oracle.gradients) ** 2).sum(1))
    cosines = products / (lengths[:-1] * lengths[1:])
    kept = -oracle.dots(oracle.gradients[1:], changes[:-1]).sum(1)
    at = [step - 1 for step in followed]
    close(seen.values(signals.COSINE), cosines[at], rel, 10)
    close(seen.values(signals.KEPT), kept[at], rel, 10)


def sgd(lr: float = 0.1) -> Callable[[Tensors], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=lr)


OPTIMIZERS: dict[str, Callable[[Tensors], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
    "rprop": lambda p: torch.optim.Rprop(p, lr=1e-2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_all_quantities_for_optimizers(name: str) -> None:
    model = mlp()
    compare(
        list(model.parameters()),
        OPTIMIZERS[name],
        lambda step: F.cross_entropy(model(batch(seed=step)[0]), batch(seed=step)[1]),
        steps=60,
    )


KINDS = {
    "0-d": torch.tensor(0.7),
    "empty": torch.empty(0, 3),
    "one": torch.tensor([0.3]),
    "double": torch.linspace(-1, 1, 7, dtype=torch.float64),
    "half": torch.linspace(-1, 1, 7, dtype=torch.float16),
    "bfloat16": torch.linspace(-1, 1, 7, dtype=torch.bfloat16),
    "complex": torch.linspace(-1, 1, 6).reshape(2, 3) * (1 + 2j),
    "transposed": torch.linspace(-1, 1, 12).reshape(3, 4).t(),
    "channels last": torch.linspace(-1, 1, 48).reshape(2, 3, 2, 4).to(memory_format=torch.channels_last),
    "strided": torch.linspace(-1, 1, 12)[::2],
    "large": torch.linspace(-1, 1, 70_000).reshape(70, 1000),
}


@pytest.mark.parametrize(
    "kinds", [[k] for k in KINDS if k not in ("empty", "large")] + [[k for k in KINDS if k != "large"]]
)
def test_all_kinds_of_parameters(kinds: list[str]) -> None:
    parameters = [nn.Parameter(KINDS[kind].clone(memory_format=torch.preserve_format)) for kind in kinds]
    rough = any(p.dtype in (torch.float16, torch.bfloat16) for p in parameters)

    def loss(step: int) -> torch.Tensor:
        return sum((p.abs() + 0.1 * step).pow(2).sum().float() for p in parameters)  # type: ignore[return-value]

    compare(parameters, sgd(0.01), loss, rel=1e-2 if rough else 1e-6)


def test_small_changes_of_parameters_in_double_precision() -> None:
    """Changes far below what float32 could tell."""
    p = nn.Parameter(torch.linspace(1, 2, 10, dtype=torch.float64))
    compare([p], sgd(1e-12), lambda step: (p * (step + 1)).pow(2).sum(), rel=1e-3)


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_numbers_whose_squares_leave_single_precision(size: float) -> None:
    p = nn.Parameter(torch.linspace(1, 2, 10) * size)
    compare([p], sgd(0.1), lambda step: (p * (1 + 0.1 * step) * torch.linspace(0.1, 1, 10)).sum())


def test_sparse_gradients() -> None:
    embedding = nn.Embedding(50, 4, sparse=True)
    torch.manual_seed(0)
    rows = [torch.randint(0, 50, (8,)) for _ in range(20)]
    compare(
        [embedding.weight],
        sgd(0.1),
        lambda step: embedding(rows[step]).pow(2).sum(),
    )


def test_tensors_without_gradient_count_as_zero() -> None:
    parameters = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(4))]
    parameters[1].requires_grad_(False)
    compare(
        parameters,
        sgd(0.1),
        # The last one is left out of every other loss.
        lambda step: parameters[0].pow(2).sum() + (parameters[2].pow(2).sum() if step % 2 else 0.0),
    )


def test_shared_parameters_are_one() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    compare(list(model.parameters()), sgd(0.1), lambda _: model(torch.ones(2, 4)).sum())


@pytest.mark.parametrize("distribution", ["normal", "laplace"])
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "channels last"])
def test_large_tensors_are_estimated_to_within_a_few_percent(distribution: str, layout: str) -> None:
    """What stands for a large tensor is an even sample: norms have its sampling error, products of norms less."""
    torch.manual_seed(0)
    shape = {"contiguous": (1500, 1400), "transposed": (1500, 1400), "channels last": (256, 128, 8, 8)}[layout]
    start = torch.randn(shape) if distribution == "normal" else torch.distributions.Laplace(0.0, 1.0).sample(shape)
    if layout == "transposed":
        start = start.t()
    elif layout == "channels last":
        start = start.to(memory_format=torch.channels_last)
    p = nn.Parameter(start)
    assert p.is_contiguous() == (layout == "contiguous")
    noise = torch.randn_like(p)
    compare([p], sgd(0.1), lambda step: (p * noise * (step + 1)).sum() + p.pow(2).sum(), 6, rel=0.03)


def test_large_sparse_gradients_are_not_made_dense() -> None:
    embedding = nn.Embedding(30_000, 16, sparse=True)
    torch.manual_seed(0)
    rows = [torch.randperm(30_000)[:9000] for _ in range(6)]
    compare(
        [embedding.weight],
        sgd(0.1),
        lambda step: embedding(rows[step]).pow(2).sum(),
        steps=6,
        rel=0.05,
    )


def test_closures_are_looked_at_where_they_are_evaluated() -> None:
    """The gradient of the step is the one that the closure computes, not the one left from before."""
    oracle = Oracle()
    with watched() as seen:
        model = mlp()
        parameters = list(model.parameters())
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        for step in range(20):

            def closure() -> torch.Tensor:
                optimizer.zero_grad()
                x, y = batch(seed=step)  # noqa: B023
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                oracle.look_before(parameters)
                return loss

            optimizer.step(closure)
            oracle.look_after(parameters)
    looked = seen.steps(signals.GRADIENT)
    assert looked == [step for step in range(20) if due(step)]
    close(seen.values(signals.GRADIENT), oracle.norms(oracle.gradients)[looked])
    close(seen.values(signals.UPDATE), 0.1 * oracle.norms(oracle.gradients)[looked], 1e-5)
    products = oracle.dots(oracle.gradients[:-1], oracle.gradients[1:]).sum(1)
    lengths = np.sqrt((oracle.norms(oracle.gradients) ** 2).sum(1))
    close(seen.values(signals.COSINE), (products / (lengths[:-1] * lengths[1:]))[looked], 1e-5, 10)


def test_groups_added_on_the_way() -> None:
    with watched() as seen:
        model = mlp()
        assert sum(p.numel() for p in model.parameters()) == 83
        optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
        for step in range(30):
            if step == 12:
                optimizer.add_param_group({"params": list(model[0].parameters()), "lr": 0.01})
            optimizer.zero_grad()
            x, y = batch(seed=step)
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    recording = seen.recording
    norms = recording.get(signals.GRADIENT)
    late = norms.steps > 12
    assert set(norms.labels) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert np.isfinite(norms.values[late]).all()
    assert np.isnan(norms.values[~late]).sum() == 2 * (~late).sum()
    rates = recording.get(signals.LR)
    assert rates.steps.tolist() == [0, 12]
    assert math.isnan(rates.values[0][1])
    assert rates.values[1].tolist() == [0.1, 0.01]
    assert {p.name for p in recording.optimizers[0].parameters} == set(norms.labels)


def test_the_gradient_is_the_one_that_hooks_of_others_left() -> None:
    """A hook that was there before the first optimizer, as an intervention has it, comes first."""
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    with watched() as seen:
        handle = register_optimizer_step_pre_hook(
            lambda optimizer, *_: nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1e-3) and None
        )
        try:
            model = mlp()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for step in range(20):
                optimizer.zero_grad()
                x, y = batch(seed=step)
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
        finally:
            handle.remove()
    total = np.sqrt((seen.values(signals.GRADIENT) ** 2).sum(1))
    assert total == pytest.approx(np.full(len(total), 1e-3), rel=1e-3)


def test_looks_that_a_closed_look_allows() -> None:
    """Cosines belong to steps right after a look, whatever the number of optimizers."""
    with watched() as seen:
        models = [mlp(0), mlp(1)]
        optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in models]
        for step in range(40):
            for model, optimizer in zip(models, optimizers, strict=True):
                optimizer.zero_grad()
                x, y = batch(seed=step)
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
    for source in (0, 1):
        looked, followed = seen.steps(signals.GRADIENT, source), seen.steps(signals.COSINE, source)
        assert looked == [step for step in range(40) if due(step)]
        assert followed == [step + 1 for step in looked if step < 39]
        assert all(b > a for a, b in pairwise(followed))


def test_an_optimizer_with_telemetry_is_taken_at_its_word() -> None:
    """Its sums are over all elements of a large tensor, where a look would go by a sample."""
    from gradwise.optim import Adam

    model = nn.Linear(600, 200)
    before, after, gradients = [], [], []
    with watched() as seen:
        optimizer = Adam(model.parameters(), lr=0.01, telemetry=True)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(4, 600)).square().mean().backward()
            before.append(model.weight.detach().clone())
            gradients.append(model.weight.grad.clone())
            optimizer.step()
            after.append(model.weight.detach().clone())
    for signal, tensors in (
        (signals.PARAMETER, before),
        (signals.GRADIENT, gradients),
        (signals.UPDATE, [b - a for a, b in zip(before, after, strict=True)]),
    ):
        series = seen.recording.get(signal, 0)
        expected = [float(tensors[step].norm()) for step in series.steps]
        np.testing.assert_allclose(series.values[:, 0], expected, rtol=1e-4)  # its sums are in float32
