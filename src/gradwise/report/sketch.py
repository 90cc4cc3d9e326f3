"""The lines of a figure in characters, for the terminal: braille where it can, ASCII letters where it can't."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.text import Text

from gradwise.legible import printable
from gradwise.recording.recording import Floats, Ints
from gradwise.report.plots import Drawn, Panel, read

if TYPE_CHECKING:
    import plotly.graph_objects as go

_BRAILLE = 0x2800
_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
_STYLES = ("bright_blue", "bright_magenta", "green", "bright_cyan", "bright_red", "yellow")
_LETTERS = "*o+x#%@=&~"


def sketch(figure: go.Figure, *, width: int = 78, height: int = 10, ascii_only: bool = False) -> list[Text]:
    """The first panel of a figure that has lines over numbers; nothing where there is none.

    Args:
        figure: what to draw.
        width: cells across, labels included.
        height: cells of the panel itself.
        ascii_only: a letter for each line in place of braille.
    """
    for panel in read(figure).panels:
        lines = [t for t in panel.traces if t.kind in ("line", "both") and t.width > 0 and np.isfinite(t.y).any()]
        if lines and not panel.x.categories:
            return _sketch(panel, lines, width, height, ascii_only)
    return []


def _sketch(panel: Panel, lines: Sequence[Drawn], width: int, height: int, ascii_only: bool) -> list[Text]:
    labels = dict(panel.y.ticks(max(2, min(5, height // 2))))
    gutter = max(map(len, labels.values()), default=0) + 1
    across = max(20, width - gutter - 2)
    dots = (height, across) if ascii_only else (height * 4, across * 2)
    codes, owners = np.zeros((height, across), np.int64), np.full((height, across), -1)
    for k, line in enumerate(lines):
        layer = _layer(panel, line, dots)
        cells = layer if ascii_only else layer.reshape(height, 4, across, 2).transpose(0, 2, 1, 3)
        code = cells.astype(np.int64) if ascii_only else (cells * _BITS).sum(axis=(2, 3))
        codes |= code
        owners[code > 0] = k
    rows = {_down(panel, np.array([tick]), height)[0]: label for tick, label in labels.items()}
    found = []
    for y in range(height):
        axis = ("+" if ascii_only else "┤") if y in rows else "|" if ascii_only else "│"
        text = Text().append(f"{rows.get(y, ''):>{gutter}} {axis}", "dim")
        for code, owner in zip(codes[y], owners[y], strict=True):
            if owner < 0:
                text.append(" ")
            else:
                ink = _LETTERS[owner % len(_LETTERS)] if ascii_only else chr(_BRAILLE + code)
                text.append(ink, _STYLES[owner % len(_STYLES)])
        found.append(text)
    return [*found, *_base(panel, gutter, across, ascii_only), *_legend(lines, gutter, width, ascii_only)]


def _layer(panel: Panel, line: Drawn, dots: tuple[int, int]) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """The dots that a line goes through, joined up from column to column."""
    layer = np.zeros(dots, bool)
    xs = np.rint(panel.x.place(line.x) * (dots[1] - 1))
    ys = np.rint((1 - panel.y.place(line.y)) * (dots[0] - 1))
    seen = np.isfinite(xs) & np.isfinite(ys)
    for k in np.flatnonzero(seen):
        x, y = int(xs[k]), int(ys[k])
        if k and seen[k - 1]:
            steps = max(1, round(abs(x - xs[k - 1])), round(abs(y - ys[k - 1])))
            share = np.linspace(0, 1, steps + 1)
            across = np.rint(xs[k - 1] + share * (x - xs[k - 1])).astype(int)
            down = np.rint(ys[k - 1] + share * (y - ys[k - 1])).astype(int)
        else:
            across, down = np.array([x]), np.array([y])
        inside = (across >= 0) & (across < dots[1]) & (down >= 0) & (down < dots[0])
        layer[down[inside], across[inside]] = True
    return layer


def _down(panel: Panel, values: Floats, height: int) -> Ints:
    return np.asarray(np.rint((1 - panel.y.place(values)) * (height - 1)).astype(np.int64))


def _base(panel: Panel, gutter: int, across: int, ascii_only: bool) -> list[Text]:
    line, names = ["-" if ascii_only else "─"] * across, [" "] * across
    unit = printable(panel.x.title, "ascii" if ascii_only else "utf-8")
    free, room = 0, max(0, across - len(unit) - 1)
    for tick, label in panel.x.ticks(max(2, across // 14)):
        x = round(float(panel.x.place(np.array([tick]))[0]) * (across - 1))
        start = min(max(0, x - len(label) // 2), across - len(label))
        if 0 <= x < across and start >= free and start + len(label) <= room:
            line[x] = "+" if ascii_only else "┬"
            names[start : start + len(label)] = label
            free = start + len(label) + 1
    names[across - len(unit) :] = unit
    corner = "+" if ascii_only else "└"
    return [
        Text(" " * (gutter + 1) + corner + "".join(line), style="dim"),
        Text(" " * (gutter + 2) + "".join(names), style="dim"),
    ]


def _legend(lines: Sequence[Drawn], gutter: int, width: int, ascii_only: bool) -> list[Text]:
    rows: list[Text] = []
    for k, line in enumerate(lines):
        if not line.name:
            continue
        mark = _LETTERS[k % len(_LETTERS)] * 2 if ascii_only else "⠒⠒"
        name = printable(line.name, "ascii" if ascii_only else "utf-8")
        entry = Text.assemble((mark, _STYLES[k % len(_STYLES)]), (f" {name}", "dim"))
        if rows and rows[-1].cell_len + 2 + entry.cell_len <= width:
            rows[-1].append("  ").append(entry)
        else:
            rows.append(Text(" " * (gutter + 2)).append(entry))
    return rows
