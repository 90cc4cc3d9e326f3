"""Examinations: now and then a whole cycle of backward passes is looked at closely, graph and all.

Looks (`gradwise.probes.looks`) measure what tensors do; an examination asks how the computation is wired. It covers
consecutive backward passes until every optimizer has made a step, so that a generator and its discriminator are both
seen, and gradients piling up show. The first one is part of starting up; later ones, ever rarer, fit the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from gradwise.probes.graph import Graph, read
from gradwise.probes.sampling import FRACTION, Meter

if TYPE_CHECKING:
    from torch import Tensor

# Backward passes that an examination lasts at most: accumulation over more shows well enough in these.
_PASSES = 24
# Of the budget for all that is costly.
_SHARE = 0.2
_CREDIT = 2e-3
_GROWTH = 1.5


@dataclass(slots=True)
class Exam:
    """One backward pass under examination.

    Attributes:
        number: which examination it is part of, from 0.
        passed: which backward pass of that examination it is, from 0.
        step: steps made so far by the optimizer that made most.
        graph: of the losses, before the pass frees it; empty after.
        losses: what is differentiated.
        notes: what an examiner leaves before the pass for itself after it.
    """

    number: int
    passed: int
    step: int
    graph: Graph
    losses: Sequence[Tensor]
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def first(self) -> bool:
        """Whether it is the run's first backward pass."""
        return not self.number and not self.passed


class Examiner(Protocol):
    """Takes part in examinations; what it finds it records as events or points."""

    def before(self, exam: Exam) -> None:
        """Before the backward pass: the graph is there, gradients are what the script left."""
        ...

    def after(self, exam: Exam) -> None:
        """After it: its gradients have arrived. `exam.graph` is gone; `exam.notes` is what `before` left there."""
        ...

    def finish(self) -> None:
        """The run ends."""
        ...


class Examinations:
    """When to examine, and whom to call.

    Args:
        meter: its budget is shared.
        steps: steps made by each of the optimizers that train.
        fail: told what went wrong in an examiner.

    Attributes:
        due: the backward pass (counted from 0) from which on there is something to do.
        examiners: those taking part.
    """

    def __init__(
        self, meter: Meter, steps: Callable[[], Sequence[int]], fail: Callable[[str, Exception], None]
    ) -> None:
        self.meter, self.steps, self.fail = meter, steps, fail
        self.due = 0
        self.examiners: list[Examiner] = []
        self.number = 0
        self._exam: Exam | None = None
        self._passes = 0
        self._began: Sequence[int] = ()
        self._cost = self._spent = 0.0

    @property
    def open(self) -> bool:
        """Whether a backward pass is being examined."""
        return self._exam is not None

    @property
    def running(self) -> bool:
        """Whether an examination has begun and is not over."""
        return self._passes > 0 or self._exam is not None

    def before(self, backward: int, losses: Sequence[Tensor]) -> float:
        """Before backward pass number `backward`, which is due; returns the seconds it took."""
        began = perf_counter()
        if not self._passes:
            if not self._affordable(began):
                self.due = int(backward * _GROWTH) + 1
                return 0.0
            self._began, self._cost = tuple(self.steps()), 0.0
        self._exam = Exam(self.number, self._passes, max(self.steps(), default=0), read(losses), losses)
        self._call("before")
        self._exam.graph, self._exam.losses = Graph([], []), ()
        return self._charge(began)

    def after(self, backward: int) -> float:
        """After it, with the same number; returns the seconds it took."""
        began = perf_counter()
        self._call("after")
        self._exam = None
        self._passes += 1
        if self._passes >= _PASSES or self._went_round():
            self.number += 1
            self._passes = 0
            self.due = max(int((backward + 1) * _GROWTH), backward + 16)
        return self._charge(began)

    def finish(self) -> None:
        """The run ends."""
        for examiner in self.examiners:
            try:
                examiner.finish()
            except Exception as error:
                self.fail(type(examiner).__name__, error)

    def _call(self, method: str) -> None:
        for examiner in self.examiners:
            try:
                getattr(examiner, method)(self._exam)
            except Exception as error:
                self.fail(type(examiner).__name__, error)

    def _went_round(self) -> bool:
        """Whether each optimizer has made a step since the examination began, and one of them two."""
        now = self.steps()
        before = [*self._began, *[0] * (len(now) - len(self._began))]
        made = [b - a for a, b in zip(before, now, strict=False)]
        return bool(made) and min(made) >= 1 and max(made) >= 2

    def _affordable(self, now: float) -> bool:
        meter = self.meter
        if meter.free or not self.number:
            return True
        budget = max(FRACTION * (now - meter.began), meter.per_step * max(self.steps(), default=0))
        return self._spent + self._cost <= _SHARE * budget + _CREDIT

    def _charge(self, began: float) -> float:
        cost = perf_counter() - began
        # The very first pass, when nothing is warm yet, doesn't tell what others will cost.
        if self.number or self._passes > 1 or (self._passes and self._exam is not None):
            self._cost += cost
        if self.number:
            self._spent += cost
        return cost
