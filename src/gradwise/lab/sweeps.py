"""Rules compared fairly: each at every rate of one grid on the same batches, its rate chosen on validation data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradwise import optim
from gradwise.lab.data import Data, Split, load
from gradwise.lab.ensemble import Ensemble
from gradwise.lab.experiment import Bench
from gradwise.lab.models import mlp
from gradwise.lab.training import loss_of, seeded
from gradwise.recording.recording import Floats

# The rules by the documents' names, with the settings that they name beside the rate.
RULES: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": optim.SGD,
    "momentum": partial(optim.SGD, momentum=0.9),
    "Nesterov": partial(optim.SGD, momentum=0.9, nesterov=True),
    "Adagrad": optim.Adagrad,
    "RMSprop": partial(optim.RMSprop, alpha=0.9),
    "Adadelta": optim.Adadelta,
    "Adam": optim.Adam,
}
ADAPTIVE = ("Adagrad", "RMSprop", "Adadelta", "Adam")
# Rows at most for training, validation and testing: dozens of nets go over them at once.
ROWS = (4000, 1000, 2000)
# How often a grid is widened whose best rate lies at its end, by how many rates.
_TIMES, _FURTHER = 4, 2


@dataclass(frozen=True)
class Task:
    """A net to train on a data set."""

    name: str
    data: Data
    widths: tuple[int, ...]
    activation: Callable[[], nn.Module] = nn.ReLU
    batch: int = 32

    def net(self, seed: int) -> nn.Module:
        """The net as it begins under a seed."""
        inputs, outputs = math.prod(self.data.shape), self.data.classes or 1
        with seeded(seed):
            return mlp([inputs, *self.widths, outputs], self.activation)

    def batches(self, seed: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in an order that the seed decides, epoch after epoch."""
        train, rows = self.data.train, torch.Generator().manual_seed(seed)
        order = torch.empty(0, dtype=torch.int64)
        for _ in range(steps):
            if len(order) < self.batch:
                order = torch.randperm(len(train), generator=rows)
            chosen, order = order[: self.batch], order[self.batch :]
            yield train.x[chosen], train.y[chosen]

    @property
    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Cross-entropy for classes, the mean square for values."""
        return loss_of(self.data.train)


def task(name: str, bench: Bench) -> Task:
    """A task by name: a data set with one hidden layer of 32 ReLU units; or, by a word before it or a number behind it,

    - "small": 4 units, too few to learn the training rows by heart;
    - "deep": six hidden layers of 24 tanh units;
    - "uneven": each input multiplied by a power of ten from -2 to 2;
    - "noisy": the same in batches of 8 rows, not 32;
    - ":5": 16 hidden units on inputs coded as indicators of 5 levels each, which are rarely other than zero.

    >>> task("digits", Bench()).widths, task("deep digits", Bench()).widths, task("digits:5", Bench()).data.shape
    ((32,), (24, 24, 24, 24, 24, 24), (320,))
    """
    *kind, rest = name.split()
    source, _, levels = rest.partition(":")
    data = _fewer(load(source, bench.data_dir))
    if levels:
        return Task(name, coded(data, int(levels)), (16,))
    if kind == ["linear"]:
        return Task(name, data, (), batch=8)
    if kind == ["uneven"]:
        return Task(name, uneven(data), (32,))
    return Task(name, data, (24,) * 6, nn.Tanh) if kind == ["deep"] else Task(name, data, (32,))


def uneven(data: Data) -> Data:
    """Each input in a unit of its own: multiplied by a power of ten, -2 to 2 in equal steps, in an order by chance."""
    inputs = math.prod(data.shape)
    order = torch.randperm(inputs, generator=torch.Generator().manual_seed(0))
    units = 10 ** torch.linspace(-2, 2, inputs)[order]

    def scale(split: Split) -> Split:
        return Split(split.x.flatten(1) * units, split.y)

    return _changed(data, scale)


def coded(data: Data, levels: int) -> Data:
    """Each input as indicators of equally wide levels of its range in the training rows: one of them is 1.

    Levels at the ends of a range are rare, so most columns are zero in nearly all rows, as words are in texts.
    """
    flat = data.train.x.flatten(1)
    low, high = flat.amin(0), flat.amax(0)

    def code(split: Split) -> Split:
        place = (split.x.flatten(1) - low) / (high - low).clamp_min(1e-12) * levels
        level = place.long().clamp(0, levels - 1)
        return Split(nn.functional.one_hot(level, levels).flatten(1).float(), split.y)

    return _changed(data, code)


def _fewer(data: Data) -> Data:
    train, validation, test = ROWS
    return replace(
        data, train=data.train.first(train), validation=data.validation.first(validation), test=data.test.first(test)
    )


def _changed(data: Data, change: Callable[[Split], Split]) -> Data:
    return replace(data, train=change(data.train), validation=change(data.validation), test=change(data.test))


@dataclass(frozen=True)
class Swept:
    """A rule at every rate.

    Attributes:
        rates: (n,) rising.
        validation: (n, marks) the validation loss after equal parts of the run; infinite where it diverged.
        train: (n,) the loss of all training rows at the end.
        test: (n,) the test loss at the end, to be read for the rate chosen by `validation` alone.
        start: the validation loss before training.
    """

    rates: Floats
    validation: Floats
    train: Floats
    test: Floats
    start: float

    def best(self, mark: int = -1) -> int:
        """The place of the rate with the lowest validation loss at a mark."""
        return int(np.argmin(self.validation[:, mark]))


def sweep(
    task: Task,
    rules: Sequence[str],
    seed: int,
    *,
    steps: int,
    low: float = -3.0,
    high: float = 0.0,
    spacing: float = 0.5,
    marks: int = 5,
) -> dict[str, Swept]:
    """Train one net by every rule at every rate, with the same batches, all in one batched pass.

    Where a rule's best rate is the first or last of its grid, the grid is widened there and the new rates are run.

    Args:
        task: what to train.
        rules: names out of `RULES`.
        seed: of first weights and batches.
        steps: optimizer steps of each run.
        low: where the grid begins, as a power of ten.
        high: where it ends.
        spacing: of its rates, in decades.
        marks: how often validation data are looked at, at equal distances.
    """
    places = np.round(np.arange(low, high + spacing / 2, spacing) / spacing).astype(int)
    waiting = dict.fromkeys(rules, places)
    found: dict[str, Swept] = {}
    for _ in range(_TIMES + 1):
        for rule, new in _run(task, waiting, seed, steps, spacing, marks).items():
            found[rule] = _joined(found[rule], new) if rule in found else new
        waiting = {rule: more for rule in waiting if len(more := _beyond(found[rule], spacing))}
        if not waiting:
            break
    return found


def _run(task: Task, grids: Mapping[str, Any], seed: int, steps: int, spacing: float, marks: int) -> dict[str, Swept]:
    runs = [(rule, 10.0 ** (spacing * place)) for rule, places in grids.items() for place in places]
    nets = Ensemble([task.net(seed)], task.loss, copies=len(runs))
    optimizers = [
        RULES[rule]([{"params": nets.parameters(k), "lr": rate} for k, (r, rate) in enumerate(runs) if r == rule])
        for rule in grids
    ]
    validation, data = [], task.data
    start = float(nets.loss(data.validation.x, data.validation.y)[0, 0])
    for step, (x, y) in enumerate(task.batches(seed, steps), 1):
        nets.backward(x, y)
        for optimizer in optimizers:
            optimizer.step()
        if step * marks // steps > (step - 1) * marks // steps:
            validation.append(_numbers(nets.loss(data.validation.x, data.validation.y)))
    train, test = (_numbers(nets.loss(part.x, part.y)) for part in (data.train, data.test))
    curves = np.stack(validation, axis=1)
    found = {}
    for rule in grids:
        own = [k for k, (r, _) in enumerate(runs) if r == rule]
        found[rule] = Swept(np.array([runs[k][1] for k in own]), curves[own], train[own], test[own], start)
    return found


def _beyond(swept: Swept, spacing: float) -> Any:
    """The places of rates beyond the grid's end at which the best rate lies."""
    places, best = np.round(np.log10(swept.rates) / spacing).astype(int), swept.best()
    if best == len(places) - 1:
        return places[-1] + np.arange(1, _FURTHER + 1)
    return places[0] - np.arange(_FURTHER, 0, -1) if best == 0 else places[:0]


def _joined(a: Swept, b: Swept) -> Swept:
    rates = np.append(a.rates, b.rates)
    order = np.argsort(rates)
    validation, train, test = (
        np.concatenate([getattr(a, name), getattr(b, name)])[order] for name in ("validation", "train", "test")
    )
    return Swept(rates[order], validation, train, test, a.start)


def _numbers(losses: Tensor) -> Floats:
    """One loss per copy; infinite where it isn't a number."""
    values = losses[:, 0].double().numpy()
    return np.where(np.isfinite(values), values, np.inf)
