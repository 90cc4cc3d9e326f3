"""Tables on the terminal that fit it, and JSON beside them."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text


def terminal() -> Console:
    """Standard output, which shows words as they are."""
    from rich.console import Console

    return Console(highlight=False, emoji=False)


def grid(*names: str, header: bool = True) -> Table:
    """A table without lines, each cell in one line."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=header, header_style="dim")
    for name in names:
        table.add_column(name, no_wrap=True)
    return table


def fitted(names: Sequence[str], rows: Sequence[Sequence[Text]], elastic: Collection[int], console: Console) -> Table:
    """A table as wide as the console at most: the widest elastic columns give way, their cells take two lines."""
    widths = [max(len(name), *(row[k].cell_len for row in rows)) for k, name in enumerate(names)]
    while sum(widths) + 2 * (len(names) - 1) > console.width:
        widest = max(elastic, key=lambda k: widths[k])
        if widths[widest] <= 8:
            break
        widths[widest] -= 1
    table = grid(*names)
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


def printed(words: str, console: Console, style: str = "") -> Text:
    """Foreign words, such that they can't paint the terminal."""
    from rich.text import Text

    from gradwise.legible import printable

    return Text(printable(words, console.encoding), style)


def figure(value: float) -> str:
    """A number in a cell."""
    from gradwise.legible import number

    return number(value) if math.isfinite(value) else str(value).replace("nan", "NaN")


def print_json(data: Any) -> None:
    """Data, with what isn't finite as None."""
    import json

    from gradwise.diagnosis.findings import finite

    typer.echo(json.dumps(finite(data), indent=2))
