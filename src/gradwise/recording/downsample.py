"""Fewer points of the same shape."""

from __future__ import annotations

import numpy as np

from gradwise.recording.recording import Series


def envelope(series: Series, max_points: int) -> Series:
    """At most `max_points` of a series' points: first, last, and the extremes of each stretch between.

    Points are picked, never averaged, so a spike stays as high and as thin as it was. A value that is not a
    number is an extreme, so it stays seen. Of rows, those with the least and the greatest value in any column
    are picked.

    >>> spike = Series(np.arange(1000), np.eye(1, 1000, 700)[0])
    >>> few = envelope(spike, 10)
    >>> len(few) <= 10, few.steps[few.values == 1].tolist()
    (True, [700])

    Args:
        series: n points.
        max_points: at least 4.

    Raises:
        ValueError: `max_points` is below 4.
    """
    if max_points < 4:
        raise ValueError(f"max_points must be at least 4, got {max_points}")
    n = len(series)
    if n <= max_points:
        return series
    values = series.values.reshape(n, -1)
    missing = np.isnan(values)
    low = np.where(missing, np.inf, values).min(axis=1, initial=np.inf)
    high = np.where(missing, np.inf, values).max(axis=1, initial=-np.inf)
    size = -(-n // ((max_points - 2) // 2))
    full = n // size
    starts = np.arange(full) * size
    whole = full * size
    picked = [
        starts + low[:whole].reshape(full, size).argmin(axis=1),
        starts + high[:whole].reshape(full, size).argmax(axis=1),
        np.array([0, n - 1]),
    ]
    if whole < n:
        picked.append(np.array([whole + low[whole:].argmin(), whole + high[whole:].argmax()]))
    keep = np.unique(np.concatenate(picked))
    return Series(series.steps[keep], series.values[keep], series.labels)
