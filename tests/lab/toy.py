"""A claim that costs nothing to test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from gradwise.lab.experiment import Bench, Cell, Experiment, Measures, Runs, Statement, Table, Verdict, conclude
from gradwise.lab.results import Results
from gradwise.lab.running import Job
from gradwise.lab.statistics import paired

MADE: list[tuple[str, int]] = []


def cells(quick: bool) -> Sequence[Cell]:
    return [Cell("with η", {"gain": 1.0}), Cell("without", {"gain": 0.0}), Cell("more", {"gain": 2.0}, rank=1)]


def measure(settings: Mapping[str, Any], seed: int, bench: Bench) -> Measures:
    MADE.append((f"{settings['gain']}", seed))
    bench.progress(0.5)
    return {"score": settings["gain"] + 0.01 * seed, "curve": [1.0, float("nan"), 3.0]}


def judge(runs: Runs) -> Verdict:
    gain = paired(*([runs[c][s]["score"] for s in sorted(runs[c])] for c in ("with η", "without")))
    return conclude([Statement(f"It is better: by {gain}.", gain.above_zero)], "because | of *this*")


def tables(runs: Runs) -> Sequence[Table]:
    return [Table("Scores", [["", "score"], *([c, f"{m[0]['score']:.2f}"] for c, m in runs.items())])]


def figures(runs: Runs) -> Mapping[str, go.Figure]:
    figure = go.Figure(layout={"title": "Curves <b>& co", "xaxis": {"title": "epoch"}, "yaxis": {"title": "score"}})
    for cell, by_seed in runs.items():
        figure.add_scatter(x=[1, 2, 3], y=by_seed[0]["curve"], name=cell, mode="lines")
    return {"curve": figure}


TOY = Experiment(
    id="X99", title="A toy", claim="More is more.", source="none", setup=lambda quick: "quick" if quick else "full",
    cells=cells, measure=measure, judge=judge, tables=tables, figures=figures,
)  # fmt: skip


def job(folder: Path, seeds: int = 3, **changes: Any) -> Job:
    return Job(replace(TOY, **changes), True, seeds, Results(folder), "1.2.3")
