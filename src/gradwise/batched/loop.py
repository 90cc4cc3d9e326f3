"""The training loop, for one configuration by itself and for many as rows of one batch. Both see the same data."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gradwise.batched.rows import Rows, kind
from gradwise.batched.stack import Stack, architecture
from gradwise.batched.training import Config, Loss, Part, Trained, Training, seeded

# Validation data is evaluated in pieces of so many items, over all rows.
_AT_ONCE = 1 << 14
OnEpoch = Callable[[int, int, float], bool]
"""Takes a run's place, an epoch from 1 and the score after it; True ends that run."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run to make."""

    config: Config
    seed: int = 0


def alone(task: Training, config: Config, seed: int, report: Callable[[int, float], None]) -> Trained:
    """One configuration by itself: the loop as one would write it."""
    size, epochs = task.lasts(config)
    with _own_luck(task, seed):
        model = task.build(config, seed)
        optimizer, history = task.optimizer(model, config), list[float]()
        start, steps, order = _scored(model, task.score, task.held), 0, _order(seed)
        for epoch in range(1, epochs + 1):
            model.train()
            for chosen in order(task.data[0]).split(size):
                optimizer.zero_grad()
                task.loss(model(task.data[0][chosen]), task.data[1][chosen]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                steps += 1
            history.append(_scored(model, task.score, task.held))
            report(epoch, history[-1])
        state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    return _trained(history, start, steps, state)


def tested(task: Training, config: Config, state: dict[str, Tensor]) -> float:
    """The test score of a trained model."""
    if task.tested is None:
        raise ValueError("Training: there is no test data: give (training, validation, test)")
    with _own_luck(task, 0):
        model = task.build(config, 0)
        model.load_state_dict(state, strict=False)
        return _scored(model, task.score, task.tested)


def together(task: Training, runs: Sequence[Run], on_epoch: OnEpoch) -> list[Trained]:
    """Many configurations as rows of as few batches as possible.

    Raises:
        BatchError: they can't be rows, and why.
    """
    found: dict[int, Trained] = {}
    for batch in _batches(task, runs):
        with _own_luck(task, runs[batch.places[0]].seed):
            for place, trained in _Batch(task, runs, batch).train(on_epoch):
                found[place] = trained
    return [found[k] for k in range(len(runs))]


@dataclass
class _Rows:
    """Runs that can be rows of one batch: their places, models and optimizers."""

    places: list[int] = field(default_factory=list)
    models: list[nn.Module] = field(default_factory=list)
    optimizers: list[Any] = field(default_factory=list)


def _batches(task: Training, runs: Sequence[Run]) -> Iterator[_Rows]:
    """What goes together: one architecture, one kind of optimizer, one batch size, one number of epochs."""
    kinds: dict[Any, _Rows] = {}
    for k, run in enumerate(runs):
        with _own_luck(task, run.seed):
            model = task.build(run.config, run.seed)
        optimizer = task.optimizer(model, run.config)
        key = (architecture(model), kind(optimizer, _places(model)), task.lasts(run.config))
        rows = kinds.setdefault(key, _Rows())
        rows.places.append(k)
        rows.models.append(model)
        rows.optimizers.append(optimizer)
    for rows in kinds.values():
        most = min(task.rows, _fitting(task, rows.models[0], runs[rows.places[0]].config))
        for at in range(0, len(rows.places), most):
            part = slice(at, at + most)
            yield _Rows(rows.places[part], rows.models[part], rows.optimizers[part])


def _places(model: nn.Module) -> dict[Tensor, int]:
    return {p: k for k, p in enumerate(model.parameters())}


class _Batch:
    """Rows on their way."""

    def __init__(self, task: Training, runs: Sequence[Run], rows: _Rows) -> None:
        self.task, self.places = task, list(rows.places)
        self.size, self.epochs = task.lasts(runs[self.places[0]].config)
        self.seeds = [runs[k].seed for k in self.places]
        self.stack = Stack(rows.models, task.loss)
        self.rows = Rows(rows.optimizers, [_places(m) for m in rows.models], self.stack.params)
        self.orders = {seed: _order(seed) for seed in self.seeds}
        self.history: dict[int, list[float]] = {k: [] for k in self.places}

    def train(self, on_epoch: OnEpoch) -> Iterator[tuple[int, Trained]]:
        """Train them all: each run's place and what came of it, as soon as it has ended."""
        starts = dict(zip(self.places, self._scores(), strict=True))
        for epoch in range(1, self.epochs + 1):
            for inputs, targets, each in self._steps():
                _, grads = self.stack.training(inputs, targets, each)
                self.rows.step(grads)
            scores, finite = self._scores(), self.stack.finite()
            staying = []
            for row, (k, score) in enumerate(zip(self.places, scores, strict=True)):
                self.history[k].append(score)
                last = epoch == self.epochs
                ended = on_epoch(k, epoch, score) and not last
                if finite[row] and not ended and not last:
                    staying.append(row)
                    continue
                made = _trained(self.history[k], starts[k], self.rows.steps, self.stack.state(row))
                yield k, _with(made, stopped=ended, diverged=made.diverged or not finite[row])
            if not staying:
                return
            if len(staying) < len(self.places):
                self._keep(staying)

    def _keep(self, staying: list[int]) -> None:
        self.rows.keep(staying)
        self.stack.keep(staying, self.rows.params)
        self.places = [self.places[row] for row in staying]
        self.seeds = [self.seeds[row] for row in staying]

    def _steps(self) -> Iterator[tuple[Tensor, Tensor, bool]]:
        """The batches of an epoch: one for all rows where all have the same seed, else stacked."""
        inputs, targets = self.task.data
        orders = {seed: self.orders[seed](inputs) for seed in dict.fromkeys(self.seeds)}
        if len(orders) == 1:
            (order,) = orders.values()
            for chosen in order.split(self.size):
                yield inputs[chosen], targets[chosen], False
            return
        for picked in torch.stack([orders[seed] for seed in self.seeds]).split(self.size, dim=1):
            yield inputs[picked], targets[picked], True

    def _scores(self) -> list[float]:
        """The validation score of each row."""
        inputs, targets = self.task.held
        total = torch.zeros(len(self.places), dtype=torch.float64, device=inputs.device)
        for x, y in _pieces(inputs, targets, len(self.places)):
            total += self.stack.evaluate(self.task.score, x, y).double() * len(x)
        return [float(value) for value in (total / len(inputs)).tolist()]


def _with(trained: Trained, *, stopped: bool, diverged: bool) -> Trained:
    value = None if diverged else trained.value
    return Trained(value, trained.history, trained.start, trained.steps, diverged, trained.state, stopped)


def _trained(history: Sequence[float], start: float, steps: int, state: dict[str, Tensor]) -> Trained:
    value = history[-1] if math.isfinite(history[-1]) else None
    return Trained(value, tuple(history), start if math.isfinite(start) else None, steps, value is None, state)


@torch.no_grad()
def _scored(model: nn.Module, score: Loss, part: Part) -> float:
    model.eval()
    total = sum(float(score(model(x), y)) * len(x) for x, y in _pieces(*part, 1))
    return total / len(part[0])


def _pieces(inputs: Tensor, targets: Tensor, rows: int) -> Iterator[Part]:
    size = max(256, _AT_ONCE // rows)
    return zip(inputs.split(size), targets.split(size), strict=True)


def _order(seed: int) -> Callable[[Tensor], Tensor]:
    """What gives, for epoch after epoch, the order in which items are visited."""
    luck = torch.Generator().manual_seed(seed)
    return lambda inputs: torch.randperm(len(inputs), generator=luck).to(inputs.device)


@contextmanager
def _own_luck(task: Training, seed: int) -> Iterator[None]:
    """Seeded random numbers within, the caller's own afterwards."""
    with torch.random.fork_rng([task.device] if task.device.type == "cuda" else []):
        seeded(task.device, seed)
        yield


def _fitting(task: Training, model: nn.Module, config: Config) -> int:
    """How many rows keep what a step remembers of them within what memory is fast, or there at all."""
    size, _ = task.lasts(config)
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with _own_luck(task, 0), torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        # A copy: running statistics must not have seen this batch.
        task.loss(copy.deepcopy(model)(task.data[0][:size]), task.data[1][:size])
    if task.device.type == "cuda":
        budget = torch.cuda.mem_get_info(task.device)[0] // 4
    else:
        budget = _FAST
    return max(1, budget // max(1, kept))


# Bytes of activations that still pay on a CPU: beyond, every operation waits for main memory.
_FAST = 32 << 20
