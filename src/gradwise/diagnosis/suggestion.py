"""What a range test found, as data: for the terminal, the HTML page, JSON and the notebook alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gradwise.diagnosis.forecast import TRAINED
from gradwise.diagnosis.ramp import Phases
from gradwise.recording.recording import EMPTY, Floats, Series


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A learning rate, and why.

    Attributes:
        rate: the learning rate to use (of the first parameter group); None where nothing could be found.
        low, high: rates between these will do as well; NaN without a rate.
        horizon: the number of steps it is for: the best rate falls as runs grow longer.
        confirmed: whether runs at constant rates stand behind it, not the ramp alone.
        phases: what the ramp shows.
        rates, losses: the ramp, (n,) each, by rising rate.
        runs: the losses of each run at a constant rate.
        steps: all optimizer steps made for it.
        why: how it was found, in sentences.
        validation: the validation losses of the runs at constant rates, where any were evaluated.
        metric: what decided: "validation loss" or "training loss".
        inconclusive: whether no rate could be told from losses of this kind at all.
    """

    rate: float | None
    low: float
    high: float
    horizon: int
    confirmed: bool
    phases: Phases
    rates: Floats
    losses: Floats
    runs: Mapping[float, Floats] = field(default_factory=dict)
    steps: int = 0
    why: tuple[str, ...] = ()
    validation: Mapping[float, Series] = field(default_factory=dict)
    metric: str = TRAINED
    inconclusive: bool = False

    def to_json(self) -> dict[str, Any]:
        """The same as a JSON object; what isn't finite is null."""
        phases = self.phases
        return {
            "lr": self.rate,
            "interval": [_plain(self.low), _plain(self.high)],
            "horizon": self.horizon,
            "confirmed": self.confirmed,
            "metric": self.metric,
            "inconclusive": self.inconclusive,
            "steps": self.steps,
            "why": list(self.why),
            "phases": {
                **{name: _plain(getattr(phases, name)) for name in ("falls", "steepest", "lowest", "jumps")},
                "missing": list(phases.missing),
            },
            "ramp": {"lr": [_plain(r) for r in self.rates], "loss": [_plain(v) for v in self.losses]},
            "runs": [
                {"lr": rate, "loss": [_plain(v) for v in losses], "validation": self._validated(rate)}
                for rate, losses in self.runs.items()
            ],
        }

    def _validated(self, rate: float) -> list[dict[str, float | None]]:
        series = self.validation.get(rate, EMPTY)
        return [{"step": int(t), "loss": _plain(v)} for t, v in zip(series.steps, series.values, strict=True)]


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
