"""Hand-over: whether the gradients that a step has used are still there when those of the next step are added to them.

Whoever clears them, and how (`zero_grad`, `p.grad = None`, `p.grad.data.zero_()`), the values tell: within an
examination the gradients of a few parameters are compared from a step to all the backward passes before the next one.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gradwise.probes.examinations import Exam, Examinations
from gradwise.probes.losses import Fail
from gradwise.probes.manual import Manual
from gradwise.probes.recorder import Recorder
from gradwise.probes.sampling import Meter
from gradwise.probes.steps import Steps
from gradwise.recording import signals

if TYPE_CHECKING:
    from torch import Tensor

_WITNESSES = 4
# Of a larger gradient, so many elements are read.
_ELEMENTS = 1 << 14

# Parameters, and what their gradients were.
Print = list[tuple[weakref.ref[Any], float]]


@dataclass(slots=True)
class _Since:
    """What happened since the last step of one course of training.

    Attributes:
        gradients: as they were after that step, then after each backward pass.
        cleared: whether something other than a backward pass changed them.
        passes: how many backward passes there were.
        backward: number of the last of them.
    """

    gradients: Print
    cleared: bool = False
    passes: int = 0
    backward: int = -1


class HandOver:
    """An examiner that records `signals.CARRIED`, and two events, once for each optimizer.

    "gradients-cleared": a step found none of those that came. "gradients-unused": gradients came, and there was no step
    yet after many of other optimizers.

    Some optimizers clear the gradients themselves at the end of a step, so the first event alone says nothing.

    Args:
        courses: what is trained now.
        backwards: how many backward passes there were.
    """

    def __init__(
        self,
        torch: ModuleType,
        recorder: Recorder,
        examinations: Examinations,
        courses: Callable[[], Sequence[Steps]],
        backwards: Callable[[], int],
        fail: Fail,
    ) -> None:
        self.torch, self.recorder, self.examinations = torch, recorder, examinations
        self.courses, self.backwards, self.fail = courses, backwards, fail
        self._since: dict[int, _Since] = {}
        self._arrived: set[int] = set()
        self._told: set[int] = set()
        self._waiting: set[int] = set()
        self._by_hand: tuple[int, bool] | None = None
        self._by_hand_since: Print | None = None

    @property
    def meter(self) -> Meter:
        """The budget that is charged."""
        return self.examinations.meter

    def before(self, exam: Exam) -> None:
        """See whether anything was cleared since the last pass."""
        if not exam.passed:
            self._since.clear()
            self._arrived.clear()
            self._by_hand = self._by_hand_since = None
        for since in self._since.values():
            since.cleared = since.cleared or not self._same(since.gradients)
        manual = self._manual()
        if manual is not None:
            now = self._by_hand_since
            self._by_hand = manual.steps, now is not None and self._same(now)

    def after(self, exam: Exam) -> None:
        """Take the gradients as they are now."""
        for course in self.courses():
            if isinstance(course, Manual):
                continue
            gradients = self._taken(_tensors(course))
            if gradients:
                self._arrived.add(course.index)
                if exam.number and not course.steps and course.index not in self._waiting:
                    self._waiting.add(course.index)
                    self.recorder.event("gradients-unused", exam.step, course.index)
            since = self._since.get(course.index)
            if since is not None:
                since.gradients = gradients
                since.passes += 1
                since.backward = self.backwards()
        manual = self._manual()
        if manual is not None:
            # A step by hand is noticed by the backward pass that follows it, which is the one that has just been made.
            if self._by_hand is not None and self._by_hand_since is not None and manual.steps > self._by_hand[0]:
                self._record(manual.index, manual.steps - 1, self._by_hand[1])
            self._by_hand_since = self._taken(manual.leaves)

    def finish(self) -> None:
        """Nothing is left to tell."""

    def stepped(self, index: int, steps: int) -> None:
        """A course of training has made a step: called after every one."""
        running = self.examinations.running
        if not (running or self._since or self._arrived):
            return
        began = perf_counter()
        try:
            course = next((c for c in self.courses() if c.index == index), None)
            since = self._since.pop(index, None)
            if course is None or isinstance(course, Manual) or self._capturing(course):
                return
            gradients = self._taken(_tensors(course))
            if index in self._arrived:
                self._arrived.discard(index)
                if not gradients and index not in self._told:
                    self._told.add(index)
                    self.recorder.event("gradients-cleared", steps - 1, index)
            # Only if all backward passes since were examined is it known that none found the gradients cleared.
            if since is not None and since.passes and gradients and since.backward == self.backwards():
                self._record(index, steps - 1, not since.cleared)
            if running and gradients:
                self._since[index] = _Since(gradients)
        except Exception as error:
            self.fail("hand-over", error)
        finally:
            self.meter.spent += perf_counter() - began

    def _record(self, index: int, step: int, carried: bool) -> None:
        self.recorder.point(signals.CARRIED, index, step, (float(carried),))

    def _manual(self) -> Manual | None:
        return next((c for c in self.courses() if isinstance(c, Manual)), None)

    def _capturing(self, course: Steps) -> bool:
        tensors = _tensors(course)[:1]
        return any(t.is_cuda for t in tensors) and self.torch.cuda.is_current_stream_capturing()

    def _taken(self, parameters: Sequence[Tensor]) -> Print:
        """The norms of a few gradients that are not zero: those that cost least to read."""
        held = [p for p in parameters if p.grad is not None and not p.grad.is_sparse and p.grad.numel()]
        held.sort(key=lambda p: p.numel())
        taken: Print = []
        for parameter in held[: 2 * _WITNESSES]:
            value = self._norm(parameter.grad)
            if value:
                taken.append((weakref.ref(parameter), value))
            if len(taken) == _WITNESSES:
                break
        return taken

    def _same(self, taken: Print) -> bool:
        """Whether all these gradients are what they were."""
        for reference, value in taken:
            parameter = reference()
            gradient = None if parameter is None else parameter.grad
            if gradient is None or self._norm(gradient) != value:
                return False
        return bool(taken)

    def _norm(self, gradient: Any) -> float:
        with self.torch.no_grad():
            flat = gradient.detach()
            if flat.numel() > _ELEMENTS:
                flat = flat.reshape(-1)[:: flat.numel() // _ELEMENTS]
            value = float(self.torch.linalg.vector_norm(flat))
        return value if value == value else 0.0


def _tensors(course: Steps) -> list[Any]:
    parameters = getattr(course, "parameters", None)
    return parameters() if callable(parameters) else []
