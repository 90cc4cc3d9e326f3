"""Interventions: what can be changed about a training run from outside, as data (design idea 4).

An intervention can be stored, hashed, printed as advice and applied to an unmodified script (`gradwise.trials.apply`
does that). Keys that are None change nothing, so `Intervention()` is the untouched run.

    >>> Intervention(lr_scale=0.03).to_json()
    {'lr_scale': 0.03}
    >>> Intervention.from_json({"lr_scale": 0.03}) == Intervention(lr_scale=0.03)
    True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradwise.schedules import Schedule

_KEYS = ("optimizer", "lr_scale", "schedule", "clip_norm")


@dataclass(frozen=True, slots=True)
class Intervention:
    """A change to a training run.

    Args:
        lr_scale: factor on every group's own learning rate, whatever the script's schedulers make of it.
        schedule: factor of the optimizer step laid over the script's own rate (times `lr_scale`).
        clip_norm: clip the gradient's norm over all the optimizer's parameters to this value before each step.
        optimizer: index (in order of creation) of the only optimizer to change; None changes all.
    """

    lr_scale: float | None = None
    schedule: Schedule | None = None
    clip_norm: float | None = None
    optimizer: int | None = None

    def __bool__(self) -> bool:
        return any(v is not None for v in (self.lr_scale, self.schedule, self.clip_norm))

    def lr_factor(self, step: int) -> float:
        """The factor on the script's own rate at an optimizer step."""
        factor = 1.0 if self.lr_scale is None else self.lr_scale
        return factor if self.schedule is None else factor * self.schedule(step)

    def touches(self, optimizer: int) -> bool:
        """Whether the optimizer of that index is changed."""
        return self.optimizer is None or self.optimizer == optimizer

    def to_json(self) -> dict[str, Any]:
        """Only the keys that change something."""
        values = {"optimizer": self.optimizer, "lr_scale": self.lr_scale, "clip_norm": self.clip_norm}
        data: dict[str, Any] = {k: v for k, v in values.items() if v is not None}
        if self.schedule is not None:
            data["schedule"] = self.schedule.to_json()
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Intervention:
        """The intervention a JSON object describes.

        Raises:
            ValueError: naming the key that is unknown or the value that makes no sense.
        """
        unknown = sorted(set(data) - set(_KEYS))
        if unknown:
            raise ValueError(f"unknown intervention key {unknown[0]!r}; known: {', '.join(_KEYS)}")
        for key in ("lr_scale", "clip_norm"):
            value = data.get(key)
            if value is not None and not (isinstance(value, int | float) and value > 0):
                raise ValueError(f"intervention {key!r} must be a positive number, got {value!r}")
        schedule = data.get("schedule")
        return Intervention(
            lr_scale=data.get("lr_scale"),
            schedule=None if schedule is None else Schedule.from_json(schedule),
            clip_norm=data.get("clip_norm"),
            optimizer=data.get("optimizer"),
        )

    def describe(self) -> str:
        """A few words for a table: "lr ×0.03, clip norm 1"."""
        parts = []
        if self.lr_scale is not None:
            parts.append(f"lr ×{self.lr_scale:.3g}")
        if self.schedule is not None:
            held, rest = self.schedule.held()
            parts.append(f"lr × {rest!r}" + (f" from step {held} on" if held else ""))
        if self.clip_norm is not None:
            parts.append(f"clip norm {self.clip_norm:.3g}")
        if self.optimizer is not None and parts:
            parts.append(f"(optimizer {self.optimizer})")
        return ", ".join(parts) or "nothing"
