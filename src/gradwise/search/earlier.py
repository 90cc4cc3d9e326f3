"""What earlier studies of the same script found: guesses for the next one.

They enter as guesses that are tried again, not as finished trials: data, code, seeds or the length of a run may have
changed since, and a value that can't be had any more would be chosen and never confirmed. A guess costs a run and
can't mislead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gradwise.search.domains import SpaceError, Value
from gradwise.search.jobs import Result
from gradwise.search.space import Configuration, Space
from gradwise.search.storage import Storage, quietly

# What earlier studies must have in common with this one: what was run, and by what it was judged.
_SAME = ("script", "argv", "module", "metric", "maximize", "on_training", "which")


@dataclass(frozen=True, slots=True)
class Guess:
    """A configuration of an earlier study: where it comes from, and the value it had there (the lower the better)."""

    study: str
    number: int
    config: Configuration
    value: float

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {**asdict(self), "config": dict(self.config)}


def earlier(url: str | None, name: str, question: Mapping[str, Any], space: Space) -> list[Guess]:
    """Trials of other studies of the same script that lie in a space, best first; of equal ones the better.

    Args:
        url: the database.
        name: the study that asks.
        question: what it asks, as `same_question` keeps it.
        space: where guesses must lie. What a trial set beside it is left out; what it did not set is `own` where the
            space has that.
    """
    storage = Storage(url)
    found: list[Guess] = []
    with quietly(), storage.explained():
        for study in storage.optuna.get_all_studies():
            attributes = storage.optuna.get_study_user_attrs(study._study_id)
            asked = attributes.get("question") or {}
            if study.study_name == name or any(asked.get(key) != question.get(key) for key in _SAME):
                continue
            for trial in storage.optuna.get_all_trials(study._study_id, deepcopy=False):
                guess = _guess(study.study_name, trial, space)
                if guess is not None:
                    found.append(guess)
    best: list[Guess] = []
    for guess in sorted(found, key=lambda g: g.value):
        if all(guess.config != other.config for other in best):
            best.append(guess)
    return best


def _guess(study: str, trial: Any, space: Space) -> Guess | None:
    run, result = trial.user_attrs.get("run"), trial.user_attrs.get("result")
    if trial.state.name != "COMPLETE" or run is None or result is None:
        return None
    value = Result.from_json(result).value
    if value is None:
        return None
    try:
        config = space.active(lambda p: _value(run["config"], p.name, p.domain))
        space.check(config)
    except (SpaceError, KeyError):
        return None
    return Guess(study, trial.number, config, value)


def _value(config: Mapping[str, Value], name: str, domain: Any) -> Value:
    """What a trial had for a parameter of another space."""
    if name not in config and "own" in domain:
        return "own"
    return config[name]
