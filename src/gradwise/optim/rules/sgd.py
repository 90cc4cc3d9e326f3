"""Gradient descent, with and without momentum (O1, O2, O3)."""

from __future__ import annotations

from typing import Any

from gradwise.optim.rules.rule import State, View, rule
from gradwise.optim.rules.scalars import where


@rule(
    State("momentum_buffer", when="momentum"),
    counts=False,
    view=View(lambda b, momentum: b if momentum else None, windows={"first": "momentum"}),
)
def sgd(
    p: Any, g: Any, b: Any, lr: Any, momentum: Any, dampening: Any, nesterov: Any, convention: Any, first: Any
) -> Any:
    """θ ← θ − η g, or along a buffer of past gradients."""
    rate = lr
    if momentum:
        if convention == "torch":
            enters = where(first, 1.0, 1 - dampening)
        elif convention == "keras":
            enters = lr
            rate = 1.0
        else:
            enters = 1 - momentum
        b = momentum * b + enters * g
        step = enters * g + momentum * b if nesterov else b
    else:
        step = g
    return p - rate * step, b
