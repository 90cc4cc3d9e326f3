"""Which of the searched parameters decide the score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradwise.search.domains import Domain, Range, SpaceError, Value
from gradwise.search.storage import quietly

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def importances(
    trials: Sequence[tuple[Mapping[str, Value], float]], space: Mapping[str, str], seed: int = 0
) -> dict[str, float]:
    """Each parameter's share of the score's variance over the space, by itself; in all no more than 1.

    A forest of regression trees is fitted to the trials, and the variance of its prediction taken apart. What is
    important depends on the space: a parameter that is searched within narrow bounds decides little. Needs
    scikit-learn (the extra `lab`).

    Args:
        trials: configurations with their scores; few dozen of a random search tell something.
        space: from each parameter to its values, as text.
        seed: of the forest.

    Raises:
        ValueError: there are fewer than two trials, or a parameter has both single values and a range.

    Example:
        >>> trials = [({"lr": 10**-k, "units": u}, float(k)) for k in range(5) for u in (8, 16)]
        >>> found = importances(trials, {"lr": "1e-4..1", "units": "8,16"})
        >>> found["lr"] > 0.9, found["units"] < 0.1
        (True, True)

    Source: Hutter, Hoos & Leyton-Brown (2014), "An efficient approach for assessing hyperparameter importance".
    """
    if len(trials) < 2:
        raise ValueError(f"importances: two trials at least, got {len(trials)}")
    import optuna

    domains = {name: Domain.parse(values) for name, values in space.items()}
    kinds = {name: _distribution(name, domain) for name, domain in domains.items()}
    with quietly():
        study = optuna.create_study()
        for config, score in trials:
            placed = {name: _place(domain, config[name]) for name, domain in domains.items()}
            study.add_trial(optuna.create_trial(params=placed, distributions=kinds, value=score))
        evaluator: Any = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        found = evaluator.evaluate(study, params=list(space))
    return {name: float(found[name]) for name in space}


def _place(domain: Domain, value: Value) -> Any:
    """Where a value lies. Optuna's evaluator takes equal differences as equally far, also on logarithmic ranges."""
    [first, *_] = domain.pieces
    return math.log10(float(value)) if isinstance(first, Range) and first.log else value


def _distribution(name: str, domain: Domain) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if not any(isinstance(piece, Range) for piece in domain.pieces):
        return CategoricalDistribution([_plain(piece) for piece in domain.pieces])
    [first, *more] = domain.pieces
    if more or not isinstance(first, Range):
        raise SpaceError(f"importances: {name} has both single values and a range: name one or the other")
    ends = (math.log10(first.low), math.log10(first.high)) if first.log else (first.low, first.high)
    return FloatDistribution(*ends)


def _plain(piece: Value | Range) -> Value:
    assert not isinstance(piece, Range)
    return piece
