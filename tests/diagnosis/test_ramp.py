"""What a ramp shows, on descent whose edge of stability is known."""

from __future__ import annotations

import numpy as np
import pytest

from diagnosis.descent import descend
from gradwise.diagnosis.ramp import joined, read_ramp
from gradwise.recording.signals import LOSS

RATES = np.geomspace(1e-7, 1e2, 400)


def ramp(rates: np.ndarray = RATES, **options) -> np.ndarray:
    return descend(lambda t: float(rates[t]), len(rates), **options).get(LOSS).values


@pytest.mark.parametrize("largest", [1.0, 10.0, 1000.0])
@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_the_three_phases_are_told_apart_around_the_edge(largest: float, noise: float) -> None:
    edge = 2 / largest
    phases = read_ramp(RATES, ramp(largest=largest, smallest=largest / 50, noise=noise * largest / 100))
    assert phases.whole
    assert phases.falls < phases.steepest < phases.lowest < phases.jumps
    assert phases.falls < edge / 5
    assert edge / 3 < phases.jumps < 4 * edge  # a few steps beyond it show it


@pytest.mark.parametrize(("scale", "shift"), [(1e6, 0.0), (1e-6, 0.0), (1.0, -1e4)])
def test_neither_scale_nor_sign_of_the_loss_matters(scale: float, shift: float) -> None:
    # `descend` divides its rate by the scale, so that the path is the same.
    plain, other = ramp(noise=0.3), ramp(noise=0.3, scale=scale, shift=shift)
    expected, phases = read_ramp(RATES, plain), read_ramp(RATES, other)
    assert (phases.falls, phases.lowest, phases.jumps) == pytest.approx(
        (expected.falls, expected.lowest, expected.jumps), rel=0.3
    )


def test_a_phase_that_is_not_there_is_named() -> None:
    low, high = np.geomspace(1e-9, 1e-6, 200), np.geomspace(1e-2, 1.0, 200)
    assert read_ramp(low, ramp(low, noise=0.1)).missing == ("steep", "jump")
    assert "slow" in read_ramp(high, ramp(high)).missing
    middle = np.geomspace(1e-7, 1e-2, 300)
    assert read_ramp(middle, ramp(middle)).missing == ("jump",)


def test_noise_alone_is_no_fall() -> None:
    for seed in range(20):
        losses = np.random.default_rng(seed).standard_normal(400)
        assert "steep" in read_ramp(RATES, losses).missing


def test_the_same_batches_without_learning_show_a_fall_that_noise_hides() -> None:
    batches = 400 * np.random.default_rng(0).standard_normal(400)
    losses = ramp() + batches
    assert "steep" in read_ramp(RATES, losses).missing
    start = ramp()[0]
    assert "steep" not in read_ramp(RATES, losses, start + batches).missing


def test_pieces_of_a_ramp_join() -> None:
    pieces = [read_ramp(part, ramp(part)) for part in (RATES[:150], RATES[150:])]
    whole, parts = read_ramp(RATES, ramp()), joined(pieces)
    assert parts.missing == ()
    assert parts.jumps == pytest.approx(whole.jumps, rel=3)


def test_too_short_or_falling_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="ten losses"):
        read_ramp(RATES[:5], np.zeros(5))
    with pytest.raises(ValueError, match="rising rates"):
        read_ramp(RATES[::-1], np.zeros(400))
    with pytest.raises(ValueError, match="no ramp"):
        joined([])
