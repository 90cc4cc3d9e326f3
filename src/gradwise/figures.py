"""Every picture once, in Plotly, for report, notebook and dashboard alike.

One look (`TEMPLATE`): no background of its own, greys that read on light and dark, colours that the
colour-blind tell apart (Paul Tol's "vibrant"; cividis for depth). At most 2,000 points a trace: the lowest and
highest of each stretch. Plotly is imported only when a figure is made.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwise.curves import MOST, Scale, fit, gaps, ramp_ceiling, thin, trend
from gradwise.diagnosis.findings import Finding, Remedy
from gradwise.diagnosis.suggestion import Suggestion
from gradwise.legible import printable
from gradwise.recording.recording import Floats, Ints, Recording, Series
from gradwise.recording.signals import GRADIENT, LOSS, LR, PARAMETER, UPDATE, VALIDATION
from gradwise.schedules import Schedule

if TYPE_CHECKING:
    import plotly.graph_objects as go

BLUE, ORANGE, TEAL, RED, MAGENTA, CYAN = "#0077BB", "#EE7733", "#009988", "#CC3311", "#EE3377", "#33BBEE"
COLOURS = (BLUE, MAGENTA, TEAL, CYAN, RED)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")

_INK, _GRID = "#7f7f7f", "rgba(127,127,127,0.22)"
_AXIS = {
    "gridcolor": _GRID,
    "linecolor": _GRID,
    "zeroline": False,
    "ticks": "outside",
    "tickcolor": _GRID,
    "exponentformat": "power",
    "automargin": True,
}
TEMPLATE: dict[str, Any] = {
    "layout": {
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 13, "color": _INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": list(COLOURS),
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "xaxis": {**_AXIS, "tickformat": ",d", "hoverformat": ",d"},
        "yaxis": _AXIS,
        "hovermode": "x unified",
        "hoverlabel": {
            "namelength": 40,
            "bgcolor": "rgba(32,36,40,0.92)",
            "bordercolor": "rgba(0,0,0,0)",
            "font": {"color": "#f2f2f2", "size": 12},
        },
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": _INK, "activecolor": BLUE},
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0},
        "height": 340,
    }
}

_POINTS = 60_000
_FINE = 200_000
_LINES = 16
_HEAT_COLUMNS = 240
_HEAT_ROWS = 200


def loss_figure(recording: Recording, marks: Sequence[tuple[int, str]] = ()) -> go.Figure:
    """Training loss of every optimizer, as recorded and smoothed, and validation losses over the steps.

    Stretches that are not finite are shaded; `marks` are steps to point at, each with what is there.
    """
    figure = _figure("step", "loss")
    sources = list(recording.sources(LOSS))
    losses = [recording.get(LOSS, s) for s in sources]
    validations = [recording.get(VALIDATION, s) for s in recording.sources(VALIDATION)]
    scale = fit([*losses, *validations])
    for k, (source, loss) in enumerate(zip(sources, losses, strict=True)):
        name = "training loss" + (f" (optimizer {source})" if len(sources) > 1 else "")
        _draw_loss(figure, loss, scale, name, COLOURS[k % len(COLOURS)])
    for k, curve in enumerate(validations):
        name = "validation loss" + (f" {k + 1}" if len(validations) > 1 else "")
        figure.add_scatter(
            **_points(curve.steps, curve.values),
            name=name,
            mode="lines+markers",
            hovertemplate="%{y:.4g}",
            line={"color": ORANGE, "width": 1.5, "dash": DASHES[k % len(DASHES)]},
            marker={"size": 7},
        )
    for loss in losses:
        for start, end in gaps(loss):
            figure.add_vrect(
                start,
                max(end, start + 1),
                fillcolor=RED,
                opacity=0.15,
                line_width=0,
                annotation_text="not finite",
                annotation_position="inside bottom left",
            )
    last = max((int(loss.steps[-1]) for loss in losses), default=0)
    for k, (step, name) in enumerate(marks):
        figure.add_vline(
            step,
            line={"color": RED, "width": 1, "dash": "dot"},
            annotation_text=_label(name),
            annotation_position="top left" if step > last / 2 else "top right",
            annotation_yshift=-16 * k,
        )
    _scale_axis(figure, scale)
    return figure


def lr_figure(recording: Recording) -> go.Figure:
    """The learning rate of every parameter group as it was used."""
    figure = _figure("step", "learning rate", height=230)
    used = [(s, recording.get(LR, s)) for s in recording.sources(LR)]
    last = max((int(recording.get(LOSS, s).steps[-1]) for s in recording.sources(LOSS)), default=0)
    columns = [(s, k, c) for s, series in used for k, c in enumerate(_columns(series))]
    for n, (source, group, curve) in enumerate(columns):
        steps, values = thin(curve.steps, curve.values)
        if len(steps) and steps[-1] < last:  # recorded at each change only: the last rate held to the end
            steps, values = np.append(steps, last), np.append(values, values[-1])
        several = f"optimizer {source}, " if len(used) > 1 else ""
        figure.add_scatter(
            **_points(steps, values),
            name=f"{several}group {group}",
            mode="lines",
            hovertemplate="%{y:.4g}",
            line={"shape": "hv", "width": 2, "color": COLOURS[n % len(COLOURS)]},
            showlegend=len(columns) > 1,
        )
    _scale_axis(figure, fit([c for _, _, c in columns]))
    return figure


def norms_figure(recording: Recording, source: int = 0) -> go.Figure:
    """Norms of gradient, update and parameter of every tensor: lines, or a heat map where there are many."""
    names = {GRADIENT: "gradient norm", UPDATE: "update norm", PARAMETER: "parameter norm"}
    return _tensors([(recording.get(signal, source), name) for signal, name in names.items()])


def update_ratio_figure(recording: Recording, source: int = 0) -> go.Figure:
    """The size of each update against the size of what it updates, per tensor, on a logarithmic axis.

    Healthy training mostly stays between 1e-4 and 1e-1 (shaded); far outside, the rate is too low or too high.
    """
    update, parameter = recording.get(UPDATE, source), recording.get(PARAMETER, source)
    if not len(update) or not len(parameter):
        return _tensors([])
    norm = parameter.at(update.steps)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(norm > 0, update.values / norm, np.nan)
    figure = _tensors([(Series(update.steps, ratio, update.labels), "update / parameter")])
    if len(update.labels) <= _LINES:
        figure.add_hrect(1e-4, 1e-1, fillcolor=TEAL, opacity=0.08, line_width=0)
    return figure


def trials_figure(finding: Finding, remedy: Remedy, recordings: Sequence[Recording]) -> go.Figure:
    """Paired runs of a remedy: the loss as it is against the loss with the remedy, one dash style per seed.

    Args:
        finding: what the remedy is for; its optimizer's loss is drawn.
        remedy: its metric decides between validation and training loss.
        recordings: trial runs, told apart by `run.intervention` and `run.seed`; other remedies' are left out.
    """
    before, after = paired(remedy, recordings)
    wanted = remedy.metric == VALIDATION.name and all(r.sources(VALIDATION) for r in (*before, *after))
    signal = VALIDATION if wanted else LOSS
    figure = _figure("step", "validation loss" if wanted else "training loss")

    def curve(run: Recording) -> Series:
        sources = run.sources(signal)
        source = finding.source if not wanted and finding.source in sources else min(sources, default=0)
        return run.get(signal, source)

    scale = fit([curve(r) for r in (*before, *after)])
    seeds = sorted({r.run.seed or 0 for r in (*before, *after)})
    for runs, name, colour in ((before, "as it is", ORANGE), (after, remedy.intervention.describe(), BLUE)):
        for k, run in enumerate(runs):
            series = curve(run)
            seed = run.run.seed or 0
            values = series.values if wanted else trend(series.values, scale)
            figure.add_scatter(
                **_points(*thin(series.steps, values)),
                name=_label(name),
                legendgroup=name,
                showlegend=not k,
                mode="lines+markers" if wanted else "lines",
                marker={"size": 6},
                hovertemplate=f"%{{y:.4g}}, seed {seed}",
                line={"color": colour, "width": 2, "dash": DASHES[seeds.index(seed) % len(DASHES)]},
            )
    _scale_axis(figure, scale)
    return figure


def schedule_figure(*schedules: Schedule, steps: int | None = None, names: Sequence[str] = ()) -> go.Figure:
    """Schedules over the steps, each under the code that makes it.

    Args:
        schedules: at least one.
        steps: how many to draw; None is as far as the longest goes, and 1,000 if none of them ends.
        names: what to call them instead.

    Raises:
        ValueError: there is nothing to draw, or names are more or fewer than schedules.

    Example:
        >>> from gradwise.schedules import cosine, warmup
        >>> figure = schedule_figure(3e-4 * (warmup(500) >> cosine(10_000)))
        >>> len(figure.data), int(figure.data[0].x[-1])
        (1, 10500)
    """
    ends = [s.length for s in schedules if s.length]
    last = max(ends, default=1000) if steps is None else steps
    if not schedules or last < 1 or (names and len(names) != len(schedules)):
        raise ValueError(f"schedule_figure: {len(schedules)} schedules, {last} steps, {len(names)} names")
    grid = np.unique(np.linspace(0, last, min(last + 1, _FINE)).astype(np.int64))
    figure = _figure("step", "factor")
    for k, schedule in enumerate(schedules):
        figure.add_scatter(
            **_points(*thin(grid, schedule(grid))),
            name=_label(names[k] if names else repr(schedule)),
            mode="lines",
            hovertemplate="%{y:.4g}",
            line={"width": 2, "color": COLOURS[k % len(COLOURS)], "dash": DASHES[k // len(COLOURS) % len(DASHES)]},
            showlegend=True,
        )
    return figure


def range_figure(found: Suggestion) -> go.Figure:
    """A range test: the loss against the rate with the three phases, and where each run at a constant rate ended."""
    figure = _figure("learning rate", "loss")
    ceiling = ramp_ceiling(found.losses)
    losses = np.where(np.isfinite(found.losses), np.minimum(found.losses, ceiling), np.nan)
    smooth = found.phases.smooth[: len(losses)]
    line = {"color": BLUE, "width": 1}
    figure.add_scatter(x=found.rates, y=losses, name="ramp", mode="lines", opacity=0.45, line=line)
    if len(smooth) == len(found.rates):
        line = {"color": BLUE, "width": 2.5}
        y = np.minimum(smooth, ceiling)
        figure.add_scatter(x=found.rates, y=y, name="ramp, averaged", mode="lines", line=line)
    ends = [float(np.mean(run[-max(1, len(run) // 5) :])) for run in found.runs.values()]
    figure.add_scatter(
        x=list(found.runs), y=np.minimum(ends, ceiling), name="end of a run at a constant rate", mode="markers",
        marker={"color": ORANGE, "size": 9, "symbol": "diamond"},
    )  # fmt: skip
    edges = [found.phases.falls, found.phases.lowest]
    if found.rate is not None:
        figure.add_vrect(found.low, found.high, fillcolor=TEAL, opacity=0.15, line_width=0)
        figure.add_vline(found.rate, line={"color": TEAL, "width": 2}, annotation_text=f"{found.rate:.2g}")
    for rate in edges:
        if np.isfinite(rate):
            figure.add_vline(rate, line={"color": _INK, "width": 1, "dash": "dot"})
    figure.update_xaxes(type="log", tickformat=".0e", hoverformat=".3g")
    return figure


def spectrum_figure(grid: Floats, density: Floats) -> go.Figure:
    """The density of a Hessian's eigenvalues, what is negative in red; logarithmic, since what matters is rare.

    Args:
        grid: eigenvalues, ascending (`gradwise.curvature.SpectralDensity.grid`).
        density: how dense they lie there.

    Raises:
        ValueError: these are no two series of equal length.

    Example:
        >>> figure = spectrum_figure(np.array([-1.0, 0.0, 1.0]), np.array([0.1, 0.8, 0.1]))
        >>> [trace.name for trace in figure.data]
        ['falls', 'rises']
    """
    if grid.ndim != 1 or grid.shape != density.shape or not len(grid):
        raise ValueError(f"spectrum_figure: {grid.shape} eigenvalues, {density.shape} densities")
    figure = _figure("eigenvalue of the Hessian", "density")
    seen = np.maximum(density, 1e-6 * max(float(density.max()), 1e-300))
    for name, part, colour in (("falls", grid <= 0, RED), ("rises", grid >= 0, BLUE)):
        if part.any():
            line = {"color": colour, "width": 2}
            figure.add_scatter(x=grid[part], y=seen[part], name=name, mode="lines", line=line)
    figure.update_xaxes(tickformat=".3g", hoverformat=".3g")
    figure.update_yaxes(type="log", exponentformat="power")
    return figure


def paired(remedy: Remedy, trials: Sequence[Recording]) -> tuple[list[Recording], list[Recording]]:
    """The untouched runs and those of `remedy` among `trials`, each by rising seed."""
    wanted = remedy.intervention.to_json()
    by_seed = sorted(trials, key=lambda r: r.run.seed or 0)
    return (
        [r for r in by_seed if not r.run.intervention],
        [r for r in by_seed if r.run.intervention and dict(r.run.intervention) == wanted],
    )


def _figure(x: str, y: str, **layout: Any) -> go.Figure:
    import plotly.graph_objects as go

    axes = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}
    return go.Figure(layout={"template": TEMPLATE, **axes, **layout})


def _draw_loss(figure: go.Figure, loss: Series, scale: Scale, name: str, colour: str) -> None:
    steps, values = thin(loss.steps, loss.values)
    noisy = len(loss) > 100
    figure.add_scatter(
        **_points(steps, values),
        name=name,
        mode="lines",
        opacity=0.45 if noisy else 1,
        hovertemplate="%{y:.4g}",
        line={"color": colour, "width": 1 if noisy else 2},
        legendgroup=name,
    )
    if noisy:
        smooth = trend(loss.values, scale)
        figure.add_scatter(
            **_points(*thin(loss.steps, smooth, MOST // 2)),
            name=f"{name}, smoothed",
            mode="lines",
            line={"color": colour, "width": 2.5},
            hovertemplate="%{y:.4g}",
            legendgroup=name,
        )


def _tensors(panels: Sequence[tuple[Series, str]]) -> go.Figure:
    """One panel per series, one above the other: its tensors as lines shaded by depth, or rows of a heat map."""
    from plotly.subplots import make_subplots

    panels = [(s, t) for s, t in panels if s.labels]
    if not panels:
        return _figure("step", "")
    figure = make_subplots(rows=len(panels), shared_xaxes=True, vertical_spacing=0.04)
    many = max(len(s.labels) for s, _ in panels) > _LINES
    for row, (series, title) in enumerate(panels, 1):
        if many:
            _heat(figure, series, title, row, len(panels))
        else:
            _lines(figure, series, title, row, _POINTS // (len(panels) * len(series.labels)))
    figure.update_layout(template=TEMPLATE, height=60 + (220 if not many else 260) * len(panels))
    if many:
        figure.update_layout(hovermode="closest")
    figure.update_xaxes(title_text="step", row=len(panels), col=1)
    return figure


def _lines(figure: go.Figure, series: Series, title: str, row: int, budget: int) -> None:
    from plotly.colors import sample_colorscale

    # Light ends of the scale would vanish on a light page, dark ones on a dark page.
    shades = sample_colorscale("Cividis", np.linspace(0.15, 0.9, len(series.labels)).tolist())
    curves = _columns(series)
    for label, shade, curve in zip(series.labels, shades, curves, strict=True):
        figure.add_scatter(
            **_points(*thin(curve.steps, curve.values, max(50, min(MOST, budget)))),
            name=_label(label),
            mode="lines",
            line={"color": shade, "width": 1.5},
            legendgroup=label,
            showlegend=row == 1,
            hovertemplate="%{y:.3g}",
            row=row,
            col=1,
        )
    figure.update_yaxes(type="log", title_text=title, row=row, col=1)


def _heat(figure: go.Figure, series: Series, title: str, row: int, rows: int) -> None:
    """The logarithm of the norms, tensor by step, the first tensor on top."""
    keep = np.unique(np.linspace(0, len(series) - 1, _HEAT_COLUMNS).astype(int))
    shown = np.unique(np.linspace(0, len(series.labels) - 1, _HEAT_ROWS).astype(int))
    values = np.asarray(series.values)[np.ix_(keep, shown)].T
    with np.errstate(divide="ignore", invalid="ignore"):
        height = np.where(np.isfinite(values) & (values > 0), np.log10(values), np.nan).astype(np.float32)
    figure.add_heatmap(
        x=series.steps[keep].astype(float),
        y=[_label(series.labels[k]) for k in shown],
        z=height,
        colorscale="Cividis",
        row=row,
        col=1,
        hovertemplate=f"%{{y}}<br>step %{{x:,}}<br>{title} 10<sup>%{{z:.2f}}</sup><extra></extra>",
        colorbar={
            "title": {"text": f"log<sub>10</sub> {title}", "side": "right"},
            "thickness": 10,
            "outlinewidth": 0,
            "len": 1 / rows,
            "y": 1 - (row - 0.5) / rows,
        },
    )
    figure.update_yaxes(autorange="reversed", showticklabels=False, title_text=f"{title}, by depth", row=row, col=1)


def _columns(series: Series) -> list[Series]:
    if series.values.ndim == 1:
        return [series] if len(series) else []
    return [Series(series.steps, series.values[:, k]) for k in range(series.values.shape[1])]


def _points(steps: Ints, values: Floats) -> dict[str, Floats]:
    """The x and y of a trace; the line has a gap where a value is not finite."""
    return {"x": steps.astype(float), "y": np.where(np.isfinite(values), values, np.nan)}


def _scale_axis(figure: go.Figure, scale: Scale) -> None:
    ends = [float(np.log10(v)) for v in (scale.low, scale.high)] if scale.log else [scale.low, scale.high]
    figure.update_yaxes(type="log" if scale.log else "linear", range=ends)


def _label(text: str) -> str:
    """A name as Plotly shows it: short, and what it would read as HTML taken literally."""
    text = printable(text)
    return html.escape(text if len(text) <= 44 else f"{text[:14]}…{text[-29:]}", quote=False)
