"""The reference: a rule applied to tensors by torch, any device, number type and layout."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from gradwise.optim.rules.rule import Rule
from gradwise.optim.rules.scalars import clamp, ema, penalized, soft_threshold, where


class Around(NamedTuple):
    """What is done around every rule, for one group at one step: the first coefficients of every kernel.

    Attributes:
        grad_scale: what gradients are multiplied by: unscaling, clipping by norm, and −1 to maximize.
        clip_value: the bound of each element of the gradient.
        l2: coupled weight decay λ.
        decay: what parameters are multiplied by (decoupled weight decay), 1−ηλ.
        threshold: what elements are moved towards 0 by afterwards (l1), ηλ₁.
        ema: weight of the new parameter in its average.
    """

    grad_scale: float = 1.0
    clip_value: float = math.inf
    l2: float = 0.0
    decay: float = 1.0
    threshold: float = 0.0
    ema: float = 0.0


def length(x: Tensor) -> Any:
    """‖x‖ as a number."""
    return float(x.norm())


def apply(
    rule: Rule,
    p: Tensor,
    g: Tensor,
    states: Sequence[Any],
    settings: Mapping[str, Any],
    around: Around,
    norm: Callable[[Tensor], Any] = length,
) -> tuple[Tensor, list[Any]]:
    """New parameter and states; all tensors of one real floating type; states that don't exist are None.

    Settings may be tensors that broadcast against the parameter: then each of its rows has settings of its own, and
    `norm` gives the norm of each.
    """
    g = g * around.grad_scale if _matters(around.grad_scale, 1.0) else g
    g = clamp(g, around.clip_value) if _matters(around.clip_value, math.inf) else g
    g = penalized(p, g, around.l2) if _matters(around.l2, 0.0) else g
    held = p * around.decay if _matters(around.decay, 1.0) else p
    settings = {k: settings[k] for k in rule.settings if k != "trust"}
    if rule.layerwise:
        moved, *_ = _results(rule.update(held, g, *states, **settings, trust=1.0))
        settings["trust"] = trust(norm(p), norm(moved - p), settings["lr"])
    new, *states = _results(rule.update(held, g, *states, **settings))
    return (soft_threshold(new, around.threshold) if _matters(around.threshold, 0.0) else new), states


def trust(length: Any, step: Any, lr: Any) -> Any:
    """‖p‖/‖u‖ for a step η·u; 1 where either is 0 (LAMB)."""
    known = (length > 0) & (step > 0)
    return where(known, lr * length / where(known, step, 1.0), 1.0)


def average(e: Tensor, p: Tensor, weight: float) -> None:
    """Move an average of a parameter on, in place."""
    e.copy_(ema(e, p.to(e.dtype), 1 - weight))


def _matters(value: Any, without: float) -> bool:
    return isinstance(value, Tensor) or value != without


def _results(values: Any) -> Sequence[Any]:
    return values if isinstance(values, tuple) else (values,)
