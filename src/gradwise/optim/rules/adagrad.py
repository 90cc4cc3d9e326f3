"""Adagrad: the rate of each element falls with all gradients it has seen (O4, O5)."""

from __future__ import annotations

from typing import Any

from gradwise.optim.rules.rule import State, View, rule
from gradwise.optim.rules.scalars import scaled, where


def annealed(lr: Any, lr_decay: Any, t: Any) -> Any:
    """η/(1 + (t−1)·lr_decay)."""
    return lr / (1 + (t - 1) * lr_decay)


SEEN = View(
    second=lambda v: v,
    rate=lambda second, lr, lr_decay, eps, t: annealed(lr, lr_decay, t) * scaled(1.0, second, eps),
)


@rule(State("sum", "initial_accumulator_value"), view=SEEN)
def adagrad(p: Any, g: Any, v: Any, lr: Any, lr_decay: Any, eps: Any, accumulator: Any, t: Any) -> Any:
    """V ← V + g² (or the mean of all g² so far); θ ← θ − η g/(√V + ε)."""
    v = v + (g * g - v) / t if accumulator == "mean" else v + g * g
    rate = annealed(lr, lr_decay, t)
    # Without an ε an element that has had no gradient yet would be moved by 0/0.
    return p - rate * where(g == 0, 0 * g, scaled(g, v, eps)), v
