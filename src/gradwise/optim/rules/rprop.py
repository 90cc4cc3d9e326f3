"""Rprop: steps of the gradient's sign, each element with a length of its own."""

from __future__ import annotations

from typing import Any

from gradwise.optim.rules.rule import State, View, rule
from gradwise.optim.rules.scalars import maximum, minimum, sign, where


@rule("prev", State("step_size", "lr"), view=View(rate=lambda size: size))
def rprop(p: Any, g: Any, prev: Any, size: Any, etaminus: Any, etaplus: Any, step_min: Any, step_max: Any) -> Any:
    """The length grows while the gradient keeps its sign, shrinks when that changes, and then one step is left out."""
    turn = g * prev
    size = size * where(turn > 0, etaplus + 0 * g, where(turn < 0, etaminus + 0 * g, 1 + 0 * g))
    size = minimum(maximum(size, step_min), step_max)
    g = where(turn < 0, 0 * g, g)
    return p - sign(g) * size, g, size
