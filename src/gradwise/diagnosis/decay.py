"""Checks on what shrinks by itself: weights under a penalty (R2), units under dropout, and a rate that runs out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gradwise.diagnosis.case import Case, Check
from gradwise.diagnosis.curve import Curve
from gradwise.diagnosis.data import held_out_losses
from gradwise.diagnosis.generalization import far_above, high, reachable
from gradwise.diagnosis.hypotheses import Hypothesis, known, listed
from gradwise.diagnosis.rates import LEARNED
from gradwise.interventions import Intervention
from gradwise.recording import signals
from gradwise.recording.recording import Floats, ParameterInfo, Recording, Series
from gradwise.schedules import constant, cosine

_LESS_DECAY = tuple(Intervention(decay_scale=f) for f in (0.1, 0.01, 0.0))
_LESS_DROPOUT = tuple(Intervention(dropout_scale=f) for f in (0.4, 0.0))


@dataclass(frozen=True, slots=True)
class Penalty:
    """What weight decay does to the weights that it is applied to.

    Attributes:
        strength: of the first group that has any.
        shrunk: the weights' norm at the end over that at the start.
        expected: what decay alone would leave of them, as a share; NaN where the rule rescales it with the gradient.
        pull: the decrease of the loss that growing by a factor e would bring, to first order, late in the run.
        balance: the same from the penalty's side, lambda |p|^2: at its fixed point both are equal; NaN where
            decay isn't part of the gradient.
    """

    strength: float
    shrunk: float
    expected: float
    pull: float
    balance: float


def penalty_of(case: Case) -> Penalty | None:
    """The penalty on an optimizer's weight matrices; None where there is none."""
    e = case.e
    groups = e.optimizer.groups
    decay = [_number(g.get("weight_decay")) for g in groups]
    norms = case.recording.get(signals.PARAMETER, e.source)
    # The label of a column is the parameter's name.
    held = {p.name: decay[p.group] for p in e.optimizer.parameters if len(p.shape) > 1 and p.group < len(decay)}
    decayed = [i for i, name in enumerate(norms.labels) if held.get(name, 0.0) > 0]
    # What became of the weights shows in two looks, if the second is late enough.
    if not decayed or len(norms) < 2 or norms.values.ndim != 2 or norms.steps[-1] < 0.5 * e.steps:
        return None
    strengths = np.array([held[norms.labels[i]] for i in decayed])
    sizes = norms.values[:, decayed]
    with np.errstate(all="ignore"):
        overall = np.sqrt((sizes**2).sum(axis=1))
    late = norms.steps >= 0.6 * norms.steps[-1]
    pull = case.recording.get(signals.PULL, e.source)
    pulls = pull.values[:, [pull.labels.index(norms.labels[i]) for i in decayed]] if len(pull) else np.empty((0, 1))
    coupled = not (e.optimizer.kind == "AdamW" or any(g.get("decoupled_weight_decay") for g in groups))
    rates = e.rates
    adaptive = any("betas" in g or "alpha" in g or "lr_decay" in g for g in groups)
    shrinking = float(rates.sum()) * float(strengths.max()) / (1 if adaptive else 1 - e.momentum)
    return Penalty(
        strength=float(strengths.max()),
        shrunk=float(np.median(overall[late][-3:]) / overall[0]) if overall[0] > 0 else math.nan,
        expected=math.nan if coupled and adaptive else math.exp(-min(shrinking, 700.0)),
        pull=float(np.nanmean(pulls[pull.steps >= 0.6 * pull.steps[-1]].sum(axis=1))) if len(pull) else math.nan,
        balance=float((sizes[late] ** 2).mean(axis=0) @ strengths) if coupled else math.nan,
    )


def decays_too_much(case: Case) -> Hypothesis | None:
    """`over-regularized` by weight decay: weights held down by the penalty, and the loss held up by that."""
    c = case.e.curve
    p = None if case.rivals or c is None else penalty_of(case)
    if p is None or c is None or c.bad_at_end:
        return None
    is_high = high(case.recording, c)
    nothing_learned = c.learned < LEARNED or c.net < 0.3 * c.fall
    # Decay alone accounts for the shrinking: over the run it had the time to, and the weights went its way.
    had_time = not p.expected > 0.5
    collapsed = p.shrunk < 0.3 and had_time
    held = p.pull / max(c.net, 1e-300) if c.net > 0 else math.inf
    balanced = 0.4 < p.pull / p.balance < 2.5 if p.balance > 0 else p.pull > 0
    if collapsed and (is_high or (is_high is None and nothing_learned)):
        confidence = 0.9 if nothing_learned or is_high else 0.7
    elif balanced and had_time and held > 0.2:
        levels = reachable(case.recording)
        worse = levels is not None and c.end > max(2 * levels[1], levels[1] + 0.1 * levels[0])
        confidence = 0.7 if worse and held > 0.4 else 0.5 if held > 0.4 else 0.4
    else:
        return None
    says = (
        f"Weight decay of {p.strength:g} holds the weights down: their norm is {p.shrunk:.2g} times what it was at the "
        f"start, and the loss (now {c.end:.4g}) would fall if they could grow. Decay less."
    )
    evidence = {
        "weight_decay": p.strength,
        "norm_end_over_start": p.shrunk,
        "left_by_decay_alone": p.expected,
        "pull": p.pull,
        "penalty_balance": p.balance,
        "loss_end": c.end,
        "loss_start": c.start,
    }
    return Hypothesis("over-regularized", confidence, "warning", says, 0, known(evidence), _LESS_DECAY)


def drops_too_much(case: Case) -> Hypothesis | None:
    """`over-regularized` by dropout: training is much harder than what is asked for in the end."""
    c = case.e.curve
    events = case.recording.happened("dropout")
    if case.rivals or not case.main or c is None or not events or c.bad_at_end:
        return None
    modules = {str(k): float(v) for k, v in events[0].data.get("modules", {}).items()}
    name, most = max(modules.items(), key=lambda item: item[1])
    if most < 0.5:
        return None
    held_out = held_out_losses(case.recording)
    is_high = high(case.recording, c)
    ended = float(np.median(held_out[-3:])) if len(held_out) else math.nan
    # Harder by a part of all there was to learn: the nets that dropout thins out are too small for the task.
    harder = (c.end - ended) / max(c.start - ended, 1e-300) if ended < c.start else 0.0
    slow = bool(is_high) or c.end > 0.6 * c.start
    if most >= 0.75 and slow:
        confidence = 0.75 if is_high else 0.55
    elif slow and (harder > 0.2 or is_high):
        confidence = 0.5
    elif harder > 0.3:
        confidence = 0.4
    else:
        return None
    says = (
        f"Dropout of {most:g} ({name}) leaves too little of the net to learn with: the training loss is still "
        f"{c.end:.4g} of {c.start:.4g} at the start"
        + (f", the validation loss without dropout {ended:.4g}" if math.isfinite(ended) else "")
        + ". Drop less."
    )
    evidence = {"dropout": most, "train_end": c.end, "validation_end": ended, "train_start": c.start}
    return Hypothesis("over-regularized", confidence, "warning", says, 0, known(evidence), _LESS_DROPOUT, module=name)


def starved(case: Case) -> Hypothesis | None:
    """`lr-decayed-too-early`: the rate, or what an adaptive rule makes of it, was gone while the loss still fell."""
    c, e = case.e.curve, case.e
    if case.rivals or c is None or c.bad_at_end or c.fall <= 0 or e.steps < 40:
        return None
    by_schedule = _spent(c.steps.astype(np.float64), e.rates)
    pace = (
        _pace(case.recording, e.source)
        if "lr_decay" in (e.optimizer.groups or ({},))[0]
        else Series(np.empty(0, np.int64), np.empty(0))
    )
    by_rule = _spent(pace.steps.astype(np.float64), pace.values)
    found = max([s for s in (by_schedule, by_rule) if s is not None], key=lambda s: s.idle, default=None)
    if found is None or found.idle < 0.4:
        return None
    # What the second half of all that was spent brought, over the whole fall: as much again would bring a good part
    # of that. What has converged gains nothing, and a usual, hyperbolic descent some hundredths.
    at = found.step
    before, after = _level(c, found.half), _level(c, at)
    gain = (before - after) / max(c.start - after, 1e-300)
    # Where there is no slope left, gradients of different batches have nothing in common. So small a slope that their
    # noise hides it is left as well where similar rows tell far more than the net does.
    if gain < 0.1 or not (e.sloped or far_above(case.recording, c)):
        return None
    # Where the rule itself starves the run, nothing was scheduled: the signs have to be as clear.
    confidence = min(0.6 + gain, 0.9) if gain > 0.2 else 0.45
    peak = float(np.nanmax(e.rates))
    cause = (
        "the learning rate had been lowered"
        if by_schedule is found
        else f"{e.optimizer.kind}'s growing sum of squared gradients (and its lr_decay) had shortened the steps"
    )
    says = (
        f"By step {at}, {cause} to a hundredth of the largest while the loss was still falling; "
        f"{100 * found.idle:.0f} % of the run was spent almost standing still, though "
        + ("the gradient still pointed the same way from step to step" if e.sloped else "the inputs tell far more")
        + ". Decay later, or less."
    )
    evidence = {
        "collapsed_at": at,
        "share_of_run_after": found.idle,
        "gain_before_collapse": gain,
        "gradient_cosine_late": e.cosine_late.value,
        "lr_peak": peak,
        "lr_end": e.rate(max(e.steps - 1, 0)),
    }
    slower = peak * cosine(max(e.steps, 2), end=0.01)
    candidates: tuple[Intervention, ...] = (Intervention(lr=slower), Intervention(lr=constant(peak)))
    if by_schedule is not found:
        candidates = (Intervention(rule="rmsprop"), Intervention(rule="adam"), Intervention(lr_scale=10.0))
    place = e.optimizer.scheduler if by_schedule is found else None
    return Hypothesis(
        "lr-decayed-too-early", confidence, "warning", says, at, evidence, candidates, late=True, place=place
    )


@dataclass(frozen=True, slots=True)
class Spent:
    """When a rate was gone.

    Attributes:
        step: from which on it stayed below a hundredth of its peak.
        idle: the share of the run after that.
        half: the step by which half of what was spent until then was spent.
    """

    step: int
    idle: float
    half: float


def _spent(steps: Floats, rates: Floats) -> Spent | None:
    good = np.isfinite(rates) if len(rates) else np.empty(0, bool)
    if good.sum() < 8:
        return None
    steps, rates = steps[good], rates[good]
    peak = float(rates.max())
    alive = np.flatnonzero(rates > 0.01 * peak)
    if not len(alive) or alive[-1] + 1 >= len(steps):
        return None
    at = int(alive[-1]) + 1
    total = np.cumsum(rates * np.gradient(steps))
    half = float(steps[int(np.searchsorted(total, 0.5 * total[at]))])
    return Spent(int(steps[at]), float(1 - steps[at] / max(steps[-1], 1)), half)


def _level(c: Curve, step: float) -> float:
    """The median loss around a step: within a tenth of it, but a few losses at least."""
    near = np.argsort(np.abs(c.steps - step), kind="stable")[: max(int(0.1 * step), 5)]
    return float(np.median(c.losses[near]))


def _pace(recording: Recording, source: int) -> Series:
    """Length of a step over the gradient's: the rate that an adaptive rule comes to, over all tensors."""
    update, gradient = recording.get(signals.UPDATE, source), recording.get(signals.GRADIENT, source)
    n = min(len(update), len(gradient))
    if n < 4 or update.values.ndim != 2 or gradient.values.ndim != 2:
        return Series(np.empty(0, np.int64), np.empty(0))
    with np.errstate(all="ignore"):
        ratio = np.sqrt((update.values[:n] ** 2).sum(axis=1) / (gradient.values[:n] ** 2).sum(axis=1))
    # The first steps (Adagrad's very first is its longest by far) are no measure of those that follow.
    return Series(update.steps[3:n], ratio[3:])


def on_biases(case: Case) -> Hypothesis | None:
    """`decay-on-bias-or-norm` (info): groups that decay weights and the vectors beside them alike."""
    e = case.e
    decayed: list[ParameterInfo] = []
    strength = 0.0
    for number, group in enumerate(e.optimizer.groups):
        decay = _number(group.get("weight_decay"))
        held = [p for p in e.optimizer.parameters if p.group == number and p.trainable]
        if decay > 0 and any(len(p.shape) > 1 for p in held):
            decayed += [p for p in held if len(p.shape) == 1]
            strength = max(strength, decay)
    if not decayed:
        return None
    names = [p.name for p in decayed]
    says = (
        f"Weight decay of {strength:g} is also applied to {listed(names, 3)}: biases and normalization parameters, "
        "which don't overfit by being large. Decay the weights only (gradwise.decay_groups)."
    )
    evidence = {"weight_decay": strength, "parameters": names[:16], "count": len(names)}
    # No candidate: what costs a run nothing it would notice isn't worth the trials.
    return Hypothesis("decay-on-bias-or-norm", 0.9, "info", says, 0, evidence, parameter=names[0])


def little_decay(case: Case) -> str | None:
    """A remark (S8): a long run that has settled, at a rate less than 100 times lower than where it began."""
    c, e = case.e.curve, case.e
    if case.rivals or not case.main or c is None or e.steps < 2000 or not len(e.rates) or c.learned < LEARNED:
        return None
    rates = e.rates
    end = float(np.median(rates[-max(len(rates) // 100, 1) :]))
    if not end > 0 or float(rates.max()) >= 100 * end or c.share_after(0.5) > 0.1:
        return None
    ratio = float(rates.max()) / end
    how = "is what it was" if ratio < 1.5 else f"is {ratio:.2g} times lower than at its peak"
    return (
        f"After {e.steps} steps the loss has settled, and the learning rate {how}. Runs this long usually end over "
        "100 times lower; a decay towards the end may win a little more."
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _checks(case: Case) -> tuple[Hypothesis | None, ...]:
    return decays_too_much(case), drops_too_much(case), starved(case), on_biases(case)


CHECKS: tuple[Check, ...] = (_checks,)
