"""Schedules as data: exact at any step, composed, and the same after JSON and from their own code."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from many import anything, ended, steps

import gradwise.schedules
from gradwise.schedules import (
    Schedule,
    constant,
    cosine,
    exponential,
    function,
    multi_step,
    polynomial,
    reduce_on_plateau,
    rule_of_thumb,
    sgdr,
    step,
    warmup,
    warmup_stable_decay,
)

NAMES = {name: getattr(gradwise.schedules, name) for name in gradwise.schedules.__all__}


@given(anything, st.lists(steps, min_size=1, max_size=20))
def test_an_array_of_steps_gives_what_single_steps_give(schedule: Schedule, many: list[int]) -> None:
    ones = [schedule(t) for t in many]
    assert all(isinstance(one, float) for one in ones)
    assert schedule(np.array(many)) == pytest.approx(ones, rel=1e-12, abs=1e-300)
    square = np.array([many, many], dtype=np.int32)
    assert schedule(square).shape == square.shape


@given(anything)
def test_json_and_code_bring_a_schedule_back(schedule: Schedule) -> None:
    again = Schedule.from_json(json.loads(json.dumps(schedule.to_json(), allow_nan=False)))
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert eval(repr(schedule), dict(NAMES)) == schedule  # noqa: S307
    assert repr(again) == repr(schedule)


@given(anything)
def test_copies_are_equal(schedule: Schedule) -> None:
    assert copy.deepcopy(schedule) == pickle.loads(pickle.dumps(schedule)) == schedule  # noqa: S301


@given(ended, anything, steps)
def test_the_next_part_starts_at_its_own_zero(first: Schedule, second: Schedule, t: int) -> None:
    both = first >> second
    assert first.length is not None
    assert both == first.then(second)
    assert both(t) == (first(t) if t < first.length else second(t - first.length))
    assert both.length == (None if second.length is None else first.length + second.length)


@given(ended, ended, anything)
def test_then_and_times_are_associative(a: Schedule, b: Schedule, c: Schedule) -> None:
    assert (a >> b) >> c == a >> (b >> c)
    assert (a * b) * c == a * (b * c)


@given(anything, anything, st.floats(0.1, 10), steps)
def test_a_product_is_the_product_at_each_step(a: Schedule, b: Schedule, x: float, t: int) -> None:
    assert (a * b)(t) == pytest.approx(a(t) * b(t), rel=1e-12, abs=1e-300)
    assert (x * a)(t) == (a * x)(t) == pytest.approx(x * a(t), rel=1e-12, abs=1e-300)
    assert 1 * a == a
    assert np.float64(x) * a == x * a


@given(anything, st.floats(0, 1), st.floats(0, 1), steps)
def test_clip_keeps_within_limits(a: Schedule, x: float, y: float, t: int) -> None:
    lo, hi = sorted((x, y))
    assert a.clip(lo, hi)(t) == min(max(a(t), lo), hi)
    assert a.clip(hi=hi)(t) == min(a(t), hi)


@given(ended, st.integers(0, 10**6))
def test_it_stands_still_from_its_length_on(schedule: Schedule, more: int) -> None:
    assert schedule.length is not None
    assert schedule(schedule.length + more) == schedule(schedule.length)


def test_lengths_of_products() -> None:
    assert (0.5 * cosine(100)).length == 100
    assert (constant(0.5) * warmup(10) * cosine(100)).length == 100
    assert (step(10) * cosine(100)).length is None
    assert (step(10) * cosine(100)).until(30).length == 30
    assert constant().length is None
    assert (constant() * constant()).length is None


def test_what_is_held_at_first() -> None:
    both = constant(1.0, steps=100) >> cosine(50)
    assert both(99) == both(100) == 1.0
    assert both(125) == pytest.approx(0.5)
    assert both(150) == pytest.approx(0.0)
    assert both.length == 150
    assert both.held() == (100, cosine(50))
    assert (both >> warmup(3)).held() == (100, cosine(50) >> warmup(3))
    assert cosine(50).held() == (0, cosine(50))
    assert (0.5 * both).held() == (0, 0.5 * both)


def test_nothing_can_be_changed() -> None:
    schedule = warmup(3) >> 2 * cosine(5)
    with pytest.raises(FrozenInstanceError):
        schedule.parts = ()  # type: ignore[attr-defined]
    assert {schedule: 1}[warmup(3) >> 2 * cosine(5)] == 1


def test_code_is_as_one_would_write_it() -> None:
    rate = 3e-4 * (warmup(500) >> cosine(10_000))
    assert repr(rate) == "0.0003 * (warmup(steps=500) >> cosine(steps=10000))"
    assert repr(rate.clip(1e-5)) == "(0.0003 * (warmup(steps=500) >> cosine(steps=10000))).clip(lo=1e-05)"
    assert repr(step(np.int64(3), np.float32(0.5)) * warmup(2)) == "step(every=3, factor=0.5) * warmup(steps=2)"


def half(t: int) -> float:
    return 0.5 ** (t // 10)


def test_any_function_takes_part() -> None:
    mine = function(half)
    both = (0.1 * mine).until(30) >> cosine(10)
    assert [both(t) for t in (0, 10, 30)] == [0.1, 0.05, 1.0]
    assert mine(np.arange(0, 40, 10)) == pytest.approx([1, 0.5, 0.25, 0.125])
    assert repr(mine) == "function(f=half)"
    assert function(half) == mine
    with pytest.raises(TypeError, match=r"function\(f=half\) holds Python code"):
        both.to_json()
    with pytest.raises(TypeError, match=r"must give a number; .*<lambda>\(3\) gave None"):
        function(lambda t: None)(3)  # type: ignore[arg-type, return-value]


def test_before_the_start_it_is_as_at_the_start() -> None:
    assert cosine(10)(-5) == 1.0
    assert (0.5 * cosine(10))(np.array([-5])) == [0.5]
    assert cosine(10)(np.array([], dtype=int)).shape == (0,)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: constant(1.0) >> cosine(10), r"constant\(\) has no end.*\.until\(steps\)"),
        (lambda: cosine(0), "cosine: steps must be at least 1, got 0"),
        (lambda: cosine(10.5), r"cosine: steps must be an integer, got 10.5"),
        (lambda: cosine(True), "cosine: steps must be an integer, got True"),
        (lambda: cosine(10, end=float("nan")), "cosine: end must be finite, got nan"),
        (lambda: cosine(10, end="0"), "cosine: end must be a number, got '0'"),
        (lambda: exponential(0), "exponential: rate must be above 0, got 0"),
        (lambda: exponential(0.5, 10, staircase=1), "exponential: staircase must be true or false"),
        (lambda: multi_step([30, 30]), r"multi_step: milestones must be rising steps, got \[30, 30\]"),
        (lambda: multi_step([30, 60], [0.1]), "one for each of 2 milestones; got 1"),
        (lambda: warmup(3, kind="cubic"), "warmup: kind must be one of 'linear', 'constant'; got 'cubic'"),
        (lambda: warmup(3, kind="constant"), "needs its factor, start="),
        (lambda: sgdr(10, t_mult=1.5), "sgdr: t_mult must be an integer, got 1.5"),
        (lambda: warmup_stable_decay(100, 60, 50), "60 steps of warm-up and 50 of decay are more than the run's 100"),
        (lambda: rule_of_thumb(100, hold=2), "rule_of_thumb: hold must be at least 0 and at most 1, got 2"),
        (lambda: cosine(10).clip(), "give lo, hi or both"),
        (lambda: cosine(10).clip(1, 0), "lo must not be above hi"),
        (lambda: cosine(10).until(0), "until: steps must be at least 1"),
        (lambda: float("inf") * cosine(10), "factor must be finite"),
        (lambda: cosine(10)(1.5), "a step is an integer below"),
        (lambda: cosine(10)(True), "a step is an integer below"),
        (lambda: cosine(10)(2**70), "a step is an integer below"),
        (lambda: function(3), "must be a function of the step"),
        (lambda: cosine(10) >> reduce_on_plateau(), "multiply instead"),
        (lambda: reduce_on_plateau() >> cosine(10), "multiply instead"),
        (lambda: cosine(10) >> 3, "unsupported operand"),
        (lambda: cosine(10) * "3", "unsupported operand|can't multiply"),
    ],
)
def test_what_makes_no_sense_is_said(wrong, words) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        wrong()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"cosin": {"steps": 3}}, "unknown schedule 'cosin'; known: .*cosine"),
        ({"cosine": {"stps": 3}}, "'cosine': .*stps"),
        ({"cosine": {}}, "'cosine': .*steps"),
        ({"cosine": 3}, "'cosine': its arguments are an object, got 3"),
        ({"cosine": {"steps": "3"}}, "cosine: steps must be an integer, got '3'"),
        ({"cosine": {"steps": 0}}, "cosine: steps must be at least 1"),
        ({"function": {"f": "os.remove"}}, "unknown schedule 'function'"),
        ({"then": []}, "'then': it is a list of schedules"),
        ({"then": [{"constant": {}}, {"cosine": {"steps": 3}}]}, "has no end"),
        ({"times": [3, 4]}, "'times': it is a list of schedules"),
        ({"clip": {"lo": 1}}, "'clip': 'of' is missing"),
        ({"until": {"steps": 3}}, "'until': 'of' is missing"),
        ({"clip": 3}, "'clip'"),
        ([], "an object with one key"),
        ({"a": 1, "b": 2}, "an object with one key"),
        (None, "an object with one key"),
    ],
)
def test_what_json_can_be_wrong_is_said(data, words) -> None:
    with pytest.raises(ValueError, match=words):
        Schedule.from_json(data)


def test_ready_made_ones_print_as_what_they_are_made_of() -> None:
    assert warmup_stable_decay(100, 0, 100, decay="1-sqrt", end=0.1) == gradwise.schedules.square_root(100, end=0.1)
    assert warmup_stable_decay(100, 10, 90) == warmup(10) >> polynomial(90)


def test_schedules_load_without_torch() -> None:
    code = "import sys, gradwise.schedules as s; s.cosine(3)(1); print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
