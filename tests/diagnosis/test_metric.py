"""What became of a run, as a number: which loss is taken, when a run counts as diverged, what it must not depend on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwise.diagnosis.metric import common_metric, final_metric, primary_place, training, validation
from gradwise.recording.recording import Event, Recording, RunInfo, Series
from gradwise.recording.signals import LOSS, VALIDATION


def run(losses, *places, status="finished", texts=(), **fields) -> Recording:
    """A run with those training losses and validation losses per place (spread evenly, the last one at the end)."""
    losses = np.asarray(losses, np.float64)
    series = {(LOSS.name, 0): Series(np.arange(len(losses)), losses)}
    for k, values in enumerate(places):
        at = np.linspace(len(losses) / len(values), len(losses), len(values)).astype(np.int64)
        series[VALIDATION.name, k] = Series(at, np.asarray(values, np.float64))
    events = tuple(
        Event("validation-place", 0, k, {"source": k, "file": "val.py", "line": 3, "text": text})
        for k, text in enumerate(texts)
    )
    return Recording(RunInfo("", status=status, **fields), series=series, events=events)


FALLING = np.linspace(2.0, 0.2, 100)
RISING = np.linspace(2.0, 9.0, 100)


def test_the_training_loss_is_its_mean_over_the_last_tenth():
    outcome = training(run(FALLING))
    assert outcome.value == pytest.approx(FALLING[-10:].mean())
    assert (outcome.start, outcome.diverged, outcome.metric) == (2.0, False, "loss/train")


def test_only_the_first_steps_where_that_is_asked():
    assert training(run(FALLING), steps=50).value == pytest.approx(FALLING[45:50].mean())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_losses_that_end_not_finite_are_no_value(bad):
    outcome = training(run([*FALLING[:90], *[bad] * 10]))
    assert (outcome.value, outcome.diverged) == (None, True)


def test_a_lone_bad_loss_near_the_end_is_passed_over():
    losses = FALLING.copy()
    losses[-4] = np.nan
    assert training(run(losses)).value == pytest.approx(np.nanmean(losses[-10:]))


def test_twenty_bad_losses_in_a_row_are_enough_however_long_the_run():
    losses = np.concatenate([np.linspace(2.0, 0.2, 5000), [np.nan] * 20])
    assert training(run(losses)).value is None


def test_what_ends_above_its_start_has_diverged():
    assert training(run(RISING)).diverged
    assert training(run(RISING)).value == pytest.approx(RISING[-10:].mean())


def test_what_learns_nothing_has_not_diverged():
    noise = 2.0 + 0.1 * np.random.default_rng(0).standard_normal(200)
    assert not training(run(noise)).diverged


def test_a_run_that_broke_off_has_not_arrived():
    assert training(run(FALLING[:30], status="failed"), steps=100).diverged
    assert not training(run(FALLING, status="failed"), steps=100).diverged


def test_a_run_without_losses_has_nothing_to_say():
    assert training(Recording(RunInfo(""))).value is None
    assert final_metric(Recording(RunInfo(""))).diverged


def test_the_validation_loss_goes_first_and_its_last_value_counts():
    outcome = final_metric(run(FALLING, [1.2, 0.5, 0.3]))
    assert (outcome.metric, outcome.value, outcome.start) == ("loss/validation", 0.3, 2.0)


def test_a_validation_loss_on_another_scale_has_no_known_start():
    outcome = validation(run(FALLING, [120.0, 50.0, 30.0]), 0)
    assert outcome is not None
    assert (outcome.value, outcome.start) == (30.0, None)


def test_a_finite_validation_loss_does_not_hide_a_lost_run():
    outcome = validation(run([*FALLING[:50], *[np.nan] * 50], [0.5, 0.4]), 0)
    assert outcome is not None
    assert (outcome.value, outcome.diverged) == (None, True)


@pytest.mark.parametrize(
    ("places", "texts", "chosen"),
    [
        (([1.0, 0.5], [1.1, 0.6]), (), 1),  # of two alike the later one
        (([1.0, 0.5, 0.4], [1.1]), (), 0),  # the one that is looked at more often
        (([1.0, 0.5], [1.1, 0.6]), ("val = evaluate(val_loader)", "fit = evaluate(train_loader)"), 0),
        (([1.0], [1.1, 0.6]), ("test_loss = evaluate(test)", "loss = evaluate(train)"), 0),
    ],
)
def test_which_validation_loss_is_the_one(places, texts, chosen):
    assert primary_place([run(FALLING, *places, texts=texts)]) == chosen


def test_without_validation_there_is_no_place():
    assert primary_place([run(FALLING), run(FALLING, [0.3])]) is None
    assert primary_place([]) is None


def test_runs_are_compared_after_the_same_evaluation():
    long, short = run(FALLING, [1.5, 1.0, 0.6, 0.3]), run(FALLING[:60], [1.4])
    short.series[VALIDATION.name, 0] = Series(np.array([25, 50]), np.array([1.4, 0.9]))  # type: ignore[index]
    assert [o.value for o in common_metric([long, short], steps=60)] == [1.0, 0.9]


def test_without_an_evaluation_in_common_the_training_loss_decides():
    long, short = run(FALLING, [1.5, 1.0]), run(FALLING[:30])
    assert {o.metric for o in common_metric([long, short], steps=30)} == {"loss/train"}


def test_a_diverged_run_need_not_have_been_evaluated():
    lost = run([2.0, 5.0, *[np.nan] * 98])
    outcomes = common_metric([lost, run(FALLING, [0.6, 0.3])])
    assert [(o.metric, o.value, o.start) for o in outcomes] == [
        ("loss/validation", None, 2.0),
        ("loss/validation", 0.3, 2.0),
    ]


def test_where_a_run_diverged_its_start_must_be_known():
    lost = run(RISING, [400.0, 900.0])
    outcomes = common_metric([lost, run(FALLING, [60.0, 30.0])])
    assert {o.metric for o in outcomes} == {"loss/train"}


losses = st.lists(st.floats(-100, 100).map(lambda v: round(v, 3)), min_size=1, max_size=60)


@given(losses, st.lists(st.floats(-100, 100).map(lambda v: round(v, 3)), max_size=5), st.integers(-3, 6))
def test_scale_and_zero_of_the_loss_do_not_matter(values, checks, power):
    scale, zero = 2.0**power, 16.0
    places = [checks] if checks else []
    before = final_metric(run(values, *places))
    after = final_metric(run(np.array(values) * scale + zero, *[np.array(p) * scale + zero for p in places]))
    assert after.metric == before.metric
    assert (after.value is None) == (before.value is None)
    if before.value is not None and after.value is not None:
        assert math.isclose(after.value, before.value * scale + zero, rel_tol=1e-9, abs_tol=1e-6)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=64), min_size=0, max_size=50), st.booleans())
def test_no_series_of_losses_is_an_error(values, failed):
    recording = run(values) if values else Recording(RunInfo(""))
    outcome = final_metric(replace(recording, run=replace(recording.run, status="failed" if failed else "stopped")))
    assert outcome.value is None or math.isfinite(outcome.value)
    assert outcome.start is None or math.isfinite(outcome.start)
