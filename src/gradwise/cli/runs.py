"""`gradwise runs`: list, show, compare and delete recordings."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradwise.cli.tables import figure, fitted, grid, print_json, printed, terminal

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from gradwise.cli.digests import Digest
    from gradwise.recording.recording import Recording, RunInfo

app = typer.Typer(help="List, show, compare and delete recordings.", invoke_without_command=True)

StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="Where recordings are: a SQLite file or a SQLAlchemy URL."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Ids = Annotated[list[str], typer.Argument(metavar="ID…", help="Ids (as listed, or whole), or `last`.")]

Compared = Annotated[
    list[str],
    typer.Argument(
        metavar="ID…", help="Ids (as listed, or whole), or `last`; of a study, numbers of trials, `best` or `own`."
    ),
]

_STYLES = {
    "running": "cyan", "failed": "red", "killed": "red", "lost": "yellow", "stopped": "yellow",
    "sick": "bold red", "healthy": "green", "inconclusive": "yellow",
}  # fmt: skip


@app.callback()
def list_runs(
    context: typer.Context,
    store: StoreOption = None,
    json: JsonOption = False,
    most: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many of the newest to list.")] = 20,
) -> None:
    """List the newest recordings: age, script, status, steps, loss (first step → median of the last), verdict."""
    if context.invoked_subcommand is not None:
        context.obj = store
        return
    from gradwise.cli.digests import digest

    with _opened(store, none_is_fine=True) as opened:
        runs = opened.runs() if opened else []
        digests = [digest(opened, run) for run in reversed(runs[-most:])] if opened else []
        if json:
            print_json([d.to_json() for d in digests])
            return
        console = terminal()
        if not digests:
            where = f" in {opened.where}" if opened else ""
            console.print(f"No recordings{where} yet: `gradwise doctor SCRIPT` makes one.", markup=False)
            return
        console.print(_listing(digests, console))
        if len(runs) > most:
            console.print(f"{len(runs) - most} older ones: gradwise runs --limit {len(runs)}", style="dim")


@app.command()
def show(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="ID", help="An id (as listed, or whole), or `last`.")] = "last",
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show one recording: what ran, what was measured, what was found and tried."""
    from gradwise.cli.digests import digest

    with _opened(store or context.obj) as opened:
        recording = opened.load(opened.resolve(run), max_points=2000)
        about = digest(opened, recording.run)
        trials = [digest(opened, trial) for trial in opened.runs(parent=recording.run.id)]
        report = opened.report(recording.run.id) or {}
        if json:
            print_json(_shown(recording, about, trials, report))
        else:
            console = terminal()
            for part in _pages(recording, about, trials, report, console):
                console.print(part)


@app.command()
def compare(
    context: typer.Context,
    runs: Compared,
    study: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Compare trials of this study of `gradwise tune`: a part of its name, or `last`."
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="URL", help="Where recordings are, or studies: a file or a SQLAlchemy URL."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compare recordings, or trials of a study: the settings in which they differ, and how they ended."""
    if study is not None:
        from gradwise.cli.studied import compare_trials

        compare_trials(study, runs, store or context.obj, json)
        return
    from gradwise.cli.digests import OUTCOME, differences, digest, outcome, settings

    with _opened(store or context.obj) as opened:
        loaded = [opened.load(opened.resolve(name), max_points=2000) for name in runs]
        digests = [digest(opened, recording.run) for recording in loaded]
        differ = differences([settings(recording) for recording in loaded])
        ends = {name: [outcome(r, d)[name] for r, d in zip(loaded, digests, strict=True)] for name in OUTCOME}
        if json:
            print_json({"runs": [d.run.id for d in digests], "settings": differ, "outcome": ends})
            return
        console = terminal()
        rows = [[name, *("–" if v is None else v for v in values)] for name, values in differ.items()]
        rows = rows or [["settings", *["the same"] * len(digests)]]
        rows += [
            [name, *(_cell(name, v) for v in cells)]
            for name, cells in ends.items()
            if any(v is not None for v in cells)
        ]
        texts = [[printed(cell, console, _STYLES.get(cell, "")) for cell in row] for row in rows]
        names = ("", *_short_ids([d.run.id for d in digests]))
        console.print(fitted(names, texts, range(1, len(names)), console))


@app.command()
def delete(
    context: typer.Context,
    runs: Ids,
    store: StoreOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete recordings with their trials."""
    from gradwise.cli.digests import digest

    with _opened(store or context.obj) as opened:
        chosen = {name: digest(opened, opened.info(opened.resolve(name))) for name in runs}
        digests = list({d.run.id: d for d in chosen.values()}.values())
        console = terminal()
        if not yes:
            console.print(_listing(digests, console))
            typer.confirm(f"Delete {_count(len(digests), 'recording')} and their trials?", abort=True)
        gone = [run for d in digests for run in opened.delete(d.run.id)]
        trials = len(gone) - len(digests)
        extra = f" and {_count(trials, 'trial')}" if trials else ""
        console.print(f"Deleted {_count(len(digests), 'recording')}{extra}.")


def _listing(digests: Sequence[Digest], console: Console) -> Table:
    rows = [
        (
            printed(short, console, "bold"),
            printed(_age(time.time() - d.run.started), console),
            printed(_command(d.run, whole=False), console),
            printed(d.run.status, console, _STYLES.get(d.run.status, "")),
            printed(_steps(d.steps), console),
            printed(_losses(d), console),
            printed(
                d.verdict or ("range test" if d.run.facts.get("command") == "lr" else "–"),
                console,
                _STYLES.get(d.verdict or "", "dim"),
            ),
        )
        for short, d in zip(_short_ids([d.run.id for d in digests]), digests, strict=True)
    ]
    return fitted(("id", "age", "script", "status", "steps", "loss", "verdict"), rows, {2}, console)


def _pages(
    recording: Recording, about: Digest, trials: Sequence[Digest], report: Mapping[str, Any], console: Console
) -> Iterator[RenderableType]:
    from gradwise.cli.digests import intervention
    from gradwise.legible import duration

    run = recording.run
    facts = grid("", "", header=False)
    lines = {
        "run": run.id,
        "command": _command(run, whole=True),
        "in": run.cwd,
        "started": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.started)),
        "took": duration(run.ended - run.started) if run.ended else "",
        "status": run.status + (f" (exit {run.exit})" if run.exit else ""),
        "steps": f"{about.steps:,}",
        "loss": _losses(about),
        "changed": intervention(run.intervention) if run.intervention else "",
        "trial of": run.parent or "",
    }
    for o in recording.optimizers:
        numbers = (f"{k}={v}" for k, v in o.defaults.items() if v not in (None, False))
        lines["optimizer" if o.index == 0 else f"optimizer {o.index}"] = (
            f"{o.kind}({', '.join(numbers)}), {_count(len(o.parameters), 'tensor')}" + (f", {o.made}" if o.made else "")
        )
    happened = [e for e in recording.events if e.kind != "validation-place"]
    if happened:
        lines["events"] = ", ".join(f"{e.kind} at step {e.step:,}" for e in happened[:5]) + " …" * (len(happened) > 5)
    if report:
        named = ", ".join(f"{f['id']} ({f['confidence']:.0%})" for f in report.get("findings", ()))
        lines["verdict"] = str(report.get("verdict")) + (f": {named}" if named else "")
    for name, value in lines.items():
        if value:
            style = _STYLES.get(run.status if name == "status" else value.partition(":")[0], "")
            facts.add_row(printed(name, console, "dim"), printed(value, console, style))
    facts.columns[1].no_wrap = False
    facts.columns[1].overflow = "fold"
    yield facts

    if recording.series:
        measured = grid("measured", "source", "columns", "first", "last")
        for (name, source), series in sorted(recording.series.items()):
            rows = series.values.reshape(len(series), -1)[[0, -1]]
            ends = [figure(float(row[0])) if len(row) == 1 else "" for row in rows]
            cells = (name, str(source), str(rows.shape[1]), *ends)
            measured.add_row(*(printed(cell, console) for cell in cells))
        yield ""
        yield measured
    if trials:
        tried = []
        for short, d in zip(_short_ids([d.run.id for d in trials]), trials, strict=True):
            change = intervention(d.run.intervention) if d.run.intervention else "nothing"
            seed = "" if d.run.seed is None else str(d.run.seed)
            cells = (short, change, seed, d.run.status, _steps(d.steps), _losses(d))
            tried.append([printed(cell, console) for cell in cells])
        yield ""
        yield fitted(("trial", "changed", "seed", "status", "steps", "loss"), tried, {1}, console)


def _shown(recording: Recording, about: Digest, trials: Sequence[Digest], report: Mapping[str, Any]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        **about.to_json(),
        "optimizers": [asdict(o) for o in recording.optimizers],
        "series": [
            {"signal": name, "source": source, "labels": list(series.labels)}
            for (name, source), series in sorted(recording.series.items())
        ],
        "events": [asdict(e) for e in recording.events],
        "trials": [trial.to_json() for trial in trials],
        "report": dict(report) or None,
    }


def _cell(name: str, value: Any) -> str:
    from gradwise.legible import duration

    if isinstance(value, str):
        return value
    return "–" if value is None else duration(value) if name == "duration" else figure(value)


def _command(run: RunInfo, whole: bool) -> str:
    import shlex
    from pathlib import PurePath

    script = run.script if whole or run.module else PurePath(run.script).name
    return " ".join((*(("-m",) if run.module else ()), shlex.join((script, *run.argv)) if script else "–"))


def _losses(d: Digest) -> str:
    return "–" if d.first is None or d.last is None else f"{figure(d.first)} → {figure(d.last)}"


def _steps(n: int) -> str:
    """A count in 5 characters.

    >>> _steps(840), _steps(99_999), _steps(1_234_567)
    ('840', '99999', '1.23M')
    """
    return str(n) if n < 100_000 else f"{n / 1000:.0f}k" if n < 1_000_000 else f"{n / 1e6:.3g}M"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _short_ids(ids: Sequence[str]) -> list[str]:
    """The last parts of ids, or whole ones where two of them share it."""
    lasts = [i.rpartition("-")[2] for i in ids]
    return [last if lasts.count(last) == 1 else i for last, i in zip(lasts, ids, strict=True)]


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


@contextmanager
def _opened(url: str | None, none_is_fine: bool = False) -> Iterator[Any]:
    """The store for reading; a sentence and exit status 2 where it can't be used."""
    from gradwise.recording.store import NoStoreError, Store, StoreError

    try:
        try:
            store = Store.open(url, create=False)
        except NoStoreError:
            if url or not none_is_fine:
                raise
            yield None
            return
        with store:
            yield store
    except StoreError as error:
        typer.echo(f"gradwise: {error}", err=True)
        raise typer.Exit(2) from None
