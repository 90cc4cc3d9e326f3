"""How an optimizer is saved and loaded: as torch's of the same name, with its steps and schedules beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gradwise.schedules import Schedule


class Saving(torch.optim.Optimizer):
    """The part of an optimizer that is for checkpoints and copies."""

    master_weights: bool
    steps: int
    _schedules: list[Callable[[int], float] | None]

    def _begin(self) -> None:
        """Forget what was made of parameters and states."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with one more entry, `gradwise`: how many steps were made, and schedules as JSON."""
        saved: dict[str, Any] = super().state_dict()
        saved["gradwise"] = {"steps": self.steps, "schedules": [_as_json(s) for s in self._schedules]}
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what this class or torch's of the same name saved.

        Settings that the dict lacks stay as they are, and so does a schedule that it holds none for.
        """
        saved = dict(state_dict)
        groups = saved["param_groups"]
        if len(groups) == len(self.param_groups):
            mine = [{k: v for k, v in g.items() if k != "params"} for g in self.param_groups]
            saved["param_groups"] = [own | dict(theirs) for own, theirs in zip(mine, groups, strict=True)]
        ours = saved.pop("gradwise", None)
        super().load_state_dict(saved)
        self._restore_dtypes(state_dict)
        self._begin()
        if ours is not None:
            self.steps = int(ours["steps"])
            for i, data in enumerate(ours["schedules"]):
                if data is not None:
                    self._schedules[i] = Schedule.from_json(data)
        else:
            counted = [float(s["step"]) for s in self.state.values() if "step" in s]
            self.steps = int(max(counted, default=self.steps))

    def _restore_dtypes(self, state_dict: Mapping[str, Any]) -> None:
        """Undo a cast: torch gives every state its parameter's dtype, and master weights are wider."""
        if not self.master_weights:
            return
        indices = [k for g in state_dict["param_groups"] for k in g["params"]]
        params = [p for g in self.param_groups for p in g["params"]]
        for k, p in zip(indices, params, strict=True):
            for name, value in state_dict["state"].get(k, {}).items():
                if isinstance(value, Tensor) and value.dtype == torch.float32 and value.shape == p.shape:
                    self.state[p][name] = value.to(p.device, copy=True)

    def __getstate__(self) -> dict[str, Any]:
        kept = (
            "rule", "clip_norm", "finite_only", "telemetry", "stochastic_rounding", "master_weights", "backend",
            "steps", "skipped",
        )  # fmt: skip
        return {
            **super().__getstate__(),
            "gradwise": {k: getattr(self, k) for k in kept},
            "schedules": list(self._schedules),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        for name, value in state.pop("gradwise", {}).items():
            setattr(self, name, value)
        self._schedules = state.pop("schedules", getattr(self, "_schedules", []))
        super().__setstate__(state)
        self._begin()


def _as_json(schedule: Any) -> Any:
    """A schedule as data; None for one with Python code in it, which the program itself has to bring along."""
    try:
        return schedule.to_json() if isinstance(schedule, Schedule) else None
    except TypeError:
        return None
