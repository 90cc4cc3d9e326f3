"""X4: momentum against what can be worked out of it, and when the judgement turns."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from gradwise.lab.experiment import Bench
from gradwise.lab.x04_momentum import ADDED, AVERAGED, DESCENT, EXPERIMENT, MU, RATE, RULES, _depths, widest
from lab.manipulated import held, updated

BENCH = Bench(quick=True)


def test_a_plateau_is_crossed_as_far_as_speed_carries() -> None:
    found = EXPERIMENT.measure({"part": "plateau"}, 0, BENCH)
    crossed = {
        rule: max((w for w, over in zip(found["widths"], found[rule], strict=True) if over), default=0)
        for rule in RULES
    }
    assert crossed[DESCENT] == 0
    # The point is up to a step beyond the edge when the slope ends; widths are 0.02 apart.
    assert crossed[ADDED] == pytest.approx(widest(RATE, MU), abs=0.02 + RATE / (1 - MU))
    assert crossed[AVERAGED] == pytest.approx((1 - MU) * widest(RATE, MU), abs=0.02 + RATE)


def test_steps_from_a_saddle_are_those_of_the_recurrence() -> None:
    found = EXPERIMENT.measure({"part": "saddle"}, 0, BENCH)
    beside = abs(float(1e-3 * torch.randn(1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)))
    assert found[DESCENT] == math.ceil(math.log(1 / beside) / math.log(1 + RATE))
    for rule, gain in ((ADDED, RATE), (AVERAGED, (1 - MU) * RATE)):
        y, speed, steps = beside, 0.0, 0
        while y <= 1:
            speed = MU * speed + gain * y
            y, steps = y + speed, steps + 1
        assert found[rule] == steps
        # In the long run each step multiplies by the larger root of r² − (1 + μ + gain) r + μ.
        growth = max(np.roots([1, -(1 + MU + gain), MU]).real)
        assert (y / (y - speed)) == pytest.approx(growth, rel=1e-6)
        assert not found[f"{rule}, on the ridge"]


def test_depths_of_landscapes() -> None:
    ends = {
        DESCENT: torch.tensor([[0.0, 0.0, 4.0, 4.0]]),
        ADDED: torch.tensor([[0.0, 4.0, 0.0, 4.0]]),
        AVERAGED: torch.ones(1, 4),
    }
    found = _depths(ends)
    assert found["best"] == 0
    assert found["depth"] == {DESCENT: 2, ADDED: 2, AVERAGED: 1}
    assert found["left"] == {DESCENT: 0, ADDED: 0.5, AVERAGED: 1}


def runs() -> Any:
    """Measures of a ball that gets over everything."""
    over = {"widths": [0.1, 0.2], DESCENT: [False, False], ADDED: [True, True], AVERAGED: [True, False]}
    ridge = {f"{rule}, on the ridge": True for rule in RULES}
    net = {f"{rule}, on": 5 for rule in RULES}
    depth = {
        "best": 0.0,
        "depth": {DESCENT: 1.0, ADDED: 0.5, AVERAGED: 0.5},
        "left": {DESCENT: 0.0, ADDED: None, AVERAGED: None},
    }
    one = {
        "plateau": over,
        "saddle": {DESCENT: 100, ADDED: 10, AVERAGED: 50, **ridge},
        "saddle of a net": {f"{DESCENT}, beside": 100, f"{ADDED}, beside": 10, f"{AVERAGED}, beside": 50, **net},
        "landscapes": depth,
        "minima of nets": depth,
    }
    return {cell: dict.fromkeys((1, 2, 3), m) for cell, m in one.items()}


def test_the_judgement_turns_with_what_was_measured() -> None:
    assert held(EXPERIMENT, runs()) == [True] * 10

    def changed(cell: str, **changes: Any) -> list[bool | None]:
        return held(EXPERIMENT, updated(runs(), cell, **changes))

    assert changed("plateau", **{AVERAGED: [False, False]})[1] is False
    assert changed("saddle", **{ADDED: 110})[2] is False
    assert changed("saddle of a net", **{f"{AVERAGED}, beside": 130})[5] is False
    flat = {"depth": {DESCENT: 1.0, ADDED: 1.0, AVERAGED: 0.5}}
    assert changed("landscapes", **flat)[6] is False
    assert changed("minima of nets", **flat)[7] is False

    seen = copy.deepcopy(runs())
    for seed, steps in ((1, 50), (2, 100), (3, 200)):
        seen["saddle"][seed] = {**seen["saddle"][seed], ADDED: steps}
    assert held(EXPERIMENT, seen)[2] is None


def test_a_ball_that_leaves_good_minima_too_is_a_condition() -> None:
    seen = runs()
    one = seen["landscapes"][1]
    leaving = {**one, "left": {**one["left"], ADDED: 0.25}}
    seen["landscapes"] = dict.fromkeys((1, 2, 3), leaving)
    assert "25%" in EXPERIMENT.judge(seen).statements[6].condition
