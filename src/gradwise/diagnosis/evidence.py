"""What a recording says about one optimizer's training, as a handful of numbers that checks argue from.

The central one compares what the steps *promise* with what the loss *pays*. A step dx promises, to first order, the
decrease -g.dx; summed over a run this is the decrease there would have been if every step stayed in the linear
neighbourhood of its own gradient and every batch spoke for all. What the loss really did, over that sum, is the
*efficiency*:

- near 1: the loss simply follows the slope; the steps are far smaller than the surface allows (rate too low);
- some tenths: curvature and batch noise take their usual part;
- a few hundredths: nearly all that the steps promise is lost to overshooting (rate too high).

It has no unit and does not change when the loss is scaled or shifted. What the gradient of the *next* batch says of
the same step, -g'.dx, tells the two reasons for a loss apart at any one time: positive while steps still gain, about
zero or negative where they only jump to and fro.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gradwise.diagnosis.curve import Curve, curve_of
from gradwise.recording import signals
from gradwise.recording.recording import Floats, Ints, OptimizerInfo, Recording, Series

_NONE = float("nan")
# Looks that a mean's error can be told from.
_FEW = 4


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over looks, its standard error, and over how many."""

    value: float = _NONE
    error: float = _NONE
    count: int = 0

    def above(self, limit: float, sigmas: float = 2.0) -> bool:
        """Significantly above `limit`."""
        return self.count >= 3 and self.value - sigmas * self.error > limit

    def below(self, limit: float, sigmas: float = 2.0) -> bool:
        """Significantly below `limit`."""
        return self.count >= 3 and self.value + sigmas * self.error < limit


@dataclass(frozen=True, slots=True)
class Evidence:
    """Numbers on one optimizer's run; NaN where nothing was recorded.

    Attributes:
        efficiency: net fall of the loss over the sum of the steps' promises.
        descent_efficiency: the same up to where nine tenths of the fall were reached.
        descent: that point, as a share of the run.
        middle_efficiency: the same from the mean of the first half to that of the second, which tell a slow fall from
            noise where the few losses at the ends can't.
        late_promise: the part of all promises that was made in the second half.
        floor: the part of the fall that a noise floor of this rate would account for: at a standstill the noise of
            the gradient lifts the loss by a quarter of what one step promises (times 1/(1-momentum)).
        kept_early, kept_late: what the next batch confirms of a step's promise, in the first fifth and the last
            two fifths of the run.
        promised_late: the late steps' promises over the same without their signs: 1 where each goes down the slope of
            its own batch, about 0 where momentum carries half of them up it, and no promise is left to be kept.
        cosine_early, cosine_late: cosine of successive gradients.
        first_promise: the largest promise of the first few steps, over the fall of the whole run.
        travel: distance of all parameters from their start, over their initial norm.
        update: size of a step relative to the parameters, median of the first looks and of the last.
        gradient: gradient norm at the first looks and at the last.
    """

    source: int
    optimizer: OptimizerInfo
    curve: Curve | None
    steps: int
    lr: Series
    momentum: float
    efficiency: float = _NONE
    descent_efficiency: float = _NONE
    descent: float = _NONE
    middle_efficiency: float = _NONE
    late_promise: float = _NONE
    floor: float = _NONE
    kept_early: float = _NONE
    kept_late: float = _NONE
    promised_late: float = _NONE
    cosine_early: Mean = Mean()
    cosine_late: Mean = Mean()
    first_promise: float = _NONE
    travel: float = _NONE
    update: tuple[float, float] = (_NONE, _NONE)
    gradient: tuple[float, float] = (_NONE, _NONE)
    looks: int = 0

    def rate(self, step: int) -> float:
        """The first group's rate in use at a step, NaN where the rate is not known."""
        if not len(self.lr):
            return _NONE
        values = np.atleast_1d(self.lr.at(np.array([step]))[0])
        return float(values[0])

    @property
    def sloped(self) -> bool:
        """Whether there is a slope left late in the run: steps gain on the next batch, or gradients agree.

        Under momentum, gradients agree at a standstill too, while it swings from one side to the other: then every
        other step goes up the slope of its own batch.
        """
        return not self.promised_late < 0.5 and (self.kept_late > 0.3 or self.cosine_late.above(0.1))

    @property
    def rates(self) -> Floats:
        """The first group's rate at every step of the curve."""
        if self.curve is None or not len(self.lr):
            return np.empty(0)
        values = self.lr.at(self.curve.steps)
        return values if values.ndim == 1 else values[:, 0]


def evidence_of(recording: Recording, source: int) -> Evidence:
    """Gather the evidence on one optimizer."""
    optimizer = next((o for o in recording.optimizers if o.index == source), OptimizerInfo(source, "unknown"))
    curve = curve_of(recording.get(signals.LOSS, source))
    time = recording.get(signals.TIME, source)
    momentum = _first(recording.get(signals.MOMENTUM, source), 0.0)
    base = Evidence(
        source=source,
        optimizer=optimizer,
        curve=curve,
        steps=int(time.steps[-1]) + 1 if len(time) else 0,
        lr=recording.get(signals.LR, source),
        momentum=momentum if 0 <= momentum < 1 else 0.0,
    )
    promise = _total(recording.get(signals.PROGRESS, source), squared=False)
    if curve is None or not len(promise):
        return base
    return _with_looks(base, curve, recording, promise)


def _with_looks(base: Evidence, curve: Curve, recording: Recording, promise: Series) -> Evidence:
    source, last = base.source, curve.steps[-1]
    kept, cosine = recording.get(signals.KEPT, source), recording.get(signals.COSINE, source)
    theta, update, travel, gradient = (
        _total(recording.get(s, source), squared=True)
        for s in (signals.PARAMETER, signals.UPDATE, signals.TRAVEL, signals.GRADIENT)
    )
    below = curve.level <= curve.start - 0.9 * curve.fall
    descended = float(curve.centre[int(np.argmax(below))]) if below.any() else float(last)
    early, late = 0.2 * last, 0.6 * last
    if not (kept.steps > late).any():
        late = early  # looks were too dear to go on to the end: the latest there are
    # What is not surely a fall must not make every promise look large beside it.
    fell = curve.sigmas(curve.fall) > 3
    fall = max(curve.fall, 3 * curve.start_error)
    with np.errstate(all="ignore"):
        relative = update.values / theta.values
        return Evidence(
            **{k: getattr(base, k) for k in ("source", "optimizer", "curve", "steps", "lr", "momentum")},
            efficiency=_ratio(curve.net, _integral(promise, last)),
            descent_efficiency=_ratio(0.9 * curve.fall, _integral(promise, max(descended, 4.0))) if fell else _NONE,
            descent=descended / max(last, 1),
            middle_efficiency=_ratio(*_between_halves(curve, promise)),
            late_promise=1 - _ratio(_integral(promise, last / 2), _integral(promise, last)),
            floor=_ratio(_mean(promise, promise.steps >= late) / (4 * (1 - base.momentum)), fall),
            kept_early=_share(kept, promise, 0, early),
            kept_late=_share(kept, promise, late, math.inf),
            promised_late=_agreeing(promise, late),
            cosine_early=_first_average(cosine, max(early, 8)),
            cosine_late=_last_average(cosine, late, early),
            first_promise=_ratio(float(np.nanmax(promise.values[: max(1, (promise.steps <= 8).sum())])), fall),
            travel=_ratio(float(travel.values[-1]), float(theta.values[0])) if len(travel) else _NONE,
            update=(_median(relative[:3]), _median(relative[-5:])),
            gradient=(_median(gradient.values[:3]), _median(gradient.values[-5:])),
            looks=len(promise),
        )


def _total(series: Series, squared: bool) -> Series:
    """A series with a column per tensor as one over all tensors: the root of the squares' sum, or the sum."""
    if series.values.ndim == 1:
        return series
    with np.errstate(all="ignore"):
        values = np.sqrt((series.values**2).sum(axis=1)) if squared else series.values.sum(axis=1)
    return Series(series.steps, values)


def _integral(series: Series, until: float) -> float:
    """Sum over all steps up to `until` of a series looked at on some of them."""
    x, y = series.steps.astype(np.float64), series.values
    good = np.isfinite(y)
    if not good.any():
        return _NONE
    x, y = x[good], y[good]
    inside = x < until
    x, y = np.append(x[inside], until), np.append(y[inside], np.interp(until, x, y))
    return float(np.trapezoid(y, x)) if len(x) > 1 else float(y[0]) * max(until, 1.0)


def _between_halves(curve: Curve, promise: Series) -> tuple[float, float]:
    """How far the mean loss of the second half lies below that of the first, and how far it was promised to.

    A step made at t of T adds its decrease to this difference in full at T/2, and in part before and after: to the
    first half's mean only from then on, to the second half's only for what is left of it.
    """
    half = len(curve.losses) // 2
    weights = 1 - np.abs(2 * promise.steps / max(float(curve.steps[-1]), 1.0) - 1)
    weighted = Series(promise.steps, promise.values * np.maximum(weights, 0.0))
    fell = float(curve.losses[:half].mean() - curve.losses[-half:].mean())
    return fell, _integral(weighted, float(curve.steps[-1]))


def _share(part: Series, whole: Series, first: float, last: float) -> float:
    """Sum of `part` over the sum of `whole`, for looks between two steps (a part belongs to the step before it)."""
    _, a, b = np.intersect1d(part.steps - 1, whole.steps, return_indices=True)
    steps, parts, wholes = part.steps[a], part.values[a], whole.values[b]
    chosen = (steps >= first) & (steps <= last) & np.isfinite(parts) & np.isfinite(wholes)
    return _ratio(float(parts[chosen].sum()), float(wholes[chosen].sum())) if chosen.any() else _NONE


def _agreeing(promise: Series, since: float) -> float:
    values = promise.values[(promise.steps >= since) & np.isfinite(promise.values)]
    return _ratio(float(values.sum()), float(np.abs(values).sum()))


def _mean(series: Series, chosen: Floats | Ints | np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
    values = series.values[chosen]
    return float(np.mean(values)) if len(values) else _NONE


def _average(values: Floats) -> Mean:
    values = values[np.isfinite(values)]
    if not len(values):
        return Mean()
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return Mean(float(values.mean()), error, len(values))


def _first_average(series: Series, until: float) -> Mean:
    """Over the looks up to a step, or the first few where looks were too dear for that many."""
    return _average(series.values[(series.steps <= until) | (np.arange(len(series)) < _FEW)])


def _last_average(series: Series, since: float, least: float) -> Mean:
    """Over the looks from a step on, or the last few after `least` where looks were too dear for that many."""
    few = np.arange(len(series)) >= len(series) - (_FEW - 1)
    return _average(series.values[(series.steps >= since) | (few & (series.steps > least))])


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 and math.isfinite(a) else _NONE


def _median(values: Floats) -> float:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else _NONE


def _first(series: Series, default: float) -> float:
    values = series.values.ravel()
    return float(values[0]) if len(values) and math.isfinite(values[0]) else default
