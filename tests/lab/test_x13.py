"""X13: distances and prices by hand; a verdict that follows; the rates are those of the range test and the grid."""

from __future__ import annotations

from typing import Any

import pytest

from gradwise.lab.experiment import DOES_NOT_HOLD, HOLDS, UNDECIDED, Bench
from gradwise.lab.sweeps import sweep, task
from gradwise.lab.x13_range_test import EXPERIMENT, distance, price

RATES = [0.001, 0.01, 0.1, 1.0]


def found(steepest: float | None, best: float = 0.01) -> dict[str, Any]:
    losses: list[float | None] = [abs(k - RATES.index(best)) / 4 + 0.5 for k in range(4)]
    losses[-1] = None if best < 1 else losses[-1]
    return {"rates": RATES, "validation": losses, "start": 2.5, "steepest": steepest, "suggested": best}


def test_distances_are_in_decades_and_prices_in_shares_of_the_fall() -> None:
    one = found(0.1)
    assert distance(one, "steepest") == pytest.approx(1)
    assert price(one, "steepest") == pytest.approx(0.25 / 2)
    assert distance(one, "suggested") == 0
    assert price(one, "suggested") == 0
    assert distance(found(1e-4), "steepest") == pytest.approx(-2)
    assert price(found(3.0), "steepest") == 1  # it diverged there
    assert distance(found(None), "steepest") is None
    assert price(found(None), "steepest") is None


def test_of_two_rates_the_nearer_one_counts() -> None:
    assert distance(found(1.0, best=0.1), "common") == pytest.approx(-1)
    assert distance(found(1.0, best=0.001), "common") == 0
    assert distance(found(1.0, best=1.0), "common") == pytest.approx(-2)


def runs(steepest: list[float | None], best: float = 0.01) -> dict[str, dict[int, Any]]:
    return {
        name: {seed: {"rules": {"SGD": found(rate, best)}} for seed, rate in enumerate(steepest)}
        for name in ("digits", "breast_cancer")
    }


def test_the_verdict_follows() -> None:
    assert EXPERIMENT.judge(runs([0.01, 0.012, 0.009])).word == HOLDS
    assert EXPERIMENT.judge(runs([1.0, 1.2, 0.9], best=0.1)).word == DOES_NOT_HOLD
    # Above and below in turn is far off all the same.
    assert EXPERIMENT.judge(runs([0.1, 0.001, 0.1])).statements[0].held is False
    assert EXPERIMENT.judge(runs([0.01, 1.0, 0.01])).statements[0].held is None


def test_a_ramp_that_shows_no_steep_phase_is_told_and_not_counted() -> None:
    verdict = EXPERIMENT.judge(runs([None, None, None]))
    assert verdict.statements[0].held is None
    assert EXPERIMENT.judge(runs([0.01, 0.01, None])).statements[0].text.endswith("2 ramps showed none.")
    assert verdict.word == UNDECIDED


def test_rates_that_suit_some_nets_only_are_a_condition() -> None:
    mixed = runs([0.01, 0.01, 0.01])
    third, fourth = runs([0.1] * 3)["digits"], runs([1.0] * 3, best=1.0)["digits"]
    last = EXPERIMENT.judge({**mixed, "third": third, "wide": fourth}).statements[-1]
    assert (last.held, last.condition) == (True, "not for wide with SGD")


def test_what_is_measured_is_the_grid_and_the_range_test() -> None:
    settings = {"task": "wine", "rules": ["SGD"], "steps": 30, "spacing": 0.5}
    bench = Bench(quick=True)
    one = EXPERIMENT.measure(settings, 0, bench)["rules"]["SGD"]
    grid = sweep(task("wine", bench), ["SGD"], 0, steps=30, spacing=0.5, marks=1)["SGD"]
    assert one["rates"] == grid.rates.tolist()
    assert one["rates"][grid.best()] == pytest.approx(
        min(zip(one["validation"], one["rates"], strict=True), key=lambda pair: (pair[0] is None, pair[0]))[1]
    )
    assert one["suggested"] is None or one["suggested"] > 0
    assert one["steepest"] is None or 1e-7 < one["steepest"] < 100


def test_tables_and_figures_have_a_row_for_each_net_and_rule() -> None:
    measured = runs([0.1, 0.1, None])
    rates, losses = EXPERIMENT.tables(measured)
    assert rates.rows[1] == ["digits, SGD", "0.01", "+1.00", "+0.00", "+0.00"]
    assert losses.rows[1] == ["digits, SGD", "12.5 %", "0.0 %", "0.0 %"]
    assert set(EXPERIMENT.figures(measured)) == {"distances", "grid"}
