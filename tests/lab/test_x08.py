"""X8: what a curve looks like, told from made-up curves; rates from the range test's; a verdict that follows."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gradwise.lab.experiment import HOLDS, UNDECIDED, Bench
from gradwise.lab.x08_four_curves import BEYOND, CURVES, EXPERIMENT, LOWER, MARKS, looks, rates

PART = [k / MARKS for k in range(MARKS + 1)]
DRAWN: dict[str, list[float | None]] = {
    "green": [1 + math.exp(-8 * t) for t in PART],
    "red": [2 + 0.8 * math.sin(3 * t) for t in PART],
    "purple": [1.2 + 0.8 * math.exp(-20 * t) for t in PART],
    "yellow": [2 - 0.4 * t for t in PART],
    "run-away": [1 + math.exp(-8 * t) if t < 0.66 else 3.0 for t in PART],
}


@pytest.mark.parametrize("curve", CURVES)
def test_a_curve_is_told_from_all_others(curve: str) -> None:
    seen = {other for other in CURVES if looks(curve, DRAWN[other], DRAWN["green"])}
    # One that has climbed and stays up has settled too, but high.
    assert seen - {"purple" if curve == "green" else ""} == {curve}


def test_one_that_runs_off_rises_at_first_or_climbs_later() -> None:
    green = DRAWN["green"]
    assert looks("red", [2.0, 7.0, *[None] * (MARKS - 1)], green)
    assert looks("run-away", [*green[:15], *[None] * (MARKS - 14)], green)
    assert not looks("yellow", [2.0, *[None] * MARKS], green)
    assert not any(looks(curve, DRAWN[curve], [2.0, *[None] * MARKS]) for curve in CURVES)


def test_shares_do_not_depend_on_the_loss_own_unit() -> None:
    for curve, values in DRAWN.items():
        scaled = [None if v is None else 100 * v - 30 for v in values]
        green = [100 * v - 30 for v in DRAWN["green"] if v is not None]
        assert looks(curve, scaled, green)


def test_rates_follow_from_the_range_test() -> None:
    found = {curve: rates(curve, 900, best=0.1, jumps=2.5) for curve in CURVES}
    assert found["green"](0) == pytest.approx(0.1)
    assert found["green"](899) == pytest.approx(0.1 / 200, rel=0.02)
    assert found["red"](0) == found["red"](899) == pytest.approx(BEYOND * 2.5)
    assert found["purple"](0) == found["purple"](899) == pytest.approx(0.5)
    assert found["yellow"](0) == found["yellow"](899) == pytest.approx(0.1 / LOWER)
    assert [found["run-away"](t) for t in (0, 599, 600)] == pytest.approx([0.1, 0.1, BEYOND * 2.5])


def runs(drawn: dict[str, list[float | None]], named: dict[str, list[str]]) -> dict[str, dict[int, Any]]:
    return {
        f"task, {curve}": {
            seed: {
                "rate": 0.1, "curve": values, "validation": 1.0, "findings": named[curve], "suspected": [],
                "verdict": "sick" if named[curve] else "healthy",
            }
            for seed in range(3)
        }
        for curve, values in drawn.items()
    }  # fmt: skip


RIGHT = {curve: [cause] if cause else [] for curve, (_, _, cause) in CURVES.items()}


def test_the_verdict_follows_curves_and_diagnoses() -> None:
    assert EXPERIMENT.judge(runs(DRAWN, RIGHT)).word == HOLDS
    # The diagnosis names the wrong cause of one.
    wrong = EXPERIMENT.judge(runs(DRAWN, {**RIGHT, "yellow": ["underfitting"]}))
    assert [s.text for s in wrong.statements if s.held is False] == [
        "Yellow: the diagnosis names its cause, lr-too-low: in 0 of 3 runs."
    ]
    # A rate too large later that costs nothing.
    flat = EXPERIMENT.judge(runs({**DRAWN, "purple": DRAWN["green"]}, RIGHT))
    assert [s.text.partition(":")[0] for s in flat.statements if s.held is False] == ["Purple"]


def test_without_rates_from_a_range_test_nothing_is_decided() -> None:
    nothing = {name: {seed: {"rate": None} for seed in range(3)} for name in runs(DRAWN, RIGHT)}
    assert EXPERIMENT.judge(nothing).word == UNDECIDED
    assert EXPERIMENT.tables(nothing)
    assert len(EXPERIMENT.figures(nothing)) == 1


def test_a_rate_too_large_is_trained_watched_and_named() -> None:
    settings = {"task": "linear diabetes", "curve": "red", "steps": 60}
    found = EXPERIMENT.measure(settings, 0, Bench(quick=True))
    assert len(found["curve"]) == MARKS + 1
    assert found["findings"] == ["lr-too-high"]
    assert looks("red", found["curve"], DRAWN["green"])
