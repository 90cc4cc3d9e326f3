"""When the costly probes run: on fixed step numbers, so that recordings repeat, thinned until they fit the budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

FRACTION = 0.02
PER_STEP = 30e-6
# What a step's hooks cost before and after they read the clock, and in the caches: not measured, so room is left.
_UNSEEN = 10e-6
_CREDIT = 1e-3
_SHARE = 0.45
_PERIOD = 8
# Beyond this it is not a busy processor that held things up.
_SLOWEST = 16.0
# What is believed of a look's cost fades while none is made: one dear look must not end all looking.
_FORGET = 0.97
FIRST = (2, 4)


def due(step: int, thinning: int = 0) -> bool:
    """Whether the costly probes look at `step`: 0, 2, 4, then every 8th, later 64 to 128 times per doubling of the run.

    `thinning` halves the rate that many times. The grids are nested: a thinner recording holds a subset of the steps
    of a denser one.
    """
    return step % (_period(step) << thinning) == 0 or step in FIRST


def next_due(step: int) -> int:
    """The first step after `step` that is due."""
    if step < FIRST[-1]:
        return next(first for first in FIRST if first > step)
    period = _period(step + 1)
    return (step // period + 1) * period


def _period(step: int) -> int:
    return max(_PERIOD, 1 << max(0, step.bit_length() - 7))


@dataclass(slots=True)
class Meter:
    """What gradwise costs inside the training loop, and whether a costly look still fits the budget.

    The budget is 2 % of the loop's time or 30 µs a step, whichever is larger. `spent` adds up what each hook
    measures of itself, `looks` the part of it that looks took. With `free` there is no budget (trials).

    The 30 µs are meant of the processor: on a busy machine, where all takes longer, they take longer as well, or a
    short run would be looked at hardly ever. By how much, looks tell that were held up themselves.
    """

    free: bool = False
    spent: float = 0.0
    looks: float = 0.0
    steps: int = 0
    thinning: int = 0
    began: float = 0.0
    last: float = 0.0
    look_cost: float = 0.0
    _clock: float = 0.0
    _processor: float = 0.0

    def held_up(self, clock: float, processor: float) -> None:
        """Something that only computes took so many seconds by the clock and of the processor."""
        self._clock += clock
        self._processor += processor

    @property
    def slowness(self) -> float:
        """How many times longer everything takes, since others want the processor too."""
        if self._processor <= 0:
            return 1.0
        return min(max(self._clock / self._processor, 1.0), _SLOWEST)

    @property
    def per_step(self) -> float:
        """What a step may cost however short it is, in seconds by the clock."""
        return PER_STEP * self.slowness

    def affords(self, step: int, now: float) -> bool:
        """Whether a look at `step` is due and fits the budget, at a rate that can be kept up."""
        if not due(step):
            return False
        if self.free or not self.steps:
            return True
        unseen = _UNSEEN * self.slowness * self.steps
        budget = max(FRACTION * (now - self.began), self.per_step * self.steps) - unseen
        if step in FIRST and self.looks <= budget + _CREDIT:
            return True  # these tell what a look costs once everything is warm
        # What the cost of every step leaves over, and a share in any case: a recording without looks says little.
        left = max(budget - (self.spent - self.looks), _SHARE * budget)
        self.thinning = math.ceil(math.log2(max(self.look_cost * self.steps / left / _period(step), 1.0)))
        if due(step, self.thinning) and self.looks + self.look_cost <= left + _CREDIT:
            return True
        self.look_cost *= _FORGET
        return False

    def looked(self, cost: float) -> None:
        """A look took `cost` seconds: the cheapest of late is what the next will cost, hiccups of the machine aside."""
        self.look_cost = min(cost, 1.5 * self.look_cost) if self.look_cost else cost

    @property
    def loop_seconds(self) -> float:
        """Seconds between the first and the last step."""
        return max(self.last - self.began, 0.0)

    @property
    def fraction(self) -> float:
        """Share of the training loop's time spent in gradwise."""
        return self.spent / self.loop_seconds if self.loop_seconds > 0 else 0.0
