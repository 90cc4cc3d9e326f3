"""Whether inputs say anything about their labels: a small sample of both, gathered in examinations and between them.

Two simple predictors are tried on the sample, each without the row it predicts: nearest neighbours and a linear model.
What they reach is a floor under what a network should: where they do far better than the network, it is the network
(or its training) that fails; where neither does better than chance, the labels may not belong to these inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwise.probes.examinations import Exam
from gradwise.probes.inputs import find_batch
from gradwise.probes.losses import LossCalls
from gradwise.probes.recorder import Recorder
from gradwise.probes.sampling import FRACTION, Meter

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# Rows and features kept. Distances between all rows take some milliseconds at this size.
_ROWS, _PER_BATCH, _FEATURES = 768, 128, 128
_LEAST = 60
_NEIGHBOURS = 5
# Classes beyond this leave too few rows each; of targets with many columns some are looked at.
_CLASSES, _COLUMNS = 64, 16
# Examinations are dear, and a short run has few: between them rows are taken within this part of the budget.
_SHARE, _CREDIT = 0.1, 1e-3
# Rows are taken from ever rarer passes, so that batches in an order are not all of its beginning.
_DENSE = 4


class Pairs:
    """Gathers rows of the first input with their targets; tries at the end how well the one predicts the other.

    Args:
        losses: know the last target.
        meter: its budget is shared.
        known: whether that is the target of the loss about to be differentiated, and not one left over from another.

    Attributes:
        due: the backward pass (counted from 0) from which on rows are to be taken between examinations.
    """

    def __init__(
        self, torch: ModuleType, recorder: Recorder, losses: LossCalls, meter: Meter, known: Callable[[], bool]
    ) -> None:
        self.torch, self.recorder, self.losses, self.meter, self.known = torch, recorder, losses, meter, known
        self.due = 1
        self._taken = 0
        self._spent = self._cost = 0.0
        self._inputs: list[NDArray[Any]] = []
        self._targets: list[NDArray[Any]] = []
        self._rows = 0
        self._whole = True
        self._over = False

    def before(self, exam: Exam) -> None:
        """Take some rows of the batch."""
        if not self._over and self._rows < _ROWS and self.known():
            self._take(exam.losses)

    def between(self, backward: int, steps: int, losses: Sequence[Tensor]) -> None:
        """The same before a backward pass that is not examined."""
        if not self.known():
            self.due = 2 * backward
            return
        if self._over or self._rows >= _ROWS or not losses[0].is_cpu:  # on a device, reading rows would wait for it
            self.due = 1 << 60
            return
        meter, began = self.meter, perf_counter()
        budget = max(FRACTION * (began - meter.began), meter.per_step * steps)
        if not meter.free and self._spent + self._cost > _SHARE * budget + _CREDIT:
            self.due = backward + _DENSE
            return
        self._take(losses)
        self._taken += 1
        self.due = backward + 1 + self._taken // _DENSE
        self._cost = perf_counter() - began
        self._spent += self._cost

    def _take(self, losses: Sequence[Tensor]) -> None:
        (batch, _), target = find_batch(losses), self.losses.last()[1]
        if batch is None or target is None or type(target) is not self.torch.Tensor or target.requires_grad:
            return
        n = int(batch.shape[0])
        if not n or not target.dim() or target.shape[0] != n or not target.numel():
            return
        if target.numel() != n and not target.is_floating_point():
            return  # labels of a row's parts
        rows = slice(None, None, math.ceil(n / _PER_BATCH))
        with self.torch.no_grad():
            x, y = _sample(batch, rows), target.detach()[rows].reshape(len(target[rows]), -1)
            y = y[:, :: math.ceil(y.shape[1] / _COLUMNS)].double().cpu().numpy()
        if self._inputs and (x.shape[1], y.shape[1]) != (self._inputs[0].shape[1], self._targets[0].shape[1]):
            self._over = True  # sequences of all lengths: features don't correspond
            return
        self._whole = self._whole and not target.is_floating_point()
        self._inputs.append(x)
        self._targets.append(np.array(y, copy=True))
        self._rows += len(x)

    def after(self, exam: Exam) -> None:
        """Nothing more."""

    def finish(self) -> None:
        """Try the predictors on all there is."""
        if not self._over and self._rows >= _LEAST:
            self._record()

    def _record(self) -> None:
        x, y = np.concatenate(self._inputs), np.concatenate(self._targets)
        good = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
        data = assess(x[good], y[good], self._whole)
        if data:
            self.recorder.event("pairs", data=data)


def _sample(batch: Tensor, rows: slice) -> NDArray[Any]:
    """Some rows of a batch and evenly spaced features of them."""
    flat = batch.detach()[rows].flatten(1) if batch.dim() > 1 else batch.detach()[rows].reshape(-1, 1)
    flat = flat[:, :: math.ceil(flat.shape[1] / _FEATURES)]
    # Copied: a view would keep the script's tensor alive.
    return np.array(flat.float().cpu().numpy(), dtype=np.float32, copy=True)


def assess(x: NDArray[Any], y: NDArray[Any], whole: bool = False) -> dict[str, Any]:
    """How well rows `x` (n, features) predict `y` (n,) or (n, columns); {} where there is too little to tell.

    `whole` says that targets are class indices; numbers that are all 0 or 1 are classes as well.
    """
    # A row met twice (in two epochs) would be its own nearest neighbour.
    x, first = np.unique(x, axis=0, return_index=True)
    y, x = y[first], x.astype(np.float64)
    if len(y) < _LEAST:
        return {}
    x = x[:, x.std(axis=0) > 1e-12 * np.abs(x).max(initial=1e-300)]
    if not x.shape[1]:
        return {}
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    near = _nearest(x)
    data: dict[str, Any] = {"rows": len(y), "features": x.shape[1]}
    y = y.reshape(len(y), -1)
    kinds, labels = np.unique(y[:, 0], return_inverse=True)
    if whole or (y.shape[1] == 1 and len(kinds) == 2 and set(kinds.tolist()) <= {0.0, 1.0}):
        if not 2 <= len(kinds) <= _CLASSES:
            return {}
        return data | {"classes": len(kinds)} | _on_classes(x, labels, len(kinds), near)
    if not y.std(axis=0).any():
        return {}
    data |= {"columns": y.shape[1], "variance": float(y.var(axis=0).mean())}
    data["deviation"] = float(np.abs(y - np.median(y, axis=0)).mean())
    return data | {"classes": 0} | _on_numbers(x, y[:, y.std(axis=0) > 0], near)


def _on_classes(x: NDArray[Any], labels: NDArray[Any], classes: int, near: NDArray[Any]) -> dict[str, Any]:
    n = len(labels)
    shares = np.bincount(labels, minlength=classes) / n
    one_hot = np.eye(classes)[labels]
    # Pairs of neighbours with the same label: of independent ones, as many as of any two rows.
    expected = float((shares * (shares * n - 1) / (n - 1)).sum())
    agreeing = float((labels[near] == labels[:, None]).mean())
    # Half of the neighbours at worst are neighbours of each other: n k / 2 pairs are independent.
    error = math.sqrt(max(expected * (1 - expected), 1e-12) * 2 / near.size)
    votes = one_hot[near].mean(axis=1)
    linear = _left_out(x, one_hot - shares) + shares
    most = float(shares.max())
    right = float((linear.argmax(axis=1) == labels).mean())
    return {
        "entropy": float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum()),
        "chance": most,
        "neighbours": float((votes.argmax(axis=1) == labels).mean()),
        "neighbours_z": (agreeing - expected) / error,
        "linear": right,
        "linear_z": (right - most) / math.sqrt(max(most * (1 - most), 1e-12) / n),
        "linear_agrees_z": _agreement(one_hot - shares, linear - shares),
    }


def _on_numbers(x: NDArray[Any], y: NDArray[Any], near: NDArray[Any]) -> dict[str, Any]:
    y = (y - y.mean(axis=0)) / y.std(axis=0)
    n = len(y)
    # The share of the variance that is left when a row is predicted from others.
    neighbours, linear = y[near].mean(axis=1), _left_out(x, y)
    # Neighbours are each other's at worst: their products are half as many as they seem. Columns that say the same
    # count once: of unrelated rows, sum y . y' has the variance tr(C^2).
    error = math.sqrt(2 * n / _NEIGHBOURS * float(((y.T @ y / n) ** 2).sum()))
    return {
        "neighbours_left": float(np.mean((y - neighbours) ** 2)),
        "neighbours_z": float((y * neighbours).sum()) / error,
        "linear_left": float(np.mean((y - linear) ** 2)),
        "linear_z": _agreement(y, linear),
    }


def _agreement(y: NDArray[Any], guess: NDArray[Any]) -> float:
    """How many standard errors `guess` (n, k) agrees with `y` (n, k), both about 0, beyond chance.

    A relation too weak to make any row's best guess another one, or to take much off the squares, shows in this.
    """
    spread = np.einsum("ij,jk,ik->", guess, y.T @ y / len(y), guess, optimize=True)
    return float((y * guess).sum() / math.sqrt(spread)) if spread > 0 else 0.0


def _nearest(x: NDArray[Any]) -> NDArray[Any]:
    squares = (x**2).sum(axis=1)
    distance = squares[:, None] + squares - 2 * x @ x.T
    np.fill_diagonal(distance, np.inf)
    return np.argpartition(distance, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]


def _left_out(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """Ridge regression of `y` on `x`, each row predicted from the others."""
    n, d = x.shape
    inverse = np.linalg.inv(x.T @ x + 0.1 * n * np.eye(d))
    fitted = x @ (inverse @ (x.T @ y))
    leverage = np.einsum("ij,jk,ik->i", x, inverse, x, optimize=True)[:, None]
    guess: NDArray[Any] = (fitted - leverage * y) / np.maximum(1 - leverage, 1e-9)
    return guess
