"""What became of a claim, as plain data: what terminal, HTML and the pages of the docs are made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradwise.figures import TEMPLATE
from gradwise.lab.experiment import Experiment
from gradwise.lab.results import Record
from gradwise.lab.running import Job, Runs, measures_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

QUICK = "quick form"


@dataclass(frozen=True)
class Account:
    """A claim put to the test.

    Args:
        data: `to_json`'s object, but for the runs themselves.
        figures: by their short names.
        runs: what it was all computed from.
    """

    data: Mapping[str, Any]
    figures: Mapping[str, go.Figure]
    runs: Runs

    def to_json(self) -> dict[str, Any]:
        """All of it but the figures, which can be made again from the runs."""
        records = [record.to_json() for by_seed in self.runs.values() for record in by_seed.values()]
        return {**self.data, "records": records}


def account(job: Job) -> Account:
    """What the runs so far say of a claim; without a verdict where no seed is complete."""
    return of_runs(job.experiment, job.quick, job.runs(), len(job.lacking()))


def of_runs(experiment: Experiment, quick: bool, runs: Runs, lacking: int = 0) -> Account:
    """The same from runs at hand; `lacking` says how many more are wanted."""
    seen = measures_of(runs)
    verdict = experiment.judge(seen) if runs else None
    tables = experiment.tables(seen) if runs else ()
    figures = experiment.figures(seen) if runs else {}
    records = [record for by_seed in runs.values() for record in by_seed.values()]
    data = {
        "id": experiment.id,
        "title": experiment.title,
        "claim": experiment.claim,
        "source": experiment.source,
        "quick": quick,
        "setup": experiment.setup(quick),
        "seeds": sorted({record.seed for record in records}),
        "cells": list(runs),
        "lacking": lacking,
        "verdict": None
        if verdict is None
        else {
            "word": verdict.word,
            "why": verdict.why,
            "statements": [{"text": s.text, "held": s.held, "condition": s.condition} for s in verdict.statements],
        },
        "tables": [{"title": t.title, "rows": [list(map(str, row)) for row in t.rows]} for t in tables],
        "figures": {name: _title(figure, name) for name, figure in figures.items()},
        "notes": sorted({str(record.measures["note"]) for record in records if record.measures.get("note")}),
        "made": _made(records),
    }
    return Account(data, {name: _marked(figure, quick) for name, figure in figures.items()}, runs)


def read(path: Path) -> tuple[str, bool, Runs]:
    """An experiment's id, its form and its runs, from what `Account.to_json` was written to.

    Raises:
        ValueError: that is not in the file.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
        records = [Record.from_json(each) for each in data["records"]]
        name, quick = str(data["id"]), bool(data["quick"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no claim's runs ({type(error).__name__}: {error})") from None
    runs: Runs = {}
    for record in records:
        runs.setdefault(record.cell, {})[record.seed] = record
    return name, quick, runs


def _made(records: Sequence[Record]) -> dict[str, Any]:
    """Where and when the runs were made."""
    of = [record.provenance for record in records]
    if not of:
        return {}
    said = {key: sorted({str(p[key]) for p in of}) for key in ("gradwise", "torch", "processor", "threads")}
    dates = sorted(str(p["date"])[:10] for p in of)
    return {**said, "dates": sorted({dates[0], dates[-1]}), "seconds": round(sum(p["seconds"] for p in of), 1)}


def _title(figure: go.Figure, name: str) -> str:
    """What a figure shows, in words: its title, else its name and axes."""
    if figure.layout.title.text:
        return str(figure.layout.title.text)
    words = name.replace("-", " ").replace("_", " ").capitalize()
    axes = [str(axis.title.text) for axis in (figure.layout.yaxis, figure.layout.xaxis) if axis.title.text]
    return f"{words}: {' by '.join(axes)}" if axes else words


def _marked(figure: go.Figure, quick: bool) -> go.Figure:
    """A figure in the common look, without its title (which stands beside it), and saying so if it is reduced."""
    import plotly.graph_objects as go

    marked = go.Figure(figure)
    if list(marked.layout.template.layout.colorway or ()) != TEMPLATE["layout"]["colorway"]:
        marked.update_layout(template=TEMPLATE)
    marked.layout.title = None
    if quick:
        marked.add_annotation(
            text=QUICK, xref="paper", yref="paper", x=1, y=0, xanchor="right", yanchor="bottom", showarrow=False,
            opacity=0.8, font={"size": 12},
        )  # fmt: skip
    return marked
