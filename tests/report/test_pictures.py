"""Figures without a browser: read back from Plotly, as SVG and in characters."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.subplots import make_subplots

from gradwise.report.picture import still
from gradwise.report.plots import read
from gradwise.report.sketch import sketch

SVG = "{http://www.w3.org/2000/svg}"


def lines() -> go.Figure:
    figure = go.Figure(layout={"xaxis": {"title": "epoch"}, "yaxis": {"title": "loss"}})
    figure.add_scatter(x=[0, 5, 10], y=[0.0, 5.0, 10.0], name="up & <away>", mode="lines", line={"color": "#123456"})
    figure.add_scatter(x=[0, 5, 10], y=[10.0, None, 0.0], name="broken", mode="lines+markers", line={"dash": "dash"})
    return figure


def drawn(figure: go.Figure) -> ET.Element:
    return ET.fromstring(still(figure, "A < title"))


def test_lines_are_where_their_values_are() -> None:
    root = drawn(lines())
    paths = [p for p in root.iter(f"{SVG}path") if p.get("stroke") == "#123456"]
    (x0, y0), (x1, y1), (x2, y2) = (
        (float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", paths[0].get("d", ""))
    )
    assert x0 < x1 < x2
    assert y0 > y1 > y2, "up is up"
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1)
    assert y1 == pytest.approx((y0 + y2) / 2, abs=0.1)
    ticks = {t.text: (float(t.get("x", 0)), float(t.get("y", 0))) for t in root.iter(f"{SVG}text")}
    assert ticks["10"], "the axis says where 10 is"
    assert root.get("aria-label") == "A < title"


def test_a_gap_is_a_gap_and_a_name_is_only_text() -> None:
    text = still(lines(), "t")
    assert "up &amp; &lt;away&gt;" in text
    broken = next(p for p in drawn(lines()).iter(f"{SVG}path") if p.get("stroke-dasharray"))
    assert broken.get("d", "").count("M") == 2, "the pen is lifted where there is no value"
    assert len(list(drawn(lines()).iter(f"{SVG}circle"))) == 2
    assert "nan" not in text


def test_logarithmic_axes() -> None:
    figure = go.Figure(layout={"yaxis": {"type": "log"}, "xaxis": {"type": "log"}})
    figure.add_scatter(x=[1, 10, 100], y=[1e-4, 1e-2, 0.0], mode="lines", name="a")
    (panel,) = read(figure).panels
    assert panel.y.log
    assert panel.y.place(np.array([1e-4, 1e-3, 1e-2])) == pytest.approx([0.0, 0.5, 1.0], abs=0.1)
    assert np.isnan(panel.y.place(np.array([0.0]))).all(), "zero has no place on it"
    assert [label for _, label in panel.x.ticks(5)] == ["1", "10", "100"]


def test_bars_and_intervals_over_categories() -> None:
    figure = go.Figure()
    figure.add_bar(x=["a", "b"], y=[2.0, -1.0], name="bars")
    bars = {"type": "data", "symmetric": False, "array": [1, 1], "arrayminus": [0.5, 0.5]}
    figure.add_scatter(x=["a", "b"], y=[1.0, 2.0], mode="markers", name="dots", error_y=bars)
    (panel,) = read(figure).panels
    assert panel.x.categories == ("a", "b")
    assert panel.traces[1].low is not None
    assert panel.traces[1].high is not None
    assert (*panel.traces[1].low, *panel.traces[1].high) == (0.5, 1.5, 2.0, 3.0)
    assert panel.y.low < -1
    assert panel.y.high > 3
    root = drawn(figure)
    rects = [r for r in root.iter(f"{SVG}rect") if r.get("fill")]
    assert float(rects[0].get("height", 0)) == pytest.approx(2 * float(rects[1].get("height", 0)), abs=0.2)
    zero = float(rects[0].get("y", 0)) + float(rects[0].get("height", 0))
    assert float(rects[1].get("y", 0)) == pytest.approx(zero, abs=0.2), "one grows up, one down"


def test_several_panels_keep_apart() -> None:
    figure = make_subplots(rows=1, cols=2, subplot_titles=["left one", "right one"])
    figure.add_scatter(x=[0, 1], y=[0, 1], row=1, col=1, name="a", mode="lines")
    figure.add_scatter(x=[0, 1], y=[0, 100], row=1, col=2, name="b", mode="lines")
    left, right = read(figure).panels
    assert (left.title, right.title) == ("left one", "right one")
    assert left.domain[1] < right.domain[0]
    xs = [[float(x) for x in re.findall(r"[ML]([\d.]+) ", p.get("d", ""))] for p in drawn(figure).iter(f"{SVG}path")]
    assert max(xs[0]) < min(xs[1])


def test_what_is_not_drawn_is_said() -> None:
    figure = lines()
    figure.add_contour(z=[[1, 2], [3, 4]])
    figure.add_annotation(text="quick form", xref="paper", yref="paper", x=1, y=1)
    assert read(figure).omitted == ["contour"]
    assert "quick form · not drawn here: contour" in still(figure, "t")


def test_an_empty_figure_is_drawn_too() -> None:
    assert drawn(go.Figure()).tag == f"{SVG}svg"
    figure = go.Figure()
    figure.add_scatter(x=[1.0], y=[float("nan")], mode="lines")
    assert drawn(figure).tag == f"{SVG}svg"


def test_a_sketch_shows_the_lines() -> None:
    text = [line.plain for line in sketch(lines(), width=60, height=8, ascii_only=True)]
    assert all(len(line) <= 60 for line in text)
    body = text[:8]
    assert "*" in body[0][40:], "it ends at the top right"
    assert "*" in body[-1][:25], "and begins at the bottom left"
    assert "epoch" in text[9]
    assert "** up & <away>  oo broken" in text[10]
    braille = "".join(line.plain for line in sketch(lines(), width=60))
    assert any(0x2800 < ord(c) < 0x2900 for c in braille)


def test_no_sketch_without_lines_over_numbers() -> None:
    figure = go.Figure()
    figure.add_bar(x=["a"], y=[1.0])
    assert sketch(figure) == []
    figure = go.Figure()
    figure.add_scatter(x=["a", "b"], y=[1.0, 2.0], mode="lines")
    assert sketch(figure) == []
