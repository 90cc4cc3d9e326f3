"""Rules that give each element a rate of its own by its gradients so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import torch

from gradwise.optim.optimizer import Optimizer, Options, Schedulable
from gradwise.optim.rules.adadelta import adadelta
from gradwise.optim.rules.adagrad import adagrad
from gradwise.optim.rules.rmsprop import rmsprop
from gradwise.optim.rules.rprop import rprop
from gradwise.optim.states import scalar_dtype


class Adagrad(Optimizer):
    r"""Adagrad: rates fall with the sum of squared gradients.

    V ← V + g²; θ ← θ − η/(1 + (t−1)·lr_decay) · g/(√V + ε). With `accumulator="mean"` it is D1's root mean square of
    all gradients so far, V ← V + (g² − V)/t (set `eps=0` for its exact form): rates don't fall then.

    torch's ε stands outside the root and V begins at 0; Keras and Optax begin at 0.1 with 1e-7 inside.

    Args:
        params: parameters or groups of them.
        lr: rate η; a number, a tensor of one, or a schedule.
        lr_decay: how fast η itself falls.
        weight_decay: λ, added to the gradient as λθ: the gradient of ½λ‖θ‖².
        initial_accumulator_value: what V begins with.
        eps: ε.
        accumulator: "sum" or "mean" of squares.
        maximize: ascend.
        foreach, differentiable, fused: torch's; kept so that state dicts carry them.
        options: what every optimizer here takes: `clip_norm, clip_value, l1, ema, finite_only, telemetry, …`.

    Raises:
        ValueError: for a setting out of range.

    >>> import torch, gradwise.optim
    >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = gradwise.optim.Adagrad([w], lr=0.5)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     w.square().sum().backward()
    ...     optimizer.step()
    >>> bool(w.abs().max() < 0.1)
    True

    Source: Duchi, Hazan & Singer (2011), section 1.1.
    """

    sparse = True

    def __init__(
        self,
        params: Any,
        lr: Schedulable = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        accumulator: str = "sum",
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "fused": fused, "accumulator": accumulator,
        }  # fmt: skip
        super().__init__(params, adagrad, defaults, **options)
        for group in self.param_groups:  # torch makes Adagrad's state at once
            settings = self.settings(group)
            for p in group["params"]:
                self.state[p]["step"] = torch.tensor(0.0, dtype=scalar_dtype())
                self.state[p]["sum"] = self._tensor(p, settings["initial_accumulator_value"])

    def check(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError where a setting of the group is out of range."""
        super().check(group)
        if group["accumulator"] not in ("sum", "mean"):
            raise ValueError(f"Invalid accumulator: {group['accumulator']!r} ('sum' or 'mean')")


class Adadelta(Optimizer):
    r"""Adadelta: decaying averages of squared gradients and of squared steps.

    V ← ρV + (1−ρ)g²; Δ = √(U+ε)/√(V+ε)·g; U ← ρU + (1−ρ)Δ²; θ ← θ − η Δ. Δ has the units of θ, which RMSprop's step
    hasn't: the two are not the same formula, whatever is sometimes said.

    Args:
        params: parameters or groups of them.
        lr: rate η; a number, a tensor of one, or a schedule.
        rho: ρ.
        eps: ε, inside both roots; it also sets how long the first steps are.
        weight_decay: λ, added to the gradient as λθ: the gradient of ½λ‖θ‖².
        maximize: ascend.
        foreach, differentiable, capturable: torch's; kept so that state dicts carry them.
        options: what every optimizer here takes: `clip_norm, clip_value, l1, ema, finite_only, telemetry, …`.

    Raises:
        ValueError: for a setting out of range.

    >>> import torch, gradwise.optim
    >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = gradwise.optim.Adadelta([w], lr=20.0)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     w.square().sum().backward()
    ...     optimizer.step()
    >>> bool(w.abs().max() < 0.1)
    True

    Source: Zeiler (2012), algorithm 1.
    """

    def __init__(
        self,
        params: Any,
        lr: Schedulable = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "capturable": capturable, "foreach": foreach, "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, adadelta, defaults, **options)


class RMSprop(Optimizer):
    r"""RMSprop: gradients over a decaying root mean square of themselves.

    S ← αS + (1−α)g²; θ ← θ − η g/(√S + ε). `eps_at` says where ε stands: "outside" the root (torch, D3), "inside",
    g/√(S+ε) (Keras, D4), or "none" (D1). `centered=True` divides by the standard deviation, √(S − ḡ²), here never below
    0. With momentum b ← μb + g/(√S+ε); θ ← θ − η b.

    torch's α is 0.99; Keras', Optax' and Hinton's 0.9, and Hinton's η is 0.001.

    Args:
        params: parameters or groups of them.
        lr: rate η; a number, a tensor of one, or a schedule.
        alpha: α, the decay of the average.
        eps: ε.
        weight_decay: λ, added to the gradient as λθ: the gradient of ½λ‖θ‖².
        momentum: μ.
        centered: subtract the squared average gradient.
        eps_at: "outside", "inside" or "none".
        maximize: ascend.
        foreach, differentiable, capturable: torch's; kept so that state dicts carry them.
        options: what every optimizer here takes: `clip_norm, clip_value, l1, ema, finite_only, telemetry, …`.

    Raises:
        ValueError: for a setting out of range.

    >>> import torch, gradwise.optim
    >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = gradwise.optim.RMSprop([w], lr=0.01)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     w.square().sum().backward()
    ...     optimizer.step()
    >>> bool(w.abs().max() < 0.1)
    True

    Source: Tieleman & Hinton (2012), lecture 6.5; Graves (2013) for the centred form.
    """

    def __init__(
        self,
        params: Any,
        lr: Schedulable = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        eps_at: str = "outside",
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
            "weight_decay": weight_decay, "capturable": capturable, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "eps_at": eps_at,
        }  # fmt: skip
        super().__init__(params, rmsprop, defaults, **options)

    def check(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError where a setting of the group is out of range."""
        super().check(group)
        if group["eps_at"] not in ("outside", "inside", "none"):
            raise ValueError(f"Invalid eps_at: {group['eps_at']!r} ('outside', 'inside' or 'none')")


class Rprop(Optimizer):
    r"""Rprop: steps by the sign of the gradient, each element with a length of its own.

    While the gradient keeps its sign the length grows by η₊; when that changes it shrinks by η₋ and the element stays
    for one step; θ ← θ − sign(g)·length. For full batches: a noisy sign shrinks every length.

    Args:
        params: parameters or groups of them.
        lr: rate η; a number, a tensor of one, or a schedule.
        etas: η₋ and η₊.
        step_sizes: shortest and longest step; `lr` is the first.
        maximize: ascend.
        foreach, differentiable, capturable: torch's; kept so that state dicts carry them.
        options: what every optimizer here takes: `clip_norm, clip_value, l1, ema, finite_only, telemetry, …`.

    Raises:
        ValueError: for a setting out of range.

    >>> import torch, gradwise.optim
    >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = gradwise.optim.Rprop([w], lr=0.01)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     w.square().sum().backward()
    ...     optimizer.step()
    >>> bool(w.abs().max() < 0.1)
    True

    Source: Riedmiller & Braun (1993).
    """

    def __init__(
        self,
        params: Any,
        lr: Schedulable = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr, "etas": etas, "step_sizes": step_sizes, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, rprop, defaults, **options)

    def check(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError where a setting of the group is out of range."""
        super().check(group)
        low, high = group["etas"]
        if not 0 < low < 1 < high:
            raise ValueError(f"Invalid eta values: {low}, {high}")
