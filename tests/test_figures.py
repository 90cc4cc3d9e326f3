import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from gradwise import figures
from gradwise.curves import MOST
from gradwise.recording.recording import Series
from gradwise.recording.signals import LOSS, LR
from gradwise.schedules import cosine, sgdr, step, warmup
from report.samples import TENSORS, falling, lr_too_high, non_finite, recording, trials

LONG = 50_000


@pytest.fixture(scope="module")
def run():
    return recording(falling(LONG), [0.9, 0.5, 0.2])


def every_figure(run):
    finding = lr_too_high()[0].findings[0]
    return {
        "loss": figures.loss_figure(run, [(10, "here")]),
        "lr": figures.lr_figure(run),
        "norms": figures.norms_figure(run),
        "ratio": figures.update_ratio_figure(run),
        "trials": figures.trials_figure(finding, finding.remedies[0], trials()),
    }


def test_importing_figures_and_reports_loads_neither_plotly_nor_torch():
    code = "import sys, gradwise.figures, gradwise.report; print({'plotly', 'torch'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_every_trace_is_small_and_every_axis_named(run):
    for name, figure in every_figure(run).items():
        assert figure.data, name
        assert all(len(t.x) <= MOST for t in figure.data)
        assert figure.layout.template.layout.paper_bgcolor == "rgba(0,0,0,0)"
        titles = [a.title.text for a in (*figure.select_xaxes(), *figure.select_yaxes())]
        assert "step" in titles
        json.loads(figure.to_json())


@pytest.mark.parametrize("loss", [[], [1.0], [np.nan, np.nan]])
def test_runs_with_little_in_them_have_figures_too(loss):
    run = recording(loss)
    for make in (figures.loss_figure, figures.lr_figure, figures.norms_figure, figures.update_ratio_figure):
        json.loads(make(run).to_json())


def test_the_loss_is_shown_raw_smoothed_and_validated(run):
    traces = {t.name: t for t in figures.loss_figure(run).data}
    assert set(traces) == {"training loss", "training loss, smoothed", "validation loss"}
    raw, smooth = traces["training loss"], traces["training loss, smoothed"]
    loss = run.get(LOSS).values
    assert np.max(raw.y) == loss.max()
    assert np.std(np.diff(smooth.y)) < 0.1 * np.std(np.diff(raw.y))
    assert list(traces["validation loss"].y) == [0.9, 0.5, 0.2]


def test_stretches_that_are_not_finite_are_shaded_and_marks_drawn():
    figure = figures.loss_figure(non_finite()[1], [(370, "non-finite-loss")])
    shaded = [s for s in figure.layout.shapes if s.type == "rect"]
    lines = [s for s in figure.layout.shapes if s.type == "line"]
    assert [(s.x0, s.x1) for s in shaded] == [(370, 399)]
    assert [s.x0 for s in lines] == [370]
    assert {a.text for a in figure.layout.annotations} == {"not finite", "non-finite-loss"}
    assert figure.layout.yaxis.type == "log"


def test_a_rate_recorded_at_changes_holds_until_the_end():
    run = recording(falling(1000))
    changed = Series(np.array([0, 500]), np.array([[0.1, 0.01], [0.05, 0.005]]), ("0", "1"))
    figure = figures.lr_figure(replace(run, series={**run.series, (LR.name, 0): changed}))
    assert [list(t.x) for t in figure.data] == [[0, 500, 999]] * 2
    assert [t.y[-1] for t in figure.data] == [0.05, 0.005]
    assert {t.line.shape for t in figure.data} == {"hv"}


def test_several_optimizers_are_told_apart():
    run = recording(falling())
    series = {(name, s): v for (name, _), v in run.series.items() for s in (0, 1)}
    run = replace(run, series=series)
    assert {t.name for t in figures.loss_figure(run).data} >= {
        "training loss (optimizer 0)",
        "training loss (optimizer 1)",
    }
    assert {t.name for t in figures.lr_figure(run).data} == {"optimizer 0, group 0", "optimizer 1, group 0"}


def test_few_tensors_are_lines_shaded_by_depth(run):
    figure = figures.norms_figure(run)
    assert [t.name for t in figure.data] == list(TENSORS) * 3
    assert len({t.line.color for t in figure.data}) == len(TENSORS)
    assert sum(t.showlegend for t in figure.data) == len(TENSORS)


def test_many_tensors_are_a_heat_map():
    run = recording(falling(3000), tensors=[f"layer.{k}.weight" for k in range(300)])
    figure = figures.norms_figure(run)
    assert [t.type for t in figure.data] == ["heatmap"] * 3
    assert len(figure.data[0].y) <= 200
    assert (figure.data[0].y[0], figure.data[0].y[-1]) == ("layer.0.weight", "layer.299.weight")
    assert len(figure.to_json()) < 3_000_000


def test_the_update_ratio_is_the_quotient_of_the_norms():
    run = recording(falling(500), lr=0.5)
    figure = figures.update_ratio_figure(run)
    update, parameter = run.series["norm/update", 0], run.series["norm/parameter", 0]
    assert np.allclose(figure.data[2].y, update.values[:, 2] / parameter.values[:, 2])


def test_names_are_text_and_short():
    run = recording(falling(), tensors=("<b>bold</b>", "x" * 200))
    first, second = (t.name for t in figures.update_ratio_figure(run).data)
    assert first == "&lt;b&gt;bold&lt;/b&gt;"
    assert len(second) <= 44


def test_trials_are_paired_by_seed_and_others_left_out():
    finding = lr_too_high()[0].findings[0]
    runs = trials(4)
    other = replace(runs[-1], run=replace(runs[-1].run, intervention={"clip_norm": 1.0}))
    figure = figures.trials_figure(finding, finding.remedies[0], [*reversed(runs), other])
    dashes = {}
    for trace in figure.data:
        dashes.setdefault(trace.legendgroup, []).append(trace.line.dash)
    assert dashes == {"as it is": list(figures.DASHES[:4]), "lr ×0.03": list(figures.DASHES[:4])}
    assert sum(t.showlegend for t in figure.data) == 2
    assert figure.layout.yaxis.title.text == "validation loss"


def test_trials_without_validation_show_the_training_loss():
    finding = lr_too_high()[0].findings[0]
    remedy = replace(finding.remedies[0], metric=LOSS.name)
    figure = figures.trials_figure(finding, remedy, trials())
    assert figure.layout.yaxis.title.text == "training loss"
    assert len(figure.data) == 6


def test_schedules_are_drawn_in_one_call():
    figure = figures.schedule_figure(0.1 * (warmup(5) >> cosine(95)), step(30, 0.5))
    first, second = figure.data
    assert (first.name, second.name) == (
        "0.1 * (warmup(steps=5) &gt;&gt; cosine(steps=95))",
        "step(every=30, factor=0.5)",
    )
    assert (list(first.x), list(second.x)) == ([*range(101)], [*range(101)])
    assert (first.y[4], first.y[100], second.y[60]) == (0.1, 0.0, 0.25)
    assert figure.layout.xaxis.title.text == "step"
    json.loads(figure.to_json())


def test_long_schedules_are_thinned_without_losing_their_peaks():
    figure = figures.schedule_figure(sgdr(1000, decay=0.9), steps=10**6, names=["restarts"])
    (trace,) = figure.data
    assert trace.name == "restarts"
    assert len(trace.x) <= MOST
    assert (max(trace.y), trace.x[-1]) == (1.0, 10**6)


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="0 schedules"):
        figures.schedule_figure()
    with pytest.raises(ValueError, match="2 names"):
        figures.schedule_figure(cosine(10), names=["a", "b"])


def test_a_spectrum_shows_what_falls():
    grid = np.linspace(-1, 3, 9)
    figure = figures.spectrum_figure(grid, np.exp(-(grid**2)))
    falls, rises = figure.data
    assert (max(falls.x), min(rises.x), max(rises.x)) == (0.0, 0.0, 3.0)
    assert figure.layout.yaxis.type == "log"
    only = figures.spectrum_figure(np.array([1.0, 2.0]), np.array([0.5, 0.0]))
    assert [t.name for t in only.data] == ["rises"]
    assert min(only.data[0].y) > 0  # zero has no logarithm
    for wrong in (np.zeros(3), np.zeros((2, 2)), np.zeros(0)):
        with pytest.raises(ValueError, match="spectrum_figure"):
            figures.spectrum_figure(wrong, np.zeros(2))
