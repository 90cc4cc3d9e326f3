"""Replayed trials, paid for from the repair's budget: what kind of point training is at, where a NaN came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from gradwise.legible import duration
from gradwise.search.attempts import Attempts, OverError, same_luck
from gradwise.trials.runner import Trial

# What a Hessian-vector product costs, in training steps: a backward pass for the gradient's graph, two through it.
_PRODUCT = 3.0
_NEWTON = 15  # products for how far the critical point is
# With few batches a direction found with them looks lower by them than it is. More cost little beside the start.
_BATCHES = (16, 8, 4)
_SHARE = 0.1
# A step in which every operation is looked at, in plain ones, where the operations are smallest: some ten calls beside
# each, and a stack of callers for autograd.
_TRACED = 20
_BEFORE, _BEYOND = 2, 3
_UNPAIRED = 0.3


@runtime_checkable
class Replayer(Protocol):
    """Where replays are made (`gradwise.trials.runner.Runner`)."""

    def replay(self, order: Mapping[str, int], seed: int, timeout: float) -> Trial:
        """The script as it is, up to the step at which the curvature is measured."""
        ...


@runtime_checkable
class Tracer(Protocol):
    """Where what is not finite is traced back (`gradwise.trials.runner.Runner`)."""

    def trace(self, order: Mapping[str, int], seed: int, timeout: float) -> Trial:
        """The script as it is, up to the loss that is not finite."""
        ...


@dataclass(frozen=True)
class Replayed:
    """What came of it.

    Attributes:
        data: what was found. Of a trace: as `gradwise.trials.trace.Trace` tells it. Of the curvature: `kind`, `why`,
            `gradient_norm`, `gradient_noise`, `smallest`, `largest` (each with `value`, `residual`, `noise`),
            `newton`, `fresh`, `direction`, `products`, `seconds`; `sharpness` for SGD. Empty where there is a problem.
        problem: why nothing was measured, in words; "" where it was.
        seconds: what it took.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    seconds: float = 0.0

    @property
    def kind(self) -> str:
        """The kind of point; "inconclusive" where nothing was measured."""
        return str(self.data.get("kind", "inconclusive"))


def curvature_at(
    attempts: Attempts, step: int, source: int = 0, products: int = 25, batches: int | None = None, share: float = 1.0
) -> Replayed:
    """Run the script again with the watched run's luck up to `step`, and measure the curvature of its loss there.

    Args:
        attempts: whose budget pays, and whose bench makes it.
        step: the optimizer's step before which to measure.
        source: the optimizer's index.
        products: for the ends of the spectrum, at most.
        batches: the step's and those after it, over which the loss is averaged, their graphs in memory together; as
            many more check the directions. None: 16, or, where these would take more than a tenth of the time left,
            fewer, but 4 at least.
        share: of the time left that it may take.

    Raises:
        OverError: there is no time left for it, or the bench makes no replays.
    """
    bench = attempts.bench
    if not isinstance(bench, Replayer):
        raise OverError("not measured: there is nowhere to replay the script")

    def cost(count: int) -> float:
        measuring = _PRODUCT * ((products + _NEWTON + 3) * count + 2 * count)
        return attempts.costs.of(step + 2 * count + round(measuring))

    if batches is None:
        extra = _SHARE * attempts.left
        batches = next((n for n in _BATCHES if cost(n) - attempts.costs.of(step) <= extra), _BATCHES[-1])
    expected = cost(batches)
    _affords(attempts, expected, share)
    attempts.plan.progress("the script as it is, for the curvature", 1, 1)
    order = {"step": step, "source": source, "products": products, "batches": batches, "fresh": batches}
    trial = bench.replay(order, 0, min(attempts.waits, 30 + 10 * expected))
    attempts.charge(trial)
    return _told(trial, "curvature", step)


def origin_of(attempts: Attempts, step: int, source: int = 0, share: float = 1.0) -> Replayed:
    """Run the script again with the watched run's luck, and find where a loss that was not finite at `step` came from.

    Where the watched run's luck can't be had again the loss fails at another step. Then as many are looked at as that
    share of the time left allows, half of them before that step.

    Args:
        attempts: whose budget pays, and whose bench makes it.
        step: the optimizer's step at which the loss was first not finite.
        source: the optimizer's index.
        share: of the time left that it may take.

    Raises:
        OverError: there is no time left for it, or the bench makes no replays.
    """
    bench = attempts.bench
    if not isinstance(bench, Tracer):
        raise OverError("not traced: there is nowhere to replay the script")
    found = None
    if attempts.plan.paired:
        trial = _trace(attempts, bench, step, source, min(_BEFORE, step), _BEYOND, share)
        found = _told(trial, "non-finite-origin", step)
        # Seeds of some generators are not those of all: the first loss tells whether it was the same luck.
        if not found.problem or same_luck(attempts.recording, trial.recording):
            return found
    afforded = (attempts.costs.affordable(min(share, _UNPAIRED) * attempts.left) - step) // _TRACED
    before = min(step, max(_BEFORE, afforded // 2))
    trial = _trace(attempts, bench, step, source, before, max(_BEYOND, afforded - before), share)
    again = _told(trial, "non-finite-origin", step)
    return again if found is None else replace(again, seconds=found.seconds + again.seconds)


def _trace(attempts: Attempts, bench: Tracer, step: int, source: int, before: int, beyond: int, share: float) -> Trial:
    looked = before + 1 if beyond <= _BEYOND else before + beyond
    expected = attempts.costs.of(step + _TRACED * looked)
    _affords(attempts, expected, share)
    attempts.plan.progress("the script as it is, for where the NaN began", 1, 1)
    order = {"step": step, "source": source, "before": before, "beyond": beyond}
    trial = bench.trace(order, 0, min(attempts.waits, 30 + 10 * expected))
    attempts.charge(trial)
    return trial


def _affords(attempts: Attempts, expected: float, share: float) -> None:
    if expected > attempts.left:
        raise OverError(f"the budget of {duration(attempts.plan.budget)} was spent")
    if expected > share * attempts.left:
        raise OverError(f"it would take about {duration(expected)} of {duration(attempts.left)}")


def _told(trial: Trial, kind: str, step: int) -> Replayed:
    events = trial.recording.happened(kind)
    if not events:
        return Replayed({}, trial.problem or f"the run ended before step {step}", trial.seconds)
    problem = events[0].data.get("problem")
    if problem:
        return Replayed({}, str(problem), trial.seconds)
    return Replayed(dict(events[0].data), "", trial.seconds)
