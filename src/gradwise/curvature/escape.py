"""The way out of a saddle, tried: does a step along the direction of negative curvature lower the loss?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradwise.curvature.hessian import Hessian
from gradwise.curvature.newton import weight_scale

CLEAR = 2.0
"""Standard errors that a number must be away from zero to have a sign: the usual 95 %."""

LENGTHS = (0.001, 0.01, 0.1)
"""Of the steps tried, as shares of the weights' scale: from hardly a change to what training does in many steps."""


@dataclass(frozen=True, eq=False)
class Escape:
    """The best of the steps tried along a direction, to both sides.

    Attributes:
        lowers: whether it lowers the loss, clearly against rounding and the batches' noise.
        drop: by how much.
        noise: standard error of that over the batches; None with fewer than two.
        length: how long it is; the share of the weights' scale is `reach`.
        reach: see there.
        expected: the drop that the curvature alone foretells, ½|λ|·length².
        direction: unit vector to the better side, flat (`Hessian.split` gives it the parameters' shapes).
    """

    lowers: bool
    drop: float
    noise: float | None
    length: float
    reach: float
    expected: float
    direction: Tensor

    def to_json(self) -> dict[str, Any]:
        """All but the direction as a JSON object."""
        return {k: getattr(self, k) for k in ("lowers", "drop", "noise", "length", "reach", "expected")}

    def __str__(self) -> str:
        if not self.lowers:
            return f"no step of up to {LENGTHS[-1]:.0%} of the weights' scale lowers the loss clearly"
        return f"a step of {self.reach:.2g} of the weights' scale lowers the loss by {self.drop:.3g}"


def try_escape(hessian: Hessian, direction: Tensor, curvature: float) -> Escape:
    """Steps along a direction and against it, of each of `LENGTHS`; the parameters are as before afterwards.

    The curvature is the same to both sides, but what comes after it is not. Batch by batch the loss after the step is
    compared with the loss before, so that differences between batches don't count.

    Args:
        hessian: of the loss, which it must be possible to evaluate elsewhere.
        direction: a flat unit vector, such as `Spectrum.smallest.vector`.
        curvature: along it.

    Example:
        >>> w = torch.zeros(2, requires_grad=True)
        >>> hessian = Hessian(lambda: w[0] ** 2 - w[1] ** 2 + w[1] ** 3, [w])
        >>> escape = try_escape(hessian, torch.tensor([0.0, 1.0]), -2.0)
        >>> escape.lowers, escape.direction.tolist()
        (True, [-0.0, -1.0])
    """
    scale, before = weight_scale(hessian.parameters), hessian.losses()
    rounding = 10 * torch.finfo(hessian.dtype).eps * max(map(abs, before))
    tried = []
    for reach in LENGTHS:
        for sign in (1.0, -1.0):
            length = reach * scale
            try:
                with hessian.moved(sign * length * direction):
                    after = hessian.losses()
            except ValueError:  # not finite there
                continue
            drops = [b - a for b, a in zip(before, after, strict=True)]
            drop, noise = mean_and_error(drops)
            lowers = drop - CLEAR * (noise or 0.0) > rounding
            foretold = max(0.0, -0.5 * curvature * length**2)
            tried.append(Escape(lowers, drop, noise, length, reach, foretold, sign * direction))
    if not tried:
        return Escape(False, -math.inf, None, LENGTHS[0] * scale, LENGTHS[0], 0.0, direction)
    return max(tried, key=lambda e: (e.lowers, e.drop))


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error; that is None for fewer than two values."""
    count = len(values)
    mean = sum(values) / count
    if count < 2:
        return mean, None
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (count * (count - 1)))
