"""What `gradwise runs` has to say of recordings: a line for each, what they differ in, how they ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwise.interventions import Intervention
from gradwise.legible import number
from gradwise.recording.recording import Recording, RunInfo, Series
from gradwise.recording.signals import LOSS, LR, VALIDATION
from gradwise.recording.store import Store

OUTCOME = ("status", "steps", "duration", "final lr", "training loss", "validation loss", "best validation", "verdict")
"""The keys of `outcome`."""


@dataclass(frozen=True, slots=True)
class Digest:
    """A run in a line: `first` is the training loss of the first step, `last` the median of the last 5 % (≤ 100)."""

    run: RunInfo
    steps: int
    first: float | None
    last: float | None
    verdict: str | None

    def to_json(self) -> dict[str, Any]:
        """The run with these figures, as a JSON object."""
        return {
            **self.run.to_json(),
            "steps": self.steps,
            "first_loss": self.first,
            "last_loss": self.last,
            "verdict": self.verdict,
        }


def digest(store: Store, run: RunInfo) -> Digest:
    """What there is to say of a run in a line."""
    head, tail = store.ends(run.id, LOSS)
    steps = int(tail.steps[-1]) + 1 if len(tail) else 0
    first = float(head.values[0]) if len(head) else None
    return Digest(run, steps, first, final(tail, steps), (store.report(run.id) or {}).get("verdict"))


def final(loss: Series, steps: int) -> float | None:
    """The loss at the end of a run: the median of its last 5 %, at most 100 points; its last if that isn't finite."""
    if not len(loss):
        return None
    last = loss.values[-max(1, min(100, steps // 20)) :]
    return float(np.median(last) if np.isfinite(last[-1]) else last[-1])


def settings(recording: Recording) -> dict[str, str]:
    """What a user may have set: script, arguments by name, each optimizer's numbers, what was changed from outside."""
    run = recording.run
    found = {"script": run.script, **arguments(run.argv)}
    if run.seed is not None:
        found["seed offset"] = str(run.seed)
    if run.intervention:
        found["intervention"] = intervention(run.intervention)
    for optimizer in recording.optimizers:
        prefix = f"optimizer {optimizer.index}" if len(recording.optimizers) > 1 else "optimizer"
        found[prefix] = optimizer.kind
        for key, value in optimizer.defaults.items():
            if value not in (None, False):
                plain = isinstance(value, int | float) and not isinstance(value, bool)
                found[f"{prefix} {key}"] = number(float(value)) if plain else str(value)
    return found


def arguments(argv: Sequence[str]) -> dict[str, str]:
    """Command-line arguments by name.

    >>> arguments(["data", "--lr", "-0.5", "--seed=3", "--amp"])
    {'argument 1': 'data', '--lr': '-0.5', '--seed': '3', '--amp': 'yes'}
    """
    named: dict[str, str] = {}
    option, plain = "", 0
    for word in argv:
        if word.startswith("-") and not _is_number(word):
            option, _, value = word.partition("=")
            named[option] = value or "yes"
            option = "" if value else option
        elif option:
            named[option] = word if named[option] == "yes" else f"{named[option]} {word}"
        else:
            plain += 1
            named[f"argument {plain}"] = word
    return named


def differences(every: Sequence[Mapping[str, str]]) -> dict[str, list[str | None]]:
    """The names whose values are not all the same, with each one's value; None where it has none."""
    names = dict.fromkeys(name for one in every for name in one)
    rows = {name: [one.get(name) for one in every] for name in names}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


def outcome(recording: Recording, about: Digest) -> dict[str, Any]:
    """How a run ended."""
    run, rate, validation = recording.run, recording.get(LR), recording.get(VALIDATION)
    finite = validation.values[np.isfinite(validation.values)]
    return {
        "status": run.status,
        "steps": about.steps,
        "duration": run.ended - run.started if run.ended else None,
        "final lr": float(rate.values.reshape(len(rate), -1)[-1, 0]) if len(rate) else None,
        "training loss": about.last,
        "validation loss": float(validation.values[-1]) if len(validation) else None,
        "best validation": float(finite.min()) if len(finite) else None,
        "verdict": about.verdict,
    }


def intervention(data: Mapping[str, Any]) -> str:
    """What an intervention changes, in words, even one that only another version of gradwise knows."""
    try:
        return Intervention.from_json(data).describe()
    except ValueError:
        return str(dict(data))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
