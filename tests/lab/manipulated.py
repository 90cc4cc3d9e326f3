"""Runs changed on purpose, to see that verdicts follow from what was measured."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from gradwise.lab.experiment import Experiment, Measures, Runs, Statement


def swapped(runs: Runs, one: str, other: str) -> dict[str, Mapping[int, Measures]]:
    """The runs with two cells in each other's place: what held for one must now hold for the other."""
    return {**runs, one: runs[other], other: runs[one]}


def altered(runs: Runs, change: Callable[[str, int, dict[str, Any]], None]) -> dict[str, dict[int, Any]]:
    """A copy in which `change(cell, seed, measures)` has changed each run's measures in place."""
    found = {cell: {seed: copy.deepcopy(dict(m)) for seed, m in by_seed.items()} for cell, by_seed in runs.items()}
    for cell, by_seed in found.items():
        for seed, measures in by_seed.items():
            change(cell, seed, measures)
    return found


def updated(runs: Runs, cell: str, **changes: Any) -> dict[str, dict[int, Any]]:
    """A copy in which one cell's measures are others, for all seeds."""
    return altered(runs, lambda name, seed, measures: measures.update(changes if name == cell else {}))


def held(experiment: Experiment, runs: Runs) -> list[bool | None]:
    """Of each statement of the judgement, whether it held."""
    return [s.held for s in experiment.judge(runs).statements]


def statement(experiment: Experiment, runs: Runs, part: str) -> Statement:
    """The one statement of the judgement whose text has `part` in it."""
    found = [s for s in experiment.judge(runs).statements if part in s.text]
    assert len(found) == 1, f"{len(found)} statements have {part!r}: {[s.text for s in found]}"
    return found[0]
