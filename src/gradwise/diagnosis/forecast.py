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

Momentum makes an oscillator of each direction. Where it creeps, the path decides as before; where it swings, its energy
goes as μᵗ, whatever the rate. Both shares are then means over the same curvatures (`gradwise.diagnosis.response`). The
swings of two runs differ in phase, which the model doesn't know and which dies away as μᵗ: late losses weigh more.

On held-out data a network that learns its rows by heart pays for the path: L gets another term, C log(1 + ηt/s₁).

All runs have the same batches in the same order. What a batch adds to the loss is nearly the same in all, so what the
runs have in common at a step counts the less, the more of the losses' scatter they share. A is bounded by the fall that
was seen.

Source: the noise floor and its growth, Mandt et al. (2017), "Stochastic gradient descent as approximate Bayesian
inference"; the power law of many curvatures, e.g. Velikanov & Yarotsky (2021).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
# A is at most so many times the fall that was seen: what fits as a difference of larger amounts is no fall.
_ABSURD = 2.0
# What else the swings' misses come down to, as a share of what they begin with.
_REST = 0.1
# Losses of runs that swing are averaged in so many blocks; so many evaluations of validation are enough to go by.
_BLOCKS, _EVALUATIONS = 24, 2
# Rates are told apart no finer than this, in decades (15 %).
_GRID = 1 / 16
# Runs swing where of the energy of a swing more than this is left after the beginning.
_SWINGS = 0.1
# Rates that lose less than so much of what there is to gain after the beginning are as good as the best.
_AS_GOOD = 0.02
# The share of a run's last losses that must be above the start where it diverged: all but the highest.
_CALM = 0.9
# A run is lost when it ends higher than it began by so many times its scatter, that of the one loss it began with.
_SURE = 2.0


TRAINED, VALIDATED = "training loss", "validation loss"


@dataclass(frozen=True, slots=True)
class Forecast:
    """Which rate will be best.

    Attributes:
        rate: the middle (in decades) of `low` and `high`: among equals, the one that bears the largest error on either
            side.
        low, high: rates from `low` to `high` will do as well: they lose less than 2 % of the fall forecast after the
            first fifth, or less than the fit can tell.
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


def is_lost(losses: Floats, scatter: float | None = None) -> bool:
    """Whether a run at a constant rate diverged: losses that are not finite, or that end above where they began.

    Args:
        losses: of each step.
        scatter: of neighbouring losses in a run that is known to be calm; None takes the run's own.
    """
    if not len(losses) or not np.isfinite(losses).all():
        return True
    # Of many small batches some have no loss at all even in an explosion, and few calm ones have a large one.
    tail = np.sort(losses[-max(4, len(losses) // 5) :])
    kept = max(1, int(_CALM * len(tail)))
    allowed = _scatter(losses) if scatter is None else min(scatter, _scatter(losses))
    return bool(tail[:kept].mean() > losses[0] + _SURE * allowed * (1 + 1 / np.sqrt(kept)))


def lost_of(curves: Mapping[float, Floats]) -> tuple[float, ...]:
    """The rates at which runs diverged; the run at the lowest rate tells how much batches differ."""
    calm = [_scatter(losses) for _, losses in sorted(curves.items()) if np.isfinite(losses).all()]
    return tuple(rate for rate, losses in sorted(curves.items()) if is_lost(losses, calm[0] if calm else None))


def _scatter(losses: Floats) -> float:
    return float(np.median(np.abs(np.diff(losses)))) if len(losses) > 2 else 0.0


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
        validation: validation losses of the runs, by rate. Where all runs that held have two at the same steps after
            the beginning, these are forecast.

    Returns:
        None where fewer than two of the runs held.

    Example:
        >>> noise = np.random.default_rng(0).standard_normal(120)
        >>> runs = {rate: 100 / (1 + rate * np.arange(120)) + rate + noise for rate in (0.03, 0.1, 0.3, 1.0)}
        >>> short, long = (forecast(runs, steps).rate for steps in (120, 10_000))
        >>> 0.2 < short <= 1.0, 0.05 < long < 0.2
        (True, True)
    """
    lost = lost_of(curves)
    held = {rate: losses for rate, losses in sorted(curves.items()) if rate not in lost}
    length = min((len(losses) for losses in held.values()), default=0)
    if len(held) < 2 or length < 2:
        return None
    rates = np.array(list(held))
    seen = _seen(held, validation or {}, length, momentum)
    fit = _fit(rates, seen, length, momentum)
    top = np.log10(rates[-1]) + above
    if lost:
        top = min(top, max(np.log10(rates[-1]), np.log10(min(lost)) - 2 * _GRID))
    places = np.arange(top, np.log10(rates[0]) - max(above, 4 * _GRID) - 1e-9, -_GRID)[::-1]
    losses = fit.at(10**places, horizon)
    best = int(np.argmin(losses))
    fall = fit.ahead(float(10 ** places[best]), int(_BEGINNING * max(length, horizon)), horizon)
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
    share: float = 1.0
    fallen: float = np.inf

    def free(self, values: Floats) -> Floats:
        """Without what is common to the runs at each time, or without the mean; of any (…, runs, times)."""
        together = values.mean(-2, keepdims=True)
        return np.asarray(values - together + self.share * (together - together.mean(-1, keepdims=True)))


def _seen(held: Mapping[float, Floats], validation: Mapping[float, Series], length: int, momentum: float) -> _Seen:
    """Validation losses where each run has enough at the same steps, else training losses in blocks."""
    skip = int(_BEGINNING * length)
    swings = momentum**skip > _SWINGS
    judged = [validation[rate] for rate in held if rate in validation]
    if len(judged) == len(held):
        together: set[int] = set.intersection(*(set(s.steps.tolist()) for s in judged))
        steps = np.array(sorted(together), np.int64)
        steps = steps[(steps >= skip) & (steps <= length)]
        values = np.array([s.values[np.searchsorted(s.steps, steps)] for s in judged], np.float64)
        if len(steps) >= _EVALUATIONS and np.isfinite(values).all():
            lowest = min(float(s.values.min()) for s in judged)
            return _Seen(steps.astype(np.float64), values, False, float(swings), float(judged[0].values.max()) - lowest)
    blocks = np.array_split(np.arange(skip, length), min(_BLOCKS, length - skip) if swings else length - skip)
    times = np.array([b.mean() for b in blocks])
    losses = np.array([y[:length] for y in held.values()], np.float64)[:, skip:]
    moves = np.diff(losses, axis=1)
    both = float(np.mean(moves.mean(0) ** 2))  # variances of common + own/n, and of both
    every = float(np.mean(moves**2))
    n = len(losses)
    own = max((every - both) * n / (n - 1), 1e-12 * every)
    shared = max(both - own / n, 0.0)
    weight = float(1 / np.sqrt(1 + n * shared / own)) if swings and every > 0 else 0.0
    means = np.array([[y[b].mean() for b in blocks] for y in held.values()], np.float64)
    return _Seen(times, means, True, weight, float(max(next(iter(held.values()))[0], means[0].max()) - means.min()))


@dataclass(frozen=True, slots=True)
class _Shape:
    """What enters the loss other than linearly: s₀, p and s₁."""

    scale: float
    power: float
    rises: float


@dataclass(frozen=True, slots=True)
class _Fit:
    """A, ν, C; `error` is the standard error of a run's mean over its last quarter."""

    falling: float
    noise: float
    rising: float
    shape: _Shape
    momentum: float
    error: float

    def at(self, rates: Floats, steps: int) -> Floats:
        """L − L∞ after so many steps."""
        columns = _columns(rates, np.array([float(steps)]), self.momentum, [self.shape])[0, :, :, 0]
        return np.asarray(np.array([self.falling, self.noise, self.rising]) @ columns)

    def ahead(self, rate: float, begun: int, steps: int) -> float:
        """The fall that is left to make from one step to another."""
        times = np.array([float(begun), float(steps)])
        left = _columns(np.array([rate]), times, self.momentum, [self.shape])[0, 0, 0]
        return self.falling * float(left[0] - left[1])


def _effective(t: Floats, momentum: float) -> Floats:
    """The steps that plain descent takes as far, up to a constant factor."""
    return np.asarray(t - momentum * (1 - momentum**t) / (1 - momentum)) if 0 < momentum < 1 else np.asarray(t)


def _columns(rates: Floats, times: Floats, momentum: float, shapes: Sequence[_Shape]) -> Floats:
    """What A, ν and C are multiplied by: (shapes, 3, rates, times)."""
    table = np.zeros((len(shapes), 3, len(rates), len(times)))
    response = Response(times, momentum)
    paths = rates[:, None] * _effective(times, momentum)
    shares: dict[tuple[float, float], Floats] = {}
    for k, shape in enumerate(shapes):
        key = shape.scale, shape.power
        if key not in shares:
            shares[key] = np.stack(response(rates, *key))
        table[k, :2] = shares[key]
        table[k, 1] *= rates[:, None]
        table[k, 2] = np.log1p(paths / shape.rises)
    return table


def _fit(rates: Floats, seen: _Seen, length: int, momentum: float) -> _Fit:
    """Least squares, linear in A, ν and C, by search over the rest."""
    longest = float(rates[-1]) * length
    shapes = [
        _Shape(longest * scale, power, longest * rises)
        for scale in _SCALES
        for power in _POWERS
        for rises in ((1.0,) if seen.common else _RISES)
    ]
    table = seen.free(_columns(rates, seen.times, momentum, shapes)[:, : 2 if seen.common else 3])
    weights = np.ones(len(seen.times))
    if momentum ** int(_BEGINNING * length) > _SWINGS:
        # What a swing's phase leaves unexplained dies away as μᵗ, down to what else there is.
        weights = 1 / np.hypot(_REST, momentum**seen.times)
        weights /= weights.max()
    found, misses, which = _solved(table, seen.free(seen.values), weights, _ABSURD * seen.fallen)
    runs, end = len(rates), misses[:, -max(1, len(seen.times) // 4) :]
    # What the fit misses at the runs' ends is what it can't know of them; early misses are of another phase.
    error = np.sqrt(np.mean(end**2) * runs / (runs - 1) / end.shape[1])
    falling, noise, *rising = map(float, found)
    return _Fit(falling, noise, rising[0] if rising else 0.0, shapes[which], momentum, float(error))


def _solved(table: Floats, wanted: Floats, weights: Floats, most: float) -> tuple[Floats, Floats, int]:
    """The amounts of the shape that fits best with A at `most` so large, what it misses, (runs, times), and which."""
    columns = (table * weights).reshape(*table.shape[:2], -1)
    found, rest = _positive(columns, (wanted * weights).ravel())
    which = int(np.argmin(np.where(found[:, 0] > most, 0.0, rest)))
    return found[which], wanted - np.tensordot(found[which], table[which], 1), which


def _positive(columns: Floats, wanted: Floats) -> tuple[Floats, Floats]:
    """Least squares with nothing below zero, for many tables (tables, columns, points) at once.

    Returns the amounts (tables, columns), and the squares left, up to a constant.
    """
    columns_each = columns.shape[1]
    size = np.sqrt(np.maximum(np.einsum("tcn,tcn->tc", columns, columns), 1e-300))
    columns = columns / size[..., None]
    products, target = columns @ columns.transpose(0, 2, 1), columns @ wanted
    best, rest = np.zeros(target.shape), np.zeros(len(target))
    for count in range(1, columns_each + 1):
        for chosen in map(list, combinations(range(columns_each), count)):
            part = products[:, chosen][:, :, chosen]
            good = np.linalg.det(part) > 1e-10
            found = np.zeros((len(target), count))
            found[good] = np.linalg.solve(part[good], target[good][:, chosen, None])[..., 0]
            gain = np.einsum("tc,tc->t", found, target[:, chosen])
            better = good & (found >= 0).all(1) & (-gain < rest)
            rest[better] = -gain[better]
            best[better] = 0.0
            best[np.ix_(better, chosen)] = found[better]
    return best / size, rest
