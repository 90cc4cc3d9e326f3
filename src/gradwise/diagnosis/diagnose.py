"""The diagnosis of a recording: hypotheses weighed against each other, root cause first, symptoms folded into it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gradwise.diagnosis import activations, data, decay, generalization, noise, nonfinite, rates, scale, wiring
from gradwise.diagnosis.advice import advise
from gradwise.diagnosis.case import Case, Check
from gradwise.diagnosis.causes import weigh
from gradwise.diagnosis.checklist import checklist
from gradwise.diagnosis.curve import Curve
from gradwise.diagnosis.depth import level_of_knowing_nothing
from gradwise.diagnosis.evidence import Evidence, evidence_of
from gradwise.diagnosis.findings import Diagnosis, Finding, Remedy, Verdict, Where
from gradwise.diagnosis.hypotheses import DOUBT, REPORT, SUSPECT, Hypothesis
from gradwise.diagnosis.rates import LEARNED
from gradwise.recording import signals
from gradwise.recording.recording import Recording

# In this order they are asked; which of their answers are told is settled by `weigh`.
CHECKS: tuple[Check, ...] = (
    *wiring.CHECKS, *data.CHECKS, *scale.CHECKS, *activations.CHECKS, *nonfinite.CHECKS, *rates.CHECKS, *decay.CHECKS,
    *noise.CHECKS, *generalization.CHECKS,
)  # fmt: skip
_LEAST_STEPS = 20
# Whoever ends this close to a guess that knows nothing has learned nothing.
_NOTHING = 0.97


def diagnose(recording: Recording, target: float | None = None) -> Diagnosis:
    """Say what is wrong with a training run, from its recording alone.

    Args:
        recording: the run.
        target: a loss to be reached (C1), where the user names one.

    Returns:
        Findings with candidate remedies (status "suggested"), most probable root cause first; `suspicions` are
        causes that only a trial could make findings of.
    """
    run = recording.run
    sources = recording.sources(signals.LOSS) or recording.sources(signals.TIME)
    # An optimizer that never made a step is a case too where none did.
    sources = sources or [o.index for o in recording.optimizers[:1]]
    evidence = [evidence_of(recording, s) for s in sources]
    rivals = _rivals(recording, sources)
    main = max(evidence, key=lambda e: e.steps, default=None)
    cases = [Case(recording, e, rivals, e is main) for e in evidence]
    weighed = [(c.e, h) for c in cases for h in weigh([h for check in CHECKS for h in check(c) if h is not None])]
    weighed = _once(sorted(weighed, key=lambda pair: (pair[1].severity == "info", -pair[1].confidence)))
    findings = tuple(_finding(e, h) for e, h in weighed if h.confidence >= REPORT)
    suspicions = tuple(_finding(e, h) for e, h in weighed if SUSPECT <= h.confidence < REPORT)
    verdict, summary = _verdict(recording, cases, findings)
    doubtful = verdict == "healthy" and any(f.confidence >= DOUBT for f in suspicions)
    steps = max((e.steps for e in evidence), default=0)
    return Diagnosis(
        run=run.id,
        script=run.script,
        argv=run.argv,
        verdict="inconclusive" if doubtful else verdict,
        doubtful=doubtful,
        findings=findings,
        suspicions=suspicions if verdict != "sick" or not findings else (),
        summary=summary + _reached(main, target),
        checklist=checklist(recording, main, findings) if main is not None and verdict != "healthy" else (),
        notes=_notes(recording, suspicions if verdict != "sick" else (), cases),
        steps=steps,
        overhead_fraction=run.facts.get("overhead_fraction"),
        startup_seconds=run.facts.get("startup_seconds"),
    )


def _once(weighed: Sequence[tuple[Evidence, Hypothesis]]) -> list[tuple[Evidence, Hypothesis]]:
    """One finding per cause and place where several optimizers show it (cross-validation), the surest one."""
    seen: set[tuple[str, str]] = set()
    once = []
    for e, h in weighed:
        key = (h.id, str(h.place or e.optimizer.made))
        if key not in seen:
            seen.add(key)
            once.append((e, h))
    return once


def _rivals(recording: Recording, sources: Sequence[int]) -> bool:
    """Whether several optimizers train at the same time on losses of their own."""
    spans = []
    for s in sources:
        loss, time = recording.get(signals.LOSS, s), recording.get(signals.TIME, s)
        if len(loss) and len(time):
            spans.append((float(time.values[0]), float(time.values[-1]), loss.values))
    for i, (begin, end, losses) in enumerate(spans):
        for other_begin, other_end, others in spans[:i]:
            together = min(end, other_end) - max(begin, other_begin) > 0.5 * min(end - begin, other_end - other_begin)
            n = min(len(losses), len(others))
            if together and not np.allclose(losses[:n], others[:n], rtol=1e-6, atol=0, equal_nan=True):
                return True
    return False


def _finding(e: Evidence, h: Hypothesis) -> Finding:
    place = h.place or e.optimizer.made or e.optimizer.stepped
    several = e.optimizer.index if e.source else None
    candidates = [c if several is None else replace(c, optimizer=several) for c in h.candidates]
    return Finding(
        id=h.id,
        severity=h.severity,
        confidence=h.confidence,
        where=Where(place.file if place else None, place.line if place else None, h.parameter, h.module, h.step),
        explanation=h.says,
        evidence=h.evidence,
        remedies=tuple(Remedy(c, advise(c, e, h.place), reason="not tried") for c in candidates),
        source=e.source,
    )


def _verdict(recording: Recording, cases: Sequence[Case], findings: tuple[Finding, ...]) -> tuple[Verdict, str]:
    evidence, rivals = [c.e for c in cases], any(c.rivals for c in cases)
    if any(f.severity != "info" for f in findings):
        return "sick", findings[0].explanation
    if not evidence or not any(e.steps for e in evidence):
        return "inconclusive", _nothing_seen(recording)
    steps = max(e.steps for e in evidence)
    if rivals:
        if steps < 50:
            return "inconclusive", f"Only {steps} steps of several optimizers with losses of their own were seen."
        return "healthy", (
            "Several optimizers train against or beside each other; their losses need not fall. All stayed finite, "
            "and nothing points to a fault."
        )
    curves = [(e, e.curve) for e in evidence if e.curve is not None]
    if not curves and not any(len(recording.get(signals.LOSS, e.source)) for e in evidence):
        return "inconclusive", f"{steps} steps were made, but no loss was seen that they came from."
    if not curves or steps < _LEAST_STEPS:
        return "inconclusive", f"Only {steps} steps were seen, too few to tell."
    if all(_came_down(c) or _stayed_down(c, [b for _, b in curves[:i]]) for i, (_, c) in enumerate(curves)):
        e, c = max(curves, key=lambda pair: pair[0].steps)
        nothing = next((level_of_knowing_nothing(case) for case in cases if case.main), math.nan)
        if c.end > _NOTHING * nothing:
            return "inconclusive", (
                f"The loss came down from {c.start:.4g} to {c.end:.4g}, and one gets {nothing:.4g} by a guess that "
                "never looks at the input: nothing was learned of that, and nothing recorded says why."
            )
        slope, error = c.late_slope(0.3)
        falling = slope < -3 * error and -slope > 0.05 * c.net
        how = "is still falling" if falling else "has settled"
        return "healthy", f"The loss came down from {c.start:.4g} to {c.end:.4g} over {e.steps} steps and {how}."
    return "inconclusive", (
        f"Over {steps} steps the loss did not come down by more than its own noise, and nothing recorded says why."
    )


def _came_down(c: Curve) -> bool:
    return max(c.learned, c.came_down) >= LEARNED and c.net > 0


def _stayed_down(c: Curve, before: Sequence[Curve]) -> bool:
    """Whether a run took up what an earlier optimizer had learned, and lost none of it."""
    return any(
        _came_down(b)
        and c.start < b.start - 0.5 * b.net
        and c.end < b.start - 0.5 * b.net
        and c.sigmas(-c.net) < LEARNED
        for b in before
    )


def _nothing_seen(recording: Recording) -> str:
    facts = recording.run.facts
    if "torch" not in facts:
        return "The script never imported torch, so there was no training to see."
    backwards, made = int(facts.get("backwards", 0)), int(facts.get("optimizers_made", 0))
    if backwards and made:
        return f"There were {backwards} backward passes and {made} optimizer(s), but no optimizer ever made a step."
    if backwards:
        return f"There were {backwards} backward passes, but nothing changed the parameters in between."
    return "The script imported torch but trained nothing: no backward pass was seen."


def _reached(e: Evidence | None, target: float | None) -> str:
    if e is None or e.curve is None or target is None:
        return ""
    below = np.flatnonzero(e.curve.level <= target)
    if not len(below):
        return f" The target of {target:g} was not reached (best: {e.curve.best:.4g})."
    return f" The target of {target:g} was reached at about step {e.curve.centre[below[0]]:.0f}."


def suspected(finding: Finding) -> str:
    """How the note on a suspicion begins."""
    return f"Suspected, not shown: {finding.id}"


def _notes(recording: Recording, suspicions: Sequence[Finding], cases: Sequence[Case]) -> tuple[str, ...]:
    notes = [
        f"{suspected(f)} (confidence {f.confidence:.2f}). "
        + ("Trying its cure would decide." if f.remedies else f.explanation)
        for f in suspicions
    ]
    notes += filter(None, map(decay.little_decay, cases))
    failed = recording.happened("probe-failed")
    if failed:
        data = failed[0].data
        notes.append(f"A probe failed ({data.get('probe')}: {data.get('error')}); what it measures is missing.")
    overhead = recording.run.facts.get("overhead_fraction")
    if overhead is not None and math.isfinite(overhead) and recording.run.facts.get("thinning", 0) > 3:
        notes.append("The steps are so short that the costly probes ran rarely.")
    return tuple(notes)
