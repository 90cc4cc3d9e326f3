"""A replayed trial that tells what kind of point the script's training is at, paid for from the repair's budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from gradwise.legible import duration
from gradwise.search.attempts import Attempts, OverError
from gradwise.trials.runner import Trial

# What a Hessian-vector product costs, in training steps: a backward pass for the gradient's graph, two through it.
_PRODUCT = 3.0
_NEWTON = 15  # products for how far the critical point is


@runtime_checkable
class Replayer(Protocol):
    """Where replays are made (`gradwise.trials.runner.Runner`)."""

    def replay(self, order: Mapping[str, int], seed: int, timeout: float) -> Trial:
        """The script as it is, up to the step at which the curvature is measured."""
        ...


@dataclass(frozen=True)
class Replayed:
    """What came of it.

    Attributes:
        data: what was measured: `kind`, `why`, `gradient_norm`, `gradient_noise`, `smallest`, `largest` (each with
            `value`, `residual`, `noise`), `newton`, `fresh`, `direction`, `products`, `seconds`; `sharpness` for SGD.
            Empty where there is a problem.
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
    attempts: Attempts, step: int, source: int = 0, products: int = 25, batches: int = 4, fresh: int = 4
) -> Replayed:
    """Run the script again with the watched run's luck up to `step`, and measure the curvature of its loss there.

    Args:
        attempts: whose budget pays, and whose bench makes it.
        step: the optimizer's step before which to measure.
        source: the optimizer's index.
        products: for the ends of the spectrum, at most.
        batches: the step's and those after it, over which the loss is averaged; their graphs are in memory together.
        fresh: batches after these, to check the directions with.

    Raises:
        OverError: there is no time left for it, or the bench makes no replays.
    """
    bench = attempts.bench
    if not isinstance(bench, Replayer):
        raise OverError("not measured: there is nowhere to replay the script")
    training = step + batches + fresh
    measuring = _PRODUCT * ((products + _NEWTON + 3) * batches + 2 * fresh)
    expected = attempts.costs.of(training + round(measuring))
    if expected > attempts.left:
        raise OverError(f"the budget of {duration(attempts.plan.budget)} was spent")
    attempts.plan.progress("the script as it is, for the curvature", 1, 1)
    order = {"step": step, "source": source, "products": products, "batches": batches, "fresh": fresh}
    trial = bench.replay(order, 0, min(attempts.left, 30 + 10 * expected))
    attempts.spent += trial.seconds
    events = trial.recording.happened("curvature")
    if not events:
        return Replayed({}, trial.problem or f"the run ended before step {step}", trial.seconds)
    problem = events[0].data.get("problem")
    if problem:
        return Replayed({}, str(problem), trial.seconds)
    return Replayed(dict(events[0].data), "", trial.seconds)
