"""Reading a range test: the three phases of a loss while the learning rate rises from far too low to far too high.

While η is tiny, nothing moves (*slow*); then each step pays in proportion to η and the loss falls (*steep*); beyond
the edge of stability it jumps up again (*jump*). On a quadratic of curvature λ that edge is η = 2/λ for plain descent,
and it shows as soon as a few steps beyond it have been made, since what oscillates then grows by a factor a step.

All thresholds are shares of the fall itself, so neither the loss's scale nor its sign matters, and all are compared
with the loss's own scatter, so a noisy small batch is not taken for a fall.

    >>> import numpy as np
    >>> rates = np.geomspace(1e-6, 1e1, 400)
    >>> losses, theta = [], 1.0
    >>> for rate in rates:
    ...     losses.append(theta**2)
    ...     theta -= rate * 2 * theta  # curvature 2: stable below rate 1
    >>> phases = read_ramp(rates, np.array(losses))
    >>> phases.missing, phases.falls < phases.lowest < phases.jumps, 1 < phases.jumps < 10
    ((), True, True)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gradwise.recording.recording import Floats

# Half the width of the window the loss is averaged over, in decades of the rate. Less than a factor of 2 in all, which
# is as exactly as a rate need be known; at fifty steps a decade it averages a dozen losses.
_HALF = 0.12
# A change counts when it is so many standard errors: with a few dozen windows along a ramp, three would come up by
# chance in one noisy ramp out of ten, four in one of five hundred.
_SURE = 4.0
# The fall begins where a tenth of it is done, as rise times are told; and it is undone where half of it is lost.
_BEGUN, _UNDONE = 0.1, 0.5
# Losses are cut at so many falls above the lowest before they are averaged: past that one is as bad as the next.
_HIGH = 3.0


@dataclass(frozen=True, slots=True)
class Phases:
    """What a ramp shows. Rates are NaN where the phase is missing.

    Attributes:
        falls: the rate at which the loss begins to fall: the end of the slow phase.
        steepest: the rate at which it falls fastest per decade.
        lowest: the rate at which it is lowest.
        jumps: the rate from which on half of the fall is lost for good, or the loss is not finite.
        missing: which of "slow", "steep" and "jump" the ramp does not show.
        smooth: the averaged loss at each rate.
        start: the loss before the rate had an effect.
    """

    falls: float
    steepest: float
    lowest: float
    jumps: float
    missing: tuple[str, ...]
    smooth: Floats
    start: float

    @property
    def whole(self) -> bool:
        """Whether all three phases are there."""
        return not self.missing


def read_ramp(rates: Floats, losses: Floats, baseline: Floats | None = None, per: int = 1) -> Phases:
    """The phases of a ramp.

    Args:
        rates: (n,) the rate of each step, rising.
        losses: (m,) the loss that each step began from, m ≤ n where the run broke off.
        baseline: (≥ m,) the losses of the same batches while nothing was learned. Their deviations from their mean are
            what each batch adds by itself, and are taken off.
        per: steps for which the rate is held; the last loss of each such stage has most to do with its rate.

    Raises:
        ValueError: fewer than ten losses, or rates that fall.
    """
    m = min(len(losses), len(rates))
    if m < 10 or (np.diff(rates) < 0).any():
        raise ValueError(f"a ramp needs ten losses at rising rates; got {m}")
    place, y = np.log10(rates[:m]), np.array(losses[:m], np.float64)
    if per > 1:  # within a stage the steps stand for rates between it and the one before
        place = np.log10(np.interp(np.arange(m), np.arange(0, m, per) + per - 1, rates[0:m:per]))
    finite = np.isfinite(y)
    broken = m if finite.all() else int(np.argmin(finite))
    if baseline is not None and len(baseline) >= m:
        y = y - (baseline[:m] - baseline[:m].mean())
    if broken < 10:
        return Phases(*(math.nan,) * 3, float(rates[broken]), ("slow", "steep"), y, float(y[0]))
    smooth, error = _averaged(place[:broken], y[:broken])
    # What the loss was before anything moved: the first half decade, or the first point if it falls at once.
    first = max(1, int(np.searchsorted(place[:broken], place[0] + 0.5)))
    start = float(np.mean(_cut(y[:first])))
    # Past the point where it has risen above the start by as much as it ever fell below, a low value is luck.
    over = smooth > 2 * start - smooth.min()
    over[:first] = False
    stop = int(np.argmax(over)) if over.any() else broken
    low = int(np.argmin(smooth[:stop]))
    fall = start - float(smooth[low])
    noise = float(np.hypot(error[low], error[min(first, broken - 1)]))
    full = np.full(m, np.nan)
    full[:broken] = smooth
    if not fall > _SURE * noise or low == 0:
        jumps = _first(smooth > start + _SURE * np.maximum(error, noise), broken, m)
        rate = math.nan if jumps is None else float(rates[jumps])
        missing = ("slow", "steep") if jumps is not None else ("steep", "jump")
        return Phases(*(math.nan,) * 3, rate, missing, full, start)
    begun = int(np.max(np.flatnonzero(smooth[: low + 1] >= start - _BEGUN * fall), initial=0))
    # For good: high momentum swings back and forth over the bottom long before it diverges.
    kept = int(np.flatnonzero(smooth[:stop] <= smooth[low] + _UNDONE * fall)[-1])
    jumps = kept + 1 if kept + 1 < m else None
    slopes = np.gradient(smooth[begun : low + 1], place[begun : low + 1]) if low > begun + 1 else np.zeros(1)
    slow: tuple[str, ...] = ("slow",) if begun < first // 2 else ()
    return Phases(
        float(rates[begun]),
        float(rates[begun + int(np.argmin(slopes))]),
        float(rates[low]),
        math.nan if jumps is None else float(rates[jumps]),
        (*slow, *(("jump",) if jumps is None else ())),
        full,
        start,
    )


def joined(pieces: Sequence[Phases]) -> Phases:
    """What several ramps over parts of a range show together: each began from untrained parameters.

    The fall begins where it first does, and ends where the loss is lowest; the jump comes in the last part that shows a
    fall.

    Raises:
        ValueError: no ramps.
    """
    if not pieces:
        raise ValueError("no ramp to read")
    if len(pieces) == 1:
        return pieces[0]
    falling = sorted((p for p in pieces if "steep" not in p.missing), key=lambda p: p.lowest)
    jumping = [p.jumps for p in pieces if "jump" not in p.missing and (not falling or p.jumps > falling[0].falls)]
    jumps = min(jumping, default=math.nan)
    quiet = [p for p in pieces if set(p.missing) == {"steep", "jump"}]
    if not falling:
        missing = ("slow",) * (not quiet) + ("steep",) + ("jump",) * (not jumping)
        return replace(pieces[-1], jumps=jumps, missing=missing)
    first, last = falling[0], falling[-1]
    slow = any("slow" not in p.missing for p in falling) or bool(quiet)
    missing = ("slow",) * (not slow) + ("jump",) * (not jumping)
    deepest = min(falling, key=lambda p: float(np.nanmin(p.smooth)))
    return replace(last, falls=min(p.falls for p in falling), steepest=first.steepest, lowest=deepest.lowest,
                   jumps=jumps, missing=missing, start=first.start)  # fmt: skip


def _averaged(place: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The mean of the losses within a window around each place, and its standard error.

    The scatter is taken from differences of neighbours, which a trend doesn't enter.
    """
    low = np.searchsorted(place, place - _HALF, side="left")
    high = np.searchsorted(place, place + _HALF, side="right")
    y = _limited(y)
    total = np.concatenate(([0.0], np.cumsum(y)))
    squares = np.concatenate(([0.0, 0.0], np.cumsum(np.diff(y) ** 2)))
    count = high - low
    mean = (total[high] - total[low]) / count
    scatter = np.maximum(squares[high] - squares[np.minimum(low + 1, high)], 0.0) / (2 * np.maximum(count - 1, 1))
    return mean, np.sqrt(scatter / count)


def _limited(y: Floats) -> Floats:
    """Losses cut at `_HIGH` falls above the start, so that a single spike doesn't carry its window with it."""
    start = float(np.median(y[: max(3, len(y) // 16)]))
    reach = start - float(y.min())
    return np.minimum(y, start + _HIGH * reach) if reach > 0 else y


def _cut(y: Floats) -> Floats:
    """Without the highest and the lowest, where there are enough."""
    return np.sort(y)[1:-1] if len(y) > 4 else y


def _first(where: NDArray[np.bool_], broken: int, m: int) -> int | None:
    """The first place from which it holds, or from which the losses are not finite; None where neither is there."""
    if where.any():
        return int(np.argmax(where))
    return broken if broken < m else None
