"""Schedules: a dimensionless factor as a pure function of the step.

`factor = schedule(step)` for an int (a float comes back) or an integer array (an array comes back). 1 means the
parameter group's own rate. A schedule is frozen, hashable, prints as the code that makes it and round-trips through
JSON. There is no hidden counter: to resume is to remember one integer. `attach` puts schedules on any optimizer.

    >>> from gradwise.schedules import Schedule, constant, cosine
    >>> s = constant(1.0, steps=100) >> cosine(300, end=0.01)
    >>> s(0), s(100), round(s(400), 4)
    (1.0, 1.0, 0.01)
    >>> Schedule.from_json(s.to_json()) == s
    True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gradwise.schedules.cycles import cyclical, one_cycle, one_cycle_momentum, sgdr, warmup
from gradwise.schedules.decays import (
    constant,
    cosine,
    exponential,
    function,
    inverse_time,
    multi_step,
    natural_exponential,
    polynomial,
    square_root,
    step,
)
from gradwise.schedules.plateau import Plateau, PlateauState, reduce_on_plateau
from gradwise.schedules.recipes import rule_of_thumb, warmup_stable_decay
from gradwise.schedules.schedule import Schedule

if TYPE_CHECKING:
    from gradwise.schedules.adapter import PlateauLR, ScheduledLR, attach

__all__ = [
    "Plateau",
    "PlateauLR",
    "PlateauState",
    "Schedule",
    "ScheduledLR",
    "attach",
    "constant",
    "cosine",
    "cyclical",
    "exponential",
    "function",
    "inverse_time",
    "multi_step",
    "natural_exponential",
    "one_cycle",
    "one_cycle_momentum",
    "polynomial",
    "reduce_on_plateau",
    "rule_of_thumb",
    "sgdr",
    "square_root",
    "step",
    "warmup",
    "warmup_stable_decay",
]


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is used."""
    if name in ("attach", "ScheduledLR", "PlateauLR"):
        return getattr(import_module("gradwise.schedules.adapter"), name)
    raise AttributeError(f"module 'gradwise.schedules' has no attribute {name!r}")
