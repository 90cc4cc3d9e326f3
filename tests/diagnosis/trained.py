"""Real trainings, small ones, recorded in the test's own process."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gradwise.diagnosis import diagnose
from gradwise.diagnosis.findings import Diagnosis
from gradwise.probes.recorder import Recorder
from gradwise.probes.watcher import Watcher
from gradwise.recording.builder import FrameSink, RecordingBuilder
from gradwise.recording.recording import Recording

Batches = Callable[[], tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]
Optimizer = Callable[[nn.Module], torch.optim.Optimizer]


def recorded(training: Callable[[], None]) -> Recording:
    """A recording of what `training` does; looks and examinations are not held to a budget."""
    builder = RecordingBuilder()
    watcher = Watcher(torch, Recorder(FrameSink(builder.add)))
    watcher.meter.free = True
    watcher.install()
    try:
        training()
    finally:
        watcher.remove()
    recording = builder.build()
    assert not recording.happened("probe-failed")
    return recording


def fit(model: nn.Module, batches: Batches, loss: Loss, optimizer: Optimizer, steps: int = 200) -> Diagnosis:
    """The diagnosis of a plain training."""

    def training() -> None:
        chosen = optimizer(model)
        for _ in range(steps):
            x, y = batches()
            chosen.zero_grad()
            loss(model(x), y).backward()
            chosen.step()

    return diagnose(recorded(training))


def sgd(lr: float, momentum: float = 0.0) -> Optimizer:
    return lambda model: torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)


def adam(lr: float = 1e-3) -> Optimizer:
    return lambda model: torch.optim.Adam(model.parameters(), lr=lr)


def blobs(classes: int = 4, features: int = 8, rows: int = 64, seed: int = 0, spread: float = 1.0) -> Batches:
    """Batches of Gaussian clusters around centres of size 3."""
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(classes, features, generator=generator)

    def batch() -> tuple[Tensor, Tensor]:
        y = torch.randint(0, classes, (rows,), generator=generator)
        return centres[y] + spread * torch.randn(rows, features, generator=generator), y

    return batch


def mlp(*sizes: int, activation: Callable[[], nn.Module] = nn.ReLU, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1])


def said(diagnosis: Diagnosis) -> list[str]:
    return [finding.id for finding in diagnosis.findings]


def suspected(diagnosis: Diagnosis) -> list[str]:
    return [finding.id for finding in diagnosis.suspicions]
