"""The shape of a loss curve, measured so that neither its scale nor its sign matters.

Everything compares differences of the loss with other differences of it, or with its own noise: adding a constant to
the loss or multiplying it by a positive number changes no ratio here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradwise.recording.recording import Floats, Ints, Series

# Fewer points than this show no shape.
LEAST = 12
_WINDOWS = 40
_PER_WINDOW = 5
_FIRST = 8
# A median's standard error over a mean's, and a standard deviation over a median absolute deviation (normal law).
_MEDIAN = 1.2533
_MAD = 1.4826


@dataclass(frozen=True, slots=True)
class Curve:
    """A loss curve up to its first non-finite value, in windows of equally many steps.

    Attributes:
        steps, losses: the finite part, every step.
        centre, level, noise, error: per window its middle step, median, noise of one step around its trend, and the
            standard error of its median.
        start: the loss before training moved anything.
        first_bad: step of the first loss that is not finite.
        bad_at_end: whether losses are still not finite at the end.
    """

    steps: Ints
    losses: Floats
    centre: Floats
    level: Floats
    noise: Floats
    error: Floats
    start: float
    start_error: float
    first_bad: int | None
    bad_at_end: bool

    @property
    def best_window(self) -> int:
        """The window with the lowest level."""
        return int(np.argmin(self.level))

    @property
    def best(self) -> float:
        """The lowest level reached."""
        return float(min(self.level.min(), self.start))

    @property
    def end(self) -> float:
        """Level over the last tenth of the run (at least one window)."""
        return float(np.median(self.level[-max(1, len(self.level) // 10) :]))

    @property
    def fall(self) -> float:
        """How far it came down at best."""
        return self.start - self.best

    @property
    def net(self) -> float:
        """How far down it ended."""
        return self.start - self.end

    @property
    def lost(self) -> float:
        """How much of the way down was lost again by the end."""
        return self.end - self.best

    @property
    def peak(self) -> float:
        """How far a window's level, or a lone step beyond the noise, rose above the start."""
        return float(max(self.level.max() - self.start, 0.0))

    def sigmas(self, difference: float) -> float:
        """A difference between two levels in standard errors of such a difference."""
        scale = float(np.hypot(np.median(self.error), self.start_error))
        return difference / scale if scale > 0 else (np.inf * np.sign(difference) if difference else 0.0)

    @property
    def learned(self) -> float:
        """The net fall in standard errors, measured from the first 1, 2, 4, … steps, whichever tells most.

        The first loss alone is the true start, but a single noisy number; many steps have less noise, but some of
        the fall is over by then. Where they lie higher, the loss rose first: that is no start to fall from.
        """
        return self._learned(self.end, float(self.error[-1]))

    def learned_before(self, window: int) -> float:
        """The same for the fall to the level of a window."""
        return self._learned(float(self.level[window]), float(self.error[window]))

    def _learned(self, level: float, level_error: float) -> float:
        noise = float(np.median(self.noise))
        found = [-np.inf]
        count = 1
        while count <= max(len(self.losses) // 8, 1):
            error = float(np.hypot(_MEDIAN * noise / np.sqrt(count), level_error))
            difference = min(float(np.median(self.losses[:count])), self.start) - level
            found.append(difference / error if error > 0 else np.inf * np.sign(difference) if difference else 0.0)
            count *= 2
        return float(max(found))

    @property
    def came_down(self) -> float:
        """By how many standard errors the second half of the run lies below its first eighth.

        Where single losses are noisy, that tells of a fall which neither the first few losses nor the last ones can
        show alone. Errors are taken from how the levels of the second half differ, which contains a slow wandering too.
        """
        head, tail = self.level[: max(len(self.level) // 8, 1)], self.level[len(self.level) // 2 :]
        error = max(float(np.std(tail, ddof=1)), float(np.median(self.error))) * np.sqrt(1 / len(head) + 1 / len(tail))
        difference = float(head.mean() - tail.mean())
        return float(difference / error if error > 0 else np.inf * np.sign(difference) if difference else 0.0)

    @property
    def spike(self) -> float:
        """How far the highest single loss rose above the start."""
        return max(float(self.losses.max()) - self.start, 0.0)

    def share_after(self, fraction: float) -> float:
        """The part of the net fall that came after that fraction of the run: 1 - fraction where it fell in a line."""
        window = int(len(self.level) * fraction)
        before, after = self.level[: max(window, 1)], self.level[window:]
        middle = float(np.median(np.concatenate([before[-1:], after[:1]])))
        return (middle - self.end) / self.net if self.net > 0 else 0.0

    def late_slope(self, fraction: float = 0.5) -> tuple[float, float]:
        """Slope of the level over the last `fraction` of the run, times that stretch, and its standard error."""
        first = min(int(len(self.level) * (1 - fraction)), len(self.level) - 3)
        x, y = self.centre[max(first, 0) :], self.level[max(first, 0) :]
        span = x[-1] - x[0]
        design = np.stack([np.ones(len(x)), (x - x.mean()) / span], axis=1)
        solution, *_ = np.linalg.lstsq(design, y, rcond=None)
        residual = y - design @ solution
        freedom = max(len(x) - 2, 1)
        spread = max(float(np.sqrt((residual**2).sum() / freedom)), float(np.median(self.error)))
        return float(solution[1]), spread / float(np.sqrt((design[:, 1] ** 2).sum()))


def curve_of(series: Series) -> Curve | None:
    """The curve of a loss series; None where fewer than `LEAST` finite losses were recorded."""
    values = series.values if series.values.ndim == 1 else series.values[:, 0]
    finite = np.isfinite(values)
    bad = np.flatnonzero(~finite)
    first_bad = int(series.steps[bad[0]]) if len(bad) else None
    stop = len(values)
    if len(bad):
        # A lone bad value in a run that goes on is skipped; where most of what follows is bad, the run ended there.
        after = finite[bad[0] :]
        stop = int(bad[0]) if after.mean() < 0.5 else len(values)
    steps, losses = series.steps[:stop][finite[:stop]], values[:stop][finite[:stop]].astype(np.float64)
    if len(losses) < LEAST:
        return None
    count = min(_WINDOWS, len(losses) // _PER_WINDOW) if len(losses) >= 4 * _PER_WINDOW else 4
    parts = np.array_split(np.arange(len(losses)), count)
    centre = np.array([steps[p].mean() for p in parts])
    level = np.array([np.median(losses[p]) for p in parts])
    noise = np.array([noise_of(losses[p]) for p in parts])
    error = _MEDIAN * noise / np.sqrt([len(p) for p in parts])
    start, count = _start(losses, float(np.quantile(noise, 0.25)))
    # Not the first window's noise: there the fall itself is steepest and bends most.
    start_error = float(np.median(noise)) / np.sqrt(count)
    bad_at_end = bool(len(values) and not finite[-max(1, len(values) // 50) :].any())
    return Curve(steps, losses, centre, level, noise, error, start, start_error, first_bad, bad_at_end)


def _start(losses: Floats, noise: float) -> tuple[float, int]:
    """The level before training moved anything, and how many losses it rests on.

    Only the first loss is from before any step; the next few stand in for it as far as they lie within its noise.
    """
    first = losses[: max(_FIRST, len(losses) // 2000)]
    near = first[np.abs(first - first[0]) <= 4 * noise]
    return (float(np.median(near)), len(near)) if len(near) else (float(first[0]), 1)


def noise_of(values: Floats) -> float:
    """Noise of one step: from second differences, in which a smooth trend cancels; robust to lone spikes."""
    if len(values) < 3:
        return 0.0
    second = values[2:] - 2 * values[1:-1] + values[:-2]
    return float(_MAD * np.median(np.abs(second)) / np.sqrt(6.0))
