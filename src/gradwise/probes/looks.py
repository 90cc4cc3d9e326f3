"""Looks: norms, promised progress and cosines of one set of tensors, at the steps that are looked at."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwise.probes.recorder import Channel, Recorder
from gradwise.probes.vectors import Layout, Vector, number_of
from gradwise.recording import signals

if TYPE_CHECKING:
    from torch import Tensor

_PER_TENSOR = (signals.PARAMETER, signals.UPDATE, signals.TRAVEL, signals.GRADIENT, signals.PROGRESS, signals.PULL)


class Looks:
    """The looks at the tensors of one optimizer.

    A look at step n gathers the parameters and gradients before the step and the parameters after it. The gradient of
    the step that follows is compared with it: whether it points the same way, and what it says of the change made.

    Args:
        names: asked for the tensors' names when there are others than before.

    Attributes:
        open_at: the step that is being looked at, -1 between looks.
        following: whether the next gradient is to be compared with the last look's.
        bad_gradients: names of the tensors whose gradient was not finite at the last look that saw one.
        cost: seconds spent on the latest look.
    """

    def __init__(self, recorder: Recorder, source: int, names: Callable[[], Sequence[str]]) -> None:
        self.recorder, self.source, self._names_now = recorder, source, names
        self.open_at = -1
        self.following = False
        self.bad_gradients: list[str] = []
        self.cost = 0.0
        self.layout = Layout(())
        self.gradient: Vector | None = None
        self.change: Vector | None = None
        self._names: tuple[str, ...] = ()
        self._numels: tuple[int, ...] = ()
        self._square = 0.0
        self._theta: Vector | None = None
        self._start: Vector | None = None
        self._channels: list[Channel] = []
        self._overall: list[Channel] = []

    def open(self, step: int, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None], scale: float) -> None:
        """Before step `step`: gather parameters and gradients (divided by `scale`)."""
        numels = tuple([p.numel() for p in parameters])
        if numels != self._numels:
            self._numels = numels
            self._settle_on(parameters)
        self.following = False
        self.open_at = step
        if any(g is not None for g in gradients):
            self._theta, gradient = self.layout.gather(parameters, gradients)
            self.gradient = gradient if scale == 1.0 else gradient / scale
        else:
            (self._theta,), self.gradient = self.layout.gather(parameters), None
        if self._start is None:
            self._start = self._theta.copy()

    def _settle_on(self, parameters: Sequence[Tensor]) -> None:
        self.layout, self._start = Layout([number_of(p) for p in parameters]), None
        self._names = tuple(self._names_now())
        self._channels = []

    def close(self, parameters: Sequence[Tensor], told: Sequence[Any] | None = None) -> None:
        """After the step: gather the parameters again and record what the step did.

        `told` is what the optimizer itself found of each tensor in its pass: sums over all elements, where ours of a
        large tensor are over a sample.
        """
        step, theta, self._theta, self.open_at = self.open_at, self._theta, None, -1
        if theta is None or self._start is None or len(parameters) != len(self._numels):
            return
        sums, gradient = self.layout.sums, self.gradient
        with np.errstate(all="ignore"):
            (after,) = self.layout.gather(parameters)
            self.change = change = after - theta
            moved = theta - self._start
            values = [np.sqrt(sums(v, v)) for v in (theta, change, moved)]
            if told is not None:
                values[:2] = [np.sqrt([t.parameter for t in told]), np.sqrt([t.update for t in told])]
            if gradient is not None:
                squares = sums(gradient, gradient) if told is None else np.array([t.gradient for t in told])
                self._square = float(squares.sum())
                values += [np.sqrt(squares), -sums(gradient, change), -sums(gradient, theta)]
                if not math.isfinite(self._square):
                    self.bad_gradients = [self._names[i] for i in self.layout.bad(gradient)]
        for channel, numbers in zip(self._channels or self._declare(), values, strict=False):
            channel.add(step, *numbers.tolist())
        self.following = gradient is not None

    def drop(self) -> None:
        """Forget a look that was begun: the tensors are others now."""
        self.open_at, self.following, self._theta = -1, False, None

    def _declare(self) -> list[Channel]:
        channel, source = self.recorder.channel, self.source
        self._channels = [channel(signal, source, self._names) for signal in _PER_TENSOR]
        self._overall = [channel(signal, source) for signal in (signals.COSINE, signals.KEPT)]
        return self._channels

    def follow(self, step: int, gradients: Sequence[Tensor | None], scale: float) -> None:
        """Before the step after a look: compare its gradient with the look's."""
        self.following = False
        before, change, layout = self.gradient, self.change, self.layout
        if before is None or change is None or len(gradients) != len(self._numels):
            return
        if all(g is None for g in gradients):
            return
        with np.errstate(all="ignore"):
            (after,) = layout.gather(gradients)
            if scale != 1.0:
                after /= scale
            lengths = math.sqrt(self._square) * math.sqrt(layout.dot(after, after))
            cosine, kept = self._overall
            cosine.add(step, layout.dot(after, before) / lengths if lengths > 0 else math.nan)
            kept.add(step, -layout.dot(after, change))

    def descent(self) -> tuple[float, float]:
        """How the last step went with its gradient: cosine of -dx and g, and rate <-dx, g>/<g, g>; NaN if unknown."""
        gradient, change = self.gradient, self.change
        if gradient is None or change is None:
            return math.nan, math.nan
        with np.errstate(all="ignore"):
            along = self.layout.dot(-change, gradient)
            return self.layout.cosine(-change, gradient), along / self._square if self._square > 0 else math.nan


def warm_up(torch: ModuleType) -> None:
    """Look once at nothing, before training starts: a first look costs several times what later ones do."""
    tensors = [torch.zeros(4, device="cpu"), torch.zeros(2, device="cpu")]
    looks = Looks(Recorder(_Nowhere()), 0, lambda: ("", ""))
    looks.open(0, tensors, tensors, 1.0)
    looks.close(tensors)
    looks.follow(1, tensors, 1.0)


class _Nowhere:
    """A sink for points that nobody wants."""

    def message(self, kind: str, data: Mapping[str, Any]) -> None: ...

    def series(self, signal: str, source: int, labels: Sequence[str] = ()) -> int:
        return 0

    def points(self, series: int, steps: array[int], values: array[float]) -> None: ...

    def flush(self) -> None: ...
