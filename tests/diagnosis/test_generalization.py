"""Validation curves that turn for good, and those that don't."""

from __future__ import annotations

import numpy as np
import pytest

from gradwise.diagnosis.generalization import turn_of

STEPS = np.arange(0, 4000, 100)


def test_a_turn_is_found_where_it_is() -> None:
    x = STEPS / 4000
    turn = turn_of(STEPS, 1 + 4 * (x - 0.3) ** 2, 2.0)
    assert turn is not None
    assert turn.step == pytest.approx(1200, abs=100)
    assert turn.best == pytest.approx(1.0, abs=0.01)
    assert turn.lost > 0.5
    assert turn.share == pytest.approx(0.7, abs=0.05)


@pytest.mark.parametrize("seed", range(10))
def test_noise_does_not_turn_for_sure(seed: int) -> None:
    values = 1 + np.exp(-STEPS / 500) + 0.05 * np.random.default_rng(seed).standard_normal(len(STEPS))
    turn = turn_of(STEPS, values, None)
    assert turn is None or turn.sigmas < 5


@pytest.mark.parametrize(
    "values", [np.exp(-STEPS / 500), np.full(len(STEPS), 2.0), 1 + STEPS / 100], ids=["falls", "flat", "only climbs"]
)
def test_no_turn(values: np.ndarray) -> None:
    assert turn_of(STEPS, values, None) is None


def test_bad_values_and_few_are_no_turn() -> None:
    assert turn_of(STEPS[:5], np.array([3.0, 1.0, 2.0, 3.0, 4.0]), None) is None
    assert turn_of(STEPS, np.full(len(STEPS), np.nan), None) is None


def test_scale_and_shift_of_the_loss_do_not_matter() -> None:
    values = 1 + 4 * (STEPS / 4000 - 0.4) ** 2 + 0.01 * np.sin(STEPS)
    one, other = turn_of(STEPS, values, None), turn_of(STEPS, 1e-3 * values - 7, None)
    assert one is not None
    assert other is not None
    assert (one.step, one.lost, one.sigmas) == (other.step, pytest.approx(other.lost), pytest.approx(other.sigmas))
