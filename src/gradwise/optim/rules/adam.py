"""Adam and those that are Adam but for one term (O8, O9)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gradwise.optim.rules.rule import State, View, rule
from gradwise.optim.rules.scalars import absolute, ema, maximum, scaled, sign, sqrt, unbiased, where

SEEN = View(
    lambda m, beta1, t: unbiased(m, beta1, t),
    lambda v, beta2, t: unbiased(v, beta2, t),
    lambda second, lr, eps: lr * scaled(1.0, second, eps),
    {"first": "beta1", "second": "beta2"},
)
SEEN_AMSGRAD = replace(SEEN, second=lambda v, largest, beta2, amsgrad, t: unbiased(largest if amsgrad else v, beta2, t))
SEEN_ADAMAX = replace(SEEN, second=lambda u: u * u, rate=lambda u, lr: lr / u)
SEEN_ADABELIEF = replace(SEEN, second=lambda s, beta2, t: unbiased(s, beta2, t))


@rule("exp_avg", "exp_avg_sq", State("max_exp_avg_sq", when="amsgrad"), view=SEEN_AMSGRAD)
def adam(
    p: Any, g: Any, m: Any, v: Any, largest: Any, lr: Any, beta1: Any, beta2: Any, eps: Any, amsgrad: Any, t: Any
) -> Any:
    """θ ← θ − η m̂/(√v̂ + ε); m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ)."""
    m = ema(m, g, beta1)
    v = ema(v, g * g, beta2)
    if amsgrad:
        largest = maximum(largest, v)
        second = largest
    else:
        second = v
    return p - lr * scaled(unbiased(m, beta1, t), unbiased(second, beta2, t), eps), m, v, largest


@rule("exp_avg", "exp_inf", view=SEEN_ADAMAX)
def adamax(p: Any, g: Any, m: Any, u: Any, lr: Any, beta1: Any, beta2: Any, eps: Any, t: Any) -> Any:
    """θ ← θ − η m̂/u; u ← max(β₂u, |g| + ε)."""
    m = ema(m, g, beta1)
    u = maximum(beta2 * u, absolute(g) + eps)
    return p - lr * unbiased(m, beta1, t) / u, m, u


@rule("exp_avg", "exp_var", view=SEEN_ADABELIEF)
def adabelief(p: Any, g: Any, m: Any, s: Any, lr: Any, beta1: Any, beta2: Any, eps: Any, t: Any) -> Any:
    """θ ← θ − η m̂/(√ŝ + ε); s ← β₂s + (1−β₂)(g−m)² + ε."""
    m = ema(m, g, beta1)
    s = ema(s, (g - m) * (g - m), beta2) + eps
    return p - lr * scaled(unbiased(m, beta1, t), unbiased(s, beta2, t), eps), m, s


@rule(State("mu_product", 1.0, scalar=True), "exp_avg", "exp_avg_sq", view=SEEN)
def nadam(
    p: Any, g: Any, product: Any, m: Any, v: Any, lr: Any, beta1: Any, beta2: Any, eps: Any, momentum_decay: Any, t: Any
) -> Any:
    """Adam with Nesterov's look-ahead: the first moment as it will be at the next step, under a warmed-up β₁."""
    mu = beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))
    next_mu = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * momentum_decay))
    product = product * mu
    m = ema(m, g, beta1)
    v = ema(v, g * g, beta2)
    ahead = (1 - mu) / (1 - product) * g + next_mu / (1 - product * next_mu) * m
    return p - lr * scaled(ahead, unbiased(v, beta2, t), eps), product, m, v


def radam_rate(v: Any, lr: Any, beta2: Any, eps: Any, t: Any) -> Any:
    """What a gradient as large as √v, which leaves v as it is, would be multiplied by without momentum."""
    g = sqrt(v) + 1e-18
    return -radam.update(0 * v, g, v, v, lr, 0.0, beta2, eps, t)[0] / g


@rule("exp_avg", "exp_avg_sq", view=replace(SEEN, rate=radam_rate))
def radam(p: Any, g: Any, m: Any, v: Any, lr: Any, beta1: Any, beta2: Any, eps: Any, t: Any) -> Any:
    """Adam once the variance of its denominator is bounded (ρ_t > 5), scaled down by it; momentum alone before."""
    m = ema(m, g, beta1)
    v = ema(v, g * g, beta2)
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / (1 - beta2**t)
    known = length > 5
    safe = where(known, length, 6.0)
    most = where(longest > 5, longest, 6.0)  # a short average (β₂ < 2/3) never gets there
    rectified = sqrt((safe - 4) * (safe - 2) * most / ((most - 4) * (most - 2) * safe))
    share = where(known, 1.0, 0.0)
    root = sqrt(1 - beta2**t)
    step = (1 - share) + share * rectified * root / (sqrt(v) + eps)
    return p - lr * unbiased(m, beta1, t) * step, m, v


@rule("exp_avg", counts=False, view=View(lambda m: m, windows={"first": "beta2"}))
def lion(p: Any, g: Any, m: Any, lr: Any, beta1: Any, beta2: Any) -> Any:
    """θ ← θ − η sign(β₁m + (1−β₁)g); m ← β₂m + (1−β₂)g."""
    return p - lr * sign(ema(m, g, beta1)), ema(m, g, beta2)


@rule("exp_avg", "exp_avg_sq", decays=True, view=SEEN)
def lamb(
    p: Any, g: Any, m: Any, v: Any, lr: Any, beta1: Any, beta2: Any, eps: Any, weight_decay: Any, t: Any, trust: Any
) -> Any:
    """Adam's step u = m̂/(√v̂ + ε) + λθ, each tensor's as long as the tensor itself: θ ← θ − η (‖θ‖/‖u‖) u."""
    m = ema(m, g, beta1)
    v = ema(v, g * g, beta2)
    u = scaled(unbiased(m, beta1, t), unbiased(v, beta2, t), eps) + weight_decay * p
    return p - lr * trust * u, m, v
