"""What the targets say: how much a model that knows nothing would lose, and whether batches follow an order.

Batches drawn at random share their variance: of all the targets' variance, n-row batches differ among each other by
1/n of it. What they differ by beyond that is the *order*, from 0 (drawn at random) to 1 (each batch all of a kind).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwise.recording import signals
from gradwise.recording.recording import Floats, Ints, Recording

# Rows that a group of batches should have, for its mean to say anything.
_ROWS = 8
_GROUPS = 12


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets of one loss function.

    Attributes:
        steps: those it was looked at, (n,).
        rows: how many rows at each, (n,).
        means: share of each class, (n, classes), or the targets' mean, (n, 1).
        variance: of a row around all rows' mean.
        entropy: of the classes in nats, NaN for numbers and where too many classes are only counted in bands.
        about: the event that told of them.
    """

    steps: Ints
    rows: Floats
    means: Floats
    variance: float
    entropy: float
    about: Mapping[str, Any]

    @property
    def classes(self) -> int:
        """How many, 0 where targets are numbers."""
        return int(self.about.get("classes", 0))

    @property
    def uninformed(self) -> float:
        """The loss of the best guess that doesn't look at the input; NaN where that isn't known."""
        if not self.about.get("plain", False) or len(self.steps) < 2:
            return math.nan
        return float(self.about.get("scale", 1.0)) * self._mean_uninformed

    @property
    def _mean_uninformed(self) -> float:
        """The same of the loss function's mean, which a loss written out by hand may be a multiple of."""
        loss = self.about.get("loss")
        if loss in ("cross_entropy", "nll_loss"):
            return self.entropy
        if loss == "mse_loss" and self.about.get("width") == 1:
            return self.variance
        if loss in ("binary_cross_entropy", "binary_cross_entropy_with_logits") and self.about.get("width") == 1:
            p = float(np.average(self.means[:, 0], weights=self.rows))
            return -p * math.log(p) - (1 - p) * math.log(1 - p) if 0 < p < 1 else math.nan
        return math.nan


@dataclass(frozen=True, slots=True)
class Order:
    """How the batches' targets follow each other.

    Attributes:
        share: the part of the variance that lies between batches beyond chance.
        sigmas: how surely it isn't chance.
        period: steps after which the order repeats itself, 0 where none was seen.
        returns: correlation of the batches' means with those a period later.
        next: the same with those of the next step.
    """

    share: float
    sigmas: float
    period: int
    returns: float
    next: float


def targets_of(recording: Recording) -> list[Targets]:
    """The targets of each loss function, that looked at most often first."""
    about = {event.source: event.data for event in recording.happened("targets")}
    of_each = {event.source: float(event.data["entropy"]) for event in recording.happened("targets-entropy")}
    found = []
    for source, data in about.items():
        counts = recording.get(signals.CLASSES, source)
        moments = recording.get(signals.TARGET, source)
        if len(counts) and counts.values.ndim == 2:
            rows = counts.values.sum(axis=1)
            good = rows > 0
            means = counts.values[good] / rows[good, None]
            shares = counts.values.sum(axis=0) / rows.sum()
            banded = int(data.get("classes", 0)) > counts.values.shape[1]
            nats = float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
            nats = of_each.get(source, math.nan) if banded else nats
            found.append(Targets(counts.steps[good], rows[good], means, float(1 - (shares**2).sum()), nats, data))
        elif len(moments) and moments.values.ndim == 2:
            good = np.isfinite(moments.values).all(axis=1) & (moments.values[:, 0] > 0)
            rows, mean, within = moments.values[good].T
            if len(rows):
                around = (mean - np.average(mean, weights=rows)) ** 2 + within
                variance = float(np.average(around, weights=rows))
                found.append(Targets(moments.steps[good], rows, mean[:, None], variance, math.nan, data))
    return sorted(found, key=lambda t: -len(t.steps))


def order_of(targets: Targets) -> Order | None:
    """The order of the batches; None where too few were seen or where all targets are the same."""
    if not targets.variance > 0 or len(targets.steps) < 2:
        return None
    steps, rows, means = _grouped(targets)
    if len(steps) < _GROUPS:
        return None
    centre = np.average(means, axis=0, weights=rows)
    apart = means - centre
    between = float((apart**2).sum(axis=1).mean()) * len(steps) / (len(steps) - 1)
    chance = targets.variance * float((1 / rows).mean())
    share = (between - chance) / max(targets.variance - chance, 1e-300)
    # A mean square of so many independent deviations has this relative error.
    freedom = (len(steps) - 1) * max(min(means.shape[1] - 1, 3), 1)
    sigmas = (between - chance) / (chance * math.sqrt(2 / freedom))
    correlation, pairs = correlations(steps, apart)
    period, returns = period_of(correlation, pairs)
    known = len(pairs) > 1 and pairs[1] >= _GROUPS
    return Order(share, sigmas, period, returns, float(correlation[1]) if known else math.nan)


def _grouped(targets: Targets) -> tuple[Ints, Floats, Floats]:
    """Means over as many neighbouring steps as it takes to have a few rows; steps counted in such groups."""
    width = math.ceil(_ROWS / max(float(np.median(targets.rows)), 1.0))
    if width == 1:
        return targets.steps, targets.rows, targets.means
    group = targets.steps // width
    kinds, index, counts = np.unique(group, return_inverse=True, return_counts=True)
    rows: Floats = np.bincount(index, weights=targets.rows).astype(np.float64)
    sums = np.stack([np.bincount(index, weights=targets.rows * m) for m in targets.means.T], axis=1)
    full = counts >= max(width // 2, 1)
    return kinds[full].astype(np.int64), rows[full], (sums / rows[:, None])[full]


def correlations(steps: Ints, apart: Floats) -> tuple[Floats, Floats]:
    """Autocorrelation of the means at each lag in steps, over the pairs that were both seen, and how many those are."""
    span = int(steps[-1] - steps[0]) + 1
    if span > 1 << 20:
        keep = steps - steps[0] < 1 << 20
        steps, apart, span = steps[keep], apart[keep], int(steps[keep][-1] - steps[0]) + 1
    size = 1 << (2 * span).bit_length()
    at = steps - steps[0]
    seen = np.zeros(span)
    seen[at] = 1
    pairs = np.fft.irfft(np.abs(np.fft.rfft(seen, size)) ** 2, size)[:span].round()
    products = np.zeros(span)
    for column in apart.T:
        full = np.zeros(span)
        full[at] = column
        products += np.fft.irfft(np.abs(np.fft.rfft(full, size)) ** 2, size)[:span]
    total = float((apart**2).sum(axis=1).mean())
    with np.errstate(all="ignore"):
        return np.where(pairs > 0, products / np.maximum(pairs, 1) / max(total, 1e-300), np.nan), pairs


def period_of(correlation: Floats, pairs: Floats) -> tuple[int, float]:
    """The lag of at least 3 steps at which the batches return, having been unlike in between."""
    enough = pairs >= _GROUPS
    if len(enough) < 4:
        return 0, math.nan
    values = np.where(enough, correlation, -np.inf)
    dipped = np.minimum.accumulate(np.where(enough, correlation, np.inf)) < 0.3
    candidates = np.where(dipped, values, -np.inf)
    candidates[:3] = -np.inf
    best = float(candidates.max(initial=-np.inf))
    if not math.isfinite(best):
        return 0, math.nan
    # Multiples of a period return as well: the first one is meant.
    period = int(np.flatnonzero(candidates >= best - 0.03)[0])
    return period, float(candidates[period])
