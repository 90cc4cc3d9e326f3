"""Configurations as Optuna has them: where values and ranges are mixed, first which piece, then where in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gradwise.search.domains import Range, Value
from gradwise.search.space import Configuration, Parameter, Space

if TYPE_CHECKING:
    import optuna


def suggest(trial: optuna.Trial, parameter: Parameter) -> Value:
    """A value of one parameter; where values and ranges are mixed, first which piece, then where in it."""
    name, pieces = parameter.name, parameter.domain.pieces
    if len(pieces) == 1 and isinstance(pieces[0], Range):
        return _within(trial, name, pieces[0])
    if not any(isinstance(p, Range) for p in pieces):
        chosen = trial.suggest_categorical(name, [p for p in pieces if not isinstance(p, Range)])
        assert chosen is not None
        return chosen
    k = trial.suggest_categorical(f"{name}:piece", list(range(len(pieces))))
    piece = pieces[k]
    return _within(trial, f"{name}:{k}", piece) if isinstance(piece, Range) else piece


def _within(trial: optuna.Trial, name: str, span: Range) -> Value:
    if span.whole:
        return trial.suggest_int(name, int(span.low), int(span.high), log=span.log)
    return trial.suggest_float(name, span.low, span.high, log=span.log)


def distributions(space: Space, parts: Mapping[str, Value]) -> dict[str, optuna.distributions.BaseDistribution]:
    """Those that `suggest` would use for these parts."""
    import optuna

    study = optuna.create_study()
    study.enqueue_trial(dict(parts))
    trial = study.ask()
    space.active(lambda p: suggest(trial, p))
    return trial.distributions


def encoded(space: Space, config: Configuration) -> dict[str, Value]:
    """A configuration by the names that `suggest` gives its parts."""
    found: dict[str, Value] = {}
    for parameter in space.parameters:
        if parameter.name not in config:
            continue
        name, value, pieces = parameter.name, config[parameter.name], parameter.domain.pieces
        if len(pieces) == 1 or not any(isinstance(p, Range) for p in pieces):
            found[name] = value
            continue
        k = next(k for k, p in enumerate(pieces) if (value in p if isinstance(p, Range) else value == p))
        found[f"{name}:piece"] = k
        if isinstance(pieces[k], Range):
            found[f"{name}:{k}"] = value
    return found
