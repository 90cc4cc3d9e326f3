"""The steps of one course of training, made by an optimizer or by hand: what is kept of every one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gradwise.probes.looks import Looks
from gradwise.probes.recorder import Channel, Recorder
from gradwise.recording import signals

if TYPE_CHECKING:
    pass

# Step, loss (None where no backward pass led to it; a tensor until it is read from its device), time.
Row = tuple[int, Any, float]


class Steps:
    """Counts steps; gathers the losses back-propagated before each.

    Attributes:
        index: the source of its signals.
        steps: how many there were.
        loss: sum of the losses pending for the next one (a tensor where reading it now would wait for a device).
        backwards: how many losses that is.
        rows: the steps not yet handed on.
        looks: the looks at its tensors; `look_next` says whether the next step is to be looked at.
    """

    __slots__ = (
        "_channels", "_count", "backwards", "index", "look_next", "looks", "loss", "next_due", "recorder", "rows",
        "steps",
    )  # fmt: skip

    def __init__(self, recorder: Recorder, index: int, names: Callable[[], Sequence[str]]) -> None:
        self.recorder, self.index = recorder, index
        self.steps = 0
        self.loss: Any = 0.0
        self.backwards = 0
        self.rows: list[Row] = []
        self.looks = Looks(recorder, index, names)
        self.look_next = True
        self.next_due = 0
        self._count = 0
        self._channels: list[Channel] = []

    def add(self, loss: Any) -> None:
        """One more backward pass whose loss leads to the next step."""
        self.loss = self.loss + loss if self.backwards else loss
        self.backwards += 1

    def claim(self, loss: Any) -> None:
        """The loss that led to the latest step has become known after it."""
        if self.rows:
            step, known, now = self.rows[-1]
            self.rows[-1] = step, loss if known is None else known, now

    def hand_on(self, rows: Sequence[Row]) -> None:
        """Record steps: their times and, where backward passes led to them, their losses."""
        times, losses = self._channels or self._declare()
        epoch = self.recorder.epoch
        times.steps.extend([step for step, _, _ in rows])
        times.values.extend([time - epoch for _, _, time in rows])
        losses.steps.extend([step for step, loss, _ in rows if loss is not None])
        losses.values.extend([loss for _, loss, _ in rows if loss is not None])

    def _declare(self) -> list[Channel]:
        self._channels = [self.recorder.channel(signal, self.index) for signal in (signals.TIME, signals.LOSS)]
        return self._channels

    def made(self, now: float) -> None:
        """A step was made, with all that was pending."""
        if count := self.backwards:
            self.rows.append((self.steps, self.loss, now))
            self.backwards = 0
            if count != self._count:
                self._count = count
                self.recorder.point(signals.BACKWARDS, self.index, self.steps, (count,))
        else:
            self.rows.append((self.steps, None, now))
        self.steps += 1
