"""Schedules: exact at any step, composed, and the same after JSON."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwise.interventions import Intervention
from gradwise.schedules import Schedule, constant, cosine, exponential, inverse_time, step, warmup

SOME = st.sampled_from(
    [constant(0.5), cosine(300, end=0.01), step(20, 0.1), inverse_time(0.1, 7), exponential(0.9, 10), warmup(5)]
)


@given(SOME, st.integers(0, 10**9))
def test_an_array_of_steps_gives_what_single_steps_give(schedule: Schedule, t: int) -> None:
    one = schedule(t)
    assert isinstance(one, float)
    assert schedule(np.array([t, 0]))[0] == pytest.approx(one, rel=1e-14)


@given(SOME)
def test_json_and_code_bring_a_schedule_back(schedule: Schedule) -> None:
    held = constant(1.0, steps=10) >> schedule
    assert Schedule.from_json(held.to_json()) == held
    assert eval(repr(schedule)) == schedule  # noqa: S307


@pytest.mark.parametrize("t", [0, 1, 7, 100, 299, 300, 10**9])
def test_closed_forms(t: int) -> None:
    assert cosine(300, 0.01)(t) == pytest.approx(0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(t, 300) / 300)))
    assert step(20, 0.1)(t) == pytest.approx(0.1 ** (t // 20))
    assert inverse_time(0.1, 7)(t) == pytest.approx(1 / (1 + 0.1 * t / 7))
    assert exponential(0.9, 10)(t) == pytest.approx(0.9 ** (t / 10))
    assert warmup(5)(t) == pytest.approx(min(t + 1, 5) / 5)


def test_the_next_part_starts_at_its_own_zero() -> None:
    both = constant(1.0, steps=100) >> cosine(50)
    assert both(99) == both(100) == 1.0
    assert both(125) == pytest.approx(0.5)
    assert both(150) == pytest.approx(0.0)
    assert both.length == 150
    assert both.held() == (100, cosine(50))


def test_what_makes_no_sense_is_said() -> None:
    with pytest.raises(ValueError, match="no end"):
        constant(1.0) >> cosine(10)
    with pytest.raises(ValueError, match="at least 1"):
        cosine(0)
    with pytest.raises(ValueError, match="unknown schedule 'cosin'"):
        Schedule.from_json({"cosin": {"steps": 3}})
    with pytest.raises(ValueError, match="cosine"):
        Schedule.from_json({"cosine": {"stps": 3}})


def test_interventions_are_data() -> None:
    change = Intervention(lr_scale=0.1, schedule=constant(1.0, steps=5) >> cosine(10), clip_norm=1.0, optimizer=1)
    assert Intervention.from_json(change.to_json()) == change
    assert change.lr_factor(0) == pytest.approx(0.1)
    assert change.lr_factor(10) == pytest.approx(0.05)
    assert "from step 5 on" in change.describe()
    assert (change.touches(1), change.touches(0), bool(Intervention())) == (True, False, False)
    for bad in ({"lr_scale": 0}, {"clip_norm": "big"}, {"lr": 1}):
        with pytest.raises(ValueError, match="intervention"):
            Intervention.from_json(bad)
