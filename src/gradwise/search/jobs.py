"""Runs that a search asks for, what came of them, and who makes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from gradwise.diagnosis.metric import Outcome
from gradwise.search.space import Configuration

OnValue = Callable[[int, float], bool]
"""Takes the k-th value (from 1) of a run under way; True ends the run, since nothing will come of it."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run to make.

    Attributes:
        key: what its result is told by.
        config: the configuration; None is the script's own settings.
        seed: the offset on its seeds.
        test: whether to read the test score.
    """

    key: str
    config: Configuration | None = None
    seed: int = 0
    test: bool = False

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a job.

    Attributes:
        value: what is selected on, the lower the better; None where it is not finite.
        start: the same before training moved anything, where that is known.
        diverged: whether training went wrong.
        steps: optimizer steps made.
        seconds: how long it took.
        problem: why it says nothing of its configuration; "" where it does.
        lost: whether that is no fault of the configuration's, so that it can be run again.
        pruned: whether it was ended because nothing would come of it.
        test: the test score, where it was asked for, as the script has it.
    """

    value: float | None
    start: float | None = None
    diverged: bool = False
    steps: int = 0
    seconds: float = 0.0
    problem: str = ""
    lost: bool = False
    pruned: bool = False
    test: float | None = None

    @property
    def level(self) -> float:
        """The value, infinity where it isn't finite."""
        return math.inf if self.value is None else self.value

    def outcome(self) -> Outcome:
        """As paired runs are judged."""
        return Outcome("selected on", self.value, self.start, self.diverged or self.value is None or bool(self.problem))

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Result:
        """The result that `to_json` wrote."""
        return Result(**data)


Evaluate = Callable[[Job, OnValue], Result]
"""Makes one run."""


class Engine(Protocol):
    """Where runs are made."""

    @property
    def slots(self) -> int:
        """How many at a time."""
        ...

    def start(self, job: Job) -> None:
        """Begin a run; the caller minds `slots`."""
        ...

    def finish(self, on_value: Callable[[Job, int, float], bool]) -> tuple[Job, Result]:
        """Wait until one of the runs has ended.

        Args:
            on_value: takes values of runs under way; True ends that run.
        """
        ...

    def close(self) -> None:
        """End what is under way."""
        ...


class InProcess:
    """One run after another, right here."""

    slots = 1

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._waiting: list[Job] = []

    def start(self, job: Job) -> None:
        """Remember it."""
        self._waiting.append(job)

    def finish(self, on_value: Callable[[Job, int, float], bool]) -> tuple[Job, Result]:
        """Make it."""
        job = self._waiting.pop(0)
        return job, self._evaluate(job, lambda k, value: on_value(job, k, value))

    def close(self) -> None:
        """Forget what has not begun."""
        self._waiting.clear()
