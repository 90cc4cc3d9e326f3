"""What values a parameter may take: single values, ranges, or some of both, as text, JSON and points of a grid."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Value = bool | int | float | str
"""What a parameter can be set to."""

# From a range that spans so much on, what matters is the order of magnitude.
_DECADE = 10.0
_NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?$")
_RANGE = re.compile(r"(?P<low>.+?)\.\.(?P<high>[^:]+)(?::(?P<scale>\w+))?$")


class SpaceError(ValueError):
    """A space that makes no sense: what is wrong, in one sentence for whoever wrote it."""


@dataclass(frozen=True, slots=True)
class Range:
    """All numbers from `low` to `high`, both included.

    Attributes:
        low, high: the ends.
        log: whether equal ratios count as equally far, rather than equal differences.
        whole: whether only whole numbers.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return self.low <= value <= self.high and (not self.whole or value == int(value))

    def grid(self, points: int) -> tuple[Value, ...]:
        """So many values from end to end, equally far from each other; fewer where there are not so many."""
        if self.whole and self.high - self.low < points:
            return tuple(range(int(self.low), int(self.high) + 1))
        shares = [k / (points - 1) for k in range(points)] if points > 1 else [0.5]
        found: list[Value] = [self._at(share) for share in shares]
        return tuple(dict.fromkeys(round(float(v)) for v in found)) if self.whole else tuple(found)

    def _at(self, share: float) -> float:
        if share in (0.0, 1.0):
            return self.high if share else self.low
        if self.log:
            # Decades are written as such: 0.01, not 0.010000000000000002.
            return float(f"{self.low * (self.high / self.low) ** share:.12g}")
        return float(f"{self.low + (self.high - self.low) * share:.12g}")

    def text(self) -> str:
        """As one would write it."""
        ends = (int(self.low), int(self.high)) if self.whole else (self.low, self.high)
        usual = _spans_decades(self.low, self.high)
        scale = "" if self.log == usual else ":log" if self.log else ":linear"
        return f"{ends[0]}..{ends[1]}{scale}"


@dataclass(frozen=True, slots=True)
class Domain:
    """Single values, ranges, or some of both.

    >>> Domain.parse("0,1e-4..1e-1").grid(4)
    (0, 0.0001, 0.001, 0.01, 0.1)
    >>> Domain.parse("sgd,adam").text()
    'sgd,adam'
    """

    pieces: tuple[Value | Range, ...]

    def __post_init__(self) -> None:
        if not self.pieces:
            raise SpaceError("names no value")
        doubled = [p for k, p in enumerate(self.pieces) if any(p == q and type(p) is type(q) for q in self.pieces[:k])]
        if doubled:
            raise SpaceError(f"names {_text(doubled[0])} twice")

    @property
    def single(self) -> bool:
        """Whether there is just one value."""
        return len(self.pieces) == 1 and not isinstance(self.pieces[0], Range)

    def __contains__(self, value: object) -> bool:
        return any(value in p if isinstance(p, Range) else value == p for p in self.pieces)

    def grid(self, points: int) -> tuple[Value, ...]:
        """All single values, and so many of each range."""
        found: dict[Value, None] = {}
        for piece in self.pieces:
            found |= dict.fromkeys(piece.grid(points) if isinstance(piece, Range) else (piece,))
        return tuple(found)

    def text(self) -> str:
        """As one would write it."""
        return ",".join(_text(p) for p in self.pieces)

    @staticmethod
    def parse(text: str) -> Domain:
        """A domain as written: `sgd,adam`, `1e-4..1`, `1..4`, `0,1e-4..1e-1`, `16..512:linear`.

        Values that read as numbers are numbers, and whole where they are written so. A range that spans a factor of
        ten or more is taken by orders of magnitude unless it says `:linear`.

        Raises:
            SpaceError: in words that follow the parameter's name.
        """
        words = [word.strip() for word in text.split(",")]
        if not all(words):
            raise SpaceError(f"has an empty place in {text!r}")
        return Domain(tuple(_piece(word) for word in words))

    def to_json(self) -> list[Any]:
        """Values as they are, ranges as objects."""
        return [
            {"low": p.low, "high": p.high, "log": p.log, "whole": p.whole} if isinstance(p, Range) else p
            for p in self.pieces
        ]

    @staticmethod
    def from_json(data: Sequence[Any]) -> Domain:
        """The domain that `to_json` wrote.

        Raises:
            SpaceError: it is none.
        """
        return Domain(tuple(_described(item) for item in data))


def _described(item: Any) -> Value | Range:
    if isinstance(item, dict):
        unknown = sorted(set(item) - {"low", "high", "log", "whole"})
        if unknown:
            raise SpaceError(f"has a range with {unknown[0]!r}; a range has low, high, log and whole")
        low, high = item.get("low"), item.get("high")
        if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high)):
            raise SpaceError("has a range whose ends low and high are not numbers")
        assert low is not None
        assert high is not None
        whole = bool(item.get("whole", isinstance(low, int) and isinstance(high, int)))
        return _range(low, high, item.get("log"), whole)
    if isinstance(item, bool | int | str):
        return item
    if isinstance(item, float) and math.isfinite(item):
        return item
    raise SpaceError(f"has {item!r} among its values, which is neither a number nor text")


def _piece(word: str) -> Value | Range:
    found = _RANGE.match(word)
    if found is None:
        return _value(word)
    low, high, scale = _value(found["low"].strip()), _value(found["high"].strip()), found["scale"]
    if isinstance(low, str) or isinstance(high, str):
        raise SpaceError(f"has a range {word!r} whose ends are not both numbers")
    if scale not in (None, "log", "linear"):
        raise SpaceError(f"has a range {word!r} whose scale is neither log nor linear")
    whole = isinstance(low, int) and isinstance(high, int)
    return _range(low, high, None if scale is None else scale == "log", whole)


def _range(low: float, high: float, log: bool | None, whole: bool) -> Range:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise SpaceError("has a range without a finite end")
    if not low < high:
        raise SpaceError(f"has a range from {low} to {high}, which does not rise")
    if log and low <= 0:
        raise SpaceError(f"has a range from {low} by orders of magnitude, which must begin above 0")
    if whole and (low != int(low) or high != int(high)):
        raise SpaceError(f"has a range of whole numbers from {low} to {high}")
    return Range(low, high, _spans_decades(low, high) if log is None else log, whole)


def _spans_decades(low: float, high: float) -> bool:
    return low > 0 and high / low >= _DECADE


def _value(word: str) -> Value:
    if not _NUMBER.match(word):
        return word
    try:
        return int(word)
    except ValueError:
        return float(word)


def _text(piece: Value | Range) -> str:
    return piece.text() if isinstance(piece, Range) else str(piece)
