"""A group's settings: which values they may have, and what they are when a step is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from gradwise.optim.kernels.reference import Around

PAIRS = {"betas": ("beta1", "beta2"), "etas": ("etaminus", "etaplus"), "step_sizes": ("step_min", "step_max")}
_RANGES = {
    "lr": (0, math.inf, "learning rate"),
    "eps": (0, math.inf, "epsilon value"),
    "weight_decay": (0, math.inf, "weight_decay value"),
    "momentum": (0, math.inf, "momentum value"),
    "lr_decay": (0, math.inf, "lr_decay value"),
    "initial_accumulator_value": (0, math.inf, "initial_accumulator_value value"),
    "rho": (0, 1, "rho value"),
    "alpha": (0, math.inf, "alpha value"),
    "momentum_decay": (0, math.inf, "momentum_decay value"),
    "l1": (0, math.inf, "l1 value"),
}
AROUND = ("lr", "weight_decay", "decoupled_weight_decay", "maximize", "clip_value", "l1", "ema")


@dataclass
class Settled:
    """A group's settings as they are in use.

    Attributes:
        values: as the group holds them.
        given: as the rule names them; those that are tensors still are.
        decays: whether weight decay belongs to the rule.
        wanted: those on which it depends how tensors are batched.
    """

    values: list[Any]
    given: dict[str, Any]
    decays: bool
    wanted: tuple[bool, ...]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """As numbers."""
        return {k: float(v) if isinstance(v, Tensor) else v for k, v in self.given.items()}

    @cached_property
    def around(self) -> Around:
        """What is done around the rule."""
        return around(self.settings, self.decays)

    @cached_property
    def there(self) -> tuple[dict[str, Any], Around]:
        """Both for a device, on which tensors are not read until the step runs."""
        given = {k: v.double().reshape(()) if isinstance(v, Tensor) else v for k, v in self.given.items()}
        return given, around(given, self.decays)


def check(group: Mapping[str, Any]) -> None:
    """Raise ValueError where a setting of the group is out of range."""
    rate = group["lr"]
    if isinstance(rate, Tensor) and rate.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    for name, (low, high, what) in _RANGES.items():
        value = group.get(name)
        if value is not None and not low <= value <= high:
            raise ValueError(f"Invalid {what}: {value}")
    betas = group.get("betas", ())
    if len({isinstance(b, Tensor) for b in betas}) > 1:
        raise ValueError("betas must be either both floats or both Tensors")
    for i, beta in enumerate(betas):
        if isinstance(beta, Tensor) and group.get("foreach") and not group.get("capturable", True):
            raise ValueError(f"betas[{i}] as a Tensor is not supported for capturable=False and foreach=True")
        if isinstance(beta, Tensor) and beta.numel() != 1:
            raise ValueError(f"Tensor betas[{i}] must be 1-element")
        if not 0 <= beta < 1:
            raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
    if group.get("clip_value") is not None and not group["clip_value"] > 0:
        raise ValueError(f"Invalid clip_value value: {group['clip_value']}")
    if group.get("ema") is not None and not 0 <= group["ema"] < 1:
        raise ValueError(f"Invalid ema value: {group['ema']} (a decay below 1, such as 0.999)")
    if group.get("fused") and group.get("foreach"):
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
    if isinstance(rate, Tensor) and group.get("foreach") and not group.get("capturable", True):
        raise ValueError("lr as a Tensor is not supported for capturable=False and foreach=True")
    if group.get("differentiable"):
        raise ValueError("differentiable=True: steps here are compiled, autograd can't see them; use torch.optim")


def around(settings: Mapping[str, Any], decays: bool) -> Around:
    """What settings mean around a rule; `decays` where weight decay is the rule's own matter."""
    get = settings.get
    lr, decay, decoupled = settings["lr"], get("weight_decay", 0.0), get("decoupled_weight_decay", False)
    clip, average = get("clip_value"), get("ema")
    if decays:
        decay = 0.0
    return Around(
        -1.0 if get("maximize") else 1.0,
        math.inf if clip is None else clip,
        0.0 if decoupled else decay,
        1 - lr * decay if decoupled else 1.0,
        lr * get("l1", 0.0),
        0.0 if average is None else 1 - average,
    )
