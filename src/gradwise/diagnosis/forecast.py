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

import numpy as np

from gradwise.recording.recording import Floats

# The first fifth of each run is the start's own affair: sharp directions collapse, averages of gradients fill.
_BEGINNING = 0.2
# p from slower than a random walk's to nearly exponential; s₀ from a thousandth of the longest path to several of it.
_POWERS = (0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)
_SCALES = 10.0 ** np.arange(-3.5, 0.51, 0.25)
# Rates are told apart no finer than this, in decades (15 %).
_GRID = 1 / 16
# Below this momentum the swing is over within the beginning that is left out.
_SWINGS = 0.5
# Rates that lose less than so much of what there is to gain after the beginning are as good as the best.
_AS_GOOD = 0.02
# A run is lost when it ends higher than it began by so many times its scatter, that of the one loss it began with.
_SURE = 2.0


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
    """

    rate: float
    low: float
    high: float
    best: float
    horizon: int
    lost: tuple[float, ...] = ()


def is_lost(losses: Floats) -> bool:
    """Whether a run at a constant rate diverged: losses that are not finite, or that end above where they began."""
    if not len(losses) or not np.isfinite(losses).all():
        return True
    tail = losses[-max(4, len(losses) // 5) :]
    scatter = float(np.median(np.abs(np.diff(losses)))) if len(losses) > 2 else 0.0  # which an explosion hardly raises
    return bool(np.median(tail) > losses[0] + _SURE * scatter * (1 + 1 / np.sqrt(len(tail))))


def forecast(
    curves: Mapping[float, Floats], horizon: int, momentum: float = 0.0, above: float = 0.0
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
    fit = _fit(rates, np.array([losses[:length] for losses in held.values()], np.float64), momentum)
    top = np.log10(rates[-1]) + above
    if lost:
        top = min(top, max(np.log10(rates[-1]), np.log10(min(lost)) - 2 * _GRID))
    places = np.arange(top, np.log10(rates[0]) - max(above, 4 * _GRID) - 1e-9, -_GRID)[::-1]
    losses = fit.at(10**places, horizon)
    best = int(np.argmin(losses))
    begun = float(fit.at(10 ** places[best : best + 1], int(_BEGINNING * length))[0])
    enough = float(losses[best]) + max(_AS_GOOD * (begun - float(losses[best])), fit.error)
    good = losses <= enough
    low, high = best, best
    while low > 0 and good[low - 1]:
        low -= 1
    while high < len(good) - 1 and good[high + 1]:
        high += 1
    ends = float(10 ** places[low]), float(10 ** places[high])
    return Forecast(float(np.sqrt(ends[0] * ends[1])), *ends, float(10 ** places[best]), horizon, lost)


@dataclass(frozen=True, slots=True)
class _Fit:
    """A and ν, s₀ and p; `error` is the standard error of a run's mean loss over its last quarter."""

    falling: float
    noise: float
    scale: float
    power: float
    momentum: float
    error: float

    def at(self, rates: Floats, steps: int) -> Floats:
        """L − L∞ after so many steps."""
        left = _left(rates, _effective(np.array([steps]), self.momentum)[0], self.scale, self.power)
        return self.falling * left + self.noise * rates * (1 - left)


def _effective(t: Floats, momentum: float) -> Floats:
    """The steps that plain descent takes as far, up to a constant factor."""
    return np.asarray(t - momentum * (1 - momentum**t) / (1 - momentum)) if 0 < momentum < 1 else np.asarray(t)


def _left(rates: Floats, steps: Floats, scale: float, power: float) -> Floats:
    return np.asarray((1 + rates * steps / scale) ** -power)


def _fit(rates: Floats, losses: Floats, momentum: float) -> _Fit:
    """Least squares of the differences between runs: linear in A, ν and the swings, by search over s₀ and p."""
    runs, steps = losses.shape
    skip = int(_BEGINNING * steps)
    t = np.arange(skip, steps)
    losses = losses[:, skip:]
    paths = _effective(t.astype(np.float64), momentum)
    swings = []
    if momentum > _SWINGS:
        for k in range(runs - 1):
            swing = np.zeros_like(losses)
            swing[k] = momentum**t
            swings.append(_between(swing))
    basis = np.linalg.qr(np.array(swings).T)[0] if swings else np.empty((losses.size, 0))

    def seen(values: Floats) -> Floats:
        flat = _between(values)
        return np.asarray(flat - basis @ (basis.T @ flat))

    wanted = seen(losses)
    best: tuple[float, float, float, Floats] = (np.inf, 1.0, 1.0, np.zeros(2))
    end = np.zeros((runs, 1))
    for scale in rates[-1] * steps * _SCALES:
        for power in _POWERS:
            left = _left(rates[:, None], paths, scale, power)
            columns = np.stack([seen(left), seen(rates[:, None] * (1 - left))])
            found = _positive(columns @ columns.T, columns @ wanted)
            misses = wanted - found @ columns
            rest = float(misses @ misses)
            if rest < best[0]:
                best = rest, float(scale), power, found
                end = misses.reshape(runs, len(t))[:, -max(1, len(t) // 4) :]
    # What the fit misses at the runs' ends is what it can't know of them; early misses are of another phase.
    error = np.sqrt(np.mean(end**2) * runs / (runs - 1) / end.shape[1])
    return _Fit(float(best[3][0]), float(best[3][1]), best[1], best[2], momentum, float(error))


def _between(values: Floats) -> Floats:
    """What differs between the runs at each step."""
    return np.asarray((values - values.mean(0)).ravel())


def _positive(products: Floats, target: Floats) -> Floats:
    """The least-squares solution for two columns, neither coefficient below zero: loss falls, and noise adds to it."""
    size = np.maximum(np.diag(products), 1e-300)
    determinant = float(products[0, 0] * products[1, 1] - products[0, 1] ** 2)
    if determinant > 1e-12 * size[0] * size[1]:
        both = np.array([products[1, 1] * target[0] - products[0, 1] * target[1],
                         products[0, 0] * target[1] - products[0, 1] * target[0]]) / determinant  # fmt: skip
        if (both >= 0).all():
            return both
    alone = np.maximum(target / size, 0.0)
    gains = alone * target
    return np.array([alone[0], 0.0]) if gains[0] >= gains[1] else np.array([0.0, alone[1]])
