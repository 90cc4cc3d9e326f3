"""`gradwise report`: remake a report from the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradwise.cli.common import StoreOption, refuse, say, writable

if TYPE_CHECKING:
    from gradwise.diagnosis.findings import Diagnosis
    from gradwise.recording.recording import Recording
    from gradwise.recording.store import Store


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="An id, as `gradwise runs` lists it, or `last`.")],
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it as one HTML file with interactive figures.")
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as JSON.")] = None,
    store: StoreOption = None,
) -> None:
    """Remake the report of a recorded run: on standard output, or as the files asked for."""
    from gradwise.recording.store import Store, StoreError

    writable(html, "--html")
    writable(json, "--json")
    try:
        with Store.open(store, create=False) as opened:
            recording = opened.load(opened.resolve(run))
            diagnosis = _diagnosis(opened, recording)
            trials = _trials(opened, recording) if html else []
    except StoreError as error:
        refuse(str(error))
    _show(diagnosis, recording, trials, html, json)


def _diagnosis(store: Store, recording: Recording) -> Diagnosis:
    """The report that was kept, which knows of the trials; else (the doctor was killed, say) a new diagnosis."""
    from gradwise.diagnosis import diagnose
    from gradwise.diagnosis.findings import Diagnosis

    kept = store.report(recording.run.id)
    try:
        return diagnose(recording) if kept is None else Diagnosis.from_json(kept)
    except ValueError as error:
        say(f"the report that was kept can't be read ({error}); this one is made anew, without its trials")
        return diagnose(recording)


def _trials(store: Store, recording: Recording) -> list[Recording]:
    """The recordings of its trials."""
    trials = [
        store.load(trial.id, max_points=5000)
        for trial in store.runs(parent=recording.run.id)
        if not trial.facts.get("score")
    ]
    if not any(t.run.seed == 0 and not t.run.intervention for t in trials):
        trials.append(recording)  # it was a baseline itself
    return trials


def _show(
    diagnosis: Diagnosis, recording: Recording, trials: list[Recording], html: Path | None, json: Path | None
) -> None:
    from rich.console import Console

    from gradwise.report import render, write_html, write_json

    try:
        if json:
            write_json(json, diagnosis)
        if html:
            write_html(html, diagnosis, recording, trials, json_path=str(json) if json else None)
    except OSError as error:
        refuse(f"cannot write {error.filename}: {error.strerror}")
    if html is None and json is None:
        render(diagnosis, recording, Console())
