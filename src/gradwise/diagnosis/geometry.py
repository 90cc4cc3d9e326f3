"""What the curvature where training is stuck says of its cause (C8, C9): a saddle, a valley too narrow, or neither."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradwise.diagnosis.advice import advise
from gradwise.diagnosis.curve import Curve, noise_of
from gradwise.diagnosis.evidence import evidence_of
from gradwise.diagnosis.findings import Diagnosis, Finding, Remedy, Where
from gradwise.diagnosis.hypotheses import DOUBT, REPORT, SUSPECT
from gradwise.interventions import Intervention
from gradwise.legible import number
from gradwise.recording import signals
from gradwise.recording.recording import Floats, Recording

SADDLE = "stuck-at-saddle"
_RATES = ("lr-too-high", "late-lr-too-high")
# A stretch is level where all but its outermost windows (lone spikes are no way on) lie no further apart than noise
# puts them, which is 3.3 standard deviations, or within a fiftieth of all that the loss ever moved.
_SIGMAS, _LEVEL, _MOST = 4.0, 0.02, (0.95, 0.05)
_STRETCH = 0.2  # of the run, at least
_CONFIRMED, _MEASURED = 0.9, 0.8
# What a verdict that is no saddle leaves of the confidence that it was one.
_LOWERED = {"minimum": 0.4, "degenerate": 0.5, "maximum": 0.5, "not critical": 0.6}
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Plateau:
    """A stretch in which the loss stands still.

    Attributes:
        first, last: steps.
        level: the loss there.
        source: the optimizer.
    """

    first: int
    last: int
    level: float
    source: int = 0

    @property
    def step(self) -> int:
        """Where to look: in the middle, not on the way in nor on the way out."""
        return (self.first + self.last) // 2


def plateau(curve: Curve, source: int = 0) -> Plateau | None:
    """The stretch in which the loss is stuck; None where it stands still nowhere.

    That is the first one, if the loss left it for one far below; else the longest.
    """
    level, count = curve.level, len(curve.level)
    least = max(3, math.ceil(_STRETCH * count))
    moved = float(level.max() - level.min())
    # Batches in a row may have more in common than single ones: the windows' own jitter tells.
    jitter = max(float(np.median(curve.error)), noise_of(level))
    tolerance = max(_SIGMAS * jitter, _LEVEL * moved)
    found: list[Plateau] = []
    begin = 0
    while begin + least <= count:
        end = begin + least
        if _width(level[begin:end]) > tolerance:
            begin += 1
            continue
        while end < count and _width(level[begin : end + 1]) <= tolerance:
            end += 1
        first, last = int(curve.centre[begin]), int(curve.centre[end - 1])
        found.append(Plateau(first, last, float(np.median(level[begin:end])), source))
        begin = end
    if not found:
        return None
    if found[0].level - found[-1].level > max(0.5 * moved, 2 * tolerance):
        return found[0]
    return max(found, key=lambda p: p.last - p.first)


def _width(level: Floats) -> float:
    high, low = np.quantile(level, _MOST)
    return float(high - low)


def question(diagnosis: Diagnosis, recording: Recording) -> Plateau | None:
    """Where the curvature should be measured; None where it would tell nothing.

    It is asked for where a saddle is suspected, and where the loss stands still and nothing else explains that.
    """
    suspected = [f for f in (*diagnosis.findings, *diagnosis.suspicions) if f.id == SADDLE]
    if not suspected:
        explained = any(f.severity != "info" for f in diagnosis.findings)
        explained = explained or any(f.confidence >= DOUBT for f in diagnosis.suspicions)
        if diagnosis.verdict != "inconclusive" or explained:
            return None
    sources = recording.sources(signals.LOSS)
    if not suspected and len(sources) != 1:
        return None  # of several, trained one after another or against each other, none need come down
    source = suspected[0].source if suspected else sources[0]
    curve = evidence_of(recording, source).curve if source in sources else None
    return None if curve is None else plateau(curve, source)


def weighed(diagnosis: Diagnosis, where: Plateau, data: Mapping[str, Any], recording: Recording) -> Diagnosis:
    """The diagnosis in the light of the curvature.

    Args:
        diagnosis: as it was.
        where: the stretch in which it was measured.
        data: of the event "curvature" (`gradwise.trials.replay.Replay`).
        recording: the watched run.
    """
    kind = str(data.get("kind", "inconclusive"))
    diagnosis = _with_sharpness(diagnosis, where, data)
    if _is_way_down(data):
        return _confirmed(diagnosis, where, data, recording)
    lowered: list[Finding] = []
    kept: dict[str, list[Finding]] = {"findings": [], "suspicions": []}
    for part, found in kept.items():
        for finding in getattr(diagnosis, part):
            if finding.id == SADDLE and finding.source == where.source:
                # Equal units are a fact, and stay equal on the way, too.
                fact = kind == "not critical" and "equal_units" in finding.evidence
                factor = 1.0 if fact else _LOWERED.get(kind, 1.0)
                told = {"point": kind, "measured_at_step": where.step, **_figures(data)}
                finding = replace(
                    finding, confidence=finding.confidence * factor, evidence={**finding.evidence, **told}
                )
                lowered.append(finding)
            else:
                found.append(finding)
    why = f"The curvature at step {where.step}, where the loss stands still: {kind} ({data.get('why', '')})."
    result = replace(diagnosis, notes=(*diagnosis.notes, why))
    if not lowered:
        return result
    findings, suspicions = list(kept["findings"]), list(kept["suspicions"])
    for finding in lowered:
        if finding.confidence >= REPORT:
            findings.append(finding)
        elif finding.confidence >= SUSPECT:
            suspicions.append(finding)
    findings.sort(key=lambda f: (f.severity == "info", -f.confidence))
    result = replace(result, findings=tuple(findings), suspicions=tuple(suspicions))
    if diagnosis.verdict == "sick" and not any(f.severity != "info" for f in findings):
        return replace(result, verdict="inconclusive", summary=f"It looked like a saddle, but is none. {why}")
    if findings and diagnosis.findings and findings[0] is not diagnosis.findings[0]:
        return replace(result, summary=findings[0].explanation)
    return result


def _is_way_down(data: Mapping[str, Any]) -> bool:
    """A saddle by batches that had no part in finding the direction, too."""
    fresh = data.get("fresh") or {}
    return data.get("kind") == "saddle" and fresh.get("smallest", {}).get("value", 0.0) < 0


def _confirmed(diagnosis: Diagnosis, where: Plateau, data: Mapping[str, Any], recording: Recording) -> Diagnosis:
    e = evidence_of(recording, where.source)
    known = next(
        (f for f in (*diagnosis.findings, *diagnosis.suspicions) if f.id == SADDLE and f.source == where.source), None
    )
    shares = [d for d in data.get("direction", ()) if d.get("share", 0.0) >= 0.05][:_NAMED]
    names = " and ".join(str(d["parameter"]) for d in shares[:2])
    low = data["smallest"]
    says = (
        f"From step {where.first} to {where.last} the loss stands at {number(where.level)}, at a saddle: the gradient "
        f"vanishes there ({number(data.get('gradient_norm'))}), and yet the loss falls along a direction in which "
        f"nothing moves (curvature {number(low['value'])}"
        + (f", mostly in {names}" if names else "")
        + "). Random initial weights do not begin there."
    )
    evidence = {
        **({} if known is None else known.evidence),
        "point": "saddle",
        "measured_at_step": where.step,
        **_figures(data),
    }
    if shares:
        evidence["direction"] = [f"{d['parameter']} ({d['share']:.0%})" for d in shares]
    escape = _escape(data)
    if escape is not None:
        evidence["steps_to_grow_e_fold"] = escape
    if known is not None:
        finding = replace(
            known,
            confidence=max(known.confidence, _CONFIRMED),
            explanation=f"{known.explanation} {says}",
            evidence=evidence,
        )
    else:
        place = e.optimizer.made or e.optimizer.stepped
        candidates = [Intervention(fixes=("break-symmetry",)), Intervention(init="he")]
        if not e.momentum > 0:
            candidates.append(Intervention(momentum=0.9))
        finding = Finding(
            id=SADDLE,
            severity="error",
            confidence=_MEASURED,
            where=Where(
                place.file if place else None,
                place.line if place else None,
                str(shares[0]["parameter"]) if shares else None,
                None,
                where.first,
            ),
            explanation=says,
            evidence=evidence,
            remedies=tuple(Remedy(c, advise(c, e), reason="not tried") for c in candidates),
            source=where.source,
        )
    others = [f for f in diagnosis.findings if f is not known]
    findings = sorted([finding, *others], key=lambda f: (f.severity == "info", -f.confidence))
    return replace(
        diagnosis,
        verdict="sick",
        doubtful=False,
        findings=tuple(findings),
        suspicions=tuple(f for f in diagnosis.suspicions if f is not known),
        summary=findings[0].explanation,
        notes=tuple(n for n in diagnosis.notes if not n.startswith(f"Suspected, not shown: {SADDLE}")),
    )


def _with_sharpness(diagnosis: Diagnosis, where: Plateau, data: Mapping[str, Any]) -> Diagnosis:
    """C8: descent bounces across a valley whose curvature its rate can't bear, while the gradient is not small.

    Training may live at the edge of what it can bear, so that this alone makes no finding, nor one surer.
    """
    sharpness = _surely(data)
    if not sharpness > 1.0 or data.get("kind") != "not critical":
        return diagnosis
    told = {"sharpness_over_limit": sharpness, "measured_at_step": where.step, **_figures(data)}
    words = (
        f" At step {where.step} the steepest curvature is {number(sharpness)} times what this rate can follow: steps "
        "jump across the valley."
    )

    def add(finding: Finding) -> Finding:
        if finding.id not in _RATES or finding.source != where.source:
            return finding
        evidence = {**finding.evidence, **told}
        return replace(finding, evidence=evidence, explanation=finding.explanation + words)

    findings, suspicions = tuple(map(add, diagnosis.findings)), tuple(map(add, diagnosis.suspicions))
    return replace(diagnosis, findings=findings, suspicions=suspicions)


def _surely(data: Mapping[str, Any]) -> float:
    """The sharpness as a share of what the rate bears, less what it may be off by; NaN where it isn't known."""
    sharpness, high = data.get("sharpness"), data.get("largest") or {}
    value = high.get("value")
    if not sharpness or not value:
        return math.nan
    off = (high.get("residual") or 0.0) + 2 * (high.get("noise") or 0.0)
    return float(sharpness * (value - off) / value)


def _escape(data: Mapping[str, Any]) -> float | None:
    """For descent: in how many steps what lies along the way down grows e-fold."""
    rate, low = data.get("lr"), (data.get("smallest") or {}).get("value")
    if data.get("optimizer") != "SGD" or not rate or not low:
        return None
    return float((1 - (data.get("momentum") or 0.0)) / (rate * abs(low)))


def _figures(data: Mapping[str, Any]) -> dict[str, Any]:
    low, high = data.get("smallest") or {}, data.get("largest") or {}
    figures = {
        "smallest": low.get("value"),
        "smallest_error": (low.get("residual") or 0.0) + 2 * (low.get("noise") or 0.0) if low else None,
        "largest": high.get("value"),
        "gradient_norm": data.get("gradient_norm"),
        "gradient_noise": data.get("gradient_noise"),
    }
    return {k: v for k, v in figures.items() if v is not None}
