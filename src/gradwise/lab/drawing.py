"""The two pictures that most experiments need: lines with what the seeds spread, and means with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwise.figures import COLOURS, DASHES, TEMPLATE
from gradwise.lab.statistics import estimate

if TYPE_CHECKING:
    import plotly.graph_objects as go

# From seed to values; every seed of a line has the same x.
BySeed = Sequence[Sequence[float]]


def axes(x: str, y: str, **layout: Any) -> go.Figure:
    """An empty figure in the look that all have, with titles for its axes."""
    import plotly.graph_objects as go

    titles = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}
    return go.Figure(layout={"template": TEMPLATE, **titles, **layout})


def lines(
    x: str, y: str, drawn: Mapping[str, tuple[Sequence[float], BySeed]], *, log_x: bool = False, log_y: bool = False
) -> go.Figure:
    """A line per name, the median over seeds; the shade reaches from the lowest to the highest seed.

    Args:
        x: title of the axis.
        y: title of the axis.
        drawn: name -> (x values, values by seed). NaN is a gap.
        log_x: whether x is logarithmic.
        log_y: whether y is; what isn't positive is then left out.
    """
    figure = axes(x, y)
    for k, (name, (at, seeds)) in enumerate(drawn.items()):
        values = np.array(seeds, dtype=float)
        if log_y:
            values = np.where(values > 0, values, np.nan)
        seen = ~np.isnan(values).all(axis=0)
        places, values = np.asarray(at, dtype=float)[seen], values[:, seen]
        low, middle, high = (f(values, axis=0) for f in (np.nanmin, np.nanmedian, np.nanmax))
        colour = COLOURS[k % len(COLOURS)]
        if len(values) > 1:
            figure.add_scatter(
                x=np.concatenate([places, places[::-1]]), y=np.concatenate([high, low[::-1]]), mode="lines",
                fill="toself", fillcolor=colour, opacity=0.15, line={"width": 0}, hoverinfo="skip", showlegend=False,
                legendgroup=name,
            )  # fmt: skip
        line = {"color": colour, "width": 2, "dash": DASHES[k // len(COLOURS) % len(DASHES)]}
        figure.add_scatter(
            x=places, y=middle, name=name, mode="lines", line=line, legendgroup=name, hovertemplate="%{y:.3g}",
            showlegend=True,
        )  # fmt: skip
    if log_x:
        figure.update_xaxes(type="log", dtick="D2", tickformat=None, hoverformat=".3g")
    if log_y:
        figure.update_yaxes(type="log")
    return figure


def dots(y: str, drawn: Mapping[str, Mapping[str, Sequence[float]]], *, log_y: bool = False) -> go.Figure:
    """Means with their 95 % intervals over the seeds: a colour per name, a place per category.

    Args:
        y: title of the axis.
        drawn: name -> category -> a value per seed.
        log_y: whether y is logarithmic; means are then geometric, and what isn't positive is left out.
    """
    figure = axes("", y, hovermode="closest", scattermode="group")
    for k, (name, categories) in enumerate(drawn.items()):
        found = {}
        for category, values in categories.items():
            kept = [float(np.log10(v)) if log_y else v for v in values if v > 0 or not log_y]
            if kept:
                found[category] = estimate(kept)
        middle = [10**e.mean if log_y else e.mean for e in found.values()]
        # One seed has no interval; a bar to infinity would only spoil the axis.
        ends = [(e.low, e.high) if e.n > 1 else (e.mean, e.mean) for e in found.values()]
        low, high = ([10**v if log_y else v for v in side] for side in zip(*ends, strict=True)) if ends else ([], [])
        figure.add_scatter(
            x=list(found), y=middle, name=name, mode="markers", offsetgroup=name, showlegend=True,
            marker={"size": 9, "color": COLOURS[k % len(COLOURS)]}, hovertemplate="%{y:.3g}",
            error_y={
                "type": "data", "symmetric": False, "width": 4,
                "array": [h - m for h, m in zip(high, middle, strict=True)],
                "arrayminus": [m - v for v, m in zip(low, middle, strict=True)],
            },
        )  # fmt: skip
    figure.update_xaxes(tickformat=None, hoverformat=None, type="category")
    if log_y:
        figure.update_yaxes(type="log")
    return figure
