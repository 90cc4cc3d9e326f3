"""Optimizers that keep an average of where they have been."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import Tensor

from gradwise.optim.optimizer import Optimizer, Options, Schedulable
from gradwise.optim.rules.averaged import asgd, schedule_free


class ASGD(Optimizer):
    r"""Averaged SGD: steps that shrink, and the average of the weights from step t₀ on.

    θ ← (1 − λη_t)θ − η_t g; ax ← ax + μ_t(θ − ax); η_t = η/(1 + λ η t)^α; μ_t = 1/max(1, t − t₀). The average is
    `optimizer.state[p]["ax"]`.

    Args:
        params: parameters or groups of them.
        lr: rate η; a number, a tensor of one, or a schedule.
        lambd: λ.
        alpha: α.
        t0: t₀, in steps.
        weight_decay: λ, added to the gradient as λθ: the gradient of ½λ‖θ‖².
        maximize: ascend.
        foreach, differentiable, capturable: torch's; kept so that state dicts carry them.
        options: what every optimizer here takes: `clip_norm, clip_value, l1, ema, finite_only, telemetry, …`.

    Raises:
        ValueError: for a setting out of range.

    >>> import torch, gradwise.optim
    >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = gradwise.optim.ASGD([w], lr=0.1)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     w.square().sum().backward()
    ...     optimizer.step()
    >>> bool(w.abs().max() < 0.1)
    True

    Source: Polyak & Juditsky (1992); Bottou (2010) for the decay.
    """

    def __init__(
        self,
        params: Any,
        lr: Schedulable = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, asgd, defaults, **options)


class _ScheduleFree(Optimizer):
    """What the schedule-free optimizers share: two places that a parameter can be at."""

    training = True

    def check(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError where a setting of the group is out of range."""
        super().check(group)
        if not 0 < group["betas"][0] < 1:
            raise ValueError(f"Momentum must be between 0 and 1 exclusive: {group['betas'][0]}")

    def train(self) -> None:
        """Move parameters to y, where gradients are taken. New optimizers are there."""
        self._move(True)

    def eval(self) -> None:
        """Move parameters to x, the average, which is the model: for validation and for saving it."""
        self._move(False)

    def _move(self, training: bool) -> None:
        if training == self.training:
            return
        with torch.no_grad():
            for group in self.param_groups:
                beta = group["betas"][0]
                for p in group["params"]:
                    if "z" in self.state.get(p, ()):
                        p.lerp_(self.state[p]["z"].to(p.dtype), 1 - beta if training else 1 - 1 / beta)
        self.training = training

    def _step(self) -> None:
        if not self.training:
            raise RuntimeError(f"{type(self).__name__}.step() after eval(): call train() first, and before backward")
        super()._step()

    def _make_state(self, p: Tensor, k: int, settings: Mapping[str, Any], *rest: Any) -> bool:
        fresh = super()._make_state(p, k, settings, *rest)
        if fresh:
            self.state[p]["z"].copy_(p)
        return fresh


class ScheduleFreeSGD(_ScheduleFree):
    r"""SGD that needs no schedule: an average takes its place.

    Gradients are taken at y = (1−β)z + βx; z ← z − η(g + λy); x ← x + c(z − x), c = w_t/Σw, w_t = tʳ·(max η)^p. The
    parameters hold y; call `optimizer.eval()` before validating or saving, which puts x there, and `optimizer.train()`
    before going on.

    Args:
        params: parameters or groups of them.
        lr: rate η, larger than one would begin a schedule with; a number, a tensor of one, or a schedule.
        momentum: β.
        weight_decay: λ, at y.
        warmup_steps: η rises linearly over this many steps.
        r: power of the step in the average's weights.
        weight_lr_power: power p of the rate in them.
        maximize: ascend.
        options: what every optimizer here takes: `clip_norm, clip_value, l1, ema, finite_only, telemetry, …`.

    Raises:
        ValueError: for a setting out of range.

    >>> import torch, gradwise.optim
    >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = gradwise.optim.ScheduleFreeSGD([w], lr=0.5)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     w.square().sum().backward()
    ...     optimizer.step()
    >>> optimizer.eval()
    >>> bool(w.abs().max() < 0.1)
    True

    Source: Defazio et al. (2024), equations 3 to 5, in the form of their package.
    """

    def __init__(
        self,
        params: Any,
        lr: Schedulable = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        *,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr, "betas": (momentum, 0.0), "eps": 0.0, "weight_decay": weight_decay, "warmup_steps": warmup_steps,
            "r": r, "weight_lr_power": weight_lr_power, "maximize": maximize, "adaptive": False,
        }  # fmt: skip
        super().__init__(params, schedule_free, defaults, **options)


class ScheduleFreeAdamW(_ScheduleFree):
    r"""AdamW that needs no schedule: an average takes its place.

    As `ScheduleFreeSGD`, with steps g/(√v̂ + ε) + λy. Call `optimizer.eval()` before validating or saving, and
    `optimizer.train()` before going on.

    Args:
        params: parameters or groups of them.
        lr: rate η; a number, a tensor of one, or a schedule.
        betas: β of the interpolation, and β₂ of the average of g².
        eps: ε, added to √v̂.
        weight_decay: λ, at y.
        warmup_steps: η rises linearly over this many steps.
        r: power of the step in the average's weights.
        weight_lr_power: power of the rate in them.
        maximize: ascend.
        options: what every optimizer here takes: `clip_norm, clip_value, l1, ema, finite_only, telemetry, …`.

    Raises:
        ValueError: for a setting out of range.

    >>> import torch, gradwise.optim
    >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = gradwise.optim.ScheduleFreeAdamW([w], lr=0.1)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     w.square().sum().backward()
    ...     optimizer.step()
    >>> optimizer.eval()
    >>> bool(w.abs().max() < 0.1)
    True

    Source: Defazio et al. (2024), algorithm 1.
    """

    def __init__(
        self,
        params: Any,
        lr: Schedulable = 0.0025,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        *,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "warmup_steps": warmup_steps,
            "r": r, "weight_lr_power": weight_lr_power, "maximize": maximize, "adaptive": True,
        }  # fmt: skip
        super().__init__(params, schedule_free, defaults, **options)
