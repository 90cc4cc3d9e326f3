"""Checks on gradients that don't count: too small beside epsilon (E1), or drowned by the noise of a batch (C10)."""

from __future__ import annotations

import math

import numpy as np

from gradwise.diagnosis.case import Case, Check
from gradwise.diagnosis.hypotheses import Hypothesis
from gradwise.diagnosis.rates import LEARNED, too_low
from gradwise.interventions import Intervention
from gradwise.recording import signals
from gradwise.schedules import cosine

# Adaptive rules divide by sqrt(v) + eps, with v the mean of squared gradients; Adadelta's and Adagrad's eps differ.
_BY_EPS = {"Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adamax"}
# Where eps is this many times sqrt(v), steps are shorter than they should be by as much.
_DWARFED = 3.0
# Batches this far below the one that noise calls for spend nearly all of their gradient on noise.
_DROWNED = 30.0
# Of a few rows gradients differ so much that no number of looks tells what they have in common; then the loss does, by
# varying many times more than it ever fell.
_FEW_ROWS, _MOSTLY = 4, 5.0


def ruled_by_eps(case: Case) -> Hypothesis | None:
    """`eps-dominated-updates`: an adaptive rule whose epsilon is larger than what it adapts to."""
    c, e = case.e.curve, case.e
    gradient, update = (case.recording.get(s, e.source) for s in (signals.GRADIENT, signals.UPDATE))
    if e.optimizer.kind not in _BY_EPS or len(gradient) < 4 or gradient.values.ndim != 2 or not e.rate(0) > 0:
        return None
    groups = e.optimizer.groups
    about = {p.name: p for p in e.optimizer.parameters if p.group < len(groups)}
    columns = [(i, about[name]) for i, name in enumerate(gradient.labels) if name in about]
    if not columns:
        return None
    sizes = np.array([max(math.prod(p.shape), 1) for _, p in columns], float)
    eps = np.array([float(groups[p.group].get("eps") or 0.0) for _, p in columns])
    looked = gradient.values[:, [i for i, _ in columns]] / np.sqrt(sizes)
    # While it learns (or should): late in a run that has converged, gradients may be as small as they like.
    early = gradient.steps <= max(0.5 * gradient.steps[-1], float(gradient.steps[3]))
    rms = np.nanmedian(looked[early], axis=0)
    with np.errstate(all="ignore"):
        dwarfed = (eps > _DWARFED * rms) & (rms > 0)
    share = float(sizes[dwarfed].sum() / sizes.sum())
    if share < 0.5:
        return None
    typical = float(np.sqrt((rms[dwarfed] ** 2 * sizes[dwarfed]).sum() / sizes[dwarfed].sum()))
    largest = float(eps[dwarfed].max())
    slow = c is not None and (too_low(e) is not None or c.learned < LEARNED)
    factor = largest / typical
    confidence = (0.9 if slow else 0.5) if not case.rivals else 0.4
    moved = np.nanmedian(update.values[:, [i for i, _ in columns]][early[: len(update)]] / np.sqrt(sizes), axis=0)
    says = (
        f"{e.optimizer.kind}'s epsilon ({largest:g}) is {factor:.2g} times as large as the gradients it is added to "
        f"(rms {typical:.2g}), on {100 * share:.0f} % of the parameters: it doesn't adapt, and its steps are that much "
        "shorter than the learning rate says. Undo what makes the loss so small (a scale, a mean over too much), or "
        "lower epsilon."
    )
    evidence = {
        "eps": largest,
        "gradient_rms": typical,
        "share_of_parameters": share,
        "update_over_rate": float(np.median(moved[dwarfed])) / e.rate(0),
    }
    candidates = (
        Intervention(eps=float(f"{min(largest, 0.01 * typical):.1g}")),
        Intervention(loss_scale=float(f"{100 * factor:.1g}")),
    )
    place = case.e.optimizer.made
    return Hypothesis("eps-dominated-updates", confidence, "error", says, 0, evidence, candidates, place=place)


def drowned(case: Case) -> Hypothesis | None:
    """`noisy-small-batch` (C10): at a sound rate, successive gradients have next to nothing in common.

    Two gradients of the same slope G with independent noise of variance tr(S)/B have the cosine
    |G|^2 / (|G|^2 + tr(S)/B) on average, so that the batch whose noise equals its signal is B (1/cosine - 1).
    """
    c, e = case.e.curve, case.e
    batch = case.recording.get(signals.BATCH, e.source)
    cosines = case.recording.get(signals.COSINE, e.source)
    if case.rivals or c is None or c.bad_at_end or len(cosines) < 12:
        return None
    rows = float(np.median(batch.values)) if len(batch) else math.nan
    # While the loss comes down: where it has arrived there is no slope left, only noise.
    descending = cosines.values[cosines.steps <= max(e.descent, 0.2 * e.steps)]
    descending = descending[np.isfinite(descending)]
    if len(descending) < 6:
        return None
    mean = float(descending.mean())
    error = float(descending.std(ddof=1)) / math.sqrt(len(descending))
    shared = max(mean, error, 1e-6)  # what can't be told from nothing is no more than its error
    times = 1 / shared - 1
    noise, net = float(np.median(c.noise)), c.net
    few = rows <= _FEW_ROWS and mean < 2 * error and noise > _MOSTLY * abs(net)
    # It hurts where the floor is high, in spite of steps that are not too long, or if the loss itself is mostly noise.
    if not few and (times < _DROWNED or not (e.floor > 0.04 or c.learned < LEARNED or noise > net)):
        return None
    calls_for = f"about {rows * times:.2g} rows" if len(batch) else f"{times:.2g} times the size"
    says = (
        f"Successive gradients have a cosine of {mean:.2g}: nearly all of a step is the noise of its batch"
        + (f" of {rows:g} rows" if len(batch) else "")
        + f". By that, signal and noise would balance at a batch of {calls_for}. Take larger batches, accumulate "
        "gradients, or lower the rate."
    )
    evidence = {"cosine": mean, "cosine_error": error, "batch_called_for_over_batch": times}
    if len(batch):
        evidence |= {"batch": rows, "batch_called_for": rows * times}
    candidates = (
        Intervention(accumulate=4),
        Intervention(accumulate=16),
        Intervention(lr_scale=0.3),
        Intervention(schedule=cosine(max(e.steps, 2), end=0.01)),
    )
    confidence = 0.45 if times >= _DROWNED else 0.35
    return Hypothesis("noisy-small-batch", confidence, "warning", says, 0, evidence, candidates)


def _checks(case: Case) -> tuple[Hypothesis | None, ...]:
    return ruled_by_eps(case), drowned(case)


CHECKS: tuple[Check, ...] = (_checks,)
