"""What an argument of a schedule may be, and what to say if it isn't that."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection
from numbers import Real
from typing import Any, TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a real number; truth values aren't."""
    return isinstance(value, Real) and not isinstance(value, bool)


def count(what: str, value: Any, least: int = 1) -> int:
    """`value` as an int of at least `least`, else an error that begins with `what`."""
    try:
        whole = operator.index(value)
    except TypeError:
        whole = None
    if whole is None or isinstance(value, bool):
        raise TypeError(f"{what} must be an integer, got {value!r}")
    if whole < least:
        raise ValueError(f"{what} must be at least {least}, got {value!r}")
    return whole


def number(what: str, value: Any, low: float = -math.inf, high: float = math.inf, *, above: bool = False) -> float:
    """`value` as a finite float from `low` (or `above` it) to `high`, else an error that begins with `what`."""
    if not is_number(value):
        raise TypeError(f"{what} must be a number, got {value!r}")
    real = float(value)
    if not math.isfinite(real):
        raise ValueError(f"{what} must be finite, got {value!r}")
    if real < low or real > high or (above and real == low):
        bounds = [f"above {low:g}" if above else f"at least {low:g}"] if low > -math.inf else []
        bounds += [f"at most {high:g}"] if high < math.inf else []
        raise ValueError(f"{what} must be {' and '.join(bounds)}, got {value!r}")
    return real


def choice(what: str, value: Any, known: Collection[str]) -> str:
    """`value` if it is one of the `known` words."""
    if value not in known:
        raise ValueError(f"{what} must be one of {', '.join(map(repr, known))}; got {value!r}")
    return str(value)


def switch(what: str, value: Any) -> bool:
    """`value` if it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{what} must be true or false, got {value!r}")
    return value


def limits(lo: Any, hi: Any) -> tuple[float | None, float | None]:
    """The arguments of `clip`, at least one of which must say something."""
    low, high = (None if v is None else number(f"clip: {name}", v) for name, v in (("lo", lo), ("hi", hi)))
    if low is None and high is None:
        raise ValueError("clip: give lo, hi or both")
    if low is not None and high is not None and low > high:
        raise ValueError(f"clip: lo must not be above hi, got lo={lo!r}, hi={hi!r}")
    return low, high
