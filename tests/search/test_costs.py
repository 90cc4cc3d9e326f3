"""What a trial is expected to cost."""

from __future__ import annotations

import pytest
from bench import FakeBench
from hypothesis import given
from hypothesis import strategies as st

from gradwise.recording.recording import Recording, RunInfo
from gradwise.search.attempts import Attempts, Plan
from gradwise.search.costs import Costs
from gradwise.trials.runner import Trial


def test_costs_are_those_of_the_watched_run():
    bench = FakeBench(lr=0.5, steps=400, startup=2.0, step=0.01)
    costs = Costs.of_run(bench.watched(), seconds=7.0)
    assert (costs.startup, costs.step, costs.end) == pytest.approx((2.0, 0.01, 1.01))
    costs.slowness = 1.0
    assert costs.of(400, whole=True) == pytest.approx(7.01)
    assert costs.of(100) == pytest.approx(3.0)


def test_a_run_without_steps_costs_what_it_took():
    assert Costs.of_run(Recording(RunInfo("")), 3.0).of(0) >= 3.0
    assert Costs.of_run(Recording(RunInfo("")), 3.0).affordable(1e9) == 0


@given(st.floats(0.1, 10), st.floats(1e-4, 1), st.floats(0.1, 1000))
def test_what_is_affordable_costs_no_more(startup, step, seconds):
    costs = Costs(startup, step, 0.0)
    steps = costs.affordable(seconds)
    if steps:
        assert costs.of(steps) <= seconds * (1 + 1e-9)
    assert costs.of(steps + 2) > seconds or not steps


def test_slow_trials_make_further_ones_dearer():
    costs = Costs(1.0, 0.01, 0.0)
    before = costs.of(100)
    costs.learn(before, 3 * before)
    assert costs.of(100) == pytest.approx(2 * before)


def attempts(stretch: float = 3.0) -> Attempts:
    bench = FakeBench(lr=0.5, steps=400, startup=2.0, step=0.01)
    return Attempts(bench.watched(), Plan(10.0, 100.0, processor=5.0, stretch=stretch), bench)


def trial(seconds: float, processor: float) -> Trial:
    return Trial(Recording(RunInfo("")), seconds=seconds, processor=processor)


def test_a_trial_on_a_busier_machine_is_charged_at_the_watched_runs_pace():
    made = attempts()
    made.charge(trial(seconds=40.0, processor=5.0))
    assert (made.spent, made.clock) == (10.0, 40.0)
    assert made.left == 90.0


def test_a_trial_on_an_idler_machine_is_charged_by_the_clock():
    made = attempts()
    made.charge(trial(seconds=6.0, processor=5.0))
    assert (made.spent, made.clock) == (6.0, 6.0)


def test_the_clock_has_its_limit_too():
    made = attempts()
    for _ in range(7):
        made.charge(trial(seconds=40.0, processor=5.0))
    assert made.left == made.waits == 20.0


@pytest.mark.parametrize(("stretch", "processor"), [(1.0, 5.0), (3.0, 0.0)])
def test_a_budget_that_the_user_set_or_a_cost_that_is_not_known_goes_by_the_clock(stretch, processor):
    made = attempts(stretch)
    made.charge(trial(seconds=40.0, processor=processor))
    assert made.spent == 40.0
