"""The targets that steps train on: how many rows of each class, or their mean and spread, for runs of steps in a row.

Batches drawn at random differ by chance alone; batches that follow an order in the data (sorted by class, by time)
differ by more, and in the same way every epoch. What a step's targets look like is noted where a loss function of
torch's is called in training; the numbers are few, and taken as often as the budget allows.
"""

from __future__ import annotations

import math
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwise.probes import places
from gradwise.probes.recorder import Recorder
from gradwise.probes.sampling import FRACTION, Meter
from gradwise.recording import signals

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# Loss functions whose target is a class, or one number or more a row. In others "the target" means something else.
_CLASSES = {"cross_entropy", "nll_loss", "multi_margin_loss"}
_NUMBERS = {
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "gaussian_nll_loss", "huber_loss", "l1_loss",
    "mse_loss", "poisson_nll_loss", "smooth_l1_loss", "soft_margin_loss",
}  # fmt: skip
# More classes than this are counted in bands of neighbouring ones: an order by class shows in bands too.
BANDS = 16
# Up to so many are counted one by one besides, over all steps together: what a guess by their frequencies loses.
_EACH = 4096
# Rows looked at of one target, loss functions followed, steps noted of each.
_ROWS, _FUNCTIONS, _STEPS = 2048, 4, 4096
# Of the budget for all probes, and beyond it.
_SHARE, _CREDIT = 0.12, 2e-3
# Calls noted in a row: at first, so that a short epoch's order shows, and later; calls let pass where that's too dear.
_FIRST, _RUN = 128, 32
MOMENTS = ("count", "mean", "variance")


class Targets:
    """Notes targets.

    Attributes:
        wait: calls of loss functions to let pass before the next is noted; counted down by the caller.
    """

    def __init__(self, torch: ModuleType, recorder: Recorder, meter: Meter) -> None:
        self.torch, self.recorder, self.meter = torch, recorder, meter
        self.wait = 0
        # Within vmap, grad and their like a tensor stands for others and can't be read.
        functorch = getattr(torch._C, "_functorch", None)
        self._transformed = getattr(functorch, "peek_interpreter_stack", lambda: None)
        self._left = _FIRST
        self._spent = 0.0
        self._sums: dict[str, _Sum] = {}
        self._waiting: list[tuple[_Sum, int, Any]] = []

    def see(
        self,
        name: str,
        given: Tensor,
        target: Tensor,
        step: int,
        plain: bool,
        by_hand: float | None = None,
        paid: bool = False,
    ) -> None:
        """A loss function's output and target, before optimizer step `step`.

        Args:
            name: the function.
            given: the output.
            target: the target.
            step: steps made.
            plain: whether the loss is neither weighted nor smoothed, so that the targets' entropy (variance) is what a
                model that knows nothing gets.
            by_hand: where the loss is written out by hand, what it is over this function's mean.
            paid: whether someone else has asked for it and pays.
        """
        began = perf_counter()
        if not paid and not self.affords(step):
            return
        try:
            self._see(name, given, target, step, plain, by_hand)
        except BaseException:
            self.wait = 1 << 60  # not again: what can't be read once can't be read later
            raise
        finally:
            if not paid:
                cost = perf_counter() - began
                self._spent += cost
                self.meter.spent += cost

    def affords(self, step: int) -> bool:
        """Whether the next target may be noted; if not, some are let pass."""
        if not self._affordable(perf_counter(), step):
            self.wait, self._left = _RUN, 0
            return False
        self._left = self._left or _RUN
        self._left -= 1
        return True

    def charge(self, seconds: float) -> None:
        """What it took to get at a target comes out of this share of the budget."""
        self._spent += seconds

    def _see(self, name: str, given: Tensor, target: Tensor, step: int, plain: bool, by_hand: float | None) -> None:
        if name not in _CLASSES and name not in _NUMBERS:
            return
        if type(target) is not self.torch.Tensor or target.requires_grad or not target.numel() or not given.dim():
            return
        if self._transformed() is not None:
            return
        total = self._sums.get(name)
        if total is None:
            if len(self._sums) >= _FUNCTIONS:
                return
            total = self._sums[name] = self._begin(len(self._sums), name, given, target, plain, by_hand)
        if total.steps >= _STEPS:
            if all(t.steps >= _STEPS for t in self._sums.values()):
                self.wait = 1 << 60
            return
        if target.is_cpu:
            total.add(step, _numbers(target, total.indices), self.recorder)
        elif not self.torch.cuda.is_current_stream_capturing() if target.is_cuda else True:
            # Reading it now would wait for the device: a copy of a sample is read later, many at a time.
            kept = target.detach()[:: math.ceil(target.shape[0] / 256)] if target.dim() else target.detach()
            self._waiting.append((total, step, kept.clone()))

    def _begin(self, source: int, name: str, given: Tensor, target: Tensor, plain: bool, by_hand: float | None) -> _Sum:
        classes = int(given.shape[1 if given.dim() > 1 else 0]) if name in _CLASSES else 0
        indices = bool(classes) and not target.is_floating_point()
        width = 1 if indices else target.numel() // max(int(target.shape[0]) if target.dim() else 1, 1)
        data: dict[str, Any] = {"loss": name, "classes": classes, "width": width, "plain": plain}
        if by_hand is not None:
            data |= {"by_hand": True, "scale": by_hand}
        place = places.here() if by_hand is None else places.assigned()
        if place is not None:
            data["place"] = {"file": place.file, "line": place.line, "text": place.text}
        self.recorder.event("targets", source=source, data=data)
        return _Sum(source, classes, indices)

    def _affordable(self, now: float, step: int) -> bool:
        meter = self.meter
        loop = now - meter.began if meter.began else 0.0
        return meter.free or self._spent <= _SHARE * max(FRACTION * loop, meter.per_step * step) + _CREDIT

    def hand_on(self) -> None:
        """Read what waits on a device."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            flat = self.torch.cat([kept.reshape(-1).double() for _, _, kept in waiting]).cpu().numpy()
            for total, step, kept in waiting:
                mine, flat = flat[: kept.numel()].reshape(tuple(kept.shape)), flat[kept.numel() :]
                total.add(step, mine.astype(np.int64) if total.indices else mine, self.recorder)

    def finish(self) -> None:
        """Record the step that was begun last."""
        self.hand_on()
        for total in self._sums.values():
            total.close(self.recorder)
            if (entropy := total.entropy()) is not None:
                self.recorder.event("targets-entropy", source=total.source, data={"entropy": entropy})


class _Sum:
    """The targets of one loss function, summed over its calls before one step."""

    def __init__(self, source: int, classes: int, indices: bool) -> None:
        self.source, self.classes, self.indices = source, classes, indices
        self.steps = 0
        self._step = -1
        self._counts: NDArray[Any] | None = None
        self._each = np.zeros(classes) if indices and BANDS < classes <= _EACH else None
        self._moments = (0.0, 0.0, 0.0)
        self._labels = tuple(str(i) for i in range(min(classes, BANDS))) if classes else MOMENTS

    def add(self, step: int, target: NDArray[Any], recorder: Recorder) -> None:
        """One call's target: class indices, probabilities per class (in dimension 1), or numbers."""
        if step != self._step:
            self.close(recorder)
            self._step = step
        if self.classes:
            counts = self._count(target)
            self._counts = counts if self._counts is None else self._counts + counts
        else:
            wide = target.ndim > 1 and target.size > target.shape[0]
            rows = target.reshape(target.shape[0], -1).mean(axis=1) if wide else target.reshape(-1)
            self._moments = _merged(self._moments, _moments(rows.astype(np.float64)))

    def _count(self, target: NDArray[Any]) -> NDArray[Any]:
        bands = len(self._labels)
        if self.indices:
            flat = target.reshape(-1)
            if self._each is not None:
                self._each += np.bincount(flat[(flat >= 0) & (flat < self.classes)], minlength=self.classes)
            if bands < self.classes:
                flat = flat * bands // self.classes
            try:
                return np.bincount(flat, minlength=bands)[:bands]
            except ValueError:  # below 0 are those that the loss ignores
                return np.bincount(flat[flat >= 0], minlength=bands)[:bands]
        share = target.sum(axis=tuple(i for i in range(target.ndim) if i != (1 if target.ndim > 1 else 0)))
        where = np.arange(len(share)) * bands // max(self.classes, 1)
        return np.bincount(np.clip(where, 0, bands - 1), weights=share, minlength=bands)

    def entropy(self) -> float | None:
        """Of many classes, in nats, where they were counted one by one."""
        if self._each is None or not self._each.any():
            return None
        shares = self._each[self._each > 0] / self._each.sum()
        return float(-(shares * np.log(shares)).sum())

    def close(self, recorder: Recorder) -> None:
        """Record the step that is open, if one is."""
        if self._step < 0:
            return
        if self.classes:
            values = [] if self._counts is None else self._counts.tolist()
            if values:
                recorder.point(signals.CLASSES, self.source, self._step, values, self._labels)
        elif self._moments[0]:
            recorder.point(signals.TARGET, self.source, self._step, self._moments, self._labels)
        self.steps += 1
        self._step, self._counts, self._moments = -1, None, (0.0, 0.0, 0.0)


def _numbers(target: Tensor, indices: bool) -> NDArray[Any]:
    """A target on the CPU as numbers, evenly spaced rows of it where there are many."""
    target = target.detach()
    if target.dim() and target.shape[0] > _ROWS:
        target = target[:: math.ceil(target.shape[0] / _ROWS)]
    if indices:
        return target.numpy()
    return target.numpy() if target.element_size() >= 4 and target.is_floating_point() else target.float().numpy()


def _moments(rows: NDArray[Any]) -> tuple[float, float, float]:
    n = len(rows)
    mean = float(rows.sum()) / n
    rows = rows - mean
    return float(n), mean, float(rows @ rows) / n


def _merged(a: tuple[float, float, float], b: tuple[float, float, float]) -> tuple[float, float, float]:
    """Count, mean and variance of two sets together."""
    if not a[0]:
        return b
    n = a[0] + b[0]
    shift = b[1] - a[1]
    mean = a[1] + shift * b[0] / n
    return n, mean, (a[0] * a[2] + b[0] * b[2] + a[0] * b[0] / n * shift**2) / n
