"""`gradwise.tune`: the search of `gradwise tune` over a Python function, in this very process."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gradwise.search.domains import Domain, SpaceError, Value
from gradwise.search.jobs import Engine, InProcess, Job, OnValue, Result
from gradwise.search.protocol import Found, Plan
from gradwise.search.protocol import tune as _tune
from gradwise.search.space import Parameter, Space
from gradwise.search.splits import Split, split
from gradwise.search.study import METHODS, PRUNING, Method, Study

if TYPE_CHECKING:
    from gradwise.batched import Training

__all__ = ["Split", "Tuned", "split", "tune"]


class _Pruned(Exception):
    """Raised in an objective that reports that it falls behind."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a search found.

    Attributes:
        config: the configuration to use; the baseline where no other was better, None where no trial gave a value.
        value: what the objective gave for it.
        better: whether it was shown to be better than the baseline, in pairs with seeds that no trial had.
        test: its test score, read once; None without `test`.
        trials: every trial: `number`, `config`, `state`, `value`.
        reason: why it is not called better; "" where it is.
        notes: what one should know.
    """

    config: dict[str, Value] | None
    value: float | None
    better: bool
    test: float | None
    trials: tuple[dict[str, Any], ...]
    reason: str = ""
    notes: tuple[str, ...] = ()


def tune(
    objective: Callable[..., float] | Training,
    space: Mapping[str, str | Value | Sequence[Value]],
    *,
    trials: int = 30,
    method: str = "tpe",
    pruning: str = "none",
    maximize: bool = False,
    baseline: Mapping[str, Value] | None = None,
    test: Callable[..., float] | None = None,
    seeds: int = 3,
    seed: int = 0,
    points: int = 5,
    epochs: int | None = None,
    store: str | None = None,
    study: str = "tune",
) -> Tuned:
    """Search for the configuration with the best validation score.

    Args:
        objective: gives a validation score for `objective(config)`. Where it has parameters of these names it is also
            given `seed` (0 in all trials, others when the winner is confirmed) and `report`: `report(epoch, value)`
            ends it where pruning finds that it falls behind. Or a `gradwise.Training`, whose configurations train
            many at once; its test data, where it has any, gives the test score.
        space: values by name: as text ("1e-4..1", "0,1e-4..1e-1", "relu,tanh"), one value, or a list.
        trials: how many.
        method: out of guess, grid, random, quasi-random, tpe, gp, cma-es, nsga-ii.
        pruning: none, median, halving or hyperband, for an objective that takes `report` (a `Training` reports each
            epoch).
        maximize: whether a higher score is better.
        baseline: a configuration to compare the winner with; it need not be in the space.
        test: gives the test score for `test(config)`, and `seed` where it has such a parameter; called once, for the
            configuration that was chosen.
        seeds: pairs of runs that confirm the winner, 3 or more; 0 for none.
        seed: of the method's own random numbers.
        points: values on each range of a grid.
        epochs: values that a whole run reports, for pruning; a `Training` has its own.
        store: a SQLAlchemy URL at which to keep the study, so that a search that was ended goes on; None keeps nothing.
        study: its name there.

    Raises:
        ValueError: a space, a method or a baseline that makes no sense.

    Example:
        >>> found = tune(lambda config: (config["lr"] - 0.03) ** 2, {"lr": [0.01, 0.03, 0.1]}, method="grid", trials=3)
        >>> found.config, found.better
        ({'lr': 0.03}, False)
    """
    if method not in METHODS:
        raise ValueError(f"tune: there is no method {method!r}; there are {', '.join(METHODS)}")
    if pruning not in PRUNING:
        raise ValueError(f"tune: there is no pruning {pruning!r}; there are {', '.join(PRUNING)}")
    if seeds in (1, 2) or seeds < 0:
        raise ValueError("tune: a comparison takes 3 pairs of runs at least (seeds=0 makes none)")
    wanted = Space(tuple(_parameter(name, values) for name, values in space.items()))
    own = None if baseline is None else dict(baseline)
    training = _training(objective)
    if training is not None:
        epochs = epochs or training.epochs
        test = training.test if test is None and training.tested is not None else test
    how = Method(method, pruning, trials, points, seed, evaluations=max(1, epochs or 1))
    function = _Function(objective, test, maximize, own)
    engine: Engine = InProcess(function)
    if training is not None and (batched := training.engine(how, own, maximize)) is not None:
        engine, how = batched, replace(how, slots=batched.slots)
    reference = None
    if own is not None:
        engine.start(Job("reference"))
        _, reference = engine.finish(lambda job, k, value: False)
        if reference.problem:
            raise ValueError(f"tune: the baseline gives no score: {reference.problem}")
    plan = Plan(trials, None, seeds if own is not None else 0, test is not None, own is not None)
    found = _tune(Study(store, study, wanted, how), engine, plan, reference)
    return _answer(found, function)


def _training(objective: Any) -> Training | None:
    """The objective, where it is a training that brings an engine of its own; torch isn't imported to find out."""
    return objective if hasattr(objective, "engine") and hasattr(objective, "tested") else None


def _parameter(name: str, values: str | Value | Sequence[Value]) -> Parameter:
    try:
        if isinstance(values, str):
            return Parameter(name, Domain.parse(values), template="{}")
        return Parameter(
            name, Domain.from_json(list(values) if isinstance(values, Sequence) else [values]), template="{}"
        )
    except SpaceError as error:
        raise SpaceError(f"{name} {error}") from None


class _Function:
    """Makes runs of an objective (`gradwise.search.jobs.Evaluate`)."""

    def __init__(
        self,
        objective: Callable[..., float],
        test: Callable[..., float] | None,
        maximize: bool,
        baseline: Mapping[str, Value] | None,
    ) -> None:
        self.objective, self.test, self.maximize, self.baseline = objective, test, maximize, baseline

    def __call__(self, job: Job, on_value: OnValue) -> Result:
        config = dict((self.baseline if job.config is None else job.config) or {})
        told: list[float] = []

        def report(epoch: int, value: float) -> None:
            told.append(value)
            if on_value(int(epoch), self.signed(float(value))):
                raise _Pruned

        try:
            value = float(_called(self.objective, config, seed=job.seed, report=report))
            score = None
            if job.test and self.test is not None:
                score = float(_called(self.test, config, seed=job.seed))
        except _Pruned:
            return Result(None, steps=len(told), pruned=True)
        except Exception as error:
            # What one configuration breaks must not end the search for others.
            return Result(None, problem=f"{type(error).__name__}: {error}"[:300])
        return Result(self.signed(value) if math.isfinite(value) else None, steps=len(told), test=score)

    def signed(self, value: float) -> float:
        """A score such that lower is better, and back."""
        return -value if self.maximize else value


def _called(function: Callable[..., float], config: dict[str, Value], **offered: Any) -> float:
    """Call with as much of what is offered as the function has parameters for."""
    try:
        known = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return function(config)
    every = any(p.kind is p.VAR_KEYWORD for p in known)
    names = {p.name for p in known}
    return function(config, **{name: value for name, value in offered.items() if every or name in names})


def _answer(found: Found, function: _Function) -> Tuned:
    rows = []
    for row in found.rows:
        value = None if row.result is None or row.result.value is None else function.signed(row.result.value)
        problem = {"problem": row.result.problem} if row.result is not None and row.result.problem else {}
        rows.append({"number": row.number, "config": dict(row.config), "state": row.state, "value": value, **problem})
    chosen, own = found.chosen, found.reference
    config = dict(chosen.config) if chosen is not None else None
    result = chosen.result if chosen is not None else own
    if config is None and found.best is not None and function.baseline is not None:
        config = dict(function.baseline)
    value = None if config is None or result is None or result.value is None else function.signed(result.value)
    return Tuned(config, value, found.better, found.test, tuple(rows), _reason(found), found.notes)


def _reason(found: Found) -> str:
    """Why the winner is not called better."""
    confirmation = found.confirmation
    if found.best is None:
        return "no trial gave a value"
    if found.reference is None:
        return "there is no baseline to compare with"
    if found.chosen is None:
        return "no trial did better than the baseline"
    if confirmation is None or (confirmation.judgement is None and not confirmation.problem):
        return "it was not compared"
    return confirmation.problem or (confirmation.judgement.reason if confirmation.judgement else "")
