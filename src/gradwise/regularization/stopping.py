"""Early stopping as a pure step from (state, metric) to (state, stop)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal


@dataclass(frozen=True)
class StoppingState:
    """All that is remembered between two values of the metric.

    Attributes:
        seen: how many values there were.
        best: the best of them; None before the first.
        best_at: which it was, counted from 0; None before the first.
    """

    seen: int = 0
    best: float | None = None
    best_at: int | None = None

    @property
    def wait(self) -> int:
        """How many values in a row were no better than the best."""
        return self.seen if self.best_at is None else self.seen - 1 - self.best_at

    def to_json(self) -> dict[str, Any]:
        """The state as a JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(data: Any) -> StoppingState:
        """The state that a JSON object describes; ValueError if it describes none."""
        names = [f.name for f in fields(StoppingState)]
        if not isinstance(data, Mapping) or sorted(data) != sorted(names):
            raise ValueError(f"the state of early stopping has {', '.join(names)}; got {data!r}")
        seen, best, at = (data[name] for name in names)
        if type(seen) is not int or not (at is best is None or (type(at) is int and 0 <= at < seen)):
            raise ValueError(f"the state of early stopping makes no sense: {data!r}")
        if best is not None and (isinstance(best, bool) or not isinstance(best, int | float)):
            raise ValueError(f"the state of early stopping: best must be a number, got {best!r}")
        return StoppingState(seen, best, at)


@dataclass(frozen=True)
class Stopping:
    """What `early_stopping` makes: `state, stop = stopping(state, metric)`, beginning with `stopping.start`."""

    patience: int
    min_delta: float
    mode: str

    @property
    def start(self) -> StoppingState:
        """The state before the first metric."""
        return StoppingState()

    def __call__(self, state: StoppingState, metric: float) -> tuple[StoppingState, bool]:
        """The state after one more value of the metric, and whether to stop. NaN is no better than anything."""
        sign = 1 if self.mode == "min" else -1
        value = float(metric)
        level = math.inf if state.best is None else sign * state.best - self.min_delta
        if sign * value < level:
            state = StoppingState(state.seen + 1, value, state.seen)
        else:
            state = StoppingState(state.seen + 1, state.best, state.best_at)
        return state, state.wait >= self.patience


def early_stopping(patience: int = 10, min_delta: float = 0.0, mode: Literal["min", "max"] = "min") -> Stopping:
    """Stop when a metric has not improved for `patience` values in a row.

    A value is better if it is below best − min_delta (mode "max": above best + min_delta), as in Keras.

    Args:
        patience: how many values to wait, at least 1.
        min_delta: how much counts as better, in the metric's unit, at least 0.
        mode: whether the metric is to be low ("min") or high ("max").

    Returns:
        A pure function (state, metric) → (state, whether to stop). `state.best_at` tells which value was the best, so
        that its weights can be taken; `state.to_json()` goes into a checkpoint.

    Raises:
        ValueError: a value that makes no sense.

    Example:
        >>> stopping = early_stopping(patience=2)
        >>> state = stopping.start
        >>> for loss in (1.0, 0.8, 0.9, 0.8):
        ...     state, stop = stopping(state, loss)
        >>> stop, state.best_at
        (True, 1)

    Source:
        Prechelt, Early stopping – but when?, 1998.
    """
    if type(patience) is not int or patience < 1:
        raise ValueError(f"early_stopping: patience must be an integer of at least 1, got {patience!r}")
    if not min_delta >= 0:
        raise ValueError(f"early_stopping: min_delta must be at least 0, got {min_delta!r}")
    if mode not in ("min", "max"):
        raise ValueError(f"early_stopping: mode must be 'min' or 'max', got {mode!r}")
    return Stopping(patience, min_delta, mode)
