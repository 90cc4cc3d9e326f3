"""What kind of place training is at: minimum, saddle, maximum, or no critical point at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gradwise.curvature.escape import CLEAR, Escape, mean_and_error, try_escape
from gradwise.curvature.hessian import Hessian
from gradwise.curvature.lanczos import NEGLIGIBLE, Eigenvalue, Spectrum, extremes
from gradwise.curvature.newton import Newton, newton_step

Kind = Literal["minimum", "saddle", "maximum", "degenerate", "not critical", "inconclusive"]

NEAR = 0.01
"""How near is at the critical point, as a share of the weights' scale, and of the loss.

The quadratic model puts the critical point one Newton step away. We are at it if that step would change the weights by
less than a hundredth of what weights usually are, *and* be worth less than a hundredth of the loss: nobody would tell
the two models apart. Both must hold. On a loss with a large constant in it the second alone says nothing; nor does the
first alone where curvature is strong, for a long way down may begin with a short step across a valley.
"""

BLURRED = 0.1
"""The same share of the weights' scale where the gradient can't be told from the batches' noise.

By noise alone batches put the critical point in different places, and no step between these means anything. So a tenth
is near enough then, if only the step is worth as little as above: training that is merely noisy fails that, for there
the noise is worth a good part of the loss.
"""

LANDED = 0.2
"""The share of the gradient that a Newton step from beside a critical point may leave.

Beside an ordinary critical point the step lands, with an error that vanishes with the distance. On slopes that only
flatten out it never does, however small the gradient has become: of an exponential tail's gradient (a saturated unit, a
separable classification) 1/e = 0.37 is left, of that of a tail like x^−p (1 + 1/(p+1))^−(p+1), from 0.30 up.
"""

_ROUNDING = 10.0  # units in the last place of the weights: a Newton step within them is none


@dataclass(frozen=True)
class End:
    """One end of the spectrum.

    Attributes:
        value: the curvature, in units of the loss over the square of the parameters'.
        residual: Lanczos' bound on its error, for these very batches.
        noise: standard error over the batches of the curvature in its direction; None with fewer than two batches.
    """

    value: float
    residual: float
    noise: float | None = None

    @property
    def error(self) -> float:
        """What it may be off by: the residual and twice the noise."""
        return self.residual + CLEAR * (self.noise or 0.0)

    def __str__(self) -> str:
        return f"{self.value:.3g} ± {self.error:.1g}"


@dataclass(frozen=True)
class Measured:
    """What a verdict is made of.

    Attributes:
        loss: the mean over the batches.
        gradient_norm: norm of the mean gradient.
        gradient_noise: what that norm would be from the batches' differences alone, were the true gradient zero; None
            with fewer than two batches.
        smallest, largest: the ends of the spectrum.
        newton: the step to the critical point.
        eps: relative precision of the arithmetic.
    """

    loss: float
    gradient_norm: float
    gradient_noise: float | None
    smallest: End
    largest: End
    newton: Newton
    eps: float


@dataclass(frozen=True, eq=False)
class CriticalPoint:
    """What kind of point it is, and what was measured there.

    Attributes:
        kind: "minimum", "saddle", "maximum", "degenerate" (nothing goes down, but some directions are flat),
            "not critical", or "inconclusive".
        why: the reason in words.
        measured: the figures.
        escape: at a saddle or maximum, the way down as tried; None where it can't be tried or there is none.
        products: how many Hessian-vector products it took.
        batches: how many batches there were.
    """

    kind: Kind
    why: str
    measured: Measured
    escape: Escape | None
    products: int
    batches: int

    def sharpness(self, lr: float, momentum: float = 0.0, nesterov: bool = False) -> float:
        """λ_max as a share of what SGD can stand at this rate (`edge_of_stability`); above 1 it is thrown out of
        valleys.

        For SGD only: an adaptive rule rescales every direction, and what it feels is another Hessian.
        """
        return self.measured.largest.value / edge_of_stability(lr, momentum, nesterov)

    def to_json(self) -> dict[str, Any]:
        """All of it as a JSON object; numbers that are not finite are null."""
        found = {"kind": self.kind, "why": self.why, **asdict(self.measured), "products": self.products}
        found |= {"batches": self.batches, "escape": None if self.escape is None else self.escape.to_json()}
        return {k: _plain(v) for k, v in found.items()}

    def __str__(self) -> str:
        m = self.measured
        noise = "" if m.gradient_noise is None else f" (batch noise {m.gradient_noise:.2g})"
        lines = [
            f"{self.kind}: {self.why}",
            f"  loss      {m.loss:.6g}",
            f"  gradient  {m.gradient_norm:.3g}{noise}",
            f"  λ_min     {m.smallest}",
            f"  λ_max     {m.largest}",
            f"  Newton    {m.newton.reach:.2g} of the weights' scale, worth {m.newton.gain:.2g} of loss",
        ]
        return "\n".join([*lines, *([] if self.escape is None else [f"  escape    {self.escape}"])])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def edge_of_stability(lr: float, momentum: float = 0.0, nesterov: bool = False) -> float:
    """The largest curvature at which SGD is stable: 2/η; 2(1+β)/η with momentum β; 2(1+β)/(η(1+2β)) with Nesterov's.

    Raises:
        ValueError: a rate that is not above 0, a momentum outside [0, 1).

    Example:
        >>> edge_of_stability(0.5), edge_of_stability(0.5, momentum=0.5)
        (4.0, 6.0)

    Source:
        Cohen et al., Gradient descent on neural networks typically occurs at the edge of stability, 2021.
    """
    if not (0 < lr < math.inf and 0 <= momentum < 1):
        raise ValueError(f"edge_of_stability: lr must be above 0 and momentum in [0, 1), got {lr!r} and {momentum!r}")
    return 2 * (1 + momentum) / (lr * (1 + 2 * momentum if nesterov else 1))


def critical_point(
    loss_fn: Callable[..., Tensor] | Hessian,
    parameters: nn.Module | Iterable[Tensor] | None = None,
    batches: Iterable[Any] | None = None,
    *,
    products: int = 25,
    tolerance: float = 0.01,
    seed: int = 0,
) -> CriticalPoint:
    """Whether training stands at a critical point, and of what kind.

    **Critical** is a point whose gradient is zero to rounding, or from where a Newton step would be short, be worth
    next to nothing, and really lead to where the gradient is gone. A small gradient alone is not it: on a plateau it is
    small because everything is flat. Where the gradient can't be told from the batches' noise and that test isn't
    passed, the answer is "inconclusive": more batches may tell.

    **Of what kind** the ends of the spectrum say. λ_min is negative if twice its batch noise doesn't bring it up to
    zero. (The residual needn't count there: the curvature along any direction bounds λ_min from above.) It is positive
    if not even residual and noise together bring it down to zero. Zero is all within 1e-4 of the largest magnitude,
    which neither holds a run back nor carries it away.

    Noise is that over the batches given, along a direction chosen with them. Where these are few and small, and the
    point matters, check with others.

    Args:
        loss_fn: as for `Hessian`; or a `Hessian`, and nothing for the next two.
        parameters: as for `Hessian`.
        batches: as for `Hessian`; four at least, to tell signal from noise. Without, the loss counts as exact.
        products: for the ends of the spectrum, at most; each goes through all batches. The Newton step takes up to 15
            more, the noise two.
        tolerance: relative residual at which an eigenvalue counts as found.
        seed: of the start vector.

    Raises:
        TypeError, ValueError, RuntimeError: as `Hessian` does.

    Example:
        >>> w = torch.zeros(2, requires_grad=True)
        >>> found = critical_point(lambda: 1 + w[0] ** 2 - w[1] ** 2, [w])
        >>> print(f"{found.kind} {found.measured.smallest.value:.3f} {found.escape.lowers}")
        saddle -2.000 True

    Source:
        Boyd & Vandenberghe, Convex optimization, 2004, 9.5 (the Newton decrement); Dauphin et al., Identifying and
        attacking the saddle point problem in high-dimensional non-convex optimization, 2014.
    """
    hessian = _hessian(loss_fn, parameters, batches)
    found, spectrum = examine(hessian, products, tolerance, seed)
    if found.kind not in ("saddle", "maximum") or not hessian.again:
        return found
    return replace(found, escape=try_escape(hessian, spectrum.smallest.vector, spectrum.smallest.value))


def examine(
    hessian: Hessian, products: int = 25, tolerance: float = 0.01, seed: int = 0
) -> tuple[CriticalPoint, Spectrum]:
    """`critical_point` without trying the escape, and the spectrum with the directions."""
    before = hessian.products
    gradient, noise = mean_gradient(hessian)
    spectrum = extremes(hessian.product, hessian.random_vector(seed), products=products, tolerance=tolerance)
    losses = hessian.losses()
    measured = Measured(
        loss=sum(losses) / len(losses),
        gradient_norm=float(torch.linalg.vector_norm(gradient)),
        gradient_noise=noise,
        smallest=_end(hessian, spectrum.smallest),
        largest=_end(hessian, spectrum.largest),
        newton=newton_step(hessian, gradient),
        eps=float(torch.finfo(hessian.dtype).eps),
    )
    kind, why = judge(measured)
    return CriticalPoint(kind, why, measured, None, hessian.products - before, hessian.batches), spectrum


def _hessian(loss_fn: Any, parameters: Any, batches: Any) -> Hessian:
    if isinstance(loss_fn, Hessian):
        if parameters is not None or batches is not None:
            raise TypeError("critical_point: a Hessian has its parameters and batches already; don't give them again")
        return loss_fn
    if parameters is None:
        raise TypeError("critical_point: give the parameters, or the model, after the loss function")
    return Hessian(loss_fn, parameters, batches)


def mean_gradient(hessian: Hessian) -> tuple[Tensor, float | None]:
    """The mean gradient, and √(tr Σ/B): the norm that noise alone gives the mean of B batches (None for one)."""
    mean, square = hessian.gradient(0), 0.0
    for k in range(1, hessian.batches):  # Welford's recurrence: one vector instead of B
        new = hessian.gradient(k)
        off = new - mean
        mean = mean + off / (k + 1)
        square += float(torch.dot(off, new - mean))
    count = hessian.batches
    return mean, None if count < 2 else math.sqrt(max(0.0, square) / (count * (count - 1)))


def _end(hessian: Hessian, found: Eigenvalue) -> End:
    """An end with its noise: to first order a change dH of the Hessian changes an eigenvalue by vᵀ·dH·v."""
    if hessian.batches < 2:
        return End(found.value, found.residual)
    along = [float(torch.dot(found.vector, hessian.product(found.vector, k))) for k in range(hessian.batches)]
    return End(found.value, found.residual, mean_and_error(along)[1])


def judge(m: Measured) -> tuple[Kind, str]:
    """The verdict on what was measured, and the reason for it."""
    critical, why = _critical(m)
    if critical is None:
        return "inconclusive", why
    if not critical:
        return "not critical", why
    low, high = m.smallest, m.largest
    magnitude = max(abs(low.value), abs(high.value))
    zero = NEGLIGIBLE * magnitude
    if magnitude == 0:
        return "degenerate", f"{why}, and there is no curvature in any direction looked at"
    if low.value + CLEAR * (low.noise or 0.0) < -zero:
        if high.value + high.error < -zero:
            return "maximum", f"{why}, and the loss falls in every direction (λ_max {high})"
        return "saddle", f"{why}, and there is a direction in which the loss falls (λ_min {low})"
    if low.value - low.error > zero:
        return "minimum", f"{why}, and the loss rises in every direction (λ_min {low})"
    if low.error <= NEAR * magnitude:
        return "degenerate", f"{why}; nothing goes down, but there are flat directions (λ_min {low}, λ_max {high})"
    return "inconclusive", f"{why}, but λ_min is {low}: more batches or products may give it a sign"


def _critical(m: Measured) -> tuple[bool | None, str]:
    """Whether the gradient vanishes, as far as one can tell (None: one can't)."""
    newton = m.newton
    if m.gradient_norm == 0:
        return True, "the gradient is zero"
    # What it could still gain doesn't show in the loss, or the step not in the weights. (How large rounding makes a
    # gradient can't be said from λ_max: along a ravine's floor a slope far below eps·λ_max is real.)
    unseen = newton.reach <= NEAR and newton.gain <= m.eps * abs(m.loss)
    if unseen or newton.reach <= _ROUNDING * m.eps:
        return True, "the gradient is zero to rounding"
    left = max(newton.left, newton.found or 0.0)
    lost = m.gradient_noise is not None and m.gradient_norm <= CLEAR * m.gradient_noise
    near = newton.reach <= (BLURRED if lost else NEAR) and newton.gain <= NEAR * abs(m.loss)
    if near and left <= LANDED:
        seen = ", which these batches can't tell from none" if lost else ""
        return True, f"the critical point is {newton.reach:.1g} of the weights' scale away{seen}"
    if lost:
        return None, "the gradient can't be told from the batches' noise; more batches, or larger ones, may tell"
    if near:
        return False, f"the gradient is small because it is flat here: a Newton step leaves {left:.0%} of it"
    return False, f"the gradient leads on (a Newton step: {newton.reach:.1g} of the weights' scale)"
