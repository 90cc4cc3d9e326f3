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

RULES = ("sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adam", "adamw", "nadam", "radam")
_KEYS = ("optimizer", "rule", "lr", "lr_scale", "schedule", "clip_norm")


@dataclass(frozen=True, slots=True)
class Intervention:
    """A change to a training run.

    Args:
        lr: the learning rate itself, as a function of the optimizer step: whatever the script's schedulers and warm-up
            make of it. It is the first parameter group's; the others keep their ratio to it.
        rule: another update rule in place of the script's own, one of `RULES`, with torch's defaults (momentum 0.9).
        lr_scale: factor on every group's own learning rate, whatever the script's schedulers make of it.
        schedule: factor of the optimizer step laid over the script's own rate (times `lr_scale`).
        clip_norm: clip the gradient's norm over all the optimizer's parameters to this value before each step.
        optimizer: index (in order of creation) of the only optimizer to change; None changes all.
    """

    lr_scale: float | None = None
    schedule: Schedule | None = None
    clip_norm: float | None = None
    optimizer: int | None = None
    lr: Schedule | None = None
    rule: str | None = None

    def __bool__(self) -> bool:
        return any(v is not None for v in (self.lr_scale, self.schedule, self.clip_norm, self.lr, self.rule))

    def lr_factor(self, step: int) -> float:
        """The factor on the script's own rate at an optimizer step."""
        factor = 1.0 if self.lr_scale is None else self.lr_scale
        return factor if self.schedule is None else factor * self.schedule(step)

    def touches(self, optimizer: int) -> bool:
        """Whether the optimizer of that index is changed."""
        return self.optimizer is None or self.optimizer == optimizer

    def to_json(self) -> dict[str, Any]:
        """Only the keys that change something."""
        plain = {k: getattr(self, k) for k in ("optimizer", "rule", "lr_scale", "clip_norm")}
        data: dict[str, Any] = {k: v for k, v in plain.items() if v is not None}
        for key, value in (("schedule", self.schedule), ("lr", self.lr)):
            if value is not None:
                data[key] = value.to_json()
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
        rule = data.get("rule")
        if rule is not None and rule not in RULES:
            raise ValueError(f"intervention 'rule' must be one of {', '.join(RULES)}, got {rule!r}")
        if isinstance(data.get("lr"), int | float):
            raise ValueError(f"intervention 'lr' must be a schedule, as {{'constant': {{}}}}, got {data['lr']!r}")
        schedules = {key: Schedule.from_json(data[key]) for key in ("schedule", "lr") if data.get(key) is not None}
        rest: dict[str, Any] = {key: data.get(key) for key in _KEYS if key not in ("schedule", "lr")}
        return Intervention(**{**rest, **schedules})

    def describe(self) -> str:
        """A few words for a table: "lr ×0.03, clip norm 1"."""
        parts = [] if self.rule is None else [f"rule {self.rule}"]
        if self.lr is not None:
            parts.append(f"lr {self.lr!r}")
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
