"""A Plotly figure as a still picture in SVG, the same bytes each time: for pages that have no scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from gradwise.recording.recording import Floats
from gradwise.report.plots import Axis, Drawn, Panel, Plot, read

if TYPE_CHECKING:
    import plotly.graph_objects as go

_WIDTH, _PANEL, _LEFT, _RIGHT, _BOTTOM = 760, 280, 64, 14, 46
_LINE = 18  # of the legend
_LETTER = 7.0  # about the width of one at this size
_INK = "#7f7f7f"
_DASH = {"dash": "8 5", "dot": "2 4", "dashdot": "8 4 2 4", "longdash": "14 6", "longdashdot": "14 5 2 5"}


def still(figure: go.Figure, title: str) -> str:
    """The figure as SVG.

    Args:
        figure: what to draw; traces that are neither lines, points nor bars are left out, and it says so.
        title: what it shows, for those who can't see it.
    """
    plot = read(figure)
    legend = _legend(plot)
    top = 10 + _LINE * (len(legend) + bool(plot.notes) + bool(plot.omitted))
    rows = len({round(p.domain[2], 3) for p in plot.panels}) or 1
    height = top + rows * (_PANEL + _BOTTOM)
    parts = [f"<title>{escape(title)}</title>"]
    for k, row in enumerate(legend):
        parts += _entries(row, 10 + _LINE * (k + 0.6))
    notes = [*plot.notes, *(["not drawn here: " + ", ".join(dict.fromkeys(plot.omitted))] if plot.omitted else [])]
    if notes:
        parts.append(_text(_WIDTH - _RIGHT, top - 6, " · ".join(notes), "end", style="font-style:italic"))
    for panel in plot.panels:
        parts += _draw(panel, top, height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img" '
        f'aria-label="{escape(title)}" font-size="12" font-family="system-ui, sans-serif" fill="{_INK}">'
        + "\n".join(parts)
        + "</svg>\n"
    )


def _draw(panel: Panel, top: float, height: float) -> Iterator[str]:
    left, right, low, high = panel.domain
    wide, tall = _WIDTH - 10, height - top
    box = _Box(
        left * wide + _LEFT, right * wide - _RIGHT, top + (1 - high) * tall + 8, top + (1 - low) * tall - _BOTTOM
    )
    yield from _axes(panel, box)
    clip = f"c{round(box.left)}-{round(box.top)}"
    yield (f'<clipPath id="{clip}"><rect x="{box.left:.1f}" y="{box.top - 3:.1f}" width="{box.right - box.left:.1f}" '
           f'height="{box.bottom - box.top + 6:.1f}"/></clipPath><g clip-path="url(#{clip})">')  # fmt: skip
    bars = [t for t in panel.traces if t.kind == "bars"]
    for trace in panel.traces:
        yield from _trace(trace, panel, box, 0.7 / max(1, len(bars)))
    yield "</g>"
    if panel.title:
        yield _text((box.left + box.right) / 2, box.top - 4, panel.title, "middle")


class _Box:
    def __init__(self, left: float, right: float, top: float, bottom: float) -> None:
        self.left, self.right, self.top, self.bottom = left, right, top, bottom

    def x(self, axis: Axis, values: Floats) -> Floats:
        return np.asarray(self.left + np.clip(axis.place(values), -2, 3) * (self.right - self.left))

    def y(self, axis: Axis, values: Floats) -> Floats:
        return np.asarray(self.bottom - np.clip(axis.place(values), -2, 3) * (self.bottom - self.top))


def _axes(panel: Panel, box: _Box) -> Iterator[str]:
    for tick, label in panel.y.ticks(6):
        y = float(box.y(panel.y, np.array([tick]))[0])
        yield (f'<line x1="{box.left:.1f}" x2="{box.right:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_INK}" '
               f'stroke-opacity="0.25"/>')  # fmt: skip
        yield _text(box.left - 6, y + 4, label, "end")
    room = max(1.0, (box.right - box.left) / max(1, len(panel.x.categories)))
    for tick, label in panel.x.ticks(max(2, int((box.right - box.left) // 90))):
        x = float(box.x(panel.x, np.array([tick]))[0])
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{box.bottom:.1f}" y2="{box.bottom + 4:.1f}" stroke="{_INK}"/>'
        short = label if not panel.x.categories else _cut(label, room)
        yield _text(x, box.bottom + 17, short, "middle")
    if panel.x.title:
        yield _text((box.left + box.right) / 2, box.bottom + 36, panel.x.title, "middle")
    if panel.y.title:
        middle = (box.top + box.bottom) / 2
        x = box.left - _LEFT + 12
        yield _text(x, middle, panel.y.title, "middle", f'transform="rotate(-90 {x:.1f} {middle:.1f})"')


def _trace(trace: Drawn, panel: Panel, box: _Box, bar: float) -> Iterator[str]:
    xs, ys = box.x(panel.x, trace.x), box.y(panel.y, trace.y)
    ink = f'stroke="{escape(trace.colour)}" stroke-opacity="{trace.opacity:g}"'
    fill = f'fill="{escape(trace.colour)}" fill-opacity="{trace.opacity:g}"'
    if trace.kind == "area":
        seen = np.isfinite(xs) & np.isfinite(ys)
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs[seen], ys[seen], strict=True))
        yield f'<polygon points="{points}" {fill}/>'
    if trace.kind == "bars":
        step = (box.right - box.left) / max(1e-9, panel.x.high - panel.x.low)
        width = bar * step if panel.x.categories else max(2.0, 0.8 * step)
        zero = float(box.y(panel.y, np.array([panel.y.low if panel.y.log else 0.0]))[0])
        for x, y in zip(xs, ys, strict=True):
            if np.isfinite(y):
                yield (f'<rect x="{x - width / 2:.1f}" y="{min(y, zero):.1f}" width="{width:.1f}" '
                       f'height="{abs(zero - y):.1f}" {fill}/>')  # fmt: skip
    if trace.kind in ("line", "both") and trace.width > 0:
        yield (f'<path d="{_path(xs, ys)}" fill="none" {ink} stroke-width="{trace.width:g}" '
               f'stroke-linejoin="round"{_dashed(trace)}/>')  # fmt: skip
    if trace.low is not None and trace.high is not None:
        lows, highs = box.y(panel.y, trace.low), box.y(panel.y, trace.high)
        for x, low, high in zip(xs, lows, highs, strict=True):
            if np.isfinite([x, low, high]).all():
                yield (f'<path d="M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8" '
                       f'fill="none" {ink} stroke-width="1.5"/>')  # fmt: skip
    if trace.kind in ("points", "both"):
        for x, y in zip(xs, ys, strict=True):
            if np.isfinite([x, y]).all():
                yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3.5 if trace.kind == "points" else 2.5}" {fill}/>'


def _dashed(trace: Drawn) -> str:
    return f' stroke-dasharray="{_DASH[trace.dash]}"' if trace.dash in _DASH else ""


def _path(xs: Floats, ys: Floats) -> str:
    """A line, interrupted where it can't be shown."""
    commands, pen_up = [], True
    for x, y in zip(xs, ys, strict=True):
        seen = bool(np.isfinite(x) and np.isfinite(y))
        if seen:
            commands.append(f"{'M' if pen_up else 'L'}{x:.1f} {y:.1f}")
        pen_up = not seen
    return "".join(commands)


def _legend(plot: Plot) -> list[list[tuple[str, str, float]]]:
    """Rows of (name, stroke, where); one entry for each name."""
    entries = {t.name: t for panel in plot.panels for t in panel.traces if t.name and t.kind != "area"}
    if len(entries) < 2:
        return []
    rows: list[list[tuple[str, str, float]]] = [[]]
    at = float(_LEFT)
    for name, trace in entries.items():
        width = 30 + _LETTER * len(name) + 14
        if at + width > _WIDTH - _RIGHT and rows[-1]:
            rows.append([])
            at = float(_LEFT)
        rows[-1].append((name, f'stroke="{escape(trace.colour)}"{_dashed(trace)}', at))
        at += width
    return rows


def _entries(row: Sequence[tuple[str, str, float]], y: float) -> Iterator[str]:
    """One row of the legend."""
    for name, stroke, x in row:
        yield f'<line x1="{x:.1f}" x2="{x + 22:.1f}" y1="{y:.1f}" y2="{y:.1f}" {stroke} stroke-width="2.5"/>'
        yield _text(x + 28, y + 4, name, "start")


def _text(x: float, y: float, words: str, anchor: str, more: str = "", style: str = "") -> str:
    style = f' style="{style}"' if style else ""
    plain = words.replace("<br>", " ").replace("<b>", "").replace("</b>", "")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}{style}>{escape(plain)}</text>'


def _cut(words: str, room: float) -> str:
    most = max(3, int(room / _LETTER) - 1)
    return words if len(words) <= most else words[: most - 1] + "…"
