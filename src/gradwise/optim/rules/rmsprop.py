"""RMSprop: over a decaying average of squared gradients (O7)."""

from __future__ import annotations

from typing import Any

from gradwise.optim.rules.rule import State, View, rule
from gradwise.optim.rules.scalars import ema, maximum, scaled, sqrt, where


def variance(v: Any, m: Any) -> Any:
    """Mean of squares less squared mean; rounding may take it below 0."""
    return maximum(v - m * m, 0 * v)


def rate(second: Any, lr: Any, eps: Any, eps_at: Any) -> Any:
    """What a gradient of 1 would be multiplied by, were the average to stand still (α = 1)."""
    moved, *_ = rmsprop.update(0 * second, 1 + 0 * second, second, None, None, lr, 1.0, eps, eps_at, 0, False)
    return -moved


SEEN = View(
    second=lambda v, m, centered: variance(v, m) if centered else v,
    rate=rate,
    windows={"first": "momentum", "second": "alpha"},
)


@rule("square_avg", State("grad_avg", when="centered"), State("momentum_buffer", when="momentum"), view=SEEN)
def rmsprop(
    p: Any, g: Any, v: Any, m: Any, b: Any, lr: Any, alpha: Any, eps: Any, eps_at: Any, momentum: Any, centered: Any
) -> Any:
    """S ← αS + (1−α)g²; θ ← θ − η g/(√S + ε), the ε outside the root, inside, or left out."""
    v = ema(v, g * g, alpha)
    if centered:
        m = ema(m, g, alpha)
        second = variance(v, m)
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
