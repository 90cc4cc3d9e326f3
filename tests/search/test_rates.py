"""The range test's loop, on descent that stands for a script."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from diagnosis.descent import descend
from gradwise.recording.signals import LOSS
from gradwise.schedules import Schedule
from gradwise.search.rates import Budget, HaltedError, Run, range_test


@dataclass
class Quadratic:
    """Descent with a stability edge at 2/`largest`; `length` is that of the script, if it has an end."""

    largest: float = 10.0
    noise: float = 0.5
    momentum: float = 0.0
    length: int | None = None
    shift: float = 0.0
    halts: int = 99
    made: list[str] = field(default_factory=list)

    def run(self, lr: Schedule, steps: int, what: str) -> Run:
        self.made.append(what)
        if len(self.made) > self.halts:
            raise HaltedError("no time")
        count = steps if self.length is None else min(steps, self.length)
        rates = lr(np.arange(count))
        recording = descend(
            lambda t: float(rates[t]), count, largest=self.largest, smallest=self.largest / 20,
            noise=self.noise * self.largest / 10, momentum=self.momentum, shift=self.shift,
        )  # fmt: skip
        return Run(recording.get(LOSS).values, self.length is not None and count >= self.length, self.momentum)


@pytest.mark.parametrize("largest", [0.01, 10.0, 1e4])
@pytest.mark.parametrize("shift", [0.0, -1e5])
def test_the_rate_lies_below_the_edge_and_within_the_budget(largest: float, shift: float) -> None:
    track = Quadratic(largest, shift=shift)
    found = range_test(track, Budget(1200, horizon=500))
    edge = 2 / largest
    assert found.rate is not None
    assert edge / 100 < found.rate < edge
    assert found.confirmed
    assert found.horizon == 500
    assert found.steps <= 1200
    final = descend(found.rate, 500, largest=largest, smallest=largest / 20, noise=largest / 20).get(LOSS).values
    assert final[-50:].mean() < 0.2 * final[0]


def test_high_momentum_does_not_mislead_it() -> None:
    found = range_test(Quadratic(momentum=0.99), Budget(1200, horizon=1000))
    assert found.rate is not None
    assert 1e-5 < found.rate < 2 * 1.99 / 10


def test_a_ramp_that_misses_a_phase_is_widened_and_says_so() -> None:
    up = range_test(Quadratic(largest=1e-4, noise=0.1), Budget(1200))
    assert any("widened upwards" in words for words in up.why)
    down = range_test(Quadratic(largest=1e8, noise=0.1), Budget(1200))
    assert any("widened downwards" in words for words in down.why)


def test_a_short_script_is_started_again_and_its_length_is_the_horizon() -> None:
    track = Quadratic(length=90)
    found = range_test(track, Budget(1200))
    assert any("started again" in words for words in found.why)
    assert found.horizon == 90
    assert found.rate is not None
    assert 0.002 < found.rate < 0.2


def test_where_nothing_falls_it_says_so() -> None:
    class Noise:
        def run(self, lr: Schedule, steps: int, what: str) -> Run:
            return Run(np.random.default_rng(steps).standard_normal(steps))

    found = range_test(Noise(), Budget(600))
    assert found.rate is None
    assert any("did the loss fall" in words for words in found.why)


def test_it_keeps_what_it_knows_when_it_is_halted() -> None:
    found = range_test(Quadratic(halts=1), Budget(1200))
    assert found.rate is not None
    assert not found.confirmed
    assert any("ended early: no time" in words for words in found.why)


def test_a_linear_ramp_and_one_by_stages() -> None:
    budget = Budget(1200, linear=True)
    rates = budget.schedule(1e-3, 1.0, 101)(np.arange(101))
    assert rates == pytest.approx(np.linspace(1e-3, 1.0, 101))
    stages = Budget(1200, per=10).schedule(1e-3, 1.0, 101)(np.arange(101))
    assert len(np.unique(stages.round(12))) == 11
    assert stages[9] == pytest.approx(1e-3)


@pytest.mark.parametrize("largest", [10.0, 1000.0, 1e5])
def test_a_linear_ramp_over_many_decades_is_narrowed_until_it_shows_the_fall(largest: float) -> None:
    found = range_test(Quadratic(largest), Budget(1200, linear=True))
    assert any("narrowed" in words for words in found.why)
    assert found.rate is not None
    assert 2 / largest / 100 < found.rate < 2 / largest
    assert found.confirmed
