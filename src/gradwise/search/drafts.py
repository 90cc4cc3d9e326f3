"""A trial that is being made up, before anybody else sees it.

Optuna writes a trial to the database when it is asked for, and again for each parameter that is suggested. A draft is
kept here until its configuration is complete: then it is written at once, with who claims it, or not at all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import datetime
from typing import Any

from optuna import Study, Trial
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, get_storage
from optuna.trial import FrozenTrial, TrialState, create_trial

# What no trial in a database is called.
_DRAFT = -1


class Drafts(BaseStorage):
    """A storage that keeps one trial to itself and hands on all else; `Drafts.over` makes one."""

    kept: BaseStorage
    _draft: FrozenTrial

    @classmethod
    def over(cls, storage: BaseStorage) -> Drafts:
        """With all else in a storage."""
        make: Any = cls  # what it hands on is written below
        made: Drafts = make()
        made.kept = get_storage(storage)
        return made

    def begin(self, study: Study, trials: list[FrozenTrial]) -> Trial:
        """A new draft.

        Args:
            study: of which study.
            trials: all that it has.
        """
        self._draft = create_trial(state=TrialState.RUNNING)
        self._draft._trial_id, self._draft.number = _DRAFT, len(trials)
        study._thread_local.cached_all_trials = trials  # else samplers go by those they read before
        return Trial(study, _DRAFT)

    def claimed(self, run: dict[str, Any]) -> FrozenTrial:
        """The draft as a trial under way, claimed by what its run says."""
        return claimed(self._draft.params, self._draft.distributions, run, self._draft.system_attrs)

    def ended(self, value: float | None) -> FrozenTrial:
        """The draft as a trial that has ended with a value, or without."""
        return create_trial(
            state=TrialState.FAIL if value is None else TrialState.COMPLETE, value=value, params=self._draft.params,
            distributions=self._draft.distributions, system_attrs=self._draft.system_attrs,
        )  # fmt: skip

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """The draft, or another."""
        return copy.deepcopy(self._draft) if trial_id == _DRAFT else self.kept.get_trial(trial_id)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """A parameter of the draft, or of another."""
        if trial_id != _DRAFT:
            self.kept.set_trial_param(trial_id, param_name, param_value_internal, distribution)
            return
        self._draft.distributions[param_name] = distribution
        self._draft.params[param_name] = distribution.to_external_repr(param_value_internal)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """What a sampler notes of the draft, or of another."""
        if trial_id == _DRAFT:
            self._draft.system_attrs[key] = value
        else:
            self.kept.set_trial_system_attr(trial_id, key, value)


def claimed(
    params: dict[str, Any], kinds: dict[str, BaseDistribution], run: dict[str, Any], noted: dict[str, Any] | None = None
) -> FrozenTrial:
    """A trial under way, to be written in one go."""
    made = create_trial(
        state=TrialState.RUNNING, params=params, distributions=kinds, user_attrs={"run": run}, system_attrs=noted
    )
    made.datetime_start = datetime.now()
    return made


def _handed_on(name: str) -> Callable[..., Any]:
    def method(self: Drafts, *given: Any, **named: Any) -> Any:
        return getattr(self.kept, name)(*given, **named)

    return method


# What Optuna makes of `get_trial` serves drafts as well; all else is the storage's.
for _name in {*BaseStorage.__abstractmethods__, "get_trial_number_from_id", "get_n_trials", "remove_session"}:
    if _name not in vars(Drafts):
        setattr(Drafts, _name, _handed_on(_name))
Drafts.__abstractmethods__ = frozenset()
