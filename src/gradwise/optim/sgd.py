"""Gradient descent with and without momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from gradwise.optim.optimizer import Optimizer, Options, Schedulable
from gradwise.optim.rules.sgd import sgd

CONVENTIONS = ("torch", "keras", "ema")


class SGD(Optimizer):
    r"""Stochastic gradient descent, optionally with momentum.

    Without momentum, θ ← θ − η g. With it, there are three conventions of what the buffer holds, which agree (up to a
    constant factor of η) while η is constant and part once it is scheduled:

    - "torch" (default): b ← μ b + (1−τ) g, θ ← θ − η b; the first gradient enters undamped. A change of η acts on all
      of the buffer at once.
    - "keras" (also D1's): b ← μ b + η g, θ ← θ − b. Each gradient keeps the η it came under.
    - "ema": b ← μ b + (1−μ) g, θ ← θ − η b. An average: the same η means a 1/(1−μ) times smaller step.

    `nesterov=True` steps along the look-ahead, g + μ b in place of b (ηg + μb; (1−μ)g + μb).

    Args:
        params: parameters or groups of them.
        lr: rate η; a number, a tensor of one, or a schedule.
        momentum: μ.
        dampening: τ, with "torch" only.
        weight_decay: λ, added to the gradient as λθ: the gradient of ½λ‖θ‖².
        nesterov: look ahead; needs momentum and no dampening.
        maximize: ascend.
        foreach, fused, differentiable: torch's; kept so that state dicts carry them. The step here is fused anyway.
        convention: "torch", "keras" or "ema".
        options: what every optimizer here takes: `clip_norm, clip_value, l1, ema, finite_only, telemetry, …`.

    Raises:
        ValueError: for a setting out of range.

    >>> import torch, gradwise.optim
    >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = gradwise.optim.SGD([w], lr=0.1, momentum=0.9)
    >>> for _ in range(100):
    ...     optimizer.zero_grad()
    ...     w.square().sum().backward()
    ...     optimizer.step()
    >>> bool(w.abs().max() < 0.1)
    True

    Source: Polyak (1964); Nesterov (1983); Sutskever et al. (2013) for the form with a buffer.
    """

    sparse = True

    def __init__(
        self,
        params: Any,
        lr: Schedulable = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        convention: str = "torch",
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov,
            "maximize": maximize, "foreach": foreach, "differentiable": differentiable, "fused": fused,
            "convention": convention,
        }  # fmt: skip
        super().__init__(params, sgd, defaults, **options)

    def check(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError where a setting of the group is out of range."""
        super().check(group)
        if group["convention"] not in CONVENTIONS:
            raise ValueError(f"Invalid convention: {group['convention']!r} (one of {', '.join(CONVENTIONS)})")
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        if group["dampening"] and group["convention"] != "torch":
            raise ValueError(f"dampening is torch's; the convention {group['convention']!r} has none")
