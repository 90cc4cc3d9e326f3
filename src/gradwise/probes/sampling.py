"""When the costly probes run: on fixed step numbers, so that recordings repeat, thinned until they fit the budget."""

from __future__ import annotations

from dataclasses import dataclass

FRACTION = 0.02
PER_STEP = 30e-6
# Twice the budget would be spent if the probes used all of it and the machine then slowed down: stay below.
_MARGIN = 0.7
_CREDIT = 5e-4


def due(step: int, thinning: int = 0) -> bool:
    """Whether the costly probes look at `step`: 0, 2, 4, then every 8th, later 64 to 128 times per doubling of the run.

    `thinning` halves the rate that many times. The grids are nested: a thinner recording holds a subset of the steps
    of a denser one.
    """
    period = max(8, 1 << max(0, step.bit_length() - 7)) << thinning
    return step % period == 0 or (step in (2, 4) and not thinning)


@dataclass(slots=True)
class Meter:
    """What gradwise costs inside the training loop, and whether a costly look still fits the budget.

    The budget is 2 % of the loop's time or 30 µs a step, whichever is larger. `spent` adds up what each hook
    measures of itself.
    """

    spent: float = 0.0
    steps: int = 0
    thinning: int = 0
    began: float = 0.0
    last: float = 0.0
    look_cost: float = 200e-6

    def affords(self, step: int, now: float) -> bool:
        """Whether a look at `step` is due and fits; where it is due and does not fit, later ones become rarer."""
        if not due(step, self.thinning):
            return False
        loop = now - self.began if self.steps else 0.0
        allowed = max(FRACTION * loop, PER_STEP * self.steps) * _MARGIN + _CREDIT
        if self.spent + self.look_cost <= allowed:
            return True
        if step > 8:
            self.thinning = min(self.thinning + 1, 24)
        return False

    def looked(self, cost: float) -> None:
        """A look took `cost` seconds: remembered as a slowly forgotten average, the first one at its worth."""
        self.look_cost += 0.3 * (cost - self.look_cost)

    @property
    def loop_seconds(self) -> float:
        """Seconds between the first and the last step."""
        return max(self.last - self.began, 0.0)

    @property
    def fraction(self) -> float:
        """Share of the training loop's time spent in gradwise."""
        return self.spent / self.loop_seconds if self.loop_seconds > 0 else 0.0
