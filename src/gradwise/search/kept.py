"""A study to look at: what was tried and how it came out, without taking part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradwise.search.jobs import Result
from gradwise.search.rows import Row, best_of, row_of
from gradwise.search.storage import NoStudiesError, Storage, StudyError, quietly

LAST = "last"
"""Names the study that was begun last."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a database says of a study.

    Attributes:
        name: which.
        rows: its trials by number, those without a configuration left out.
        notes: what else was kept with it.
    """

    name: str
    rows: Mapping[int, Row]
    notes: Mapping[str, Any]

    @property
    def own(self) -> Row | None:
        """The script's own settings, or the baseline, as trial -1; None where they were not run."""
        noted = self.notes.get("reference")
        if noted is None:
            return None
        names = dict.fromkeys(name for row in self.rows.values() for name in row.config)
        config = noted.get("config") or dict.fromkeys(names, "own")
        return Row(-1, config, "complete", Result.from_json(noted["result"]))

    @property
    def best(self) -> Row | None:
        """The trial with the lowest value; of equals the first."""
        return best_of(row for _, row in sorted(self.rows.items()))

    @property
    def measure(self) -> str:
        """What was selected on, in a few words."""
        asked = self.notes.get("question") or {}
        if asked.get("metric"):
            return f"last {asked['metric']!r}"
        if "on_training" not in asked:
            return "value"
        return "training loss" if asked["on_training"] else "validation loss"

    def shown(self, value: float | None) -> float | None:
        """A value as the user has it: kept are such that lower is better."""
        maximize = (self.notes.get("question") or {}).get("maximize")
        return -value if maximize and value is not None else value

    def confirmed(self, row: Row) -> list[Result]:
        """How a trial's configuration, or the own settings, did with the seeds of the confirmation, seed by seed."""
        found: list[Result] = []
        for key, noted in self.notes.items():
            word, _, rest = key.partition(" ")
            if word != "confirmation" or (row.number >= 0 and rest.split()[0] != str(row.number)):
                continue
            kind = "own" if row.number < 0 else "winner"
            runs = {k: r for k, r in noted["runs"].items() if k.startswith(f"{kind} ")}
            if len(runs) > len(found):
                found = [Result.from_json(runs[k]) for k in sorted(runs, key=lambda k: int(k.split()[1]))]
        return found

    def named(self, word: str) -> Row:
        """A trial by its number, or by `best` or `own`.

        Raises:
            StudyError: there is none.
        """
        row = self.best if word == "best" else self.own if word == "own" else None
        if word.isdecimal():
            row = self.rows.get(int(word))
        if row is not None:
            return row
        if word == "own":
            raise StudyError(f"the study {self.name} has no run of the script's own settings")
        if word == "best":
            raise StudyError(f"no trial of the study {self.name} has a value yet")
        there = f"its trials are {_spans(sorted(self.rows))}" if self.rows else "it has none yet"
        what = f"trial {word}" if word.isdecimal() else f"trial {word!r} (write its number, or best, or own)"
        raise StudyError(f"the study {self.name} has no {what}: {there}")


def kept(url: str, name: str) -> Kept:
    """A study as it lies in its database.

    Args:
        url: the database.
        name: which: its name, any part of it that no other has, or `last`.

    Raises:
        StudyError: the database can't be used, or has no such study.
    """
    storage = Storage(url, make=False)
    with quietly(), storage.explained():
        studies = {s.study_name: s._study_id for s in storage.optuna.get_all_studies()}
        full = _full(name, sorted(studies, key=lambda n: studies[n]), storage.where)
        trials = storage.optuna.get_all_trials(studies[full], deepcopy=False)
        notes = storage.optuna.get_study_user_attrs(studies[full])
    rows = {row.number: row for row in map(row_of, trials) if row is not None}
    return Kept(full, rows, notes)


def _full(name: str, studies: Sequence[str], where: str) -> str:
    """The name of a study; `studies` in the order in which they were begun."""
    if name in studies:
        return name
    if name == LAST and studies:
        return studies[-1]
    alike = [s for s in studies if name in s]
    if len(alike) == 1:
        return alike[0]
    if not studies:
        raise NoStudiesError(where)
    shown = [*(alike or studies)[-5:]]
    more = f" and {len(alike or studies) - len(shown)} more" if len(alike or studies) > len(shown) else ""
    if alike:
        raise StudyError(f"several studies have {name!r} in their names: {', '.join(shown)}{more}")
    raise StudyError(f"there is no study {name!r} in {where}; there are {', '.join(shown)}{more}")


def _spans(numbers: Sequence[int]) -> str:
    """Numbers in few words.

    >>> _spans([0, 1, 2, 5, 7, 8])
    '0 to 2, 5, 7 to 8'
    """
    spans: list[list[int]] = []
    for n in numbers:
        if spans and n == spans[-1][1] + 1:
            spans[-1][1] = n
        else:
            spans.append([n, n])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in spans)
