"""The training loop that the experiments share: explicit seeds, what it saw epoch by epoch, a stop in between.

with seeded(seed):
    model = mlp([64, 32, 10])
    history = fit(model, Adam(model.parameters(), lr=1e-3), data.train, batch=32, epochs=5, seed=seed)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradwise.lab.data import Split
from gradwise.schedules import PlateauLR, ScheduledLR

Loss = Callable[[Tensor, Tensor], Tensor]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's own random numbers (initial weights, dropout) come from this seed inside, and are as before after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@dataclass
class History:
    """What a training saw, as JSON. A validation loss of NaN or infinity is kept as it is: it diverged.

    Attributes:
        losses: the loss of each step's batch, before the step.
        train: its mean over each epoch.
        validation: the validation loss after each epoch.
        accuracy: the validation accuracy after each epoch, for classes.
        lr: the rate of the first group in each epoch's last step.
        steps: optimizer steps taken.
    """

    losses: list[float] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    steps: int = 0

    def to_json(self) -> dict[str, Any]:
        """All of it; numbers that aren't finite as text, since JSON has none."""
        return {
            k: [finite(v) for v in value] if isinstance(value, list) else value for k, value in asdict(self).items()
        }

    @property
    def diverged(self) -> bool:
        """Whether a loss was not finite."""
        return not all(map(math.isfinite, (*self.losses, *self.validation)))


def finite(value: float) -> float | None:
    """A number for JSON; None for one that isn't finite."""
    return value if math.isfinite(value) else None


def loss_of(split: Split) -> Loss:
    """Cross-entropy for classes, mean squared error for values."""
    return F.mse_loss if split.y.is_floating_point() else F.cross_entropy


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Split,
    *,
    batch: int,
    seed: int,
    epochs: int | None = None,
    steps: int | None = None,
    loss: Loss | None = None,
    validation: Split | None = None,
    scheduler: ScheduledLR | None = None,
    penalty: Callable[[], Tensor] | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    each_step: Callable[[int], None] | None = None,
    each_epoch: Callable[[int, History], bool | None] | None = None,
    history: History | None = None,
    keep_losses: bool = True,
    drop_last: bool = False,
) -> History:
    """Train; what was seen comes back. Stops by itself when the loss is no longer finite.

    Each epoch goes through the rows in an order of its own, made from (seed, epoch) alone, so that a run goes on from
    any epoch as if it had never stopped. Dropout and the like draw from torch's own numbers: train within `seeded`.

    Args:
        model: on the CPU.
        optimizer: one of gradwise's or torch's.
        train: rows to train on. Images in channels-last order stay so.
        batch: rows of a step; the last of an epoch may have fewer. `len(train)` or more is full batch.
        seed: of the order of rows.
        epochs: how many; or
        steps: how many optimizer steps.
        loss: (output, target) -> mean loss; by default `loss_of(train)`.
        validation: measured after each epoch.
        scheduler: from `gradwise.schedules.attach`: stepped after each step; a plateau gets each validation loss.
        penalty: added to the loss in training; not in what is recorded of it.
        augment: changes a batch of inputs in training.
        each_step: called with the number of steps taken, after each step (gradients are still there).
        each_epoch: called with the number of epochs done and the history; returning True stops.
        history: of the epochs before, to go on from.
        keep_losses: whether `History.losses` gets each step's loss.
        drop_last: leave out the rows of an epoch that make no whole batch.
    """
    loss = loss or loss_of(train)
    history = history or History()
    rows, take = len(train), _taking(train.x)
    per_epoch = rows // batch if drop_last else math.ceil(rows / batch)
    last = steps if steps is not None else (epochs or 0) * per_epoch
    model.train()
    while history.steps < last:
        epoch = history.steps // per_epoch
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        total = count = 0.0
        for chosen in torch.split(order, batch)[: min(per_epoch, last - history.steps)]:
            x, y = take(chosen), train.y[chosen]
            optimizer.zero_grad()
            value = loss(model(augment(x) if augment else x), y)
            (value + penalty() if penalty else value).backward()  # type: ignore[no-untyped-call]
            rate = float(optimizer.param_groups[0]["lr"]) if not callable(optimizer.param_groups[0]["lr"]) else math.nan
            optimizer.step()
            history.steps += 1
            if scheduler is not None:
                scheduler.step()
            seen = value.item()
            total, count = total + seen * len(chosen), count + len(chosen)
            if keep_losses:
                history.losses.append(seen)
            if each_step is not None:
                each_step(history.steps)
            if not math.isfinite(seen):
                history.train.append(seen)
                return history
        history.train.append(total / count)
        history.lr.append(rate)
        if validation is not None:
            value_loss, accuracy = evaluate(model, validation, loss)
            history.validation.append(value_loss)
            history.accuracy.append(accuracy)
            if isinstance(scheduler, PlateauLR):
                scheduler.step(value_loss)
        if each_epoch is not None and each_epoch(epoch + 1, history):
            break
    return history


@torch.no_grad()
def evaluate(model: nn.Module, split: Split, loss: Loss | None = None, batch: int = 1000) -> tuple[float, float]:
    """Mean loss and accuracy over a split, in eval mode; the accuracy is NaN where targets are values."""
    loss, take = loss or loss_of(split), _taking(split.x)
    was_training = model.training
    model.eval()
    total = right = 0.0
    for chosen in torch.split(torch.arange(len(split)), batch):
        output, y = model(take(chosen)), split.y[chosen]
        total += loss(output, y).item() * len(chosen)
        right += math.nan if y.is_floating_point() else (output.argmax(-1) == y).sum().item()
    model.train(was_training)
    return total / len(split), right / len(split)


def _taking(x: Tensor) -> Callable[[Tensor], Tensor]:
    """Rows by number. Those of images in channels-last order stay in it, which indexing alone wouldn't keep."""
    if x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        last = x.permute(0, 2, 3, 1)
        return lambda rows: last.index_select(0, rows).permute(0, 3, 1, 2)
    return lambda rows: x.index_select(0, rows)
