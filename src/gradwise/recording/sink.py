"""Where probes put what they measure. Imports only the stdlib: it runs in the user's process before torch."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Sink(Protocol):
    """Takes a recording piece by piece; no method ever raises into the training script."""

    def message(self, kind: str, data: Mapping[str, Any]) -> None:
        """A rare fact, as JSON; `frames.Message` lists the kinds."""

    def series(self, signal: str, source: int, labels: Sequence[str] = ()) -> int:
        """Declare a series and get its number; declare it again where its labels change."""
        ...

    def points(self, series: int, steps: array[int], values: array[float]) -> None:
        """Points of a declared series, copied.

        Args:
            series: the number `series` gave.
            steps: `array("q")` of n optimizer steps.
            values: `array("d")` of n values, or n rows of one value per label, row after row.
        """

    def flush(self) -> None:
        """Hand on everything taken so far."""
