"""The loss curve as a small inline SVG: for the notebook, and for the HTML report until its scripts have run."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from gradwise.curves import MOST, Scale, fit, gaps, round_ticks, thin, trend
from gradwise.figures import BLUE, ORANGE, RED
from gradwise.recording.recording import Floats, Ints, Recording
from gradwise.recording.signals import LOSS, VALIDATION

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 240, 56, 8, 10, 24


def loss_svg(recording: Recording, source: int = 0, marks: Sequence[tuple[int, str]] = ()) -> str:
    """Training and validation loss over the steps; "" where no finite loss was recorded.

    Args:
        recording: what to draw.
        source: the optimizer whose loss is drawn.
        marks: steps to point at, each with what is there.
    """
    loss = recording.get(LOSS, source)
    validations = [recording.get(VALIDATION, s) for s in recording.sources(VALIDATION)]
    curves = [c for c in (loss, *validations) if len(c)]
    if not any(np.isfinite(c.values).any() for c in curves):
        return ""
    first, last = min(int(c.steps[0]) for c in curves), max(int(c.steps[-1]) for c in curves)
    plot = _Plot(fit(curves), first, last)
    parts = plot.axes()
    for start, end in gaps(loss):
        x0, x1 = plot.x(np.array([start, end]))
        parts.append(f'<rect x="{x0:.1f}" y="{_TOP}" width="{max(2.0, x1 - x0):.1f}" '
                     f'height="{_HEIGHT - _TOP - _BOTTOM}" fill="{RED}" opacity="0.2"/>')  # fmt: skip
    if len(loss):
        noisy = len(loss) > 100
        parts.append(plot.line(*thin(loss.steps, loss.values, MOST // 2), BLUE, 1, 0.35 if noisy else 1))
        if noisy:
            parts.append(plot.line(*thin(loss.steps, trend(loss.values, plot.scale), 400), BLUE, 2.2, 1))
    for curve in validations:
        steps, values = thin(curve.steps, curve.values, 200)
        seen = np.isfinite(values)
        for x, y in zip(plot.x(steps[seen]), plot.y(values[seen]), strict=True):
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{ORANGE}"/>')
    for step, name in marks:
        x = float(plot.x(np.array([step]))[0])
        anchor = "end" if x > _WIDTH / 2 else "start"
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="{RED}" '
                     f'stroke-dasharray="3 3"/><text x="{x + (5 if anchor == "start" else -5):.1f}" y="{_TOP + 10}" '
                     f'text-anchor="{anchor}" fill="{RED}">{escape(name)}</text>')  # fmt: skip
    label = "Training loss (line)" + (" and validation loss (points)" if validations else "") + " over the steps"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="{label}" '
        f'font-size="12" font-family="system-ui, sans-serif">{"".join(parts)}</svg>'
    )


class _Plot:
    def __init__(self, scale: Scale, first: int, last: int) -> None:
        self.scale, self.first, self.last = scale, first, last

    def x(self, steps: Ints) -> Floats:
        share = (np.clip(steps, self.first, self.last) - self.first) / max(1, self.last - self.first)
        return np.asarray(_LEFT + share * (_WIDTH - _LEFT - _RIGHT))

    def y(self, values: Floats) -> Floats:
        return np.asarray(_TOP + (1 - self.scale.place(values)) * (_HEIGHT - _TOP - _BOTTOM))

    def axes(self) -> list[str]:
        parts = []
        for tick in self.scale.ticks(5):
            y = float(self.y(np.array([tick]))[0])
            parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#7f7f7f" '
                         f'stroke-opacity="0.25"/><text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" '
                         f'fill="#7f7f7f">{self.scale.label(tick)}</text>')  # fmt: skip
        for tick in round_ticks(self.first, self.last, 7):
            x = float(self.x(np.array([round(tick)]))[0])
            anchor = "end" if x > _WIDTH - 30 else "middle"
            parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}" '
                         f'fill="#7f7f7f">{round(tick):,}</text>')  # fmt: skip
        return parts

    def line(self, steps: Ints, values: Floats, colour: str, width: float, opacity: float) -> str:
        """The curve as a path, interrupted where it is not finite."""
        commands, pen_up = [], True
        for x, y in zip(self.x(steps), self.y(values), strict=True):
            if np.isfinite(y):
                commands.append(f"{'M' if pen_up else 'L'}{x:.1f} {y:.1f}")
            pen_up = not np.isfinite(y)
        return (f'<path d="{"".join(commands)}" fill="none" stroke="{colour}" stroke-width="{width}" '
                f'stroke-opacity="{opacity}" stroke-linejoin="round"/>')  # fmt: skip
