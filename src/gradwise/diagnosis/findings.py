"""What a diagnosis consists of: findings, their places and remedies, and the whole as JSON (schema 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gradwise.interventions import Intervention

SCHEMA = 1

Severity = Literal["error", "warning", "info"]
Verdict = Literal["healthy", "sick", "inconclusive"]
Status = Literal["verified", "failed", "suggested"]


@dataclass(frozen=True, slots=True)
class Where:
    """The place of a finding; whatever does not apply is None. `step` is an optimizer step."""

    file: str | None = None
    line: int | None = None
    parameter: str | None = None
    module: str | None = None
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Remedy:
    """One thing to change, and what trying it showed.

    `baseline` and `outcome` hold the final `metric` of each paired run (None where it was not finite), `diverged`
    whether the remedied run went wrong; `steps` is how many steps each of those runs was given and `full` whether
    that is the script's whole length. `reason` says why a remedy is only suggested, or how it failed. `diff` is the
    change as a unified diff of the script, where it is a literal or an argument.
    """

    intervention: Intervention
    advice: str
    status: Status = "suggested"
    reason: str = ""
    steps: int = 0
    full: bool = False
    metric: str = ""
    baseline: tuple[float | None, ...] = ()
    outcome: tuple[float | None, ...] = ()
    diverged: tuple[bool, ...] = ()
    diff: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A cause, named by its catalogue id, with its evidence, place and confidence (0 to 1)."""

    id: str
    severity: Severity
    confidence: float
    where: Where
    explanation: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    remedies: tuple[Remedy, ...] = ()
    source: int = 0


@dataclass(frozen=True, slots=True)
class CheckItem:
    """One line of the checklist for a run that does not converge (C7): what was looked at and what was found."""

    topic: str
    found: str
    ok: bool | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A verdict with its findings, most probable root cause first.

    `suspicions` are causes too uncertain to be findings unless a trial confirms them; they are not reported. `doubtful`
    says that nothing but them keeps the run from being called healthy.
    """

    run: str
    script: str
    argv: tuple[str, ...]
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    summary: str = ""
    checklist: tuple[CheckItem, ...] = ()
    notes: tuple[str, ...] = ()
    steps: int = 0
    overhead_fraction: float | None = None
    startup_seconds: float | None = None
    suspicions: tuple[Finding, ...] = ()
    doubtful: bool = False

    def with_findings(self, findings: tuple[Finding, ...]) -> Diagnosis:
        """The same diagnosis with other findings."""
        return replace(self, findings=findings)

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object of schema 1; numbers that are not finite become None."""
        data: dict[str, Any] = {
            "schema": SCHEMA,
            "script": self.script,
            "argv": list(self.argv),
            "verdict": self.verdict,
            "summary": self.summary,
            "findings": [_finding_json(f) for f in self.findings],
            "checklist": [{"topic": c.topic, "found": c.found, "ok": c.ok} for c in self.checklist],
            "notes": list(self.notes),
            "overhead": {"fraction": self.overhead_fraction, "startup_seconds": self.startup_seconds},
            "steps": self.steps,
            "run": self.run,
        }
        clean: dict[str, Any] = finite(data)
        return clean

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Diagnosis:
        """The diagnosis a report describes; numbers that were not finite are None.

        Raises:
            ValueError: where `data` is no report of this schema (`gradwise.report.schema.check` names the field).
        """
        if data.get("schema") != SCHEMA:
            raise ValueError(f"a report of schema {data.get('schema')!r}; this gradwise reads schema {SCHEMA}")
        try:
            overhead = data["overhead"]
            return Diagnosis(
                run=data["run"],
                script=data["script"],
                argv=tuple(data["argv"]),
                verdict=data["verdict"],
                findings=tuple(map(_finding_from_json, data["findings"])),
                summary=data.get("summary", ""),
                checklist=tuple(CheckItem(c["topic"], c["found"], c["ok"]) for c in data.get("checklist", ())),
                notes=tuple(data.get("notes", ())),
                steps=data["steps"],
                overhead_fraction=overhead["fraction"],
                startup_seconds=overhead["startup_seconds"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no report of schema {SCHEMA}: {error}") from None


def _finding_json(f: Finding) -> dict[str, Any]:
    return {
        "id": f.id,
        "severity": f.severity,
        "confidence": round(f.confidence, 3),
        "source": f.source,
        "where": {
            "file": f.where.file,
            "line": f.where.line,
            "parameter": f.where.parameter,
            "module": f.where.module,
            "step": f.where.step,
        },
        "explanation": f.explanation,
        "evidence": dict(f.evidence),
        "remedies": [
            {
                "intervention": r.intervention.to_json(),
                "status": r.status,
                "reason": r.reason,
                "steps": r.steps,
                "full_length": r.full,
                "metric": r.metric,
                "baseline": list(r.baseline),
                "outcome": list(r.outcome),
                "diverged": list(r.diverged),
                "advice": r.advice,
                "diff": r.diff,
            }
            for r in f.remedies
        ],
    }


def _finding_from_json(data: Mapping[str, Any]) -> Finding:
    return Finding(
        id=data["id"],
        severity=data["severity"],
        confidence=data["confidence"],
        where=Where(**{k: data["where"][k] for k in ("file", "line", "parameter", "module", "step")}),
        explanation=data["explanation"],
        evidence=dict(data["evidence"]),
        remedies=tuple(map(_remedy_from_json, data["remedies"])),
        source=data.get("source", 0),
    )


def _remedy_from_json(data: Mapping[str, Any]) -> Remedy:
    return Remedy(
        intervention=Intervention.from_json(data["intervention"]),
        advice=data["advice"],
        status=data["status"],
        reason=data.get("reason", ""),
        steps=data["steps"],
        full=data.get("full_length", False),
        metric=data["metric"],
        baseline=tuple(data["baseline"]),
        outcome=tuple(data["outcome"]),
        diverged=tuple(data["diverged"]),
        diff=data.get("diff", ""),
    )


def finite(value: Any) -> Any:
    """`value` with every number in it that is not finite replaced by None (JSON knows no NaN)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if hasattr(value, "item"):
        return finite(value.item())
    return value
