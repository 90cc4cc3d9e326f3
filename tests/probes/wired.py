"""What the checks on the wiring say of training watched in the test's own process."""

from __future__ import annotations

from collections.abc import Callable

from watching import Watched, watched

from gradwise.diagnosis import wiring
from gradwise.diagnosis.case import Case
from gradwise.diagnosis.evidence import evidence_of
from gradwise.diagnosis.hypotheses import SUSPECT, Hypothesis
from gradwise.recording import signals


def hypotheses(seen: Watched) -> list[Hypothesis]:
    recording = seen.recording
    sources = recording.sources(signals.TIME) or [o.index for o in recording.optimizers[:1]]
    evidence = [evidence_of(recording, s) for s in sources]
    main = max(evidence, key=lambda e: e.steps, default=None)
    cases = [Case(recording, e, main=e is main) for e in evidence]
    found = [h for case in cases for check in wiring.CHECKS for h in check(case) if h is not None]
    return [h for h in found if h.confidence >= SUSPECT]


def found(script: Callable[[], object]) -> dict[str, Hypothesis]:
    """What is found in training as `script` does it, by id."""
    with watched() as seen:
        script()
    return {h.id: h for h in hypotheses(seen)}
