"""A suspicion about a run: a cause with how much speaks for it, before any trial has decided."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gradwise.diagnosis.findings import Severity
from gradwise.interventions import Intervention
from gradwise.recording.recording import Place

REPORT = 0.6
"""From this confidence on a cause is a finding by itself; below it only a verified cure makes it one."""
DOUBT = 0.5
"""From this confidence on a suspicion keeps a run from being called healthy until a trial has decided."""
SUSPECT = 0.3
"""Below this confidence a cause isn't worth a trial."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A cause that would explain what is seen.

    Attributes:
        id: catalogue id.
        confidence: 0 to 1, from the recording alone.
        step: where it shows first.
        says: the explanation, in plain words.
        evidence: the numbers it rests on.
        candidates: interventions that would cure it, best guess first.
        initial: whether it was so before the first step, so that nothing that steps do can be to blame.
        late: whether it shows only late, so that its cure must be tried over the full length.
        parameter: the tensor it is about, if one.
        module: the module it is about, if one.
        place: where in the source it is, if not where the optimizer is made.
    """

    id: str
    confidence: float
    severity: Severity
    says: str
    step: int = 0
    evidence: Mapping[str, Any] = field(default_factory=dict)
    candidates: tuple[Intervention, ...] = ()
    late: bool = False
    initial: bool = False
    parameter: str | None = None
    module: str | None = None
    place: Place | None = None


def known(facts: Mapping[str, float]) -> dict[str, float]:
    """The facts that are finite: what wasn't measured is left out of the evidence."""
    return {name: value for name, value in facts.items() if math.isfinite(value)}


def listed(names: Iterable[str], most: int = 4) -> str:
    """The first so many names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def place_in(data: Mapping[str, Any] | None) -> Place | None:
    """The place that an event tells of, if it does."""
    at = (data or {}).get("place")
    return Place(at["file"], at["line"], at.get("function", ""), at.get("text", "")) if at else None
