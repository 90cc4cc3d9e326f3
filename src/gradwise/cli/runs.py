"""`gradwise runs`: list, show, compare and delete recordings."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from gradwise.cli.digests import Digest
    from gradwise.recording.recording import Recording, RunInfo

app = typer.Typer(help="List, show, compare and delete recordings.", invoke_without_command=True)

StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="Where recordings are: a SQLite file or a SQLAlchemy URL."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Ids = Annotated[list[str], typer.Argument(metavar="ID…", help="Ids (as listed, or whole), or `last`.")]

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
            _print_json([d.to_json() for d in digests])
            return
        console = _console()
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
            _print_json(_shown(recording, about, trials, report))
        else:
            console = _console()
            for part in _pages(recording, about, trials, report, console):
                console.print(part)


@app.command()
def compare(context: typer.Context, runs: Ids, store: StoreOption = None, json: JsonOption = False) -> None:
    """Compare recordings: the settings in which they differ, and how they ended."""
    from gradwise.cli.digests import OUTCOME, differences, digest, outcome, settings

    with _opened(store or context.obj) as opened:
        loaded = [opened.load(opened.resolve(name), max_points=2000) for name in runs]
        digests = [digest(opened, recording.run) for recording in loaded]
        differ = differences([settings(recording) for recording in loaded])
        ends = {name: [outcome(r, d)[name] for r, d in zip(loaded, digests, strict=True)] for name in OUTCOME}
        if json:
            _print_json({"runs": [d.run.id for d in digests], "settings": differ, "outcome": ends})
            return
        console = _console()
        rows = [[name, *("–" if v is None else v for v in values)] for name, values in differ.items()]
        rows = rows or [["settings", *["the same"] * len(digests)]]
        rows += [
            [name, *(_cell(name, v) for v in cells)]
            for name, cells in ends.items()
            if any(v is not None for v in cells)
        ]
        texts = [[_text(cell, console, _STYLES.get(cell, "")) for cell in row] for row in rows]
        names = ("", *_short_ids([d.run.id for d in digests]))
        console.print(_fitted(names, texts, range(1, len(names)), console))


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
        console = _console()
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
            _text(short, console, "bold"),
            _text(_age(time.time() - d.run.started), console),
            _text(_command(d.run, whole=False), console),
            _text(d.run.status, console, _STYLES.get(d.run.status, "")),
            _text(_steps(d.steps), console),
            _text(_losses(d), console),
            _text(
                d.verdict or ("range test" if d.run.facts.get("command") == "lr" else "–"),
                console,
                _STYLES.get(d.verdict or "", "dim"),
            ),
        )
        for short, d in zip(_short_ids([d.run.id for d in digests]), digests, strict=True)
    ]
    return _fitted(("id", "age", "script", "status", "steps", "loss", "verdict"), rows, {2}, console)


def _pages(
    recording: Recording, about: Digest, trials: Sequence[Digest], report: Mapping[str, Any], console: Console
) -> Iterator[RenderableType]:
    from gradwise.cli.digests import intervention
    from gradwise.legible import duration

    run = recording.run
    facts = _grid("", "", header=False)
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
            facts.add_row(_text(name, console, "dim"), _text(value, console, style))
    facts.columns[1].no_wrap = False
    facts.columns[1].overflow = "fold"
    yield facts

    if recording.series:
        measured = _grid("measured", "source", "columns", "first", "last")
        for (name, source), series in sorted(recording.series.items()):
            rows = series.values.reshape(len(series), -1)[[0, -1]]
            ends = [_figure(float(row[0])) if len(row) == 1 else "" for row in rows]
            cells = (name, str(source), str(rows.shape[1]), *ends)
            measured.add_row(*(_text(cell, console) for cell in cells))
        yield ""
        yield measured
    if trials:
        tried = []
        for short, d in zip(_short_ids([d.run.id for d in trials]), trials, strict=True):
            change = intervention(d.run.intervention) if d.run.intervention else "nothing"
            seed = "" if d.run.seed is None else str(d.run.seed)
            cells = (short, change, seed, d.run.status, _steps(d.steps), _losses(d))
            tried.append([_text(cell, console) for cell in cells])
        yield ""
        yield _fitted(("trial", "changed", "seed", "status", "steps", "loss"), tried, {1}, console)


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


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, emoji=False)


def _grid(*names: str, header: bool = True) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=header, header_style="dim")
    for name in names:
        table.add_column(name, no_wrap=True)
    return table


def _fitted(names: Sequence[str], rows: Sequence[Sequence[Text]], elastic: Collection[int], console: Console) -> Table:
    """A table as wide as the console at most: the widest elastic columns give way, their cells take two lines."""
    widths = [max(len(name), *(row[k].cell_len for row in rows)) for k, name in enumerate(names)]
    while sum(widths) + 2 * (len(names) - 1) > console.width:
        widest = max(elastic, key=lambda k: widths[k])
        if widths[widest] <= 8:
            break
        widths[widest] -= 1
    table = _grid(*names)
    for row in rows:
        table.add_row(*(_in_two_lines(cell, width, console) for cell, width in zip(row, widths, strict=True)))
    return table


def _in_two_lines(text: Text, width: int, console: Console) -> Text:
    lines = list(text.wrap(console, width, overflow="fold"))
    for line in lines:
        line.rstrip()
    if len(lines) > 2:
        more = "" if console.options.ascii_only else "…"
        lines[1].truncate(width - len(more), overflow="crop")
        lines[1].append(more)
    return lines[0].append("\n").append_text(lines[1]) if lines[1:] else text


def _text(words: str, console: Console, style: str = "") -> Text:
    from rich.text import Text

    from gradwise.legible import printable

    return Text(printable(words, console.encoding), style)


def _cell(name: str, value: Any) -> str:
    from gradwise.legible import duration

    if isinstance(value, str):
        return value
    return "–" if value is None else duration(value) if name == "duration" else _figure(value)


def _figure(value: float) -> str:
    from gradwise.legible import number

    return number(value) if math.isfinite(value) else str(value).replace("nan", "NaN")


def _command(run: RunInfo, whole: bool) -> str:
    import shlex
    from pathlib import PurePath

    script = run.script if whole or run.module else PurePath(run.script).name
    return " ".join((*(("-m",) if run.module else ()), shlex.join((script, *run.argv)) if script else "–"))


def _losses(d: Digest) -> str:
    return "–" if d.first is None or d.last is None else f"{_figure(d.first)} → {_figure(d.last)}"


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


def _print_json(data: Any) -> None:
    import json

    from gradwise.diagnosis.findings import finite

    typer.echo(json.dumps(finite(data), indent=2))


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
