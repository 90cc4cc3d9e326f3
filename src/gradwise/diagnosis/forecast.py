"""From a few short runs at constant rates to the rate that will be best at the end of a longer one.

Two things decide how a run at rate η ends, and each in its own way:

- *Getting there.* As long as steps are small against the curvature, descent follows a path and η only says how fast:
  after t steps the loss depends on the path's length s = η t alone. Many curvatures together make it fall like a power,
  b(s) = (1 + s/s₀)^(−p), as sums of exponentials do.
- *Staying there.* Mini-batches keep throwing the parameters about; the loss they hold it at is proportional to η (for
  a quadratic of curvature λ exactly ½η tr(Σ), Σ the gradient's covariance, for small ηλ), and builds up as the start
  is forgotten: ν η (1 − b(s)).

So L(η, t) = L∞ + A b(ηt) + ν η (1 − b(ηt)). A short run at a high rate shows the getting there of a long one at a low
rate, and comparing rates shows the noise. That is how runs of a hundred steps can tell of a thousand, and why the best
rate falls as runs grow longer: there is more time to get there, and the noise stays.

All runs have the same batches in the same order. What a batch adds to the loss is nearly the same in all, so
only differences between the runs *at the same step* are fitted: L∞ and the batches' noise drop out of them.

Momentum μ makes the steps 1/(1−μ) times longer, but only after as many of them: s = η (t − μ(1−μᵗ)/(1−μ)), up to a
constant factor. What it sets swinging at the start dies away as μᵗ in the loss, whatever the rate; a multiple of that
is free in each run, so that an oscillation isn't taken for the level it swings about.

Source: the noise floor and its growth, Mandt et al. (2017), "Stochastic gradient descent as approximate Bayesian
inference"; the power law of many curvatures, e.g. Velikanov & Yarotsky (2021); the exponent μᵗ, the spectral radius of
underdamped heavy-ball descent (Polyak, 1964).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np

from gradwise.diagnosis.response import Response
from gradwise.recording.recording import Floats, Series

# The first fifth of each run is the start's own affair: sharp directions collapse, averages of gradients fill.
_BEGINNING = 0.2
# p from slower than a random walk's to nearly exponential; s₀ from a thousandth of the longest path to several of it.
_POWERS = (0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)
_SCALES = 10.0 ** np.arange(-3.5, 0.51, 0.25)
# s₁, in longest paths: from which length on fitting the rows themselves costs.
_RISES = (1e-3, 1e-1, 10.0)
# Losses are averaged in so many blocks; so many evaluations of validation are enough to go by.
_BLOCKS, _EVALUATIONS = 24, 2
# Rates are told apart no finer than this, in decades (15 %).
_GRID = 1 / 16
# Below this momentum the swing is over within the beginning that is left out.
_SWINGS = 0.5
# Rates that lose less than so much of what there is to gain after the beginning are as good as the best.
_AS_GOOD = 0.02
# A run is lost when it ends higher than it began by so many times its scatter, that of the one loss it began with.
_SURE = 2.0


TRAINED, VALIDATED = "training loss", "validation loss"


@dataclass(frozen=True, slots=True)
class Forecast:
    """Which rate will be best.

    Attributes:
        rate: the middle (in decades) of `low` and `high`: among equals, the one that bears the largest error on either
            side.
        low, high: rates from `low` to `high` will do as well: they lose less than 2 % of the fall forecast from there
            on where the runs' beginning ends, or less than their noise can tell.
        best: where the forecast loss is lowest: what to try next.
        horizon: the steps it is for.
        lost: the rates at which the loss rose or ceased to be finite.
        metric: what was forecast, `TRAINED` or `VALIDATED`.
    """

    rate: float
    low: float
    high: float
    best: float
    horizon: int
    lost: tuple[float, ...] = ()
    metric: str = TRAINED


def is_lost(losses: Floats) -> bool:
    """Whether a run at a constant rate diverged: losses that are not finite, or that end above where they began."""
    if not len(losses) or not np.isfinite(losses).all():
        return True
    tail = losses[-max(4, len(losses) // 5) :]
    scatter = float(np.median(np.abs(np.diff(losses)))) if len(losses) > 2 else 0.0  # which an explosion hardly raises
    return bool(np.median(tail) > losses[0] + _SURE * scatter * (1 + 1 / np.sqrt(len(tail))))


def forecast(
    curves: Mapping[float, Floats],
    horizon: int,
    momentum: float = 0.0,
    above: float = 0.0,
    validation: Mapping[float, Series] | None = None,
) -> Forecast | None:
    """The best rate for a run of `horizon` steps.

    Args:
        curves: the losses of each short run, by its constant rate; the same batches in all of them.
        horizon: steps.
        momentum: of the rule (β₁ of Adam's kind).
        above: how far beyond the highest rate that held one may look, in decades: to find out what to try next.

    Returns:
        None where fewer than two of the runs held.

    Example:
        >>> noise = np.random.default_rng(0).standard_normal(120)
        >>> runs = {rate: 100 / (1 + rate * np.arange(120)) + rate + noise for rate in (0.03, 0.1, 0.3, 1.0)}
        >>> short, long = (forecast(runs, steps).rate for steps in (120, 10_000))
        >>> 0.2 < short <= 1.0, 0.05 < long < 0.2
        (True, True)
    """
    held = {rate: losses for rate, losses in sorted(curves.items()) if not is_lost(losses)}
    lost = tuple(sorted(set(curves) - set(held)))
    length = min((len(losses) for losses in held.values()), default=0)
    if len(held) < 2 or length < 2:
        return None
    rates = np.array(list(held))
    seen = _seen(held, validation or {}, length)
    fit = _fit(rates, seen, length, momentum)
    top = np.log10(rates[-1]) + above
    if lost:
        top = min(top, max(np.log10(rates[-1]), np.log10(min(lost)) - 2 * _GRID))
    places = np.arange(top, np.log10(rates[0]) - max(above, 4 * _GRID) - 1e-9, -_GRID)[::-1]
    losses = fit.at(10**places, horizon)
    best = int(np.argmin(losses))
    fall = fit.ahead(float(10 ** places[best]), int(_BEGINNING * length), horizon)
    enough = float(losses[best]) + max(_AS_GOOD * fall, fit.error)
    good = losses <= enough
    low, high = best, best
    while low > 0 and good[low - 1]:
        low -= 1
    while high < len(good) - 1 and good[high + 1]:
        high += 1
    ends = float(10 ** places[low]), float(10 ** places[high])
    return Forecast(float(np.sqrt(ends[0] * ends[1])), *ends, float(10 ** places[best]), horizon, lost,
                    TRAINED if seen.common else VALIDATED)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is fitted: (runs, times) each; `weight` is one over the variance up to a factor, 0 where nothing is known.

    `common` says that what all runs have at a time is the batches', and only differences count; else one constant is
    taken off.
    """

    times: Floats
    values: Floats
    common: bool

    def free(self, values: Floats) -> Floats:
        """Without what is common to the runs at each time, or without the mean; of any (…, runs, times)."""
        return np.asarray(values - values.mean(-2 if self.common else (-2, -1), keepdims=True))


def _seen(held: Mapping[float, Floats], validation: Mapping[float, Series], length: int) -> _Seen:
    """Validation losses where each run has enough at the same steps, else training losses in blocks."""
    skip = int(_BEGINNING * length)
    judged = [validation[rate] for rate in held if rate in validation]
    if len(judged) == len(held):
        steps = np.array(sorted(set.intersection(*(set(s.steps.tolist()) for s in judged))), np.int64)
        steps = steps[(steps >= skip) & (steps <= length)]
        values = np.array([s.values[np.searchsorted(s.steps, steps)] for s in judged], np.float64)
        if len(steps) >= _EVALUATIONS and np.isfinite(values).all():
            return _Seen(steps.astype(np.float64), values, False)
    blocks = np.array_split(np.arange(skip, length), min(_BLOCKS, length - skip))
    times = np.array([b.mean() for b in blocks])
    return _Seen(times, np.array([[y[b].mean() for b in blocks] for y in held.values()], np.float64), True)


@dataclass(frozen=True, slots=True)
class _Fit:
    """A and ν, s₀ and p, and C and s₁; `error` is the standard error of a run's mean over its last quarter."""

    falling: float
    noise: float
    rising: float
    scale: float
    power: float
    fits: float
    momentum: float
    error: float

    def _shares(self, rates: Floats, steps: int) -> tuple[Floats, Floats]:
        left, noise = Response(np.array([float(steps)]), self.momentum)(rates, self.scale, np.array([self.power]))
        return left[0, :, 0], noise[0, :, 0]

    def at(self, rates: Floats, steps: int) -> Floats:
        """L − L∞ after so many steps."""
        left, noise = self._shares(rates, steps)
        path = rates * _effective(np.array([float(steps)]), self.momentum)[0]
        return self.falling * left + self.noise * rates * noise + self.rising * np.log1p(path / self.fits)

    def ahead(self, rate: float, begun: int, steps: int) -> float:
        """The fall that is left to make from one step to another."""
        one = np.array([rate])
        return self.falling * float(self._shares(one, begun)[0][0] - self._shares(one, steps)[0][0])


def _effective(t: Floats, momentum: float) -> Floats:
    """The steps that plain descent takes as far, up to a constant factor."""
    return np.asarray(t - momentum * (1 - momentum**t) / (1 - momentum)) if 0 < momentum < 1 else np.asarray(t)


def _fit(rates: Floats, seen: _Seen, length: int, momentum: float) -> _Fit:
    """Least squares, twice where runs swing: what a swing leaves unexplained dies away as μᵗ, and weighs so."""
    even = np.ones(len(seen.times))
    fit, misses = _search(rates, seen, length, momentum, even)
    if momentum > _SWINGS and len(seen.times) > 2:
        squares = np.mean(misses**2, 0)
        dying = np.stack([np.ones_like(even), momentum ** (2 * seen.times)])
        # relative errors, so that the late, small ones count as much as the early ones
        size = np.maximum(squares, 1e-3 * squares.mean())
        found, _ = _positive((dying / size) @ (dying / size).T, (dying / size) @ (squares / size))
        variance = found @ dying
        if (variance > 0).all():
            fit, misses = _search(rates, seen, length, momentum, np.sqrt(variance.min() / variance))
    return fit


def _search(
    rates: Floats, seen: _Seen, length: int, momentum: float, weights: Floats
) -> tuple[_Fit, Floats]:
    """Linear in A, ν and C, none of them below zero, by search over s₀, p and s₁; and what it misses."""
    runs = len(rates)
    response = Response(seen.times, momentum)
    paths = rates[:, None] * _effective(seen.times, momentum)

    def free(values: Floats) -> Floats:
        return np.asarray((seen.free(values) * weights).reshape(*values.shape[:-2], -1))

    wanted = free(seen.values)
    powers = np.array(_POWERS)
    best: tuple[float, float, float, float, Floats] = (np.inf, 1.0, 1.0, 1.0, np.zeros(3))
    misses = wanted
    longest = float(rates[-1]) * length
    risings = (longest * np.array(_RISES)) if not seen.common else np.ones(1)
    swing = free(np.broadcast_to(momentum**seen.times, paths.shape))
    for scale in longest * _SCALES:
        left, noise = response(rates, float(scale), powers)
        lefts, noises = free(left), free(rates[:, None] * noise)
        for k, power in enumerate(powers):
            for fits in risings:
                columns = [lefts[k], noises[k]]
                if not seen.common:
                    columns.append(free(np.log1p(paths / fits)))
                    if momentum > _SWINGS:
                        columns.append(swing)
                table = np.stack(columns)
                found, rest = _positive(table @ table.T, table @ wanted)
                if rest < best[0]:
                    best = rest, float(scale), float(power), float(fits), found
                    misses = wanted - found @ table
    misses = misses.reshape(runs, -1) / weights
    end = misses[:, -max(1, len(seen.times) // 4) :]
    # What the fit misses at the runs' ends is what it can't know of them; early misses are of another phase.
    error = np.sqrt(np.mean(end**2) * runs / (runs - 1) / end.shape[1])
    a, v, *c = best[4]
    fit = _Fit(float(a), float(v), float(c[0]) if c else 0.0, best[1], best[2], best[3], momentum, float(error))
    return fit, misses


def _positive(products: Floats, target: Floats) -> tuple[Floats, float]:
    """The least-squares solution of which nothing is below zero, and the squares it leaves, up to a constant."""
    count = len(target)
    best, rest = np.zeros(count), 0.0
    scale = np.sqrt(np.maximum(np.diag(products), 1e-300))
    products, target = products / np.outer(scale, scale), target / scale
    for chosen in _subsets(count):
        part = products[np.ix_(chosen, chosen)]
        if len(chosen) > 1 and np.linalg.det(part) < 1e-10:
            continue
        found = np.linalg.solve(part, target[chosen])
        left = -float(found @ target[chosen])
        if (found >= 0).all() and left < rest:
            rest = left
            best = np.zeros(count)
            best[chosen] = found
    return best / scale, rest


@cache
def _subsets(count: int) -> list[list[int]]:
    return [list(c) for n in range(1, count + 1) for c in combinations(range(count), n)]
