"""A search as it goes on and what it found, on the terminal; both from plain data, as the JSON report has it."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gradwise.legible import duration, number, printable

_WIDEST = 100
_MOST_LIVE, _MOST = 8, 10

Trial = Mapping[str, Any]


class LiveTable:
    """The best trials so far and those under way, on a terminal; elsewhere a line for each new best one.

        with LiveTable(planned=30) as live:
            live.update(trials, "searching")

    Args:
        planned: how many trials are planned.
        maximize: whether more is better.
        console: where to show it; standard error by default.
        quiet: shows nothing.
    """

    def __init__(
        self, planned: int, maximize: bool = False, console: Console | None = None, quiet: bool = False
    ) -> None:
        self._console = console or Console(stderr=True, quiet=quiet)
        self._planned, self._maximize = planned, maximize
        self._began = time.monotonic()
        self._best: int | None = None
        self._shown: tuple[Sequence[Trial], str] = ((), "")
        self._due = 0.0
        self._live = Live(console=self._console, transient=True, auto_refresh=False)

    def __enter__(self) -> LiveTable:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def update(self, trials: Sequence[Trial], doing: str) -> None:
        """Show how things stand."""
        self._shown, self._due = (trials, doing), time.monotonic() + 1.0
        best = min(trials, key=lambda t: _rank(t, self._maximize), default=None)
        if self._console.is_terminal:
            self._live.update(self._page(trials, doing), refresh=True)
        elif best is not None and best.get("value") is not None and best["number"] != self._best:
            self._best = best["number"]
            words = f"gradwise: trial {self._best}: {number(best['value'], 4)} with {_config(best['config'])}"
            self._console.print(Text(printable(words, self._console.encoding or "ascii")), soft_wrap=True)

    def say(self, words: str) -> None:
        """A line for which the table makes room."""
        self._console.print(Text(printable(words, self._console.encoding or "ascii")), soft_wrap=True)

    def tick(self) -> None:
        """Let the time go on, once a second at most."""
        if self._console.is_terminal and self._shown[1] and time.monotonic() > self._due:
            self.update(*self._shown)

    def _page(self, trials: Sequence[Trial], doing: str) -> RenderableType:
        ended = sum(t["state"] in ("complete", "pruned", "failed") for t in trials)
        running = [t for t in trials if t["state"] == "running"]
        seconds = duration(time.monotonic() - self._began)
        encoding = self._console.encoding or "ascii"
        head = Text(printable(f"gradwise  {doing} · {ended} of {self._planned} trials · {seconds}", encoding), "bold")
        shown = best_of(trials, self._maximize, _MOST_LIVE)
        return Group(head, _table([*shown, *running], encoding))


def render_tuning(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what a search found, to standard output unless told otherwise."""
    console = console or Console()
    encoding = console.encoding or "ascii"
    for piece in _page(report, encoding):
        shown = Text(printable(piece, encoding)) if isinstance(piece, str) else piece
        console.print(shown, highlight=False, emoji=False, soft_wrap=isinstance(piece, str) and len(piece) > _WIDEST)


def write_tuning_json(path: str | os.PathLike[str], report: Mapping[str, Any]) -> None:
    """Write the report as JSON.

    Raises:
        OSError: where the file cannot be written.
    """
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    Path(path).write_bytes(text.encode("utf-8", "backslashreplace"))


def headline(report: Mapping[str, Any]) -> tuple[str, str]:
    """The answer in a line, and its style."""
    confirmed, own = report["confirmed"], report["own"]
    best = next((t for t in report["trials"] if t["number"] == report["best"]), None)
    if best is None:
        return "no trial gave a value to select on", "bold red"
    value = f"{number(best['value'], 4)}"
    if report["chosen"] is None:
        return (
            f"✗ nothing better than the script's own settings: the best trial has {value}, they have "
            f"{number(own['value'], 4)}",
            "bold yellow",
        )
    what = f"trial {best['number']}, {_config(best['config'])}"
    if confirmed is None or not confirmed["pairs"]:
        return f"· best: {what}: {value} (not compared with the script's own settings)", "bold"
    pairs = len(confirmed["pairs"])
    if confirmed["better"]:
        return f"✓ better than the script's own settings in {pairs} paired runs: {what}", "bold green"
    return f"✗ best, but not shown to be better than the script's own settings: {what}", "bold yellow"


def _page(report: Mapping[str, Any], encoding: str) -> Iterator[Text | Table | str]:
    words, style = headline(report)
    yield Text(printable(words, encoding), style)
    yield ""
    own, confirmed = report["own"], report["confirmed"]
    yield f"selected on {report['selected_on']}"
    if own is not None:
        length = f"{own['steps']:,} steps, {duration(own['seconds'])}"
        yield f"the script's own settings: {number(own['value'], 4)} ({length})"
    if confirmed is not None and confirmed["pairs"]:
        for k, (before, after) in enumerate(confirmed["pairs"], 1):
            yield f"  seed +{k}: {number(before, 4)} → {number(after, 4)}"
        if confirmed["reason"]:
            yield f"  {confirmed['reason']}"
    if report["test"] is not None:
        yield f"test score, read once, of the chosen configuration retrained: {number(report['test']['value'], 4)}"
    yield ""
    trials = report["trials"]
    yield _table(best_of(trials, report["maximize"], _MOST), encoding)
    counts = {state: sum(t["state"] == state for t in trials) for state in ("complete", "pruned", "failed")}
    yield f"{len(trials)} trials: " + ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    problems = list(dict.fromkeys(t["problem"] for t in trials if t.get("problem")))
    for problem in problems[:3]:
        yield f"  failed: {problem}"
    if report["winner"] is not None:
        yield ""
        if report["winner"]["changes"]:
            yield f"changes: {report['winner']['changes']}"
        yield report["winner"]["command"]
    yield ""
    if report["ended"]:
        yield f"The search ended early: {report['ended']}."
    yield from report["notes"]


def _table(trials: Sequence[Trial], encoding: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    names = list(dict.fromkeys(name for t in trials for name in t["config"]))
    table.add_column("trial", justify="right")
    table.add_column("value", justify="right")
    for name in names:
        table.add_column(printable(name, encoding), justify="right")
    table.add_column("steps", justify="right")
    table.add_column("time", justify="right")
    for t in trials:
        value = number(t["value"], 4) if "value" in t and t["state"] == "complete" else t["state"]
        steps = f"{t['steps']:,}" if "steps" in t else ""
        seconds = duration(t["seconds"]) if "seconds" in t else ""
        cells = [value_text(t["config"].get(name)) for name in names]
        table.add_row(*(Text(printable(c, encoding)) for c in (str(t["number"]), value, *cells, steps, seconds)))
    return table


def best_of(trials: Sequence[Trial], maximize: bool, most: int) -> list[Trial]:
    """The best trials, best first."""
    done = [t for t in trials if t["state"] == "complete"]
    return sorted(done, key=lambda t: _rank(t, maximize))[:most]


def _rank(trial: Trial, maximize: bool) -> float:
    value = trial.get("value")
    if value is None or trial["state"] != "complete":
        return math.inf
    return -float(value) if maximize else float(value)


def _config(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value_text(value)}" for name, value in config.items())


def value_text(value: Any) -> str:
    """A setting in a table."""
    if value is None:
        return ""
    if isinstance(value, float):
        return number(value)
    return str(value)
