"""The training loop, for one configuration by itself and for many as rows of one batch. Both see the same data."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from gradwise.batched.rows import Rows, kind
from gradwise.batched.stack import BatchError, Loss, Stack, architecture
from gradwise.batched.training import Config, Part, Trained, Training, seeded

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
            for chosen in torch.split(order(task.data[0]), size):
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


def together(task: Training, runs: Sequence[Run], on_epoch: OnEpoch) -> list[Trained | Exception]:
    """Many configurations as rows of as few batches as possible; an exception where a configuration itself is wrong.

    Raises:
        BatchError: they can't be rows, and why.
    """
    found: dict[int, Trained | Exception] = {}
    for rows in _alike(task, runs, found):
        try:
            most = min(task.rows, _fitting(task, rows[0].model, rows[0].run.config)) if len(rows) > 1 else 1
            for at in range(0, len(rows), most):
                found |= _batch(task, rows[at : at + most], on_epoch)
        except BatchError:
            raise
        except Exception as error:  # a model that doesn't fit its inputs, a loss that doesn't fit its outputs
            found |= {row.place: error for row in rows if row.place not in found}
    return [found[k] for k in range(len(runs))]


def _batch(task: Training, rows: Sequence[_Row], on_epoch: OnEpoch) -> dict[int, Trained]:
    if len(rows) == 1:  # a batch of one costs more than none
        return {rows[0].place: _single(task, rows[0], on_epoch)}
    with _own_luck(task, rows[0].run.seed):
        return _Batch(task, rows).train(on_epoch)


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """A run that is to be a row: its place among all runs, its model, its optimizer and what kind that is of."""

    place: int
    run: Run
    model: nn.Module
    optimizer: Any
    kind: Any


def _alike(task: Training, runs: Sequence[Run], wrong: dict[int, Trained | Exception]) -> list[list[_Row]]:
    """What goes together: one architecture, one batch size; rows of one kind of optimizer side by side.

    What can't be built at all goes to `wrong`.
    """
    together: dict[Any, list[_Row]] = {}
    for k, run in enumerate(runs):
        try:
            with _own_luck(task, run.seed):
                model = task.build(run.config, run.seed)
            optimizer, (size, _) = task.optimizer(model, run.config), task.lasts(run.config)
        except Exception as error:  # what one configuration breaks must not end the others
            wrong[k] = error
            continue
        row = _Row(k, run, model, optimizer, kind(optimizer, _places(model)))
        together.setdefault((architecture(model), size), []).append(row)
    for rows in together.values():
        kinds = list(dict.fromkeys(row.kind for row in rows))
        rows.sort(key=lambda row: kinds.index(row.kind))
    return list(together.values())


def _places(model: nn.Module) -> dict[Tensor, int]:
    return {p: k for k, p in enumerate(model.parameters())}


class _Ended(Exception):
    """A run is not to go on."""


def _single(task: Training, row: _Row, on_epoch: OnEpoch) -> Trained:
    told: list[float] = []

    def report(epoch: int, value: float) -> None:
        told.append(value)
        if on_epoch(row.place, epoch, value) and epoch < task.lasts(row.run.config)[1]:
            raise _Ended

    try:
        return alone(task, row.run.config, row.run.seed, report)
    except _Ended:
        steps = len(told) * task.steps(row.run.config) // task.lasts(row.run.config)[1]
        return Trained(told[-1], tuple(told), None, steps, stopped=True)


class _Batch:
    """Rows on their way."""

    def __init__(self, task: Training, rows: Sequence[_Row]) -> None:
        self.task, self.rows = task, list(rows)
        self.size = task.lasts(rows[0].run.config)[0]
        self.stack = Stack([row.model for row in rows], task.loss)
        self.steppers: list[Rows] = []
        for begin, end in self._kinds():
            mine = rows[begin:end]
            params = [p[begin:end] for p in self.stack.params]
            self.steppers.append(Rows([r.optimizer for r in mine], [_places(r.model) for r in mine], params))
        self.orders = {row.run.seed: _order(row.run.seed) for row in rows}
        self.history: dict[int, list[float]] = {row.place: [] for row in rows}
        self.steps = 0

    def train(self, on_epoch: OnEpoch) -> dict[int, Trained]:
        """Train them all: what came of each run, by its place."""
        found: dict[int, Trained] = {}
        starts = {row.place: score for row, score in zip(self.rows, self._scores(), strict=True)}
        for epoch in count(1):
            for inputs, targets, each in self._steps():
                self._step(inputs, targets, each)
            scores, finite = self._scores(), self.stack.finite()
            staying = []
            for k, (row, score) in enumerate(zip(self.rows, scores, strict=True)):
                self.history[row.place].append(score)
                last = epoch == self.task.lasts(row.run.config)[1]
                stopped = on_epoch(row.place, epoch, score) and not last
                if finite[k] and not stopped and not last:
                    staying.append(k)
                    continue
                made = _trained(self.history[row.place], starts[row.place], self.steps, self.stack.state(k))
                found[row.place] = replace(made, stopped=stopped)
                if not finite[k]:  # what isn't finite never becomes so again
                    found[row.place] = replace(found[row.place], value=None, diverged=True)
            if not staying:
                break
            if len(staying) < len(self.rows):
                self._keep(staying)
        return found

    def _kinds(self) -> list[tuple[int, int]]:
        """Where rows of one kind of optimizer begin and end."""
        cuts = [k for k in range(len(self.rows)) if not k or self.rows[k].kind != self.rows[k - 1].kind]
        return list(pairwise([*cuts, len(self.rows)]))

    def _step(self, inputs: Tensor, targets: Tensor, each: bool) -> None:
        _, grads = self.stack.training(inputs, targets, each)
        for (begin, end), stepper in zip(self._kinds(), self.steppers, strict=True):
            stepper.step([None if g is None else g[begin:end] for g in grads])
        self.steps += 1

    def _keep(self, staying: list[int]) -> None:
        spans = self._kinds()
        self.rows = [self.rows[k] for k in staying]
        self.stack.keep(staying)
        left, at = [], 0
        for (begin, end), stepper in zip(spans, self.steppers, strict=True):
            mine = [k - begin for k in staying if begin <= k < end]
            if mine:
                stepper.keep(mine, [p[at : at + len(mine)] for p in self.stack.params])
                left.append(stepper)
                at += len(mine)
        self.steppers = left

    def _steps(self) -> Iterator[tuple[Tensor, Tensor, bool]]:
        """The batches of an epoch: one for all rows where all have the same seed, else stacked."""
        inputs, targets = self.task.data
        seeds = [row.run.seed for row in self.rows]
        orders = {seed: self.orders[seed](inputs) for seed in dict.fromkeys(seeds)}
        if len(orders) == 1:
            (order,) = orders.values()
            for chosen in torch.split(order, self.size):
                yield inputs[chosen], targets[chosen], False
            return
        for picked in torch.split(torch.stack([orders[seed] for seed in seeds]), self.size, dim=1):
            yield inputs[picked], targets[picked], True

    def _scores(self) -> list[float]:
        """The validation score of each row."""
        inputs, targets = self.task.held
        total = torch.zeros(len(self.rows), dtype=torch.float64, device=inputs.device)
        for x, y in _pieces(inputs, targets, len(self.rows)):
            total += self.stack.evaluate(self.task.score, x, y).double() * len(x)
        return [float(value) for value in (total / len(inputs)).tolist()]


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
    return zip(torch.split(inputs, size), torch.split(targets, size), strict=True)


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

    def add(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with _own_luck(task, 0), torch.autograd.graph.saved_tensors_hooks(add, lambda t: t):
        # A copy: running statistics must not have seen this batch.
        task.loss(copy.deepcopy(model)(task.data[0][:size]), task.data[1][:size])
    there = task.device.type == "cuda"
    budget = torch.cuda.mem_get_info(task.device)[0] // 4 if there else _FAST
    return max(1, budget // max(1, kept))


# Bytes of activations that still pay on a CPU: beyond, every operation waits for main memory.
_FAST = 32 << 20
