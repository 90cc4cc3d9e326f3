"""What trials say of a diagnosis: a cause is what cures (design idea 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gradwise.diagnosis.diagnose import suspected
from gradwise.diagnosis.findings import Diagnosis, Finding

_SURER, _LESS_SURE = 0.25, 0.5


def decide(
    diagnosis: Diagnosis,
    findings: Sequence[Finding],
    confirmed: Sequence[Finding] = (),
    doubts: Sequence[Finding] = (),
) -> Diagnosis:
    """The diagnosis after its remedies were tried.

    A finding with a verified remedy becomes surer and comes first, one whose remedies all failed becomes less sure and
    comes last (of those that need something done).

    Args:
        diagnosis: as it was before.
        findings: its findings, with what became of their remedies.
        confirmed: suspicions that trials made findings of.
        doubts: its suspicions, with what became of their remedies.
    """
    ids = {(f.id, f.source) for f in confirmed}
    decided = tuple(sorted(map(_weighed, (*confirmed, *findings)), key=_place))
    result = replace(
        diagnosis,
        findings=decided,
        suspicions=tuple(f for f in diagnosis.suspicions if (f.id, f.source) not in ids),
    )
    settled = [suspected(f) for f in (*confirmed, *doubts) if any(r.status != "suggested" for r in f.remedies)]
    result = replace(result, notes=tuple(n for n in result.notes if not n.startswith(tuple(settled))))
    # A doubt that its own cure does not confirm is none any more.
    found = any(f.severity != "info" for f in decided)
    if result.doubtful and not found and all(any(r.status != "suggested" for r in f.remedies) for f in doubts):
        result = replace(result, verdict="healthy", doubtful=False)
    if decided and decided[0].id != next((f.id for f in diagnosis.findings), None):
        result = replace(result, verdict="sick", summary=decided[0].explanation)
    return result


def _weighed(finding: Finding) -> Finding:
    if _outcome(finding) == "verified":
        return replace(finding, confidence=1 - _SURER * (1 - finding.confidence))
    if _outcome(finding) == "failed":
        return replace(finding, confidence=_LESS_SURE * finding.confidence)
    return finding


def _place(finding: Finding) -> tuple[bool, int]:
    return finding.severity == "info", ("verified", "open", "failed").index(_outcome(finding))


def _outcome(finding: Finding) -> str:
    statuses = {remedy.status for remedy in finding.remedies}
    return "verified" if "verified" in statuses else "failed" if statuses == {"failed"} else "open"
