"""What a check is given: the recording, and the evidence on one of its optimizers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gradwise.diagnosis.evidence import Evidence
from gradwise.diagnosis.hypotheses import Hypothesis
from gradwise.recording.recording import Recording


@dataclass(frozen=True, slots=True)
class Case:
    """One optimizer's training, in the light of the whole run.

    Attributes:
        recording: the run.
        e: the evidence on the optimizer in question.
        rivals: whether several optimizers train at the same time on losses of their own (a GAN): such losses need not
            fall, so that nothing is read off their curves.
        main: whether this is the optimizer that made most steps; what is true of the run as a whole is said of it.
    """

    recording: Recording
    e: Evidence
    rivals: bool = False
    main: bool = True


Check = Callable[[Case], Iterable[Hypothesis | None]]
"""A check yields the hypotheses that it finds reason for."""
