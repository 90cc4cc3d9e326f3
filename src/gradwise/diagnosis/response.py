"""How far descent with momentum has come after t steps, in directions of many curvatures at once.

Heavy-ball descent at rate η in a direction of curvature λ is a damped oscillator: with x = ηλ and momentum μ,

    θ(t+1) = (1 + μ − x) θ(t) − μ θ(t−1),   θ(t) = c₁ z₁ᵗ + c₂ z₂ᵗ,   z² − (1 + μ − x) z + μ = 0.

- x < (1 − √μ)²: it creeps, and the loss left is θ² ≈ exp(−2 x t/(1−μ)): the path decides, as in plain descent.
- x > (1 − √μ)²: it swings, |z| = √μ: the loss left is 2|c₁|² μᵗ on an average over a period, *whatever the rate*.

The noise of mini-batches drives the same oscillator. It holds the loss up by a share of ½η tr(Σ)/(1−μ)/2 that grows
with the sum of the squares of the response to one blow: as 1 − exp(−2 x t/(1−μ)), or as 1 − μᵗ.

A loss has many curvatures. With their shares in the loss spread like a gamma distribution of shape p, plain descent
leaves exactly the power law (1 + ηt/s₀)^(−p); the same average over the response above is its form with momentum.

Source: Polyak (1964), "Some methods of speeding up the convergence of iteration methods"; Goh (2017), "Why momentum
really works", for the roots; Mandt et al. (2017), "Stochastic gradient descent as approximate Bayesian inference".
"""

from __future__ import annotations

from functools import lru_cache
from math import gamma

import numpy as np
from numpy.typing import NDArray

from gradwise.recording.recording import Floats

Complex = NDArray[np.complex128]

# x = ηλ from next to nothing to just below the edge of stability 2(1 + μ), and how finely, in natural logarithms.
_LOWEST, _FINE = 1e-12, 0.2
_EDGE = 0.95
# The gamma distribution's variable: e^-14 to e^4, beyond which next to nothing of any shape in use lies.
_SPREAD = np.arange(-14.0, 4.01, _FINE)


def swing(x: Floats, t: Floats, momentum: float) -> tuple[Floats, Floats]:
    """The share of the loss left, and the share of its noise that is there, (x, t) each.

    Args:
        x: (n,) rate times curvature, above 0 and below 2(1 + momentum).
        t: (k,) steps made.
        momentum: above 0 and below 1.
    """
    b = (1 + momentum - x[:, None]).astype(np.complex128)
    root = np.sqrt(b * b - 4 * momentum)
    root = np.where(np.abs(root) < 1e-6, 1e-6, root)
    z1, z2 = (b + root) / 2, (b - root) / 2
    c1, c2 = (1 - x[:, None] - z2) / root, (z1 - 1 + x[:, None]) / root
    p1, p2 = z1**t, z2**t
    exact = ((c1 * p1 + c2 * p2).real) ** 2
    phase = np.abs(np.angle(z1)) * t
    averaged = np.clip((phase - np.pi / 2) / np.pi, 0.0, 1.0)  # from a quarter of a period on, ever more of the mean
    left = averaged * 2 * np.abs(c1) ** 2 * momentum**t + (1 - averaged) * exact

    def summed(q: Complex, power: Complex) -> Complex:
        return np.asarray(q * (1 - power) / (1 - q))

    blows = (summed(z1 * z1, p1 * p1) + summed(z2 * z2, p2 * p2) - 2 * summed(z1 * z2, p1 * p2)) / root**2
    return left, np.maximum(2 * (1 - momentum) * x[:, None] * blows.real, 0.0)


class Response:
    """What descent at several rates leaves after several steps, for any scale and shape of the curvatures.

    Args:
        t: (k,) the steps.
        momentum: μ.
    """

    def __init__(self, t: Floats, momentum: float) -> None:
        self.t, self.momentum = np.asarray(t, np.float64), momentum
        if momentum > 0:
            self.x = np.exp(np.arange(np.log(_LOWEST), np.log(2 * (1 + momentum) * _EDGE), _FINE))
            self.left, self.noise = swing(self.x, self.t, momentum)

    def __call__(self, rates: Floats, scale: float, power: float) -> tuple[Floats, Floats]:
        """The shares of loss left and of noise there, (rates, t) each.

        Args:
            rates: (n,).
            scale: s₀, in units of rate times steps, of plain descent at rates 1/(1−μ) times as high.
            power: p.
        """
        if not self.momentum > 0:
            left = np.asarray((1 + rates[:, None] * self.t / scale) ** -power)
            return left, 1 - left
        unit = 2 * scale / (1 - self.momentum)
        place = (np.log(rates / unit)[:, None] + _SPREAD - np.log(_LOWEST)) / _FINE
        low, share = self._place(place)
        # first between curvatures, so that the tables are gone through once
        weights = _weights(power)
        mixed = np.zeros((len(rates), len(self.x)))
        row = np.arange(len(rates))[:, None]
        np.add.at(mixed, (row, low), weights * (1 - share))
        np.add.at(mixed, (row, low + 1), weights * share)
        return mixed @ self.left, mixed @ self.noise

    def _place(self, place: Floats) -> tuple[NDArray[np.int_], Floats]:
        place = np.clip(place, 0.0, len(self.x) - 1.0)
        low = np.minimum(place.astype(int), len(self.x) - 2)
        return low, place - low


@lru_cache
def _weights(power: float) -> Floats:
    """Of the gamma distribution, summing to one."""
    u = np.exp(_SPREAD)
    density = u**power * np.exp(-u) / gamma(power)
    density[0] += 1 / _FINE - density.sum()  # what lies below the lowest
    return np.asarray(density * _FINE)
