"""A thinned series must show whatever the whole one shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradwise.recording.downsample import envelope
from gradwise.recording.recording import Series

values_of = hnp.arrays(np.float64, st.integers(1, 400), elements=st.floats())
rows_of = hnp.arrays(np.float64, st.tuples(st.integers(1, 100), st.integers(1, 4)), elements=st.floats())


@given(st.one_of(values_of, rows_of), st.integers(4, 60))
def test_points_are_picked_with_the_ends_and_the_extremes(values: np.ndarray, most: int) -> None:
    labels = tuple(str(i) for i in range(values.shape[1])) if values.ndim == 2 else ()
    steps = np.arange(len(values)) * 3
    few = envelope(Series(steps, values, labels), most)
    assert len(few) <= max(most, 1)
    assert few.labels == labels
    assert (np.diff(few.steps) > 0).all()
    np.testing.assert_array_equal(few.values, values[few.steps // 3])
    assert few.steps[0] == steps[0]
    assert few.steps[-1] == steps[-1]
    assert np.isnan(few.values).any() == np.isnan(values).any()
    finite = values[~np.isnan(values).any(axis=-1)] if values.ndim == 2 else values[~np.isnan(values)]
    if len(finite) == len(values):
        assert few.values.max() == values.max()
        assert few.values.min() == values.min()


@given(st.integers(20, 400), st.integers(10, 60), st.data())
def test_every_stretch_keeps_its_spike(n: int, most: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, n - 1))
    values = np.sin(np.arange(n))
    values[at] = -50.0
    few = envelope(Series(np.arange(n), values), most)
    assert at in few.steps


def test_a_short_series_is_left_alone() -> None:
    series = Series(np.arange(4), np.zeros(4))
    assert envelope(series, 4) is series


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4, got 3"):
        envelope(Series(np.arange(9), np.zeros(9)), 3)
