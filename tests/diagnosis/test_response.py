"""What descent with momentum leaves of a loss, against descent itself."""

from __future__ import annotations

import numpy as np
import pytest

from gradwise.diagnosis.response import Response, swing

STEPS = 400


def descended(x: float, momentum: float, noise: bool) -> np.ndarray:
    """θ² from 1 without noise; or the mean of θ²x/2, in units of ¼/(1−μ), from 0 with noise of variance 1."""
    # The second moments (θ², θ·before, before²) go by a linear map.
    a = 1 + momentum - x
    covariance = np.zeros((2, 2)) if noise else np.ones((2, 2))
    step, kick = np.array([[a, -momentum], [1.0, 0.0]]), np.diag([1.0, 0.0])
    seen = []
    for _ in range(STEPS):
        covariance = step @ covariance @ step.T + (kick if noise else 0.0)
        seen.append(covariance[0, 0] * (2 * x * (1 - momentum) if noise else 1.0))
    return np.array(seen)


@pytest.mark.parametrize("momentum", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("x", [1e-6, 1e-3, 0.1, 1.0, 3e-5])
def test_a_direction_by_itself(x: float, momentum: float) -> None:
    t = np.arange(1.0, STEPS + 1)
    left, noise = swing(np.array([x]), t, momentum)
    assert noise[0] == pytest.approx(descended(x, momentum, noise=True), rel=1e-4, abs=1e-9)
    true = descended(x, momentum, noise=False)
    if x < (1 - momentum**0.5) ** 2:  # it creeps
        assert left[0] == pytest.approx(true, rel=1e-6)
    else:  # it swings: right on an average over periods
        period = np.pi / np.arccos((1 + momentum - x) / (2 * momentum**0.5))
        if 4 * period < STEPS / 2:
            scaled = momentum**-t
            assert (left[0] * scaled)[STEPS // 2 :].mean() == pytest.approx(
                (true * scaled)[STEPS // 2 :].mean(), rel=0.35
            )


def test_without_momentum_many_curvatures_make_a_power_law() -> None:
    left, noise = Response(np.array([10.0, 100.0]), 0.0)(np.array([1e-3, 1e-2]), 0.1, 1.5)
    assert left == pytest.approx((1 + np.array([[0.1, 1.0], [1.0, 10.0]])) ** -1.5)
    assert noise == pytest.approx(1 - left)


@pytest.mark.parametrize("power", [0.3, 1.0, 5.0])
def test_little_momentum_is_nearly_none(power: float) -> None:
    t, rates = np.array([30.0, 300.0]), np.array([1e-4, 1e-3])
    none, little = (Response(t, m)(rates, 0.05, power) for m in (0.0, 0.01))
    assert little[0] == pytest.approx(none[0], rel=0.05, abs=2e-3)


def test_what_swings_loses_the_same_at_every_rate() -> None:
    left, _ = Response(np.array([300.0]), 0.99)(np.array([1e-4, 1e-3, 1e-2]), 1e-3, 3.0)
    assert left[:, 0] == pytest.approx(0.5 * 0.99**300, rel=0.1)
