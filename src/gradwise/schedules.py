"""Schedules: a dimensionless factor as a pure function of the step (design idea 2).

`factor = schedule(step)` for an int (a float comes back) or an integer array (an array comes back). 1 means the
script's own rate. A schedule is frozen, hashable, prints as the code that makes it and round-trips through JSON.

    >>> from gradwise.schedules import constant, cosine
    >>> s = constant(1.0, steps=100) >> cosine(300, end=0.01)
    >>> s(0), s(100), round(s(400), 4)
    (1.0, 1.0, 0.01)
    >>> Schedule.from_json(s.to_json()) == s
    True
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Schedule:
    """A named function of the step with its arguments; `length` is where it ends, None where it has no end."""

    name: str
    arguments: tuple[tuple[str, float | int | None], ...] = ()
    parts: tuple[Schedule, ...] = ()

    @overload
    def __call__(self, step: int) -> float: ...
    @overload
    def __call__(self, step: NDArray[np.int64]) -> Array: ...
    def __call__(self, step: int | NDArray[np.int64]) -> float | Array:
        """The factor at `step` (optimizer steps from 0; before 0 it is the factor at 0)."""
        t = np.maximum(np.asarray(step, dtype=np.int64), 0)
        value = self._then(t) if self.name == "then" else _FORMULAS[self.name](t, **dict(self.arguments))
        return float(value) if np.ndim(step) == 0 else np.broadcast_to(value, t.shape).astype(np.float64)

    def __rshift__(self, other: Schedule) -> Schedule:
        """This schedule to its end, then `other` from its own step 0."""
        if self.length is None:
            raise ValueError(f"{self!r} has no end, so nothing can follow it: give it `steps=`")
        return Schedule("then", (), (*self._flat(), *other._flat()))

    @property
    def length(self) -> int | None:
        """Steps until the schedule stands still; None where it never ends."""
        if self.name == "then":
            lengths = [p.length for p in self.parts]
            return None if lengths[-1] is None else sum(n for n in lengths if n is not None)
        steps = dict(self.arguments).get("steps")
        return None if steps is None else int(steps)

    def held(self) -> tuple[int, Schedule]:
        """How many steps the factor stays 1 at first, and what follows then (from its own step 0)."""
        first, *rest = self._flat()
        if rest and first.name == "constant" and dict(first.arguments)["factor"] == 1.0:
            return first.length or 0, rest[0] if len(rest) == 1 else Schedule("then", (), tuple(rest))
        return 0, self

    def to_json(self) -> dict[str, Any]:
        """The schedule as a JSON object, `{"cosine": {"steps": 300, "end": 0.01}}`."""
        if self.name == "then":
            return {"then": [p.to_json() for p in self.parts]}
        return {self.name: dict(self.arguments)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Schedule:
        """The schedule a JSON object describes; raises ValueError naming what it does not know."""
        if len(data) != 1:
            raise ValueError(f"a schedule is an object with one key, its name; got {sorted(data)}")
        ((name, arguments),) = data.items()
        if name == "then":
            return Schedule("then", (), tuple(Schedule.from_json(p) for p in arguments))
        if name not in _MAKERS:
            raise ValueError(f"unknown schedule {name!r}; known: {', '.join(sorted(_MAKERS))}, then")
        try:
            return _MAKERS[name](**arguments)
        except TypeError as error:
            raise ValueError(f"schedule {name!r}: {error}") from None

    def __repr__(self) -> str:
        if self.name == "then":
            return " >> ".join(map(repr, self.parts))
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.arguments)})"

    def _flat(self) -> tuple[Schedule, ...]:
        return self.parts if self.name == "then" else (self,)

    def _then(self, t: NDArray[np.int64]) -> Array:
        value = np.zeros(t.shape)
        start = 0
        for part in self.parts:
            value = np.where(t >= start, part(np.atleast_1d(t - start)).reshape(t.shape), value)
            start += part.length or 0
        return value


def constant(factor: float = 1.0, steps: int | None = None) -> Schedule:
    """`factor` throughout (for `steps` steps where something follows)."""
    return Schedule("constant", (("factor", factor), ("steps", steps)))


def cosine(steps: int, end: float = 0.0) -> Schedule:
    """Half a cosine from 1 to `end` over `steps` steps, then `end` (Loshchilov & Hutter 2017, one cycle of SGDR)."""
    _positive("cosine", steps)
    return Schedule("cosine", (("steps", steps), ("end", end)))


def step(every: int, factor: float) -> Schedule:
    """Times `factor` after every `every` steps: factor^⌊t/every⌋ (S1)."""
    _positive("step", every)
    return Schedule("step", (("every", every), ("factor", factor)))


def inverse_time(rate: float, decay_steps: int = 1) -> Schedule:
    """1/(1 + rate·t/decay_steps) (S4)."""
    _positive("inverse_time", decay_steps)
    return Schedule("inverse_time", (("rate", rate), ("decay_steps", decay_steps)))


def exponential(rate: float, decay_steps: int = 1) -> Schedule:
    """rate^(t/decay_steps) (S2); rate above 1 grows, which is what a range test needs."""
    _positive("exponential", decay_steps)
    return Schedule("exponential", (("rate", rate), ("decay_steps", decay_steps)))


def warmup(steps: int) -> Schedule:
    """Linear from 1/steps to 1 over `steps` steps, then 1."""
    _positive("warmup", steps)
    return Schedule("warmup", (("steps", steps),))


def _positive(name: str, steps: int) -> None:
    if steps < 1:
        raise ValueError(f"{name}: needs at least 1 step, got {steps}")


def _cosine(t: NDArray[np.int64], steps: int, end: float) -> Array:
    return np.asarray(end + (1 - end) * 0.5 * (1 + np.cos(np.pi * np.minimum(t, steps) / steps)))


_FORMULAS: dict[str, Callable[..., Array]] = {
    "constant": lambda t, factor, steps: np.full(t.shape, float(factor)),
    "cosine": _cosine,
    "step": lambda t, every, factor: np.asarray(float(factor) ** (t // every)),
    "inverse_time": lambda t, rate, decay_steps: np.asarray(1.0 / (1.0 + rate * t / decay_steps)),
    "exponential": lambda t, rate, decay_steps: np.asarray(float(rate) ** (t / decay_steps)),
    "warmup": lambda t, steps: np.minimum(t + 1, steps) / steps,
}
_MAKERS: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "cosine": cosine,
    "step": step,
    "inverse_time": inverse_time,
    "exponential": exponential,
    "warmup": warmup,
}
