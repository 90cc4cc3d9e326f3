"""The period of a loss that an order in the data sways, told from noise and from its own multiples."""

from __future__ import annotations

import numpy as np
import pytest

from gradwise.diagnosis.curve import Curve, curve_of
from gradwise.diagnosis.data import cycle_of
from gradwise.recording.recording import Series


def curve(losses: np.ndarray) -> Curve:
    found = curve_of(Series(np.arange(len(losses)), losses))
    assert found is not None
    return found


def swept(period: int, epochs: int, seed: int, spread: float) -> np.ndarray:
    """A loss that towers at each epoch's beginning, as after a jump from one end of the data to the other."""
    rng = np.random.default_rng(seed)
    steps = np.arange(period * epochs)
    place = (steps % period) / period
    return np.exp(1.5 - 5 * place - steps / len(steps) + spread * rng.standard_normal(len(steps)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("period", "epochs"), [(60, 30), (17, 40), (150, 12), (7, 200)])
@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_the_period_itself_is_found_and_none_of_its_multiples(
    period: int, epochs: int, seed: int, spread: float
) -> None:
    assert cycle_of(curve(swept(period, epochs, seed, spread))) == period


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("steps", [200, 1000])
def test_noise_and_lone_spikes_have_no_period(steps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    losses = np.exp(-np.arange(steps) / steps + 0.3 * rng.standard_normal(steps))
    losses[rng.integers(0, steps, 5)] *= 30
    assert cycle_of(curve(losses)) == 0


@pytest.mark.parametrize("seed", range(5))
def test_slow_wandering_has_no_period(seed: int) -> None:
    walk = np.cumsum(np.random.default_rng(seed).standard_normal(600))
    assert cycle_of(curve(walk)) == 0


def test_what_came_twice_only_may_be_chance() -> None:
    assert cycle_of(curve(swept(200, 4, 0, 0.1))) == 0
