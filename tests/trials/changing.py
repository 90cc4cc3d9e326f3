"""Training under an intervention inside the test's own process, beside the same training edited by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from gradwise.interventions import Intervention
from gradwise.probes.recorder import Recorder
from gradwise.probes.watcher import Watcher
from gradwise.recording.builder import FrameSink, RecordingBuilder
from gradwise.recording.recording import Recording
from gradwise.recording.signals import LOSS, VALIDATION
from gradwise.trials.apply import Applier

SEED = 3


class Changed:
    """What came of it."""

    def __init__(self) -> None:
        self.builder = RecordingBuilder()
        self.watcher = Watcher(torch, Recorder(FrameSink(self.builder.add)))
        self.applier: Any = None

    @property
    def recording(self) -> Recording:
        self.watcher.recorder.flush()
        return self.builder.build()

    @property
    def losses(self) -> list[float]:
        """As recorded."""
        return self.recording.get(LOSS).values.tolist()

    @property
    def validation(self) -> list[float]:
        return self.recording.get(VALIDATION).values.tolist()

    @property
    def refused(self) -> str:
        return str(self.applier.stage.refused)


@contextmanager
def changed(score: Intervention | None = None, /, **keys: Any) -> Iterator[Changed]:
    """Watch and change what trains inside, as a trial with seed 3 would; nothing of it is left afterwards."""
    made = Changed()
    change = Intervention.from_json(keys)
    made.watcher.install()
    made.applier = Applier(torch, change, made.watcher, SEED, score)
    made.applier.install()
    try:
        yield made
    finally:
        made.applier.remove()
        made.watcher.remove()
    failed = made.recording.happened("probe-failed")
    assert not failed, failed[0].data


def data(rows: int = 24, features: int = 5, classes: int = 3, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = 4 * torch.randn(rows, features, generator=generator) + 2
    return x, torch.randint(0, classes, (rows,), generator=generator)


class Net(nn.Module):
    """Functional activations, layers by name."""

    def __init__(self, features: int = 5, classes: int = 3) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(features, 8), nn.Linear(8, 8), nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.two(nn.functional.relu(self.one(x)))))


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Net()


def stack(seed: int = 0, *between: nn.Module) -> nn.Module:
    """The same layers in a Sequential, with what stands between them."""
    torch.manual_seed(seed)
    one, two, out = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)
    return nn.Sequential(one, nn.ReLU(), *between, two, nn.ReLU(), *between, out)


def train(
    model: nn.Module,
    optimizer: Any,
    steps: int = 6,
    loss_of: Callable[..., torch.Tensor] = nn.functional.cross_entropy,
    zero: bool = True,
    batches: Callable[[int], tuple[torch.Tensor, torch.Tensor]] = lambda step: data(seed=step),
) -> list[float]:
    """Plain training; the losses as the script sees them."""
    losses = []
    for step in range(steps):
        x, y = batches(step)
        if zero:
            optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def sgd(model: nn.Module, **settings: Any) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), **{"lr": 0.05, **settings})


def adam(model: nn.Module, **settings: Any) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), **{"lr": 0.01, **settings})
