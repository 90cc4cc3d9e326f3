"""The reference: a rule applied to tensors by torch, any device, number type and layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gradwise.optim.rules.rule import Rule
from gradwise.optim.rules.scalars import ema, seen, soft_threshold


@dataclass(frozen=True)
class Around:
    """What is done around every rule, for one group at one step (names as in `kernels.cpu.AROUND`)."""

    grad_scale: float = 1.0
    clip_value: float = float("inf")
    l2: float = 0.0
    decay: float = 1.0
    threshold: float = 0.0
    ema: float = 0.0

    def row(self) -> tuple[float, ...]:
        """As coefficients of a compiled kernel."""
        return (self.grad_scale, self.clip_value, self.l2, self.decay, self.threshold, self.ema)


def apply(
    rule: Rule, p: Tensor, g: Tensor, states: Sequence[Any], settings: Mapping[str, Any], around: Around
) -> tuple[Tensor, list[Any]]:
    """New parameter and states; all tensors of one real floating type; states that don't exist are None."""
    g = seen(p, g, around.grad_scale, around.clip_value, around.l2) if around.l2 else _clamped(g, around)
    held = p * around.decay if around.decay != 1 else p
    settings = {k: settings[k] for k in rule.settings if k != "trust"}
    if rule.layerwise:
        moved, *_ = _results(rule.update(held, g, *states, **settings, trust=1.0))
        settings["trust"] = trust(float(p.norm()), float((moved - p).norm()), float(settings["lr"]))
    new, *states = _results(rule.update(held, g, *states, **settings))
    return (soft_threshold(new, around.threshold) if around.threshold else new), states


def trust(length: float, step: float, lr: float) -> float:
    """‖p‖/‖u‖ for a step η·u; 1 where either is 0 (LAMB)."""
    return lr * length / step if length > 0 and step > 0 else 1.0


def average(e: Tensor, p: Tensor, weight: float) -> None:
    """Move an average of a parameter on, in place."""
    e.copy_(ema(e, p.to(e.dtype), 1 - weight))


def _clamped(g: Tensor, around: Around) -> Tensor:
    g = g * around.grad_scale if around.grad_scale != 1 else g
    return g.clamp(-around.clip_value, around.clip_value) if around.clip_value < float("inf") else g


def _results(values: Any) -> Sequence[Any]:
    return values if isinstance(values, tuple) else (values,)
