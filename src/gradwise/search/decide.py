"""What trials say of a diagnosis: a cause is what cures (design idea 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gradwise.diagnosis.causes import symptoms
from gradwise.diagnosis.diagnose import suspected
from gradwise.diagnosis.findings import Diagnosis, Finding

# Seen, not inferred: a cure that fails doesn't unsay it.
_SEEN = frozenset({"non-finite-loss"})
_SURER, _LESS_SURE = 0.25, 0.5
# What was less sure than 0.8 from the recording and failed to be cured is not told.
_TOLD = 0.4
_NOTHING_HELPED = "Something seemed wrong, but no cure for it did any good: perhaps nothing is."


def decide(
    diagnosis: Diagnosis,
    findings: Sequence[Finding],
    confirmed: Sequence[Finding] = (),
    doubts: Sequence[Finding] = (),
) -> Diagnosis:
    """The diagnosis after its remedies were tried.

    A finding with a verified remedy becomes surer and comes first, and folds in what it explains. One whose remedies
    all failed becomes less sure and comes last (of those that need something done); if it was not plain before, it is
    no finding any more, but a note.

    Args:
        diagnosis: as it was before.
        findings: its findings, with what became of their remedies.
        confirmed: suspicions that trials made findings of.
        doubts: its suspicions, with what became of their remedies.
    """
    ids = {(f.id, f.source) for f in confirmed}
    weighed = sorted(map(_weighed, (*confirmed, *findings)), key=_place)
    dropped = [f for f in weighed if _outcome(f) == "failed" and f.severity != "info" and f.confidence < _TOLD]
    decided = tuple(_fold([f for f in weighed if f not in dropped]))
    result = replace(
        diagnosis,
        findings=decided,
        suspicions=tuple(f for f in diagnosis.suspicions if (f.id, f.source) not in ids),
    )
    settled = [suspected(f) for f in (*confirmed, *doubts) if any(r.status != "suggested" for r in f.remedies)]
    result = replace(result, notes=tuple(n for n in result.notes if not n.startswith(tuple(settled))))
    if dropped:
        notes = [f"Suspected, and not confirmed: {f.id}. None of its cures helped." for f in dropped]
        result = replace(result, notes=(*result.notes, *notes))
        if not any(f.severity != "info" for f in decided):
            result = replace(result, verdict="inconclusive", summary=_NOTHING_HELPED)
    # A doubt that its own cure does not confirm is none any more.
    found = any(f.severity != "info" for f in decided)
    if result.doubtful and not found and all(any(r.status != "suggested" for r in f.remedies) for f in doubts):
        result = replace(result, verdict="healthy", doubtful=False)
    if decided and decided[0].id != next((f.id for f in diagnosis.findings), None):
        result = replace(result, verdict="sick", summary=decided[0].explanation)
    return result


def _fold(findings: Sequence[Finding]) -> list[Finding]:
    """Those that no cured one explains; what it explains is added to its evidence."""
    kept = list(findings)
    for root in [f for f in findings if _outcome(f) == "verified"]:
        folded = [f for f in kept if f.id in symptoms(root.id) and _outcome(f) != "verified" and f.severity != "info"]
        if root in kept and folded:
            explains = [*dict.fromkeys([*root.evidence.get("explains", ()), *(f.id for f in folded)])]
            kept = [f for f in kept if f not in folded]
            kept[kept.index(root)] = replace(root, evidence={**root.evidence, "explains": explains})
    return kept


def _weighed(finding: Finding) -> Finding:
    if _outcome(finding) == "verified":
        return replace(finding, confidence=1 - _SURER * (1 - finding.confidence))
    if _outcome(finding) == "failed" and finding.id not in _SEEN:
        return replace(finding, confidence=_LESS_SURE * finding.confidence)
    return finding


def _place(finding: Finding) -> tuple[bool, int]:
    return finding.severity == "info", ("verified", "open", "failed").index(_outcome(finding))


def _outcome(finding: Finding) -> str:
    statuses = {remedy.status for remedy in finding.remedies}
    return "verified" if "verified" in statuses else "failed" if statuses == {"failed"} else "open"
