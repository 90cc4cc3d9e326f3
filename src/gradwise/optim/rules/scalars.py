"""The functions rules are written in: on numbers and tensors here, and under the same names in every compiled kernel.

A rule may use `+ - * / **`, comparisons, `if` on its settings, and what stands here. A helper of one `return` (like
`ema`) is put in its place wherever a rule is compiled, so that a user's own helpers work as well.
"""

from __future__ import annotations

import math
from typing import Any

import torch

PRIMITIVES = ("sqrt", "exp", "log", "absolute", "sign", "maximum", "minimum", "where")


def sqrt(x: Any) -> Any:
    """√x."""
    return torch.sqrt(x) if isinstance(x, torch.Tensor) else math.sqrt(x) if x >= 0 else math.nan


def exp(x: Any) -> Any:
    """eˣ."""
    return torch.exp(x) if isinstance(x, torch.Tensor) else math.exp(x)


def log(x: Any) -> Any:
    """Natural logarithm."""
    return torch.log(x) if isinstance(x, torch.Tensor) else math.log(x)


def absolute(x: Any) -> Any:
    """|x|."""
    return torch.abs(x) if isinstance(x, torch.Tensor) else abs(x)


def sign(x: Any) -> Any:
    """−1, 0 or 1; NaN for NaN."""
    if isinstance(x, torch.Tensor):
        return torch.where(x == x, torch.sign(x), x)
    return x if math.isnan(x) else float((x > 0) - (x < 0))


def maximum(a: Any, b: Any) -> Any:
    """The larger of both; NaN if either is."""
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return torch.maximum(*_tensors(a, b))
    return a if a != a or a > b else b


def minimum(a: Any, b: Any) -> Any:
    """The smaller of both; NaN if either is."""
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return torch.minimum(*_tensors(a, b))
    return a if a != a or a < b else b


def where(condition: Any, a: Any, b: Any) -> Any:
    """`a` where the condition holds, else `b`; both are computed."""
    return torch.where(condition, a, b) if isinstance(condition, torch.Tensor) else a if condition else b


def _tensors(a: Any, b: Any) -> tuple[torch.Tensor, torch.Tensor]:
    like = a if isinstance(a, torch.Tensor) else b
    return tuple(torch.as_tensor(x, dtype=like.dtype, device=like.device) for x in (a, b))  # type: ignore[return-value]


# What the rules have in common.


def ema(m: Any, x: Any, beta: Any) -> Any:
    """Exponential moving average, β·m + (1−β)·x."""
    return m + (1 - beta) * (x - m)


def unbiased(m: Any, beta: Any, t: Any) -> Any:
    """An average that began at 0, as if it had begun with its first values: m/(1−βᵗ) (Adam)."""
    return m / (1 - beta**t)


def scaled(first: Any, second: Any, eps: Any) -> Any:
    """First over second moment, first/(√second + ε): what all adaptive rules step by."""
    return first / (sqrt(second) + eps)


def clamp(x: Any, bound: Any) -> Any:
    """X kept within ±bound; NaN stays NaN."""
    return where(x > bound, bound, where(x < -bound, -bound, x))


def soft_threshold(x: Any, threshold: Any) -> Any:
    """What minimizes ½(y−x)² + threshold·|y|: x moved towards 0 by `threshold`, to 0 exactly where that passes it."""
    return x - clamp(x, threshold)


# Around every rule, in the same pass over memory.


def penalized(p: Any, g: Any, l2: Any) -> Any:
    """The gradient with that of ½λp² added: coupled weight decay."""
    return g + l2 * p
