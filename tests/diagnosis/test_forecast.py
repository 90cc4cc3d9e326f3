"""Short runs at constant rates forecast the best rate of long ones."""

from __future__ import annotations

import numpy as np
import pytest

from diagnosis.descent import descend
from gradwise.diagnosis.forecast import forecast, is_lost
from gradwise.recording.signals import LOSS


def runs(rates: list[float], steps: int = 150, **options) -> dict[float, np.ndarray]:
    return {rate: descend(rate, steps, **options).get(LOSS).values for rate in rates}


RATES = [0.005, 0.015, 0.05, 0.1, 0.15]
SURFACE = {"largest": 10.0, "smallest": 0.05, "noise": 1.0}


def best_after(steps: int, **options) -> float:
    """By trying: the rate whose loss is lowest in the mean of the last steps of three long runs."""
    grid = np.geomspace(0.002, 0.19, 12)
    means = [np.mean([runs([r], steps, seed=s, **options)[r][-80:].mean() for s in range(3)]) for r in grid]
    return float(grid[int(np.argmin(means))])


def test_the_best_rate_of_a_longer_run_is_lower_and_is_found() -> None:
    found = [forecast(runs(RATES, **SURFACE), steps) for steps in (150, 2000)]
    assert found[0] is not None and found[1] is not None  # noqa: PT018
    assert found[1].best < 0.8 * found[0].best
    assert abs(np.log10(found[1].best / best_after(2000, **SURFACE))) < 0.6
    assert found[1].low <= found[1].rate <= found[1].high
    assert found[1].horizon == 2000


@pytest.mark.parametrize(("scale", "shift"), [(1.0, -1e3), (100.0, 0.0)])
def test_neither_scale_nor_sign_of_the_loss_matters(scale: float, shift: float) -> None:
    plain = runs(RATES, **SURFACE)
    other = {rate: scale * losses + shift for rate, losses in plain.items()}
    one, two = forecast(plain, 1000), forecast(other, 1000)
    assert one is not None and two is not None  # noqa: PT018
    assert two.rate == pytest.approx(one.rate, rel=1e-6)


def test_rates_that_diverge_bound_the_answer() -> None:
    found = forecast(runs([*RATES, 0.25, 1.0], largest=10.0, smallest=0.05), 10**6)
    assert found is not None
    assert found.lost == (0.25, 1.0)
    assert found.high < 0.2
    assert is_lost(runs([0.25])[0.25])
    assert not is_lost(runs([0.1])[0.1])


def test_two_runs_must_hold() -> None:
    assert forecast(runs([0.1, 5.0]), 100) is None
    assert forecast({}, 100) is None
