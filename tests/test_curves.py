import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gradwise.curves import MOST, Scale, fit, gaps, round_ticks, thin, trend
from gradwise.recording.recording import Series

ANY = arrays(np.float64, st.integers(1, 300), elements=st.floats(width=64))


def series(values, steps=None) -> Series:
    values = np.asarray(values, np.float64)
    return Series(np.arange(len(values)) if steps is None else np.asarray(steps), values)


def test_a_loss_over_more_than_two_decades_gets_a_logarithmic_axis():
    assert fit([series(np.geomspace(2.3, 0.01, 50))]).log
    assert not fit([series(np.geomspace(2.3, 0.03, 50))]).log
    assert not fit([series(np.append(np.geomspace(2.3, 0.01, 50), -0.1))]).log


def test_a_short_spike_leaves_the_axis_rather_than_flatten_the_curve():
    values = np.linspace(2, 1, 10_000)
    values[5000] = 1e30
    scale = fit([series(values)])
    assert not scale.log
    assert scale.high < 3


def test_a_divergence_that_lasts_stays_on_the_axis():
    values = np.concatenate((np.linspace(2, 1, 900), np.geomspace(1, 1e8, 100)))
    scale = fit([series(values)])
    assert scale.log
    assert scale.high > 1e6


def test_the_axis_spans_all_curves():
    scale = fit([series([1.0, 2.0]), series([5.0], [1])])
    assert scale.low <= 1
    assert scale.high >= 5


@given(ANY)
def test_any_curve_has_an_axis_on_which_it_lies(values):
    scale = fit([series(values)])
    assert scale.low < scale.high
    assert not scale.log or scale.low > 0
    place = scale.place(values)
    assert np.array_equal(np.isfinite(place), np.isfinite(values))
    seen = place[np.isfinite(place)]
    assert ((seen >= 0) & (seen <= 1)).all()
    order = np.argsort(values[np.isfinite(values)], kind="stable")
    assert (np.diff(seen[order]) >= -1e-12).all()


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.booleans())
def test_place_and_value_undo_each_other(low, span, log):
    scale = Scale(abs(low) + 1e-3, abs(low) + span + 1e-3, True) if log else Scale(low, low + span)
    places = np.linspace(0, 1, 11)
    assert np.allclose(scale.place(scale.value(places)), places, atol=1e-6)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(1, 9))
def test_ticks_are_round_few_and_inside(low, span, most):
    high = low + span
    assume(span > 1e-9 * max(abs(low), abs(high)))
    ticks = round_ticks(low, high, most)
    assert len(ticks) <= most
    slack = 1e-6 * span
    assert all(low - slack <= t <= high + slack for t in ticks)
    if len(ticks) > 2:
        assert np.allclose(np.diff(ticks), ticks[1] - ticks[0], rtol=1e-3)


@pytest.mark.parametrize(
    ("scale", "labels"),
    [
        (Scale(0.0, 2.4), ["0", "0.5", "1", "1.5", "2"]),
        (Scale(0.008, 3.0, True), ["0.01", "0.1", "1"]),
        (Scale(1e-12, 1e9, True), ["1e-12", "1e-7", "0.01", "1,000", "1e8"]),
    ],
)
def test_ticks_read_well(scale, labels):
    assert [scale.label(t) for t in scale.ticks(5)] == labels


@given(ANY)
def test_the_trend_stays_inside_the_axis_and_keeps_gaps(values):
    scale = fit([series(values)])
    smooth = trend(values, scale)
    assert np.array_equal(np.isfinite(smooth), np.isfinite(values))
    place = scale.place(smooth)[np.isfinite(smooth)]
    assert ((place >= 0) & (place <= 1)).all()


def test_the_trend_follows_through_noise_and_spikes_without_lag():
    t = np.linspace(0, 1, 8000)
    level = 1 + np.exp(-5 * t)
    values = level + np.random.default_rng(0).normal(0, 0.2, 8000)
    values[::997] = 1e200
    smooth = trend(values, fit([series(values)]))
    inner = slice(400, -400)
    assert np.abs(smooth - level)[inner].max() < 0.08
    assert abs((smooth - level)[inner].mean()) < 0.02


def test_the_trend_keeps_the_first_value_but_not_a_noisy_last_one():
    values = np.ones(4000)
    values[:200], values[-1] = 2.0, 2.0
    smooth = trend(values, fit([series(values)]))
    assert smooth[0] == pytest.approx(2)
    assert smooth[-1] < 1.05


@given(arrays(np.float64, st.integers(0, 3000), elements=st.floats(width=32)), st.integers(4, 500))
def test_thinning_keeps_ends_and_extremes(values, most):
    steps = np.arange(len(values)) * 3
    kept_steps, kept = thin(steps, values, most)
    assert len(kept) == len(kept_steps) <= max(most, 4)
    assert (np.diff(kept_steps) > 0).all()
    finite = values[np.isfinite(values)]
    if len(values):
        assert (kept_steps[0], kept_steps[-1]) == (steps[0], steps[-1])
    if len(finite):
        seen = kept[np.isfinite(kept)]
        assert (seen.min(), seen.max()) == (finite.min(), finite.max())


def test_thinning_a_long_curve():
    values = np.random.default_rng(0).normal(size=1_000_000)
    steps, kept = thin(np.arange(1_000_000), values)
    assert len(kept) <= MOST
    assert np.array_equal(kept, values[steps])


@given(arrays(np.float64, st.integers(0, 200), elements=st.sampled_from([1.0, np.nan, np.inf])))
def test_gaps_cover_all_that_is_not_finite_and_begin_and_end_there(values):
    curve = series(values)
    bad = set(curve.steps[~np.isfinite(values)].tolist())
    found = gaps(curve)
    assert bad <= {s for a, b in found for s in range(a, b + 1)}
    assert all(a in bad and b in bad for a, b in found)
    assert all(b < c for (_, b), (c, _) in itertools.pairwise(found))


def test_scattered_gaps_do_not_add_up_to_thousands():
    values = np.ones(100_000)
    values[::7] = np.nan
    assert len(gaps(series(values))) <= 100
