"""Pictures of a race: the map from above with the racers on their way, and how deep each has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwise.figures import BLUE, CYAN, MAGENTA, ORANGE, RED, TEAL, TEMPLATE
from gradwise.lab.race import GIVEN, RANGE_TEST, TEXTBOOK, Floats, Lane, Race
from gradwise.legible import number

if TYPE_CHECKING:
    import plotly.graph_objects as go

INK = "#7f7f7f"
FRAMES = 100
"""At most so many pictures of an animation; of a longer race every second, third, … step is shown."""

_OLIVE, _PURPLE = "#999933", "#8866CC"
# Warm for rules with one rate, cool for those with a rate for each parameter; shapes tell apart what colours don't.
_WARM, _COOL = (RED, ORANGE, MAGENTA), (BLUE, CYAN, TEAL, _OLIVE, _PURPLE)
_PLAIN = ("sgd", "momentum", "nesterov", "asgd", "schedule-free-sgd")
SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "star", "x", "cross", "pentagon")
_COLUMNS, _ROWS = 100, 80  # of the relief
_MILLISECONDS = 70
_DEEPEST = 1e-4  # of the way from the goal to the lowest, where the lower panel ends


@dataclass(frozen=True)
class Field:
    """The lanes shown in one picture, under what they have in common."""

    title: str
    lanes: tuple[Lane, ...]


def fields(race: Race) -> list[Field]:
    """The race at the rates that range tests found, and again at textbooks' rates; rates given by hand are in both."""
    given = tuple(lane for lane in race.lanes if lane.how == GIVEN)
    if len(given) == len(race.lanes):
        return [Field("at the rates given", given)]
    ways = ((RANGE_TEST, "at the rates that range tests find"), (TEXTBOOK, "at textbooks' rates"))
    return [
        Field(title, tuple(lane for lane in race.lanes if lane.how in (way, GIVEN)))
        for way, title in ways
        if any(lane.how == way for lane in race.lanes)
    ]


def looks(race: Race) -> dict[str, tuple[str, str]]:
    """A colour and a shape for each rule of a race."""
    rules = list(dict.fromkeys(lane.rule for lane in race.lanes))
    found: dict[str, tuple[str, str]] = {}
    for colours, shape, group in (
        (_WARM, 0, [rule for rule in rules if rule in _PLAIN]),
        (_COOL, len(_WARM), [rule for rule in rules if rule not in _PLAIN]),
    ):
        for place, rule in enumerate(group):
            found[rule] = colours[place % len(colours)], SHAPES[(place + shape) % len(SHAPES)]
    return found


def shown_steps(steps: int, most: int = FRAMES) -> list[int]:
    """The steps of which there is a picture; the first and the last among them."""
    stride = -(-steps // most)
    return [*range(0, steps, stride), steps]


def result(lane: Lane, race: Race) -> str:
    """How far a lane's first racer came, in a few words."""
    arrived = lane.arrivals(race.goal)[0]
    if arrived is not None:
        return f"{arrived:,} steps"
    return "off the map" if lane.left[0] is not None else "not there yet"


def relief(race: Race, columns: int = _COLUMNS, rows: int = _ROWS) -> tuple[Floats, Floats, Floats]:
    """The map's x and y, and its heights from 0 to 1: logarithmic where most of it lies far below its peaks."""
    x, y, heights = (values.numpy() for values in race.surface.grid(columns, rows))
    finite = heights[np.isfinite(heights)]
    low, middle, high = float(finite.min()), float(np.median(finite)), float(finite.max())
    above = np.where(np.isfinite(heights), heights, high) - low
    if high - low > 8 * (middle - low) > 0:
        above = np.log1p(above / (0.01 * (middle - low)))
    return x, y, above / max(float(above.max()), 1e-300)


def race_figure(race: Race, field: Field) -> go.Figure:
    """The race as an animation: above the map, below how high each racer still is; with a button and a slider.

    Args:
        race: the race.
        field: which of its lanes; of each the first seed is shown.

    Example:
        >>> from gradwise.lab.race import race
        >>> from gradwise.lab.surfaces import SURFACES
        >>> over = race(SURFACES["ravine"], ["sgd", "adam"], rates={"sgd": 0.01, "adam": 0.1}, steps=20)
        >>> figure = race_figure(over, fields(over)[0])
        >>> len(figure.frames)
        21
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, row_heights=[0.7, 0.3], vertical_spacing=0.09)
    steps, styles = shown_steps(race.steps), looks(race)
    _ground(figure, race)
    for lane in field.lanes:
        colour, _ = styles[lane.rule]
        common: dict[str, Any] = {"legendgroup": lane.rule, "name": _named(lane, race), "showlegend": False}
        line = {"color": colour, "width": 1.6}
        x, y = _drawn(lane, race.steps)
        figure.add_scatter(x=x, y=y, mode="lines", line=line, opacity=0.35, hoverinfo="skip", row=1, col=1, **common)
        figure.add_scatter(
            x=np.arange(race.steps + 1), y=_depth(lane, race), mode="lines", line=line, opacity=0.75,
            hovertemplate="%{y:.3g}", row=2, col=1, **common,
        )  # fmt: skip
    still = len(figure.data)
    for lane in field.lanes:
        colour, shape = styles[lane.rule]
        head = {"color": colour, "size": 12, "symbol": shape, "line": {"color": "white", "width": 1.2}}
        common = {"legendgroup": lane.rule, "name": _named(lane, race), "showlegend": False, "hoverinfo": "skip"}
        named = {**common, "showlegend": True}
        line = {"color": colour, "width": 2.2}
        figure.add_scatter(x=[], y=[], mode="lines", line=line, row=1, col=1, **common)
        figure.add_scatter(x=[], y=[], mode="markers", marker=head, row=1, col=1, **named)
        figure.add_scatter(x=[], y=[], mode="markers", marker={**head, "size": 9}, row=2, col=1, **common)
    moving = list(range(still, len(figure.data)))
    figure.frames = [
        go.Frame(name=str(k), data=_frame(field.lanes, race, k, go), traces=moving) for k in steps
    ]  # fmt: skip
    for at, first in zip(moving, figure.frames[0].data, strict=True):
        figure.data[at].x, figure.data[at].y = first.x, first.y
    _furnish(figure, race, steps)
    return figure


def _ground(figure: go.Figure, race: Race) -> None:
    """The map and its marks."""
    x, y, heights = relief(race)
    figure.add_contour(
        x=x, y=y, z=np.round(heights, 4), showscale=False, hoverinfo="skip", row=1, col=1,
        colorscale=[[0, "rgba(127,127,127,0.02)"], [1, "rgba(127,127,127,0.42)"]],
        contours={"start": 0.0, "end": 1.0, "size": 0.05}, line={"color": "rgba(127,127,127,0.45)", "width": 0.6},
    )  # fmt: skip
    surface = race.surface
    marks = [("start", [surface.start], "circle-open"), ("lowest", list(surface.minima), "star-open")]
    marks += [("saddle", [surface.saddle], "x-thin-open")] if surface.saddle else []
    for name, places, symbol in marks:
        if places:
            xs, ys = zip(*places, strict=True)
            marker = {"symbol": symbol, "size": 13, "color": INK, "line": {"width": 2}}
            figure.add_scatter(x=xs, y=ys, mode="markers", marker=marker, name=name, hoverinfo="name+x+y", row=1, col=1)


def _named(lane: Lane, race: Race) -> str:
    return f"{lane.rule} · {number(lane.lr, 2)} · {result(lane, race)}"


def _frame(lanes: Sequence[Lane], race: Race, step: int, go: Any) -> list[Any]:
    """What moves, at one step: for each lane its trail, its head, and its head in the lower panel."""
    made = []
    for lane in lanes:
        x, y = _drawn(lane, step)
        made.append(go.Scatter(x=x, y=y))
        made.append(go.Scatter(x=x[-1:], y=y[-1:]))
        made.append(go.Scatter(x=[step], y=[float(_depth(lane, race)[step])]))
    return made


def _drawn(lane: Lane, step: int) -> tuple[list[float], list[float]]:
    """The first racer's way up to a step, as exactly as a map shows it."""
    x, y = (np.round(lane.path[0, : step + 1, k], 3).tolist() for k in (0, 1))
    return x, y


def _bottom(race: Race) -> float | None:
    """What heights are measured from in the lower panel; None where it shows them as they are."""
    if race.surface.saddle is not None:
        return None
    if race.surface.minima:
        return race.surface.lowest
    return min(race.surface.lowest, *(float(lane.heights.min()) for lane in race.lanes))


def _depth(lane: Lane, race: Race) -> Floats:
    """How high the first racer still is, cut where the lower panel ends."""
    heights, bottom = lane.heights[0], _bottom(race)
    if bottom is None:
        return np.asarray(np.maximum(heights, 2 * race.goal - race.surface.height(race.surface.start)))
    return np.asarray(np.maximum(heights - bottom, _DEEPEST * (race.goal - bottom)))


def _furnish(figure: go.Figure, race: Race, steps: Sequence[int]) -> None:
    """Axes, the goal, the button and the slider."""
    surface, bottom = race.surface, _bottom(race)
    plain = {"tickformat": "~g", "hoverformat": ".3g"}
    figure.update_layout(
        template=TEMPLATE, height=720, hovermode="closest", margin={"l": 8, "r": 8, "t": 8, "b": 96},
        legend={"orientation": "v", "x": 1.01, "xanchor": "left", "y": 1.0, "yanchor": "top", "itemsizing": "constant"},
    )  # fmt: skip
    figure.update_xaxes(range=surface.x, row=1, col=1, **plain)
    figure.update_yaxes(range=surface.y, row=1, col=1, **plain)
    figure.update_xaxes(range=[0, race.steps], row=2, col=1, title_text="step")
    start = surface.height(surface.start)
    if bottom is None:
        ends = [2 * race.goal - start, 1.1 * start - 0.1 * race.goal]
        figure.update_yaxes(range=ends, row=2, col=1, title_text="f", **plain)
    else:
        ends = [float(np.log10(v)) for v in (_DEEPEST * (race.goal - bottom), 10 * (start - bottom))]
        figure.update_yaxes(type="log", range=ends, row=2, col=1, title_text="f − lowest")
    figure.add_hline(
        race.goal if bottom is None else race.goal - bottom, line={"color": INK, "width": 1, "dash": "dot"},
        annotation_text="goal", annotation_position="top right", row=2, col=1,
    )  # fmt: skip
    # Without redrawing, Plotly takes traces that it cannot animate, the relief, off the map.
    how = {
        "frame": {"duration": _MILLISECONDS, "redraw": True}, "transition": {"duration": 0}, "fromcurrent": True,
    }  # fmt: skip
    now = {"frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}, "mode": "immediate"}
    quiet = {"bgcolor": "rgba(127,127,127,0.14)", "bordercolor": "rgba(127,127,127,0.4)"}
    figure.update_layout(
        updatemenus=[{
            "type": "buttons", "direction": "left", "x": 0, "y": -0.11, "xanchor": "left", "yanchor": "top",
            "showactive": False, "pad": {"t": 0, "r": 8}, **quiet,
            "buttons": [
                {"label": "▶ Play", "method": "animate", "args": [None, how]},
                {"label": "Pause", "method": "animate", "args": [[None], now]},
            ],
        }],
        sliders=[{
            "x": 0.3, "y": -0.1, "len": 0.7, "pad": {"t": 0}, "yanchor": "top", **quiet, "activebgcolor": BLUE,
            "tickcolor": "rgba(127,127,127,0.5)", "ticklen": 3, "minorticklen": 0,
            "currentvalue": {"prefix": "step ", "xanchor": "left"},
            "steps": [{"label": str(k), "method": "animate", "args": [[str(k)], now]} for k in steps],
        }],
    )  # fmt: skip
