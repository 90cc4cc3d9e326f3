"""Rules that step along one sequence and keep an average of it (ASGD, schedule-free)."""

from __future__ import annotations

from typing import Any

from gradwise.optim.rules.rule import State, View, rule
from gradwise.optim.rules.scalars import ema, maximum, minimum, scaled, unbiased, where


@rule(State("eta", "lr", scalar=True), State("mu", 1.0, scalar=True), "ax", view=View(rate=lambda eta: eta))
def asgd(p: Any, g: Any, eta: Any, mu: Any, ax: Any, lr: Any, lambd: Any, alpha: Any, t0: Any, t: Any) -> Any:
    """θ ← (1 − λη_t)θ − η_t g, and the average ax of θ from step t₀ on."""
    p = (1 - lambd * eta) * p - eta * g
    ax = ax + mu * (p - ax)
    eta = lr / (1 + lambd * lr * t) ** alpha
    mu = 1 / maximum(1.0, t - t0)
    return p, eta, mu, ax


def warmed(lr: Any, t: Any, warmup_steps: Any) -> Any:
    """η, rising linearly over the first steps."""
    return lr * minimum(1.0, t / maximum(1.0, warmup_steps))


SEEN = View(
    second=lambda v, beta2, adaptive, t: unbiased(v, beta2, t) if adaptive else None,
    rate=lambda second, lr, eps, warmup_steps, t: (
        warmed(lr, t, warmup_steps) * (1.0 if second is None else scaled(1.0, second, eps))
    ),
    windows={"second": "beta2"},
)


@rule(
    State("lr_max", 0.0, scalar=True),
    State("weight_sum", 0.0, scalar=True),
    "z",
    State("exp_avg_sq", when="adaptive"),
    decays=True,
    view=SEEN,
)
def schedule_free(
    y: Any, g: Any, lr_max: Any, weight_sum: Any, z: Any, v: Any, lr: Any, beta1: Any, beta2: Any, eps: Any,
    weight_decay: Any, warmup_steps: Any, r: Any, weight_lr_power: Any, adaptive: Any, t: Any,
) -> Any:  # fmt: skip
    """Gradients at y = (1−β)z + βx; z ← z − η g; x is the average of z, weighted by η."""
    rate = warmed(lr, t, warmup_steps)
    lr_max = maximum(lr_max, rate)
    weight = t**r * lr_max**weight_lr_power
    weight_sum = weight_sum + weight
    share = where(weight_sum == 0, 0.0, weight / where(weight_sum == 0, 1.0, weight_sum))
    if adaptive:
        v = ema(v, g * g, beta2)
        step = scaled(g, unbiased(v, beta2, t), eps) + weight_decay * y
    else:
        step = g + weight_decay * y
    y = y + share * (z - y) + rate * (beta1 * (1 - share) - 1) * step
    return y, lr_max, weight_sum, z - rate * step, v
