"""The Newton step: how far a critical point is, were the loss as quadratic as it is here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradwise.curvature.hessian import Hessian
from gradwise.curvature.lanczos import Krylov

_ENOUGH = 0.02  # of the gradient left, a tenth of what counts as landing


@dataclass(frozen=True)
class Newton:
    """The Newton step from here to the critical point of the quadratic model, as far as a Krylov space reaches.

    Attributes:
        length: its norm; infinite where there is no curvature along the gradient.
        reach: that as a share of the weights' scale.
        gain: what it is worth in loss, ½ gᵀ|H|⁻¹g (half the square of the Newton decrement).
        left: the norm of the gradient at its end over that here, as the model foretells.
        found: the same as evaluated there; None where the loss can't be evaluated elsewhere.
    """

    length: float
    reach: float
    gain: float
    left: float
    found: float | None = None


def weight_scale(parameters: Sequence[Tensor]) -> float:
    """How large weights usually are, all together: what a step is long or short against.

    Their own norm, but at least that of ordinary weights, 1/√fan_in each, with which a layer passes on what it gets at
    the size at which it gets it (a bias or gain: 1). So the scale doesn't vanish where all weights are zero.
    """
    ordinary = sum(p.shape[0] if p.dim() else 1 for p in parameters)
    own = sum(float(p.detach().double().square().sum()) for p in parameters)
    return math.sqrt(max(ordinary, own))


def newton_step(hessian: Hessian, gradient: Tensor, products: int = 15) -> Newton:
    """The step to where the quadratic model's gradient vanishes, as far as `products` products let it be known.

    Of all steps in the Krylov space of Hessian and gradient it leaves the least of the gradient (MINRES), which a
    Hessian with eigenvalues of both signs can't upset. Gradients live in few directions, the stiff ones, so few
    products do.

    Args:
        hessian: of the loss.
        gradient: the loss's, flat.
        products: at most.

    Example:
        >>> w = torch.tensor([2.0, 1.0], requires_grad=True)
        >>> hessian = Hessian(lambda: w[0] ** 2 - 3 * w[1] ** 2, [w])
        >>> step = newton_step(hessian, hessian.gradient())
        >>> print(f"{step.length**2:.3f} {step.gain:.3f} {step.left:.3f}")
        5.000 7.000 0.000
    """
    norm = float(torch.linalg.vector_norm(gradient))
    if norm == 0:
        return Newton(0.0, 0.0, 0.0, 0.0, 0.0 if hessian.again else None)
    krylov = Krylov(hessian.product, gradient)
    step: NDArray[np.float64] = np.zeros(0)
    left, gain = 1.0, math.inf
    while len(krylov.alphas) < products and left > _ENOUGH and not krylov.exhausted:
        krylov.extend()
        size = len(krylov.alphas)
        # H·V = V₊·T̄, and g = ‖g‖·V₊e₁.
        values, vectors = krylov.eigen()
        tall = np.vstack([vectors * values @ vectors.T, np.zeros(size)])
        tall[-1, -1] = krylov.betas[-1]
        target = np.zeros(size + 1)
        target[0] = -norm
        step = np.asarray(np.linalg.lstsq(tall, target, rcond=10 * torch.finfo(hessian.dtype).eps)[0])
        left = float(np.linalg.norm(tall @ step - target)) / norm
        gain = float(0.5 * (np.abs(values) * (vectors.T @ step) ** 2).sum())
    length = float(np.linalg.norm(step))
    if length == 0:
        return Newton(math.inf, math.inf, math.inf, 1.0, 1.0 if hessian.again else None)
    found = None
    if hessian.again:
        try:
            with hessian.moved(krylov.combine(step)):
                found = float(torch.linalg.vector_norm(hessian.gradient())) / norm
        except ValueError:  # the loss isn't finite there: that was no step to a critical point
            found = math.inf
    return Newton(length, length / weight_scale(hessian.parameters), gain, left, found)
