"""Adadelta: decaying averages of squared gradients and of squared steps (O6)."""

from __future__ import annotations

from typing import Any

from gradwise.optim.rules.rule import rule
from gradwise.optim.rules.scalars import ema, sqrt


@rule("square_avg", "acc_delta")
def adadelta(p: Any, g: Any, v: Any, u: Any, lr: Any, rho: Any, eps: Any) -> Any:
    """V ← ρV + (1−ρ)g²; Δ = √(U+ε)/√(V+ε)·g; U ← ρU + (1−ρ)Δ²; θ ← θ − η Δ."""
    v = ema(v, g * g, rho)
    delta = sqrt(u + eps) / sqrt(v + eps) * g
    u = ema(u, delta * delta, rho)
    return p - lr * delta, v, u
