"""Adam and its relatives."""

from __future__ import annotations

from typing import Any, Unpack

from gradwise.optim.optimizer import Optimizer, Options, Schedulable
from gradwise.optim.rules.adam import adabelief, adam, adamax, lamb, lion, nadam, radam


class Adam(Optimizer):
    r"""Adam: an average of gradients over the root of an average of their squares.

    m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; m̂ = m/(1−β₁ᵗ); v̂ = v/(1−β₂ᵗ); θ ← θ − η m̂/(√v̂ + ε). With `amsgrad` v̂ is that
    of the largest v so far (torch and Keras take the maximum before the correction, Optax after).

    ε stands outside the root, after the bias correction, as in torch and Optax; Keras adds it before (the paper's ε̂).

    Args:
        params: parameters or groups of them.
        lr: rate η; a number, a tensor of one, or a schedule.
        betas: β₁ and β₂, of the averages of g and of g².
        eps: ε, added to √v̂.
        weight_decay: λ, added to the gradient as λθ: the gradient of ½λ‖θ‖².
        amsgrad: divide by the largest v so far.
        decoupled_weight_decay: subtract ηλθ from θ instead (AdamW).
        maximize: ascend.
        foreach, capturable, differentiable, fused: torch's; kept so that state dicts carry them.
        options: what every optimizer here takes: `clip_norm, clip_value, l1, ema, finite_only, telemetry, …`.

    Raises:
        ValueError: for a setting out of range.

    >>> import torch, gradwise.optim
    >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = gradwise.optim.Adam([w], lr=0.1)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     w.square().sum().backward()
    ...     optimizer.step()
    >>> bool(w.abs().max() < 0.1)
    True

    Source: Kingma & Ba (2015), algorithm 1; Reddi, Kale & Kumar (2018) for AMSGrad.
    """

    sparse = True

    def __init__(
        self,
        params: Any,
        lr: Schedulable = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
            "maximize": maximize, "foreach": foreach, "capturable": capturable, "differentiable": differentiable,
            "fused": fused, "decoupled_weight_decay": decoupled_weight_decay,
        }  # fmt: skip
        super().__init__(params, adam, defaults, **options)


class AdamW(Adam):
    r"""Adam with decoupled weight decay: θ ← θ(1 − ηλ) − η m̂/(√v̂ + ε).

    λ doesn't pass through the division by √v̂, so all weights decay alike. As in torch and Keras, the decay is
    scaled by η.

    Args:
        params: parameters or groups of them.
        lr: rate η; a number, a tensor of one, or a schedule.
        betas: β₁ and β₂, of the averages of g and of g².
        eps: ε, added to √v̂.
        weight_decay: λ.
        amsgrad: divide by the largest v so far.
        maximize: ascend.
        foreach, capturable, differentiable, fused: torch's; kept so that state dicts carry them.
        options: what every optimizer here takes: `clip_norm, clip_value, l1, ema, finite_only, telemetry, …`.

    Raises:
        ValueError: for a setting out of range.

    >>> import torch, gradwise.optim
    >>> model = torch.nn.Linear(4, 1)
    >>> optimizer = gradwise.optim.AdamW(model.parameters(), lr=1e-3, clip_norm=1.0)
    >>> model(torch.ones(8, 4)).square().mean().backward()
    >>> optimizer.step()

    Source: Loshchilov & Hutter (2019), algorithm 2.
    """

    def __init__(
        self,
        params: Any,
        lr: Schedulable = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize, capturable=capturable,
            differentiable=differentiable, fused=fused, decoupled_weight_decay=True, **options,
        )  # fmt: skip


class Adamax(Optimizer):
    r"""Adamax: Adam with the largest recent gradient in place of the root mean square.

    m ← β₁m + (1−β₁)g; u ← max(β₂u, |g| + ε); θ ← θ − η m̂/u. As in torch and Optax ε is inside the maximum; Keras adds
    it to u.

    Args:
        params: parameters or groups of them.
        lr: rate η; a number, a tensor of one, or a schedule.
        betas: β₁ and β₂, of the averages of g and of g².
        eps: ε.
        weight_decay: λ, added to the gradient as λθ: the gradient of ½λ‖θ‖².
        maximize: ascend.
        foreach, differentiable, capturable: torch's; kept so that state dicts carry them.
        options: what every optimizer here takes: `clip_norm, clip_value, l1, ema, finite_only, telemetry, …`.

    Raises:
        ValueError: for a setting out of range.

    >>> import torch, gradwise.optim
    >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = gradwise.optim.Adamax([w], lr=0.1)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     w.square().sum().backward()
    ...     optimizer.step()
    >>> bool(w.abs().max() < 0.1)
    True

    Source: Kingma & Ba (2015), algorithm 2.
    """

    def __init__(
        self,
        params: Any,
        lr: Schedulable = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, adamax, defaults, **options)


class NAdam(Optimizer):
    r"""NAdam: Adam with Nesterov's look-ahead.

    μ_t = β₁(1 − ½·0.96^(tψ)); θ ← θ − η [ (1−μ_t)/(1−Πμ) g + μ_{t+1}/(1−Πμ·μ_{t+1}) m ] / (√v̂ + ε). ψ is
    `momentum_decay`: torch's 0.004 is the paper's; Keras' exponent is t itself (ψ = 1).

    Args:
        params: parameters or groups of them.
        lr: rate η; a number, a tensor of one, or a schedule.
        betas: β₁ and β₂, of the averages of g and of g².
        eps: ε, added to √v̂.
        weight_decay: λ, added to the gradient as λθ: the gradient of ½λ‖θ‖².
        momentum_decay: ψ.
        decoupled_weight_decay: subtract ηλθ from θ instead (AdamW).
        maximize: ascend.
        foreach, differentiable, capturable: torch's; kept so that state dicts carry them.
        options: what every optimizer here takes: `clip_norm, clip_value, l1, ema, finite_only, telemetry, …`.

    Raises:
        ValueError: for a setting out of range.

    >>> import torch, gradwise.optim
    >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = gradwise.optim.NAdam([w], lr=0.1)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     w.square().sum().backward()
    ...     optimizer.step()
    >>> bool(w.abs().max() < 0.1)
    True

    Source: Dozat (2016), algorithm 2.
    """

    def __init__(
        self,
        params: Any,
        lr: Schedulable = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, nadam, defaults, **options)


class RAdam(Optimizer):
    r"""RAdam: Adam held back while its denominator rests on few gradients.

    ρ_t = ρ_∞ − 2tβ₂ᵗ/(1−β₂ᵗ), ρ_∞ = 2/(1−β₂) − 1. Above 5, θ ← θ − η r_t m̂/(√v̂ + ε) with the rectification
    r_t = √((ρ_t−4)(ρ_t−2)ρ_∞ / ((ρ_∞−4)(ρ_∞−2)ρ_t)); until then θ ← θ − η m̂. As in torch ε is added to √v before
    the correction.

    Args:
        params: parameters or groups of them.
        lr: rate η; a number, a tensor of one, or a schedule.
        betas: β₁ and β₂, of the averages of g and of g².
        eps: ε, added to √v̂.
        weight_decay: λ, added to the gradient as λθ: the gradient of ½λ‖θ‖².
        decoupled_weight_decay: subtract ηλθ from θ instead (AdamW).
        maximize: ascend.
        foreach, differentiable, capturable: torch's; kept so that state dicts carry them.
        options: what every optimizer here takes: `clip_norm, clip_value, l1, ema, finite_only, telemetry, …`.

    Raises:
        ValueError: for a setting out of range.

    >>> import torch, gradwise.optim
    >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = gradwise.optim.RAdam([w], lr=0.1)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     w.square().sum().backward()
    ...     optimizer.step()
    >>> bool(w.abs().max() < 0.1)
    True

    Source: Liu et al. (2020), algorithm 2.
    """

    def __init__(
        self,
        params: Any,
        lr: Schedulable = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "foreach": foreach, "capturable": capturable, "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, radam, defaults, **options)


class AdaBelief(Optimizer):
    r"""AdaBelief: Adam by how far gradients are from what was expected of them.

    s ← β₂s + (1−β₂)(g−m)² + ε; θ ← θ − η m̂/(√ŝ + ε): long steps where gradients are as expected. Without the
    rectification that the authors' package turns on.

    Args:
        params: parameters or groups of them.
        lr: rate η; a number, a tensor of one, or a schedule.
        betas: β₁ and β₂, of the averages of g and of g².
        eps: ε, in both places.
        weight_decay: λ; decoupled unless told otherwise.
        decoupled_weight_decay: subtract ηλθ from θ instead (AdamW).
        maximize: ascend.
        options: what every optimizer here takes: `clip_norm, clip_value, l1, ema, finite_only, telemetry, …`.

    Raises:
        ValueError: for a setting out of range.

    >>> import torch, gradwise.optim
    >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = gradwise.optim.AdaBelief([w], lr=0.1)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     w.square().sum().backward()
    ...     optimizer.step()
    >>> bool(w.abs().max() < 0.1)
    True

    Source: Zhuang et al. (2020), algorithm 2.
    """

    def __init__(
        self,
        params: Any,
        lr: Schedulable = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = True,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        }  # fmt: skip
        super().__init__(params, adabelief, defaults, **options)


class Lion(Optimizer):
    r"""Lion: the sign of an average of gradients.

    θ ← θ − η sign(β₁m + (1−β₁)g); m ← β₂m + (1−β₂)g. All elements move by η: take 3 to 10 times less than Adam's,
    and as much more weight decay.

    Args:
        params: parameters or groups of them.
        lr: rate η; a number, a tensor of one, or a schedule.
        betas: β₁, of the step, and β₂, of the average that is kept.
        weight_decay: λ; decoupled unless told otherwise.
        decoupled_weight_decay: subtract ηλθ from θ instead (AdamW).
        maximize: ascend.
        options: what every optimizer here takes: `clip_norm, clip_value, l1, ema, finite_only, telemetry, …`.

    Raises:
        ValueError: for a setting out of range.

    >>> import torch, gradwise.optim
    >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = gradwise.optim.Lion([w], lr=0.02)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     w.square().sum().backward()
    ...     optimizer.step()
    >>> bool(w.abs().max() < 0.1)
    True

    Source: Chen et al. (2023), algorithm 2.
    """

    def __init__(
        self,
        params: Any,
        lr: Schedulable = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = True,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        }  # fmt: skip
        super().__init__(params, lion, defaults, **options)


class LAMB(Optimizer):
    r"""LAMB: Adam's step, made as long as the tensor it changes.

    u = m̂/(√v̂ + ε) + λθ; θ ← θ − η (‖θ‖/‖u‖) u, with the norms of whole tensors (the ratio is 1 where either is 0).
    For large batches. The norms cost a second pass over memory.

    Args:
        params: parameters or groups of them.
        lr: rate η; a number, a tensor of one, or a schedule.
        betas: β₁ and β₂, of the averages of g and of g².
        eps: ε, added to √v̂.
        weight_decay: λ, part of u.
        maximize: ascend.
        options: what every optimizer here takes: `clip_norm, clip_value, l1, ema, finite_only, telemetry, …`.

    Raises:
        ValueError: for a setting out of range.

    >>> import torch, gradwise.optim
    >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = gradwise.optim.LAMB([w], lr=0.05)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     w.square().sum().backward()
    ...     optimizer.step()
    >>> bool(w.abs().max() < 0.1)
    True

    Source: You et al. (2020), algorithm 2, with φ the identity.
    """

    def __init__(
        self,
        params: Any,
        lr: Schedulable = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, lamb, defaults, **options)
