"""When the costly probes look: on a nested grid, within a budget, spread over the run."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwise.probes.sampling import FRACTION, PER_STEP, Meter, due, next_due


@given(st.integers(0, 10**9), st.integers(0, 12))
def test_thinner_grids_are_subsets(step: int, thinning: int) -> None:
    if due(step, thinning + 1):
        assert due(step, thinning)


@given(st.integers(0, 10**9))
def test_the_next_due_step_is_the_next(step: int) -> None:
    following = next_due(step)
    assert following > step
    assert due(following)
    if following - step < 1000:
        assert not any(due(between) for between in range(step + 1, following))


def test_short_runs_are_looked_at_often_and_long_ones_evenly() -> None:
    assert [s for s in range(50) if due(s)] == [0, 2, 4, 8, 16, 24, 32, 40, 48]
    for power in range(8, 30):
        steps, step = [], (1 << power) - 1
        while (step := next_due(step)) < 2 << power:
            steps.append(step)
        assert 32 <= len(steps) <= 128
        assert len({b - a for a, b in pairwise(steps)}) == 1


class Training:
    """A run in simulated time: steps of some length, looks of some cost, hooks of another."""

    def __init__(self, step: float, look: float, hooks: float = 12e-6, noise: float = 0.2, free: bool = False) -> None:
        self.step, self.look, self.hooks, self.noise = step, look, hooks, noise
        self.meter = Meter(free=free)
        self.random = random.Random(0)
        self.looked: list[int] = []

    def length(self, mean: float) -> float:
        return mean * self.random.uniform(1 - self.noise, 1 + self.noise)

    def run(self, steps: int) -> Training:
        meter, now, next_step = self.meter, 1000.0, 0
        meter.began = now
        look = True
        for step in range(steps):
            spent = self.length(self.hooks)
            if look:
                self.looked.append(step)
                cost = self.length(self.look) * (2 if step == 0 else 1)
                meter.looks += cost
                meter.looked(cost)
                spent += cost
            meter.spent += spent
            now += self.length(self.step) + spent
            look = False
            if step + 1 >= next_step:
                meter.steps, meter.last = step + 1, now
                look = meter.affords(step + 1, now)
                next_step = next_due(step + 1)
        meter.last = now
        return self

    @property
    def budget(self) -> float:
        return max(FRACTION * self.meter.loop_seconds, PER_STEP * self.meter.steps)


@pytest.mark.parametrize("step", [50e-6, 300e-6, 3e-3, 50e-3, 1.0])
@pytest.mark.parametrize("look", [100e-6, 400e-6, 5e-3, 100e-3])
def test_looks_fit_the_budget(step: float, look: float) -> None:
    training = Training(step, look).run(20_000)
    assert training.meter.spent <= training.budget + 10 * look
    # What there is left is used: the whole grid is looked at, or a tenth of the budget and more went into looks.
    grid = sum(due(s) for s in range(20_000))
    assert len(training.looked) > 0.8 * grid or training.meter.looks > 0.1 * training.budget


@pytest.mark.parametrize(
    ("steps", "step", "look"), [(345, 0.5e-3, 250e-6), (345, 0.2e-3, 250e-6), (1000, 0.2e-3, 400e-6)]
)
def test_short_fast_runs_have_looks_from_beginning_to_end(steps: int, step: float, look: float) -> None:
    looked = Training(step, look).run(steps).looked
    assert len(looked) >= 8
    for third in range(3):
        assert sum(third * steps / 3 <= s < (third + 1) * steps / 3 for s in looked) >= 2


def test_looks_are_spread_over_long_runs() -> None:
    looked = Training(200e-6, 400e-6).run(100_000).looked
    for tenth in range(1, 10):
        assert sum(tenth * 10_000 <= s < (tenth + 1) * 10_000 for s in looked) >= 3


def test_the_same_costs_give_the_same_steps() -> None:
    assert Training(1e-3, 1e-3).run(3000).looked == Training(1e-3, 1e-3).run(3000).looked


def test_without_a_budget_every_due_step_is_looked_at() -> None:
    looked = Training(10e-6, 1.0, free=True).run(500).looked
    assert looked == [s for s in range(500) if due(s)]


def test_one_dear_look_does_not_end_all_looking() -> None:
    training = Training(1e-3, 200e-6, noise=0.0)
    training.meter.looked(0.5)
    assert len(training.run(5000).looked) > 20


def test_shares_of_nothing() -> None:
    meter = Meter()
    assert meter.fraction == meter.loop_seconds == 0.0
    assert meter.affords(0, 1.0)
    assert not meter.affords(1, 1.0)


def test_what_a_step_may_cost_is_meant_of_the_processor() -> None:
    meter = Meter()
    assert meter.per_step == PER_STEP
    meter.held_up(clock=0.004, processor=0.001)
    assert meter.slowness == pytest.approx(4.0)
    assert meter.per_step == pytest.approx(4 * PER_STEP)
    meter.held_up(clock=100.0, processor=0.001)  # asleep rather than held up
    assert meter.slowness <= 16
    idle = Meter()
    idle.held_up(clock=0.001, processor=0.0010001)
    assert idle.slowness == 1.0


def test_short_steps_are_looked_at_as_often_on_a_busy_machine() -> None:
    def looks(slowness: float) -> int:
        meter, now, seen = Meter(), 0.0, 0
        meter.held_up(slowness * 1e-3, 1e-3)
        for step in range(2000):
            meter.steps = step
            if meter.affords(step, now):
                seen += 1
                meter.looks += slowness * 3e-4
                meter.spent += slowness * 3e-4
                meter.looked(slowness * 3e-4)
            now += slowness * 4e-4
        return seen

    assert looks(5.0) == pytest.approx(looks(1.0), abs=3)
