"""The loss curve in characters: braille where the terminal can, plain ASCII where it can't."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from gradwise.curves import Scale, fit, gaps, ramp_ceiling, round_ticks, trend
from gradwise.legible import number
from gradwise.recording.recording import Floats, Ints, Recording, Series
from gradwise.recording.signals import LOSS, VALIDATION

Dots = NDArray[np.bool_]

_BRAILLE = 0x2800
_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
STYLES = {
    "trend": "cyan",
    "range": "bright_black",
    "validation": "bold yellow",
    "broken": "red",
    "mark": "bold red",
}


@dataclass(frozen=True, slots=True)
class _Ink:
    """The characters of one kind of terminal; `dots` is how many dots a cell has (rows, columns)."""

    dots: tuple[int, int]
    validation: str
    broken: str
    mark: str
    axis: str
    tick: str
    corner: str
    base: str
    notch: str

    def cells(self, layer: Dots, solid: bool) -> list[list[str]]:
        """The characters that show a layer of dots, " " for an empty cell."""
        rows, columns = layer.shape[0] // self.dots[0], layer.shape[1] // self.dots[1]
        if self.dots == (1, 1):
            return [[("*" if solid else ":") if on else " " for on in row] for row in layer]
        blocks = layer.reshape(rows, 4, columns, 2).transpose(0, 2, 1, 3)
        codes = (blocks * _BITS).sum(axis=(2, 3))
        return [[chr(_BRAILLE + c) if c else " " for c in row] for row in codes]


_UNICODE = _Ink((4, 2), "●", "╱", "▲", "│", "┤", "└", "─", "┬")
_ASCII = _Ink((1, 1), "o", "/", "^", "|", "+", "+", "-", "+")


def loss_chart(
    recording: Recording,
    source: int = 0,
    *,
    width: int = 78,
    height: int = 10,
    ascii_only: bool = False,
    marks: Sequence[tuple[int, str]] = (),
) -> list[Text]:
    """The training and validation losses over the steps, `height` rows of curve, two of axis, one of legend.

    Args:
        recording: what to draw; nothing comes back where it holds no finite loss.
        source: the optimizer whose loss is drawn.
        width: cells across, axis labels included.
        height: cells of the curve itself.
        ascii_only: draw with ASCII characters.
        marks: steps to point at, each with what is there.
    """
    ink = _ASCII if ascii_only else _UNICODE
    loss = recording.get(LOSS, source)
    validations = [recording.get(VALIDATION, s) for s in recording.sources(VALIDATION)]
    curves = [c for c in (loss, *validations) if len(c) and c.values.ndim == 1]
    if not any(np.isfinite(c.values).any() for c in curves):
        return []
    scale = fit(curves)
    labels = {t: scale.label(t) for t in scale.ticks(max(2, min(5, height // 2)))}
    gutter = max(map(len, labels.values())) + 1
    first, last = min(int(c.steps[0]) for c in curves), max(int(c.steps[-1]) for c in curves)
    plot = _Plot(scale, first, last, height, width - gutter - 2, ink)
    grid = plot.draw(loss, validations, marks)

    ticks = {plot.row(t): label for t, label in labels.items()}
    lines = []
    for y, row in enumerate(grid):
        label = f"{ticks.get(y, ''):>{gutter}} {ink.tick if y in ticks else ink.axis}"
        line = Text().append(label, "dim")  # not as the line's own style, which all of it would take on
        for character, style in row:
            line.append(character, STYLES.get(style))
        lines.append(line)
    legend = _legend(ink, loss, validations, marks, scale)
    return [*lines, *plot.base(gutter, {m for m, _ in marks}), *_flow(legend, gutter + 2, width)]


def ramp_chart(
    rates: Floats,
    losses: Floats,
    marks: Sequence[tuple[float, str]] = (),
    *,
    width: int = 78,
    height: int = 10,
    ascii_only: bool = False,
) -> list[Text]:
    """The loss against the logarithm of a rising rate; `marks` are rates to point at, each with what is there."""
    fine = 10_000  # places per decade: the plot's own steps are integers

    def place(rate: float) -> int:
        return round(fine * math.log10(rate))

    ink = _ASCII if ascii_only else _UNICODE
    steps = np.array([place(r) for r in rates], np.int64)
    curve = Series(steps, losses)
    if not len(curve) or not np.isfinite(losses).any():
        return []
    scale = fit([Series(steps, np.minimum(losses, ramp_ceiling(losses)))])
    labels = {t: scale.label(t) for t in scale.ticks(max(2, min(5, height // 2)))}
    gutter = max(map(len, labels.values())) + 1
    plot = _Plot(scale, int(steps[0]), int(steps[-1]), height, width - gutter - 2, ink)
    ticks = {plot.row(t): label for t, label in labels.items()}
    lines = []
    for y, row in enumerate(plot.draw(curve, (), [(place(r), name) for r, name in marks])):
        line = Text().append(f"{ticks.get(y, ''):>{gutter}} {ink.tick if y in ticks else ink.axis}", "dim")
        for character, style in row:
            line.append(character, STYLES.get(style))
        lines.append(line)
    first, last = math.ceil(math.log10(rates[0]) - 1e-9), math.floor(math.log10(rates[-1]) + 1e-9)
    decades = {fine * d: f"1e{d}" for d in range(first, last + 1)}
    names = [Text.assemble((ink.mark, STYLES["mark"]), (f" {name}, {number(rate)}", "dim")) for rate, name in marks]
    return [*lines, *plot.base(gutter, {place(r) for r, _ in marks}, decades, "lr"), *_flow(names, gutter + 2, width)]


class _Plot:
    """A grid of cells over [first, last] x scale."""

    def __init__(self, scale: Scale, first: int, last: int, height: int, width: int, ink: _Ink) -> None:
        self.scale, self.first, self.last, self.height, self.width, self.ink = (
            scale,
            first,
            last,
            height,
            width,
            ink,
        )
        self.dots = (height * ink.dots[0], width * ink.dots[1])

    def row(self, value: float) -> int:
        """The row of cells a value falls in, from the top."""
        return int(self._down(self.scale.place(np.array([value])))[0]) // self.ink.dots[0]

    def column(self, step: int) -> int:
        """The column of cells a step falls in."""
        return int(self._across(np.array([step]))[0]) // self.ink.dots[1]

    def _down(self, place: NDArray[np.float64]) -> Ints:
        return np.rint((1 - place) * (self.dots[0] - 1)).astype(np.int64)

    def _across(self, steps: Ints) -> Ints:
        share = (np.clip(steps, self.first, self.last) - self.first) / max(1, self.last - self.first)
        return np.rint(share * (self.dots[1] - 1)).astype(np.int64)

    def draw(
        self, loss: Series, validations: Sequence[Series], marks: Sequence[tuple[int, str]]
    ) -> list[list[tuple[str, str]]]:
        """Every cell as (character, kind of ink): the range, the trend over it, then points and marks."""
        grid = [[(" ", "")] * self.width for _ in range(self.height)]

        def lay(layer: Dots, kind: str, solid: bool) -> None:
            for y, row in enumerate(self.ink.cells(layer, solid)):
                for x, character in enumerate(row):
                    if character != " ":
                        grid[y][x] = (character, kind)

        if len(loss):
            spread, line = self._range(loss), self._trend(loss)
            lay(spread, "range", False)
            lay(line, "trend", True)
            for start, end in gaps(loss):
                for x in range(self.column(start), self.column(end) + 1):
                    for y in range(self.height):
                        if grid[y][x][1] != "trend":
                            grid[y][x] = (self.ink.broken, "broken")
        for curve in validations:
            seen = np.isfinite(curve.values)
            cells = (self._down(self.scale.place(curve.values[seen])) // self.ink.dots[0],
                     self._across(curve.steps[seen]) // self.ink.dots[1])  # fmt: skip
            for y, x in zip(*cells, strict=True):
                grid[y][x] = (self.ink.validation, "validation")
        for step, _ in marks:
            x = self.column(step)
            for y in range(self.height):
                if grid[y][x][0] == " ":
                    grid[y][x] = ("." if self.ink is _ASCII else "┊", "mark")
        return grid

    def _range(self, curve: Series) -> Dots:
        """From the lowest to the highest value in each column, every other dot, so that it looks lighter."""
        layer = np.zeros(self.dots, bool)
        seen = np.isfinite(curve.values)
        across, down = self._across(curve.steps[seen]), self._down(self.scale.place(curve.values[seen]))
        starts = np.flatnonzero(np.diff(across, prepend=-1))
        if not len(starts):
            return layer
        for x, top, bottom in zip(
            across[starts], np.minimum.reduceat(down, starts), np.maximum.reduceat(down, starts), strict=True
        ):
            layer[top : bottom + 1, x] = True
        if self.ink.dots != (1, 1):
            y, x = np.indices(layer.shape)
            layer &= (x + y) % 2 == 0
        return layer

    def _trend(self, curve: Series) -> Dots:
        """The smoothed curve, joined up between columns; it pauses where the loss is not finite."""
        layer = np.zeros(self.dots, bool)
        smooth = trend(curve.values, self.scale)
        seen = np.isfinite(smooth)
        steps, place = curve.steps[seen], self.scale.place(smooth[seen])
        if not len(steps):
            return layer
        columns = np.arange(*self._across(steps[[0, -1]]) + np.array([0, 1]))
        at = self.first + columns * (self.last - self.first) / max(1, self.dots[1] - 1)
        down = self._down(np.interp(at, steps, place))
        broken = np.zeros(len(columns), bool)
        for start, end in gaps(curve):
            broken |= (at > start) & (at < end)
        for k, x in enumerate(columns):
            if broken[k]:
                continue
            near = down[max(0, k - 1)] if not broken[max(0, k - 1)] else down[k]
            # A jump is one upright stroke; each stroke stops short of the dot the column before already has.
            low, high = sorted((down[k], near + np.sign(down[k] - near)))
            layer[low : high + 1, x] = True
        return layer

    def base(
        self, gutter: int, marks: set[int], labels: Mapping[int, str] | None = None, unit: str = "step"
    ) -> list[Text]:
        """The axis with its numbers, of steps or as `labels` say; marked steps get an arrow."""
        line, names = [self.ink.base] * self.width, [" "] * self.width
        if labels is None:
            ticks = round_ticks(self.first, self.last, max(2, self.width // 14))
            labels = {round(tick): f"{round(tick):,}" for tick in ticks if tick == round(tick)}
        free = 0
        for tick, label in labels.items():
            x = self.column(tick)
            start = min(max(0, x - len(label) // 2), self.width - len(label))
            if start < free or start + len(label) > self.width - len(unit) - 1:
                continue
            line[x] = self.ink.notch
            names[start : start + len(label)] = label
            free = start + len(label) + 1
        end = Text().append(" " * gutter + " " + self.ink.corner, "dim")
        pointed = {self.column(m) for m in marks}
        for x, character in enumerate(line):
            end.append(*(self.ink.mark, STYLES["mark"]) if x in pointed else (character, "dim"))
        names[-len(unit) :] = unit
        return [end, Text(" " * (gutter + 2) + "".join(names), style="dim")]


def _legend(
    ink: _Ink, loss: Series, validations: Sequence[Series], marks: Sequence[tuple[int, str]], scale: Scale
) -> list[Text]:
    def entry(character: str, kind: str, words: str) -> Text:
        return Text.assemble((character, STYLES[kind]), (f" {words}", "dim"))

    entries = []
    ascii_only = ink is _ASCII
    if len(loss):
        entries.append(entry("**" if ascii_only else "⠒⠒", "trend", "training loss"))
        if len(loss) > 100:
            entries.append(entry("::" if ascii_only else "⢕⢕", "range", "its range"))
    if validations:
        entries.append(entry(ink.validation, "validation", "validation"))
    broken = gaps(loss)
    if broken:
        entries.append(entry(ink.broken, "broken", f"not finite from step {broken[0][0]:,}"))
    highest = max((float(np.nanmax(c.values, where=np.isfinite(c.values), initial=-np.inf))
                   for c in (loss, *validations)), default=0.0)  # fmt: skip
    if highest > scale.high + 0.1 * (scale.high - scale.low):
        entries.append(Text(f"peak {number(highest)}", "dim"))
    entries += [entry(ink.mark, "mark", f"{name}, step {step:,}") for step, name in marks]
    return entries


def _flow(entries: Sequence[Text], indent: int, width: int) -> list[Text]:
    """`entries` side by side, in as many lines as they need."""
    lines: list[Text] = []
    for entry in entries:
        entry.truncate(width - indent, overflow="crop")
        if lines and lines[-1].cell_len + 2 + entry.cell_len <= width:
            lines[-1].append("  ").append(entry)
        else:
            lines.append(Text(" " * indent).append(entry))
    return lines
