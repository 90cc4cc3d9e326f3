"""`non-finite-loss`: NaN or Inf that no other cause explains, with where it came from first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gradwise.diagnosis.case import Case, Check
from gradwise.diagnosis.hypotheses import Hypothesis
from gradwise.interventions import Intervention
from gradwise.recording import signals

_STAGES = {
    "target": "the target handed to the loss function already held values that are not finite: the data are broken",
    "output": "the model's output was not finite while its parameters were: something in the forward pass or its "
    "input overflowed, divided by zero or took the logarithm of a number that is not positive",
    "loss": "the loss function was given finite numbers and returned none: a logarithm or division at the edge of "
    "its range",
    "forward": "the parameters were finite: the forward pass, its input or the loss made it",
}


def not_finite(case: Case) -> Hypothesis | None:
    """The loss was not finite at least once; a run-away that led there is the cause to name instead."""
    recording, e = case.recording, case.e
    series = recording.get(signals.LOSS, e.source)
    bad = np.flatnonzero(~np.isfinite(series.values)) if len(series) else np.empty(0)
    if not len(bad):
        return None
    step = int(series.steps[bad[0]])
    events = [event for event in recording.happened("non-finite") if event.data.get("what") == "loss"]
    data: Mapping[str, Any] = events[0].data if events else {}
    stage = str(data.get("stage", ""))
    names = list(data.get("parameters", ()))
    lasting = bool(len(bad) > 0.5 * (len(series) - bad[0]))
    confidence = 0.95 if lasting else 0.7
    says = f"The loss was {data.get('value', 'not finite')} at step {step}"
    if stage == "parameters":
        deepest = names[-1] if names else "a parameter"
        says += (
            f": the step before had left {len(names) or 'some'} parameter tensor(s) not finite, the one nearest to "
            f"the loss being {deepest}. The loss before was finite, so a gradient went wrong on the way back (a root, "
            "norm or division at zero), not the forward pass."
        )
    elif stage in _STAGES:
        says += f": {_STAGES[stage]}."
    else:
        says += "."
    if not lasting:
        says += f" The run went on ({len(bad)} of {len(series)} losses are not finite)."
    candidates = (Intervention(clip_norm=1.0), Intervention(lr_scale=0.1)) if stage == "parameters" else ()
    evidence = {
        "first_bad_step": step,
        "stage": stage or None,
        "bad_losses": len(bad),
        "parameters": names[:8] or None,
        "loss_function": data.get("loss_function") or None,
        "loss_before": float(series.values[bad[0] - 1]) if bad[0] else None,
        "update_to_weight_before": e.update[1] if math.isfinite(e.update[1]) else None,
    }
    evidence = {name: value for name, value in evidence.items() if value is not None}
    severity = "error" if lasting else "warning"
    return Hypothesis(
        "non-finite-loss",
        confidence,
        "error" if severity == "error" else "warning",
        says,
        step,
        evidence,
        candidates,
        parameter=names[-1] if names else None,
    )


def ran_off_at_once(case: Case) -> Hypothesis | None:
    """A run that was gone within its first dozen steps: too few points for a curve, enough for a cause."""
    recording, e = case.recording, case.e
    series = recording.get(signals.LOSS, e.source)
    finite = np.isfinite(series.values) if len(series) else np.empty(0, bool)
    if e.curve is not None or finite.all() or not len(finite) or not finite[0]:
        return None
    losses = series.values[: int(np.argmin(finite))]
    # Either the finite losses climb, or a single step was as large as the parameters themselves.
    climbed = len(losses) > 2 and losses[-1] > losses[0] and losses[-1] - losses[0] > 3 * abs(losses[1] - losses[0])
    theta, update = (recording.get(s, e.source) for s in (signals.PARAMETER, signals.UPDATE))
    with np.errstate(all="ignore"):
        jump = float(np.nanmax(update.values.sum(axis=-1) / theta.values.sum(axis=-1))) if len(update) else 0.0
    if not climbed and not jump > 1.0:
        return None
    says = (
        f"The loss climbed from {losses[0]:.4g} and was not finite after {len(losses)} steps"
        + (f"; a single step was {jump:.2g} times as long as the parameters themselves" if jump > 1 else "")
        + ". The learning rate is far too high: lower it and start again."
    )
    evidence = {
        "loss_start": float(losses[0]),
        "loss_highest": float(losses.max()),
        "first_bad_step": int(series.steps[len(losses)]),
        "update_to_weight": jump,
        "lr_start": e.rate(0),
    }
    lower = tuple(Intervention(lr_scale=f) for f in (0.1, 0.03, 0.01, 0.3, 0.001))
    return Hypothesis("lr-too-high", 0.95, "error", says, 1, evidence, (*lower, Intervention(clip_norm=1.0)))


def _checks(case: Case) -> tuple[Hypothesis | None, ...]:
    return not_finite(case), ran_off_at_once(case)


CHECKS: tuple[Check, ...] = (_checks,)
