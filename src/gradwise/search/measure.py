"""What remedies are judged by: the losses in the recordings, or a number the script prints."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gradwise.diagnosis.metric import Outcome, common_metric, training
from gradwise.trials.runner import Trial


class MeasureError(Exception):
    """A metric that can't be had: why, as it stands in a remedy."""


@dataclass(frozen=True, slots=True)
class Measure:
    r"""A metric.

    Args:
        pattern: its last match in what a trial printed is the value (the first group, if there is one); None takes
            the losses from the recordings.
        maximize: whether more is better.

    >>> Measure(re.compile(r"accuracy (\S+)"), maximize=True).read("accuracy 0.1\naccuracy 0.9\n")
    0.9
    """

    pattern: re.Pattern[str] | None = None
    maximize: bool = False

    @property
    def from_recordings(self) -> bool:
        """Whether no output is needed."""
        return self.pattern is None

    def outcomes(self, trials: Sequence[Trial], source: int, steps: int | None) -> list[Outcome]:
        """How the trials ended, all by the same metric, the lower the better.

        Args:
            trials: the runs to compare.
            source: the optimizer in question.
            steps: how far all of them got; None where each ran to its own end.

        Raises:
            MeasureError: where a run that went well printed no such number.
        """
        if self.pattern is None:
            return common_metric([t.recording for t in trials], source, steps)
        return [self._printed(t, source) for t in trials]

    def read(self, output: str) -> float | None:
        """The metric in an output; None where it has none or it isn't finite.

        Raises:
            MeasureError: where the match isn't a number.
        """
        assert self.pattern is not None
        matches = list(self.pattern.finditer(output))
        if not matches:
            return None
        last = matches[-1]
        text = next((g for g in last.groups() if g is not None), last[0]).strip()
        try:
            value = float(text.removesuffix("%").replace("_", ""))
        except ValueError:
            raise MeasureError(
                f"the metric {self.pattern.pattern!r} matches {text[:40]!r}, which is no number"
            ) from None
        return value if math.isfinite(value) else None

    def shown(self, outcome: Outcome) -> float | None:
        """The value as the script has it."""
        return -outcome.value if self.maximize and outcome.value is not None else outcome.value

    def _printed(self, trial: Trial, source: int) -> Outcome:
        assert self.pattern is not None
        value = self.read(trial.output or "")
        absent = value is None and not self.pattern.search(trial.output or "")
        if absent and not training(trial.recording, source).diverged:
            raise MeasureError(f"the metric {self.pattern.pattern!r} matches nothing that a trial printed")
        return Outcome(
            self.pattern.pattern, -value if self.maximize and value is not None else value, diverged=value is None
        )


LOSSES = Measure()
"""The losses that the recordings have."""
