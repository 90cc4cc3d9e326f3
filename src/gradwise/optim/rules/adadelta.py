"""Adadelta: decaying averages of squared gradients and of squared steps (O6)."""

from __future__ import annotations

from typing import Any

from gradwise.optim.rules.rule import View, rule
from gradwise.optim.rules.scalars import ema, sqrt


def rate(v: Any, u: Any, lr: Any, eps: Any) -> Any:
    """What a gradient of 1 would be multiplied by, were the averages to stand still (ρ = 1)."""
    return -adadelta.update(0 * v, 1 + 0 * v, v, u, lr, 1.0, eps)[0]


@rule("square_avg", "acc_delta", view=View(second=lambda v: v, rate=rate, windows={"second": "rho"}))
def adadelta(p: Any, g: Any, v: Any, u: Any, lr: Any, rho: Any, eps: Any) -> Any:
    """V ← ρV + (1−ρ)g²; Δ = √(U+ε)/√(V+ε)·g; U ← ρU + (1−ρ)Δ²; θ ← θ − η Δ."""
    v = ema(v, g * g, rho)
    delta = sqrt(u + eps) / sqrt(v + eps) * g
    u = ema(u, delta * delta, rho)
    return p - lr * delta, v, u
