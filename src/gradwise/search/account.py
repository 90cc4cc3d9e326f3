"""What a search of a script found, as data: the JSON report, from which the page on the terminal is made too."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from gradwise.interventions import Intervention
from gradwise.search.facts import speaks_of_test
from gradwise.search.jobs import Job, Result
from gradwise.search.methods import Method
from gradwise.search.protocol import Found
from gradwise.search.rows import Row
from gradwise.search.scripted import Scripted, Task


def account(found: Found, task: Task, method: Method, study: str, store: str, scripted: Scripted) -> dict[str, Any]:
    """Everything there is to say, values as the script has them.

    Args:
        found: what the search found.
        task: of what.
        method: how.
        study: its name.
        store: where it is kept.
        scripted: what made the runs, and knows what a configuration changes.
    """
    target, chosen, reference = task.target, found.chosen, found.reference
    return {
        "command": [*(["-m"] if target.module else []), target.script, *target.argv],
        "study": {"name": study, "store": store},
        "space": task.space.to_json(),
        "method": {
            "name": method.name, "settings": method.settings(), "pruning": method.pruning,
            "pruning_settings": method.pruning_settings(), "seed": method.seed,
        },
        "selected_on": selected_on(task),
        "maximize": task.maximize,
        "own": None if reference is None else _result(reference, task),
        "trials": [trial(row, task) for row in found.rows if row.state != "lost"],
        "best": None if found.best is None else found.best.number,
        "chosen": None if chosen is None else chosen.number,
        "winner": None if chosen is None else winner(chosen, task, scripted),
        "confirmed": _confirmed(found, task),
        "test": None if found.test is None else {"metric": task.test, "value": found.test},
        "ended": found.ended,
        "notes": [*_notes(found, task), *found.notes],
    }  # fmt: skip


def trial(row: Row, task: Task) -> dict[str, Any]:
    """One trial."""
    about = {"number": row.number, "config": dict(row.config), "state": row.state}
    return about if row.result is None else {**about, **_result(row.result, task)}


def selected_on(task: Task) -> str:
    """What is selected on, in words."""
    if task.metric:
        return f"the output's last {task.metric!r} ({'the higher' if task.maximize else 'the lower'} the better)"
    return "training loss" if task.on_training else "validation loss"


def winner(row: Row, task: Task, scripted: Scripted) -> dict[str, Any]:
    """A configuration as what one would run: the script's arguments, the intervention, the whole command."""
    target = task.target
    words = (*target.argv, *task.space.words(row.config))
    change = scripted.change(Job("", row.config), 0 if row.result is None else row.result.steps)
    return {
        "arguments": list(words),
        "intervention": change.to_json(),
        "changes": change.describe() if change else "",
        "command": _command(change, [*(["-m"] if target.module else []), target.script, *words]),
    }


def _command(change: Intervention, words: Sequence[str]) -> str:
    before = ["gradwise", "run", "--intervention", json.dumps(change.to_json())] if change else ["python"]
    return shlex.join([*before, *words])


def _result(result: Result, task: Task) -> dict[str, Any]:
    data: dict[str, Any] = {"value": _shown(result.value, task), "steps": result.steps, "seconds": result.seconds}
    if result.problem:
        data["problem"] = result.problem
    return data


def _shown(value: float | None, task: Task) -> float | None:
    return -value if task.maximize and value is not None else value


def _confirmed(found: Found, task: Task) -> dict[str, Any] | None:
    c = found.confirmation
    if c is None or not c.winner or c.number is None:
        return None
    pairs = [[_shown(a.value, task), _shown(b.value, task)] for a, b in zip(c.own, c.winner, strict=False)]
    gain = c.judgement.gain if c.judgement is not None and abs(c.judgement.gain) < float("inf") else None
    reason = c.problem or ("" if c.judgement is None else c.judgement.reason)
    return {"better": found.better, "pairs": pairs, "gain": gain, "reason": reason}


def _notes(found: Found, task: Task) -> list[str]:
    notes = []
    if task.on_training:
        notes.append("Selected on the training loss, which rewards overfitting: how well it generalizes isn't known.")
    elif not task.metric and task.facts is not None and task.facts.on_test_data:
        notes.append(
            "The loss selected on is taken by code that speaks of a test set. If that is the test set, it has been "
            "selected on, and no untouched test score exists."
        )
    elif task.metric and speaks_of_test(task.metric):
        notes.append("The metric selected on is called a test score: if it is one, no untouched test score exists.")
    if not task.test:
        notes.append("No test score was named (--test-metric), so there is none that selection has left untouched.")
    elif found.test is None and found.confirmation is not None:
        notes.append(f"The test score {task.test!r} was not found in what the retrained script printed.")
    return notes
