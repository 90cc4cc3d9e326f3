"""Runs that a search asks for, what came of them, and who makes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

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
        reference: whether to run the script as it is and to tell what that tells a search.
        keep: file in which a worker leaves the result, too; "" for none.
    """

    key: str
    config: Configuration | None = None
    seed: int = 0
    test: bool = False
    reference: bool = False
    keep: str = ""

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
        facts: what a reference tells a search (`gradwise.search.facts.Facts`).
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
    facts: Mapping[str, Any] | None = None

    @property
    def level(self) -> float:
        """The value, infinity where it isn't finite."""
        return math.inf if self.value is None else self.value

    def outcome(self) -> Outcome:
        """As paired runs are judged."""
        return Outcome("selected on", self.value, self.start, self.diverged or self.value is None or bool(self.problem))

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {key: value for key, value in asdict(self).items() if key != "facts" or value is not None}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Result:
        """The result that `to_json` wrote."""
        return Result(**data)


Evaluate = Callable[[Job, OnValue], Result]
"""Makes one run."""

OnJobValue = Callable[[Job, int, float], bool]
"""`OnValue` of whichever job."""


class EngineError(RuntimeError):
    """An engine that can't be had, or can't work: why, and what to do."""


class Work(Protocol):
    """What runs are made of, such that other processes can make them.

    Attributes:
        KIND: says what `to_json` wrote; "script" or "function".
    """

    KIND: ClassVar[str]

    @property
    def patience(self) -> float:
        """Seconds after which whoever makes a run has hung."""
        ...

    def overdue(self) -> Result:
        """What comes of a run whose maker has hung."""
        ...

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, for a process of this machine.

        Raises:
            EngineError: where another process can't be told what to run.
        """
        ...

    def begun(self, environment: Mapping[str, str] | None = None) -> AbstractContextManager[Evaluate]:
        """Ready for runs, with this environment where they are processes; None is that of this one."""
        ...


class Engine(Protocol):
    """Where runs are made; nothing else about them."""

    @property
    def slots(self) -> int:
        """How many at a time."""
        ...

    def use(self, work: Work) -> None:
        """Run this from now on; nothing is under way."""
        ...

    def submit(self, job: Job) -> None:
        """Begin a run; the caller minds `slots`.

        Raises:
            EngineError: where no run can be made at all.
        """
        ...

    def next_done(self, on_value: OnJobValue, timeout: float | None = None) -> tuple[Job, Result] | None:
        """Wait until one of the runs has ended.

        A run whose maker died or hung ends, too: its result is `lost`.

        Args:
            on_value: takes values of runs under way; True ends that run.
            timeout: seconds after which to return None; None waits for ever.

        Raises:
            EngineError: where no run can be made at all.
        """
        ...

    def cancel(self, key: str) -> None:
        """End a run, of which nothing will be heard any more."""
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

    def use(self, work: Work) -> None:
        """What makes the runs knows already."""

    def submit(self, job: Job) -> None:
        """Remember it."""
        self._waiting.append(job)

    def next_done(self, on_value: OnJobValue, timeout: float | None = None) -> tuple[Job, Result] | None:
        """Make it, however long that takes."""
        job = self._waiting.pop(0)
        return job, self._evaluate(job, lambda k, value: on_value(job, k, value))

    def cancel(self, key: str) -> None:
        """Forget it."""
        self._waiting = [job for job in self._waiting if job.key != key]

    def close(self) -> None:
        """Forget what has not begun."""
        self._waiting.clear()
