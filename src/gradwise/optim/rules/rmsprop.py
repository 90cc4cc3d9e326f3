"""RMSprop: over a decaying average of squared gradients (O7)."""

from __future__ import annotations

from typing import Any

from gradwise.optim.rules.rule import State, rule
from gradwise.optim.rules.scalars import ema, maximum, scaled, sqrt, where


@rule("square_avg", State("grad_avg", when="centered"), State("momentum_buffer", when="momentum"))
def rmsprop(
    p: Any, g: Any, v: Any, m: Any, b: Any, lr: Any, alpha: Any, eps: Any, eps_at: Any, momentum: Any, centered: Any
) -> Any:
    """S ← αS + (1−α)g²; θ ← θ − η g/(√S + ε), the ε outside the root, inside, or left out."""
    v = ema(v, g * g, alpha)
    if centered:
        m = ema(m, g, alpha)
        second = maximum(v - m * m, 0 * v)  # a variance; rounding may take it below 0
    else:
        second = v
    if eps_at == "inside":
        step = g / sqrt(second + eps)
    elif eps_at == "none":
        step = where(g == 0, g, g / sqrt(second))
    else:
        step = scaled(g, second, eps)
    if momentum:
        b = momentum * b + step
        step = b
    return p - lr * step, v, m, b
