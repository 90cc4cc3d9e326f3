"""A trial as a study knows it, and as Optuna keeps it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradwise.search.jobs import Result
from gradwise.search.space import Configuration

if TYPE_CHECKING:
    import optuna

_ENDED = ("complete", "pruned", "failed")
_STATES = {"RUNNING": "running", "WAITING": "waiting", "COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


@dataclass(frozen=True, slots=True)
class Row:
    """One trial: `state` is "running", "waiting", "complete", "pruned", "failed" or "lost"."""

    number: int
    config: Configuration
    state: str
    result: Result | None = None

    @property
    def ended(self) -> bool:
        """Whether it was run, so that it counts."""
        return self.state in _ENDED


def best_of(rows: Iterable[Row]) -> Row | None:
    """The completed trial with the lowest value; of equals the first."""
    done = [r for r in rows if r.state == "complete" and r.result is not None and r.result.value is not None]
    return min(done, key=lambda r: r.result.level if r.result else math.inf, default=None)


def row_of(trial: optuna.trial.FrozenTrial) -> Row | None:
    """A trial; None where nobody has said yet what it runs."""
    run, result = trial.user_attrs.get("run"), trial.user_attrs.get("result")
    if run is None:
        return None
    state = "lost" if trial.user_attrs.get("lost") else _STATES[trial.state.name]
    return Row(trial.number, run["config"], state, None if result is None else Result.from_json(result))


def state_of(result: Result) -> str:
    """What a result makes of its trial."""
    if result.lost:
        return "lost"
    return "failed" if result.problem else "pruned" if result.pruned else "complete"
