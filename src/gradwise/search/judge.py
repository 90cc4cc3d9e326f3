"""When a remedy counts as *verified*: paired runs in, a judgement with its reason out.

Every pair must be better, and the gain on average larger than its spread over the seeds. All of it is differences
of one metric with differences of the same metric, so its scale, its zero and its sign don't matter.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from gradwise.diagnosis.metric import Outcome
from gradwise.legible import number


@dataclass(frozen=True, slots=True)
class Judgement:
    """What paired runs say of a remedy.

    Attributes:
        better: whether it did better in every pair.
        verified: whether, besides, the mean gain exceeds its spread over the seeds.
        gain: the mean gain; minus infinity where a remedied run diverged.
        share: the mean gain over the way that the remedied runs came down; None where their start isn't known.
        reason: what stands against it, "" where nothing does.
    """

    better: bool
    verified: bool
    gain: float
    reason: str = ""
    share: float | None = None


def judge(pairs: Sequence[tuple[Outcome, Outcome]]) -> Judgement:
    """Compare runs of the untouched script with runs of the remedied one.

    Args:
        pairs: for each seed, how the untouched run ended and how the remedied one did, by the same metric.

    >>> ends = [(Outcome("loss", 2.3), Outcome("loss", 0.2)), (Outcome("loss", 2.2), Outcome("loss", 0.3))]
    >>> judge(ends).verified
    True
    """
    diverged = [k for k, (_, after) in enumerate(pairs) if after.diverged or after.value is None]
    if diverged:
        often = f"in {len(diverged)} of {len(pairs)} runs" if len(pairs) > 1 else "with it, too"
        return Judgement(False, False, float("-inf"), f"training went wrong {often}")
    gains = [_level(before) - after.value for before, after in pairs if after.value is not None]
    gain = statistics.fmean(gains)
    worse = [k for k, g in enumerate(gains) if not g > 0]
    if worse:
        return Judgement(False, False, gain, f"no better in {len(worse)} of {_pairs(len(pairs))}")
    finite = [g for g in gains if g < float("inf")]
    spread = statistics.stdev(finite) if len(finite) > 1 else 0.0
    if not gain > spread:
        reason = f"better by {number(gain)} on average, but that varies by ±{number(spread)} from seed to seed"
        return Judgement(True, False, gain, reason)
    ways = [after.start - after.value for _, after in pairs if after.start is not None and after.value is not None]
    share = gain / statistics.fmean(ways) if len(ways) == len(pairs) and sum(ways) > 0 else None
    return Judgement(True, True, gain, share=share)


def _level(outcome: Outcome) -> float:
    """Where an untouched run counts as having ended.

    A run that exploded may stand at 2.3, at 1e30 or at NaN: the figure says how soon one looked, not how bad it is,
    and a single one of them would make the spread over the seeds larger than any gain. What all of them have in common
    is that training was for nothing, so they count as ending where they started; and so does whatever ended higher.
    Where nobody knows where they started, they are worse than any number, and say nothing about the spread.
    """
    value = float("inf") if outcome.value is None or outcome.diverged else outcome.value
    return value if outcome.start is None else min(value, outcome.start)


def _pairs(n: int) -> str:
    return f"{n} pair" if n == 1 else f"{n} pairs"
