"""What a schedule is, and how schedules are put together: `>>`, `*`, `clip` and `until`.

Two kinds of schedules exist: *shapes* (`cosine(300)`), each a formula of the step with its arguments, and combinations
of schedules. All are frozen data: compared and hashed by value, printed as the code that makes them, read from JSON.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from inspect import signature
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from gradwise.schedules.checks import count, is_number, limits, number

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Maker = TypeVar("Maker", bound=Callable[..., "Schedule"])


class Schedule(ABC):
    """A dimensionless factor as a pure function of the step; 1 is the parameter group's own rate.

    A number times a schedule is a schedule too, `3e-4 * cosine(10_000)`: if the factor is understood as a rate.

    `schedule(step)` takes an int (a float comes back) or an array of integers (an array comes back). Steps are
    optimizer steps from 0, below 2⁶³; before 0 it is the factor at 0.

    | | |
    |---|---|
    | `a >> b`, `a.then(b)` | *a* to its end, then *b* from its own step 0 |
    | `a * b`, `0.1 * a` | the product at each step |
    | `a.clip(lo, hi)` | at least *lo*, at most *hi* |
    | `a.until(n)` | *a* up to step *n*, from where it stands still |

    Example:
        >>> from gradwise.schedules import cosine, warmup
        >>> rate = 0.1 * (warmup(4) >> cosine(100, end=0.01))
        >>> rate(0), rate(54), rate(10**9)
        (0.025, 0.0505, 0.001)
        >>> rate(np.arange(3))
        array([0.025, 0.05 , 0.075])
        >>> rate
        0.1 * (warmup(steps=4) >> cosine(steps=100, end=0.01))
        >>> Schedule.from_json(rate.to_json()) == rate
        True
    """

    __array_ufunc__ = None  # numpy's numbers leave `*` to us

    @overload
    def __call__(self, step: int) -> float: ...
    @overload
    def __call__(self, step: NDArray[np.integer[Any]]) -> Floats: ...
    def __call__(self, step: int | NDArray[np.integer[Any]]) -> float | Floats:
        """The factor at `step`, an int or an array of integers; anything else raises TypeError."""
        steps = np.asarray(step)
        if steps.dtype.kind not in "iu" and steps.size:
            raise TypeError(f"a step is an integer below 2**63, or an array of such; got {step!r}")
        with np.errstate(over="ignore"):  # what grows beyond all bounds is infinite
            value = self.at(np.maximum(steps.astype(np.int64), 0).reshape(-1))
        return float(value[0]) if np.ndim(step) == 0 else value.reshape(steps.shape)

    @abstractmethod
    def at(self, t: Ints) -> Floats:
        """The factors at steps `t`, a vector without negative elements."""

    @property
    @abstractmethod
    def length(self) -> int | None:
        """Steps until something can follow, and from which on the schedule stands still; None where it never ends."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The schedule as a JSON object, `{"cosine": {"steps": 300, "end": 0.01}}`.

        Raises:
            TypeError: the schedule holds a function of the user's, which no JSON can.
        """

    @staticmethod
    def from_json(data: Any) -> Schedule:
        """The schedule that a JSON object describes.

        Raises:
            ValueError: naming what is unknown, missing or makes no sense.
        """
        if not isinstance(data, Mapping) or len(data) != 1:
            got = sorted(data) if isinstance(data, Mapping) else data
            raise ValueError(f"a schedule is an object with one key, its name; got {got!r}")
        ((name, content),) = data.items()
        read = _COMBINATIONS.get(name) or (_read_shape(name) if name in _KINDS and name != "function" else None)
        if read is None:
            known = ", ".join(sorted((_KINDS.keys() | _COMBINATIONS) - {"function"}))
            raise ValueError(f"unknown schedule {name!r}; known: {known}")
        try:
            return read(content)
        except (TypeError, KeyError) as error:
            raise ValueError(f"schedule {name!r}: {_words(error)}") from None

    def __rshift__(self, other: Schedule) -> Schedule:
        """This schedule to its end, then `other` from its own step 0.

        Raises:
            ValueError: this schedule has no end.
        """
        if not isinstance(other, Schedule):
            return NotImplemented
        if self.length is None:
            raise ValueError(f"{self!r} has no end, so nothing can follow it: say where it ends with .until(steps)")
        return _Then((*_parts(self, _Then), *_parts(other, _Then)))

    def then(self, other: Schedule) -> Schedule:
        """The same as `self >> other`."""
        return self >> other

    def __mul__(self, other: Schedule | float) -> Schedule:
        """The product with another schedule or a number, step by step."""
        if is_number(other):
            other = _Times(number("factor", other), ())
        elif not isinstance(other, Schedule):
            return NotImplemented
        product = _Times(_scale(self) * _scale(other), (*_parts(self, _Times), *_parts(other, _Times)))
        return product.parts[0] if product.factor == 1.0 and len(product.parts) == 1 else product

    __rmul__ = __mul__

    def clip(self, lo: float | None = None, hi: float | None = None) -> Schedule:
        """Nowhere below `lo`, nowhere above `hi` (factors; None is no limit)."""
        return _Clip(self, *limits(lo, hi))

    def until(self, steps: int) -> Schedule:
        """The same up to step `steps`, from where it stands still; so something can follow."""
        return _Until(self, count("until: steps", steps))

    def held(self) -> tuple[int, Schedule]:
        """How many steps the factor stays 1 at first, and what follows then (from its own step 0)."""
        return 0, self


class _Kind(NamedTuple):
    """What is known of a kind of shape: who makes it, its formula, where it ends."""

    maker: Callable[..., Schedule]
    formula: Callable[..., Floats]
    length: Callable[[Mapping[str, Any]], int | None]


_KINDS: dict[str, _Kind] = {}


def shape(
    formula: Callable[..., Floats], length: Callable[[Mapping[str, Any]], int | None] = lambda a: a.get("steps")
) -> Callable[[Maker], Maker]:
    """Declare that what the decorated function makes has this formula of the step vector and its arguments."""

    def declare(maker: Maker) -> Maker:
        _KINDS[maker.__name__] = _Kind(maker, formula, length)
        return maker

    return declare


def made(name: str, **arguments: Any) -> Schedule:
    """The shape of that name, its arguments in the order of its maker's."""
    return _Shape(name, tuple(arguments.items()))


@dataclass(frozen=True, repr=False)
class _Shape(Schedule):
    """A formula by its name, with its arguments."""

    name: str
    arguments: tuple[tuple[str, Any], ...]

    def at(self, t: Ints) -> Floats:
        value = _KINDS[self.name].formula(t, **dict(self.arguments))
        return np.broadcast_to(np.asarray(value, np.float64), t.shape)

    @property
    def length(self) -> int | None:
        return _KINDS[self.name].length(dict(self.arguments))

    def to_json(self) -> dict[str, Any]:
        if self.name == "function":
            raise TypeError(
                f"{self!r} holds Python code, which can't be kept as JSON: build it from the other schedules"
            )
        return {self.name: {k: list(v) if isinstance(v, tuple) else v for k, v in self.arguments}}

    def __repr__(self) -> str:
        defaults = {p.name: p.default for p in signature(_KINDS[self.name].maker).parameters.values()}
        said = ((k, v) for k, v in self.arguments if v != defaults[k])
        return f"{self.name}({', '.join(f'{k}={_code(v)}' for k, v in said)})"


@dataclass(frozen=True, repr=False)
class _Then(Schedule):
    """One part after the other."""

    parts: tuple[Schedule, ...]

    def at(self, t: Ints) -> Floats:
        starts = np.array([0, *accumulate(part.length or 0 for part in self.parts[:-1])])
        which = np.searchsorted(starts, t, side="right") - 1
        value = np.empty(t.shape)
        for k in np.unique(which):
            there = which == k
            value[there] = self.parts[k].at(t[there] - starts[k])
        return value

    @property
    def length(self) -> int | None:
        last = self.parts[-1].length
        return None if last is None else sum(part.length or 0 for part in self.parts[:-1]) + last

    def held(self) -> tuple[int, Schedule]:
        first, *rest = self.parts
        if isinstance(first, _Shape) and first.name == "constant" and dict(first.arguments)["factor"] == 1.0:
            return first.length or 0, rest[0] if len(rest) == 1 else _Then(tuple(rest))
        return 0, self

    def to_json(self) -> dict[str, Any]:
        return {"then": [part.to_json() for part in self.parts]}

    def __repr__(self) -> str:
        return " >> ".join(map(repr, self.parts))


@dataclass(frozen=True, repr=False)
class _Times(Schedule):
    """A number times all parts."""

    factor: float
    parts: tuple[Schedule, ...]

    def at(self, t: Ints) -> Floats:
        value = np.full(t.shape, self.factor)
        for part in self.parts:
            value = value * part.at(t)
        return value

    @property
    def length(self) -> int | None:
        lengths = [part.length for part in self.parts if not _stands_still(part)]
        known = [n for n in lengths if n is not None]
        return max(known) if known and len(known) == len(lengths) else None

    def to_json(self) -> dict[str, Any]:
        return {"times": [*([] if self.factor == 1.0 else [self.factor]), *(part.to_json() for part in self.parts)]}

    def __repr__(self) -> str:
        parts = map(closed, self.parts)
        return " * ".join([*([] if self.factor == 1.0 else [repr(self.factor)]), *parts])


@dataclass(frozen=True, repr=False)
class _Clip(Schedule):
    """A part within bounds."""

    part: Schedule
    lo: float | None
    hi: float | None

    def at(self, t: Ints) -> Floats:
        return np.asarray(np.clip(self.part.at(t), self.lo, self.hi))

    @property
    def length(self) -> int | None:
        return self.part.length

    def to_json(self) -> dict[str, Any]:
        return {"clip": {"lo": self.lo, "hi": self.hi, "of": self.part.to_json()}}

    def __repr__(self) -> str:
        return f"{closed(self.part)}.clip({said_limits(self.lo, self.hi)})"


@dataclass(frozen=True, repr=False)
class _Until(Schedule):
    """A part that is stopped at a step."""

    part: Schedule
    steps: int

    def at(self, t: Ints) -> Floats:
        return self.part.at(np.minimum(t, self.steps))

    @property
    def length(self) -> int:
        return self.steps

    def to_json(self) -> dict[str, Any]:
        return {"until": {"steps": self.steps, "of": self.part.to_json()}}

    def __repr__(self) -> str:
        return f"{closed(self.part)}.until(steps={self.steps})"


def said_limits(lo: float | None, hi: float | None) -> str:
    """The arguments of `clip` as code."""
    return ", ".join(f"{name}={value!r}" for name, value in (("lo", lo), ("hi", hi)) if value is not None)


def _parts(schedule: Schedule, kind: type[_Then] | type[_Times]) -> tuple[Schedule, ...]:
    return schedule.parts if isinstance(schedule, kind) else (schedule,)


def _scale(schedule: Schedule) -> float:
    return schedule.factor if isinstance(schedule, _Times) else 1.0


def _stands_still(schedule: Schedule) -> bool:
    return isinstance(schedule, _Shape) and schedule.name == "constant" and schedule.length is None


def closed(part: Schedule) -> str:
    """A part as code that an operator or a method can be put to."""
    return f"({part!r})" if isinstance(part, _Then | _Times) else repr(part)


def _code(value: object) -> str:
    return getattr(value, "__qualname__", None) or repr(value)


def _words(error: TypeError | KeyError) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _read_shape(name: str) -> Callable[[Any], Schedule]:
    def read(content: Any) -> Schedule:
        if not isinstance(content, Mapping):
            raise TypeError(f"its arguments are an object, got {content!r}")
        return _KINDS[name].maker(**content)

    return read


def _read_list(content: Any) -> list[Any]:
    if not isinstance(content, list) or not content or is_number(content[-1]):
        raise TypeError(f"it is a list of schedules, got {content!r}")
    return [part if is_number(part) else Schedule.from_json(part) for part in content]


_COMBINATIONS: dict[str, Callable[[Any], Schedule]] = {
    "then": lambda content: reduce(operator.rshift, _read_list(content)),
    "times": lambda content: reduce(operator.mul, _read_list(content)),
    "clip": lambda content: Schedule.from_json(content["of"]).clip(content.get("lo"), content.get("hi")),
    "until": lambda content: Schedule.from_json(content["of"]).until(content["steps"]),
}
