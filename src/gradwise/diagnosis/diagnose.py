"""The diagnosis of a recording."""

from __future__ import annotations

from gradwise.diagnosis.findings import Diagnosis
from gradwise.recording.recording import Recording


def diagnose(recording: Recording, target: float | None = None) -> Diagnosis:
    """Say what is wrong with a training run, from its recording alone."""
    run = recording.run
    return Diagnosis(run=run.id, script=run.script, argv=run.argv, verdict="inconclusive")
