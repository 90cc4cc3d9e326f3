"""What the watcher records of training as people write it, against plain torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradwise.probes.recorder import Recorder
from gradwise.probes.watcher import Watcher
from gradwise.recording import signals
from gradwise.recording.builder import FrameSink, RecordingBuilder
from gradwise.recording.recording import Recording


class Watched:
    """A recording being made in this process."""

    def __init__(self) -> None:
        self._builder = RecordingBuilder()
        self.watcher = Watcher(torch, Recorder(FrameSink(self._builder.add)))
        self.watcher.meter.free = True

    @property
    def recording(self) -> Recording:
        return self._builder.build()

    def losses(self, source: int = 0) -> list[float]:
        return self.recording.get(signals.LOSS, source).values.tolist()


@contextmanager
def watched() -> Iterator[Watched]:
    run = Watched()
    run.watcher.install()
    try:
        yield run
    finally:
        run.watcher.remove()


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(32, 6, generator=generator), torch.randint(0, 3, (32,), generator=generator)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: tuple[torch.Tensor, torch.Tensor], steps: int
) -> list[float]:
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(data[0]), data[1])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


MAKERS: dict[str, Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "AdamW fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "Adagrad foreach": lambda p: torch.optim.Adagrad(p, lr=0.01, foreach=True),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_losses_are_recorded_and_training_is_bitwise_the_same(kind: str, data) -> None:
    plain = network()
    expected = train(plain, MAKERS[kind](plain.parameters()), data, 40)
    state = torch.get_rng_state()
    model = network()
    torch.set_rng_state(state)
    with watched() as run:
        assert train(model, MAKERS[kind](model.parameters()), data, 40) == expected
    assert run.losses() == expected
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))
    (info,) = run.recording.optimizers
    assert [p.name for p in info.parameters] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert info.made is not None
    assert info.made.file.endswith("test_watching.py")


def test_torch_is_left_as_it_was(data) -> None:
    before = (torch.autograd.backward, torch.autograd.grad, F.cross_entropy, torch.optim.Optimizer.__init__)
    with watched():
        model = network()
        train(model, torch.optim.SGD(model.parameters(), lr=0.1), data, 3)
    after = (torch.autograd.backward, torch.autograd.grad, F.cross_entropy, torch.optim.Optimizer.__init__)
    assert all(a is b for a, b in zip(before, after, strict=True))


def test_norms_and_promises_against_torch_in_double(data) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    parameters, seen = list(model.parameters()), []
    with watched() as run:
        for _ in range(20):
            optimizer.zero_grad()
            F.cross_entropy(model(data[0]), data[1]).backward()
            theta = torch.cat([p.detach().double().reshape(-1) for p in parameters])
            gradient = torch.cat([p.grad.double().reshape(-1) for p in parameters if p.grad is not None])
            optimizer.step()
            seen.append((theta, gradient, torch.cat([p.detach().double().reshape(-1) for p in parameters]) - theta))
    recording = run.recording
    for signal, of in (
        (signals.GRADIENT, lambda t: seen[t][1].norm()),
        (signals.PARAMETER, lambda t: seen[t][0].norm()),
        (signals.UPDATE, lambda t: seen[t][2].norm()),
        (signals.TRAVEL, lambda t: (seen[t][0] - seen[0][0]).norm()),
    ):
        series = recording.get(signal)
        assert 0 in series.steps
        for t, values in zip(series.steps, series.values, strict=True):
            assert np.sqrt((values**2).sum()) == pytest.approx(float(of(t)), rel=1e-5, abs=1e-7)
    promise = recording.get(signals.PROGRESS)
    for t, values in zip(promise.steps, promise.values, strict=True):
        assert values.sum() == pytest.approx(float(-seen[t][1] @ seen[t][2]), rel=1e-4)
    for t, value in zip(recording.get(signals.COSINE).steps, recording.get(signals.COSINE).values, strict=True):
        assert value == pytest.approx(float(F.cosine_similarity(seen[t][1], seen[t - 1][1], dim=0)), abs=1e-5)
    for t, value in zip(recording.get(signals.KEPT).steps, recording.get(signals.KEPT).values, strict=True):
        assert value == pytest.approx(float(-seen[t][1] @ seen[t - 1][2]), rel=1e-4)


@pytest.mark.parametrize("to_none", [True, False])
def test_accumulated_losses_are_summed(to_none: bool, data) -> None:
    model = network()
    expected = []
    with watched() as run:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(12):
            total = 0.0
            for part in range(4):
                rows = slice(8 * part, 8 * part + 8)
                loss = F.cross_entropy(model(data[0][rows]), data[1][rows]) / 4
                loss.backward()
                total += loss.item()
            optimizer.step()
            optimizer.zero_grad(set_to_none=to_none)
            expected.append(total)
    assert run.losses() == pytest.approx(expected)
    assert run.recording.get(signals.BACKWARDS).values.tolist() == [4]


def test_each_optimizer_gets_its_own_loss() -> None:
    torch.manual_seed(0)
    one, other = nn.Linear(4, 4), nn.Linear(4, 1)
    critic, maker = [], []
    with watched() as run:
        first, second = torch.optim.Adam(other.parameters(), lr=1e-3), torch.optim.Adam(one.parameters(), lr=1e-3)
        for _ in range(15):
            z = torch.randn(8, 4)
            first.zero_grad()
            loss = F.softplus(-other(torch.randn(8, 4))).mean() + F.softplus(other(one(z).detach())).mean()
            loss.backward()
            first.step()
            critic.append(loss.item())
            second.zero_grad()
            loss = F.softplus(-other(one(z))).mean()
            loss.backward()
            second.step()
            maker.append(loss.item())
    assert run.losses(0) == pytest.approx(critic)
    assert run.losses(1) == pytest.approx(maker)


def test_a_scaled_loss_is_recorded_unscaled(data) -> None:
    model = network()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    expected = []
    with watched() as run:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(10):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(data[0]), data[1])
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            expected.append(loss.item())
    assert run.losses() == pytest.approx(expected)


def test_a_closure_is_one_step_with_the_loss_at_its_start(data) -> None:
    model = network()
    first: list[float] = []

    with watched() as run:
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=5)
        for _ in range(6):
            calls: list[float] = []

            def closure() -> torch.Tensor:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(data[0]), data[1])
                loss.backward()
                calls.append(loss.item())  # noqa: B023
                return loss

            optimizer.step(closure)
            first.append(calls[0])
    assert run.losses() == pytest.approx(first)


def test_a_wrapper_counts_once(data) -> None:
    class Wrapper(torch.optim.Optimizer):
        def __init__(self, inner: torch.optim.Optimizer) -> None:
            super().__init__(inner.param_groups, dict(inner.defaults))
            self.inner = inner

        def step(self, closure=None):
            return self.inner.step()

    model = network()
    with watched() as run:
        expected = train(model, Wrapper(torch.optim.SGD(model.parameters(), lr=0.1)), data, 20)
    stepped = [s for s in run.recording.sources(signals.TIME) if len(run.recording.get(signals.TIME, s)) == 20]
    assert len(stepped) == 1
    assert run.losses(stepped[0]) == expected


def test_steps_by_hand_with_the_rate_they_used(data) -> None:
    torch.manual_seed(0)
    w, b = torch.randn(6, 3, requires_grad=True), torch.zeros(3, requires_grad=True)
    expected = []
    with watched() as run:
        for _ in range(20):
            loss = F.cross_entropy(data[0] @ w + b, data[1])
            loss.backward()
            with torch.no_grad():
                for p in (w, b):
                    p -= 0.25 * p.grad
                    p.grad = None
            expected.append(loss.item())
    assert run.losses()[:19] == pytest.approx(expected[:19])
    assert run.recording.optimizers[0].kind == "manual"
    assert run.recording.get(signals.LR).values[0] == pytest.approx(0.25, rel=1e-4)


def test_rates_as_used_and_validation_as_passes(data) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.1)
    with watched() as run:
        for _ in range(3):
            for _ in range(5):
                train(model, optimizer, data, 1)
                scheduler.step()
            model.eval()
            with torch.no_grad():
                values = [F.cross_entropy(model(x), y).item() for x, y in ((data[0][:8], data[1][:8]), data)]
            model.train()
    lr = run.recording.get(signals.LR)
    assert lr.steps.tolist() == [0, 5, 10]
    assert lr.values.ravel().tolist() == pytest.approx([1.0, 0.1, 0.01])
    validation = run.recording.get(signals.VALIDATION)
    assert validation.steps.tolist() == [5, 10, 15]
    assert validation.values[-1] == pytest.approx((8 * values[0] + 32 * values[1]) / 40)


def test_rows_are_known_where_the_batch_is_gone_by_the_time_of_the_step(data) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watched() as run:
        for _ in range(3):
            loss = F.cross_entropy(model(data[0][:8]), data[1][:8])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert run.recording.get(signals.BATCH).values.ravel().tolist() == [8]


def test_the_first_nan_names_where_it_came_from(data) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watched() as run:
        train(model, optimizer, data, 5)
        target = torch.full((32, 3), torch.nan)
        F.mse_loss(model(data[0]), target).backward()
        optimizer.step()
        train(model, optimizer, data, 2)
    event = run.recording.happened("non-finite")[0]
    assert (event.step, event.data["stage"]) == (5, "target")


def test_a_step_that_raised_does_not_confuse_the_next(data) -> None:
    class Fragile(torch.optim.SGD):
        fail = False

        def step(self, closure=None):
            if self.fail:
                raise RuntimeError("mine")
            return super().step()

    model = network()
    optimizer = Fragile(model.parameters(), lr=0.1)
    with watched() as run:
        train(model, optimizer, data, 4)
        optimizer.fail = True
        with pytest.raises(RuntimeError, match="mine"):
            train(model, optimizer, data, 1)
        optimizer.fail = False
        train(model, optimizer, data, 4)
    assert len(run.recording.get(signals.TIME)) == 8
