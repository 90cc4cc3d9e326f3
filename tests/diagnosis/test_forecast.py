"""Short runs at constant rates forecast the best rate of long ones."""

from __future__ import annotations

import numpy as np
import pytest

from diagnosis.descent import descend
from gradwise.diagnosis.forecast import TRAINED, VALIDATED, forecast, is_lost, lost_of
from gradwise.recording.recording import Series
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


def overfitted(rate: float, steps: np.ndarray) -> np.ndarray:
    """A held-out loss that falls with the path and rises again where it has become long."""
    path = rate * steps
    return 1 / (1 + path / 0.05) + 0.3 * np.log1p(path / 5)


def test_a_validation_loss_that_rises_again_wants_a_lower_rate() -> None:
    plain = {rate: 1 / (1 + rate * np.arange(200) / 0.05) for rate in (0.002, 0.01, 0.05, 0.25)}
    at = np.arange(20, 201, 20)
    judged = {rate: Series(at, overfitted(rate, at)) for rate in plain}
    by_training, by_validation = forecast(plain, 700), forecast(plain, 700, validation=judged)
    assert by_training is not None and by_validation is not None  # noqa: PT018
    assert (by_training.metric, by_validation.metric) == (TRAINED, VALIDATED)
    grid = np.geomspace(1e-4, 0.25, 200)
    best = grid[int(np.argmin(overfitted(grid, np.array(700))))]
    assert abs(np.log10(by_validation.rate / best)) < 0.4
    assert by_training.rate > 3 * by_validation.rate


def test_too_few_validation_losses_do_not_decide() -> None:
    plain = runs(RATES, **SURFACE)
    once = {rate: Series(np.array([100]), np.array([1.0])) for rate in plain}
    some = {rate: Series(np.arange(20, 150, 20), np.ones(7)) for rate in list(plain)[:-1]}
    for validation in (once, some):
        found = forecast(plain, 500, validation=validation)
        assert found is not None
        assert found.metric == TRAINED


def test_an_explosion_among_batches_without_loss_is_seen() -> None:
    calm = np.random.default_rng(0).uniform(0, 2, 200) * (np.arange(200) < 100)
    wild = np.where(np.arange(200) % 2, 0.0, 1.05 ** np.arange(200))
    assert lost_of({0.01: calm, 1.0: wild}) == (1.0,)


def test_momentum_is_known_to_swing() -> None:
    found = forecast(runs([1e-4, 3e-3, 5e-2], 260, momentum=0.99, largest=10.0, smallest=0.1), 700, 0.99)
    assert found is not None
    ends = {r: runs([r], 700, momentum=0.99, largest=10.0, smallest=0.1)[r][-100:].mean() for r in (1e-4, found.rate)}
    assert ends[found.rate] < 0.5 * ends[1e-4]
