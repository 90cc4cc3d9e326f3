"""What a Plotly figure shows, read back as plain numbers: for pictures that need no browser.

Understands what most figures are made of: scatter traces (lines, markers, filled outlines, error bars) and bars, on
linear, logarithmic and category axes, in one panel or several.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwise.curves import Scale, round_ticks
from gradwise.figures import COLOURS
from gradwise.legible import number
from gradwise.recording.recording import Floats

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Drawn:
    """One trace in numbers; categories are counted from 0.

    Args:
        name: for the legend; "" where it has no entry there.
        kind: "line", "points", "both", "bars" or "area".
        x: where.
        y: how high; NaN is a gap.
        colour: as CSS.
        dash: Plotly's name of it.
        width: of the line.
        opacity: of all of it.
        low: lower ends of error bars, or None.
        high: upper ends of error bars, or None.
    """

    name: str
    kind: str
    x: Floats
    y: Floats
    colour: str
    dash: str = "solid"
    width: float = 2.0
    opacity: float = 1.0
    low: Floats | None = None
    high: Floats | None = None


@dataclass(frozen=True)
class Axis:
    """One axis: its title, whether it is logarithmic, its categories or none, and its range as values."""

    title: str
    log: bool
    categories: tuple[str, ...]
    low: float
    high: float

    def place(self, values: Floats) -> Floats:
        """From values to [0, 1]; beyond it where they lie outside, NaN where they can't be shown."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.log:
                ends = np.log10([self.low, self.high])
                values = np.log10(np.where(values > 0, values, np.nan))
            else:
                ends = np.array([self.low, self.high])
            return np.asarray((values - ends[0]) / (ends[1] - ends[0]))

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """Where to write what."""
        if self.categories:
            return [(float(k), name) for k, name in enumerate(self.categories)]
        scale = Scale(self.low, self.high, self.log)
        at = scale.ticks(most) if self.log else round_ticks(self.low, self.high, most)
        return [(tick, scale.label(tick) if self.log else number(tick)) for tick in at]


@dataclass(frozen=True)
class Panel:
    """One pair of axes with what is drawn on it, notes included."""

    x: Axis
    y: Axis
    traces: Sequence[Drawn]
    title: str = ""
    # Where it lies in the figure, from the lower left, as parts of width and height.
    domain: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 1.0)


@dataclass(frozen=True)
class Plot:
    """A whole figure: its panels, and what was in it that is not understood."""

    panels: Sequence[Panel]
    notes: Sequence[str] = ()
    omitted: Sequence[str] = field(default=())


def read(figure: go.Figure) -> Plot:
    """A figure in plain numbers."""
    layout = figure.layout
    grouped: dict[tuple[str, str], list[Any]] = {}
    omitted = []
    for trace in figure.data:
        if trace.type not in ("scatter", "scattergl", "bar"):
            omitted.append(trace.type)
        elif trace.visible not in (False, "legendonly"):
            grouped.setdefault((trace.xaxis or "x", trace.yaxis or "y"), []).append(trace)
    notes = [str(a.text) for a in layout.annotations if a.text and a.xref == "paper" and a.yref == "paper"]
    panels = []
    titles = [n for n in notes if len(grouped) > 1]
    colours = list(layout.colorway or COLOURS)
    for k, ((x, y), traces) in enumerate(grouped.items()):
        xaxis, yaxis = (layout[name[0] + "axis" + name[1:]] for name in (x, y))
        domain = (*(xaxis.domain or (0, 1)), *(yaxis.domain or (0, 1)))
        title = titles[k] if len(titles) >= len(grouped) else ""
        panels.append(_panel(traces, xaxis, yaxis, colours, title, domain))
    used = {p.title for p in panels}
    return Plot(panels, [n for n in notes if n not in used], omitted)


def _panel(traces: Sequence[Any], xaxis: Any, yaxis: Any, colours: Sequence[str], title: str, domain: Any) -> Panel:
    x_names, y_names = (_categories(traces, key, axis) for key, axis in (("x", xaxis), ("y", yaxis)))
    grouped = len({t.offsetgroup for t in traces if t.offsetgroup} | {k for k, t in enumerate(traces) if _bar(t)})
    drawn, turn = [], 0
    for k, trace in enumerate(traces):
        own = _drawn(trace, x_names, y_names, colours[k % len(colours)])
        if x_names and (trace.offsetgroup or _bar(trace)) and grouped > 1:
            shift = (turn - (grouped - 1) / 2) * 0.7 / grouped
            own = Drawn(**{**vars(own), "x": own.x + shift})
            turn += 1
        drawn.append(own)
    return Panel(_axis(xaxis, drawn, "x", x_names), _axis(yaxis, drawn, "y", y_names), drawn, title, domain)


def _bar(trace: Any) -> bool:
    return bool(trace.type == "bar")


def _drawn(trace: Any, x_names: Sequence[str], y_names: Sequence[str], colour: str) -> Drawn:
    x, y = _values(trace.x, x_names), _values(trace.y, y_names)
    if trace.x is None:
        x = np.arange(len(y), dtype=np.float64)
    mode = trace.mode or "lines+markers" if not _bar(trace) else "bars"
    fill = not _bar(trace) and trace.fill == "toself"
    kind = "area" if fill else "bars" if _bar(trace) else "line" if "markers" not in mode else "points"
    if kind == "points" and "lines" in mode:
        kind = "both"
    line = None if _bar(trace) else trace.line
    seen = trace.fillcolor if fill else (line.color if line is not None and line.color and kind != "points" else None)
    seen = seen or (trace.marker.color if isinstance(trace.marker.color, str) else None) or colour
    low, high = _errors(trace, y)
    return Drawn(
        name=str(trace.name or "") if trace.showlegend is not False else "", kind=kind, x=x, y=y, colour=seen,
        dash=(line.dash if line is not None else None) or "solid",
        width=float(line.width) if line is not None and line.width is not None else 2.0,
        opacity=float(trace.opacity) if trace.opacity is not None else 1.0, low=low, high=high,
    )  # fmt: skip


def _errors(trace: Any, y: Floats) -> tuple[Floats | None, Floats | None]:
    bars = trace.error_y
    if bars is None or bars.array is None or not len(bars.array):
        return None, None
    up = np.asarray([math.nan if v is None else v for v in bars.array], np.float64)
    down = bars.arrayminus if bars.arrayminus is not None and bars.symmetric is False else bars.array
    return y - np.asarray([math.nan if v is None else v for v in down], np.float64), y + up


def _categories(traces: Sequence[Any], key: str, axis: Any) -> tuple[str, ...]:
    """The names on an axis in order of appearance; none where it has numbers."""
    values = [v for t in traces for v in (t[key] if t[key] is not None else ())]
    if axis.type != "category" and not any(isinstance(v, str) for v in values):
        return ()
    return tuple(dict.fromkeys(map(str, values)))


def _values(values: Any, names: Sequence[str]) -> Floats:
    if values is None:
        return np.array([])
    if names:
        return np.array([names.index(str(v)) for v in values], np.float64)
    return np.array([math.nan if v is None else float(v) for v in values], np.float64)


def _axis(axis: Any, traces: Sequence[Drawn], key: str, names: tuple[str, ...]) -> Axis:
    title, log = str(axis.title.text or ""), axis.type == "log"
    if names:
        return Axis(title, False, names, -0.6, len(names) - 0.4)
    if axis.range is not None and None not in axis.range:
        low, high = (10.0 ** float(v) if log else float(v) for v in axis.range)
        return Axis(title, log, (), *sorted((low, high)))
    values = np.concatenate([getattr(t, key) for t in traces] + ([e for t in traces for e in (t.low, t.high)
                             if e is not None] if key == "y" else []) + [np.array([])])  # fmt: skip
    values = values[np.isfinite(values) & ((values > 0) | (not log))]
    bars = any(t.kind == "bars" for t in traces) and key == "y"
    if not len(values):
        return Axis(title, log, (), 0.1, 1.0) if log else Axis(title, log, (), 0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    if log:
        room = (high / low) ** 0.04 if high > low else 2.0
        return Axis(title, True, (), low / room, high * room)
    low, high = (min(low, 0.0), max(high, 0.0)) if bars or axis.rangemode == "tozero" else (low, high)
    room = 0.04 * (high - low) or abs(high) * 0.1 or 1.0
    if key == "x":
        room = 0.0 if high > low and all(t.kind in ("line", "area") for t in traces) else room
    return Axis(title, False, (), low if bars and low == 0 else low - room, high + room)
