"""A race's result on the terminal and as a page; both from plain data, as the JSON report has it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gradwise.legible import number, printable
from gradwise.report.html import escaped, figure_html, write_document

if TYPE_CHECKING:
    import plotly.graph_objects as go

_HEAD = ("rule", "rate", "chosen by", "as good", "steps to goal", "height at the end")
_LEFT = (0, 2)


def render_race(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Print how a race went, to standard output unless told otherwise."""
    console = console or Console()
    encoding = console.encoding or "ascii"
    for words, style in (*((w, "bold" if k == 0 else "") for k, w in enumerate(_about(report))), ("", "")):
        console.print(Text(printable(words, encoding), style), highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for k, name in enumerate(_HEAD):
        table.add_column(name, justify="left" if k in _LEFT else "right", no_wrap=True)
    for row in _rows(report):
        table.add_row(*(Text(printable(cell, encoding)) for cell in row))
    console.print(table, highlight=False)
    for note in report["notes"]:
        console.print(Text(printable(note, encoding)), highlight=False)


def write_race_json(path: str | os.PathLike[str], report: Mapping[str, Any]) -> None:
    """Write the report as JSON.

    Raises:
        OSError: where the file cannot be written.
    """
    text = json.dumps(report, ensure_ascii=False, allow_nan=False) + "\n"
    Path(path).write_bytes(text.encode("utf-8", "backslashreplace"))


def write_race_html(
    path: str | os.PathLike[str], report: Mapping[str, Any], animations: Sequence[tuple[str, go.Figure]]
) -> None:
    """Write the race as one HTML file with its animations.

    Args:
        path: where to.
        report: the race as data.
        animations: each with its title.

    Raises:
        OSError: where the file cannot be written.
    """
    write_document(path, f"race on {report['surface']['name']}", _body(report, animations))


def _body(report: Mapping[str, Any], animations: Sequence[tuple[str, go.Figure]]) -> Iterator[str]:
    first, *rest = _about(report)
    yield f"<header><h1>{escaped(first)}</h1>"
    yield "".join(f'<p class="soft">{escaped(words)}</p>' for words in rest) + "</header>"
    seeds = len(report["lanes"][0]["final"])
    caption = (
        "Above the map, stronger as it rises; below how high each racer still is. In the legend: rate and steps to "
        "the goal; a click there hides a racer." + (f" Shown is the first of {seeds} starts." if seeds > 1 else "")
    )
    for title, figure in animations:
        yield f"<h3>{escaped(title[0].upper() + title[1:])}</h3>"
        yield figure_html(figure, caption)
    cells = "".join(f"<th>{escaped(name)}</th>" for name in _HEAD)
    rows = "".join(f"<tr>{''.join(f'<td>{escaped(cell)}</td>' for cell in row)}</tr>" for row in _rows(report))
    table = f"<table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table>"
    yield f'<h3>Results</h3><div class="scroll">{table}</div>'
    yield "".join(f"<p>{escaped(note)}</p>" for note in report["notes"])


def _about(report: Mapping[str, Any]) -> list[str]:
    surface = report["surface"]
    start = ", ".join(f"{v:g}" for v in surface["start"])
    seeds = len(report["lanes"][0]["final"])
    others = f" and {seeds - 1} more scattered about it" if seeds > 1 else ""
    named = "" if surface["function"] == surface["name"] else f": f = {surface['function']}"
    return [
        f"{surface['name']}{named}",
        surface["source"],
        f"{report['steps']:,} steps from {start}{others}; the goal: {report['finish']}",
    ]


def _rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for each lane, those with range-tested rates first, the quickest at the top."""
    ways = ("given", "range test", "textbook")

    def place(lane: Mapping[str, Any]) -> tuple[Any, ...]:
        arrived = sorted(k for k in lane["steps_to_goal"] if k is not None)
        return ways.index(lane["how"]), -len(arrived), arrived[len(arrived) // 2] if arrived else 0

    rows: list[tuple[str, ...]] = []
    for lane in sorted(report["lanes"], key=place):
        interval = lane["interval"]
        near = f"{number(interval[0], 2)} to {number(interval[1], 2)}" if interval else ""
        final = [v for v in lane["final"] if v is not None]
        end = number(sorted(final)[len(final) // 2], 3) if final else "non-finite"
        rows.append((lane["rule"], number(lane["lr"], 2), lane["how"], near, _arrivals(lane), end))
    return rows


def _arrivals(lane: Mapping[str, Any]) -> str:
    """The median arrival, and how many arrived where there are several starts."""
    arrived = sorted(k for k in lane["steps_to_goal"] if k is not None)
    starts, gone = len(lane["steps_to_goal"]), sum(k is not None for k in lane["left_the_map"])
    if not arrived:
        return "left the map" if gone == starts else "–"
    middle = f"{arrived[len(arrived) // 2]:,}"
    return middle if starts == 1 else f"{middle} ({arrived[0]:,} to {arrived[-1]:,}; {len(arrived)} of {starts})"
