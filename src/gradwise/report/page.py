"""What a report says, in words: one content that terminal, HTML and notebook each lay out in their way."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwise.curves import fit, trend
from gradwise.diagnosis.findings import CheckItem, Diagnosis, Finding, Remedy, Status, Verdict
from gradwise.legible import duration, number
from gradwise.recording.recording import Place, Recording
from gradwise.recording.signals import LOSS, TIME, VALIDATION

MARKS: dict[Status, str] = {"verified": "✓", "failed": "✗", "suggested": "·"}

_FEW_STEPS = 50
_MOST_MARKS = 2
_METRICS = {LOSS.name: "training loss", VALIDATION.name: "validation loss"}
_ENDINGS = {
    "running": "still running",
    "stopped": "stopped early, as asked",
    "killed": "killed",
    "lost": "its process vanished",
}


@dataclass(frozen=True, slots=True)
class Pairs:
    """The paired runs of a remedy, formatted: `columns` name the seeds, each row is as long."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class RemedyText:
    """One remedy: what it changes, how trying it went, the line to change in the script ("" if it failed)."""

    status: Status
    what: str
    outcome: str
    advice: str
    diff: str
    pairs: Pairs | None

    @property
    def mark(self) -> str:
        """✓ verified, ✗ failed, · suggested."""
        return MARKS[self.status]


@dataclass(frozen=True, slots=True)
class FindingText:
    """One finding: `facts` are its severity, confidence and place; `quote` is the user's own line."""

    id: str
    severity: str
    facts: tuple[str, ...]
    quote: str
    explanation: str
    evidence: tuple[tuple[str, str], ...]
    remedies: tuple[RemedyText, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report in words.

    `source` is the optimizer whose loss is drawn, `marks` the steps to point at in the picture, `following` the
    commands to type next, under what they are good for.
    """

    verdict: Verdict
    source: int
    marks: tuple[tuple[int, str], ...]
    title: str
    facts: tuple[str, ...]
    summary: str
    missing: tuple[str, ...]
    findings: tuple[FindingText, ...]
    checklist: tuple[CheckItem, ...]
    notes: tuple[str, ...]
    following: tuple[tuple[str, tuple[str, ...]], ...]


def write_page(
    diagnosis: Diagnosis, recording: Recording, json_path: str | None = None, html_path: str | None = None
) -> Page:
    """The report in words.

    Args:
        diagnosis: what was found.
        recording: the run it was found in: gives wall time, ending, quoted source lines.
        json_path: where the JSON report lies, for the command that applies the fix; None if there is none.
        html_path: where the HTML report lies; None if there is none, then the page says how to get one.
    """
    source = _source(diagnosis, recording)
    marked = [(f.where.step, f.id) for f in diagnosis.findings if f.where.step and f.source == source]
    return Page(
        verdict=diagnosis.verdict,
        source=source,
        marks=tuple(marked[:_MOST_MARKS]),
        title=_title(diagnosis, recording),
        facts=tuple(_facts(diagnosis, recording)),
        summary=diagnosis.summary or _summary(diagnosis, recording),
        missing=tuple(_missing(diagnosis, recording)) if diagnosis.verdict == "inconclusive" else (),
        findings=tuple(_finding(f, recording) for f in diagnosis.findings),
        checklist=() if diagnosis.verdict == "healthy" else diagnosis.checklist,
        notes=diagnosis.notes,
        following=tuple(_following(diagnosis, recording, json_path, html_path)),
    )


def _source(diagnosis: Diagnosis, recording: Recording) -> int:
    """The optimizer whose loss the page draws: that of the first finding, else the first that has a loss."""
    sources = recording.sources(LOSS)
    wanted = diagnosis.findings[0].source if diagnosis.findings else 0
    return wanted if wanted in sources or not sources else sources[0]


def _title(diagnosis: Diagnosis, recording: Recording) -> str:
    if not diagnosis.script:
        return "this process"
    return " ".join((shorten(diagnosis.script, recording.run.cwd), *map(shlex.quote, diagnosis.argv)))


def _facts(diagnosis: Diagnosis, recording: Recording) -> Iterator[str]:
    run = recording.run
    clock = recording.get(TIME)
    wall = run.ended - run.started if run.ended is not None and run.started else None
    if wall is None and len(clock):
        wall = float(clock.values[-1])
    yield _count(diagnosis.steps, "step") + (f" in {duration(wall)}" if wall is not None else "")
    if run.status == "failed":
        yield "failed" + (f" with exit status {run.exit}" if run.exit is not None else "")
    elif run.status in _ENDINGS:
        yield _ENDINGS[run.status]
    cost = []
    if diagnosis.overhead_fraction is not None:
        cost.append(f"{number(100 * diagnosis.overhead_fraction, 1 if diagnosis.overhead_fraction < 0.1 else 2)} %")
    if diagnosis.startup_seconds is not None:
        cost.append(f"{duration(diagnosis.startup_seconds)} at start")
    if cost:
        yield f"overhead {', '.join(cost)}"
    if diagnosis.run:
        yield f"run {diagnosis.run}"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _summary(diagnosis: Diagnosis, recording: Recording) -> str:
    if diagnosis.verdict == "sick" and diagnosis.findings:
        return f"Most probable cause: {diagnosis.findings[0].id}."
    if diagnosis.verdict == "inconclusive":
        return "There is too little evidence to tell whether this run is healthy."
    loss = recording.get(LOSS, _source(diagnosis, recording))
    smooth = trend(loss.values, fit([loss]))
    seen = smooth[np.isfinite(smooth)]
    fell = f": the loss goes from {number(float(seen[0]))} to {number(float(seen[-1]))}" if len(seen) else ""
    return f"Nothing found that needs a change{fell}."


def _missing(diagnosis: Diagnosis, recording: Recording) -> Iterator[str]:
    sources = recording.sources(LOSS)
    if not diagnosis.steps:
        yield "no step of an optimizer was seen"
    elif diagnosis.steps < _FEW_STEPS:
        yield f"{_count(diagnosis.steps, 'step')}: too short for a trend to show"
    if not sources:
        yield "no loss was back-propagated, or none that gradwise could see"
    if not recording.sources(VALIDATION):
        yield "no validation loss was evaluated"
    yield from (f"{c.topic}: {c.found}" for c in diagnosis.checklist if c.ok is None)


def _finding(finding: Finding, recording: Recording) -> FindingText:
    where = finding.where
    place = None
    if where.file:
        place = shorten(where.file, recording.run.cwd) + (f":{where.line}" if where.line else "")
    facts = (
        finding.severity,
        _sure(finding.confidence),
        place,
        where.module and f"module {where.module}",
        where.parameter and f"parameter {where.parameter}",
        None if where.step is None else f"step {where.step:,}",
        f"optimizer {finding.source}" if len(recording.optimizers) > 1 else None,
    )
    return FindingText(
        id=finding.id,
        severity=finding.severity,
        facts=tuple(f for f in facts if f),
        quote=_quote(finding, recording),
        explanation=finding.explanation,
        evidence=tuple((str(k).replace("_", " "), _say(v)) for k, v in finding.evidence.items()),
        remedies=tuple(_remedy(r) for r in finding.remedies),
    )


def _sure(confidence: float) -> str:
    percent = round(100 * confidence)
    return "> 99 % sure" if percent == 100 and confidence < 1 else f"{percent} % sure"


def shorten(path: str, cwd: str, most: int = 48) -> str:
    """A path relative to `cwd` if it lies inside; cut at the front, at a separator, if still too long."""
    if cwd and os.path.isabs(path) and path.startswith(cwd.rstrip(os.sep) + os.sep):
        path = os.path.relpath(path, cwd)
    if len(path) <= most:
        return path
    tail = path[-most + 2 :]
    return "…" + (tail[tail.index(os.sep) :] if os.sep in tail else tail)


def _quote(finding: Finding, recording: Recording) -> str:
    """The text of the line a finding points at, as it stood when the run was recorded; "" if unknown."""

    def absolute(file: str) -> str:
        return os.path.normpath(os.path.join(recording.run.cwd, file))

    where = finding.where
    if not where.file or not where.line:
        return ""
    wanted = (absolute(where.file), where.line)
    return next((p.text.strip() for p in _places(recording) if p.text and (absolute(p.file), p.line) == wanted), "")


def _places(recording: Recording) -> Iterator[Place]:
    for optimizer in recording.optimizers:
        yield from (p for p in (optimizer.made, optimizer.stepped, optimizer.scheduler) if p)
    for event in recording.events:
        data = event.data
        if isinstance(data.get("file"), str) and isinstance(data.get("text"), str):
            yield Place(data["file"], int(data.get("line") or 0), text=data["text"])


def _say(value: Any) -> str:
    """A piece of evidence in a few words."""
    if value is None:
        return "non-finite"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Mapping):
        return _listed([f"{k} {_say(v)}" for k, v in value.items()])
    if isinstance(value, list | tuple):
        return _listed([_say(v) for v in value])
    return str(value)


def _listed(words: list[str], most: int = 6) -> str:
    return ", ".join(words[:most]) + (f", … ({len(words)} in all)" if len(words) > most else "")


def _remedy(remedy: Remedy) -> RemedyText:
    runs = max(len(remedy.baseline), len(remedy.outcome))
    tried = f", {_count(runs, 'paired run')}" if runs else ""
    reason = f": {remedy.reason}" if remedy.reason else ""
    over = (f"at full length ({_count(remedy.steps, 'step')})" if remedy.full
            else f"over the first {_count(remedy.steps, 'step')}")  # fmt: skip
    outcome = {
        "verified": f"verified {over}{tried}",
        "failed": "failed" + (f" {over}{tried}" if runs else "") + reason,
        "suggested": "suggested" + (reason or ", not tried"),
    }[remedy.status]
    return RemedyText(
        status=remedy.status,
        what=remedy.intervention.describe(),
        outcome=outcome,
        advice="" if remedy.status == "failed" else remedy.advice,
        diff="" if remedy.status == "failed" else remedy.diff,
        pairs=_pairs(remedy, runs) if runs else None,
    )


def _pairs(remedy: Remedy, runs: int) -> Pairs:
    def cell(values: tuple[float | None, ...], k: int) -> str:
        return number(values[k], 4) if k < len(values) else "–"

    def mean(values: tuple[float | None, ...]) -> str:
        finite = [v for v in values if v is not None]
        return number(sum(finite) / len(finite), 4) if len(finite) == len(values) == runs else "–"

    diverged = [k < len(remedy.diverged) and remedy.diverged[k] for k in range(runs)]
    outcome = [
        cell(remedy.outcome, k) + (" diverged" if diverged[k] and remedy.outcome[k : k + 1] != (None,) else "")
        for k in range(runs)
    ]
    return Pairs(
        title=_METRICS.get(remedy.metric, remedy.metric or "metric"),
        columns=(*(f"pair {k + 1}" for k in range(runs)), "mean"),
        rows=(
            ("as it is", (*(cell(remedy.baseline, k) for k in range(runs)), mean(remedy.baseline))),
            ("with it", (*outcome, mean(remedy.outcome))),
        ),
    )


def _following(
    diagnosis: Diagnosis, recording: Recording, json_path: str | None, html_path: str | None
) -> Iterator[tuple[str, tuple[str, ...]]]:
    if diagnosis.script and any(r.status == "verified" for f in diagnosis.findings for r in f.remedies):
        script = ("-m " if recording.run.module else "") + shlex.join((diagnosis.script, *diagnosis.argv))
        keep = (f"gradwise report {diagnosis.run} --json report.json",) if json_path is None else ()
        apply = f"gradwise run --apply {shlex.quote(json_path or 'report.json')} {script}"
        yield "To run it at full length with the fix:", (*keep, apply)
    if diagnosis.run and html_path is None:
        yield (
            "For this page with interactive figures:",
            (f"gradwise report {diagnosis.run} --html report.html",),
        )
