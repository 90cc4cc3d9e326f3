"""Checks on what was learned (R4): too much of the training data, or too little of anything."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gradwise.diagnosis import rates
from gradwise.diagnosis.case import Case, Check
from gradwise.diagnosis.curve import Curve
from gradwise.diagnosis.data import held_out_losses, relation
from gradwise.diagnosis.evidence import Evidence
from gradwise.diagnosis.hypotheses import REPORT, SUSPECT, Hypothesis, known
from gradwise.diagnosis.metric import primary_place, validation
from gradwise.diagnosis.scale import inputs_of
from gradwise.diagnosis.targets import targets_of
from gradwise.interventions import Intervention
from gradwise.recording import signals
from gradwise.recording.recording import Floats, Ints, Recording

# Evaluations below which a turn is no more than an accident.
_LEAST = 8
# Part of what validation had gained that it loses again: plainly, and enough to be tried.
_LOST, _SOME = 0.15, 0.05
_SIGMAS = 5.0
# A cosine that ends at zero makes its last sixteenth at such a rate.
_IDLE = 0.25


@dataclass(frozen=True, slots=True)
class Turn:
    """Where a validation loss was lowest, and what became of it.

    Attributes:
        step: of its lowest point.
        best, end: its level there and over the last quarter.
        lost: the rise since over the fall until then.
        sigmas: the rise in standard errors.
        share: the part of the run after the turn.
    """

    step: int
    best: float
    end: float
    lost: float
    sigmas: float
    share: float


def turn_of(steps: Ints, values: Floats, start: float | None) -> Turn | None:
    """Where a validation loss turned; None where it didn't or where too little of it is known.

    Args:
        steps: after how many it was evaluated.
        values: the validation loss.
        start: its value before training, if known.
    """
    good = np.isfinite(values)
    steps, values = steps[good], values[good]
    n = len(values)
    if n < _LEAST:
        return None
    # Medians of three: no lone lucky evaluation is the lowest point.
    padded = np.concatenate([values[:1], values, values[-1:]])
    level = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    at = int(np.argmin(level))
    tail = level[-max(n // 4, 2) :]
    if at >= n - len(tail):
        return None
    best, end = float(level[at]), float(np.median(tail))
    second = values[2:] - 2 * values[1:-1] + values[:-2]
    noise = 1.4826 * float(np.median(np.abs(second))) / math.sqrt(6)
    first = max(float(values[0]), start if start is not None and math.isfinite(start) else -math.inf)
    rise, fall = end - best, first - best
    if not rise > 0 or not fall > 0:
        return None
    sigmas = rise / noise if noise > 0 else math.inf
    return Turn(int(steps[at]), best, end, rise / fall, sigmas, 1 - at / (n - 1))


def overfits(case: Case) -> Hypothesis | None:
    """`overfitting`: validation turns up for good while the training loss goes on falling."""
    recording, c, e = case.recording, case.e.curve, case.e
    place = primary_place([recording])
    if case.rivals or not case.main or c is None or place is None or c.bad_at_end:
        return None
    series = recording.get(signals.VALIDATION, place)
    outcome = validation(recording, place, e.source)
    turn = turn_of(series.steps, series.values, None if outcome is None else outcome.start)
    if turn is None or turn.sigmas < _SIGMAS or turn.share < 0.25 or turn.lost < _SOME:
        return None
    # The training loss has to fall on meanwhile; where it climbs too, training itself came apart.
    then = float(np.interp(turn.step, c.centre, c.level))
    if not then - c.end > max(3 * float(np.median(c.error)), 0.0):
        return None
    # A long way up and most of the run spent on it: what a healthy run loses at its end is little and late.
    plain = turn.lost > _LOST and turn.share > 0.4
    confidence = min(0.7 + 0.3 * turn.lost, 0.95) if plain else 0.45
    gap = turn.end - c.end
    says = (
        f"The validation loss was lowest ({turn.best:.4g}) at step {turn.step} and has risen to {turn.end:.4g} since, "
        f"while the training loss went on falling from {then:.4g} to {c.end:.4g}: from there on the net learns its "
        f"training data by heart. Stop at step {turn.step}, or regularize."
    )
    evidence = {
        "validation_best": turn.best,
        "validation_end": turn.end,
        "stop_at": turn.step,
        "lost_of_gained": turn.lost,
        "sigmas": turn.sigmas,
        "train_at_turn": then,
        "train_end": c.end,
        "gap": gap,
    }
    candidates = (
        Intervention(stop=max(turn.step, 1)),
        Intervention(decay=0.05),
        Intervention(dropout=0.3),
        Intervention(noise=0.2),
        Intervention(decay=0.5),
        Intervention(dropout=0.5),
    )
    return Hypothesis("overfitting", confidence, "warning", says, turn.step, evidence, candidates, late=True)


def underfits(case: Case) -> Hypothesis | None:
    """`underfitting`: settled, at a sound rate, far above what the nearest neighbours of a row already tell."""
    recording, c, e = case.recording, case.e.curve, case.e
    if case.rivals or not case.main or c is None or c.bad_at_end:
        return None
    known = reachable(recording)
    if known is None or idle(e) > _IDLE:
        return None  # where the rate was gone early the model never had the chance
    nothing, simple = known
    held_out = held_out_losses(recording)
    if not 0.3 * nothing < float(np.median(c.losses[:5])) < 10 * nothing:
        return None  # the loss that is trained on is not this one alone
    # Dropout and noise raise the training loss: what validation reaches counts as well.
    reached = min(c.end, float(np.median(held_out[-3:])) if len(held_out) else math.inf)
    if not _far(reached, nothing, simple):
        return None
    slope, error = c.late_slope(0.4)
    if -slope > max(0.05 * nothing, 3 * error):
        return None  # still on its way down
    if rates.thrown(e, c):
        return _overshot(case, reached, nothing, simple)
    others = [h for h in (rates.too_high(e), rates.too_low(e), rates.never_lowered(e), rates.came_apart(e)) if h]
    # Settled means that the gradients of different batches have nothing left in common, nor do steps gain on the next.
    surest = max((h.confidence for h in others), default=0.0)
    # Where steps were not looked at, nobody knows whether their rate is sound.
    if math.isnan(e.kept_late) or e.sloped or surest >= REPORT or e.steps < rates.SHORT:
        confidence = 0.45
    else:
        # Where a rate is suspected, trials of it come next, and decide which of the two is told first.
        confidence = 0.62 if surest >= SUSPECT else 0.75 if reached < 0.95 * nothing else 0.65
    says = (
        f"The loss has settled at {reached:.4g}; a guess that never looks at the input gets {nothing:.4g}, and simply "
        f"going by similar rows about {simple:.4g} or less. Nothing is wrong with the rate: the model can't express "
        "what there is to learn. Give it more capacity (a hidden layer, more units), or features that show it."
    )
    evidence = {"loss_settled": reached, "loss_without_looking": nothing, "loss_of_simple_predictor": simple}
    return Hypothesis("underfitting", confidence, "warning", says, 0, evidence | dict(relation(recording) or {}))


def _overshot(case: Case, reached: float, nothing: float, simple: float) -> Hypothesis:
    """`lr-too-high`: it learned next to nothing of what there is, with steps that jump across the valley.

    Inputs of a wrong scale make steps too long that would do otherwise: then only a trial tells which comes first.
    """
    e, inputs = case.e, inputs_of(case.recording)
    confidence = 0.45 if inputs is not None and inputs.reasons else 0.7
    says = (
        f"The loss hangs at {reached:.4g}; a guess that never looks at the input gets {nothing:.4g}, and simply going "
        f"by similar rows about {simple:.4g} or less. The steps overshoot: next to nothing of what they promise is "
        f"paid, and they have thrown the parameters {e.travel:.3g} times their length away. Lower the learning rate "
        "and start again."
    )
    evidence = {
        "loss_settled": reached, "loss_without_looking": nothing, "loss_of_simple_predictor": simple,
        "paid_of_promised": e.descent_efficiency, "next_batch_confirms_early": e.kept_early,
        "largest_first_promise": e.first_promise, "travel": e.travel, "lr_start": e.rate(0),
    }  # fmt: skip
    return Hypothesis("lr-too-high", confidence, "error", says, 0, known(evidence), rates.LOWER)


def idle(e: Evidence) -> float:
    """The share of the run that was made at less than a hundredth of its highest rate."""
    rates = e.rates[np.isfinite(e.rates)]
    return float(np.mean(rates < 0.01 * rates.max())) if len(rates) and rates.max() > 0 else 0.0


def reachable(recording: Recording) -> tuple[float, float] | None:
    """The loss of knowing nothing, and an upper bound of what a simple predictor on the same inputs gets."""
    targets = next((t for t in targets_of(recording) if not math.isnan(t.uninformed)), None)
    pairs = relation(recording)
    if targets is None or pairs is None:
        return None
    nothing = targets.uninformed
    if pairs.get("classes"):
        if targets.about.get("loss") == "mse_loss":
            return None
        wrong = 1 - max(float(pairs["neighbours"]), float(pairs["linear"])) + 1 / float(pairs["rows"])
        # Sure of its answer as often as it is right, and of no other in particular: the loss of such a predictor.
        others = math.log(max(int(pairs["classes"]) - 1, 1))
        return nothing, wrong * (others - math.log(wrong)) - (1 - wrong) * math.log1p(-wrong) if wrong < 1 else nothing
    if targets.about.get("loss") != "mse_loss":
        return None
    return nothing, nothing * min(float(pairs["neighbours_left"]), float(pairs["linear_left"]))


def far_above(recording: Recording, c: Curve) -> bool:
    """Whether the loss ended far above what the nearest neighbours of a row already tell."""
    known = reachable(recording)
    return known is not None and _far(c.end, *known)


def _far(reached: float, nothing: float, simple: float) -> bool:
    return reached >= max(0.4 * nothing, 2 * simple)


def high(recording: Recording, c: Curve) -> bool | None:
    """Whether the loss ended high: near that of knowing nothing, though inputs tell more; None if that isn't known."""
    known = reachable(recording)
    if known is None:
        return None
    nothing, simple = known
    return c.end > 0.6 * nothing and c.end > 2 * simple


def _checks(case: Case) -> tuple[Hypothesis | None, ...]:
    return overfits(case), underfits(case)


CHECKS: tuple[Check, ...] = (_checks,)
