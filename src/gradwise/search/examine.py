"""What replays add to a diagnosis before its cures are tried: where a NaN began, what kind of point training is at."""

from __future__ import annotations

from dataclasses import replace

from gradwise.diagnosis import geometry
from gradwise.diagnosis.findings import Diagnosis, Finding
from gradwise.diagnosis.origins import located
from gradwise.recording.recording import Recording
from gradwise.search.attempts import Attempts, OverError
from gradwise.search.replays import curvature_at, origin_of

# Of the time left: most of it is for the cures.
_SHARE = 0.3


def calls_for(diagnosis: Diagnosis, recording: Recording) -> bool:
    """Whether a replay would tell more of a diagnosis, with or without a cure to try."""
    return _lost(diagnosis) is not None or geometry.question(diagnosis, recording) is not None


def examine(diagnosis: Diagnosis, recording: Recording, attempts: Attempts) -> Diagnosis:
    """The diagnosis after the replays that it calls for, one of each kind at most.

    Raises:
        Interrupted: by the user.
    """
    return _geometry(_origins(diagnosis, recording, attempts), recording, attempts)


def _origins(diagnosis: Diagnosis, recording: Recording, attempts: Attempts) -> Diagnosis:
    lost = _lost(diagnosis)
    if lost is None:
        return diagnosis
    step = int(lost.evidence.get("first_bad_step", lost.where.step or 0))
    try:
        found = origin_of(attempts, step, lost.source, _SHARE)
    except OverError as over:
        return _noted(diagnosis, f"Where the NaN began was not looked for: {over}.")
    if found.problem:
        return _noted(diagnosis, f"Where the NaN began could not be found: {found.problem}.")
    new = located(lost, found.data, recording)
    return _replaced(diagnosis, lost, new)


def _lost(diagnosis: Diagnosis) -> Finding | None:
    return next((f for f in diagnosis.findings if f.id == "non-finite-loss"), None)


def _geometry(diagnosis: Diagnosis, recording: Recording, attempts: Attempts) -> Diagnosis:
    where = geometry.question(diagnosis, recording)
    if where is None:
        return diagnosis
    try:
        found = curvature_at(attempts, where.step, where.source, share=_SHARE)
    except OverError as over:
        return _noted(diagnosis, f"The curvature where the loss stands still was not measured: {over}.")
    if found.problem:
        return _noted(diagnosis, f"The curvature where the loss stands still could not be measured: {found.problem}.")
    return geometry.weighed(diagnosis, where, found.data, recording)


def _replaced(diagnosis: Diagnosis, old: Finding, new: Finding) -> Diagnosis:
    findings = tuple(new if f is old else f for f in diagnosis.findings)
    summary = new.explanation if diagnosis.summary.startswith(old.explanation) else diagnosis.summary
    return replace(diagnosis, findings=findings, summary=summary)


def _noted(diagnosis: Diagnosis, note: str) -> Diagnosis:
    return replace(diagnosis, notes=(*diagnosis.notes, note))
