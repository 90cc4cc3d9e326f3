"""Checks on the data: batches that follow an order, and labels that don't belong to their inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gradwise.diagnosis.case import Case, Check
from gradwise.diagnosis.curve import Curve
from gradwise.diagnosis.hypotheses import DOUBT, Hypothesis, place_in
from gradwise.diagnosis.metric import primary_place
from gradwise.diagnosis.targets import Order, Targets, correlations, order_of, period_of, targets_of
from gradwise.interventions import Intervention
from gradwise.recording import signals
from gradwise.recording.recording import Floats, Ints, Recording

# A quarter of all that tells targets apart lies between batches: text in its own order has some hundredths.
_ORDERED, _SORTED = 0.25, 0.5
# Batches that come back an epoch later nearly as they were.
_RETURNS = 0.8
# A loss that goes on like this from epoch to epoch: of chance, some hundredths are left.
_CYCLES = 0.5
# The loss swings with the place in the epoch by this part of all that was learned: the net forgets and learns again.
_FORGETS = 0.1
# Rows from which on a relation between inputs and labels, were there one worth learning, would show.
_ROWS = 200
# Rows of other classes than the commonest that it takes for that.
_RARE = 40
# A loss this close to that of knowing nothing has learned nothing; a few hundred held-out numbers may vary by a tenth
# less than those trained on.
_NOTHING, _NOTHING_OF_NUMBERS = 0.97, 0.9
# What is held out follows training down by at least this part where little can be learned, and hardly by any where
# training memorizes.
_FOLLOWS = 0.4
# Of what a guess loses this much is left at least where labels that mean nothing are being memorized.
_MEMORIZES = 0.5


def unshuffled(case: Case) -> Hypothesis | None:
    """`unshuffled-data`: batches ordered by class or value, in the same order every epoch."""
    recording, c = case.recording, case.e.curve
    if case.rivals or not case.main or c is None:
        return None
    found = next(((t, o) for t in targets_of(recording) if (o := order_of(t)) is not None), None)
    if found is None:
        return None
    targets, order = found
    loader = _in_order(recording)
    returns = order.period >= 3 and order.returns > _RETURNS
    if order.share < _ORDERED or order.sigmas < 5:
        return None
    # Where too few batches in a row were seen to tell whether the order returns, the loss tells, which it sways.
    cycle = 0 if returns or loader is not None or order.share < _SORTED else cycle_of(c)
    if not (returns or loader is not None or cycle):
        return None
    # A period that the order itself doesn't return after is an accident.
    period = order.period if returns else cycle if loader is None else int(loader.get("fed", 0))
    swing = _swing(c, period)
    if swing > _FORGETS:
        # Numbers in the order of time may have to stay so (a state carried from batch to batch); classes need not.
        confidence = 0.9 if targets.classes or order.share > _SORTED else 0.65
    elif math.isnan(swing) and order.share > _SORTED and targets.classes:
        confidence = 0.7
    else:
        confidence = 0.4
    loaded = bool(recording.happened("loader"))
    what = "class" if targets.classes else "target value"
    says = (
        f"The batches are ordered by {what}: {100 * min(order.share, 1.0):.0f} % of the targets' variance lies between "
        f"batches, where random ones would have {100 / float(np.median(targets.rows)):.2g} %"
        + (f", and the same order comes back every {period} steps" if returns or cycle else "")
        + ". Each batch pulls the net towards its own kind, at the others' expense. "
        + (
            "Shuffle the training data."
            if loaded
            else "Go through the rows in a new random order in each epoch (torch.randperm), and cut batches from that."
        )
    )
    evidence = _facts(targets, order, swing)
    if loader is not None:
        evidence["sampler"] = loader.get("sampler")
    if cycle:
        evidence["loss_cycle"] = cycle
    place = place_in(loader) or place_in(targets.about)
    # Batches that are cut by hand can't be changed from outside.
    candidates = (Intervention(fixes=("shuffle",)),) if loaded else ()
    return Hypothesis("unshuffled-data", confidence, "error", says, 0, evidence, candidates, place=place)


def _in_order(recording: Recording) -> Mapping[str, Any] | None:
    """The loader of most steps, if it goes through a data set from front to back."""
    loaders = sorted(recording.happened("loader"), key=lambda e: -int(e.data.get("fed", 0)))
    if not loaders or loaders[0].data.get("sampler") != "SequentialSampler" or loaders[0].data.get("iterable"):
        return None
    return loaders[0].data


def cycle_of(c: Curve) -> int:
    """The number of steps after which the loss, late in the run, does the same again; 0 where it doesn't."""
    late = c.steps >= c.steps[-1] // 2
    steps, losses = c.steps[late], c.losses[late]
    # By their ranks, so that a lone spike is no cycle; around a line, since windows might be as short as the cycle.
    ranks = np.argsort(np.argsort(losses, kind="stable"), kind="stable").astype(np.float64)
    apart = ranks - np.polyval(np.polyfit(steps, ranks, 1), steps)
    # What has not come at least three times may be chance: few pairs are left at so long a lag.
    most = (int(steps[-1]) - int(steps[0])) // 3 + 1
    correlation, pairs = (part[:most] for part in correlations(steps, apart[:, None]))
    period, again = period_of(correlation, pairs)
    if not again > _CYCLES:
        return 0
    # All multiples of a cycle return as well: the shortest is meant at whose places the losses are as much alike.
    parts = [round(period / k) for k in range(2, period // 3 + 1)]
    lags = sorted({lag for part in parts for lag in (part - 1, part, part + 1) if lag >= 3})
    peaks = [lag for lag in lags if correlation[lag] >= max(0.5 * again, *correlation[lag - 1 : lag + 2])]
    explained = {lag: _by_place(steps, apart, lag) for lag in [*peaks, period]}
    first = min(lag for lag, share in explained.items() if share >= 0.8 * max(explained.values()))
    return max(range(max(first - 1, 3), first + 3), key=lambda lag: _by_place(steps, apart, lag))


def _by_place(steps: Ints, values: Floats, period: int) -> float:
    """The share of the values' variance that their place in the period accounts for, beyond chance."""
    place = steps % period
    counts = np.bincount(place, minlength=period)
    means = np.bincount(place, weights=values, minlength=period) / np.maximum(counts, 1)
    within = float(((values - means[place]) ** 2).sum()) / max(len(values) - int((counts > 0).sum()), 1)
    total = float(values.var())
    return 1 - within / total if total > 0 else 0.0


def _swing(c: Curve, period: int) -> float:
    """How far the loss goes with the place in the epoch, late in the run, over what was learned by then."""
    late = c.steps >= c.steps[-1] // 2
    if period < 3 or late.sum() < 2 * period:
        return math.nan
    steps, losses = c.steps[late], c.losses[late]
    sums = np.bincount(steps % period, weights=losses, minlength=period)
    counts = np.bincount(steps % period, minlength=period)
    means = sums[counts > 0] / counts[counts > 0]
    # What is left of the noise in a mean of so many losses is no swing.
    chance = float(losses.var()) / float(counts[counts > 0].mean())
    swing = math.sqrt(max(float(means.var()) - chance, 0.0))
    return swing / max(c.start - float(losses.mean()), 1e-12 * abs(c.start) + 1e-300)


def _facts(targets: Targets, order: Order, swing: float) -> dict[str, Any]:
    facts = {
        "share_between_batches": order.share,
        "sigmas": order.sigmas,
        "period": order.period or None,
        "returns_after_period": order.returns,
        "like_the_next": order.next,
        "loss_swings_with_place_in_epoch": swing,
        "classes": targets.classes or None,
    }
    return {k: v for k, v in facts.items() if v is not None and not math.isnan(v)}


def mismatched(case: Case) -> Hypothesis | None:
    """`labels-mismatched`: nothing held out is ever predicted, and no simple predictor finds a relation either."""
    recording, c = case.recording, case.e.curve
    if case.rivals or not case.main or c is None:
        return None
    pairs = relation(recording)
    if pairs is None or pairs["rows"] < _ROWS or related(pairs, 3.0):
        return None
    known = ((t, level) for t in targets_of(recording) if not math.isnan(level := _without_looking(t, pairs)))
    targets, nothing = next(known, (None, math.nan))
    if targets is None:
        return None
    if pairs.get("classes") and pairs["rows"] * (1 - float(pairs["chance"])) < _RARE:
        return None  # of so few others than the commonest no relation could be seen
    if not 0.5 * nothing < float(np.median(c.losses[:5])) < 5 * nothing:
        return None  # the loss that is trained on is not this one alone
    held_out = held_out_losses(recording)
    least = _NOTHING if targets.classes or pairs.get("classes") else _NOTHING_OF_NUMBERS
    learned = c.end < 0.92 * nothing
    if len(held_out) >= 3:
        if float(held_out.min()) < least * nothing or float(held_out.min()) > 3 * nothing:
            return None
        follows = nothing - float(held_out.min()) > _FOLLOWS * (nothing - c.end)
        # Held-out rows may vary a little less than those trained on: what only rises from its first evaluation on, and
        # by more than training ever gained, follows nothing.
        rises = not held_out.argmin() and float(np.median(held_out[-3:]) - held_out[0]) > nothing - c.end
        if learned and follows and not rises:
            return None
        confidence = 0.85 if learned else 0.7
        how = (
            f"the training loss comes down to {c.end:.4g} by memorizing, while the validation loss is never better"
            if learned
            else "neither the training loss nor the validation loss ever gets below"
        )
    else:
        if c.end < _MEMORIZES * nothing:
            return None
        hardly = c.end >= _NOTHING * nothing and c.best >= 0.9 * nothing
        # What is learned by heart comes down too, and nothing was seen of rows that were held out.
        confidence = 0.65 if hardly else DOUBT
        how = (
            "the training loss never gets below"
            if hardly
            else f"the training loss comes down to {c.end:.4g}, which may be memorizing,"
        )
    than = "" if how.endswith("below") else "from " if how.endswith(",") else "than "
    says = (
        f"The labels say nothing about the inputs as far as can be seen: {how} {than}{nothing:.4g}, which is what one "
        f"gets without looking at the input; and on a sample of {pairs['rows']} rows neither nearest neighbours nor a "
        "linear model predicts a label better than chance. Check that inputs and labels are still paired when they "
        "reach the loss (shuffled or sorted separately, off by one, joined by the wrong key)."
    )
    evidence = {
        "loss_without_looking": nothing,
        "loss_end": c.end,
        "validation_best": float(held_out.min()) if len(held_out) else None,
        **pairs,
    }
    place = place_in(targets.about)
    return Hypothesis("labels-mismatched", confidence, "error", says, 0, evidence, place=place)


def _without_looking(targets: Targets, pairs: Mapping[str, Any]) -> float:
    """The loss of the best guess that doesn't look at the input: of several numbers a row by the sampled rows."""
    by_sample = {"mse_loss": "variance", "l1_loss": "deviation"}.get(str(targets.about.get("loss")), "")
    if by_sample in pairs and math.isnan(targets.uninformed) and targets.about.get("plain", False):
        return float(targets.about.get("scale", 1.0)) * float(pairs[by_sample])
    return targets.uninformed


def relation(recording: Recording) -> Mapping[str, Any] | None:
    """What simple predictors made of a sample of inputs and labels; None where none was taken."""
    events = recording.happened("pairs")
    return events[-1].data if events else None


def related(pairs: Mapping[str, Any], sigmas: float) -> bool:
    """Whether inputs predict labels, by more than so many standard errors."""
    if max(float(pairs.get(z, 0.0)) for z in ("neighbours_z", "linear_z", "linear_agrees_z")) > sigmas:
        return True
    if pairs.get("classes"):
        return False
    # The error of a mean of squares, relative; a neighbour's mean of five adds a fifth to what is left of pure noise.
    error = sigmas * math.sqrt(2 / float(pairs["rows"]))
    return float(pairs["linear_left"]) < 1 - error or float(pairs["neighbours_left"]) < 1.2 - error


def held_out_losses(recording: Recording) -> Floats:
    """The finite losses of the validation to go by."""
    place = primary_place([recording])
    values = np.empty(0) if place is None else recording.get(signals.VALIDATION, place).values
    return values[np.isfinite(values)]


def _checks(case: Case) -> tuple[Hypothesis | None, ...]:
    return unshuffled(case), mismatched(case)


CHECKS: tuple[Check, ...] = (_checks,)
