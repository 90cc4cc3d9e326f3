"""What of a series gets drawn: few enough points, the axis, the trend, the gaps.

Drawing a long, noisy, spiking or broken curve truthfully is one problem, whether the picture is made of
braille, SVG or Plotly: this module solves it in numbers; `figures` and `report` only put ink on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradwise.legible import number
from gradwise.recording.recording import Floats, Ints, Series

MOST = 2000
"""Points a drawn trace has at most."""

_COLUMNS = 100
_HUGE = 1e300


@dataclass(frozen=True, slots=True)
class Scale:
    """A vertical axis from `low` to `high`."""

    low: float
    high: float
    log: bool = False

    def place(self, values: Floats) -> Floats:
        """Where `values` lie between the bottom (0) and the top (1), clipped; NaN where not finite."""
        y = np.where(np.isfinite(values), values, np.nan)
        low, high = self._axis(np.array([self.low, self.high]))
        with np.errstate(over="ignore"):
            return np.asarray(np.clip((self._axis(y) - low) / (high - low), 0.0, 1.0))

    def value(self, place: Floats) -> Floats:
        """The values at places between 0 and 1: the inverse of `place`."""
        low, high = self._axis(np.array([self.low, self.high]))
        y = low + np.asarray(place) * (high - low)
        return np.asarray(10.0**y if self.log else y)

    def ticks(self, most: int = 5) -> list[float]:
        """Round numbers inside the axis, at most `most`, ascending."""
        if not self.log:
            return round_ticks(self.low, self.high, most)
        low, high = math.log10(self.low), math.log10(self.high)
        if high - low >= 2:
            every = math.ceil((math.floor(high) - math.ceil(low) + 1) / most)
            return [10.0**d for d in range(math.ceil(low), math.floor(high) + 1, max(1, every))]
        return [f * 10.0**d for d in range(math.floor(low), math.ceil(high)) for f in (1, 3)
                if self.low <= f * 10.0**d <= self.high][:most]  # fmt: skip

    def label(self, tick: float) -> str:
        """A tick as text; powers of ten as such on a logarithmic axis that has large or small ones."""
        if self.log and not 1e-3 <= tick < 1e4:
            return f"{tick:.0e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
        return number(tick)

    def _axis(self, values: Floats) -> Floats:
        if not self.log:
            return np.clip(values, -_HUGE, _HUGE)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.log10(np.maximum(values, 1e-320)))


def round_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` multiples of 1, 2 or 5 times a power of ten in [low, high], evenly spaced."""
    if not high > low or most < 1:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    spacing = next(f * power for f in (1, 2, 5, 10, 20) if _multiples(low, high, f * power) <= most)
    first = math.ceil(low / spacing - 1e-9)
    return [round(k * spacing, 12 - math.floor(math.log10(spacing)))
            for k in range(first, first + _multiples(low, high, spacing))]  # fmt: skip


def _multiples(low: float, high: float, spacing: float) -> int:
    return math.floor(high / spacing + 1e-9) - math.ceil(low / spacing - 1e-9) + 1


def fit(curves: Sequence[Series]) -> Scale:
    """The axis that shows `curves` (one column each): logarithmic if all is positive over 2 decades or more.

    What lasts for less than about a hundredth of a curve (spikes, the last steps before NaN) may leave the axis
    rather than flatten everything else.
    """
    seen = [np.clip(c.values[np.isfinite(c.values)], -_HUGE, _HUGE) for c in curves]
    seen = [values for values in seen if len(values)]
    if not seen:
        return Scale(0.0, 1.0)
    if min(float(values.min()) for values in seen) > 0:
        low, high = _bounds([np.log10(values) for values in seen])
        if high - low > 2:
            return Scale(10**low / 1.1, 10**high * 1.1, log=True)
    low, high = _bounds(seen)
    room = 0.04 * (high - low) or abs(low) * 0.1 or 1.0
    bottom = 0.0 if 0 <= low < 0.3 * high else low - room
    return Scale(bottom, high + room)


def ramp_ceiling(losses: Floats) -> float:
    """How high a ramp's loss is drawn: three falls above the lowest. Past that it is only lost."""
    seen = losses[np.isfinite(losses)]
    if not len(seen):
        return 1.0
    start = float(np.median(seen[: max(3, len(seen) // 16)]))
    return float(seen.min() + 3 * max(start - float(seen.min()), 1e-12 * abs(start)))


def _bounds(curves: Sequence[Floats]) -> tuple[float, float]:
    """Where the curves go for a hundredth of their length, and their noise as far as it is of the same size."""
    parts = [part for values in curves for part in np.array_split(values, min(len(values), _COLUMNS))]
    low, middle, high = np.array([(part.min(), np.median(part), part.max()) for part in parts]).T
    reach = 2 * (np.ptp(middle) + float(np.median(high) - np.median(low)))
    return (
        min(middle.min(), max(float(np.quantile(low, 0.02)), middle.min() - reach)),
        max(middle.max(), min(float(np.quantile(high, 0.98)), middle.max() + reach)),
    )


def trend(values: Floats, scale: Scale) -> Floats:
    """The curve smoothed: a centred mean over 1/40 of it, taken on the axis, lest a spike drown the rest."""
    place = scale.place(values)
    seen = np.isfinite(place)
    y = place[seen]
    n = len(y)
    index = np.arange(n)
    # At the start the window closes to one point, so that a steep fall keeps its height; at the end it only loses
    # its right half, for one noisy last value is no trend.
    left = np.minimum(n // 80, index)
    right = np.minimum(left, n - 1 - index)
    total = np.concatenate(([0.0], np.cumsum(y)))
    place[seen] = (total[index + right + 1] - total[index - left]) / (left + right + 1)
    return scale.value(place)


def thin(steps: Ints, values: Floats, most: int = MOST) -> tuple[Ints, Floats]:
    """At most `most` of the points: first, last, and the lowest and highest of each stretch between."""
    n = len(steps)
    if n <= most:
        return steps, values
    size = math.ceil(n / max(1, (most - 2) // 2))
    rows = math.ceil(n / size)
    grid = np.full(rows * size, np.nan)
    grid[:n] = np.where(np.isfinite(values), values, np.nan)
    table = grid.reshape(rows, size)
    start = np.arange(rows) * size
    lowest = start + np.argmin(np.where(np.isnan(table), np.inf, table), axis=1)
    highest = start + np.argmax(np.where(np.isnan(table), -np.inf, table), axis=1)
    keep = np.unique(np.concatenate(([0, n - 1], lowest, highest)))
    return steps[keep], values[keep]


def gaps(curve: Series) -> list[tuple[int, int]]:
    """First and last step of each stretch that isn't finite; those less than 1 % apart are one."""
    bad = curve.steps[~np.isfinite(curve.values)]
    if not len(bad):
        return []
    near = (int(curve.steps[-1]) - int(curve.steps[0])) / 100
    position = np.flatnonzero(~np.isfinite(curve.values))
    apart = (np.diff(position) > 1) & (np.diff(bad) > near)
    edges = np.flatnonzero(apart)
    starts, ends = np.concatenate(([0], edges + 1)), np.concatenate((edges, [len(bad) - 1]))
    return [(int(bad[a]), int(bad[b])) for a, b in zip(starts, ends, strict=True)]
