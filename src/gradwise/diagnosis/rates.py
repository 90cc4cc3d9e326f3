"""Checks on the learning rate: too high, too low, never lowered, and a run that came apart (C2 to C6, C8).

Each threshold is a statement about how descent works, not about a data set; `gradwise.diagnosis.evidence` explains
the quantities. A check returns a hypothesis or nothing.
"""

from __future__ import annotations

import math

import numpy as np

from gradwise.diagnosis.case import Case, Check
from gradwise.diagnosis.curve import Curve
from gradwise.diagnosis.evidence import Evidence
from gradwise.diagnosis.hypotheses import Hypothesis, known
from gradwise.interventions import Intervention
from gradwise.schedules import constant, cosine, inverse_time, step, warmup

# A difference of levels this many standard errors wide is no accident (several dozen windows are looked at).
SURE = 5.0
# The fall of a run is one such difference, looked at from a few starts: less will do.
LEARNED = 4.0
# Runs below this many steps that still fall in a line are short rather than slow, unless they hardly moved.
SHORT = 200
# What is left of a loss that can't be negative, as a share of where it began.
_ARRIVED = 0.05
LOWER = tuple(Intervention(lr_scale=f) for f in (0.1, 0.3, 0.03, 0.01, 0.001))
HIGHER = tuple(Intervention(lr_scale=f) for f in (10.0, 3.0, 30.0, 100.0, 1000.0))


def overshoots(e: Evidence, c: Curve) -> float:
    """How surely the steps jump across the valley instead of into it, from 0 to 1.

    A lone step whose promise exceeds all that the whole run ever gained cannot be true to its slope; and a descent
    that pays less than a few hundredths of what its steps promise is not following the slope at all. Batch noise alone
    lowers the efficiency too, but then the next batch does not contradict the step so flatly.
    """
    votes = [
        e.descent_efficiency < 0.03,
        e.first_promise > 3.0,
        e.kept_early < 0.1,
        e.update[0] > 0.025 and e.travel > 3.0,
        _rose(c) > 0 and c.spike > 2.0 * c.fall,
    ]
    known = [not math.isnan(v) for v in (e.descent_efficiency, e.first_promise, e.kept_early, e.travel)]
    return sum(map(bool, votes)) / (1 + max(sum(known), 1))


def thrown(e: Evidence, c: Curve) -> bool:
    """Whether nearly all signs say that steps overshoot, and the parameters ended far from where they began.

    Where there is nothing to learn for a model, steps promise more than is ever paid as well, but lead nowhere.
    """
    return overshoots(e, c) >= 0.6 and e.travel > 3.0


def too_high(e: Evidence) -> Hypothesis | None:
    """`lr-too-high` (C2, red): the loss rises at first, runs off, or jumps about without getting down."""
    c = e.curve
    if c is None:
        return None
    votes = overshoots(e, c)
    if _raised_after(e, int(c.centre[c.best_window])) > 1.5 and c.learned_before(c.best_window) > 3:
        return None  # it was sound until the schedule raised it: `came_apart` names the step
    # What was not finite all of a sudden, at no height that the noise doesn't reach, did not run off.
    early_end = c.bad_at_end and c.fall < 0.5 * c.spike and c.spike > SURE * float(np.median(c.noise))
    ended_high = c.learned < 2 or c.end > c.start
    rose = _rose(c)
    if early_end or (ended_high and (votes >= 0.6 or (rose and votes >= 0.3) or rose > 1)):
        confidence = min(0.7 + 0.25 * votes + 0.1 * rose, 0.98)
        how = "ran off until it was no longer finite" if c.bad_at_end else "ended no lower than it began"
        says = (
            f"The loss rose at first and {how}: the steps are too long for this surface and jump across the valley. "
            "Lower the learning rate and start again (warm-up or clipping can help to survive the first steps)."
        )
    elif votes >= 0.4 and e.descent_efficiency < 0.06 and (e.first_promise > 1 or e.update[0] > 0.025 or rose):
        # It learned something all the same, so only a trial can show that this is a fault.
        confidence = min(0.35 + 0.4 * votes, 0.59)
        says = (
            f"Of the decrease that the steps promised, the loss paid {_percent(e.descent_efficiency)}: most steps "
            "overshoot. It learns, but slowly and by luck. Lower the learning rate."
        )
    else:
        return None
    lower = (*LOWER, Intervention(schedule=warmup(max(e.steps // 10, 1))), _clip(e))
    return Hypothesis(
        "lr-too-high", confidence, "error", says, _first_rise(c), _facts(e, c), tuple(filter(None, lower))
    )


def too_low(e: Evidence) -> Hypothesis | None:
    """`lr-too-low` (C4, yellow): slow all along; C8's case of a gradient followed in steps too small to arrive."""
    c = e.curve
    if c is None or c.bad_at_end:
        return None
    sloped = e.kept_late > 0.4 * e.kept_early and e.kept_late > 0 and e.cosine_early.above(0.0)
    # Without looks the curve alone would have to tell a slow run from a hard task; and one that swings stands still.
    if math.isnan(e.kept_late) or e.promised_late < 0.5:
        return None
    if c.losses.min() >= 0 and c.end < _ARRIVED * c.start:
        return None  # a loss that has come down to next to nothing has nothing to gain from a higher rate
    hardly_moved = e.travel < 0.02
    # Where each step is paid and confirmed to the end, in one direction, longer ones would have been too.
    follows = e.kept_late > 0.9 and e.cosine_late.above(0.9)
    if max(c.learned, c.came_down) < LEARNED:
        if not ((hardly_moved or follows) and sloped and c.spike <= max(c.fall, 8 * float(np.median(c.noise)))):
            return None
        confidence = 0.9 if e.travel < 0.005 else 0.7
        says = (
            f"The loss does not move because the weights do not: after {e.steps} steps they lie {_percent(e.travel)} "
            "of their length from where they began, while the gradient points the same way from step to step."
            if hardly_moved
            else f"The loss has hardly moved in {e.steps} steps, though to the end each one gains what it promises and "
            "the gradient points the same way from step to step: the way is longer than steps so short can go. Raise "
            "the learning rate (targets of a usual size shorten the way as well)."
        )
    else:
        if c.learned >= LEARNED:
            paid, late = e.efficiency, c.share_after(0.5)
        else:  # the ends of the curve are too noisy to tell: what its halves tell, and the steps
            paid, late = e.middle_efficiency, e.late_promise
        line = late / max(_rate_share(e, 0.5), 0.05)
        # A valley's steep sides are done with early, and what is left falls ever more slowly: that is no line.
        if not (sloped and paid > 0.45 and (line > 0.5 or (follows and paid > 0.8))):
            return None
        if e.steps < SHORT and e.travel > 0.1:
            return None
        confidence = 0.65 + (0.25 if e.travel < 0.1 else 0.1 if e.travel < 0.3 else 0.0)
        if line <= 0.5:
            confidence = 0.45  # or there is nothing more to gain
        elif e.kept_late < 0.5 * e.kept_early and e.travel > 0.1:
            confidence = 0.45  # it has begun to feel the valley's walls: slow perhaps, to be tried
        says = (
            f"The loss {'falls almost in a line and' if line > 0.5 else 'still'} pays "
            f"{_percent(min(paid, 1.0))} of what its steps promise: they are so short that the surface "
            "looks flat to them. Raise the learning rate and start again."
        )
    return Hypothesis("lr-too-low", confidence, "warning", says, 0, _facts(e, c), HIGHER)


def never_lowered(e: Evidence) -> Hypothesis | None:
    """`late-lr-too-high` (C3, purple; C8): fell hard, then bounces on a floor that the rate itself holds up."""
    c = e.curve
    if c is None or c.bad_at_end or c.learned < LEARNED or not len(e.rates):
        return None
    rates = e.rates
    lowered = float(rates[-max(1, len(rates) // 10) :].mean()) < 0.3 * float(rates.max())
    flat = c.share_after(0.5) < 0.12
    bounces = e.kept_late < 0.15 and not math.isnan(e.floor)
    if lowered or not flat or not bounces or e.floor < 0.04:
        return None
    # The floor's height is an estimate: only a trial shows it, unless successive gradients clearly oppose each other.
    opposed = e.floor > 0.08 and e.cosine_late.below(-0.02)
    confidence = min(0.65 + e.floor, 0.85) if opposed else 0.45
    plateau = _plateau(c)
    rest = max(e.steps - plateau, 2)
    candidates = (
        Intervention(schedule=constant(1.0, steps=plateau) >> cosine(rest, end=0.01)),
        Intervention(schedule=constant(1.0, steps=plateau) >> step(max(rest // 3, 1), 0.1)),
        Intervention(schedule=constant(1.0, steps=plateau) >> inverse_time(20.0, rest)),
    )
    says = (
        f"The loss fell until about step {plateau} and then stayed on a noisy floor, though the gradient is not small: "
        "successive steps only undo each other. The rate was right to begin with and is too high now; let it decay "
        "from there on."
    )
    return Hypothesis("late-lr-too-high", confidence, "warning", says, plateau, _facts(e, c), candidates, late=True)


def came_apart(e: Evidence) -> Hypothesis | None:
    """`late-divergence` (C6): fell, then climbs or spikes, and stays up."""
    c = e.curve
    if c is None or c.fall <= 0 or c.sigmas(c.fall) < SURE:
        return None
    turn = c.best_window
    after = c.level[turn + 1 :]
    if c.bad_at_end:
        climbed = c.spike > 0.5 * c.fall or float(c.level[-1]) > c.best + 0.3 * c.fall
        if not climbed:
            return None
    else:
        if len(after) < max(2, len(c.level) // 8):
            return None
        error = float(np.hypot(c.error[turn], np.median(c.error[turn + 1 :])))
        slope, slope_error = c.late_slope(0.25)
        # Where the schedule raised the rate it is enough that the loss clearly turned; else it must have lost much.
        least = (0.03 if _raised_after(e, int(c.centre[turn])) > 1.5 else 0.3) * c.fall
        if c.lost < max(least, SURE * error) or slope < -2 * slope_error - 0.05 * c.lost:
            return None
        if float(np.median(after[len(after) // 2 :])) < c.best + least:
            return None
    votes = overshoots(e, c)
    where = int(c.centre[turn])
    raised = _raised_after(e, where)
    if raised <= 1.05 and where < 0.25 * e.steps and e.kept_early < 0.2 and e.descent_efficiency < 0.1:
        # Nothing was changed at the turn, and the steps overshot from the beginning: the first rate is to blame.
        says = (
            f"The loss fell at once, but the steps overshot from the beginning, and from step {where} on it bounced "
            "back up and stayed there. Lower the learning rate and start again."
        )
        lower = (*LOWER, _clip(e))
        return Hypothesis("lr-too-high", 0.75, "error", says, where, _facts(e, c), tuple(filter(None, lower)))
    # Without a change of the rate the data may have changed instead (harder examples, moving targets): then the steps
    # still gain on the next batch, while a run that comes apart jumps to and fro.
    unstable = c.bad_at_end or c.end > c.start or e.kept_late < -0.05
    confidence = 0.95 if raised > 1.05 else (0.9 - 0.4 * votes if unstable else 0.45)
    says = f"The loss came down until about step {where} and then climbed again and stayed up."
    if raised > 1.05:
        says += f" The learning rate was raised {raised:.3g}-fold after that step: the schedule runs the wrong way."
    elif e.gradient[1] > 3 * e.gradient[0]:
        says += f" The gradient's norm grew {e.gradient[1] / e.gradient[0]:.3g}-fold meanwhile."
    rest = max(e.steps - where, 2)
    hold = max(where // 2, 1)
    candidates = [
        Intervention(schedule=constant(1.0, steps=hold) >> cosine(rest, end=0.01)),
        Intervention(lr_scale=0.3),
        Intervention(lr_scale=0.1),
        _clip(e),
    ]
    if raised > 1.05:
        undo = _undone(e, where)
        candidates = [undo, *candidates]
    return Hypothesis(
        "late-divergence", confidence, "error", says, where, _facts(e, c), tuple(filter(None, candidates)), late=True
    )


def _undone(e: Evidence, turn: int) -> Intervention | None:
    """A factor that takes back what the script's schedule adds after `turn`, near enough: exponential."""
    last = max(e.steps - 1, turn + 1)
    grown = e.rate(last) / e.rate(turn)
    if not grown > 1:
        return None
    from gradwise.schedules import exponential

    return Intervention(schedule=constant(1.0, steps=max(turn, 1)) >> exponential(0.01 / grown, last - turn))


def _raised_after(e: Evidence, turn: int) -> float:
    """The highest rate after `turn` over the highest until then: what goes up again in a cycle was not raised."""
    c = e.curve
    if c is None or not len(e.rates):
        return 1.0
    before, after = e.rates[c.steps <= turn], e.rates[c.steps > turn]
    return float(after.max() / before.max()) if len(before) and len(after) and before.max() > 0 else 1.0


def _rate_share(e: Evidence, fraction: float) -> float:
    """The part of the run's total rate that was spent after `fraction` of it (a decayed rate pays less later)."""
    rates = e.rates
    if not len(rates) or not rates.sum() > 0:
        return 1 - fraction
    return float(rates[int(len(rates) * fraction) :].sum() / rates.sum())


def _rose(c: Curve) -> int:
    """Whether the loss rose at first: 1 if a level lay surely above the start, 2 if a lone early loss towered over it.

    Losses of small batches have heavy tails, so that a lone one has to stand out from all that is usual in the run.
    """
    half = max(len(c.level) // 2, 1)
    usual = max(float(np.quantile(c.noise, 0.25)), 1e-300)
    towering = max(20 * usual, 3 * c.fall)
    early, late = c.losses[: max(len(c.losses) // 5, 2)], c.losses[len(c.losses) // 2 :]
    lone = float(early.max()) - c.start
    if c.peak > towering or lone > max(towering, 3 * (float(late.max()) - c.end)):
        return 2
    above = (c.level[:half] - c.start) / np.hypot(c.error[:half], usual)
    # Where the noise itself was blown up no level stands out, but hardly a loss ever comes below the start again.
    nearly_all = float(np.mean(c.losses > c.start)) > 0.95
    return int((float(above.max()) > SURE and c.peak > c.fall) or nearly_all)


def _plateau(c: Curve) -> int:
    """The step from which on the level stayed within a tenth of the fall above its end."""
    above = np.flatnonzero(c.level > c.end + 0.1 * c.net)
    window = min(int(above[-1]) + 1 if len(above) else 0, len(c.level) - 1)
    return int(c.centre[window])


def _first_rise(c: Curve) -> int:
    """The first step whose loss is clearly above the start."""
    high = np.flatnonzero(c.losses > c.start + 0.1 * c.spike)
    return int(c.steps[high[0]]) if len(high) else 0


def _clip(e: Evidence) -> Intervention | None:
    norm = e.gradient[0]
    return Intervention(clip_norm=float(f"{norm:.2g}")) if norm > 0 and math.isfinite(norm) else None


def _facts(e: Evidence, c: Curve) -> dict[str, float]:
    """The numbers a hypothesis on rates rests on, the most telling first; what was not recorded is left out."""
    facts = {
        "paid_of_promised": e.descent_efficiency,
        "next_batch_confirms_early": e.kept_early,
        "next_batch_confirms_late": e.kept_late,
        "update_to_weight": e.update[0],
        "noise_floor_share": e.floor,
        "largest_first_promise": e.first_promise,
        "gradient_cosine_late": e.cosine_late.value,
        "travel": e.travel,
        "lr_start": e.rate(0),
        "lr_end": e.rate(max(e.steps - 1, 0)),
        "loss_start": float(c.losses[0]),
        "loss_best": c.best,
        "loss_end": c.end,
        "loss_highest": float(c.losses.max()),
        "gradient_norm_start": e.gradient[0],
        "gradient_norm_end": e.gradient[1],
    }
    return known(facts)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _centred(c: Curve) -> bool:
    """Whether a loss hovers about zero by construction, as a policy gradient's does: its level then says nothing."""
    noise = 3 * float(np.median(c.noise))
    below = float(np.mean(c.losses < 0))
    return abs(c.start) < noise and abs(c.end) < noise and 0.02 < below < 0.98


def _checks(case: Case) -> tuple[Hypothesis | None, ...]:
    # Adversaries' losses rise when the other learns: nothing is read off their curves.
    e = case.e
    silent = case.rivals or (e.curve is not None and not e.curve.bad_at_end and _centred(e.curve))
    return () if silent else (too_high(e), too_low(e), never_lowered(e), came_apart(e))


CHECKS: tuple[Check, ...] = (_checks,)
