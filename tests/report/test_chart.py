import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from samples import falling, recording

from gradwise.report.chart import loss_chart


def rows(run, **options) -> list[str]:
    return [line.plain for line in loss_chart(run, **options)]


def cells(lines: list[str], characters: str) -> list[tuple[int, int]]:
    return [(y, x) for y, line in enumerate(lines) for x, c in enumerate(line) if c in characters]


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float64, st.integers(1, 400), elements=st.floats(width=64)),
    st.lists(st.floats(width=64), max_size=5),
    st.integers(40, 120),
    st.integers(4, 20),
    st.booleans(),
)
def test_any_curve_fits_its_frame(loss, validation, width, height, ascii_only):
    run = recording(loss, validation or None)
    lines = loss_chart(run, width=width, height=height, ascii_only=ascii_only, marks=[(len(loss) // 2, "here")])
    if not np.isfinite(np.concatenate((loss, validation))).any():
        assert lines == []
        return
    assert all(line.cell_len <= width for line in lines)
    assert len(lines) >= height + 3
    assert not ascii_only or all(line.plain.isascii() for line in lines)


def test_a_falling_loss_falls_on_the_chart():
    lines = rows(recording(np.linspace(5, 1, 400)), height=10, ascii_only=True)
    line = cells(lines[:10], "*")
    top, bottom = min(line, key=lambda c: c[1]), max(line, key=lambda c: c[1])
    assert top[0] <= 1
    assert bottom[0] >= 7
    heights = [y for y, _ in sorted(line, key=lambda c: c[1])]
    assert heights == sorted(heights)


def test_the_axes_carry_numbers():
    text = "\n".join(rows(recording(falling())))
    assert all(label in text for label in ("0.5 ┤", "1 ┤", "2 ┤", "0 ┤", "200", "600", "step"))


def test_over_two_decades_the_labels_are_powers_of_ten():
    text = "\n".join(rows(recording(np.geomspace(100, 1e-4, 500))))
    assert all(f"{label} ┤" in text for label in ("100", "1", "0.01", "1e-4"))


def test_what_is_not_finite_is_hatched_and_named():
    loss = falling(400)
    loss[300:] = np.nan
    lines = rows(recording(loss), width=80, height=8)
    hatched = {x for _, x in cells(lines[:8], "╱")}
    width = len(lines[0])
    assert min(hatched) == pytest.approx(0.75 * width, abs=4)
    assert max(hatched) >= width - 2
    assert "not finite from step 300" in lines[-1]


def test_validation_losses_stand_where_they_were_measured():
    lines = rows(recording(np.full(400, 2.0), [1.0, 1.5, 1.0]), height=10, width=80)
    points = sorted(cells(lines[:10], "●"), key=lambda c: c[1])
    assert len(points) == 3
    assert points[1][0] < points[0][0] == points[2][0]
    assert "● validation" in "\n".join(lines[10:])


def test_marks_point_at_their_step():
    lines = rows(recording(falling(101)), width=80, marks=[(50, "late-divergence")])
    base = next(line for line in lines if "▲" in line)
    start = base.index("└") + 1
    assert (base.index("▲") - start) / (len(base) - start) == pytest.approx(0.5, abs=0.03)
    assert "▲ late-divergence, step 50" in lines[-1]


def test_a_spike_off_the_axis_is_told():
    loss = np.full(5000, 2.0) + np.random.default_rng(0).normal(0, 0.1, 5000)
    loss[2000] = 4e6
    lines = rows(recording(loss))
    assert "peak 4,000,000" in lines[-1]
    assert "4,000,000" not in "\n".join(lines[:-1])


def test_the_trend_is_not_dimmed_with_the_axis():
    line = loss_chart(recording(falling()))[0]
    styles = [str(s.style) for s in line.spans]
    assert not line.style
    assert styles[0] == "dim"
    assert "cyan" in styles


@pytest.mark.parametrize("loss", [[1.0], [2.0] * 5, [np.nan, 1.0], [-1e300, 1e300], [0.0, 0.0]])
def test_odd_curves_are_drawn(loss):
    assert cells(rows(recording(loss), ascii_only=True), "*")


def test_nothing_finite_gives_no_chart():
    assert rows(recording([])) == rows(recording([np.nan, np.inf])) == []
