"""`gradwise.tune`: the search of `gradwise tune` over a Python function, in this very process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gradwise.search.cluster import Share
from gradwise.search.domains import Domain, SpaceError, Value
from gradwise.search.engines import Where, one
from gradwise.search.functions import Function
from gradwise.search.jobs import Job
from gradwise.search.methods import METHODS, PRUNING, Method
from gradwise.search.pending import here
from gradwise.search.protocol import Found, Plan
from gradwise.search.protocol import tune as _tune
from gradwise.search.space import Parameter, Space
from gradwise.search.splits import Split, split
from gradwise.search.study import Study

if TYPE_CHECKING:
    from gradwise.batched import Training

__all__ = ["Split", "Tuned", "split", "tune"]


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
    jobs: int | None = None,
    engine: str = "local",
    address: str | None = None,
    cpus: int = 1,
    gpus: float | None = None,
    timeout: float | None = None,
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
        jobs: trials at a time: one by one in this process, more by worker processes, which import the objective by its
            name; on a Ray cluster as many as there is room for.
        engine: "local", or "ray" for a Ray cluster, to which the objective is sent.
        address: the cluster's; None takes `RAY_ADDRESS`, or the cluster on this machine.
        cpus: cores for a trial there.
        gpus: GPUs for a trial there; None is one where the cluster has any.
        timeout: seconds for a trial by a worker, after which it has failed; None is no limit.

    Raises:
        ValueError: a space, a method or a baseline that makes no sense.
        EngineError: (a RuntimeError) workers can't be had, or can't be told what to run.

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
        if test is not None:
            raise ValueError("tune: a Training has test data of its own: give it (training, validation, test)")
        test = training.test if training.tested is not None else None
    how = Method(method, pruning, trials, points, seed, evaluations=max(1, epochs or 1))
    where = Where(engine, jobs, address, Share(cpus, gpus))
    function = Function(objective, test, maximize, own, timeout)
    batched = training.engine(how, own, maximize) if training is not None and where.here else None
    with closing(batched or where.made(function, function)) as made:
        how = replace(how, slots=made.slots)
        reference = None if own is None else one(made, Job("reference"))
        if reference is not None and reference.problem:
            raise ValueError(f"tune: the baseline gives no score: {reference.problem}")
        plan = Plan(trials, None, seeds if own is not None else 0, test is not None, own is not None)
        kept = Study(store, study, wanted, how, here(), _say)
        kept.note("question", {"maximize": maximize})
        if reference is not None:
            kept.note("reference", {"result": reference.to_json(), "config": own})
        found = _tune(kept, made, plan, reference)
    return _answer(found, function)


def _training(objective: Any) -> Training | None:
    """The objective, where it is a training that brings an engine of its own; torch isn't imported to find out."""
    return objective if hasattr(objective, "engine") and hasattr(objective, "tested") else None


def _say(words: str) -> None:
    print(f"gradwise: {words}", file=sys.stderr)


def _parameter(name: str, values: str | Value | Sequence[Value]) -> Parameter:
    try:
        if isinstance(values, str):
            return Parameter(name, Domain.parse(values), template="{}")
        return Parameter(
            name, Domain.from_json(list(values) if isinstance(values, Sequence) else [values]), template="{}"
        )
    except SpaceError as error:
        raise SpaceError(f"{name} {error}") from None


def _answer(found: Found, function: Function) -> Tuned:
    rows = []
    for row in (r for r in found.rows if r.state != "lost"):  # which are made again
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
