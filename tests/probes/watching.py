"""Training under watch inside the test's own process, and what was recorded of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from gradwise.probes.recorder import Recorder
from gradwise.probes.watcher import Watcher
from gradwise.recording import signals
from gradwise.recording.builder import FrameSink, RecordingBuilder
from gradwise.recording.recording import Recording
from gradwise.recording.signals import Signal


class Watched:
    """A watcher with its recording, for which nothing is too costly unless `free` is False."""

    def __init__(self, free: bool = True) -> None:
        self._builder = RecordingBuilder()
        self.watcher = Watcher(torch, Recorder(FrameSink(self._builder.add)))
        self.watcher.meter.free = free

    @property
    def recording(self) -> Recording:
        self.watcher.recorder.flush()
        return self._builder.build()

    def losses(self, source: int = 0) -> list[float]:
        return self.values(signals.LOSS, source).tolist()

    def values(self, signal: Signal, source: int = 0) -> np.ndarray:
        return self.recording.get(signal, source).values

    def steps(self, signal: Signal, source: int = 0) -> list[int]:
        return self.recording.get(signal, source).steps.tolist()

    def failures(self) -> list[Any]:
        return [event.data for event in self.recording.happened("probe-failed")]


@contextmanager
def watched(free: bool = True, healthy: bool = True) -> Iterator[Watched]:
    """Watch what happens inside; with `healthy`, no probe may fail."""
    seen = Watched(free)
    seen.watcher.install()
    try:
        yield seen
    finally:
        seen.watcher.remove()
    if healthy:
        assert not seen.failures()


def batch(rows: int = 16, features: int = 6, classes: int = 3, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, features, generator=generator)
    return x, torch.randint(0, classes, (rows,), generator=generator)


def mlp(seed: int = 0, features: int = 6, classes: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(features, 8), nn.Tanh(), nn.Linear(8, classes))


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, after: Callable[[], object] = lambda: None
) -> list[float]:
    """Plain training; the losses as the script sees them."""
    losses = []
    criterion = nn.CrossEntropyLoss()
    for step in range(steps):
        x, y = batch(seed=step)
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        after()
    return losses
