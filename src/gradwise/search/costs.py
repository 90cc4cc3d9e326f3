"""What a trial will cost, from what the watched run cost and what trials turned out to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradwise.recording.recording import Recording
from gradwise.recording.signals import TIME

# A trial makes its copy of the folder first and shares the machine with whatever else there is.
_ALLOWANCE = 1.15


@dataclass(slots=True)
class Costs:
    """Seconds of a trial: until the first step, per step, and after the last step of a run that isn't cut short."""

    startup: float
    step: float
    end: float
    slowness: float = _ALLOWANCE

    @staticmethod
    def of_run(recording: Recording, seconds: float) -> Costs:
        """The costs a run of so many seconds shows."""
        longest = max((recording.get(TIME, s) for s in recording.sources(TIME)), key=len, default=None)
        if longest is None:
            return Costs(seconds, 0.0, 0.0)
        first, last = float(longest.values[0]), float(longest.values[-1])
        step = (last - first) / max(len(longest) - 1, 1)
        # What lies between the steps (evaluations, checkpoints) is in their mean.
        return Costs(min(first, seconds), max(step, 1e-6), max(seconds - last, 0.0))

    def of(self, steps: int, whole: bool = False) -> float:
        """Seconds that a trial of so many steps takes; `whole` where it goes on to the script's own end."""
        return self.slowness * (self.startup + steps * self.step + (self.end if whole else 0.0))

    def affordable(self, seconds: float) -> int:
        """The most steps a trial of so many seconds can have."""
        return max(0, int((seconds / self.slowness - self.startup) / self.step)) if self.step else 0

    def learn(self, expected: float, seconds: float) -> None:
        """A trial that was expected to take so long took this long."""
        if expected > 0:
            self.slowness = float(np.clip(self.slowness * (0.5 + 0.5 * seconds / expected), 0.5, 20.0))
