"""Differences between runs, with what the seeds leave open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, its spread (standard deviation), and a 95 % interval for the mean (Student's t)."""

    mean: float
    spread: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}]"

    @property
    def above_zero(self) -> bool | None:
        """Whether the mean is above zero: True or False where the interval says so, None where it leaves it open."""
        return True if self.low > 0 else False if self.high < 0 else None


def estimate(values: Sequence[float], level: float = 0.95) -> Estimate:
    """The mean of one value per seed, and how sure it is.

    One value has an unbounded interval: nothing is known of its spread.
    """
    mean = fmean(values)
    if len(values) < 2:
        return Estimate(mean, math.nan, -math.inf, math.inf, len(values))
    spread = stdev(values)
    from scipy.stats import t  # type: ignore[import-untyped]

    half = float(t.ppf((1 + level) / 2, len(values) - 1)) * spread / math.sqrt(len(values))
    return Estimate(mean, spread, mean - half, mean + half, len(values))


def paired(ours: Sequence[float], theirs: Sequence[float], level: float = 0.95) -> Estimate:
    """The mean of (ours - theirs), seed by seed: the spread that both share cancels."""
    return estimate([a - b for a, b in zip(ours, theirs, strict=True)], level)
